"""The story of a probe: can the label be read, is it the model's doing, and where is it wrong?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.report.causal import causal_figures, causal_tables, causal_words, sentences
from interp.report.certificate import certificate_table, identity, short_name
from interp.report.confusion import confusion_figure, confusion_table, examples
from interp.report.figures import Figure
from interp.report.story import Number, Story, Table

if TYPE_CHECKING:
    import pandas

__all__ = ["curve_figure", "main_figure", "scores_figure", "story"]

NOT_USE = (
    "That something can be read here does not show that the model uses it: to show that, change the "
    "activation and watch the output (`--causal` does)."
)
COVERED = (
    "they cover other prompts of the kind, not another split, seed or codebook. Of shuffled controls: where "
    "9 in 10 of the 20 shuffles lie."
)
GUESSING = (
    "p",
    "How often guessing reads as much: test labels are exchanged between groups (concepts: between "
    "the facts of a relation), and what was read stays.",
)
WORDS = (
    GUESSING,
    ("layer", "One of the model's blocks, counted from 0."),
    (
        "residual stream",
        "The vector a model carries along at each token; every layer reads it and adds to it. It is read "
        "after the layer.",
    ),
    (
        "probe",
        "A small classifier that is trained to read a label off such vectors. The model itself is not "
        "trained.",
    ),
    ("accuracy", "The share of test prompts whose label is read correctly; 1 is all of them."),
    (
        "group",
        "Prompts that share what is asked about (a word, a fact). All prompts of a group are in the same "
        "split, so that "
        "nothing that is tested has been seen in training.",
    ),
    (
        "95% interval",
        "Where the number would lie if other groups of the same kind had been drawn. It is computed over "
        "groups, because "
        "prompts of one group are not independent.",
    ),
    (
        "control",
        "The same measurement without the thing that is claimed. A probe that is no better than its "
        "controls says "
        "nothing about the model.",
    ),
    (
        "difference",
        "Accuracy of the probe minus that of the control, on the same prompts. An interval that excludes "
        "0 is a difference.",
    ),
    ("chance", "What guessing all labels equally often would score."),
    (
        "splits",
        "The probe is fitted on training prompts, its settings (and the layer, where there are several) "
        "are chosen on "
        "validation prompts, and test prompts are looked at once.",
    ),
)


def story(facts: dict[str, Any], result: dict[str, Any], rows: pandas.DataFrame | None) -> Story:
    """Say what a finished ``interp probe`` found."""
    asked = str(facts.get("data", {}).get("description", "")).split(";")[0]
    wrong, right = examples(rows)
    return Story(
        kicker=f"interp probe \u00b7 {facts.get('path', '')}",
        title=f"Reading \u201c{asked}\u201d from layer {result.get('layer')} of {short_name(facts)}",
        verdict=sentences(result),
        lead=_lead(facts, result),
        numbers=_numbers(result),
        tables=[
            table
            for table in (
                scores_table(result),
                *causal_tables(result),
                layers_table(result),
                confusion_table(rows),
            )
            if table
        ],
        figures=[
            figure
            for figure in (
                *_score_figures(result),
                *causal_figures(result).values(),
                confusion_figure(rows),
            )
            if figure
        ],
        wrong=wrong,
        right=right,
        cautions=[
            *not_use(result),
            *dict.fromkeys([*result.get("warnings", []), *facts.get("warnings", [])]),
        ],
        certificate=certificate_table(facts.get("certificate")),
        command=str(facts.get("command_line", "")),
        facts=identity(facts),
        words=(*WORDS, *causal_words(result), *facts.get("controls", {}).items()),
    )


def not_use(result: dict[str, Any]) -> list[str]:
    """Say what reading does not show, where no causal test was made."""
    return [] if result.get("causal") else [NOT_USE]


def _lead(facts: dict[str, Any], result: dict[str, Any]) -> list[str]:
    data, model, kinds = facts.get("data", {}), facts.get("model", {}), facts.get("probe", {})
    position = result.get("position", "last")
    where = "the last token" if position == "last" else f"token {position}"
    layers = result.get("layers", [])
    many = f"after each of {len(layers)} layers" if len(layers) > 1 else f"after layer {result.get('layer')}"
    return [
        f"{data.get('n', 0):,} prompts of {data.get('name', '')} with {len(result.get('classes', []))} "
        f"labels "
        f"({data.get('description', '')}) were run through {model.get('name', '')} "
        f"({model.get('weights', '')} weights). "
        f"At {where} of each prompt the residual stream {many} was read, and a {result.get('kind', '')} "
        f"probe "
        f"({kinds.get('description', 'a linear classifier')}) was trained to tell the label.",
        f"It was fitted on {result.get('n_train', 0):,} prompts, its settings were chosen on "
        f"{result.get('n_validation', 0):,} "
        f"others, and it was tested once on {result.get('n_test', 0):,} prompts in "
        f"{result.get('n_groups', 0):,} groups that "
        f"neither had seen. Layer: {result.get('selection', '')}.",
        *audit_lead(result),
    ]


def audit_lead(result: dict[str, Any]) -> list[str]:
    """Say what the audit of the prompts looked for, where it found nothing; what it found is a warning."""
    leakage = result.get("leakage") or {}
    if not leakage.get("clean"):
        return []
    return [f"The audit of the prompts found {leakage['sentence']}."]


def _at(result: dict[str, Any], layer: int | None = None) -> list[dict[str, Any]]:
    wanted = result.get("layer") if layer is None else layer
    return [row for row in result.get("scores", []) if row["layer"] == wanted]


def _numbers(result: dict[str, Any]) -> list[Number]:
    rows = {row["name"]: row for row in _at(result)}
    probe = rows["probe"]
    of = f"of {_tested(probe)}"
    found = [Number("Accuracy on the test prompts", f"{probe['value']:.3f}", _interval(probe), of)]
    if "random-weights" in rows:
        row = rows["random-weights"]
        meaning = "the trained model's accuracy minus its untrained twin's: what training put there"
        change = _signed(row["difference"])
        found.append(Number("Trained minus untrained", change, _interval(row, "difference_"), meaning))
    controls = [row for name, row in rows.items() if name not in ("probe", "chance")]
    if controls:
        best = max(controls, key=lambda row: row["value"])
        what = "what the probe has to beat"
        found.append(Number("Strongest control", f"{best['value']:.3f}", best["name"], what))
    return found


def scores_table(result: dict[str, Any]) -> Table:
    """Give the probe and its controls at the chosen layer."""
    rows = [
        (
            f"probe, layer {row['layer']}" if row["name"] == "probe" else row["name"],
            row["value"],
            _interval(row),
            _signed(row["difference"]),
            _interval(row, "difference_"),
        )
        for row in _at(result)
    ]
    probe = next((row for row in _at(result) if row["name"] == "probe"), {})
    note = f"{_tested(probe)}. Intervals: 95%, over groups; {COVERED}"
    columns = ("what", "accuracy", "interval", "probe minus this", "its interval")
    title = f"Accuracy on the test prompts, layer {result.get('layer')}"
    return Table(title, columns, tuple(rows), note=note, main=0)


def layers_table(result: dict[str, Any]) -> Table | None:
    """Give the accuracy layer by layer, where there are several."""
    layers = result.get("layers", [])
    if len(layers) < 2:
        return None
    named = [{row["name"]: row for row in _at(result, layer)} for layer in layers]
    twin = any("random-weights" in rows for rows in named)
    rows = [
        (
            str(layer),
            rows["probe"]["value"],
            _interval(rows["probe"]),
            *(_untrained(rows["random-weights"]) if twin else ()),
            rows["probe"]["validation"],
        )
        for layer, rows in zip(layers, named, strict=True)
    ]
    extra = ("random weights", "difference") if twin else ()
    note = "The layer is chosen by accuracy on validation, never on test: the other rows are for orientation."
    if result.get("looks"):
        note += f" Of the test column: {result['looks']['sentence']}."
    columns = ("layer", "accuracy", "interval", *extra, "on validation")
    return Table("Layer by layer", columns, tuple(rows), note=note, main=layers.index(result.get("layer")))


def _untrained(row: dict[str, Any]) -> tuple[float, str]:
    return row["value"], _signed(row["difference"])


def _score_figures(result: dict[str, Any]) -> list[Figure]:
    figures = [scores_figure(result)]
    return [curve_figure(result), *figures] if len(result.get("layers", [])) > 1 else figures


def main_figure(result: dict[str, Any]) -> Figure:
    """Give the figure that shows a probing result best: the curve over layers, or one layer's scores."""
    return _score_figures(result)[0]


