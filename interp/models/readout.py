"""The last step of a model: from a residual state through final norm and head to logits."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.architecture import Architecture
from interp.models.hooks import evaluating
from interp.sites import Site

__all__ = ["Readout", "finished", "log_sum_exp"]

NUMBERS, CACHED = 1 << 24, 1 << 20
"""The most logits that are held at once, and how many stay in a processor's cache."""
ROWS = 256
"""States that are read together in any case, as far as memory allows: fewer leave a GPU idle."""
EXACT = (torch.float32, torch.float64)
LOWEST = {dtype: math.log(torch.finfo(dtype).tiny) + 1 for dtype in (*EXACT, torch.bfloat16)}
"""Exponents below which a number is subnormal, which a processor computes with many times slower."""


def log_sum_exp(logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
    """What ``logits.logsumexp(dim=1)`` gives, bit for bit, without subnormal numbers on the way.

    Where some words are far below the others, as in early layers, it is up to twenty times quicker on a CPU.
    What is left out is below the smallest normal number, beside a sum of at least 1.
    """
    found: Tensor = _LogSumExp.apply(logits)
    return found


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        found = []
        for part in logits.split(max(1, CACHED // (2 * logits.shape[1]))):
            most = part.amax(dim=1, keepdim=True)
            total = _exponentials(part - most).sum(dim=1).log_().add_(most[:, 0])
            found.append(torch.where(most[:, 0].isinf(), most[:, 0], total))
        whole = torch.cat(found) if found else logits.new_zeros(0)
        ctx.save_for_backward(logits, whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        logits, whole = ctx.saved_tensors
        return _exponentials(logits - whole[:, None]) * grads[0][:, None]


def _exponentials(exponents: Tensor) -> Tensor:
    """Their exponentials, in place, none of them subnormal."""
    lowest = LOWEST.get(exponents.dtype)
    return (exponents if lowest is None else exponents.clamp_(min=lowest)).exp_()


def finished(architecture: Architecture, raw: Tensor) -> Tensor:
    """Apply what the configuration says happens to logits after the head: scale, divisor, softcap."""
    config = architecture.hf.config.get_text_config()
    if architecture.family.plain_logits:
        return raw
    if (factor := getattr(config, "logit_scale", None)) is not None:
        raw = raw * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        raw = raw / divisor
    for name in ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"):
        if (cap := getattr(config, name, None)) is not None:
            raw = torch.tanh(raw / cap) * cap
    return raw


@dataclass(frozen=True, eq=False)
class Readout:
    """Final norm and head of a model, with a gradient; on the last ``resid_post`` they give its logits.

    Attributes:
        norm: the final norm.
        head: the unembedding.
        architecture: what happens to logits after the head.
        dtype: of the arithmetic.
    """

    norm: nn.Module
    head: nn.Module
    architecture: Architecture
    dtype: torch.dtype

    @classmethod
    def of(cls, architecture: Architecture) -> Readout:
        """The model's own norm and head, in its own precision.

        Raises:
            SiteError: the model's final norm is unknown.
        """
        norm = architecture.locate(Site("final_norm")).module
        head: Any = architecture.hf.get_output_embeddings()
        return cls(norm, head, architecture, architecture.hf.dtype)

    @classmethod
    def precise(cls, architecture: Architecture) -> Readout:
        """The same in float32 or better, so that what one neuron adds is not lost in rounding.

        A model in half precision is read by float32 copies of its norm and head.

        Raises:
            SiteError: the model's final norm is unknown.
        """
        own = cls.of(architecture)
        if own.dtype in EXACT:
            return own
        return cls(
            copy.deepcopy(own.norm).float(), copy.deepcopy(own.head).float(), architecture, torch.float32
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are told apart."""
        return self.architecture.vocab_size

    def logits(self, states: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """The logits of residual states, after scale and cap; keeps the graph where there is one."""
        return self.of_normed(self.normed(states.to(self.architecture.device, self.dtype)))

    def normed(self, states: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """What the final norm makes of residual states."""
        with evaluating([*self.norm.modules()]):
            return self.norm.forward(states)

    def of_normed(self, normed: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """The logits of what the final norm gave."""
        with evaluating([*self.head.modules()]):  # an adapter's dropout may be on
            return finished(self.architecture, self.head.forward(normed))

    def of_tokens(
        self, states: Float[Tensor, "batch d_model"], tokens: Int[Tensor, "batch n_tokens"]
    ) -> Float[Tensor, "batch n_tokens"]:
        """The log-probabilities of some tokens, in nats; keeps the graph where there is one.

        Args:
            states: residual states.
            tokens: which tokens, for each state its own.
        """
        logits = self.logits(states)
        return logits.gather(1, tokens.to(logits.device)) - log_sum_exp(logits)[:, None]

    @torch.no_grad()
    def log_probabilities(
        self, states: Float[Tensor, "batch d_model"], tokens: Int[Tensor, "batch n_tokens"]
    ) -> Float[Tensor, "batch n_tokens"]:
        """Do what :meth:`of_tokens` does for any number of states, without a graph, in parts that fit memory.

        Args:
            states: residual states.
            tokens: which tokens, for each state its own.
        """
        parts = [self.of_tokens(states[part], tokens[part]) for part in self.parts(len(states))]
        return torch.cat(parts) if parts else states.new_zeros(tokens.shape)

    def parts(self, n: int) -> Iterator[slice]:
        """Cut ``n`` states into slices whose logits fit memory."""
        step = max(1, min(NUMBERS // self.vocab_size, max(ROWS, CACHED // self.vocab_size)))
        yield from (slice(start, start + step) for start in range(0, n, step))
