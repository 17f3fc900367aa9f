"""The checks a model must pass, one function each; ``CHECKS`` is the table that the doctor reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interp.models.certificate import Check
from interp.models.checks import edits, hooks, runs, sites, text
from interp.models.checks.case import Case

__all__ = ["CHECKS", "Case", "Row"]


@dataclass(frozen=True)
class Row:
    """Name one check.

    Attributes:
        name: as in the certificate.
        run: the check.
        finite: whether it compares numbers, and so needs them to be finite.
    """

    name: str
    run: Callable[[Case], Check]
    finite: bool = True


CHECKS: tuple[Row, ...] = (
    Row(runs.FINITE, runs.finite, finite=False),
    Row(sites.STREAM, sites.stream),
    Row(sites.SUM, sites.sums),
    Row(sites.MIDDLE, sites.middle),
    Row(sites.FINAL, sites.final_norm),
    Row(runs.NATIVE, runs.native),
    Row(runs.TWICE, runs.deterministic),
    Row(runs.BATCH, runs.batched),
    Row(runs.RIGHT, runs.padding_right),
    Row(runs.LEFT, runs.padding_left),
    Row(runs.CACHE, runs.cached),
    Row(edits.EDITS, edits.edits_count),
    Row(edits.OWN, edits.own_values),
    Row(hooks.ONCE, hooks.fire_once, finite=False),
    Row(hooks.IN_PLACE, hooks.in_place, finite=False),
    Row(hooks.LEFT, hooks.left_as_found, finite=False),
    Row(text.PLAIN, text.beginning, finite=False),
    Row(text.CHAT, text.chat, finite=False),
)
"""Every check, in the order they run; the first decides whether those that compare numbers make sense."""
