"""The models that are timed: the bundled one, and GPT-2 small with random weights, both as folders on disk."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from interp.locations import assets

__all__ = ["MODELS", "SHAPES", "folder_of", "inputs", "open_model", "twin"]

MODELS = ("demo", "gpt2")
SHAPES = {"demo": ("1x16", "8x16", "32x16"), "gpt2": ("1x16", "8x16")}


def folder_of(name: str, work: Path) -> tuple[Path, str]:
    """Return a folder with the model and its tokenizer, made below ``work`` where none is bundled, and what it is."""
    bundled = assets("demo-24l")
    if name == "demo" and (bundled / "config.json").is_file():
        return bundled, "bundled model"
    folder = work / name
    config, words = (_gpt2(), 50257) if name == "gpt2" else (_stand_in(), 1500)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).eval().save_pretrained(folder)
    _tokenizer(words).save_pretrained(folder)
    return folder, "GPT-2 small, random weights" if name == "gpt2" else "stand-in for the bundled model"


def _gpt2() -> PretrainedConfig:
    return GPT2Config()


def _stand_in() -> PretrainedConfig:
    """Describe a model of the bundled one's shape, for a checkout that does not hold it yet."""
    return LlamaConfig(
        vocab_size=1500, hidden_size=64, intermediate_size=192, num_hidden_layers=24, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip


def _tokenizer(words: int) -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer: the peers insist on having one."""
    rules = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = {"bos_token": "w1", "eos_token": "w1", "pad_token": "w0", "unk_token": "w0"}
    return PreTrainedTokenizerFast(tokenizer_object=rules, **ends)


def open_model(folder: Path) -> PreTrainedModel:
    """Open a model for measuring."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def inputs(shape: str, vocab_size: int) -> torch.Tensor:
    """Return random token ids ``[batch pos]`` of a shape such as "8x16", none of them special."""
    batch, length = map(int, shape.split("x"))
    return torch.randint(10, vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model's modules but not its weights: peers replace modules of the object they are given."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, shared)
