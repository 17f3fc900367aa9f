"""The logit lens: what the model would answer if the rest of it were skipped, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp import results
from interp.errors import ConfigError
from interp.mediation.metrics import METRICS, Targets
from interp.models.model import Model
from interp.pairs import PairSet
from probes.statistics import bootstrap

if TYPE_CHECKING:
    import pandas

__all__ = ["Lens", "logit_lens"]

SCHEMA = "interp.lens/1"
PROMPTS = ("clean", "corrupt")
MEASURES = {
    "logit_diff": "mean logit of the answers less that of the foils (logits)",
    "answer_prob": "the answers' total probability",
    "kl": "divergence of the lens from the model's own output (nats)",
    "rank": "place of the best answer among all tokens; 1 is the likeliest",
}


@dataclass(frozen=True, eq=False, repr=False)
class Lens:
    """Hold what the final norm and head make of the stream after each block.

    Attributes:
        sites: ``embed`` and ``resid_post.l``, in order.
        values: measure (a key of ``MEASURES``) to ``[site pair]``.
        groups: of the pairs; intervals are over them.
        prompts: ``clean`` or ``corrupt``.
        model: name, weights, fingerprint.
        seed: of intervals.
        warnings: what a reader should know.
    """

    sites: tuple[str, ...]
    values: Mapping[str, Float[np.ndarray, "site pair"]]
    groups: tuple[str, ...]
    prompts: str
    model: Mapping[str, Any]
    seed: int = 0
    warnings: tuple[str, ...] = ()

    def table(self) -> pandas.DataFrame:
        """Give one row per site: each measure's mean, the logit difference with its interval, median rank."""
        import pandas

        rows: list[dict[str, Any]] = []
        for at, site in enumerate(self.sites):
            found = bootstrap(
                self.values["logit_diff"][at], groups=self.groups, seed=self.seed, support="real"
            )
            rows.append(
                {
                    "site": site,
                    "logit_diff": found.value,
                    "low": found.interval.low,
                    "high": found.interval.high,
                    "answer_prob": float(self.values["answer_prob"][at].mean()),
                    "kl": float(self.values["kl"][at].mean()),
                    "rank": float(np.median(self.values["rank"][at])),
                }
            )
        return pandas.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the per-pair values as JSON types."""
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "prompts": self.prompts,
                "measures": MEASURES,
                "n_pairs": len(self.groups),
                "model": dict(self.model),
                "seed": self.seed,
                "lens": self.table().to_dict("records"),
                "warnings": list(self.warnings),
            }
        )
        return plain

    def diff(self, reference: Lens) -> pandas.DataFrame:
        """Give the change of each site's measures from another result."""
        return results.difference(self.table(), reference.table(), on=["site"])

    def _repr_html_(self) -> str:
        return results.table_html(self.table(), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        right = (self.values["rank"] == 1).mean(axis=1) >= 0.5
        first = self.sites[int(right.argmax())] if right.any() else "nowhere"
        shape = f"{len(self.sites)} sites x {len(self.groups)} {self.prompts} prompts"
        return f"Lens({shape}, the answer leads for half of them from: {first})"


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
    sites = ("embed", *(f"resid_post.{layer}" for layer in range(model.n_layers)))
    read = model.capture(tokens, list(sites), "last")
    lenses = [model.unembed(read[site]) for site in sites]
    targets = Targets.of(pairs, lenses[-1].device, lenses[-1])
    measured = [_measures(logits, targets) for logits in lenses]
    return Lens(
        sites,
        {name: np.stack([one[name] for one in measured]) for name in MEASURES},
        tuple(pairs.groups),
        prompts,
        model.described,
        seed,
        pairs.notes,
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
