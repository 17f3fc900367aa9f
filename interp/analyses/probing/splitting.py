"""Which prompts are for fitting, for choosing and for reporting; and what makes data unfit for a probe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from interp.errors import ConfigError, DataError, counted
from interp.tasks import Labelled
from probes.evaluation import Split, folds, group_split, straddling

__all__ = ["check_labels", "split_of", "warnings_of"]


MANY = 10
"""Different whole numbers, each once, that are taken for measurements rather than names of classes."""


def check_labels(data: Labelled) -> None:
    """Refuse data without anything to tell apart.

    Raises:
        DataError: no prompts, one class, or numbers that are no classes.
    """
    if len(data) == 0:
        raise DataError(f"'{data.name}' holds no prompts; a probe needs labelled prompts to learn from.")
    if len(set(data.labels)) == 1:
        raise DataError(
            f"all {counted(len(data), 'prompt')} of '{data.name}' have the label '{data.labels[0]}'; "
            "a probe needs at least two labels to tell apart. Take more prompts where a limit leaves few, or "
            "give prompts of another label."
        )
    if _are_measurements(data.labels):
        raise DataError(
            f"the labels of '{data.name}' are numbers such as '{data.labels[0]}', "
            f"{len(set(data.labels)):,} different ones for {counted(len(data), 'prompt')}; this probe tells "
            "classes apart. Read numbers with a regression probe from Python (probes.RidgeRegressionProbe "
            "on model.capture; `interp ls probes`), or give a column of classes."
        )


def _are_measurements(labels: Sequence[str]) -> bool:
    """Whether labels are numbers that are no classes: fractions, mostly different, or all different."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    fractions = any(not number.is_integer() for number in numbers if math.isfinite(number))
    different = len(set(numbers))
    return (fractions and 2 * different > len(numbers)) or (different == len(numbers) >= MANY)


def split_of(data: Labelled, fractions: Sequence[float], seed: int) -> tuple[Split, tuple[str, ...]]:
    """The data's own split where it has one, otherwise a split by groups, stratified by label.

    Args:
        data: the prompts.
        fractions: of groups, for train, validation and test, where the data has no split of its own.
        seed: of the draw.

    Returns:
        The split, and warnings about how it was made.

    Raises:
        ConfigError: fractions that are not three shares, or leave nothing to train or test on.
        DataError: rows with and without a split, groups in two parts, or labels with too few groups.
    """
    given = [name for name in data.splits if name]
    if given and len(given) < len(data):
        raise DataError(
            f"'{data.name}': {len(data) - len(given)} of {counted(len(data), 'prompt')} have no split; "
            "give every prompt one (train, validation or test), or none."
        )
    split, warnings = _given(data, seed) if given else (_drawn(data, fractions, seed), ())
    _check_split(data, split, fixed=bool(given))
    return split, warnings


def _given(data: Labelled, seed: int) -> tuple[Split, tuple[str, ...]]:
    split = Split.from_names(data.splits)
    leaks = straddling(data.groups, split)
    if leaks:
        raise DataError(
            f"'{data.name}': {counted(len(leaks), 'group is', 'groups are')} in more than one split, such "
            f"as '{leaks[0]}'; "
            "what is tested has been seen in training. Put each group into one split."
        )
    if len(split.validation) or not len(split.train):
        return split, ()
    groups = [data.groups[i] for i in split.train]
    labels = [data.labels[i] for i in split.train]
    held = split.train[folds(groups, 5, seed=seed, stratify=labels)[0]]
    words = (
        "no validation prompts are given: a fifth of the training groups serves to choose penalty and layer"
    )
    return Split(np.setdiff1d(split.train, held), held, split.test), (words,)


def _drawn(data: Labelled, fractions: Sequence[float], seed: int) -> Split:
    try:
        split = group_split(data.groups, fractions, seed=seed, stratify=data.labels)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not fractions[0] or not fractions[2]:
        raise ConfigError(
            f"fractions {tuple(fractions)} leave nothing to train or test on; use such as 0.6, 0.2, 0.2."
        )
    parts = sum(share > 0 for share in fractions)
    for label, count in sorted(_groups_per_label(data, range(len(data))).items()):
        if count < parts:
            raise DataError(
                f"'{data.name}': the label '{label}' has {count} of the {parts} groups it needs; take more "
                "prompts or groups, drop or merge the label, or give a split column."
            )
    return split


def _remedy(data: Labelled, *, fixed: bool) -> str:
    """What helps where a part of the split lacks labels: more prompts first, since a part may be a draw."""
    if fixed and data.source == "task":
        return "take more prompts (n, --limit), or leave the number out"
    if fixed:
        return "take more prompts, where a limit leaves few of the file, or correct its split column"
    return "take more prompts or groups, or try another seed"


def _check_split(data: Labelled, split: Split, *, fixed: bool) -> None:
    remedy = _remedy(data, fixed=fixed)
    parts = {"train": split.train, "test": split.test}
    for name, rows in parts.items():
        labels = {data.labels[i] for i in rows}
        if len(labels) < 2:
            found = f"only the label '{next(iter(labels))}'" if labels else "no prompts"
            raise DataError(
                f"'{data.name}': the {name} split has {found}; a probe needs two labels there: {remedy}."
            )
    known = set(_groups_per_label(data, split.train))
    unseen = sorted({data.labels[i] for i in split.test} - known)
    if unseen:
        raise DataError(
            f"'{data.name}': the label '{unseen[0]}' is in the test split but not in the training split "
            f"({len(unseen)} such labels); no probe can give it: {remedy}."
        )


def _groups_per_label(data: Labelled, rows: Sequence[int] | np.ndarray) -> Counter[str]:
    return Counter(label for label, _ in {(data.labels[i], data.groups[i]) for i in rows})


def warnings_of(data: Labelled, split: Split) -> tuple[str, ...]:
    """What a reader of any score on these data should know."""
    rows: dict[str, list[int]] = {}
    for i, text in enumerate(data.texts):
        rows.setdefault(text, []).append(i)
    repeated = [members for members in rows.values() if len(members) > 1]
    train, test = set(split.train.tolist()), set(split.test.tolist())
    torn = sum(len({data.labels[i] for i in members}) > 1 for members in repeated)
    leaked = sum(len(test & set(members)) for members in repeated if train & set(members))
    tested = {data.labels[i] for i in test}
    untested = sorted({data.labels[i] for i in train} - tested)
    example = untested[0] if untested else ""
    untaught = f"{counted(len(untested), 'label is', 'labels are')} in training and in no test prompt"
    found = {
        f"{counted(sum(map(len, repeated)) - len(repeated), 'prompt repeats', 'prompts repeat')} an earlier "
        "one word for word": bool(repeated),
        f"{counted(torn, 'prompt occurs', 'prompts occur')} with different labels: no probe can get both "
        "right": torn,
        f"{counted(leaked, 'test prompt is', 'test prompts are')} also in training, word for word: the "
        "scores are too high": leaked,
        f"{untaught}, such as '{example}'": untested,
    }
    return tuple(words for words, holds in found.items() if holds)
