"""Tiny transformers whose circuit is known because every weight was set by hand; one function per circuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from interp.models.loading import load
from interp.models.model import Model
from tests.tiny import WORDS, tokenizer

__all__ = ["AndNeuron", "PlantedSubspace", "and_neuron", "blank_model", "planted_subspace"]

FIRST = 4  # ids below are the special tokens


@dataclass(frozen=True, eq=False)
class PlantedSubspace:
    """Hold a model that carries one variable in a plane of ``resid_post.0`` at the last token.

    Attributes:
        model: it reads ``VALUE NUISANCE query`` and answers with the value's word.
        values: words of the variable.
        answers: the word that is right after each value.
        nuisances: words whose trace is larger, and that the answer does not depend on.
        query: the last word.
        basis: ``[2 d_model]``, the plane.
    """

    model: Model
    values: tuple[str, ...]
    answers: tuple[str, ...]
    nuisances: tuple[str, ...]
    query: str
    basis: Tensor


def planted_subspace(seed: int = 0) -> PlantedSubspace:
    """Plant a variable of four values in a plane, beside a nuisance of three times its size elsewhere.

    Attention of block 0 averages over all tokens (queries and keys are zero) and writes the value's code into
    the plane, the nuisance's into other dimensions; block 1 and the MLPs write nothing; the head reads the
    plane alone.
    """
    width = 32
    generator = torch.Generator().manual_seed(seed)
    rotation, other = (torch.linalg.qr(torch.randn(width, width, generator=generator))[0] for _ in range(2))
    hf = _llama(width)
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    nuisance = torch.randn(24, 6, generator=generator)
    nuisance = nuisance / nuisance.norm(dim=1, keepdim=True)
    value_ids, nuisance_ids, answer_ids = range(FIRST, FIRST + 4), range(FIRST + 4, FIRST + 28), range(40, 44)
    with torch.no_grad():
        embedding = torch.zeros(64, width)
        embedding[list(value_ids)] = codes @ rotation[:2]
        embedding[list(nuisance_ids)] = nuisance @ rotation[2:8]
        embedding[FIRST + 28] = rotation[8]
        hf.model.embed_tokens.weight.copy_(embedding)
        attention = hf.model.layers[0].self_attn
        attention.v_proj.weight.copy_(torch.eye(width))
        scale = torch.tensor([1.0] * 2 + [3.0] * 6)[:, None]
        attention.o_proj.weight.copy_((other[:8] * scale).T @ rotation[:8])
        hf.lm_head.weight.zero_()
        hf.lm_head.weight[list(answer_ids)] = codes @ other[:2]
    words = [WORDS[i - FIRST] for i in range(FIRST, 64)]
    return PlantedSubspace(
        load(hf, tokenizer=tokenizer()),
        tuple(words[i - FIRST] for i in value_ids),
        tuple(words[i - FIRST] for i in answer_ids),
        tuple(words[i - FIRST] for i in nuisance_ids),
        words[28],
        other[:2],
    )


@dataclass(frozen=True, eq=False)
class AndNeuron:
    """Hold a model with one neuron that fires only where two words are both present.

    Attributes:
        model: it reads ``FIRST SECOND query`` and answers ``yes`` where both are the right words.
        both: the two words.
        fillers: words that stand in for either.
        query: the last word.
        yes: the answer where both are there.
        no: the answer otherwise.
        neuron: the neuron's name.
    """

    model: Model
    both: tuple[str, str]
    fillers: tuple[str, ...]
    query: str
    yes: str
    no: str
    neuron: str


def and_neuron(seed: int = 0) -> AndNeuron:
    """Plant an AND in one neuron of block 1, among neurons that fire for one word and write elsewhere.

    Attention of block 0 averages over all tokens and writes what it sees into directions that the MLP of
    block 1 reads; the neuron subtracts a threshold that the query itself carries, so that one word is not
    enough.
    """
    width, neuron = 32, 5
    generator = torch.Generator().manual_seed(seed)
    hf = _gpt2(width)
    axes = _centred_axes(width, generator)
    first, second, query, seen_first, seen_second, yes, decoy = axes[:7]
    with torch.no_grad():
        embedding = torch.zeros(64, width)
        embedding[FIRST], embedding[FIRST + 1], embedding[FIRST + 2] = first, second, query
        embedding[FIRST + 3 : FIRST + 9] = axes[8:14]
        hf.transformer.wte.weight.copy_(embedding)
        attention = hf.transformer.h[0].attn
        attention.c_attn.weight[:, 2 * width :] = torch.eye(width)
        attention.c_proj.weight.copy_(first[:, None] * seen_first + second[:, None] * seen_second)
        mlp = hf.transformer.h[1].mlp
        # A value of 1 times the norm's factor is averaged over three tokens; 1.5 of these is the threshold.
        third = _normed(first) @ first / 3
        mlp.c_fc.weight[:, neuron] = seen_first + seen_second - 1.5 * third * query
        mlp.c_fc.weight[:, 11], mlp.c_fc.weight[:, 17] = seen_first, seen_second
        mlp.c_proj.weight[neuron] = 4 * yes
        mlp.c_proj.weight[11], mlp.c_proj.weight[17] = 0.2 * decoy, -0.2 * decoy
        hf.lm_head.weight[40], hf.lm_head.weight[41] = 4 * yes, query
    words = [WORDS[i - FIRST] for i in range(FIRST, 64)]
    return AndNeuron(
        load(hf, tokenizer=tokenizer()),
        (words[0], words[1]),
        tuple(words[3:9]),
        words[2],
        words[36],
        words[37],
        f"neuron.1.{neuron}",
    )


def _centred_axes(width: int, generator: torch.Generator) -> Tensor:
    """Give orthonormal rows of mean zero, which a layer norm leaves in place."""
    rows = torch.randn(width - 1, width, generator=generator)
    return torch.linalg.qr((rows - rows.mean(dim=1, keepdim=True)).T)[0].T


def _normed(state: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(state, state.shape)


def _llama(width: int) -> Any:
    return blank_model(
        "llama",
        {
            "vocab_size": 64,
            "hidden_size": width,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 48,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )


def _gpt2(width: int) -> Any:
    return blank_model(
        "gpt2",
        {
            "vocab_size": 64,
            "n_embd": width,
            "n_layer": 2,
            "n_head": 4,
            "n_inner": 24,
            "n_positions": 48,
            "activation_function": "relu",
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )


def blank_model(model_type: str, settings: dict[str, Any]) -> PreTrainedModel:
    """Build a model of which everything but the norms is zero."""
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings))
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "norm" in name or ".ln_" in name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.zero_()
    hf.generation_config.eos_token_id = None
    return hf.eval()
