"""One function per kind of result: its numbers under names that do not depend on the result's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import inf
from typing import Any

from interp.quantization.comparison.verdicts import SHARE
from interp.results import jsonable
from tests.golden.numbers import Numbers

__all__ = [
    "causal",
    "comparison",
    "concepts",
    "decoded",
    "doctor",
    "generation",
    "patching",
    "probe",
    "states",
    "stored",
]

INTERVAL = ("value", "low", "high")
DIFFERENCE = ("difference", "difference_low", "difference_high")
EFFECT = ("effect", "share", "denoising", "noising", "interaction")
JUDGED = (
    "verdict",
    "reference",
    "value",
    "control",
    "difference",
    "low",
    "high",
    "unit",
    "n",
    "n_groups",
)
SMALL = 1e-2
"""Of the largest effect: what lies below is rounding, or nearly."""
LUCK = 0.1
NEAR_TIES = ("rank correlation", "neurons above the threshold")
"""Findings that count what lies near a threshold, or rank many effects that are nearly zero."""


def probe(result: Any) -> Numbers:
    """Of a label probe: every score by layer, the audit, the verdict."""
    found = _read(result)
    for part in ("train", "validation", "test"):
        found.add(f"{part} prompts / n", len(getattr(result.split, part)))
    for key in ("regularisation", "converged"):
        found.add(f"fit / {key}", result.probes[result.layer].facts().get(key))
    return found


def _clause(sentence: str) -> str:
    """A sentence without its capital and its full stop."""
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


def concepts(result: Any) -> Numbers:
    """Of a concept probe: the same, and its rankings, relations, cells and beliefs."""
    found = _read(result)
    for layer, one in result.curve.items():
        row = {**one.test.to_dict(), "validation": one.validation, "test": one.test.value}
        found.row(f"layer {layer} / screening", row, ("validation", "test", "low", "high"))
    for name, one in result.metrics.items():
        found.row(f"metric {name}", one.to_dict(), (*INTERVAL, "n"))
    for name, value in result.floors.items():
        found.add(f"metric {name}_floor / value", value)
    found.add("metric ceiling / value", result.ceiling)
    for name, one in result.by_relation.items():
        found.row(f"relation {name}", vars(one), ("n", "probe", "model"))
    for name, rows in result.cells.items():
        found.add(f"{name} / n", len(rows))
    for belief in result.belief:
        name = f"belief, {belief.where}"
        found.add(f"{name} / n", belief.n)
        for kind in ("belief", "truth", "unseen"):
            if getattr(belief, kind):
                found.row(f"{name} / {kind}", getattr(belief, kind).to_dict(), INTERVAL)
        found.row(name, vars(belief), ("model_belief", "truth_chance"))
        lens = belief.lens and {"lens_belief": belief.lens.belief, "lens_truth": belief.lens.truth}
        found.row(name, lens or {}, ("lens_belief", "lens_truth"))
    return found


def _read(result: Any) -> Numbers:
    """What probes of labels and of concepts share: every score by layer, the choice, the audit, the looks."""
    found = Numbers()
    for row in (score.row() for score in result.scores):
        what = "probe" if row["name"] == "probe" else f"control {row['name']}"
        name = f"layer {row['layer']} / {what}"
        found.row(name, row, (*INTERVAL, *DIFFERENCE, "validation", "method"))
        for kind in ("n", "n_groups"):
            found.add(f"{name} / {kind.replace('_', ' ')}", row[kind])
    chosen = {"layer": result.layer, "verdict": _clause(result.verdict()), "selection": result.selection}
    found.row("chosen", chosen, tuple(chosen))
    for kind, count in result.leakage.counts.items():
        found.add(f"leaks by {kind} / n", count)
    looks = {} if result.looks is None else vars(result.looks)
    found.row("best layer", looks, ("best", "difference", "p_value", "p_uncorrected"))
    return found


def causal(result: Any) -> Numbers:
    """Of the use of a probe's directions: every edit beside random directions, the doses, the verdict."""
    found = Numbers()
    told = {name: getattr(result, name) for name in ("used", "rank", "measure", "draws")}
    found.row("causal", told | {"verdict": _clause(result.verdict())}, ("verdict", *told))
    random = ("random", "random_low", "random_high")
    for effect in result.effects:
        own, less, name = effect.estimate, effect.difference, f"causal {effect.edit}"
        found.row(name, own.to_dict(), (*INTERVAL, "n", "n_groups"))
        found.row(name, dict(zip(DIFFERENCE, _ends(less), strict=True)), DIFFERENCE)
        found.row(name, vars(effect), (*random, "p_value", "size"))
        found.add(f"{name} / whole", effect.whole and effect.whole.value)
        found.add(f"{name} / stands out", effect.stands_out)
    for dose in result.doses:
        found.row(f"causal dose {dose.dose}", vars(dose), (*INTERVAL, *random))
    return found


