"""Take whatever holds a causal language model where a ``Model`` is expected."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from interp.models.anatomy import Anatomy
from interp.models.foreign import foreign, stamp
from interp.models.loading import load
from interp.models.model import Model

__all__ = ["ModelLike", "as_model"]

ModelLike = Model | PreTrainedModel | object
"""A ``Model``, or what ``interp.load`` takes from memory: a Hugging Face, bridge or nnsight model."""

Stamp = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Known:
    """Hold what loading found, without the Hugging Face model, which would otherwise never be freed."""

    stamp: Stamp
    fields: dict[str, Any]
    anatomy: dict[str, Any]
    hf: PreTrainedModel | None


_KNOWN: MutableMapping[object, _Known] = WeakKeyDictionary()


def as_model(source: ModelLike) -> Model:
    """Give a ``Model`` itself, and load anything else; what loading found is remembered as long as it exists.

    An object whose parameters were replaced since is loaded anew.

    Args:
        source: a ``Model``, a ``PreTrainedModel``, a TransformerLens bridge, or an nnsight model.

    Raises:
        ModelError: it is none of these, or cannot be used; the message says why.
    """
    if isinstance(source, Model):
        return source
    row = foreign(source)
    if row is None and not isinstance(source, PreTrainedModel):
        return load(source)
    now = stamp(source, row) if row is not None else _parameters(source)
    known = _KNOWN.get(source)
    if known is None or known.stamp != now:
        known = _KNOWN[source] = _known(load(source), now, own=row is None)
    hf: Any = source if known.hf is None else known.hf
    return Model(hf, anatomy=Anatomy(hf, **known.anatomy), **known.fields)


def _parameters(hf: Any) -> Stamp:
    return tuple(id(parameter) for parameter in hf.parameters())


def _known(model: Model, now: Stamp, *, own: bool) -> _Known:
    names = ("tokenizer", "name", "weights", "certificate", "warnings")
    fields = {name: getattr(model, name) for name in names}
    anatomy = {name: getattr(model.anatomy, name) for name in ("family", "name", "disabled")}
    return _Known(now, fields, anatomy, None if own else model.hf)
