"""``interp patch`` from the shell: a run folder, figures, JSON, and files of one's own pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

import interp
from interp.analyses.patching import Patching, pairs_for
from interp.features.layouts.saelens import write
from interp.mediation import FeatureCircuit, Frontier, PositionAttribution
from interp.mediation.searches import effects
from interp.results import load
from tests.dictionaries import random_dictionary
from tests.interp.cli.conftest import Call

PAIR = {"clean": "w01 w02 w03", "corrupt": "w01 w05 w03", "answer": "w10", "foil": "w11"}


def written(*rows: Mapping[str, object]) -> str:
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "pairs.jsonl"


def test_the_heads_of_the_bundled_model_are_ranked(call: Call) -> None:
    answer = call("patch", "--limit", "14", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    assert data["tables"]["effects"]["n_rows"] == 96
    assert data["tables"]["effects"]["rows"][0]["share"] > 0.2
    assert data["numbers"]["faithfulness"]["value"] > 0.8
    found = load("run/result")
    assert isinstance(found, Patching) and found.effects.search == "exhaustive"
    assert found.effects.cost["noising"]["checked"] <= 1e-5
    assert found.verdict() == data["verdict"]
    files = {path.name for path in Path("run").rglob("*") if path.is_file()}
    assert {"metrics.json", "effects.parquet", "map.svg", "effects.svg", "report.html"} <= files
    rows = pd.read_parquet("run/data.parquet")
    assert set(rows["half"]) == {"ranking", "held out"} and (rows["half"] == "ranking").sum() == 14
    shown = call("show", "run")
    assert shown.code == 0 and "What carries the answer?" in shown.out
    assert "has the largest effect" in shown.out


def test_an_estimate_is_shown_beside_the_exact_effect(call: Call) -> None:
    same = {"answer": "w11", "foil": "w49"}  # told apart by the last word in every pair
    rows = [same | {"clean": f"w{at} w02 w44", "corrupt": f"w{at} w02 w03"} for at in range(20, 28)]
    asked = ("patch", "--model", "TINY", "--data", written(*rows), "--mediators", "head.*")
    answer = call(*asked, "--search", "attribution", "-q", "--out", "run")
    assert answer.code == 0, answer.err
    assert (
        "Estimate and exact effect" in answer.out
        and "Rank correlation" in Path("run/report.html").read_text()
    )


def test_pairs_of_a_file_and_every_position(call: Call) -> None:
    file = written(PAIR, PAIR | {"clean": "w04 w02 w03", "corrupt": "w04 w05 w03"})
    answer = call(
        "patch", "--model", "TINY", "--data", file, "--mediators", "resid_post.*", "--out", "run", "-q"
    )
    assert answer.code == 0, answer.err
    assert "resid_post" in answer.out and Path("run/figures/map.svg").exists()
    assert "1 of 2 pairs" not in answer.err
    both = written(PAIR, PAIR | {"corrupt": "w01 w05 w06 w03"})
    dropped = call(
        "patch", "--model", "TINY", "--data", both, "--misaligned", "drop", "--overwrite", "--out", "run"
    )
    assert dropped.code == 0 and "1 of 2 pairs line up" in " ".join(dropped.out.split())
    assert "line up" not in dropped.err, "a warning that is printed with the result is said once"
    file = written(PAIR, PAIR | {"clean": "w04 w02 w03", "corrupt": "w04 w05 w03"})
    plan = call("patch", "--model", "TINY", "--data", file, "--dry-run")
    assert plan.code == 0 and "2 pairs" in plan.out and "nothing was run" in plan.out


def test_edges_are_ranked_and_their_circuit_is_evaluated_on_other_pairs(call: Call) -> None:
    same = {"answer": "w11", "foil": "w49"}  # told apart by the last word in every pair
    rows = [
        same | {"clean": f"w{at:02d} w02 w44", "corrupt": f"w{at:02d} w02 w03", "group": str(at)}
        for at in range(20)
    ]
    file = written(*rows)
    asked = ("patch", "--model", "TINY", "--data", file, "--mediators", "edge.*", "--out", "run")
    plan = call(*asked, "--search", "eap-ig", "--dry-run")
    assert plan.code == 0 and "eap-ig: 10 pairs, 190 mediators, about" in plan.out
    answer = call(*asked, "--search", "attribution", "--select", "ilp", "--json")
    assert answer.code == 0, answer.err
    result = load("run/result")
    assert isinstance(result, Patching) and result.effects.search == "attribution"
    assert result.trace is not None and result.trace.select == "ilp" and "(ilp) of 190" in result.verdict()
    assert "->" in result.table()["mediator"][0]
    assert result.trace is not None and result.trace.held_out
    assert len(result.trace.evaluation.groups) == 10
    assert any("2 random circuits" in text for text in result.warnings)
    page = Path("run/report.html").read_text()
    assert "share of the 190 edges" in page
    refused = call(*asked, "--search", "direct", "--overwrite")
    assert refused.code != 0 and "exhaustive, attribution," in refused.err and "eap-ig" in refused.err


def test_without_text_no_file_holds_a_word_of_the_prompts(call: Call) -> None:
    """A pair without a group is its own: its prompt stood in the names of groups."""
    rows = [PAIR | {"clean": f"w{at} w02 w03", "corrupt": f"w{at} w05 w03"} for at in range(21, 29)]
    answer = call("patch", "--model", "TINY", "--data", written(*rows), "--no-text", "--out", "run", "-q")
    assert answer.code == 0, answer.err
    assert load("run/result").table("effects") is not None
    for file in Path("run").rglob("*"):
        assert file.is_dir() or b"w24 " not in file.read_bytes(), file


@pytest.mark.parametrize("what", ["mediators", "searches", "pairs", "metrics", "replacements"])
def test_what_there_is_can_be_listed(call: Call, what: str) -> None:
    answer = call("ls", what)
    assert answer.code == 0
    assert ("edge.*" in answer.out) == (what == "mediators")
    assert ("eap-ig" in answer.out) == (what == "searches")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"corrupt": "w01 w05 w06 w03"}, 3, ("pair 0", "tokens", "they first differ")),
        ({"foil": "w10"}, 3, ("the answer 'w10' and the foil 'w10' are the same",)),
        ({"foil": ""}, 3, ("line 1 has no 'foil'",)),
    ],
)
def test_pairs_that_do_not_line_up_are_refused(
    call: Call, change: dict[str, object], code: int, words: tuple[str, ...]
) -> None:
    answer = call("patch", "--model", "TINY", "--data", written(PAIR | change))
    assert answer.code == code
    assert all(word in answer.err for word in words)


@pytest.mark.slow
def test_types_of_mediators_are_compared_for_a_goal(call: Call) -> None:
    flags = ("--goal", "edit", "--mediators", "layers,heads", "--limit", "8", "--passes", "40")
    answer = call("patch", "--task", "ioi", *flags, "--out", "run", "--json")
    assert answer.code == 0, answer.err
    numbers = answer.envelope["data"]["numbers"]
    assert numbers["heads-share"]["value"] > 0.5 and numbers["heads-side"]["value"] > 0
    found = load("run/result")
    assert isinstance(found, Frontier) and found.goal == "edit" and found.budget == 40
    assert Path("run/figures/frontier.svg").exists()
    assert "To edit ioi, demo: heads for the least side effect" in found.verdict()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--goal", "explane"), "--goal 'explane'"),
        (("--goal", "explain", "--mediators", "haeds"), "Did you mean 'heads'?"),
        (("--mediators", "all", "--search", "attribution"), "searched within --passes"),
        (("--goal", "predict", "--where", "-1"), "--where '-1' is not taken"),
    ],
)
def test_what_does_not_go_with_a_goal_is_refused(call: Call, flags: tuple[str, ...], reason: str) -> None:
    answer = call("patch", *flags)
    assert answer.code == 2 and reason in answer.err


def test_a_plan_of_types_runs_nothing(call: Call) -> None:
    answer = call("patch", "--mediators", "all", "--limit", "8", "--dry-run")
    assert answer.code == 0 and "types side by side: about" in answer.out


def test_spans_of_the_shell_are_those_of_the_search(call: Call) -> None:
    line = ("patch", "--limit", "4", "--mediators", "edge.head.20.*->logits,edge.embed->v.3.0", "-q", "--out")
    line = (*line, "run", "--search", "peap")
    answer = call(*line, "--spans", "subject=[3:-1],end=last")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, Patching) and "form no circuit" in found.note
    assert not [text for text in found.effects.warnings if "no part of these edges" in text]
    names = {str(one).partition("@")[2] for one in found.effects.mediators}
    keys = {"rest": ("rest", "subject", "end"), "subject": ("subject", "end"), "end": ("end",)}
    assert names == {"end"} | {f"{key}>{query}" for key, queries in keys.items() for query in queries}
    model = interp.load("demo")
    pairs = pairs_for(model, "capitals", 4).ranking
    search = PositionAttribution(spans=(("subject", "[3:-1]"), ("end", "last")))
    wanted = effects(model, pairs, ["edge.head.20.*->logits", "edge.embed->v.3.0"], search=search)
    assert {str(m): v for m, v in zip(found.effects.mediators, found.effects.mean(), strict=True)} == {
        str(m): v for m, v in zip(wanted.mediators, wanted.mean(), strict=True)
    }
    for more, said in (
        (("--spans", "subject=["), "ConfigError: --spans"),
        (("--spans", "end=last", "--search", "attribution"), "they are of --search peap"),
        (("--spans", "one=last,two=-1"), "DataError: token 5 of pair 0 is in the spans 'one' and 'two'"),
    ):
        refused = call(*line, *more, "--overwrite", "--yes")
        assert refused.code in (2, 3) and said in refused.err, refused.err


def test_a_circuit_of_features_is_found_and_run_on_other_pairs(call: Call) -> None:
    for layer in (8, 16):
        write(random_dictionary(64, 24, site=f"resid_post.{layer}", seed=layer), f"layer{layer}")
    line = ("patch", "--features", "layer8,layer16", "--circuit", "features", "--limit", "6")
    plan = call(*line, "--dry-run", "--json")
    assert plan.code == 0 and plan.envelope["data"]["forwards"] > 6 * 200, plan.err
    answer = call(*line, "--out", "run", "--json")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, FeatureCircuit) and found.verdict() == answer.envelope["data"]["verdict"]
    assert found.held and found.number("faithfulness").value == pytest.approx(
        answer.envelope["data"]["numbers"]["faithfulness"]["value"]
    )
    assert "On other pairs" in Path("run/report.html").read_text()
    for more, said in (
        (("--search", "attribution"), "is not taken with --circuit features"),
        (("--mediators", "mlp_out.*"), "is not taken with --circuit features"),
    ):
        refused = call(*line, *more)
        assert refused.code == 2 and said in refused.err
    bare = call("patch", "--circuit", "features")
    assert bare.code == 2 and "asked without dictionaries" in bare.err