def _ends(estimate: Any) -> tuple[float, float, float]:
    return estimate.value, estimate.interval.low, estimate.interval.high


def patching(result: Any) -> Numbers:
    """Of effects and their circuit."""
    found, effects = Numbers(), result.effects
    pairs = {
        "clean": effects.clean.mean(),
        "corrupt": effects.corrupt.mean(),
        "total": effects.total.mean(),
        "n_pairs": len(effects.clean),
        "n_groups": len(set(effects.groups)),
        "n_mediators": len(effects.mediators),
    }
    found.row("pairs", pairs, tuple(pairs))
    kinds = ("search", "metric", "unit", "replacement")
    found.row("asked", {kind: getattr(effects, kind) for kind in kinds}, kinds)
    found.order("noise floor", effects.noise)
    rows = _plain(effects.rows if len(effects.rows) <= 400 else effects.rows[:20])
    largest = max(abs(row["effect"]) for row in rows)
    found.ranks("mediator", [row["mediator"] for row in rows], [row["effect"] for row in rows])
    for row in rows:
        found.row(row["mediator"], row, EFFECT)
        small = abs(row["effect"]) <= SMALL * largest
        found.row(row["mediator"], row, ("low", "high", "clear"), tie=small)
        # beyond a discovery, q is the rank of a head's p among those of heads with no effect but rounding
        by_luck = row["q"] is not None and row["q"] > LUCK
        found.row(row["mediator"], row, ("q",), tie=small or by_luck)
    name = "estimates against exact effects / rank correlation"
    found.add(name, effects.verified and effects.verified.rank_correlation, tie=True)
    for one in () if effects.verified is None else effects.verified.top:
        found.add(f"{one.mediator} / exact", one.exact)
    if result.trace is not None:
        _circuit(found, result.trace)
    return found


