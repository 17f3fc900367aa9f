"""MIB's circuit track: its JSON, read and written, and its areas against plain arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp import mediation
from interp.errors import ConfigError, DataError
from interp.mediation import Graph, MIBCircuit
from interp.mediation.circuits import FRACTIONS
from interp.mediation.edges.engine import carriers_of
from interp.mediation.edges.graph import on_a_path
from interp.mediation.searches import PositionAttribution
from interp.sites import Site
from tests.interp.mediation.test_circuits import made, pairs_of
from tests.planted_heads import PLANTED


def random_circuit(family: str, seed: int = 0) -> tuple[Any, MIBCircuit]:
    model = made(family)
    graph, rng = Graph.of(model), np.random.default_rng(seed)
    edges = [edge for edge in graph.edges if rng.random() < 0.3]
    scores = {edge: float(rng.normal()) for edge in graph.edges}
    return model, MIBCircuit.of_edges(model, edges, scores)


def names(n_layers: int, n_heads: int, blocks: str = "sequential") -> tuple[list[str], list[str]]:
    """Every node and edge of MIB's graph, written down from its rules alone."""
    before, nodes, edges = ["input"], ["input"], []
    for layer in range(n_layers):
        heads = [f"a{layer}.h{head}" for head in range(n_heads)]
        edges += [f"{one}->{head}<{part}>" for one in before for head in heads for part in "qkv"]
        after = before + heads
        edges += [f"{one}->m{layer}" for one in (before if blocks == "parallel" else after)]
        before, nodes = [*after, f"m{layer}"], [*nodes, *heads, f"m{layer}"]
    return [*nodes, "logits"], [*edges, *(f"{one}->logits" for one in before)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_a_file_has_every_name_of_the_layout_and_comes_back_the_same(family: str, tmp_path: Path) -> None:
    model, circuit = random_circuit(family)
    content = json.loads(circuit.save(tmp_path / "c.json", model).read_text())
    blocks = "parallel" if family == "gpt_neox" else "sequential"
    nodes, edges = names(3, 4, blocks)
    assert sorted(content["nodes"]) == sorted(nodes)
    assert sorted(content["edges"]) == sorted(edges)
    assert content["cfg"] == {
        "n_layers": 3, "n_heads": 4, "parallel_attn_mlp": blocks == "parallel", "d_model": 32
    }  # fmt: skip
    again = MIBCircuit.load(tmp_path / "c.json", model)
    assert again.edges == circuit.edges
    assert again.nodes == circuit.nodes
    assert again.edge_scores == pytest.approx(circuit.edge_scores)
    assert not again.node_scores


def test_the_copies_of_a_group_share_its_score_and_its_place(tmp_path: Path) -> None:
    model, circuit = random_circuit("llama")  # 4 heads, 2 groups
    content = json.loads(circuit.save(tmp_path / "c.json", model).read_text())["edges"]
    edge = Graph.of(model).select("head.0.3->v.2.1")[0]
    copies = [content[f"a0.h3->a2.h{head}<v>"] for head in (2, 3)]
    assert sum(one["score"] for one in copies) == pytest.approx(circuit.edge_scores[edge])
    assert {one["in_graph"] for one in copies} == {edge in circuit.edges}
    assert content["a0.h3->a2.h1<v>"]["score"] != copies[0]["score"]


def test_shared_keys_that_only_one_head_has_in_are_refused_or_decided(tmp_path: Path) -> None:
    model, circuit = random_circuit("llama")
    path = circuit.save(tmp_path / "c.json", model)
    content = json.loads(path.read_text())
    for head, inside in ((0, True), (1, False)):
        content["edges"][f"input->a1.h{head}<k>"]["in_graph"] = inside
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"input->a1\.h0<k>.*share what they read.*copies="):
        MIBCircuit.load(path, model)
    [edge] = Graph.of(model).select("embed->k.1.0")
    assert edge in MIBCircuit.load(path, model, copies="any").edges
    assert edge not in MIBCircuit.load(path, model, copies="all").edges
    with pytest.raises(ConfigError, match="copies='some' asked"):
        MIBCircuit.load(path, model, copies="some")


