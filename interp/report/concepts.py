"""The story of a concept probe: what can be read, is it the model's doing, and is it belief or truth?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from interp.report.causal import causal_figures, causal_tables, causal_words, sentences
from interp.report.certificate import identity, short_name
from interp.report.document import certificate_table
from interp.report.figures import Figure
from interp.report.story import Example, Number, Story, Table

if TYPE_CHECKING:
    import pandas

__all__ = ["SCHEMA", "figures", "main_figure", "story"]

SCHEMA = "interp.concepts/1"
MOST_CONFUSED = 15
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
    "How often guessing reads as much: answers are exchanged between the facts of a relation, and what was "
    "read stays.",
)
CAUTIONS = (
    "Baselines (ridge, linear classifier, logit lens) read the model too: they compete with the probe and "
    "refute "
    "nothing.",
)
WORDS = (
    GUESSING,
    ("concept", "A name with a vector of its own; the probe says whose vector a state resembles most."),
    ("hypervector", "A vector of thousands of coordinates; two random ones hardly resemble each other."),
    ("top-1", "The share of test prompts whose most similar concept is the right one; 1 is all of them."),
    (
        "mean reciprocal rank",
        "One over the right concept's place in the ranking, averaged; 1 is always first.",
    ),
    ("cosine", "How alike two vectors are, from -1 to 1; to be read against its floor."),
    ("floor", "What the best constant prediction scores."),
    (
        "claimed",
        "The share of prompts whose best similarity is above what 95% of null states reach, and whose state "
        "is no farther from those of training than 95% of validation states. For prompts like these.",
    ),
    ("belief", "What the model itself says, true or not."),
    (
        "fact",
        "What a prompt asks; intervals are over facts, because prompts of one fact are not independent.",
    ),
    (
        "permuted codebook",
        "The same vectors under exchanged names: what can be read is then not the concept.",
    ),
    ("logit lens", "The model's own last step applied to an earlier layer."),
    ("95% interval", "Where the number would lie if other facts of the same kind had been drawn."),
)


def story(facts: dict[str, Any], result: dict[str, Any], rows: pandas.DataFrame | None) -> Story:
    """Say what a finished ``interp probe --protocol`` found."""
    tables = [
        scores_table(result),
        *causal_tables(result),
        metrics_table(result),
        cells_table(result),
        *belief_tables(result),
    ]
    tables += [relations_table(result), confused_table(rows), layers_table(result)]
    wrong, right = _examples(result)
    return Story(
        kicker=f"interp probe \u00b7 {facts.get('path', '')}",
        title=f"{_sentence(result)} ({result.get('protocol')}, {short_name(facts)})",
        verdict=sentences(result),
        lead=_lead(facts, result),
        numbers=_numbers(result),
        tables=[table for table in tables if table is not None],
        figures=list(figures(result).values()),
        wrong=wrong,
        right=right,
        cautions=(*([] if result.get("causal") else [NOT_USE]), *CAUTIONS, *result.get("warnings", [])),
        certificate=certificate_table(facts.get("certificate")),
        command=str(facts.get("command_line", "")),
        facts=identity(facts),
        words=(*WORDS, *causal_words(result)),
    )


def _sentence(result: dict[str, Any]) -> str:
    question = str(result.get("question", ""))
    return question[:1].upper() + question[1:]


def _lead(facts: dict[str, Any], result: dict[str, Any]) -> list[str]:
    n = facts.get("data", {}).get("n", 0)
    return [
        f"{n:,} prompts of the protocol '{result.get('protocol')}' were run through {short_name(facts)}. A "
        f"Hyperdimensional Probe ({result.get('encoder')} encoder) was trained on the residual stream at "
        f"the last token "
        f"of the training prompts, its settings were chosen on validation prompts, and the test prompts "
        f"were read once. "
        f"Layer: {result.get('selection')}.",
        *_audit(result),
    ]


def _audit(result: dict[str, Any]) -> list[str]:
    leakage = result.get("leakage") or {}
    return [f"The audit of the prompts found {leakage['sentence']}."] if leakage.get("clean") else []


def _probe_row(result: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in result["scores"] if row["name"] == "probe")


def _numbers(result: dict[str, Any]) -> list[Number]:
    row = _probe_row(result)
    of = f"of {row['n']:,} test prompts about {row['n_groups']:,} facts"
    found = [Number("Concepts read right (top-1)", f"{row['value']:.3f}", _interval(row), of)]
    rivals = [r for r in result["scores"] if r["difference"] is not None and r["name"] not in BASELINES]
    if rivals:
        best = max(rivals, key=lambda r: r["value"])
        found.append(
            Number("Strongest control", f"{best['value']:.3f}", best["name"], "what the probe has to beat")
        )
    for entry in result.get("belief", [])[:1]:
        belief, truth = entry["belief"], entry["truth"]
        found.append(Number("Belief read", f"{belief['value']:.3f}", _interval(belief), entry["where"]))
        by_luck = f"against the world's truth there; by luck {entry['truth_chance']:.3f}"
        found.append(Number("Truth read", f"{truth['value']:.3f}", _interval(truth), by_luck))
    return found


BASELINES = ("ridge", "linear-classifier", "logit-lens")


def scores_table(result: dict[str, Any]) -> Table:
    """Give the probe, its controls, its baselines and chance."""
    rows = tuple(
        (
            f"probe, layer {row['layer']}" if row["name"] == "probe" else _named(row["name"]),
            row["value"],
            _interval(row),
            "" if row["difference"] is None else f"{row['difference']:+.3f}",
            _interval(row, "difference_"),
        )
        for row in result["scores"]
    )
    columns = ("what", "top-1", "interval", "probe minus this", "its interval")
    return Table(
        "Concepts read right on the test prompts",
        columns,
        rows,
        note=f"Intervals: 95%, over facts; {COVERED}",
        main=0,
    )


def _named(name: str) -> str:
    return f"{name} (baseline)" if name in BASELINES else name


def metrics_table(result: dict[str, Any]) -> Table:
    """Give the probe's further scores, with their floors."""
    found = result["metrics"]
    names = (
        ("top5", "right concept among the best five"),
        ("mrr", "mean reciprocal rank"),
        ("cosine", "cosine with the right concept"),
        ("bits", "share of coordinates with the right sign"),
        ("claimed", "share claimed (not abstained)"),
        ("precision", "share right among those claimed"),
        ("unseen", "top-1 on answers that were never trained"),
        ("model", "share the model itself answers right (first token)"),
    )
    floors = {"cosine": found.get("cosine_floor"), "bits": found.get("bits_floor")}
    rows = tuple(
        (text, found[name]["value"], _interval(found[name]), floors.get(name))
        for name, text in names
        if found.get(name)
    )
    ceiling = found.get("ceiling", 0)
    note = f"An ideal knower of the training prompts, without the model, scores {ceiling:.3f} top-1."
    return Table("Further scores", ("what", "value", "interval", "floor"), rows, note=note)


