"""A model that arrives quantized: of this base, of another of its shape, or of one trained further."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import interp
from interp.models import Model
from interp.models.quantized import ARRIVED, Quantization
from interp.quantization import compare, quantize
from interp.quantization.provenance import dense, half_step, provenance
from tests.tiny import build, tokenizer


def made(seed: int = 0, family: str = "llama", **changes: Any) -> Model:
    return interp.load(build(family, seed=seed, **changes), tokenizer=tokenizer())


def arrives(model: Model, scheme: str, said: str = "") -> Model:
    """A quantized copy as somebody else's: its codes are found, or what a file says of it is put there."""
    if not said:
        return interp.load(quantize(model, scheme, mode="packed").hf, tokenizer=tokenizer())
    report = Quantization(said, ARRIVED, (), {}, 21, 1, 1, 0.0)
    return replace(quantize(model, scheme), quantization=report)


CASES = [
    ("int8", ""),
    ("int4-g32", ""),
    ("fp8", ""),
    ("rtn4", "gptq:4bit"),
    ("rtn2", "gptq:2bit"),
    ("hqq4", "hqq:4bit"),
]


@pytest.mark.parametrize(("scheme", "said"), CASES)
def test_its_own_base_is_known_and_another_is_noticed(scheme: str, said: str) -> None:
    base, other = made(), made(seed=1)
    found = provenance(arrives(base, scheme, said), base)
    assert found is not None and found.same, found
    assert 0 < found.error <= found.limit <= 0.7 and "it holds the weights of that model" in str(found)
    wrong = provenance(arrives(other, scheme, said), base)
    assert wrong is not None and not wrong.same and wrong.error > 1
    assert "but of another one" in str(wrong)


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
def test_blocks_of_bitsandbytes(scheme: str) -> None:
    pytest.importorskip("bitsandbytes")
    base = made(hidden_size=64, intermediate_size=64)
    found = provenance(arrives(base, scheme, f"bitsandbytes:{scheme}"), base)
    assert found is not None and found.same, found


def test_gguf_and_awq_move_what_they_move() -> None:
    pytest.importorskip("gguf")
    base = made(hidden_size=64, intermediate_size=64)
    for kind in ("q8_0", "q4_0", "q5_1"):
        found = provenance(arrives(base, f"gguf:{kind}", f"gguf:{kind.upper()}"), base)
        assert found is not None and found.same, found
    moved = arrives(base, "rtn4", "awq:4bit")
    for name, module in moved.hf.named_modules():
        if name.endswith("q_proj"):
            module.get_parameter("weight").data *= torch.linspace(0.2, 3, 64)
    found = provenance(moved, base)
    assert found is not None and found.same and math.isnan(found.vectors), found
    plain = provenance(replace(moved, quantization=replace(moved.quantization, scheme="gptq:4bit")), base)  # type: ignore[type-var]
    assert plain is not None and not plain.same, "factors that are not taken out are seen"
    other = provenance(
        replace(arrives(made(seed=1, hidden_size=64, intermediate_size=64), "rtn4", "awq:4bit")), base
    )
    assert other is not None and not other.same and other.error > 0.7


def test_a_base_that_was_trained_further_is_told_at_eight_bits() -> None:
    base, tuned = made(), made()
    generator = torch.Generator().manual_seed(0)
    for name, weight in tuned.hf.named_parameters():
        if weight.ndim == 2 and "layers" in name:
            weight.data += 0.03 * weight.std() * torch.randn(weight.shape, generator=generator)
    found = provenance(arrives(tuned, "int8"), base)
    assert found is not None and not found.same and found.limit < found.error < 0.1
    norms = made()
    norms.hf.model.norm.weight.data *= 1.5  # type: ignore[union-attr]
    found = provenance(arrives(norms, "int8"), base)
    assert found is not None and not found.same and "norms or biases by 0.5" in str(found)


def test_half_a_step_bounds_rounding_and_weights_are_read_off_modules() -> None:
    base = made()
    plain = base.hf.get_parameter("model.layers.1.mlp.down_proj.weight").detach()
    for scheme, said, group in (("rtn8", "x:8bit", 0), ("rtn4", "x:4bit", 16), ("fp8", "torchao:fp8", 0)):
        packed = quantize(base, scheme if not group else f"{scheme}-g{group}", mode="packed")
        held = dense(packed.hf.get_submodule("model.layers.1.mlp.down_proj"))
        expected = quantize(base, scheme if not group else f"{scheme}-g{group}").hf
        weight = expected.get_parameter("model.layers.1.mlp.down_proj.weight")
        torch.testing.assert_close(held, weight.detach(), atol=1e-6, rtol=1e-4)
        assert float((held - plain).norm() / plain.norm()) <= half_step(plain, said, group)  # type: ignore[operator]
    assert math.isnan(half_step(plain, "unheard-of"))


def test_other_shapes_and_plain_models() -> None:
    base = made()
    other = provenance(arrives(made(intermediate_size=64), "int8"), base)
    assert other is not None and not other.same and "not shown to be a quantization" in str(other)
    assert provenance(base, base) is None and provenance(quantize(base, "rtn4"), base) is None


def test_a_comparison_says_it_before_anything_else() -> None:
    base, said = made(), list[str]()

    def nothing(model: Any, *, reference: Any = None) -> Any:
        return interp.results.FindingsResult(analysis="nothing", found=())

    for one, words in ((base, "it holds the weights of that model"), (made(seed=1), "but of another one")):
        said.clear()
        found = compare(nothing, base, [], other=arrives(one, "int8"), noise=(), say=said.append)
        assert words in said[0] and any(words in text for text in found.warnings)
