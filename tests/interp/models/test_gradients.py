"""Gradients with respect to captured activations, against finite differences and against plain autograd."""

from __future__ import annotations

import pytest
import torch

from interp.errors import ConfigError, SiteError
from interp.models import Intervention, Model, load
from tests.interp.models.conftest import PROMPTS, wrapped
from tests.tiny import build

SITES = [
    "embed",
    "q.1",
    "k.1.1",
    "v.1",
    "z.1",
    "head.1.2",
    "attn_out.1",
    "resid_mid.1",
    "mlp_act.1",
    "neuron.1.5",
    "mlp_out.1",
    "resid_post.1",
]


def offered(model: Model) -> list[str]:
    """List the sites under test that a model has."""
    return [site for site in SITES if site.partition(".")[0] not in model.disabled]


def test_logits_are_the_same_with_and_without_graph(model: Model) -> None:
    sites = [site for site in offered(model) if not site.startswith(("head", "resid_mid"))]
    plain = model.run(PROMPTS, logits="all")
    graph = model.run(PROMPTS, logits="all", capture=sites, positions="all", grad=True)
    for number, length in enumerate(model.tokenize(PROMPTS).lengths):
        assert torch.allclose(graph.logits[number, :length], plain.logits[number, :length], atol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_directional_derivative_against_finite_differences(model: Model, site: str) -> None:
    if site not in offered(model):
        with pytest.raises(SiteError):
            model.run(PROMPTS, capture=site, positions="all", grad=True)
        return
    prompt = PROMPTS[:1]
    run = model.run(prompt, capture=site, positions="all", grad=True)
    value = run.activations[site]
    (gradient,) = torch.autograd.grad(run.logits[0, 9], value)
    assert gradient.abs().max() > 0
    direction = gradient / gradient.norm()
    step = 2e-2 * value.detach().abs().mean()

    def logit(sign: int) -> float:
        moved = value.detach() + sign * step * direction
        return model.run(prompt, interventions=[Intervention(site, moved)]).logits[0, 9].item()

    slope = (logit(1) - logit(-1)) / (2 * step.item())
    assert slope == pytest.approx(gradient.norm().item(), rel=0.05, abs=2e-3)


def test_a_gradient_equals_plain_autograd() -> None:
    hf = build("llama")
    model = load(hf)
    ids = [[5, 6, 7, 8]]
    run = model.run(ids, capture="resid_post.1", positions="all", grad=True)
    (gradient,) = torch.autograd.grad(run.logits[0, 3], run.activations["resid_post.1"])
    kept = []
    handle = hf.model.layers[1].register_forward_hook(
        lambda m, args, out: (out.retain_grad(), kept.append(out))
    )
    handle.remove()

    def keep(module: torch.nn.Module, args: object, out: torch.Tensor) -> None:
        out.retain_grad()
        kept.append(out)

    handle = hf.model.layers[1].register_forward_hook(keep)
    hf(torch.tensor(ids)).logits[0, -1, 3].backward()
    handle.remove()
    assert torch.allclose(gradient, kept[0].grad, atol=1e-6)


def test_frozen_parameters_are_fine_and_get_no_gradient() -> None:
    hf = build("gpt2").requires_grad_(False)
    model = load(hf)
    run = model.run([[5, 6, 7]], capture=["q.0", "k.0", "resid_post.1"], positions="all", grad=True)
    found = torch.autograd.grad(
        run.logits[0, 3], [run.activations[site] for site in ("q.0", "k.0", "resid_post.1")]
    )
    assert all(g.abs().max() > 0 for g in found)
    assert all(p.grad is None for p in hf.parameters())


def test_gradients_through_an_intervention(llama: Model) -> None:
    direction = torch.ones(32, requires_grad=True)
    edits = [Intervention("resid_post.0", direction, "last")]
    run = llama.run(PROMPTS, interventions=edits, grad=True)
    (gradient,) = torch.autograd.grad(run.logits[:, 3].sum(), direction)
    assert gradient.abs().max() > 0


def test_attribution_of_heads_sums_to_that_of_z(llama: Model) -> None:
    """The first-order effect of removing all heads of a layer is that of removing z."""
    names = [f"head.2.{index}" for index in range(4)]
    run = llama.run(PROMPTS[:1], capture=[*names, "z.2"], positions="all", grad=True)
    tensors = [run.activations[name] for name in [*names, "z.2"]]
    *heads, z = (
        (gradient * tensor).sum()
        for gradient, tensor in zip(torch.autograd.grad(run.logits[0, 3], tensors), tensors, strict=True)
    )
    assert torch.allclose(sum(heads), z, atol=1e-4)


def test_positions_must_be_all() -> None:
    with pytest.raises(ConfigError, match="use positions='all'"):
        wrapped("llama").run(PROMPTS, capture="resid_post.0", grad=True)


def test_patterns_have_no_gradient_here(llama: Model) -> None:
    with pytest.raises(SiteError, match="can be read but not written"):
        llama.run(PROMPTS, capture="pattern.0", positions="all", grad=True)
