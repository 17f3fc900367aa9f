"""Causal tracing and windows of layers against plain PyTorch hooks, and a model whose circuit is planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, SiteError
from interp.mediation import Mediator, experiment_of, plan
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.noised_experiment import NoisedExperiment
from interp.mediation.searches import SEARCHES, effects
from interp.models.loading import untrained_model
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.sites import Site
from tests.interp.mediation.edges.models import made, pairs_of
from tests.interp.mediation.quick import quick
from tests.planted_heads import planted

SUBJECT = (2, 4)
"""Where the pairs of these tests differ; token 4 is at times the same."""


def tracing(model: Model, pairs: PairSet, names: Any, **asked: Any) -> NoisedExperiment:
    found = experiment_of(model, pairs, names, **{"replacement": "subject-noise:2", "seed": 3, **asked})
    assert isinstance(found, NoisedExperiment)
    return found


class Hooked:
    """A tiny Llama run by plain hooks: noise on embeddings, MLP outputs of some blocks read or written."""

    def __init__(self, model: Model) -> None:
        self.hf = model.hf

    def __call__(
        self, ids: tuple[int, ...], embeddings: torch.Tensor, put: dict[int, tuple[Any, torch.Tensor]]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits after the last token and every MLP's output, with values put in at some positions."""
        read: list[torch.Tensor] = []

        def write(layer: int, out: torch.Tensor) -> torch.Tensor:
            if layer in put:
                out = out.clone()
                where, value = put[layer]
                out[0, where] = value[where]
            read.append(out[0])
            return out

        hooks = [
            block.mlp.register_forward_hook(lambda m, a, out, at=at: write(at, out))
            for at, block in enumerate(self.hf.model.layers)
        ]
        hooks.append(self.hf.model.embed_tokens.register_forward_hook(lambda *_: embeddings[None]))
        try:
            with torch.no_grad():
                return self.hf(torch.tensor([list(ids)])).logits[0, -1], read
        finally:
            for hook in hooks:
                hook.remove()


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_effects_are_those_of_plain_hooks(direction: str) -> None:
    model = made("llama")
    pairs, run = pairs_of(model), Hooked(model)
    asked = tracing(model, pairs, ["window:2@mlp_out.0", "mlp_out.1"], positions=3, directions=direction)
    assert [str(one) for one in asked.mediators] == ["window:2@mlp_out.0@3", "mlp_out.1@3"]
    found = asked.each()
    table = run.hf.model.embed_tokens.weight.detach()
    targets = Targets.of(pairs, table.device)
    wanted = np.zeros((2, len(pairs)))
    for at, ids in enumerate(pairs.clean.token_ids):
        plain = table[list(ids)]
        pad = torch.zeros(len(pairs), max(pairs.lengths), plain.shape[1])
        for draw in range(10):
            pad[at, : len(ids)] = plain
            noised = asked.noise.added(pad, draw)[at, : len(ids)]
            _, clean = run(ids, plain, {})
            rows = {"denoising": (noised, clean), "noising": (plain, run(ids, noised, {})[1])}
            base, put = rows[direction]
            before = run(ids, base, {})[0]
            for row, layers in enumerate(((0, 1), (1,))):
                after = run(ids, base, {layer: ([3], put[layer]) for layer in layers})[0]
                both = torch.stack([before, after])
                one, two = METRICS["logit-diff"].values(both, targets.rows(torch.tensor([at, at])))
                wanted[row, at] += float(two - one if direction == "denoising" else one - two) / 10
    assert np.allclose(found.values[direction], wanted, atol=1e-5)
    assert np.abs(wanted).min(axis=1).max() > 1e-3 and np.abs(wanted[0] - wanted[1]).max() > 1e-3


def test_noise_is_on_the_subject_alone_of_the_stated_size_and_a_pair_keeps_its_own() -> None:
    model = made("llama")
    pairs = pairs_of(model, 6)
    asked = tracing(model, pairs, "mlp_out.*")
    for places, clean, corrupt in zip(
        asked.noise.tokens, pairs.clean.token_ids, pairs.corrupt.token_ids, strict=True
    ):
        assert set(places) <= set(SUBJECT)
        assert all((clean[at] != corrupt[at]) == (at in places) for at in range(len(clean)))
    read = model.capture(pairs.clean, "embed", "all")["embed"]
    there = torch.cat([read[at, list(own)] for at, own in enumerate(asked.noise.tokens)])
    assert asked.noise.size == pytest.approx(2 * float(there.std(correction=0)), rel=1e-5)
    added = torch.stack([asked.noise.added(read, draw) - read for draw in range(10)])
    inside = torch.zeros(read.shape[:2], dtype=torch.bool)
    for at, own in enumerate(asked.noise.tokens):
        inside[at, list(own)] = True
    assert not added[:, ~inside].any()
    drawn = added[:, inside] / asked.noise.size
    assert float(drawn.std()) == pytest.approx(1, abs=0.05) and abs(float(drawn.mean())) < 0.05
    flat = drawn.flatten(0, 1)
    assert len({tuple(row.tolist()) for row in flat}) == len(flat)  # every draw and pair has its own
    few = asked.part([0], [4, 1])
    assert torch.equal(few.noise.added(read[[4, 1]], 2), asked.noise.added(read, 2)[[4, 1]])
    assert not torch.equal(tracing(model, pairs, "mlp_out.*", seed=4).noise.added(read, 0), added[0] + read)


