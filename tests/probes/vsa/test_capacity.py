"""How many items a bundle holds: theory beside counts, and beside sums that share no code with either."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from probes.vsa import BSC, FHRR, HRR, MAP, CodebookError, expected_accuracy, measured_accuracy

CASES = [(MAP, "real"), (MAP, "random"), (BSC, "random"), (FHRR, "real")]


@pytest.mark.parametrize(("algebra", "ties"), CASES, ids=lambda one: getattr(one, "name", one))
@pytest.mark.parametrize("items", [4, 15])
def test_theory_says_what_is_counted(algebra, ties, items):
    found = measured_accuracy(algebra(128), items, 60, ties=ties, asked=1_500, seed=1)
    spread = math.sqrt(found.expected * (1 - found.expected) / found.asked)
    assert abs(found.accuracy - found.expected) < 4 * spread + 0.005
    other = expected_accuracy(algebra(16), items, 60, ties=ties)
    assert other < found.expected - 0.05  # a theory of another dimension does not fit


@pytest.mark.parametrize("items", [1, 2, 3, 6, 9])
def test_a_rounded_sum_agrees_with_a_member_as_often_as_all_votes_say(items):
    """Every way the others can vote, counted one by one; a tie is a coin."""
    votes = [1 + sum(others) for others in itertools.product((-1, 1), repeat=items - 1)]
    wanted = np.mean(np.sign(votes))
    assert math.comb(items - 1, items // 2) / 2 ** (items - 1) == pytest.approx(wanted)
    sums = MAP(4000)
    parts = sums.random(items, generator=torch.Generator().manual_seed(0))
    bundle = sums.bundle(parts, generator=torch.Generator().manual_seed(1))
    assert float(sums.similarity(bundle[None], parts[:1])) == pytest.approx(wanted, abs=0.06)


def test_it_grows_with_the_dimension_and_falls_with_items_and_concepts():
    def chance(dimension: int = 256, items: int = 12, concepts: int = 100) -> float:
        return expected_accuracy(MAP(dimension), items, concepts)

    assert chance(dimension=512) > chance() > chance(dimension=128)
    assert chance(items=6) > chance() > chance(items=24)
    assert chance(concepts=10) > chance() > chance(concepts=1_000)
    assert chance(concepts=1) == pytest.approx(1.0)
    assert expected_accuracy(MAP(4), 1_000, 50) == pytest.approx(1 / 50, abs=0.02)
    assert expected_accuracy(FHRR(128), 12, 100) == expected_accuracy(MAP(256), 12, 100)


def test_what_there_is_no_theory_of_is_said():
    with pytest.raises(CodebookError, match=r"HRR\(64\) given; there is a theory of MAP, BSC, FHRR"):
        expected_accuracy(HRR(64), 2, 5)
    with pytest.raises(CodebookError, match="0 items of 5 concepts"):
        measured_accuracy(MAP(64), 0, 5)
    with pytest.raises(ValueError, match="ties='real' asked"):
        expected_accuracy(BSC(64), 2, 5, ties="real")
