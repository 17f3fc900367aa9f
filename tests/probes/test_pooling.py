"""Poolings of token scores, and the probe that learns through them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from probes import LogisticProbe, load
from probes.evaluation import auroc
from probes.multiple_instance import Bags
from probes.pooling import POOLINGS, Sequences, read_pooling, running
from probes.sequences import SequenceProbe

NAMES = tuple(POOLINGS)
LEARNED = ("max", "attention", "rolling-max:3")


def tokens(n: int = 5, longest: int = 9, dim: int = 3, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random states and a mask with gaps, of one token in the first prompt."""
    rng = np.random.default_rng(seed)
    mask = rng.random((n, longest)) < 0.6
    mask[0], mask[1] = False, True
    mask[0, 4] = True
    return rng.normal(size=(n, longest, dim)) + 1, mask


def needles(n: int, longest: int, dim: int, *, seed: int, size: float = 8.0) -> tuple[Sequences, np.ndarray]:
    """One token of the positives is far along a direction; the negatives have as much, spread over all."""
    rng = np.random.default_rng(seed)
    labels, states = np.arange(n) % 2, rng.normal(size=(n, longest, dim))
    along = size * np.ones(dim) / np.sqrt(dim)
    states[labels == 0] += along / longest
    states[np.flatnonzero(labels), rng.integers(longest, size=n // 2)] += along
    return Sequences.of(states), labels


def by_hand(name: str, scores: np.ndarray, keys: np.ndarray) -> float:
    """The pooled score of one prompt's selected tokens, one formula after the other."""
    match name:
        case "last":
            return scores[-1]
        case "mean":
            return scores.mean()
        case "max":
            return scores.max()
        case "attention":
            return float(torch.softmax(torch.tensor(keys), 0) @ torch.tensor(scores))
        case "rolling-max":
            width = min(8, len(scores))
            return max(np.convolve(scores, np.ones(width) / width, "valid"))
        case _:
            total = weight = 0.0
            for score in scores:
                total, weight = total * 0.5 ** (1 / 16) + score, weight * 0.5 ** (1 / 16) + 1
            return total / weight


@pytest.mark.parametrize("name", NAMES)
def test_every_pooling_is_its_formula_and_a_mean_with_weights(name: str) -> None:
    states, mask = tokens(longest=14)
    data, pooling = Sequences.of(states, mask), read_pooling(name)
    scores, keys = data.states @ np.array([[1.0, -2.0, 0.5]]).T, data.states @ np.array([0.3, 1.0, -1.0])
    found, weights = pooling(scores, keys, data.valid), pooling.weights(scores, keys, data.valid)
    assert np.allclose(weights.sum(axis=1), 1)
    assert not weights[~data.valid].any()
    for at, row in enumerate(mask):
        raw = states[at, row] @ np.array([1.0, -2.0, 0.5]), states[at, row] @ np.array([0.3, 1.0, -1.0])
        assert found[at, 0] == pytest.approx(by_hand(name, *raw), abs=1e-12)
        so_far = running(pooling, scores[at, : row.sum()], keys[at, : row.sum()])
        assert so_far[-1, 0] == pytest.approx(found[at, 0], abs=1e-12)
        assert so_far[0, 0] == pytest.approx(raw[0][0], abs=1e-12)


@pytest.mark.parametrize("name", LEARNED)
def test_the_gradient_is_the_slope_of_the_loss(name: str) -> None:
    states, mask = tokens(12, dim=3)
    labels = np.arange(12) % 3
    bags = Bags.of(read_pooling(name), Sequences.of(states, mask), labels, [0, 1, 2])
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    _, slopes = bags.loss(parts, 0.1)
    for at, (part, slope) in enumerate(zip(parts, slopes, strict=True)):
        way = rng.normal(size=part.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [one + step * way if i == at else one for i, one in enumerate(parts)]
            ends.append(bags.loss((moved[0], moved[1], moved[2]), 0.1)[0])
        if at < 2 or name == "attention":
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float((way * slope).sum()), abs=1e-6)


def test_a_needle_in_200_tokens_is_found_by_max_and_attention_and_not_by_mean() -> None:
    train, labels = needles(120, 200, 12, seed=0)
    held, truth = needles(120, 200, 12, seed=1)
    found = {}
    for name in ("mean", "max", "attention"):
        probe = SequenceProbe(pooling=name, positive="1").fit(train, labels.astype(str))
        found[name] = auroc(truth, probe.pooled(held)[:, 0]).value
    assert found["max"] > 0.95
    assert found["attention"] > 0.95
    assert abs(found["mean"] - 0.5) < 0.13  # 2.4 standard errors of 60 against 60


def test_the_label_with_the_needle_is_found_out_whatever_its_name() -> None:
    train, labels = needles(80, 40, 8, seed=0)
    probe = SequenceProbe(pooling="max").fit(train, np.array(["with", "alone"])[1 - labels])
    assert probe.positive_ == "with"
    flipped = SequenceProbe(pooling="max").fit(train, np.array(["a", "z"])[1 - labels])
    assert flipped.positive_ == "a"
    assert flipped.score(train, np.array(["a", "z"])[1 - labels]) > 0.95


def test_of_one_token_each_it_is_the_base_probe() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.array(["a", "b"])[np.arange(60) % 2]
    X[:, 0] += np.arange(60) % 2
    for name in ("last", "mean", "exponential:3"):
        found = SequenceProbe(pooling=name).fit(X, y).decision_function(X)
        assert np.allclose(found, LogisticProbe().fit(X, y).decision_function(X))


@pytest.mark.parametrize("name", ["mean", "attention"])
def test_a_saved_probe_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    train, labels = needles(40, 20, 6, seed=0)
    probe = SequenceProbe(pooling=name).fit(train, labels.astype(str))
    probe.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, SequenceProbe)
    assert again.positive_ == probe.positive_
    assert np.array_equal(again.pooled(train), probe.pooled(train))


def wrong_calls() -> dict[str, tuple[type[Exception], str]]:
    """What is called wrongly, and what the message must say."""
    return {
        "name": (ValueError, "pooling 'maximum' asked; the poolings are: last, mean, max"),
        "size of max": (ValueError, "pooling 'max:3' asked, but max has no size; write 'max'"),
        "size": (ValueError, "its size is a number of tokens from 1: rolling-max:8"),
        "nothing selected": (
            ValueError,
            "1 prompt has no selected token, first prompt 2; select at",
        ),
        "numbers as a mask": (ValueError, r"the mask holds int64; give truth values.*astype\(bool\)"),
        "base": (ValueError, "pooling 'max' learns its scores by logistic regression, and base 'ridge'"),
        "positive": (ValueError, "positive 'c' asked; it is one of two labels, and y holds: a, b"),
        "width": (ValueError, "the sequences have 3 columns, but this probe was fitted on 2"),
    }


@pytest.mark.parametrize("name", wrong_calls())
def test_wrong_calls_say_what_to_do(name: str) -> None:
    states, mask = tokens(6)
    labels = np.array(["a", "b"] * 3)
    kind, message = wrong_calls()[name]
    with pytest.raises(kind, match=message):
        match name:
            case "name":
                read_pooling("maximum")
            case "size of max":
                read_pooling("max:3")
            case "size":
                read_pooling("rolling-max:none")
            case "nothing selected":
                Sequences.of(states, mask & (np.arange(6) != 2)[:, None])
            case "numbers as a mask":
                Sequences.of(states, mask.astype(np.int64))
            case "base":
                SequenceProbe(pooling="max", base="ridge").fit(Sequences.of(states), labels)
            case "positive":
                SequenceProbe(positive="c").fit(Sequences.of(states), labels)
            case _:
                SequenceProbe().fit(Sequences.of(states[..., :2]), labels).predict(Sequences.of(states))
