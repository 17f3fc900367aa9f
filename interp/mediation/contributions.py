"""Direct logit attribution: what each writer to the residual stream adds to the logit difference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError, counted
from interp.mediation.doubts import doubts
from interp.mediation.frozen_norm import Readout
from interp.mediation.metrics import Targets
from interp.mediation.writers import written
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About, Figure, Finding, Number, Result, Table
from probes.statistics import Estimate, bootstrap

__all__ = ["Contributions", "direct_logit_attribution"]

DRAWN = 12
PROMPTS = ("clean", "corrupt")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Contributions(Result):
    """What each writer contributes to each prompt's logit difference; they add up to it.

    Attributes:
        writers: ``embed``, ``head.l.h``, ``attn_bias.l``, ``attn_out.l`` (where heads do not add up),
            ``mlp_out.l``, and ``constant`` for the biases of the final norm and the head.
        values: ``[writer pair]``, in logits.
        total: ``[pair]``, the logit difference of the run, before any cap on logits.
        groups: of the pairs; intervals are over them.
        prompts: ``clean`` or ``corrupt``.
    """

    schema: ClassVar[str] = "interp.contributions/2"

    writers: tuple[str, ...]
    values: Float[np.ndarray, "writer pair"]
    total: Float[np.ndarray, " pair"]
    groups: tuple[str, ...]
    prompts: str

    @property
    def remainder(self) -> float:
        """The largest difference between a total and the sum of its contributions: rounding only."""
        return float(np.abs(self.values.sum(axis=0) - self.total).max())

    def top(self, k: int = 10) -> tuple[str, ...]:
        """The k writers with the largest absolute mean contribution."""
        order = np.argsort(-np.abs(self.values.mean(axis=1)), kind="stable")
        return tuple(self.writers[at] for at in order[:k])

    def estimate(self, writer: str) -> Estimate:
        """One writer's mean contribution with its interval over groups.

        Raises:
            ConfigError: there is no such writer.
        """
        if writer not in self.writers:
            raise ConfigError(f"no writer {writer!r}; there are: {', '.join(self.writers[:8])}, ...")
        return self._interval(self.values[self.writers.index(writer)])

    def _interval(self, values: Float[np.ndarray, " pair"]) -> Estimate:
        return bootstrap(values, groups=self.groups, seed=self.seed, support="real")

    @cached_property
    def rows(self) -> tuple[tuple[str, float, float, float], ...]:
        """The cells of the table, the largest contribution first."""
        found = [(writer, self.estimate(writer)) for writer in self.top(len(self.writers))]
        return tuple((name, one.value, one.interval.low, one.interval.high) for name, one in found)

    def tables(self) -> tuple[Table, ...]:
        """``contributions``, one row per writer, the largest first: writer, contribution, low, high."""
        columns = ("writer", "contribution", "low", "high")
        note = (
            f"Intervals: 95%, over {counted(len(set(self.groups)), 'group')} of pairs. The sum of all "
            "misses the "
            f"logit difference by at most {self.remainder:.1e}: rounding."
        )
        return (Table("contributions", "Contributions (logits)", columns, self.rows, note, main=0, shown=20),)

    def question(self) -> str:
        """What writes the answer, in which data and model."""
        return f"What writes the answer? ({self.about.words})"

    def verdict(self) -> str:
        """The largest writers and the total they add up to."""
        each = ", ".join(f"{name} {value:+.2f}" for name, value, *_ in self.rows[:3])
        return (
            f"Of a logit difference of {self.total.mean():.2f} on "
            f"{counted(len(self.total), f'{self.prompts} prompt')} "
            f"the largest contributions of {len(self.writers)} are {each} (logits)."
        )

    def lead(self) -> tuple[str, ...]:
        """How the difference was split."""
        return (
            f"The logit difference of {self.about.model_name} after the last token of {len(self.total)} "
            f"{self.prompts} prompts was split into what each writer adds, with the final norm's scale held "
            "at the run's own value; contributions add up to it.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The logit difference and the largest contribution."""
        total, (name, value, low, high) = self._interval(self.total), self.rows[0]
        ends = (total.interval.low, total.interval.high)
        return (
            Number("logit-diff", total.value, *ends, "logits", "answer less foil, before any cap"),
            Number("largest-contribution", value, low, high, "logits", "", f"Largest: {name}"),
        )

    def figures(self) -> tuple[Figure, ...]:
        """The largest contributions."""
        columns = zip(*self.rows[:DRAWN], strict=True)
        data: dict[str, Any] = dict(zip(("name", "value", "low", "high"), columns, strict=True))
        return (
            Figure(
                "contributions",
                "intervals",
                data,
                "The largest contributions",
                "Intervals: 95%, over groups of pairs. Dashed: nothing.",
                x="contribution to the logit difference (logits)",
                reference=0.0,
                reference_name="nothing",
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What a contribution does not say."""
        return (
            "Contributions tell what is written, not what caused it: a writer's direct effect with a live "
            "norm is the search 'direct'.",
        )

    def findings(self) -> tuple[Finding, ...]:
        """The logit difference, then every writer's contribution, over pairs."""
        total = Finding("logit difference", self.total, self.groups, unit="logits")
        each = zip(self.writers, self.values, strict=True)
        return (total, *(Finding(name, row, self.groups, unit="logits") for name, row in each))


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
    targets = Targets.of(pairs, streams.device)
    readout = Readout.of(model, streams, targets)
    values = {writer: readout(part).cpu().numpy() for writer, part in parts.items()}
    values["constant"] = readout.constants.cpu().numpy()
    said = doubts(model.unembed(streams), None, targets) if prompts == "clean" else ()
    return Contributions(
        writers=tuple(values),
        values=np.stack(list(values.values())),
        total=readout.total.cpu().numpy(),
        groups=tuple(pairs.groups),
        prompts=prompts,
        about=About(model=model.described, data=pairs.described),
        seed=seed,
        warnings=(*pairs.notes, *said),
    )
