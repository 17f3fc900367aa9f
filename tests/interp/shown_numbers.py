"""Where the tables of a result show the numbers that its findings judge, by schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from interp.analyses.causal.measures import EDITS
from interp.results import Result

__all__ = ["LINKS", "UNLINKED"]

Shown = Iterator[tuple[str, float]]
"""Name of a finding, and the number that stands for it in a table."""


def column(result: Result, table: str, key: str, value: str, name: str = "{}") -> Shown:
    """One column of a table, under the names that its rows have among the findings."""
    for _, row in result.table(table).iterrows():
        yield name.format(row[key]), row[value]


def cells(result: Result, table: str, value: str, **names: str) -> Shown:
    """Single cells of a column, by the first cell of their row."""
    shown = result.table(table).set_index(result.table(table).columns[0])[value]
    yield from ((name, shown[row.replace("_", " ")]) for row, name in names.items())


def total(result: Result) -> Shown:
    """The total effect, a headline number."""
    yield "total effect", result.number("total-effect").value


def effects(result: Result) -> Shown:
    """The total, and every mediator's."""
    yield from total(result)
    yield from column(result, "effects", "mediator", "effect")


def evaluation(result: Result, of: str = "") -> Shown:
    """The rows of a circuit: the share that is lost is what is not left."""
    rows = result.table("circuit").set_index("what")
    yield f"{of}faithfulness of the circuit", rows.loc["the circuit", "share"]
    yield f"{of}lost without the circuit", 1 - rows.loc["left without it", "share"]
    yield f"{of}kept by the circuit alone", rows.loc["the circuit", "difference"]
    yield f"{of}effect of all of them", rows.loc["the whole model", "difference"]


def curve(result: Result) -> Shown:
    """The area and the faithfulness of every size between none and all."""
    yield "area under faithfulness", result.number("cpr").value
    sizes = result.table("faithfulness").iloc[1:-1]
    yield from (
        (f"faithfulness of the first {r['size']:.0f} nodes", r["faithfulness"]) for _, r in sizes.iterrows()
    )


def mib(result: Result) -> Shown:
    """The area, and the faithfulness of every size between none and all, the highest scores first."""
    yield "area under faithfulness", result.number("cpr").value
    sizes = result.table("sizes").drop_duplicates("size")
    yield from (
        (f"faithfulness of the first {row['size']:.0f} edges", row["signed"])
        for _, row in sizes.iterrows()
        if 0 < row["size"] < sizes["size"].max()
    )


def frontier(result: Result) -> Shown:
    """The share of the set that is shown of each type."""
    yield from column(result, "types", "type", "share", "explain by {}")


def patching(result: Result) -> Shown:
    """Effects, and its circuit."""
    yield from effects(result)
    yield from evaluation(result, "circuit: ")
    yield "circuit: area under faithfulness", result.number("cpr").value


def transfer(result: Result) -> Shown:
    """What is kept and lost of each set of pairs."""
    for _, row in result.table("pairs").iterrows():
        yield f"{row['pairs']}: faithfulness of the circuit", row["kept"]
        yield f"{row['pairs']}: lost without the circuit", row["lost"]


def feature_circuit(result: Result) -> Shown:
    """The total, every node that is kept, and every edge."""
    yield from total(result)
    kept = {one.name for one in result.findings()}
    nodes = column(result, "effects", "mediator", "effect")
    yield from ((name, value) for name, value in nodes if name in kept)
    for _, row in result.table("edges").iterrows():
        yield f"{row['source']} -> {row['target']}", row["weight"]


def interactions(result: Result) -> Shown:
    """Every two mediators, in the order of execution."""
    for _, row in result.table("interactions").iterrows():
        yield f"{row['one']} x {row['two']}", row["interaction"]


def lens(result: Result) -> Shown:
    """Every measure at every site: means, and of ranks the median."""
    for measure in ("logit_diff", "answer_prob", "kl", "rank"):
        yield from column(result, "lens", "site", measure, f"{measure} at {{}}")


