"""The tables of a comparison: a row per finding and a column per scheme, and what stands behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from interp.models.quantized import Quantization
from interp.quantization.comparison.verdicts import VERDICTS, Cell, Judged, Judgement
from interp.quantization.integrity import Integrity
from interp.results.measured import slug
from interp.results.shapes import Cell as Value
from interp.results.shapes import Table

__all__ = [
    "apart",
    "concluded",
    "counts",
    "every",
    "grouped",
    "heads",
    "number",
    "overview",
    "refused",
    "side_by_side",
    "stacked",
    "weights",
]

SIGNS = {
    "survives": "\u2713",
    "weakened": "\u25bd",
    "strengthened": "\u25b3",
    "lost": "\u2717",
    "inconclusive": "?",
}
FIRST = ("lost", "weakened", "strengthened", "inconclusive", "survives")
"""Findings with one of these stand before findings with the next."""
EVERY = (
    "verdict",
    "reference",
    "value",
    "difference",
    "low",
    "high",
    "reference_control",
    "control",
    "reference_excess",
    "excess",
    "change",
    "change_low",
    "change_high",
    "noise",
    "delta",
    "shown",
    "unit",
    "n",
    "n_groups",
    "note",
)
JUDGED = (
    "Under each scheme: the verdict, and the difference, value less reference, with its 95% interval. The "
    "verdict is on the change of the excess, which is the difference wherever both controls are the same "
    "(else it is given too), against delta: 10% of the reference's excess (of bits per byte: 5% of the "
    "bits), taken item by item, or three noise floors. Excess: value less the control of the same model. "
    "Intervals are paired, over groups of items. First stands of each analysis the finding that moved most. "
    "What compares a model with the reference (shared, correlation, agreement) is 1 of the reference itself."
)
BECOMES = (
    "Counted are findings that the reference shows beyond its control and its own noise. Survives: shown to "
    "change by less than what would matter (most often a tenth of it, or three times the noise). Weakened, "
    "strengthened: smaller or larger by more than that; either is another model. Lost: nothing above the "
    "control is left, or it lies on the other side. Inconclusive: these items are too few, or the change is "
    "too near the border, to say which; more items decide more of them. A finding is one number; what an "
    "analysis concludes by its own rule asks more of them, so that some survive where nothing is concluded."
)
ROUNDING = 1e-12
MOST, MOST_NOTES, MOST_OPEN, BRIEF = 150, 4, 12, 10


def grouped(rows: Iterable[Judged]) -> list[list[Judged]]:
    """The rows of one finding together, in the order in which findings first appear."""
    found: dict[tuple[str, str], list[Judged]] = {}
    for row in rows:
        found.setdefault((row.analysis, row.one.finding), []).append(row)
    return list(found.values())


def heads(findings: Sequence[Sequence[Judged]]) -> list[Sequence[Judged]]:
    """The findings that are no layer of a curve, and of each curve the layer that moves most in delta."""
    most: dict[tuple[str, str], Sequence[Judged]] = {}
    for found in findings:
        key = (found[0].analysis, found[0].one.curve)
        if key[1] and (key not in most or _moved(found) > _moved(most[key])):
            most[key] = found
    order = {name: at for at, name in enumerate(dict.fromkeys(found[0].analysis for found in findings))}
    chosen = [*(found for found in findings if not found[0].one.curve), *most.values()]
    return sorted(chosen, key=lambda found: order[found[0].analysis])


def _moved(found: Sequence[Judged]) -> float:
    return max(abs(row.one.moved) for row in found)


def _ordered(findings: Sequence[Sequence[Judged]]) -> list[Sequence[Judged]]:
    """Of each analysis the finding with the gravest verdict that moved most; then the others by verdict."""

    def grave(found: Sequence[Judged]) -> int:
        return min(FIRST.index(row.one.verdict) for row in found)

    worst = sorted(findings, key=lambda found: (grave(found), -_moved(found)))
    first = {found[0].analysis: id(found) for found in reversed(worst)}
    return sorted(findings, key=lambda found: (first[found[0].analysis] != id(found), grave(found)))


def side_by_side(
    name: str,
    title: str,
    findings: Sequence[Sequence[Judged]],
    schemes: Sequence[str],
    *,
    note: str = JUDGED,
    folded: bool = False,
) -> Table:
    """One row per finding, one column per scheme: the worst of each analysis, then what is lost or weakened.

    Controls and excesses have columns of their own, the reference's first.
    """
    ordered = _ordered(findings)
    parts = ("control", "excess")
    wide = [f"{part}, {scheme}" for part in parts for scheme in ("reference", *schemes)]
    columns = (
        "analysis",
        "finding",
        "reference",
        "unit",
        *schemes,
        *wide,
        "noise",
        "delta",
        "items in groups",
    )
    body = []
    for found in ordered:
        at = {row.scheme: row.one for row in found}
        first = found[0].one
        line: list[Value] = [found[0].analysis, first.finding, first.reference, first.unit]
        line += [_said(at[scheme]) if scheme in at else None for scheme in schemes]
        for part in parts:
            line.append(getattr(first, f"reference_{part}"))
            line += [getattr(at[scheme], part) if scheme in at else None for scheme in schemes]
        body.append((*line, first.noise, first.delta, f"{first.n} in {first.n_groups}"))
    numbers = ("reference", *wide, "noise", "delta")
    return Table(
        name,
        title,
        columns,
        body,
        note=note + _notes(ordered),
        folded=folded and len(body) > MOST_OPEN,
        shown=MOST,
        on_terminal=BRIEF,
        formats=dict.fromkeys(numbers, ".3g"),
        page_only=(*wide, "noise", "items in groups"),
        narrow=("unit", "delta"),
    )


def _said(one: Judgement) -> str:
    """Verdict and difference in one cell; the change of the excess too, where a control moved."""
    said = f"{SIGNS[one.verdict]} {one.verdict} {_signed(one.difference)} {_interval(one.low, one.high)}"
    if number(one.change) == number(one.difference):
        return said
    return f"{said}; of the excess {_signed(one.change)} {_interval(one.change_low, one.change_high)}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"


def number(value: float) -> str:
    """A number with three figures; what is rounding alone is 0."""
    value = 0.0 if abs(value) < ROUNDING else value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _interval(low: float, high: float) -> str:
    known = abs(low) != float("inf") and abs(high) != float("inf")
    return f"[{number(low)}, {number(high)}]" if known else "[undetermined]"


def _notes(findings: Sequence[Sequence[Judged]]) -> str:
    said = dict.fromkeys(
        f" {row.one.finding}: {row.one.note}." for found in findings for row in found if row.one.note
    )
    return "".join(list(said)[:MOST_NOTES]) + (" ..." if len(said) > MOST_NOTES else "")


def every(rows: Sequence[Judged]) -> Table:
    """One row per analysis, finding and scheme, with all numbers."""
    columns = ("analysis", "finding", "scheme", *EVERY)
    body = [
        (row.analysis, row.one.finding, row.scheme, *(getattr(row.one, name) for name in EVERY))
        for row in rows
    ]
    left_out = ("shown", "unit", "n", "n_groups", "note")
    return Table(
        "findings",
        "Every number of every verdict",
        columns,
        body,
        folded=True,
        formats=dict.fromkeys(EVERY, ".3g"),
        hidden=left_out,
    )


def overview(references: Sequence[Cell], cells: Sequence[Cell]) -> Table:
    """What each analysis asks, and what becomes of its findings at each scheme, in words."""
    asked = {cell.analysis: cell.asked for cell in references}
    schemes = tuple(dict.fromkeys(cell.scheme for cell in cells))
    rows: list[tuple[Value, ...]] = []
    for name in dict.fromkeys(cell.analysis for cell in cells if cell.judgements):
        own = {cell.scheme: cell for cell in cells if cell.analysis == name}
        rows.append((name, asked.get(name, ""), *(_becomes(own.get(scheme)) for scheme in schemes)))
    return Table(
        "overview",
        "What becomes of the findings, analysis by analysis",
        ("analysis", "asks", *schemes),
        rows,
        note=BECOMES,
        leads=True,
    )


def _becomes(cell: Cell | None) -> str:
    """``13 of 16 survive, 1 weakened, 2 inconclusive``."""
    if cell is None or not cell.judgements:
        return "not run"
    shown = [one.verdict for one in cell.judgements if one.shown]
    if not shown:
        return "the reference shows none"
    rest = [f"{n} {name}" for name in VERDICTS if name != "survives" and (n := shown.count(name))]
    return ", ".join([f"{shown.count('survives')} of {len(shown)} survive", *rest])


def counts(cells: Sequence[Cell]) -> Table:
    """Verdicts per analysis and scheme, over the findings that the reference shows."""
    rows: list[dict[str, Value]] = []
    for cell in cells:
        shown = [one.verdict for one in cell.judgements if one.shown]
        found = {name: shown.count(name) for name in VERDICTS}
        unclear = {"not shown by the reference": len(cell.judgements) - len(shown)}
        rows.append(
            {"analysis": cell.analysis, "scheme": cell.scheme, **found, **unclear}
            | {"run": "not run" if cell.refused else "yes"}
        )
    note = "Findings that the reference shows, by verdict; those that it does not show are not judged."
    return replace(Table.of("counts", "How many findings", rows, note), folded=True)


def refused(cells: Sequence[Cell]) -> Table:
    """What could not be run, and why."""
    rows = [(cell.analysis, cell.scheme, cell.refused) for cell in cells if cell.refused]
    return Table("refused", "Not run", ("analysis", "scheme", "reason"), rows)


def apart(cells: Sequence[Cell]) -> list[Table]:
    """Every table of analyses that lay two models beside each other themselves, under a name of its own."""
    schemes = {cell.scheme for cell in cells}
    found = []
    for cell in cells:
        if cell.judged:
            own = f"-{slug(cell.scheme)}" if len(schemes) > 1 else ""
            title = f", {cell.scheme}" if own else ""
            found += [
                replace(
                    one,
                    name=f"{slug(cell.analysis)}-{one.name}{own}",
                    title=f"{cell.analysis}: {one.title}{title}",
                )
                for one in cell.tables
            ]
    return found


def concluded(references: Sequence[Cell], cells: Sequence[Cell]) -> Table:
    """What the findings of each analysis come to by its own rule, said once of several models."""
    places: dict[tuple[str, Value], list[str]] = {}
    for name in dict.fromkeys(cell.analysis for cell in (*references, *cells)):
        for cell in (*references, *cells):
            for table in cell.tables:
                if cell.analysis == name and table.name == "conclusion":
                    places.setdefault((name, table.rows[0][0]), []).append(cell.scheme or "reference")
    rows = [(name, ", ".join(found), text) for (name, text), found in places.items()]
    columns = ("analysis", "scheme", "conclusion")
    return Table("conclusions", "What each analysis comes to, by its own rule", columns, rows)


def stacked(references: Sequence[Cell], cells: Sequence[Cell]) -> list[Table]:
    """Of analyses without verdicts the main tables, those of all schemes one under the other.

    What no other model could be asked has nothing to stand under the reference's.
    """
    judged = {cell.analysis for cell in cells if cell.judgements or cell.judged}
    answered = {cell.analysis for cell in cells if cell.tables}
    found: dict[str, list[Cell]] = {}
    for cell in (*references, *cells):
        if cell.analysis in answered - judged and cell.tables:
            found.setdefault(cell.analysis, []).append(cell)
    return [_stacked(name, own) for name, own in found.items()]


def _stacked(name: str, cells: Sequence[Cell]) -> Table:
    first = cells[0].tables[0]
    rows = [
        (*row[:1], cell.scheme or "reference", *row[1:])
        for at in range(len(first.rows))
        for cell in cells
        for row in cell.tables[0].rows[at : at + 1]
        if cell.tables[0].columns == first.columns
    ]
    columns = (*first.columns[:1], "scheme", *first.columns[1:])
    return Table(
        slug(name),
        f"{name}: beside the reference",
        columns,
        rows,
        first.note,
        formats=first.formats,
        shown=MOST,
    )


def weights(reports: Mapping[str, tuple[Quantization, Integrity | None]]) -> Table:
    """What each scheme did to the weights."""
    rows: list[dict[str, Value]] = []
    notes = ["Weight error: |W - Wq| / |W| of each module. Embeddings and the head keep their precision."]
    for scheme, (made, checked) in reports.items():
        found = made.to_dict()
        groups = ", ".join(f"{n} by {size}" for size, n in found["groups"].items())
        rows.append(
            {
                "scheme": scheme,
                "mode": made.mode,
                "modules": f"{len(made.modules)} of {made.expected}",
                "groups": groups or "none",
                "bytes before": made.bytes_before,
                "bytes after": made.bytes_after,
                "ratio": made.bytes_after / max(1, made.bytes_before),
                "mean weight error": found["weight_error"],
                "largest": found["largest_error"],
                "calibrated on": f"{made.calibration['texts']} texts" if made.calibration else "nothing",
                "checks": _checks(checked),
                "seconds": made.seconds,
            }
        )
        notes += _told(scheme, made, checked)
    formats = {"ratio": ".2f", "seconds": ".1f", "mean weight error": ".3g", "largest": ".3g"}
    return replace(
        Table.of("weights", "What was done to the weights", rows, " ".join(notes)), formats=formats
    )


def _checks(checked: Integrity | None) -> str:
    if checked is None:
        return "not made"
    return f"{sum(one.passed for one in checked.checks)} of {len(checked.checks)} passed"


def _told(scheme: str, made: Quantization, checked: Integrity | None) -> list[str]:
    """What is wrong with a quantized model, or left as it was."""
    said = []
    if made.skipped:
        why = next(iter(made.skipped.values()))
        said.append(f"{scheme} left {len(made.skipped)} modules as they were: {why}.")
    for one in () if checked is None else checked.checks:
        if not one.passed:
            value = "" if one.value is None else number(one.value)
            failed = f"{one.name} ({one.detail or value})"
            said.append(f"{scheme} FAILS the check {failed}: do not trust its numbers.")
    if made.gradients:
        said.append(f"Gradients at {scheme} are refused: {made.gradients}.")
    return said
