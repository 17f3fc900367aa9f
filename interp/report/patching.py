"""The story of a search over mediators."""

from __future__ import annotations

from typing import Any

from interp.report.certificate import identity, short_name
from interp.report.circuits import circuit_figures, circuit_number, circuit_table, circuit_verdict
from interp.report.document import certificate_table
from interp.report.figures import Figure
from interp.report.story import Number, Story, Table

__all__ = ["SCHEMA", "figures", "main_figure", "story"]

SCHEMA = "interp.effects/1"
SHOWN, DRAWN = 15, 12
CAUTIONS = (
    "An effect says that the value at this place carries the difference between the two prompts of a "
    "pair, not "
    "what it means, and not that other prompts use the same place.",
    "Effects of single mediators need not add up to the total: others may respond, or take over.",
)
INTERACTION = (
    " Interaction: noising less denoising. Above zero, the part is needed more than it is enough: it works "
    "together with others (AND). Below zero, it is enough more than it is needed: others can stand in for it "
    "(OR, backup)."
)
WORDS = (
    ("mediator", "A part of the model whose value is replaced: a layer's stream, a head, a neuron."),
    ("denoising", "The corrupt prompt, with the mediator's value from the clean one: is it enough?"),
    ("noising", "The clean prompt, with the mediator's value from the corrupt one: is it needed?"),
    ("interaction", "Noising less denoising: how much the effect depends on the state of everything else."),
    ("faithfulness", "The share of the behaviour kept when only the circuit is as in the clean run."),
    (
        "left without it",
        "The same when only the circuit is as in the corrupt run: 0 if nothing else does it.",
    ),
    ("q", "False discovery rate: the share of mediators with so small a q that would be there by luck."),
    ("noise floor", "What the same numbers change when they are computed in another batch."),
)


def story(facts: dict[str, Any], result: dict[str, Any], rows: Any) -> Story:
    """Say what a finished ``interp patch`` found."""
    data = facts.get("data", {})
    return Story(
        kicker=f"interp patch \u00b7 {facts.get('path', '')}",
        title=f"What carries the answer? ({data.get('name', '?')}, {short_name(facts)})",
        verdict=" ".join(part for part in (_verdict(result), circuit_verdict(result)) if part),
        lead=[
            f"{result['n_pairs']:,} pairs of prompts ({data.get('description', '')}) were run through "
            f"{short_name(facts)}. Search: {result['search']}, replacement: {result['replacement']}, metric: "
            f"{result['metric']} ({result['unit']}): {result['clean']:.3f} on clean prompts, "
            f"{result['corrupt']:.3f} "
            f"on corrupt ones. Positive effects work towards the clean answer.",
            *_cost(result),
        ],
        numbers=[*_numbers(result), *circuit_number(result)],
        tables=[table for table in (_table(result), circuit_table(result), _verified(result)) if table],
        figures=list(figures(result).values()),
        cautions=(*CAUTIONS, *dict.fromkeys([*result.get("warnings", []), *facts.get("warnings", [])])),
        certificate=certificate_table(facts.get("certificate")),
        command=str(facts.get("command_line", "")),
        facts=identity(facts),
        words=WORDS,
    )


def _verdict(result: dict[str, Any]) -> str:
    rows = result["effects"]
    told = [row for row in rows if row["clear"] and row["q"] <= 0.05]
    if rows and rows[0]["share"] is None:
        return (
            f"The total effect ({result['total']:.3g} {result['unit']}) is not told from zero over "
            f"{result['n_groups']} groups of pairs: there is nothing whose carrier could be named. Give more "
            "pairs, or pairs whose answers differ."
        )
    if not told:
        return _none_told(result)
    notice = f"; {result['notice']}" if result.get("notice") else ""
    many = (
        f"{len(told):,} of {_count(result):,} mediators are above the noise floor with q at most 0.05"
        f"{notice}."
    )
    checked = result.get("cost", {}).get("exact", {}).get("top")
    if checked:
        best = max(checked, key=lambda row: abs(row["exact"]))
        return (
            f"{best['mediator']} has the largest effect of the {len(checked)} that were verified exactly: "
            f"{best['exact']:.2f} {_interval(best)} {result['unit']} (estimated {best['estimate']:.2f}). By "
            f"estimates, {many}"
        )
    best = told[0]
    how = "exact" if result["exact"] else "estimated, not verified"
    ways = _both_ways(best, result["unit"])
    return (
        f"{best['mediator']} has the largest effect: {best['effect']:.2f} {_interval(best)} "
        f"{result['unit']}, {best['share']:.0%} of the total ({how}){ways}; {many}"
    )


