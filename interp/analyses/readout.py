"""Log-probabilities of tokens read from residual states: final norm and head, in float32 or better."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.anatomy import Anatomy
from interp.models.model import Model
from interp.models.validate import finished
from interp.sites import Site

__all__ = ["Readout"]

NUMBERS = 1 << 24
"""The most logits that are held at once."""
EXACT = (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Readout:
    """Hold a model's last step, from a residual state to logits, with a gradient.

    A model in half precision is read by float32 copies of its final norm and head, so that what a single
    neuron adds is not lost in rounding.

    Attributes:
        norm: the final norm.
        head: the unembedding.
        anatomy: what happens to logits after the head.
        dtype: of the arithmetic.
    """

    norm: nn.Module
    head: nn.Module
    anatomy: Anatomy
    dtype: torch.dtype

    @classmethod
    def of(cls, model: Model) -> Readout:
        """Take the last step of a model, which stays as it is.

        Raises:
            SiteError: the model's final norm is unknown.
        """
        norm = model.anatomy.locate(Site("final_norm")).module
        head: Any = model.hf.get_output_embeddings()
        if model.dtype in EXACT:
            return cls(norm, head, model.anatomy, model.dtype)
        return cls(copy.deepcopy(norm).float(), copy.deepcopy(head).float(), model.anatomy, torch.float32)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are told apart."""
        return self.anatomy.vocab_size

    def logits(self, states: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch vocab"]:
        """Give the logits of residual states, after scale and cap; keeps the graph where there is one."""
        normed = self.norm.forward(states.to(self.anatomy.device, self.dtype))
        return finished(self.anatomy, self.head.forward(normed))

    def of_tokens(
        self, states: Float[Tensor, "batch d_model"], tokens: Int[Tensor, "batch n_tokens"]
    ) -> Float[Tensor, "batch n_tokens"]:
        """Give the log-probabilities of some tokens, in nats; keeps the graph where there is one.

        Args:
            states: residual states.
            tokens: which tokens, for each state its own.
        """
        logits = self.logits(states)
        return logits.gather(1, tokens.to(logits.device)) - logits.logsumexp(dim=1, keepdim=True)

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
        """Give slices of so many states that the logits of each fit memory."""
        step = max(1, NUMBERS // self.vocab_size)
        yield from (slice(start, start + step) for start in range(0, n, step))
