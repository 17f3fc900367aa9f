"""A dictionary's certificate: what it explains of a model, beside dictionaries that cannot know the model.

    check = features.check(model, dictionary)
    check.verdict()

Variance explained says how much of the site's values is decoded from features; loss recovered how much of
what the site does for the next token. Both are read beside the same dictionary with decoder rows exchanged,
rotated, at every other layer, and on the untrained model: a dictionary of another model or layer shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from interp import results
from interp.errors import ArtifactError, ConfigError, counted
from interp.features.dictionary import Dictionary
from interp.features.measuring import Arm, explained, losses, moved_to, permuted, rotated, usage
from interp.features.texts import FIRST, texts_of
from interp.models.gguf import cache
from interp.models.loading import ModelLike, as_model, untrained_model
from interp.models.model import Model
from interp.results import About, Figure, Finding, Number, Result, Table
from probes.statistics import Estimate, bootstrap

__all__ = [
    "TEXTS",
    "FeatureCertificate",
    "certified",
    "check",
    "described",
    "judged",
    "named_otherwise",
    "notes_of",
]

VERSION = 1
"""Of what is kept in the cache."""
TEXTS, LAYER_TEXTS = 48, 16
"""Texts that a dictionary is judged on, and of them those that other layers are compared on."""
CROSSING = (
    "these are layers of a cross-layer transcoder: each certificate is of a layer alone, without what "
    "features of earlier layers write there; error.L is what all of them together leave out"
)
OWN, EXCHANGED, ROTATED, UNTRAINED = "own", "rows exchanged", "rotated", "untrained model"
CALLED = {"gpt2-small": "gpt2"}
"""What TransformerLens calls a model -> its name on the Hub."""
MARGIN = 0.01
"""By so much more must another layer be explained, beyond chance, before anything is said of it."""


def _share(left: Float[np.ndarray, " text"], whole: Float[np.ndarray, " text"]) -> Estimate:
    """``1 - sum(left) / sum(whole)``, with its interval over texts."""
    rows = np.stack([left, whole], axis=1)

    def statistic(values: Float[np.ndarray, "text 2"]) -> float:
        low, high = values.sum(axis=0)
        return float(1 - low / high) if high > 0 else float("nan")

    return bootstrap(rows, statistic=statistic, limits=(-np.inf, 1.0))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FeatureCertificate(Result):
    """What a dictionary explains of a model's states, and what is lost where its decoding stands for them.

    Attributes:
        dictionary: name, layout, fingerprint, sites, number and kind of features.
        tokens: that count, of each text.
        explained: arm -> the error's squares and the site's spread, text by text.
        layers: the same at every layer with such a site, on the first of the texts; its own among them.
        active: active features, added up over each text's tokens.
        fired: tokens on which each feature is active.
        losses: arm -> summed loss of each text's next tokens (nats).
    """

    schema: ClassVar[str] = "interp.feature-certificate/1"

    dictionary: Mapping[str, Any]
    tokens: tuple[int, ...]
    explained: Mapping[str, Float[np.ndarray, "2 text"]]
    layers: Mapping[str, Float[np.ndarray, "2 judged"]]
    active: Float[np.ndarray, " text"]
    fired: Float[np.ndarray, " feature"]
    losses: Mapping[str, Float[np.ndarray, " text"]]

    @property
    def n_tokens(self) -> int:
        """Tokens that count."""
        return sum(self.tokens)

    @cached_property
    def variance(self) -> Mapping[str, Estimate]:
        """Arm -> the share of variance that is explained."""
        return {name: _share(left, whole) for name, (left, whole) in self.explained.items()}

    @cached_property
    def by_layer(self) -> Mapping[str, Estimate]:
        """Site -> the share of its variance that is explained."""
        return {name: _share(left, whole) for name, (left, whole) in self.layers.items()}

    @cached_property
    def recovered(self) -> Mapping[str, Estimate]:
        """The share of the loss between replacing the site and leaving it, that decoding it recovers.

        ``zero`` and ``mean`` say what it is replaced by; the third is of a dictionary that knows nothing. One
        is absent where that replacement costs the texts nothing, so that nothing can be recovered.
        """
        plain = self.losses["plain"]
        pairs = {"zero": ("spliced", "zero"), "mean": ("spliced", "mean"), EXCHANGED: (EXCHANGED, "zero")}
        return {
            name: _share(self.losses[arm] - plain, self.losses[end] - plain)
            for name, (arm, end) in pairs.items()
            if arm in self.losses and end in self.losses and (self.losses[end] - plain).sum() > 0
        }

    @property
    def l0(self) -> Estimate:
        """Active features per token."""
        rows = np.stack([self.active, np.array(self.tokens, dtype=float)], axis=1)
        return bootstrap(rows, statistic=lambda values: float(values[:, 0].sum() / values[:, 1].sum()))

    @property
    def silent(self) -> float:
        """The share of features that are active on none of the tokens."""
        return float((self.fired == 0).mean())

    @cached_property
    def suspicions(self) -> tuple[str, ...]:
        """Why it may be of another model or layer; () where nothing speaks for that."""
        own, site = self.variance[OWN], str(self.dictionary["site_out"])
        found = []
        unable = {name: one.value for name, one in self.variance.items() if name != OWN}
        best = max(unable, key=lambda name: unable[name])
        if not own.interval.low > max(unable[best], 0.0):
            beside = f"{best}: {unable[best]:.2f}" if unable[best] > 0 else "nothing: 0"
            found.append(
                f"it explains no more of {site} than one that cannot know the model ({beside}): it is of "
                "another model or site, or was not trained"
            )
        other = max(self.layers, key=lambda name: self.by_layer[name].value)
        rows = np.concatenate([self.layers[other], self.layers[site]]).T

        def gain(values: Float[np.ndarray, "text 4"]) -> float:
            sums = values.sum(axis=0)
            return float(sums[2] / sums[3] - sums[0] / sums[1])

        if other != site and gain(rows) > MARGIN and bootstrap(rows, statistic=gain).interval.low > 0:
            found.append(
                f"it explains more of {other} ({self.by_layer[other].value:.2f}) than of {site} "
                f"({self.by_layer[site].value:.2f}): it may be of that layer"
            )
        if "zero" in self.recovered and not self.recovered["zero"].interval.low > 0:
            found.append("decoding it costs the model as much as leaving the site out")
        return tuple(found)

    def line(self) -> str:
        """One line for whatever uses the dictionary."""
        own, recovered = self.variance[OWN], self.recovered.get("zero")
        said = "".join(f"; {text}" for text in self.warnings)
        said += f"; SUSPECT: {'; '.join(self.suspicions)}" if self.suspicions else ""
        loss = "" if recovered is None else f", recovers {recovered} of the loss"
        exchanged = self.variance[EXCHANGED].value
        return (
            f"dictionary {self.dictionary['name']!r} at {self.dictionary['site_out']}: explains {own} of the "
            f"variance (rows exchanged: {exchanged:.2f}) with {self.l0.value:.1f} active features{loss}, on "
            f"{counted(self.n_tokens, 'token')}; it leaves out error.{self.dictionary['layer']}{said}"
        )

    def question(self) -> str:
        """What is asked of which dictionary."""
        return f"Does the dictionary {self.dictionary['name']!r} describe {self.about.model_name}?"

    def verdict(self) -> str:
        """What it explains, or why it is suspect."""
        own, zero = self.variance[OWN], self.recovered.get("zero")
        if self.suspicions:
            return f"It may not be of this model and site: {'; '.join(self.suspicions)}."
        lost = "leaving the site out costs these texts nothing"
        if zero is not None:
            lost = f"decoding it recovers {zero} of the loss"
        return (
            f"It explains {own} of the variance of {self.dictionary['site_out']} with {self.l0.value:.1f} of "
            f"{counted(len(self.fired), 'feature')} active per token, and {lost}; "
            f"a dictionary with its rows exchanged explains {self.variance[EXCHANGED].value:.2f}."
        )

    def lead(self) -> tuple[str, ...]:
        """How it was judged."""
        return (
            f"The states of {self.about.model_name} at {self.dictionary['site_out']} on "
            f"{counted(self.n_tokens, 'token')} of {counted(len(self.tokens), 'text')} were encoded "
            "and decoded; the first token of each text does not count. For the loss the decoded value "
            "stood in the place of the state at all other tokens.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Variance explained, active features, silent features, loss recovered."""
        own, l0 = self.variance[OWN], self.l0
        found = [
            Number("variance-explained", own.value, own.interval.low, own.interval.high),
            Number(
                "active-features", l0.value, l0.interval.low, l0.interval.high, "per token", "L0", decimals=1
            ),
            Number(
                "silent-features",
                self.silent,
                meaning=f"active on none of {self.n_tokens:,} tokens: not all are dead",
            ),
        ]
        meanings = {
            "zero": "of the loss between zero and the state",
            "mean": "between its mean and the state",
        }
        found += [
            Number(
                f"loss-recovered-{name}",
                one.value,
                one.interval.low,
                one.interval.high,
                meaning=meanings[name],
            )
            for name, one in self.recovered.items()
            if name in meanings
        ]
        (loss,) = self.findings()
        rise = bootstrap(loss.values)
        meaning = "the mean over texts"
        ends = (rise.interval.low, rise.interval.high)
        found.append(Number("loss-of-decoding", rise.value, *ends, "nats per token", meaning))
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """Arms, then layers."""
        arms = tuple(
            (
                name,
                one.value,
                one.interval.low,
                one.interval.high,
                *_ends(self.recovered.get(_LOSS.get(name, ""))),
            )
            for name, one in self.variance.items()
        )
        columns = (
            "dictionary",
            "variance explained",
            "low",
            "high",
            "loss recovered",
            "loss_low",
            "loss_high",
        )
        layers = tuple(
            (name, one.value, one.interval.low, one.interval.high) for name, one in self.by_layer.items()
        )
        note = "The same dictionary on the states of every layer, on fewer texts."
        return (
            Table("dictionary", "What is explained", columns, arms, "Intervals: 95%, over texts.", main=0),
            Table(
                "layers",
                "At other layers",
                ("site", "variance explained", "low", "high"),
                layers,
                note,
                folded=True,
            ),
        )

    def figures(self) -> tuple[Figure, ...]:
        """What it explains of every layer."""
        names = [name.rpartition(".")[2] for name in self.by_layer]
        ends = list(self.by_layer.values())
        data: dict[str, Any] = {
            "x": [float(name) if name.isdigit() else 0.0 for name in names],
            "series": ["this dictionary"] * len(names),
            "value": [max(one.value, 0.0) for one in ends],
            "low": [max(one.interval.low, 0.0) for one in ends],
            "high": [max(one.interval.high, 0.0) for one in ends],
        }
        text = "What a dictionary of one layer explains of every layer; below nothing is drawn as nothing."
        return (
            Figure(
                "layers", "curve", data, "Its own layer and others", text, x="layer", y="variance explained"
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What the numbers do not show."""
        return (
            "A high share of variance says that states are described, not that single features mean a thing.",
            "Texts that the model itself wrote are likelier than others; on your prompts it may be worse.",
        )

    def findings(self) -> tuple[Finding, ...]:
        """Loss with the decoded site, less the plain loss, per text."""
        values = (self.losses["spliced"] - self.losses["plain"]) / np.array(self.tokens)
        return (
            Finding("loss of decoding", values, tuple(map(str, range(len(values)))), unit="nats per token"),
        )


_LOSS = {OWN: "zero", EXCHANGED: EXCHANGED}


def _ends(one: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if one is None else (one.value, one.interval.low, one.interval.high)


def described(dictionary: Dictionary) -> dict[str, Any]:
    """What a result says of a dictionary, as JSON types."""
    return {
        "name": dictionary.name,
        "layout": dictionary.layout,
        "fingerprint": dictionary.fingerprint,
        "site_in": str(dictionary.site_in),
        "site_out": str(dictionary.site_out),
        "layer": dictionary.layer,
        "features": dictionary.n_features,
        "activation": dictionary.activation.name,
        "trained_on": dictionary.model_name,
    }


def check(
    model: ModelLike,
    dictionary: Dictionary,
    *,
    texts: Sequence[str] | None = None,
    n_texts: int = TEXTS,
    seed: int = 0,
) -> FeatureCertificate:
    """Judge a dictionary on a model, beside dictionaries that cannot know it.

    Args:
        model: whose states.
        dictionary: of one of its sites.
        texts: to judge on; None for texts drawn from the model, which are kept in the user's cache.
        n_texts: how many at most.
        seed: of draws, and of the exchanged and rotated dictionaries.

    Raises:
        ConfigError: it does not fit the model; likewise SiteError and ModelError.
        DataError: too few texts.
    """
    model = as_model(model)
    own = model.with_dictionaries(dictionary).dictionaries[dictionary.layer]
    ids = texts_of(model, texts, n_texts, seed=seed)
    return judged(model, own, ids, given=texts is not None, seed=seed)


def judged(
    model: Model, own: Dictionary, ids: Sequence[Sequence[int]], *, given: bool, seed: int = 0
) -> FeatureCertificate:
    """The certificate of a dictionary on token ids.

    Args:
        model: whose states.
        own: of one of its sites.
        ids: of the texts.
        given: whether these were given; else they are the model's own.
        seed: of the exchanged and rotated dictionaries.
    """
    arms = {OWN: own, EXCHANGED: permuted(own, seed), ROTATED: rotated(own, seed)}
    seen = {name: explained(model, [one], ids)[one.layer] for name, one in arms.items()}
    if model.weights != "random":
        seen[UNTRAINED] = explained(untrained_model(model), [own], ids)[own.layer]
    active, fired = usage(model, own, ids)
    lost = losses(model, own, ids)
    lost[EXCHANGED] = losses(model, arms[EXCHANGED], ids, ("spliced",))["spliced"]
    return FeatureCertificate(
        dictionary=described(own),
        tokens=tuple(len(row) - FIRST for row in ids),
        explained={name: _rows(arm) for name, arm in seen.items()},
        layers={site: _rows(arm) for site, arm in _every_layer(model, own, ids[:LAYER_TEXTS]).items()},
        active=active,
        fired=fired,
        losses=lost,
        about=About(model=model.described, data={"name": "given texts" if given else "texts of its own"}),
        seed=seed,
        warnings=named_otherwise(model, own),
    )


def certified(model: Model, dictionary: Dictionary) -> FeatureCertificate:
    """The certificate of a dictionary on a model's own texts, made once and kept in the user's cache."""
    marks = f"{VERSION}|{model.fingerprint}|{model.tokenizer_fingerprint}|{dictionary.fingerprint}"
    folder = cache() / "dictionaries" / hashlib.sha256(marks.encode()).hexdigest()[:32]
    with suppress(ArtifactError):
        found = results.load(folder)
        if isinstance(found, FeatureCertificate):
            # the same weights may be called otherwise, and be said to be of another model
            return replace(
                found, dictionary=described(dictionary), warnings=named_otherwise(model, dictionary)
            )
    made = check(model, dictionary)
    with suppress(ConfigError, OSError):
        made.save(folder)
    return made


def notes_of(model: Model, layers: Iterable[int]) -> tuple[str, ...]:
    """What a result over features says of their dictionaries: a line of certificate for each.

    Args:
        model: with its dictionaries.
        layers: whose features or errors were used.
    """
    used = [model.dictionaries[layer] for layer in sorted(set(layers))]
    lines = tuple(certified(model.with_dictionaries(), one).line() for one in used)
    crossing = [one.site_out.kind for one in model.dictionaries.values() if one.later]
    alone = any(one.site_out.kind in crossing for one in used)
    return (*lines, CROSSING) if alone else lines


def _rows(arm: Arm) -> Float[np.ndarray, "2 text"]:
    return np.stack([arm.unexplained, arm.total])


def _every_layer(model: Model, own: Dictionary, ids: Sequence[Sequence[int]]) -> dict[str, Arm]:
    """The dictionary at every layer that has its sites, as wide; site to its sums."""
    if own.site_in.layer is None or own.site_out.layer is None:
        return {str(own.site_out): explained(model, [replace(own, later=())], ids)[own.layer]}
    both = [model.anatomy.layers(site.kind) for site in (own.site_in, own.site_out)]
    widths = model.anatomy.heads if own.site_out.kind == "z" else model.anatomy.neurons
    alike = own.site_out.kind not in ("z", "mlp_act")
    layers = [n for n in sorted(set(both[0]) & set(both[1])) if alike or widths[n] == widths[own.layer]]
    found = explained(model, [moved_to(own, layer) for layer in layers], ids)
    return {f"{own.site_out.kind}.{layer}": arm for layer, arm in found.items()}


def named_otherwise(model: Model, own: Dictionary) -> tuple[str, ...]:
    """A warning where the dictionary names another model than the one it is used on."""
    trained, used = (name.rstrip("/").rpartition("/")[2].lower() for name in (own.model_name, model.name))
    if not trained or CALLED.get(trained, trained) == CALLED.get(used, used):
        return ()
    return (f"the dictionary's configuration names the model {own.model_name!r}, and this is {model.name!r}",)
