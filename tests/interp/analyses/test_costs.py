"""Cost: bytes against plain sums, memory against known peaks, times of models of known depth."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.analyses.costs import Cost, cost, most_bytes, peak_memory, ratio_of_medians
from interp.errors import ConfigError
from interp.quantization import compare, quantize
from tests.noisy import demo
from tests.tiny import build, tokenizer

CPU = torch.device("cpu")
SMALL = partial(cost, n=2, prompts=2, width=8)


@cache
def llama(layers: int) -> interp.Model:
    return interp.load(build("llama", num_hidden_layers=layers), tokenizer=tokenizer())


@cache
def before() -> Cost:
    return SMALL(demo())


def row(found: Cost, measure: str) -> dict[str, float]:
    return next(asdict(one) for one in found.rows if one.measure == measure)


def test_the_peak_is_that_of_the_tensors_alive_together() -> None:
    x = torch.ones(1000)

    def chain() -> None:
        a = x + 1
        b = a * 2
        del a
        c = b.reshape(10, 100).T
        c.add_(1)
        d = c + c
        del b, c, d

    assert most_bytes(chain, CPU) == 8000
    assert most_bytes(lambda: [x + i for i in range(5)], CPU) == 20000
    assert most_bytes(lambda: [(x + i).sum() for i in range(5)], CPU) < 4000 + 5 * 8
    assert most_bytes(lambda: x.view(10, 100).T, CPU) == 0


def test_the_peak_holds_what_a_packed_weight_is_unpacked_into() -> None:
    given = torch.ones(1, 64)
    plain, packed = (
        model.hf.get_submodule("model.layers.0.mlp.gate_proj")
        for model in (demo(), quantize(demo(), "int4", mode="packed"))
    )
    with torch.no_grad():
        assert most_bytes(lambda: plain(given), CPU) == 192 * 4
        assert most_bytes(lambda: packed(given), CPU) >= 192 * 64 * 4


class Halves(torch.Tensor):
    """Stand for a float tensor that is kept in half precision and unpacked by every operation."""

    kept: torch.Tensor

    @staticmethod
    def __new__(cls, kept: torch.Tensor) -> Halves:
        made = torch.Tensor._make_wrapper_subclass(cls, kept.shape, dtype=torch.float32)
        made.kept = kept
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = [one.kept.float() if isinstance(one, Halves) else one for one in args]
        return func(*plain, **(kwargs or {}))


def test_the_peak_holds_what_a_tensor_of_another_class_unpacks() -> None:
    packed = Halves(torch.ones(100, 10, dtype=torch.float16))
    assert most_bytes(lambda: packed @ torch.ones(10, 1), CPU) == 4000 + 40 + 400
    assert most_bytes(lambda: torch.ones(100, 10) @ torch.ones(10, 1), CPU) == 4000 + 40 + 400


def test_the_peak_grows_with_the_prompts() -> None:
    few, many = (peak_memory(llama(2), [[5] * 10] * n) for n in (2, 8))
    assert few > 2 * 10 * 32 * 4 and many == pytest.approx(4 * few, rel=0.1)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_bytes_are_those_of_every_weight_once(family: str) -> None:
    hf = build(family, tie_word_embeddings=family == "gpt2")
    found = SMALL(interp.load(hf, tokenizer=tokenizer()))
    tied = hf.get_input_embeddings().weight.numel() if family == "gpt2" else 0
    numbers = sum(p.numel() for p in hf.parameters(recurse=True))
    names = dict(hf.named_parameters(remove_duplicate=False))
    assert sum(p.numel() for p in names.values()) == numbers + tied
    assert (
        row(found, "weights in memory")["value"]
        == row(found, "weights at the scheme")["value"]
        == 4 * numbers
    )


def test_a_dense_copy_counts_what_its_scheme_needs_and_a_packed_one_what_it_holds() -> None:
    alone = SMALL(quantize(demo(), "int8"))
    assert row(alone, "weights in memory")["value"] == row(before(), "weights in memory")["value"]
    assert any("full model's kernels" in text for text in alone.warnings)
    dense = SMALL(quantize(demo(), "int8"), reference=before())
    packed = SMALL(quantize(demo(), "int8", mode="packed"), reference=before())
    full = row(before(), "weights in memory")["value"]
    assert row(dense, "weights at the scheme")["reference"] == full
    assert row(dense, "weights in memory") == row(packed, "weights in memory"), "of the library's modules"
    assert row(dense, "weights at the scheme")["ratio"] < 0.4
    assert any("mode packed" in text for text in dense.warnings) and not packed.warnings
    held, report = row(packed, "weights in memory")["value"], row(packed, "weights at the scheme")["value"]
    assert held == report and held < 0.4 * full
    assert row(dense, "weights at the scheme")["value"] == pytest.approx(held, rel=0.05)
    half = SMALL(quantize(demo(), "bf16"), reference=before())
    assert row(half, "weights in memory")["ratio"] == 0.5


def test_a_deeper_model_is_slower_and_a_model_is_as_fast_as_itself() -> None:
    shallow = cost(llama(2), n=7, prompts=2, width=8)
    deep = cost(llama(12), n=7, prompts=2, width=8, reference=shallow)
    for measure in ("prefill", "decode"):
        assert row(deep, measure)["low"] > 1.7
        same = row(shallow, measure)
        assert same["low"] < 1.3 and same["high"] > 0.75 and 0.6 < same["ratio"] < 1.6
        assert same["n"] == 7 and same["value"] > 0
    assert deep.beside == llama(2).fingerprint


def test_the_ratio_is_of_medians_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    one, other = 20 + rng.random(15), 10 + rng.random(15)
    ratio, low, high = ratio_of_medians(one, other, seed=0)
    assert ratio == np.median(one) / np.median(other) and low < ratio < high and high - low < 0.2
    assert ratio_of_medians(one, one, seed=1) == (1.0, 1.0, 1.0)


def test_the_reference_is_measured_again_in_the_same_run() -> None:
    found = SMALL(quantize(demo(), "rtn4"), reference=before())
    assert row(found, "weights at the scheme")["value"] < row(found, "weights at the scheme")["reference"]
    assert row(found, "prefill")["reference"] != row(before(), "prefill")["value"]
    assert found.number("prefill-ratio").value == row(found, "prefill")["ratio"]


def test_it_is_compared_side_by_side_without_verdicts() -> None:
    assert not before().findings()
    found = compare(SMALL, demo(), ["rtn4"])
    (cell,) = found.cells
    (name,) = found.analyses
    assert not cell.judgements and cell.tables[0].frame().equals(found.results[name, "rtn4"].table())
    table = next(one for one in found.tables() if one.title.endswith(": beside the reference"))
    assert table.columns[:3] == ("measure", "scheme", "unit")
    assert [line[1] for line in table.rows] == ["reference", "rtn4"] * len(before().rows)
    assert "prefill" in before()._repr_html_() and "weights at the scheme \u00d7 1;" in repr(before())


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 rounds or more"):
        cost(demo(), n=-1)
    with pytest.raises(ConfigError, match="read from disk"):
        cost(demo(), reference=replace(before(), state={}))
