"""What a score is worth: splits by group, scores with intervals, calibration, selectivity, leakage."""

from __future__ import annotations

from probes.evaluation.accuracy import accuracy, informed_chance, majority_label, right
from probes.evaluation.detection import (
    Reliability,
    Temperature,
    auroc,
    average_precision,
    brier,
    expected_calibration_error,
    platt,
    recall_at_fpr,
)
from probes.evaluation.leakage import LEAKS, Audit, Leak, audit
from probes.evaluation.selectivity import PermutationTest, Selectivity, permutation_test, selectivity
from probes.evaluation.splits import Split, folds, group_split, straddling
from probes.evaluation.thresholds import Threshold, threshold_at

__all__ = [
    "LEAKS",
    "Audit",
    "Leak",
    "PermutationTest",
    "Reliability",
    "Selectivity",
    "Split",
    "Temperature",
    "Threshold",
    "accuracy",
    "audit",
    "auroc",
    "average_precision",
    "brier",
    "expected_calibration_error",
    "folds",
    "group_split",
    "informed_chance",
    "majority_label",
    "permutation_test",
    "platt",
    "recall_at_fpr",
    "right",
    "selectivity",
    "straddling",
    "threshold_at",
]
