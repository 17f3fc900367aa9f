"""A frozen run: what a node reads is the sum of its edges and a bias, by formulas in plain torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import InterpError
from interp.mediation.graphs.frozen import FrozenRun
from interp.mediation.graphs.influence import flow
from interp.mediation.graphs.outputs import Outputs
from interp.mediation.graphs.sources import Source
from interp.models.model import Model
from interp.sites import Site
from tests.dictionaries import random_dictionary, transcoder
from tests.tiny import build, tiny, tokenizer

IDS = [5, 6, 7, 8, 9]


@cache
def model(family: str) -> Model:
    hf, words = tiny(family)
    return interp.load(hf, tokenizer=words)


def run_of(given: Model, *, neurons: int = 8, frozen: bool = True) -> FrozenRun:
    return FrozenRun.of(given, IDS, Outputs.likeliest(given, IDS), neurons=neurons, frozen=frozen)


def followed(run: FrozenRun) -> list[Source | int]:
    return [*range(len(run.outputs.tokens)), *(one for one in run.sources.parts if one.followed)]


def off(run: FrozenRun) -> float:
    """How far the law is broken at worst, relative to the value."""
    readings = [run.reading(one) for one in followed(run)]
    return max(
        abs(float(one.weights.sum()) + one.bias - one.value) / max(abs(one.value), 1e-2) for one in readings
    )


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "gpt_neox", "gpt_neox_sequential", "granite", "qwen3", "bloom", "opt", "phi"]
)
def test_incoming_edges_and_the_bias_add_up_to_the_value(family: str) -> None:
    assert off(run_of(model(family))) < 1e-5


@pytest.mark.parametrize("family", ["llama", "granite", "qwen3"])
def test_without_biases_the_edges_alone_add_up(family: str) -> None:
    run = run_of(model(family))
    for one in followed(run):
        reading = run.reading(one)
        assert float(reading.weights.sum()) == pytest.approx(reading.value, rel=1e-4, abs=1e-4)
    plain = run_of(model(family), frozen=False)  # the control: a plain gradient has no such sums
    gaps = [
        abs(float(plain.reading(one).weights.sum()) - plain.reading(one).value) for one in followed(plain)
    ]
    assert max(gaps) > 0.1


def by_hand(run: FrozenRun, layer: int) -> dict[Source, tuple[Tensor, float]]:
    """Weights and biases of the neurons of a GPT-2 block, by its formula."""
    hf: Any = run.model.hf
    block = hf.transformer.h[layer]
    stream = run.values[Site("resid_mid", layer)][0].detach().double()
    scale = (stream.var(dim=-1, unbiased=False) + block.ln_2.eps).sqrt()
    found = {}
    for one in run.sources.parts:
        if one.kind != "neuron" or one.layer != layer:
            continue
        at = one.position
        column, gain = block.mlp.c_fc.weight[:, one.index].double(), block.ln_2.weight.double()
        own = float(block.ln_2.bias.double() @ column + block.mlp.c_fc.bias[one.index].double())
        pre = float(((stream[at] - stream[at].mean()) / scale[at] * gain) @ column) + own
        ratio = float(run.values[Site("mlp_act", layer)][0, at, one.index]) / pre
        reach = run.reading(one).reach
        writes = run.sources.writes[reach]
        weights = ratio * ((writes - writes.mean(dim=-1, keepdim=True)) * gain / scale[at]) @ column
        here = torch.tensor([other.position == at for other in run.sources.parts[reach]])
        through = sum(
            float((bias - bias.mean()) / scale[at] * gain @ column)
            for order, bias in run.sources.biases.items()
            if order <= 4 * layer + 3
        )
        found[one] = weights * here, ratio * (own + through)
    return found


def test_edges_of_neurons_are_those_of_the_formula() -> None:
    run = run_of(model("gpt2"))
    with torch.no_grad():
        for layer in range(3):
            for part, (weights, bias) in by_hand(run, layer).items():
                reading = run.reading(part)
                torch.testing.assert_close(reading.weights, weights, rtol=1e-4, atol=1e-5)
                assert reading.bias == pytest.approx(bias, rel=1e-4, abs=1e-5)


def test_heads_read_their_values_through_the_held_pattern() -> None:
    run = run_of(model("llama"))
    given: Any = run.model.hf
    layer, head, at = 1, 3, 4
    block = given.model.layers[layer]
    read = run.model.capture([IDS], ["pattern.1", "resid_pre.1"], "all")
    stream = read["resid_pre.1"][0].double()
    scale = (stream.square().mean(dim=-1) + block.input_layernorm.variance_epsilon).sqrt()
    into = block.self_attn.v_proj.weight.detach().double().unflatten(0, (2, 8))[head // 2]
    out = block.self_attn.o_proj.weight.detach().double()[:, 8 * head : 8 * head + 8]
    along = run.along[Site("attn_out", layer)][at].double()
    reading = run.reading(Source("head", layer, head, at))
    for place, part in enumerate(run.sources.parts[reading.reach]):
        write = run.sources.writes[reading.reach.start + place]
        normed = write * block.input_layernorm.weight.detach().double() / scale[part.position]
        seen = float(read["pattern.1"][0, at, head, part.position])
        expected = float(along @ out @ into @ normed) * seen
        assert float(reading.weights[place]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_neuron_that_is_zero_has_no_edges() -> None:
    hf = build("gpt2", activation_function="relu")
    run = run_of(interp.load(hf, tokenizer=tokenizer()))
    acts = run.values[Site("mlp_act", 1)][0].detach()
    silent = (acts == 0).nonzero().tolist()
    assert silent
    at, index = silent[0]
    reading = run.reading(Source("neuron", 1, index, at))
    assert reading.value == 0.0 and reading.bias == 0.0 and not bool(reading.weights.any())
    chosen = [one for one in run.sources.parts if one.kind == "neuron" and one.layer == 1]
    assert chosen and all(acts[one.position, one.index] > 0 for one in chosen)


def paths(run: FrozenRun, shares: dict[int, Tensor], key: int, amount: float, total: Tensor) -> None:
    """Walk every path back from a target, adding what arrives at each source."""
    reading = run.reading(-1 - key if key < 0 else run.sources.parts[key])
    for at, share in enumerate(shares[key].tolist(), start=reading.reach.start):
        total[at] += amount * share
        if at in shares and share:
            paths(run, shares, at, amount * share, total)


def test_influence_is_the_sum_over_all_paths_and_the_inverse() -> None:
    hf = build("llama", num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, hidden_size=16)
    given = interp.load(hf, tokenizer=tokenizer())
    ids = IDS[:2]
    run = FrozenRun.of(given, ids, Outputs.likeliest(given, ids), neurons=3)
    found = flow(run, least=0.0)
    shares = dict(found.shares)
    n, total = len(run.sources.parts), torch.zeros(len(run.sources.parts), dtype=torch.float64)
    for number, weight in enumerate(run.outputs.weights.tolist()):
        paths(run, shares, -1 - number, weight, total)
    torch.testing.assert_close(found.influence, total, rtol=1e-5, atol=1e-7)
    matrix, first = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for key, row in shares.items():
        reading = run.reading(-1 - key if key < 0 else run.sources.parts[key])
        if key < 0:
            first[reading.reach] += float(run.outputs.weights[-1 - key]) * row
        else:
            matrix[key, reading.reach] = row
    inverse = torch.linalg.inv(torch.eye(n, dtype=torch.float64) - matrix)
    torch.testing.assert_close(found.influence, inverse.T @ first, rtol=1e-5, atol=1e-7)
    assert sum(found.ends.values()) == pytest.approx(1.0) and found.ends["unfollowed"] == 0.0
    less = flow(run, least=0.0, most=2)
    assert less.ends["unfollowed"] > 0.1 and sum(less.ends.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "dictionary",
    [
        random_dictionary(site="mlp_out.1"),
        random_dictionary(site="mlp_out.1", activation="topk"),
        random_dictionary(site="resid_post.1", activation="jumprelu"),
        transcoder(),
    ],
    ids=["mlp", "topk", "stream", "transcoder"],
)
def test_features_and_their_errors_are_nodes_of_the_same_law(dictionary: Any) -> None:
    given = model("llama").with_dictionaries(dictionary)
    run = run_of(given)
    kinds = {one.kind for one in run.sources.parts if one.layer == 1}
    assert {"feature", "error"} <= kinds
    assert off(run) < 1e-5
    errors = run.values[Site("error", 1)][0].detach().double()
    rows = {one: write for one, write in zip(run.sources.parts, run.sources.writes, strict=True)}
    for at, error in enumerate(errors):
        torch.testing.assert_close(rows[Source("error", 1, None, at)], error, rtol=1e-4, atol=1e-5)
    if dictionary.skip is not None:  # by hand: the norm of the stream, through the map
        hf: Any = run.model.hf
        normed = hf.model.layers[1].post_attention_layernorm(run.values[Site("resid_mid", 1)][0])
        for at, skip in enumerate((normed @ dictionary.skip.T).detach().double()):
            torch.testing.assert_close(rows[Source("skip", 1, None, at)], skip, rtol=1e-4, atol=1e-5)
        assert flow(run).ends["skip"] > 0
    assert ("skip" in kinds) == (dictionary.skip is not None)
    features = [one for one in followed(run) if isinstance(one, Source) and one.kind == "feature"]
    assert any(run.reading(one).value > 0.1 for one in features)
    last = run.reading(0)
    early = {one.kind for one in run.sources.parts[last.reach] if one.layer in (None, 0)}
    assert bool(early) != (
        dictionary.site_in.kind == "resid_post"
    )  # a stream's features are all that is read


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("gemma2", "caps its logits"),
        ("olmo2", "is not the sum of what heads and MLPs write"),
        ("mixtral", "no module was found for 'mlp_act'"),
    ],
)
def test_what_cannot_be_made_linear_is_refused(family: str, message: str) -> None:
    with pytest.raises(InterpError, match=message):
        run_of(model(family))
    normed = random_dictionary(site="mlp_out.1", norm="layer-norm")
    with pytest.raises(InterpError, match="cannot be held"):
        run_of(model("llama").with_dictionaries(normed))
    with pytest.raises(InterpError, match="Heads are nodes of their own"):
        run_of(model("llama").with_dictionaries(random_dictionary(site="attn_out.1")))
    for changed in ({"site_in": Site("resid_pre", 1)}, {"site_out": Site("mlp_out", 2)}):
        with pytest.raises(InterpError, match="transcoders that read what the MLP of their own block reads"):
            run_of(model("llama").with_dictionaries(replace(transcoder(), **changed)))
    with pytest.raises(InterpError, match="read one stream, the MLP 'resid_pre' through a norm of its own"):
        model("gpt_neox").with_dictionaries(transcoder())
