"""The table of searches: (model, pairs, mediators) to effects, exact or estimated from gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.effects import DIRECTIONS, Effects
from interp.mediation.engine import Engine
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.metrics import METRICS, Metric, Targets
from interp.mediation.replacements import REPLACEMENTS, Replacement
from interp.mediation.walk import Row
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["SEARCHES", "SearchMethod", "attribution", "exhaustive"]

Mediators = str | Site | Mediator | Sequence[str | Site | Mediator]
PER_PASS = 8192
SAMPLE = 24


@dataclass(frozen=True, eq=False)
class _Job:
    """Hold what every search shares."""

    model: Model
    pairs: PairSet
    mediators: tuple[Mediator, ...]
    metric: Metric
    replacement: Replacement
    directions: tuple[str, ...]
    seed: int

    @classmethod
    def of(
        cls,
        model: Model,
        pairs: PairSet,
        mediators: Mediators,
        metric: str,
        replacement: str,
        directions: str,
        positions: str | int,
        seed: int,
    ) -> _Job:
        for name, asked, known in (
            ("metric", metric, METRICS),
            ("replacement", replacement, REPLACEMENTS),
        ):
            if asked not in known:
                raise ConfigError(f"{name} {asked!r} asked; there are: {', '.join(known)}.")
        if directions not in (*DIRECTIONS, "both"):
            raise ConfigError(f"directions {directions!r} asked; use 'both', {' or '.join(DIRECTIONS)}.")
        chosen = tuple(DIRECTIONS) if directions == "both" else (directions,)
        found = mediators_of(model, pairs, mediators, positions=positions)
        return cls(model, pairs, found, METRICS[metric], REPLACEMENTS[replacement], chosen, seed)

    def base(self, direction: str) -> tuple[Tokens, Tokens]:
        """Give the prompts that are patched, and those the values come from."""
        clean, corrupt = self.pairs.clean, self.pairs.corrupt
        return (corrupt, clean) if direction == "denoising" else (clean, corrupt)

    def sources(self, tokens: Tokens, mediators: Sequence[Mediator]) -> dict[Site, Tensor]:
        """Read every carrier on the source prompts, ``[pair pos ...]``, and make replacement values of it."""
        carriers = sorted({mediator.carrier for mediator in mediators})
        read = self.model.capture(tokens, [str(site) for site in carriers], "all")
        generator = torch.Generator().manual_seed(self.seed)
        return {site: self.replacement.source(read[str(site)], generator) for site in carriers}

    def unpatched(self) -> tuple[Targets, np.ndarray, np.ndarray]:
        """Give the targets, and the metric of the clean and of the corrupt prompts."""
        clean, corrupt = self.model.logits(self.pairs.clean), self.model.logits(self.pairs.corrupt)
        targets = Targets.of(self.pairs, clean.device, clean)
        return targets, self.values(clean, targets), self.values(corrupt, targets)

    def values(self, logits: Tensor, targets: Targets) -> np.ndarray:
        """Give the metric of each row, as float64."""
        return self.metric.values(logits.float(), targets).double().cpu().numpy()

    def effects(
        self, values: dict[str, np.ndarray], clean: np.ndarray, corrupt: np.ndarray, **facts: Any
    ) -> Effects:
        """Wrap the numbers of a search."""
        notes = list(self.pairs.notes)
        if self.replacement.off_distribution:
            notes.append(
                f"replacement {self.replacement.name}: values that the model never has; read with care"
            )
        model = {
            "name": self.model.name,
            "weights": self.model.weights,
            "fingerprint": self.model.fingerprint,
        }
        return Effects(
            mediators=self.mediators,
            values=values,
            clean=clean,
            corrupt=corrupt,
            groups=tuple(self.pairs.groups),
            metric=self.metric.name,
            unit=self.metric.unit,
            replacement=self.replacement.name,
            model=model,
            seed=self.seed,
            warnings=tuple(notes),
            **facts,
        )


def exhaustive(
    model: Model,
    pairs: PairSet,
    mediators: Mediators,
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Replace each mediator on its own, exactly (activation patching; Vig et al. 2020, Meng et al. 2022).

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: names and globs such as ``head.*`` or ``resid_post.*``, sites, or mediators.
        metric: a key of ``METRICS``.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``; see ``DIRECTIONS``.
        positions: as for ``mediators_of``.
        seed: of resampling, of the rows that are checked, and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown metric, replacement, direction or position.
        SiteError: a mediator that the model does not have.
        ModelError: the fast passes differ from whole forward passes.
    """
    job = _Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    targets, clean, corrupt = job.unpatched()
    values: dict[str, np.ndarray] = {}
    cost: dict[str, Any] = {}
    noise = 0.0
    for direction in job.directions:
        found, bill, floor = _sweep(job, direction, targets, clean, corrupt, progress)
        values[direction], cost[direction], noise = found, bill, max(noise, floor)
    return job.effects(values, clean, corrupt, search="exhaustive", noise=noise, cost=cost)


