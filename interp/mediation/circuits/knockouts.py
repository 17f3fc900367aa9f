"""What is taken out of a circuit, and put in at random.

Completeness: random cuts of it and of the model. Minimality: each member alone, beside others put in.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probes.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    import pandas

__all__ = ["Knockouts", "Removals", "cuts_of", "extras_of"]

QUANTILE = 0.95


@dataclass(frozen=True, eq=False, repr=False)
class Knockouts:
    """Hold a circuit and the whole model after the same cuts (Wang et al. 2022, 2211.00593, section 4.2).

    If the circuit is complete, cutting K out of it does what cutting K out of the model does.

    Attributes:
        sizes: how many members each cut takes out.
        circuit: ``m(C without K)``.
        model: ``m(all without K)``.
    """

    sizes: tuple[int, ...]
    circuit: Float[np.ndarray, "cut pair"]
    model: Float[np.ndarray, "cut pair"]

    def gap(
        self, ends: Float[np.ndarray, "pair ends"], groups: Sequence[str], seed: int
    ) -> tuple[Estimate, Estimate]:
        """Give the mean over cuts of ``|m(C without K) - m(all without K)|``, each a mean over pairs.

        Args:
            ends: ``m(none)`` and ``m(all)``.
            groups: of the pairs.
            seed: of the intervals.

        Returns:
            In units of the metric, and as a share of ``m(all) - m(none)``.
        """
        table = np.concatenate([(self.circuit - self.model).T, ends], axis=1)
        absolute = bootstrap(table, groups=groups, statistic=_gap, seed=seed)
        return absolute, bootstrap(table, groups=groups, statistic=_relative_gap, seed=seed)


def _gap(table: np.ndarray) -> float:
    return float(np.abs(table[:, :-2].mean(axis=0)).mean())


def _relative_gap(table: np.ndarray) -> float:
    none, whole = table[:, -2:].mean(axis=0)
    return _gap(table) / abs(whole - none) if abs(whole - none) > 1e-12 else 0.0


@dataclass(frozen=True, eq=False, repr=False)
class Removals:
    """Hold what each member of a circuit adds to it, beside what members outside it would add.

    Attributes:
        members: of the circuit; a random sample of a large one.
        change: ``m(C) - m(C without the member)``.
        extra: ``m(C with a random member more) - m(C)``: the null distribution.
        groups: of the pairs.
        seed: of the intervals.
    """

    members: tuple[Any, ...]
    change: Float[np.ndarray, "member pair"]
    extra: Float[np.ndarray, "extra pair"]
    groups: tuple[str, ...]
    seed: int

    @property
    def threshold(self) -> float:
        """Give the size of change that 95% of the members put in at random stay under."""
        if not len(self.extra):
            return 0.0
        return float(np.quantile(np.abs(self.extra.mean(axis=1)), QUANTILE))

    @property
    def needed(self) -> int:
        """Count the members whose change is larger than that, their interval clear of zero."""
        return self.table()["needed"].tolist().count(True)

    def table(self) -> pandas.DataFrame:
        """Give one row per member: its change in units of the metric, and whether the circuit needs it."""
        import pandas

        rows: list[dict[str, Any]] = []
        for member, change in zip(self.members, self.change, strict=True):
            found = bootstrap(change, groups=self.groups, seed=self.seed, support="real")
            low, high = found.interval.low, found.interval.high
            row = {"member": str(member), "change": found.value, "low": low, "high": high}
            clear = low > 0 or high < 0
            rows.append(row | {"needed": bool(clear and abs(found.value) > self.threshold)})
        columns = ["member", "change", "low", "high", "needed"]
        return pandas.DataFrame(rows, columns=columns).sort_values("change", key=lambda c: -c.abs())


def cuts_of(members: Sequence[Any], count: int, seed: int) -> list[set[Any]]:
    """Draw cuts of random sizes: at least one member, all but one at most where there are several."""
    rng = random.Random(f"cuts:{seed}")
    most = max(1, len(members) - 1)
    return [set(rng.sample(list(members), rng.randint(1, most))) for _ in range(count if members else 0)]


def extras_of(
    members: Sequence[Any], every: Sequence[Any], count: int, seed: int
) -> tuple[list[Any], list[Any]]:
    """Draw the members that are taken out, and those outside that are put in, at most ``count`` of each."""
    rng = random.Random(f"removals:{seed}")
    inside = set(members)
    outside = [one for one in every if one not in inside]
    taken = sorted(rng.sample(list(members), min(count, len(members))))
    return taken, rng.sample(outside, min(count, len(outside)))
