"""What a Hyperdimensional Probe reads at the last token of one prompt, beside what the model says next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from interp.analyses.concepts.trial import trained_probe
from interp.errors import ConfigError, counted
from interp.lenses.words import shown, words_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About, Number, Result, Table
from interp.sites import parse_layers
from probes.hyperdimensional import HyperdimensionalProbe

__all__ = ["LAYER", "DecodeResult", "Named", "decode", "next_tokens", "one_layer"]

LAYER = "85%"
"""The layer that is read where none is given: layer 20 of the bundled model."""
BELOW = "95% of validation states with exchanged coordinates stay below"


@dataclass(frozen=True)
class Named:
    """A concept with its similarity (-1 to 1), or a token with its probability."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DecodeResult(Result):
    """The concepts read at the last token of a prompt, best first.

    Attributes:
        prompt: what was read.
        layer: whose ``resid_post``.
        concepts: the most similar ones.
        threshold: similarity below which nothing is claimed.
        unfamiliar: whether the state is unlike those that the probe was trained on: then nothing is claimed.
        tokens: the model's own likeliest next tokens.
    """

    schema: ClassVar[str] = "interp.decode/1"
    prompt: str
    layer: int
    concepts: tuple[Named, ...]
    threshold: float
    unfamiliar: bool
    tokens: tuple[Named, ...]

    @property
    def claimed(self) -> tuple[Named, ...]:
        """The concepts that the probe claims: none where it abstains."""
        return () if self.unfamiliar else tuple(one for one in self.concepts if one.value >= self.threshold)

    def question(self) -> str:
        """What is asked of the prompt."""
        return f"Which concepts does layer {self.layer} hold at the last token of \u201c{self.prompt}\u201d?"

    def verdict(self) -> str:
        """The best concept, or why none is claimed; and the model's next token."""
        best, said = self.concepts[0], self.tokens[0]
        read = f"{best.name} (similarity {best.value:.3f})"
        if self.unfamiliar:
            read = f"nothing is claimed, since the state is unlike those of training; the best is {read}"
        elif not self.claimed:
            read = f"nothing is claimed, since {read} is below the threshold of {self.threshold:.3f}"
        return f"Read: {read}. The model's own next token: {said.name} (probability {said.value:.3f})."

    def numbers(self) -> tuple[Number, ...]:
        """The similarity of the best concept, and what it has to reach."""
        return (
            Number("similarity", self.concepts[0].value, meaning=f"of {self.concepts[0].name}"),
            Number(
                "threshold",
                self.threshold,
                meaning=BELOW,
            ),
        )

    def tables(self) -> tuple[Table, ...]:
        """The concepts, and the model's own next tokens."""
        rows = [(one.name, one.value, one in self.claimed) for one in self.concepts]
        said = [(one.name, one.value) for one in self.tokens]
        note = f"Claimed from a similarity of {self.threshold:.3f} on: {BELOW}."
        return (
            Table("concepts", "Concepts read", ("concept", "similarity", "claimed"), rows, note),
            Table("tokens", "The model's own next token", ("token", "probability"), said),
        )


def decode(
    model: ModelLike,
    prompt: str,
    *,
    layer: int | str = LAYER,
    probe: HyperdimensionalProbe | None = None,
    top: int = 5,
    seed: int = 0,
) -> DecodeResult:
    """Read concepts out of the last token of a prompt, without knowing what is right.

    Args:
        model: what is read.
        prompt: the text.
        layer: whose ``resid_post``, in the grammar of layers.
        probe: of that layer; one of the protocol ``concept-disjoint`` is trained where left out.
        top: how many concepts, and how many next tokens.
        seed: of the training.

    Raises:
        SiteError: no such layer.
        ConfigError: several layers.
    """
    model = as_model(model)
    at = one_layer(model, layer)
    probe = trained_probe(model, at, seed=seed) if probe is None else probe
    site = f"resid_post.{at}"
    state = model.capture([prompt], [site], "last", device="cpu", dtype=torch.float32)[site]
    read = probe.decode(state, k=top)
    return DecodeResult(
        about=About(model.described),
        seed=seed,
        prompt=prompt,
        layer=at,
        concepts=tuple(Named(name, float(value)) for name, value in read[0]),
        threshold=float(read.threshold),
        unfamiliar=read.unfamiliar is not None and bool(read.unfamiliar[0]),
        tokens=next_tokens(model, prompt, top),
    )


def one_layer(model: Model, layer: int | str) -> int:
    """The layer that is meant.

    Raises:
        SiteError: no such layer.
        ConfigError: several layers.
    """
    layers = parse_layers(layer, model.n_layers, name=model.name, kind="resid_post")
    if len(layers) != 1:
        raise ConfigError(f"--layer {layer!r} names {counted(len(layers), 'layer')}; decode reads one.")
    return layers[0]


def next_tokens(model: Model, prompt: str, k: int) -> tuple[Named, ...]:
    """The model's own likeliest next tokens."""
    assert model.tokenizer is not None
    chances = torch.softmax(model.logits([prompt])[0], dim=0)
    values, tokens = chances.topk(min(k, len(chances)))
    texts = map(shown, words_of(model, tokens.tolist()))
    return tuple(Named(text, value) for text, value in zip(texts, values.tolist(), strict=True))
