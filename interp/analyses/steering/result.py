"""What an evaluation of a vector found: dose and response, beside comparisons, and at what price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from interp.analyses.steering.side_effects import SideEffects
from interp.errors import counted
from interp.results import Cell, Figure, Finding, Number, Result, Table
from probes.statistics import Estimate, Interval, bootstrap, paired_difference

__all__ = ["Measured", "Sample", "SteeringResult", "over_random"]

PLAIN, OURS, OPPOSITE, RANDOM, PROMPT = "none", "vector", "opposite", "random", "prompt"
WORDS = {
    PLAIN: "nothing added",
    OURS: "the vector",
    OPPOSITE: "the vector with the other sign",
    RANDOM: "random directions as long",
    PROMPT: "an instruction or examples before the prompt, nothing added",
}
COLUMNS = (
    "arm",
    "dose",
    "score",
    "change",
    "low",
    "high",
    "divergence",
    "perplexity",
    "kept",
    "within",
)
SHOWN = 160
"""Characters of a continuation that a table shows."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One arm at one dose.

    Attributes:
        dose: in units of the vector; 0 where nothing is added.
        score: of each item; of random directions the mean over draws.
        draws: ``[draw item]`` of random directions; None otherwise.
        side: side effects; of random directions the mean over draws.
    """

    dose: float
    score: Float[np.ndarray, " item"]
    draws: Float[np.ndarray, "draw item"] | None
    side: SideEffects


@dataclass(frozen=True)
class Sample:
    """What the model writes after one prompt.

    Attributes:
        prompt: how it begins.
        arm: what was added.
        dose: how much of it.
        text: the continuation.
    """

    prompt: str
    arm: str
    dose: float
    text: str


def over_random(
    ours: Float[np.ndarray, " item"], draws: Float[np.ndarray, "draw item"], level: float = 0.95
) -> Estimate:
    """How much more a vector does than random directions of the same length, with an interval.

    The vector is compared with what one more random direction would do: the interval has the spread of the
    draws' means (a prediction interval: times ``1 + 1/draws``), and that of the items. Of a vector that is a
    random direction itself it covers 0 in 95% of cases.

    Args:
        ours: change of each item by the vector.
        draws: change of each item by each random direction; two at least.
        level: of the interval.
    """
    n_draws, n = draws.shape
    apart = ours - draws.mean(axis=0)
    by_draw = float(draws.mean(axis=1).var(ddof=1)) * (1 + 1 / n_draws)
    by_item = float(apart.var(ddof=1)) / n
    total = by_draw + by_item
    freedom = total**2 / max(by_draw**2 / (n_draws - 1) + by_item**2 / (n - 1), 1e-300)
    half = float(stats.t.ppf((1 + level) / 2, max(freedom, 1.0))) * total**0.5
    value = float(apart.mean())
    interval = Interval(value - half, value + half, level, "prediction over draws and items (t)")
    return Estimate(value, interval, n, n, f"{counted(n_draws, 'random direction')}")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SteeringResult(Result):
    """A steering vector, evaluated.

    Attributes:
        vector: its name.
        sites: where it is added.
        method: how it was fitted.
        unit: what dose 1 is.
        lengths: site -> length of dose 1.
        score: what is to move, in words.
        score_unit: of the score.
        share: whether the score is a share.
        items: the prompts that were scored, as texts.
        instruction: what the arm ``prompt`` puts before them.
        bystanders: neutral texts and the task, in words.
        choosing: which neutral texts chose the largest dose; the others are reported.
        bound: the most that the divergence on neutral text may be, in nats per token.
        chosen: the largest dose up to which it stayed under the bound; None where the smallest is over it.
        arms: arm -> its doses; ``none`` is the model as it is.
        samples: what the model writes.
        separation: how well the direction told held-out prompts apart, by site.
    """

    schema: ClassVar[str] = "interp.steering/1"

    vector: str
    sites: tuple[str, ...]
    method: str
    unit: str
    lengths: Mapping[str, float]
    score: str
    score_unit: str
    share: bool
    items: tuple[str, ...]
    instruction: str
    bystanders: str
    choosing: Bool[np.ndarray, " text"]
    bound: float
    chosen: float | None
    arms: Mapping[str, tuple[Measured, ...]]
    samples: tuple[Sample, ...]
    separation: Mapping[str, Mapping[str, float | str]]

    # Reading it -------------------------------------------------------------------------------------------

    @property
    def plain(self) -> Measured:
        """The model as it is."""
        return self.arms[PLAIN][0]

    def at(self, arm: str, dose: float) -> Measured:
        """One arm at one dose; the arm ``prompt`` has none."""
        return next(one for one in self.arms[arm] if one.dose == dose)

    def change(self, arm: str, dose: float) -> Estimate:
        """How far the score moves from where it is without anything, with its interval over prompts."""
        one = self.at(arm, dose)
        return paired_difference(one.score, self.plain.score, support=self._support)

    @property
    def _support(self) -> Literal["share", "real"]:
        return "share" if self.share else "real"

    @property
    def dose(self) -> float:
        """The dose that is judged: the chosen one, or the smallest where none is."""
        return self.arms[OURS][0].dose if self.chosen is None else self.chosen

    @cached_property
    def over_random(self) -> Estimate | None:
        """The vector's effect less that of random directions at the judged dose; None without that arm."""
        if RANDOM not in self.arms:
            return None
        drawn = self.at(RANDOM, self.dose).draws
        assert drawn is not None
        plain = self.plain.score
        return over_random(self.at(OURS, self.dose).score - plain, drawn - plain)

    @property
    def works(self) -> bool:
        """Whether it clearly does more than random directions, and more than nothing, within the bound."""
        over = self.over_random
        more = self.change(OURS, self.dose).interval.low > 0
        return self.chosen is not None and more and over is not None and over.interval.low > 0

    # What it says -----------------------------------------------------------------------------------------

    def question(self) -> str:
        """What is asked."""
        where = self.sites[0] if len(self.sites) == 1 else f"{len(self.sites)} sites"
        return (
            f"What does {self.vector!r}, added at {where} of {self.about.model_name}, do, and at what price?"
        )

    def verdict(self) -> str:
        """The effect at the largest dose under the bound, beside the comparisons."""
        found = self.change(OURS, self.dose)
        if self.chosen is None:
            return (
                f"Steering is not shown: already at dose {self.dose:g} the divergence on neutral text is "
                f"{self._kl(self.at(OURS, self.dose)).value:.2f} nats per token, over the bound of "
                f"{self.bound:g}."
            )
        at = f"at dose {self.dose:g}, the largest whose divergence on neutral text stays under {self.bound:g}"
        if self.over_random is None:
            return (
                f"Steering is not shown: without random directions nothing says what any vector would do "
                f"({at}, {self.score} moves by {_signed(found)}{self._in})."
            )
        beside = [f"over random directions as long {_signed(self.over_random)}"]
        if OPPOSITE in self.arms:
            beside.append(f"the opposite sign {_signed(self.change(OPPOSITE, self.dose))}")
        if PROMPT in self.arms:
            beside.append(f"simply prompting {_signed(self.change(PROMPT, 0.0))}")
        head = "Steering works" if self.works else "Steering is not shown"
        return f"{head}: {at}, {self.score} moves by {_signed(found)}{self._in} ({'; '.join(beside)})."

    @property
    def _in(self) -> str:
        return f" {self.score_unit}" if self.score_unit else ""

    def lead(self) -> tuple[str, ...]:
        """How it was done."""
        lengths = ", ".join(f"{length:.3g} at {site}" for site, length in list(self.lengths.items())[:3])
        apart = [
            f"Directions of four fifths of the fitting prompts told the others apart with an area under the "
            f"curve of {one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}] at {site}."
            for site, one in list(self.separation.items())[:1]
        ]
        return (
            f"The vector ({self.method}) is added at every token, at {', '.join(self.sites[:3])}"
            f"{', ...' if len(self.sites) > 3 else ''}. Dose 1 is {lengths}: {self.unit}. "
            f"It is scored on {counted(len(self.items), 'prompt')} that it was not fitted on.",
            f"Side effects are measured on {self.bystanders}. The largest dose was chosen on half of the "
            "neutral texts; what is reported comes from the other half. No score took part in the choice.",
            *apart,
        )

    def cautions(self) -> tuple[str, ...]:
        """What it does not show."""
        if PROMPT not in self.arms:
            return ("Whether an instruction would do the same was not asked (beside=('prompt', ...)).",)
        words = f"The arm 'prompt' puts this before every prompt: {self.instruction!r}. Another may do more."
        return (words,) if self.instruction else ()

    def numbers(self) -> tuple[Number, ...]:
        """The effect at the judged dose, over random directions, and its price."""
        one, found, unit = self.at(OURS, self.dose), self.change(OURS, self.dose), self.score_unit
        kl, lost = self._kl(one), self._kept(one)
        meaning = f"of the score at dose {self.dose:g}"
        over = self.over_random
        numbers = [
            Number("effect", found.value, *_ends(found), unit, meaning),
            Number(
                "over-random",
                *((None, None, None) if over is None else (over.value, *_ends(over))),
                unit,
                "the effect less that of random directions as long",
            ),
            Number("dose", self.chosen, meaning="the largest whose divergence stays under the bound"),
            Number(
                "divergence", kl.value, kl.interval.low, kl.interval.high, "nats", "on neutral text, by token"
            ),
            Number("perplexity", self._perplexity(one), meaning="on neutral text"),
        ]
        if lost is not None:
            meaning = "answers of a task kept aside that stay right"
            numbers.append(Number("kept", lost.value, *_ends(lost), meaning=meaning))
        if PROMPT in self.arms:
            other = self.change(PROMPT, 0.0)
            meaning = "what an instruction does to the score"
            numbers.append(Number("prompting", other.value, *_ends(other), unit, meaning))
        return tuple(numbers)

    def tables(self) -> tuple[Table, ...]:
        """Every arm at every dose; and texts."""
        rows = [self._row(arm, one) for arm in WORDS if arm in self.arms for one in self.arms[arm]]
        main = next((at for at, row in enumerate(rows) if row[:2] == (OURS, self.dose)), None)
        note = (
            f"score: {self.score}{f' ({self.score_unit})' if self.score_unit else ''}; change: from the "
            "model as it is, with its 95% interval over prompts (of random directions: what one more would "
            "do); divergence: on neutral text, nats per token; kept: right answers of a task kept aside that "
            f"stay right; within: the divergence is under {self.bound:g}. Arms: "
            + "; ".join(f"{arm}: {words}" for arm, words in WORDS.items() if arm in self.arms)
            + "."
        )
        doses = Table(
            "doses",
            "Dose and response",
            COLUMNS,
            rows,
            note,
            main=main,
            shown=20,
            formats={"dose": "g", "kept": ".0%", "perplexity": ".1f"},
            narrow=("within", "score"),
        )
        return (doses, *self._texts())

    def _row(self, arm: str, one: Measured) -> tuple[Cell, ...]:
        kl, kept = self._kl(one), self._kept(one)
        moved: tuple[Cell, ...] = (None, None, None)
        if arm != PLAIN:
            found = self.change(arm, one.dose) if one.draws is None else self._of_draws(one)
            moved = (found.value, found.interval.low, found.interval.high)
        price = (
            kl.value,
            self._perplexity(one),
            None if kept is None else kept.value,
            kl.value <= self.bound,
        )
        return (arm, one.dose if arm != PROMPT else None, float(one.score.mean()), *moved, *price)

    def _of_draws(self, one: Measured) -> Estimate:
        """What one more random direction would do."""
        assert one.draws is not None
        return over_random(np.zeros_like(one.score), -(one.draws - self.plain.score))

    def _texts(self) -> tuple[Table, ...]:
        if not self.samples:
            return ()
        columns = ("prompt", "arm", "dose", "text")
        rows = [(one.prompt, one.arm, one.dose, one.text[:SHOWN]) for one in self.samples]
        title = "What the model writes"
        return (
            Table("texts", title, columns, rows, private=("prompt", "text"), formats={"dose": "g"}, shown=20),
        )

    def figures(self) -> tuple[Figure, ...]:
        """The score by dose."""
        rows: list[tuple[float, str, float, float, float]] = []
        for arm in (OURS, OPPOSITE, RANDOM):
            for one in self.arms.get(arm, ()):
                found = self.change(arm, one.dose) if one.draws is None else self._of_draws(one)
                rows.append((one.dose, WORDS[arm], found.value, *_ends(found)))
        x, series, value, low, high = (list(column) for column in zip(*rows, strict=True))
        data = {"x": x, "series": series, "value": value, "low": low, "high": high}
        prompting = self.change(PROMPT, 0.0).value if PROMPT in self.arms else None
        return (
            Figure(
                "doses",
                "curve",
                data,
                "How far the score moves, by dose",
                f"{counted(len(self.items), 'prompt')}. Bands: 95% intervals over prompts; of random "
                "directions what one more would do.",
                x=f"dose (1 is {next(iter(self.lengths.values())):.3g})",
                y=f"change of the score{self._in and f' ({self.score_unit})'}",
                reference=prompting,
                reference_name="simply prompting",
            ),
        )

    def findings(self) -> tuple[Finding, ...]:
        """The change of every item at the judged dose, against that by random directions."""
        plain = self.plain.score
        control = self.at(RANDOM, self.dose).score - plain if RANDOM in self.arms else 0.0
        groups = tuple(f"item {at}" for at in range(len(self.items)))
        about = f"change of {self.score} at dose {self.dose:g}"
        values = self.at(OURS, self.dose).score - plain
        return (
            Finding("steering: change of the score", values, groups, control, self.score_unit, about=about),
        )

    # Side effects -----------------------------------------------------------------------------------------

    def _kl(self, one: Measured) -> Estimate:
        return bootstrap(one.side.kl[~self.choosing], support="real", limits=(0.0, np.inf))

    def _perplexity(self, one: Measured) -> float:
        return float(np.exp(one.side.surprise[~self.choosing].mean()))

    def _kept(self, one: Measured) -> Estimate | None:
        return bootstrap(one.side.right, support="share") if len(one.side.right) else None


def _ends(found: Estimate) -> tuple[float, float]:
    return found.interval.low, found.interval.high


def _signed(found: Estimate) -> str:
    return f"{found.value:+.2f} [{found.interval.low:.2f}, {found.interval.high:.2f}]"


def largest(doses: Sequence[int | float], divergences: Sequence[float], bound: float) -> int | float | None:
    """The largest dose up to which every divergence stays under the bound; None where the first is over it.

    Args:
        doses: rising.
        divergences: one for each, in nats per token.
        bound: the most.
    """
    kept = None
    for dose, divergence in zip(doses, divergences, strict=True):
        if not divergence <= bound:
            break
        kept = dose
    return kept
