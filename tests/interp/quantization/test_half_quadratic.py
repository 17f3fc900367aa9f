"""Half-quadratic offsets: never further off than rounding in their own norm; the package as an oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from interp.quantization import Scheme, quantize
from interp.quantization.libraries import Job, half_quadratic, library_of
from interp.quantization.libraries.rounding import Rounded
from tests.tiny import build, tokenizer


def heavy(out: int, width: int, seed: int) -> nn.Linear:
    """Weights with outliers, which are what the norm is for."""
    layer = nn.Linear(width, out)
    values = torch.from_numpy(np.random.default_rng(seed).standard_t(3, (out, width))).float()
    layer.weight.data = values
    return layer


def held(layer: nn.Linear, name: str) -> Tensor:
    scheme = Scheme.parse(name)
    module = library_of(scheme).packed(Job(None, {"one": layer}, scheme)).modules["one"]
    return library_of(scheme).weight(module)


def far(ours: Tensor, layer: nn.Linear, group: int) -> Tensor:
    off = (ours - layer.weight.detach()).abs().pow(half_quadratic.NORM)
    return off.reshape(len(ours), -1, group).sum(-1)


def plain(weight: Tensor, bits: int, group: int) -> Tensor:
    """Round to nearest with the scale of the range and an offset that is no whole number."""
    cut = weight.reshape(len(weight), -1, group)
    low, high = cut.amin(-1, keepdim=True), cut.amax(-1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    return (((cut - low) / scale).round().clamp(0, 2**bits - 1) * scale + low).reshape(weight.shape)


@settings(max_examples=20, deadline=None)
@given(bits=st.sampled_from([4, 8]), group=st.sampled_from([16, 64]), seed=st.integers(0, 999))
def test_no_group_is_further_off_than_when_rounded_to_nearest(bits: int, group: int, seed: int) -> None:
    layer = heavy(6, 64, seed)
    ours = far(held(layer, f"hqq{bits}-g{group}"), layer, group)
    assert (ours <= far(plain(layer.weight.detach(), bits, group), layer, group) * (1 + 1e-3)).all()


def test_at_four_bits_it_is_nearer_than_both_ways_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own norm; control: without a step it is rounding to nearest, to the last code."""
    layer = heavy(32, 128, 1)
    weight = layer.weight.detach()
    ours = far(held(layer, "hqq4"), layer, 64).sum()
    others = [far(one, layer, 64).sum() for one in (held(layer, "rtn4"), plain(weight, 4, 64))]
    assert ours < 0.98 * min(others)
    monkeypatch.setattr(half_quadratic, "STEPS", 1)
    torch.testing.assert_close(held(layer, "hqq4"), plain(weight, 4, 64))


def test_a_group_of_one_value_is_kept() -> None:
    layer = heavy(2, 64, 1)
    layer.weight.data[0], layer.weight.data[1] = 0.0, 0.7
    torch.testing.assert_close(held(layer, "hqq4"), layer.weight.detach(), atol=1e-6, rtol=0)


def test_a_model_is_held_and_its_bytes_are_counted() -> None:
    import interp

    model = interp.load(build("llama", intermediate_size=64), tokenizer=tokenizer())
    small = quantize(model, "hqq4-g32")
    report = small.quantization
    assert report is not None and len(report.modules) == report.expected == 21
    first = report.modules[0]
    rows, width = model.hf.get_parameter(f"{first.name}.weight").shape
    assert first.bytes == rows * width // 2 + 4 * rows * (width // 32)
    packed = quantize(model, "hqq4-g32", mode="packed").logits([[5, 9, 33]])
    torch.testing.assert_close(small.logits([[5, 9, 33]]), packed, atol=1e-5, rtol=1e-4)


def test_it_is_what_the_authors_package_does() -> None:
    """The package stops for all groups of a layer at once, so that it is a little further off."""
    quantizer: Any = pytest.importorskip("hqq.core.quantize", reason="the package hqq is not installed")
    layer = heavy(32, 128, 2)
    codes, facts = quantizer.Quantizer.quantize(
        layer.weight.detach(), nbits=4, group_size=64, axis=1, device="cpu", compute_dtype=torch.float32
    )
    theirs = quantizer.Quantizer.dequantize(codes, facts).float()
    ours, rounded = held(layer, "hqq4"), Rounded(layer, 4, 64).dequantized()
    assert far(ours, layer, 64).sum() <= far(theirs, layer, 64).sum() * (1 + 1e-5)
    assert (ours - theirs).norm() < 0.5 * (ours - rounded).norm()
