"""What the bandit found: circuits of its ranking on unseen pairs, beside those of other baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from interp.errors import counted
from interp.results import Cell, Figure, Finding, Number, Result, Table
from probes.statistics import Estimate, bootstrap

__all__ = ["BANDIT", "UNIFORM", "Baselines"]

BANDIT, UNIFORM = "bandit", "uniform draws"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Baselines(Result):
    """Baselines of path attribution, chosen as by a bandit and held to circuits on unseen pairs.

    CMD is the area between the faithfulness of a ranking's circuits and 1 over the share of nodes kept: 0 is
    best.

    Attributes:
        arms: the baselines: replacements.
        picks: which arm each round tried.
        rewards: what it gave: minus CMD on training pairs.
        trained: baseline -> CMD of its ranking on all training pairs.
        runs: ranking -> the metric of each unseen pair at each size: of the bandit, of each uniform twin, and
            of each baseline alone.
        sizes: nodes kept; the first is none, the last is all.
        first: ranking -> its first nodes.
        groups: of the unseen pairs.
        search: how nodes were attributed.
        metric: what was measured.
        ablation: what stood outside circuits.
        left_out: baseline -> why it does not suit the pairs.
    """

    schema: ClassVar[str] = "interp.baselines/1"
    arms: tuple[str, ...]
    picks: tuple[int, ...]
    rewards: Float[np.ndarray, " round"]
    trained: Mapping[str, float]
    runs: Mapping[str, Float[np.ndarray, "size pair"]]
    sizes: tuple[int, ...]
    first: Mapping[str, tuple[str, ...]]
    groups: tuple[str, ...]
    search: str
    metric: str
    ablation: str
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The baseline whose ranking is best on the training pairs."""
        return min(self.arms, key=lambda name: self.trained[name])

    @property
    def twins(self) -> tuple[str, ...]:
        """The rankings of uniform draws."""
        return tuple(name for name in self.runs if name.startswith(UNIFORM))

    def area(self, name: str, weights: Float[np.ndarray, " pair"] | None = None) -> float:
        """CMD of a ranking on the unseen pairs; of ``UNIFORM`` the mean over its twins."""
        if name == UNIFORM:
            return float(np.mean([self.area(one, weights) for one in self.twins]))
        return float(self._areas(weights)[self._row(name)])

    def _row(self, name: str) -> int:
        return list(self.runs).index(name)

    @cached_property
    def _stacked(self) -> Float[np.ndarray, "ranking size pair"]:
        return np.stack(list(self.runs.values()))

    def _areas(self, weights: Float[np.ndarray, " pair"] | None) -> Float[np.ndarray, " ranking"]:
        """CMD of every ranking at once."""
        means = np.average(self._stacked, axis=2, weights=weights)
        total = means[:, -1:] - means[:, :1]
        there = np.abs(total) > 1e-12
        shares = np.where(there, (means - means[:, :1]) / np.where(there, total, 1.0), 0.0)
        return np.trapezoid(np.abs(1 - shares), np.array(self.sizes) / self.sizes[-1], axis=1)

    @cached_property
    def over(self) -> Mapping[str, Estimate]:
        """How much larger than the bandit's the CMD of each other ranking is, over groups."""
        return {name: self._difference(name, BANDIT) for name in (UNIFORM, *self.arms)}

    @cached_property
    def over_best(self) -> Mapping[str, Estimate]:
        """How much larger the CMD of each other baseline is than that of the one best in training."""
        return {name: self._difference(name, self.best) for name in self.arms if name != self.best}

    @cached_property
    def _drawn(self) -> dict[bytes, Float[np.ndarray, " ranking"]]:
        """The areas in each draw of pairs: every difference is over the same draws."""
        return {}

    def _difference(self, name: str, other: str) -> Estimate:
        rows, drawn = np.arange(len(self.groups))[:, None], self._drawn
        first = [self._row(one) for one in (self.twins if name == UNIFORM else (name,))]
        second = self._row(other)

        def statistic(chosen: np.ndarray) -> float:
            key = chosen.tobytes()
            if key not in drawn:
                drawn[key] = self._areas(
                    np.bincount(chosen[:, 0].astype(int), minlength=len(rows)).astype(float)
                )
            return float(np.mean(drawn[key][first]) - drawn[key][second])

        return bootstrap(rows.astype(float), groups=self.groups, statistic=statistic, seed=self.seed)

    @property
    def winner(self) -> str | None:
        """The baseline that is best in training and better than every other on unseen pairs; None otherwise.

        Every one of the intervals must exclude zero, so that the chance of naming one where two are equally
        good is at most that of a single interval.
        """
        return self.best if all(one.interval.low > 0 for one in self.over_best.values()) else None

    # What it says -----------------------------------------------------------------------------------------

    def question(self) -> str:
        """The question that was asked."""
        return f"Which baseline of {self.search} finds the best circuits of {self.about.model_name}?"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        return (
            f"{counted(len(self.picks), 'round')} of Thompson sampling among "
            f"{counted(len(self.arms), 'baseline')}; the reward is minus the area between the "
            "faithfulness of the circuits and 1 (CMD) on some training pairs, "
            f"with everything outside a circuit replaced by {self.ablation}. Reported on "
            f"{counted(len(self.groups), 'unseen pair')}.",
        )

    def verdict(self) -> str:
        """Whether a baseline is told from the others, and whether the bandit is from uniform draws."""
        areas = ", ".join(f"{name} {self.area(name):.3f}" for name in self.arms)
        if self.winner:
            told = f"Baseline {self.winner} is better than every other on unseen pairs"
        else:
            told = "No baseline is told from all others on unseen pairs"
        beside = self.over[UNIFORM]
        word = "better than" if beside.interval.low > 0 else "not told from"
        word = "worse than" if beside.interval.high < 0 else word
        return (
            f"{told} (CMD, 0 is best: {areas}; {self.best} is the best in training). The bandit "
            f"({self.area(BANDIT):.3f}) is {word} as many uniform draws ({self.area(UNIFORM):.3f}): "
            f"difference {beside.value:+.3f} [{beside.interval.low:+.3f}, {beside.interval.high:+.3f}] "
            "over pairs, of these draws."
        )

    def cautions(self) -> tuple[str, ...]:
        """What it does not show."""
        return (
            f"'Right' means faithful where the rest is replaced by {self.ablation}; another replacement may "
            "ask for another baseline.",
            "Intervals are over pairs and take the draws as they fell: a bandit or uniform draws of another "
            "seed may come out the other way, the more so with few rounds.",
            *(f"Left out: {name} ({why})" for name, why in self.left_out.items()),
        )

    def numbers(self) -> tuple[Number, ...]:
        """The areas, and the differences to the bandit."""
        found = [Number("cmd-bandit", self.area(BANDIT), None, None, "", "CMD of the bandit's ranking")]
        for name, label in ((UNIFORM, "uniform"), (self.best, "best-fixed")):
            ends = self.over[name]
            low, high = ends.interval.low, ends.interval.high
            meaning = f"CMD of {name} less that of the bandit"
            found.append(Number(f"{label}-less-bandit", ends.value, low, high, "", meaning))
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """Every ranking."""
        rows: list[tuple[Cell, ...]] = []
        for name in (BANDIT, UNIFORM, *self.arms):
            over = None if name == BANDIT else self.over[name]
            arm = self.arms.index(name) if name in self.arms else None
            picked = None if arm is None else self.picks.count(arm)
            ends = (None, None, None) if over is None else (over.value, over.interval.low, over.interval.high)
            shown = self.first[self.twins[0] if name == UNIFORM else name]
            rows.append((name, picked, self.trained.get(name), self.area(name), *ends, ", ".join(shown)))
        columns = ("ranking", "picked", "training_cmd", "cmd", "less_bandit", "low", "high", "first")
        note = (
            "cmd: area between faithfulness and 1 on unseen pairs, 0 is best; less_bandit: how much larger "
            "it is than the bandit's, with a 95% interval over groups; picked: in how many rounds; first: "
            "the nodes ranked first. Uniform draws: the mean over "
            f"{counted(len(self.twins), 'time')} as many rounds."
        )
        return (Table("rankings", "Baselines", columns, rows, note, main=0),)

    def figures(self) -> tuple[Figure, ...]:
        """The faithfulness of the bandit's circuits, and of each baseline's."""
        rows: list[tuple[float, str, float, float, float]] = []
        for name in (BANDIT, *self.arms):
            means = self.runs[name].mean(axis=1)
            shares = (means - means[0]) / (means[-1] - means[0])
            rows += [
                (size / self.sizes[-1], name, float(s), float(s), float(s))
                for size, s in zip(self.sizes, shares, strict=True)
            ]
        columns = ("x", "series", "value", "low", "high")
        data: dict[str, Any] = dict(zip(columns, zip(*rows, strict=True), strict=True))
        caption = f"On unseen pairs, with the rest replaced by {self.ablation}. 1 is the whole model."
        title = "Faithfulness of circuits by baseline"
        return (
            Figure("faithfulness", "curve", data, title, caption, x="share of nodes kept", y="faithfulness"),
        )

    def findings(self) -> tuple[Finding, ...]:
        """CMD of the bandit and of each baseline alone, against that of uniform draws."""
        floor = self.area(UNIFORM)
        return tuple(
            Finding(
                f"CMD: {name}",
                self.runs[name].mean(axis=0),
                self.groups,
                control=floor,
                unit="share",
                statistic=lambda weights, name=name: self.area(name, weights),
                direction=-1,
            )
            for name in (BANDIT, *self.arms)
        )
