"""What a report says about the causal test of a probe: its verdict, its tables and its figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.report.figures import Figure
from interp.report.story import Table

if TYPE_CHECKING:
    import pandas

__all__ = ["WORDS", "causal_figures", "causal_tables", "causal_words", "sentences"]

NAMES = {"ablate": "erase", "patch": "exchange", "steer": "push"}
HOW = (
    "To erase is to set what lies along the directions to the mean of the training prompts; to exchange, to "
    "take it from a test prompt with another label; to push, to move the state towards another label, by "
    "the dose. Random directions, as many, are moved as far in every prompt. Called used where erasing and "
    "exchanging both do more than every random draw, and the interval of the difference excludes 0."
)
WORDS = (
    (
        "causal test",
        "The state is changed along the directions that the probe reads, and the model's output is watched.",
    ),
    ("random directions", "What changing the state by as much does anyway, whatever the direction."),
    ("nat", "The unit of differences of log-probability; a factor of e, about 2.7, in probability."),
    (
        "dose",
        "How far the state is pushed towards another label; 1 is the mean distance between two prompts of "
        "different labels, along the direction from one to the other.",
    ),
)


def sentences(result: dict[str, Any]) -> str:
    """Give the verdict of the probe, and that of its causal test where there is one, as sentences."""
    verdicts = [str(part.get("verdict", "")) for part in (result, result.get("causal") or {})]
    return " ".join(text[:1].upper() + text[1:] + "." for text in verdicts if text)


def causal_words(result: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Explain the terms of the test, where there was one."""
    return WORDS if result.get("causal") else ()


def causal_tables(result: dict[str, Any]) -> list[Table]:
    """Give the effects of every edit, and the dose-response of pushing; none where nothing was tested."""
    found = result.get("causal")
    return [_effects(found), _doses(found)] if found else []


def _effects(found: dict[str, Any]) -> Table:
    rows = tuple(
        (
            NAMES[row["edit"]] + " (per dose)" * (row["edit"] == "steer" and _signed_measure(found)),
            _number(row["value"]),
            _interval(row),
            _number(row["random"]),
            _interval(row, "random_"),
            _number(row["difference"]),
            _interval(row, "difference_"),
            "" if row["whole"] is None else _number(row["whole"]),
        )
        for row in found["effects"]
    )
    first = found["effects"][0]
    at = "the last token" if found["position"] == "last" else f"token {found['position']}"
    watched = "by how much this falls: " if _signed_measure(found) else ""
    note = (
        f"Changed at {at} of {found['site']}: {found['directions']}. Watched, in nats: {watched}"
        f"{found['measured']}. {first['n']} test prompts in {first['n_groups']} groups; {found['draws']} "
        f"random draws, their interval is over draws. {HOW}"
    )
    columns = ("edit", "effect", "interval", "random", "interval", "difference", "interval", "whole state")
    return Table("Does the model use it?", columns, rows, note=note)


def _signed_measure(found: dict[str, Any]) -> bool:
    return found["measure"] == "preference"


def _doses(found: dict[str, Any]) -> Table:
    rows = tuple(
        (f"{row['dose']:g}", _number(row["value"]), _interval(row), _number(row["random"]))
        for row in found["doses"]
    )
    note = f"In nats: {found['measured']}. Dose 0 is the unchanged run."
    columns = ("dose", "probe's directions", "interval", "random directions")
    return Table("Pushed towards another label", columns, rows, note=note)


def causal_figures(result: dict[str, Any]) -> dict[str, Figure]:
    """Give the dose-response by file name; none where nothing was tested."""
    found = result.get("causal")
    if not found:
        return {}
    return {
        "steering": Figure(
            "curve",
            _curves(found["doses"]),
            "Pushed towards another label",
            f"Bands: 95%, over groups; of the random directions over {found['draws']} draws.",
            x="dose",
            y="nats",
            reference=next(row["value"] for row in found["doses"] if row["dose"] == 0),
            reference_name="unchanged",
        )
    }


def _curves(doses: list[dict[str, Any]]) -> pandas.DataFrame:
    import pandas

    series = (("probe's directions", "", "value"), ("random directions", "random_", "random"))
    return pandas.DataFrame(
        [
            {
                "x": row["dose"],
                "series": name,
                "value": row[key],
                "low": row[f"{prefix}low"],
                "high": row[f"{prefix}high"],
            }
            for name, prefix, key in series
            for row in doses
        ]
    )


def _number(value: float) -> str:
    return f"{value:.3g}"


def _interval(row: dict[str, Any], prefix: str = "") -> str:
    return f"[{row[f'{prefix}low']:.3g}, {row[f'{prefix}high']:.3g}]"
