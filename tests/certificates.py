"""One examination and one load per model, where many runs of a command would each do the same again.

``tests/interp/models/test_doctor.py`` tests the examination itself, ``tests/interp/models/test_loading.py``
loading; ``interp doctor`` never reads an examination from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest

__all__ = ["examined_once", "loaded_once"]

_KNOWN: dict[str, Any] = {}
_LOADED: dict[str, Any] = {}


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


@contextmanager
def loaded_once() -> Iterator[None]:
    """Remember the bundled model as commands load it; that one of them changed it is seen at the next."""
    import interp.models

    load = interp.models.load

    @wraps(load)
    def remembered(source: Any, **given: Any) -> Any:
        if source != "demo" or given.get("weights", "trained") != "trained":
            return load(source, **given)
        key = str(sorted(given.items()))
        if key not in _LOADED:
            model = load(source, **given)
            _LOADED[key] = model, model.fingerprint
        model, before = _LOADED[key]
        assert model.fingerprint == before, "a command changed the bundled model"
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interp.models, "load", remembered)
        yield