def cells_table(result: dict[str, Any]) -> Table:
    """Give the two-by-two table: model right or wrong, probe right or wrong."""
    cells = result["cells"]
    rows = tuple(
        (f"model {who}", cells[f"model {who}, probe right"]["n"], cells[f"model {who}, probe wrong"]["n"])
        for who in ("right", "wrong")
    )
    note = "Model wrong, probe right: the answer was in the state and did not come out."
    return Table(
        "Is the answer in the state, and does it come out?",
        ("", "probe right", "probe wrong"),
        rows,
        note=note,
    )


def belief_tables(result: dict[str, Any]) -> list[Table]:
    """Give what the probe says where the model believes something false."""
    tables: list[Table] = []
    for entry in result.get("belief", []):
        rows = [
            ("the model's belief", entry["belief"]["value"], _interval(entry["belief"])),
            ("the world's truth", entry["truth"]["value"], _interval(entry["truth"])),
        ]
        if entry.get("unseen"):
            unseen = entry["unseen"]
            rows.append(("the belief, where it was never trained", unseen["value"], _interval(unseen)))
        rows.append(("the truth, by luck", entry["truth_chance"], ""))
        if entry.get("lens_belief") is not None:
            rows.append(("the belief, by the logit lens", entry["lens_belief"], ""))
            rows.append(("the truth, by the logit lens", entry["lens_truth"], ""))
        note = (
            f"{entry['n']:,} prompts: {entry['where']}; the probe was trained on {entry['training']}. The "
            f"model itself "
            f"says the belief in {entry['model_belief']:.3f} of them."
        )
        tables.append(Table("Belief or truth?", ("read as", "share", "interval"), tuple(rows), note=note))
    return tables


