"""Experts, shared experts and routers; the oracles loop over experts with plain torch on the weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from interp.errors import SiteError
from interp.mediation import exhaustive
from interp.models import Intervention, Model, load
from interp.pairs import Pair, PairSet
from tests.more_families import build
from tests.tiny import tokenizer

IDS = [[3, 14, 15, 92, 65, 35], [9, 2, 6, 53, 58, 97]]
KINDS = [
    "qwen2_moe",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_moe_text",
    "mixtral",
    "olmoe",
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe",
    "dots1",
    "gpt_oss",
    "llama4_text",
    "granitemoe",
    "granitemoehybrid",
    "jamba",
    "ernie4_5_moe",
    "hunyuan_v1_moe",
    "phimoe",
    "minimax_m2",
    "laguna",
    "afmoe",
    "nemotron_h",
    "cohere2_moe",
]
SHARED = [
    "qwen2_moe",
    "qwen3_next",
    "qwen3_5_moe_text",
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe",
    "dots1",
    "llama4_text",
    "granitemoehybrid",
    "ernie4_5_moe",
    "hunyuan_v1_moe",
    "laguna",
    "afmoe",
    "nemotron_h",
]


@cache
def loaded(kind: str) -> Model:
    """Load the tiny model of a type."""
    return load(build(kind), tokenizer=tokenizer())


@pytest.fixture(params=KINDS)
def mixture(request: pytest.FixtureRequest) -> Model:
    """Give every model of experts."""
    return loaded(request.param)


def calls(model: Model, module: nn.Module) -> tuple[tuple[Any, ...], Any]:
    """What a module is called with, and what it gives, by a plain hook."""
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda m, args, out: seen.append((args, out)))
    with torch.no_grad():
        model.hf(input_ids=torch.tensor(IDS), use_cache=False)
    handle.remove()
    assert len(seen) == 1
    return seen[0]


def one_expert(experts: Any, index: int, x: Tensor, kind: str) -> Tensor:
    """Compute one expert from its own weights, without its weight in the sum."""
    if kind == "nemotron_h":
        up = functional.relu(x @ experts.up_proj[index].T).square()
        return up @ experts.down_proj[index].T
    if kind in ("gpt_oss", "llama4_text"):  # stored the other way round
        both, down = x @ experts.gate_up_proj[index], experts.down_proj[index]
    else:
        both, down = x @ experts.gate_up_proj[index].T, experts.down_proj[index].T
    if kind == "gpt_oss":
        both = both + experts.gate_up_proj_bias[index]
        gate, up = both[:, ::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
        return (up + 1) * gate * torch.sigmoid(1.702 * gate) @ down + experts.down_proj_bias[index]
    gate, up = both.chunk(2, -1)
    return functional.silu(gate) * up @ down


def naive(model: Model, layer: int) -> Tensor:
    """Loop over the experts: ``[expert batch pos d_model]``, each times its weight."""
    kind, experts = model.hf.config.model_type, model.architecture.part(layer, "experts")
    assert experts is not None
    args, _ = calls(model, experts)
    count = model.anatomy.experts[layer]
    tokens = args[0].reshape(-1, args[0].shape[-1])
    with torch.no_grad():
        if kind == "llama4_text":  # every expert is run on tokens that were weighted before
            rows = tokens.view(count, -1, tokens.shape[-1])
            found = [one_expert(experts, index, rows[index], kind) for index in range(count)]
        else:
            weight = [((args[1] == index) * args[2]).sum(-1, keepdim=True) for index in range(count)]
            found = [one_expert(experts, index, tokens, kind) * weight[index] for index in range(count)]
    factor = 2.5 if kind == "laguna" else 1.0
    assert kind != "laguna" or model.hf.config.moe_routed_scaling_factor == factor
    return factor * torch.stack(found).view(count, len(IDS), len(IDS[0]), -1)


def test_experts_are_those_of_a_naive_loop(mixture: Model) -> None:
    layers = mixture.anatomy.layers("expert")
    assert layers and set(mixture.anatomy.experts) <= {0, 4}
    for layer in layers:
        wanted = naive(mixture, layer)
        found = mixture.capture(IDS, f"expert.{layer}.*", "all")
        for index in range(4):
            error = (found[f"expert.{layer}.{index}"] - wanted[index]).abs().max()
            assert error <= 1e-5 * wanted.abs().max(), (layer, index)
        assert (wanted.abs().amax((1, 2, 3)) > 0).sum() > 1


def test_experts_and_shared_expert_sum_to_the_mlp(mixture: Model) -> None:
    """Before a norm, where one follows, and the factor on what a block adds."""
    row = mixture.family
    factor = mixture.architecture.multiplier
    assert (factor == 0.6) == mixture.hf.config.model_type.startswith("granite")
    for layer in mixture.anatomy.layers("expert"):
        found = mixture.capture(IDS, [f"expert.{layer}.*", f"mlp_out.{layer}"], "all")
        total = torch.stack([found[f"expert.{layer}.{index}"] for index in range(4)]).sum(0)
        if mixture.hf.config.model_type in SHARED:
            assert layer in mixture.anatomy.layers("shared_expert")
            total = total + mixture.capture(IDS, f"shared_expert.{layer}", "all")[f"shared_expert.{layer}"]
        if mixture.hf.config.model_type == "afmoe":
            total = mixture.architecture.blocks[layer].post_mlp_layernorm(total)
        wanted = found[f"mlp_out.{layer}"]
        assert (factor * total - wanted).abs().max() <= 1e-5 * wanted.abs().max(), (layer, row)


def test_an_expert_without_its_output_is_the_model_less_that_output(mixture: Model) -> None:
    layer = mixture.anatomy.layers("expert")[0]
    index = int(naive(mixture, layer).abs().amax((1, 2, 3)).argmax())
    experts, less = mixture.architecture.part(layer, "experts"), naive(mixture, layer)[index]
    kind = mixture.hf.config.model_type
    less = less / 2.5 if kind == "laguna" else less  # before the factor

    def without(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        if kind != "llama4_text":
            return out - less.view(out.shape)
        rest = out.view(4, -1).clone()
        rest[index] = 0
        return rest.view(out.shape)

    plain = mixture.run(IDS).logits
    handle = experts.register_forward_hook(without)
    with torch.no_grad():
        wanted = mixture.hf(input_ids=torch.tensor(IDS), use_cache=False).logits[:, -1]
    handle.remove()
    site = f"expert.{layer}.{index}"
    edit = Intervention(site, 0.0, "all")
    run = mixture.run(IDS, interventions=[edit], capture=site, positions="all")
    assert torch.allclose(run.logits, wanted, atol=2e-5) and (run.logits - plain).abs().max() > 1e-3
    assert run.activations[site].abs().max() <= 1e-5  # what was written is read


def test_router_logits_are_the_linear_layer_and_decide(mixture: Model) -> None:
    """Read: a plain product with the weights. Written: the expert with by far the largest logit is chosen."""
    layer = mixture.anatomy.layers("router")[0]
    router: Any = mixture.architecture.part(layer, "router")
    args, _ = calls(mixture, router)
    bias = router.bias if isinstance(getattr(router, "bias", None), Tensor) else None
    with torch.no_grad():
        wanted = functional.linear(args[0].reshape(-1, 32), router.weight, bias).view(2, 6, 4)
    found = mixture.capture(IDS, f"router.{layer}", "all")[f"router.{layer}"]
    assert torch.allclose(found, wanted, atol=1e-5)
    for chosen in (0, 3):
        force = torch.full((4,), -20.0)
        force[[chosen, 1]] = torch.tensor([20.0, 19.0])
        edit = Intervention(f"router.{layer}", force, "all")
        sites = [f"expert.{layer}.*", f"router.{layer}"]
        run = mixture.run(IDS, interventions=[edit], capture=sites, positions="all").activations
        used = {e for e in range(4) if (run[f"expert.{layer}.{e}"].abs().amax(-1) > 1e-6).all()}
        assert chosen in used and torch.equal(run[f"router.{layer}"][0, 0], force)
        rest = {e for e in range(4) if run[f"expert.{layer}.{e}"].abs().max() > 1e-5}
        assert rest <= {chosen, 1}


@pytest.mark.parametrize("kind", ["qwen2_moe", "gpt_oss", "llama4_text", "granitemoehybrid"])
def test_own_values_change_nothing_and_gradients_flow(kind: str) -> None:
    model = loaded(kind)
    layer = model.anatomy.layers("expert")[0]
    sites = [str(site) for site in model.expand([f"expert.{layer}.*", f"router.{layer}"])]
    run = model.run(IDS, interventions=[Intervention(site, torch.clone, "all") for site in sites])
    assert torch.equal(run.logits, model.run(IDS).logits)
    graph = model.run(IDS, capture=sites, positions="all", grad=True)
    values = [graph.activations[site] for site in sites]
    slopes = torch.autograd.grad(graph.logits[:, 5].sum(), values)
    site, step = sites[1], 1e-3 * torch.randn(values[1].shape, generator=torch.Generator().manual_seed(0))
    ends = [  # a small step: a larger one may send a token elsewhere in a later layer
        model.run(IDS, interventions=[Intervention(site, values[1].detach() + sign * step, "all")]).logits
        for sign in (1, -1)
    ]
    measured = (ends[0][:, 5].sum() - ends[1][:, 5].sum()) / 2
    assert torch.isclose((slopes[1] * step).sum(), measured, rtol=0.02, atol=2e-6)


@pytest.mark.parametrize("kind", ["qwen2_moe", "gpt_oss", "granitemoehybrid", "llama4_text"])
@pytest.mark.parametrize("replacement", ["interchange", "zero", "mean"])
def test_experts_as_mediators(kind: str, replacement: str) -> None:
    """The engine's effects are those of whole passes with the value put in by hand."""
    model = loaded(kind)
    texts = ["w01 w02 w03 w04 w05", "w09 w02 w08 w04 w05", "w11 w02 w12 w04 w05", "w20 w21 w03 w22 w05"]
    pairs = PairSet.build(
        model,
        [Pair(text, text.replace("w02", "w30").replace("w21", "w31"), ("w11",), ("w12",)) for text in texts],
    )
    layer = model.anatomy.layers("expert")[-1]
    sites = [str(site) for site in model.expand([f"expert.{layer}.*", f"router.{layer}"])]
    found = exhaustive(model, pairs, sites, directions="noising", replacement=replacement)
    clean, corrupt = (model.tokenize(list(side.texts)) for side in (pairs.clean, pairs.corrupt))

    def margin(interventions: list[Intervention]) -> Tensor:
        logits = model.run(clean, interventions=interventions).logits.double()
        rows = torch.arange(len(logits))
        answer = torch.tensor([ids[0] for ids in pairs.answer_ids])
        foil = torch.tensor([ids[0] for ids in pairs.foil_ids])
        return logits[rows, answer] - logits[rows, foil]

    plain = margin([])
    moved = 0.0
    for at, site in enumerate(map(str, found.mediators)):
        other = model.capture(corrupt, site, "all")[site]
        rest = [other[[row for row in range(4) if row != own]].mean(0) for own in range(4)]
        value = {"interchange": other, "zero": torch.zeros_like(other), "mean": torch.stack(rest)}[
            replacement
        ]
        wanted = plain - margin([Intervention(site, value, "all")])
        assert torch.allclose(torch.as_tensor(found.values["noising"][at]).double(), wanted, atol=2e-5), site
        moved = max(moved, float(wanted.abs().max()))
    assert moved > 0.01


