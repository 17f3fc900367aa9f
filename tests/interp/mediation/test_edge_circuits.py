"""Circuits of edges: by size as the MIB benchmark has it, pruned, saved, searched and evaluated."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from interp import mediation
from interp.errors import ConfigError
from interp.mediation import SEARCHES, Effects
from interp.mediation.circuits.curve import FRACTIONS, Curve, curve
from interp.mediation.edges.edge import Edge
from interp.mediation.edges.engine import edge_logits
from interp.mediation.edges.graph import Graph, on_a_path
from interp.mediation.searches import effects
from interp.results import load
from tests.interp.mediation.edges.models import made, pairs_of, values_of
from tests.interp.mediation.quick import quick
from tests.interp.mediation.test_circuits import pairs_of as told_pairs_of


def given(*faithfulness: float) -> Curve:
    """A curve over MIB's fractions of 1,000 edges."""
    sizes = tuple(round(1000 * fraction) for fraction in FRACTIONS)
    return Curve(
        sizes=sizes,
        faithfulness=np.array(faithfulness),
        total=1000,
        order=(Edge.parse("embed->logits"),),
        fractions=FRACTIONS,
    )


def test_areas_over_the_fractions_of_mib() -> None:
    """Section 7, oracle 13; the last one by hand: (0.002 - 0.001) / 2 + (0.005 - 0.002) / 2 = 0.002."""
    perfect, late = given(*[1.0] * 10), given(*[0.0] * 9, 1.0)
    assert (perfect.cpr, perfect.cmd) == (pytest.approx(0.999), pytest.approx(0))
    assert (late.cpr, late.cmd) == (pytest.approx(0.25), pytest.approx(0.749))
    assert given(0.0, 1.0, *[0.0] * 8).cpr == pytest.approx(0.002)
    beyond = given(*[1.5] * 10)  # a circuit may do more than the model: CPR rewards it, CMD does not
    assert (beyond.cpr, beyond.cmd) == (pytest.approx(1.4985), pytest.approx(0.4995))


