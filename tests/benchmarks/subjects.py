"""The models that are timed, and the token ids they read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["REAL", "SUBJECTS", "Shape", "Subject", "open_raw", "prepare", "token_ids"]


@dataclass(frozen=True)
class Shape:
    """Hold how many prompts of how many tokens are read, and how often that is timed."""

    batch: int
    width: int
    rounds: int

    def __str__(self) -> str:
        """Return ``batch x width``."""
        return f"{self.batch}x{self.width}"


@dataclass(frozen=True)
class Subject:
    """Hold one model.

    Attributes:
        name: of its rows.
        shapes: of the prompts.
        goal: largest ratio for all of resid_post, like for like.
        blocks: path of the list of blocks in the Hugging Face model.
        norm: path of the final norm.
        out: path of the projection of the heads' outputs, in a block.
    """

    name: str
    shapes: tuple[Shape, ...]
    goal: float
    blocks: str
    norm: str
    out: str = "self_attn.o_proj"


SUBJECTS = {
    "demo": Subject("demo", (Shape(1, 16, 80), Shape(8, 16, 40)), 1.10, "model.layers", "model.norm"),
    "gpt2-small": Subject(
        "gpt2-small",
        (Shape(1, 16, 25), Shape(8, 16, 20), Shape(1, 128, 20)),
        1.05,
        "transformer.h",
        "transformer.ln_f",
        "attn.c_proj",
    ),
}
REAL = {"smollm2": Subject("smollm2", (), 1.10, "model.layers", "model.norm")}
"""Models that are timed only where they are asked for."""


def prepare(subject: Subject, scratch: Path) -> tuple[Path, str]:
    """Return the subject's folder, made where there is none, and a word on its weights."""
    from interp.paths import assets

    if subject.name in REAL:
        from interp.models.gguf import converted, smollm2

        return converted(smollm2()), "SmolLM2-135M-Instruct, Q4_1 weights computed in float32"
    bundled = assets("demo-24l")
    if subject.name == "demo" and (bundled / "config.json").is_file():
        return bundled, "bundled, trained"
    folder = scratch / subject.name
    _write(_stand_in() if subject.name == "demo" else _gpt2_small(), folder)
    return (
        folder,
        "stand-in of the same shape, random weights" if subject.name == "demo" else "random weights",
    )


def _write(config: Any, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _tokenizer(config.vocab_size).save_pretrained(folder)


def _gpt2_small() -> Any:
    from transformers import GPT2Config

    return GPT2Config()


def _stand_in() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=3475,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
    )


def _tokenizer(size: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0", bos_token="w1", eos_token="w2")


def open_raw(folder: Path) -> Any:
    """Open the Hugging Face model alone."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def token_ids(vocab: int, shape: Shape) -> Any:
    """Draw ids ``[batch pos]`` without the special ones at the start of the vocabulary."""
    import torch

    return torch.randint(10, vocab, (shape.batch, shape.width), generator=torch.Generator().manual_seed(0))
