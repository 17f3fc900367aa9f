"""Edge attribution patching: every edge from one gradient, or from gradients along a path.

The score of an edge u->v is ``sum over positions of (other(u) - own(u)) . slope(v)``, where the slope is that
of what v reads before its norm (Syed et al. 2023, 2310.10348; Hanna et al. 2024, 2403.17806). Heads are kept
as ``z``; one layer of them at a time is written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.edges.blocks import Blocks, contribution
from interp.mediation.edges.gradients import ReaderSlopes, needed
from interp.mediation.edges.job import EdgeJob, Edges
from interp.mediation.edges.run import carriers_of
from interp.mediation.effects import Effects
from interp.mediation.metrics import Targets
from interp.mediation.searches.gradients import PER_PASS, SIGNS, need_gradient, slopes
from interp.mediation.searches.verify import verified
from interp.models.forward import gradients
from interp.models.interventions import Intervention
from interp.models.loading import ModelLike
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["COMPAT", "SLOPES", "edge_attribution"]

SLOPES: dict[str, str] = {
    "point": "at the run itself (EAP)",
    "inputs": "averaged along the line from one prompt's embeddings to the other's (EAP-IG, inputs)",
    "activations": "averaged along the line of each writer's own value (EAP-IG, activations)",
}
NAMES = {"point": "attribution", "inputs": "eap-ig", "activations": "eap-ig, activations"}
"""What the search is called in its effects."""
COMPAT: dict[str, str] = {
    "": "points in the middle of each step, whose error falls with the square of the number of steps",
    "mib": "what the code of EAP-IG does, which the MIB benchmark ranks by; see edge_attribution",
}


@gradients()
def edge_attribution(
    model: ModelLike,
    pairs: PairSet,
    edges: Edges = "edge.*",
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    slope: str = "point",
    steps: int = 5,
    compat: str = "",
    verify: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimate the exact effect of every edge from gradients (EAP, EAP-IG).

    ``compat="mib"`` gives the scores of hannamw/EAP-IG, noising (negated: there a score is what the corrupt
    value adds). With m steps, its gradients along the *inputs* are taken at ``0 .. (m-1)/m`` of the way from
    the corrupt to the clean prompt; along the *activations* at ``1/m .. 1`` of the way of each writer in turn
    (embedding, a layer's heads, an MLP), and the gradients of all these runs are averaged for every edge.

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        edges: names and globs such as ``edge.*->logits``, or edges.
        metric: a key of ``METRICS`` that has a gradient.
        replacement: a key of ``REPLACEMENTS``, of what the writer adds.
        directions: ``both``, ``denoising`` or ``noising``.
        slope: a key of ``SLOPES``: where the gradient is taken.
        steps: points of a path.
        compat: a key of ``COMPAT``: where on each step the gradient is taken.
        verify: how many of the largest to replace exactly, beside a random sample; 0 for none.
        seed: of resampling, of the sample and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown metric, replacement, direction, slope or compat; a metric without a gradient.
        SiteError: an edge that does not exist, or a model that does not offer edges.
        ModelError: the readers' gradients do not add up to the stream's.
    """
    if slope not in SLOPES or compat not in COMPAT or steps < 1:
        raise ConfigError(
            f"slope {slope!r}, compat {compat!r} and {steps} steps asked; slopes: {', '.join(SLOPES)}; "
            f"compat: {' or '.join(map(repr, COMPAT))}; steps: 1 or more."
        )
    job = EdgeJob.of(model, pairs, edges, metric, replacement, directions, seed)
    need_gradient(job.job)
    targets, clean, corrupt = job.job.unpatched()
    plan = _Plan(job, targets, slope, steps, compat)
    values = {direction: plan.estimates(direction) for direction in job.job.directions}
    cost: dict[str, Any] = {"forwards": round(2 + plan.passes / len(pairs), 2), "off": plan.off}
    found = job.effects(values, clean, corrupt, search=NAMES[slope], exact=False, cost=cost)
    return verified(found, job.job, verify, progress) if verify else found


