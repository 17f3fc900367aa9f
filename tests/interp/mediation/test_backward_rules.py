"""Backward rules change gradients as they say, and no value; each law against an oracle of its own."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interp import mediation
from interp.errors import ConfigError, ModelError
from interp.mediation.backward_rules import RULES, BackwardRule, _Scaled, _Tempered, following, rule_of
from interp.mediation.gradients import gradients_at
from interp.mediation.parsing import experiment_of
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.sites import Site
from tests.board import ANSWER, FOUND, LOUD, TOKEN, blank, head, reads, to_place, writes
from tests.stress.table import stress
from tests.tiny import FAMILIES, build, tiny, tokenizer

GIVEN = [
    Pair("w01 w02 w03 w04", "w01 w05 w03 w04", ("w10",), ("w11",)),
    Pair("w07 w02 w08 w09", "w07 w06 w08 w09", ("w12",), ("w13",)),
]
EMBED = Site("embed")


def wrapped(hf: Any) -> tuple[Model, PairSet]:
    model = load(hf, tokenizer=tokenizer())
    return model, PairSet.build(model, GIVEN)


def slopes(model: Model, pairs: PairSet, rule: BackwardRule, *sites: Site) -> Any:
    """The value and the gradient of some sites on the clean prompts."""
    asked = experiment_of(model, pairs, ["head.*"], positions="all")
    with following(model, rule):
        return gradients_at(asked, "noising", range(len(pairs)), asked.targets, list(sites))


@pytest.mark.parametrize("rule", ["relp", "gim"])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_of_eager_attention_bit_for_bit_and_gradients_are_not(
    family: str, rule: str
) -> None:
    hf, words = tiny(family)
    model = load(hf, tokenizer=words)
    pairs = PairSet.build(model, GIVEN)
    eager = BackwardRule(description="eager attention, values only", temperature=1.0 + 1e-9)
    sites = [EMBED, *(Site(kind, 1) for kind in ("resid_post", "mlp_out"))]
    plain, ruled = (slopes(model, pairs, one, *sites) for one in (eager, RULES[rule]))
    if RULES[rule].temperature == 1.0:
        plain = slopes(model, pairs, RULES["plain"], *sites)
    torch.testing.assert_close(ruled.logits, plain.logits, rtol=0, atol=0)
    for site in sites:
        torch.testing.assert_close(ruled.nodes[site], plain.nodes[site], rtol=0, atol=0)
    assert torch.isfinite(ruled.gradients[EMBED]).all()
    assert not torch.allclose(ruled.gradients[EMBED], plain.gradients[EMBED], rtol=0.05)


def test_a_softmax_at_temperature_one_and_a_scale_of_one_are_the_plain_gradient_bit_for_bit() -> None:
    scores = torch.randn(3, 5, 7, requires_grad=True)
    weight = torch.randn(3, 5, 7)
    value = torch.softmax(scores, -1)
    (wanted,) = torch.autograd.grad((value * weight).sum(), scores, retain_graph=True)
    soft = _Tempered.apply(scores, value.detach(), -1, 1.0)
    (found,) = torch.autograd.grad((soft * weight).sum(), scores)
    assert torch.equal(found, wanted)
    (scaled,) = torch.autograd.grad((_Scaled.apply(scores, 1.0) * weight).sum(), scores)
    assert torch.equal(scaled, weight)
    other = _Tempered.apply(scores, value.detach(), -1, 2.0)
    (flat,) = torch.autograd.grad((other * weight).sum(), scores)
    half = torch.softmax(scores.detach() / 2, -1)
    torch.testing.assert_close(flat, half * (weight - (weight * half).sum(-1, keepdim=True)))
    assert not torch.allclose(flat, wanted, rtol=0.1)


def test_a_whole_model_at_temperature_one_has_the_plain_gradient() -> None:
    model, pairs = wrapped(build("llama"))
    sites = (EMBED, Site("q", 0), Site("k", 1))
    nothing = BackwardRule(description="", temperature=1.0 + 1e-7)
    found, wanted = (slopes(model, pairs, one, *sites).gradients for one in (nothing, RULES["plain"]))
    for site in sites:
        torch.testing.assert_close(found[site], wanted[site], rtol=1e-3, atol=1e-4)


class Constant(nn.Module):
    """A norm, or an activation, with what it divides or multiplies by fixed: an affine map."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, given: Tensor) -> Tensor:
        return self.call(given)


def fixed_norm(module: Any, given: Tensor) -> Constant:
    """The norm by its own formula, with the scale of this input."""
    centre = isinstance(module, nn.LayerNorm)
    base = given - given.mean(-1, keepdim=True) if centre else given
    epsilon = module.eps if centre else module.variance_epsilon
    scale = (base.square().mean(-1, keepdim=True) + epsilon).sqrt()
    bias = module.bias if centre else 0.0

    def call(x: Tensor) -> Tensor:
        moved = x - x.mean(-1, keepdim=True) if centre else x
        return module.weight * moved / scale + bias

    return Constant(call)


