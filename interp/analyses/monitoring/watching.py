"""Watch conversations: messages that are there, or an answer while the model writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from interp.analyses.monitoring.messages import messages_of, states_of
from interp.analyses.monitoring.monitor import Monitor
from interp.analyses.monitoring.talks import Talks
from interp.errors import counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About, Number, Result, Table

__all__ = ["Line", "OnLine", "Watched", "watch", "watched"]

AT_ONCE = 64
"""Conversations whose states are held at a time."""


@dataclass(frozen=True)
class Line:
    """What a monitor says of a message, or of an answer so far.

    Attributes:
        conversation: its number.
        turn: the message's index there; -1 for a plain text.
        role: of the message.
        tokens: that were read.
        score: of all of them.
        probability: of the alarm's label, calibrated.
        alarm: whether the score is above the threshold.
        peak: the token with the highest score of its own.
        token: of an answer, the newest token; "" of a whole message.
        own: of an answer, that token's own score.
    """

    conversation: int
    turn: int
    role: str
    tokens: int
    score: float
    probability: float
    alarm: bool
    peak: str = ""
    token: str = ""
    own: float | None = None

    def redacted(self) -> Line:
        """The same without words."""
        return replace(self, peak="", token="")

    def to_dict(self) -> dict[str, Any]:
        """Its fields, without those that a whole message lacks."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


OnLine = Callable[[Line], object]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Watched(Result):
    """What a monitor said of messages.

    Attributes:
        alarm: the label that raises an alarm.
        threshold: a higher score does.
        rate: false positive rate that the threshold was set for.
        low: lower end of the interval of the rate it has.
        high: upper end.
        negatives: on which data that stands.
        lines: one for each message.
    """

    schema: ClassVar[str] = "interp.watch/1"
    alarm: str
    threshold: float
    rate: float
    low: float
    high: float
    negatives: str
    lines: tuple[Line, ...]

    @property
    def alarms(self) -> tuple[Line, ...]:
        """The messages that raise an alarm."""
        return tuple(one for one in self.lines if one.alarm)

    def question(self) -> str:
        """The question that was asked."""
        return f"Which messages raise an alarm for {self.alarm!r}?"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        return (
            f"{counted(len(self.lines), 'message')} of {self.about.data.get('name', 'conversations')} were "
            f"scored; a score above {self.threshold:.4g} raises an alarm. Of {self.negatives}, between "
            f"{self.low:.2%} and {self.high:.2%} of conversations do, by their highest message (95%; "
            f"{self.rate:.2%} was asked).",
        )

    def verdict(self) -> str:
        """How many raise an alarm, and how many would by chance."""
        n, found = len(self.lines), len(self.alarms)
        talks, hit = (len({one.conversation for one in lines}) for lines in (self.lines, self.alarms))
        return (
            f"{found:,} of {counted(n, 'message')} {'raises' if found == 1 else 'raise'} an alarm, and so "
            f"{'does' if hit == 1 else 'do'} {hit:,} of {counted(talks, 'conversation')}, by their highest "
            f"message; of as many conversations like those of the threshold up to {self.high * talks:.1f} "
            "would on average."
        )

    def cautions(self) -> tuple[str, ...]:
        """What an alarm does not show."""
        return (
            "An alarm says that the states look like those of the label in the training data, not why.",
            "The false positive rate holds for data like the named negatives, not for every data.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Messages and alarms."""
        return (
            Number("messages", len(self.lines)),
            Number("alarms", len(self.alarms), meaning=f"of {counted(len(self.lines), 'message')}"),
        )

    def tables(self) -> tuple[Table, ...]:
        """The messages, the highest scores first, and alarms by role."""
        rows = sorted(self.lines, key=lambda one: -one.score)
        columns = ("conversation", "turn", "role", "tokens", "score", "probability", "alarm", "peak")
        cells = [tuple(getattr(row, name) for name in columns) for row in rows]
        note = "Peak: the token with the highest score of its own."
        roles = Counter(one.role for one in self.lines)
        hits = Counter(one.role for one in self.alarms)
        by_role = [(role or "(text)", n, hits[role]) for role, n in roles.items()]
        return (
            Table("messages", "Messages, the highest scores first", columns, cells, note, private=("peak",)),
            Table("roles", "By role", ("role", "messages", "alarms"), by_role, folded=True),
        )


def watch(
    model: ModelLike,
    monitor: Monitor,
    talks: Talks,
    *,
    on_line: OnLine | None = None,
    batch_size: str | int = "auto",
) -> Watched:
    """Score every message of conversations that are there.

    Args:
        model: that the monitor was fitted on.
        monitor: it.
        talks: labels are not looked at.
        on_line: told of every message as soon as it is scored.
        batch_size: as for ``Model.capture``.

    Raises:
        ModelError: the monitor was fitted on another model.
        DataError: the monitor's selector selects nothing in a conversation.
    """
    model = as_model(model)
    monitor.check(model)
    lines: list[Line] = []
    for start in range(0, len(talks), AT_ONCE):
        part = talks.prompts[start : start + AT_ONCE]
        messages = messages_of(model, part, monitor.positions)
        states = states_of(model, messages, [monitor.site], batch_size=batch_size)[monitor.site]
        for at in range(len(messages)):
            words = _words(model, messages.ids[at])
            place = (start + messages.talk[at], messages.turn[at], messages.role[at])
            line = _line(monitor, states.states[at, : states.lengths[at]], words, place)
            lines.append(line)
            if on_line is not None:
                on_line(line)
    return watched(model, monitor, talks.described, lines)


def _words(model: Model, ids: Sequence[int]) -> list[str]:
    return [str(model.tokenizer.decode([token])) for token in ids] if model.tokenizer else []


def _line(monitor: Monitor, states: np.ndarray, words: Sequence[str], place: tuple[int, int, str]) -> Line:
    own, so_far = monitor.token_scores(states)
    score, peak = float(so_far[-1]), int(own.argmax())
    sure, alarm = float(monitor.probability(score)), bool(score > monitor.threshold.value)
    return Line(*place, len(own), score, sure, alarm, words[peak] if words else "")


def watched(model: Any, monitor: Monitor, data: Mapping[str, Any], lines: Sequence[Line]) -> Watched:
    """The lines as a result, with the threshold that made them alarms."""
    own = monitor.threshold
    return Watched(
        alarm=monitor.alarm,
        threshold=own.value,
        rate=own.rate,
        low=own.low,
        high=own.high,
        negatives=monitor.negatives,
        lines=tuple(lines),
        about=About(model=model.described, data=data),
    )