@dataclass(eq=False)
class _Plan:
    """Run the passes of one estimate and add up the scores.

    ``passes`` counts forward passes and gradients of one prompt; ``off`` is the worst sum of slopes.
    """

    job: EdgeJob
    targets: Targets
    slope: str
    steps: int
    compat: str
    passes: float = 0.0
    off: float = 0.0
    _blocks: dict[int, Blocks] = field(default_factory=dict)

    def estimates(self, direction: str) -> np.ndarray:
        """Give ``[edge pair]`` first-order effects in one direction."""
        other = self.job.sources(direction)
        own = self._own(direction)
        places = self.job.graph.indices(self.job.edges)
        found = np.zeros((len(self.job.edges), len(self.job.job.pairs)))
        for rows in self._chunks():
            width = self.job.job.pairs.lengths[rows[0]]
            there = {site: value[rows, :width] for site, value in other.items()}
            here = {site: value[rows, :width] for site, value in own.items()}
            total = self._scores(direction, rows, here, there)
            found[:, rows] = SIGNS[direction] * total.flatten(1)[:, places].T.cpu().numpy()
        return found

    def _own(self, direction: str) -> dict[Site, Tensor]:
        carriers = carriers_of(self.job.graph.writers)
        read = self.job.job.model.capture(self.job.job.base(direction)[0], [str(s) for s in carriers], "all")
        return {site: read[str(site)] for site in carriers}

    def _chunks(self) -> list[list[int]]:
        """Group pairs of one length, a few per pass."""
        groups: dict[int, list[int]] = {}
        for at, length in enumerate(self.job.job.pairs.lengths):
            groups.setdefault(length, []).append(at)
        readers = self.job.job.model.n_heads + 2 * self.job.job.model.n_kv_heads
        found: list[list[int]] = []
        for length, rows in groups.items():
            step = max(1, 4 * PER_PASS // (length * readers))
            found += [rows[at : at + step] for at in range(0, len(rows), step)]
        return found

    def _scores(
        self, direction: str, rows: Sequence[int], own: Mapping[Site, Tensor], other: Mapping[Site, Tensor]
    ) -> Tensor:
        """Give ``[row reader writer]`` scores."""
        graph = self.job.graph
        asked = sorted({edge.writer for edge in self.job.edges})
        total = torch.zeros(len(rows), len(graph.readers), len(graph.writers), dtype=torch.float64)
        if self.slope == "point":
            self._add(total, self._run(direction, rows, []), own, other, asked, 1.0)
            return total
        for carrier, writers in self._lines(asked):
            for alpha in _points(self.steps, self.compat, self.slope, direction):
                value = own[carrier] + alpha * (other[carrier] - own[carrier])
                run = self._run(direction, rows, [Intervention(carrier, value)])
                self._add(total, run, own, other, writers, 1 / self.steps)
        return total / len(own) if self._shared else total

    @property
    def _shared(self) -> bool:
        """Whether the gradients along every writer's line are averaged for each edge, as in EAP-IG."""
        return self.slope == "activations" and self.compat == "mib"

    def _lines(self, asked: list[Site]) -> list[tuple[Site, list[Site]]]:
        """What is moved in turn, and the writers whose edges are scored by the gradients on its way."""
        if self.slope == "inputs":
            return [(Site("embed"), asked)]
        if self._shared:
            return [(carrier, asked) for carrier in carriers_of(self.job.graph.writers)]
        carried: dict[Site, list[Site]] = {}
        for writer in asked:
            carried.setdefault(carriers_of([writer])[0], []).append(writer)
        return list(carried.items())

    def _run(self, direction: str, rows: Sequence[int], edits: Sequence[Intervention]) -> ReaderSlopes:
        """Run some pairs and take the gradients that the readers' slopes are made of."""
        model, job = self.job.job.model, self.job.job
        length = job.pairs.lengths[rows[0]]
        if length not in self._blocks:
            self._blocks[length] = Blocks.of(model, job.base(direction)[0].token_ids[rows[0]])
        sites = needed(
            self.job.graph, model.n_layers, "parallel" if model.architecture.parallel else "sequential"
        )
        self.passes += 2 * len(rows)
        nodes, gradients = slopes(job, direction, rows, self.targets, sites, edits)
        held = frozenset(Site.parse(str(edit.site)) for edit in edits)
        return ReaderSlopes(self._blocks[length], self.job.graph, nodes, gradients, held)

    @torch.no_grad()
    def _add(
        self,
        total: Tensor,
        run: ReaderSlopes,
        own: Mapping[Site, Tensor],
        other: Mapping[Site, Tensor],
        writers: Sequence[Site],
        weight: float,
    ) -> None:
        """Add change times slope of every writer and reader."""
        graph, model = self.job.graph, self.job.job.model
        first = writers[0].layer or 0
        groups: dict[int, list[int]] = {}
        for writer in writers:
            groups.setdefault(-1 if writer.layer is None else writer.layer, []).append(
                graph.writers.index(writer)
            )
        for readers, slope in run.each(first):
            reach = max(graph.reach[at] for at in readers)
            flat = slope.flatten(2).double()
            for numbers in groups.values():
                seen = [at for at in numbers if at < reach]
                if not seen:
                    continue
                change = [contribution(model, graph.writers[at], other, own) for at in seen]
                table = torch.stack(change, dim=1).flatten(2).double()
                score = weight * torch.bmm(flat, table.transpose(1, 2)).cpu()
                total[:, readers[0] : readers[-1] + 1, seen] += score
        self.off = max(self.off, run.off)


def _points(steps: int, compat: str, slope: str, direction: str) -> list[float]:
    """How far along the line from the run to the other prompt each gradient is taken."""
    if compat != "mib":
        return [(at + 0.5) / steps for at in range(steps)]
    first = 1 if slope == "activations" else 0  # EAP-IG's two functions count their steps differently
    from_corrupt = [(at + first) / steps for at in range(steps)]
    return from_corrupt if direction == "denoising" else [1 - at for at in from_corrupt]
