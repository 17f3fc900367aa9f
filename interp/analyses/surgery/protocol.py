"""Concept surgery under a protocol: its prompts, what the model knows of them, and a writer at the layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from interp.analyses.concepts.known import ask
from interp.analyses.concepts.trial import Trial, codebook_of, encoder_of
from interp.analyses.surgery.result import Surgery
from interp.analyses.surgery.run import surgery
from interp.analyses.surgery.swaps import swaps_of
from interp.analyses.surgery.writers import ProbeWriter, TranslatorWriter, Writer
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.tasks.items import Part, ProtocolItems
from interp.tasks.protocols import PROTOCOLS
from interp.tasks.world import World

__all__ = ["WRITERS", "protocol_of", "surgery_under"]


@dataclass(frozen=True)
class WriterRow:
    """A way to read and write concepts.

    Attributes:
        description: one line.
        make: from model, prompts, layer and seed to the writer.
        edited: which prompts may be edited: all parts, or those that it was not trained on.
    """

    description: str
    make: Callable[[Model, ProtocolItems, int, int], Writer]
    edited: tuple[Part, ...] = ("train", "validation", "test")


def _translator(model: Model, drawn: ProtocolItems, layer: int, seed: int) -> Writer:
    """It learned from none of the prompts."""
    return TranslatorWriter.of(model, layer, [item.answer for item in drawn.items], seed=seed)


def _probe(model: Model, drawn: ProtocolItems, layer: int, seed: int) -> Writer:
    tokens, site = model.tokenize([item.text for item in drawn.items]), f"resid_post.{layer}"
    states = model.capture(tokens, [site], "last", device="cpu", dtype=torch.float32)[site]
    codebook = codebook_of(model, drawn.concepts, "embeddings", seed=seed)
    trial = Trial(model, drawn, codebook, tokens.token_ids, encoder_of(codebook), seed)
    return ProbeWriter(trial.fit(states))


WRITERS: dict[str, WriterRow] = {
    "translator": WriterRow("a map to the model's own final state, without labels", _translator),
    "probe": WriterRow(
        "a Hyperdimensional Probe, trained on the protocol's training prompts", _probe, ("test",)
    ),
}


def protocol_of(model: Model) -> str:
    """The protocol that suits a model: for one that is not bundled, prompts in the form ``a -> b``."""
    return "concept-disjoint" if model.name == "demo" else "known-relations"


def surgery_under(
    model: ModelLike,
    protocol: str | None = None,
    *,
    layer: int,
    writer: str = "translator",
    n: int = 100,
    sizes: tuple[int, int, int] | None = None,
    world: World | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Surgery:
    """Exchange concepts in the prompts of a protocol: see :func:`surgery`.

    Args:
        model: what is edited.
        protocol: a key of ``PROTOCOLS`` whose codebook is made of embeddings; one that suits the model where
            left out.
        layer: the block after which states are edited.
        writer: a key of ``WRITERS``.
        n: swaps, at most.
        sizes: prompts for training, validation and test; the protocol's own where left out.
        world: the facts; the protocol's own where left out.
        seed: of every draw.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown protocol or writer, or a protocol of random codes.
        DataError: the model answers too few prompts right.
    """
    model = as_model(model)
    name = protocol or protocol_of(model)
    if name not in PROTOCOLS or PROTOCOLS[name].codebook == "random":
        known = ", ".join(key for key, one in PROTOCOLS.items() if one.codebook != "random")
        raise ConfigError(f"protocol {name!r} asked; concepts can be written under: {known}.")
    if writer not in WRITERS:
        raise ConfigError(f"writer {writer!r} asked; there are: {', '.join(WRITERS)}.")
    row = PROTOCOLS[name]
    drawn = row.items(seed=seed, world=world, sizes=sizes)
    if row.asked != "all":
        drawn, _ = ask(model, drawn, seed=seed)
    items = [item for item in drawn.items if item.part in WRITERS[writer].edited]
    swaps = swaps_of(model, items, n=n, seed=seed)
    made = WRITERS[writer].make(model, drawn, layer, seed)
    return surgery(model, made, items, layer=layer, swaps=swaps, seed=seed, progress=progress)