def test_restoring_the_embeddings_brings_everything_back_and_tokens_before_nothing() -> None:
    model = made("gpt2")
    pairs = pairs_of(model)
    whole = effects(model, pairs, "resid_pre.0", replacement="subject-noise", positions="all")
    for direction in whole.directions:
        assert np.allclose(whole.values[direction][0], whole.total, atol=1e-5)
    assert np.abs(whole.total).min() > 1e-2
    other = experiment_of(model, pairs, "resid_pre.0", positions="all")
    assert not np.allclose(other.corrupt, whole.corrupt, atol=1e-2)  # not the pair's other prompt
    each = effects(model, pairs, "resid_post.*", replacement="subject-noise", positions="each")
    before = [at for at, one in enumerate(each.mediators) if one.position == -7]
    assert not each.per_pair()[before].any() and each.per_pair().any()
    assert each.beside is not None and each.number("other-noise").value == pytest.approx(each.beside.mean())
    for seed in range(8):
        beside = tracing(model, pairs, ["resid_pre.0"], replacement="other-noise", seed=seed).noise
        lengths = map(len, pairs.clean.token_ids)
        assert all(places[-1] < n - 1 for places, n in zip(beside.tokens, lengths, strict=True))
    assert np.abs(each.beside - each.total).max() > 1e-2
    assert any("noise of" in text and "10 draws" in text for text in each.warnings)


def test_a_control_on_fewer_tokens_than_the_subject_says_so() -> None:
    model = made("llama")
    long = Pair("w01 w02 w03 w04 w05 w06", "w01 w12 w13 w14 w15 w06", ("w55",), ("w56",), "word", "a")
    short = Pair("w01 w02 w03 w04 w05 w07", "w01 w02 w13 w04 w05 w07", ("w55",), ("w56",), "word", "b")
    for given, wanted in (
        ([long], "fewer other tokens (1 for the subjects' 4 over all pairs"),
        ([long, short], "fewer other tokens (2 for the subjects' 5 over all pairs"),
        ([short], "on as many random other tokens takes"),
    ):
        pairs = PairSet.build(model, given)
        told = effects(model, pairs, ["mlp_out.1"], replacement="subject-noise", directions="denoising")
        [said] = [text for text in told.warnings if "the same noise on" in text]
        assert wanted in said
        assert ("as many" in said) == (given == [short])


def test_planted_head_brings_the_subject_back() -> None:
    """Little noise, since this model's embeddings are of very different sizes."""
    truth = planted("copy")
    asked: dict[str, Any] = {"directions": "denoising"}
    told = effects(truth.model, truth.pairs, "head.*", replacement="subject-noise:0.03", **asked)
    share = dict(zip(map(str, told.mediators), told.normalised(), strict=True))
    assert {name for name, part in share.items() if part > 0.9} == truth.heads
    assert max(abs(part) for name, part in share.items() if name not in truth.heads) < 0.2
    assert told.beside is not None and told.beside.mean() < 0.7 * told.total.mean()
    assert told.untrained is not None
    largest = told.untrained.mean()[np.abs(told.untrained.mean()).argmax()]
    assert f"Untrained: {largest:.2g} logits at most" in told.verdict() and abs(largest) < 0.1
    moved = effects(truth.model, truth.pairs, "head.*", replacement="other-noise:0.03", **asked)
    assert np.allclose(moved.total, told.beside, atol=1e-5) and moved.beside is None


def test_a_window_is_its_layers_together_with_every_replacement() -> None:
    model = made("llama")
    pairs = pairs_of(model)
    parts = [Mediator(Site("mlp_out", layer)) for layer in (0, 1)]
    for replacement in ("interchange", "zero", "pooled-mean", "subject-noise"):
        asked = experiment_of(model, pairs, ["window:2@mlp_out.0", *parts], replacement=replacement)
        wide = next(one for one in asked.mediators if one.window == 2)
        for direction in asked.directions:
            found = asked.replaced([[wide], parts], direction).values
            assert np.allclose(found[0], found[1], atol=1e-6), replacement
            alone = asked.replaced([parts[:1]], direction).values
            assert np.abs(found[0] - alone[0]).max() > 1e-4
    guess = mediation.attribution(model, pairs, ["window:2@mlp_out.0", "mlp_out.*"], verify=0)
    first, second, wide_row = (
        guess.mean()[guess.place(n)] for n in ("mlp_out.0", "mlp_out.1", "window:2@mlp_out.0")
    )
    assert wide_row == pytest.approx(first + second, rel=1e-5)


