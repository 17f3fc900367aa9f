"""The annotations of interp and probes are enforced while the suite runs: types, shapes, axes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import jaxtyping
import numpy as np
import pytest

from interp import paths
from probes.statistics import bootstrap
from tests import checked

PLANTED = '''
"""What a package may define."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol, overload

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from somewhere import Unknown

Rows = Float[np.ndarray, "row column"]


def double(number: int) -> int:
    return number * 2


def lying(number: int) -> str:
    return number


def product(left: Float[np.ndarray, "row inner"], right: Float[np.ndarray, "inner column"]) -> Rows:
    return left @ right


def transposed(rows: Rows) -> Rows:
    return rows.T


def counted(rows: Rows, indices: Int[np.ndarray, "row"]) -> int:
    return len(indices) + len(product(rows, np.ones((rows.shape[1], 9))))


def nested(listed: list[Rows], *more: Rows, last: Rows | None = None) -> None:
    pass


def early(later: Later | None) -> None:
    pass


def partly(values: dict[str, Unknown] | int, other: Unknown[int] | None = None) -> None:
    pass


@cache
def kept(number: int) -> int:
    return number


def numbers(upto: int) -> Iterator[int]:
    yield from range(upto)


@contextmanager
def opened(name: str) -> Iterator[str]:
    yield name


async def awaited(number: int) -> int:
    return number


def outer(number: float) -> int:
    def inner(value: int) -> int:
        return value

    return inner(number)


@overload
def either(value: int) -> int: ...
@overload
def either(value: str) -> str: ...
def either(value: int | str) -> int | str:
    return value


class Later:
    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def size(self) -> int:
        return self.number

    @size.setter
    def size(self, value: int) -> None:
        self.number = value

    @cached_property
    def text(self) -> str:
        return self.number

    @classmethod
    def made(cls, number: int) -> Later:
        return cls(number)

    @staticmethod
    def same(other: Later) -> Later:
        return other


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    at: Float[np.ndarray, "place"]
    weights: Float[np.ndarray, "place"]
    parent: Point | None = None


class Derived(Point):
    pass


class Pair(NamedTuple):
    one: int

    def plus(self, number: int) -> int:
        return self.one + number


class Colour(Enum):
    RED = 1

    def mixed(self, other: Colour) -> Colour:
        return other


class Sized(Protocol):
    def size(self, unit: str) -> int: ...


def run(number: int) -> int:
    return asyncio.run(awaited(number))
'''


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A package of its own, whose annotations are checked as those of interp are."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_package").mkdir()
    (folder / "planted_package" / "__init__.py").write_text("")
    (folder / "planted_package" / "module.py").write_text(PLANTED)
    finder = checked.install("planted_package")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("planted_package.module")
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(finder)


def test_a_wrong_type_raises_in_interp() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        paths.assets(3)  # type: ignore[arg-type]


def test_a_wrong_type_raises_in_probes() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        bootstrap([0.0, 1.0, 1.0], seed="zero")  # type: ignore[arg-type]


def test_a_right_type_passes() -> None:
    assert paths.assets("facts").name == "facts"


def test_what_is_right_passes(planted: ModuleType) -> None:
    assert planted.double(2) == 4
    assert planted.product(np.ones((2, 3)), np.ones((3, 4))).shape == (2, 4)
    assert planted.transposed(np.ones((3, 3))).shape == (3, 3)
    assert planted.counted(np.ones((2, 3)), np.arange(2)) == 4  # product's own axes are another scope
    planted.nested([np.ones((2, 3))], np.ones((2, 3)), last=np.ones((2, 3)))
    planted.early(planted.Later.made(3))
    planted.partly({"a": object()}, other=object())
    assert (planted.kept(3), list(planted.numbers(2)), planted.run(5)) == (3, [0, 1], 5)
    with planted.opened("a") as name:
        assert name == "a"
    assert planted.outer.__name__ == "outer" and planted.either("a") == "a"
    later = planted.Later(1)
    later.size = 4
    assert later.size == 4 and planted.Later.same(later) is later
    point = planted.Point("a", np.ones(3), np.ones(3))
    assert planted.Derived("b", np.ones(3), np.ones(3), parent=point).parent is point
    assert planted.Pair(1).plus(2) == 3
    assert planted.Colour.RED.mixed(planted.Colour.RED) is planted.Colour.RED


WRONG = {
    "an argument": lambda it: it.double("2"),
    "a keyword": lambda it: it.double(number="2"),
    "a returned value": lambda it: it.lying(2),
    "the number of axes": lambda it: it.product(np.ones(2), np.ones((2, 3))),
    "the kind of numbers": lambda it: it.product(np.ones((2, 3), dtype=int), np.ones((3, 4))),
    "an axis of two arguments": lambda it: it.product(np.ones((2, 3)), np.ones((4, 5))),
    "an axis of a returned value": lambda it: it.transposed(np.ones((2, 3))),
    "an axis of unlike types": lambda it: it.counted(np.ones((2, 3)), np.arange(3)),
    "an axis within a list": lambda it: it.nested([np.ones((2, 3))], last=np.ones((2, 4))),
    "an axis of further arguments": lambda it: it.nested([], np.ones((2, 3)), np.ones((2, 4))),
    "a class that is defined later": lambda it: it.early(3),
    "beside an unknown name": lambda it: it.partly("text"),
    "within an unknown name's dictionary": lambda it: it.partly({3: object()}),
    "a function that is cached": lambda it: it.kept("3"),
    "a generator": lambda it: it.numbers("3"),
    "a context manager": lambda it: it.opened(3),
    "a coroutine": lambda it: it.run("3"),
    "a function in a function": lambda it: it.outer(2.5),
    "an overloaded function": lambda it: it.either(2.5),
    "a constructor": lambda it: it.Later("1"),
    "a property": lambda it: it.Later.made(1).text,
    "a setter": lambda it: setattr(it.Later(1), "size", "4"),
    "a class method": lambda it: it.Later.made("1"),
    "a static method": lambda it: it.Later.same(3),
    "a field": lambda it: it.Point(3, np.ones(3), np.ones(3)),
    "a field's shape": lambda it: it.Point("a", np.ones((3, 1)), np.ones(3)),
    "an axis of two fields": lambda it: it.Point("a", np.ones(3), np.ones(4)),
    "a field of the class itself": lambda it: it.Point("a", np.ones(3), np.ones(3), parent="b"),
    "an inherited field": lambda it: it.Derived(3, np.ones(3), np.ones(3)),
    "a method of a named tuple": lambda it: it.Pair(1).plus("2"),
    "a method of an enumeration": lambda it: it.Colour.RED.mixed("blue"),
}


@pytest.mark.parametrize("where", WRONG)
def test_what_is_wrong_raises(planted: ModuleType, where: str) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        WRONG[where](planted)


def test_a_function_keeps_its_own_annotations(planted: ModuleType) -> None:
    planted.double(2)
    assert planted.double.__annotations__ == {"number": "int", "return": "int"}
    assert planted.double.__wrapped__.__annotations__ == {"number": "int", "return": "int"}


def test_a_module_that_is_there_already_is_refused() -> None:
    with pytest.raises(RuntimeError, match="imported before their annotations could be checked: probes"):
        checked.install("probes")
