"""Whether a score is the data's or the probe's: shuffled labels and control tasks."""

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probes.arrays import Inputs, Labels
from probes.controls import control_task_labels, shuffled_labels
from probes.evaluation.accuracy import right
from probes.statistics import Estimate, bootstrap, paired_difference, permutation_p
from probes.statistics.groups import counted

if TYPE_CHECKING:
    from probes.base import Probe

__all__ = ["PermutationTest", "Selectivity", "permutation_test", "selectivity"]


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """A score beside the scores of the same probe trained on shuffled labels.

    Attributes:
        score: of the probe on the test examples.
        null: ``[shuffle]``, its scores where the training labels mean nothing.
        p_value: share of shuffles that score as high, the unshuffled one counted: never 0.
    """

    score: float
    null: Float[np.ndarray, " shuffle"]
    p_value: float


@dataclass(frozen=True)
class Selectivity:
    """What a probe scores on a task, on its control task, and the difference.

    Attributes:
        task: accuracy on the labels.
        control: accuracy on the control labels.
        difference: task less control, paired by example: the selectivity.
    """

    task: Estimate
    control: Estimate
    difference: Estimate


def permutation_test(
    probe: Probe,
    train: tuple[Inputs, Labels],
    test: tuple[Inputs, Labels],
    *,
    groups: Collection[Any] | None = None,
    n_shuffles: int = 99,
    seed: int = 0,
) -> PermutationTest:
    """Fit a probe on shuffled training labels again and again, and score each on the true test labels.

    Whole groups exchange labels, so that examples that share a fact share its wrong label (Ojala and Garriga
    2010, test 1).

    Args:
        probe: its parameters are used; the probe itself is not changed.
        train: examples and labels to fit.
        test: examples and labels to score.
        groups: the group of each training example.
        n_shuffles: how many; the smallest p-value is ``1 / (n_shuffles + 1)``.
        seed: of the shuffles.

    Raises:
        ValueError: no shuffles, or not one group per training example.
    """
    if n_shuffles < 1:
        raise ValueError(f"n_shuffles={n_shuffles} asked; give at least 1, better 99.")
    labels = list(train[1])
    units = None if groups is None else list(groups)
    score = _fresh(probe).fit(train[0], labels, groups=groups).score(*test)
    null = np.array(
        [
            _fresh(probe)
            .fit(train[0], shuffled_labels(labels, groups=units, seed=seed + at), groups=groups)
            .score(*test)
            for at in range(n_shuffles)
        ]
    )
    return PermutationTest(score, null, permutation_p(score, null))


def selectivity(
    probe: Probe,
    train: tuple[Inputs, Labels],
    test: tuple[Inputs, Labels],
    keys: tuple[Sequence[Hashable], Sequence[Hashable]],
    *,
    groups: Collection[Any] | None = None,
    seed: int = 0,
) -> Selectivity:
    """Compare a probe's accuracy with its accuracy on a control task (Hewitt and Liang 2019, section 2).

    The control task gives every key (a word, a subject) a fixed random label, drawn as often as the true
    labels occur: what a probe can score by storing its keys. On a task where every key has its own label the
    control only renames the labels, and a low selectivity says nothing.

    Args:
        probe: its parameters are used; the probe itself is not changed.
        train: examples and labels to fit.
        test: examples and labels to score.
        keys: the key of each training and each test example; test keys should occur in training.
        groups: the group of each test example, for the intervals.
        seed: of the control labels and the intervals.

    Raises:
        ValueError: not one key per example.
    """
    for name, have, part in (("training", keys[0], train), ("test", keys[1], test)):
        if len(have) != len(part[1]):
            raise ValueError(
                f"{counted(len(have), 'key')} for {len(part[1])} {name} examples; give one key per example."
            )
    count = len(train[1])
    drawn = control_task_labels([*keys[0], *keys[1]], [*train[1], *test[1]], seed=seed)
    known = set(drawn[:count])
    if len(known) < 2:
        raise ValueError("the control task drew one label for every training key; give more keys, or a seed.")
    own = right(test[1], _fresh(probe).fit(train[0], list(train[1])).predict(test[0]).tolist())
    other = right(drawn[count:], _fresh(probe).fit(train[0], drawn[:count]).predict(test[0]).tolist())
    return Selectivity(
        bootstrap(own, groups=groups, seed=seed),
        bootstrap(other, groups=groups, seed=seed),
        paired_difference(own, other, groups=groups, seed=seed),
    )


def _fresh(probe: Probe) -> Probe:
    return type(probe)(**copy.deepcopy(probe.get_params()))
