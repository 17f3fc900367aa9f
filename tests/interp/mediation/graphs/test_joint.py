"""Drawn paths together: all edges do what the model does, planted paths do all of it, others nothing."""

from __future__ import annotations

import pytest
import torch

from interp import mediation
from interp.mediation.graphs.frozen import FrozenRun
from interp.mediation.graphs.influence import Flow, flow
from interp.mediation.graphs.joint import along_paths, altogether
from interp.mediation.graphs.outputs import Outputs
from interp.mediation.graphs.parts import Joint
from interp.mediation.graphs.paths import pruned, random_paths
from interp.mediation.graphs.tested import changes_of
from tests.dictionaries import random_dictionary
from tests.interp.mediation.graphs.test_frozen import IDS, model
from tests.planted import and_neuron


def run_of(family: str, alone: float = 0.05, dictionary: bool = False) -> FrozenRun:
    given = model(family)
    if dictionary:
        given = given.with_dictionaries(random_dictionary(site="mlp_out.1"))
    return FrozenRun.of(given, IDS, Outputs.likeliest(given, IDS), neurons=4, alone=alone)


def tokens_of(run: FrozenRun) -> dict[int, torch.Tensor]:
    """Each token's embedding, exchanged for the one before: of none at all, norms amplify the rounding."""
    places = [at for at, one in enumerate(run.sources.parts) if one.kind == "embed"]
    there = run.sources.writes[places].roll(1, 0)
    return dict(changes_of(run, places, dict(zip(places, there, strict=True))).deltas)


def every_edge(run: FrozenRun) -> list[tuple[int, int]]:
    targets = [*(-1 - n for n in range(len(run.outputs.tokens)))]
    targets += [at for at, one in enumerate(run.sources.parts) if one.followed]
    readings = {at: run.reading(-1 - at if at < 0 else run.sources.parts[at]) for at in targets}
    return [(s, at) for at, one in readings.items() for s in range(one.reach.start, one.reach.stop)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "granite", "bloom"])
def test_along_every_edge_tokens_do_what_they_do_in_the_model(family: str) -> None:
    run = run_of(family)
    kinds = {one.kind for one in run.sources.parts}
    assert {"heads", "rest", "embed"} <= kinds and kinds & {"head", "neuron"}
    deltas, edges = tokens_of(run), every_edge(run)
    whole = altogether(run, deltas)
    found, none, half = along_paths(run, [edges, [], edges[::2]], deltas)
    assert abs(whole) > 1e-2 and found == pytest.approx(whole, rel=1e-3, abs=1e-4)
    assert none == pytest.approx(0.0, abs=1e-5)
    assert abs(half - whole) > 1e-2 * abs(whole)


def test_what_a_dictionary_leaves_out_is_missing_along_its_features_alone() -> None:
    run = run_of("llama", dictionary=True)
    deltas = tokens_of(run)
    (found,) = along_paths(run, [every_edge(run)], deltas)
    assert abs(found - altogether(run, deltas)) > 1e-3  # errors read nothing, so that they do not respond


def test_a_planted_path_carries_all_of_it_and_random_ones_nothing() -> None:
    planted = and_neuron()
    prompt = f"{planted.both[0]} {planted.both[1]} {planted.query}"
    other = f"{planted.query} {planted.both[1]} {planted.query}"
    found = mediation.attribution_graph(
        planted.model, prompt, answer=planted.yes, foil=planted.no, instead=other, keep=0.99
    )
    joint = found.joint
    assert joint is not None and joint.share == pytest.approx(1.0, abs=0.1)
    assert joint.chance < joint.reached  # of so few parts, some random paths are the planted ones


def test_paths_are_chosen_by_what_they_carry() -> None:
    run = run_of("llama")
    found = flow(run)
    drawn = pruned(run, found, keep=1.0, nodes=10**4, edges=12)
    carried = sum_of(run, found, [(s, t) for s, t, _ in drawn.edges])
    for seed in range(10):
        assert sum_of(run, found, random_paths(run, found, 12, seed)) < carried
    few = pruned(run, found, keep=0.05, nodes=10**4, edges=10**4)
    assert sum_of(run, found, [(s, t) for s, t, _ in few.edges]) >= 0.05 * found.ends["embed"]
    assert len(few.edges) < 100


def sum_of(run: FrozenRun, found: Flow, edges: list[tuple[int, int]]) -> float:
    """Path by path, from the outputs."""

    def back(key: int) -> float:
        if key >= 0 and run.sources.parts[key].kind == "embed":
            return 1.0
        reach = found.reaches.get(key)
        return sum(float(found.shares[key][s - reach.start]) * back(s) for s, t in edges if t == key)

    return sum(weight * back(-1 - n) for n, weight in enumerate(run.outputs.weights.tolist()))


def test_what_overshoots_counts_as_what_falls_short() -> None:
    joint = Joint(-2.0, -2.6, (-0.2, 3.0, 0.0))
    assert joint.share == pytest.approx(1.3) and joint.reached == pytest.approx(0.7)
    assert joint.chance == pytest.approx(0.1 / 3) and joint.p == pytest.approx(0.25)
    assert Joint(1.0, 0.1, (0.5, 0.9)).p == 1.0 and Joint(0.0, 1.0, ()).share == 0.0
