"""The checks in half precision: models that are right pass, a factor near 1 does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import interp
from interp.models import load
from interp.models.checks import residual_stream
from interp.models.checks.batches import batched
from interp.models.checks.context import Context
from tests.interp.models.test_doctor import mask_ignored, patched
from tests.tiny import build, tokenizer

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox", "granite", "olmo2"])
def test_a_right_model_passes(family: str, dtype: torch.dtype) -> None:
    """Judged by the rounding of its own type; ``test_doctor`` has float32."""
    model = load(build(family).to(dtype), tokenizer=tokenizer())
    assert not {"attn_out", "mlp_out"} & set(model.disabled)
    found = interp.examine(model)
    assert found.passed, found.failures
    assert found[residual_stream.SUM].limit == 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_a_factor_that_is_left_out_is_found_in_every_dtype(factor: float, dtype: torch.dtype) -> None:
    hf = build("granite", residual_multiplier=factor, embedding_multiplier=1.0).to(dtype)
    right, wrong = load(hf), load(hf, family={"multiplier": ""})
    assert "attn_out" not in right.disabled
    assert "differs from resid_post" in wrong.disabled["attn_out"]
    failed = [one.name for one in interp.examine(wrong).checks if one.status == "fail"]
    assert "resid_post = resid_pre + attn_out + mlp_out" in failed


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_bundled_model_passes_in_half_precision(dtype: str) -> None:
    assert interp.examine(interp.load("demo", dtype=dtype)).passed


def batch_dependent(family: str, module: str, dtype: torch.dtype) -> interp.Model:
    """A model of which one module gives 1.15 times its output to batches of several rows."""
    hf = build(family).to(dtype)

    def scaled(_: object, __: object, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        changed = first * 1.15 if len(first) > 1 else first
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    hf.get_submodule(module).register_forward_hook(scaled)
    return load(hf, tokenizer=tokenizer())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("family", "module"),
    [
        ("llama", "model.layers.1.mlp"),
        ("llama", "model.layers.0.self_attn"),
        ("llama", "lm_head"),
        ("gpt_neox", "gpt_neox.layers.2.mlp"),
    ],
)
def test_a_batch_that_changes_a_block_fails_in_every_dtype(
    family: str, module: str, dtype: torch.dtype
) -> None:
    """A fault that rounding hides in the whole pass; control: the model without it passes."""
    prompts = tuple(tuple(range(10 + n, 20 + n)) for n in range(4))
    right = load(build(family).to(dtype), tokenizer=tokenizer())
    wrong = batch_dependent(family, module, dtype)
    assert [batched(Context(model, prompts)).status for model in (right, wrong)] == ["pass", "fail"]


def cancelling(dtype: torch.dtype) -> interp.Model:
    """A model whose second block takes away the 400 that its first adds, and with it most digits."""
    hf = build("llama")
    for layer, added in ((0, 400.0), (1, -400.0)):
        down: Any = hf.model.layers[layer].mlp.down_proj  # type: ignore[union-attr]
        down.bias = torch.nn.Parameter(torch.full((down.out_features,), added))
    return load(hf.to(dtype), tokenizer=tokenizer())


def test_the_room_for_rounding_is_that_of_each_layer() -> None:
    prompts = tuple(tuple(range(10 + n, 24 + 3 * n)) for n in range(4))
    logits, errors = Context(cancelling(torch.bfloat16), prompts).growth
    plain = Context(load(build("llama").to(torch.bfloat16)), prompts).growth[1]
    assert errors[1] > 4 * plain[1] > 0 and errors[0] < plain[0]
    assert logits > 0
    assert Context(cancelling(torch.float32), prompts).growth == (0.0, [0.0] * 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_padding_that_counts_is_found_in_every_dtype(dtype: torch.dtype) -> None:
    """Padding that is attended to moves the states by more than rounding does."""
    prompts = [list(range(10 + n, 24 + 3 * n)) for n in range(4)]
    checks = {
        name: {one.name: one.status for one in interp.examine(load(hf.to(dtype)), prompts=prompts).checks}
        for name, hf in (("right", build("llama")), ("wrong", patched("llama", mask_ignored)))
    }
    assert checks["right"]["padding left = no padding"] == "pass"
    assert checks["wrong"]["padding left = no padding"] == "fail"
