"""scikit-learn's own estimator checks, over the probes built on it, with every exception named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from probes import PROBES

pytestmark = pytest.mark.filterwarnings("ignore")  # the checks feed constant columns and single examples

CLASSES = (
    "logistic",
    "ridge",
    "mean-difference",
    "whitened-mean-difference",
    "lda",
    "nearest-centroid",
    "mlp",
)
NUMBERS = ("linear-regression", "ridge-regression")
OTHERS = {
    "sequence": "reads sequences; of one token each it is its base probe, which is checked",
    "multi-label": "learns [example label] of 0 and 1; the checks give one label per example",
    "hyperdimensional": "built on torch; its own contract checks cover it",
}

OF_ALL = {
    "check_estimators_unfitted": "NotFittedError is our own class (a ValueError and an AttributeError, as "
    "theirs): "
    "inheriting from theirs would load scikit-learn on import",
    "check_n_features_in_after_fitting": "our message names the cure, in other words than the check wants",
}
TYPED = {
    "check_do_not_raise_errors_in_init_or_set_params": "the suite checks argument types at run time; without "
    "that, the constructor only stores",
}
OF_CLASSES = OF_ALL | {
    "check_dtype_object": "our message says what to give, in other words than the check wants",
    "check_classifiers_classes": "decision_function has one column per label for two labels too",
    "check_classifiers_train": "decision_function has one column per label for two labels too",
    "check_supervised_y_2d": "labels in a column are refused, not flattened with a warning",
}
OF_TWO = {
    "check_classifier_not_supporting_multiclass": "our message names the probe to use for several classes",
}
OF_NUMBERS = OF_ALL | {
    "check_dtype_object": "the check hands labels as text to a regression, and wants its own words for "
    "refusing",
    "check_regressors_no_decision_function": "every probe has decision_function: the numbers, as X's kind "
    "of array",
}


def exceptions(estimator: Any) -> dict[str, str]:
    row = PROBES[estimator.kind]
    typed = TYPED if estimator.get_params() else {}
    if row.target == "number":
        return OF_NUMBERS | typed
    return OF_CLASSES | typed | (OF_TWO if row.most_classes == 2 else {})


def estimators() -> list[Any]:
    made = [PROBES[name].create() for name in (*CLASSES, *NUMBERS)]
    quick: dict[str, Any] = {"mlp": {"max_epochs": 30}, "logistic": {"regularisation": (0.01, 1.0)}}
    return [one.set_params(**quick.get(one.kind, {})) for one in made]


def test_every_probe_is_checked_or_named() -> None:
    assert {*CLASSES, *NUMBERS, *OTHERS} == set(PROBES)


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Estimator .* does not inherit from", UserWarning)
    every_check = parametrize_with_checks(estimators(), expected_failed_checks=exceptions)


@every_check
def test_scikit_learn_takes_it_for_one_of_its_own(estimator: Any, check: Any) -> None:
    check(estimator)
