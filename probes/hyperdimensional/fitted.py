"""What a Hyperdimensional Probe has learned: scaling, map, codebook, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.hyperdimensional.decoding import null_threshold
from probes.hyperdimensional.encoders import ENCODERS, FORMS, Encoder
from probes.hyperdimensional.inputs import exchanged
from probes.hyperdimensional.lesson import HeldOut, Lesson, Settings, slots_of
from probes.vsa.codebook import Codebook, Targets

__all__ = ["Fitted", "Part", "learn"]

Part = tuple[Tensor, Targets]
"""Features, ``[example dim]``, and their targets; parts have numbers of examples of their own."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Hold everything learned.

    Attributes:
        encoder: the trained map.
        mean: ``[dim]``, subtracted from the activations.
        scale: ``[dim]``, divided by.
        roles: what can be decoded, ``("",)`` for bare concepts.
        thresholds: role -> similarity below which nothing is claimed.
        rounded: whether predictions are rounded to signs, as published.
        notes: validation score, chosen penalty, axes, epochs.
    """

    encoder: Encoder
    mean: Float[Tensor, " dim"]
    scale: Float[Tensor, " dim"]
    roles: tuple[str, ...]
    thresholds: Mapping[str, float]
    rounded: bool
    notes: Mapping[str, Any]

    def __call__(self, features: Float[Tensor, "example dim"]) -> Float[Tensor, "example width"]:
        """Give the predicted hypervectors.

        Raises:
            ValueError: another number of columns.
        """
        if features.shape[1] != len(self.mean):
            raise ValueError(
                f"X has {features.shape[1]} columns, but this probe was fitted on {len(self.mean)}; "
                "give it activations of the model and site it was trained on."
            )
        found = self.encoder((features.to(self.mean.device) - self.mean) / self.scale)
        return torch.sign(found) if self.rounded else found

    def calibrated(self, codebook: Codebook, null: Float[Tensor, "null dim"], level: float) -> Fitted:
        """Give the same with thresholds that only a share ``level`` of null inputs passes."""
        vectors = self(null)
        found = {role: null_threshold(codebook, vectors, role=role, level=level) for role in self.roles}
        return replace(self, thresholds=found)

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the scaling and the encoder's arrays."""
        scaling = {"mean": self.mean.cpu().numpy(), "scale": self.scale.cpu().numpy()}
        return scaling | {f"encoder.{name}": value for name, value in self.encoder.arrays().items()}

    def facts(self) -> dict[str, Any]:
        """Give the rest as plain JSON types."""
        return {
            "roles": list(self.roles),
            "thresholds": dict(self.thresholds),
            "rounded": self.rounded,
            "form": self.encoder.form,
            "notes": dict(self.notes),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Fitted:
        """Take back what :meth:`arrays` and :meth:`facts` gave."""
        inner = {
            name.removeprefix("encoder."): v for name, v in arrays.items() if name.startswith("encoder.")
        }
        return cls(
            encoder=FORMS[facts["form"]]().restored(inner),
            mean=torch.from_numpy(arrays["mean"]),
            scale=torch.from_numpy(arrays["scale"]),
            roles=tuple(facts["roles"]),
            thresholds=dict(facts["thresholds"]),
            rounded=bool(facts["rounded"]),
            notes=dict(facts["notes"]),
        )


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
    (features, targets), (held, held_targets) = parts
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(scale <= 1e-6 * scale.max().clamp_min(1e-30), 1.0, scale)
    slots, later = (
        () if settings.published else slots_of(codebook, part) for part in (targets, held_targets)
    )
    if [slot.role for slot in slots] != [slot.role for slot in later]:
        raise ValueError("validation has other roles than y; make both targets with the same roles.")
    real = [codebook.algebra.as_real(part.vectors).float() for part in (targets, held_targets)]
    lesson = Lesson(
        codebook, (features - mean) / scale, real[0], slots, HeldOut((held - mean) / scale, real[1], later)
    )
    found = ENCODERS[encoder].train(lesson, settings)
    roles = tuple(slot.role for slot in slots) or ("",)
    notes = {"validation_score": found.score, "n_train": len(features), **found.notes}
    fitted = Fitted(found.encoder, mean, scale, roles, {}, settings.published, notes)
    return fitted.calibrated(codebook, exchanged(held, settings.seed), level)
