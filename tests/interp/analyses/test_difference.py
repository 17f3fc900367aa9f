"""What a training changed: planted ranks, nothing, noise, and the edited model, whose facts are known."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.analyses.training_changes import difference
from interp.analyses.training_changes.reading import Read
from interp.analyses.training_changes.run import _Seen, beyond
from interp.analyses.training_changes.weights import change_of, weight_changes
from interp.errors import ConfigError
from interp.models.loading import load
from interp.models.model import Model
from interp.models.peft_adapters import low_rank
from interp.quantization import compare
from interp.quantization.quantizing import quantize
from interp.results import FindingsResult
from interp.results import load as load_result
from tests.noisy import demo, noisy
from tests.tiny import tiny

N = 120


@cache
def base() -> FindingsResult:
    return difference(demo())


@cache
def edited() -> FindingsResult:
    return difference(load("demo", weights="edited"), reference=base(), n=N)


@cache
def small() -> Model:
    hf, words = tiny("llama")
    return load(hf, tokenizer=words)


def adapted(model: Model, rank: int, size: float) -> Model:
    """Put an adapter of a known rank on every MLP."""
    pytest.importorskip("peft")
    outer, hf = low_rank(
        model.hf, layers=range(model.n_layers), modules=["up_proj", "down_proj"], rank=rank, seed=0
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, one in outer.named_parameters():
            if "lora_B" in name:
                one.copy_(size * torch.randn(one.shape, generator=generator))
    return load(hf, tokenizer=model.tokenizer)


def test_rank_and_norm_of_a_change_are_those_of_its_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(20, 30, generator=generator)
    change = 0.01 * torch.randn(20, 3, generator=generator) @ torch.randn(3, 30, generator=generator)
    norm, moved, effective, rank = change_of(before, before + change)
    singular = torch.linalg.svdvals(change.double())[:3]
    shares = singular / singular.sum()
    assert rank == 3 and effective == pytest.approx(
        float(torch.exp(-(shares * shares.log()).sum())), rel=1e-3
    )
    assert (norm, moved) == pytest.approx((float(before.norm()), float(change.norm())), rel=1e-4)
    assert change_of(before, before)[1:] == (0.0, 0.0, 0)
    assert change_of(before, torch.randn(20, 30, generator=generator))[3] == 20


def test_the_adapter_of_a_known_rank_is_found_where_it_is_and_an_empty_one_changes_nothing() -> None:
    found = weight_changes(small(), adapted(small(), 2, 0.1))
    assert found is not None
    moved = [one for one in found if one.moved]
    assert {one.part for one in moved} == {"mlp.up_proj", "mlp.down_proj"}
    assert {one.layer for one in moved} == set(range(small().n_layers)) and {one.rank for one in moved} == {2}
    empty = difference(adapted(small(), 2, 0.0), reference=difference(small()), n=20)
    assert empty.verdict().startswith("No change: all weights are the same")
    assert all(one.value == 0 for one in empty.found)
    assert {row[-1] for row in empty.tables()[1].rows} == {"no change"}


def test_the_changed_facts_of_the_edited_model_are_found() -> None:
    found = edited()
    table = next(one for one in found.tables() if one.name == "changed-facts")
    (_, area, low, _, chance) = table.rows[0]
    assert isinstance(area, float) and area > 0.95 and chance == 0.5 and low > 0.7
    assert "the changed facts are found with AUROC" in found.verdict()
    assert "no twin, nothing subtracted" in found.verdict() and "there is no twin" in " ".join(found.warnings)
    rows = {row[0]: row for row in next(one for one in found.tables() if one.name == "outputs").rows}
    assert rows["the prompts"][-1] == "changed"
    other = difference(noisy(demo(), 0.05), reference=base(), n=40)
    assert "AUROC" not in other.verdict()


def test_divergences_are_those_of_a_plain_loop() -> None:
    read = Read.of(demo(), 20, 0, None, None)
    other = load("demo", weights="edited")
    found = read.against(other, weights=False)
    for row, ids in enumerate(read.asked.tokens.token_ids):
        with torch.no_grad():
            p, q = (
                one.hf(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1) for one in (demo(), other)
            )
        assert found.facts[row] == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-4)
    layer = read.at[2]
    ids = read.texts.tokens.token_ids[3]
    with torch.no_grad():
        states = other.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer + 1][0, 1:]
    assert np.allclose(found.states[layer][read.owner == 3], states.numpy(), atol=1e-3)


def seen(read: Read, own: Model, noise: object) -> _Seen:
    return _Seen(read.base, own, read, read.against(own, weights=False), (), noise, 0)  # type: ignore[arg-type]


def test_rounding_is_no_change_and_alike_models_are_not_told_apart() -> None:
    """50 models that differ by noise of bfloat16's size; 60 draws of a model and 4 twins."""
    model = small()
    read = Read.of(model, 24, 0, None, None)
    noise = read.against(quantize(model, "bf16"), weights=False)
    rounded = [seen(read, noisy(model, 1e-3, seed=seed), noise) for seed in range(50)]
    for where in ("the prompts", "unrelated text"):
        assert sum(one.divergences[where].reading.startswith("changed") for one in rounded) <= 2
    moved = [seen(read, noisy(model, 0.2, seed=seed), noise).divergences["the prompts"] for seed in range(16)]
    assert all(one.reading == "changed" for one in moved)
    means, rng = [one.mean for one in moved], np.random.default_rng(0)
    drawn = [rng.choice(means, 5, replace=False).tolist() for _ in range(60)]
    assert sum("not told from" not in beyond(own, twins) for own, *twins in drawn) <= 3


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("twins", [2, 3, 5])
def test_a_twin_like_the_others_is_seldom_told_apart(spread: float, twins: int) -> None:
    drawn = np.exp(spread * np.random.default_rng(0).standard_normal((400, twins + 1)))
    wrong = sum("not told from" not in beyond(row[0], row[1:]) for row in drawn.tolist())
    assert wrong / 400 <= 0.065
    told = sum("more than by training" in beyond(1000 * row[0], row[1:]) for row in drawn.tolist())
    assert twins == 2 or spread > 1 or told / 400 > 0.9
    assert "less than by training" in beyond(1e-6, [1.0, 1.1, 0.9])
    assert "not judged" in beyond(9.0, [1.0]) and beyond(9.0, []) == "changed"


def test_a_comparison_shows_it_as_it_is_and_measures_no_floor(tmp_path: Path) -> None:
    calls: list[str] = []

    def counted(model: Model, *, reference: FindingsResult | None = None) -> FindingsResult:
        calls.append(model.fingerprint)
        return difference(model, reference=reference, n=20, twin=[noisy(small(), 0.05, seed=3)])

    other = noisy(small(), 0.3)
    found = compare({"difference": counted}, small(), (), other=other)
    assert calls == [small().fingerprint, other.fingerprint]
    assert "Difference, LlamaForCausalLM (trained): on the prompts changed" in found.verdict()
    names = [one.name for one in found.tables()]
    assert names[0] == "difference-findings" and {"difference-outputs", "difference-states"} <= set(names)
    assert any(one.name.startswith("difference-kl-on-the-prompts") for one in found.numbers())
    found.save(tmp_path)
    again = load_result(tmp_path)
    assert again.verdict() == found.verdict() and [one.name for one in again.tables()] == names
    assert not any(one.name.startswith("survive") for one in found.numbers())


def test_what_is_no_base_is_refused() -> None:
    with pytest.raises(ConfigError, match="the reference is a result of 'geometry'"):
        difference(small(), reference=FindingsResult(analysis="geometry", about=base().about, found=()))
