"""Write a concept into a state: the least change after which a probe reads another name there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from probes.hyperdimensional.encoders import Linear
from probes.hyperdimensional.fitted import Fitted
from probes.statistics.groups import counted
from probes.vsa.codebook import Codebook

__all__ = ["NotLinearError", "Replacement", "ScoreMap", "edited", "exchanged", "score_map"]

Replacement = Mapping[str, str] | Sequence[tuple[str, str]]
"""Old name -> new name for every state; or one such pair per state."""
ALIKE = 1e-6
"""Names whose scores follow from states by rows that differ by less than this share are not told apart."""


class NotLinearError(ValueError):
    """Report a probe whose scores are no linear function of the state."""


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """How the score of each of some names follows from a state: ``states @ rows.T + offsets``.

    A score is the product of the predicted hypervector (of the role, where one is asked for) with the name's.

    Attributes:
        rows: ``[name dim]``, in the units of the states.
        offsets: ``[name]``.
    """

    rows: Float64[Tensor, "name dim"]
    offsets: Float64[Tensor, " name"]

    def __call__(self, states: Float64[Tensor, "example dim"]) -> Float64[Tensor, "example name"]:
        """The scores."""
        return states @ self.rows.T + self.offsets


def score_map(fitted: Fitted, codebook: Codebook, names: Sequence[str], role: str = "") -> ScoreMap:
    """How a fitted probe scores names.

    Args:
        fitted: what it learned, with a linear encoder.
        codebook: of its concepts.
        names: some of them.
        role: of a record; "" for bare concepts.

    Raises:
        NotLinearError: its scores are not linear in the state.
        CodebookError: an unknown name.
    """
    encoder = fitted.encoder
    if not isinstance(encoder, Linear) or fitted.rounded:
        kind = "rounded" if fitted.rounded else encoder.form
        raise NotLinearError(
            f"a probe with a {kind} encoder does not score names by a linear function of the state; train "
            "one with a linear encoder."
        )
    both = torch.cat([encoder.weight, encoder.offset[None]]).double()
    if encoder.basis is not None:
        both = both @ encoder.basis.double()
    if role:
        both = codebook.algebra.unbind_real(both.float(), codebook.role(role)).double()
    scores = both @ codebook.matrix[codebook.index(list(names))].double().T
    rows = (scores[:-1] / fitted.scale.double()[:, None]).T.contiguous()
    return ScoreMap(rows, scores[-1] - rows @ fitted.mean.double())


def edited(
    fitted: Fitted,
    codebook: Codebook,
    states: Float[Tensor, "example dim"],
    replace: Replacement,
    *,
    role: str = "",
    dose: float = 1.0,
) -> Float64[Tensor, "example dim"]:
    """The states after the least change that exchanges the scores of old and new names.

    Least in Euclidean length. Of the least change in the metric of the states' own covariance it was measured
    on SmolLM2 (layer 24, 70 prompts, a translator) that it follows directions which the model hardly reads:
    it makes the new answer the first in 24-30% of prompts, the Euclidean one in 80%.

    Args:
        fitted: what the probe learned, with a linear encoder.
        codebook: of its concepts.
        states: not changed.
        replace: what to put in whose place.
        role: of a record; "" for bare concepts.
        dose: 0 changes nothing; at 1 the names have exchanged their scores; beyond it the new one is raised
            and the old one lowered by as much again.

    Raises:
        NotLinearError: the probe's scores are not linear in the state.
        ValueError: nothing to replace, another number of pairs than states, or two names that the probe
            cannot tell apart.
        CodebookError: an unknown name.
    """
    names = list(dict.fromkeys(name for pair in listed_pairs(replace) for name in pair))
    return exchanged(score_map(fitted, codebook, names, role), names, states, replace, dose=dose)


def exchanged(
    scores: ScoreMap,
    names: Sequence[str],
    states: Float[Tensor, "example dim"],
    replace: Replacement,
    *,
    dose: float = 1.0,
) -> Float64[Tensor, "example dim"]:
    """The states after the least change that exchanges the scores of old and new names.

    Args:
        scores: how names are scored.
        names: in the order of its rows.
        states: not changed.
        replace: what to put in whose place.
        dose: as for :func:`edited`.

    Raises:
        ValueError: nothing to replace, a name in two pairs of a mapping, another number of pairs than states,
            or two names that are scored alike.
    """
    places = {name: at for at, name in enumerate(names)}
    pairs = _pairs(replace, len(states))
    at = torch.tensor([[places[name] for pair in row for name in pair] for row in pairs], dtype=torch.int64)
    wide = states.double()
    return wide + dose * _least_change(scores, wide, at.to(wide.device), names)


def listed_pairs(replace: Replacement) -> list[tuple[str, str]]:
    """Every pair of old and new name.

    Raises:
        ValueError: there is none.
    """
    if not replace:
        raise ValueError("nothing to replace; give old names and new ones, such as {'Paris': 'Rome'}.")
    return list(replace.items() if isinstance(replace, Mapping) else replace)


def _pairs(replace: Replacement, n: int) -> list[tuple[tuple[str, str], ...]]:
    """The pairs of old and new names, for each state."""
    if isinstance(replace, Mapping):
        count = Counter(name for pair in replace.items() for name in dict.fromkeys(pair))
        if (most := max(count, key=count.__getitem__)) and count[most] > 1:
            raise ValueError(
                f"{most!r} stands in {count[most]} pairs; a name can be exchanged with one other."
            )
        return [tuple(replace.items())] * n
    if len(replace) != n:
        raise ValueError(
            f"{counted(len(replace), 'pair')} for {counted(n, 'state')}; give one (old, new) per state, or a "
            "mapping."
        )
    return [((old, new),) for old, new in replace]


def _least_change(
    scores: ScoreMap,
    states: Float64[Tensor, "example dim"],
    at: Int64[Tensor, "example name"],
    names: Sequence[str],
) -> Float64[Tensor, "example dim"]:
    """The shortest change after which each pair of neighbouring columns of ``at`` has exchanged scores."""
    rows = scores.rows.to(states)[at]
    now = scores(states).gather(1, at)
    wanted = now.unflatten(1, (-1, 2)).flip(2).flatten(1) - now
    gap = (rows[:, ::2] - rows[:, 1::2]).norm(dim=2) <= ALIKE * rows[:, ::2].norm(dim=2)
    if (wrong := (gap & (at[:, ::2] != at[:, 1::2])).nonzero()).numel():
        row, pair = wrong[0].tolist()
        old, new = (names[int(i)] for i in at[row, 2 * pair : 2 * pair + 2])
        raise ValueError(
            f"the probe cannot tell {old!r} from {new!r}, so neither can take the other's place."
        )
    gram = rows @ rows.mT
    solved = torch.linalg.pinv(gram, hermitian=True) @ wanted[:, :, None]
    return (rows.mT @ solved)[:, :, 0]
