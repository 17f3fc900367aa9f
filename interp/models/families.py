"""The table of model families: the only file that knows module paths.

A row is data. Paths of the blocks and the final norm start at the model; all others start at a block. Adding
a family is one row here (and one configuration in the tests); a model whose type has no row is examined by
``interp.models.discovery``, which uses the name lists at the end of this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from interp.errors import ConfigError

__all__ = ["FAMILIES", "Family", "family_of", "overridden"]

Layout = Literal["separate", "thirds", "groups"]


@dataclass(frozen=True)
class Family:
    """Say where the sites of one family are.

    Attributes:
        name: how messages call the family.
        types: the ``model_type`` values of Hugging Face configurations that this row covers.
        blocks: the list of blocks.
        final_norm: the last norm; "" where there is none.
        attention: the attention module of a block; its second output is the pattern under eager attention.
        attn_out: the module whose output, times ``multiplier``, attention adds to the residual stream.
        mixer_out: the same for what mixes tokens where there is no attention: a recurrence, a convolution.
        mlp_out: the same for the MLP.
        beside: a module whose output is added to that of ``mlp_out`` before the factor; "" for none.
        resid_mid: the module whose input is the stream between attention and MLP; "" in parallel blocks.
        out_projection: its input is ``z``, its output the sum of the heads.
        down_projection: its input is ``mlp_act``.
        q: the query projection (``layout="separate"``), likewise ``k`` and ``v``.
        k: the key projection.
        v: the value projection.
        qkv: the module that computes queries, keys and values at once (other layouts).
        layout: "separate"; "thirds" for all queries, then all keys, then all values; "groups" for, per
            key-value head, its queries, its key and its value.
        experts: the module that holds the routed experts; its output is their weighted sum.
        expert_layout: "routed" where it is called with tokens, chosen experts and weights; "each" where every
            expert is run on every token.
        expert_multiplier: the experts' (or the MLP's) attribute that their sum is multiplied by; "" for none.
        router: the module that gives the router's logits.
        router_slot: where they are in its output.
        shared_expert: the expert that every token passes.
        shared_gate: the module whose sigmoid multiplies what it gives; "" for none.
        stream: which of several streams that blocks hand on is the active one; None where they hand on one.
        padding: on which side prompts that share a batch may be padded.
        cache: whether steps with a cache give the logits of whole passes.
        plain_logits: whether the head's output is the logits, whatever the configuration says of a scale.
        multiplier: the configuration's name for the factor on both contributions; "" for none.
        parallel: the configuration's switch that makes blocks parallel; "" where ``resid_mid`` decides.
        rows: one row per block, where blocks are not all alike; () where this row is that of every block. A
            path that a block does not have means that its sites do not exist there.
    """

    name: str
    types: tuple[str, ...] = ()
    blocks: str = "model.layers"
    final_norm: str = "model.norm"
    attention: str = "self_attn"
    attn_out: str = "self_attn"
    mlp_out: str = "mlp"
    resid_mid: str = "post_attention_layernorm"
    out_projection: str = "self_attn.o_proj"
    down_projection: str = "mlp.down_proj"
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    qkv: str = ""
    layout: Layout = "separate"
    multiplier: str = ""
    parallel: str = ""
    mixer_out: str = ""
    beside: str = ""
    experts: str = ""
    expert_layout: Literal["routed", "each"] = "routed"
    expert_multiplier: str = ""
    router: str = ""
    router_slot: int = 0
    shared_expert: str = ""
    shared_gate: str = ""
    plain_logits: bool = False
    stream: int | None = None
    padding: Literal["either", "right", "left", "none"] = "either"
    cache: bool = True
    rows: tuple[Family, ...] = ()

    def row(self, layer: int) -> Family:
        """Give the row of one block."""
        return self.rows[layer] if self.rows else self

    def names(self, field: str) -> bool:
        """Tell whether any block's row has a path in a field."""
        return any(getattr(row, field) for row in self.rows or (self,))


_LLAMA = Family("llama", ("llama", "mistral", "qwen2", "qwen3", "olmo"))

