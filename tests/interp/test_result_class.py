"""The base class of results: what a subclass gets for nothing, and files that say only what they hold."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from interp.errors import ArtifactError, ConfigError, DataError
from interp.results import SCHEMAS, About, Figure, Finding, Number, Result, Table, load
from interp.sites import Site


class Opened:
    """Something with a folder of its own, as probes have."""

    def __init__(self, value: float) -> None:
        self.value = value

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "opened.json").write_text(json.dumps(self.value))

    @classmethod
    def load(cls, folder: Path) -> Opened:
        return cls(json.loads((folder / "opened.json").read_text()))


@dataclass(frozen=True)
class Part:
    name: str
    value: float


@dataclass(frozen=True)
class Other:
    size: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Found(Result):
    schema: ClassVar[str] = "tests.found/1"
    numbers_: tuple[float, ...] = ()
    sites: tuple[Site, ...] = ()
    array: Float[np.ndarray, " n"] = field(default_factory=lambda: np.arange(3.0))
    tensor: Float[Tensor, "a b"] = field(default_factory=lambda: torch.ones(2, 2))
    by_layer: Mapping[int, Part] = field(default_factory=dict)
    by_name: Mapping[str, Float[np.ndarray, " n"]] = field(default_factory=dict)
    either: Part | Other | None = None
    opened: Opened | None = None
    inner: Result | None = None
    found: tuple[Finding, ...] = ()

    def verdict(self) -> str:
        return f"{len(self.numbers_)} numbers <were> found."

    def tables(self) -> tuple[Table, ...]:
        return (Table("main", "Numbers", ("at", "value"), list(enumerate(self.numbers_))),)

    def numbers(self) -> tuple[Number, ...]:
        return (Number("sum", float(sum(self.numbers_))),)

    def findings(self) -> tuple[Finding, ...]:
        return self.found


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMAS, Found.schema, f"{__name__}:Found")
    monkeypatch.setattr("interp.results.codec.import_module", lambda name: __import__("sys").modules[name])


@given(st.lists(st.floats(allow_subnormal=False)))
def test_every_number_comes_back_exactly(values: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        again = load(Found(numbers_=tuple(values)).save(Path(folder) / "x"))
    assert isinstance(again, Found)
    assert list(map(repr, again.numbers_)) == list(map(repr, map(float, values)))


def test_every_kind_of_field_comes_back(tmp_path: Path) -> None:
    found = Found(
        about=About(model={"name": "m", "layers": 3}),
        seed=7,
        warnings=("look out",),
        sites=(Site.parse("head.5.3"), Site.parse("resid_post.2")),
        array=np.array([0.5, math.inf, math.nan]),
        tensor=torch.randn(2, 3),
        by_layer={20: Part("x", math.nan)},
        by_name={"a/b ../c": np.array([1.0, 2.0])},
        either=Other(3),
        opened=Opened(2.5),
        inner=Found(numbers_=(1.0,)),
        found=(Finding("one", np.array([1.0, 0.0]), ("a", "b"), np.array([0.5, 0.5])),),
    )
    again = load(found.save(tmp_path / "run"))
    assert isinstance(again, Found)
    assert again.about == found.about
    assert (again.seed, again.warnings, again.sites) == (7, ("look out",), found.sites)
    np.testing.assert_array_equal(again.array, found.array)
    assert again.array.dtype == np.float64
    assert torch.equal(again.tensor, found.tensor)
    assert list(again.by_layer) == [20]
    assert math.isnan(again.by_layer[20].value)
    np.testing.assert_array_equal(again.by_name["a/b ../c"], [1.0, 2.0])
    assert again.either == Other(3)
    assert again.opened is not None
    assert again.opened.value == 2.5
    assert isinstance(again.inner, Found)
    assert again.inner.numbers_ == (1.0,)
    np.testing.assert_array_equal(again.found[0].values, [1.0, 0.0])
    assert again.found[0].excess == found.found[0].excess
    assert [p.name for p in sorted((tmp_path / "run").iterdir())] == [
        "objects",
        "result.json",
        "result.safetensors",
    ]


def test_without_text_groups_are_numbers_that_say_which_are_the_same(tmp_path: Path) -> None:
    one = Finding("one", np.arange(3.0), ("the capital of", "b", "the capital of"))
    two = Finding("two", np.arange(2.0), ("b", "c"))
    found = Found(found=(one, two))
    again = load(found.save(tmp_path / "run", text=False))
    assert isinstance(again, Found)
    assert [one.groups for one in again.found] == [
        ("group 1", "group 2", "group 1"),
        ("group 2", "group 3"),
    ]
    assert "capital" not in (tmp_path / "run" / "result.json").read_text()


def test_a_statistic_keeps_its_value_and_refuses_an_interval(tmp_path: Path) -> None:
    values = np.array([3.0, 4.0, 8.0])
    found = Found(found=(Finding("median", values, ("a", "b", "c"), statistic=lambda w: 4.0 * w.sum() / 3),))
    again = load(found.save(tmp_path)).finding("median")
    assert again.value == 4.0
    with pytest.raises(DataError, match="Run the analysis again"):
        again.statistic(np.array([2.0, 1.0, 0.0]))  # type: ignore[misc]


def test_what_cannot_be_restored_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Found/by_name/x: an array of object"):
        Found(by_name={"x": np.array(["text", None], dtype=object)}).save(tmp_path)
    with pytest.raises(DataError, match=r"Found/numbers_/0: a type cannot be written"):
        Found(numbers_=(int,)).save(tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema="os.system/1"), "schema 'os.system/1' is not known"),
        (lambda c: c.update(schema=["x"]), "holds no result"),
        (
            lambda c: c.update(schema="interp.effects/1"),
            "'interp.effects/1', and this .* 'interp.effects/2'. Make",
        ),
        (lambda c: c.pop("schema"), "schema None is not known"),
        (lambda c: c.update(seed="7"), "'7' is no"),
        (lambda c: c.update(surprise=1), "no field 'surprise'"),
        (lambda c: c.update(array={"array": "not there"}), "not there"),
        (lambda c: c.update(opened={"object": "../../x"}), "fits none"),
    ],
)
def test_a_damaged_file_is_refused(change: object, message: str, tmp_path: Path) -> None:
    Found(opened=Opened(1.0)).save(tmp_path)
    forget_checksum(tmp_path)
    content = json.loads((tmp_path / "result.json").read_text())
    change(content)  # type: ignore[operator]
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=message):
        load(tmp_path)


def forget_checksum(folder: Path) -> None:
    """Make a result one of those that were written before there were checksums."""
    content = json.loads((folder / "result.json").read_text())
    assert content.pop("checksum")
    (folder / "result.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["result.json", "result.safetensors"])
def test_any_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    Found(numbers_=(0.25,), by_name={"x": np.arange(6.0)}).save(tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        file.write_bytes(bytes(changed))
        same = False
        if name == "result.json":
            try:
                same = json.loads(changed) == json.loads(content)  # a blank became another blank
            except ValueError:
                same = False
        if not same:
            with pytest.raises(ArtifactError):
                load(tmp_path)
    file.write_bytes(content)
    assert load(tmp_path).numbers_ == (0.25,)  # type: ignore[attr-defined]
    forget_checksum(tmp_path)
    assert load(tmp_path).numbers_ == (0.25,), "older ones have none"  # type: ignore[attr-defined]


def test_a_missing_folder_and_broken_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no result"):
        load(tmp_path / "nowhere")
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ArtifactError, match="holds no result"):
        load(tmp_path)


def test_text_readings_come_from_the_base() -> None:
    found = Found(numbers_=tuple(map(float, range(300))))
    assert repr(found) == "Found(300 numbers <were> found.)"
    assert "&lt;were&gt;" in found._repr_html_()
    assert "<were>" not in found._repr_html_()
    assert len(found.table()) == 300
    assert found.number("sum").value == sum(range(300))
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["tables"]["main"]["n_rows"] == 300
    assert len(summary["tables"]["main"]["rows"]) == 200
    with pytest.raises(ConfigError, match="there is no 'mian'; there are: main"):
        found.table("mian")
    with pytest.raises(ConfigError, match="there is nothing to show"):
        found.figure()


def test_shapes_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="a row has 1 cell for 2 columns"):
        Table("x", "", ("a", "b"), [(1,)])
    with pytest.raises(DataError, match="two columns have one name"):
        Table("x", "", ("a", "a"), [])
    with pytest.raises(DataError, match="needs the column 'value'"):
        Figure("x", "map", {"x": [1], "y": [1]}, "", "")
    with pytest.raises(DataError, match="several lengths"):
        Figure("x", "map", {"x": [1], "y": [1], "value": [1, 2]}, "", "")
