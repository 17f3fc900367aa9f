"""What bitsandbytes' 4-bit layers do on CPUs with AVX512-BF16 when their repacking is not switched off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from interp.quantization.libraries import library_of
from interp.quantization.quantizing import cosine, gradient_fault
from interp.quantization.schemes import Scheme

bnb: Any = pytest.importorskip("bitsandbytes", reason="bitsandbytes, the extra [bnb], is not installed")

from tests.interp.quantization.test_bitsandbytes import layer, packed  # noqa: E402

repacks = pytest.mark.skipif(
    not bnb.functional.has_avx512bf16(), reason="only CPUs with AVX512-BF16 repack 4-bit weights"
)


def as_it_comes(one: nn.Linear) -> nn.Module:
    """Make the library's own NF4 layer, with nothing switched."""
    made = bnb.nn.Linear4bit(
        one.in_features,
        one.out_features,
        bias=one.bias is not None,
        compute_dtype=torch.float32,
        compress_statistics=False,
        quant_type="nf4",
    )
    made.load_state_dict(one.state_dict())
    return made.to("cpu").requires_grad_(False).eval()


@repacks
@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit")  # torch's only hint at what is asserted here
def test_without_the_switch_gradients_break_after_a_pass_without() -> None:
    library = library_of(Scheme.parse("nf4"))
    one = layer(64, 64, bias=False)
    sound, broken = packed("nf4", one), as_it_comes(one)
    found = cosine(sound, library, dtype=torch.float32)
    assert found is not None
    assert found > 0.9999
    assert gradient_fault({"one": sound}, library, dtype=torch.float32) == ""
    assert "'one' fails with them" in gradient_fault({"one": broken}, library, dtype=torch.float32)
    states, toward = torch.randn(3, 64, requires_grad=True), torch.randn(3, 64)
    expected = toward + toward @ library.weight(sound)
    off = []
    for module in (sound, broken):
        (slope,) = torch.autograd.grad(((states + module(states)) * toward).sum(), states)
        off.append(float((slope - expected).norm() / expected.norm()))
    assert off[0] < 1e-5
    assert off[1] > 0.1, "beside a residual path nothing is raised, and the layer's share is missing"


@repacks
def test_without_the_switch_saving_changes_the_live_module() -> None:
    one, states = layer(256, 256), torch.randn(5, 256)
    sound, broken = packed("nf4", one), as_it_comes(one)
    changes = []
    for module in (sound, broken):
        with torch.no_grad():
            before = module(states)
            module.state_dict()
            changes.append(float((module(states) - before).abs().max()))
    assert changes[0] == 0
    assert changes[1] > 0


@repacks
@pytest.mark.parametrize("width", [96, 100])
def test_without_the_switch_a_width_that_64_does_not_divide_is_an_error(width: int) -> None:
    one, states = layer(width, width), torch.randn(5, width)
    sound, broken = packed("nf4", one), as_it_comes(one)
    with torch.no_grad():
        assert sound(states).shape == (5, width)
        with pytest.raises((RuntimeError, AssertionError)):
            broken(states)