def scores_figure(result: dict[str, Any]) -> Figure:
    """Draw the probe and its controls at the chosen layer, with intervals."""
    import pandas

    rows = _at(result)
    scored = [row for row in rows if row["name"] != "chance"]
    names = [f"probe, layer {row['layer']}" if row["name"] == "probe" else row["name"] for row in scored]
    data = pandas.DataFrame({"name": names, **_bounds(scored), "n": [int(row["n"]) for row in scored]})
    return Figure(
        "intervals",
        data,
        "The probe against its controls",
        _caption(scored),
        x="accuracy on the test prompts",
        limits=(0.0, 1.02),
        reference=next((float(row["value"]) for row in rows if row["name"] == "chance"), None),
    )


def curve_figure(result: dict[str, Any]) -> Figure:
    """Draw accuracy over layers, for the model and its untrained twin."""
    import pandas

    kept = [row for row in result["scores"] if row["name"] in ("probe", "random-weights")]
    names = {"probe": "trained model", "random-weights": "random weights"}
    data = pandas.DataFrame(
        {
            "x": [row["layer"] for row in kept],
            "series": [names[row["name"]] for row in kept],
            **_bounds(kept),
        }
    ).sort_values(["series", "x"], ascending=[False, True], ignore_index=True)
    return Figure(
        "curve",
        data,
        "Accuracy, layer by layer",
        _caption(_at(result)),
        x="layer",
        y="accuracy on the test prompts",
        limits=(0.0, 1.02),
        reference=next((float(row["value"]) for row in _at(result) if row["name"] == "chance"), None),
    )


def _caption(rows: Sequence[dict[str, Any]]) -> str:
    probe = next((row for row in rows if row["name"] == "probe"), {})
    return f"{_tested(probe)}; intervals are 95%, over groups ({probe.get('method', '')}). Dashed: chance."


def _tested(row: dict[str, Any]) -> str:
    return f"{int(row.get('n') or 0):,} test prompts in {int(row.get('n_groups') or 0):,} groups"


def _bounds(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    return {
        key: [float("nan") if row.get(key) is None else float(row[key]) for row in rows]
        for key in ("value", "low", "high")
    }


def _interval(row: dict[str, Any], prefix: str = "") -> str:
    low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
    if low is not None and high is not None:
        return f"[{low:.3f}, {high:.3f}]"
    measured = row.get(prefix.rstrip("_") or "value") is not None and row.get("method") != "exact"
    return "undetermined" if measured else ""


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"
