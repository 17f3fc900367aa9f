"""The perceptron: what a linear probe cannot read, and how its training is stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes import LogisticProbe, MLPProbe


def exclusive_or(n: int = 600, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two features whose signs agree or not: no line tells them apart."""
    X = np.random.default_rng(seed).normal(size=(n, 2)) * [1.0, 50.0] + [0.0, 0.0]
    return X, np.where(X[:, 0] * X[:, 1] > 0, "same", "other")


def test_it_reads_what_no_line_can() -> None:
    X, y = exclusive_or()
    held = exclusive_or(400, seed=1)
    assert MLPProbe(hidden=(64,)).fit(X, y, validation=held).score(*exclusive_or(400, seed=2)) > 0.85
    assert LogisticProbe().fit(X, y, validation=held).score(*exclusive_or(400, seed=2)) < 0.65


@pytest.mark.parametrize("classes", [2, 3])
def test_the_scores_are_the_network_written_in_torch(classes: int) -> None:
    X, _ = exclusive_or(120)
    y = np.arange(120) % classes
    probe = MLPProbe(hidden=(8, 5), max_epochs=3).fit(X, y)
    found = torch.from_numpy(X)
    for weights, offsets in probe.layers_[:-1]:
        found = torch.relu(found @ torch.from_numpy(weights) + torch.from_numpy(offsets))
    last = found @ torch.from_numpy(probe.layers_[-1][0]) + torch.from_numpy(probe.layers_[-1][1])
    chances = (
        torch.softmax(last, 1) if classes > 2 else torch.cat([torch.sigmoid(-last), torch.sigmoid(last)], 1)
    )
    assert np.allclose(probe.predict_proba(X), chances.numpy())


def test_it_stops_early_and_keeps_the_best_pass() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 30)), rng.integers(0, 2, 80)
    later = rng.normal(size=(80, 30)), rng.integers(0, 2, 80)
    probe = MLPProbe(patience=4).fit(X, y, validation=later)
    assert probe.notes_["epochs"] == probe.notes_["best_epoch"] + 4 < 200
    assert probe.score(*later) == probe.notes_["held_out_accuracy"]


def test_the_held_out_part_keeps_groups_whole() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    X = rng.normal(size=(40, 30))[groups] + 1e-3 * rng.normal(size=(200, 30))
    y = rng.integers(0, 2, 40)[groups]  # nothing but the group tells the label
    apart = MLPProbe().fit(X, y, groups=groups).notes_["held_out_accuracy"]
    assert MLPProbe().fit(X, y).notes_["held_out_accuracy"] > 0.95
    assert apart < 0.9
