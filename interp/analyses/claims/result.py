"""What only the algebra can do, in one table: trained, controls, a plain reader, difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.analyses.claims.evidence import Claim
from interp.results import Figure, Number, Result, Table
from probes.statistics import Estimate, Interval

__all__ = ["CapacityPoint", "ClaimsResult"]


@dataclass(frozen=True)
class CapacityPoint:
    """How often a filler is read right out of a bundle, counted and by theory.

    Attributes:
        dimension: of the hypervectors.
        items: role-bound fillers in the bundle.
        found: the share that was counted.
        interval: of it.
        expected: the share that theory says.
    """

    dimension: int
    items: int
    found: float
    interval: Interval
    expected: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ClaimsResult(Result):
    """Claims about the algebra, each beside its controls and the strongest reader without it.

    Attributes:
        layer: whose ``resid_post`` was read.
        claims: the rows.
        capacity: how much a bundle holds, without any model.
        concepts: how many concepts a filler is one of, there.
    """

    schema: ClassVar[str] = "interp.claims/1"
    layer: int
    claims: tuple[Claim, ...]
    capacity: tuple[CapacityPoint, ...]
    concepts: int

    def question(self) -> str:
        """What was asked."""
        return f"What does a vector symbolic algebra add at layer {self.layer} of {self.about.model_name}?"

    def verdict(self) -> str:
        """Each claim in a clause."""
        said = "; ".join(
            f"{one.name} {one.found.value:.2f} {one.found.interval} ({one.verdict})" for one in self.claims
        )
        return f"At layer {self.layer}: {said}."

    def lead(self) -> tuple[str, ...]:
        """How a row is read."""
        return (
            "Each row is one claim: the share read through the algebra, the hardest of its controls, and a "
            "reader of the same states that uses no algebra: the strongest on validation prompts (of "
            "failures, the same map without the algebra, named in advance). The difference is the algebra's "
            "share less that reader's, paired by prompt, with a 95% interval over facts.",
        )

    def cautions(self) -> tuple[str, ...]:
        """What the rows do not show."""
        return (
            "Linear maps that are bound and bundled are the maps of the plain reader, put into one vector: "
            "where they are equally good, the algebra adds a common format, and no accuracy.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """For each claim the share, and what it has over the best plain reader and the hardest control."""
        found: list[Number] = []
        for one in self.claims:
            best, hard = one.alternatives[0], one.controls[0]
            found += [
                Number(one.name, *_ends(one.found), meaning=one.measure),
                Number(f"{one.name}-over-plain", *_ends(best.difference), meaning=f"less {best.name}"),
                Number(f"{one.name}-over-control", *_ends(hard.difference), meaning=f"less {hard.name}"),
            ]
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """Each claim; every reader; the pieces of what is read; what failures hold; what a bundle does."""
        parts = (self._parts(),) if any(one.parts for one in self.claims) else ()
        held = (self._held(),) if any(one.held for one in self.claims) else ()
        return (self._claims(), self._readers(), *parts, *held, self._capacity())

    def _claims(self) -> Table:
        columns = ("claim", "trained", "low", "high", "control", "its_share", "plain", "plain_share")
        columns += ("difference", "difference_low", "difference_high", "verdict", "what_is_right")
        rows: list[Sequence[Any]] = []
        for one in self.claims:
            hard, best = one.controls[0], one.alternatives[0]
            rows.append(
                (
                    one.name,
                    *_ends(one.found),
                    hard.name,
                    hard.estimate.value,
                    best.name,
                    best.estimate.value,
                    *_ends(best.difference),
                    one.verdict,
                    one.measure,
                )
            )
        notes = " ".join(f"{one.name}: {one.note}." for one in self.claims if one.note)
        title = "One row for each claim: trained, hardest control, plain reader, difference"
        given = {"page_only": ("what_is_right",), "narrow": ("its_share", "plain_share")}
        return Table("claims", title, columns, [tuple(row) for row in rows], notes, **given)

    def _readers(self) -> Table:
        rows = [
            (one.name, arm.name, kind, *_ends(arm.estimate), *_ends(arm.difference))
            for one in self.claims
            for kind, arms in (("control", one.controls), ("plain reader", one.alternatives))
            for arm in arms
        ]
        columns = ("claim", "reader", "kind", "share", "low", "high")
        columns += ("difference", "difference_low", "difference_high")
        return Table("readers", "Every reader of every claim", columns, rows, narrow=("kind",))

    def _parts(self) -> Table:
        rows = [
            (one.name, part.name, *_ends(part.algebra), *_ends(part.plain))
            for one in self.claims
            for part in one.parts
        ]
        columns = ("claim", "part", "trained", "low", "high", "plain", "plain_low", "plain_high")
        return Table("parts", "The pieces of what is read", columns, rows)

    def _held(self) -> Table:
        rows = [
            (one.reader, one.when, one.kind, *_ends(one.share)) for claim in self.claims for one in claim.held
        ]
        columns = ("reader", "when", "holds", "share", "low", "high")
        note = (
            "Before the first new token, and at the state that produced the last. A state may hold several; "
            "the target is the right answer, the example the pair that the prompt shows. Intervals: 95%."
        )
        return Table("failures", "What states of wrongly answered prompts hold", columns, rows, note)

    def _capacity(self) -> Table:
        rows = [
            (one.dimension, one.items, one.found, one.interval.low, one.interval.high, one.expected)
            for one in self.capacity
        ]
        columns = ("dimension", "items", "share", "low", "high", "theory")
        note = (
            f"A filler is one of {self.concepts} random concepts; MAP, plain sums (Frady et al. 2018). "
            "Intervals are over bundles."
        )
        return Table("capacity", "Fillers read right out of one bundle", columns, rows, note)

    def figures(self) -> tuple[Figure, ...]:
        """The shares of all readers, and the capacity beside theory."""
        shares: list[tuple[str, float, float, float, int]] = []
        for one in self.claims:
            shares.append((one.name, *_ends(one.found), 0))
            shares += [(f"{one.name}: {arm.name}", *_ends(arm.estimate), 1) for arm in one.alternatives]
            shares += [(f"{one.name}: {arm.name}", *_ends(arm.estimate), -1) for arm in one.controls]
        points: list[tuple[int, str, float, float, float]] = []
        for one in self.capacity:
            points.append((one.items, f"{one.dimension}", one.found, one.interval.low, one.interval.high))
            points.append((one.items, f"{one.dimension}, theory", one.expected, one.expected, one.expected))
        caption = "Read through the algebra, by plain readers, and by controls (faint). Intervals: 95%."
        read = Figure(
            "claims",
            "intervals",
            _columns(("name", "value", "low", "high", "colour"), shares),
            "What is read, by whom",
            caption,
            x="share",
            limits=(0.0, 1.02),
        )
        held = Figure(
            "capacity",
            "curve",
            _columns(("x", "series", "value", "low", "high"), points),
            "How much one hypervector holds",
            f"Fillers read right among {self.concepts} concepts, by dimension. Intervals: 95%.",
            x="role-bound fillers in the bundle",
            y="share read right",
            limits=(0.0, 1.02),
        )
        return (read, held)


def _ends(one: Estimate) -> tuple[float, float, float]:
    return one.value, one.interval.low, one.interval.high


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return dict(zip(names, zip(*rows, strict=True), strict=True))
