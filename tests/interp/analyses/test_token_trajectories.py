"""Trajectories: closed forms of velocity and acceleration, singular values, planted orders, chance."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.analyses import trajectory
from interp.analyses.token_trajectories import Course, conclusion, courses, prefix_ranks, velocities
from interp.errors import ConfigError, DataError
from interp.results import FindingsResult
from interp.tasks import TASKS
from tests.noisy import demo
from tests.tiny import build, tokenizer

ENDS = (6, 12, 18, 24)
GROUPS = tuple(f"g{i}" for i in range(10))


def test_velocity_and_acceleration_of_a_straight_line() -> None:
    for a, b, k in ((1.0, 2.0, 6), (5.0, -0.5, 9)):
        erv, era = velocities(a + b * np.arange(1, k + 1))
        assert erv == pytest.approx(b * (k + 2) / 4) and era == pytest.approx(b / 2)
    assert velocities(np.array([1.0, 4.0, 2.0])) == (pytest.approx((3 - 0.5) / 2), pytest.approx(-0.5 - 3))


def test_ranks_of_prefixes_are_those_of_singular_values() -> None:
    rows = np.random.default_rng(0).standard_normal((24, 9)) + 3
    centred = rows - rows.mean(0)
    found = prefix_ranks(centred @ centred.T, ENDS)
    for end, value in zip(ENDS, found, strict=True):
        s = np.linalg.svd(rows[:end] - rows[:end].mean(0), compute_uv=False)
        p = s / s.sum()
        assert value == pytest.approx(np.exp(-(p * np.log(np.clip(p, 1e-300, None))).sum()), rel=1e-6)


def test_constant_states_have_rank_one_and_do_not_move() -> None:
    found = courses(np.full((2, 24, 5), 7.3), ENDS)
    np.testing.assert_allclose(found.rank, 1.0)
    for values in (found.velocity, found.acceleration, *found.controls["order"], *found.controls["gaussian"]):
        np.testing.assert_allclose(values, 0.0, atol=1e-12)


def test_the_order_inside_the_last_prefix_does_not_change_its_rank() -> None:
    rng = np.random.default_rng(1)
    states = rng.standard_normal((1, 24, 9))
    again = states[:, rng.permutation(24)]
    first, second = courses(states, ENDS), courses(again, ENDS)
    assert first.rank == pytest.approx(second.rank)
    assert first.velocity != pytest.approx(second.velocity, rel=1e-3)


def growing(rng: np.random.Generator) -> np.ndarray:
    """States that enter a new direction with every third token."""
    shape = np.eye(9)[np.arange(24) // 3 + 1]
    return 3 * shape + 0.3 * rng.standard_normal((10, 24, 9))


def test_a_planted_order_is_told_and_chance_rarely_is() -> None:
    rng = np.random.default_rng(2)

    def drawn() -> np.ndarray:
        return rng.standard_normal((10, 24, 9)) * rng.random(9)

    blank = courses(drawn(), ENDS)
    told = conclusion({3: courses(growing(rng), ENDS)}, {3: blank}, GROUPS)
    assert "above all three controls at layer 3" in told
    low = conclusion(
        {3: courses(growing(rng)[:, ::-1] * [1] * 9, ENDS)}, {3: courses(growing(rng), ENDS)}, GROUPS
    )
    assert "is not shown" in low
    wrong = 0
    for turn in range(60):
        own = {at: courses(drawn(), ENDS, seed=turn, draws=3) for at in (0, 1)}
        blanks = {at: courses(drawn(), ENDS, seed=turn, draws=3) for at in (0, 1)}
        wrong += "all three controls at" in conclusion(own, blanks, GROUPS)
        # the twin is made to agree with the order's control, so that only two controls are independent
        order = {at: Course(c.rank, c.controls["order"][0], c.acceleration, {}) for at, c in own.items()}
        wrong += "all three controls at" in conclusion(own, order, GROUPS)
    assert wrong <= 6


def model() -> interp.Model:
    return interp.load(build("llama", max_position_embeddings=48), tokenizer=tokenizer())


TEXTS = [(f"w{i:02d} w01", " ".join(f"w{(7 * i + 3 * j * j) % 60:02d}" for j in range(20))) for i in range(6)]


@cache
def of_tiny() -> FindingsResult:
    return trajectory(model(), texts=TEXTS, tokens=16, stride=4, layers="0,2")


def test_states_are_those_after_the_prompt() -> None:
    small: Any = model()
    found = {one.name: one for one in of_tiny().findings()}
    ids = torch.tensor([small.tokenizer(" ".join(TEXTS[3]))["input_ids"][:18]])
    with torch.no_grad():
        states = small.hf(ids, output_hidden_states=True).hidden_states[1][0, 2:].double().numpy()
    want = []
    for end in (4, 8, 12, 16):
        s = np.linalg.svd(states[:end] - states[:end].mean(0), compute_uv=False)
        p = s[s > 1e-9] / s[s > 1e-9].sum()
        want.append(np.exp(-(p * np.log(p)).sum()))
    assert found["effective rank at layer 0"].values[3] == pytest.approx(want[-1], rel=1e-4)
    steps = [want[j] - np.mean(want[:j]) for j in (1, 2, 3)]
    assert found["ERV, against order at layer 0"].values[3] == pytest.approx(np.mean(steps), rel=1e-4)
    assert found["ERA, against order at layer 0"].values[3] == pytest.approx(
        np.mean(np.diff(steps)), rel=1e-4
    )


def test_the_reference_gives_its_untrained_twin() -> None:
    again = trajectory(model(), reference=of_tiny(), texts=TEXTS, tokens=16, stride=4, layers="0,2")
    for one, two in zip(of_tiny().findings(), again.findings(), strict=True):
        np.testing.assert_array_equal(one.values, two.values)
        np.testing.assert_array_equal(one.control, two.control)


def test_the_bundled_model_is_told_from_its_untrained_twin() -> None:
    found = trajectory(demo(), n=8, layers="0,23")
    own = {one.name: one for one in found.findings()}
    one = own["effective rank at layer 0"]
    assert (np.asarray(one.values) < np.asarray(one.control)).all()
    assert found.conclusion and len(one.values) == 8


def test_bundled_texts_are_grouped_by_task_and_own_texts_by_themselves() -> None:
    n = len(TASKS) + 2
    found = trajectory(demo(), n=n, layers="0", tokens=12, stride=4).findings()[0]
    assert found.groups == tuple(list(TASKS)[at % len(TASKS)] for at in range(n))
    assert found.n_groups == len(TASKS) < len(found.values)
    short = [TEXTS[0], ("w01", "w02"), *TEXTS[2:]]  # one that is left out moves no other
    own = trajectory(model(), texts=short, tokens=16, stride=4, layers="0").findings()[0]
    assert own.groups == ("text 0", "text 2", "text 3", "text 4", "text 5")
    whole = of_tiny().findings()[0]
    assert own.values[1] == pytest.approx(whole.values[2])
    assert own.values[1] != pytest.approx(whole.values[1], rel=1e-3)


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 3 steps"):
        trajectory(model(), texts=TEXTS, tokens=16, stride=8)
    with pytest.raises(DataError, match="Give longer texts"):
        trajectory(model(), texts=TEXTS, tokens=40)
    with pytest.raises(DataError, match="read other tokens"):
        trajectory(model(), reference=of_tiny(), texts=TEXTS[::-1], tokens=16, stride=4, layers="0,2")
    with pytest.raises(DataError, match="was read at layers"):
        trajectory(model(), reference=of_tiny(), texts=TEXTS, tokens=16, stride=4, layers="1")
