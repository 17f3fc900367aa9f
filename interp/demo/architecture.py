"""The bundled model's shape.

Also how a shallow model grows into a deep one without changing what it computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

__all__ = ["build_model", "configuration", "grow", "open_model", "token_id"]


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token of the vocabulary."""
    return int(cast(int, tokenizer.convert_tokens_to_ids(token)))


def _outputs(block: torch.nn.Module) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """The two projections of a block that write into the residual stream."""
    layer = cast(LlamaDecoderLayer, block)
    return cast(torch.nn.Linear, layer.self_attn.o_proj), cast(torch.nn.Linear, layer.mlp.down_proj)


def open_model(folder: Path) -> LlamaForCausalLM:
    """Open a saved model in fp32, ready to be measured (evaluation mode)."""
    return cast(LlamaForCausalLM, LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())


def configuration(tokenizer: PreTrainedTokenizerFast, n_layers: int) -> LlamaConfig:
    """A Llama of width 64 with grouped-query attention: 4 query heads share 2 key-value heads."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=token_id(tokenizer, "<bos>"),
        eos_token_id=token_id(tokenizer, "<eos>"),
        pad_token_id=token_id(tokenizer, "<pad>"),
        dtype="float32",
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, n_layers: int, *, seed: int, depth: int = 24
) -> LlamaForCausalLM:
    """Initialise a model; what a block writes is scaled by 1/sqrt(2 * depth), the depth it will grow to."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(configuration(tokenizer, n_layers))
        for block in model.model.layers:
            for projection in _outputs(block):
                projection.weight.data.div_((2 * depth) ** 0.5)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.data.mul_(
                    2.5
                )  # 0.05 = 0.4 / sqrt(64): the default 0.02 is meant for widths in the thousands
    return model


def grow(model: LlamaForCausalLM, n_layers: int, *, seed: int) -> LlamaForCausalLM:
    """Insert fresh blocks behind every block.

    Their output projections are zero, so that the logits stay the same.

    Args:
        model: the shallow model, left as it is.
        n_layers: the new depth, a multiple of the old one.
        seed: initialises the fresh blocks.

    Returns:
        A deeper model. Old block k becomes block ``k * factor``; the others start as the identity.
    """
    old = model.config.num_hidden_layers
    factor = n_layers // old
    config = type(model.config)(
        **{**model.config.to_dict(), "num_hidden_layers": n_layers, "layer_types": None}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deep = LlamaForCausalLM(config)
    for name, parameter in deep.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.data.mul_(2.5)
    deep.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    deep.model.norm.load_state_dict(model.model.norm.state_dict())
    for index, block in enumerate(deep.model.layers):
        if index % factor == 0:
            block.load_state_dict(model.model.layers[index // factor].state_dict())
        else:
            for projection in _outputs(block):
                projection.weight.data.zero_()
    return deep
