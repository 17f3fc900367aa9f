"""What a result says about its model, and what a later result takes from an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.errors import ConfigError, DataError, counted
from interp.models.model import Model
from interp.results.measured import FindingsResult
from interp.results.shapes import About

__all__ = ["about", "check_same_tokens", "earlier"]


def about(model: Model, data: Mapping[str, Any]) -> About:
    """What a result is of: a model, and what it was given."""
    return About(model.described, data)


def earlier(reference: FindingsResult, analysis: str, key: str) -> Any:
    """One entry of an earlier result's state.

    Raises:
        ConfigError: it is of another analysis, or holds no state (it was read from disk, or was itself
            measured against another result).
    """
    if reference.analysis != analysis:
        raise ConfigError(
            f"the reference is a result of {reference.analysis!r}; give one of {analysis!r}, measured first."
        )
    if key not in reference.state:
        raise ConfigError(
            f"this result of {analysis!r} holds nothing to measure against: it was read from disk, or was "
            f"measured against another. Give what {analysis}(model) returned for the reference model."
        )
    return reference.state[key]


def check_same_tokens(
    own: tuple[tuple[int, ...], ...], theirs: tuple[tuple[int, ...], ...], analysis: str
) -> None:
    """Refuse to compare two models that did not read the same tokens.

    Raises:
        DataError: other prompts, another seed, or another tokenizer.
    """
    if own == theirs:
        return
    at = next((i for i, pair in enumerate(zip(own, theirs, strict=False)) if pair[0] != pair[1]), None)
    found = (
        f"{len(own)} and {counted(len(theirs), 'prompt')}" if at is None else f"prompt {at} has other tokens"
    )
    raise DataError(
        f"{analysis}: the reference read other tokens ({found}). Use the same prompts, n and seed, and "
        "models that share a tokenizer."
    )
