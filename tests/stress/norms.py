"""Stress models on a Llama by hand, whose norms are live: large streams, and keys that heads share.

There are no places: queries and keys are zero, so that a head averages, or look for a flag that a token has.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import torch

from tests.board import pair
from tests.planted import blank_model
from tests.stress.truth import BOTH, Stress, stressed

__all__ = ["grouped_keys", "large_stream", "through_the_norm"]

WIDTH, HEADS, D_HEAD, FIRST = 32, 4, 8, 4
SIGNAL, CONSTANT, ANSWER, FLAG, PLAIN, JUNK, LOUD = 0, 30, slice(8, 16), 28, 29, slice(16, 24), 24
QUERY = 20
"""The word that ends every prompt."""


def _llama(groups: int = HEADS, seed: int = 0) -> Any:
    """Two blocks in which every head and MLP reads all and writes a little into the junk."""
    sizes = {"vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": groups, "max_position_embeddings": 48}
    ids = {"tie_word_embeddings": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    slow = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e12}}
    hf: Any = blank_model("llama", sizes | heads | ids | slow)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in hf.model.layers:
            mlp = (block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj)
            for part in (block.self_attn.v_proj, block.self_attn.o_proj, *mlp):
                part.weight.copy_(0.03 * torch.randn(part.weight.shape, generator=generator))
            for part in (block.self_attn.o_proj, block.mlp.down_proj):
                outside = torch.ones(WIDTH, dtype=torch.bool)
                outside[JUNK] = False
                part.weight[outside] = 0.0
        hf.model.embed_tokens.weight[FIRST + QUERY, CONSTANT] = 1.0
    return hf


def _own(head: int) -> slice:
    return slice(head * D_HEAD, (head + 1) * D_HEAD)


def large_stream() -> Stress:
    """``head.0.1`` is nearly all of the stream: a slope along it is lost in the norm, its sign is not.

    The head writes +x or -x, twenty times the rest; the norm keeps the sign and takes the size away.
    """
    hf = _llama()
    with torch.no_grad():
        table, attention = hf.model.embed_tokens.weight, hf.model.layers[0].self_attn
        table[FIRST + 1, SIGNAL], table[FIRST + 2, SIGNAL] = 1.0, -1.0
        table[FIRST + 3 : FIRST + 9, 1:7] = torch.eye(6)
        attention.v_proj.weight[_own(1)], attention.o_proj.weight[:, _own(1)] = 0.0, 0.0
        attention.v_proj.weight[D_HEAD, SIGNAL] = 1.0
        attention.o_proj.weight[ANSWER.start, D_HEAD] = 10.0
        hf.lm_head.weight[FIRST + 30, ANSWER.start] = 0.5
        hf.lm_head.weight[FIRST + 31, ANSWER.start] = -0.5
    pairs = [pair([1, at, QUERY], [2, at, QUERY], 30, 31, f"{at}") for at in range(3, 9)]
    effects = {"head.0.1": (1.0, 1.0)}
    return stressed(hf, pairs, effects=effects, heads={"head.0.1"}, misses={"head.0.1": BOTH})


def through_the_norm() -> Stress:
    """``head.0.0`` writes where nothing reads, so much that the norm makes everything else small.

    The whole effect goes through the norm: rules that hold its scale see none of it.
    """
    hf = _llama()
    with torch.no_grad():
        table, attention = hf.model.embed_tokens.weight, hf.model.layers[0].self_attn
        table[FIRST + 1, SIGNAL], table[FIRST + 2, SIGNAL + 1] = 1.0, 1.0
        table[FIRST + 3 : FIRST + 9, 2:8] = torch.eye(6)
        attention.v_proj.weight[_own(0)], attention.o_proj.weight[:, _own(0)] = 0.0, 0.0
        attention.v_proj.weight[0, SIGNAL + 1] = 1.0
        attention.o_proj.weight[LOUD, 0] = 10.0
        hf.lm_head.weight[FIRST + 30, CONSTANT] = 1.0
    pairs = [pair([1, at, QUERY], [2, at, QUERY], 30, 31, f"{at}") for at in range(3, 9)]
    effects = {"head.0.0": (1.0, 1.0)}
    return stressed(hf, pairs, effects=effects, heads={"head.0.0"}, misses={"head.0.0": BOTH})


def grouped_keys() -> Stress:
    """Two heads share the key that finds the flagged token, and answer it together, three parts to one.

    A head is a share of the effect, its key-value group all of it; the pattern is saturated, so the slope of
    the keys is flat.
    """
    hf = _llama(groups=2)
    gain, slow = 5.0, 3  # a coordinate of queries and keys that rotation leaves where it is
    with torch.no_grad():
        table, attention = hf.model.embed_tokens.weight, hf.model.layers[0].self_attn
        for at in range(8):
            for first, flag in ((FIRST, FLAG), (FIRST + 8, PLAIN)):
                table[first + at, at], table[first + at, flag] = 1.0, 1.0
            hf.lm_head.weight[FIRST + at, 8 + at] = 1.0
        table[FIRST + QUERY, CONSTANT] = 10.0
        attention.v_proj.weight[_own(1)] = torch.eye(WIDTH)[:D_HEAD]
        attention.k_proj.weight[D_HEAD + slow, FLAG] = gain
        for head, share in ((2, 0.75), (3, 0.25)):
            attention.q_proj.weight[head * D_HEAD + slow, CONSTANT] = gain / 5
            attention.o_proj.weight[:, _own(head)] = 0.0
            attention.o_proj.weight[ANSWER, _own(head)] = share * torch.eye(D_HEAD)
    pairs = [
        pair([a, b + 8, QUERY], [a + 8, b, QUERY], a, b, f"{a}{b}")
        for a, b in list(permutations(range(8), 2))[::7]
    ]
    effects = {"head.0.2": (0.75, 0.75), "head.0.3": (0.25, 0.25), "kv.0.1": (1.0, 1.0)}
    nodes = ("head.*", "mlp_out.*", "kv.*")
    misses = {"kv.0.1": BOTH}
    return stressed(hf, pairs, effects=effects, heads={"head.0.2", "head.0.3"}, misses=misses, nodes=nodes)
