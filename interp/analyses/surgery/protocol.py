"""Concept surgery under a protocol: its prompts, what the model knows of them, and a writer at the layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from interp.analyses.concepts.known import ask, protocol_of
from interp.analyses.concepts.records import record_codebook, record_of
from interp.analyses.concepts.trial import Trial, codebook_of, encoder_of
from interp.analyses.surgery.result import Surgery
from interp.analyses.surgery.run import surgery
from interp.analyses.surgery.swaps import Role, Swap, part_of, swaps_of
from interp.analyses.surgery.writers import ProbeWriter, TranslatorWriter, Writer
from interp.errors import ConfigError, DataError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.tasks.items import Item, Part, ProtocolItems
from interp.tasks.protocols import PROTOCOLS, Protocol
from interp.tasks.world import World
from probes import HyperdimensionalProbe

__all__ = ["WRITERS", "WRITTEN", "surgery_under"]

WRITTEN: tuple[Role, ...] = ("answer", "subject")
"""The roles of a record that are words, so that they can be exchanged."""
DIMENSION = 4096
REDRAWN, SAYINGS = 4, 4
"""So often a protocol is drawn again for other prompts of the facts; so many of them for each concept."""


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


def _records(model: Model, drawn: ProtocolItems, layer: int, seed: int, role: Role) -> Writer:
    """A probe of records (subject, relation, answer) of the training prompts, which writes one role."""
    parts = {part: [item for item in drawn.part(part) if item.subject] for part in ("train", "validation")}
    relations = sorted({item.relation for rows in parts.values() for item in rows})
    book = record_codebook(model, drawn.concepts, relations, dimension=DIMENSION, seed=seed)
    site, known = f"resid_post.{layer}", set(drawn.concepts)
    taught: list[tuple[torch.Tensor, Any]] = []
    for rows in parts.values():
        kept = [item for item in rows if item.subject in known]
        if not kept:
            raise DataError(
                f"no prompt of the protocol has a subject among its {len(known):,} concepts, so that no role "
                "can be written; take --protocol concept-disjoint or known-relations."
            )
        texts = [item.text for item in kept]
        states = model.capture(texts, [site], "last", device="cpu", dtype=torch.float32)[site]
        records = [record_of(item.subject or "", item.relation, item.answer) for item in kept]
        taught.append((states, book.records(records)))
    probe = HyperdimensionalProbe(book, encoder="embedding", seed=seed)
    return ProbeWriter(probe.fit(*taught[0], validation=taught[1]), role)


WRITERS: dict[str, WriterRow] = {
    "translator": WriterRow("a map to the model's own final state, without labels", _translator),
    "probe": WriterRow(
        "a Hyperdimensional Probe, trained on the protocol's training prompts", _probe, ("test",)
    ),
}


def surgery_under(
    model: ModelLike,
    protocol: str | None = None,
    *,
    layer: int,
    writer: str = "translator",
    role: Role | None = None,
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
        role: ``answer`` or ``subject``: what a probe of records exchanges (writer ``probe``); after the
            subject the answer should follow. None for bare concepts.
        n: swaps, at most.
        sizes: prompts for training, validation and test; the protocol's own where left out.
        world: the facts; the protocol's own where left out.
        seed: of every draw.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown protocol, writer or role, or a protocol of random codes.
        DataError: the model answers too few prompts right.
    """
    model = as_model(model)
    name = protocol or protocol_of(model)
    if name not in PROTOCOLS or PROTOCOLS[name].codebook == "random":
        known = ", ".join(key for key, one in PROTOCOLS.items() if one.codebook != "random")
        raise ConfigError(f"protocol {name!r} asked; concepts can be written under: {known}.")
    if writer not in WRITERS:
        raise ConfigError(f"writer {writer!r} asked; there are: {', '.join(WRITERS)}.")
    if role is not None and (role not in WRITTEN or writer != "probe"):
        raise ConfigError(
            f"role {role!r} of writer {writer!r} asked; the writer probe has {' and '.join(WRITTEN)}."
        )
    row = PROTOCOLS[name]
    drawn = row.items(seed=seed, world=world, sizes=sizes)
    if row.asked != "all":
        drawn, *_ = ask(model, drawn, seed=seed)
    items = [item for item in drawn.items if item.part in WRITERS[writer].edited]
    if role is not None:
        items = [item for item in items if part_of(item, role) in set(drawn.concepts)]
    swaps = swaps_of(model, items, n=n, seed=seed, role=role or "answer", known=row.asked != "all")
    if role is None:
        made = WRITERS[writer].make(model, drawn, layer, seed)
    else:
        made = _records(model, drawn, layer, seed, role)
    others = _others(row, swaps, world, seed)
    given: dict[str, Any] = {"seed": seed, "progress": progress}
    return surgery(model, made, items, layer=layer, swaps=swaps, others=others, **given)


def _others(row: Protocol, swaps: Sequence[Swap], world: World | None, seed: int) -> list[Item]:
    """The facts of the swaps and others with their concepts in other words and with other examples."""
    wanted = Counter(dict.fromkeys((name for swap in swaps for name in swap.pair), SAYINGS))
    found: dict[str, Item] = {}
    for draw in range(1, REDRAWN + 1):
        for item in row.items(seed=seed + draw, world=world).items:
            name = part_of(item, swaps[0].role)
            if wanted[name] > 0 and item.text not in found:
                found[item.text] = item
                wanted[name] -= 1
    return list(found.values())
