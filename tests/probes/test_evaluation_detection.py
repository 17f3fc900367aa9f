"""Detection scores against scikit-learn, and calibration on a planted case."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from probes.evaluation import (
    Temperature,
    auroc,
    average_precision,
    brier,
    expected_calibration_error,
    recall_at_fpr,
)
from probes.statistics import best_of


def scored(n: int = 300, *, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    scores = rng.normal(size=n) + 1.2 * labels
    return labels, np.round(scores, 0 if ties else 8)


@pytest.mark.parametrize("ties", [False, True])
def test_rankings_agree_with_scikit_learn(ties: bool) -> None:
    labels, scores = scored(ties=ties)
    assert auroc(labels, scores, n_resamples=50).value == pytest.approx(metrics.roc_auc_score(labels, scores))
    found = average_precision(labels, scores, n_resamples=50).value
    assert found == pytest.approx(metrics.average_precision_score(labels, scores))
    assert auroc(labels, -scores, n_resamples=50).value == pytest.approx(
        1 - metrics.roc_auc_score(labels, scores)
    )


def test_intervals_hold_the_value_and_widen_with_groups() -> None:
    labels, scores = scored()
    single = auroc(labels, scores).interval
    grouped = auroc(labels, scores, groups=np.arange(300) // 10).interval
    assert single.low < metrics.roc_auc_score(labels, scores) < single.high
    assert grouped.low < grouped.high and single.method == "score on groups"


def test_recall_is_counted_above_the_negatives_threshold() -> None:
    labels, scores = scored(2000)
    found = recall_at_fpr(labels, scores, rate=0.05)
    fpr, tpr, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert found.value == pytest.approx(tpr[fpr <= 0.05].max(), abs=0.005)
    assert found.interval.low < found.value < found.interval.high
    assert recall_at_fpr(labels, scores, rate=0.0).value < found.value
    with pytest.raises(ValueError, match=r"rate=1\.5"):
        recall_at_fpr(labels, scores, rate=1.5)


def test_temperature_mends_scores_that_are_too_sure() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 4)) * 1.5
    codes = np.array([rng.choice(4, p=row) for row in special.softmax(logits, axis=1)])
    sure = 4 * logits
    scaling = Temperature.fitted(sure[:1500], codes[:1500])
    assert scaling.value == pytest.approx(4, rel=0.15)

    def error(chances: np.ndarray) -> float:
        return expected_calibration_error(chances.argmax(1) == codes[1500:], chances.max(1)).error

    before, after = error(special.softmax(sure[1500:], axis=1)), error(scaling(sure[1500:]))
    assert before > 0.15 > 0.05 > after


def test_brier_and_bins_follow_their_definitions() -> None:
    labels, scores = scored()
    chances = special.expit(scores)
    assert brier(labels, chances).value == pytest.approx(metrics.brier_score_loss(labels, chances))
    curve = expected_calibration_error(labels, chances, bins=5)
    assert curve.counts.sum() == 300
    inside = (chances >= 0.4) & (chances < 0.6)
    assert curve.accuracy[2] == pytest.approx(labels[inside].mean())
    assert curve.confidence[2] == pytest.approx(chances[inside].mean())
    perfect = expected_calibration_error([0, 1, 1], [0.0, 1.0, 1.0])
    assert perfect.error == 0


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        auroc([1, 1], [0.5, 0.2])
    with pytest.raises(ValueError, match="one score per label"):
        auroc([1, 0], [0.5])
    with pytest.raises(ValueError, match="not finite"):
        auroc([1, 0], [0.5, float("nan")])
    with pytest.raises(ValueError, match="must be in 0 to 1"):
        brier([1, 0], [0.5, 1.5])


def looks(seed: int, *, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Twenty-four looks at 60 examples: what each probe and its control get right."""
    rng = np.random.default_rng(seed)
    chance = np.full(24, 0.3)
    chance[7] += effect
    return (rng.random((24, 60)) < chance[:, None]).astype(float), (rng.random((24, 60)) < 0.3).astype(float)


def test_the_best_of_many_layers_is_rarely_called_real_where_none_is() -> None:
    found = [best_of(*looks(seed), n_permutations=199, seed=seed) for seed in range(200)]
    corrected = np.mean([one.p_value <= 0.05 for one in found])
    uncorrected = np.mean([one.p_uncorrected <= 0.05 for one in found])
    assert corrected <= 0.09  # 5% and its binomial error over 200 simulations
    assert uncorrected > 0.4  # what is claimed without the correction


def test_a_layer_that_differs_is_found() -> None:
    found = best_of(*looks(0, effect=0.45))
    assert found.index == 7 and found.p_value < 0.01 and found.difference > 0.3
    grouped = best_of(*looks(0, effect=0.45), groups=np.arange(60) // 3)
    assert grouped.index == 7 and grouped.p_value < 0.05
    with pytest.raises(ValueError, match="one group per example"):
        best_of(*looks(0), groups=[1, 2])
