"""The checks a model must pass, one function each; ``CHECKS`` is the table that the doctor reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interp.models.certificate import Check
from interp.models.checks import batches, hooks, residual_stream, runs
from interp.models.checks.context import Context

__all__ = ["CHECKS", "CheckRow", "Context"]


@dataclass(frozen=True)
class CheckRow:
    """Name one check.

    Attributes:
        name: as in the certificate.
        run: the check.
        finite: whether it compares numbers, and so needs them to be finite.
    """

    name: str
    run: Callable[[Context], Check]
    finite: bool = True


CHECKS: tuple[CheckRow, ...] = (
    CheckRow(runs.FINITE, runs.finite, finite=False),
    CheckRow(residual_stream.STREAM, residual_stream.stream),
    CheckRow(residual_stream.SUM, residual_stream.sums),
    CheckRow(residual_stream.MIDDLE, residual_stream.middle),
    CheckRow(residual_stream.FINAL, residual_stream.final_norm),
    CheckRow(runs.NATIVE, runs.native),
    CheckRow(runs.TWICE, runs.deterministic),
    CheckRow(batches.BATCH, batches.batched),
    CheckRow(runs.RIGHT, runs.padding_right),
    CheckRow(runs.LEFT, runs.padding_left),
    CheckRow(runs.CACHE, runs.cached),
    CheckRow(hooks.EDITS, hooks.edits_count),
    CheckRow(hooks.OWN, hooks.own_values),
    CheckRow(hooks.ONCE, hooks.fire_once, finite=False),
    CheckRow(hooks.IN_PLACE, hooks.in_place, finite=False),
    CheckRow(hooks.LEFT, hooks.left_as_found, finite=False),
    CheckRow(runs.PLAIN, runs.beginning, finite=False),
    CheckRow(runs.CHAT, runs.chat, finite=False),
)
"""Every check, in the order they run; the first decides whether those that compare numbers make sense."""