def lens_curves(result: Result) -> Shown:
    """Agreement and divergence of every lens at every layer of the model."""
    for _, row in result.table("curves").iterrows():
        if row["model"] == "trained":
            yield f"agreement of {row['lens']} at layer {row['layer']}", row["agreement"]
            yield f"divergence of {row['lens']} at layer {row['layer']}", row["kl"]


def contributions(result: Result) -> Shown:
    """The logit difference, and every writer's part."""
    yield "logit difference", result.number("logit-diff").value
    yield from column(result, "contributions", "writer", "contribution")


def causal(result: Any) -> Shown:
    """The effect of every edit."""
    shown = result.table("effects").set_index("edit")["effect"]
    for edit, words in EDITS.items():
        name = words.verb if words.verb in shown else f"{words.verb} (per dose)"
        yield f"{edit}: {result.measure}", shown[name]


def labels(result: Any) -> Shown:
    """The probe's accuracy, and the effects of the causal test."""
    yield from cells(result, "scores", "value", probe="accuracy")
    yield from causal(result.causal)


def concepts(result: Any) -> Shown:
    """What the probe reads and what the model answers, and the effects of the causal test."""
    yield from cells(result, "scores", "value", probe="concepts read right")
    said = result.table("metrics").set_index("what")["value"]
    (own,) = (value for what, value in said.items() if str(what).startswith("share the model itself"))
    yield "answered by the model itself", own
    yield from causal(result.causal)


def readers(result: Result) -> Shown:
    """Each reader at the layer where it reads most."""
    table = result.table("readers")
    for finding in result.findings():
        name = finding.name.removeprefix("read by ")
        yield finding.name, table.set_index("layer").loc[finding.layer, name]


def latent(result: Any) -> Shown:
    """Every question of the model itself, and what is read layer by layer."""
    shown = result.table("behaviour").set_index("question")["own"]
    yield from ((f"P of the implied {name}", shown[f"{name}, this model"]) for name in result.answers)
    for _, row in result.table("readings").iterrows():
        where = "in the embedding" if row["layer"] == "embedding" else f"after layer {row['layer']}"
        yield f"country read {where}", row["country"]


def surgery(result: Result) -> Shown:
    """The row of the concept edit."""
    yield from cells(result, "edits", "new_first", concept="concept surgery: new answer first")


def steered(result: Any) -> Shown:
    """The vector's row at the judged dose."""
    shown = result.table("doses").set_index(["arm", "dose"])["change"]
    yield "steering: change of the score", shown["vector", result.dose]


LINKS: dict[str, Callable[[Any], Shown]] = {
    "interp.baselines/1": lambda result: (
        one for one in column(result, "rankings", "ranking", "cmd", "CMD: {}") if "uniform" not in one[0]
    ),
    "interp.causal/2": causal,
    "interp.circuit-transfer/1": transfer,
    "interp.concepts/2": concepts,
    "interp.contributions/2": contributions,
    "interp.curve/2": curve,
    "interp.effects/2": effects,
    "interp.evaluation/2": evaluation,
    "interp.feature-certificate/1": lambda result: iter(
        [("loss of decoding", result.number("loss-of-decoding").value)]
    ),
    "interp.feature-circuit/1": feature_circuit,
    "interp.findings/1": lambda result: column(result, "findings", "finding", "value"),
    "interp.frontier/1": frontier,
    "interp.interactions/1": interactions,
    "interp.latent/1": latent,
    "interp.lens-curves/1": lens_curves,
    "interp.lens/2": lens,
    "interp.mib/1": mib,
    "interp.patching/1": patching,
    "interp.probe/2": labels,
    "interp.readers/1": readers,
    "interp.steering/1": steered,
    "interp.surgery/1": surgery,
}
"""Schema -> what its tables show of the findings."""
UNLINKED = {"kept by the circuit alone", "effect of all of them"}
"""Findings of a circuit that the table over several sets of pairs has no column for."""