def test_sizes_are_floors_of_the_fractions_and_their_faithfulness_that_of_runs() -> None:
    model = made("llama")
    pairs = told_pairs_of(model)
    graph = Graph.of(model)
    order = mediation.attribution(model, pairs, "edge.*", verify=0).top(graph.n_edges)
    found = curve(model, pairs, order, universe="edge.*", compat="mib")
    n = graph.n_edges
    assert found.sizes == tuple(int(n * k) for k in FRACTIONS) and found.sizes[-1] == n
    assert found.axis.tolist() == list(FRACTIONS)
    assert found.order == order

    other = values_of(model, pairs.corrupt, graph.writers)
    runs = edge_logits(model, pairs.clean, other, [[], order[: found.sizes[7]], graph.edges])
    at = range(len(pairs))
    a, f = ([ids[0] for ids in some] for some in (pairs.answer_ids, pairs.foil_ids))
    none, part, whole = (runs[:, at, a] - runs[:, at, f]).mean(dim=1).tolist()
    assert found.faithfulness[7] == pytest.approx((part - none) / (whole - none), abs=1e-4)
    assert found.faithfulness[-1] == pytest.approx(1)
    backwards = curve(model, pairs, order[::-1], universe="edge.*", compat="mib")
    assert backwards.cmd > found.cmd + 0.05


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_edges_on_no_path_change_nothing(family: str) -> None:
    model = made(family)
    pairs = pairs_of(model)
    graph = Graph.of(model)
    rng = np.random.default_rng(0)
    some = [graph.edges[at] for at in sorted(rng.choice(graph.n_edges, graph.n_edges // 3, replace=False))]
    kept = on_a_path(graph, some)
    assert 0 < len(kept) < len(some)
    assert on_a_path(graph, kept) == kept
    less = sorted(kept)[: len(kept) // 2]
    other = values_of(model, pairs.corrupt, graph.writers)
    whole, pruned, fewer = edge_logits(model, pairs.clean, other, [some, sorted(kept), less])
    assert (whole - pruned).abs().max() < 1e-5
    assert (whole - fewer).abs().max() > 1e-4


def test_a_path_is_from_the_embedding_to_the_logits() -> None:
    graph = Graph.of(made("llama"))  # 4 heads, 2 of them share each key-value group

    def kept(*names: str) -> set[str]:
        return set(map(str, on_a_path(graph, graph.select(list(names)))))

    path = ["embed->k.0.1", "head.0.2->mlp.1", "mlp_out.1->logits"]
    assert kept(*path) == set(path)
    assert kept(*path, "head.0.1->logits", "embed->q.2.0", "head.0.3->mlp.2") == set(path)
    assert kept(*path[:2]) == kept(*path[1:]) == set()
    assert kept("embed->k.0.0", "head.0.2->mlp.1", "mlp_out.1->logits") == set()


def test_curves_are_results_and_say_what_their_axis_is() -> None:
    found = given(*np.linspace(0, 1, 10))
    assert found.axis_words.startswith("share of the 1,000 edges that is in the circuit")
    assert found.axis_words.endswith("(0.001 to 1, linear)")
    assert found.table()["fraction"].tolist() == list(FRACTIONS)
    assert found.number("cpr").value == found.cpr and found.number("cmd").value == found.cmd
    assert found.axis_words in found.tables()[1].note and found.axis_words in found.figure().caption
    assert found.figure().x == "share of the 1,000 edges"
    assert found.table()[["low", "high"]].isna().all(axis=None)  # without the pairs there is no interval


def test_a_random_order_is_the_control_of_numbers_tables_figure_and_findings() -> None:
    model = made("llama")
    pairs = told_pairs_of(model)
    order = mediation.attribution(model, pairs, ["head.*", "mlp_out.*"], verify=0).top(15)
    found = curve(model, pairs, order, control=True)
    assert found.control is not None and found.control.order != found.order
    alone = curve(model, pairs, found.control.order)
    assert np.array_equal(alone.faithfulness, found.control.faithfulness)
    assert found.table()["random_order"].tolist() == alone.faithfulness.tolist()
    areas = found.table("areas").set_index("what")
    assert areas["random_order"].tolist()[:2] == [alone.cpr, alone.cmd]
    drawn = found.figure().frame()
    assert set(drawn["series"]) == {"this ranking", "random order"}
    assert found.findings()[0].floor == alone.cpr
    assert f"({alone.cpr:.3f} in a random order)" in found.verdict()
    inner = found.table().iloc[1:-1]
    assert ((inner["low"] <= inner["faithfulness"]) & (inner["faithfulness"] <= inner["high"])).all()
    low, high = found.number("cpr").low, found.number("cpr").high
    assert low is not None and high is not None and low <= found.cpr <= high


def test_effects_of_edges_come_back_from_disk_and_their_largest_are_evaluated(tmp_path: Path) -> None:
    model = made("llama")
    pairs = told_pairs_of(model)
    found = mediation.attribution(model, pairs, "edge.*", verify=0)
    again = load(found.save(tmp_path / "effects"))
    assert isinstance(again, Effects) and isinstance(again.mediators[0], Edge)
    assert again.mediators == found.mediators
    assert again.table().equals(found.table())
    small = {"random_circuits": 1, "knockouts": 0, "removals": 0, "controls": ()}
    top = again.top(len(again.mediators) // 2)
    result = mediation.evaluate(model, pairs, top, universe="edge.*", **small)  # type: ignore[arg-type]
    assert abs(1 - result.faithfulness.value) < abs(1 - result.random.value)
    whole = mediation.evaluate(model, pairs, again.mediators, universe="edge.*", **small)  # type: ignore[arg-type]
    assert whole.faithfulness.value == pytest.approx(1, abs=1e-5)
    signed = found.top(len(found.mediators), ranking="signed")
    means = dict(zip(found.mediators, found.mean(), strict=True))
    assert all(means[one] >= means[two] for one, two in pairwise(signed))
    with pytest.raises(ConfigError, match="ranking 'size' asked; there are: absolute, signed"):
        found.top(ranking="size")


def test_searches_that_cannot_do_edges_say_which_can() -> None:
    model = made("llama")
    pairs, alike = pairs_of(model, 2), pairs_of(model)[[0, 1]]  # of one length, for positions
    over = {name for name, row in SEARCHES.items() if "edges" in row.over}
    assert {"exhaustive", "attribution", "relp", "gim", "eap-ig", "hard-concrete"} <= over < set(SEARCHES)
    for name in set(SEARCHES) - over:
        with pytest.raises(ConfigError, match=r"edges were asked for .* exhaustive, attribution, .*eap-ig"):
            effects(model, pairs, "edge.*->logits", search=name)
        with pytest.raises(ConfigError, match=r"edges were asked for \(embed->logits\)"):
            effects(model, pairs, list(Graph.of(model).select("edge.*->logits")), search=name)
    for name in over:
        found = effects(model, alike, ["edge.mlp_out.*->logits"], search=quick(name))
        assert found.search == name and len(found.mediators) == model.n_layers
        with pytest.raises(ConfigError, match=r"positions -1 asked"):
            effects(model, pairs, "edge.*->logits", search=name, positions=-1)
    with pytest.raises(
        ConfigError, match=r"'eap-ig' ranks edges\. Ask for edge\.\*, or use one of: .*ig-inputs"
    ):
        effects(model, pairs, "head.*", search="eap-ig")
    with pytest.raises(ConfigError, match="edges and other mediators"):
        effects(model, pairs, ["head.*", "edge.*->logits"], search="attribution")


def test_what_a_curve_does_not_have_is_refused() -> None:
    model = made("llama")
    pairs = pairs_of(model, 2)
    with pytest.raises(ConfigError, match="compat 'eap' asked; there are: '', 'mib'"):
        curve(model, pairs, [], universe="edge.*", compat="eap")
    with pytest.raises(ConfigError, match="compat 'mib' has sizes of its own"):
        curve(model, pairs, [], universe="edge.*", compat="mib", sizes=[1])