def _plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as JSON types: what is undetermined is None, and left out."""
    return jsonable([dict(row) for row in rows])[0]


def _circuit(found: Numbers, trace: Any) -> None:
    evaluation, curve, removals = trace.evaluation, trace.curve, trace.evaluation.removals
    found.add("circuit / n", len(evaluation.circuit))
    found.add("circuit / held out", trace.held_out)
    if len(evaluation.circuit) <= 50:
        found.add("circuit / members", ", ".join(map(str, evaluation.circuit)))
    for row in _plain(evaluation.table().to_dict("records")):
        found.row(f"circuit: {row['what']}", row, ("share", "low", "high", *DIFFERENCE))
    found.add("removals / tested", len(removals.members))
    found.add("removals / needed", removals.needed)
    found.add("removals / threshold", removals.threshold, tie=True)
    for row in _plain(removals.table().frame().to_dict("records")):
        found.row(f"removal of {row['member']}", row, ("change", "low", "high", "needed"))
    many = curve.total > 1000  # of many edges those in the middle of the order are nearly alike
    lucky = trace.random_curve
    for at, size in enumerate(curve.sizes):
        tie = many and 200 < size < curve.total
        found.add(f"{size} in rank order / faithfulness", curve.faithfulness[at], tie=tie)
        found.add(f"{size} in random order / faithfulness", lucky.faithfulness[at], tie=tie)
    areas = {"CPR": (curve.cpr, lucky.cpr), "CMD": (curve.cmd, lucky.cmd)}
    if (at := curve.largest_within(0.05)) is not None:
        size = curve.sizes[at]
        name = f"of the first {size:,} of {curve.total:,} {curve.members} ({size / curve.total:.1%})"
        areas[name] = (curve.faithfulness[at], lucky.faithfulness[at])
    for name, (ours, random) in areas.items():
        found.add(f"{name} / ranked", ours, tie=many)
        found.add(f"{name} / random order", random, tie=many)


def comparison(result: Any) -> Numbers:
    """Of a comparison: every finding at every scheme with its verdict, and what was done to the weights."""
    found = Numbers()
    for cell in result.cells:
        for one in cell.judgements:
            known = {key: None if value in (inf, -inf) else value for key, value in asdict(one).items()}
            row, name = known, f"finding: {cell.analysis} {one.finding} / {cell.scheme}"
            tie = any(words in one.finding for words in NEAR_TIES)
            found.row(
                name,
                row | {"control": one.reference_control, "clear": one.shown},
                (*JUDGED, "excess", "excess_low", "excess_high", "clear"),
                tie=tie,
            )
            _delta(found, name, row, SHARE)
        if cell.analysis == "cost":
            for row in cell.tables[0].frame().to_dict("records"):
                if row["measure"].startswith("weights"):
                    row["value_reference"] = row["reference"]
                    name = f"{row['measure']} / {cell.scheme}"
                    found.row(name, row, ("value", "value_reference", "ratio"))
        name = f"scheme {cell.scheme}"
        if f"{name} / quantized" not in found:
            kinds = ("quantized", "bytes_before", "bytes_after", "weight_error", "largest_error")
            found.row(name, cell.quantization.to_dict(), kinds)
            for check in cell.integrity.checks:
                found.add(f"{name}: {check.name} / passed", check.passed)
    return found


def _delta(found: Numbers, name: str, row: Mapping[str, Any], share: float) -> None:
    """Keep delta as a number where the finding sets it, and its order where the noise floor does."""
    found.order(f"{name} / noise", row["noise"], tie=True)
    own = share * abs(row["reference_excess"])
    if abs(row["delta"] - own) <= 1e-9 * max(own, 1e-30):
        found.add(f"{name} / delta", row["delta"])
    else:
        found.order(f"{name} / delta", row["delta"], tie=True)


def states(name: str, acts: Any) -> Numbers:
    """Of activations: shape, size and a few entries of every site."""
    found = Numbers()
    for site, tensor in acts.tensors.items():
        flat = tensor.double().flatten()
        flat = flat[flat.isfinite()]
        row = {
            "shape": "x".join(map(str, tensor.shape)),
            "root_mean_square": flat.square().mean().sqrt(),
            "largest": flat.abs().max(),
            "first": flat[0],
            "middle": flat[len(flat) // 2],
            "last": flat[-1],
        }
        found.row(f"{site}, {name}", row, tuple(row))
    return found


def stored(told: Mapping[str, Any]) -> Numbers:
    """Of the document of ``interp capture``."""
    found = Numbers()
    numbers = {"n" if name == "prompts" else name: one["value"] for name, one in told["numbers"].items()}
    found.row("stored", numbers, ("n", "tokens", "longest"))
    for row in told["tables"]["sites"]["rows"]:
        found.add(f"stored {row['site']} / shape", row["shape"].replace(" ", ""))
    return found


def decoded(told: Mapping[str, Any]) -> Numbers:
    """Of the document of ``interp decode`` with a prompt."""
    found, rows = Numbers(), told["tables"]["concepts"]["rows"]
    names, sizes = zip(*((row["concept"], row["similarity"]) for row in rows), strict=False)
    found.ranks("concept", names, sizes)
    for name, size in zip(names, sizes, strict=False):
        found.add(f"concept {name} / similarity", size)
    for row in told["tables"]["tokens"]["rows"]:
        found.add(f"next token {row['token']} / probability", row["probability"])
    found.add("decoding / threshold", told["numbers"]["threshold"]["value"])
    found.add("decoding / abstained", not rows[0]["claimed"])
    return found


def generation(told: Mapping[str, Any]) -> Numbers:
    """Of the document of ``interp decode --questions``."""
    found, replies = Numbers(), told["tables"]["replies"]["rows"]
    found.add("questions / n", len(replies))
    found.add("questions / threshold", told["numbers"]["threshold"]["value"])
    for row in told["tables"]["scores"]["rows"]:
        found.row(f"overlap of {row['name']}", row, (*INTERVAL, "by_luck"))
    for at, reply in enumerate(replies):
        for kind in ("question", "answer", "generated", "mentioned"):
            found.add(f"question {at + 1} / {kind}", str(reply[kind]))
        for kind in ("before", "after", "gained", "lost"):
            found.add(f"question {at + 1}, {kind} / concepts", reply[kind])
    return found


def doctor(told: Mapping[str, Any]) -> Numbers:
    """Of the document of ``interp doctor``: what passed, and how large rounding is."""
    found, certificate = Numbers(), told["certificate"]
    found.add("doctor / passed", told["passed"])
    for check in certificate["tables"]["checks"]["rows"]:
        found.add(f"check: {check['check']} / status", check["status"])
        found.add(f"check: {check['check']} / limit", check["limit"])
        found.order(f"check: {check['check']}", check["value"])
    for name in ("logits", "kl", "relative"):
        number = "noise-floor" if name == "logits" else f"noise-floor-{name}"
        found.order(f"noise floor of {name}", certificate["numbers"][number]["value"])
    found.add("model / fingerprint", certificate["about"]["model"]["fingerprint"])
    return found
