"""AtP*: closed forms against softmax itself, patterns against the model, a saturated model as the control."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError
from interp.mediation.mediators import Mediator
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.searches import effects
from interp.mediation.searches.patterns import key_effects
from interp.models.interventions import Intervention
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import PairSet
from tests.interp.mediation.test_search import made, pairs_of
from tests.tiny import build, tokenizer


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_the_closed_form_for_keys_is_softmax_computed_anew(size: float) -> None:
    """Oracle 9: every key's score is changed alone, in float64; 30 makes rows nearly one-hot."""
    generator = torch.Generator().manual_seed(0)
    scores = size * torch.randn(1, 2, 5, 5, generator=generator, dtype=torch.float64)
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    change = size * torch.randn(1, 2, 5, 5, generator=generator, dtype=torch.float64)
    slope = torch.randn(1, 2, 5, 5, generator=generator, dtype=torch.float64)
    before = scores.softmax(-1)
    found = key_effects(before, before * change.exp(), slope)
    for key in range(5):
        moved = scores.clone()
        moved[..., key] += change[..., key]
        wanted = ((moved.softmax(-1) - before) * slope).sum(-1)
        assert torch.allclose(found[..., key], wanted, rtol=0, atol=2e-15)
    assert found.abs().max() > 0.1


def through_z(model: Model, pairs: PairSet, mediator: Mediator) -> np.ndarray:
    """First order in z alone: the model's own z after one replacement, times dY/dz; noising."""
    (place,) = mediator.places
    site = str(mediator.site)
    name = f"z.{mediator.layer}"
    source = model.capture(pairs.corrupt, site, "all")[site]
    at = "all" if mediator.position is None else mediator.position
    value = source if mediator.position is None else source[:, mediator.position]
    edit = Intervention(place.carrier if place.index is None else site, value, at)
    moved = model.run(pairs.clean, interventions=[edit], capture=name, positions="all", logits="none")
    run = model.run(pairs.clean, capture=name, positions="all", grad=True)
    assert moved.activations is not None and run.activations is not None and run.logits is not None
    total = METRICS["logit-diff"].values(run.logits.float(), Targets.of(pairs, run.logits.device)).sum()
    (slope,) = torch.autograd.grad(total, run.activations[name])
    change = moved.activations[name] - run.activations[name].detach()
    return -(slope * change).double().sum(dim=(1, 2, 3)).numpy()


def star_of(
    model: Model, pairs: PairSet, names: list[str], *, drops: str = "layers", **asked: Any
) -> mediation.Effects:
    return effects(model, pairs, names, search=mediation.AtPStar(drops=drops, verify=0), **asked)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "qwen3", "olmo2", "gpt_neox", "bloom"])
def test_queries_and_keys_are_exact_up_to_what_heads_give(family: str) -> None:
    """Rotary embeddings, norms of keys, caps, windows shorter than the prompt and grouped keys among them."""
    model = made(family)
    pairs = pairs_of(model, 2, length=12)
    for names, position in ((["q.1.2", "k.1.1"], "all"), (["q.2.1", "k.1.0"], 6), (["k.1.0"], 3)):
        found = star_of(model, pairs, names, positions=position, directions="noising", drops="none")
        assert found.cost["noising"]["scores_not_read"] == 0
        for mediator, row in zip(found.mediators, found.values["noising"], strict=True):
            wanted = through_z(model, pairs, mediator)
            assert np.allclose(row, wanted, rtol=1e-3, atol=1e-5 * max(1.0, np.abs(wanted).max())), mediator
        assert np.abs(found.values["noising"]).max() > 1e-4
        plain = mediation.attribution(model, pairs, names, positions=position, directions="noising", verify=0)
        assert not np.allclose(plain.values["noising"], found.values["noising"], rtol=1e-2, atol=1e-6)


def saturated(factor: float = 25.0) -> Model:
    """Make attention nearly one-hot by scaling the queries of GPT-2."""
    hf = build("gpt2")
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.weight[:, :32] *= factor
            block.attn.c_attn.bias[:32] *= factor
    return load(hf, tokenizer=tokenizer())


