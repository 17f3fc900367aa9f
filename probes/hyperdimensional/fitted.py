"""What a Hyperdimensional Probe has learned: scaling, map, codebook, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.hyperdimensional.decoding import null_threshold
from probes.hyperdimensional.encoders import ENCODERS, FORMS, Encoder
from probes.hyperdimensional.inputs import exchanged
from probes.hyperdimensional.lesson import HeldOut, Lesson, Settings, slots_of
from probes.vsa.codebook import Codebook, Targets

__all__ = ["Familiar", "Fitted", "Part", "learn", "lesson_of"]

Part = tuple[Tensor, Targets]
"""Features, ``[example dim]``, and their targets; parts have numbers of examples of their own."""


SHRINKAGE = 1e-3
"""Variance added to every direction, as a share of a feature's own: a direction that training does not use is
then narrow, and not infinitely so."""


@dataclass(frozen=True, eq=False)
class Familiar:
    """How far a state may lie from those of training (Mahalanobis distance), whatever it resembles.

    A similarity alone cannot tell: a prompt about something else has a state that resembles some concept more
    than exchanged columns do.

    Attributes:
        whitening: ``[dim dim]``, makes standardised training features uncorrelated, each of variance 1.
        farthest: only a share ``level`` of validation states lies beyond this distance.
    """

    whitening: Float[Tensor, "dim dim"]
    farthest: float

    @classmethod
    def of(
        cls, features: Float[Tensor, "example dim"], held: Float[Tensor, "held_out dim"], level: float
    ) -> Familiar:
        """Measure it on standardised training features, and set the distance on validation features."""
        rows = features.double()
        eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        factor = torch.linalg.cholesky(rows.mT @ rows / len(rows) + SHRINKAGE * eye)
        whitening = torch.linalg.solve_triangular(factor, eye, upper=False).mT.float()
        found = cls(whitening, float("inf"))
        return replace(found, farthest=float(torch.quantile(found.distances(held).double(), 1 - level)))

    def distances(self, features: Float[Tensor, "example dim"]) -> Float[Tensor, " example"]:
        """The distance of each standardised feature vector from the training mean; about 1 in training."""
        return (features @ self.whitening.to(features)).square().mean(dim=1).sqrt()


@dataclass(frozen=True, eq=False)
class Fitted:
    """Everything learned.

    Attributes:
        encoder: the trained map.
        mean: ``[dim]``, subtracted from the activations.
        scale: ``[dim]``, divided by.
        roles: what can be decoded, ``("",)`` for bare concepts.
        thresholds: role -> similarity below which nothing is claimed.
        rounded: whether predictions are rounded to signs, as published.
        notes: validation score, chosen penalty, axes, epochs.
        familiar: what states of training look like; None for published probes, which abstain by similarity
            alone.
    """

    encoder: Encoder
    mean: Float[Tensor, " dim"]
    scale: Float[Tensor, " dim"]
    roles: tuple[str, ...]
    thresholds: Mapping[str, float]
    rounded: bool
    notes: Mapping[str, Any]
    familiar: Familiar | None = None

    def __call__(self, features: Float[Tensor, "example dim"]) -> Float[Tensor, "example width"]:
        """The predicted hypervectors.

        Raises:
            ValueError: another number of columns.
        """
        found = self.encoder(self._scaled(features))
        return torch.sign(found) if self.rounded else found

    def unfamiliar(self, features: Float[Tensor, "example dim"]) -> Bool[Tensor, " example"]:
        """Whether an input is unlike all of training, so that what is read there does not count."""
        if self.familiar is None:
            return torch.zeros(len(features), dtype=torch.bool)
        return self.familiar.distances(self._scaled(features)) > self.familiar.farthest

    def _scaled(self, features: Float[Tensor, "example dim"]) -> Float[Tensor, "example dim"]:
        if features.shape[1] != len(self.mean):
            raise ValueError(
                f"X has {features.shape[1]} columns, but this probe was fitted on {len(self.mean)}; "
                "give it activations of the model and site it was trained on."
            )
        return (features.to(self.mean.device) - self.mean) / self.scale

    def calibrated(self, codebook: Codebook, null: Float[Tensor, "null dim"], level: float) -> Fitted:
        """The same with thresholds that only a share ``level`` of null inputs passes."""
        vectors = self(null)
        found = {role: null_threshold(codebook, vectors, role=role, level=level) for role in self.roles}
        return replace(self, thresholds=found)

    def arrays(self) -> dict[str, np.ndarray]:
        """The scaling and the encoder's arrays."""
        scaling = {"mean": self.mean.cpu().numpy(), "scale": self.scale.cpu().numpy()}
        if self.familiar is not None:
            scaling["whitening"] = np.ascontiguousarray(self.familiar.whitening.cpu().numpy())
        return scaling | {f"encoder.{name}": value for name, value in self.encoder.arrays().items()}

    def facts(self) -> dict[str, Any]:
        """The rest as plain JSON types."""
        return {
            "roles": list(self.roles),
            "thresholds": dict(self.thresholds),
            "rounded": self.rounded,
            "form": self.encoder.form,
            "farthest": None if self.familiar is None else self.familiar.farthest,
            "notes": dict(self.notes),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Fitted:
        """Take back what :meth:`arrays` and :meth:`facts` gave."""
        inner = {
            name.removeprefix("encoder."): v for name, v in arrays.items() if name.startswith("encoder.")
        }
        kept = facts.get("farthest")  # None in probes saved before states were checked
        known = None if kept is None else Familiar(torch.from_numpy(arrays["whitening"]), float(kept))
        return cls(
            familiar=known,
            encoder=FORMS[facts["form"]].restored(inner),
            mean=torch.from_numpy(arrays["mean"]),
            scale=torch.from_numpy(arrays["scale"]),
            roles=tuple(facts["roles"]),
            thresholds=dict(facts["thresholds"]),
            rounded=bool(facts["rounded"]),
            notes=dict(facts["notes"]),
        )


def lesson_of(
    codebook: Codebook, parts: Sequence[Part], *, published: bool = False
) -> tuple[Lesson, Float[Tensor, " dim"], Float[Tensor, " dim"]]:
    """Scale the features, and give them with their targets; and the mean and the scale.

    Args:
        codebook: the concepts.
        parts: the training part and the validation part.
        published: whether the published losses are used, which know no slots.

    Raises:
        ValueError: validation targets with other roles.
    """
    (features, targets), (held, held_targets) = parts
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(scale <= 1e-6 * scale.max().clamp_min(1e-30), 1.0, scale)
    slots, later = (() if published else slots_of(codebook, part) for part in (targets, held_targets))
    if [slot.role for slot in slots] != [slot.role for slot in later]:
        raise ValueError("validation has other roles than y; make both targets with the same roles.")
    after = HeldOut(codebook, (held - mean) / scale, held_targets, later)
    return Lesson(codebook, (features - mean) / scale, targets, slots, after), mean, scale


def learn(
    codebook: Codebook, parts: Sequence[Part], settings: Settings, *, encoder: str, level: float
) -> Fitted:
    """Scale the features, train the encoder and set the thresholds.

    Args:
        codebook: the concepts.
        parts: the training part and the validation part.
        settings: of the training.
        encoder: a key of ``ENCODERS``.
        level: share of null inputs that may be claimed.

    Raises:
        ValueError: validation targets with other roles.
    """
    lesson, mean, scale = lesson_of(codebook, parts, published=settings.published)
    found = ENCODERS[encoder].train(lesson, settings)
    roles = tuple(slot.role for slot in lesson.slots) or ("",)
    notes = {"validation_score": found.score, "n_train": len(lesson.features), **found.notes}
    fitted = Fitted(found.encoder, mean, scale, roles, {}, settings.published, notes)
    fitted = fitted.calibrated(codebook, exchanged(parts[1][0], settings.seed), level)
    if settings.published:
        return fitted
    return replace(fitted, familiar=Familiar.of(lesson.features, lesson.held.features, level))
