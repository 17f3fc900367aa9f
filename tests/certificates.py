"""One examination per model, where many runs of a command would each examine the same one again.

``tests/interp/models/test_doctor.py`` tests the examination itself; ``interp doctor`` never reads from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest

__all__ = ["examined_once"]

_KNOWN: dict[str, Any] = {}


@contextmanager
def examined_once() -> Iterator[None]:
    """Remember what the examination with its defaults finds, by everything that describes a model."""
    from interp.models import doctor

    examine = doctor.examine

    @wraps(examine)
    def remembered(model: Any, **given: Any) -> Any:
        if given:
            return examine(model, **given)
        how = (model.backend, model.family, model.disabled, model.hf.config._attn_implementation)
        key = f"{how} {sorted(doctor._described(model).items())}"
        if key not in _KNOWN:
            _KNOWN[key] = examine(model)
        return _KNOWN[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "examine", remembered)
        yield
