"""What an alignment is trained and scored on: interchanges with the answer each should give."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.alignment.downstream import Downstream
from interp.mediation.mediators import Mediator
from interp.mediation.metrics import Targets
from interp.mediation.proposals import values_at
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import PairSet

__all__ = ["Cases", "Division", "divided", "joined", "left_alone", "prepared"]


@dataclass(frozen=True)
class Division:
    """Say which groups are for fitting, for stopping and for reporting.

    Attributes:
        train: names of groups.
        validation: names of groups.
        test: names of groups.
    """

    train: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]

    def part(self, pairs: PairSet, groups: frozenset[str]) -> PairSet:
        """Give the pairs of some groups."""
        return pairs[[at for at, group in enumerate(pairs.groups) if group in groups]]


def divided(variables: Mapping[str, PairSet], fractions: Sequence[float | int], seed: int) -> Division:
    """Divide the groups of all variables at random; every variable has some in each part.

    Raises:
        ConfigError: fractions that are not three shares above 0, or a variable with too few groups.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions {tuple(fractions)} asked; give three that add up to 1: 0.6, 0.2, 0.2.")
    places: dict[str, int] = {}
    for number, (name, pairs) in enumerate(variables.items()):
        own = sorted(set(pairs.groups) - set(places))
        if len(set(pairs.groups)) < 5:
            raise ConfigError(
                f"the pairs of {name!r} are of {len(set(pairs.groups))} groups; training, stopping and "
                "testing on separate groups needs at least 5."
            )
        random.Random(f"division:{seed}:{number}").shuffle(own)
        ends = np.maximum(np.round(np.cumsum(fractions) * len(own)), [1, 2, 3])
        places |= {group: int(np.searchsorted(ends, at, side="right")) for at, group in enumerate(own)}
    parts = [frozenset(group for group, part in places.items() if part == at) for at in range(3)]
    return Division(*parts)


def joined(variables: Mapping[str, PairSet]) -> tuple[PairSet, Int[Tensor, " case"]]:
    """List every interchange to train on, with the block of directions that is interchanged in it.

    A pair gives two cases: the corrupt prompt takes the clean one's coordinates and should give the answer,
    and the reverse. Of several variables, the blocks of the others should change nothing: they are cases with
    the answer of the prompt itself (Huang et al. 2024, RAVEL, arXiv 2402.17700: cause and isolate).

    Returns:
        Pairs whose corrupt prompt is changed, whose clean prompt is the source, and whose answer is wanted.
    """
    sets: list[PairSet] = []
    blocks: list[int] = []
    for own, pairs in enumerate(variables.values()):
        for way in (pairs, pairs.swap()):
            kept = left_alone(way)
            for block in range(len(variables)):
                sets.append(way if block == own else kept)
                blocks += [block] * len(way)
    return _concatenated(sets), torch.tensor(blocks)


def left_alone(pairs: PairSet) -> PairSet:
    """Want the answer of the corrupt prompt itself, as if nothing had been interchanged."""
    kinds = [pair.kind for pair in pairs.pairs]
    both = list(zip(kinds, pairs.answer_ids, pairs.foil_ids, strict=True))
    answers = tuple(answer if kind == "null" else foil for kind, answer, foil in both)
    foils = tuple(foil if kind == "null" else answer for kind, answer, foil in both)
    return replace(pairs, answer_ids=answers, foil_ids=foils)


def _concatenated(sets: Sequence[PairSet]) -> PairSet:
    first = sets[0]

    def tokens(of: Sequence[Tokens]) -> Tokens:
        return replace(
            of[0],
            token_ids=tuple(ids for one in of for ids in one.token_ids),
            texts=tuple(text for one in of for text in one.texts),
        )

    return PairSet(
        tuple(pair for one in sets for pair in one.pairs),
        tokens([one.clean for one in sets]),
        tokens([one.corrupt for one in sets]),
        tuple(ids for one in sets for ids in one.answer_ids),
        tuple(ids for one in sets for ids in one.foil_ids),
        first.notes,
    )


@dataclass(frozen=True, eq=False)
class Cases:
    """Hold interchanges of prompts of one length.

    Attributes:
        run: the prompts that are changed.
        sources: ``[case width]``, the other prompts' values.
        targets: the tokens that are wanted, and those that are not.
        blocks: ``[case]``, which block of directions is interchanged.
    """

    run: Downstream
    sources: Float[Tensor, "case width"]
    targets: Targets
    blocks: Int[Tensor, " case"]

    def __len__(self) -> int:
        """Give the number of cases."""
        return len(self.blocks)

    def batches(self, size: int, order: np.random.Generator) -> Iterator[Int[Tensor, " row"]]:
        """Give the rows of each batch, in random order."""
        rows = torch.from_numpy(order.permutation(len(self)))
        yield from rows.split(size)


def prepared(
    model: Model, pairs: PairSet, blocks: Int[Tensor, " case"], mediator: Mediator
) -> tuple[Cases, ...]:
    """Read once all that training needs, by length of prompt."""
    sources = values_at(model, pairs.clean, mediator)
    found: list[Cases] = []
    for length in sorted(set(pairs.lengths)):
        rows = [at for at, n in enumerate(pairs.lengths) if n == length]
        part = pairs[rows]
        run = Downstream.of(model, part.corrupt.token_ids, mediator)
        targets = Targets.of(part, model.device)
        found.append(Cases(run, sources[rows].to(model.device), targets, blocks[rows].to(model.device)))
    return tuple(found)
