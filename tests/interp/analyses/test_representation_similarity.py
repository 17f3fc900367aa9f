"""Geometry: against textbook formulas and NumPy's own, invariances, and copies with more and more noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import interp
from interp.analyses.layer_profiles import depths
from interp.analyses.prompts import prompt_set
from interp.analyses.representation_similarity import (
    Alignment,
    effective_rank,
    geometry,
    neighbours,
    overlap,
    row_cosine,
)
from interp.errors import ConfigError, DataError, SiteError
from interp.results import FindingsResult
from tests.noisy import demo, noisy
from tests.tiny import tiny

N = 60
CURVES = ("centred cosine", "CKA", "shared neighbours", "cosine")


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@cache
def before() -> FindingsResult:
    return geometry(demo(), n=N)


def test_cka_is_that_of_features_and_of_centring_matrices() -> None:
    first, second = drawn(20, 7) + 3, drawn(20, 5, seed=1) @ drawn(5, 5, seed=2) - 1
    second[:, :3] += first[:, :3]
    x, y = first - first.mean(0), second - second.mean(0)
    features = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    h = np.eye(20) - 1 / 20
    k, m = h @ first @ first.T @ h, h @ second @ second.T @ h
    gram = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert features == pytest.approx(gram) and 0.1 < gram < 0.95
    assert Alignment.of(first, second)(np.ones(20)) == pytest.approx(gram)


def test_weights_count_items() -> None:
    first, second = drawn(12, 4), drawn(12, 6, seed=1)
    times = np.array([0, 1, 2, 0, 3, 1, 1, 0, 2, 1, 1, 0])
    rows = np.repeat(np.arange(12), times)
    long = Alignment.of(first[rows], second[rows])(np.ones(len(rows)))
    assert Alignment.of(first, second)(times.astype(float)) == pytest.approx(long)
    assert long != pytest.approx(Alignment.of(first, second)(np.ones(12)), rel=1e-3)
    assert effective_rank(first, times.astype(float)) == pytest.approx(
        effective_rank(first[rows], np.ones(len(rows)))
    )


def test_cka_and_neighbours_do_not_see_a_turn_but_see_an_exchange_of_items() -> None:
    first = drawn(40, 8)
    turn = np.linalg.qr(drawn(8, 8, seed=3))[0]
    turned = 2.5 * first @ turn
    assert Alignment.of(first, turned)(np.ones(40)) == pytest.approx(1)
    assert overlap(neighbours(first, 5), neighbours(turned, 5)).mean() == 1
    assert abs(row_cosine(first, turned).mean()) < 0.5
    other = np.random.default_rng(1).permutation(40)
    assert Alignment.of(first, turned[other])(np.ones(40)) < 0.5
    assert overlap(neighbours(first, 5), neighbours(turned[other], 5)).mean() < 0.4
    assert Alignment.of(first, np.ones((40, 3)))(np.ones(40)) == 0


def test_neighbours_are_those_of_a_loop() -> None:
    first, second = drawn(15, 4) + 2, drawn(15, 4, seed=1)
    sets = []
    for rows in (first, second):
        centred = rows - rows.mean(0)
        unit = [row / np.linalg.norm(row) for row in centred]
        cosine = [[a @ b if i != j else -9 for j, b in enumerate(unit)] for i, a in enumerate(unit)]
        sets.append([set(np.argsort(row)[-4:]) for row in cosine])
    want = [len(a & b) / 4 for a, b in zip(*sets, strict=True)]
    np.testing.assert_allclose(overlap(neighbours(first, 4), neighbours(second, 4)), want)


def test_effective_rank_counts_dimensions() -> None:
    line = np.outer(drawn(30), drawn(6, seed=1)) + 5
    assert effective_rank(line, np.ones(30)) == pytest.approx(1, abs=1e-4)
    corners = np.concatenate([np.eye(5), -np.eye(5)])
    assert effective_rank(corners, np.ones(10)) == pytest.approx(5)
    for shape in ((30, 6), (6, 30)):
        rows = drawn(*shape)
        s = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
        p = s[s > 1e-9] / s[s > 1e-9].sum()
        assert effective_rank(rows, np.ones(len(rows))) == pytest.approx(
            np.exp(-(p * np.log(p)).sum()), rel=1e-4
        )
    assert effective_rank(np.ones((4, 3)), np.ones(4)) == 1


def test_the_model_itself_is_the_same_and_the_control_is_not() -> None:
    again = geometry(demo(), reference=before(), n=N)
    for one, other in zip(before().found, again.found, strict=True):
        assert one.name == other.name and one.value == other.value and one.groups == other.groups
        if one.curve in CURVES:
            assert one.value == pytest.approx(1) and 0 < one.floor < 0.97, one.name
        else:
            assert one.floor == 1 < one.value < 64
    assert [one.layer for one in before().found if one.curve == "CKA"] == [0, 4, 8, 12, 15, 19, 23]


def test_more_noise_keeps_less() -> None:
    found = [geometry(noisy(demo(), share), reference=before(), n=N) for share in (0.03, 0.2, 1.0)]
    for curve in CURVES:
        for layer in (4, 12, 23):
            values = [one.finding(f"{curve} at layer {layer}").value for one in found]
            assert values == sorted(values, reverse=True) and values[0] > values[-1] + 0.1, (curve, layer)
    lost = found[-1].finding("centred cosine at layer 23")
    assert lost.value < lost.floor
    far, own = (one.table("distances")["relative_distance"].iloc[-1] for one in (found[0], before()))
    assert far > 0 == own


def at(model: interp.Model, layer: int, prompts: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """Read the states from the Hugging Face model, one prompt at a time."""
    with torch.no_grad():
        runs = [model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in prompts]
    return torch.stack([states[layer + 1][0, -1] for states in runs])


def test_states_are_the_models_own_at_the_last_token() -> None:
    given, changed = prompt_set(demo(), N, 0), noisy(demo(), 0.2)
    found = geometry(changed, reference=before(), n=N)
    for layer in (4, 19):
        both = [at(model, layer, given.tokens.token_ids) for model in (changed, demo())]
        for name, rows in (("cosine", both), ("centred cosine", [one - one.mean(0) for one in both])):
            want = torch.nn.functional.cosine_similarity(*rows).numpy()
            values = found.finding(f"{name} at layer {layer}").values
            np.testing.assert_allclose(values, want, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt_neox", "olmo2", "gpt2"])
def test_other_families_and_bf16(family: str) -> None:
    model = interp.load(tiny(family)[0], tokenizer=tiny(family)[1])
    texts = [f"w{a:02d} w{b:02d} w{a + b:02d}" for a in range(4) for b in range(4)]
    full = geometry(model, prompts=texts, layers="all")
    half = geometry(noisy(model, 0.0, dtype=torch.bfloat16), reference=full, prompts=texts, layers="all")
    for one in half.found:
        if one.curve in ("CKA", "cosine"):
            assert 0.99 < one.value < 1
    assert full.about.data["neighbours"] == 7 and full.about.data["layers"] == [0, 1, 2]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="read at layers"):
        geometry(demo(), reference=before(), n=N, layers="3")
    with pytest.raises(DataError, match="other tokens"):
        geometry(demo(), reference=before(), n=N, seed=2)
    with pytest.raises(DataError, match="another position"):
        geometry(demo(), reference=before(), n=N, position=-1)
    with pytest.raises(ConfigError, match="neighbours"):
        geometry(demo(), n=N, k=0)
    with pytest.raises(ConfigError, match="index of one token"):
        geometry(demo(), n=N, position="all")
    with pytest.raises(SiteError):
        geometry(demo(), n=N, layers="24")


def test_layers_are_spread_from_the_first_to_the_last() -> None:
    assert depths(demo(), None, 3) == (0, 12, 23) and depths(demo(), None, 1) == (23,)
    assert depths(demo(), None, 99) == tuple(range(24)) and depths(demo(), [5, 3], 7) == (3, 5)