def _sweep(
    job: _Job, direction: str, targets: Targets, clean: np.ndarray, corrupt: np.ndarray, progress: bool
) -> tuple[np.ndarray, dict[str, Any], float]:
    """Patch every mediator into every pair in one direction; give effects, the bill and the noise floor."""
    base, source = job.base(direction)
    engine = Engine(job.model, base, job.seed)
    n = len(job.pairs)
    cells = [(m, e) for m in range(len(job.mediators)) for e in range(n) if not _nothing(job, m, e)]
    engine.bill.skipped = len(job.mediators) * n - len(cells)
    rows = [Row(e, (job.mediators[m],)) for m, e in cells]
    logits = engine.logits(
        [*(Row(e) for e in range(n)), *rows], job.sources(source, job.mediators), progress=progress
    )
    index = torch.tensor([*range(n), *(e for _, e in cells)], device=logits.device)
    measured = job.values(logits, targets.rows(index.to(targets.answers.device)))
    start = corrupt if direction == "denoising" else clean
    plain = measured[:n]
    result = np.zeros((len(job.mediators), n))
    sign = 1.0 if direction == "denoising" else -1.0
    for (m, e), value in zip(cells, measured[n:], strict=True):
        result[m, e] = sign * (value - plain[e])
    bill = engine.bill
    facts = {
        "forwards": round(bill.forwards, 2),
        "rows": bill.rows,
        "skipped": bill.skipped,
        "checked": bill.checked,
        "fallback": bill.fallback,
    }
    return result, facts, float(np.abs(plain - start).max())


def _nothing(job: _Job, number: int, example: int) -> bool:
    """Say whether a replacement provably changes nothing: equal tokens so far, or nobody reads it."""
    mediator, length = job.mediators[number], job.pairs.lengths[example]
    at = mediator.position
    if at is None:
        return False
    at = at % length
    if job.replacement.paired and at < job.pairs.first_difference[example]:
        return True
    last = mediator.site.layer == job.model.n_layers - 1
    return last and at < length - 1 and mediator.site.kind not in ("resid_pre", "k", "v")


