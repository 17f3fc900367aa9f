"""Tiny models that hold a text decoder beside an encoder of images or sounds."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForMultimodalLM, PreTrainedModel

from tests.more_families import COMMON, MORE

__all__ = ["WRAPPERS", "build_wrapper"]

_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 3,  # as many as the decoder has, which must not be mistaken for it
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
    "image_size": 28,
    "patch_size": 14,
    "depth": 3,
    "num_heads": 4,
    "out_hidden_size": 32,
    "embed_dim": 32,
    "vision_output_dim": 32,
    "projector_input_dim": 32,
    "projector_output_dim": 32,
    "max_position_embeddings": 64,
    "fullatt_block_indexes": [1],
    "deepstack_visual_indexes": [1],
}
_THREE_AXES: dict[str, Any] = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

WRAPPERS: dict[str, dict[str, Any]] = {
    "gemma3": {},
    "gemma4": {},
    "mistral3": {},
    "llava": {},
    "llava_onevision": {},
    "qwen2_vl": _THREE_AXES,
    "qwen2_5_vl": _THREE_AXES,
    "qwen3_vl": {},
    "qwen3_vl_moe": _EXPERTS,
    "qwen3_5": {},
    "qwen3_5_moe": {},
    "llama4": {},
    "idefics3": {},
    "internvl": {},
    "glm4v": {
        **_THREE_AXES,
        "rope_parameters": _THREE_AXES["rope_parameters"] | {"partial_rotary_factor": 1.0},
    },
    "lfm2_vl": {},
    "aya_vision": {},
    "voxtral": {},
}
"""Overrides of the text decoder's configuration by Hugging Face ``model_type``."""


@cache
def build_wrapper(kind: str) -> PreTrainedModel:
    """Make the tiny model of a type, every parameter random; do not change it."""
    base = AutoConfig.for_model(kind)
    text = base.get_text_config()
    wanted = COMMON | MORE.get(text.model_type, {}) | WRAPPERS[kind]
    known = {*text.to_dict(), *text.attribute_map}
    parts: dict[str, Any] = {}
    for name in base.sub_configs:
        own = getattr(base, name)
        if own is None:
            continue
        size = wanted if name == "text_config" else _ENCODER
        names = known if name == "text_config" else {*own.to_dict()}
        parts[name] = {key: value for key, value in size.items() if key in names}
        parts[name]["model_type"] = own.model_type
    tokens = [name for name in vars(base) if "token_i" in name and isinstance(getattr(base, name), int)]
    parts |= {name: 90 + at for at, name in enumerate(tokens)}
    config = AutoConfig.for_model(kind, **parts)
    image = type(config) in AutoModelForImageTextToText._model_mapping
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (AutoModelForImageTextToText if image else AutoModelForMultimodalLM).from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.3 * noise if parameter.ndim == 1 else 0.25 * noise)
    return model.eval()
