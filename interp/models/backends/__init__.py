"""The backends that can run a model, and models of other libraries, recognised without importing those."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from transformers import PreTrainedModel

from interp.models.architecture import Architecture
from interp.models.backends.base import Backend

__all__ = ["BACKENDS", "FOREIGN", "BackendRow", "Foreign", "Held", "foreign", "held", "stamp"]


@dataclass(frozen=True)
class BackendRow:
    """One backend.

    Attributes:
        name: how users ask for it.
        description: what it does, and when to use it.
        adapter: the module whose ``made`` builds it; "" for the native hooks.
    """

    name: str
    description: str
    adapter: str = ""

    def make(self, architecture: Architecture) -> Backend | None:
        """Build the backend for a model; None stands for the native one. The library is imported here.

        Raises:
            ModelError: the library cannot run this model.
        """
        return import_module(self.adapter).made(architecture) if self.adapter else None


BACKENDS = {
    row.name: row
    for row in (
        BackendRow("native", "PyTorch hooks on the Hugging Face model itself; the fastest, with every site"),
        BackendRow(
            "transformer-lens",
            "a TransformerLens bridge that shares the weights; to compare with work done in it",
            "interp.models.backends.transformer_lens",
        ),
        BackendRow(
            "nnsight",
            "nnsight traces on a model that shares the weights; importing nnsight changes Python globally",
            "interp.models.backends.nnsight",
        ),
    )
}


@dataclass(frozen=True)
class Foreign:
    """A class of another library whose objects hold a Hugging Face model.

    Attributes:
        module: where the class is, once the library has been imported.
        name: of the class.
        adapter: the module here whose ``held`` takes such an object apart.
    """

    module: str
    name: str
    adapter: str

    def recognises(self, source: object) -> bool:
        """Whether an object is one; False if nobody has imported the library."""
        found = getattr(sys.modules.get(self.module), self.name, None)
        return isinstance(found, type) and isinstance(source, found)


@dataclass(frozen=True, eq=False)
class Held:
    """What was found in such an object.

    Attributes:
        hf: plain Hugging Face modules that share the object's weights.
        tokenizer: the object's tokenizer, or None.
        name: what messages call it.
        warnings: what a reader of any result should know.
    """

    hf: PreTrainedModel
    tokenizer: Any
    name: str
    warnings: tuple[str, ...] = ()


FOREIGN = (
    Foreign(
        "transformer_lens.model_bridge.transformer_bridge",
        "TransformerBridge",
        "interp.models.backends.transformer_lens",
    ),
    Foreign("nnsight.intervention.envoy", "Envoy", "interp.models.backends.nnsight"),
)


def foreign(source: object) -> Foreign | None:
    """The row of an object of another library, or None."""
    return next((row for row in FOREIGN if row.recognises(source)), None)


def held(source: object, row: Foreign) -> Held:
    """Take such an object apart; the object stays as it is.

    Raises:
        ModelError: it holds no Hugging Face model, or one that differs from its checkpoint.
    """
    return import_module(row.adapter).held(source)


def stamp(source: object, row: Foreign) -> tuple[int, ...]:
    """Which parameters such an object holds now, cheaply, so that a change is noticed.

    Raises:
        ModelError: it holds no Hugging Face model, or one that differs from its checkpoint.
    """
    return tuple(id(parameter) for parameter in import_module(row.adapter).inner(source).parameters())
