"""Which labels a probe takes for which, and prompts it read right and wrong."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from interp.report.figures import Figure
from interp.report.story import Example, Table

if TYPE_CHECKING:
    import pandas

__all__ = ["confusion_figure", "confusion_table", "examples", "tested"]

MOST_LABELS = 40
MOST_PAIRS = 8
WRONG, RIGHT = 8, 4


def tested(rows: pandas.DataFrame | None) -> list[dict[str, Any]]:
    """Give the test rows, as dictionaries; none where a run has no predictions."""
    if rows is None or "predicted" not in rows.columns:
        return []
    return [row for row in rows.to_dict("records") if row["split"] == "test"]


def confusion_figure(rows: pandas.DataFrame | None) -> Figure | None:
    """Draw counts of true against predicted labels; ``None`` for more labels than a figure can show."""
    import pandas

    found = tested(rows)
    names = sorted({row[key] for row in found for key in ("label", "predicted")})
    if not 0 < len(names) <= MOST_LABELS:
        return None
    counts, totals = Counter(map(_pair, found)), Counter(row["label"] for row in found)
    cells = [(a, p, counts[a, p], counts[a, p] / max(totals[a], 1)) for a in names for p in names]
    return Figure(
        "counts",
        pandas.DataFrame(cells, columns=["actual", "predicted", "n", "share"]),
        "Which label is read as which",
        f"n = {len(found):,} test prompts; a row is a true label, its shade the share of that row.",
        x="read as",
        y="is",
    )


def confusion_table(rows: pandas.DataFrame | None) -> Table | None:
    """List the most frequent mistakes."""
    found = tested(rows)
    counts = Counter(_pair(row) for row in found if _wrong(row))
    if not counts:
        return None
    of = Counter(row["label"] for row in found)
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_PAIRS]
    body = tuple((label, predicted, f"{n} of {of[label]}") for (label, predicted), n in most)
    note = f"{counts.total():,} of {len(found):,} test prompts are read wrongly."
    return Table("The most frequent mistakes", ("is", "read as", "prompts"), body, note=note)


def examples(rows: pandas.DataFrame | None) -> tuple[list[Example], list[Example]]:
    """Choose prompts read wrongly (the surest mistakes, one per kind first) and correctly (one per label)."""
    found = [row for row in tested(rows) if "text" in row]
    wrong = sorted((row for row in found if _wrong(row)), key=lambda row: -_sure(row))
    first = {id(row) for row in {_pair(row): row for row in reversed(wrong)}.values()}
    wrong.sort(key=lambda row: id(row) not in first)
    right = {row["label"]: row for row in reversed(found) if not _wrong(row)}
    return [_example(row) for row in wrong[:WRONG]], [_example(right[name]) for name in sorted(right)[:RIGHT]]


def _pair(row: dict[str, Any]) -> tuple[str, str]:
    return row["label"], row["predicted"]


def _wrong(row: dict[str, Any]) -> bool:
    return row["label"] != row["predicted"]


def _sure(row: dict[str, Any]) -> float:
    """Give the probability of what was read; 0 for probes without probabilities."""
    value = row.get("probability")
    return float(value) if value is not None and value == value else 0.0


def _example(row: dict[str, Any]) -> Example:
    sure = _sure(row)
    return Example(row["text"], *_pair(row), f"probability {sure:.2f}" if sure else "")
