"""Constants of optimal ablation: the mean where the loss is a square, a grid's best where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError
from interp.mediation import experiment_of, plan
from interp.mediation.optimal_experiment import OptimalExperiment, divergence, fitted
from interp.mediation.searches import SEARCHES, effects
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site
from tests.interp.mediation.edges.models import made, pairs_of
from tests.interp.mediation.quick import quick
from tests.tiny import build, tokenizer


def optimal(model: Model, pairs: PairSet, names: Any, replacement: str, **asked: Any) -> OptimalExperiment:
    found = experiment_of(model, pairs, names, replacement=replacement, **asked)
    assert isinstance(found, OptimalExperiment)
    return found


def squared(wanted: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    return (wanted - found).square().sum(dim=1)


def linear() -> Model:
    """A Llama whose last MLP the logits read linearly."""
    hf: Any = build("llama")
    hf.model.norm = torch.nn.Identity()
    return load(hf, tokenizer=tokenizer())


def test_of_a_linear_read_out_with_a_squared_loss_the_mean_is_best() -> None:
    """The closed form, reached from nothing; and a KL does not have it there."""
    model = linear()
    pairs = pairs_of(model, 8)
    name = f"mlp_out.{model.n_layers - 1}"
    asked = optimal(model, pairs, name, "optimal", positions=-1)
    some = [0, 2, 3, 5]
    last = model.capture(pairs.clean, name, "last")[name][some].mean(dim=0)
    found = fitted(asked, "noising", some, 250, loss=squared, start=0.0)
    assert torch.allclose(found.constants[0][0], last, atol=0.02 * float(last.abs().max()))
    kept = fitted(asked, "noising", some, 20, loss=squared)
    assert torch.allclose(kept.constants[0][0], last, atol=0.02 * float(last.abs().max()))
    other = fitted(asked, "noising", some, 30)
    assert not torch.allclose(other.constants[0][0], last, atol=0.1 * float(last.abs().max()))
    assert other.after[0] < other.before[0]


def test_a_neuron_gets_the_best_value_of_a_grid_by_plain_hooks() -> None:
    model = made("llama")
    pairs = pairs_of(model, 6)
    asked = optimal(model, pairs, ["neuron.1.3", "neuron.1.5"], "optimal", positions="all")
    some = [0, 1, 4]
    found = fitted(asked, "noising", some, 150)
    down = model.hf.model.layers[1].mlp.down_proj
    grid = np.linspace(-3, 3, 601)
    for at, unit in enumerate((3, 5)):
        wanted = np.zeros(len(grid))
        for pair in some:
            ids = torch.tensor([list(pairs.clean.token_ids[pair])])

            def write(module: Any, given: Any, unit: int = unit) -> Any:
                changed = given[0].clone()
                changed[:, :, unit] = torch.tensor(grid, dtype=torch.float32)[:, None]
                return (changed,)

            with torch.no_grad():
                plain = model.hf(ids).logits[0, -1].log_softmax(-1)
                hook = down.register_forward_pre_hook(write)
                after = model.hf(ids.expand(len(grid), -1)).logits[:, -1].log_softmax(-1)
                hook.remove()
            wanted += (plain.exp() * (plain - after)).sum(-1).double().numpy() / len(some)
        best = grid[wanted.argmin()]
        assert 1 < wanted.argmin() < 599
        assert float(found.constants[at][0]) == pytest.approx(best, abs=0.02)
        assert found.after[at] == pytest.approx(wanted.min(), rel=0.02, abs=1e-7)
        assert found.before[at] > 1.02 * found.after[at]  # the mean is another value


def test_effects_are_judged_with_the_constants_of_the_other_half() -> None:
    model = made("gpt2")
    pairs = pairs_of(model, 6)
    names = ["mlp_out.1", "head.0.*"]
    asked = optimal(model, pairs, names, "optimal:12", directions="noising", seed=2)
    put = asked.sources("noising")
    halves = asked.halves
    assert set(halves) == {0, 1}
    site = Site("mlp_out", 1)
    for half in (0, 1):
        fit = fitted(asked, "noising", np.flatnonzero(halves != half).tolist(), 12)
        at = [str(one) for one in asked.mediators].index("mlp_out.1")
        for pair in np.flatnonzero(halves == half):
            row = put[site][pair, : pairs.lengths[pair]]
            assert torch.allclose(row, fit.constants[at][0].expand_as(row), atol=1e-6)
    first, second = (put[site][int(np.flatnonzero(halves == half)[0]), 0] for half in (0, 1))
    assert not torch.allclose(first, second, atol=1e-3)
    told = effects(model, pairs, names, replacement="optimal:12", directions="noising", seed=2)
    zero = effects(model, pairs, names, replacement="optimal:0", directions="noising", seed=2)
    place = told.place("mlp_out.1")
    hf: Any = model.hf
    for pair in range(len(pairs)):
        value = put[site][pair, : pairs.lengths[pair]]
        handle = hf.transformer.h[1].mlp.register_forward_hook(lambda *_, v=value: v[None])
        with torch.no_grad():
            logits = model.hf(torch.tensor([list(pairs.clean.token_ids[pair])])).logits[0, -1]
        handle.remove()
        lost = told.clean[pair] - float(logits[pairs.answer_ids[pair][0]] - logits[pairs.foil_ids[pair][0]])
        assert told.values["noising"][place, pair] == pytest.approx(lost, abs=1e-4)
    assert np.abs(told.values["noising"] - zero.values["noising"]).max() > 1e-3
    assert told.cost["noising"]["nats_of_optimal"] < told.cost["noising"]["nats_of_mean"]
    assert zero.cost["noising"]["nats_of_optimal"] == zero.cost["noising"]["nats_of_mean"]


def test_on_unseen_pairs_it_changes_less_than_the_mean_where_the_answer_stays() -> None:
    """Planted: a part that says nothing of the pair is let be by its constant."""
    model = made("llama")
    pairs = pairs_of(model, 16)
    asked = {"directions": "noising", "metric": "kl"}
    best, mean = (
        effects(model, pairs, "mlp_out.*", replacement=f"optimal:{steps}", **asked).mean()  # type: ignore[arg-type]
        for steps in (60, 0)
    )
    assert np.abs(best).sum() < np.abs(mean).sum()


def test_costs_and_what_is_refused() -> None:
    model = made("llama")
    pairs = pairs_of(model, 4)
    told = effects(model, pairs, ["mlp_out.*", "window:2@attn_out.0"], replacement="optimal:3")
    assert told.replacement == "optimal:3" and told.exact
    planned = plan(model, pairs, ["mlp_out.*", "window:2@attn_out.0"], replacement="optimal:3")
    ran = sum(told.cost[way]["forwards"] for way in told.directions)
    assert planned.forwards == pytest.approx(ran, rel=0.01)
    refused: tuple[tuple[Any, str, dict[str, Any], str], ...] = (
        ("mlp_out.*", "optimal:2.5", {}, "a whole number of steps"),
        ("edge.*->logits", "optimal", {}, "constants are fitted to whole sites"),
        (["window:2@mlp_out.*", "mlp_out.*"], "optimal:1", {}, "share a part of 'mlp_out"),
        (["head.0.*", "z.0"], "optimal:1", {}, "share a part of 'z.0'"),
    )
    for names, replacement, options, message in refused:
        with pytest.raises(ConfigError, match=message):
            effects(model, pairs, names, replacement=replacement, **options)
    with pytest.raises(ConfigError, match="all pairs are of the group"):
        mediation.exhaustive(model, pairs[[0]], "mlp_out.*", replacement="optimal:1")
    for name in set(SEARCHES) - {"exhaustive"}:
        with pytest.raises(ConfigError, match=r"fitted constants were asked|edges"):
            effects(model, pairs, "mlp_out.*", replacement="optimal:1", search=quick(name))


def test_the_divergence_is_that_of_plain_arithmetic() -> None:
    drawn = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0))
    p, q = drawn.double().softmax(-1)
    wanted = (p * (p / q).log()).sum(-1)
    assert torch.allclose(divergence(drawn[0], drawn[1]).double(), wanted, atol=1e-6)
    assert not torch.allclose(divergence(drawn[1], drawn[0]).double(), wanted, atol=1e-3)
