"""One prompt under a lens: which word every state stands for, layer by layer and token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import DataError
from interp.lenses.base import Lens, without_text
from interp.lenses.reading import read_states
from interp.lenses.table import LENSES, make
from interp.lenses.words import words_of
from interp.models.loading import ModelLike, as_model
from interp.results import About, Figure, Number, Result, Table
from interp.sites import parse_layers

__all__ = ["LensView", "view"]

ROWS = 10
"""Layers in the table of the last token: what fits a terminal."""
COLUMNS = 32
"""Tokens in the picture: the last ones of a longer prompt."""
SHOWN = 80
"""Letters of the prompt in the question: the last ones of a longer one."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LensView(Result):
    """What a lens reads after each block at each token of one prompt.

    Attributes:
        kind: of the lens.
        prompt: its text; "" where ids were given and there is no tokenizer.
        layers: that were read, in order.
        n_layers: blocks of the model.
        tokens: of the prompt, as words.
        answers: the model's own likeliest next word at each token.
        answer_probability: its probability, by the model itself.
        words: of each layer, the likeliest word at each token.
        probability: of that word, by the lens.
        read_probability: of the model's own answer, by the lens.
        rank: of the model's own answer among all words; 1 is the likeliest.
        kl: divergence of the lens from the model's own output (nats).
        card: what the lens was made of.
    """

    schema: ClassVar[str] = "interp.lens-view/1"

    kind: str
    prompt: str
    layers: tuple[int, ...]
    n_layers: int
    tokens: tuple[str, ...]
    answers: tuple[str, ...]
    answer_probability: Float[np.ndarray, " pos"]
    words: tuple[tuple[str, ...], ...]
    probability: Float[np.ndarray, "layer pos"]
    read_probability: Float[np.ndarray, "layer pos"]
    rank: Int[np.ndarray, "layer pos"]
    kl: Float[np.ndarray, "layer pos"]
    card: Mapping[str, Any] = field(default_factory=dict)

    def settled(self, position: int = -1) -> int | None:
        """The layer from which on the model's own answer is first in all that were read; None for nowhere."""
        wrong = np.flatnonzero(self.rank[:, position] > 1)
        start = int(wrong[-1]) + 1 if len(wrong) else 0
        return self.layers[start] if start < len(self.layers) else None

    def redacted(self) -> LensView:
        """The same without the prompt and without the words that a lens reads in it."""
        none = ("",) * len(self.tokens)
        bare = replace(self, prompt="", tokens=none, answers=none, card=without_text(self.card))
        return replace(bare, words=(none,) * len(self.layers))

    def question(self) -> str:
        """What is asked of the prompt."""
        end = self.prompt if len(self.prompt) <= SHOWN else f"\u2026{self.prompt[1 - SHOWN :]}"
        return f"From which layer on can the model's next word be read, after \u201c{end}\u201d?"

    def verdict(self) -> str:
        """What the model answers, and from which layer on the lens has it first."""
        first, last = self.settled(), self.layers[-1]
        said = (
            f"The model's next word is {self.answers[-1]!r} (probability {self.answer_probability[-1]:.2f})."
        )
        name = f"The {self.kind} lens"
        if first is None:
            return f"{said} {name} has it first at no layer that reaches layer {last}, the last one read."
        if first == self.layers[0]:
            return f"{said} {name} has it first at every layer read, from layer {first} on."
        before = self.layers[self.layers.index(first) - 1]
        place = int(self.rank[self.layers.index(before), -1])
        return (
            f"{said} {name} has it first from layer {first} of 0 to {self.n_layers - 1} on; "
            f"at layer {before} it is in place {place:,}."
        )

    def lead(self) -> tuple[str, ...]:
        """What was read, and how."""
        row = LENSES.get(self.kind)
        what = f": {row.description}" if row else ""
        fitted = self.card.get("fitted_on") or {}
        size = f" ({fitted['train_tokens']:,} tokens)" if "train_tokens" in fitted else ""
        return (
            f"The stream after {len(self.layers)} of {self.n_layers} blocks of {self.about.model_name} was "
            f"read at {len(self.tokens)} tokens with the {self.kind} lens{what}. "
            + (f"It was fitted on texts {fitted['texts']}{size}. " if fitted else "")
            + "What the model itself says next is compared with what the lens says.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """From which layer on the answer is first, and how sure the model is of it."""
        ever = np.flatnonzero(self.rank[:, -1] == 1)
        return (
            Number(
                "first-layer",
                self.settled(),
                meaning="from here on the model's answer is first, to the last one",
            ),
            Number(
                "earliest-layer",
                self.layers[int(ever[0])] if len(ever) else None,
                meaning="the first layer at which it is first, if only once",
            ),
            Number(
                "answer-probability",
                float(self.answer_probability[-1]),
                meaning=f"of {self.answers[-1]!r}, by the model itself",
            ),
            Number(
                "agreement",
                float((self.rank[:-1] == 1).mean()) if len(self.layers) > 1 else None,
                meaning="share of tokens and layers (but the last) at which the model's own word is first",
            ),
        )

    def tables(self) -> tuple[Table, ...]:
        """The last token at some layers, and every cell."""
        chosen = self._chosen()
        columns = ("layer", "word", "probability", "answer", "rank", "kl")
        rows = [
            (
                self.layers[at],
                repr(self.words[at][-1]),
                float(self.probability[at, -1]),
                float(self.read_probability[at, -1]),
                int(self.rank[at, -1]),
                float(self.kl[at, -1]),
            )
            for at in chosen
        ]
        settled = self.settled()
        main = chosen.index(self.layers.index(settled)) if settled is not None else None
        note = (
            f"word and probability: what the lens reads; answer and rank: the probability and place that it "
            f"gives the model's own next word, {self.answers[-1]!r}; kl: from the model's own output (nats)."
        )
        few = "" if len(chosen) == len(self.layers) else f", {len(chosen)} of {len(self.layers)} layers"
        title = f"What the {self.kind} lens reads at the last token{few}"
        return (
            Table("lens", title, columns, rows, note, main, private=("word",), shown=ROWS),
            self._cells(),
        )

    def _chosen(self) -> list[int]:
        """Places of the layers that the first table shows: spread evenly, with the one that matters."""
        n, settled = len(self.layers), self.settled()
        if n <= ROWS:
            return list(range(n))
        kept = {n - 1} | ({self.layers.index(settled)} if settled is not None else set())
        spread = np.linspace(0, n - 1, ROWS).round().astype(int).tolist()
        if len(kept | set(spread)) > ROWS:
            nearest = min(
                set(spread) - {0, n - 1}, key=lambda at: min(abs(at - one) for one in kept - {n - 1})
            )
            spread.remove(nearest)
        return sorted(kept | set(spread))

    def _cells(self) -> Table:
        columns = ("layer", "position", "token", "word", "probability", "answer", "rank", "kl")
        rows = [
            (
                layer,
                position,
                token,
                self.words[at][position],
                float(self.probability[at, position]),
                self.answers[position],
                int(self.rank[at, position]),
                float(self.kl[at, position]),
            )
            for at, layer in enumerate(self.layers)
            for position, token in enumerate(self.tokens)
        ]
        private = ("token", "word", "answer")
        return Table("cells", "Every layer and token", columns, rows, folded=True, private=private)

    def figures(self) -> tuple[Figure, ...]:
        """The word in every cell; its colour says how likely the lens takes it to be."""
        start = max(0, len(self.tokens) - COLUMNS)
        cells = [
            (position, layer, self.tokens[position], self.words[at][position], at)
            for at, layer in enumerate(self.layers)
            for position in range(start, len(self.tokens))
        ]
        data: dict[str, Any] = {
            "x": [one[0] for one in cells],
            "y": [one[1] for one in cells],
            "column": [one[2] for one in cells],
            "text": [one[3] for one in cells],
            "value": [float(self.probability[at, position]) for position, *_, at in cells],
            "rank": [int(self.rank[at, position]) for position, *_, at in cells],
        }
        left = f" The first {start} tokens are left out." if start else ""
        return (
            Figure(
                "lens",
                "grid",
                data,
                f"What the {self.kind} lens reads after each block",
                "The prompt runs along the bottom; in each cell stands the word that the lens reads there, "
                "the stronger the colour the likelier. Framed: the word that the model itself says next is "
                "first here. A dot \u00b7 is a blank; the pointer on a cell shows its probability and that "
                f"word's rank.{left}",
                x="token of the prompt",
                y="layer",
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What one prompt under a lens does not show."""
        row = LENSES.get(self.kind)
        said = (
            "This is one prompt, so there is no interval; `interp lens --task NAME` reads many, beside the "
        )
        said += "same model untrained."
        return (said, *((row.caution,) if row and row.caution else ()))


def view(
    model: ModelLike,
    prompt: str | Sequence[int],
    *,
    lens: str | Lens = "logit",
    layers: int | str = "all",
    texts: Sequence[str] | None = None,
    seed: int = 0,
) -> LensView:
    """Read one prompt under a lens: every layer, every token.

    Args:
        model: what is read.
        prompt: a text, or its token ids.
        lens: a kind of ``LENSES``, or a lens.
        layers: which to read, in the grammar of layers.
        texts: what a lens that is fitted learns from; its own where left out.
        seed: of the fit.

    Raises:
        SiteError: no such layer, or one that the lens does not read.
        ConfigError: no such kind.
    """
    model = as_model(model)
    wanted = parse_layers(layers, model.n_layers, name=model.name, kind="resid_post")
    if isinstance(lens, str):
        given = None if layers == "all" else wanted
        lens = make(lens, model, layers=given, texts=texts, seed=seed)
    read = [layer for layer in wanted if layer in lens.layers] if layers == "all" else wanted
    if not read:
        lens.check(wanted[0])
    tokens = model.tokenize([prompt])
    sites = [f"resid_post.{layer}" for layer in read]
    run = model.run(tokens, capture=sites, positions="all", logits="all")
    assert run.logits is not None and run.activations is not None
    final = run.logits[0].float()
    if not bool(final.isfinite().all()):
        raise DataError(
            f"the logits of {model.name!r} are not all finite on this prompt: nothing can be read."
        )
    states = {layer: run.activations[site][0] for layer, site in zip(read, sites, strict=True)}
    cells = [read_states(lens, one, layer, final) for layer, one in states.items()]
    answers = final.argmax(dim=-1)
    chances = final.softmax(dim=-1).gather(1, answers[:, None])[:, 0]
    return LensView(
        kind=lens.kind,
        prompt=tokens.texts[0],
        layers=tuple(read),
        n_layers=model.n_layers,
        tokens=words_of(model, tokens.token_ids[0]),
        answers=words_of(model, answers.tolist()),
        answer_probability=_array(chances),
        words=tuple(words_of(model, one.best.tolist()) for one in cells),
        probability=_array(torch.stack([one.probability for one in cells])),
        read_probability=_array(torch.stack([one.answer for one in cells])),
        rank=torch.stack([one.rank for one in cells]).cpu().numpy(),
        kl=_array(torch.stack([one.kl for one in cells])),
        card=lens.card(),
        about=About(model=model.described),
        seed=seed,
        warnings=(*model.warnings, *tokens.warnings),
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
