"""interp.results: JSON without NaN, atomic writes, differences of tables, escaped HTML."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp import results
from interp.activations import Activations
from interp.errors import ArtifactError, ConfigError, DataError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_json_comes_back_unchanged(value: object) -> None:
    plain, warnings = results.jsonable(value)
    assert plain == value
    assert warnings == ()
    assert json.loads(json.dumps(plain)) == value


def test_numbers_json_cannot_hold_become_null_and_are_named() -> None:
    plain, warnings = results.jsonable({"a": [1.0, math.nan], "b": {"c": -math.inf}, "d": np.float32("nan")})
    assert plain == {"a": [1.0, None], "b": {"c": None}, "d": None}
    assert [w.split(":")[0] for w in warnings] == ["a[1]", "b.c", "d"]


def test_arrays_tensors_and_dataclasses_become_lists_and_dictionaries() -> None:
    @dataclasses.dataclass
    class Point:
        x: int
        where: Path

    value = {
        "t": torch.tensor([[1, 2]]),
        "n": np.array([0.5]),
        "p": Point(3, Path("a") / "b"),
        "s": {"y", "x"},
        "i": np.int64(4),
        "b": np.True_,
    }
    plain, _ = results.jsonable(value)
    assert plain == {
        "t": [[1, 2]],
        "n": [0.5],
        "p": {"x": 3, "where": "a/b"},
        "s": ["x", "y"],
        "i": 4,
        "b": True,
    }
    assert type(plain["i"]) is int and type(plain["b"]) is bool


def test_an_object_that_is_not_data_is_refused_by_place() -> None:
    with pytest.raises(DataError, match=r"rows\[1\]\.what: a object cannot be written as JSON"):
        results.jsonable({"rows": [1, {"what": object()}]})


def test_saved_results_come_back_with_their_warnings(tmp_path: Path) -> None:
    warnings = results.write_json({"value": math.nan, "text": "é \ud800"}, tmp_path / "r.json")
    found = results.read_json(tmp_path / "r.json")
    assert found == {"value": None, "text": "é \ud800", "warnings": list(warnings)}
    assert "NaN" not in (tmp_path / "r.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not valid JSON"), ("[1]", "holds a list"), (None, "cannot read")]
)
def test_loading_what_is_no_result_says_so(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        results.read_json(tmp_path / "r.json")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = results.write_atomically(tmp_path / "f", b"old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), broken)
    with pytest.raises(ConfigError, match="No space left"):
        results.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    results.write_atomically(tmp_path / "a" / "f", b"much longer than the next")
    assert results.write_atomically(tmp_path / "a" / "f", b"new").read_bytes() == b"new"


def test_html_tables_escape_text_from_data() -> None:
    page = results.table_html(
        pd.DataFrame({"label": ["<script>alert(1)</script>"], "n": [0.5]}), caption="<b>"
    )
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<b>" not in page and "0.500" in page


def test_the_folder_of_a_run_is_told_from_a_result(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="saved by this toolkit"):
        Activations.load(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ArtifactError, match="ActivationStore"):
        Activations.load(tmp_path)
