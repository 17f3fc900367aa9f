"""What can be asked of a wrapped model without running it."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp.activations import Activations
from interp.models import fingerprints
from interp.models.anatomy import Anatomy
from interp.models.families import Family
from interp.models.quantized import Quantization
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["Facts"]

_EAGER = ("attention was computed eagerly in this run, to see its probabilities",)


class Facts(ABC):
    """Give the sizes, sites and hashes of a wrapped model."""

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    anatomy: Anatomy
    name: str
    weights: str
    warnings: tuple[str, ...]
    quantization: Quantization | None

    @property
    def scheme(self) -> str:
        """The precision its weights are held at; "none" for the checkpoint's own."""
        return "none" if self.quantization is None else self.quantization.scheme

    @property
    def described(self) -> dict[str, str]:
        """Give name, weights, fingerprint and scheme: what a result says about its model."""
        return {
            "name": self.name,
            "weights": self.weights,
            "fingerprint": self.fingerprint,
            "scheme": self.scheme,
        }

    @property
    def family(self) -> Family:
        """The family row in use."""
        return self.anatomy.family

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.anatomy.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.anatomy.d_model

    @property
    def n_heads(self) -> int:
        """Query heads per block."""
        return self.anatomy.n_heads

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads per block."""
        return self.anatomy.n_kv_heads

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.anatomy.d_head

    @property
    def d_mlp(self) -> int:
        """Neurons per block."""
        return self.anatomy.d_mlp

    @property
    def vocab_size(self) -> int:
        """Number of tokens the model embeds."""
        return self.anatomy.vocab_size

    @cached_property
    def max_length(self) -> int | None:
        """Longest prompt the model reads, or None where its configuration sets no limit."""
        config = self.hf.config.get_text_config()
        names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
        return next((int(v) for name in names if isinstance(v := getattr(config, name, None), int)), None)

    @property
    def device(self) -> torch.device:
        """Where the input embedding is."""
        return self.anatomy.device

    @property
    def dtype(self) -> torch.dtype:
        """The model's floating-point type."""
        return self.hf.dtype

    @property
    def sites(self) -> list[str]:
        """The kinds of site this model offers, in execution order."""
        return list(self.anatomy.kinds)

    @property
    def disabled(self) -> Mapping[str, str]:
        """Kinds of site this model does not offer, each with the reason."""
        return self.anatomy.disabled

    @property
    def fingerprint(self) -> str:
        """The sha256 of the weights, computed on first use and again if the weights change."""
        _ = self.anatomy.modules
        return fingerprints.of_weights(self.hf, self.anatomy.tree.parameters())

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """The sha256 of the tokenizer's vocabulary and rules; "" without a tokenizer."""
        return fingerprints.of_tokenizer(self.tokenizer)

    def recorded(self, tensors: Mapping[Site, Tensor], tokens: Tokens, positions: list[Any]) -> Activations:
        """Label captured tensors with prompts, positions and the model they came from."""
        eager = _EAGER[: any(site.kind == "pattern" for site in tensors)]
        return Activations(
            {str(site): tensor for site, tensor in tensors.items()},
            tokens.token_ids,
            positions,
            tokens.texts,
            fingerprints.of_weights(self.hf, self.anatomy.tree.parameters()),
            self.name,
            self.weights,
            self.scheme,
            warnings=(*self.warnings, *tokens.warnings, *eager),
        )