_ROWS = (
    _LLAMA,
    replace(_LLAMA, name="granite", types=("granite",), multiplier="residual_multiplier"),
    replace(
        _LLAMA,
        name="gemma2",
        types=("gemma2",),
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        resid_mid="pre_feedforward_layernorm",
    ),
    replace(
        _LLAMA,
        name="olmo2",
        types=("olmo2",),
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        resid_mid="mlp",
    ),
    Family(
        "gpt2",
        ("gpt2",),
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        attn_out="attn",
        resid_mid="ln_2",
        out_projection="attn.c_proj",
        down_projection="mlp.c_proj",
        qkv="attn.c_attn",
        layout="thirds",
    ),
    Family(
        "gpt_neox",
        ("gpt_neox",),
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        attn_out="attention",
        out_projection="attention.dense",
        down_projection="mlp.dense_4h_to_h",
        qkv="attention.query_key_value",
        layout="groups",
        parallel="use_parallel_residual",
    ),
    Family(
        "gptj",
        ("gptj",),
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        attn_out="attn",
        resid_mid="",
        out_projection="attn.out_proj",
        down_projection="mlp.fc_out",
        q="attn.q_proj",
        k="attn.k_proj",
        v="attn.v_proj",
    ),
    replace(
        _LLAMA,
        name="phi",
        types=("phi",),
        final_norm="model.final_layernorm",
        resid_mid="",
        out_projection="self_attn.dense",
        down_projection="mlp.fc2",
    ),
    Family(
        "bloom",
        ("bloom",),
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="self_attention",
        attn_out="self_attention.dense",
        mlp_out="mlp.dense_4h_to_h",
        out_projection="self_attention.dense",
        down_projection="mlp.dense_4h_to_h",
        qkv="self_attention.query_key_value",
        layout="groups",
    ),
    replace(
        _LLAMA,
        name="opt",
        types=("opt",),
        blocks="model.decoder.layers",
        final_norm="model.decoder.final_layer_norm",
        mlp_out="fc2",
        resid_mid="final_layer_norm",
        out_projection="self_attn.out_proj",
        down_projection="fc2",
    ),
)

FAMILIES: Mapping[str, Family] = {model_type: row for row in _ROWS for model_type in row.types}
"""Row by Hugging Face ``model_type``."""

# Names that generic discovery tries, in this order. Whatever it finds must still pass validation.
BLOCK_NAMES = ("layers", "h", "blocks", "block", "layer")
NORM_NAMES = (
    "norm",
    "ln_f",
    "final_layernorm",
    "final_layer_norm",
    "norm_f",
    "layer_norm",
    "ln_out",
    "embedding_norm",
    "final_norm",
    "out_norm",
    "layernorm",
)
ATTENTION_NAMES = (
    "self_attn",
    "attn",
    "attention",
    "self_attention",
    "self_attn_layer",
    "mha",
    "multi_head_attention",
    "temporal_block",
    "mixer",
)
MIXER_NAMES = ("linear_attn", "mamba", "conv", "mixer", "temporal_block", "mlstm_layer", "short_conv", "ssm")
NOT_ATTENDING = ("linear", "lightning", "mamba", "conv", "recurrent")
"""What the names of layers without softmax attention hold, in a configuration's ``layer_types``."""
MLP_NAMES = (
    "mlp",
    "feed_forward",
    "ffn",
    "block_sparse_moe",
    "moe",
    "ff",
    "feedforward",
    "mlp_block",
    "mixer",
    "shared_mlp",
)
EXPERTS_NAMES = ("experts",)
ROUTER_NAMES = ("gate", "router")
SHARED_NAMES = ("shared_expert", "shared_experts", "shared_mlp")
SHARED_GATE_NAMES = ("shared_expert_gate",)
EXPERT_MULTIPLIER_NAMES = ("routed_scaling_factor",)
OUT_NAMES = ("o_proj", "out_proj", "c_proj", "dense", "wo", "resid_proj", "out_lin", "linear_attn")
DOWN_NAMES = (
    "down_proj",
    "c_proj",
    "fc2",
    "dense_4h_to_h",
    "fc_out",
    "w2",
    "proj",
    "wo",
    "output_linear",
    "proj_down",
)
Q_NAMES = ("q_proj", "query", "wq", "q_lin", "query_proj")
ASIDE_NAMES = ("indexer",)
"""Parts of attention whose queries and keys only choose the tokens that are attended to."""
K_NAMES = ("k_proj", "key", "wk", "k_lin", "key_proj")
V_NAMES = ("v_proj", "value", "wv", "v_lin", "value_proj")
V_NORM_NAMES = ("v_norm",)
GATE_NAMES = ("gate_proj", "g_proj")
"""Children of attention that norm the values, and that give the logits of a gate on what is mixed."""
QKV_NAMES = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "att_proj", "qkv_linear")
WRONG_CACHES = ("minimax",)
"""Types whose cache is wrong on longer prompts only (of several blocks of lightning attention)."""
ACTIVE_STREAM_NAMES = ("altup_active_idx",)
"""What configurations call the one of several streams that attention and MLP read (Gemma 3n)."""
MULTIPLIER_NAMES = ("residual_multiplier",)


def family_of(model_type: str) -> Family | None:
    """Return the row of a Hugging Face ``model_type``, or None where generic discovery must do."""
    return FAMILIES.get(model_type)


def overridden(base: Family, changes: Mapping[str, Any]) -> Family:
    """Return a row with some fields replaced by the user.

    Raises:
        ConfigError: a key is no field of ``Family``.
    """
    known = [field.name for field in fields(Family)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ConfigError(f"family override has unknown key {unknown[0]!r}. Keys: {', '.join(known)}.")
    rows = tuple(overridden(row, changes) for row in base.rows)
    return replace(base, **{"rows": rows, **changes})
