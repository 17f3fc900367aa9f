"""Every reader at every layer, in one table: what needs labels, what needs none, and what needs no layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from interp.analyses.concepts.known import ask
from interp.analyses.concepts.result import labelled
from interp.analyses.concepts.trial import Trial, codebook_of, concept_tokens, embeddings, encoder_of
from interp.analyses.readers.arms import ARMS, LayerView
from interp.analyses.readers.curves import ReaderCurves, ReaderScore
from interp.errors import ConfigError
from interp.lenses.gathering import states_of
from interp.lenses.translator import TranslatorLens
from interp.models.loading import ModelLike, as_model
from interp.models.readout import Readout
from interp.results import About
from interp.sites import parse_layers
from interp.tasks.protocols import PROTOCOLS
from interp.tasks.world import World
from probes.statistics import bootstrap, paired_difference
from probes.translation import Moments

__all__ = ["compare_readers"]


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
        readers: keys of ``ARMS``; all where left out.
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
    for name in readers or ():
        if name not in ARMS:
            raise ConfigError(f"reader {name!r} asked; there are: {', '.join(ARMS)}.")
    text = layers if isinstance(layers, str | int) else ",".join(map(str, layers))
    chosen = parse_layers(text, model.n_layers, name=model.name, kind="resid_post")
    drawn, known = row.items(seed=seed, world=world, sizes=sizes), None
    if row.asked == "answers":
        drawn, known = ask(model, drawn, seed=seed, batch_size=batch_size)
    codebook = codebook_of(model, drawn.concepts, row.codebook, seed=seed)
    tokens = model.tokenize([item.text for item in drawn.items]).token_ids
    trial = Trial(model, drawn, codebook, tokens, encoder_of(codebook), seed)
    names = [*(ARMS if readers is None else readers)]
    if "translator-text" in names:
        TranslatorLens.of(
            model, chosen
        )  # one pass over the text fits all layers; each is read from the cache
    scores = _scores(trial, chosen, names, progress)
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
        facts=tuple(trial.facts),
        known=known,
        warnings=tuple(filter(None, (*drawn.notes, trial.alike))),
    )


def _scores(
    trial: Trial, layers: Sequence[int], names: Sequence[str], progress: bool
) -> tuple[ReaderScore, ...]:
    """Every reader at every layer, each beside the logit lens of its layer."""
    views, found = _views(trial, layers), list[ReaderScore]()
    for layer in tqdm(layers, desc="layers", disable=not progress):
        lens = trial.right(ARMS["logit-lens"].read(views[layer]))
        for name in names:
            arm = ARMS[name]
            if arm.layered or layer == layers[0]:
                right = lens if name == "logit-lens" else trial.right(arm.read(views[layer]))
                found.append(_score(trial, name, layer if arm.layered else None, right, lens))
    return tuple(found)


def _score(trial: Trial, name: str, layer: int | None, right: np.ndarray, lens: np.ndarray) -> ReaderScore:
    given: Any = {"groups": trial.facts, "seed": trial.seed}
    over = (
        None
        if name == "logit-lens" or layer is None
        else paired_difference(right, lens, support="share", **given)
    )
    return ReaderScore(name, layer, bootstrap(right, **given), over, tuple(bool(one) for one in right))


def _views(trial: Trial, layers: Sequence[int]) -> Mapping[int, LayerView]:
    """One pass: every prompt's state at its last token, and the moments of all tokens of training prompts."""
    model, last = trial.model, trial.model.n_layers - 1
    readout = Readout.precise(model.architecture)
    n, width = len(trial.token_ids), model.d_model
    states = {layer: torch.zeros(n, width) for layer in layers}
    parts = {part: torch.zeros(n, dtype=torch.bool) for part in ("train", "validation")}
    for part, rows in parts.items():
        rows[trial.rows(part)] = True
    moments = {(part, layer): Moments(width, width) for part in parts for layer in layers if layer < last}
    for some in states_of(model, [*layers, last], [tuple(ids) for ids in trial.token_ids]):
        finals = readout.normed(some.layers[last].to(readout.architecture.device, readout.dtype)).cpu()
        ends = torch.cat([some.texts[1:] != some.texts[:-1], torch.tensor([True])])
        for layer in layers:
            here = some.layers[layer].float().cpu()
            states[layer][some.texts[ends]] = here[ends]
            for part, rows in parts.items():
                kept = rows[some.texts]
                if layer < last and kept.any():
                    moments[part, layer].add(here[kept], finals[kept])
    tokens = concept_tokens(model, trial.codebook.names)
    rows, first = embeddings(model, tokens), tuple(ids[0] for ids in tokens)
    return {
        layer: LayerView(
            trial,
            layer,
            states[layer],
            (moments["train", layer], moments["validation", layer]) if layer < last else None,
            readout,
            first,
            rows,
        )
        for layer in layers
    }
