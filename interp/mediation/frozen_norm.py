"""The last step to the logits made linear: the final norm with its scale held at the run's own value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.mediation.metrics import METRICS, Targets
from interp.models.model import Model
from interp.models.readout import finished
from interp.sites import Site

__all__ = ["FrozenNorm", "Readout"]

PROBE = 1e3
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """A norm ``x -> gain * (x - mean(x)) / scale + bias``, measured; RMS norms keep the mean.

    Attributes:
        gain: ``[d_model]``, or with axes before it where the norm has several (one per head).
        bias: likewise.
        centred: whether the mean is taken off.
    """

    gain: Float[Tensor, "*heads d_model"]
    bias: Float[Tensor, "*heads d_model"]
    centred: bool

    @classmethod
    def of(cls, model: Model) -> FrozenNorm:
        """Measure the final norm on inputs whose mean and scale are known.

        Raises:
            SiteError: the model's final norm is unknown.
        """
        norm: Any = model.architecture.locate(Site("final_norm")).module
        return cls.measured(norm, torch.empty(model.d_model, device=model.device, dtype=model.dtype))

    @classmethod
    def measured(cls, norm: nn.Module, like: Tensor) -> FrozenNorm:
        """Measure a norm.

        Args:
            norm: a module of one input.
            like: an input of it, whose shape, device and precision count; the last axis is normed.
        """
        probe = PROBE * (1 - 2 * (torch.arange(like.shape[-1], device=like.device) % 2)).double()
        probe = probe.expand(like.shape)
        uneven = probe + PROBE * 0.5
        bias, plain, shifted = (
            _normed(norm, states.to(like.dtype)) for states in (torch.zeros_like(probe), probe, uneven)
        )
        centred = bool(torch.allclose(shifted, plain, rtol=1e-3, atol=1e-3))
        known = probe - probe.mean(dim=-1, keepdim=True) if centred else probe
        return cls((plain - bias) / (known / known.square().mean(dim=-1, keepdim=True).sqrt()), bias, centred)

    def moved(self, states: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """``gain * (x - mean(x))``, linear in x: divide it by the run's scale.

        Args:
            states: residual streams or parts of them, float64.
        """
        return self.gain * (states - states.mean(dim=-1, keepdim=True) if self.centred else states)

    def scales(self, model: Model, streams: Float[Tensor, "batch d_model"]) -> Float[Tensor, " batch"]:
        """The scale of each stream, from what the norm makes of it.

        Args:
            model: whose norm.
            streams: the final residual streams.

        Raises:
            ModelError: the norm is not of the form above.
        """
        norm: Any = model.architecture.locate(Site("final_norm")).module
        scale, off = self.scale(streams, _normed(norm, streams.to(model.device, model.dtype)))
        if not off <= TOLERANCE.get(model.dtype, 0.05):
            raise ModelError(
                f"the final norm of {model.name!r} is neither a layer norm nor an RMS norm (it differs by "
                f"{off:.1e}), so its scale cannot be held. Use the search 'direct', whose norm is live."
            )
        return scale

    def scale(
        self, states: Float[Tensor, "*batch d_model"], out: Float[Tensor, "*batch d_model"]
    ) -> tuple[Float[Tensor, "*batch"], float]:
        """The scale by which each state was divided, and how far the norm is from the form above.

        Args:
            states: what the norm got.
            out: what it gave.
        """
        moved = self.moved(states.double())
        size, along = moved.square().sum(dim=-1), (moved * (out - self.bias)).sum(dim=-1)
        scale = torch.where(size > 0, size / along, 1.0)  # of a zero stream any
        off = (moved / scale[..., None] + self.bias - out).abs().max() / out.abs().max()
        return scale, float(off)


@dataclass(frozen=True, eq=False)
class Readout:
    """The linear map from parts of some final streams to their logit difference, before any cap.

    Attributes:
        norm: the final norm.
        directions: ``[pair d_model]``, from the normed stream to the difference.
        constants: ``[pair]``, of the norm's and the head's bias.
        total: ``[pair]``, the difference of the whole streams, by the model's own norm and head.
        scale: ``[pair]``, by which the norm divided.
    """

    norm: FrozenNorm
    directions: Float[Tensor, "pair d_model"]
    constants: Float[Tensor, " pair"]
    total: Float[Tensor, " pair"]
    scale: Float[Tensor, " pair"]

    @classmethod
    def of(cls, model: Model, streams: Float[Tensor, "pair d_model"], targets: Targets) -> Readout:
        """Hold the norm's scale at that of these streams.

        Args:
            model: whose norm and head.
            streams: the final residual streams.
            targets: answers and foils; mean logit of the answers less that of the foils.

        Raises:
            ModelError: the norm is no layer or RMS norm.
            SiteError: the model's final norm is unknown.
        """
        norm = FrozenNorm.of(model)
        normed = torch.zeros_like(streams, dtype=model.dtype, requires_grad=True)
        factor = _factor(model)
        with torch.enable_grad():
            at_zero = _difference(model, normed, targets)
            (slope,) = torch.autograd.grad(at_zero.sum(), normed)
        directions = factor * slope.double()
        constants = factor * at_zero.detach().double() + directions @ norm.bias
        with torch.no_grad():
            place: Any = model.architecture.locate(Site("final_norm")).module
            whole = _normed(place, streams.to(model.device, model.dtype)).to(model.dtype)
            total = factor * _difference(model, whole, targets).double()
        return cls(norm, directions, constants, total, norm.scales(model, streams))

    def __call__(self, parts: Float[Tensor, "pair d_model"]) -> Float[Tensor, " pair"]:
        """What parts of the streams contribute to the difference, in logits.

        Args:
            parts: what some writer added to each stream.
        """
        return (self.norm.moved(parts.double()) * self.directions).sum(dim=-1) / self.scale


def _difference(model: Model, normed: Tensor, targets: Targets) -> Tensor:
    """The difference of the head's outputs before their factor and cap, ``[pair]``."""
    head: Any = model.hf.get_output_embeddings()
    return METRICS["logit-diff"].values(head.forward(normed).float(), targets)


def _factor(model: Model) -> float:
    """The constant that logits are multiplied by: the slope at zero of all that follows the head."""
    raw = torch.zeros((), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        out = finished(model.architecture, raw)
    return 1.0 if out is raw else float(torch.autograd.grad(out, raw)[0])


def _normed(norm: Any, states: Tensor) -> Tensor:
    with torch.no_grad():
        return norm.forward(states).double()
