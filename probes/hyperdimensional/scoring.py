"""Scores of decoded concepts: the only place that sees the right answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.hyperdimensional.decoding import Decodings
from probes.hyperdimensional.lesson import reciprocal_ranks
from probes.statistics import Estimate, bootstrap
from probes.vsa.algebra import unit
from probes.vsa.codebook import Candidates, Codebook, Targets

__all__ = ["ConceptScores", "Floors", "constant_floor", "evaluate", "published_floors"]


@dataclass(frozen=True, eq=False)
class ConceptScores:
    """How well decoded concepts match the right ones, each number with an interval over groups.

    Attributes:
        top1: share whose best concept is right (probing@1).
        top5: share with the right concept among the best five (probing@5).
        mrr: mean of one over the right concept's rank.
        cosine: mean cosine of the prediction with the right concept's hypervector.
        bits: mean share of coordinates whose sign agrees with it.
        claimed: share that is not abstained from.
        precision: share right among those claimed; None where nothing was.
        cosine_floor: the cosine of the best constant prediction.
        bits_floor: its share of signs.
        right: ``[example]``, 1 where the best concept is right.
        ranks: ``[example]``, of the right concept; ties count half.
    """

    top1: Estimate
    top5: Estimate
    mrr: Estimate
    cosine: Estimate
    bits: Estimate
    claimed: Estimate
    precision: Estimate | None
    cosine_floor: float
    bits_floor: float
    right: Int[np.ndarray, " example"]
    ranks: Float[np.ndarray, " example"]


def evaluate(
    decodings: Decodings,
    gold: Sequence[str],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> ConceptScores:
    """Compare decoded concepts with the right ones.

    Args:
        decodings: what a probe read, made without the right answers.
        gold: the right concept of each example.
        groups: the group of each example (its fact); every example its own where left out.
        level: nominal coverage of the intervals.
        seed: of the bootstrap.

    Raises:
        ValueError: not one right answer per example.
        CodebookError: a right answer that is no concept of the codebook.
    """
    if len(gold) != len(decodings):
        raise ValueError(f"{len(gold)} right answers for {len(decodings)} decodings; give one per example.")
    codebook = decodings.codebook
    codes = codebook.index(list(gold))
    ranks = 1 / _reciprocal(decodings, codes)
    right = np.array([int(names[0] == name) for names, name in zip(decodings.names, gold, strict=True)])
    wanted = unit(codebook.matrix[codes])
    cosine = (unit(decodings.vectors.float()) * wanted).sum(dim=1)
    bits = ((decodings.vectors > 0) == (wanted > 0)).double().mean(dim=1)
    claimed = (~decodings.abstained).cpu().numpy()
    floor = constant_floor(wanted)

    def share(values: Any, rows: Any = slice(None), support: Any = "share") -> Estimate:
        kept = None if groups is None else np.asarray(list(groups), dtype=object)[rows].tolist()
        return bootstrap(np.asarray(values)[rows], groups=kept, level=level, seed=seed, support=support)

    return ConceptScores(
        top1=share(right),
        top5=share((ranks <= 5).long().cpu().numpy()),
        mrr=share((1 / ranks).double().cpu().numpy()),
        cosine=share(cosine.double().cpu().numpy(), support="real"),
        bits=share(bits.cpu().numpy()),
        claimed=share(claimed.astype(np.int64)),
        precision=share(right, claimed) if claimed.any() else None,
        cosine_floor=floor.cosine,
        bits_floor=floor.bits,
        right=right,
        ranks=ranks.double().cpu().numpy(),
    )


def _reciprocal(decodings: Decodings, codes: Tensor) -> Float[Tensor, " example"]:
    parts: list[Tensor] = []
    for rows in torch.arange(len(codes)).split(1024):
        scores = decodings.codebook.similarities(decodings.vectors[rows])
        if decodings.candidates is not None:
            kept = _some(decodings.candidates, rows.tolist())
            scores = decodings.codebook.among(scores, kept)
        parts.append(reciprocal_ranks(scores, codes[rows, None]))
    return torch.cat(parts)


def _some(candidates: Candidates, rows: list[int]) -> Candidates:
    """The candidates of some examples, where each has its own."""
    lists: list[Sequence[str]] = []
    for i in rows:
        entry = candidates[i] if len(candidates) > i else ""
        if isinstance(entry, str):
            return candidates
        lists.append(entry)
    return lists


@dataclass(frozen=True)
class Floors:
    """What a prediction scores that knows nothing, or only what the prompt shows.

    Attributes:
        cosine: mean cosine with the targets.
        bits: mean share of coordinates whose sign agrees.
    """

    cosine: float
    bits: float


def constant_floor(targets: Float[Tensor, "example width"]) -> Floors:
    """What the best constant sign vector scores on targets: what any cosine has to be read against."""
    constant = torch.where(targets.mean(dim=0) > 0, 1.0, -1.0)
    return _scored(constant.expand_as(targets), targets)


def published_floors(codebook: Codebook, targets: Targets) -> dict[str, Floors]:
    """The floors of the published analogy target ``sign(a * b + c * d)``.

    Returns:
        ``constant``: the vector of -1 (cosine 0.50, bits 0.75, whatever the facts); ``example pair``: an
        ideal
        knower of ``a`` and ``b``, which stand in the prompt (cosine 0.707).

    Raises:
        ValueError: other targets.
    """
    if targets.kind != "published analogy":
        raise ValueError(
            f"targets of kind {targets.kind!r} given; make them with structures.published_analogies."
        )
    pair = codebook.algebra.bind(
        codebook.vectors[codebook.index(list(targets.fillers["a"]))],
        codebook.vectors[codebook.index(list(targets.fillers["b"]))],
    )
    knower = torch.where(pair < 0, -1.0, 0.0)
    return {
        "constant": _scored(-torch.ones_like(targets.vectors), targets.vectors),
        "example pair": _scored(knower, targets.vectors),
    }


def _scored(predicted: Float[Tensor, "example width"], targets: Float[Tensor, "example width"]) -> Floors:
    cosine = torch.cosine_similarity(predicted.double(), targets.double(), dim=1).mean()
    bits = ((predicted > 0) == (targets > 0)).double().mean()
    return Floors(float(cosine), float(bits))
