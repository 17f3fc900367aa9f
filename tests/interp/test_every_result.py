"""Every result class there is can be printed, shown, plotted, saved, loaded, gated and reported."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from interp.report import page
from interp.report.document import document
from interp.results import SCHEMAS, Result, load
from tests.interp.every_result import MAKERS, result_of
from tests.interp.shown_numbers import LINKS, UNLINKED


def subclasses(kind: type) -> set[type]:
    """All classes below a class that are the project's own."""
    below = set(kind.__subclasses__())
    return {one for one in below if one.__module__.startswith("interp.")} | {
        deeper for one in below for deeper in subclasses(one)
    }


def test_the_table_of_schemas_names_every_class_and_every_class_has_an_instance_here() -> None:
    named = {getattr(import_module(path.split(":")[0]), path.split(":")[1]) for path in SCHEMAS.values()}
    assert {one.schema: one for one in named} == {
        schema: getattr(import_module(path.split(":")[0]), path.split(":")[1])
        for schema, path in SCHEMAS.items()
    }
    assert {one for one in subclasses(Result) if isinstance(getattr(one, "schema", None), str)} <= named
    assert set(MAKERS) == set(SCHEMAS)


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_a_result_says_shows_saves_and_comes_back(schema: str, tmp_path: Path) -> None:
    found = result_of(schema)
    assert found.schema == schema
    assert found.verdict().strip()
    assert found.question().strip()
    assert len(repr(found).splitlines()) == 1
    assert "<table" in found._repr_html_()
    assert len(found.table()) == len(found.tables()[0].rows) > 0
    assert found.numbers()
    assert len({one.name for one in found.numbers()}) == len(found.numbers())
    assert len({one.name for one in found.tables()}) == len(found.tables())
    json.dumps(found.summary(), allow_nan=False)
    for one in found.figures():
        assert "<svg" in interp.plot(found, one.name).svg()
    text = page.render(document(found, {"command": "probe"}))
    assert "<table" in text

    again = load(found.save(tmp_path / "saved"))
    assert type(again) is type(found)
    assert again.verdict() == found.verdict()
    same(again.summary(), found.summary())
    for old, new in zip(found.tables(), again.tables(), strict=True):
        same([list(row) for row in new.rows], [list(row) for row in old.rows])
    for old, new in zip(found.figures(), again.figures(), strict=True):
        same({k: list(v) for k, v in new.data.items()}, {k: list(v) for k, v in old.data.items()})
    for old, new in zip(found.findings(), again.findings(), strict=True):
        assert (old.name, old.groups, old.unit) == (new.name, new.groups, new.unit)
        if old.statistic is None:
            np.testing.assert_array_equal(old.values, new.values)
        assert new.value == old.value


def test_every_class_that_has_findings_is_here() -> None:
    classes = {schema: path.split(":") for schema, path in SCHEMAS.items()}
    own = {
        schema: getattr(import_module(module), name).findings for schema, (module, name) in classes.items()
    }
    assert {schema for schema, method in own.items() if method is not Result.findings} == set(LINKS)


@pytest.mark.parametrize("schema", sorted(LINKS))
def test_a_finding_is_the_number_that_its_row_shows(schema: str) -> None:
    result = result_of(schema)
    found = {one.name: one.value for one in result.findings()}
    shown = dict(LINKS[schema](result))
    left = {name for name in found if name not in shown and name.partition(": ")[2] not in UNLINKED}
    assert not left
    for name, value in shown.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def same(new: Any, old: Any) -> None:
    """Equal, NaN included."""
    if isinstance(old, dict):
        assert list(new) == list(old)
        for key in old:
            same(new[key], old[key])
    elif isinstance(old, list | tuple):
        assert len(new) == len(old)
        for one, other in zip(new, old, strict=True):
            same(one, other)
    elif isinstance(old, float) and math.isnan(old):
        assert math.isnan(new)
    else:
        assert new == old
