"""What is taken out of circuits and put in, controls with nothing to find, and circuits on other pairs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, DataError
from interp.mediation.circuits import UNMATCHED, CircuitTransfer, Evaluation
from interp.mediation.circuits.controls import Knockouts, Removals
from interp.mediation.circuits.drawing import circuit_figure
from interp.mediation.circuits.runs import apart
from interp.mediation.edges.edge import Edge
from interp.mediation.mediators import Mediator
from interp.mediation.subspaces import Subspace
from interp.pairs import PairSet
from interp.sites import Site
from tests.interp.mediation.test_circuits import made, pairs_of
from tests.interp.mediation.test_planted import made as planted
from tests.planted_heads import PLANTED, gate

NODES = ("head.*", "mlp_out.*")


def named(*names: str) -> tuple[Mediator, ...]:
    return tuple(map(Mediator.parse, names))


@cache
def composition(*extra: str) -> Evaluation:
    truth = planted("composition")
    return mediation.evaluate(truth.model, truth.pairs, [*sorted(truth.heads), *extra])


def test_each_removal_and_each_cut_is_a_run_of_its_own() -> None:
    """What one call gives together is what a call of each circuit gives."""
    model = made()
    pairs = pairs_of(model)
    circuit = ["head.0.1", "head.1.2", "mlp_out.0"]
    found = mediation.evaluate(model, pairs, circuit, controls=())
    assert found.removals is not None

    def run(names: list[str]) -> np.ndarray:
        plain = mediation.evaluate(
            model, pairs, names, random_circuits=0, knockouts=0, removals=0, controls=()
        )
        return plain.values["circuit"]

    for member, change in zip(found.removals.members, found.removals.change, strict=True):
        rest = [name for name in circuit if name != str(member)]
        assert np.allclose(change, found.values["circuit"] - run(rest), atol=2e-5)
        assert np.abs(change).max() > 1e-4
    knockouts = found.knockouts["circuit"]
    for size, inside, whole in zip(knockouts.sizes, knockouts.circuit, knockouts.model, strict=True):
        assert 1 <= size <= 2
        assert not np.allclose(inside, whole, atol=1e-4)
    everything = mediation.evaluate(model, pairs, NODES, controls=())
    assert np.allclose(everything.knockouts["circuit"].circuit, everything.knockouts["circuit"].model)


def test_every_planted_head_is_needed_and_one_too_many_is_not() -> None:
    exact = composition()
    assert exact.removals is not None
    assert exact.removals.needed == len(exact.circuit) == 2
    table = composition("head.1.3").minimality().set_index("member")
    assert table["needed"].to_dict() == {"head.0.0": True, "head.1.1": True, "head.1.3": False}
    assert abs(table.loc["head.1.3", "change"]) < 0.05 * table.loc["head.0.0", "change"]


def test_a_complete_circuit_takes_cuts_as_the_model_does_and_half_of_one_does_not() -> None:
    truth = planted("composition")
    tables = [composition().table().set_index("what")]
    half = mediation.evaluate(truth.model, truth.pairs, sorted(truth.heads)[:1], controls=())
    tables.append(half.table().set_index("what"))
    name = "gap between the circuit and the model after the same cuts"
    whole, part = (table.loc[name, "share"] for table in tables)
    assert whole < 0.1
    assert whole < tables[0].loc["gap between a random circuit and the model after the same cuts", "share"]
    assert half.faithfulness.value < 0.1
    assert part < 0.1  # one head cut from one head leaves nothing on both sides: read beside faithfulness


@pytest.mark.parametrize("control", UNMATCHED)
def test_where_there_is_nothing_to_find_the_difference_is_near_zero_and_has_no_share(control: str) -> None:
    found = composition()
    table = found.table().set_index("what")
    for which in ("the whole model", "the circuit"):
        row = table.loc[f"{control}: {which}"]
        assert row[["share", "low", "high"]].isna().all()
        assert abs(row["difference"]) < 0.35 * table.loc["the whole model", "difference"]
    assert table.loc["the circuit", "share"] > 0.9
    runs = found.unmatched[control]
    assert not np.allclose(runs["all"], found.values["all"])


def test_arbitrary_labels_belong_to_other_pairs_either_way_round() -> None:
    truth = planted("copy")
    built = UNMATCHED["arbitrary-labels"].build(truth.model, truth.pairs, 0)
    assert built is not None
    ways = {True: 0, False: 0}
    for at, (answers, foils) in enumerate(zip(built[1].answer_ids, built[1].foil_ids, strict=True)):
        own = {*truth.pairs.answer_ids[at], *truth.pairs.foil_ids[at]}
        assert not own & {*answers, *foils}
        ways[(answers, foils) in list(zip(truth.pairs.answer_ids, truth.pairs.foil_ids, strict=True))] += 1
    assert min(ways.values()) > 0


def test_controls_that_cannot_be_are_named() -> None:
    model = made()
    pairs = pairs_of(model)  # all have one answer
    found = mediation.evaluate(model, pairs, ["head.0.1"], controls=("arbitrary-labels",))
    assert found.unmatched == {}
    assert any("arbitrary-labels" in note and "every other one" in note for note in found.warnings)
    with pytest.raises(ConfigError, match="control 'luck' asked; there are: random-weights"):
        mediation.evaluate(model, pairs, ["head.0.1"], controls=("luck",))
    with pytest.raises(ConfigError, match="no removals were run"):
        mediation.evaluate(model, pairs, ["head.0.1"], controls=(), removals=0).minimality()
    truth = planted("copy")
    untrained = replace(truth.model, weights="random")
    assert UNMATCHED["random-weights"].build(untrained, truth.pairs, 0) is None


def test_a_gap_is_of_means_and_a_member_is_needed_beyond_what_chance_adds() -> None:
    inside = np.array([[1.0, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    whole = np.array([[3.0, 1.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    ends = np.array([[0.0, 4.0]] * 4)
    absolute, share = Knockouts((1, 1), inside, whole).gap(ends, ["a", "b", "c", "d"], 0)
    assert absolute.value == pytest.approx(0.5)  # the first cut's pairs cancel, the second is off by one
    assert share.value == pytest.approx(0.125)
    steady = np.full((2, 20), 1.0) + 0.01 * np.random.default_rng(0).standard_normal((2, 20))
    groups = tuple(map(str, range(20)))
    quiet = Removals(
        named("mlp_out.0", "mlp_out.1"), steady * np.array([[1.0], [0.1]]), steady * 0.5, 4.0, groups, 0
    )
    assert quiet.needed == 1
    assert [row[0] for row in quiet.table().rows] == ["mlp_out.0", "mlp_out.1"]


def test_no_effect_in_logits_has_no_interval_of_a_share() -> None:
    """A difference of 0 in every pair was given the interval of 0 successes: [0, 0.5] logits."""
    same, groups = np.full(6, 2.5), tuple("abcdef")
    for difference in (0.0, 1.0):
        found = apart("logit-diff", same + difference, same, groups, 0).interval
        assert "clopper" not in found.method and "score" not in found.method
        assert not 0 <= found.low < found.high <= 1
    right, wrong = np.array([1.0] * 6), np.array([0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    assert apart("accuracy", right, wrong, groups, 0).interval.high <= 1
    assert apart("prob", right + 1e-7, wrong, groups, 0).value == pytest.approx(4 / 6)


def test_no_share_of_a_total_that_is_not_told_from_zero() -> None:
    """Null pairs: nothing carries an answer, and a ratio to nothing is a number all the same (1.05)."""
    rng = np.random.default_rng(1)
    none = rng.standard_normal(24)
    values = {"none": none, "all": none + 0.3 * rng.standard_normal(24)}
    values |= {"circuit": values["all"], "without": none, "random 0": none}
    null = Evaluation(
        circuit=named("head.0.0"),
        universe=named("head.0.0", "head.0.1"),
        metric="logit-diff",
        values=values,
        groups=tuple(map(str, range(24))),
    )
    assert "is not told from zero over 24 groups of pairs" in null.no_share
    with pytest.raises(DataError, match="is not told from zero"):
        _ = null.faithfulness
    table = null.table().set_index("what")
    assert table[["share", "low", "high"]].isna().all(axis=None)
    assert table["difference"].notna().all()
    assert "faithfulness" not in repr(null) and "is not told from zero" in repr(null)
    assert not [one for one in null.findings() if one.unit == "share"]
    real = replace(null, values=values | {"all": none + 4.0 + 0.3 * rng.standard_normal(24)})
    assert not real.no_share and real.table()["share"].notna().all()
    assert [one.name for one in real.findings() if one.unit == "share"]
    assert null.number("faithfulness").value is None
    assert null.figures()[0].x == "logit-diff above none (logits)"
    assert real.number("faithfulness").value == real.faithfulness.value
    mixed = CircuitTransfer(evaluations={"own task": real, "null": null}, own="own task")
    table = mixed.table().set_index("pairs")
    assert table.loc["null", ["kept", "random", "lost", "selectivity"]].isna().all()
    assert table.loc["own task", ["kept", "random", "lost"]].notna().all()
    assert "null no share" in mixed.verdict() and mixed.number("lost-null").value is None


def test_curves_of_null_pairs_have_no_areas() -> None:
    model = made()
    pairs = pairs_of(model, 8)
    both = [replace(one, clean=one.corrupt, corrupt=one.clean, group=f"{at}") for at, one in enumerate(pairs)]
    null = PairSet.build(model, [*pairs.pairs, *both[1:]])  # each pair in both orders, for the same answer
    found = mediation.curve(model, null, ["head.0.1"])
    assert "is not told from zero" in found.no_share and np.isnan([found.cpr, found.cmd]).all()
    assert found.findings() == () and "CPR" not in repr(found)


def test_what_hardly_changes_or_helps_is_not_needed() -> None:
    """An OR circuit was 'needed 3 of 3' with changes of -0.020 and 0.006 of 4.0."""
    rng, groups = np.random.default_rng(0), tuple(map(str, range(20)))
    change = np.array([[4.0], [0.006], [-0.02], [-1.0]]) + 1e-4 * rng.standard_normal((4, 20))
    for sign in (1.0, -1.0):  # a metric that falls from none to all counts likewise
        found = Removals(
            named("mlp_out.0", "mlp_out.1", "mlp_out.2", "mlp_out.3"),
            sign * change,
            change[:0],
            sign * 4.0,
            groups,
            0,
        )
        assert found.alone == (True, False, False, False)
        assert found.threshold == pytest.approx(0.04)


def test_a_change_that_is_the_same_in_every_pair_is_told_from_zero() -> None:
    """Without any spread the interval was infinite, and the only head of a circuit 'not needed'."""
    groups, change = tuple(map(str, range(24))), np.array([[2.0] * 24, [0.0] * 24])
    assert Removals(named("mlp_out.0", "mlp_out.1"), change, change[:0], 2.0, groups, 0).alone == (
        True,
        False,
    )


def test_members_that_cover_for_each_other_are_seen_together_only() -> None:
    truth = gate("or")
    found = mediation.evaluate(truth.model, truth.pairs, ["head.0.0", "head.0.1", "mlp_out.1"], controls=())
    table = found.minimality().set_index("member")
    assert table["needed"].to_dict() == {"head.0.0": False, "head.0.1": False, "mlp_out.1": True}
    assert table["covered_by"].to_dict() == {"head.0.0": "head.0.1", "head.0.1": "head.0.0", "mlp_out.1": ""}
    both = gate("and")
    found = mediation.evaluate(both.model, both.pairs, ["head.0.0", "head.0.1", "mlp_out.1"], controls=())
    assert found.minimality()["needed"].all() and not found.minimality()["covered_by"].any()


def given(seed: int, **ends: float) -> Evaluation:
    """An evaluation whose runs are these means, with noise."""
    rng = np.random.default_rng(seed)
    noise = {name: value + 0.05 * rng.standard_normal(40) for name, value in ends.items()}
    values, groups = noise | {"random 0": noise["none"]}, tuple(map(str, range(40)))
    members = {"circuit": named("head.0.0"), "universe": named("head.0.0", "head.0.1")}
    return Evaluation(**members, metric="logit-diff", values=values, groups=groups)


def test_selectivity_is_what_is_lost_of_the_own_task_beyond_what_is_lost_elsewhere() -> None:
    own = given(0, all=4.0, none=0.0, circuit=4.0, without=0.0)
    spared = given(1, all=2.0, none=-2.0, circuit=-2.0, without=1.0)
    shared = given(2, all=2.0, none=-2.0, circuit=-2.0, without=-2.0)
    found = CircuitTransfer(evaluations={"own task": own, "spared": spared, "shared": shared}, own="own task")
    table = found.table().set_index("pairs")
    assert table["lost"].to_dict() == pytest.approx(
        {"own task": 1.0, "spared": 0.25, "shared": 1.0}, abs=0.03
    )
    row = table.loc["spared"]
    assert row["selectivity"] == pytest.approx(table.loc["own task", "lost"] - row["lost"])
    assert 0.6 < row["selectivity_low"] < row["selectivity"] < row["selectivity_high"] < 0.9
    assert table.loc["shared", "selectivity_low"] < 0 < table.loc["shared", "selectivity_high"]
    number = found.number("selectivity-spared")
    assert (number.value, number.low) == (row["selectivity"], row["selectivity_low"])
    assert [one.name for one in found.numbers()][:3] == ["kept-own-task", "lost-own-task", "kept-spared"]


def test_a_circuit_carries_other_pairs_of_its_task() -> None:
    """The copying head copies other letters too; a head that has nothing to do with it keeps nothing."""
    truth, other = planted("copy"), PLANTED["copy"](seed=1)
    pairs = {"own": truth.pairs, "other letters": other.pairs}
    general = mediation.generality(truth.model, sorted(truth.heads), pairs)
    assert general.table()["kept"].tolist() == pytest.approx([1, 1], abs=0.1)
    idle = mediation.selectivity(truth.model, ["head.1.2"], truth.pairs, {"other": other.pairs})
    assert idle.table()["lost"].tolist() == pytest.approx([0, 0], abs=0.1)
    with pytest.raises(DataError, match="no other pairs given"):
        mediation.selectivity(truth.model, ["head.1.2"], truth.pairs, {})
    with pytest.raises(DataError, match="own task"):
        general.selectivity("other letters")


def test_an_evaluation_says_the_numbers_of_its_table() -> None:
    found = composition()
    table = found.table().set_index("what")
    assert found.number("needed-members").value == 2
    assert found.number("sparsity").value == pytest.approx(1 - 2 / 10)
    for name, row in (
        ("faithfulness", "the circuit"),
        ("left-without-it", "left without it"),
        ("random-circuits", "random circuits of this size"),
        ("completeness-gap", "gap between the circuit and the model after the same cuts"),
    ):
        number = found.number(name)
        assert (number.value, number.low, number.high) == tuple(table.loc[row, ["share", "low", "high"]])
    assert "Members: head.0.0, head.1.1." in found.tables()[0].note
    assert "keeps 100%" in found.verdict() and "2 of 10 nodes" in found.verdict()
    note = found.tables()[1].note
    assert "Of 2 members taken out one by one, 2 are needed" in note and "no couples" in note
    shares, removed = found.figures()
    assert list(shares.data["name"])[:2] == ["the circuit", "left without it"]
    assert list(removed.data["value"]) == found.minimality()["change"].tolist()


def test_a_circuit_is_drawn_at_layer_and_head_and_edges_join_its_nodes() -> None:
    nodes = circuit_figure(named("head.1.2", "mlp_out.0", "kv.2.1"), {"head.1.2": -3.0}, "logit-diff", 2)
    assert nodes is not None
    places = {row[0]: tuple(row[1:3]) for row in nodes.frame().itertuples(index=False)}
    assert places == {"head.1.2": (2.0, 1.0), "mlp_out.0": (-1.5, 0.4), "kv.2.1": (2.5, 1.7)}
    assert dict(zip(nodes.data["name"], nodes.data["value"], strict=True))["head.1.2"] == -3.0
    edges = tuple(map(Edge.parse, ("embed->k.1.0", "head.0.3->mlp.2", "mlp_out.2->logits")))
    drawn = circuit_figure(edges, dict(zip(map(str, edges), (1.0, 2.0, 4.0), strict=True)), "logit-diff", 2)
    assert drawn is not None
    rows = drawn.frame()
    arrows, dots = rows[rows["to_x"].notna()], rows[rows["to_x"].isna()].set_index("name")
    assert arrows["name"].tolist() == ["mlp_out.2->logits", "head.0.3->mlp.2", "embed->k.1.0"]
    assert set(dots.index) == {"embed", "kv.1.0", "head.0.3", "mlp_out.2", "logits"}
    assert dots.loc["mlp_out.2", "value"] == 6.0  # both of its edges
    assert dots.loc["logits", "y"] == dots["y"].max() and dots.loc["embed", "y"] == dots["y"].min()
    flat = circuit_figure(named("head.1.2"), {}, "logit-diff")
    assert flat is not None and flat.caption.startswith("Up is later")
    many = circuit_figure(named(*(f"head.{at}.0" for at in range(70))), {}, "logit-diff")
    assert many is not None and many.caption.startswith("The 60 largest of 70.")
    direction = Mediator(Site("resid_post", 1), -1, (), Subspace.of(torch.ones(4), "x"))
    assert circuit_figure((direction,), {}, "kl") is None
