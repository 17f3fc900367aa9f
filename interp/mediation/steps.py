"""Whole answers in steps: one row for each token that an answer or a foil has to go on with.

A row is a pair's prompts with the tokens of the answer so far behind both (teacher forcing). The
log-probability of a whole answer is the sum over its rows, and so is every effect on it. Tokens that answer
and foil share at their beginning have no row: they cancel in the odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError
from interp.mediation.mediators import Mediator
from interp.mediation.metrics import Metric
from interp.models.model import Model
from interp.models.tokens import Tokens, continuation
from interp.pairs import PairSet

__all__ = ["Steps", "from_the_start", "steps_of"]


@dataclass(frozen=True, eq=False)
class Steps:
    """Pairs as rows of single next tokens.

    Attributes:
        whole: the pairs.
        pairs: one row per step; its answers and foils are the tokens that come next.
        owners: the pair of each row, in order.
    """

    whole: PairSet
    pairs: PairSet
    owners: tuple[int, ...]

    @property
    def most(self) -> int:
        """The most rows that one pair has."""
        return max(self.owners.count(owner) for owner in set(self.owners))

    def sums(self, values: Float[np.ndarray, "*batch row"]) -> Float[np.ndarray, "*batch pair"]:
        """Add up the rows of each pair."""
        own = np.asarray(self.owners)[:, None] == np.arange(len(self.whole))
        return values @ own.astype(np.float64)


def steps_of(model: Model, pairs: PairSet, metric: Metric) -> Steps:
    """Lay pairs out in steps.

    Args:
        model: whose tokenizer.
        pairs: with one answer each, and one foil where the metric compares them.
        metric: which sides are scored.

    Raises:
        ConfigError: a pair with several answers or foils, or whose answers are not those of its texts.
        DataError: as for ``tokens.continuation``.
    """
    prompts: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
    nexts: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
    owners: list[int] = []
    for row in range(len(pairs)):
        for prefix, *tokens in _of_pair(*_whole(model, pairs, row, metric)):
            owners.append(row)
            for side, given in enumerate((pairs.clean, pairs.corrupt)):
                prompts[side].append((*given.token_ids[row], *prefix))
                nexts[side].append(tokens[side])
    clean, corrupt = (Tokens(tuple(ids), ("",) * len(ids), pad_id=pairs.clean.pad_id) for ids in prompts)
    rows = replace(
        pairs,
        pairs=tuple(pairs.pairs[owner] for owner in owners),
        clean=clean,
        corrupt=corrupt,
        answer_ids=tuple(nexts[0]),
        foil_ids=tuple(nexts[1]),
    )
    return Steps(pairs, rows, tuple(owners))


def _whole(model: Model, pairs: PairSet, row: int, metric: Metric) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All tokens of a pair's answer and foil; () for a side that is not scored."""
    pair, tokenizer = pairs.pairs[row], model.tokenizer
    found: list[tuple[int, ...]] = []
    for side, words, first in (
        ("answer", pair.answers, pairs.answer_ids[row]),
        ("foil", pair.foils, pairs.foil_ids[row]),
    ):
        if side not in metric.whole:
            found.append(())
            continue
        if len(words) != 1 or tokenizer is None:
            raise ConfigError(
                f"metric {metric.name!r} scores one whole {side}, and pair {row} has {len(words)}. Keep one "
                "of them, or use a metric of first tokens, such as logit-diff."
            )
        ids = continuation(
            pairs.clean.texts[row],
            pairs.clean.token_ids[row],
            words[0],
            tokenizer,
            vocab_size=model.vocab_size,
            joint=pair.joint,
        )
        if ids[:1] != tuple(first):
            raise ConfigError(
                f"the answers of pair {row} were exchanged for others, of which only the first tokens are "
                f"known; metric {metric.name!r} needs them whole. Use logit-diff."
            )
        found.append(ids)
    return found[0], found[1]


def _of_pair(
    answer: tuple[int, ...], foil: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Per step the tokens before it and the next token of answer and foil, () where one has none there."""
    equal = [a == b for a, b in zip(answer, foil, strict=False)]
    shared = equal.index(False) if False in equal else 0
    before = dict.fromkeys(ids[:at] for ids in (answer, foil) for at in range(shared, len(ids)))
    return [(prefix, _next(answer, prefix), _next(foil, prefix)) for prefix in before]


def _next(ids: tuple[int, ...], prefix: tuple[int, ...]) -> tuple[int, ...]:
    """The token of an answer that comes after a prefix of it; () for a prefix of another."""
    size = len(prefix)
    return ids[size : size + 1] if ids[:size] == prefix else ()


def from_the_start(mediators: Sequence[Mediator], pairs: PairSet) -> tuple[Mediator, ...]:
    """The same mediators with positions counted from the start, so that they stay put as answers grow.

    Raises:
        ConfigError: positions counted from the end of prompts of several lengths.
    """
    lengths = set(pairs.lengths)
    if len(lengths) > 1 and any((one.position or 0) < 0 for one in mediators):
        raise ConfigError(
            "whole answers are measured behind prompts that grow, so that positions must count from the "
            "start, and prompts of several lengths count them from the end. Use positions='all' (--where "
            "all), an index from the start, or pairs of one length."
        )
    size = min(lengths)
    return tuple(
        one if one.position is None or one.position >= 0 else replace(one, position=one.position % size)
        for one in mediators
    )
