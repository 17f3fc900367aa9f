"""What a model is about to say after a prompt, read layer by layer by a translator: no labels, any names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyses.concepts.decoding import Named, next_tokens
from interp.analyses.concepts.trial import concept_tokens
from interp.errors import ConfigError, DataError
from interp.lenses.translator import Kept, TranslatorLens
from interp.lenses.words import shown, words_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About, Figure, Number, Result, Table
from interp.sites import parse_layers

__all__ = ["LAYERS", "RULES", "Names", "Reading", "TranslatedResult", "decode_translated", "threshold_of"]

LAYERS = "50%,65%,80%,95%"
"""The layers that are read where none are given."""
LEVEL = 0.05
"""The share of null states at which a name is claimed all the same."""
RULES: dict[str, Callable[[int], float]] = {
    "first": lambda place: 0.01**place,
    "first alone": lambda place: float(place == 0),
    "mean": lambda place: 1.0,
    "halves": lambda place: 0.5**place,
}
"""How much each token of a name counts, by its place; the weights of a name are scaled to add up to 1.

Measured on SmolLM2: 300 prompts that it answers right, 1,601 names, 559 of them of several tokens; a hit is
the right name as a whole. From the model's own final state (and from layer 24 by the translator): first 0.96
(0.81), first alone 0.94 (0.80), halves 0.81, mean 0.78 (0.72). With each name's row replaced by the final
state of "the word is NAME": 0.02. So what is about to be said is a first token; later ones tell apart names
that begin alike.
"""
RULE = "first"


@dataclass(frozen=True, eq=False)
class Names:
    """Names and how they are scored: a weighted mean of their tokens' log-probabilities.

    Attributes:
        names: as they are printed.
        tokens: of each, as it stands behind a blank.
        weights: ``[name place]``: of each token; they add up to 1 for each name.
    """

    names: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    weights: Float[Tensor, "name place"]

    @classmethod
    def of(cls, model: Model, names: Sequence[str], rule: str = RULE) -> Names:
        """Names in a model's own tokens.

        Args:
            model: whose tokens.
            names: such as words; each is read as it stands behind a blank.
            rule: how much each token of a name counts: a key of ``RULES``.

        Raises:
            DataError: fewer than two names, one that is there twice, two that are the same to the model,
                or one that it cannot say.
            ConfigError: an unknown rule, or a text in place of names.
        """
        if rule not in RULES:
            raise ConfigError(f"rule {rule!r} asked; there are: {', '.join(RULES)}.")
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"names {names!r:.80} given; give a list of texts, such as ['Paris', 'Rome'].")
        if len(names) < 2 or len(set(names)) < len(names):
            raise DataError(f"{len(names)} names, {len(set(names))} different; give at least 2, each once.")
        tokens = tuple(concept_tokens(model, names))
        places = range(max(map(len, tokens)))
        parts = [[RULES[rule](place) * (place < len(ids)) for place in places] for ids in tokens]
        weights = torch.tensor(parts)
        _told_apart(names, tokens, weights)
        return cls(tuple(names), tokens, weights / weights.sum(dim=1, keepdim=True))

    def scores(self, logits: Float[Tensor, "example vocab"]) -> Float[Tensor, "example name"]:
        """The weighted mean log-probability (nats) of each name's tokens."""
        logs = logits.float().log_softmax(dim=1).cpu()
        found = torch.zeros(len(logs), len(self.names))
        for place, weights in enumerate(self.weights.T):  # one place at a time, to bound memory
            there = [ids[place] if place < len(ids) else 0 for ids in self.tokens]
            found += logs[:, torch.tensor(there)] * weights
        return found

    def apart(self, kept: Kept) -> Tensor:
        """At which held-out states the model is about to say no name: its own next token begins none."""
        return ~torch.isin(kept.said, torch.tensor([ids[0] for ids in self.tokens]))


def _told_apart(names: Sequence[str], tokens: Sequence[tuple[int, ...]], weights: Tensor) -> None:
    """Refuse two names that would score the same whatever the model says."""
    owners: dict[tuple[int, ...], str] = {}
    for name, ids, row in zip(names, tokens, weights.tolist(), strict=True):
        read = tuple(token for token, weight in zip(ids, row, strict=False) if weight)
        if (other := owners.setdefault(read, name)) != name:
            raise DataError(
                f"{other!r} and {name!r} are read by the same tokens of this model, so that nothing tells "
                "them apart; leave one of them out."
            )