def fixed_ratio(module: Any, given: Tensor) -> Constant:
    ratio = module(given) / given
    return Constant(lambda x: x * ratio)


@pytest.mark.parametrize("part", ["norms", "activations"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_held_part_has_the_slope_of_a_model_in_which_it_is_constant(family: str, part: str) -> None:
    """Finite differences of a copy whose norms, or activations, are affine maps fixed at this run."""
    hf = build(family).double()
    model, pairs = wrapped(hf)
    ids = torch.tensor(pairs.clean.token_ids)
    rule = BackwardRule(description="", hold_norms=part == "norms", ratios=part == "activations")
    found = slopes(model, pairs, rule, EMBED).gradients[EMBED]
    copy = deepcopy(hf)
    names = ("norm", ".ln_") if part == "norms" else (".act",)
    inputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0].detach()}))
        for name, module in copy.named_modules()
        if any(one in name for one in names)
    ]
    start = copy.get_input_embeddings()(ids).detach()
    with torch.no_grad():
        copy(inputs_embeds=start)
        for handle in handles:
            handle.remove()
        make = fixed_norm if part == "norms" else fixed_ratio
        for name, given in inputs.items():
            parent, _, last = name.rpartition(".")
            setattr(copy.get_submodule(parent), last, make(copy.get_submodule(name), given))
        answer, foil = (torch.tensor([row[0] for row in one]) for one in (pairs.answer_ids, pairs.foil_ids))
        rows = torch.arange(len(ids))

        def metric(at: float, way: Tensor) -> Tensor:
            logits = copy(inputs_embeds=start + at * way).logits[:, -1]
            return (logits[rows, answer] - logits[rows, foil]).sum()

        way = torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        slope = float((metric(1e-5, way) - metric(-1e-5, way)) / 2e-5)
    assert float((found * way).sum()) == pytest.approx(slope, rel=1e-5 if family == "gpt2" else 2e-3)
    with torch.enable_grad():  # norms of Llama are float32 inside, so its differences are not sharp
        (wanted,) = torch.autograd.grad(metric(1.0, moved := torch.zeros_like(start).requires_grad_()), moved)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    plain = slopes(model, pairs, RULES["plain"], EMBED).gradients[EMBED]
    assert not torch.allclose(found, plain, rtol=0.05)


