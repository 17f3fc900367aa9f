"""Gradients through packed modules: measured, and refused by name where they are wrong without a word."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp import load
from interp.errors import ModelError
from interp.mediation.searches import SEARCHES, effects
from interp.models import Model
from interp.quantization import quantize, verify_quantization
from interp.quantization.libraries import LIBRARIES, Job, Packed
from interp.quantization.libraries.rounding import Rounded, Rounding
from tests.interp.mediation.quick import quick
from tests.interp.mediation.test_search import pairs_of
from tests.tiny import build, tokenizer

Kernel = Callable[["Fake", Tensor, Tensor], Tensor]


class Fake(nn.Module):
    """Compute what a rounded layer does with a kernel of its own."""

    def __init__(self, rounded: Rounded, kernel: Kernel) -> None:
        super().__init__()
        self.rounded, self.kernel, self.repacked = rounded, kernel, False
        self.in_features, self.out_features = rounded.in_features, rounded.out_features

    def forward(self, states: Tensor) -> Tensor:
        return self.kernel(self, states, self.rounded(states))


def sound(layer: Fake, states: Tensor, out: Tensor) -> Tensor:
    """Do nothing else."""
    return out


def cut(layer: Fake, states: Tensor, out: Tensor) -> Tensor:
    """Compute outside of the graph, as kernels without a backward pass do."""
    return out.detach()


def turned(layer: Fake, states: Tensor, out: Tensor) -> Tensor:
    """Give the right numbers with the gradient of others."""
    other = states.flip(-1) @ layer.rounded.dequantized().T
    return out.detach() + other - other.detach()


def repacking(layer: Fake, states: Tensor, out: Tensor) -> Tensor:
    """Be sound until the first pass without gradients, as 4-bit layers on some processors are."""
    layer.repacked |= not torch.is_grad_enabled()
    return turned(layer, states, out) if layer.repacked else out


class Faking(Rounding):
    """Round, and compute with another kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def packed(self, job: Job) -> Packed:
        modules = super().packed(job).modules
        return Packed({name: Fake(one, self.kernel) for name, one in modules.items()})  # type: ignore[arg-type]

    def weight(self, module: nn.Module) -> Tensor:
        assert isinstance(module, Fake)
        return module.rounded.dequantized()


Installed = Callable[[Kernel], None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Let the built-in schemes compute with a kernel that nothing says anything about."""

    def put(kernel: Kernel) -> None:
        module: Any = ModuleType("tests.fake_library")
        module.library = lambda: Faking(kernel)
        monkeypatch.setitem(sys.modules, "tests.fake_library", module)
        monkeypatch.setitem(LIBRARIES, "builtin", "tests.fake_library")

    return put


def made(family: str = "llama") -> Model:
    return load(build(family), tokenizer=tokenizer())


IDS = [[5, 9, 33, 21, 7]]
WRONG = {
    "cut": (cut, "cut off from its input"),
    "turned": (turned, "cosine -?0"),
    "repacking": (repacking, "cosine -?0"),
}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_that_loses_gradients_is_refused_though_nobody_said_so(
    installed: Installed, family: str, name: str
) -> None:
    kernel, why = WRONG[name]
    installed(kernel)
    base = made(family)
    packed = quantize(base, "rtn8", mode="packed")
    assert torch.allclose(packed.logits(IDS), quantize(base, "rtn8").logits(IDS), atol=1e-4), "right numbers"
    assert packed.capture(IDS, ["resid_post.1"])["resid_post.1"].isfinite().all()
    with pytest.raises(ModelError, match=rf"rtn8 \(packed\) asked, but .*{why}.*mode='dense'"):
        packed.run(IDS, capture=["resid_pre.1"], positions="all", grad=True)
    checks = {one.name: one.passed for one in verify_quantization(packed, base).checks}
    assert [name for name, passed in checks.items() if not passed] == [
        "gradients are those of the dense weights"
    ]


def test_a_sound_kernel_is_not_refused(installed: Installed) -> None:
    installed(sound)
    base = made()
    packed = quantize(base, "rtn8", mode="packed")
    assert packed.run(IDS, capture=["resid_pre.1"], positions="all", grad=True).logits is not None
    assert verify_quantization(packed, base).passed


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_that_take_gradients_are_refused_and_others_run(installed: Installed, name: str) -> None:
    installed(turned)
    base = made()
    packed, pairs = quantize(base, "rtn8", mode="packed"), pairs_of(base)
    asked = "head.1.*" if "sites" in SEARCHES[name].over else "edge.*"
    if not SEARCHES[name].exact:
        with pytest.raises(ModelError, match=r"gradients of .* at rtn8 \(packed\) asked.*mode='dense'"):
            effects(packed, pairs, asked, search=quick(name))
        assert effects(quantize(base, "rtn8"), pairs, asked, search=quick(name)).mean().any()
    else:
        assert effects(packed, pairs, asked, search=quick(name)).mean().any()


def test_edges_are_refused_too(installed: Installed) -> None:
    installed(turned)
    base = made()
    packed, pairs = quantize(base, "rtn8", mode="packed"), pairs_of(base)
    with pytest.raises(ModelError, match=r"gradients of .* at rtn8 \(packed\) asked"):
        effects(packed, pairs, "edge.*", search="attribution")
