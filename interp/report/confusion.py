"""Which labels a probe takes for which, and prompts it read right and wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.report.figures import Figure
from interp.report.story import Example, Table

if TYPE_CHECKING:
    import pandas

__all__ = ["confusion_figure", "confusion_table", "examples", "tested"]

MOST_LABELS = 40
MOST_PAIRS = 8
WRONG, RIGHT = 8, 4


def tested(rows: pandas.DataFrame | None) -> pandas.DataFrame | None:
    """Give the test rows, or ``None`` where a run has no predictions."""
    if rows is None or "predicted" not in rows.columns:
        return None
    found = rows[rows["split"] == "test"]
    return found if len(found) else None


def confusion_figure(rows: pandas.DataFrame | None) -> Figure | None:
    """Draw counts of true against predicted labels; ``None`` for more labels than a figure can show."""
    import pandas

    found = tested(rows)
    if found is None:
        return None
    names = sorted({*found["label"], *found["predicted"]})
    if len(names) > MOST_LABELS:
        return None
    counts = pandas.crosstab(found["label"], found["predicted"]).reindex(index=names, columns=names, fill_value=0)
    totals = counts.sum(axis=1)
    cells = [
        (actual, predicted, int(counts.loc[actual, predicted]), counts.loc[actual, predicted] / max(totals[actual], 1))
        for actual in names
        for predicted in names
    ]
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
    if found is None:
        return None
    wrong = found[found["label"] != found["predicted"]]
    if not len(wrong):
        return None
    pairs = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False, kind="stable").head(MOST_PAIRS)
    of = found["label"].value_counts()
    body = tuple((label, predicted, f"{n} of {of[label]}") for (label, predicted), n in pairs.items())
    return Table("The most frequent mistakes", ("is", "read as", "prompts"), body, note=f"{len(wrong):,} of {len(found):,} test prompts.")


def examples(rows: pandas.DataFrame | None) -> tuple[list[Example], list[Example]]:
    """Choose prompts read wrongly (the surest mistakes, one per kind first) and correctly (one per label)."""
    found = tested(rows)
    if found is None or "text" not in found.columns:
        return [], []
    ranked = found.sort_values("probability", ascending=False, kind="stable", na_position="last")
    wrong = ranked[ranked["label"] != ranked["predicted"]]
    first = ~wrong.duplicated(["label", "predicted"])
    wrong = wrong.loc[[*wrong.index[first], *wrong.index[~first]]]
    right = found[found["label"] == found["predicted"]].drop_duplicates("label")
    return [_example(row) for row in _records(wrong, WRONG)], [_example(row) for row in _records(right, RIGHT)]


def _records(rows: pandas.DataFrame, most: int) -> list[dict]:
    return rows.head(most).to_dict("records")


def _example(row: dict) -> Example:
    sure = row.get("probability")
    return Example(row["text"], row["label"], row["predicted"], "" if sure is None or sure != sure else f"probability {sure:.2f}")
