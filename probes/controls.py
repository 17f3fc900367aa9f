"""What a probe must beat: labels that mean nothing, and inputs that need no model."""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from probes.statistics.groups import counted

__all__ = ["bag_of_tokens", "control_task_labels", "length_only", "ordered_slots", "shuffled_labels"]


def shuffled_labels(
    labels: Sequence[Any], *, groups: Sequence[Any] | None = None, seed: int = 0
) -> list[Any]:
    """Break the tie between examples and labels, and keep everything else.

    Where a group has one label, whole groups exchange labels: shuffling single examples would make groups
    inconsistent, which is easier to spot than what the probe is tested on. The examples of all other groups
    exchange labels among each other, across groups: inside one group the labels may be alike (all relations
    of a country, say), so that shuffling there would leave much of the tie in place.

    Args:
        labels: one label per example.
        groups: the group of each example; by default every example is its own group.
        seed: of the shuffle.

    Returns:
        New labels, one per example.
    """
    rows = _rows_of(groups if groups is not None else range(len(labels)), len(labels))
    rng, result = random.Random(seed), list(labels)
    constant = [members for members in rows if len({labels[i] for i in members}) == 1]
    given = [labels[members[0]] for members in constant]
    rng.shuffle(given)
    for members, label in zip(constant, given, strict=True):
        for i in members:
            result[i] = label
    mixed = [i for members in rows if len({labels[i] for i in members}) > 1 for i in members]
    own = [labels[i] for i in mixed]
    rng.shuffle(own)
    for i, label in zip(mixed, own, strict=True):
        result[i] = label
    return result


def _rows_of(groups: Collection[Hashable], n: int) -> list[list[int]]:
    if len(groups) != n:
        raise ValueError(
            f"{counted(len(groups), 'group')} for {counted(n, 'label')}; give one group per example."
        )
    rows: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        rows.setdefault(group, []).append(i)
    return list(rows.values())


def control_task_labels(keys: Sequence[Hashable], labels: Sequence[Any], *, seed: int = 0) -> list[Any]:
    """A fixed random label for every key, drawn as often as the true labels occur (Hewitt and Liang 2019).

    A probe that scores high on these stores its keys; its accuracy less this one is its *selectivity*. Keys
    must occur in training and in test, otherwise the control cannot be above chance.

    Args:
        keys: what the probe could store of each example (a token, a subject).
        labels: the true labels, for their frequencies.
        seed: of the draw; a key's label depends on the seed and the order of first occurrence.

    Returns:
        One label per key given.
    """
    rng, pool = random.Random(seed), list(labels)
    drawn: dict[Hashable, Any] = {}
    for key in keys:
        if key not in drawn:
            drawn[key] = rng.choice(pool)
    return [drawn[key] for key in keys]


def bag_of_tokens(
    token_ids: Sequence[Sequence[int]], *, vocabulary: Sequence[int] | None = None
) -> sparse.csr_array:
    """Count each prompt's tokens: what can be read off the words, in any order, without a model.

    Args:
        token_ids: the ids of each prompt, without padding.
        vocabulary: the ids that have a column; by default every id that occurs.

    Returns:
        ``[example token]`` counts; tokens outside the vocabulary are not counted.
    """
    known = sorted(set(vocabulary if vocabulary is not None else (t for ids in token_ids for t in ids)))
    column = {token: i for i, token in enumerate(known)}
    cells = [(row, column[t]) for row, ids in enumerate(token_ids) for t in ids if t in column]
    rows, columns = [row for row, _ in cells], [c for _, c in cells]
    shape = (len(token_ids), len(known))
    counts = sparse.coo_array((np.ones(len(cells)), (rows, columns)), shape=shape)
    return sparse.csr_array(counts)


def length_only(token_ids: Sequence[Sequence[int]]) -> Float[np.ndarray, "example 1"]:
    """Each prompt's number of tokens, as the only column."""
    return np.array([[float(len(ids))] for ids in token_ids]).reshape(len(token_ids), 1)


def ordered_slots(
    token_ids: Sequence[Sequence[int]], *, vocabulary: Sequence[tuple[int, int]] | None = None
) -> tuple[sparse.csr_array, list[tuple[int, int]]]:
    """Mark which token stands in which place, counted from the end: what a prompt says, order included.

    Stronger than a bag of tokens: a probe on it can tell the word asked about from the words of an example.

    Args:
        token_ids: the tokens of each prompt.
        vocabulary: the (place, token) columns, where they are known from training prompts; all that occur
            where left out. Others are ignored.

    Returns:
        ``[example slot]``, ones, and the (place, token) of each column.
    """
    pairs = [[(place, token) for place, token in enumerate(reversed(list(ids)))] for ids in token_ids]
    columns = sorted({pair for row in pairs for pair in row}) if vocabulary is None else list(vocabulary)
    where = {pair: column for column, pair in enumerate(columns)}
    rows = [(i, where[pair]) for i, row in enumerate(pairs) for pair in row if pair in where]
    places = tuple(np.array(axis, dtype=np.int64) for axis in zip(*rows, strict=True)) if rows else ([], [])
    ones = np.ones(len(rows), dtype=np.float32)
    return sparse.csr_array((ones, places), shape=(len(token_ids), len(columns))), columns
