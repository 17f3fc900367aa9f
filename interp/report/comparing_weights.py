"""What a comparison did to the weights, and the numbers of it that are no findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.report.comparing_rows import interval, number
from interp.report.story import Cell, Table
from interp.report.tables import of_rows

__all__ = ["changes", "quantized", "weights"]

MOST_CHANGES = 40
RATIOS = {"scheme", "measure", "unit", "value", "value_reference", "ratio", "low", "high"}
"""Keys of a measure that comes with its ratio to the reference."""


def quantized(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give scheme -> the report of the quantized model."""
    return {cell["scheme"]: cell["quantization"] for cell in result["cells"] if cell["quantization"]}


def weights(result: dict[str, Any]) -> Table | None:
    """Say what each scheme did to the weights."""
    reports = quantized(result)
    if not reports:
        return None
    rows, notes = [], []
    for scheme, found in reports.items():
        before, after = found["bytes_before"], found["bytes_after"]
        groups = ", ".join(f"{n} by {size}" for size, n in found["groups"].items())
        rows.append(
            {
                "scheme": scheme,
                "mode": found["mode"],
                "modules": f"{found['quantized']} of {found['expected']}",
                "groups": groups or "none",
                "bytes before": f"{before:,}",
                "bytes after": f"{after:,}",
                "ratio": f"{after / max(1, before):.2f}",
                "mean weight error": number(found["weight_error"]),
                "largest": number(found["largest_error"]),
                "calibrated on": f"{found['calibration']['texts']} texts"
                if found["calibration"]
                else "nothing",
                "checks": _checks(found.get("integrity")),
                "seconds": f"{found['seconds']:.1f}",
            }
        )
        skipped = found["skipped"]
        if skipped:
            notes.append(
                f"{scheme} left {len(skipped)} modules as they were: {next(iter(skipped.values()))}."
            )
        for check in found.get("integrity", {}).get("checks", []):
            if not check["passed"]:
                failed = f"{check['name']} ({check['detail'] or number(check['value'])})"
                notes.append(f"{scheme} FAILS the check {failed}: do not trust its numbers.")
        if found["gradients"]:
            notes.append(f"Gradients at {scheme} are refused: {found['gradients']}.")
    note = "Weight error: |W - Wq| / |W| of each module. Embeddings and the head keep their precision."
    return of_rows(rows, "What was done to the weights", note=" ".join([note, *notes]))


def _checks(integrity: dict[str, Any] | None) -> str:
    if not integrity:
        return "not made"
    passed = sum(check["passed"] for check in integrity["checks"])
    return f"{passed} of {len(integrity['checks'])} passed"


def changes(result: dict[str, Any]) -> list[Table]:
    """Give what analyses without findings changed, one table each: no verdict is given on these."""
    found: dict[str, list[dict[str, Cell]]] = {}
    for cell in result["cells"]:
        for row in cell["changes"]:
            plain = {key: value if _plain(value) else str(value) for key, value in row.items()}
            found.setdefault(cell["analysis"], []).append({"scheme": cell["scheme"], **plain})
    tables = []
    for name, rows in found.items():
        if all(row.keys() >= RATIOS for row in rows):
            tables.append(_ratios(name, rows))
            continue
        more = len(rows) - MOST_CHANGES
        note = "No verdicts: these numbers have no control." + (
            f" {more} more are in metrics.json." if more > 0 else ""
        )
        body = [{key: number(v) if isinstance(v, float) else v for key, v in row.items()} for row in rows]
        tables.append(of_rows(body[:MOST_CHANGES], f"{name}: what changes", note=note))
    return tables


def _ratios(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Give measures that come with their ratio to the reference, all schemes side by side."""
    found: dict[str, dict[str, Cell]] = {}
    for row in rows:
        line = found.setdefault(
            str(row["measure"]),
            {
                "measure": str(row["measure"]),
                "unit": str(row["unit"]),
                "reference": _amount(row["value_reference"]),
            },
        )
        ends = "" if row["low"] is None else f" {interval(row['low'], row['high'])}".replace(", ", ",\u00a0")
        line[str(row["scheme"])] = f"{_amount(row['value'])}, \u00d7 {_amount(row['ratio'])}{ends}"
    note = (
        "Each cell: the value, and its ratio to the reference, measured in turns in the same run, with a 95% "
        "interval where it varies. No verdicts: these numbers have no control."
    )
    return of_rows(found.values(), f"{name}: beside the reference", note=note)


def _amount(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else number(value)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)
