"""The story of a comparison: what survives at which precision, and what that stands on."""

from __future__ import annotations

from collections import Counter
from typing import Any

from interp.report import comparing_tables as tables
from interp.report.certificate import certificate_table, identity, short_name
from interp.report.comparing_figures import figures, main_figure
from interp.report.comparing_rows import (
    ORDER,
    SCHEMA,
    Row,
    other_label,
    rows_of,
    scheme_names,
    shown_rows,
    where,
)
from interp.report.comparing_weights import quantized
from interp.report.story import Number, Story

__all__ = ["SCHEMA", "figures", "main_figure", "story"]

NAMED = 3
NAMING = ("weakened", "lost")
CAUTIONS = (
    "A verdict is about these items, this model and this seed. That a finding survives says that the "
    "difference is smaller than delta, not that there is none.",
    "Findings of one analysis share items, and neighbouring layers share what they carry: their verdicts "
    "are not independent, and no correction is made for their number. One lost finding among many may be "
    "chance.",
)
DENSE = (
    "In mode dense the model computes with the scheme's numbers in full precision arithmetic: its speed and "
    "memory are those of the full model. Bytes are those that the scheme needs, counted; a library may store "
    "more (mode packed measures them)."
)
WORDS = (
    ("finding", "One number of an analysis, measured item by item, with a control that it has to beat."),
    (
        "control",
        "What the number would be with nothing there: chance, a shuffled label, another prompt. Where it is "
        "measured in the model, each model has its own.",
    ),
    ("excess", "The value less its own model's control."),
    ("change of the excess", "The other model's excess less the reference's, item by item: what is judged."),
    (
        "shown by the reference",
        "The interval of its excess excludes zero, and the excess is above six noise floors.",
    ),
    ("noise floor", "What another batch layout, or arithmetic in bfloat16, changes in the reference itself."),
    (
        "delta",
        "The smallest change of the excess that would matter: three noise floors, or 10% of the reference's "
        "excess if larger. The 10% are taken item by item, so that their uncertainty counts.",
    ),
    ("difference", "Value in the other model less the reference's, over the same items; 95% interval."),
    ("survives", "The change of the excess is shown to be within delta."),
    ("weakened", "The excess is shown to be smaller by more than delta, and not shown to be gone."),
    ("strengthened", "The excess is larger by more than delta: further from its control, not always better."),
    ("lost", "Shown by the reference, and its excess is not above zero in the other model."),
    (
        "inconclusive",
        "The data cannot tell these apart. That a difference is not significant proves nothing.",
    ),
    ("dense, packed", "The scheme's numbers in the model's own modules, or the library's modules."),
)


def story(facts: dict[str, Any], result: dict[str, Any], rows: Any) -> Story:
    """Say what a finished ``interp compare`` found."""
    judged = rows_of(result)
    more = [*result.get("warnings", []), *facts.get("warnings", []), *tables.cell_warnings(result)]
    dense = [DENSE] if result["mode"] == "dense" and quantized(result) else []
    return Story(
        kicker=f"interp compare \u00b7 {facts.get('path', '')}",
        title=_title(result, short_name({"model": result["model"]})),
        verdict=_verdict(result, judged),
        lead=_lead(result, judged),
        numbers=_numbers(result, judged),
        first=tables.verdicts(judged),
        tables=[table for table in tables.page(result, judged) if table is not None],
        terminal=[table for table in tables.terminal(result, judged) if table is not None],
        figures=list(figures(result).values()),
        cautions=(*CAUTIONS, *dense, *dict.fromkeys(more)),
        certificate=certificate_table(facts.get("certificate")),
        command=str(facts.get("command_line", "")),
        facts=identity(facts),
        words=WORDS,
    )


def _title(result: dict[str, Any], name: str) -> str:
    other = result.get("other")
    schemes = [scheme for scheme in scheme_names(result) if scheme != other_label(result)]
    at = f"at {', '.join(schemes)}" if schemes else ""
    against = f"in {other_label(result)}" if other else ""
    return f"What of {name} survives {' and '.join(part for part in (at, against) if part)}?"


def _verdict(result: dict[str, Any], judged: list[Row]) -> str:
    said = "; ".join(_said(result, judged, scheme) for scheme in scheme_names(result))
    refused = len({cell["analysis"] for cell in result["cells"] if cell["refused"]})
    more = (
        f" {_count(refused, 'analysis', 'analyses')} could not be run everywhere: see below."
        if refused
        else ""
    )
    return f"{said[:1].upper()}{said[1:]}.{more}" if said else f"Nothing was compared.{more}"


def _said(result: dict[str, Any], judged: list[Row], scheme: str) -> str:
    """Say in one clause what becomes of the findings that the reference shows."""
    shown = [row for row in shown_rows(judged) if row.scheme == scheme]
    place = where(result, scheme)
    if not shown:
        return f"{place} the reference shows no finding to judge"
    counts = {verdict: [row for row in shown if row.verdict == verdict] for verdict in ORDER}
    n = len(shown)
    if len(counts["survives"]) == n:
        return f"{place} {'the one finding survives' if n == 1 else f'all {n} findings survive'}"
    parts = [f"{place} {len(counts['survives'])} of {_count(n, 'finding')} survive"]
    for verdict in ORDER[1:]:
        if rows := counts[verdict]:
            named = f" ({_named(rows)})" if verdict in NAMING else ""
            parts.append(f"{len(rows)} {'is' if len(rows) == 1 else 'are'} {verdict}{named}")
    return ", ".join(parts)


def _named(rows: list[Row]) -> str:
    """Name the first findings, and after them curves with the number of their layers."""
    curves = Counter((row.analysis, row.curve) for row in rows if row.curve)
    names = [f"{row.analysis}: {row.finding}" for row in rows if not row.curve]
    names += [f"{name}: {curve} at {_count(n, 'layer')}" for (name, curve), n in curves.items()]
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _lead(result: dict[str, Any], judged: list[Row]) -> list[str]:
    analyses = list(dict.fromkeys(cell["analysis"] for cell in result["cells"]))
    hidden = len({(row.analysis, row.finding) for row in judged if not row.shown})
    said = [
        f"{_count(len(analyses), 'analysis', 'analyses')} ({', '.join(analyses)}) of "
        f"{result['model']['name']} ({result['model']['weights']} weights, {result['model']['dtype']}) were "
        "run again on the same items in each other model. Differences are taken item by item; intervals draw "
        f"whole groups of items. Mode: {result['mode']}. Seed: {result['seed']}. It took "
        f"{result['seconds']:,.0f} seconds.",
    ]
    if result.get("other"):
        said.append(
            f"{other_label(result)} is another checkpoint: what differs there comes from other weights, and "
            "is no effect of precision."
        )
    if hidden:
        said.append(
            f"{_count(hidden, 'finding')} the reference itself does not show: listed apart, and not counted."
        )
    return said


def _numbers(result: dict[str, Any], judged: list[Row]) -> list[Number]:
    found = []
    for scheme in scheme_names(result):
        shown = [row for row in shown_rows(judged) if row.scheme == scheme]
        counts = {verdict: sum(row.verdict == verdict for row in shown) for verdict in ORDER}
        rest = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != "survives")
        value = f"{counts['survives']} of {len(shown)}" if shown else "\u2013"
        found.append(
            Number(
                scheme, value, "survive", rest or ("nothing else" if shown else "none shown by the reference")
            )
        )
    return found
