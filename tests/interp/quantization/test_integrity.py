"""The examination of quantized models: what passes, and what each check is there to find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from interp import load
from interp.errors import ConfigError
from interp.models import Model
from interp.quantization import Integrity, quantize, verify_quantization
from tests.interp.quantization.test_gradient_gate import Fake, Installed, installed, sound
from tests.tiny import build, tokenizer

__all__ = ["installed"]

SAVED, LOGITS = "saving changes nothing", "packed logits are the dense ones"
MODULES, GRADIENTS = "every module is accounted for", "gradients are those of the dense weights"


def made(family: str = "llama", **changes: Any) -> Model:
    return load(build(family, **changes), tokenizer=tokenizer())


def failed(found: Integrity) -> list[str]:
    return [one.name for one in found.checks if not one.passed]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("scheme", ["rtn4", "int8", "int4"])
def test_a_sound_model_passes_and_nothing_is_changed(family: str, scheme: str) -> None:
    base = made(family)
    packed = quantize(base, scheme, mode="packed")
    before = base.fingerprint, packed.fingerprint
    found = verify_quantization(packed, base)
    assert found.passed, repr(found)
    assert (base.fingerprint, packed.fingerprint) == before
    assert failed(verify_quantization(quantize(base, scheme), base)) == []
    assert list(found.table()["check"]) == [MODULES, LOGITS, GRADIENTS, SAVED]
    assert found.verdict().startswith("No check failed: ")


def test_what_was_left_out_is_accounted_for() -> None:
    base = made()
    packed = quantize(base, "rtn4", mode="packed", skip=["*.down_proj"])
    assert verify_quantization(packed, base).passed
    assert packed.quantization is not None
    lost = replace(packed.quantization, skipped={})
    assert MODULES in failed(verify_quantization(replace(packed, quantization=lost), base))


def off(layer: Fake, states: Tensor, out: Tensor) -> Tensor:
    """Compute something else than the weights say."""
    return out * 1.2


def keeping(layer: Fake, states: Tensor, out: Tensor) -> Tensor:
    """Compute with numbers that are in no tensor that is saved, as repacked layers do."""
    if not hasattr(layer, "kept"):
        layer.kept = [layer.rounded.dequantized()]
    return states @ layer.kept[0].T + (0 if layer.rounded.bias is None else layer.rounded.bias)


def spoiling(layer: Fake, states: Tensor, out: Tensor) -> Tensor:
    """Count passes in the numbers: the second is not the first."""
    layer.rounded.scale.mul_(1.001)
    return out


@pytest.mark.parametrize(("kernel", "check"), [(off, LOGITS), (keeping, SAVED), (spoiling, SAVED)])
def test_each_check_finds_what_it_is_there_for(installed: Installed, kernel: Any, check: str) -> None:
    base = made()
    installed(kernel)
    assert check in failed(verify_quantization(quantize(base, "rtn8", mode="packed"), base))


def test_a_copy_of_its_own_weights_passes_with_the_same_fake(installed: Installed) -> None:
    installed(sound)
    base = made()
    assert verify_quantization(quantize(base, "rtn8", mode="packed"), base).passed


def test_what_cannot_be_examined() -> None:
    base = made()
    with pytest.raises(ConfigError, match="is not quantized"):
        verify_quantization(base, base)
    with pytest.raises(ConfigError, match="was made from other weights"):
        verify_quantization(quantize(base, "rtn4"), made(seed=1))
