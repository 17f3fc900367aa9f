"""What an examination of a model gives: its checks, its noise floor, and what was examined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from interp.errors import counted
from interp.results import Cell, Figure, Number, Result, Table

__all__ = ["Certificate", "Check", "Examination", "NoiseFloor", "Status"]

Status = Literal["pass", "warn", "fail", "skip"]
OUTCOMES: dict[str, str] = {"pass": "passed", "warn": "note", "fail": "FAILED", "skip": "does not apply"}
MOST_MARGIN = 8.0
NARROW = ("bound", "limit", "unit", "detail")
"""Columns of the checks that a narrow terminal can spare."""


@dataclass(frozen=True)
class Check:
    """One check of a model.

    Attributes:
        name: what was checked.
        status: "pass", "warn" (worth knowing), "fail", or "skip" (it does not apply: see detail).
        value: what was measured, or None.
        limit: what is allowed, or None where nothing is compared.
        unit: of both: "relative" (to the largest value), "logits", "nats", "tokens" or a count of things.
        detail: where it was worst, or why it was skipped.
        bound: whether the limit is the most or the least that is allowed.
    """

    name: str
    status: Status
    value: float | None = None
    limit: float | None = None
    unit: str = "relative"
    detail: str = ""
    bound: Literal["at most", "at least"] = "at most"

    def row(self) -> tuple[Cell, ...]:
        """The row of a table."""
        bound, unit = "" if self.limit is None else self.bound, "" if self.value is None else self.unit
        outcome = OUTCOMES[self.status]
        return (self.name, outcome, self.value, bound, self.limit, unit, self.detail, self.status)

    @property
    def passed(self) -> bool:
        """Whether it did not fail; warnings and skipped checks do not fail, and are counted apart."""
        return self.status != "fail"


@dataclass(frozen=True)
class NoiseFloor:
    """How far the same prompts differ alone and in a batch; smaller differences mean nothing.

    Attributes:
        logits: largest difference of a logit after the last token.
        kl: largest Kullback-Leibler divergence between the next-token distributions, in nats.
        relative: largest difference relative to the largest absolute logit.
        batch_size: rows of the batch.
    """

    logits: float
    kl: float
    relative: float
    batch_size: int

    def __str__(self) -> str:
        """One line."""
        compared = f"the same prompts alone and in a batch of {self.batch_size}"
        return f"{self.logits:.2g} logits, {self.kl:.2g} nats KL ({compared})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Examination(Result):
    """Checks of a model, and whether it passed them.

    Attributes:
        checks: every check, in the order they ran.
    """

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "fail")

    def __getitem__(self, name: str) -> Check:
        """A check by its name.

        Raises:
            KeyError: no check has that name.
        """
        return {check.name: check for check in self.checks}[name]

    def verdict(self) -> str:
        """The outcome in one sentence."""
        count = {status: sum(check.status == status for check in self.checks) for status in OUTCOMES}
        parts = [f"{count['pass']} passed", f"{count['warn']} warned", f"{count['skip']} do not apply"]
        if self.failures:
            names = ", ".join(check.name for check in self.failures)
            return f"{len(self.failures)} failed ({names}); {', '.join(parts)}."
        return "No check failed: " + ", ".join(parts) + "."

    def tables(self) -> tuple[Table, ...]:
        """One row per check."""
        columns = ("check", "outcome", "value", "bound", "limit", "unit", "detail", "status")
        rows = [check.row() for check in self.checks]
        formats = {"value": ".2g", "limit": ".2g"}
        hidden = ("status",)
        return (
            Table(
                "checks", "Checks", columns, rows, self._note(), formats=formats, hidden=hidden, narrow=NARROW
            ),
        )

    def _note(self) -> str:
        """What stands under the table."""
        return ""

    def numbers(self) -> tuple[Number, ...]:
        """How many checks failed."""
        made = sum(check.status != "skip" for check in self.checks)
        return (Number("failed-checks", len(self.failures), unit=f"of {made}", decimals=0),)

    def figures(self) -> tuple[Figure, ...]:
        """How far each measured value is from its limit."""
        known = [check for check in self.checks if check.value is not None and check.limit]
        values = [_margin(check) for check in known]
        data = {"name": [check.name for check in known], "value": values, "low": values, "high": values}
        colours = [1 if check.status == "fail" else 0 for check in known]
        return (
            Figure(
                "margins",
                "intervals",
                {**data, "colour": colours},
                "How far from the limit",
                "Powers of ten between what was measured and what is allowed; right of the line is too much.",
                x="log10 of measured / allowed",
                reference=0.0,
                reference_name="limit",
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Certificate(Examination):
    """The outcome of ``interp doctor``.

    Attributes:
        noise_floor: what batch size alone changes; None where it could not be measured.
        disabled: kinds of site that the model does not offer, each with the reason.
        prompts: numbers of tokens of the prompts used.
    """

    schema: ClassVar[str] = "interp.certificate/2"
    noise_floor: NoiseFloor | None
    disabled: Mapping[str, str] = field(default_factory=dict)
    prompts: tuple[int, ...] = ()

    def question(self) -> str:
        """The question."""
        return f"Is {self.about.model_name} read correctly?"

    def lead(self) -> tuple[str, ...]:
        """What was run, and what the model does not offer."""
        lengths = ", ".join(map(str, self.prompts))
        said = (
            [f"{counted(len(self.prompts), 'prompt')} of {lengths} tokens were run."] if self.prompts else []
        )
        return (*said, *(f"Not offered: {kind}, since {why}" for kind, why in self.disabled.items()))

    def numbers(self) -> tuple[Number, ...]:
        """How many checks failed, and the noise floor."""
        floor = self.noise_floor
        if floor is None:
            return super().numbers()
        meaning = f"the same prompts alone and in a batch of {floor.batch_size}"
        return (
            *super().numbers(),
            Number("noise-floor", floor.logits, unit="logits", meaning=meaning),
            Number("noise-floor-kl", floor.kl, unit="nats", meaning=meaning, label="Noise floor, KL"),
            Number("noise-floor-relative", floor.relative, meaning="of the largest absolute logit"),
        )

    def _note(self) -> str:
        if self.noise_floor is None:
            return ""
        return (
            f"Noise floor: {self.noise_floor}, between batches of prompts of one length. A smaller "
            "difference between two runs means nothing; prompts of several lengths in a batch differ by up "
            "to what the checks of padding say."
        )


def _margin(check: Check) -> float:
    """Powers of ten by which a value is beyond its limit; negative is within, at most so many are drawn."""
    assert check.value is not None
    assert check.limit
    ratio = abs(check.value / check.limit)
    drawn = MOST_MARGIN if not math.isfinite(ratio) else math.log10(max(ratio, 10.0**-MOST_MARGIN))
    return max(-MOST_MARGIN, min(MOST_MARGIN, drawn if check.bound == "at most" else -drawn))
