"""Is a reader right more often than guessing? Labels are exchanged between groups, readings stay as they are.

If readings and labels have nothing to do with each other, any exchange of the labels between test groups is
as likely as the one that was observed, so that the p value is exact whatever the shares of the labels, the
reader and the sizes of the groups (Fisher 1935; Phipson and Smyth 2010 for counting the observed one).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from interp.errors import DataError, counted
from probes.base import Probe
from probes.statistics import Estimate, Interval

__all__ = ["SHUFFLES", "Guessing", "beyond_guessing", "refitted_alike", "spread"]

LEVEL = 0.05
"""A larger p value does not tell a reader from guessing."""
DRAWS = 4999
AT_ONCE = 1 << 22

Codes = Int[np.ndarray, "..."]


@dataclass(frozen=True)
class Guessing:
    """The accuracy that guessing reaches, and the chance that it reaches what was observed.

    Attributes:
        expected: mean accuracy of the same readings against exchanged labels.
        p_value: share of exchanges with at least the observed accuracy, the observed one counted; never 0.
    """

    expected: float
    p_value: float

    @property
    def beaten(self) -> bool:
        """Whether guessing is ruled out at the level of 5%."""
        return self.p_value <= LEVEL


def beyond_guessing(
    labels: Sequence[Any],
    read: Sequence[Any],
    groups: Sequence[Any],
    *,
    strata: Sequence[Any] | None = None,
    candidates: Sequence[Collection[Any]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Guessing:
    """Test whether a reader is right more often than by luck (one-sided).

    Groups of one label exchange labels with each other. Groups of several labels exchange the whole list with
    groups of as many items, and shuffle it inside: what the items of a group share stays together.

    Args:
        labels: the right label of each test item.
        read: what was read from each.
        groups: items that are not independent of each other share a group.
        strata: labels are exchanged only between items of one stratum, such as the relation that the prompt
            names: what a reader of the stratum alone scores is then luck.
        candidates: for each item the labels that the prompt leaves open, each as likely; () where it leaves
            all open. Such items get a label of their candidates by lot, one by one.
        draws: exchanges.
        seed: of the exchanges.

    Raises:
        DataError: no items, or not one label, reading and group per item.
    """
    n = len(labels)
    if not n or len(read) != n or len(groups) != n:
        raise DataError(
            f"{counted(n, 'label')}, {counted(len(read), 'reading')} and {counted(len(groups), 'group')}; "
            "give one of each for every item."
        )
    names = {name: code for code, name in enumerate(dict.fromkeys([*labels, *read]))}
    wanted, found = (np.array([names[name] for name in column]) for column in (labels, read))
    rng = np.random.default_rng(seed)
    null = np.zeros(draws, dtype=np.int64)
    open_to = [()] * n if candidates is None else candidates
    lots = [i for i in range(n) if open_to[i]]
    for i in lots:
        null += rng.random(draws) < (read[i] in open_to[i]) / len(open_to[i])
    rest: dict[Any, dict[Any, list[int]]] = {}
    for i in sorted(set(range(n)) - set(lots)):
        rest.setdefault(None if strata is None else strata[i], {}).setdefault(groups[i], []).append(i)
    for members in rest.values():
        rows = [np.array(one) for one in members.values()]
        constant = [one for one in rows if len(set(wanted[one])) == 1]
        null += _of_constant(constant, wanted, found, draws, rng)
        for size in {len(one) for one in rows}:
            mixed = [one for one in rows if len(one) == size and len(set(wanted[one])) > 1]
            null += _of_mixed(mixed, wanted, found, draws, rng)
    observed = int((wanted == found).sum())
    return Guessing(float(null.mean()) / n, (1 + int((null >= observed).sum())) / (1 + draws))


def _of_constant(
    rows: list[np.ndarray], wanted: Codes, found: Codes, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, " draw"]:
    """Count the right readings where the groups' labels are exchanged."""
    if not rows:
        return np.zeros(draws, dtype=np.int64)
    labels = np.array([wanted[one[0]] for one in rows])
    codes = {label: at for at, label in enumerate(dict.fromkeys(labels.tolist()))}
    own = np.array([codes[label] for label in labels.tolist()])
    hits = np.array([[int((found[one] == label).sum()) for label in codes] for one in rows])
    at, total = np.arange(len(rows)), np.empty(draws, dtype=np.int64)
    step = max(1, AT_ONCE // len(rows))
    for start in range(0, draws, step):
        part = slice(start, min(draws, start + step))
        given = rng.permuted(np.tile(own, (part.stop - start, 1)), axis=1)
        total[part] = hits[at, given].sum(axis=1)
    return total


def _of_mixed(
    rows: list[np.ndarray], wanted: Codes, found: Codes, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, " draw"]:
    """Count the right readings where groups of one size exchange their lists of labels, shuffled inside."""
    if not rows:
        return np.zeros(draws, dtype=np.int64)
    own, read = wanted[np.stack(rows)], found[np.stack(rows)]
    total = np.empty(draws, dtype=np.int64)
    for at in range(draws):
        given = rng.permuted(own[rng.permutation(len(own))], axis=1)
        total[at] = (given == read).sum()
    return total


SHUFFLES = 20
"""One shuffle is luck: where states are alike within a few kinds, a probe of shuffled labels is right by
accident on all of a kind, or wrong on all of it."""


def refitted_alike(probe: Probe) -> Probe:
    """Make an unfitted probe of the same kind and settings, with the penalty that was chosen for this one."""
    given: dict[str, Any] = probe.get_params()
    facts = probe.facts()
    chosen = {**facts, **facts.get("notes", {})}.get("regularisation")
    if "regularisation" in given and chosen is not None:
        given["regularisation"] = chosen
    return type(probe)(**given)


def spread(hits: np.ndarray, groups: Sequence[Any]) -> Estimate:
    """Summarise a control that was drawn many times: its mean, and where nine in ten of its draws lie.

    Args:
        hits: ``[draw example]``, 1 where a draw is right.
        groups: of the examples.
    """
    low, high = np.quantile(hits.mean(axis=1), [0.05, 0.95])
    interval = Interval(float(low), float(high), 0.9, f"5% to 95% of {counted(len(hits), 'shuffle')}")
    return Estimate(float(hits.mean()), interval, hits.shape[1], len(set(groups)))
