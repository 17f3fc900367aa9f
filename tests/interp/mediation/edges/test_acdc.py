"""ACDC against one edge at a time by whole circuit runs, and on planted circuits."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import ConfigError
from interp.mediation import ACDC, Effects, Graph, edge_logits, experiment_of, plan
from interp.mediation.searches import effects
from interp.models.model import Model
from interp.pairs import PairSet
from tests.interp.mediation.edges.models import made, pairs_of, values_of
from tests.planted_heads import planted


def circuit(told: Effects, direction: str) -> set[str]:
    return {str(edge) for edge, row in zip(told.mediators, told.values[direction], strict=True) if row.any()}


def one_by_one(model: Model, pairs: PairSet, asked: list[str], share: float) -> set[str]:
    """Take edges out of the clean run in the order of the paper, each by a run of its own."""
    graph = Graph.of(model)
    edges = list(graph.select(asked))
    others = [edge for edge in graph.edges if edge not in edges]
    carried = values_of(model, pairs.corrupt, graph.writers)

    def metric(kept: list[object]) -> np.ndarray:
        logits = edge_logits(model, pairs.clean, carried, [[*others, *kept]])[0]  # type: ignore[list-item]
        rows = range(len(pairs))
        return np.array(
            [float(logits[at, pairs.answer_ids[at][0]] - logits[at, pairs.foil_ids[at][0]]) for at in rows]
        )

    intact = metric(edges)
    total = effects(model, pairs, ["edge.embed->logits"]).total.mean()
    kept, now = list(edges), 0.0
    for edge in sorted(edges, reverse=True):
        left = [one for one in kept if one != edge]
        away = float(np.abs(metric(left) - intact).mean())
        if away - now < share * abs(total):
            kept, now = left, away
    return {str(edge) for edge in kept}


ASKED = ["edge.head.1.*->logits", "edge.mlp_out.*->logits", "edge.embed->*.2.*"]


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_edges_go_as_they_go_one_by_one(share: float) -> None:
    model = made("llama")
    pairs = pairs_of(model)[[0, 1]]
    told = effects(model, pairs, ASKED, search=ACDC(threshold=share), directions="noising")
    wanted = one_by_one(model, pairs, ASKED, share)
    assert circuit(told, "noising") == wanted
    assert 0 < len(wanted) < len(told.mediators)
    assert told.cost["noising"]["kept"] == len(wanted)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_what_is_left_is_what_the_exact_run_of_the_circuit_gives(direction: str) -> None:
    """The distance that is told is that of the circuit itself; the effects of kept edges are not nothing."""
    model = made("gpt2")
    asked = experiment_of(model, pairs_of(model)[[0, 1]], "edge.*", directions=direction)
    told = ACDC(threshold=0.2)(asked)
    kept = circuit(told, direction)
    members = {str(edge): edge for edge in asked.mediators}
    inside = [edge for name, edge in members.items() if name in kept]
    outside = [edge for name, edge in members.items() if name not in kept]
    whole = asked.clean if direction == "noising" else asked.replaced([asked.mediators], direction).values[0]
    found = asked.replaced([outside if direction == "noising" else inside], direction).values[0]
    away = np.abs(found - whole).mean() / (0.2 * abs(told.total.mean()))
    assert told.cost[direction]["thresholds_away"] == pytest.approx(away, abs=2e-3)
    assert 0 < len(kept) < len(members)


@pytest.mark.parametrize("name", ["copy", "induction", "composition"])
def test_the_planted_edges_are_what_is_left(name: str) -> None:
    """By noising; at 5% of the effect also without what reaches the copying model's logits by the norm."""
    truth = planted(name)
    told = effects(truth.model, truth.pairs, "edge.*", search=ACDC(threshold=0.05), directions="noising")
    assert circuit(told, "noising") == set(truth.edges)
    share = np.abs(told.mean()) / told.total.mean()
    assert share[share > 0].min() > 0.9
    planned = plan(truth.model, truth.pairs, "edge.*", search="acdc", directions="noising")
    assert not planned.exact
    assert told.cost["noising"]["forwards"] <= planned.forwards  # what feeds nothing any more is not run


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_plan_is_about_what_a_dense_model_takes(family: str) -> None:
    """Of random weights much is kept, and what comes after a kept edge is tried again."""
    model = made(family)
    pairs = pairs_of(model)[[0, 1]]
    told = effects(model, pairs, "edge.*", search="acdc")
    planned = plan(model, pairs, "edge.*", search="acdc")
    ran = sum(told.cost[way]["forwards"] for way in told.directions)
    assert ran > 1.8 * planned.naive / model.n_layers  # far more than each edge once
    assert ran == pytest.approx(planned.forwards, rel=0.2)


def test_a_threshold_of_nothing_and_nodes_are_refused() -> None:
    model = made("gpt2")
    with pytest.raises(ConfigError, match=r"threshold=0\.0 asked"):
        ACDC(threshold=0.0)
    with pytest.raises(ConfigError, match="search 'acdc' ranks edges"):
        effects(model, pairs_of(model), "head.*", search="acdc")
