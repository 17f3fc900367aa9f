"""Experiments on sites and parts of them: exact by the engine, or estimated from one gradient per run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from interp.mediation.engine import Engine, unembedded
from interp.mediation.experiment import SIGNS, Estimates, Experiment, Forecast, Replaced, Sets, by_site
from interp.mediation.gradients import chunks, first_order, gradients_at, need_gradient
from interp.mediation.mediators import Mediator
from interp.mediation.metrics import Targets
from interp.mediation.partial_forward import Row
from interp.sites import OF_DICTIONARIES, Site

__all__ = ["SiteExperiment"]

READ_LATER = ("embed", "resid_pre", "k", "v")
"""Kinds of site that other positions still read in the last block."""


@dataclass(frozen=True, eq=False)
class SiteExperiment(Experiment):
    """An experiment whose mediators are sites, or parts of them, at all or at single positions."""

    mediators: tuple[Mediator, ...]
    over: ClassVar[str] = "sites"

    @property
    def carriers(self) -> list[Site]:
        """The sites that carry the mediators."""
        return sorted({site for mediator in self.mediators for site in mediator.carriers})

    @property
    def asks(self) -> tuple[str, ...]:
        """What a search has to take: ``windows`` too, where layers are replaced together."""
        return ("sites", "windows") if any(one.window > 1 for one in self.mediators) else ("sites",)

    @property
    def draws(self) -> int:
        """How often each cell is run, with other values; effects are means over these."""
        return 1

    @property
    def since(self) -> Sequence[int] | None:
        """Per pair the position before which what is put in is the prompt's own; None: nowhere."""
        return self.pairs.first_difference if self.replacement.paired else None

    def always(self, direction: str, example: int) -> tuple[Mediator, ...]:
        """What is replaced in every copy of a prompt, the plain one too."""
        return ()

    def drawn(self, direction: str) -> Iterator[dict[Site, Tensor]]:
        """What is put in, draw by draw: carrier -> ``[pair pos ...]``."""
        yield self.sources(direction)

    def replaced(
        self, sets: Sequence[Sequence[Mediator]], direction: str, *, progress: bool = False
    ) -> Replaced:
        """Replace each set of mediators together, in every pair; what provably changes nothing is not run."""
        n = len(self.pairs)
        engine, rows, cells = self._rows(sets, direction)
        engine.bill.skipped = self.draws * (len(sets) * n - len(cells))
        measured = np.zeros(len(rows))
        targets = self.targets

        def measure(numbers: Sequence[int], logits: Tensor) -> None:
            index = torch.tensor([rows[at].example for at in numbers], device=targets.answers.device)
            measured[list(numbers)] += self.values(logits.to(index.device), targets.rows(index)) / self.draws

        for values in self.drawn(direction):
            engine.each(rows, values, measure, rule=self.replacement.rule, progress=progress)
        plain = measured[:n]
        found = np.tile(plain, (len(sets), 1))
        for (at, example), value in zip(cells, measured[n:], strict=True):
            found[at, example] = value
        return Replaced(found, plain, engine.bill.facts())

    def _rows(
        self, sets: Sequence[Sequence[Mediator]], direction: str
    ) -> tuple[Engine, list[Row], list[tuple[int, int]]]:
        """The engine; a plain copy of each prompt and the patched ones; the set and pair of each of these."""
        since, examples = self.since, range(len(self.pairs))
        engine = Engine(self.model, self.base(direction)[0], self.seed, since=since)
        always = [self.always(direction, example) for example in examples]
        cells = [
            (at, example)
            for at, members in enumerate(sets)
            for example in examples
            if not all(self._nothing(one, example, since) for one in members)
        ]
        rows = [*map(Row, examples, always), *(Row(e, (*always[e], *sets[at])) for at, e in cells)]
        return engine, rows, cells

    def _nothing(self, mediator: Mediator, example: int, since: Sequence[int] | None) -> bool:
        """Whether a replacement provably changes nothing: equal tokens so far, or nobody reads it."""
        if mediator.position is None:
            return False
        length = self.pairs.lengths[example]
        at = mediator.position % length
        if since is not None and at < since[example]:
            return True
        last = mediator.site.layer == self.model.n_layers - 1
        return last and at < length - 1 and self._written(mediator.site) not in READ_LATER

    def _written(self, site: Site) -> str:
        """The kind of site that is written: of a feature, that of its dictionary."""
        if site.kind not in OF_DICTIONARIES:
            return site.kind
        return self.model.dictionaries[site.layer or 0].site_out.kind

    def forecast(self, sets: Sets | None = None) -> Forecast:
        """What replacing sets of mediators costs, planned as it will be run."""
        forwards, walks, skipped, held = 0.0, 0, 0, 0
        n, m = len(self.pairs), len(self.mediators)
        for direction in self.directions:
            asked = [(one,) for one in self.mediators] if sets is None else sets(direction)
            m = len(asked)
            engine, rows, cells = self._rows(asked, direction)
            plan = engine.plan(rows)
            forwards += self.draws * plan.forwards
            walks += self.draws * len(plan.walks)
            skipped += self.draws * (m * n - len(cells))
            largest = max((len(walk.rows) for walk in plan.walks), default=0)
            held = max(held, min(len(rows), unembedded(self.model) + largest))
        whole = n * m * len(self.directions) * self.draws
        members = len(self.mediators)
        return Forecast("exhaustive", n, members, forwards, whole, walks, skipped, memory=self._memory(held))

    def _memory(self, rows: int) -> int:
        """Bytes that a direction holds: streams, keys, values of the plain run, sources, states, logits.

        Args:
            rows: whose last states are held at a time.
        """
        model, tokens = self.model, sum(self.pairs.lengths)
        padded = len(self.pairs) * max(self.pairs.lengths)
        cached = (model.n_layers + 1) * model.d_model + 2 * model.n_layers * model.n_kv_heads * model.d_head
        heads, groups = model.n_heads * model.d_head, model.n_kv_heads * model.d_head
        widths = {"z": heads, "q": heads, "k": groups, "v": groups, "mlp_act": model.d_mlp}
        features = model.anatomy.features
        sources = sum(
            features[site.layer or 0] if site.kind == "feature" else widths.get(site.kind, model.d_model)
            for site in self.carriers
        )
        held = tokens * cached + padded * sources + rows * model.d_model
        logits = min(rows, unembedded(model)) * model.vocab_size
        return model.dtype.itemsize * held + 4 * logits

    def first_order_passes(self) -> int:
        """One gradient per direction; noising alone also needs the metric of the corrupt prompts."""
        return 1 + 2 * len(self.directions) + ("denoising" not in self.directions)

    def first_order(self) -> Estimates:
        """Estimate each effect from one gradient per run, each side run as seldom as that allows."""
        need_gradient(self)
        sides = _Sides.of(self)
        values = {direction: sides.estimates(direction) for direction in self.directions}
        measured = sides.measured
        return Estimates(values, measured["clean"], measured["corrupt"], {"forwards": sides.passes})


