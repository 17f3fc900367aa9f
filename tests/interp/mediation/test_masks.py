"""Learned masks against closed forms, finite differences, whole runs and planted circuits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import ConfigError
from interp.mediation import (
    GATES,
    SEARCHES,
    LearnedMask,
    MaskTraining,
    estimands,
    evaluate,
    experiment_of,
)
from interp.mediation.masks.gates import Bottleneck, HardConcrete, Uniform
from interp.mediation.masks.passes import masked_pass
from interp.mediation.masks.training import hard, schedule
from interp.mediation.noise import in_double
from interp.mediation.rankings import sign_stability
from interp.mediation.searches import effects
from tests.interp.mediation.edges.models import made, pairs_of
from tests.planted_heads import planted

ASKED: dict[str, Any] = {
    "nodes": ["head.*", "mlp_out.*"],
    "cells": ["neuron.1.*", "resid_post.0"],
    "groups": "kv.*",
    "edges": "edge.*",
}
ODDS = torch.linspace(-4, 4, 9)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_expected_number_of_hard_concrete_gates_is_its_closed_form() -> None:
    gate = HardConcrete()
    drawn = gate.draw(ODDS, 40_000, generator())
    assert torch.allclose((drawn > 0).float().mean(dim=0), gate.kept(ODDS), atol=0.01)
    assert float((drawn == 0).float().mean()) > 0.05 and float((drawn == 1).float().mean()) > 0.05
    assert not torch.allclose(gate.kept(ODDS), torch.sigmoid(ODDS), atol=0.05)  # the stretch counts
    assert torch.allclose(gate.kept(gate.start(3)), torch.full((3,), 0.9))


def test_uniform_gates_have_the_slope_of_the_expected_loss() -> None:
    """The expectation of a curved loss over open and shut gates, differentiated by hand."""
    odds = torch.tensor([-1.0, 0.5, 2.0]).requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5])

    def loss(gates: torch.Tensor) -> torch.Tensor:
        return ((gates * weights).sum(dim=1) - 0.3) ** 2

    drawn = Uniform().draw(odds, 400_000, generator())
    [found] = torch.autograd.grad(loss(drawn).mean(), odds)
    # the other gates are uniform with probability p (1 - p) too: mean p, variance of that mixture
    p = torch.sigmoid(odds.detach())
    between = p * (1 - p)
    mean = between / 2 + (1 - between) * p
    wanted = torch.stack(
        [
            between[at]
            * weights[at]
            * (weights[at] + 2 * ((mean * weights).sum() - mean[at] * weights[at] - 0.3))
            for at in range(3)
        ]
    )
    assert torch.allclose(found, wanted, atol=0.02)
    assert wanted.abs().min() > 0.03


def test_what_passes_a_bottleneck_is_the_divergence_from_noise() -> None:
    """Per feature: KL of N(s z + (1 - s) m, (1 - s)^2 v) from N(m, v), averaged over z of that spread."""
    z = 3.0 + 2.0 * torch.randn(200_000, generator=generator())
    z = 3.0 + 2.0 * (z - z.mean()) / z.std(correction=0)
    for odds in (-1.0, 0.0, 2.0):
        s = float(torch.sigmoid(torch.tensor(odds)))
        through = torch.distributions.Normal(s * z + (1 - s) * 3.0, (1 - s) * 2.0)
        nats = torch.distributions.kl_divergence(through, torch.distributions.Normal(3.0, 2.0)).mean()
        assert float(Bottleneck().kept(torch.tensor([odds]))) == pytest.approx(float(nats), abs=1e-4)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("what", ASKED)
def test_open_gates_are_one_run_and_shut_gates_the_replaced_one(what: str, direction: str) -> None:
    model = made("llama")
    pairs = pairs_of(model)[[0, 1]]
    asked = experiment_of(model, pairs, ASKED[what], directions=direction, positions="all")
    run, n = masked_pass(asked, direction), len(asked.mediators)
    clean, corrupt = model.logits(pairs.clean), model.logits(pairs.corrupt)
    with torch.no_grad():
        opened = run.logits([0, 1], torch.ones(2, n), generator())
        shut = run.logits([0, 1], torch.zeros(2, n), generator())
    own, other = (opened, shut) if direction == "noising" else (shut, opened)
    assert torch.equal(own, clean if direction == "noising" else corrupt)
    replaced = asked.replaced([asked.mediators], direction).values[0]
    assert np.allclose(asked.values(other.detach(), asked.targets), replaced, atol=1e-5)
    assert not torch.allclose(own, other, atol=1e-3)


@pytest.mark.parametrize("what", ["nodes", "edges"])
def test_a_hard_mask_is_the_exact_replacement_of_what_it_shuts(what: str) -> None:
    model = made("gpt2")
    asked = experiment_of(model, pairs_of(model), ASKED[what], directions="noising")
    run = masked_pass(asked, "noising")
    kept = torch.rand(len(asked.mediators), generator=generator()) < 0.7
    with torch.no_grad():
        found = run.logits([2], kept.float()[None], generator())
    rest = [one for one, keep in zip(asked.mediators, kept.tolist(), strict=True) if not keep]
    wanted = asked.replaced([rest], "noising").values[0, 2]
    assert asked.values(found.detach(), asked.targets.rows(torch.tensor([2])))[0] == pytest.approx(
        wanted, abs=1e-5
    )


@pytest.mark.parametrize("what", ["nodes", "edges"])
def test_slopes_of_gates_are_finite_differences(what: str) -> None:
    model = made("llama")
    pairs = pairs_of(model)[[0]]
    with in_double(model):
        asked = experiment_of(model, pairs, ASKED[what], directions="noising")
        run, n = masked_pass(asked, "noising"), len(asked.mediators)
        gates = torch.rand(1, n, generator=generator()).double().requires_grad_()
        [slope] = torch.autograd.grad(run.logits([0], gates, generator())[0, 55].double(), gates)
        for at in (0, n // 2, n - 1):
            step = torch.zeros(1, n).double()
            step[0, at] = 1e-3
            with torch.no_grad():
                up, down = (run.logits([0], gates + way * step, generator())[0, 55] for way in (1, -1))
            assert float(slope[0, at]) == pytest.approx(float(up - down) / 2e-3, abs=2e-3)
    assert float(slope.abs().max()) > 0.01


def test_noise_is_put_in_with_the_sites_own_mean_and_spread() -> None:
    model = made("gpt2")
    asked = experiment_of(model, pairs_of(model), "mlp_out.*", directions="noising")
    run = masked_pass(asked, "noising", noisy=True)
    read = model.capture(asked.pairs.clean, "mlp_out.1", "all")["mlp_out.1"]
    inside = torch.cat([row[:n] for row, n in zip(read, asked.pairs.lengths, strict=True)])
    mean, spread = run._spread[asked.mediators[1].site]  # type: ignore[attr-defined]
    assert torch.allclose(mean, inside.mean(0), atol=1e-6) and torch.allclose(
        spread, inside.std(0, correction=0)
    )
    with torch.no_grad():
        intact = run.logits([0], torch.ones(1, 3), generator())
        first, again = (run.logits([0], torch.zeros(1, 3), generator(seed)) for seed in (1, 1))
        other = run.logits([0], torch.zeros(1, 3), generator(2))
    assert torch.equal(intact, model.logits(asked.pairs[[0]].clean))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-3)


FOUND = {
    ("hard-concrete", "edges"): ("induction", "copy", "composition"),
    ("uniform-gates", "nodes"): ("composition", "induction"),
    ("bottleneck", "nodes"): ("composition",),
}


@pytest.mark.parametrize(
    ("gate", "what", "name"),
    [
        pytest.param(*key, name, marks=[pytest.mark.slow] if at else [])
        for key, names in FOUND.items()
        for at, name in enumerate(names)
    ],
)
def test_masks_find_the_planted_circuit(gate: str, what: str, name: str) -> None:
    """The hard mask is the planted circuit and no more, and keeps what the model does, on other pairs too."""
    truth, row = planted(name), SEARCHES[gate]
    assert isinstance(row, LearnedMask)
    training = MaskTraining(steps=100, batch=6 if what == "edges" else 12, price=row.training.price)
    search = LearnedMask(gate=row.gate, training=training, verify=0)
    told = effects(truth.model, truth.pairs, ASKED[what], search=search, directions="noising")
    gates = told.values["noising"].mean(axis=1) / told.total.mean()
    kept = {str(one) for one, open_ in zip(told.mediators, gates, strict=True) if open_ > 0.5}
    assert kept == set(truth.edges if what == "edges" else truth.heads)
    assert told.cost["noising"]["hard"]["kept"] == len(kept)
    assert told.cost["noising"]["hard"]["faithfulness"] == pytest.approx(1, abs=0.05)
    others = planted(name, seed=0).pairs.swap()
    quick: Any = {"knockouts": 0, "removals": 0, "controls": (), "random_circuits": 1}
    held = evaluate(truth.model, others, list(told.top(len(kept))), universe=ASKED[what], **quick)
    assert held.faithfulness.value == pytest.approx(1, abs=0.1)
    assert held.random.value < 0.7


def test_a_density_is_kept_and_runs_with_other_noise_agree() -> None:
    truth = planted("induction")
    training = MaskTraining(steps=80, density=0.2)
    search = LearnedMask(training=training, verify=0, runs=2)
    told = effects(truth.model, truth.pairs, ASKED["nodes"], search=search, directions="noising")
    assert {str(one) for one in told.top(2)} == set(truth.heads)
    assert told.cost["noising"]["hard"]["kept"] == 2
    assert told.cost["noising"]["agreement"] == 1.0


def test_nothing_is_kept_where_the_price_is_too_high_and_all_where_it_is_nothing() -> None:
    model = made("gpt2")
    pairs = pairs_of(model)
    for price, wanted in ((50.0, 0), (0.0, 15)):
        search = LearnedMask(training=MaskTraining(steps=40, price=price), verify=0)
        told = effects(model, pairs, ASKED["nodes"], search=search, directions="noising")
        assert told.cost["noising"]["hard"]["kept"] == wanted
    assert told.cost["noising"]["hard"]["faithfulness"] == pytest.approx(1)


def test_a_step_has_prompts_of_one_length_and_every_pair_has_its_turn() -> None:
    model = made("gpt2")
    asked = experiment_of(model, pairs_of(model, 5), "head.*")
    steps = schedule(asked, MaskTraining(steps=12, batch=2))
    assert len(steps) == 12 and {len({asked.pairs.lengths[at] for at in rows}) for rows in steps} == {1}
    assert {at for rows in steps for at in rows} == set(range(5))
    assert steps == schedule(asked, MaskTraining(steps=12, batch=2))


def test_what_cannot_be_masked_is_refused() -> None:
    model = made("gpt2")
    pairs = pairs_of(model)
    with pytest.raises(ConfigError, match=r"shares a part of 'z\.1'"):
        effects(model, pairs, ["head.1.0", "z.1"], search="hard-concrete")
    with pytest.raises(ConfigError, match=r"density=0\.5 asked of gate 'bottleneck'"):
        LearnedMask(gate=GATES["bottleneck"], training=MaskTraining(density=0.5))
    with pytest.raises(ConfigError, match="steps=0"):
        LearnedMask(training=MaskTraining(steps=0))
    with pytest.raises(ConfigError, match="runs=0 asked"):
        LearnedMask(runs=0)
    with pytest.raises(ConfigError, match=r"edges were asked for .* exhaustive, attribution, .*eap-ig"):
        effects(model, pairs, "edge.*->logits", search="bottleneck")
    assert hard(np.array([0.6, 0.4, 0.9]), MaskTraining()) == [0, 2]
    assert hard(np.array([0.6, 0.4, 0.9]), MaskTraining(density=0.4)) == [2]


def test_closed_gates_are_no_effects_told_from_chance() -> None:
    """The total effect is clear, and nothing may be told by it; the verdict counts what is kept."""
    truth = planted("induction")
    for price in (50.0, 0.0):
        search = LearnedMask(training=MaskTraining(steps=40, price=price))
        told = effects(truth.model, truth.pairs, ASKED["nodes"], search=search, directions="noising")
        open_ = told.cost["noising"]["hard"]["kept"]
        assert (open_ == 0) == (price == 50.0)
        assert told.differs and not told.told
        assert {row[end] for row in told.rows for end in ("low", "high", "q")} == {None}
        assert sum(row["remark"] == "kept by noising" for row in told.rows) == open_
        kept = told.cost["noising"]["hard"]["faithfulness"]
        assert f"keeps {open_} of 10 mediators by noising (faithfulness {kept:z.2f})" in told.verdict()
        assert "q at most" not in told.verdict() and "on other pairs" in told.verdict()
        assert "estimated" not in " ".join(one.meaning for one in told.numbers())
        assert [one.name for one in told.findings()] == ["total effect"]
        assert told.figures() and "largest scores" in told.tables()[1].note
    assert told.masks["noising"]["faithfulness"] > 0.9
    with pytest.raises(ConfigError, match="learned a gate of it"):
        told.estimate(told.mediators[0])
    with pytest.raises(ConfigError, match="no effect of replacing it by itself"):
        estimands(told, told.mediators[0])
    with pytest.raises(ConfigError, match="its gates are of all pairs at once"):
        sign_stability(told)
    exact = effects(truth.model, truth.pairs, ASKED["nodes"], directions="noising")
    assert exact.told and not exact.masks and sign_stability(exact).max() == 1  # real effects are told
