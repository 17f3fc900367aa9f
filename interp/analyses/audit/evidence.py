"""The evidence of one arm: how often a reader names what it could be after, and how often by luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

from interp.analyses.audit.cases import Luck, hits, luck
from interp.results.codec import UNSAVED
from probes.statistics import Estimate, Interval, bootstrap, clopper_pearson, paired_difference

__all__ = ["LEVEL", "Evidence", "difference", "evidence"]

LEVEL = 0.99
"""Of the intervals that a verdict rests on: it looks at several, and may be wrong in 5% of audits."""
DRAWS = 999
AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one arm says about one target.

    Attributes:
        arm: whose states the reader was given.
        target: what counts as read.
        n: prompts.
        n_facts: facts they are about.
        share: of the prompts whose reading is the target, with its 95% interval over facts.
        luck: the same with the names permuted: against the targets of other facts of the relation.
        excess: share minus luck, with its 99% interval over facts.
        p_value: of a share as large where the targets of a relation's facts are exchanged (one-sided, exact
            up to drawing); 1 where the interval does not exclude zero, which settles it.
        hit: per prompt, 1 where the target is read. It is not saved.
    """

    arm: str
    target: str
    n: int
    n_facts: int
    share: Estimate
    luck: float
    excess: Estimate
    p_value: float
    hit: Int[np.ndarray, " item"] = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False, metadata=UNSAVED
    )

    @property
    def present(self) -> bool:
        """Whether more than luck is read."""
        return self.excess.interval.low > 0 and self.p_value <= 1 - LEVEL

    def absent(self, margin: float) -> bool:
        """Whether anything beyond luck is less than a margin."""
        return self.excess.interval.high < margin


def evidence(
    arm: str,
    target: str,
    names: Sequence[str],
    targets: Sequence[Sequence[str]],
    facts: Sequence[str],
    relations: Sequence[str],
    *,
    seed: int = 0,
) -> Evidence | None:
    """Measure one arm on one target; None where no relation has two facts to tell apart.

    Args:
        arm: whose states the reader was given.
        target: what counts as read, in words.
        names: what was read from each prompt; "" where the reader abstained.
        targets: the names that count, prompt by prompt.
        facts: the fact of each prompt.
        relations: the relation of each prompt.
        seed: of the exchanges.
    """
    own = hits(names, targets)
    chance = luck(names, targets, facts, relations)
    rows = np.flatnonzero(~np.isnan(chance.reading))
    if not len(rows):
        return None
    places: list[int] = rows.tolist()
    groups = [facts[row] for row in places]
    excess = _excess(own[rows], chance, rows, groups, [relations[row] for row in places])
    p = _exchanged(chance.tables, seed) if excess.interval.low > 0 else 1.0
    share, by_luck = bootstrap(own[rows], groups=groups, support="share"), float(chance.reading[rows].mean())
    return Evidence(arm, target, len(rows), len(set(groups)), share, by_luck, excess, p, own)


def _excess(
    own: Int[np.ndarray, " item"],
    chance: Luck,
    rows: Int[np.ndarray, " item"],
    groups: Sequence[str],
    relations: Sequence[str],
) -> Estimate:
    """Share minus luck. What a prompt adds is centred on its reading's luck and on its target's.

    So the spread is that of the exchange itself: a reader that always says the same is not uncertain at all.
    The upper end is no closer than what so many facts can exclude (Clopper and Pearson), and no further than
    that of the share alone, less luck.
    """
    grand = {name: _mean(chance.reading[rows], relations, name) for name in dict.fromkeys(relations)}
    pulls = own - chance.reading[rows] - chance.target[rows] + [grand[name] for name in relations]
    value = float(np.mean(own - chance.reading[rows]))
    found = bootstrap(pulls - pulls.mean() + value, groups=groups, level=LEVEL, support="real")
    facts = found.effective_groups or float(found.n_groups)
    high = max(found.interval.high, value + clopper_pearson(0, facts, level=LEVEL).high)
    alone = bootstrap(own, groups=groups, level=LEVEL, support="share").interval
    high = max(value, min(high, alone.high - float(own.mean()) + value))
    method = f"{found.interval.method}, at least what the facts exclude"
    return replace(found, value=value, interval=Interval(found.interval.low, high, LEVEL, method))


def _mean(values: Float[np.ndarray, " item"], relations: Sequence[str], name: str) -> float:
    return float(values[[one == name for one in relations]].mean())


def difference(
    first: Int[np.ndarray, " item"], second: Int[np.ndarray, " item"], facts: Sequence[str]
) -> Estimate:
    """What is read more of the first target than of the second, with its 99% interval over facts."""
    return paired_difference(first, second, groups=facts, level=LEVEL, support="share")


def _exchanged(tables: Sequence[Float[np.ndarray, "_ _"]], seed: int) -> float:
    """The share of exchanges within relations that score as much as was observed, which is counted too."""
    rng = np.random.default_rng(seed)
    total, observed = np.zeros(DRAWS), 0.0
    for table in tables:
        n = len(table)
        if n < 2:
            continue
        observed += float(np.trace(table))
        step = max(1, AT_ONCE // n)
        for start in range(0, DRAWS, step):
            part = slice(start, min(DRAWS, start + step))
            order = rng.permuted(np.tile(np.arange(n), (part.stop - start, 1)), axis=1)
            total[part] += table[np.arange(n), order].sum(axis=1)
    return float(1 + np.sum(total >= observed - 1e-9)) / (1 + DRAWS)
