"""The contract, over every probe of the table."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.base import clone

from probes import NotFittedError, Probe, load
from probes.table import PROBES

KINDS = tuple(PROBES)
CLASSES = tuple(name for name, row in PROBES.items() if row.target in ("class", "sequence", "concept"))
Targets = dict[str, Any]


def targets(y: np.ndarray) -> Targets:
    """The same truth in the form each kind of probe learns: a label, a number, several labels."""
    yes = (y == "dog").astype(np.int64)
    labels = dict.fromkeys(("class", "sequence", "concept"), y)
    return labels | {"number": yes * 2.5 - 1, "labels": np.stack([yes, 1 - yes], axis=1)}


def wanted(probe: Probe, y: np.ndarray) -> Any:
    return targets(y)[PROBES[probe.kind].target]


def examples(n: int = 120, dim: int = 6, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes apart in two of the columns, in groups of three."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2, n)
    X = rng.normal(size=(n, dim)) * 3 + 5
    X[:, :2] += 4 * codes[:, None]
    return X, np.array(["cat", "dog"])[codes], np.arange(n) // 3


@pytest.fixture(params=KINDS)
def probe(request: pytest.FixtureRequest) -> Probe:
    return PROBES[request.param].create(seed=3)


@pytest.fixture(params=CLASSES)
def classifier(request: pytest.FixtureRequest) -> Probe:
    return PROBES[request.param].create(seed=3)


def test_the_constructor_only_stores(probe: Probe) -> None:
    assert vars(probe) == probe.get_params()
    assert set(inspect.signature(type(probe)).parameters) == set(vars(probe))
    parameters = inspect.signature(type(probe)).parameters.values()
    kinds = {p.kind for p in parameters if p.name != "codebook"}  # may be given by position
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}


def test_scikit_learn_can_clone_it(probe: Probe) -> None:
    twin = clone(probe)
    assert type(twin) is type(probe)
    assert twin.get_params() == probe.get_params()
    assert repr(twin) == repr(probe)
    assert eval(repr(probe), {type(probe).__name__: type(probe)}).get_params() == probe.get_params()


def test_set_params_refuses_a_name_it_does_not_have(probe: Probe) -> None:
    with pytest.raises(ValueError, match=f"{type(probe).__name__} has no parameter 'colour'"):
        probe.set_params(colour="red")


def test_fit_returns_the_probe_and_learned_names_end_in_an_underscore(probe: Probe) -> None:
    X, y, _ = examples()
    before = set(vars(probe))
    assert probe.fit(X, wanted(probe, y)) is probe
    assert all(name.endswith("_") for name in set(vars(probe)) - before)
    assert probe.get_params() == PROBES[probe.kind].create(seed=3).get_params()


@pytest.mark.parametrize("call", ["predict", "decision_function", "score", "save", "width"])
def test_an_unfitted_probe_names_the_cure(probe: Probe, call: str, tmp_path: Path) -> None:
    X, y, _ = examples(6)
    with pytest.raises(
        NotFittedError, match=rf"this {type(probe).__name__} is not fitted yet; call its fit\(X, y\)"
    ):
        match call:
            case "save":
                probe.save(tmp_path)
            case "width":
                _ = probe.width
            case "score":
                probe.score(X, y)
            case _:
                getattr(probe, call)(X)


def test_same_seed_same_bytes(probe: Probe, tmp_path: Path) -> None:
    X, y, groups = examples()
    for name in ("one", "two"):
        clone(probe).fit(X, wanted(probe, y), groups=groups).save(tmp_path / name)
    for file in ("probe.safetensors", "probe.json", "README.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_inputs_are_not_touched(probe: Probe) -> None:
    X, y, groups = examples()
    y = wanted(probe, y)
    kept = X.copy(), y.copy(), groups.copy()
    tensor = torch.from_numpy(X.copy())
    probe.fit(X, y, groups=groups, validation=(X, y)).predict(X)
    probe.fit(tensor, y if y.ndim == 2 else list(y)).decision_function(tensor)
    assert all(np.array_equal(a, b) for a, b in zip(kept, (X, y, groups), strict=True))
    assert torch.equal(tensor, torch.from_numpy(X))


def test_it_separates_what_is_apart_and_says_so(probe: Probe) -> None:
    X, y, _ = examples(400)
    y = wanted(probe, y)
    probe.fit(X[:200], y[:200])
    held_out, found = probe.score(X[200:], y[200:]), probe.predict(X[200:])
    assert held_out > (0.4 if PROBES[probe.kind].target == "number" else 0.75)
    match PROBES[probe.kind].target:
        case "number":
            assert held_out == pytest.approx(sklearn.metrics.r2_score(y[200:], found))
        case "labels":
            assert held_out == np.mean((found == y[200:]).all(axis=1))
        case _:
            assert held_out == np.mean(found == y[200:])


def test_shuffled_labels_score_within_chance(probe: Probe) -> None:
    X, y, _ = examples(600, 20)
    shuffled = np.random.default_rng(1).permutation(y)
    shuffled = wanted(probe, shuffled)
    score = probe.fit(X[:300], shuffled[:300]).score(X[300:], shuffled[300:])
    if PROBES[probe.kind].target == "number":
        assert score < 0.1  # of a variance of 1; the mean scores 0
    else:
        assert abs(score - 0.5) < 4 * 0.5 / np.sqrt(300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_scores_of_a_tensor_are_a_tensor_of_its_type(probe: Probe, dtype: torch.dtype) -> None:
    X, y, _ = examples()
    tensor = torch.from_numpy(X).to(dtype)
    width = 1 if PROBES[probe.kind].target == "number" else 2
    scores = probe.fit(tensor, wanted(probe, y)).decision_function(tensor)
    assert isinstance(scores, torch.Tensor)
    assert (scores.dtype, scores.device, tuple(scores.shape)) == (dtype, tensor.device, (120, width))
    again = probe.decision_function(tensor.double().numpy())
    assert isinstance(again, np.ndarray)
    assert torch.equal(torch.from_numpy(again).to(dtype), scores)


@pytest.mark.gpu
def test_scores_stay_on_the_device(probe: Probe) -> None:
    X, y, _ = examples()
    tensor = torch.from_numpy(X).float().cuda()
    assert probe.fit(tensor, wanted(probe, y)).decision_function(tensor).device == tensor.device


def test_scores_of_an_array_keep_its_floating_type(probe: Probe) -> None:
    X, y, _ = examples()
    single = X.astype(np.float32)
    assert probe.fit(single, wanted(probe, y)).decision_function(single).dtype == np.float32
    assert probe.decision_function(np.round(X).astype(np.int64)).dtype == np.float64


def test_whole_number_labels_come_back_as_whole_numbers(classifier: Probe, tmp_path: Path) -> None:
    X, y, _ = examples()
    numbers = np.where(y == "dog", 7, -2)
    predicted = classifier.fit(X, torch.from_numpy(numbers)).predict(X)
    assert set(predicted.tolist()) == {7, -2}
    assert load(classifier.save(tmp_path)).predict(X).dtype == predicted.dtype


def test_saved_and_loaded_probes_predict_the_same(probe: Probe, tmp_path: Path) -> None:
    X, y, _ = examples()
    probe.fit(X, wanted(probe, y))
    for loaded in (load(probe.save(tmp_path)), type(probe).load(tmp_path)):
        assert type(loaded) is type(probe)
        assert loaded.get_params() == probe.get_params()
        assert np.array_equal(loaded.decision_function(X), probe.decision_function(X))
        assert np.array_equal(loaded.predict(X), probe.predict(X))


def test_the_table_knows_which_probes_have_probabilities(probe: Probe) -> None:
    X, y, _ = examples()
    probe.fit(X, wanted(probe, y))
    if PROBES[probe.kind].probabilities:
        assert np.allclose(np.asarray(probe.predict_proba(X)).sum(axis=1), 1)
    else:
        assert not hasattr(probe, "predict_proba")
        with pytest.raises(AttributeError, match="has no probabilities; use decision_function"):
            probe.predict_proba(X)


def test_the_table_knows_the_classes_it_can_tell_apart(classifier: Probe) -> None:
    X, _, _ = examples()
    three = np.arange(120) % 3
    if PROBES[classifier.kind].most_classes == 2:
        with pytest.raises(
            ValueError, match=rf"3 classes; {type(classifier).__name__} tells 2 apart\. Use NearestCentroid"
        ):
            classifier.fit(X, three)
    else:
        assert classifier.fit(X, three).decision_function(X).shape == (120, 3)


def test_one_class_is_refused(classifier: Probe) -> None:
    X, _, _ = examples()
    with pytest.raises(ValueError, match="y holds one class, 'cat'"):
        classifier.fit(X, ["cat"] * 120)


def test_another_width_is_refused(probe: Probe) -> None:
    X, y, _ = examples()
    with pytest.raises(ValueError, match="X has 5 columns, but this probe was fitted on 6"):
        probe.fit(X, wanted(probe, y)).predict(X[:, :5])


def test_sparse_and_dense_counts_agree(probe: Probe) -> None:
    from scipy import sparse

    X, y, _ = examples()
    counts = np.maximum(np.round(X), 0)
    y = wanted(probe, y)
    dense = probe.fit(counts, y).predict(counts)
    thin = probe.fit(sparse.csr_matrix(counts), y).predict(sparse.csr_array(counts))
    assert np.mean(np.abs(thin - dense) < 1e-6 if dense.dtype.kind == "f" else thin == dense) > 0.95


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_a_seed_that_is_no_whole_number_is_refused(probe: Probe, seed: Any) -> None:
    if not PROBES[probe.kind].seeded:
        pytest.skip("makes no random choice")
    X, y, _ = examples()
    with pytest.raises(ValueError, match=r"seed=.* asked; give a whole number from 0"):
        PROBES[probe.kind].create().set_params(seed=seed).fit(X, wanted(probe, y))


def test_lists_of_numbers_are_read_as_arrays(probe: Probe) -> None:
    X, y, _ = examples()
    dense = probe.fit(X, wanted(probe, y)).decision_function(X)
    assert np.array_equal(probe.fit(X.tolist(), wanted(probe, y)).decision_function(X.tolist()), dense)
