"""The translator: each layer's state mapped to the model's own final state, fitted without a label.

Like the tuned lens (Belrose et al. 2023, arXiv 2303.08112) it learns an affine map per layer from the
model's own outputs. Unlike it, the map aims at the final state after the norm, which is what the unembedding
multiplies, by least squares: that has a closed form, and one pass over the texts fits every layer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import DataError
from interp.lenses.base import Lens
from interp.lenses.texts import LENGTH, TOKENS, Ids, Texts, prepared
from interp.models.gguf import alone, cache
from interp.models.model import Model
from interp.models.readout import Readout
from interp.results import read_json, write_json
from probes.cards import ProbeFileError
from probes.statistics import bootstrap
from probes.translation import Moments, Translator, fit_translator

__all__ = ["Gathered", "States", "TranslatorLens", "fitted", "gathered", "states_of"]

VERSION = 1
"""Of what is kept in the cache."""
FIRST = 1
"""The first position that is learned from: states of a text's first token are of another kind (sinks)."""
BYTES = 1 << 28
"""Of the states that are held at once."""
MEMORY = 1 << 32
"""Of the moments that are held at once; more layers take more passes."""
KEPT = 1024
"""Held-out states of each layer that are kept, to measure agreement."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TranslatorLens(Lens):
    """What the model is about to say, read by a linear map to its own final state.

    Attributes:
        readout: the model's final norm and head.
        layers: the blocks it reads; after the last one it gives the model's own logits.
        translators: of each block but the last.
        fitted_on: what they were fitted on.
    """

    kind: ClassVar[str] = "translator"

    readout: Readout
    layers: tuple[int, ...]
    translators: Mapping[int, Translator]
    fitted_on: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: Model,
        layers: Sequence[int] | None = None,
        texts: Sequence[str] | None = None,
        seed: int = 0,
    ) -> TranslatorLens:
        """The translator of a model, fitted where this was not done yet; kept in the user's cache.

        Args:
            model: whose states it will read.
            layers: the blocks to read; None for all.
            texts: to learn from beside those that are drawn from the model, for example prompts of a task.
            seed: of the draws.

        Raises:
            SiteError: the model's final norm is unknown.
            DataError: one text alone, or texts that do not fit the model.
            ConfigError: the cache cannot be written.
        """
        chosen = tuple(range(model.n_layers) if layers is None else layers)
        folder = _folder(model, texts or (), seed)
        wanted = [layer for layer in chosen if layer < model.n_layers - 1]
        with alone(folder.with_suffix(".lock")):
            missing = [layer for layer in wanted if not (_place(folder, layer) / "translator.json").is_file()]
            if missing:
                _log.info("fitting a translator for layers %s; it is kept in %s", missing, folder)
                _keep(fitted(model, missing, _texts(folder, model, texts, seed)), folder)
            found = {layer: _read(_place(folder, layer)) for layer in wanted}
            facts = read_json(folder / "texts.json")["card"] if wanted else {}
        return cls(Readout.precise(model.architecture), chosen, found, facts)

    @property
    def vocab_size(self) -> int:
        """How many tokens the model tells apart."""
        return self.readout.vocab_size

    @torch.no_grad()
    def final_states(
        self, states: Float[Tensor, "*batch d_model"], layer: int
    ) -> Float[Tensor, "*batch d_model"]:
        """The final states (after the norm) that states of a layer are translated to, in float32 or better.

        Args:
            states: of ``resid_post.layer``.
            layer: which block.

        Raises:
            SiteError: the lens does not read this layer.
        """
        self.check(layer)
        home, dtype = self.readout.architecture.device, self.readout.dtype
        if layer in self.translators:
            return self.translators[layer](states.to(home, dtype))
        return self.readout.normed(states.to(home, dtype))

    @torch.no_grad()
    def logits(self, states: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch vocab"]:
        """The logits of the final states that states of a layer are translated to.

        Args:
            states: of ``resid_post.layer``.
            layer: which block.

        Raises:
            SiteError: the lens does not read this layer.
        """
        return self.readout.of_normed(self.final_states(states, layer)).float()

    def card(self) -> dict[str, Any]:
        """Kind, layers, the texts, and for each layer the penalty, the explained variance and agreement."""
        rows = {
            str(layer): {"penalty": one.penalty, "explained": one.score, **one.card}
            for layer, one in self.translators.items()
        }
        known = {"kind": self.kind, "layers": list(self.layers)}
        return {**known, "fitted_on": dict(self.fitted_on), "translators": rows}


def fitted(model: Model, layers: Sequence[int], texts: Texts) -> TranslatorLens:
    """Fit translators of several layers in one pass over the texts.

    One pass gathers the moments of all layers whose moments fit ``MEMORY``; others take further passes. Every
    translator's card says how often it names the model's own next token on held-out states, beside the logit
    lens, and what always naming the commonest of them reaches, with 95% intervals.

    Args:
        model: whose states.
        layers: the blocks, without the last.
        texts: to learn from, and to choose the penalty on.

    Raises:
        DataError: texts of one token alone.
    """
    readout, found = Readout.precise(model.architecture), {}
    step = max(1, MEMORY // (4 * model.d_model**2 * 8))
    for start in range(0, len(layers), step):
        part = list(layers[start : start + step])
        train = gathered(model, part, texts.train, readout)
        held_out = gathered(model, part, texts.held_out, readout, keep=KEPT)
        for layer in part:
            translator = fit_translator(train.moments[layer], held_out.moments[layer])
            facts = {
                "train_states": train.moments[layer].count,
                "held_out_states": held_out.moments[layer].count,
                "agreement": _agreement(translator, readout, held_out.kept, layer),
            }
            found[layer] = translator.described(facts)
    return TranslatorLens(readout, tuple(layers), found, texts.card())


@dataclass(frozen=True, eq=False)
class States:
    """States of some texts at every position but the first.

    Attributes:
        layers: per layer ``[example d_model]``.
        texts: of which text each is.
    """

    layers: Mapping[int, Float[Tensor, "example d_model"]]
    texts: Int[Tensor, " example"]

    def thinned(self, start: int, step: int) -> States:
        """Every so many of them."""
        return States(
            {layer: one[start::step].clone() for layer, one in self.layers.items()}, self.texts[start::step]
        )


@dataclass(frozen=True, eq=False)
class Gathered:
    """What one pass over texts leaves.

    Attributes:
        moments: per layer, of its states with the final states.
        kept: some of the states, evenly spread, the last block's too; empty where none were asked for.
    """

    moments: Mapping[int, Moments]
    kept: tuple[States, ...]


def gathered(
    model: Model, layers: Sequence[int], texts: Sequence[Ids], readout: Readout, *, keep: int = 0
) -> Gathered:
    """The moments of each layer's states with the final states, from one pass over texts.

    Args:
        model: whose states.
        layers: which blocks.
        texts: their ids; states of first tokens are left out.
        readout: of the model.
        keep: about how many states to keep.

    Raises:
        DataError: texts of one token alone.
    """
    last = model.n_layers - 1
    home = model.device if model.device.type == "cuda" else torch.device("cpu")
    moments = {layer: Moments(model.d_model, model.d_model, device=home) for layer in layers}
    total = sum(max(0, len(ids) - FIRST) for ids in texts)
    if not total:
        raise DataError("every text for a lens has one token alone; give longer ones.")
    step, seen, kept = max(1, -(-total // max(1, keep))), 0, []
    for states in states_of(model, [*layers, last], texts):
        targets = readout.normed(states.layers[last].to(readout.architecture.device, readout.dtype))
        for layer, one in moments.items():
            one.add(states.layers[layer], targets)
        if keep:
            kept.append(states.thinned(-seen % step, step))
        seen += len(targets)
    return Gathered(moments, tuple(kept))


@torch.no_grad()
def states_of(model: Model, layers: Sequence[int], texts: Sequence[Ids]) -> Iterator[States]:
    """States after blocks at every position of texts but the first, a bounded number at a time.

    Args:
        model: whose states.
        layers: which blocks; the pass ends after the deepest.
        texts: their ids.
    """
    sites = {layer: f"resid_post.{layer}" for layer in dict.fromkeys(layers)}
    order = sorted(
        (row for row in range(len(texts)) if len(texts[row]) > FIRST), key=lambda row: len(texts[row])
    )
    each = model.d_model * len(sites) * max(4, torch.finfo(model.dtype).bits // 8)
    while order:
        step = max(1, BYTES // (each * len(texts[order[-1]])))
        part, order = order[-step:], order[:-step]
        found = model.capture([list(texts[row]) for row in part], list(sites.values()), "all")
        inside = torch.zeros(len(part), len(texts[part[-1]]), dtype=torch.bool)
        for place, row in enumerate(part):
            inside[place, FIRST : len(texts[row])] = True
        numbers = torch.tensor(part)[:, None].expand(inside.shape)[inside]
        yield States(
            {layer: found[site][inside.to(found[site].device)] for layer, site in sites.items()}, numbers
        )


@torch.no_grad()
def _agreement(
    translator: Translator, readout: Readout, kept: Sequence[States], layer: int
) -> dict[str, Any]:
    """How often the model's own next token is named, by the translator and by two that need no fitting."""
    last, rows = max(kept[0].layers), []
    for block in kept:
        for part in readout.parts(len(block.texts)):
            states = block.layers[layer][part].to(readout.architecture.device, readout.dtype)
            read = readout.of_normed(translator(states)), readout.logits(states)
            own = readout.logits(block.layers[last][part])
            rows.append(torch.stack([one.argmax(dim=-1).cpu() for one in (own, *read)]))
    own, read, raw = torch.cat(rows, dim=1)
    texts = torch.cat([block.texts for block in kept]).tolist()
    arms = {
        "translator": read,
        "logit lens": raw,
        "commonest token": torch.full_like(own, int(own.mode().values)),
    }
    return {
        name: bootstrap((one == own).double().numpy(), groups=texts).to_dict() for name, one in arms.items()
    }