def attribution(
    model: Model,
    pairs: PairSet,
    mediators: Mediators,
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    verify: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimate every effect from one gradient per run (attribution patching; Syed et al. 2023, 2310.10348).

    The estimate is ``sum (replacement - current) * dY/d(current)``, with gradients of activations only. The
    largest ``verify`` are replaced exactly, with a random sample of all; ``cost["exact"]`` holds those
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
    job = _Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    if not job.metric.differentiable:
        raise ConfigError(f"metric {metric!r} has no gradient; use logit-diff or log-prob, or exhaustive.")
    _, clean, corrupt = job.unpatched()
    values = {direction: _gradients(job, direction) for direction in job.directions}
    cost: dict[str, Any] = {"forwards": 2 + 2 * len(job.directions)}
    found = job.effects(values, clean, corrupt, search="attribution", noise=0.0, cost=cost)
    return _verified(found, job, verify, progress) if verify else found


def _gradients(job: _Job, direction: str) -> np.ndarray:
    """Give ``[mediator pair]`` first-order effects in one direction."""
    source = job.base(direction)[1]
    given = job.sources(source, job.mediators)
    carriers = sorted({mediator.carrier for mediator in job.mediators})
    found = np.zeros((len(job.mediators), len(job.pairs)))
    width = max(job.pairs.lengths)
    step = max(1, PER_PASS // width)
    sign = 1.0 if direction == "denoising" else -1.0
    for start in range(0, len(job.pairs), step):
        rows = list(range(start, min(start + step, len(job.pairs))))
        part = job.pairs[rows]
        tokens = part.corrupt if direction == "denoising" else part.clean
        run = job.model.run(tokens, capture=[str(site) for site in carriers], positions="all", grad=True)
        assert run.logits is not None and run.activations is not None
        targets = Targets.of(part, run.logits.device, run.logits.detach().float())
        total = job.metric.values(run.logits.float(), targets).sum()
        nodes = [run.activations[str(site)] for site in carriers]
        slopes: Any = torch.autograd.grad(total, nodes, allow_unused=True)
        for site, node, slope in zip(carriers, nodes, slopes, strict=True):
            if slope is None:
                continue
            there = given[site][rows, : node.shape[1]].to(node.device, node.dtype)
            product = (slope * (there - node.detach())).double()
            for at, mediator in enumerate(job.mediators):
                if mediator.carrier == site:
                    found[at, rows] = sign * _summed(product, mediator, part).cpu().numpy()
    return found


def _summed(product: Tensor, mediator: Mediator, pairs: PairSet) -> Tensor:
    """Add up slope times change over the mediator's positions and features, ``[pair]``."""
    part = product if mediator.part is None else product[:, :, mediator.part]
    per_token = part.reshape(*part.shape[:2], -1).sum(dim=2)
    lengths = torch.tensor(pairs.lengths, device=product.device)
    if mediator.position is None:
        inside = torch.arange(per_token.shape[1], device=product.device) < lengths[:, None]
        return (per_token * inside).sum(dim=1)
    at = mediator.position if mediator.position >= 0 else lengths + mediator.position
    return per_token[torch.arange(len(lengths), device=product.device), at]


def _verified(found: Effects, job: _Job, k: int, progress: bool) -> Effects:
    """Replace the largest exactly, and a random sample of all, and say how well the estimates rank them."""
    top = list(found.top(k))
    rest = [m for m in found.mediators if m not in top]
    order = np.random.default_rng(job.seed).permutation(len(found.mediators))[:SAMPLE]
    sample = [found.mediators[at] for at in order]
    asked = tuple(dict.fromkeys([*top, *sample]))
    directions = "both" if len(job.directions) > 1 else next(iter(job.directions))
    kept: Any = {"metric": job.metric.name, "replacement": job.replacement.name, "seed": job.seed}
    exact = exhaustive(job.model, job.pairs, asked, directions=directions, progress=progress, **kept)
    truth = dict(zip(map(str, exact.mediators), exact.mean(), strict=True))
    guess = dict(zip(map(str, found.mediators), found.mean(), strict=True))
    names = [str(m) for m in sample]
    rank = float("nan")
    if len(names) > 2 and len({truth[name] for name in names}) > 1:
        found_rank: Any = stats.spearmanr([truth[n] for n in names], [guess[n] for n in names])
        rank = float(found_rank.statistic)
    checked = {
        "top": [{"mediator": str(m), "exact": truth[str(m)], "estimate": guess[str(m)]} for m in top],
        "rank_correlation": rank,
        "sample": len(names),
        "not_looked_at": len(rest),
    }
    cost: Mapping[str, Any] = {**found.cost, "exact": checked, "exact_cost": dict(exact.cost)}
    return replace(found, cost=cost, noise=exact.noise)


@dataclass(frozen=True)
class SearchMethod:
    """Describe a search.

    Attributes:
        name: what users type (``--search``).
        description: one line.
        run: the function.
        exact: whether its effects are those of real replacements.
    """

    name: str
    description: str
    run: Callable[..., Effects]
    exact: bool


_ROWS = (
    SearchMethod("exhaustive", "replace each mediator on its own", exhaustive, True),
    SearchMethod(
        "attribution", "estimate each effect from one gradient, verify the largest", attribution, False
    ),
)

SEARCHES: dict[str, SearchMethod] = {row.name: row for row in _ROWS}