def _both_ways(row: dict[str, Any], unit: str) -> str:
    """Say where a part helps in one prompt and hinders in the other."""
    if not row.get("opposite"):
        return ""
    return (
        f", in opposite ways in the two prompts: denoising {row['denoising']:+.2f}, noising "
        f"{row['noising']:+.2f} {unit}"
    )


def _none_told(result: dict[str, Any]) -> str:
    groups, most = f"{result['n_groups']} groups of pairs", _count(result)
    if result.get("few"):
        return (
            f"{groups} are too few to tell any of {most:,} mediators from chance, whatever their effects: "
            "give more pairs, or fewer mediators."
        )
    notice = f" {result['notice'].capitalize()}." if result.get("notice") else ""
    return f"No mediator of {most:,} is told from the noise floor and from chance over {groups}.{notice}"


def _count(result: dict[str, Any]) -> int:
    """Give the number of mediators; the effects listed are the largest of them."""
    return int(result.get("n_mediators", len(result["effects"])))


def _cost(result: dict[str, Any]) -> list[str]:
    parts = [
        value for value in result.get("cost", {}).values() if isinstance(value, dict) and "rows" in value
    ]
    if not parts:
        return []
    rows, forwards = sum(part["rows"] for part in parts), sum(part["forwards"] for part in parts)
    checked = max(part["checked"] for part in parts)
    skipped = sum(part["skipped"] for part in parts)
    words = (
        f"{rows:,} patched copies cost {forwards:,.0f} forward passes; {skipped:,} more change nothing "
        f"and were not "
        f"run. Random copies, run again as whole forward passes, agree to {checked:.0e} of the logits."
    )
    return [words, *(f"Whole passes were used: {part['fallback']}." for part in parts if part["fallback"])]


def _numbers(result: dict[str, Any]) -> list[Number]:
    found = [
        Number("Total effect", f"{result['total']:.3f}", result["unit"], "clean prompts less corrupt ones")
    ]
    if result["effects"]:
        best = result["effects"][0]
        share = "" if best["share"] is None else f"{best['share']:.0%} of the total effect"
        interval = _interval(best)
        found.append(Number(f"Largest: {best['mediator']}", f"{best['effect']:.3f}", interval, share))
    exact = result.get("cost", {}).get("exact")
    if exact:
        rank = exact["rank_correlation"]
        value = "-" if rank is None else f"{rank:.2f}"
        meaning = f"estimates and exact effects of {exact['sample']} mediators drawn at random"
        found.append(Number("Rank correlation", value, "", meaning))
    return found


def _table(result: dict[str, Any]) -> Table:
    rows = result["effects"][:SHOWN]
    both = bool(rows) and "interaction" in rows[0]
    ways = ("denoising", "noising", "interaction") if both else ()
    body = tuple(
        (
            row["mediator"],
            row["effect"],
            _interval(row),
            None if row["share"] is None else f"{row['share']:.0%}",
            *(row[way] for way in ways),
            row["q"],
            _remark(row),
        )
        for row in rows
    )
    more = _count(result) - len(rows)
    note = f"Intervals: 95%, over {result['n_groups']:,} groups of pairs." + (
        f" {more:,} mediators with smaller effects are in effects.parquet." if more else ""
    )
    note += INTERACTION if both else ""
    kind = "estimate" if result.get("cost", {}).get("exact") else "effect"
    if kind == "estimate":
        note += " They are of the estimates over pairs: the exact effect may lie outside; see the next table."
    columns = ("mediator", kind, "interval", "of the total", *ways, "q", "")
    return Table(f"Effects ({result['unit']})", columns, body, note=note, main=0 if rows else None)