def _folder(model: Model, texts: Sequence[str], seed: int) -> Path:
    """Where translators of a model are kept that are fitted on the same texts."""
    settings = json.dumps([VERSION, TOKENS, LENGTH, FIRST, seed, list(texts)])
    digest = hashlib.sha256(
        f"{model.fingerprint}|{model.tokenizer_fingerprint}|{settings}".encode()
    ).hexdigest()
    return cache() / "translators" / digest[:32]


def _place(folder: Path, layer: int) -> Path:
    return folder / f"resid_post.{layer}"


def _texts(folder: Path, model: Model, texts: Sequence[str] | None, seed: int) -> Texts:
    """The texts of a folder; drawn, and kept there, where they are not there yet."""
    path = folder / "texts.json"
    if path.is_file():
        record = read_json(path)
        rows = [tuple(tuple(ids) for ids in record[part]) for part in ("train", "held_out")]
        card = record["card"]
        return Texts(rows[0], rows[1], card["drawn"], card["given"], card["seed"])
    found = prepared(model, texts, n_tokens=TOKENS, length=LENGTH, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "card": {**found.card(), "model": model.described},
        "train": found.train,
        "held_out": found.held_out,
    }
    write_json(record, path)
    return found


def _keep(lens: TranslatorLens, folder: Path) -> None:
    """Write every translator into its own folder, each all or nothing."""
    for layer, translator in lens.translators.items():
        made = Path(tempfile.mkdtemp(dir=folder, prefix=".making-"))
        try:
            translator.save(made)
            shutil.rmtree(_place(folder, layer), ignore_errors=True)
            made.replace(_place(folder, layer))
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _read(place: Path) -> Translator:
    """A kept translator.

    Raises:
        DataError: its files are damaged; the message says what to remove.
    """
    try:
        return Translator.load(place)
    except ProbeFileError as error:
        raise DataError(f"{error} Remove the folder {place}, and it is fitted again.") from error
