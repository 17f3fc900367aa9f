"""The logit lens: what the model would answer if the rest of it were skipped, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, counted
from interp.lenses.logit import LogitLens
from interp.mediation.doubts import doubts
from interp.mediation.metrics import METRICS, Targets
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About, Figure, Finding, Number, Result, Table
from probes.statistics import bootstrap

__all__ = ["Lens", "logit_lens"]

PROMPTS = ("clean", "corrupt")
MEASURES = {
    "logit_diff": "mean logit of the answers less that of the foils (logits)",
    "answer_prob": "the answers' total probability",
    "kl": "divergence of the lens from the model's own output (nats)",
    "rank": "place of the best answer among all tokens; 1 is the likeliest",
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Lens(Result):
    """What the final norm and head make of the stream after each block.

    Attributes:
        sites: ``embed`` and ``resid_post.l``, in order.
        values: measure (a key of ``MEASURES``) to ``[site pair]``.
        groups: of the pairs; intervals are over them.
        prompts: ``clean`` or ``corrupt``.
    """

    schema: ClassVar[str] = "interp.lens/2"

    sites: tuple[str, ...]
    values: Mapping[str, Float[np.ndarray, "site pair"]]
    groups: tuple[str, ...]
    prompts: str

    @property
    def first(self) -> int | None:
        """Place of the first site at which the answer leads for half of the prompts; None for nowhere."""
        right = (self.values["rank"] == 1).mean(axis=1) >= 0.5
        return int(right.argmax()) if right.any() else None

    @cached_property
    def rows(self) -> tuple[tuple[str, float, float, float, float, float, float], ...]:
        """The cells of the table."""
        rows = []
        for at, site in enumerate(self.sites):
            values = self.values["logit_diff"][at]
            found = bootstrap(values, groups=self.groups, seed=self.seed, support="real")
            means = [float(self.values[name][at].mean()) for name in ("answer_prob", "kl")]
            rank = float(np.median(self.values["rank"][at]))
            rows.append((site, found.value, found.interval.low, found.interval.high, *means, rank))
        return tuple(rows)

    def tables(self) -> tuple[Table, ...]:
        """``lens``, one row per site: each measure's mean, the logit difference's interval, median rank."""
        columns = ("site", "logit_diff", "low", "high", "answer_prob", "kl", "rank")
        meanings = "; ".join(f"{name}: {meaning}" for name, meaning in MEASURES.items())
        groups = len(set(self.groups))
        note = (
            f"Intervals: 95%, over {counted(groups, 'group')} of pairs. {meanings} (the median over prompts)."
        )
        return (Table("lens", "The logit lens, by site", columns, self.rows, note),)

    def question(self) -> str:
        """From which layer on the answer can be read, in which data and model."""
        return f"From which layer on does the stream hold the answer? ({self.about.words})"

    def verdict(self) -> str:
        """The first site at which the answer leads for half of the prompts."""
        n = counted(len(self.groups), f"{self.prompts} prompt")
        if self.first is None:
            return f"The answer is the likeliest token for half of the {n} at no site."
        first = self.sites[self.first]
        return f"The answer is the likeliest token for half of the {n} first at {first}."

    def lead(self) -> tuple[str, ...]:
        """What was read."""
        return (
            f"The stream after every block was read through the final norm and head of "
            f"{self.about.model_name}, on {counted(len(self.groups), f'{self.prompts} prompt')}. After "
            "the last block these are the model's own logits.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The logit difference in the end, and from which layer on the answer leads."""
        _, value, low, high, *_ = self.rows[-1]
        layer = None if not self.first else self.first - 1
        return (
            Number("logit-diff", value, low, high, "logits", "after the last block: the model's own answer"),
            Number(
                "first-layer",
                layer,
                meaning="the first after which the answer is the likeliest for half of the prompts",
            ),
        )

    def figures(self) -> tuple[Figure, ...]:
        """The logit difference after each block, the embedding at -1."""
        cells = zip(*((at - 1, "logit_diff", *row[1:4]) for at, row in enumerate(self.rows)), strict=True)
        data: dict[str, Any] = dict(zip(("x", "series", "value", "low", "high"), cells, strict=True))
        return (
            Figure(
                "lens",
                "curve",
                data,
                "What the stream says after each block",
                f"Mean over {counted(len(self.groups), f'{self.prompts} prompt')}; -1 is the embedding. "
                "Bands: 95%, over groups of pairs.",
                x="layer",
                y="answer less foil (logits)",
                reference=0.0,
                reference_name="no difference",
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What a lens does not show."""
        return (
            "Before the last block this is what a linear reader with the model's own vocabulary sees, which "
            "is no proof that the model uses it: test a layer with a search over resid_post.*.",
        )

    def findings(self) -> tuple[Finding, ...]:
        """Every measure at every site, as in the table; each measure is a curve over layers.

        Means over pairs; of the rank the median, which a comparison draws again with the pairs.
        """
        units = {"logit_diff": "logits", "kl": "nats"}
        return tuple(
            Finding(
                f"{name} at {site}",
                self.values[name][at],
                self.groups,
                unit=units.get(name, ""),
                statistic=partial(_median, self.values[name][at]) if name == "rank" else None,
                curve=name,
                layer=at - 1,
                about=meaning,
            )
            for name, meaning in MEASURES.items()
            for at, site in enumerate(self.sites)
        )


def _median(values: Float[np.ndarray, " pair"], weights: Float[np.ndarray, " pair"]) -> float:
    """The median of values that count as often as their weights say."""
    order = np.argsort(values, kind="stable")
    below, half = np.cumsum(weights[order]), weights.sum() / 2
    first, last = np.searchsorted(below, half, side="left"), np.searchsorted(below, half, side="right")
    return float((values[order[first]] + values[order[min(last, len(order) - 1)]]) / 2)


def logit_lens(model: Model, pairs: PairSet, *, prompts: str = "clean", seed: int = 0) -> Lens:
    """Read the stream after every block through the final norm and head (logit lens, nostalgebraist 2020).

    After the last block these are the model's own logits. Before it they are what a linear reader with the
    model's own vocabulary sees, which is no proof that the model uses it: test a layer with a search over
    ``resid_post.*``.

    Args:
        model: what is run, once.
        pairs: the prompts, answers and foils.
        prompts: ``clean`` or ``corrupt``; answers and foils are those of the pair in both cases.
        seed: of intervals.

    Raises:
        ConfigError: other prompts are asked for.
        SiteError: the model's final norm is unknown.
    """
    if prompts not in PROMPTS:
        raise ConfigError(f"prompts {prompts!r} asked; use {' or '.join(PROMPTS)}.")
    tokens = pairs.clean if prompts == "clean" else pairs.corrupt
    reader = LogitLens.of(model, range(-1, model.n_layers))
    sites = ("embed", *(f"resid_post.{layer}" for layer in range(model.n_layers)))
    read = model.capture(tokens, list(sites), "last")
    lenses = [reader.logits(read[site], layer) for layer, site in zip(reader.layers, sites, strict=True)]
    targets = Targets.of(pairs, lenses[-1].device, lenses[-1])
    measured = [_measures(logits, targets) for logits in lenses]
    return Lens(
        sites=sites,
        values={name: np.stack([one[name] for one in measured]) for name in MEASURES},
        groups=tuple(pairs.groups),
        prompts=prompts,
        about=About(model=model.described, data=pairs.described),
        seed=seed,
        warnings=(*pairs.notes, *(doubts(lenses[-1], None, targets) if prompts == "clean" else ())),
    )


def _measures(logits: Float[Tensor, "pair vocab"], targets: Targets) -> dict[str, np.ndarray]:
    best = logits.gather(1, targets.answers).masked_fill(~targets.answered, -torch.inf).amax(dim=1)
    found = {
        "logit_diff": METRICS["logit-diff"].values(logits, targets),
        "answer_prob": METRICS["prob"].values(logits, targets),
        "kl": -METRICS["kl"].values(logits, targets),
        "rank": (logits > best[:, None]).sum(dim=1) + 1,
    }
    return {name: value.double().cpu().numpy() for name, value in found.items()}
