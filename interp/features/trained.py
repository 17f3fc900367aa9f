"""What training a dictionary gave: how it went, and the certificate of what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.features.certificate import FeatureCertificate
from interp.results import Figure, Number, Result, Table

__all__ = ["DictionaryTraining"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DictionaryTraining(Result):
    """A dictionary that was trained.

    Attributes:
        plan: how it was trained.
        steps: how many were made.
        states: how many different states there were.
        history: rows of step, share of variance left out in training, share of dead features.
        certificate: of the dictionary, on other texts.
    """

    schema: ClassVar[str] = "interp.feature-training/1"

    plan: Mapping[str, Any]
    steps: int
    states: int
    history: tuple[tuple[float, float, float], ...]
    certificate: FeatureCertificate

    def question(self) -> str:
        """What was trained."""
        return f"A dictionary of {self.plan['site']} of {self.about.model_name}"

    def verdict(self) -> str:
        """What the certificate says."""
        return f"After {self.steps:,} steps on {self.states:,} states: {self.certificate.verdict()}"

    def lead(self) -> tuple[str, ...]:
        """How it was trained."""
        return (
            f"{self.plan['n_features']:,} features, {self.plan['k']} active at a time (TopK; Gao et al. "
            f"2024), were trained in {self.plan['epochs']} passes over {self.states:,} states, dead ones by "
            "an auxiliary loss. The certificate is on texts that it was not trained on.",
            *self.certificate.lead(),
        )

    def numbers(self) -> tuple[Number, ...]:
        """Those of the certificate, and the end of training."""
        dead = Number(
            "dead-in-training", self.history[-1][2], meaning="share of features, at the last report"
        )
        return (*self.certificate.numbers(), dead)

    def tables(self) -> tuple[Table, ...]:
        """The certificate's, and the course of training."""
        columns = ("step", "left out", "dead")
        rows = [(int(at), left, dead) for at, left, dead in self.history]
        note = "Left out: share of each batch's variance, before its step."
        return (*self.certificate.tables(), Table("training", "Training", columns, rows, note, folded=True))

    def figures(self) -> tuple[Figure, ...]:
        """The certificate's, and the course of training."""
        steps = [row[0] for row in self.history]
        left = [row[1] for row in self.history]
        data: dict[str, Any] = {
            "x": steps,
            "series": ["left out"] * len(steps),
            "value": left,
            "low": left,
            "high": left,
        }
        text = "The share of each batch's variance that features left out."
        course = Figure(
            "training", "curve", data, "The course of training", text, x="step", y="share left out"
        )
        return (*self.certificate.figures(), course)

    def cautions(self) -> tuple[str, ...]:
        """Those of the certificate."""
        return self.certificate.cautions()
