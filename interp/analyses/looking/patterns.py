"""What each head of a layer attends to in one prompt, beside the same words in other orders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.looking.reading import Prompt, fixed_start, read, shuffled
from interp.errors import ConfigError, counted
from interp.lenses.words import words_of
from interp.models.loading import ModelLike, as_model
from interp.results import About, Figure, Number, Result, Table
from interp.sites import parse_layers
from probes.statistics import mean_intervals

__all__ = ["Attention", "attention"]

MOST, DRAWN_TOKENS, FIGURES = 128, 24, 16
"""Tokens of a prompt at most; tokens of a picture: the last ones; pictures at most."""
FAINT = 0.05
"""Weights below this are left without a number in the picture."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Attention(Result):
    """What heads attend to.

    Attributes:
        prompt: its text.
        tokens: as words.
        heads: (layer, head) of each.
        pattern: how much each token (query) attends to each (key); rows add up to 1.
        overlap: ``[head, draw]``: the share of a head's attention that stays at the same places when the
            words stand in another order, averaged over queries.
        shuffled: the mean pattern in other orders.
    """

    schema: ClassVar[str] = "interp.attention/1"

    prompt: str
    tokens: tuple[str, ...]
    heads: tuple[tuple[int, int], ...]
    pattern: Float[np.ndarray, "head query key"]
    overlap: Float[np.ndarray, "head draw"]
    shuffled: Float[np.ndarray, "head query key"]

    def redacted(self) -> Attention:
        """The same without words."""
        return replace(self, prompt="", tokens=("",) * len(self.tokens))

    def question(self) -> str:
        """What is asked."""
        return f"What do heads attend to in \u201c{self.prompt}\u201d?"

    def _rows(self) -> list[dict[str, Any]]:
        """Each head: where the last token looks, and whether it goes by place or by word."""
        found = mean_intervals(self.overlap, limits=(0.0, 1.0))
        rows = []
        for at, (layer, head) in enumerate(self.heads):
            last = self.pattern[at, -1]
            key = int(last.argmax())
            row: dict[str, Any] = {
                "head": f"head.{layer}.{head}",
                "looks at": repr(self.tokens[key]),
                "at": key,
            }
            row |= {"weight": float(last[key]), "in other orders": float(self.shuffled[at, -1, key])}
            row |= {"by place": float(found.value[at])}
            row |= {"low": float(found.low[at]), "high": float(found.high[at])}
            row |= {"on first": float(self.pattern[at, 1:, 0].mean()), "on itself": self._diagonal(at, 0)}
            rows.append(row | {"on the one before": self._diagonal(at, 1)})
        return rows

    def _diagonal(self, at: int, back: int) -> float:
        return float(np.diagonal(self.pattern[at], -back).mean())

    def verdict(self) -> str:
        """Which head goes by words the most, and where it looks."""
        rows = self._rows()
        one = min(rows, key=lambda row: row["by place"])
        by_place = sum(row["low"] > 0.9 for row in rows)
        return (
            f"Of {counted(len(rows), 'head')}, {one['head']} goes by words the most: {one['by place']:.2f} "
            f"[{one['low']:.2f}, {one['high']:.2f}] of its attention stays at the same places when the words "
            f"stand in other orders; its last token looks at {one['looks at']} ({one['weight']:.2f}). "
            f"{by_place} go by places alone (above 0.9)."
        )

    def lead(self) -> tuple[str, ...]:
        """What was read, and the control."""
        orders = counted(self.overlap.shape[1], "random order")
        return (
            "Attention probabilities of each head, computed eagerly. The control is the same prompt with its "
            f"words in {orders}: what stays at the same places goes by place and not by word. An attention "
            "weight is what a head reads from, not what it causes: `interp patch` measures that.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """How much goes by place, of all heads."""
        found = mean_intervals(self.overlap.mean(axis=0), limits=(0.0, 1.0))
        low, high = float(found.low[0]), float(found.high[0])
        meaning = "share of attention that stays at the same places in other orders, mean over heads"
        return (Number("by-place", float(found.value[0]), low, high, meaning=meaning),)

    def tables(self) -> tuple[Table, ...]:
        """Every head."""
        note = (
            "looks at, weight: of the last token; by place: the share of attention that stays at the same "
            "places in other orders of the words, with its 95% interval over orders; the last three: means "
            "over tokens."
        )
        made = Table.of("heads", "Where each head looks", self._rows(), note)
        return (replace(made, private=("looks at",), shown=FIGURES, hidden=("at",)),)

    def figures(self) -> tuple[Figure, ...]:
        """One picture per head, those that go by words first."""
        order = np.argsort(self.overlap.mean(axis=1), kind="stable")[:FIGURES]
        return tuple(self._figure(int(at), place) for place, at in enumerate(order))

    def _figure(self, at: int, place: int) -> Figure:
        n, (layer, head) = len(self.tokens), self.heads[at]
        start = max(0, n - DRAWN_TOKENS)
        cells = [(query, key) for query in range(n - 1, start - 1, -1) for key in range(start, query + 1)]
        weights = [float(self.pattern[at, query, key]) for query, key in cells]
        data = {
            "x": [key for _, key in cells],
            "y": [query for query, _ in cells],
            "column": [self.tokens[key] for _, key in cells],
            "text": [f"{weight:.2f}" if weight >= FAINT else "" for weight in weights],
            "value": weights,
            "rank": [int(self.pattern[at, query].argmax() == key) for query, key in cells],
            "tip": [
                f"token {query} ({self.tokens[query]!r}) looks at {key} ({self.tokens[key]!r}): {weight:.3f}"
                for (query, key), weight in zip(cells, weights, strict=True)
            ],
        }
        left = f" The first {start} tokens are left out." if start else ""
        caption = (
            f"Each row is a token that looks, from token {start} at the top to the last, "
            f"{self.tokens[-1]!r}; "
            f"each column what it looks at. Framed: where it looks the most.{left}"
        )
        if place:
            caption = f"{self.overlap[at].mean():.2f} by place."
        axes = ("token that is looked at", "token that looks")
        return Figure(f"head-{layer}-{head}", "grid", data, f"Head {layer}.{head}", caption, *axes)

    def cautions(self) -> tuple[str, ...]:
        """What a pattern does not show."""
        return (
            "This is one prompt: intervals are over orders of its words, not over prompts.",
            "A head can look at a token and carry nothing from it to the answer.",
        )


def attention(
    model: ModelLike, prompt: Prompt, *, layers: int | str = "50%", draws: int = 16, seed: int = 0
) -> Attention:
    """Read what each head of some layers attends to, beside the same words in other orders.

    Args:
        model: what is read.
        prompt: a text, a conversation, or token ids; at least two tokens.
        layers: in the grammar of layers; those with attention are read.
        draws: random orders.
        seed: of the orders.

    Raises:
        SiteError: no such layer, or none with attention.
        DataError: the prompt is too short or too long.
        ConfigError: ``draws`` is below 2.
    """
    if draws < 2:
        raise ConfigError(f"draws={draws} random orders asked; an interval needs at least 2.")
    model = as_model(model)
    tokens = read(model, prompt, least=2, most=MOST)
    wanted = parse_layers(layers, model.n_layers, name=model.name, kind="pattern")
    sites = [str(site) for site in model.expand([f"pattern.{layer}" for layer in wanted])]
    ids, rng = tokens.token_ids[0], np.random.default_rng(seed)
    start = fixed_start(model, ids)
    others = [shuffled(ids, start, rng) for _ in range(draws)]
    acts = model.capture([list(ids), *others], sites, "all", device="cpu", dtype=torch.float32)
    by_site = [np.swapaxes(acts[site].double().numpy(), 1, 2) for site in sites]  # [prompt, head, query, key]
    found = np.concatenate(by_site, axis=1)
    pattern, drawn = found[0], found[1:]
    heads = [
        (layer, head) for layer, one in zip(wanted, by_site, strict=True) for head in range(one.shape[1])
    ]
    return Attention(
        prompt=tokens.texts[0],
        tokens=words_of(model, ids),
        heads=tuple(heads),
        pattern=pattern,
        overlap=np.minimum(pattern, drawn).sum(axis=-1).mean(axis=-1).T,
        shuffled=drawn.mean(axis=0),
        about=About(model=model.described),
        seed=seed,
        warnings=(*model.warnings, *tokens.warnings),
    )
