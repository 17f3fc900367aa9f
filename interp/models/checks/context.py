"""What the checks share: the model, the prompts, and the runs that several of them compare with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp.models.certificate import Check, NoiseFloor, Status
from interp.models.equations import relative, tolerance
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.models.padding import FAR
from interp.models.rounding import rounded_otherwise

__all__ = ["Context", "judged", "skipped", "worst"]

_BATCH = 8


@dataclass(frozen=True, eq=False)
class Context:
    """One examination.

    Attributes:
        model: the model under examination.
        prompts: token ids, of different lengths.
        seed: for everything drawn.
    """

    model: Model
    prompts: tuple[tuple[int, ...], ...]
    seed: int = 0

    @cached_property
    def limit(self) -> float:
        """The relative error that rounding in the model's dtype explains."""
        return tolerance(self.model.dtype)

    @cached_property
    def bare(self) -> Model:
        """The same model with every site its family row names, those that failed at load included."""
        return replace(self.model, architecture=replace(self.model.architecture, disabled={}))

    @cached_property
    def short(self) -> tuple[tuple[int, ...], ...]:
        """The prompts cut to one length, so that a batch of them needs no padding."""
        length = min(len(prompt) for prompt in self.prompts)
        return tuple(prompt[:length] for prompt in self.prompts)

    @cached_property
    def alone(self) -> tuple[Tensor, Tensor]:
        """Each prompt by itself: logits ``[prompt vocab]``, all resid_post ``[prompt pos layer d_model]``."""
        return self.ran(self.prompts, batch_size=1)

    def ran(self, prompts: Any, *, batch_size: int, padding_side: str = "right") -> tuple[Tensor, Tensor]:
        """Run prompts in batches of a size; give last logits and all resid_post at all positions."""
        run = self.model.run(
            prompts, capture="resid_post.*", positions="all", batch_size=batch_size, padding_side=padding_side
        )
        assert run.logits is not None and run.activations is not None
        return run.logits, run.activations.stack()

    @cached_property
    def batched(self) -> tuple[NoiseFloor, float]:
        """What batch size alone changes, without padding: the noise floor, and any layer's error."""
        rows = [self.short[number % len(self.short)] for number in range(_BATCH)]
        (alone, streams), (together, others) = (self.ran(rows, batch_size=size) for size in (1, _BATCH))
        difference = (alone.double() - together.double()).abs().max().item()
        p, q = alone.double().log_softmax(-1), together.double().log_softmax(-1)
        kl = (p.exp() * (p - q)).sum(-1).max().item()
        layers = [relative(b, a) for a, b in zip(streams.unbind(-2), others.unbind(-2), strict=True)]
        return NoiseFloor(difference, max(kl, 0.0), relative(together, alone), _BATCH), worst(layers)[0]

    @cached_property
    def noise_limit(self) -> float:
        """The limit where differently shaped passes are compared: rounding, or four times the noise.

        Other shapes take other kernels in every block, so rounding is allowed to grow with depth: the
        plain limit up to 12 blocks, twice that for 24.
        """
        floor, layers = self.batched
        return max(self.limit * max(1.0, self.model.n_layers / 12), 4 * floor.relative, 4 * layers)

    @cached_property
    def grown(self) -> tuple[float, list[float]]:
        """What one rounding of the embedding grows to: the error of the logits, and of every resid_post.

        Nothing where the embedding cannot be written.
        """
        alone, streams = self.alone
        layers = streams.shape[-2]
        if "embed" in self.model.disabled:
            return 0.0, [0.0] * layers
        run = self.model.run(
            self.prompts,
            capture="resid_post.*",
            positions="all",
            batch_size=1,
            interventions=[Intervention("embed", rounded_otherwise(self.seed), "all")],
        )
        assert run.logits is not None and run.activations is not None
        others = run.activations.stack()
        errors = [relative(b, a) for a, b in zip(streams.unbind(-2), others.unbind(-2), strict=True)]
        return relative(run.logits, alone), errors

    @property
    def growth(self) -> tuple[float, list[float]]:
        """What rounding grows to in half precision; nothing in full precision.

        Some models cancel large values in one layer, so that half precision keeps few digits there.
        """
        if self.limit <= 1e-5:
            return 0.0, [0.0] * self.alone[1].shape[-2]
        return self.grown

    @property
    def chunk_limit(self) -> float:
        """The limit where passes are cut into other pieces: what rounding grows to, four times over.

        A recurrence computes a prompt in chunks and a step by its own formula, and padding moves the chunks:
        more rounding than other kernels make, and far less than a state that is wrong (from 1e-3 on).
        """
        chunks = FAR if self.model.anatomy.layers("mixer_out") else 1
        return max(self.noise_limit * chunks, 4 * self.grown[0])

    def missing(self, kind: str) -> str:
        """Why a kind of site does not apply to this model, or "" where it must be there.

        A kind that a row of the table names must fulfil its equation. Where modules were found by
        discovery, a kind that failed at load was disabled then, and nobody can read it.
        """
        family = self.model.family
        named = hasattr(family, kind) and not family.names(kind)
        if named or not self.model.architecture.anatomy.layers(kind):
            return self.model.disabled.get(kind, f"the family row names no {kind}.")
        if kind == "resid_mid" and self.model.architecture.parallel:
            return self.model.disabled.get(kind, "attention and MLP run in parallel.")
        return "" if family.types else self.model.disabled.get(kind, "")


def judged(
    name: str,
    value: float | int,
    limit: float | int,
    detail: str = "",
    *,
    unit: str = "relative",
    otherwise: Status = "fail",
) -> Check:
    """Compare a value with the most that is allowed; a NaN fails."""
    return Check(name, "pass" if value <= limit else otherwise, float(value), float(limit), unit, detail)


def skipped(name: str, why: str) -> Check:
    """A check that does not apply, and why."""
    return Check(name, "skip", unit="", detail=why)


def worst(errors: list[float]) -> tuple[float, int]:
    """The largest error and where it is; NaN counts as the largest."""
    ranked = torch.tensor(errors, dtype=torch.float64).nan_to_num(nan=float("inf"))
    where = int(ranked.argmax())
    return errors[where], where