def relations_table(result: dict[str, Any]) -> Table:
    """Give the scores per relation."""
    found = sorted(result["by_relation"].items(), key=lambda pair: (-pair[1][1], pair[0]))
    rows = tuple((name, n, probe, model) for name, (n, probe, model) in found)
    return Table("Relation by relation", ("relation", "prompts", "probe", "model itself"), rows)


def confused_table(rows: pandas.DataFrame | None) -> Table | None:
    """Give the confusions that occur most often."""
    if rows is None or "predicted" not in rows:
        return None
    wrong = rows[(rows["split"] == "test") & (rows["predicted"] != rows["label"])]
    if wrong.empty:
        return None
    pairs = Counter(zip(wrong["label"].tolist(), wrong["predicted"].tolist(), strict=True))
    found = tuple((str(a), str(b), n) for (a, b), n in pairs.most_common(MOST_CONFUSED))
    return Table("Confused most often", ("right concept", "concept read", "prompts"), found)


def layers_table(result: dict[str, Any]) -> Table | None:
    """Give the curve over layers as numbers."""
    curve = result.get("curve", {})
    if len(curve) < 2:
        return None
    rows = tuple((at, v["validation"], v["test"], _interval(v)) for at, v in curve.items())
    note = "The layer is chosen on validation; the test column, of a screen with one penalty, orients."
    if result.get("looks"):
        note += f" Of the test column: {result['looks']['sentence']}."
    columns = ("layer", "rank on validation", "top-1 on test", "interval")
    return Table("Layer by layer", columns, rows, note=note, main=list(curve).index(str(result["layer"])))


def figures(result: dict[str, Any]) -> dict[str, Figure]:
    """Give the figures by file name, the curve over layers first."""
    scores = {"scores": _scores_figure(result), **causal_figures(result)}
    return {"layers": _curve_figure(result), **scores} if len(result.get("curve", {})) > 1 else scores


def main_figure(result: dict[str, Any]) -> Figure:
    """Give the figure that shows the result best."""
    found = figures(result)
    return found.get("layers", found["scores"])


def _scores_figure(result: dict[str, Any]) -> Figure:
    import pandas

    rows = [row for row in result["scores"] if row["name"] != "chance"]
    names = [
        f"probe, layer {row['layer']}" if row["name"] == "probe" else _named(row["name"]) for row in rows
    ]
    values = {key: [float(row[key]) for row in rows] for key in ("value", "low", "high")}
    return Figure(
        "intervals",
        pandas.DataFrame({"name": names, **values}),
        "The probe against its controls and baselines",
        "Intervals: 95%, over facts. Dashed: chance.",
        x="top-1 on the test prompts",
        limits=(0.0, 1.02),
        reference=next(float(row["value"]) for row in result["scores"] if row["name"] == "chance"),
    )


def _curve_figure(result: dict[str, Any]) -> Figure:
    import pandas

    curve = result["curve"]
    data = pandas.DataFrame(
        {
            "x": [int(at) for at in curve],
            "series": ["top-1 on test"] * len(curve),
            **{
                key: [float(v[name]) for v in curve.values()]
                for key, name in (("value", "test"), ("low", "low"), ("high", "high"))
            },
        }
    )
    return Figure(
        "curve",
        data,
        "Concepts read right, layer by layer",
        "Intervals: 95%, over facts. The layer reported is chosen on validation.",
        x="layer",
        y="top-1 on the test prompts",
        limits=(0.0, 1.02),
    )


def _examples(result: dict[str, Any]) -> tuple[list[Example], list[Example]]:
    wrong: list[Example] = []
    right: list[Example] = []
    for name, cell in result["cells"].items():
        kept = right if name.endswith("probe right") else wrong
        kept += [
            Example(row["text"], row["answer"], row["read"], f"{name}; the model says {row['said']!r}")
            for row in cell["examples"]
        ]
    return wrong, right


def _interval(row: dict[str, Any], prefix: str = "") -> str:
    low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