def test_what_is_absent_says_why() -> None:
    assert "cannot be added up without 'mlp_out'" in loaded("minimax").disabled["expert"]
    with pytest.raises(SiteError, match=r"layer 0 of .* has no 'expert'; these layers have it: 1, 2\."):
        loaded("qwen2_moe").capture(IDS, "expert.0.1")
    with pytest.raises(SiteError, match=r"has experts 0\.\.3"):
        loaded("mixtral").capture(IDS, "expert.0.4")
    with pytest.raises(SiteError, match="no layer has it"):
        loaded("glm4").capture(IDS, "expert.0.0")


def test_control_a_wrong_factor_is_caught() -> None:
    model = load(build("laguna"), family={"expert_multiplier": ""})
    assert "do not sum to mlp_out" in model.disabled["expert"]
    wrong = load(build("qwen2_moe"), family={"shared_gate": ""})
    assert {"expert", "shared_expert"} <= set(wrong.disabled)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("minimax", r"cannot be added up without 'mlp_out': resid_pre \+ attn_out \+ mlp_out differs from"),
        ("longcat_flash", r"cannot be added up without 'mlp_out': resid_pre \+ attn_out \+ mlp_out differs"),
        ("gemma4_moe", r"cannot be added up without 'mlp_out': resid_pre \+ attn_out \+ mlp_out differs"),
        ("jetmoe", r"the module of the experts of layer 0 is not called in a pass"),
    ],
)
def test_experts_that_are_not_offered_name_the_reason(kind: str, reason: str) -> None:
    with pytest.raises(SiteError, match=reason):
        load(build(kind)).capture(IDS, "expert.1.0")
