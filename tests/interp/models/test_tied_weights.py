"""A twin: the same weights, the same bits, and nothing else in common."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interp.errors import ModelError
from interp.models.tied_weights import twin
from tests.tiny import FAMILIES, build, tiny

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_twin_shares_every_tensor_and_gives_the_same_bits(family: str) -> None:
    hf, _ = tiny(family)
    made = twin(hf)
    for mine, theirs in ((hf.parameters(), made.parameters()), (hf.buffers(), made.buffers())):
        assert [id(tensor) for tensor in mine] == [id(tensor) for tensor in theirs]
    assert not {id(module) for module in hf.modules()} & {id(module) for module in made.modules()}
    assert not any(tensor.is_meta for tensor in [*made.parameters(), *made.buffers()])
    with torch.no_grad():
        assert torch.equal(made(IDS).logits, hf(IDS).logits)
    assert made.training == hf.training


def test_hooks_modes_and_replaced_functions_stay_behind() -> None:
    hf = build("llama")
    with torch.no_grad():
        plain = hf(IDS).logits
    hf.model.layers[0].register_forward_hook(lambda module, args, out: 2 * out)
    hf.model.layers[1].forward = lambda hidden, *args, **kwargs: 0 * hidden
    made = twin(hf)
    with torch.no_grad():
        assert torch.equal(made(IDS).logits, plain)
        assert not torch.allclose(hf(IDS).logits, plain)
    made.model.layers[0].register_forward_hook(lambda module, args, out: 0 * out)
    made.set_attn_implementation("eager")
    assert len(hf.model.layers[0]._forward_hooks) == 1
    assert hf.config._attn_implementation == "sdpa"


def test_an_edit_in_place_reaches_both() -> None:
    hf = build("gpt2")
    made = twin(hf)
    with torch.no_grad():
        before = made(IDS).logits
        hf.transformer.h[1].mlp.c_proj.weight.mul_(2)
        assert torch.equal(made(IDS).logits, hf(IDS).logits)
        assert not torch.allclose(made(IDS).logits, before)


def test_drawing_random_numbers_is_left_as_found() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    twin(tiny("gpt2")[0])
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize("change", ["module", "parameter", "shape", "missing"])
def test_other_modules_than_the_configuration_describes_are_refused(change: str) -> None:
    hf = build("llama")
    attention = hf.model.layers[1].self_attn
    if change == "module":
        attention.q_proj = nn.Sequential(attention.q_proj)
    elif change == "parameter":
        attention.extra = nn.Parameter(torch.zeros(3))
    elif change == "shape":
        attention.q_proj.weight = nn.Parameter(torch.zeros(16, 32))
    else:
        del attention.q_proj
    with pytest.raises(ModelError, match=r"model.layers.1.self_attn.* load the Hugging Face model itself"):
        twin(hf)
