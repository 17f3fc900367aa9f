"""What a probe's verdict says where the truth is known, over many seeds.

    python -m pytest tests/simulations -m slow -s

A label that the bundled model's states hold without error must never be called undecodable; labels that were
exchanged between groups, and have nothing to do with the states, must be called decodable in 5% at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

import interp
from interp import tasks
from interp.models.model import Model
from interp.tasks import Labelled
from probes.controls import shuffled_labels
from probes.statistics import clopper_pearson

ALLOWED = 0.05


@pytest.fixture(scope="module")
def model() -> Model:
    return interp.load("demo")


def readings(model: Model, data: Sequence[Labelled], layers: str, controls: tuple[str, ...]) -> list[tuple]:
    """Accuracy, whether it is called decodable, and how many test groups there were, one seed each."""
    found = [
        interp.probe(model, one, layers=layers, controls=controls, seed=seed) for seed, one in enumerate(data)
    ]
    for one in found:
        assert one.guessing.beaten is not one.verdict().startswith("Not shown to be decodable")
    return [(one.accuracy.value, one.guessing.beaten, one.accuracy.n_groups) for one in found]


def exchanged(data: Labelled, seed: int) -> Labelled:
    return replace(data, labels=tuple(shuffled_labels(data.labels, groups=data.groups, seed=seed)))


def said(name: str, found: list[tuple]) -> int:
    called, n = sum(beaten for _, beaten, _ in found), len(found)
    worst, groups = min(value for value, _, _ in found), min(count for _, _, count in found)
    sure = clopper_pearson(called, n)
    print(
        f"{name:46} {n:4} seeds, from {groups:3} test groups, accuracy from {worst:.2f}: "
        f"decodable in {called / n:6.1%} {sure}"
    )
    return called


def test_twenty_seeds(model: Model) -> None:
    data = tasks.labelled("subject-number", n=150)
    perfect = readings(model, [data] * 20, "20", ("shuffled",))
    assert [value for value, _, _ in perfect] == [1.0] * 20
    assert said("subject-number, 150 prompts", perfect) == 20
    nothing = readings(model, [exchanged(data, seed) for seed in range(20)], "20", ())
    assert said("subject-number, labels exchanged", nothing) <= 3  # more than 3 of 20 at 5%: 1.6%


@pytest.mark.slow
@pytest.mark.parametrize("n", [150, 600])
def test_a_perfect_probe_is_never_refused(model: Model, n: int) -> None:
    controls = ("shuffled", "random-weights", "bag-of-tokens", "majority")
    data = tasks.labelled("subject-number", n=n)
    found = readings(model, [data] * 20, "20", controls)
    assert min(value for value, _, _ in found) == 1.0
    assert said(f"subject-number, {n} prompts, every control", found) == 20


@pytest.mark.slow
def test_a_good_probe_of_many_groups_is_never_refused(model: Model) -> None:
    found = readings(model, [tasks.labelled("name-order", n=600)] * 20, "20", ("shuffled",))
    assert said("name-order, 600 prompts", found) == 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "n", "layers"),
    [
        ("subject-number", 150, "20"),
        ("subject-number", 600, "20"),
        ("name-order", 200, "20"),
        ("fact-relation", 300, "20"),
        ("subject-number", 150, "8,12,16,20"),
    ],
)
def test_exchanged_labels_are_seldom_called_decodable(model: Model, task: str, n: int, layers: str) -> None:
    data, repeats = tasks.labelled(task, n=n), 100 if "," in layers else 200
    found = readings(model, [exchanged(data, seed) for seed in range(repeats)], layers, ())
    called = said(f"{task}, {n} prompts, layers {layers}, exchanged", found)
    assert clopper_pearson(called, repeats).low <= ALLOWED


@pytest.mark.slow
def test_concepts_are_read_in_twenty_seeds_and_not_in_random_weights(model: Model) -> None:
    untrained = interp.load("demo", weights="random")
    for name, one, wanted in (("trained", model, 20), ("random weights", untrained, 0)):
        found = [
            interp.probe_concepts(one, layers="20", controls=(), sizes=(300, 100, 120), seed=seed)
            for seed in range(20)
        ]
        read = sum(result.guessing.beaten for result in found)
        print(f"concepts, {name:15} 20 seeds: readable in {read} {clopper_pearson(read, 20)}")
        if wanted:
            assert read == wanted
        else:
            assert clopper_pearson(read, 20).low <= ALLOWED