@dataclass(frozen=True)
class Reading:
    """What one layer says.

    Attributes:
        layer: whose ``resid_post``.
        names: the best, each with its probability (for several tokens the geometric mean of theirs).
        threshold: the probability from which the best name is claimed; None where it was not calibrated.
        n_null: null states that it was calibrated on.
        agreement: of translator, logit lens and commonest token with the model's own next token in text.
    """

    layer: int
    names: tuple[Named, ...]
    threshold: float | None
    n_null: int
    agreement: Mapping[str, Any]

    @property
    def claimed(self) -> bool | None:
        """Whether the best name passes the threshold; None where there is no threshold."""
        return None if self.threshold is None else self.names[0].value >= self.threshold


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TranslatedResult(Result):
    """What a model is about to say after a prompt, layer by layer.

    Attributes:
        prompt: what was read.
        readings: one per layer.
        n_names: how many names were told apart.
        n_several: how many of them take several tokens.
        n_shared: how many of them begin with the same token as another of them.
        vocabulary: whether these are the vocabulary's tokens.
        tokens: the model's own likeliest next tokens.
        fitted_on: what the translators were fitted on.
    """

    schema: ClassVar[str] = "interp.translated/1"
    prompt: str
    readings: tuple[Reading, ...]
    n_names: int
    n_several: int
    vocabulary: bool
    tokens: tuple[Named, ...]
    fitted_on: Mapping[str, Any]
    n_shared: int = 0

    def question(self) -> str:
        """What is asked of the prompt."""
        return f"What is the model about to say after \u201c{self.prompt}\u201d, layer by layer?"

    def lead(self) -> tuple[str, ...]:
        """What a translator is."""
        names = (
            f"the {self.n_names:,} tokens of the vocabulary" if self.vocabulary else f"{self.n_names:,} names"
        )
        return (
            "At each layer a linear map translates the state to the model's own final state. It was fitted "
            f"without labels, on {self.fitted_on.get('train_tokens', 0):,} tokens of text "
            f"{self.fitted_on.get('texts', '')}. The model's head then scores {names}.",
        )

    def verdict(self) -> str:
        """From which layer on what is claimed; and the model's own next token."""
        first = self.tokens[0]
        own = f"The model's own next token: {shown(first.name)} (probability {first.value:.3f})."
        claimed: dict[str, list[int]] = {}
        for one in self.readings:
            if one.claimed:
                claimed.setdefault(shown(one.names[0].name), []).append(one.layer)
        if claimed:
            said = "; ".join(f"{name} at {_layers(at)}" for name, at in claimed.items())
            return f"Read: {said}. {own}"
        best = self.readings[-1]
        found = f"at layer {best.layer} the best is {shown(best.names[0].name)} ({best.names[0].value:.3f})"
        if all(one.claimed is None for one in self.readings):
            return f"No layer that was read has a threshold, so that nothing can be claimed; {found}. {own}"
        return f"Nothing is claimed at any layer; {found}. {own}"

    def cautions(self) -> tuple[str, ...]:
        """What names of several tokens are read by."""
        if not self.n_several:
            return ()
        shared = (
            f" {self.n_shared:,} of the names begin with the same token as another of them: which of these "
            "is read is decided by their later tokens, which the model is not about to say yet."
        )
        return (
            f"{self.n_several:,} of {self.n_names:,} names take several tokens. They are read by the "
            "first of them, so that another word that begins with the same token reads as such a name."
            + shared
            * (self.n_shared > 0),
        )

    def numbers(self) -> tuple[Number, ...]:
        """The best probability at the deepest layer, and at how many layers a name is claimed."""
        last = self.readings[-1]
        return (
            Number(
                "probability",
                last.names[0].value,
                meaning=f"of {shown(last.names[0].name)} at layer {last.layer}",
            ),
            Number(
                "claimed",
                sum(bool(one.claimed) for one in self.readings),
                meaning=f"of {len(self.readings)} layers",
                decimals=0,
            ),
        )

    def tables(self) -> tuple[Table, ...]:
        """What each layer says; the model's own next tokens; how good each translator is on other text."""
        rows = [
            (
                one.layer,
                shown(one.names[0].name),
                one.names[0].value,
                one.threshold,
                one.claimed,
                ", ".join(f"{shown(name.name)} {name.value:.3f}" for name in one.names[1:]),
            )
            for one in self.readings
        ]
        what = "where it is about to say no name"
        if self.vocabulary:
            what = "where the best token is not the model's own"
        note = (
            f"Claimed from the threshold on, which {LEVEL:.0%} of null states reach: held-out states {what}. "
            "Where there is no threshold (after the last block, or too few such states) nothing is claimed."
        )
        said = [(shown(one.name), one.value) for one in self.tokens]
        rates = [
            (one.layer, arm, found["value"], found["low"], found["high"], found["n"])
            for one in self.readings
            for arm, found in one.agreement.items()
        ]
        columns = ("layer", "read", "probability", "threshold", "claimed", "next best")
        told = "How often the model's own next token is named at held-out states; 95% intervals over texts."
        return (
            Table("layers", "What each layer says", columns, rows, note),
            Table("tokens", "The model's own next token", ("token", "probability"), said),
            Table(
                "agreement",
                "How good each reader is on other text",
                ("layer", "reader", "value", "low", "high", "n"),
                rates,
                told,
                folded=True,
            ),
        )

    def figures(self) -> tuple[Figure, ...]:
        """The probability of every name that is best at some layer."""
        best = list(dict.fromkeys(one.names[0].name for one in self.readings))
        alike = Counter(map(shown, best))
        rows = [
            (one.layer, repr(name.name) if alike[shown(name.name)] > 1 else shown(name.name), name.value)
            for best_name in best
            for one in self.readings
            for name in one.names
            if name.name == best_name
        ]
        x, series, value = (list(column) for column in zip(*rows, strict=True))
        data = {"x": x, "series": series, "value": value, "low": value, "high": value}
        caption = (
            "One prompt, so without intervals; a name is drawn at the layers where it is among the best."
        )
        title = "What the model is about to say"
        return (
            Figure("layers", "curve", data, title, caption, x="layer", y="probability", limits=(0.0, 1.0)),
        )


