"""Shared tiny models: one wrapped model per family, loaded once."""

from __future__ import annotations

from functools import cache

import pytest

from interp.models import Model, load
from tests.tiny import FAMILIES, tiny

ALL = (*FAMILIES, "gpt_neox_sequential")
PROMPTS = ["w01 w02 w03 w04 w05 w06 w07", "w10 w11", "w20 w21 w22 w23", "w30"]


@cache
def wrapped(family: str) -> Model:
    """Load the shared tiny model of a family."""
    hf, tokenizer = tiny(family)
    return load(hf, tokenizer=tokenizer)


@pytest.fixture(scope="session", params=ALL)
def model(request: pytest.FixtureRequest) -> Model:
    """Give every family in turn."""
    return wrapped(request.param)


@pytest.fixture(scope="session")
def llama() -> Model:
    """Give the tiny Llama."""
    return wrapped("llama")


@pytest.fixture(scope="session")
def gpt2() -> Model:
    """Give the tiny GPT-2."""
    return wrapped("gpt2")
