"""Edge attribution against derivatives of circuit runs and other ways to one sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, ModelError
from interp.mediation.edges.blocks import Blocks, contribution
from interp.mediation.edges.engine import CutRow, EdgeEngine
from interp.mediation.edges.graph import Edge, Graph
from interp.mediation.edges.run import carriers_of
from interp.mediation.searches import effects
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site
from tests.interp.mediation.edges.models import edge_attribution, made, pairs_of, values_of
from tests.tiny import build, tokenizer

FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox", "granite", "olmo2"]


@pytest.mark.parametrize("family", FAMILIES)
def test_estimates_are_the_derivative_of_the_circuit_run_at_mask_zero(family: str) -> None:
    """Oracle 10: cut edges that carry own + e * (other - own), and divide the change by e."""
    model = made(family)
    pairs = pairs_of(model)
    found = edge_attribution(model, pairs, directions="noising", verify=0)
    graph = Graph.of(model)
    rng = np.random.default_rng(0)
    picked = sorted(rng.permutation(len(found.mediators))[:30])
    own = values_of(model, pairs.clean, graph.writers)
    other = values_of(model, pairs.corrupt, graph.writers)
    engine, step, slopes = EdgeEngine(model, pairs.clean, graph), 0.02, []
    for sign in (1, -1):
        near = {site: own[site] + sign * step * (other[site] - own[site]) for site in own}
        places = graph.indices([found.mediators[at] for at in picked])  # type: ignore[misc]
        rows = [CutRow(e, place) for place in places[:, None].unbind() for e in range(len(pairs))]
        slopes.append(_difference(engine.logits(rows, near), pairs))
    wanted = -(slopes[0] - slopes[1]) / (2 * step)
    mine = found.values["noising"][picked]
    assert np.abs(mine - wanted.numpy()).max() < 2e-2 * np.abs(wanted.numpy()).max() + 2e-4
    assert np.corrcoef(mine.ravel(), wanted.numpy().ravel())[0, 1] > 0.999
    wrong = np.roll(mine, 1, axis=0)
    assert np.corrcoef(wrong.ravel(), wanted.numpy().ravel())[0, 1] < 0.9  # of other edges they are not


def _difference(logits: torch.Tensor, pairs: PairSet) -> torch.Tensor:
    table = logits.double().unflatten(0, (-1, len(pairs)))
    right = torch.stack([table[:, at, ids[0]] for at, ids in enumerate(pairs.answer_ids)], dim=1)
    return right - torch.stack([table[:, at, ids[0]] for at, ids in enumerate(pairs.foil_ids)], dim=1)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_head_space_equals_d_model_space_and_a_split_input(family: str) -> None:
    """Oracle 8: three ways to one number, with grouped queries and without.

    Split input: the reader alone gets a copy of the stream, and autograd gives the slope of that copy.
    """
    model = made(family)
    pairs = pairs_of(model, 1)
    tokens = pairs.corrupt
    graph = Graph.of(model)
    own, other = (values_of(model, t, graph.writers) for t in (tokens, pairs.clean))
    changes = {w: contribution(model, w, other, own)[0].detach() for w in graph.writers[:6]}
    found = edge_attribution(model, pairs, directions="denoising", verify=0)
    values = dict(zip(map(str, found.mediators), found.values["denoising"][:, 0], strict=True))
    for text in ("q.1.3", "k.2.1", "v.1.0", "mlp.1", "logits"):
        slope = _split_slope(model, tokens.token_ids[0], text, pairs)
        for writer, change in changes.items():
            mine = values[f"{writer}->{text}"]
            assert mine == pytest.approx((change * slope).sum().item(), abs=2e-6)
            if writer.kind == "head":  # dz . (W_O g)
                delta = (other[Site("z", 0)] - own[Site("z", 0)])[0, :, writer.index]
                weight = _output_weight(model, 0)[writer.index]
                assert mine == pytest.approx((delta * (slope @ weight.T)).sum().item(), abs=2e-6)


def _output_weight(model: Model, layer: int) -> torch.Tensor:
    """``[head d_head d_model]``"""
    if model.hf.config.model_type == "gpt2":
        table = model.hf.transformer.h[layer].attn.c_proj.weight
    else:
        table = model.hf.model.layers[layer].self_attn.o_proj.weight.T
    return table.detach().unflatten(0, (model.n_heads, -1))


def _split_slope(model: Model, ids: Any, reader: str, pairs: PairSet) -> torch.Tensor:
    """Give the gradient of the metric with respect to a copy of the stream that only one reader gets."""
    hf, gpt = model.hf, model.hf.config.model_type == "gpt2"
    blocks = hf.transformer.h if gpt else hf.model.layers
    kind, *numbers = reader.split(".")
    extra = torch.zeros(1, len(ids), model.d_model, requires_grad=True)
    handles = []

    def shift(module: Any, args: Any) -> Any:
        return (args[0] + extra, *args[1:])

    if kind == "logits":
        norm = hf.transformer.ln_f if gpt else hf.model.norm
        handles.append(norm.register_forward_pre_hook(shift))
    elif kind == "mlp":
        block = blocks[int(numbers[0])]
        handles.append(
            (block.ln_2 if gpt else block.post_attention_layernorm).register_forward_pre_hook(shift)
        )
    else:
        block, head = blocks[int(numbers[0])], int(numbers[1])
        norm, seen = (block.ln_1 if gpt else block.input_layernorm), []
        handles.append(norm.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
        module = block.attn.c_attn if gpt else getattr(block.self_attn, f"{kind}_proj")
        start = ("qkv".index(kind) * model.d_model if gpt else 0) + head * model.d_head

        def only(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            moved = module.forward(norm.forward(seen[0] + extra))
            before, after = output[..., :start], output[..., start + model.d_head :]
            return torch.cat([before, moved[..., start : start + model.d_head], after], dim=-1)

        handles.append(module.register_forward_hook(only))
    try:
        logits = hf(torch.tensor([list(ids)])).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    value = logits[pairs.answer_ids[0][0]] - logits[pairs.foil_ids[0][0]]
    return torch.autograd.grad(value, extra)[0][0]


def test_projections_that_are_no_plain_layers_are_pulled_back_all_the_same() -> None:
    model = made()
    blocks = Blocks.of(model, [1, 5, 9])
    inner, site = torch.randn(2, 3, 32), Site("k", 1)
    slope = torch.randn(2, 3, 2, 8)
    plain = blocks.pulled(site, inner, slope)
    blocks._slices[site] = None
    assert torch.allclose(blocks.pulled(site, inner, slope), plain, atol=1e-5)
    assert torch.allclose(
        blocks.project(Site("k", 1, 1), inner), blocks.project(site, inner)[:, :, 1], atol=1e-5
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_small_changes_have_the_effects_that_are_estimated(family: str) -> None:
    """Oracle 6: near zero every model is linear; with a large change it is not."""
    hf = build(family)
    model = load(hf, tokenizer=tokenizer())
    pairs = pairs_of(model, 2)
    errors = []
    for scale in (1.0, 0.02):
        with torch.no_grad():  # bring the changed words' embeddings close to each other
            table = hf.get_input_embeddings().weight
            ids = sorted(
                {t for tokens in (pairs.clean, pairs.corrupt) for row in tokens.token_ids for t in row}
            )
            table[ids] = table[ids].mean(dim=0) + scale * (table[ids] - table[ids].mean(dim=0))
        guess = edge_attribution(model, pairs, verify=0)
        exact = mediation.exhaustive(model, pairs, guess.mediators[::15])
        pairs_of_values = [(guess.values[d][::15].mean(1), exact.values[d].mean(1)) for d in guess.values]
        errors.append(max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs_of_values))
    assert errors[1] < 0.1
    assert errors[1] < errors[0] / 3


def test_a_path_of_gradients_closes_the_gap_that_one_gradient_leaves() -> None:
    """Oracle 7: over embed's edges, gradients along the inputs add up to the total effect as steps grow."""
    model = load(build("gpt2", n_layer=2), tokenizer=tokenizer())
    pairs = pairs_of(model, 1)
    names = ["edge.*"]
    gaps = {}
    for steps in (1, 24):
        found = edge_attribution(model, pairs, names, slope="inputs", steps=steps, verify=0)
        embed = [at for at, edge in enumerate(found.mediators) if str(edge).startswith("embed->")]
        assert np.allclose(
            found.values["noising"], found.values["denoising"], atol=1e-5
        )  # one line, two ends
        gaps[steps] = np.abs(found.values["noising"][embed].sum(axis=0) - found.total).max()
    assert gaps[24] < 0.05 * gaps[1]
    left = edge_attribution(model, pairs, names, slope="inputs", steps=24, compat="mib", verify=0)
    summed = left.values["noising"][embed].sum(axis=0)
    assert np.abs(summed - left.total).max() > 3 * gaps[24]
    assert np.allclose(left.values["noising"], left.values["denoising"], atol=1e-5)
    whole = edge_attribution(model, pairs, names, slope="inputs", steps=1, compat="mib", verify=0)
    point = edge_attribution(model, pairs, names, verify=0)  # the corrupt end is where denoising starts
    assert np.allclose(whole.values["denoising"], point.values["denoising"], atol=1e-5)


