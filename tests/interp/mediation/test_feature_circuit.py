"""Sparse feature circuits: planted nodes and edges, the chain rule over dictionaries, and refusals."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError
from interp.features.activations import JumpReLU
from interp.mediation.feature_circuits import ERRORS, FEATURES, METRIC, WHOLE, FeatureCircuit, feature_circuit
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site
from tests.dictionaries import planted_dictionary, planted_pairs, random_dictionary, transcoder
from tests.interp.mediation.edges.models import made, pairs_of


@cache
def planted() -> tuple[Model, PairSet]:
    """Prompts ``w_a w_b query``: word a writes feature 0.a, attention carries it to 1.a at the last token."""
    found = planted_dictionary()
    second = Site("resid_post", 1)
    later = replace(
        found.dictionary,
        name="later",
        site_in=second,
        site_out=second,
        activation=JumpReLU(torch.full((12,), -9.0), signed=True),
    )
    model = found.model.with_dictionaries(found.dictionary, later)
    return model, PairSet.build(model, planted_pairs(found))


@cache
def halves() -> tuple[PairSet, PairSet]:
    """Pairs to find the circuit on, in which every word is clean and corrupt, and others."""
    pairs = planted()[1]
    order = np.random.default_rng(0).permutation(len(pairs)).tolist()
    return pairs[order[:36]], pairs[order[36:]]


@cache
def found_circuit() -> FeatureCircuit:
    return feature_circuit(planted()[0], halves()[0], edge_share=0.01)


def test_planted_nodes_and_edges_are_found_and_no_others() -> None:
    found, words = found_circuit(), range(9)
    assert {str(one) for one in found.members} == {f"feature.{n}.{at}" for n in (0, 1) for at in words}
    wanted = {(f"feature.0.{at}", f"feature.1.{at}") for at in words}
    wanted |= {(f"feature.1.{at}", METRIC) for at in words}
    assert set(found.edges) == wanted
    assert found.tried == 9 * 9 + 9 + 9  # also from the first layer past the second
    assert found.covered == pytest.approx(1, abs=0.02)
    assert (found.weights.mean(axis=1) > 0.02 * found.nodes.total.mean()).all()


def test_the_circuit_does_the_task_on_unseen_pairs_and_a_part_of_it_does_not() -> None:
    model, held = planted()[0], halves()[1]
    found = found_circuit()
    universe = ["feature.*", "error.*", *found.members]
    some = {"universe": universe, "knockouts": 0, "removals": 0, "controls": ()}
    whole = mediation.evaluate(model, held, found.members, **some)  # type: ignore[arg-type]
    assert whole.faithfulness.value > 0.95
    assert whole.random.value < 0.9 * whole.faithfulness.value
    part = [one for one in found.members if one.site.index in (0, 4)]
    few = mediation.evaluate(model, held, part, **some)  # type: ignore[arg-type]
    assert few.faithfulness.value < 0.5


@pytest.mark.parametrize("kind", ["streams", "mixed"])
def test_edges_out_of_a_node_add_up_to_its_attribution(kind: str) -> None:
    """The chain rule: every path goes through one later dictionary first, or through none."""
    model = made("llama")
    later = (
        random_dictionary(site="resid_post.1", n=8, seed=1)
        if kind == "streams"
        else transcoder(n=8, layer=1, read="site")
    )
    first, last = (random_dictionary(site=f"resid_post.{at}", n=8, seed=at) for at in (0, 2))
    model = model.with_dictionaries(first, later, last)
    pairs = pairs_of(model, 3)
    found = feature_circuit(model, pairs, node_share=0.0, edge_share=0.0, steps=0)
    assert {one.layer for one in found.members} == {0, 1, 2}
    told = mediation.attribution(
        model, pairs, ["feature.*", "error.*"], verify=0, directions="noising", positions="all"
    )
    summed = {str(one): np.zeros(len(pairs)) for one in told.mediators}
    for (source, _), row in zip(found.edges, found.weights, strict=True):
        summed[source] += row
    for at, one in enumerate(told.mediators):
        assert np.allclose(summed[str(one)], told.values["noising"][at], atol=1e-4), str(one)
    assert np.abs(told.values["noising"]).max() > 1e-2
    ends = [tuple(name.split(".")[1:2] for name in edge) for edge in found.edges]
    skipping = [w for both, w in zip(ends, found.weights, strict=True) if both == (["0"], ["2"])]
    assert skipping
    across = max(float(np.abs(row).max()) for row in skipping)
    assert across < 1e-5 if kind == "streams" else across > 1e-4  # a stream lets nothing past it


def test_it_says_what_it_is_is_saved_and_refuses() -> None:
    model, (pairs, _) = planted()[0], halves()
    found = found_circuit()
    assert "estimates" in found.verdict() and found.rows[0][3] <= found.rows[0][2] <= found.rows[0][4]
    none = feature_circuit(model, pairs[:6], node_share=2.0, steps=0)
    assert not none.members and not none.edges and "0 nodes" in none.verdict()
    with pytest.raises(ConfigError, match="it has no dictionaries"):
        feature_circuit(made("llama"), pairs)
    with pytest.raises(ConfigError, match="give 0 or more"):
        feature_circuit(model, pairs, edge_share=-1.0)
    with pytest.raises(ConfigError, match="has no gradient"):
        feature_circuit(model, pairs, metric="accuracy")


def test_what_is_kept_is_run_on_other_pairs_with_its_errors_and_without() -> None:
    """Of a dictionary that cannot write the first three words these are left to its error."""
    model, (pairs, held) = planted()[0], halves()
    found = feature_circuit(model, pairs, edge_share=0.01, held_out=held)
    whole = found.held[WHOLE]
    again = mediation.evaluate(
        model,
        held,
        found.members,
        universe=["feature.*", "error.*", *found.members],
        knockouts=0,
        removals=0,
        controls=(),
    )
    assert whole.faithfulness == again.faithfulness and whole.random == again.random
    assert set(found.held) == {WHOLE} and "its features alone" not in found.verdict()  # no error is kept
    assert f"On {len(held)} other pairs it keeps {whole.faithfulness.value:.0%}" in found.verdict()
    assert found.number("faithfulness").value == whole.faithfulness.value
    assert "it was not run" in found_circuit().verdict() and not found_circuit().held
    plain = planted_dictionary()
    decoder = plain.dictionary.decoder.clone()
    decoder[:3] = 0
    poor = plain.model.with_dictionaries(replace(plain.dictionary, decoder=decoder))
    left = feature_circuit(poor, pairs, held_out=held, steps=4)
    assert {str(one) for one in left.members} == {"error.0", *(f"feature.0.{at}" for at in range(3, 9))}
    shares = {name: one.faithfulness.value for name, one in left.held.items()}
    assert shares[WHOLE] > 0.95 and shares[FEATURES] < shares[WHOLE] - 0.2
    assert left.number("faithfulness-features").value == shares[FEATURES]
    assert f"its features alone {shares[FEATURES]:.0%}" in left.verdict()
    runs = ["circuit (7 nodes)", "its features alone (6 nodes)", "its errors alone (1 node)"]
    assert [row[0] for row in left.tables()[1].rows] == runs
    some = {
        "universe": ["feature.*", "error.*", *left.members],
        "knockouts": 0,
        "removals": 0,
        "controls": (),
    }
    errors = mediation.evaluate(poor, held, ["error.0"], **some)  # type: ignore[arg-type]
    assert shares[ERRORS] == errors.faithfulness.value == left.number("faithfulness-errors").value
    assert 0.1 < shares[ERRORS] < shares[WHOLE] - 0.2  # the third of the words that it holds
    assert f"its errors alone {shares[ERRORS]:.0%}, random" in left.verdict()
    silent = feature_circuit(poor, pairs, node_share=2.0, steps=0, held_out=held)
    assert not silent.held and not silent.members
