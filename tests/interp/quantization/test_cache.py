"""Keys and values at few bits: against attention by hand, in whole passes as in steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import ModelError
from interp.models import Model
from interp.models.rounded_cache import attach, cache_bits, rounded
from interp.quantization import quantize, verify_quantization
from tests.tiny import FAMILIES, build, tokenizer

IDS = [[5, 9, 33, 21, 7], [4, 44, 12]]


def made(family: str, **changes: Any) -> Model:
    return interp.load(build(family, **changes), tokenizer=tokenizer())


def grid(vector: Tensor, bits: int) -> Tensor:
    """The nearest of ``2**bits`` numbers between the least and the largest, by looking at all of them."""
    levels = torch.linspace(float(vector.min()), float(vector.max()), 2**bits, dtype=torch.float64)
    return levels[(vector.double()[:, None] - levels).abs().argmin(1)].float()


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt()


def turned(x: Tensor, base: float) -> Tensor:
    """Rotate the halves of each head by its position."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[0])[:, None] * base ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@torch.no_grad()
def by_hand(hf: Any, ids: list[int], bits: int) -> Tensor:
    """Logits of a Llama whose keys and values are rounded; 0 bits round nothing."""
    config, x = hf.config, hf.model.embed_tokens.weight[ids]
    size = config.hidden_size // config.num_attention_heads
    for layer in hf.model.layers:
        at, y = layer.self_attn, norm(x, layer.input_layernorm.weight, config.rms_norm_eps)
        q, k, v = (part(y).unflatten(-1, (-1, size)) for part in (at.q_proj, at.k_proj, at.v_proj))
        q, k = (turned(part, config.rope_parameters["rope_theta"]) for part in (q, k))
        if bits:
            k, v = (torch.stack([torch.stack([grid(h, bits) for h in row]) for row in one]) for one in (k, v))
        k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], 1) for one in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / size**0.5
        scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
        x = x + at.o_proj(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1))
        x = x + layer.mlp(norm(x, layer.post_attention_layernorm.weight, config.rms_norm_eps))
    return hf.lm_head(norm(x, hf.model.norm.weight, config.rms_norm_eps))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_llama_computes_what_attention_by_hand_does(bits: int) -> None:
    """Control: without rounding, and with that of other bits, it is another model."""
    model = made("llama")
    found = quantize(model, f"kv{bits}").run(IDS[:1], logits="all").logits
    assert found is not None
    expected, plain, other = (by_hand(model.hf, IDS[0], one) for one in (bits, 0, 12 - bits))
    torch.testing.assert_close(plain, model.run(IDS[:1], logits="all").logits[0], atol=1e-5, rtol=1e-4)  # type: ignore[index]
    torch.testing.assert_close(found[0], expected, atol=2e-5, rtol=1e-3)
    assert (found[0] - plain).abs().max() > 1e-3 and (found[0] - other).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_examined_and_reads_in_steps_what_it_reads_at_once(family: str) -> None:
    model = made(family)
    before, small = model.logits(IDS), quantize(model, "kv4")
    assert verify_quantization(small, model).passed
    assert small.fingerprint != model.fingerprint and torch.equal(model.logits(IDS), before)
    ours, theirs = (dict(one.hf.named_parameters()) for one in (small, model))
    assert all(ours[name] is weight for name, weight in theirs.items())
    off = (small.logits(IDS) - before).abs().max() / before.abs().max()
    assert 1e-3 < off < 0.6
    steps, whole = (
        small.generate(IDS, max_new_tokens=4, capture="resid_post.1", use_cache=way) for way in (True, False)
    )
    assert steps.token_ids == whole.token_ids
    one, two = (run.activations["resid_post.1"] for run in (steps, whole))  # type: ignore[index]
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


def test_at_sixteen_bits_it_is_the_model_itself() -> None:
    model = made("llama")
    fine = quantize(model, "fp32")
    attach(fine.hf, [block.self_attn for block in fine.hf.model.layers], 16)  # type: ignore[union-attr]
    off = (fine.logits(IDS) - model.logits(IDS)).abs().max()
    assert off < 5e-4 < 0.1 * (quantize(model, "kv8").logits(IDS) - model.logits(IDS)).abs().max()


def test_what_is_read_and_written_elsewhere_is_as_in_any_model() -> None:
    """Patterns are read with eager attention: the rounding holds there too; gradients are refused."""
    small = quantize(made("llama"), "kv4")
    read = small.capture(IDS[:1], ["pattern.1", "z.1", "v.1"], "all")
    value = rounded(read["v.1"].unflatten(-1, (-1, 8)) if read["v.1"].ndim == 3 else read["v.1"], 4)
    mixed = torch.einsum(
        "bqhk,bkhd->bqhd",
        read["pattern.1"],
        value.repeat_interleave(read["z.1"].shape[-2] // value.shape[-2], -2),
    )
    torch.testing.assert_close(mixed, read["z.1"], atol=1e-5, rtol=1e-3)
    with pytest.raises(ModelError, match=r"the slope of rounding is zero.*the model without quantization"):
        small.run(IDS, capture="resid_pre.0", positions="all", grad=True)
    report = small.quantization
    assert report is not None and report.bytes_after == report.bytes_before and not report.modules
    assert "weights are untouched" in repr(report) and "weights are untouched" in small.warnings[-1]


def test_it_is_not_lost_without_a_word() -> None:
    small = quantize(made("llama"), "kv8")
    assert cache_bits([*small.hf.modules()]) == 8 and cache_bits([*made("llama").hf.modules()]) == 0
    again = interp.load(small.hf, tokenizer=tokenizer())
    assert again.scheme == "kv8" and again.quantization is not None and again.quantization.gradients
    for given, message in (
        (lambda: quantize(small, "int8"), "held at kv8 already"),
        (lambda: quantize(made("llama"), "kv8", mode="packed"), "mode='dense' only"),
        (lambda: interp.load(small.hf, tokenizer=tokenizer(), backend="nnsight"), "rounded to 8 bits"),
    ):
        with pytest.raises((ModelError, interp.errors.ConfigError), match=message):
            given()


def test_attention_that_a_cache_changes_is_refused() -> None:
    model = quantize(made("llama"), "fp32").hf
    blocks: Any = model.model.layers  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="layer 1 keeps none of its own"):
        attach(model, [blocks[0].self_attn, blocks[1].mlp], 8)
    with pytest.raises(ModelError, match="layer 1 gave its cache nothing"):
        attach(model, [blocks[0].self_attn, made("llama").hf.model.layers[1].self_attn], 8)  # type: ignore[union-attr]
    assert cache_bits([*model.modules()]) == 0, "nothing is left behind"
