"""Direct logit attribution: what each writer to the residual stream adds to the logit difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp import results
from interp.errors import ConfigError
from interp.mediation.frozen import Readout
from interp.mediation.metrics import Targets
from interp.mediation.writers import written
from interp.models.model import Model
from interp.pairs import PairSet
from probes.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    import pandas

__all__ = ["Contributions", "direct_logit_attribution"]

SCHEMA = "interp.contributions/1"
PROMPTS = ("clean", "corrupt")


@dataclass(frozen=True, eq=False, repr=False)
class Contributions:
    """Hold what each writer contributes to each prompt's logit difference; they add up to it.

    Attributes:
        writers: ``embed``, ``head.l.h``, ``attn_bias.l``, ``attn_out.l`` (where heads do not add up),
            ``mlp_out.l``, and ``constant`` for the biases of the final norm and the head.
        values: ``[writer pair]``, in logits.
        total: ``[pair]``, the logit difference of the run, before any cap on logits.
        groups: of the pairs; intervals are over them.
        prompts: ``clean`` or ``corrupt``.
        model: name, weights, fingerprint.
        seed: of intervals.
        warnings: what a reader should know.
    """

    writers: tuple[str, ...]
    values: Float[np.ndarray, "writer pair"]
    total: Float[np.ndarray, " pair"]
    groups: tuple[str, ...]
    prompts: str
    model: Mapping[str, Any]
    seed: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def remainder(self) -> float:
        """Give the largest difference between a total and the sum of its contributions: rounding only."""
        return float(np.abs(self.values.sum(axis=0) - self.total).max())

    def top(self, k: int = 10) -> tuple[str, ...]:
        """Give the k writers with the largest absolute mean contribution."""
        order = np.argsort(-np.abs(self.values.mean(axis=1)), kind="stable")
        return tuple(self.writers[at] for at in order[:k])

    def estimate(self, writer: str) -> Estimate:
        """Give one writer's mean contribution with its interval over groups.

        Raises:
            ConfigError: there is no such writer.
        """
        if writer not in self.writers:
            raise ConfigError(f"no writer {writer!r}; there are: {', '.join(self.writers[:8])}, ...")
        row = self.values[self.writers.index(writer)]
        return bootstrap(row, groups=self.groups, seed=self.seed, support="real")

    def table(self, k: int | None = None) -> pandas.DataFrame:
        """Give one row per writer, the largest first: writer, contribution, low, high (logits).

        Args:
            k: how many rows; all where left out.
        """
        import pandas

        rows: list[dict[str, Any]] = []
        for writer in self.top(len(self.writers))[:k]:
            found = self.estimate(writer)
            ends = {"low": found.interval.low, "high": found.interval.high}
            rows.append({"writer": writer, "contribution": found.value, **ends})
        return pandas.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the per-pair values as JSON types."""
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "prompts": self.prompts,
                "unit": "logits",
                "n_pairs": len(self.total),
                "total": float(self.total.mean()),
                "remainder": self.remainder,
                "model": dict(self.model),
                "seed": self.seed,
                "contributions": self.table().to_dict("records"),
                "warnings": list(self.warnings),
            }
        )
        return plain

    def diff(self, reference: Contributions) -> pandas.DataFrame:
        """Give the change of each writer's mean contribution from another result."""
        return results.difference(self.table(), reference.table(), on=["writer"])

    def _repr_html_(self) -> str:
        return results.table_html(self.table(20), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        shape = f"{len(self.writers)} writers x {len(self.total)} {self.prompts} prompts"
        return f"Contributions({shape}, largest: {', '.join(self.top(3))})"


def direct_logit_attribution(
    model: Model, pairs: PairSet, *, prompts: str = "clean", seed: int = 0
) -> Contributions:
    """Split the logit difference after the last token into what each writer contributes directly.

    With the final norm's scale held at the run's own value the logits are linear in the stream, which is a
    sum of its writers (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). The
    contributions add up to the logit difference before any cap. They tell what is written, not what caused
    it: a writer's direct *effect* with a live norm is the search ``direct``.

    Args:
        model: what is run, once.
        pairs: the prompts, answers and foils; several answers count by their mean logit.
        prompts: ``clean`` or ``corrupt``.
        seed: of intervals.

    Raises:
        ConfigError: other prompts are asked for.
        ModelError: the final norm is no layer or RMS norm.
        SiteError: the model does not offer a kind of site that is needed.
    """
    if prompts not in PROMPTS:
        raise ConfigError(f"prompts {prompts!r} asked; use {' or '.join(PROMPTS)}.")
    parts, streams = written(model, pairs.clean if prompts == "clean" else pairs.corrupt)
    readout = Readout.of(model, streams, Targets.of(pairs, streams.device))
    values = {writer: readout(part).cpu().numpy() for writer, part in parts.items()}
    values["constant"] = readout.constants.cpu().numpy()
    return Contributions(
        tuple(values),
        np.stack(list(values.values())),
        readout.total.cpu().numpy(),
        tuple(pairs.groups),
        prompts,
        model.described,
        seed,
        pairs.notes,
    )
