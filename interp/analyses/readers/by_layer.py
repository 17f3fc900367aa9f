"""Every reader at every layer, in one table: what needs labels, what needs none, and what needs no layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from interp.analyses.concepts.known import ask
from interp.analyses.concepts.result import labelled
from interp.analyses.concepts.trial import one_first_token
from interp.analyses.readers.curves import LENS, ReaderCurves, ReaderScore
from interp.analyses.readers.material import Material
from interp.analyses.readers.reader import Reader
from interp.analyses.readers.table import READERS, make, of_all
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.results import About
from interp.sites import parse_layers
from interp.tasks.protocols import PROTOCOLS
from interp.tasks.world import World
from probes.statistics import bootstrap, paired_difference

__all__ = ["compare_readers"]

PARTS = ("validation", "test")


def compare_readers(
    model: ModelLike,
    protocol: str = "known-relations",
    *,
    layers: str | int | Sequence[int] = "all",
    readers: Collection[str] | None = None,
    seed: int = 0,
    sizes: tuple[int, int, int] | None = None,
    world: World | None = None,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> ReaderCurves:
    """Read the test prompts of a protocol by several readers at several layers, on one pass of the model.

    Args:
        model: what is read.
        protocol: a key of ``interp.tasks.protocols.PROTOCOLS``; one whose concepts have embeddings.
        layers: which blocks' ``resid_post``.
        readers: keys of ``READERS``; all that are fitted quickly where left out.
        seed: of the prompts, every fit and the intervals.
        sizes: prompts for training, validation and test, at most.
        world: the facts; the bundled ones where left out.
        batch_size: of the prompts that are asked; "auto" chooses.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown protocol or reader, or a protocol whose concepts have no embeddings.
        SiteError: a layer the model does not have.
        DataError: the model answers too few of the prompts right, where it is asked first.
    """
    model = as_model(model)
    row = PROTOCOLS.get(protocol)
    if row is None or row.codebook != "embeddings":
        usable = ", ".join(name for name, one in PROTOCOLS.items() if one.codebook == "embeddings")
        raise ConfigError(f"protocol {protocol!r} asked; readers are compared under: {usable}.")
    names = of_all() if readers is None else tuple(dict.fromkeys(readers))
    for name in names:
        if name not in READERS:
            raise ConfigError(f"reader {name!r} asked; there are: {', '.join(READERS)}.")
    text = layers if isinstance(layers, str | int) else ",".join(map(str, layers))
    chosen = tuple(parse_layers(text, model.n_layers, name=model.name, kind="resid_post"))
    drawn, known, passed = row.items(seed=seed, world=world, sizes=sizes), None, None
    if row.asked == "answers":
        drawn, known, passed = ask(model, drawn, chosen, seed=seed, batch_size=batch_size)
    material = Material(model, drawn, chosen, row.codebook, seed, batch_size, passed)
    scores = _scores(material, names, progress)
    data = labelled(row, drawn.items)
    facts = {
        "name": data.name,
        "n": len(data),
        "groups": len(set(data.groups)),
        "fingerprint": data.fingerprint,
    }
    return ReaderCurves(
        about=About(model.described, facts),
        seed=seed,
        protocol=row.name,
        scores=scores,
        facts=tuple(_facts(material, "test")),
        known=known,
        warnings=tuple(filter(None, (*drawn.notes, one_first_token(material.names)))),
    )


def _scores(material: Material, names: Sequence[str], progress: bool) -> tuple[ReaderScore, ...]:
    """Every reader at every layer, each beside the logit lens of its layer."""
    made = {name: make(name, material) for name in dict.fromkeys((LENS, *names))}
    found: list[ReaderScore] = []
    for layer in tqdm(material.layers, desc="layers", disable=not progress):
        lens = {part: _right(material, made[LENS], layer, part) for part in PARTS}
        for name in names:
            if READERS[name].layered or layer == material.layers[0]:
                read = {part: _right(material, made[name], layer, part) for part in PARTS}
                found.append(_score(material, name, layer, read, lens))
    return tuple(found)


def _right(material: Material, reader: Reader, layer: int, part: str) -> np.ndarray:
    """1 for each prompt of a part whose answer is read first."""
    rows = material.part(part)
    items = [material.drawn.items[row] for row in rows]
    read = reader.first(material.seen.states[layer][rows], [item.text for item in items], layer)
    return np.array([int(name == item.answer) for name, item in zip(read, items, strict=True)])


def _facts(material: Material, part: str) -> list[str]:
    return [material.drawn.items[row].fact for row in material.part(part)]


def _score(
    material: Material, name: str, layer: int, read: Mapping[str, np.ndarray], lens: Mapping[str, np.ndarray]
) -> ReaderScore:
    given: Any = {"groups": _facts(material, "test"), "seed": material.seed}
    right, held, layered = read["test"], read["validation"], READERS[name].layered
    compared = layered and name != LENS
    return ReaderScore(
        name,
        layer if layered else None,
        bootstrap(right, **given),
        paired_difference(right, lens["test"], support="share", **given) if compared else None,
        tuple(bool(one) for one in right),
        float(held.mean()),
        float(held.mean() - lens["validation"].mean()),
    )