def test_the_untrained_twin_gets_the_same_noise_relative_to_its_own_embeddings() -> None:
    model = made("llama")
    pairs, twin = pairs_of(model), untrained_model(model)
    asked: dict[str, Any] = {"replacement": "subject-noise:2", "directions": "denoising"}
    told = effects(model, pairs, "resid_mid.*", **asked)
    alone = effects(twin, pairs, "resid_mid.*", **asked)
    assert told.untrained is not None and alone.untrained is None  # which is untrained itself
    assert np.array_equal(told.untrained.per_pair(), alone.per_pair())
    assert np.array_equal(told.untrained.total, alone.total) and np.abs(alone.total).min() > 0
    assert np.abs(told.per_pair() - alone.per_pair()).max() > 1e-2
    beside = tracing(model, pairs, "resid_mid.*").untrained()
    assert beside is not None
    read = twin.capture(pairs.clean, "embed", "all")["embed"]
    there = torch.cat([read[at, list(own)] for at, own in enumerate(beside.noise.tokens)])
    assert beside.noise.size == pytest.approx(2 * float(there.std(correction=0)), rel=1e-5)
    assert beside.noise.size != pytest.approx(tracing(model, pairs, "resid_mid.*").noise.size, rel=0.1)
    largest = alone.estimate(alone.top(1)[0]).value
    assert told.number("untrained-largest").value == largest
    assert told.number("untrained-total").value == pytest.approx(alone.total.mean())
    assert {row["mediator"]: row["untrained"] for row in told.rows} == pytest.approx(
        dict(zip(map(str, alone.mediators), alone.mean(), strict=True))
    )
    # not the whole stream for zero: after a stream of zeros the norm makes of rounding what a check refuses
    for options in ({"replacement": "other-noise:2"}, {"replacement": "zero"}, {}):
        plain = effects(model, pairs, "mlp_out.0", **options)
        assert plain.untrained is None and "untrained" not in plain.rows[0]


def test_names_costs_and_what_is_refused() -> None:
    model = made("llama")
    pairs = pairs_of(model)
    told = effects(model, pairs, "window:2@resid_post.*", replacement="subject-noise", positions=-1)
    assert told.replacement == "subject-noise:3" and told.exact
    assert [Mediator.parse(str(one)) for one in told.mediators] == list(told.mediators)
    assert str(told.mediators[0]) == "window:2@resid_post.0@-1" and told.mediators[0].layer == 0
    assert any("window:2@resid_post.0@-1 is layers 0 to 1 together" in text for text in told.warnings)
    planned = plan(model, pairs, "window:2@resid_post.*", replacement="subject-noise", positions=-1)
    ran = sum(part["forwards"] for part in told.cost.values())
    assert {"untrained, denoising", "untrained, noising", "noise on other tokens"} < set(told.cost)
    assert planned.exact and planned.forwards == pytest.approx(ran, rel=0.01)
    for names, message in (
        ("window:9@mlp_out.*", "with W from 1 to 3 layers"),
        ("window:2@head.*", "a window of 'head.0.0' was asked for"),
        ("window:2@mlp_out.2", "names no 2 layers in a row"),
    ):
        with pytest.raises(SiteError, match=message):
            effects(model, pairs, names)
    noise: dict[str, Any] = {"replacement": "subject-noise"}
    refused: tuple[tuple[Any, dict[str, Any], str], ...] = (
        ("embed", noise, "resid_pre.0"),
        ("edge.*->logits", noise, "the noise is at the embeddings"),
        ("mlp_out.*", {**noise, "metric": "answer-log-odds"}, "measures first tokens"),
        ("mlp_out.*", {"replacement": "subject-noise:0"}, "needs a number above 0"),
        ("mlp_out.*", {**noise, "search": "attribution"}, "Those that do: exhaustive, shapley"),
    )
    for name, options, message in refused:
        with pytest.raises(ConfigError, match=message):
            effects(model, pairs, name, **options)
    with pytest.raises(ConfigError, match="is a window of layers; windows overlap"):
        mediation.evaluate(model, pairs, ["window:2@mlp_out.0"], universe=["window:2@mlp_out.0"])
    taken = [name for name, row in SEARCHES.items() if "windows" in row.over]
    assert taken == ["exhaustive", "attribution", "relp", "gim"]
    for name in set(SEARCHES) - set(taken):
        with pytest.raises(ConfigError, match=r"window|edges|edge"):
            effects(model, pairs, "window:2@mlp_out.*", search=quick(name))
