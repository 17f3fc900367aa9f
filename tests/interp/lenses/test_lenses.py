"""What holds for every lens: its last layer is the model, it refuses other layers, it can be listed."""

from __future__ import annotations

import pytest
import torch

import interp
from interp import lenses
from interp.errors import ConfigError, SiteError
from interp.lenses import LENSES, LogitLens
from tests.tiny import FAMILIES, tiny

IDS = [[1, 5, 9, 11], [1, 7, 3, 20], [1, 30, 31, 8]]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logit_lens_is_the_norm_and_head_by_hand(family: str) -> None:
    model = interp.load(tiny(family)[0])
    lens = LogitLens.of(model)
    states = model.capture(IDS, ["resid_post.*"], "all")
    assert lens.layers == tuple(range(model.n_layers))
    last = lens.logits(states[f"resid_post.{model.n_layers - 1}"], model.n_layers - 1)
    with torch.no_grad():
        own = model.hf(torch.tensor(IDS)).logits
    assert torch.allclose(last, own.float(), atol=1e-5)
    early = lens.logits(states["resid_post.0"], 0)
    assert not torch.allclose(early, own.float(), atol=1e-2)  # the law can fail
    assert torch.equal(early, model.unembed(states["resid_post.0"].flatten(0, 1)).view_as(early))


def test_states_of_any_shape_are_read_alike() -> None:
    model = interp.load(tiny("llama")[0])
    lens = LogitLens.of(model, [1])
    states = model.capture(IDS, ["resid_post.1"], "all")["resid_post.1"]
    whole = lens.logits(states, 1)
    assert torch.allclose(lens.logits(states[1, 2], 1), whole[1, 2], atol=1e-5)
    flat = states.flatten(0, 1)
    parts = list(lens.log_probabilities(flat, 1))
    assert torch.allclose(
        torch.cat([one for _, one in parts]), whole.flatten(0, 1).log_softmax(-1), atol=1e-5
    )


def test_a_layer_that_a_lens_does_not_read_is_refused() -> None:
    lens = LogitLens.of(interp.load(tiny("llama")[0]), [0, 2])
    with pytest.raises(SiteError, match="the logit lens reads no layer 1; its layers: 0, 2"):
        lens.logits(torch.zeros(1, 32), 1)


def test_the_table_makes_lenses_by_name() -> None:
    model = interp.load(tiny("llama")[0])
    for name, row in LENSES.items():
        assert row.name == name and row.description and callable(row.load())
    found = lenses.make("logit", model, layers=[0, 1])
    assert found.kind == "logit" and found.layers == (0, 1) and found.card()["layers"] == [0, 1]
    with pytest.raises(ConfigError, match="lens 'nonsense' is not known; there are: logit"):
        lenses.make("nonsense", model)
