"""Tiny random models of every family; norm scales, biases and multipliers are random too, to hide nothing."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["CONFIGS", "FAMILIES", "OTHERS", "WORDS", "build", "tiny", "tokenizer"]

WORDS = [f"w{number:02d}" for number in range(60)]
_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GATED = _SIZES | {"intermediate_size": 48, "num_key_value_heads": 2}
_GPT = {
    "vocab_size": 64,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,
    "llama": _GATED,
    "mistral": _GATED | {"sliding_window": 32},
    "qwen2": _GATED,
    "qwen3": _GATED | {"head_dim": 16},
    "olmo": _GATED | {"clip_qkv": 3.0},
    "olmo2": _GATED,
    "gemma2": _GATED | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8},
    "granite": _GATED
    | {
        "residual_multiplier": 0.6,
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "attention_multiplier": 0.2,
    },
    "phi": _GATED | {"partial_rotary_factor": 0.5},
    "gpt_neox": _SIZES | {"intermediate_size": 48},
    "gptj": _GPT | {"rotary_dim": 4, "n_inner": 48},
    "bloom": {
        "vocab_size": 64,
        "hidden_size": 32,
        "n_layer": 3,
        "n_head": 4,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "opt": _SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32},
}
FAMILIES = tuple(CONFIGS)
_MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox_sequential": ("gpt_neox", _SIZES | {"intermediate_size": 48, "use_parallel_residual": False}),
    "gemma3": ("gemma3_text", _GATED | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}),
    "stablelm": ("stablelm", _GATED),
    "stablelm_parallel": ("stablelm", _GATED | {"use_parallel_residual": True}),
    "falcon": ("falcon", _SIZES | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_old": ("falcon", _SIZES | {"multi_query": True, "alibi": False}),
    "starcoder2": ("starcoder2", _GATED),
    "phi3": ("phi3", _GATED),
    "cohere": ("cohere", _GATED),
    "mixtral": ("mixtral", _GATED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt_neo": (
        "gpt_neo",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 48,
            "attention_types": [[["global", "local"], 1]],
            "intermediate_size": 48,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
}
OTHERS = tuple(_MORE)


def build(family: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Build a fresh model of a family, every parameter random and far from its initial value."""
    model_type, settings = _MORE.get(family) or (family, CONFIGS[family])
    config = AutoConfig.for_model(model_type, **(settings | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.3 * noise if parameter.ndim == 1 else 0.25 * noise)
    model.generation_config.eos_token_id = None
    return model.eval()


@lru_cache(maxsize=4)
def tokenizer(*, bos: bool = False, eos: bool = False) -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer of 64 tokens that optionally adds ``<s>`` before and ``</s>`` after."""
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = ("<s> " if bos else "") + "$A" + (" </s>" if eos else "")
    rules.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


@cache
def tiny(family: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the shared model of a family and its tokenizer; to change one, use ``build``."""
    return build(family), tokenizer()
