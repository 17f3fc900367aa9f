"""Tiny configurations of families without a row: experts, recurrences, convolutions, unlike blocks.

Values are overrides of what Hugging Face's configuration class chooses; ``COMMON`` comes first.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

__all__ = ["MORE", "build"]

COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
}
_LATENT: dict[str, Any] = {
    **_EXPERTS,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "first_k_dense_replace": 1,
}
_DELTA: dict[str, Any] = {
    "num_hidden_layers": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MAMBA: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
}

MORE: dict[str, dict[str, Any]] = {
    "qwen3_5_text": _DELTA,
    "qwen3_next": {**_DELTA, **_EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 16, "mlp_only_layers": [0]},
    "qwen3_moe": {**_EXPERTS, "mlp_only_layers": [0]},
    "qwen3_5_moe_text": {**_DELTA, **_EXPERTS, "shared_expert_intermediate_size": 16},
    "gpt_oss": _EXPERTS,
    "gemma3_text": {"num_hidden_layers": 4, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "intermediate_size": [64] * 4,
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 100,
        "activation_sparsity_pattern": [0.0] * 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gemma4_text": {
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "global_head_dim": 32,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
    },
    "gemma4_shared": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "global_head_dim": 8,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 100,
        "use_double_wide_mlp": False,
    },
    "gemma4_moe": {
        **_EXPERTS,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "global_head_dim": 8,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "enable_moe_block": True,
        "top_k_experts": 2,
    },
    "deepseek_v2": {**_LATENT, "num_hidden_layers": 3},
    "deepseek_v3": _LATENT,
    "glm4": {},
    "glm4_moe": {**_EXPERTS, "first_k_dense_replace": 1},
    "ministral3": {},
    "mixtral": _EXPERTS,
    "llama4_text": {
        **_EXPERTS,
        "intermediate_size_mlp": 64,
        "num_hidden_layers": 4,
        "interleave_moe_layer_step": 2,
    },
    "phi3": {},
    "olmo3": {},
    "olmoe": _EXPERTS,
    "granitemoehybrid": {
        **_EXPERTS,
        **_MAMBA,
        "layer_types": ["mamba", "attention", "mamba"],
        "shared_intermediate_size": 64,
        "residual_multiplier": 0.6,
    },
    "nemotron_h": {
        **_EXPERTS,
        "num_hidden_layers": 5,
        "layers_block_type": ["mamba", "attention", "mlp", "moe", "mamba"],
        "moe_shared_expert_intermediate_size": 16,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 16,
    },
    "lfm2": {
        "num_hidden_layers": 4,
        "full_attn_idxs": [1, 3],
        "block_ff_dim": 64,
        "block_auto_adjust_ff_dim": False,
    },
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "head_dim": None},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "minimax": {
        **_EXPERTS,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "block_size": 8,
    },
    "jamba": {
        **_EXPERTS,
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 4,
        "use_mamba_kernels": False,
    },
    "mamba": {"state_size": 4},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 16},
    "ernie4_5": {},
    "ernie4_5_moe": {**_EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
    "smollm3": {},
    "cohere2": {},
    "stablelm": {},
    "starcoder2": {},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": {**_EXPERTS, "moe_topk": 2},
    "phimoe": _EXPERTS,
    "minimax_m2": _EXPERTS,
    "flex_olmo": _EXPERTS,
    "granitemoe": {**_EXPERTS, "residual_multiplier": 0.6},
    "laguna": {**_EXPERTS, "moe_routed_scaling_factor": 2.5, "shared_expert_intermediate_size": 16},
    "afmoe": {**_EXPERTS, "num_dense_layers": 1, "sliding_window": 8},
    "lfm2_moe": {
        **_EXPERTS,
        "num_hidden_layers": 4,
        "layer_types": ["conv", "full_attention"] * 2,
        "num_dense_layers": 1,
    },
    "kimi_linear": {
        **_LATENT,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse"],
        "linear_num_heads": 4,
        "linear_head_dim": 8,
    },
    "longcat_flash": {**_LATENT, "num_hidden_layers": 4, "zero_expert_num": 2},
    "glm4_moe_lite": _LATENT,
    "dots1": {**_EXPERTS, "first_k_dense_replace": 1, "n_shared_experts": 1},
    "exaone4": {"sliding_window": 8, "num_hidden_layers": 4},
    "zamba2": {
        **_MAMBA,
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "num_mem_blocks": 1,
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
        "mamba_ngroups": 1,
        "chunk_size": 16,
        "attention_head_dim": 16,
        "use_mem_rope": True,
        "adapter_rank": 8,
    },
    "recurrent_gemma": {
        "lru_width": 32,
        "attention_window_size": 8,
        "block_types": ["recurrent", "attention"],
    },
    "xlstm": {
        "num_heads": 4,
        "num_blocks": 2,
        "num_hidden_layers": 2,
        "qk_dim_factor": 1.0,
        "v_dim_factor": 1.0,
    },
    "rwkv": {"num_attention_heads": None, "attention_hidden_size": 32, "context_length": 64},
    "nanochat": {},
    "openai-gpt": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "head_dim": None},
    "cohere2_moe": _EXPERTS,
    "deepseek_v4": {**_EXPERTS, "layer_types": None},
}
"""Overrides by Hugging Face ``model_type``, or by a name of ours."""
ODD = {"jetmoe": {**_EXPERTS, "kv_channels": 8, "num_attention_heads": None, "head_dim": None}}
"""Types whose heads and experts are in no known form; the residual stream alone is read."""
_TYPES = {"gemma4_shared": "gemma4_text", "gemma4_moe": "gemma4_text"}


@cache
def build(kind: str) -> PreTrainedModel:
    """Make the tiny model of a type, initialised with every parameter random; do not change it."""
    name, settings = _TYPES.get(kind, kind), COMMON | (MORE | ODD)[kind]
    config = AutoConfig.for_model(name, **{k: v for k, v in settings.items() if v is not None})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):  # on all that a block gives, and one in a fresh model
                buffer.fill_(0.7)
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.3 * noise if parameter.ndim == 1 else 0.25 * noise)
    return model.eval()


def sparse(kind: str) -> Any:
    """A tiny model with latent attention over the tokens that an indexer chooses."""
    own = {"index_topk": 8, "index_n_heads": 2, "index_head_dim": 8}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**COMMON, **_LATENT, **own})
    return AutoModelForCausalLM.from_config(config).eval()
