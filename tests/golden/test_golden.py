"""The numbers of small runs on the bundled model are those that were written down.

One thread (tests/conftest.py sets OMP_NUM_THREADS=1 before torch is loaded). On the machine that wrote a
file to 1e-9, elsewhere to 1e-5, because sums differ by processor; counts, ranks and texts exactly. A
number moves only by a named fix: ``python -m tests.golden.make NAME`` writes a file again and prints
what moved.
"""

from __future__ import annotations

import pytest

from tests.golden.numbers import Numbers, differences, machine, read
from tests.golden.runs import RUNS

SLOW = [pytest.param(name, marks=pytest.mark.slow) if run.slow else name for name, run in RUNS.items()]


@pytest.mark.parametrize("name", SLOW)
def test_numbers_are_those_written_down(name):
    golden = read(name)
    same = golden["machine"] == machine()
    found = differences(golden["numbers"], RUNS[name].numbers(), same_machine=same)
    assert not found, f"{len(found)} of {len(golden['numbers'])} moved:\n" + "\n".join(found[:40])


GOLDEN = {
    "head.5.3 / effect": 2.0,
    "head.5.2 / effect": 1e-7,
    "head.5.3 / low": 1.0,
    "head.5.2 / q ~": 0.5,
    "pairs / n": 8,
    "noise floor / order": -6,
    "mediator 1 / rank": "head.5.3",
}


@pytest.mark.parametrize(
    ("changed", "here", "elsewhere"),
    [
        ({}, 0, 0),
        ({"head.5.3 / effect": 2.0 + 1e-8}, 1, 0),
        ({"head.5.3 / effect": 2.0 + 1e-4}, 1, 1),
        ({"head.5.2 / effect": -1e-7}, 1, 0),
        ({"head.5.3 / low": 1.0 + 1e-4}, 1, 0),
        ({"head.5.3 / low": 1.01}, 1, 1),
        ({"head.5.2 / q ~": 0.6}, 1, 0),
        ({"pairs / n": 9}, 1, 1),
        ({"noise floor / order": -99}, 1, 0),
        ({"noise floor / order": -4}, 1, 1),
        ({"mediator 1 / rank": "head.5.2"}, 1, 1),
        ({"head.5.3 / effect": "nan"}, 1, 1),
    ],
)
def test_what_moved_is_found(changed, here, elsewhere):
    found = GOLDEN | changed
    assert len(differences(GOLDEN, found, same_machine=True)) == here
    assert len(differences(GOLDEN, found, same_machine=False)) == elsewhere


def test_a_number_that_is_gone_is_found():
    found = {name: value for name, value in GOLDEN.items() if name != "pairs / n"}
    assert differences(GOLDEN, found, same_machine=True) == ["pairs / n: 8 -> 'missing'"]


def test_what_is_held_against_the_noise_of_a_machine_is_compared_there_alone():
    own = {"a / clear": "yes", "a / delta": 0.1, "b / clear": "yes", "b / delta": 0.1}
    other = {"a / clear": "no", "a / delta / order ~": -3, "b / clear": "no", "b / delta": 0.1}
    assert differences(own, other, same_machine=False) == ["b / clear: 'yes' -> 'no'"]
    assert len(differences(own, other, same_machine=True)) == 3


def test_near_ties_have_no_rank():
    found = Numbers()
    found.ranks("mediator", ["a", "b", "c"], [3.0, 1.0, 1.0 + 1e-6])
    assert found == {"mediator 1 / rank": "a"}