def broken(change: Any, path: Path) -> tuple[Any, Path]:
    model, circuit = random_circuit("gpt2")
    content = json.loads(circuit.save(path, model).read_text())
    change(content)
    path.write_text(json.dumps(content))
    return model, path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["cfg"].update(n_layers=12), "another model: its n_layers is 12, that of .* is 3"),
        (lambda c: c["cfg"].update(parallel_attn_mlp=True), "its parallel_attn_mlp is True"),
        (lambda c: c["nodes"].pop("a1.h2"), "no entry 'a1.h2'"),
        (lambda c: c["edges"].pop("m0->m1"), "no entry 'm0->m1'"),
        (lambda c: c["edges"].update({"m2->m1": {"score": 1.0, "in_graph": True}}), "'m2->m1', which this"),
        (lambda c: c["edges"]["m0->m1"].update(score="high"), "the score 'high', which is no number"),
        (lambda c: c["nodes"]["m0"].update(neurons=[True] * 5), "'m0' 5 neurons, .* add 32"),
        (lambda c: c.pop("edges"), "lacks one of cfg, nodes, edges"),
    ],
)
def test_a_file_for_another_model_is_refused_with_the_reason(
    change: Any, reason: str, tmp_path: Path
) -> None:
    model, path = broken(change, tmp_path / "c.json")
    with pytest.raises(DataError, match=reason):
        MIBCircuit.load(path, model)


def test_pickles_and_models_without_heads_in_the_stream_are_refused(tmp_path: Path) -> None:
    model, circuit = random_circuit("gpt2")
    with pytest.raises(DataError, match="is a pickle"):
        MIBCircuit.load(tmp_path / "c.pt", model)
    with pytest.raises(DataError, match="cannot be read"):
        MIBCircuit.load(tmp_path / "none.json", model)
    with pytest.raises(DataError, match="norm after attention"):
        circuit.save(tmp_path / "c.json", made("gemma2"))


def test_nodes_and_neurons_come_back_and_count_as_mib_counts_them(tmp_path: Path) -> None:
    model = made("gpt2")
    scores = {Site("head", 1, 2): 0.5, Site("mlp_out", 0): -0.25, Site("embed"): 2.0}
    plain = MIBCircuit.of_nodes(model, [*scores], scores)
    inside = tuple(at % 4 == 0 for at in range(32))
    kept = tuple(float(at) for at in range(32))
    circuit = MIBCircuit(
        plain.edges, plain.nodes, {}, scores, {Site("mlp_out", 0): inside}, {Site("mlp_out", 0): kept}
    )
    again = MIBCircuit.load(circuit.save(tmp_path / "c.json", model), model)
    assert again.nodes == plain.nodes
    assert again.edges == plain.edges
    assert {site: value for site, value in again.node_scores.items() if value == value} == scores
    assert again.neurons[Site("mlp_out", 0)] == inside
    assert again.neuron_scores[Site("mlp_out", 0)] == kept
    # embed, m0 and a1.h2 in the graph: every edge between them and to the logits, a quarter of m0's
    assert {str(edge) for edge in again.edges} == {
        *(f"{one}->{to}" for one in ("embed", "mlp_out.0") for to in ("q.1.2", "k.1.2", "v.1.2", "logits")),
        "embed->mlp.0",
        "head.1.2->logits",
    }
    assert again.weighted_edges == pytest.approx(6 + 4 / 4)
    assert plain.weighted_edges == 10
    assert plain.ranked == ("embed", "head.1.2", "mlp_out.0")


def test_nodes_in_the_graph_are_those_on_a_path() -> None:
    model = made("gpt2")
    edges = Graph.of(model).select(["embed->v.0.1", "head.0.1->logits", "head.1.1->mlp.2"])
    assert [str(one) for one in MIBCircuit.of_edges(model, edges).nodes] == ["embed", "head.0.1"]
    assert len(on_a_path(Graph.of(model), edges)) == 2


def mib_areas(faithfulness: list[float]) -> tuple[float, float]:
    """CPR and CMD as section C of the paper and its code add them up, in plain Python."""
    under = away = 0.0
    for at in range(len(faithfulness) - 1):
        width, first, second = FRACTIONS[at + 1] - FRACTIONS[at], faithfulness[at], faithfulness[at + 1]
        under += width * (first + second) / 2
        away += width * (abs(1 - first) + abs(1 - second)) / 2
    return under, away


