"""The Jacobian lens against finite differences, products of matrices, and the identity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import DataError
from interp.lenses import jacobian
from interp.models.model import Model
from interp.models.readout import Readout
from tests.tiny import build, tiny

IDS = [5, 9, 14, 3, 22, 31, 40]


def doubled(family: str) -> Model:
    """A tiny model in double precision, in which finite differences say something."""
    return interp.load(build(family).double())


def linear() -> tuple[Model, list[torch.Tensor]]:
    """A residual network that is linear: no norms in the blocks, no attention, no activation function."""
    hf: Any = build("gpt2", activation_function="linear")
    steps = []
    with torch.no_grad():
        for block in hf.transformer.h:
            block.ln_2 = torch.nn.Identity()
            block.attn.c_proj.weight.zero_()
            block.attn.c_proj.bias.zero_()
            steps.append(torch.eye(32) + (block.mlp.c_fc.weight @ block.mlp.c_proj.weight).T)
    return interp.load(hf), steps


def by_differences(model: Model, layer: int, skip: int, eps: float) -> torch.Tensor:
    """The definition: change one coordinate at one position, and see the sum over the later ones change."""
    inside, last = range(skip, len(IDS) - 1), f"resid_post.{model.n_layers - 1}"
    found = torch.zeros(model.d_model, model.d_model, dtype=torch.float64)
    for position in inside:
        state = model.capture([IDS], [f"resid_post.{layer}"], position)[f"resid_post.{layer}"][0]
        moved = torch.cat([state + eps * torch.eye(32), state - eps * torch.eye(32)])
        write = interp.Intervention(f"resid_post.{layer}", moved.double(), position)
        run = model.run([IDS] * 64, interventions=[write], capture=[last], positions="all", logits="none")
        assert run.activations is not None
        total = run.activations[last][:, list(inside)].sum(dim=1)
        found += (total[:32] - total[32:]).T / (2 * eps)
    return found / len(inside)


FAMILIES = [("gpt2", 1e-5, 2e-6), ("llama", 1e-2, 1e-3), ("gemma2", 1e-2, 1e-3)]
"""Family, step, bound: norms of the last two compute in float32, whose rounding a small step magnifies."""


@pytest.mark.parametrize(("family", "step", "bound"), FAMILIES)
@pytest.mark.parametrize("layer", [0, 1])
def test_finite_differences_give_the_same(family: str, step: float, bound: float, layer: int) -> None:
    model = doubled(family)
    exact = jacobian.jacobians(model, IDS, [layer], skip=2)[layer].double()
    measured = by_differences(model, layer, 2, step)
    assert (exact - measured).norm() < bound * measured.norm()
    other = by_differences(model, layer, 1, step)
    assert (exact - other).norm() > 10 * bound * other.norm()  # other positions, another mean


def test_on_a_linear_network_it_is_the_product_of_the_matrices() -> None:
    model, steps = linear()
    found = jacobian.fitted(model, range(3), [IDS, IDS[::-1]], skip=2)
    torch.testing.assert_close(found.matrices[1], steps[2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.matrices[0], steps[2] @ steps[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found.matrices[0], steps[1] @ steps[2], atol=1e-3)  # the order matters
    assert found.errors[0] == pytest.approx(0.0, abs=1e-3)  # no text differs from another


def test_after_the_last_block_it_is_the_identity_and_the_models_own_logits() -> None:
    model = interp.load(tiny("llama")[0])
    found = jacobian.fitted(model, range(3), [IDS], skip=2)
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert 2 not in found.matrices and torch.equal(found.final_states(states, 2), states)
    assert torch.equal(found.logits(states, 2), Readout.of(model.architecture).logits(states))
    assert not torch.allclose(found.logits(states, 1), found.logits(states, 2), atol=1e-2)
    expected = Readout.of(model.architecture).logits(torch.einsum("oi,ni->no", found.matrices[1], states))
    torch.testing.assert_close(found.logits(states, 1), expected)


def test_the_error_is_that_of_a_mean_over_texts() -> None:
    model = interp.load(tiny("llama")[0])
    texts = [IDS, IDS[::-1], [1, 2, 3, 4, 5, 6]]
    found = jacobian.fitted(model, [0], texts, skip=1)
    each = torch.stack([jacobian.jacobians(model, ids, [0], skip=1)[0] for ids in texts]).double()
    mean = each.mean(dim=0)
    spread = (each - mean).square().sum() / (len(texts) - 1) / len(texts)
    torch.testing.assert_close(found.matrices[0], mean.float())
    assert found.errors[0] == pytest.approx(float(spread.sqrt() / mean.norm()), rel=1e-5)
    alone = jacobian.fitted(model, [0], texts[:1], skip=1)
    assert math.isnan(alone.errors[0]) and alone.card()["errors"] == {"0": None}


def test_rows_in_several_passes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = interp.load(tiny("llama")[0])
    whole = jacobian.jacobians(model, IDS, [0, 1], skip=2)
    held = jacobian.EACH * 3 * len(IDS) * 32
    monkeypatch.setattr(jacobian, "CELLS", 7 * held)  # seven rows at a time: 32 is no multiple
    parts = jacobian.jacobians(model, IDS, [0, 1], skip=2)
    for layer, one in whole.items():
        np.testing.assert_allclose(one, parts[layer], atol=1e-5)


def test_short_texts_are_left_out_and_none_that_is_long_enough_is_said() -> None:
    model = interp.load(tiny("llama")[0])
    assert jacobian.fitted(model, [0], [IDS, [1, 2]], skip=2).fitted_on["n"] == 1
    with pytest.raises(DataError, match=r"no text has more than 17 tokens.*the longest has 7"):
        jacobian.fitted(model, [0], [IDS])
