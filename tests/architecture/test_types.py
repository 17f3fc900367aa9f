"""The annotations are enforced while the suite runs, by jaxtyping and beartype."""

from __future__ import annotations

import jaxtyping
import pytest

from interp import paths
from probes.statistics import bootstrap


def test_a_wrong_type_raises_in_interp() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        paths.assets(3)  # type: ignore[arg-type]


def test_a_wrong_type_raises_in_probes() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        bootstrap([0.0, 1.0, 1.0], seed="zero")  # type: ignore[arg-type]


def test_a_right_type_passes() -> None:
    assert paths.assets("facts").name == "facts"
