"""What one edit of one place does to the next token: the result, beside random edits and other places."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from interp.errors import counted
from interp.results import About, Figure, Number, Result, Table
from probes.statistics import mean_intervals

__all__ = ["CellEdit", "SaidNext"]


@dataclass(frozen=True)
class SaidNext:
    """A token that may come next.

    Attributes:
        token: its text.
        before: its probability without the edit.
        after: with it.
        random: after random changes as long: one number for each.
        elsewhere: after the same change at other tokens: one number for each.
    """

    token: str
    before: float
    after: float
    random: tuple[float, ...]
    elsewhere: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CellEdit(Result):
    """What one edit of one place does.

    Attributes:
        prompt: its text.
        site: that was changed.
        position: of the token at which it was changed.
        token: its text.
        how: the edit, as a row of ``EDITS``.
        words: the edit in words.
        length: of the change, as a share of the length of what was there.
        kl: by how much the next-token distribution moves (nats).
        kl_random: after random changes as long, one number for each.
        kl_elsewhere: after the same change at other tokens.
        floor: after writing back what was there: rounding (nats).
        said: the likeliest next tokens without and with.
        written: how the text goes on without, with, and after the first random change.
    """

    schema: ClassVar[str] = "interp.cell-edit/1"

    prompt: str
    site: str
    position: int
    token: str
    how: str
    words: str
    length: float
    kl: float
    kl_random: Float[np.ndarray, " draw"]
    kl_elsewhere: Float[np.ndarray, " other"]
    floor: float
    said: tuple[SaidNext, ...]
    written: tuple[str, str, str]

    def redacted(self) -> CellEdit:
        """The same without the prompt and without what the model says."""
        said = tuple(replace(one, token="") for one in self.said)
        return replace(self, prompt="", token="", words=self.how, said=said, written=("", "", ""))

    @property
    def first(self) -> tuple[SaidNext, SaidNext]:
        """The likeliest token without the edit, and with it."""
        return max(self.said, key=lambda one: one.before), max(self.said, key=lambda one: one.after)

    @property
    def stands_out(self) -> bool:
        """Whether the edit moves the output more than rounding and than every random change as long."""
        return self.kl > self.floor and self.kl > float(self.kl_random.max(initial=0.0))

    def question(self) -> str:
        """What is asked."""
        return f"What does {self.about.model_name} say to \u201c{self.prompt}\u201d, {self.words}?"

    def verdict(self) -> str:
        """What is said without and with, and whether random changes do as much."""
        before, after = self.first
        says = f"still {after.token!r} ({after.after:.2f}, before {after.before:.2f})"
        if before.token != after.token:
            says = f"{after.token!r} ({after.after:.2f}, before {after.before:.2f}) instead of "
            says += f"{before.token!r} ({before.after:.2f}, before {before.before:.2f})"
        start = f"{self.words[:1].upper()}{self.words[1:]}, the model says {says}."
        if self.kl <= self.floor:
            return f"{start} Nothing moves beyond rounding ({self.floor:.1e} nats)."
        mean, low, high = self._random()
        most = float(self.kl_random.max())
        beside = f"the output moves by {self.kl:.3g} nats; random changes as long move it by {mean:.3g} "
        beside += f"[{low:.3g}, {high:.3g}], at most {most:.3g}"
        told = "more than any of them" if self.stands_out else "which is not more than random changes do"
        return f"{start} Here {beside}: {told}."

    def _random(self) -> tuple[float, float, float]:
        found = mean_intervals(self.kl_random, limits=(0.0, np.inf))
        return float(found.value[0]), float(found.low[0]), float(found.high[0])

    def lead(self) -> tuple[str, ...]:
        """What was done, and the controls."""
        others = counted(len(self.kl_elsewhere), "other token")
        drawn = counted(len(self.kl_random), "random change")
        return (
            f"{self.site} at token {self.position} ({self.token!r}) was changed by {self.length:.2f} of its "
            f"length, and the rest of the model ran on. Controls: {drawn} as long at the same place; the "
            f"same change at {others}; and writing back what was there, which shows rounding.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """How far the output moves, with the edit and with its controls."""
        mean, low, high = self._random()
        drawn, same = "after random changes as long", "the same change at other tokens"
        found = [
            Number("kl", self.kl, unit="nats", meaning="between next-token distributions without and with"),
            Number("kl-random", mean, low, high, "nats", f"mean {drawn}; interval over draws"),
            Number("kl-random-most", float(self.kl_random.max()), unit="nats", meaning=f"the most {drawn}"),
        ]
        if len(self.kl_elsewhere):
            most = float(self.kl_elsewhere.max())
            found.append(Number("kl-elsewhere", most, unit="nats", meaning=f"{same}: the most"))
        meaning = "writing back what was there: rounding"
        return (*found, Number("noise-floor", self.floor, unit="nats", meaning=meaning))

    def tables(self) -> tuple[Table, ...]:
        """The next tokens side by side, and how the text goes on."""
        columns = ("token", "without", "with", "random", "random_low", "random_high", "elsewhere")
        rows = []
        for one in self.said:
            found = mean_intervals(np.array(one.random), limits=(0.0, 1.0))
            drawn = float(found.value[0]), float(found.low[0]), float(found.high[0])
            other = float(np.mean(one.elsewhere)) if one.elsewhere else None
            rows.append((repr(one.token), one.before, one.after, *drawn, other))
        note = (
            "without, with: probability of the token without and with the edit; random: after random changes "
            "as long, mean with its 95% interval; elsewhere: mean after the same change at other tokens."
        )
        title = "Next tokens, without and with"
        arms = ("without", "with", "random")
        texts = [(what, repr(text)) for what, text in zip(arms, self.written, strict=True)]
        goes_on = Table("texts", "How the text goes on", ("edit", "text"), texts, private=("text",))
        return (Table("tokens", title, columns, rows, note, private=("token",), shown=16), goes_on)

    def figures(self) -> tuple[Figure, ...]:
        """Probabilities of the tokens, without and with and after random changes."""
        rows: list[tuple[str, float, float, float, int]] = []
        for one in self.said[:5]:
            found = mean_intervals(np.array(one.random), limits=(0.0, 1.0))
            low, high = float(found.low[0]), float(found.high[0])
            rows += [
                (f"{one.token!r} without", one.before, one.before, one.before, -1),
                (f"{one.token!r} with", one.after, one.after, one.after, 0),
                (f"{one.token!r} random", float(found.value[0]), low, high, 1),
            ]
        names = ("name", "value", "low", "high", "colour")
        data = {name: [row[at] for row in rows] for at, name in enumerate(names)}
        caption = (
            f"One prompt, so only random changes have an interval (95%, over {len(self.kl_random)} draws). "
            "Grey: without the edit; blue: with it; orange: random changes as long."
        )
        return (
            Figure("tokens", "intervals", data, "Next tokens", caption, x="probability", limits=(0.0, 1.0)),
        )

    def cautions(self) -> tuple[str, ...]:
        """What one edit does not show."""
        return (
            "This is one prompt and one place: what happens here need not happen in others.",
            "An edit can take the model to a state that no prompt gives; patching from a prompt least so.",
        )


def about(model: dict[str, str]) -> About:
    """What an edit is of.

    Args:
        model: as it describes itself.
    """
    return About(model, {"name": "one prompt", "n": 1})