def test_relevance_is_conserved_from_the_embeddings_to_the_logits() -> None:
    """Without biases what relp gives the embeddings adds up to the logit difference."""
    model, pairs = wrapped(build("llama"))
    sums = {}
    for rule in ("relp", "plain"):
        run = slopes(model, pairs, RULES[rule], EMBED)
        sums[rule] = (run.nodes[EMBED] * run.gradients[EMBED]).sum(dim=(1, 2))
    torch.testing.assert_close(sums["relp"], run.metric, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(sums["plain"], run.metric, rtol=0.1)
    halves = BackwardRule(description="", hold_norms=True, ratios=True, q=0.0, k=0.0)
    run = slopes(model, pairs, halves, EMBED)
    assert not torch.allclose((run.nodes[EMBED] * run.gradients[EMBED]).sum(dim=(1, 2)), run.metric, rtol=0.1)


def test_on_a_linear_network_relp_is_plain_attribution() -> None:
    """Constant patterns, norms near a fixed scale, no activation."""
    hf = blank(0, activation="linear", noise=0.03)
    head(hf, 0, 0, *to_place(0), reads(TOKEN), writes(FOUND))
    head(hf, 1, 1, *to_place(2), reads(FOUND), writes(ANSWER, LOUD))
    model = load(hf, tokenizer=tokenizer())
    pairs = PairSet.build(model, [Pair("w01 w02 w03", "w05 w02 w03", ("w01",), ("w05",))])
    asked = {"positions": "all", "directions": "noising"}
    plain, relp = (
        mediation.searches.effects(
            model, pairs, "head.*", search=mediation.Attribution(rule=rule, verify=0), **asked
        )
        for rule in ("plain", "relp")
    )
    big = np.abs(plain.mean()) > 0.5
    assert big.sum() == 2
    np.testing.assert_allclose(relp.mean()[big], plain.mean()[big], rtol=0.02)
    bent = stress("saturated-activation")
    told = [
        mediation.searches.effects(
            bent.model, bent.pairs, ["head.0.0"], search=mediation.Attribution(rule=r, verify=0), **asked
        ).mean()[0]
        for r in ("plain", "relp")
    ]
    assert told[1] > 20 * abs(told[0])


def test_queries_keys_and_values_get_their_share_and_what_is_captured_says_so() -> None:
    model, pairs = wrapped(build("qwen3"))
    last = [Site(kind, model.n_layers - 1) for kind in "qkv"]
    plain = slopes(model, pairs, RULES["plain"], *last).gradients
    rule = BackwardRule(description="", q=0.25, k=0.5, v=2.0)
    found = slopes(model, pairs, rule, *last).gradients
    for site, factor in zip(last, (0.25, 0.5, 2.0), strict=True):
        torch.testing.assert_close(found[site], factor * plain[site])
        assert plain[site].abs().max() > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_only_a_gated_product_is_halved(family: str) -> None:
    model, pairs = wrapped(build(family))
    site = Site("resid_mid", model.n_layers - 1)
    rule = BackwardRule(description="", product=0.5)
    plain, found = (slopes(model, pairs, one, site, Site("mlp_act", 0)) for one in (RULES["plain"], rule))
    after = slopes(model, pairs, RULES["plain"], Site("resid_post", model.n_layers - 1)).gradients
    through = [one.gradients[site] - after[Site("resid_post", model.n_layers - 1)] for one in (plain, found)]
    factor = 0.5 if family == "llama" else 1.0
    torch.testing.assert_close(through[1], factor * through[0], rtol=1e-3, atol=1e-5)
    assert through[0].abs().max() > 1e-3


def test_gim_sees_keys_behind_a_saturated_pattern_and_relp_a_stream_behind_its_norm() -> None:
    for name, mediator, rule, other in (
        ("k-composition", "head.1.2", "gim", "relp"),
        ("large-stream", "head.0.1", "relp", "plain"),
        ("large-stream", "head.0.1", "gim", "plain"),
        ("saturated-activation", "head.0.0", "relp", "gim"),
    ):
        truth = stress(name)
        share = {}
        for one in (rule, other):
            told = mediation.searches.effects(
                truth.model,
                truth.pairs,
                [mediator],
                search=mediation.Attribution(rule=one, verify=0),
                positions="all",
            )
            share[one] = float(told.mean()[0] / told.total.mean())
        assert share[rule] > 0.05 > 5 * abs(share[other]), name


def test_edges_follow_a_rule_and_their_readers_still_add_up() -> None:
    truth = stress("k-composition")
    asked = {"metric": "logit-diff", "directions": "noising"}
    found = {}
    for rule in ("plain", "gim"):
        told = mediation.searches.effects(
            truth.model,
            truth.pairs,
            ["edge.head.1.2->k.2.3"],
            search=mediation.Attribution(rule=rule, verify=0),
            **asked,
        )
        found[rule] = float(told.mean()[0])
        assert told.cost["off"] < 1e-3
    assert found["gim"] > 5 * abs(found["plain"])


def test_nothing_stays_behind_even_on_an_error() -> None:
    model, _ = wrapped(build("llama"))

    def hooks() -> int:
        return sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.hf.modules()
        )

    before, implementation = hooks(), model.hf.config._attn_implementation
    with pytest.raises(ZeroDivisionError), following(model, RULES["gim"]):
        assert hooks() > before
        assert model.hf.config._attn_implementation == "eager"
        _ = 1 / 0
    assert hooks() == before
    assert model.hf.config._attn_implementation == implementation


def test_what_cannot_be_reached_is_refused_with_its_reason() -> None:
    with pytest.raises(ConfigError, match=r"backward rule 'lrp' asked; there are: plain, relp, gim\."):
        rule_of("lrp")
    with pytest.raises(ConfigError, match="backward rule 'lrp' asked"):
        mediation.Attribution(rule="lrp")
    experts, words = build("mixtral"), tokenizer()
    with (
        pytest.raises(ModelError, match=r"changes what goes back through 'mlp_act\.0', which .*attribution"),
        following(load(experts, tokenizer=words), RULES["gim"]),
    ):
        pass
    hf = blank(0, activation="sigmoid")
    model, pairs = wrapped(hf)
    with pytest.raises(ModelError, match=r"activation of layer 0 of .* is 0\.50 at 0"):
        slopes(model, pairs, RULES["relp"], EMBED)
    model, pairs = wrapped(build("llama"))
    with (
        pytest.raises(ModelError, match=r"never called where a hook reaches it \(a fused kernel\)"),
        following(model, RULES["gim"]),
    ):
        pass


def test_a_search_by_a_rule_says_that_it_is_no_derivative_and_is_verified() -> None:
    truth = stress("large-stream")
    told = mediation.searches.effects(truth.model, truth.pairs, "head.*", search="relp", positions="all")
    assert told.search == "relp"
    assert any("relp: estimates by changed backward rules are no derivatives" in one for one in told.warnings)
    assert told.verified.top[0].mediator == "head.0.1"
    assert told.verified.top[0].exact == pytest.approx(told.total.mean(), rel=0.01)
    plain = mediation.attribution(truth.model, truth.pairs, "head.*", positions="all", verify=0)
    assert plain.search == "attribution"
    assert not any("no derivatives" in one for one in plain.warnings)
