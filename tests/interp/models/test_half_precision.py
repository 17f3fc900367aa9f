"""The checks in half precision: models that are right pass, a factor near 1 does not."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.models import load
from tests.tiny import build, tokenizer

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox", "granite", "olmo2"])
def test_a_right_model_passes(family: str, dtype: torch.dtype) -> None:
    model = load(build(family).to(dtype), tokenizer=tokenizer())
    assert not {"attn_out", "mlp_out"} & set(model.disabled)
    assert interp.examine(model).passed


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
