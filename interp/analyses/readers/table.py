"""The ready readers: every lens, and probes trained on states. A new one is one function and one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float

from interp.activations import Activations
from interp.analyses.concepts.trial import Trial, codebook_of, concept_tokens
from interp.analyses.readers.reader import Names, Reader
from interp.errors import ConfigError
from interp.lenses import LENSES
from interp.lenses import make as make_lens
from interp.models.model import Model
from interp.tasks.protocols import ProtocolItems
from probes import RidgeProbe

__all__ = ["READERS", "Material", "ReaderRow", "make", "reader_names"]

TOP = 5


@dataclass(frozen=True, eq=False)
class Material:
    """What a ready reader is made of: a model, and true statements that it may learn from.

    Attributes:
        model: whose states it will read; never the edited twin.
        drawn: prompts; those for training and validation may be learned from.
        layers: the blocks it shall read.
        codebook: ``embeddings`` (of the model's unembedding) or ``random``, for hypervectors.
        seed: of every fit.
        batch_size: prompts per pass.
    """

    model: Model
    drawn: ProtocolItems
    layers: tuple[int, ...]
    codebook: str = "embeddings"
    seed: int = 0
    batch_size: str | int = "auto"

    @cached_property
    def states(self) -> Activations:
        """``resid_post`` of the layers at the last token of every prompt."""
        sites = [f"resid_post.{layer}" for layer in self.layers]
        texts = [item.text for item in self.drawn.items]
        given = {"device": "cpu", "dtype": torch.float32}
        return self.model.capture(texts, sites, "last", batch_size=self.batch_size, **given)


@dataclass(frozen=True)
class ReaderRow:
    """A kind of reader.

    Attributes:
        name: what ``--reader`` takes.
        description: what it makes of a state, in a line.
        make: makes it of its material.
    """

    name: str
    description: str
    make: Callable[[Material], Reader]


def _of_lens(kind: str) -> Callable[[Material], Reader]:
    """A lens as a reader: the concepts by the logits of their first tokens."""

    def maker(material: Material) -> Reader:
        lens = make_lens(kind, material.model, layers=material.layers, seed=material.seed)
        names = material.drawn.concepts
        tokens = torch.tensor([ids[0] for ids in concept_tokens(material.model, names)])

        def read(states: Float[torch.Tensor, "example d_model"], layer: int) -> Names:
            found: list[list[str]] = []
            for part in lens.parts(len(states)):
                given = states[part].to(material.model.device, material.model.dtype)
                kept = lens.logits(given, layer).cpu()[:, tokens]
                found += [
                    [names[at] for at in row] for row in kept.topk(min(TOP, len(names))).indices.tolist()
                ]
            return found

        return Reader(kind, read, ("states", "layer"))

    return maker


def _probe(material: Material) -> Reader:
    """A Hyperdimensional Probe, trained once for each layer."""
    drawn, model = material.drawn, material.model
    codebook = codebook_of(model, drawn.concepts, material.codebook, seed=material.seed)
    trial = Trial(model, drawn, codebook, (), "linear", material.seed)
    fitted = {}

    def read(states: Float[torch.Tensor, "example d_model"], layer: int) -> Names:
        if layer not in fitted:
            fitted[layer] = trial.fit(material.states[f"resid_post.{layer}"])
        return fitted[layer].decode(states, k=TOP).names

    return Reader("probe", read, ("states", "layer"))


def _linear(material: Material) -> Reader:
    """A ridge classifier over the answers of the training part, trained once for each layer."""
    items = material.drawn.items
    rows = [row for row, item in enumerate(items) if item.part == "train"]
    answers, groups = [items[row].answer for row in rows], [items[row].fact for row in rows]
    fitted: dict[int, RidgeProbe] = {}

    def read(states: Float[torch.Tensor, "example d_model"], layer: int) -> Names:
        if layer not in fitted:
            train = material.states[f"resid_post.{layer}"][rows]
            fitted[layer] = RidgeProbe(seed=material.seed).fit(train, answers, groups=groups)
        return [[str(name)] for name in fitted[layer].predict(states)]

    return Reader("linear", read, ("states", "layer"))


READERS: dict[str, ReaderRow] = {
    "probe": ReaderRow("probe", "a Hyperdimensional Probe: a map into a space of concepts", _probe),
    "linear": ReaderRow("linear", "a ridge classifier: it can only say answers it was trained on", _linear),
}
"""Readers that are trained on true statements; every row of ``interp.lenses.LENSES`` is a reader too."""


def reader_names() -> tuple[str, ...]:
    """What ``--reader`` takes: the lenses, then ``READERS``."""
    return (*LENSES, *READERS)


def make(name: str, material: Material) -> Reader:
    """Make a ready reader.

    Args:
        name: a row of ``LENSES`` or ``READERS``.
        material: what it is made of.

    Raises:
        ConfigError: no such row.
    """
    if name in READERS:
        return READERS[name].make(material)
    if name in LENSES:
        return _of_lens(name)(material)
    raise ConfigError(f"reader {name!r} asked; there are: {', '.join(reader_names())}, and any callable.")
