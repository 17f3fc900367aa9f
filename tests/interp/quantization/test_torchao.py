"""torchao's numbers against a loop over groups, and its modules where plain ones were."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from interp import Intervention, load
from interp.errors import ModelError
from interp.models import Model
from interp.models.linear import linear_modules
from interp.quantization import Scheme, quantize
from interp.quantization.libraries import Job, library_of
from tests.tiny import FAMILIES, build, tokenizer

IDS = [[5, 9, 33, 21, 7], [4, 44, 12]]
PACKED = ("rtn4", "int8", "int4", "fp8")


def made(family: str, **changes: Any) -> Model:
    return load(build(family, **changes), tokenizer=tokenizer())


def layer(width: int, seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        one = nn.Linear(width, 7)
        nn.init.normal_(one.weight, mean=0.1, std=2.0)
    return one.requires_grad_(False)


def by_hand(weight: np.ndarray, bits: int, group: int) -> np.ndarray:
    """Round to nearest without an offset: 2**bits - 1 steps over the range from -largest to largest."""
    found = np.zeros_like(weight)
    for row in range(len(weight)):
        for start in range(0, weight.shape[1], group):
            part = weight[row, start : start + group]
            scale = np.float32(2 * max(abs(part)) / (2**bits - 1))
            codes = np.clip(np.round(part / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            found[row, start : start + group] = codes * scale
    return found


@pytest.mark.parametrize(
    ("name", "width", "group"),
    [("int8", 64, 64), ("int8", 100, 100), ("int4", 128, 64), ("int4-g32", 96, 32), ("int4", 100, 100)],
)
def test_weights_are_those_of_a_loop(name: str, width: int, group: int) -> None:
    scheme = Scheme.parse(name)
    plain, library = layer(width), library_of(scheme)
    before = plain.weight.clone().numpy()
    module = library.packed(Job(None, {"one": plain}, scheme)).modules["one"]
    weight = library.weight(module).numpy()
    off = np.abs(weight - by_hand(before, scheme.bits, group))
    assert (off > 1e-4).mean() < 0.02, "single ties may go the other way"
    other = np.abs(weight - by_hand(before, scheme.bits, width // 2 if width == group else width))
    assert (other > 1e-4).mean() > 0.3, "with scales of other groups it would not fit"


def eighths(value: float) -> float:
    """The nearest number of four binary exponent bits and three of fraction, ties to even, at most 448."""
    size = min(abs(value), 448.0)
    step = 2.0 ** (max(math.floor(math.log2(size)), -6) - 3) if size else 1.0
    return math.copysign(round(size / step) * step, value)


@pytest.mark.parametrize("width", [64, 100])
def test_fp8_weights_are_those_of_a_loop(width: int) -> None:
    scheme, plain = Scheme.parse("fp8"), layer(width, 3)
    plain.weight[0, 0] = 400.0  # small beside it, weights of this row have no full fraction left
    before, library = plain.weight.clone(), library_of(scheme)
    weight = library.weight(library.packed(Job(None, {"one": plain}, scheme)).modules["one"])
    scales = (before.abs().amax(1) / 448).tolist()
    expected = torch.tensor(
        [[eighths(w / s) * s for w in row] for row, s in zip(before.tolist(), scales, strict=True)]
    )
    assert ((weight - expected).abs() > 1e-5 * expected.abs().clamp_min(1e-3)).float().mean() < 0.01
    one = [[eighths(w / max(scales)) * max(scales) for w in row] for row in before.tolist()]
    assert (weight - torch.tensor(one))[1:].abs().max() > 0.01, "with one scale for all rows it would not fit"


CASES = [
    *((family, "int4") for family in FAMILIES),
    *(("gpt2", "int8"), ("llama", "int8"), ("gemma2", "rtn4"), ("gpt2", "fp8"), ("llama", "fp8")),
]


@pytest.mark.parametrize(("family", "scheme"), CASES)
def test_packed_models_read_and_write_what_dense_ones_do(family: str, scheme: str) -> None:
    model = made(family)
    dense, packed = quantize(model, scheme), quantize(model, scheme, mode="packed")
    assert dense.sites == packed.sites
    sites = [kind if kind in ("embed", "logits", "final_norm") else f"{kind}.1" for kind in dense.sites]
    sites = [{"head.1": "head.1.2", "neuron.1": "neuron.1.3"}.get(site, site) for site in sites]
    ours, theirs = packed.capture(IDS, sites, "last"), dense.capture(IDS, sites, "last")
    full = model.capture(IDS, sites, "last")
    for site in sites:
        scale = theirs[site].abs().max()
        assert (ours[site] - theirs[site]).abs().max() <= 3e-5 * scale, site
    assert (full["resid_post.1"] - theirs["resid_post.1"]).abs().max() > 1e-4
    for site in ("head.1.2", "neuron.1.3", "mlp_out.1"):
        edit = [Intervention(site, 0.0)]
        one, other = (copy.run(IDS, interventions=edit).logits for copy in (packed, dense))
        assert one is not None
        assert other is not None
        assert (one - other).abs().max() <= 3e-5 * other.abs().max()
        assert (one - packed.logits(IDS)).abs().max() > 0


@pytest.mark.parametrize("scheme", PACKED)
def test_fingerprints_tell_schemes_and_modes_apart_and_come_back(scheme: str) -> None:
    model = made("llama")
    found = [
        model.fingerprint,
        *(quantize(model, scheme, mode=mode).fingerprint for mode in ("dense", "packed")),
    ]
    assert len(set(found)) == 3
    again = quantize(model, scheme, mode="packed")
    assert again.fingerprint == found[2]
    other = load(build("llama", seed=1), tokenizer=tokenizer())
    assert quantize(other, scheme, mode="packed").fingerprint != found[2]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("scheme", PACKED)
def test_half_precision_models_are_packed_too(family: str, scheme: str) -> None:
    model = load(build(family).to(torch.bfloat16), tokenizer=tokenizer())
    dense, packed = quantize(model, scheme), quantize(model, scheme, mode="packed")
    assert packed.dtype == dense.dtype == torch.bfloat16
    assert packed.quantization is not None
    assert not packed.quantization.gradients
    ours, theirs = packed.logits(IDS), dense.logits(IDS)
    assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


def test_types_that_torchao_does_not_take() -> None:
    model = load(build("llama").double(), tokenizer=tokenizer())
    with pytest.raises(ModelError, match=r"int4 of a model in torch.float64 asked.*or use rtn4"):
        quantize(model, "int4")
    assert quantize(model, "rtn4").dtype == torch.float64


def test_what_is_packed_already_is_not_packed_again() -> None:
    hf = quantize(made("llama"), "int8", mode="packed").hf
    with pytest.raises(ModelError, match=r"is held at torchao:Int8Tensor already"):
        quantize(load(hf, tokenizer=tokenizer()), "int4")


def test_packed_bytes_are_those_of_the_tensors() -> None:
    model = made("llama", hidden_size=64, intermediate_size=128)
    report = quantize(model, "int8", mode="packed").quantization
    assert report is not None
    for one in report.modules:
        weight = linear_modules(model.architecture)[one.name].weight
        assert isinstance(weight, torch.Tensor)
        assert weight.numel() < one.bytes <= weight.numel() + 8 * len(weight)
    counted = quantize(model, "int4").quantization
    measured = quantize(model, "int4", mode="packed").quantization
    assert counted is not None
    assert measured is not None
    assert counted.bytes_after < measured.bytes_after, "torchao keeps four bits in a byte"
