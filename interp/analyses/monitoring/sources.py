"""Leaving sources out, and what reads labels without the model: words, length, format."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import DataError, counted
from probes.controls import bag_of_tokens
from probes.linear import LogisticProbe

__all__ = ["WORDLESS", "Fold", "Wordless", "read_without_model", "source_folds"]

PENALTIES = (0.01, 0.1, 1.0)
MARKS = ("\n", "?", "!", ":", ";", ",", ".", "-", "*", "#", "`", '"', "'", "(", "[", "{", "<", "=", "/")


@dataclass(frozen=True, eq=False)
class Fold:
    """Sources that are left out of training.

    Attributes:
        name: of the sources.
        train: rows of the others, without those whose group is tested.
        test: rows of these, of both labels.
    """

    name: str
    train: np.ndarray
    test: np.ndarray

    @classmethod
    def apart(
        cls, name: str, train: np.ndarray, test: np.ndarray, positive: np.ndarray, groups: Sequence[str]
    ) -> Fold:
        """Of rows to train on those whose group is not tested.

        Raises:
            DataError: they have one label, or none.
        """
        units = np.asarray(groups)
        kept = train[~np.isin(units[train], units[test])]
        if len(set(positive[kept].tolist())) < 2:
            raise DataError(
                f"with {name} left out, {len(train) - len(kept):,} of {counted(len(train), 'training row')} "
                f"share a group with it, and the {len(kept):,} that stay have fewer than two labels; give "
                "each source groups of its own."
            )
        return cls(name, kept, test)


def source_folds(positive: np.ndarray, sources: Sequence[str], groups: Sequence[str]) -> tuple[Fold, ...]:
    """Leave out one source after the other; of sources with one label each, some of either label at a time.

    Every source is tested once: of sources with one label each, as many folds are made as the rarer label
    has sources. A row whose group is tested is not trained on.

    Args:
        positive: ``[example]``, true for the label that is looked for.
        sources: one each.
        groups: one each; none is on both sides.

    Raises:
        DataError: fewer than two folds, sources of one label beside sources of two, or a fold whose training
            rows have one label without the groups that are tested.
    """
    names = np.asarray(sources)
    both = {name: set(positive[names == name].tolist()) for name in dict.fromkeys(sources)}
    mixed = [name for name, found in both.items() if len(found) == 2]
    yes, no = ([name for name, found in both.items() if found == {side}] for side in (True, False))
    if mixed and (yes or no):
        raise DataError(
            f"the source {mixed[0]!r} has both labels and {(yes or no)[0]!r} has one; give sources that all "
            "have both, or all one."
        )
    k = min(len(yes), len(no))
    held = [(name,) for name in mixed] or [(*yes[at::k], *no[at::k]) for at in range(k)]
    if len(held) < 2:
        raise DataError(
            f"leaving sources out takes at least two of each label; found {counted(len(yes), 'source')} of "
            f"the one, {len(no)} of the other, and {len(mixed)} of both. Give each row a 'source'."
        )
    inside = [np.isin(names, out) for out in held]
    return tuple(
        Fold.apart(" + ".join(out), np.flatnonzero(~tested), np.flatnonzero(tested), positive, groups)
        for out, tested in zip(held, inside, strict=True)
    )


@dataclass(frozen=True)
class Wordless:
    """Something that reads labels without the model.

    Attributes:
        name: in a table.
        words: in a sentence.
        features: from token ids, texts and the rows whose tokens may have a column, to ``[example feature]``.
    """

    name: str
    words: str
    features: Callable[[Sequence[Sequence[int]], Sequence[str], np.ndarray], Any]


def _bag(ids: Sequence[Sequence[int]], texts: Sequence[str], train: np.ndarray) -> Any:
    known = sorted({token for row in train for token in ids[row]})
    return bag_of_tokens(ids, vocabulary=known)


def _length(ids: Sequence[Sequence[int]], texts: Sequence[str], train: np.ndarray) -> Any:
    rows = [(len(row), len(text), len(text.split())) for row, text in zip(ids, texts, strict=True)]
    return np.log(np.array(rows, dtype=np.float64) + 1)


def _format(ids: Sequence[Sequence[int]], texts: Sequence[str], train: np.ndarray) -> Any:
    """Marks, digits and capitals per character, lines, and how text begins and ends."""
    rows = []
    for text in texts:
        size = max(len(text), 1)
        shares = [text.count(mark) / size for mark in MARKS]
        shares += [sum(c.isdigit() for c in text) / size, sum(c.isupper() for c in text) / size]
        options = len(re.findall(r"(?m)^\s*(?:[A-E]|\d+)[.)]", text))
        ends = [text[:1].isupper(), text[-1:] == "?", text[-1:] == ".", text.count("\n"), options]
        rows.append(shares + [float(one) for one in ends])
    return np.array(rows, dtype=np.float64)


WORDLESS: dict[str, Wordless] = {
    row.name: row
    for row in (
        Wordless("bag of words", "a bag of words", _bag),
        Wordless("length", "the length", _length),
        Wordless("format", "the format (marks, lines, capitals)", _format),
    )
}


def read_without_model(
    row: Wordless,
    ids: Sequence[Sequence[int]],
    texts: Sequence[str],
    positive: np.ndarray,
    groups: Sequence[str],
    fold: Fold,
    *,
    seed: int = 0,
) -> np.ndarray:
    """``[test]`` scores of a logistic probe on features that need no model."""
    table, train = row.features(ids, texts, fold.train), fold.train
    if table.shape[1] == 0:
        return np.zeros(len(fold.test))
    probe = LogisticProbe(seed=seed, regularisation=PENALTIES)
    probe.fit(table[train], positive[train].astype(int), groups=[groups[at] for at in train])
    return np.asarray(probe.decision_function(table[fold.test]))[:, 1]
