"""Graphs: planted chains are found and confirmed, tests are real interventions, wrong graphs are noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import mediation
from interp.errors import ArtifactError, ConfigError, DataError, InterpError
from interp.mediation import AttributionGraph
from interp.mediation.graphs.neuronpedia import from_neuronpedia, to_neuronpedia
from interp.mediation.graphs.parts import carried
from interp.mediation.graphs.told import percent
from interp.models.model import Model
from interp.report.graph_page import render
from interp.results import load
from tests.dictionaries import random_dictionary, transcoder
from tests.planted import and_neuron
from tests.tiny import tiny

WORDS = "w05 w06 w07 w08 w09"


@cache
def model(family: str = "llama") -> Model:
    hf, words = tiny(family)
    return interp.load(hf, tokenizer=words)


@cache
def graph(family: str = "llama") -> AttributionGraph:
    return mediation.attribution_graph(model(family), WORDS, neurons=8)


@cache
def planted() -> AttributionGraph:
    found = and_neuron()
    prompt = f"{found.both[0]} {found.both[1]} {found.query}"
    return mediation.attribution_graph(found.model, prompt, answer=found.yes, foil=found.no, keep=0.99)


def test_a_planted_chain_is_found_and_confirmed() -> None:
    found = planted()
    last = len(found.tokens) - 1
    edges = {(one.source, one.target): one for one in found.edges}
    into = [one for one in edges.values() if one.target == f"neuron.1.5@{last}" and "head.0" in one.source]
    out = edges[f"neuron.1.5@{last}", found.outputs[0].name]
    assert out.confirmed() and out.weight > 0
    assert into and all(one.confirmed("held") for one in into)
    tokens = {one.source for one in found.edges if one.target.startswith("head.0") and one.weight > 0}
    assert {"embed@0", "embed@1"} <= tokens
    effects = {one.name: one.effect for one in found.nodes}
    assert effects[f"neuron.1.5@{last}"] == pytest.approx(
        min(value for name, value in effects.items() if value is not None and name.startswith("neuron"))
    )
    decoys = [one for one in found.nodes if one.kind == "neuron" and one.index not in (5, 11, 17)]
    assert not decoys  # the others are zero


def test_the_live_test_is_the_model_without_the_node() -> None:
    found = graph("gpt2")
    node = next(one for one in found.nodes if one.kind == "neuron")
    hf: Any = model("gpt2").hf
    ids = torch.tensor([found.token_ids])

    def without(module: Any, args: Any) -> Any:
        new = args[0].clone()
        new[0, node.position, node.index] = 0.0
        return (new,)

    def metric() -> float:
        logits = hf(ids).logits[0, -1]
        weights = np.array(found.probabilities) / sum(found.probabilities)
        said = [float(logits[one.index] - logits.mean()) for one in found.outputs]
        return float(weights @ np.array(said))

    with torch.no_grad():
        before = metric()
        handle = hf.transformer.h[node.layer].mlp.c_proj.register_forward_pre_hook(without)
        after = metric()
        handle.remove()
    assert node.effect == pytest.approx(after - before, rel=1e-3, abs=1e-4) and abs(after - before) > 1e-3


@pytest.mark.parametrize("site", ["mlp_out.1", "resid_post.1"])
def test_a_feature_is_taken_out_as_its_site_would_be(site: str) -> None:
    given = model().with_dictionaries(random_dictionary(site=site))
    found = mediation.attribution_graph(given, WORDS, keep=0.95, neurons=8, nodes=200, edges=300)
    features = [one for one in found.nodes if one.kind == "feature"]
    assert features and found.ends["error"] > 0 and found.dictionaries == {"1": "random-relu"}
    weights = np.array(found.probabilities) / sum(found.probabilities)
    for one in features[:3]:
        edit = interp.Intervention(f"feature.1.{one.index}", 0.0, one.position)
        ids = list(found.token_ids)
        both = [given.logits([ids])[0], given.run([ids], interventions=[edit]).logits]
        logits = [both[0], both[1][0].float()] if both[1] is not None else both
        said = [weights @ [float(row[o.index] - row.mean()) for o in found.outputs] for row in logits]
        assert one.effect == pytest.approx(said[1] - said[0], rel=1e-2, abs=1e-4) and one.effect != 0
    into = [one for one in found.edges if one.target.startswith("feature") and one.confirmed("held")]
    assert into  # what features read was tested too


def test_in_the_first_layer_held_and_live_are_one_test() -> None:
    ends = [(one, one.source.partition("@")[0], one.target.partition("@")[0]) for one in graph().edges]
    first = [one for one, source, target in ends if source == "embed" and target.startswith("head.0")]
    assert first
    for one in first:
        assert one.held == pytest.approx(one.live, rel=1e-3, abs=1e-5)
        assert one.predicted == pytest.approx(-one.weight)


def test_a_source_that_is_all_that_its_target_reads_counts_neither_way() -> None:
    found = mediation.attribution_graph(model(), [5], neurons=8, keep=0.99)
    sole = [one for one in found.edges if one.part > 0.99 and one.target.startswith("head.0")]
    assert sole and all(one.confirmed() is None for one in sole)
    assert all(one.live == pytest.approx(one.predicted, rel=1e-3) for one in sole)  # it could not fail
    assert all(replace(one, part=0.5).confirmed() for one in sole)


def test_edges_are_confirmed_more_often_than_others_in_their_place_and_shuffled_ones_are_not() -> None:
    found = graph()
    right, n = found.confirmed()
    other, m = found.confirmed(edges=found.controls)
    sole = [one for one in found.edges if one.part > 0.99]
    assert n == len(found.edges) - len(sole) and right / n > 2 * other / m
    order = np.random.default_rng(0).permutation(len(found.edges))
    shuffled = tuple(
        replace(one, predicted=found.edges[at].predicted) for one, at in zip(found.edges, order, strict=True)
    )
    wrong = replace(found, edges=shuffled)
    assert wrong.confirmed()[0] / n < 0.5 * right / n
    assert wrong.verdict().startswith("Not shown") and not found.verdict().startswith("Not shown")
    assert wrong.trust is None and wrong.number("trust").value is None
    assert found.joint is not None and 0 <= found.joint.chance < found.joint.reached
    assert found.trust == pytest.approx(found.joint.reached - found.joint.chance)


def walked(found: AttributionGraph) -> float:
    """What arrives at tokens, path by drawn path."""
    kinds = {one.name: one.kind for one in found.nodes}

    def back(name: str) -> float:
        if kinds[name] == "embed":
            return 1.0
        return sum(one.part * back(one.source) for one in found.edges if one.target == name)

    return sum(one.influence * back(one.name) for one in found.outputs)


def test_what_is_drawn_are_whole_paths_and_more_of_them_carry_more() -> None:
    parts = [mediation.attribution_graph(model(), WORDS, neurons=8, edges=n) for n in (10, 40, 100)]
    for one in parts:
        kinds = {node.name: node.kind for node in one.nodes}
        read, written = {e.target for e in one.edges}, {e.source for e in one.edges}
        assert all(kind in ("embed", "output") or {name} <= read & written for name, kind in kinds.items())
    shares = [one.carried for one in parts]
    assert shares == sorted(shares) and 0 < shares[0] < shares[1] < shares[2] < parts[2].ends["embed"]
    assert shares == pytest.approx([walked(one) for one in parts])
    assert "drawn edges alone carry" in parts[0].verdict()


def test_heads_and_neurons_that_do_little_are_one_node() -> None:
    fine, coarse = graph(), mediation.attribution_graph(model(), WORDS, neurons=8, alone=10.0)
    assert {one.kind for one in coarse.nodes} <= {"embed", "heads", "rest", "output"}
    assert coarse.carried > fine.carried
    each = mediation.attribution_graph(model(), WORDS, neurons=8, alone=0.0, edges=300, nodes=200)
    assert {"head", "neuron"} <= {one.kind for one in each.nodes}
    assert not [one.name for one in each.nodes if one.kind == "heads"]


def test_there_is_no_trust_without_a_control_or_with_a_suspect_dictionary() -> None:
    found = graph()
    assert found.trust is not None
    bare = replace(found, controls=())
    assert bare.trust is None and "there is no control" in bare.verdict()
    without = replace(found, edges=tuple(one for one in found.edges if "embed" not in one.source))
    assert without.carried == 0.0 and without.trust is None
    assert without.verdict().startswith("Not shown") and "No drawn path leads" in without.verdict()
    assert isinstance(carried([one for one in found.nodes if one.kind == "output"], ()), float)
    given = model().with_dictionaries(transcoder())
    other = mediation.attribution_graph(given, WORDS, neurons=8, keep=0.95, edges=200)
    assert other.suspect == ("transcoder",) and "SUSPECT" in other.warnings[-1]
    assert other.trust is None and "says SUSPECT" in other.verdict()
    assert replace(other, suspect=()).trust is not None  # nothing else speaks against it


def test_shares_are_rounded_to_none_and_all_only_where_they_are_that() -> None:
    assert [percent(one) for one in (0.0, 0.004, 0.3, 0.996, 1.0)] == [
        "0%",
        "under 1%",
        "30%",
        "over 99%",
        "100%",
    ]


def test_a_source_that_the_other_prompt_leaves_as_it_is_is_not_tested() -> None:
    found = mediation.attribution_graph(model(), WORDS, instead="w05 w06 w07 w10 w09", neurons=8)
    kept = [one for one in found.edges if one.source in ("embed@0", "embed@1", "embed@2", "embed@4")]
    moved = [one for one in found.edges if one.source == "embed@3"]
    assert kept and all(one.confirmed() is None and one.live == pytest.approx(0, abs=1e-5) for one in kept)
    assert moved and all(one.confirmed() is not None for one in moved)
    same = replace(found, edges=tuple(kept))
    assert same.trust is None and "writes the same in the other prompt" in same.verdict()


def test_wrong_calls_say_what_is_wrong() -> None:
    with pytest.raises(DataError, match="has 5 tokens and the one instead of it 2"):
        mediation.attribution_graph(model(), WORDS, instead="w05 w06")
    with pytest.raises(ConfigError, match="give the answer too"):
        mediation.attribution_graph(model(), WORDS, foil="w05")
    with pytest.raises(ConfigError, match="one token to this model"):
        mediation.attribution_graph(model(), WORDS, answer="w05", foil="w05")
    with pytest.raises(ConfigError, match="edges=0"):
        mediation.attribution_graph(model(), WORDS, edges=0)
    with pytest.raises(DataError, match="is the prompt itself"):
        mediation.attribution_graph(model(), WORDS, instead=WORDS)
    size = model().vocab_size
    asked: dict[str, Any]
    for asked in ({"answer": size}, {"answer": -1}, {"answer": 5, "foil": 10**6}):
        with pytest.raises(ConfigError, match=f"has tokens 0..{size - 1}"):
            mediation.attribution_graph(model(), WORDS, **asked)
    with pytest.raises(ConfigError, match="alone=-1"):
        mediation.attribution_graph(model(), WORDS, alone=-1.0)


def test_the_fewest_nodes_and_edges_still_make_a_whole_path() -> None:
    few: dict[str, Any]
    for few in ({"followed": 1, "nodes": 1}, {"nodes": 1, "edges": 1, "followed": 2}):
        found = mediation.attribution_graph(model(), WORDS, neurons=8, **few)
        assert 0 < len(found.edges) <= few.get("edges", 99)
        assert all(one.source.startswith("embed@") for one in found.edges)
        assert all(one.target.startswith("output.") for one in found.edges)


def test_a_graph_is_saved_and_without_text_says_nothing_of_the_prompt(tmp_path: Path) -> None:
    found = graph()
    found.save(tmp_path / "kept")
    again = load(tmp_path / "kept")
    assert isinstance(again, AttributionGraph)
    assert again.nodes == found.nodes and again.edges == found.edges
    found.save(tmp_path / "bare", text=False)
    bare = load(tmp_path / "bare")
    assert isinstance(bare, AttributionGraph) and bare.trust == found.trust and len(bare.figures()) == 1
    held = b"".join(one.read_bytes() for one in (tmp_path / "bare").rglob("*") if one.is_file())
    assert not [word for word in WORDS.split() if word.encode() in held]
    assert not [word for word in WORDS.split() if word in render(bare)]


def test_neuronpedia_json_goes_out_and_comes_back(tmp_path: Path) -> None:
    found, file = graph(), tmp_path / "graph.json"
    content = to_neuronpedia(found)
    file.write_text(json.dumps(content))
    again = from_neuronpedia(file, model())
    assert again.nodes == found.nodes and again.edges == found.edges and again.verdict() == found.verdict()
    ids = [one["node_id"] for one in content["nodes"]]
    assert len(set(ids)) == len(ids)
    assert all(link["source"] in ids and link["target"] in ids for link in content["links"])
    with pytest.raises(DataError, match="Load the model that it was made of"):
        from_neuronpedia(file, model("gpt2"))
    del content["metadata"]["interp"]  # as another program writes it
    file.write_text(json.dumps(content))
    other = from_neuronpedia(file, model())
    assert [one.name for one in other.nodes] == [one.name for one in found.nodes]
    assert {(e.source, e.target, e.weight) for e in other.edges} == {
        (e.source, e.target, e.weight) for e in found.edges
    }
    assert other.trust is None and "none tested" in other.verdict()
    assert "kept" not in other.lead()[0] and len(other.lead()) == 1 and other.number("kept").value is None
    assert "Nothing was run or tested here" in other.lead()[0] and other.warnings == ()
    content["nodes"][0]["node_id"] = "E_63_0"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="of another model"):
        from_neuronpedia(file, model())
    file.write_text("[]")
    with pytest.raises(ArtifactError, match="is no attribution graph"):
        from_neuronpedia(file, model())


def circuit_tracer(tmp_path: Path, change: Any = None) -> Path:
    """A file as circuit-tracer writes it: influence is a running sum, logits have none."""
    sums = {"0_7_2": 0.5, "1_8_2": 0.7, "2_9_2": 0.79, "E_7_2": 0.8, "E_5_0": 0.99, "4_9_2": None}
    kinds = ["cross layer transcoder"] * 3 + ["embedding"] * 2 + ["logit"]
    nodes = [
        {
            "node_id": name,
            "layer": name[0],
            "ctx_idx": int(name[-1]),
            "feature_type": kind,
            "influence": total,
        }
        for (name, total), kind in zip(sums.items(), kinds, strict=True)
    ]
    links = [{"source": "0_7_2", "target": "4_9_2", "weight": 1.0}]
    meta = {"scan": "tiny", "prompt": "w05 w06 w07", "prompt_tokens": ["a", "b", "c"], "node_threshold": 0.8}
    content: dict[str, Any] = {"metadata": meta, "qParams": {}, "nodes": nodes, "links": links}
    ids = model().tokenize(["w05 w06 w07"]).token_ids[0]
    for node in nodes[3:5]:
        node["node_id"] = f"E_{ids[node['ctx_idx']]}_{node['ctx_idx']}"
    if change is not None:
        change(content)
    file = tmp_path / "other.json"
    file.write_text(json.dumps(content))
    return file


def test_influence_of_another_programs_file_is_the_step_of_its_running_sum(tmp_path: Path) -> None:
    found = from_neuronpedia(circuit_tracer(tmp_path), model())
    shares = [one.influence for one in found.nodes]
    assert shares == pytest.approx(
        [0.5, 0.2, 0.09, 0.01, 0.01, 0.0]
    )  # the last token: no more than before it
    assert list(found.table("nodes")["node"])[:2] == ["feature.0.7@2", "feature.1.8@2"]
    written = to_neuronpedia(graph())
    sums = [one["influence"] for one in written["nodes"] if one["feature_type"] != "logit"]
    first = max(graph().nodes, key=lambda one: one.influence if one.kind != "output" else 0)
    by_id = dict(zip([one.name for one in graph().nodes], written["nodes"], strict=True))
    assert by_id[first.name]["influence"] == min(sums) and max(sums) == pytest.approx(graph().kept)
    assert all(one["influence"] is None for one in written["nodes"] if one["feature_type"] == "logit")


def test_another_programs_graph_names_its_own_model(tmp_path: Path) -> None:
    def named(content: dict[str, Any]) -> None:
        content["metadata"]["scan"] = "gemma-2-2b"

    found = from_neuronpedia(circuit_tracer(tmp_path, named), model())
    assert found.about.model_name == "gemma-2-2b" and "'gemma-2-2b'" in found.lead()[0]
    assert "names 'gemma-2-2b' as its model" in found.warnings[0]
    assert "interp" not in to_neuronpedia(found)["metadata"]


@pytest.mark.parametrize(
    ("key", "row", "message"),
    [
        ("nodes", {"ctx_idx": 99}, "stands at token 99"),
        ("nodes", {"influence": float("nan")}, "has influence nan"),
        ("nodes", {"influence": 7.0}, "a running sum between 0 and 1"),
        ("nodes", {"activation": float("inf")}, "has activation inf"),
        ("nodes", {"node_id": "1_8_2"}, "has the node '1_8_2' twice"),
        ("nodes", {"node_id": "x"}, "is no attribution graph"),
        ("links", {"weight": float("nan")}, "has weight nan"),
    ],
)
def test_a_file_with_what_cannot_be_is_refused(
    tmp_path: Path, key: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InterpError, match=message):
        from_neuronpedia(circuit_tracer(tmp_path, lambda content: content[key][0].update(row)), model())


def test_a_link_to_no_node_is_left_out_aloud(tmp_path: Path) -> None:
    file = circuit_tracer(tmp_path, lambda content: content["links"][0].update(source="nope"))
    found = from_neuronpedia(file, model())
    assert found.edges == () and "1 link of" in found.warnings[0]


def test_a_file_that_was_changed_beside_its_tests_is_refused(tmp_path: Path) -> None:
    written, file = to_neuronpedia(graph()), tmp_path / "graph.json"
    labelled = json.loads(json.dumps(written))
    labelled["nodes"][0]["clerp"] = "my label"
    file.write_text(json.dumps(labelled))
    assert from_neuronpedia(file, model()).edges == graph().edges
    for key in ("nodes", "links"):
        for change in (lambda rows: rows.pop(), lambda rows: rows[0].update(weight=9.0, activation=9.0)):
            changed = json.loads(json.dumps(written))
            change(changed[key])
            file.write_text(json.dumps(changed))
            with pytest.raises(DataError, match="were changed"):
                from_neuronpedia(file, model())


def test_the_page_stands_alone_and_escapes_what_it_shows() -> None:
    found = graph()
    evil = '</script><img src=x onerror="alert(1)">'
    page = render(replace(found, prompt=evil, tokens=(evil, *found.tokens[1:])))
    assert "<img" not in page and "&lt;img src=x" in page
    assert page.count("<script>") == 1 and "default-src &#39;none&#39;" in page
    assert "http://" not in page and "https://" not in page
    assert page.count('class="card"') == len(found.nodes) and page.count('class="edge ') == len(found.edges)