def test_a_path_of_a_writers_own_value_is_exact_for_all_that_it_does() -> None:
    """The edges of one writer, along its own line, add up to the exact effect of replacing that writer."""
    model = made("gpt2")
    pairs = pairs_of(model, 2)
    edges = edge_attribution(model, pairs, "edge.mlp_out.0->*", slope="activations", steps=32, verify=0)
    exact = mediation.exhaustive(model, pairs, "mlp_out.0")
    point = edge_attribution(model, pairs, "edge.mlp_out.0->*", verify=0)
    for direction in edges.values:
        wanted = exact.values[direction][0]
        assert np.allclose(edges.values[direction].sum(axis=0), wanted, atol=2e-3)
        assert not np.allclose(point.values[direction].sum(axis=0), wanted, atol=2e-3)


def test_the_largest_are_verified_by_the_exact_search() -> None:
    model = made()
    pairs = pairs_of(model)
    found = edge_attribution(model, pairs, verify=4)
    exact = mediation.exhaustive(model, pairs, found.top(4))
    truth = dict(zip(map(str, exact.mediators), exact.mean(), strict=True))
    for row in found.verified.top:
        assert row.exact == pytest.approx(truth[row.mediator], abs=1e-5)
    assert found.verified.rank_correlation > 0.5
    assert isinstance(found.mediators[0], Edge)
    assert found.table()["mediator"][0] == str(found.top(1)[0])
    assert carriers_of([found.mediators[0].writer]) == [Site("embed")]


def test_slopes_that_do_not_add_up_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Blocks, "pulled", lambda self, site, inner, slope: 2 * _pulled(self, site, inner, slope)
    )
    model = made()
    with pytest.raises(ModelError, match=r"the slopes of what layer 0 of .* reads do not add up"):
        edge_attribution(model, pairs_of(model), verify=0)


_pulled = Blocks.pulled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "point"}, "path 'point', .* asked; paths: inputs, activations"),
        ({"compat": "eap"}, "compat: '' or 'mib'"),
        ({"steps": 0}, "steps: 1 or more"),
    ],
)
def test_what_there_is_not_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mediation.EdgeIntegratedGradients(**change)


@pytest.mark.parametrize("search", ["attribution", "eap-ig"])
def test_a_metric_without_a_gradient_is_refused(search: str) -> None:
    model = made()
    with pytest.raises(ConfigError, match="metric 'accuracy' has no gradient"):
        effects(model, pairs_of(model), "edge.*", search=search, metric="accuracy")
