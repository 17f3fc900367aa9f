"""Say what is allowed, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from interp.errors import ConfigError

__all__ = ["choose", "suggestion"]


def suggestion(value: str, allowed: Iterable[str]) -> str:
    """Give ``" Did you mean 'x'?"`` for the nearest allowed word, or nothing when none is near."""
    known = {word.casefold(): word for word in allowed}
    near = difflib.get_close_matches(value.casefold(), known, n=1, cutoff=0.6)
    return f" Did you mean {known[near[0]]!r}?" if near else ""


def choose(name: str, value: str, allowed: Iterable[str]) -> str:
    """Give back a value that is allowed.

    Raises:
        ConfigError: for another one, naming the setting, the value, what is allowed and the nearest match.
    """
    allowed = tuple(allowed)
    if value in allowed:
        return value
    listed = ", ".join(allowed) if allowed else "nothing yet"
    raise ConfigError(f"{name} {value!r} is not known; allowed: {listed}.{suggestion(value, allowed)}")