def _remark(row: dict[str, Any]) -> str:
    """Say why a row is no finding; "" where it is one."""
    if not row["clear"]:
        return "below the noise floor"
    if row["q"] > 0.05:
        return "not told from chance"
    return "opposite directions" if row.get("opposite") else ""


def _verified(result: dict[str, Any]) -> Table | None:
    exact = result.get("cost", {}).get("exact")
    if not exact:
        return None
    rows = tuple((row["mediator"], row["estimate"], row["exact"]) for row in exact["top"])
    note = "The largest estimates, replaced exactly."
    return Table("Estimate and exact effect", ("mediator", "estimate", "exact"), rows, note=note)


def _interval(row: dict[str, Any]) -> str:
    """Write an interval; a few groups leave it undetermined."""
    low, high = row["low"], row["high"]
    return "[undetermined]" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _finite(row: dict[str, Any], key: str) -> float:
    """Give an end of an interval, the effect itself where it is undetermined."""
    value = row[key]
    return float(row["effect"]) if value is None else float(value)


def figures(result: dict[str, Any]) -> dict[str, Figure]:
    """Give the figures by file name: a map where mediators form a grid, and the largest effects."""
    found = {"effects": _largest(result)}
    grid = _map(result)
    return ({"map": grid} if grid is not None else {}) | found | circuit_figures(result)


def main_figure(result: dict[str, Any]) -> Figure:
    """Give the figure that shows the result best."""
    return next(iter(figures(result).values()))


def _largest(result: dict[str, Any]) -> Figure:
    import pandas

    rows = result["effects"][:DRAWN]
    data = pandas.DataFrame(
        {
            "name": [row["mediator"] for row in rows],
            "value": [float(row["effect"]) for row in rows],
            **{key: [_finite(row, key) for row in rows] for key in ("low", "high")},
        }
    )
    return Figure(
        "intervals",
        data,
        "The largest effects",
        "Intervals: 95%, over groups of pairs. Dashed: no effect.",
        x=f"effect on {result['metric']} ({result['unit']})",
        reference=0.0,
        reference_name="no effect",
    )


def _map(result: dict[str, Any]) -> Figure | None:
    """Draw effects over layer and head, or layer and position; None where mediators form no grid."""
    import pandas

    cells: list[tuple[int, int, float, bool]] = []
    found = [row for row in result["effects"] if row["clear"] and row["q"] <= 0.05]
    kinds: set[str] = set()
    for row in result["effects"]:
        name, _, position = row["mediator"].partition("@")
        parts = name.split(".")
        if "->" in name:
            return None
        if len(parts) == 3 and not position:
            cells.append((int(parts[2]), int(parts[1]), float(row["effect"]), bool(row["clear"])))
            kinds.add(f"{parts[0]} ")
        elif len(parts) == 2 and position:
            cells.append((int(position), int(parts[1]), float(row["effect"]), bool(row["clear"])))
            kinds.add(f"{parts[0]}@")
    if len(cells) != len(result["effects"]) or len(kinds) != 1 or len({x for x, *_ in cells}) < 2:
        return None
    kind = kinds.pop()
    ending = ", from the end" if min(x for x, *_ in cells) < 0 else ""
    across = f"position of the token{ending}" if kind.endswith("@") else kind.strip()
    return Figure(
        "map",
        pandas.DataFrame(cells, columns=["x", "y", "value", "clear"]),
        f"Effect of each {kind.rstrip('@ ')}",
        f"Mean effect on {result['metric']} ({result['unit']}) over {result['n_pairs']:,} pairs; blue works "
        "towards the clean answer, orange against it; grey or blank: below three times the noise floor.",
        x=across,
        y="layer",
        limits=None if found else _whole(result),
    )


def _whole(result: dict[str, Any]) -> tuple[float, float]:
    """A scale on which effects that are not told from chance stay pale: that of the metric itself."""
    ends = [abs(float(result[name])) for name in ("total", "clean", "corrupt")]
    most = max(*ends, *(abs(float(row["effect"])) for row in result["effects"]))
    return -most, most
