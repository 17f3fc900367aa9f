"""Lenses over many prompts: how early and how well each says what the model says, beside an untrained one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError, DataError
from interp.lenses.base import Lens, without_text
from interp.lenses.patchscope import PatchscopeLens
from interp.lenses.reading import read_states
from interp.lenses.table import LENSES, is_file, make
from interp.models.loading import ModelLike, as_model, untrained_model
from interp.models.model import Model
from interp.results import About, Figure, Finding, Number, Result, Table
from interp.results.shapes import counted
from interp.sites import parse_layers
from interp.tasks.prompts import Labelled
from probes.statistics import Estimate, bootstrap, paired_difference

__all__ = ["LensCurves", "Measured", "curves"]

HALF = 0.5
COLUMNS = (
    *("lens", "model", "layer", "agreement", "agreement_low", "agreement_high"),
    *("rank", "rank_low", "rank_high", "kl", "kl_low", "kl_high"),
)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one lens reads at the last token of each prompt, after each block.

    Attributes:
        agreement: 1 where its likeliest word is the model's own, else 0.
        rank: of the model's own word; 1 is the likeliest.
        kl: divergence of the lens from the model's own output (nats).
    """

    agreement: Float[np.ndarray, "layer prompt"]
    rank: Float[np.ndarray, "layer prompt"]
    kl: Float[np.ndarray, "layer prompt"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LensCurves(Result):
    """How well lenses say what the model says in the end, layer by layer.

    Attributes:
        layers: that were read, in order.
        n_layers: blocks of the model.
        groups: of the prompts; intervals are over them.
        trained: of each lens, on the model.
        untrained: likewise, on the same model with random weights, for which fitted lenses are fitted anew;
            without the lenses of files, and empty where the model is untrained itself.
        commonest: 1 for each prompt after which the model says the word that it says most often, else 0: what
            always saying this word would reach.
        cards: of each lens, what it was made of.
    """

    schema: ClassVar[str] = "interp.lens-curves/1"

    layers: tuple[int, ...]
    n_layers: int
    groups: tuple[str, ...]
    trained: Mapping[str, Measured]
    untrained: Mapping[str, Measured]
    commonest: Float[np.ndarray, " prompt"]
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def redacted(self) -> LensCurves:
        """The same without the prompt that a patchscope reads a state in."""
        return replace(self, cards={name: without_text(one) for name, one in self.cards.items()})

    @property
    def before(self) -> int:
        """How many of the layers that were read come before the last block, where nothing is left to see."""
        return len(self.layers) - (self.layers[-1] == self.n_layers - 1) or len(self.layers)

    @property
    def _where(self) -> str:
        """Which layers that is."""
        first, *more = self.layers
        if not more and first == self.n_layers - 1:
            return "the last layer (where every lens gives the model's own output)"
        return "the layers before the last" if more else f"layer {first}"

    def _share(self, one: Measured) -> Float[np.ndarray, " prompt"]:
        return one.agreement[: self.before].mean(axis=0)

    @cached_property
    def early(self) -> dict[str, Estimate]:
        """Of each lens: share of layers (but the last) and prompts at which it agrees, with an interval."""
        return {
            kind: bootstrap(self._share(one), groups=self.groups, support="share")
            for kind, one in self.trained.items()
        }

    def _gain(self, kind: str, other: Measured | None) -> Estimate | None:
        if other is None:
            return None
        shares = (self._share(self.trained[kind]), self._share(other))
        return paired_difference(*shares, groups=self.groups, support="share")

    def half(self, kind: str) -> int | None:
        """The layer from which on a lens agrees on half of the prompts, in all that were read."""
        wrong = np.flatnonzero(self.trained[kind].agreement.mean(axis=1) < HALF)
        start = int(wrong[-1]) + 1 if len(wrong) else 0
        return self.layers[start] if start < len(self.layers) else None

    @property
    def best(self) -> str:
        """The lens that agrees most."""
        return max(self.early, key=lambda kind: self.early[kind].value)

    def question(self) -> str:
        """What was asked."""
        return f"How early can the model's next word be read? ({self.about.words})"

    def verdict(self) -> str:
        """The best lens, its lead over the logit lens, and the same of an untrained model."""
        best, found = self.best, self.early[self.best]
        text = (
            f"At {self._where} the {best} lens names the model's own next word in {found.value:.0%} of "
            f"the cases {_ends(found)}"
        )
        if best != "logit" and "logit" in self.trained:
            lead = self._gain(best, self.trained["logit"])
            assert lead is not None
            sure = "" if lead.interval.low > 0 else ", which these prompts cannot tell from none"
            text += f", {lead.value:+.0%} over the logit lens {_ends(lead)}{sure}"
        twin = self.untrained.get(best)
        if twin is None:
            return f"{text}."
        gain = self._gain(best, twin)
        assert gain is not None
        why = ", so that agreement by itself shows nothing that was learned"
        why = "" if gain.interval.low > 0 else why
        return f"{text}. In the same model untrained it is {self._share(twin).mean():.0%}{why}."

    def lead(self) -> tuple[str, ...]:
        """What was read."""
        return (
            f"The stream after {len(self.layers)} of {self.n_layers} blocks of {self.about.model_name} was "
            f"read at the last token of {counted(len(self.groups), 'prompt')}. A lens agrees where the word "
            "that it takes for the likeliest is the one that the model itself says next, right or wrong.",
            *(f"{kind}: {LENSES[kind].description}." for kind in self.trained if kind in LENSES),
        )

    def numbers(self) -> tuple[Number, ...]:
        """How often each lens agrees, and its lead over the untrained model and over the logit lens."""
        found = []
        for kind, one in self.early.items():
            name, where = _slug(kind), "share of layers before the last, and of prompts"
            found.append(_number(f"agreement-{name}", one, f"{where}, with the model's own word first"))
            if (gain := self._gain(kind, self.untrained.get(kind))) is not None:
                text = "what agrees more than in the same model untrained"
                found.append(_number(f"over-untrained-{name}", gain, text, f"{kind}, over untrained"))
            if kind != "logit" and "logit" in self.trained:
                lead = self._gain(kind, self.trained["logit"])
                assert lead is not None
                text = "what agrees more than by the logit lens"
                found.append(_number(f"over-logit-{name}", lead, text, f"{kind}, over logit"))
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """One row for each lens, and every point of the curves."""
        columns = ("lens", "agreement", "low", "high", "half_from", "kl", "untrained")
        rows = [
            (
                kind,
                one.value,
                one.interval.low,
                one.interval.high,
                self.half(kind),
                float(self.trained[kind].kl[: self.before].mean()),
                float(self._share(self.untrained[kind]).mean()) if kind in self.untrained else None,
            )
            for kind, one in self.early.items()
        ]
        note = (
            "agreement: share of the layers before the last one, and of prompts, at which the lens names "
            "the model's own next word (always saying the commonest of these words reaches "
            f"{self.commonest.mean():.3f}); intervals over {counted(len(set(self.groups)), 'group')}. "
            "half_from: the layer from which on it does so for half of the prompts. kl: mean divergence from "
            "the model's own output, over the same layers (nats). untrained: agreement in this model with "
            "random weights."
        )
        main = list(self.early).index(self.best)
        points = Table("curves", "Every layer", COLUMNS, tuple(self.points), folded=True)
        return Table("lenses", "The lenses, over all layers", columns, rows, note, main), points

    @cached_property
    def points(self) -> list[tuple[Any, ...]]:
        """The rows of the curves: agreement and divergence are means, the rank is a geometric mean."""
        rows = []
        for model, lenses in (("trained", self.trained), ("untrained", self.untrained)):
            for kind, one in lenses.items():
                for at, layer in enumerate(self.layers):
                    rank = bootstrap(np.log(one.rank[at]), groups=self.groups, support="real")
                    ranks = np.exp(_from_zero(rank)).tolist()
                    rows.append(
                        (
                            *(kind, model, layer),
                            *_three(bootstrap(one.agreement[at], groups=self.groups, support="share")),
                            *ranks,
                            *_from_zero(bootstrap(one.kl[at], groups=self.groups, support="real")),
                        )
                    )
        return rows

    def figures(self) -> tuple[Figure, ...]:
        """Agreement, that of the untrained model, divergence and rank, after each block."""
        note = f"Over {counted(len(self.groups), 'prompt')}; bands: 95%, over groups of prompts."
        shared = "the lens names the model's own word (share)"
        made = [
            self._curve(
                "agreement", "trained", 3, "How often each lens says what the model says", shared, note
            )
        ]
        if self.untrained:
            title = "The same in the model with random weights"
            made.append(self._curve("untrained", "untrained", 3, title, shared, note))
        title = "How far each lens is from the model's own output"
        made.append(self._curve("kl", "trained", 9, title, "divergence (nats)", note))
        title = "Where each lens places the model's own word"
        ranks = self._curve("rank", "trained", 6, title, "log10 of its rank; 0 is first", note)
        logs = {key: np.log10(ranks.data[key]).tolist() for key in ("value", "low", "high")}
        return (*made, replace(ranks, data={**ranks.data, **logs}))

    def _curve(self, name: str, model: str, column: int, title: str, y: str, caption: str) -> Figure:
        rows = [row for row in self.points if row[1] == model]
        data: dict[str, Any] = {"x": [row[2] for row in rows], "series": [row[0] for row in rows]}
        data |= {key: [row[column + at] for row in rows] for at, key in enumerate(("value", "low", "high"))}
        known: dict[str, Any] = {"x": "layer", "y": y, "limits": (-0.02, 1.02) if column == 3 else None}
        if name == "agreement":
            known |= {"reference": float(self.commonest.mean()), "reference_name": "the commonest word"}
        return Figure(name, "curve", data, title, caption, **known)

    def findings(self) -> tuple[Finding, ...]:
        """Agreement and divergence at every layer; agreement has to beat always saying the commonest word."""
        return tuple(self._findings())

    def _findings(self) -> Iterator[Finding]:
        for kind, one in self.trained.items():
            for at, layer in enumerate(self.layers):
                known: dict[str, Any] = {"groups": self.groups, "layer": layer}
                yield Finding(
                    f"agreement of {kind} at layer {layer}",
                    one.agreement[at],
                    control=self.commonest,
                    unit="share",
                    curve=f"agreement of {kind}",
                    about="share of prompts on which the lens names the model's own next word",
                    direction=1,
                    **known,
                )
                yield Finding(
                    f"divergence of {kind} at layer {layer}",
                    one.kl[at],
                    unit="nats",
                    curve=f"divergence of {kind}",
                    about="divergence of the lens from the model's own output",
                    **known,
                )

    def cautions(self) -> tuple[str, ...]:
        """What the lenses do not show."""
        said = "Agreement says that a word can be read, not that the later blocks read it there."
        own = (LENSES[kind].caution for kind in self.trained if kind in LENSES)
        return (said, *dict.fromkeys(text for text in own if text))


def curves(
    model: ModelLike,
    data: Labelled | Sequence[str],
    *,
    kinds: Sequence[str] = ("logit", "translator"),
    layers: int | str = "all",
    texts: Sequence[str] | None = None,
    untrained: ModelLike | None = None,
    target: str | None = None,
    seed: int = 0,
    batch_size: int | str = "auto",
) -> LensCurves:
    """Read the last token of many prompts under several lenses, in the model and in its untrained twin.

    Args:
        model: what is read.
        data: the prompts; texts alone are a group each.
        kinds: of ``LENSES``, or files of published lenses.
        layers: which to read, in the grammar of layers.
        texts: what lenses that are fitted learn from, other than the prompts; their own where left out.
        untrained: the same model with random weights; made where left out.
        target: the prompt of a patchscope; its own where left out.
        seed: of fits.
        batch_size: prompts in a pass.

    Raises:
        ConfigError: no such kind, one text in place of several, or a twin of another shape.
        SiteError: no such layer, or one that a lens does not read.
        DataError: fewer than two prompts.
    """
    model = as_model(model)
    if isinstance(data, str) or isinstance(kinds, str):
        given = data if isinstance(data, str) else kinds
        raise ConfigError(f"the text {given!r:.60} given; prompts and kinds of lenses are lists.")
    data = data if isinstance(data, Labelled) else _of_texts(data)
    if len(data) < 2:
        raise DataError("a curve needs at least 2 prompts; for one, use lenses.view(model, prompt).")
    if len(set(kinds)) < len(kinds) or not kinds:
        raise ConfigError(f"lenses {', '.join(kinds) or 'none'} asked; give one or several, each once.")
    wanted = parse_layers(layers, model.n_layers, name=model.name, kind="resid_post")
    arm = _Arm(tuple(data.texts), tuple(wanted), texts, target, seed, batch_size)
    trained, cards, said = arm.read(model, kinds)
    twin = None if model.weights == "random" else _twin(model, untrained)
    fitted = [kind for kind in kinds if not is_file(kind)]
    other = {} if twin is None else arm.read(twin, fitted)[0]
    return LensCurves(
        layers=tuple(wanted),
        n_layers=model.n_layers,
        groups=tuple(data.groups),
        trained=trained,
        untrained=other,
        commonest=(said == said.mode().values).double().cpu().numpy(),
        cards=cards,
        about=About(model=model.described, data=data.described),
        seed=seed,
        warnings=model.warnings,
    )


def _of_texts(texts: Sequence[str]) -> Labelled:
    n = len(texts)
    return Labelled("prompts", "texts", tuple(texts), ("",) * n, tuple(texts), ("",) * n, "given", False)


def _twin(model: Model, given: ModelLike | None) -> Model:
    twin = untrained_model(model) if given is None else as_model(given)
    if (twin.n_layers, twin.d_model, twin.vocab_size) != (model.n_layers, model.d_model, model.vocab_size):
        raise ConfigError(
            f"the untrained model has {twin.n_layers} layers of width {twin.d_model}, the model "
            f"{model.n_layers} of {model.d_model}; give the same architecture with random weights, or none."
        )
    return twin


@dataclass(frozen=True, eq=False)
class _Arm:
    """What is read in a model, and in its untrained twin alike."""

    prompts: tuple[str, ...]
    layers: tuple[int, ...]
    texts: Sequence[str] | None
    target: str | None
    seed: int
    batch_size: int | str

    def read(
        self, model: Model, kinds: Sequence[str]
    ) -> tuple[dict[str, Measured], dict[str, dict[str, Any]], Int[Tensor, " prompt"]]:
        """What each lens reads of the last tokens, its card, and what the model itself says, in one run."""
        sites = [f"resid_post.{layer}" for layer in self.layers]
        run = model.run(list(self.prompts), capture=sites, batch_size=self.batch_size)
        assert run.logits is not None and run.activations is not None
        states = {layer: run.activations[site] for layer, site in zip(self.layers, sites, strict=True)}
        measured, cards = {}, {}
        for kind in kinds:
            lens = self.lens(model, kind)
            name = f"{lens.kind} ({kind})" if is_file(kind) else kind
            measured[name], cards[name] = _measured(lens, states, run.logits.float()), lens.card()
        return measured, cards, run.logits.argmax(dim=-1)

    def lens(self, model: Model, kind: str) -> Lens:
        """A lens of the model."""
        if kind == PatchscopeLens.kind and self.target is not None:
            return PatchscopeLens.of(model, self.layers, target=self.target)
        return make(kind, model, layers=self.layers, texts=self.texts, seed=self.seed)


def _measured(lens: Lens, states: Mapping[int, Tensor], final: Float[Tensor, "prompt vocab"]) -> Measured:
    cells = [read_states(lens, one, layer, final) for layer, one in states.items()]
    own = final.argmax(dim=-1)
    parts = (
        torch.stack([one.best.to(own.device) == own for one in cells]),
        torch.stack([one.rank for one in cells]),
        torch.stack([one.kl for one in cells]).clamp_min(0.0),
    )
    return Measured(*(part.double().cpu().numpy() for part in parts))


def _three(found: Estimate) -> tuple[float, float, float]:
    return found.value, found.interval.low, found.interval.high


def _from_zero(found: Estimate) -> tuple[float, float, float]:
    """The same of what is never below zero, so that its interval isn't either."""
    value, low, high = _three(found)
    return value, max(0.0, low), high


def _number(name: str, found: Estimate, meaning: str, label: str = "") -> Number:
    return Number(name, *_three(found), meaning=meaning, label=label)


def _slug(kind: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in kind.partition(" ")[0])


def _ends(found: Estimate) -> str:
    return f"[{found.interval.low:.0%}, {found.interval.high:.0%}]"
