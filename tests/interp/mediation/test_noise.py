"""The noise floor against the true rounding error of effects, by plain hooks in double precision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp import mediation
from interp.mediation.noise import in_double
from interp.mediation.searches import effects
from interp.models.loading import load
from interp.models.model import Model
from tests.interp.mediation.edges.models import pairs_of
from tests.tiny import build, tokenizer


def effect(hf: Any, pairs: Any, at: int, layer: int) -> float:
    """The noising effect of one MLP in one pair, replaced by a hook."""
    clean, corrupt = (torch.tensor([list(side.token_ids[at])]) for side in (pairs.clean, pairs.corrupt))
    right, wrong = pairs.answer_ids[at][0], pairs.foil_ids[at][0]
    kept: list[Tensor] = []
    runs: list[Tensor] = []
    mlp = hf.transformer.h[layer].mlp
    hooks = [None, lambda m, a, out: kept.append(out), lambda m, a, out: kept[0]]
    for ids, hook in zip((clean, corrupt, clean), hooks, strict=True):
        handle = mlp.register_forward_hook(hook or (lambda *_: None))
        with torch.no_grad():
            runs.append(hf(ids).logits[0, -1])
        handle.remove()
    diffs = [float(logits[right] - logits[wrong]) for logits in runs]
    return diffs[0] - diffs[2]


def in_float64(model: Model, pairs: Any) -> np.ndarray:
    """Noising effects of every MLP ``[layer pair]`` in double precision."""
    hf = copy.deepcopy(model.hf).double()
    layers = range(len(hf.transformer.h))
    return np.array([[effect(hf, pairs, at, layer) for at in range(len(pairs))] for layer in layers])


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_floor_is_not_below_the_rounding_error_of_effects(scale: float) -> None:
    """Logits of size 300 have errors 300 times as large; the logits of plain prompts would not show them."""
    hf = build("gpt2", tie_word_embeddings=False)
    with torch.no_grad():
        hf.lm_head.weight.mul_(scale)
    model = load(hf, tokenizer=tokenizer())
    pairs = pairs_of(model, 6)
    found = mediation.exhaustive(model, pairs, "mlp_out.*", positions="all", directions="noising")
    errors = np.abs(found.values["noising"] - in_float64(model, pairs))
    assert np.abs(found.values["noising"]).max() > 0.1 * scale
    assert 0 < errors.max() <= 3 * found.noise  # what counts as clear is above three floors
    assert errors.mean(axis=1).max() <= found.noise
    assert found.noise <= 30 * errors.max()


ASKED = {"sites": "mlp_out.*", "edges": "edge.mlp_out.*->logits"}


@pytest.mark.parametrize(
    ("search", "asked"),
    [
        (name, what)
        for name, row in mediation.SEARCHES.items()
        if row.exact
        for what in ASKED
        if what in row.over
    ],
)
def test_every_exact_search_measures_its_floor(search: str, asked: str) -> None:
    model = load(build("gpt2"), tokenizer=tokenizer())
    pairs = pairs_of(model, 4)
    found = effects(model, pairs, ASKED[asked], search=search)
    assert 1e-9 < found.noise < 1e-4
    paths = mediation.path_patching(model, pairs, "mlp_out.*", "logits")
    assert 1e-9 < paths.noise < 1e-4


def test_no_floor_is_below_the_last_digit_of_the_metric() -> None:
    model = load(build("gpt2"), tokenizer=tokenizer())
    found = mediation.attribution(model, pairs_of(model, 4), "mlp_out.*", verify=0)
    assert found.noise == pytest.approx(2**-23 * np.abs([found.clean, found.corrupt]).max())


def test_the_weights_are_put_back_bit_for_bit() -> None:
    model = load(build("llama"), tokenizer=tokenizer())
    before = {name: (value.data_ptr(), value.clone()) for name, value in model.hf.state_dict().items()}
    with pytest.raises(RuntimeError), in_double(model):
        assert model.dtype == torch.float64
        raise RuntimeError
    assert model.dtype == torch.float32
    for name, value in model.hf.state_dict().items():
        assert value.data_ptr() == before[name][0] and torch.equal(value, before[name][1])


def test_a_part_that_computes_in_single_precision_only_has_a_floor() -> None:
    """Its floor is that of another batch layout, as for a model too large for a copy in double precision."""
    hf = build("gpt2")
    model = load(hf, tokenizer=tokenizer())
    pairs = pairs_of(model, 4)
    wanted = mediation.exhaustive(model, pairs, "mlp_out.*", positions="all", directions="noising")
    head = hf.lm_head
    handle = head.register_forward_pre_hook(lambda module, given: (given[0].float(),))
    try:
        found = mediation.exhaustive(model, pairs, "mlp_out.*", positions="all", directions="noising")
    finally:
        handle.remove()
    assert np.array_equal(found.values["noising"], wanted.values["noising"])
    assert 0 < found.noise < 1e-3
    assert all(weight.dtype == torch.float32 for weight in hf.parameters())
