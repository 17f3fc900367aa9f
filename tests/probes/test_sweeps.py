"""Sweeps give the numbers of probes that are fitted alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from probes import LogisticProbe, MeanDifferenceProbe, RidgeProbe, RidgeRegressionProbe, sweeps
from probes.evaluation import group_split

KINDS = ("ridge", "mean-difference", "logistic")


def data(n: int = 240, dim: int = 7, *, signal: int = 2, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Four layers of other scales, a constant column in one; two binary targets, held by one layer alone."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(4, n, dim)) * np.array([1e-4, 1.0, 3.0, 1e5])[:, None, None] + 0.5
    targets = (rng.normal(size=(n, 2)) > [0.0, 0.5]).astype(np.int64)
    scale = states[signal].std()
    states[signal, :, 0] += 3 * scale * targets[:, 0]
    states[signal, :, 1] += 3 * scale * targets[:, 1]
    states[1, :, 3] = 7.0
    return torch.from_numpy(states), targets


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def standardised(states: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fit = states[rows]
    scale = np.where(fit.std(axis=0) > 1e-12, fit.std(axis=0), 1.0)
    return (fit - fit.mean(axis=0)) / scale, fit.mean(axis=0), scale


@pytest.mark.parametrize("penalty", [1e-3, 0.3])
def test_ridge_is_scikit_learns_layer_by_layer(penalty: float) -> None:
    states, targets = data()
    found = sweeps.sweep(states, targets, seeds=(0, 3), regularisation=penalty)
    for s, seed in enumerate((0, 3)):
        rows = group_split(range(240), seed=seed).train
        for at in range(4):
            scaled, mean, scale = standardised(states[at].numpy(), rows)
            oracle = Ridge(alpha=penalty * len(rows)).fit(scaled, targets[rows])
            raw = oracle.coef_ / scale
            for t in range(2):
                assert cosine(found.coef[s, at, t], raw[t]) > 1 - 1e-9
                assert np.allclose(found.coef[s, at, t], raw[t])
                assert found.intercept[s, at, t] + 0.5 == pytest.approx(oracle.intercept_[t] - raw[t] @ mean)
    other = sweeps.sweep(states, targets, seeds=(0, 3), regularisation=penalty * 100)
    assert not np.allclose(other.coef, found.coef, rtol=1e-2)  # the negative controls: another penalty,
    for at in range(4):  # and another layer
        assert cosine(found.coef[0, at, 0], found.coef[0, at - 1, 0]) < 0.999


def test_more_dimensions_than_examples_give_the_same_solution() -> None:
    states, targets = data(40, 60)
    one = sweeps.sweep(states, targets, regularisation=0.1)
    many = sweeps.sweep(states, targets, regularisation=(0.1, 0.1000001))
    rows = one.splits[0].train
    scaled, _, scale = standardised(states[0].numpy(), rows)
    wanted = Ridge(alpha=0.1 * len(rows)).fit(scaled, targets[rows]).coef_ / scale
    assert np.allclose(one.coef[0, 0], wanted)
    assert np.allclose(many.coef[0, 0], wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_mean_difference_is_the_probe_of_that_name() -> None:
    states, targets = data()
    found = sweeps.sweep(states, targets, kind="mean-difference", seeds=(1,))
    rows = found.splits[0].train
    for at, t in np.ndindex(4, 2):
        alone = MeanDifferenceProbe().fit(states[at][rows], targets[rows, t])
        assert np.allclose(found.coef[0, at, t], alone.coef_[1] - alone.coef_[0])
        assert found.intercept[0, at, t] == pytest.approx(alone.intercept_[1] - alone.intercept_[0])
        test = found.splits[0].test
        assert found.test[0, at, t] == alone.score(states[at][test], targets[test, t])


@pytest.mark.parametrize("solver", ["sklearn", "torch"])
def test_logistic_is_the_probe_of_that_name(solver: str) -> None:
    states, targets = data()
    found = sweeps.sweep(states, targets, kind="logistic", regularisation=0.02, solver=solver)
    rows = found.splits[0].train
    for at, t in np.ndindex(4, 2):
        scaled, _, scale = standardised(states[at].numpy(), rows)
        oracle = LogisticRegression(C=1 / (0.02 * len(rows)), tol=1e-8).fit(scaled, targets[rows, t])
        assert cosine(found.coef[0, at, t], oracle.coef_[0] / scale) > 0.999
        alone = LogisticProbe(regularisation=0.02).fit(states[at][rows], targets[rows, t])
        assert cosine(found.coef[0, at, t], alone.coef_[1] - alone.coef_[0]) > 0.999
        offset = alone.intercept_[1] - alone.intercept_[0]
        assert found.intercept[0, at, t] == pytest.approx(offset, rel=1e-2)
        assert np.linalg.norm(found.coef[0, at, t]) == pytest.approx(
            np.linalg.norm(oracle.coef_ / scale), rel=1e-2
        )


def test_numbers_are_regressed_and_the_penalty_is_chosen_on_validation() -> None:
    states, _ = data()
    rng = np.random.default_rng(5)
    numbers = states[1].numpy() @ rng.normal(size=(7, 1)) + rng.normal(size=(240, 1))
    found = sweeps.sweep(states, numbers, names=["height"])
    assert found.metric == "R^2"
    split = found.splits[0]
    chosen = found.regularisation[0, 1, 0]
    alone = RidgeRegressionProbe().fit(
        states[1][split.train],
        numbers[split.train, 0],
        validation=(states[1][split.validation], numbers[split.validation, 0]),
    )
    assert chosen == alone.notes_["regularisation"]
    assert np.allclose(found.coef[0, 1, 0], alone.coef_[0])
    assert found.test[0, 1, 0] == pytest.approx(alone.score(states[1][split.test], numbers[split.test, 0]))
    assert found.test[0, 1, 0] > 0.5 > found.test[0, 0, 0]
    layer, estimate = found.best("height")[0]
    assert layer == "1"
    assert estimate.value == pytest.approx(found.test[0, 1, 0])
    assert estimate.interval.low < estimate.value < estimate.interval.high <= 1
    assert found.best_of("height")[0].index == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_that_holds_the_target_is_found(kind: str) -> None:
    states, targets = data(signal=2)
    found = sweeps.sweep(
        {f"resid_post.{at}": states[at] for at in range(4)}, targets, kind=kind, seeds=(0, 1)
    )
    for t in range(2):
        for seed, (layer, estimate) in found.best(t).items():
            assert layer == "resid_post.2"
            assert estimate.value == found.test[seed, 2, t] > 0.75
        assert all(one.index == 2 and one.p_value < 0.05 for one in found.best_of(t).values())
        assert found.curve(t)["test"].idxmax() == "resid_post.2"
        assert (found.curve(t)["test_low"] <= found.curve(t)["test_high"]).all()
    assert len(found.table()) == 16
    assert "2 seeds x 4 layers x 2 targets" in repr(found)


def test_of_many_layers_that_hold_nothing_the_best_is_rarely_significant() -> None:
    false, naive, rng = 0, 0, np.random.default_rng(0)
    for seed in range(120):
        states = torch.from_numpy(rng.normal(size=(12, 150, 4)))
        targets = np.arange(150) % 2
        one = sweeps.sweep(states, targets, kind="mean-difference", seeds=(seed,)).best_of()[seed]
        false += one.p_value <= 0.05
        naive += one.p_uncorrected <= 0.05
    assert false <= 12  # 6 expected at 5%, standard deviation 2.4
    assert naive > 2 * max(false, 6)  # the negative control: without the correction


def test_inputs_are_not_touched_and_the_same_seed_gives_the_same_bytes() -> None:
    states, targets = data()
    kept, labels = states.clone(), targets.copy()
    one, two = (sweeps.sweep(states, targets, seeds=(4,)) for _ in range(2))
    assert torch.equal(states, kept)
    assert np.array_equal(targets, labels)
    assert one.coef.tobytes() == two.coef.tobytes()
    mapped = sweeps.sweep({str(at): states[at] for at in range(4)}, targets, seeds=(4,))
    assert mapped.coef.tobytes() == one.coef.tobytes()
    other = sweeps.sweep(states, targets, seeds=(5,))
    assert not np.array_equal(other.coef, one.coef)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_states_are_computed_in_float64(kind: str, dtype: torch.dtype) -> None:
    states, targets = data()
    low = states.to(dtype)
    found = sweeps.sweep(low, torch.from_numpy(targets).to(dtype), kind=kind)
    assert found.coef.tobytes() == sweeps.sweep(low.double(), targets, kind=kind).coef.tobytes()


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_a_feature_that_is_constant_in_training_gets_no_weight(kind: str) -> None:
    for seed in range(8):
        states, targets = data(seed=seed)
        split = group_split(range(240))
        states[1, :, 3] = 0.1 * (seed + 1)
        states[1, torch.from_numpy(split.test), 3] += 1e3
        found = sweeps.sweep(states, targets, kind=kind, regularisation=1e-3)
        probe = RidgeProbe if kind == "ridge" else LogisticProbe
        alone = probe(regularisation=1e-3).fit(states[1][split.train], targets[split.train, 0])
        assert np.abs(found.coef[0, 1, :, 3]).max() < 1e-9
        assert found.test[0, 1, 0] == alone.score(states[1][split.test], targets[split.test, 0])


def test_without_a_validation_part_no_layer_is_called_the_best() -> None:
    found = sweeps.sweep(*data(), regularisation=0.1, fractions=(0.7, 0.0, 0.3))
    assert np.isfinite(found.test).all()
    assert found.best_of()[0].index == 2
    with pytest.raises(ValueError, match="chosen on validation, and this sweep has no such part"):
        found.best()


def test_a_logistic_probe_that_did_not_converge_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for solver in ("sklearn", "torch"):
        sweeps.sweep(*data(), kind="logistic", regularisation=0.01, solver=solver)
    assert not caplog.messages
    monkeypatch.setattr("probes.sweeps.solvers.MAX_ITERATIONS", 2)
    for solver in ("sklearn", "torch"):
        sweeps.sweep(*data(), kind="logistic", regularisation=0.01, solver=solver)
    assert ["8 of 8" in message for message in caplog.messages] == [True, True]


def test_groups_stay_whole_and_blocks_of_layers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    states, targets = data()
    groups = np.arange(240) // 3
    whole = sweeps.sweep(states, targets, groups=groups)
    split = whole.splits[0]
    assert not set(groups[split.train]) & set(groups[split.test])
    for same in (torch.from_numpy(groups), groups.tolist()):
        assert sweeps.sweep(states, targets, groups=same).coef.tobytes() == whole.coef.tobytes()
    assert whole.best()[0][1].n_groups == len(split.test) // 3
    monkeypatch.setattr("probes.sweeps.run.BYTES", 1)
    blocked = sweeps.sweep(states, targets, groups=groups).coef
    # A product over fewer layers may take another path through BLAS: rounding may differ, nothing else.
    assert np.abs(blocked - whole.coef).max() < 1e-9 * np.abs(whole.coef).max()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same_probes(kind: str) -> None:
    states, targets = data()
    here, there = (sweeps.sweep(states, targets, kind=kind, device=device) for device in ("cpu", "cuda"))
    for at, t in np.ndindex(4, 2):
        assert cosine(here.coef[0, at, t], there.coef[0, at, t]) > 0.999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "forest"}, "kind 'forest' asked; the kinds are: ridge, mean-difference, logistic"),
        ({"states": torch.ones(3, 4)}, r"shape \(3, 4\); give \[layer, example, dim\]"),
        ({"states": {"a": torch.ones(3, 4), "b": torch.ones(3, 5)}}, "give the same"),
        ({"states": torch.full((2, 240, 3), float("nan"))}, "layer 0 holds numbers that are not finite"),
        ({"targets": np.ones((240, 2, 2))}, "give \\[example\\]"),
        ({"targets": np.ones(240)}, "target 0 has one value in a training part"),
        ({"targets": np.linspace(0, 1, 240), "kind": "logistic"}, "are 0 and 1; use kind='ridge'"),
        ({"seeds": ()}, r"seeds are \(\); give at least one"),
        ({"seeds": (0, 0)}, r"seeds are \(0, 0\); give at least one, and each once"),
        ({"names": ["a", "a"]}, "names are .*each once"),
        ({"targets": np.ones((240, 0))}, "names are .*give at least one"),
        ({"targets": np.full(240, np.inf)}, "targets hold numbers that are not finite"),
        ({"names": ["a"]}, "1 name and 240 groups for 2 targets and 240 examples"),
        ({"groups": [0]}, "2 names and 1 group"),
        ({"groups": [0] * 240}, "part has no examples"),
        ({"seeds": (-1,)}, "seed=-1 asked"),
        ({"solver": "magic"}, "solver 'magic' asked"),
        ({"regularisation": 0.0}, "give a positive number"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    states, targets = data()
    given: dict[str, object] = {"states": states, "targets": targets} | change
    with pytest.raises(ValueError, match=message):
        sweeps.sweep(**given)  # pyright: ignore[reportArgumentType]


def test_an_unknown_target_is_refused() -> None:
    found = sweeps.sweep(*data(), names=["big", "red"])
    with pytest.raises(ValueError, match="target 'old' asked; the targets are: big, red"):
        found.best("old")
