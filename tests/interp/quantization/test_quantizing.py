"""A quantized copy: every family, nothing of the base touched, everything accounted for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from interp import load
from interp.errors import ConfigError, ModelError
from interp.models import Model
from interp.models.linear import linear_modules
from interp.quantization import quantize
from tests.tiny import FAMILIES, build, tokenizer

SCHEMES = ("rtn4", "int8", "int4")
IDS = [[5, 9, 33, 21, 7], [4, 44, 12]]


def made(family: str, **changes: Any) -> Model:
    return load(build(family, **changes), tokenizer=tokenizer())


def plain(model: Model) -> list[nn.Module]:
    """Find what should be quantized by class, outside head and embedding."""
    head = model.hf.get_output_embeddings()
    classes = ("Linear", "Conv1D", "Int8Tensor")
    return [m for m in model.hf.modules() if type(m).__name__ in classes and m is not head]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_quantized_and_the_base_is_as_it_was(family: str) -> None:
    model = made(family)
    before, logits = model.fingerprint, model.logits(IDS)
    expected = [module for module in plain(model) if "project" not in type(module).__name__]
    for scheme in SCHEMES:
        dense, packed = quantize(model, scheme), quantize(model, scheme, mode="packed")
        for one in (dense, packed):
            report = one.quantization
            assert report is not None
            assert len(report.modules) == report.expected == len(expected)
            assert not report.skipped
            assert report.base == before
            assert 0 < report.weight_error < 0.3
            assert report.bytes_after < report.bytes_before
        ours, theirs = dense.logits(IDS), packed.logits(IDS)
        assert (ours - theirs).abs().max() < 2e-5 * ours.abs().max()
        assert (ours - logits).abs().max() > 1e-6 * logits.abs().max(), "something was quantized"
    assert model.fingerprint == before
    assert torch.equal(model.logits(IDS), logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_and_fp32_are_schemes_too(family: str) -> None:
    model = made(family)
    same, half = quantize(model, "fp32"), quantize(model, "bf16")
    assert torch.equal(same.logits(IDS), model.logits(IDS))
    assert same.fingerprint == model.fingerprint
    assert half.dtype == torch.bfloat16
    assert model.dtype == torch.float32
    off = (half.logits(IDS) - model.logits(IDS)).abs().max() / model.logits(IDS).abs().max()
    assert 1e-5 < off < 0.2
    assert half.quantization is not None
    assert half.quantization.bytes_after * 2 == half.quantization.bytes_before


def test_dense_weights_are_where_the_modules_are_and_shared_otherwise() -> None:
    model = made("gpt2")
    small = quantize(model, "rtn4")
    ours, theirs = linear_modules(model.architecture), linear_modules(small.architecture)
    assert list(ours) == list(theirs)
    for name, module in ours.items():
        other = theirs[name]
        assert type(other) is type(module)
        assert other.weight.shape == module.weight.shape  # type: ignore[union-attr]
        assert not torch.equal(other.weight, module.weight)  # type: ignore[arg-type]
        assert other.bias is module.bias
    assert small.hf.get_input_embeddings().weight is model.hf.get_input_embeddings().weight


def test_tied_embeddings_stay_tied() -> None:
    tied = made("qwen2", tie_word_embeddings=True)
    for mode in ("dense", "packed"):
        small = quantize(tied, "int8", mode=mode)
        assert small.hf.get_output_embeddings().weight is small.hf.get_input_embeddings().weight
        assert small.quantization is not None
        whole = sum(p.numel() * p.element_size() for p in tied.hf.parameters())
        assert small.quantization.bytes_before == whole, "a shared weight counts once"


@pytest.mark.parametrize("width", [64, 96, 100, 256])
@pytest.mark.parametrize("scheme", ["rtn4", "int8", "int4", "int4-g128"])
def test_widths_that_a_group_does_not_divide(width: int, scheme: str) -> None:
    model = made("llama", hidden_size=width, intermediate_size=2 * width, num_attention_heads=2)
    dense, packed = quantize(model, scheme), quantize(model, scheme, mode="packed")
    report = dense.quantization
    assert report is not None
    assert len(report.modules) == 21
    for one in report.modules:
        inside = linear_modules(model.architecture)[one.name].in_features
        assert one.group == 0 or inside % one.group == 0
    if "4" in scheme and width == 100:
        assert any(one.group == 0 for one in report.narrower)
        assert "row" in report.to_dict()["groups"]
    assert torch.allclose(dense.logits(IDS), packed.logits(IDS), atol=1e-4)


def test_stacked_experts_are_told_not_passed_over() -> None:
    model = made("mixtral")
    small = quantize(model, "int4")
    report = small.quantization
    assert report is not None
    assert report.expected == len(report.modules) + len(report.skipped) > len(report.modules)
    assert any("experts" in name for name in report.skipped)
    (told,) = [text for text in small.warnings if "of the weights in the blocks are held at int4" in text]
    blocks = [w for block in model.architecture.blocks for w in block.parameters() if w.ndim >= 2]
    stacked = [w for w in blocks if w.ndim == 3]
    share = sum(w.numel() for w in stacked) / sum(w.numel() for w in blocks)
    named = re.findall(r"experts\S* \((\d+)%\)", told)
    assert share > 0.5 and sum(map(int, named)) == pytest.approx(100 * share, abs=1), told
    assert not quantize(made("llama"), "int4").warnings


def test_what_is_left_out_is_accounted_for() -> None:
    model = made("llama")
    small = quantize(model, "rtn4", skip=["*.down_proj"])
    report = small.quantization
    assert report is not None
    assert set(report.skipped.values()) == {"left out on request"}
    assert len(report.modules) + len(report.skipped) == report.expected
    table = report.table()
    assert len(table) == report.expected
    assert list(table[~table["quantized"]]["why"]) == ["left out on request"] * 3
    with pytest.raises(ModelError, match=r"rtn4 quantized no module .*: left out on request"):
        quantize(model, "rtn4", skip=["*"])


def test_gradients_of_a_dense_copy_are_exact() -> None:
    model = made("gpt2").hf.double()
    small = quantize(load(model, tokenizer=tokenizer()), "rtn4")
    ids = [[5, 9, 33, 21]]
    run = small.run(ids, capture=["resid_pre.1"], positions="all", grad=True)
    assert run.activations is not None
    assert run.logits is not None
    start = run.activations["resid_pre.1"]
    (gradient,) = torch.autograd.grad(run.logits.sum(), start)
    from interp import Intervention

    step = torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def total(size: float) -> float:
        logits = small.run(
            ids, interventions=[Intervention("resid_pre.1", start.detach() + size * step)]
        ).logits
        assert logits is not None
        return float(logits.sum())

    slope = (total(1e-5) - total(-1e-5)) / 2e-5
    assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"scheme": "int8", "mode": "loose"}, ConfigError, "mode 'loose' asked; use 'dense' or 'packed'"),
        ({"scheme": "gptq4"}, ConfigError, "gptq4 chooses its rounding on texts"),
        ({"scheme": "int8", "calibration": ["w01"]}, ConfigError, "int8 uses none"),
        ({"scheme": "gptq4", "mode": "packed", "calibration": ["w01"]}, ConfigError, "dense' only"),
    ],
)
def test_wrong_questions(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quantize(made("llama"), **given)


def test_a_quantized_model_is_not_quantized_again() -> None:
    with pytest.raises(ModelError, match="held at int8 already"):
        quantize(quantize(made("llama"), "int8"), "int4")


def test_the_report_reads_well() -> None:
    small = quantize(made("llama"), "int4")
    assert "int4, dense: 21 of 21 modules" in repr(small.quantization)
    assert "trained at int4, llama" in repr(small)
    assert small.quantization is not None
    assert small.quantization.to_dict()["quantized"] == 21


def test_stacked_experts_that_keep_their_precision_are_named_with_their_share() -> None:
    """Counted by hand; control: of a model without experts nothing is said."""
    model = made("mixtral")
    matrices = {w for block in model.architecture.blocks for w in block.parameters() if w.ndim >= 2}
    stacked = [w for name, w in model.hf.named_parameters() if name.endswith("experts.gate_up_proj")]
    share = sum(w.numel() for w in stacked) / sum(w.numel() for w in matrices)
    (said,) = quantize(model, "int8").warnings
    assert share > 0.1 and f"experts.gate_up_proj ({share:.0%})" in said
    assert not quantize(made("llama"), "int8").warnings
