"""Attribution patching: every effect from one gradient per run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from interp.mediation.edges.asked import are_edges, at_all_positions
from interp.mediation.effects import Effects
from interp.mediation.metrics import Targets
from interp.mediation.searches.gradients import SIGNS, chunks, first_order, need_gradient, sloped
from interp.mediation.searches.job import Job, Mediators, by_site
from interp.mediation.searches.verify import TOP, verified
from interp.models.loading import ModelLike
from interp.models.tokens import Tokens
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["attribution"]


def attribution(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    verify: int = TOP,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimate every effect from one gradient per run (attribution patching; Syed et al. 2023, 2310.10348).

    The estimate is ``sum (replacement - current) * dY/d(current)``, with gradients of activations only. The
    largest ``verify`` are replaced exactly, with a random sample of all; ``verified`` holds those
    effects and the rank correlation on the sample.

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: as for :func:`exhaustive`; likewise the others.
        metric: a key of ``METRICS`` that has a gradient.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``.
        positions: as for ``mediators_of``.
        verify: how many of the largest to verify; 0 for none.
        seed: of resampling, of the sample and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: as for :func:`exhaustive`, or a metric without a gradient.
    """
    if are_edges(mediators):
        from interp.mediation.edges.attribution import edge_attribution

        at_all_positions(positions)
        return edge_attribution(
            model,
            pairs,
            mediators,
            metric=metric,
            replacement=replacement,
            directions=directions,
            verify=verify,
            seed=seed,
            progress=progress,
        )
    job = Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    need_gradient(job)
    sides = _Sides.of(job)
    values = {direction: _estimates(job, direction, sides) for direction in job.directions}
    cost = {"forwards": sides.passes}
    effects = job.effects(
        values,
        sides.measured["clean"],
        sides.measured["corrupt"],
        search="attribution",
        exact=False,
        cost=cost,
    )
    return verified(effects, job, verify, progress) if verify else effects


@dataclass(eq=False)
class _Sides:
    """Run each side once: a pass that gives slopes also gives the values that the other direction puts in.

    Noising alone runs the clean side twice, since a metric may compare with the clean logits.

    Attributes:
        job: the checked arguments of the search.
        targets: of the metric.
        measured: side -> ``[pair]``, the metric.
        read: side -> carrier -> ``[pair pos ...]``.
        passes: passes of every pair through the model so far, a backward pass counted as one.
    """

    job: Job
    targets: Targets
    measured: dict[str, np.ndarray] = field(default_factory=dict)
    read: dict[str, dict[Site, Tensor]] = field(default_factory=dict)
    passes: float = 0.0

    @classmethod
    def of(cls, job: Job) -> _Sides:
        logits, read = _plain(job, job.pairs.clean)
        targets = Targets.of(job.pairs, logits.device, logits)
        return cls(job, targets, {"clean": job.values(logits, targets)}, {"clean": read}, 1.0)

    def sources(self, side: str) -> dict[Site, Tensor]:
        """Give the replacement values of every carrier, made of one side's."""
        tokens = self.job.pairs.clean if side == "clean" else self.job.pairs.corrupt
        if side not in self.read:
            logits, self.read[side] = _plain(self.job, tokens)
            self.measured[side] = self.job.values(logits, self.targets)
            self.passes += 1
        return self.job.sources(tokens, self.job.mediators, read=self.read[side])

    def sloped(self, side: str, sources: Mapping[Site, Tensor]) -> np.ndarray:
        """Give ``[mediator pair]`` first-order changes of the metric on one side."""
        job, direction = self.job, "noising" if side == "clean" else "denoising"
        found = np.zeros((len(job.mediators), len(job.pairs)))
        other = {site: torch.zeros_like(value) for site, value in sources.items() if len(job.directions) > 1}
        metric = np.zeros(len(job.pairs))
        for rows in chunks(job):
            part = sloped(job, direction, rows, self.targets, job.carriers)
            estimates = first_order(job, rows, job.mediators, part.nodes, part.gradients, sources)
            found[:, rows], metric[rows] = estimates.numpy(), part.metric.double().cpu().numpy()
            for site, kept in other.items():
                kept[rows, : part.nodes[site].shape[1]] = part.nodes[site].to(kept)
        if other:
            self.read.setdefault(side, other)
        self.measured.setdefault(side, metric)
        self.passes += 2
        return found


def _plain(job: Job, tokens: Tokens) -> tuple[Tensor, dict[Site, Tensor]]:
    """Give fp32 logits and every carrier's values of unpatched prompts."""
    run = job.model.run(tokens, capture=[str(site) for site in job.carriers], positions="all")
    assert run.logits is not None and run.activations is not None
    return run.logits.float(), by_site(run.activations, job.carriers)


def _estimates(job: Job, direction: str, sides: _Sides) -> np.ndarray:
    """Give ``[mediator pair]`` first-order effects in one direction."""
    base, source = ("corrupt", "clean") if direction == "denoising" else ("clean", "corrupt")
    return SIGNS[direction] * sides.sloped(base, sides.sources(source))
