"""Rounding to nearest, against a loop over single weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from interp.quantization.libraries.library import group_for, stored
from interp.quantization.libraries.rounding import Rounded


def layer(out: int, width: int, seed: int, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = nn.Linear(width, out, bias=bias)
        nn.init.normal_(made.weight, mean=0.1, std=2.0)
    return made


def by_hand(weight: Tensor, bits: int, group: int) -> Tensor:
    """Round one weight after the other, as the scheme is written down."""
    out, width = weight.shape
    found = torch.zeros(out, width)
    for row in range(out):
        for start in range(0, width, group or width):
            end = min(width, start + (group or width))
            part = [float(weight[row, at]) for at in range(start, end)]
            if bits == 8:
                scale, zero, low, high = max(map(abs, part)) / 127, 0, -127, 127
            else:
                bottom, top = min(0.0, *part), max(0.0, *part)
                scale, low, high = (top - bottom) / (2**bits - 1), 0, 2**bits - 1
                zero = round(-bottom / scale)
            for at, value in zip(range(start, end), part, strict=True):
                code = min(high, max(low, round(value / scale) + zero))
                found[row, at] = (code - zero) * scale
    return found


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 0), (4, 8), (2, 4), (8, 8)])
def test_codes_stand_for_what_a_loop_gives(bits: int, group: int) -> None:
    one = layer(6, 24, seed=bits + group)
    rounded = Rounded(one, bits, group)
    expected = by_hand(one.weight.detach(), bits, group)
    off = (rounded.dequantized() - expected).abs() > 1e-5
    assert off.float().mean() < 0.01, "single ties may go the other way in single precision"


@settings(max_examples=30, deadline=None)
@given(bits=st.sampled_from([2, 4, 8]), group=st.sampled_from([0, 4, 16]), seed=st.integers(0, 999))
def test_no_weight_moves_further_than_half_a_step(bits: int, group: int, seed: int) -> None:
    one = layer(5, 16, seed)
    rounded = Rounded(one, bits, group)
    step = rounded.scale.expand(-1, -1, group or 16).flatten(1)
    reach = 0.5 if bits == 8 else 1.0  # the offset is rounded too, so that an end of the range may be cut
    assert ((rounded.dequantized() - one.weight).abs() <= reach * step * (1 + 1e-5) + 1e-7).all()
    again = nn.Linear(16, 5)
    again.weight = nn.Parameter(rounded.dequantized())
    assert torch.allclose(Rounded(again, bits, group).dequantized(), rounded.dequantized(), atol=1e-5)


def test_more_bits_and_smaller_groups_are_closer() -> None:
    one = layer(16, 64, 3)
    errors = [
        float((Rounded(one, bits, group).dequantized() - one.weight.detach()).norm())
        for bits, group in ((8, 0), (4, 16), (4, 0), (2, 16), (2, 0))
    ]
    assert errors == sorted(errors)


def test_the_module_computes_with_its_dequantized_weights_and_carries_gradients() -> None:
    one = layer(6, 24, 5)
    rounded = Rounded(one, 4, 8)
    states = torch.randn(3, 24, requires_grad=True)
    expected = states @ rounded.dequantized().T + one.bias
    assert torch.allclose(rounded(states), expected, atol=1e-5)
    (gradient,) = torch.autograd.grad(rounded(states).sum(), states)
    assert torch.allclose(gradient, rounded.dequantized().sum(0).expand(3, -1), atol=1e-4)


def test_a_row_of_zeros_stays_zero() -> None:
    one = layer(2, 8, 1)
    with torch.no_grad():
        one.weight[0] = 0
    for bits in (2, 4, 8):
        assert (Rounded(one, bits, 4).dequantized()[0] == 0).all()


@pytest.mark.parametrize(
    ("width", "asked", "group"),
    [(64, 64, 64), (96, 64, 32), (100, 64, 0), (256, 128, 128), (192, 128, 64), (32, 64, 32), (96, 48, 48)],
)
def test_a_group_that_does_not_divide_gives_way_to_a_smaller_one(width: int, asked: int, group: int) -> None:
    assert group_for(width, asked) == group
    assert group_for(width, 0) == 0


def test_bytes_are_counted_inside_tensor_subclasses() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    holder = nn.ModuleList([layer(8, 32, 2, bias=False)])
    assert stored(holder[0].weight) == 8 * 32 * 4
    quantize_(holder, Int8WeightOnlyConfig())
    assert 8 * 32 <= stored(holder[0].weight) <= 8 * 32 + 8 * 8
    assert math.prod(holder[0].weight.shape) == 8 * 32
