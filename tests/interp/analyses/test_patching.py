"""From pairs to a circuit that is evaluated on pairs of other groups."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import interp
from interp import mediation
from interp.analyses.patching import ALONE, EDGES, SAME, pairs_for
from interp.errors import ConfigError, DataError
from interp.mediation.searches import effects
from interp.models.model import Model
from interp.pairs import PairSet
from interp.report import plot
from interp.report.document import document
from interp.results import Result
from tests.noisy import demo as bundled
from tests.planted_heads import planted

NODES = ["head.*", "mlp_out.*"]


def test_the_planted_circuit_is_found_and_holds_on_other_pairs() -> None:
    truth = planted("induction")
    found = interp.patch(truth.model, truth.pairs, NODES)
    assert found.trace is not None and found.trace.held_out
    assert {str(node) for node in found.trace.evaluation.circuit} == truth.heads
    assert found.trace.evaluation.faithfulness.value == pytest.approx(1, abs=0.1)
    assert found.trace.curve.cpr > found.trace.random_curve.cpr + 0.1
    assert found.trace.curve.cmd < found.trace.random_curve.cmd - 0.1
    assert "measured on 6 pairs of other groups" in found.lead()[-1]
    assert "The circuit of the 2 largest of 10 keeps" in found.verdict()
    assert [one.name for one in found.figures()] == ["effects", "faithfulness", "circuit"]
    assert plot(found).form == "intervals"
    drawn = plot(found, "circuit")
    assert set(drawn.data["name"]) == truth.heads and "head.0.2" in drawn.svg()
    assert len(re.findall("<title>head[^<]*: [^<]*</title>", drawn.svg())) >= 2


def test_a_page_has_the_circuit_with_its_controls_and_numbers() -> None:
    truth = planted("induction")
    found = interp.patch(truth.model, truth.pairs, NODES)
    assert found.trace is not None
    story = document(found)
    tables = {one.title: one for one in (story.first, *story.tables) if one is not None}
    rows = {row[0]: row[1:] for one in ("The circuit", "Areas") for row in tables[one].rows}
    kept = found.trace.evaluation.faithfulness.value
    assert rows["the circuit"][0] == f"{kept:z.3f}" and "random circuits of this size" in rows
    assert "left without it" in rows and "random-weights: the circuit" in rows
    assert rows["area under faithfulness (CPR)"][0] == f"{found.trace.curve.cpr:z.3f}"
    assert rows["area to full faithfulness (CMD)"][2] == f"{found.trace.random_curve.cmd:z.3f}"
    assert [one.title for one in story.tables if one.folded] == [
        "Members taken out one by one (logits)", "Faithfulness by size"
    ]  # fmt: skip
    assert [one.name for one in found.numbers()] == [
        "total-effect", "largest-effect", "faithfulness", "left-without-it", "completeness-gap",
        "cpr", "cmd",
    ]  # fmt: skip
    assert found.number("faithfulness").value == pytest.approx(kept)
    assert {"mediator", "denoising", "noising", "interaction", "q", "faithfulness", "noise floor"} <= set(
        dict(story.words)
    )


def test_a_circuit_of_edges_is_evaluated_on_other_pairs_and_drawn_with_arrows() -> None:
    truth = planted("induction")
    found = interp.patch(truth.model, truth.pairs, "edge.*", search="exhaustive")
    assert found.trace is not None and found.trace.held_out
    assert EDGES in found.warnings
    circuit = set(map(str, found.trace.evaluation.circuit))
    assert {"head.0.2->k.1.3", "head.1.3->logits"} <= circuit and len(circuit) < 0.6 * 110
    assert found.trace.evaluation.faithfulness.value > found.trace.evaluation.random.value + 0.5
    assert found.trace.curve.cmd < found.trace.random_curve.cmd - 0.1
    areas = found.table("areas")["what"].tolist()
    assert areas[-1] == "faithfulness of the first 5 of 110 edges (4.5%)"
    assert [one.name for one in found.figures()] == ["effects", "faithfulness", "circuit"]
    assert found.figure("faithfulness").x == "share of the 110 edges"
    rows = found.figure("circuit").frame()
    arrows = rows[rows["to_x"].notna()]
    assert len(arrows) == min(60, len(circuit)) and set(arrows["name"]) <= circuit
    assert all(up > down for up, down in zip(arrows["to_y"].tolist(), arrows["y"].tolist(), strict=True))


def test_ranking_and_evaluation_share_no_group() -> None:
    truth = planted("copy")
    own = pairs_for(truth.model, truth.pairs)
    assert own.held_out is not None
    assert len(own.ranking) + len(own.held_out) == len(truth.pairs)
    demo = bundled()
    drawn = pairs_for(demo, "ioi", 6, seed=3)
    assert drawn.held_out is not None and len(drawn.ranking) >= 6
    for parts in (own, drawn):
        assert parts.held_out is not None
        assert not set(parts.ranking.groups) & set(parts.held_out.groups)


def test_too_few_groups_are_evaluated_on_themselves_and_it_is_said() -> None:
    truth = planted("copy")
    pairs = PairSet.build(
        truth.model, [replace(pair, group=str(at % 2)) for at, pair in enumerate(truth.pairs)]
    )
    found = interp.patch(truth.model, pairs, "head.*")
    assert (found.trace is None) or (not found.trace.held_out and SAME in found.warnings)


def test_what_has_no_circuit_says_why() -> None:
    truth = planted("copy")
    cells = interp.patch(truth.model, truth.pairs, "resid_post.*")
    assert cells.trace is None and "single positions" in cells.note
    one = interp.patch(truth.model, truth.pairs, "head.0.1")
    assert one.trace is None and "2 to 512 nodes" in one.note
    assert "No circuit was evaluated: cells of single positions" in cells.lead()[-1]
    assert [one.name for one in cells.tables()] == ["effects"]


def test_pairs_without_an_effect_and_unknown_searches_are_refused() -> None:
    truth = planted("copy")
    same = PairSet.build(truth.model, [replace(pair, corrupt=pair.clean) for pair in truth.pairs])
    with pytest.raises(DataError, match="the total effect is zero"):
        interp.patch(truth.model, same, "head.*")
    with pytest.raises(ConfigError, match="search 'exhaustively' asked"):
        interp.patch(truth.model, truth.pairs, "head.*", search="exhaustively")


DOORS: dict[str, tuple[Callable[[Model, PairSet], Result], bool]] = {
    "patch": (lambda model, pairs: interp.patch(model, pairs, "head.*"), True),
    "exhaustive": (lambda model, pairs: mediation.exhaustive(model, pairs, "head.*"), True),
    "attribution": (lambda model, pairs: mediation.attribution(model, pairs, "head.*"), True),
    "edges": (lambda model, pairs: effects(model, pairs, "edge.*", search="eap-ig"), True),
    "evaluate": (lambda model, pairs: mediation.evaluate(model, pairs, ["head.0.0"], controls=()), True),
    "interactions": (lambda model, pairs: mediation.interactions(model, pairs, "head.*"), True),
    "lens": (lambda model, pairs: mediation.logit_lens(model, pairs), False),
    "contributions": (lambda model, pairs: mediation.direct_logit_attribution(model, pairs), False),
}
"""Name of what reads pairs -> how it is called, and whether it runs the corrupt prompts too."""


@pytest.mark.parametrize("door", DOORS)
def test_pairs_whose_answers_the_model_does_not_give_are_said(door: str) -> None:
    """Exchanged answers, and answers of no kind; control: the task itself has no such warning."""
    truth = planted("induction")
    model, own = truth.model, list(truth.pairs.pairs)
    run, both = DOORS[door]
    good = run(model, truth.pairs).warnings
    assert not any("clean prompts" in text or "exchanged" in text for text in good)
    swapped = [replace(pair, answers=pair.foils, foils=pair.answers) for pair in own]
    said = run(model, PairSet.build(model, swapped)).warnings
    assert len([text for text in said if re.search(r"answer on 0 of [1-9]\d* clean prompts", text)]) == 1
    exchanged = [text for text in said if re.search(r"on ([1-9]\d*) of \1 pairs .* exchanged", text)]
    assert len(exchanged) == int(both)


def test_the_curve_of_a_choice_is_of_what_it_chooses_at_each_size() -> None:
    truth = planted("induction")
    parts = pairs_for(truth.model, truth.pairs)
    assert parts.held_out is not None
    found = interp.patch(truth.model, parts, NODES, select="signed")
    assert found.trace is not None and found.trace.kept is None
    assert "the smallest that keeps" in found.trace.lead() and "at most what" not in found.trace.lead()
    alone: Any = ALONE
    shares = dict(zip(found.trace.curve.sizes, found.trace.curve.faithfulness, strict=True))
    order = found.effects.top(len(found.effects.mediators))
    other = mediation.curve(
        truth.model, parts.held_out, order, universe=NODES, chosen=lambda size: order[::-1][:size]
    )
    last = mediation.evaluate(truth.model, parts.held_out, order[::-1][:2], universe=NODES, **alone)
    kept = dict(zip(other.sizes, other.faithfulness, strict=True))
    assert kept[2] == pytest.approx(last.faithfulness.value, abs=1e-5) != shares[2]
    assert abs(kept[2] - shares[2]) > 0.1, "two of the smallest effects are not the two largest"
    for size in (1, 2, 4):
        circuit = list(mediation.choose(truth.model, found.effects, size, "signed"))
        again = mediation.evaluate(truth.model, parts.held_out, circuit, universe=NODES, **alone)
        assert shares[size] == pytest.approx(again.faithfulness.value, abs=1e-5)
    size = len(found.trace.evaluation.circuit)
    assert size in shares and found.trace.evaluation.faithfulness.value == pytest.approx(
        shares[size], abs=1e-5
    )


def test_a_choice_that_is_slow_says_what_it_keeps_and_that_the_curve_is_of_the_largest() -> None:
    truth = planted("induction")
    parts = pairs_for(truth.model, truth.pairs)
    found = interp.patch(truth.model, parts, "edge.*", select="greedy")
    assert found.trace is not None and found.trace.kept is not None
    assert f"On ranking pairs this choice keeps {found.trace.kept:z.0%}" in found.trace.lead()
    areas = [one.meaning for one in found.trace.numbers() if one.name in ("cpr", "cmd")]
    assert len(areas) == 2 and all("of the largest effects, not of this choice" in one for one in areas)
    top = interp.patch(truth.model, parts, NODES)
    assert top.trace is not None and top.trace.kept is None and "the smallest that keeps" in top.trace.lead()
