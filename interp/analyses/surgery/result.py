"""What concept surgery found: how often the new answer comes first, and what else changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from interp.analyses.surgery.arms import ARMS, OURS, RANDOM
from interp.errors import counted
from interp.results import Cell, Figure, Finding, Number, Result, Table
from probes.statistics import Estimate, bootstrap, paired_difference

__all__ = ["Measured", "Surgery"]

Values = Float[np.ndarray, " example"]
CEILING = "interchange"
SHARES = ("new_first", "old_first", "read", "unrelated_kept", "same_subject_kept")
WORDS = {**{arm.name: arm.words for arm in ARMS.values()}, RANDOM: "a random change of the same length"}
ORDER = (OURS, RANDOM, "mean-difference", CEILING, "unchanged")


@dataclass(frozen=True, eq=False)
class Measured:
    """What one kind of edit did, swap by swap; not a number where it could not be made.

    Attributes:
        dose: how far.
        new_first: 1 where the new answer is the model's first choice.
        old_first: 1 where the old one still is.
        new_probability: of the new answer's first token.
        old_probability: of the old one's.
        read: 1 where the writer reads the new concept afterwards.
        length: of the change, as a share of the state's.
        elsewhere: half of all that the probabilities of other tokens changed by, from 0 to 1.
        unrelated: how far the next token of a prompt of another relation moved under the same change (nats).
        unrelated_kept: 1 where its first choice stayed.
        same_subject: the same of other facts about the subject, where there are such prompts.
        same_subject_kept: the share of their first choices that stayed.
    """

    dose: float
    new_first: Values
    old_first: Values
    new_probability: Values
    old_probability: Values
    read: Values
    length: Values
    elsewhere: Values
    unrelated: Values
    unrelated_kept: Values
    same_subject: Values
    same_subject_kept: Values

    @classmethod
    def mean(cls, found: Sequence[Measured]) -> Measured:
        """The mean over draws, swap by swap."""
        names = [one.name for one in fields(cls) if one.name != "dose"]
        values = {name: np.mean([getattr(one, name) for one in found], axis=0) for name in names}
        return cls(dose=found[0].dose, **values)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Surgery(Result):
    """Concepts exchanged in states, and what the model said then.

    Attributes:
        layer: the block after which states were edited.
        written_by: what read and wrote the concepts.
        pairs: the old and the new concept of each swap.
        prompts: of each swap.
        facts: of each swap: what intervals are over.
        reported: whether a swap is reported; the others chose the doses.
        arms: kind of edit -> what it did.
        curve: kind of edit -> each dose, with the share of reported swaps whose new answer came first.
        role: what was exchanged: the answers, or the subjects, after which the answers should follow.
        at_last: whether the states of the last tokens were edited; else of tokens that were given.
    """

    schema: ClassVar[str] = "interp.surgery/1"

    layer: int
    written_by: str
    pairs: tuple[tuple[str, str], ...]
    prompts: tuple[str, ...]
    facts: tuple[str, ...]
    reported: Bool[np.ndarray, " example"]
    arms: Mapping[str, Measured]
    curve: Mapping[str, tuple[tuple[float, float], ...]]
    role: str = "answer"
    at_last: bool = True

    def estimate(self, arm: str, name: str) -> Estimate | None:
        """The mean of a measure over reported swaps, with its interval over facts; None where there are none.

        Args:
            arm: a kind of edit.
            name: a field of :class:`Measured`.
        """
        values = getattr(self.arms[arm], name)
        kept = self.reported & np.isfinite(values)
        if not kept.any():
            return None
        groups = [fact for fact, ok in zip(self.facts, kept, strict=True) if ok]
        support = "share" if name in SHARES or name.endswith("probability") else "real"
        return bootstrap(values[kept], groups=groups, seed=self.seed, support=support)

    @cached_property
    def over_random(self) -> Estimate:
        """The share of new answers that come first, less that after random changes of the same length."""
        kept = self.reported
        ours, other = (self.arms[name].new_first[kept] for name in (OURS, RANDOM))
        groups = [fact for fact, ok in zip(self.facts, kept, strict=True) if ok]
        return paired_difference(ours, other, groups=groups, seed=self.seed, support="share")

    @property
    def works(self) -> bool:
        """Whether the edit clearly does more than random changes of the same length."""
        return self.over_random.interval.low > 0

    def question(self) -> str:
        """What is asked."""
        return (
            f"If a concept is exchanged in the state after layer {self.layer}, does "
            f"{self.about.model_name} say the new answer?"
        )

    def verdict(self) -> str:
        """How often the new answer comes first, beside the comparisons."""
        shares = {name: self.estimate(name, "new_first") for name in ORDER}
        ours, other = shares[OURS], shares[RANDOM]
        assert ours is not None
        assert other is not None
        beside = [f"random changes of the same length: {other.value:.0%}"]
        if (mean := shares["mean-difference"]) is not None:
            beside.append(f"difference of means: {_share(mean)} of {counted(mean.n, 'swap')}")
        if (ceiling := shares[CEILING]) is not None:
            beside.append(f"the state of a real prompt: {ceiling.value:.0%}")
        what = "" if self.role == "answer" else f"on the {self.role} "
        verb = "makes" if self.works else "cannot be shown to make"
        return (
            f"Concept surgery {what}after layer {self.layer} {verb} the new answer the first choice: "
            f"{_share(ours)} of {counted(ours.n, 'swap')} ({'; '.join(beside)})."
        )

    def lead(self) -> tuple[str, ...]:
        """How it was done."""
        return (
            f"At {'the last' if self.at_last else 'a chosen'} token of prompts "
            f"that the model answers right, the state is changed as little as "
            f"possible so that {self.written_by} reads the old {self._concept} and the new one exchanged; "
            "the dose says how far on in that direction. Doses were chosen on "
            f"{int((~self.reported).sum())} swaps of other facts. Everything after the layer runs as it is.",
        )

    @property
    def _concept(self) -> str:
        return "concept" if self.role == "answer" else self.role

    def numbers(self) -> tuple[Number, ...]:
        """How often the new answer comes first, and the price."""
        rows = (
            ("new-first", OURS, "new_first", "", "share of swaps whose new answer is the first choice"),
            ("ceiling", CEILING, "new_first", "", "the same with the state of a real prompt put in"),
            ("random-first", RANDOM, "new_first", "", "the same after random changes of the same length"),
            (
                "unrelated-kept",
                OURS,
                "unrelated_kept",
                "",
                "first choices kept in prompts of other relations",
            ),
        )
        found = []
        for name, arm, measure, unit, meaning in rows:
            one = self.estimate(arm, measure)
            ends = (None, None, None) if one is None else (one.value, one.interval.low, one.interval.high)
            found.append(Number(name, *ends, unit, meaning))
        over = self.over_random
        meaning = "share of new answers that come first, less that of random changes"
        ends = (over.value, over.interval.low, over.interval.high)
        return (*found, Number("over-random", *ends, meaning=meaning))

    def tables(self) -> tuple[Table, ...]:
        """One row per kind of edit; and every swap."""
        columns = (
            "edit",
            "dose",
            "swaps",
            "new_first",
            "low",
            "high",
            "new_probability",
            "old_probability",
            "elsewhere",
        )
        more = ("unrelated_kept", "unrelated", "same_subject_kept", "read", "length")
        rows = [self._row(name, (*columns[6:], *more)) for name in ORDER]
        note = (
            "new_first: share of swaps whose new answer is the first choice, with its 95% interval over "
            "facts; probabilities of the first tokens; elsewhere: what other tokens "
            "won or lost; "
            "unrelated (nats) and its kept first choices: the same change in a prompt of another relation; "
            "same_subject: in other facts about the subject; read: the new concept is read afterwards; "
            "length: of the change, as a share of the state. Edits: "
            + "; ".join(f"{name}: {WORDS[name]}" for name in ORDER)
            + "."
        )
        formats = dict.fromkeys(("new_first", "unrelated_kept", "same_subject_kept", "read"), ".0%")
        edits = Table(
            "edits",
            "What each kind of edit does",
            (*columns, *more),
            rows,
            note,
            main=0,
            formats={**formats, "low": ".0%", "high": ".0%", "dose": "g", "length": ".2f"},
            narrow=tuple(reversed((*columns[7:], *more))),
        )
        return (edits, self._swaps())

    def _row(self, name: str, measures: Sequence[str]) -> tuple[Cell, ...]:
        first = self.estimate(name, "new_first")
        ends: tuple[Cell, ...] = (0, None, None, None)
        if first is not None:
            ends = (first.n, first.value, first.interval.low, first.interval.high)
        rest = (self.estimate(name, measure) for measure in measures)
        dose = self.arms[name].dose
        return (name, dose, *ends, *(None if one is None else one.value for one in rest))

    def _swaps(self) -> Table:
        ours = self.arms[OURS]
        rows = [
            (prompt, old, new, bool(ours.new_first[at]), float(ours.new_probability[at]))
            for at, (prompt, (old, new)) in enumerate(zip(self.prompts, self.pairs, strict=True))
            if self.reported[at]
        ]
        columns = ("prompt", "old", "new", "new_first", "new_probability")
        return Table("swaps", "Every swap", columns, rows, folded=True, private=("prompt", "old", "new"))

    def figures(self) -> tuple[Figure, ...]:
        """The share by dose."""
        cells = [
            (dose, name, value, value, value)
            for name, found in self.curve.items()
            if len(found) > 1
            for dose, value in found
            if np.isfinite(value)
        ]
        names = ("x", "series", "value", "low", "high")
        data = {name: [row[at] for row in cells] for at, name in enumerate(names)}
        ceiling = self.estimate(CEILING, "new_first")
        return (
            Figure(
                "doses",
                "curve",
                data,
                "How often the new answer comes first, by dose",
                "Shares of the reported swaps, without intervals; the dose of the table is from other facts.",
                x="dose (1 exchanges the two concepts)",
                y="new answer first",
                reference=None if ceiling is None else ceiling.value,
                reference_name="the state of a real prompt",
                limits=(0.0, 1.0),
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What it does not show."""
        return (
            "An edit that works shows that what was written is read by the layers after it; an answer "
            "that is not yet in the state at this layer cannot be exchanged there, and then the state of a "
            "real prompt does no better.",
        )

    def findings(self) -> tuple[Finding, ...]:
        """Whether the new answer comes first, swap by swap, against random changes."""
        kept = self.reported
        groups = tuple(fact for fact, ok in zip(self.facts, kept, strict=True) if ok)
        return (
            Finding(
                "concept surgery: new answer first",
                self.arms[OURS].new_first[kept],
                groups,
                control=self.arms[RANDOM].new_first[kept],
                layer=self.layer,
                about="share of swaps whose new answer is the first choice after the edit",
            ),
        )


def _share(found: Estimate) -> str:
    return f"{found.value:.0%} [{found.interval.low:.0%}, {found.interval.high:.0%}]"
