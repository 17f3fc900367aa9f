"""Several labels at once, against one logistic probe per label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from probes import LogisticProbe, MultiLabelProbe, load


def labelled(n: int = 150, *, seed: int = 0) -> tuple[np.ndarray, list[tuple[str, ...]], np.ndarray]:
    """Three labels, each a side of a hyperplane of its own."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5)) * [1, 2, 3, 4, 5] + 4
    table = (X - 4) @ rng.normal(size=(5, 3)) + rng.normal(size=(n, 3)) > [0.0, 1.0, -2.0]
    names = [tuple(np.array(["big", "old", "red"])[row]) for row in table]
    return X, names, table.astype(np.int64)


def test_each_label_is_a_logistic_probe_of_its_own() -> None:
    X, names, table = labelled()
    probe = MultiLabelProbe(regularisation=0.1).fit(X, names)
    assert probe.classes_.tolist() == ["big", "old", "red"]
    for at in range(3):
        one = LogisticProbe(regularisation=0.1).fit(X, table[:, at])
        assert np.allclose(np.asarray(probe.predict_proba(X))[:, at], np.asarray(one.predict_proba(X))[:, 1])
        other = LogisticProbe(regularisation=0.1).fit(X, table[:, at - 1])
        assert not np.allclose(
            np.asarray(probe.predict_proba(X))[:, at], np.asarray(other.predict_proba(X))[:, 1]
        )


def test_names_and_columns_are_the_same_thing() -> None:
    X, names, table = labelled()
    by_name, by_column = MultiLabelProbe().fit(X, names), MultiLabelProbe().fit(X, torch.from_numpy(table))
    assert np.array_equal(by_name.predict(X), by_column.predict(X))
    assert by_column.classes_.tolist() == [0, 1, 2]
    assert (
        by_name.score(X, names)
        == by_column.score(X, table)
        == np.mean((by_name.predict(X) == table).all(axis=1))
    )


def test_a_label_holds_where_its_probability_is_above_a_half() -> None:
    X, names, _ = labelled()
    probe = MultiLabelProbe().fit(X, names)
    assert np.allclose(
        special.expit(np.asarray(probe.decision_function(X))), np.asarray(probe.predict_proba(X))
    )
    assert np.array_equal(probe.predict(X), np.asarray(probe.predict_proba(X)) > 0.5)


def test_penalties_are_chosen_on_validation_and_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    X, names, _ = labelled()
    held = labelled(seed=1)
    probe = MultiLabelProbe().fit(X, names, validation=held[:2])
    assert len(probe.notes_["regularisation"]) == 3
    back = load(probe.save(tmp_path))
    assert isinstance(back, MultiLabelProbe)
    assert back.classes_.tolist() == ["big", "old", "red"]
    assert np.array_equal(back.predict(X), probe.predict(X))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["big"] * 150, "one label per example; several labels are given as collections"),
        ([("big",)] * 150, "label 'big' holds for every example"),
        (np.zeros((150, 2)), "label 0 holds for no example"),
        (np.full((150, 2), 2), "of 0 and 1"),
        ([("big",)] * 149, "149 rows for 150 examples"),
    ],
)
def test_what_is_not_several_labels_is_refused(y: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiLabelProbe().fit(labelled()[0], y)  # pyright: ignore[reportArgumentType]


def test_a_label_that_was_not_trained_is_refused() -> None:
    X, names, _ = labelled()
    with pytest.raises(ValueError, match="the label 'new', which was not trained"):
        MultiLabelProbe().fit(X, names).score(X[:1], [("new",)])
