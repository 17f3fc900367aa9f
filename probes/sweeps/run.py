"""Run a sweep: splits, scaling, the choice of penalties, scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.base import check_seed
from probes.evaluation.splits import Split, group_split
from probes.fitting import STRENGTHS, Strengths, penalties
from probes.statistics.groups import counted
from probes.sweeps.result import Sweep
from probes.sweeps.solvers import KINDS, Sample, SweepKind

__all__ = ["sweep"]

BYTES = 2**30


def sweep(
    states: Mapping[str, Float[Tensor, "*_"]] | Float[Tensor, "*_"],
    targets: Any,
    *,
    kind: str = "ridge",
    seeds: Collection[int] = (0,),
    groups: Collection[Any] | None = None,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    regularisation: Strengths = STRENGTHS,
    names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    solver: str = "auto",
) -> Sweep:
    """Fit one probe for every seed, layer and target.

    Args:
        states: ``[layer example dim]``, or layer name -> ``[example dim]``; not changed.
        targets: ``[example]`` or ``[example target]``, of 0 and 1, or (ridge only) other numbers; one that
            holds other numbers makes all of them numbers.
        kind: a key of :data:`KINDS`.
        seeds: each draws a split of its own.
        groups: what must not straddle parts, one per example: a tensor, array or list of labels.
        fractions: of groups, for train, validation and test.
        regularisation: a penalty, or several to choose from on validation, for each probe on its own.
        names: of the targets.
        device: where to compute; where the states are, if left out.
        solver: of logistic probes: ``sklearn`` (one after the other, on the CPU), ``torch`` (together, on any
            device), or ``auto``: torch on a GPU, scikit-learn elsewhere.

    Raises:
        ValueError: shapes that do not match, numbers that are not finite, a target with one value in a
            training part, an unknown kind or solver, parts without examples, or seeds or names that are
            missing or repeated.
    """
    layers, stack = _stack(states)
    job = _job(stack, targets, kind, regularisation, device, solver)
    n, count = job.table.shape
    titles = tuple(names or map(str, range(count)))
    units = _units(groups, n)
    if len(titles) != count or len(units) != n:
        raise ValueError(
            f"{counted(len(titles), 'name')} and {counted(len(units), 'group')} for "
            f"{counted(count, 'target')} and {counted(n, 'example')}; give one for "
            "each."
        )
    order = tuple(int(seed) for seed in seeds)
    for what, given in (("seeds", order), ("names", titles)):
        if not given or len(set(given)) != len(given):
            raise ValueError(f"{what} are {given}; give at least one, and each once.")
    for seed in order:
        check_seed({"seed": seed})
    splits = tuple(group_split(units, fractions, seed=seed) for seed in order)
    parts, references = job.run(splits), [job.reference(split) for split in splits]
    coef, offset, strengths, held, test = (np.stack([part[i] for part in parts]) for i in range(5))
    return Sweep(
        kind=kind,
        metric="accuracy" if job.binary else "R^2",
        layers=layers,
        seeds=order,
        targets=titles,
        coef=coef,
        intercept=offset,
        regularisation=strengths,
        validation=held,
        test=test,
        reference=np.stack([score for score, _ in references]),
        splits=splits,
        hits=tuple(part[5] for part in parts),
        reference_hits=tuple(hits for _, hits in references),
        groups=units,
    )


def _units(groups: Collection[Any] | None, n: int) -> tuple[Any, ...]:
    """The groups as plain values: two tensors that hold the same number are not the same key."""
    if groups is None:
        return tuple(range(n))
    return tuple(groups.tolist() if isinstance(groups, Tensor | np.ndarray) else groups)


def _job(
    stack: list[Tensor],
    targets: Any,
    kind: str,
    regularisation: Strengths,
    device: str | torch.device | None,
    solver: str,
) -> _Job:
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} asked; the kinds are: {', '.join(KINDS)}.")
    if solver not in ("auto", "sklearn", "torch"):
        raise ValueError(f"solver {solver!r} asked; the solvers are: auto, sklearn, torch.")
    table = _table(targets, len(stack[0]), KINDS[kind])
    where = torch.device(device) if device is not None else stack[0].device
    method = solver if solver != "auto" else "torch" if where.type == "cuda" else "sklearn"
    binary = bool(np.isin(table, (0, 1)).all())
    return _Job(kind, stack, table, binary, penalties(regularisation), where, method)


def _stack(states: Mapping[str, Tensor] | Tensor) -> tuple[tuple[str, ...], list[Tensor]]:
    if isinstance(states, Tensor):
        if states.ndim != 3:
            raise ValueError(
                f"states have shape {tuple(states.shape)}; give [layer, example, dim], or a mapping."
            )
        named = {str(at): layer for at, layer in enumerate(states)}
    else:
        named = {str(name): layer for name, layer in states.items()}
    shapes = {tuple(layer.shape) for layer in named.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2 or 0 in next(iter(shapes)):
        raise ValueError(f"layers have shapes {sorted(shapes)}; give the same [example, dim] for each.")
    for name, layer in named.items():
        if not torch.isfinite(layer).all():
            raise ValueError(f"layer {name} holds numbers that are not finite; drop those examples.")
    return tuple(named), [layer.detach() for layer in named.values()]


def _table(targets: Any, n: int, row: SweepKind) -> np.ndarray:
    if isinstance(targets, Tensor):
        targets = targets.detach().cpu()
        targets = (targets.double() if targets.is_floating_point() else targets).numpy()
    values = np.asarray(targets)
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2) or len(values) != n:
        raise ValueError(
            f"targets have shape {values.shape} and type {values.dtype} for {counted(n, 'example')}; give "
            "[example] or "
            "[example target] numbers."
        )
    table = values.reshape(n, -1).astype(np.float64)
    if not np.isfinite(table).all():
        raise ValueError("targets hold numbers that are not finite; drop those examples.")
    if not row.numbers and not np.isin(table, (0, 1)).all():
        raise ValueError(f"targets of a {row.name} sweep are 0 and 1; use kind='ridge' for other numbers.")
    return table


@dataclass(frozen=True, eq=False)
class _Job:
    kind: str
    stack: list[Tensor]
    table: np.ndarray
    binary: bool
    strengths: list[float]
    device: torch.device
    method: str

    def run(self, splits: Sequence[Split]) -> list[list[np.ndarray]]:
        """Fit and score each split: coef, intercept, regularisation, validation, test, hits."""
        for split in splits:
            self._check(split)
        step = max(1, BYTES // (self.stack[0].numel() * 8))
        found: list[list[list[np.ndarray]]] = [[] for _ in splits]
        for at in range(0, len(self.stack), step):
            values = torch.stack([x.to(self.device, torch.float64) for x in self.stack[at : at + step]])
            centre = values.mean(dim=1)
            values -= centre[:, None]
            for blocks, split in zip(found, splits, strict=True):
                blocks.append(self._block(values, centre, split))
        return [[np.concatenate(parts) for parts in zip(*blocks, strict=True)] for blocks in found]

    def _check(self, split: Split) -> None:
        several = len(self.strengths) > 1 and KINDS[self.kind].penalised
        for name in ("train", "validation", "test") if several else ("train", "test"):
            if not len(getattr(split, name)):
                raise ValueError(
                    f"the {name} part has no examples; give more groups, or it a larger fraction."
                )
        train = self.table[split.train]
        flat = np.flatnonzero(train.min(axis=0) == train.max(axis=0))
        if len(flat):
            raise ValueError(
                f"target {flat[0]} has one value in a training part; give more examples of each."
            )

    def _block(self, values: Tensor, centre: Tensor, split: Split) -> list[np.ndarray]:
        """Fit some layers: coef, intercept, regularisation, validation, test, hits."""
        row = KINDS[self.kind]
        rows = torch.from_numpy(split.train).to(self.device)
        sample = Sample(values, rows, torch.from_numpy(self.table[split.train]).to(self.device))
        strengths = self.strengths if row.penalised else [float("nan")]
        best: list[np.ndarray] = []
        for strength, (coef, base) in zip(strengths, row.solve(sample, strengths, self.method), strict=True):
            if self.binary and row.numbers:
                base = base - 0.5
            scores = (torch.einsum("lnd,ltd->ltn", values, coef) + base[..., None]).cpu().numpy()
            held, tested = (self._hits(scores, part) for part in (split.validation, split.test))
            offset = base - torch.einsum("ltd,ld->lt", coef, centre)
            new = [coef.cpu().numpy(), offset.cpu().numpy(), np.full(base.shape, strength), held, tested]
            better = held.mean(axis=2) > best[3].mean(axis=2) if best else None
            best = new if better is None else [_where(better, b, a) for a, b in zip(best, new, strict=True)]
        held, tested = best[3:]
        return [*best[:3], _score(held), _score(tested), tested]

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``[layer target example]``: 1 where right; for numbers shares of R^2."""
        own, wanted = scores[:, :, rows], self.table[rows].T
        return ((own > 0) == (wanted > 0.5)).astype(np.int64) if self.binary else _shares(own, wanted)

    def reference(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """What the training part's majority or mean scores on test: ``[target]``, and its hits."""
        hits = self._reference(split)
        return _score(hits), hits

    def _reference(self, split: Split) -> np.ndarray:
        mean, wanted = self.table[split.train].mean(axis=0)[:, None], self.table[split.test].T
        if self.binary:
            return ((mean > 0.5) == (wanted > 0.5)).astype(np.int64)
        return _shares(mean, wanted)


def _shares(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Each example's share of R^2, ``1 - error^2 / variance``; 0 for a target that does not vary."""
    error = (own - wanted) ** 2
    if not error.size:
        return error
    spread = wanted.var(axis=1, keepdims=True)
    return np.where(spread > 0, 1 - error / np.where(spread > 0, spread, 1), 0.0)


def _score(hits: np.ndarray) -> np.ndarray:
    """Accuracies, or R^2: means over examples; NaN without examples."""
    return hits.mean(axis=-1) if hits.shape[-1] else np.full(hits.shape[:-1], np.nan)


def _where(better: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Take the new numbers of the problems that got better."""
    return np.where(better[..., None] if new.ndim == 3 else better, new, old)