def decode_translated(
    model: ModelLike,
    prompt: str,
    *,
    layers: str | int | Sequence[int] = LAYERS,
    concepts: Sequence[str] | None = None,
    rule: str = RULE,
    lens: TranslatorLens | None = None,
    top: int = 5,
    seed: int = 0,
) -> TranslatedResult:
    """Read what a model is about to say at the last token of a prompt, without training on any label.

    The translators are fitted once per model and kept in the user's cache (``interp.lenses.TranslatorLens``).

    Args:
        model: what is read.
        prompt: the text.
        layers: which blocks' ``resid_post``, in the grammar of layers.
        concepts: the names to tell apart; every token of the vocabulary where left out.
        rule: how the tokens of a name are weighed: a key of ``RULES``.
        lens: translators of this model; its own ones where left out.
        top: how many names of each layer, and how many next tokens.
        seed: of the texts that translators are fitted on.

    Raises:
        SiteError: no such layer.
        DataError: fewer than two names, two that are the same to the model, or one that it cannot say.
        ConfigError: no name is asked for.
    """
    model = as_model(model)
    asked = layers if isinstance(layers, str | int) else ",".join(map(str, layers))
    if top < 1:
        raise ConfigError(f"top={top} names asked; ask for at least 1.")
    chosen = parse_layers(asked, model.n_layers, name=model.name, kind="resid_post")
    names = None if concepts is None else Names.of(model, concepts, rule)
    lens = TranslatorLens.of(model, chosen, seed=seed) if lens is None else lens
    sites = [f"resid_post.{layer}" for layer in chosen]
    states = model.capture([prompt], sites, "last", device="cpu", dtype=torch.float32)
    given = lens.card()["translators"]
    readings = tuple(
        _reading(model, lens, layer, states[site], names, top, given.get(str(layer), {}).get("agreement", {}))
        for layer, site in zip(chosen, sites, strict=True)
    )
    return TranslatedResult(
        about=About(model.described),
        seed=seed,
        prompt=prompt,
        readings=readings,
        n_names=model.vocab_size if names is None else len(names.names),
        n_several=0 if names is None else sum(len(ids) > 1 for ids in names.tokens),
        n_shared=0 if names is None else _shared(names),
        vocabulary=names is None,
        tokens=next_tokens(model, prompt, top),
        fitted_on=lens.fitted_on,
    )


def _layers(layers: Sequence[int]) -> str:
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"


def _shared(names: Names) -> int:
    count = Counter(ids[0] for ids in names.tokens)
    return sum(count[ids[0]] > 1 for ids in names.tokens)


def _reading(
    model: Model,
    lens: TranslatorLens,
    layer: int,
    state: Float[Tensor, "one d_model"],
    names: Names | None,
    top: int,
    agreement: Mapping[str, Any],
) -> Reading:
    logits = lens.logits(state, layer)
    logs = logits.log_softmax(dim=1) if names is None else names.scores(logits)
    values, places = logs[0].exp().topk(min(top, logs.shape[1]))
    words = words_of(model, places.tolist()) if names is None else [names.names[at] for at in places.tolist()]
    found = tuple(Named(word, value) for word, value in zip(words, values.tolist(), strict=True))
    threshold, n = threshold_of(lens, layer, names)
    return Reading(layer, found, threshold, n, agreement)


@torch.no_grad()
def threshold_of(
    lens: TranslatorLens, layer: int, names: Names | None, level: float = LEVEL
) -> tuple[float | None, int]:
    """The probability that the best name of at most a share ``level`` of null states reaches.

    Null states are states of held-out text at which any claim would be wrong: with names, where the model's
    own next token begins none of them; without, where the best token is not the model's own next one. The
    threshold is the conformal one: on average over texts, another null state reaches it with a chance of at
    most ``level``. States of one text are alike, so that few texts make it less sure.

    Args:
        lens: the translator.
        layer: which block.
        names: what is told apart; None for the vocabulary.
        level: the share.

    Returns:
        The threshold, and the number of null states; None where there are too few, or no translator (after
        the last block).
    """
    kept = lens.held_out.get(layer)
    if kept is None:
        return None, 0
    null = torch.ones(len(kept.said), dtype=torch.bool) if names is None else names.apart(kept)
    said, best = kept.said[null], []
    for part, logs in lens.log_probabilities(kept.states[null], layer):
        value, place = (logs.cpu() if names is None else names.scores(logs)).max(dim=1)
        best.append(value if names is not None else value[place != said[part]])
    values = torch.cat(best) if best else torch.zeros(0)
    passing = int(level * (len(values) + 1))
    if not passing:
        return None, len(values)
    return float(values.exp().topk(passing).values[-1]), len(values)