@dataclass(eq=False)
class _Sides:
    """Run each side once: a pass that gives gradients also gives the values that the other direction puts in.

    Noising alone runs the clean side twice, since a metric may compare with the clean logits.

    Attributes:
        experiment: what is asked.
        targets: of the metric.
        measured: side -> ``[pair]``, the metric.
        read: side -> carrier -> ``[pair pos ...]``.
        passes: passes of every pair through the model so far, a backward pass counted as one.
    """

    experiment: SiteExperiment
    targets: Targets
    measured: dict[str, np.ndarray] = field(default_factory=dict)
    read: dict[str, dict[Site, Tensor]] = field(default_factory=dict)
    passes: float = 0.0

    @classmethod
    def of(cls, experiment: SiteExperiment) -> _Sides:
        logits, read = _plain(experiment, "clean")
        targets = Targets.of(experiment.pairs, logits.device, logits)
        return cls(experiment, targets, {"clean": experiment.values(logits, targets)}, {"clean": read}, 1.0)

    def estimates(self, direction: str) -> np.ndarray:
        """``[mediator pair]`` first-order effects in one direction."""
        base, source = ("corrupt", "clean") if direction == "denoising" else ("clean", "corrupt")
        return SIGNS[direction] * self._changes(base, direction, self._sources(source, direction))

    def _sources(self, side: str, direction: str) -> dict[Site, Tensor]:
        """The replacement values of every carrier, made of one side's."""
        if side not in self.read:
            logits, self.read[side] = _plain(self.experiment, side)
            self.measured[side] = self.experiment.values(logits, self.targets)
            self.passes += 1
        return self.experiment.sources(direction, read=self.read[side])

    def _changes(self, side: str, direction: str, sources: Mapping[Site, Tensor]) -> np.ndarray:
        """``[mediator pair]`` first-order changes of the metric on one side."""
        asked = self.experiment
        found = np.zeros((len(asked.mediators), len(asked.pairs)))
        both = len(asked.directions) > 1
        other = {site: torch.zeros_like(value) for site, value in sources.items() if both}
        metric = np.zeros(len(asked.pairs))
        logits: dict[int, Tensor] = {}
        for rows in chunks(asked):
            part = gradients_at(asked, direction, rows, self.targets, asked.carriers)
            estimates = first_order(asked, rows, part.nodes, part.gradients, sources)
            found[:, rows], metric[rows] = estimates.numpy(), part.metric.double().cpu().numpy()
            logits.update(zip(rows, part.logits, strict=True))
            for site, kept in other.items():
                kept[rows, : part.nodes[site].shape[1]] = part.nodes[site].to(kept)
        asked.ran(side, torch.stack([logits[row] for row in sorted(logits)]))
        if other:
            self.read.setdefault(side, other)
        self.measured.setdefault(side, metric)
        self.passes += 2
        return found


def _plain(experiment: SiteExperiment, side: str) -> tuple[Tensor, dict[Site, Tensor]]:
    """The fp32 logits and every carrier's values of unpatched prompts."""
    tokens = experiment.pairs.clean if side == "clean" else experiment.pairs.corrupt
    carriers = experiment.carriers
    run = experiment.model.run(tokens, capture=[str(site) for site in carriers], positions="all")
    assert run.logits is not None and run.activations is not None
    experiment.ran(side, run.logits)
    return run.logits.float(), by_site(run.activations, carriers)
