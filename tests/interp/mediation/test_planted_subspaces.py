"""Models whose weights were set by hand: a search must find what was planted, and its controls must not."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import subspace_angles

from interp import mediation
from interp.mediation.distributed_alignment.controls import CONTROLS
from interp.mediation.subspaces import Subspace
from interp.pairs import Pair, PairSet
from tests.planted import AndNeuron, PlantedSubspace, and_neuron, planted_subspace


def balanced(planted: PlantedSubspace) -> PairSet:
    """Every change of value beside every change of nuisance, in both orders: they are uncorrelated."""
    found: list[Pair] = []
    for at, one in enumerate(planted.nuisances):
        for i in range(4):
            for j in range(4):
                if i != j:
                    clean = f"{planted.values[i]} {one} {planted.query}"
                    corrupt = f"{planted.values[j]} {planted.nuisances[at - 1]} {planted.query}"
                    group = f"{at}:{min(i, j)}{max(i, j)}"
                    answers = (planted.answers[i],), (planted.answers[j],)
                    found.append(Pair(clean, corrupt, *answers, "value", group))
    return PairSet.build(planted.model, found)


def angle(found: Subspace, wanted: torch.Tensor) -> float:
    """The largest principal angle, in degrees."""
    angles = subspace_angles(found.basis.double().numpy().T, wanted.double().numpy().T)
    return float(np.degrees(angles.max()))


def test_the_planted_model_answers_with_the_values_word() -> None:
    planted = planted_subspace()
    pairs = balanced(planted)
    assert len(pairs.right(planted.model)) == len(pairs)
    assert len(pairs.swap().right(planted.model)) == len(pairs)


def test_the_search_finds_the_planted_plane_and_its_controls_do_not() -> None:
    planted = planted_subspace()
    found = mediation.das(planted.model, balanced(planted), "resid_post.0", dim=2, batch=64, steps=200)
    assert angle(found.subspace, planted.basis) < 2
    assert found.accuracy.value == 1.0
    gram = found.subspace.basis @ found.subspace.basis.T
    assert float((gram - torch.eye(2)).abs().max()) < 1e-5
    assert found.score("whole").accuracy.value == 1.0
    for name, control in CONTROLS.items():
        score = found.score(name)
        assert score.difference is not None
        if not control.ceiling:
            assert score.difference.interval.low > 0, name
            assert score.accuracy.value < 0.8, name
    assert "better than every control" in found.verdict()
    assert found.curve[0]["validation"] > 10 * found.curve[-1]["validation"]


def test_another_seed_of_the_planted_model_is_found_too_and_one_direction_is_not_enough() -> None:
    planted = planted_subspace(seed=1)
    pairs = balanced(planted)
    found = mediation.das(planted.model, pairs, "resid_post.0", dim=2, batch=64, controls=(), seed=1)
    assert angle(found.subspace, planted.basis) < 2
    less = mediation.das(planted.model, pairs, "resid_post.0", dim=1, batch=64, controls=("random",), seed=1)
    assert less.accuracy.value < 0.9
    assert angle(less.subspace, planted.basis) < 20  # inside the plane, and not all of it


def test_directions_of_two_variables_are_orthogonal_and_leave_each_other_alone() -> None:
    planted = planted_subspace()
    value = balanced(planted)
    null = [
        Pair(
            f"{word} {one} {planted.query}",
            f"{word} {planted.nuisances[at - 1]} {planted.query}",
            (planted.answers[i],),
            (planted.answers[i - 1],),
            "null",
            f"{at}",
        )
        for at, one in enumerate(planted.nuisances)
        for i, word in enumerate(planted.values)
    ]
    variables = {"value": value, "nuisance": PairSet.build(planted.model, null)}
    found = mediation.das(
        planted.model, variables, "resid_post.0", dim=(2, 3), batch=64, steps=150, controls=("random",)
    )
    assert angle(found.subspaces["value"], planted.basis) < 3
    both = found.subspaces["value"].basis @ found.subspaces["nuisance"].basis.T
    assert float(both.abs().max()) < 1e-5
    assert found.isolation["value"].value == found.isolation["nuisance"].value == 1.0
    assert found.score("das", "value").accuracy.value == 1.0


def and_pairs(planted: AndNeuron) -> PairSet:
    (x, y), fillers = planted.both, planted.fillers
    found: list[Pair] = []
    for at, filler in enumerate(fillers):
        for other in (f"{filler} {y}", f"{x} {filler}", f"{filler} {fillers[at - 1]}"):
            clean, corrupt = f"{x} {y} {planted.query}", f"{other} {planted.query}"
            found.append(Pair(clean, corrupt, (planted.yes,), (planted.no,), "and", f"g{at}"))
    return PairSet.build(planted.model, found)


def test_the_and_neuron_fires_for_both_words_alone() -> None:
    planted = and_neuron()
    pairs = and_pairs(planted)
    assert len(pairs.right(planted.model)) == len(pairs)
    assert len(pairs.swap().right(planted.model)) == len(pairs)
    for tokens, fires in ((pairs.clean, True), (pairs.corrupt, False)):
        values = planted.model.capture(tokens, planted.neuron)[planted.neuron]
        assert bool((values > 0.1).all()) is fires
        assert bool((values == 0).all()) is not fires


def test_an_exhaustive_search_over_neurons_names_the_and_neuron_and_no_other() -> None:
    planted = and_neuron()
    found = mediation.exhaustive(planted.model, and_pairs(planted), "neuron.*.*")
    named = {str(m) for m, share in zip(found.mediators, found.normalised(), strict=True) if share > 0.5}
    assert named == {planted.neuron}  # precision and recall 1.0
    others = [at for at, m in enumerate(found.mediators) if str(m) != planted.neuron]
    assert 0 < np.abs(found.normalised()[others]).max() < 0.1  # neurons that see one word write elsewhere