def test_a_saturated_softmax_hides_keys_from_attribution_but_not_from_atp_star() -> None:
    """Negative control: plain attribution fails on the same mediators."""
    model = saturated()
    pairs = pairs_of(model, 6)
    names = ["k.2.*", "q.2.*"]
    kept = {"positions": -1, "directions": "noising"}
    exact = mediation.exhaustive(model, pairs, names, **kept).values["noising"]  # type: ignore[arg-type]
    star = star_of(model, pairs, names, drops="none", **kept)
    plain = mediation.attribution(model, pairs, names, verify=0, **kept)  # type: ignore[arg-type]

    def missed(guess: np.ndarray) -> float:
        return float(np.abs(guess - exact).sum() / np.abs(exact).sum())

    assert np.abs(exact).max() > 0.05
    assert missed(star.values["noising"]) < 0.5 < missed(plain.values["noising"])


def test_dropped_gradients_are_those_of_hooks_that_detach() -> None:
    """One gradient per layer, by hand: mean absolute estimate, the mediator's own layer left out.

    No magnitude is below that of the plain estimate.
    """
    model = made("gpt2")
    pairs = pairs_of(model, 3)
    names = ["mlp_out.0", "mlp_out.1", "resid_pre.1"]
    found = star_of(model, pairs, names, positions="all", directions="noising")
    read = {site: model.capture(pairs.corrupt, site, "all")[site] for site in names}
    magnitude = {site: [] for site in names}
    for block in model.hf.transformer.h:  # type: ignore[union-attr]
        hooks = [
            block.attn.register_forward_hook(lambda m, a, out: (out[0].detach(), *out[1:])),
            block.mlp.register_forward_hook(lambda m, a, out: out.detach()),
        ]
        run = model.run(pairs.clean, capture=names, positions="all", grad=True)
        for hook in hooks:
            hook.remove()
        assert run.logits is not None and run.activations is not None
        total = METRICS["logit-diff"].values(run.logits, Targets.of(pairs, run.logits.device)).sum()
        nodes = [run.activations[site] for site in names]
        slopes = torch.autograd.grad(total, nodes)
        for site, node, slope in zip(names, nodes, slopes, strict=True):
            estimate = (slope * (read[site] - node)).double().sum(dim=(1, 2))
            magnitude[site].append(estimate.abs().detach().numpy())
    signed = mediation.attribution(model, pairs, names, positions="all", directions="noising", verify=0)
    raised = kept = 0
    for at, (mediator, row) in enumerate(zip(found.mediators, found.values["noising"], strict=True)):
        site, plain = str(mediator.site), np.abs(signed.values["noising"][at])
        own = [one for one in range(3) if site.startswith("resid") or one != mediator.layer]
        dropped = np.mean([magnitude[site][one] for one in own], axis=0)
        assert np.allclose(np.abs(row), np.maximum(dropped, plain), rtol=1e-4, atol=1e-6), site
        raised += int((dropped > 1.02 * plain).sum())
        kept += int((dropped < 0.98 * plain).sum())
    assert min(raised, kept) > 0
    assert np.array_equal(np.sign(found.values["noising"]), np.sign(signed.values["noising"]))
    assert not np.allclose(np.abs(found.values["noising"]), np.abs(signed.values["noising"]), rtol=0.02)
    assert any("Rank by it" in note for note in found.warnings)


def test_other_mediators_keep_the_first_order_estimate() -> None:
    model = made()
    pairs = pairs_of(model)
    names = ["head.1.*", "mlp_out.*", "neuron.1.3+7", "v.2.1"]
    star = star_of(model, pairs, names, drops="none")
    plain = mediation.attribution(model, pairs, names, verify=0)
    for direction in star.directions:
        assert np.allclose(star.values[direction], plain.values[direction], atol=1e-9)


def test_a_group_adds_its_keys_and_its_values() -> None:
    model = made()
    pairs = pairs_of(model)
    both = star_of(model, pairs, ["kv.1.1", "k.1.1", "v.1.1"], drops="none")
    rows = dict(zip(map(str, both.mediators), both.values["noising"], strict=True))
    assert np.allclose(rows["kv.1.1"], rows["k.1.1"] + rows["v.1.1"])
    assert np.abs(rows["k.1.1"]).max() > 1e-4


def test_an_unknown_way_to_drop_is_refused() -> None:
    with pytest.raises(ConfigError, match="drops 'heads' asked; use layers or none"):
        mediation.AtPStar(drops="heads")
