"""Selections against all subsets of small graphs, hand-made numbers and planted circuits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import mediation
from interp.errors import ConfigError
from interp.mediation import SELECTIONS, Edge, Effects, Graph, choose, ensemble
from interp.mediation.circuits import selection
from interp.mediation.edges.graph import on_a_path
from interp.mediation.rankings import sign_stability
from tests.interp.mediation.edges.models import made, pairs_of
from tests.planted_heads import planted

SHAPES = ((1, 1, 1, "sequential"), (1, 2, 1, "sequential"), (2, 1, 1, "sequential"), (1, 2, 2, "parallel"))


EDGES = [Edge.parse(f"embed->mlp.{at}") for at in range(2)]


def effects_of(edges: Any, values: np.ndarray, groups: tuple[str, ...] = ("a",)) -> Effects:
    """Effects of these numbers ``[mediator pair]``; a total effect of one."""
    n = values.shape[1]
    return Effects(
        mediators=tuple(edges),
        values={"noising": values},
        clean=np.ones(n),
        corrupt=np.zeros(n),
        groups=groups if len(groups) == n else tuple(map(str, range(n))),
        search="made",
        metric="logit-diff",
        unit="logits",
        replacement="interchange",
        noise=0.0,
    )


def best_of_all(graph: Graph, edges: list[Edge], scores: np.ndarray, k: int) -> float:
    """The largest sum over all subsets of at most k edges of which each lies on a path.

    A subset is fed from the embedding and read by the logits; both are worked out for all subsets at once.
    """
    subsets = (np.arange(2 ** len(edges))[:, None] >> np.arange(len(edges)) & 1).astype(bool)
    order = [edges.index(edge) for edge in sorted(edges)]

    def feeds(edge: Edge, writer: Any) -> bool:
        reader = edge.reader
        if reader.kind == "mlp":
            return str(writer) == f"mlp_out.{reader.layer}"
        if reader.layer != writer.layer or writer.kind != "head":
            return False
        heads = sum(one.kind == "head" and one.layer == writer.layer for one in graph.writers)
        groups = sum(one.kind == reader.kind and one.layer == reader.layer for one in graph.readers)
        return writer.index // (heads // groups) == reader.index

    fed = {one: np.full(len(subsets), str(one) == "embed") for one in graph.writers}
    for at in order:
        for writer in graph.writers:
            if feeds(edges[at], writer):
                fed[writer] = fed[writer] | (subsets[:, at] & fed[edges[at].writer])
    used = {one: np.zeros(len(subsets), bool) for one in graph.writers}
    reached = np.zeros(subsets.shape, bool)
    for at in reversed(order):
        into = [writer for writer in graph.writers if feeds(edges[at], writer)]
        read = np.logical_or.reduce([used[one] for one in into]) if into else np.ones(len(subsets), bool)
        reached[:, at] = read & fed[edges[at].writer]
        used[edges[at].writer] = used[edges[at].writer] | (subsets[:, at] & read)
    sound = (~subsets | reached).all(axis=1) & (subsets.sum(axis=1) <= k)
    return float((subsets[sound] @ np.abs(scores)).max())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_integer_programming_is_the_best_of_all_subsets(data: st.DataObject) -> None:
    layers, heads, groups, blocks = data.draw(st.sampled_from(SHAPES))
    graph = Graph.sized(layers, heads, groups, blocks=blocks)
    seed = data.draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    every = list(graph.edges)
    edges = sorted(every[at] for at in rng.permutation(len(every))[: data.draw(st.integers(3, 12))])
    scores = rng.normal(size=len(edges))
    k = data.draw(st.integers(0, len(edges)))
    found = selection._ilp(selection.Candidates(effects_of(edges, scores[:, None]), scores, k, graph))
    chosen = [edges[at] for at in found]
    assert len(chosen) <= k and on_a_path(graph, chosen) == frozenset(chosen)
    assert np.abs(scores[found]).sum() == pytest.approx(best_of_all(graph, edges, scores, k), abs=1e-6)


def test_integer_programming_on_a_graph_of_eighteen_edges() -> None:
    graph = Graph.sized(2, 1, 1)
    rng = np.random.default_rng(0)
    edges = sorted(graph.edges[at] for at in rng.permutation(graph.n_edges)[:18])
    scores = rng.normal(size=18)
    lost = []
    for k in (3, 4, 6, 8):
        asked = selection.Candidates(effects_of(edges, scores[:, None]), scores, k, graph)
        best = best_of_all(graph, edges, scores, k)
        assert np.abs(scores[selection._ilp(asked)]).sum() == pytest.approx(best, abs=1e-6)
        kept = on_a_path(graph, [edges[at] for at in selection._greedy(asked)])
        lost.append(best - sum(abs(scores[edges.index(edge)]) for edge in kept))
    assert min(lost) >= -1e-6 and max(lost) > 0.1  # a greedy circuit is at most as good, and here is worse


@pytest.mark.parametrize("by", ["top", "greedy", "ilp"])
def test_the_planted_edges_are_selected_of_exact_effects(by: str) -> None:
    truth = planted("composition")
    exact = mediation.exhaustive(truth.model, truth.pairs, "edge.*", directions="noising")
    assert {str(edge) for edge in choose(truth.model, exact, len(truth.edges), by)} == set(truth.edges)


def test_signs_that_change_with_the_draw_are_left_out() -> None:
    rng = np.random.default_rng(0)
    steady = rng.normal(0.5, 0.1, (3, 40))
    shaky = rng.normal(0.0, 1.0, (3, 40))
    shaky[0] += 1.0 - shaky[0].mean() + 0.02
    values = np.concatenate([shaky - shaky.mean(axis=1, keepdims=True) + 0.01, steady])
    model = made("gpt2")
    found = effects_of(mediation.mediators_of(model, pairs_of(model), "head.*", positions="all")[:6], values)
    share = sign_stability(found)
    assert share[3:].min() == 1.0 and share[:3].max() < 0.8
    scaled = replace(found, values={"noising": values * np.array([[100.0]] * 3 + [[1.0]] * 3)})
    assert set(choose(model, scaled, 6, "stable")) == set(found.mediators[3:])
    again = np.random.default_rng(0).choice(40, size=(2000, 40))
    wanted = (np.sign(values[0][again].mean(axis=1)) == np.sign(values[0].mean())).mean()
    assert share[0] == pytest.approx(wanted, abs=0.06)


def test_ratio_and_sign() -> None:
    model = made("gpt2")
    members = mediation.mediators_of(model, pairs_of(model), "head.*", positions="all")[:8]
    found = effects_of(members, np.array([[5.0], [-4.0], [3.0], [-2.5], [2.0], [1.0], [-0.5], [0.25]]))

    def numbers(by: str, k: int) -> list[int]:
        return [members.index(one) for one in choose(model, found, k, by)]  # type: ignore[arg-type]

    assert numbers("top", 4) == [0, 1, 2, 3]
    assert numbers("signed", 4) == [0, 2, 4, 5]
    assert numbers("ratio", 5) == [0, 2, 4, 5, 1]
    assert numbers("ratio", 8) == [0, 2, 4, 5, 7, 1, 3, 6]
    assert [len(numbers(by, 0)) for by in ("top", "signed", "ratio")] == [0, 0, 0]


def test_an_ensemble_has_the_order_of_mean_ranks_whatever_the_scales() -> None:
    model = made("gpt2")
    members = mediation.mediators_of(model, pairs_of(model), "head.*", positions="all")[:4]
    first = effects_of(members, np.array([[4.0], [-3.0], [2.0], [1.0]]))
    second = effects_of(members, np.array([[0.1], [0.4], [-0.3], [0.2]]))
    # ranks 1 2 3 4 and 4 1 2 3
    assert [members.index(one) for one in ensemble([first, second])] == [1, 0, 2, 3]
    stretched = replace(second, values={"noising": 50 * second.values["noising"] ** 3})
    assert ensemble([first, stretched]) == ensemble([first, second])
    assert ensemble([first, first]) == first.top(4)
    with pytest.raises(ConfigError, match="of other mediators"):
        ensemble([first, effects_of(members[:2], np.ones((2, 1)))])
    with pytest.raises(ConfigError, match="no effects"):
        ensemble([])


def test_what_there_is_not_is_refused() -> None:
    model = made("gpt2")
    found = effects_of(
        mediation.mediators_of(model, pairs_of(model), "mlp_out.*", positions="all"), np.ones((3, 1))
    )
    with pytest.raises(ConfigError, match="selection 'best' asked; there are: top, signed"):
        choose(model, found, 1, "best")
    for by in [name for name, row in SELECTIONS.items() if row.connected]:
        with pytest.raises(ConfigError, match="asked of nodes; it chooses edges"):
            choose(model, found, 1, by)
    with pytest.raises(ConfigError, match="k=-1 asked"):
        choose(model, found, -1)
    with pytest.raises(ConfigError, match="all pairs are of one group"):
        sign_stability(replace(found, groups=("a",)))


def test_signs_are_of_the_direction_asked() -> None:
    """One holds by noising only, one by denoising only; over both directions neither does."""
    rng = np.random.default_rng(0)
    sure, unsure = np.full(12, 1.0), 0.1 + rng.normal(size=12) * 4
    both = replace(
        effects_of(EDGES[:2], np.array([sure, unsure])),
        values={"noising": np.array([sure, unsure]), "denoising": np.array([unsure, sure])},
    )
    for direction, at in (("noising", 0), ("denoising", 1)):
        alone = replace(both, values={direction: both.values[direction]})
        assert np.array_equal(sign_stability(both, direction=direction), sign_stability(alone))
        found = choose(made("gpt2"), both, 2, "stable", direction=direction)
        assert found == choose(made("gpt2"), alone, 2, "stable") == (both.mediators[at],)
    assert len(choose(made("gpt2"), both, 2, "stable")) == 0
