"""Look at features: where they are active, the words they promote, what a translator reads in them."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.features.certificate import described, named_otherwise
from interp.features.dictionary import Dictionary
from interp.features.texts import counted_positions, parts, texts_of
from interp.lenses.translator import TranslatorLens
from interp.lenses.words import shown, words_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About, Number, Result, Table

__all__ = ["FeatureView", "FeatureViews", "Snippet", "look"]

TEXTS, SNIPPETS, WORDS, AROUND = 128, 6, 8, 10
STREAM = ("embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mixer_out", "mlp_out")
"""Kinds of site whose directions are directions of the stream."""


@dataclass(frozen=True)
class Snippet:
    """A place in a text where a feature is active.

    Attributes:
        before: what stands before the token.
        token: where the feature is active.
        value: how much.
    """

    before: str
    token: str
    value: float

    def redacted(self) -> Snippet:
        """The same without its text."""
        return replace(self, before="", token="")

    def __str__(self) -> str:
        """The text, with the token marked."""
        return f"{self.before}«{self.token}»"


@dataclass(frozen=True)
class FeatureView:
    """What is seen of one feature.

    Attributes:
        feature: its number.
        share: of the tokens on which it is active.
        mean: of its values where it is active.
        snippets: where it is largest, of different texts.
        promotes: the words whose logits its direction raises most, straight through the final norm.
        demotes: those that it lowers most.
        reads: the words that a translator reads in its direction; () where there is none.
    """

    feature: int
    share: float
    mean: float
    snippets: tuple[Snippet, ...]
    promotes: tuple[str, ...]
    demotes: tuple[str, ...]
    reads: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FeatureViews(Result):
    """Some features of a dictionary, as they are seen.

    Attributes:
        dictionary: as in its certificate.
        views: of the features.
        n_tokens: that were looked at.
        chosen: how the features were chosen, in words.
    """

    schema: ClassVar[str] = "interp.feature-views/1"

    dictionary: Mapping[str, Any]
    views: tuple[FeatureView, ...] = field(default=())
    n_tokens: int = 0
    chosen: str = ""

    def question(self) -> str:
        """What is looked at."""
        one = f"feature {self.views[0].feature}" if len(self.views) == 1 else "features"
        return f"What do {one} of {self.dictionary['name']!r} stand for? ({self.about.model_name})"

    def verdict(self) -> str:
        """That looking is not knowing."""
        layer, first = self.dictionary["layer"], self.views[0]
        strongest = f", most strongly on {first.snippets[0].token!r}" if first.snippets else ""
        return (
            f"feature.{layer}.{first.feature} is active on {first.share:.2%} of {self.n_tokens:,} tokens"
            f"{strongest}"
            + (f"; {len(self.views) - 1} others are beside it." if len(self.views) > 1 else ".")
        )

    def lead(self) -> tuple[str, ...]:
        """How they were chosen, and what the columns are."""
        return (
            f"Features {self.chosen}. Promoted words: the logits that rise most when the feature's mean "
            "value times its direction is added to the mean last state, through the final norm. Read words: "
            "likewise at its own layer, through a translator to the final state, which is closer to what "
            "later layers make of it.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Of the first feature."""
        first = self.views[0]
        return (
            Number("active-share", first.share, meaning=f"of tokens, feature {first.feature}", decimals=4),
            Number("mean-value", first.mean, meaning="where it is active"),
        )

    def tables(self) -> tuple[Table, ...]:
        """One row per feature, then its places."""
        columns = ("feature", "active", "mean", "strongest", "promotes", "demotes", "read")
        rows = [
            (
                one.feature,
                one.share,
                one.mean,
                str(one.snippets[0]) if one.snippets else "",
                _joined(one.promotes),
                _joined(one.demotes),
                _joined(one.reads),
            )
            for one in self.views
        ]
        places = [
            (one.feature, snippet.value, snippet.before, snippet.token)
            for one in self.views
            for snippet in one.snippets
        ]
        formats = {"active": ".2%"}
        private = ("strongest",)
        return (
            Table(
                "features",
                "Features",
                columns,
                rows,
                formats=formats,
                private=private,
                narrow=("demotes", "mean"),
            ),
            Table(
                "places",
                "Where they are largest",
                ("feature", "value", "before", "token"),
                places,
                private=("before", "token"),
                folded=len(self.views) > 1,
                shown=30,
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What looking does not show."""
        return (
            "The strongest places suggest a meaning; weak ones often have another. What a feature does is an "
            "effect: patch it (interp patch --features).",
        )


def _joined(words: Sequence[str]) -> str:
    return " ".join(repr(shown(word))[1:-1].strip() or repr(word) for word in words)


def look(
    model: ModelLike,
    dictionary: Dictionary,
    features: Sequence[int] | None = None,
    *,
    texts: Sequence[str] | None = None,
    n_texts: int = TEXTS,
    translator: bool = True,
    seed: int = 0,
) -> FeatureViews:
    """Look at some features.

    Args:
        model: whose states.
        dictionary: of one of its sites.
        features: which; None for ten, spread evenly over the order by how often they are active.
        texts: to look in; None for texts drawn from the model.
        n_texts: how many at most.
        translator: whether the words are read that a translator finds, which is fitted on its first use; at
            ``resid_post`` only.
        seed: of draws.

    Raises:
        ConfigError: there is no such feature, or the dictionary does not fit; likewise SiteError.
        DataError: too few texts.
    """
    model = as_model(model)
    own = model.with_dictionaries(dictionary)
    dictionary = own.dictionaries[dictionary.layer]
    if bad := [one for one in features or () if not 0 <= one < dictionary.n_features]:
        raise ConfigError(
            f"feature {bad[0]} asked, but {dictionary.name!r} has features 0..{dictionary.n_features - 1}."
        )
    ids = texts_of(model, texts, n_texts, seed=seed)
    site = f"feature.{dictionary.layer}"
    counts, sums = (torch.zeros(dictionary.n_features, dtype=torch.float64) for _ in range(2))
    for part in parts(ids):
        values = own.capture(part, site, "all", device="cpu")[site] * counted_positions(part)[..., None]
        counts += (values != 0).sum(dim=(0, 1))
        sums += values.double().sum(dim=(0, 1))
    n_tokens = sum(len(row) - 1 for row in ids)
    chosen = list(features) if features is not None else _spread(counts)
    places = _places(own, site, ids, chosen)
    means = (sums / counts.clamp_min(1))[chosen].float()
    words = _words(model, dictionary, means, chosen, ids, translator)
    views = [
        FeatureView(
            feature=one,
            share=float(counts[one]) / n_tokens,
            mean=float(means[at]),
            snippets=tuple(_snippet(model, ids, *place) for place in places[one]),
            promotes=words["up"][at],
            demotes=words["down"][at],
            reads=words["read"][at],
        )
        for at, one in enumerate(chosen)
    ]
    return FeatureViews(
        dictionary=described(dictionary),
        views=tuple(views),
        n_tokens=n_tokens,
        chosen="that were asked for" if features is not None else "spread evenly over the order of how often",
        about=About(model=model.described, data={"name": "given texts" if texts else "texts of its own"}),
        seed=seed,
        warnings=named_otherwise(model, dictionary),
    )


def _spread(counts: Float[Tensor, " feature"], n: int = 10) -> list[int]:
    """Features at evenly spaced ranks among those that are active at all, the commonest first."""
    order = [at for at in torch.argsort(-counts, stable=True).tolist() if counts[at] > 0]
    if not order:
        return list(range(min(n, len(counts))))
    return [order[round(at)] for at in np.linspace(0, len(order) - 1, min(n, len(order)))]


def _places(
    model: Model, site: str, ids: Sequence[Sequence[int]], features: Sequence[int]
) -> dict[int, list[tuple[int, int, float]]]:
    """Text, position and value where each feature is largest, one place of each text at most."""
    best: dict[int, list[tuple[float, int, int]]] = {one: [] for one in features}
    row = 0
    for part in parts(ids):
        values = model.capture(part, site, "all", device="cpu")[site][..., list(features)]
        values = values * counted_positions(part)[..., None]
        top, where = values.max(dim=1)
        for at in range(len(part)):
            for column, one in enumerate(features):
                if (value := float(top[at, column])) > 0:
                    heapq.heappush(best[one], (value, row + at, int(where[at, column])))
                    if len(best[one]) > SNIPPETS:
                        heapq.heappop(best[one])
        row += len(part)
    return {
        one: [(at, pos, value) for value, at, pos in sorted(found, reverse=True)]
        for one, found in best.items()
    }


def _snippet(model: Model, ids: Sequence[Sequence[int]], row: int, position: int, value: float) -> Snippet:
    before, tokenizer = list(ids[row][max(0, position - AROUND) : position]), model.tokenizer
    (token,) = words_of(model, [ids[row][position]])
    if tokenizer is None:
        return Snippet(" ".join(words_of(model, before)), token, value)
    text = str(tokenizer.decode(before, clean_up_tokenization_spaces=False))
    whole = str(tokenizer.decode([*before, ids[row][position]], clean_up_tokenization_spaces=False))
    blank = " " if whole.startswith(f"{text} ") and not token.startswith(" ") else ""
    return Snippet(f"{text}{blank}", token, value)


def _words(
    model: Model,
    dictionary: Dictionary,
    means: Float[Tensor, " chosen"],
    features: Sequence[int],
    ids: Sequence[Sequence[int]],
    translator: bool,
) -> dict[str, list[tuple[str, ...]]]:
    """The words that directions promote and demote, and those that a translator reads in them."""
    nothing: list[tuple[str, ...]] = [()] * len(features)
    found = {"up": nothing, "down": nothing, "read": nothing}
    if dictionary.site_out.kind not in STREAM:
        return found
    rows = dictionary.decoder[list(features)].cpu() * means[:, None]
    last, own = f"resid_post.{model.n_layers - 1}", str(dictionary.site_out)
    read = model.capture([list(row) for row in ids[:16]], [last, own], "last", device="cpu")
    state = read[last].float().mean(dim=0).to(model.device, model.dtype)
    change = model.unembed(state + rows.to(state)) - model.unembed(state[None])
    found["up"] = [words_of(model, one) for one in change.topk(WORDS).indices.tolist()]
    found["down"] = [words_of(model, one) for one in (-change).topk(WORDS).indices.tolist()]
    layer = dictionary.site_out.layer
    if translator and dictionary.site_out.kind == "resid_post" and layer is not None:
        lens = TranslatorLens.of(model, [layer])
        middle = read[own].float().mean(dim=0)
        change = lens.logits(middle + rows, layer) - lens.logits(middle[None], layer)
        found["read"] = [words_of(model, one) for one in change.topk(WORDS).indices.tolist()]
    return found