def test_the_areas_are_mibs_arithmetic_on_the_same_scores() -> None:
    found = PLANTED["induction"]()
    score, circuit = mediation.mib_score(found.model, found.pairs[:6], found.pairs[6:], search="exhaustive")
    graph = Graph.of(found.model)
    assert set(circuit.edge_scores) == set(graph.edges)
    rest = found.pairs[6:]
    clean, corrupt = (found.model.logits(one) for one in (rest.clean, rest.corrupt))
    carriers = carriers_of(graph.writers)
    read = found.model.capture(rest.corrupt, [str(site) for site in carriers], "all")
    other = {site: read[str(site)] for site in carriers}
    none, whole = (float(_difference(logits, rest).mean()) for logits in (corrupt, clean))
    values = list(circuit.edge_scores.items())
    for name, got in (("signed", score.signed), ("absolute", score.absolute)):
        ranked = sorted(values, key=lambda row: -(row[1] if name == "signed" else abs(row[1])))
        circuits = [[edge for edge, _ in ranked[: int(fraction * len(values))]] for fraction in FRACTIONS]
        logits = mediation.edge_logits(found.model, rest.clean, other, circuits)
        kept = [float(_difference(one, rest).mean()) for one in logits]
        shares = [(value - none) / (whole - none) for value in kept]
        assert got.faithfulness.tolist() == pytest.approx(shares, abs=1e-4)
        under, away = mib_areas(got.faithfulness.tolist())
        assert score.number("cpr" if name == "signed" else "cmd").value == pytest.approx(
            under if name == "signed" else away
        )


def _difference(logits: Any, pairs: Any) -> Any:
    rows = range(len(pairs))
    right, wrong = ([ids[0] for ids in one] for one in (pairs.answer_ids, pairs.foil_ids))
    return logits[rows, right] - logits[rows, wrong]


def test_a_planted_circuit_beats_a_random_order_and_chance_does_not() -> None:
    found = PLANTED["induction"]()
    score, _ = mediation.mib_score(found.model, found.pairs[:6], found.pairs[6:], search="exhaustive")
    assert score.verdict().endswith("CPR and CMD better than a random order (p 0.024).")
    edges = list(Graph.of(found.model).edges)
    rng = np.random.default_rng(2)
    noise = MIBCircuit.of_edges(found.model, [], {edge: float(rng.normal()) for edge in edges})
    chance, _ = mediation.mib_score(found.model, found.pairs[6:], scores=noise)
    assert "not told from a random order" in chance.verdict()
    assert chance.warnings == ("scored on the pairs that were searched",)


def test_random_scores_are_called_better_than_random_as_rarely_as_is_said() -> None:
    """On arrays: the areas of 300 random orders, each held to 40 others; and a perfect one."""
    found = PLANTED["copy"]()
    score, _ = mediation.mib_score(found.model, found.pairs, random_orders=2)
    rng = np.random.default_rng(0)
    shape, x = (len(score.signed.sizes), len(score.signed.groups)), score.signed.axis
    start, end = score.signed.ends

    def drawn(height: float) -> tuple[np.ndarray, np.ndarray]:
        """Faithfulness by size, whose rise is where chance says, and that of pairs, nearly the same."""
        shares = np.where(x >= 1, 1.0, np.clip(height * np.arange(1, shape[0] + 1) / shape[0], 0, 1))
        return shares, start + (end - start) * (shares[:, None] + 0.01 * rng.normal(size=shape))

    def told(height: float) -> bool:
        shares, runs = drawn(height)
        draws = np.stack([drawn(rng.random())[0] for _ in range(40)])
        lucky = replace(score.signed, faithfulness=draws.mean(axis=0))
        one = replace(score.signed, faithfulness=shares, runs=runs, control=lucky, draws=draws)
        return bool(replace(score, signed=one, absolute=one).better)

    false = np.mean([told(rng.random()) for _ in range(100)])
    assert false <= 0.1  # one order in 41 is best
    assert told(1.5)


@pytest.mark.parametrize("search", ["peap", PositionAttribution(spans=(("end", "last"),))])
def test_a_search_of_parts_by_position_is_refused_before_it_runs(search: Any) -> None:
    with pytest.raises(ConfigError, match=r"'peap' scores edges by position.*Use one of: exhaustive"):
        mediation.mib_score(made("gpt2"), pairs_of(made("gpt2")), search=search)
    with pytest.raises(ConfigError, match="random_orders=0 asked"):
        mediation.mib_score(made("gpt2"), pairs_of(made("gpt2")), random_orders=0)


def test_what_the_score_refuses() -> None:
    model = made("gpt2")
    pairs = pairs_of(model)
    with pytest.raises(ConfigError, match="level 'neurons' asked; there are: edges, nodes"):
        mediation.mib_score(model, pairs, level="neurons")
    with pytest.raises(DataError, match="no scores"):
        mediation.mib_score(model, pairs, scores=MIBCircuit.of_edges(model, []))
    nodes = MIBCircuit.of_nodes(model, ["embed"], {Site("embed"): 1.0})
    with pytest.raises(DataError, match="scores no edges"):
        mediation.mib_score(model, pairs, scores=nodes)
    with pytest.raises(ConfigError, match=r"resid_post\.0@0 was scored"):
        MIBCircuit.of_effects(mediation.attribution(model, pairs, "resid_post.*", verify=0), model)
