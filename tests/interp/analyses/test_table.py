"""The analyses of the table: each loads, is public, and is the function that its row names."""

from __future__ import annotations

import inspect

import pytest

from interp import analyses
from interp.analyses import ANALYSES
from interp.cli.compare import CompareSettings


@pytest.mark.parametrize("name", ANALYSES)
def test_a_row_names_a_public_analysis(name: str) -> None:
    row = ANALYSES[name]
    function = row.function
    assert getattr(analyses, row.run.partition(":")[2]) is function
    parameters = inspect.signature(function).parameters
    assert {"model", "reference", "n", "seed"} <= set(parameters)
    assert parameters["reference"].default is None
    assert function.__doc__
    assert row.bound(n=3, seed=5).keywords == {"n": 3, "seed": 5}  # type: ignore[attr-defined]
    assert row.bound().keywords["n"] == row.n  # type: ignore[attr-defined]
    assert row.description and row.data


def test_public_names_of_the_room_load() -> None:
    for name in analyses.__all__:
        assert getattr(analyses, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'; it has: ANALYSES"):
        _ = analyses.nonsense


def test_all_analyses_ask_what_a_training_did_only_of_another_model() -> None:
    trained = {name for name, row in ANALYSES.items() if row.beside}
    alone = CompareSettings(analyses=("all",), schemes=("int8",)).names()
    chats = {name for name, row in ANALYSES.items() if row.chat}
    assert trained and chats and set(alone) == set(ANALYSES) - trained - chats
    assert set(CompareSettings(analyses=("all",), with_="demo").names()) == set(ANALYSES) - chats
    assert chats < set(CompareSettings(analyses=("all", *chats), schemes=("int8",)).names())
    asked = CompareSettings(analyses=("all", "wrapper"), schemes=("int8",)).names()
    assert set(asked) == {*alone, "wrapper"}
