"""Schemes parse and print, and an unknown one is answered with those there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import ConfigError
from interp.quantization import SCHEMES, Scheme
from interp.quantization.libraries import LIBRARIES, library_of

GROUPED = [name for name, row in SCHEMES.items() if row.regroups]


@pytest.mark.parametrize("name", SCHEMES)
def test_a_name_is_read_and_written(name: str) -> None:
    scheme = Scheme.parse(name)
    assert str(scheme) == name == scheme.name
    assert Scheme.parse(name.upper()) == scheme
    assert scheme.description
    assert scheme.bits in (2, 4, 5, 8, 16, 32)


@given(st.sampled_from(GROUPED), st.integers(1, 99_999))
def test_a_group_size_is_read_and_written(name: str, group: int) -> None:
    scheme = Scheme.parse(f"{name}-g{group}")
    assert scheme.group == group
    assert Scheme.parse(str(scheme)) == scheme
    assert (str(scheme) == name) == (group == SCHEMES[name].group)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int3", "scheme 'int3' asked; there are: fp32"),
        ("in4", r"Did you mean 'int4'\?"),
        ("nf4-g32", "nf4 has no group size; those that do: rtn4"),
        ("int4-g0", "the group size is a whole number up to 99999, as in int4-g32"),
        ("int4-g", "the group size is a whole number"),
        ("int4-gx", "the group size is a whole number"),
        ("", "scheme '' asked"),
    ],
)
def test_what_is_no_scheme_is_answered_with_a_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scheme.parse(text)


def test_every_scheme_has_its_library_and_every_library_a_scheme() -> None:
    used = {row.library for row in SCHEMES.values()}
    assert used - {""} == set(LIBRARIES)
    for row in SCHEMES.values():
        if row.library in ("builtin", "torchao"):
            assert library_of(row).missing(row) == ""
