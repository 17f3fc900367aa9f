"""A finding is a mean of items or a statistic of their weights, and refuses what cannot be averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from interp.errors import ConfigError, DataError
from interp.results import Finding, FindingsResult, load
from interp.results.measured import NAMED

VALUES = np.array([0.5, 1.5, -0.25, 2.0])
GROUPS = ("a", "a", "b", "c")


def test_a_finding_is_the_mean_of_its_items_beyond_its_control() -> None:
    plain = Finding("mean", VALUES, GROUPS, control=np.array([0.0, 1.0, 1.0, 0.0]))
    assert plain.value == pytest.approx(0.9375)
    assert plain.excess == pytest.approx(0.4375)
    assert plain.n_groups == 3
    estimate = plain.estimate()
    assert estimate is not None
    assert estimate.value == pytest.approx(plain.value)


def test_a_statistic_is_a_function_of_the_weights() -> None:
    spread = Finding("spread", VALUES, GROUPS, statistic=lambda w: float(np.average(VALUES**2, weights=w)))
    assert spread.value == pytest.approx(float((VALUES**2).mean()))
    assert spread.estimate() is None


@pytest.mark.parametrize(
    ("values", "groups", "control"),
    [
        (np.array([1.0, np.nan]), ("a", "b"), 0.0),
        (np.array([1.0, 2.0]), ("a",), 0.0),
        (np.array([1.0, 2.0]), ("a", "b"), np.array([0.0, 1.0, 2.0])),
        (np.array([]), (), 0.0),
        (np.array([1.0]), ("a",), float("inf")),
    ],
)
def test_what_cannot_be_averaged_is_refused(
    values: np.ndarray, groups: tuple[str, ...], control: object
) -> None:
    with pytest.raises(DataError, match="finding 'x'"):
        Finding("x", values, groups, control=control)  # type: ignore[arg-type]


def test_what_matters_is_a_number_above_zero_for_each_item_of_a_mean() -> None:
    assert Finding("x", VALUES, GROUPS, matters=np.full(4, 0.1)).matters is not None
    for wrong in (np.zeros(4), np.array([0.1, 0.1, 0.1, -0.1]), np.full(4, np.nan)):
        with pytest.raises(DataError, match="finding 'x': 'matters'"):
            Finding("x", VALUES, GROUPS, matters=wrong)
    with pytest.raises(DataError, match="'matters' is of a mean"):
        Finding("x", VALUES, GROUPS, statistic=lambda w: 1.0, matters=np.full(4, 0.1))


def test_a_result_of_findings_names_them_beside_their_controls() -> None:
    one, two = Finding("one", VALUES, GROUPS), Finding("two", VALUES + 1, GROUPS, control=0.25, unit="nats")
    result = FindingsResult(analysis="behaviour", found=(one, two))
    assert list(result.table()["finding"]) == ["one", "two"]
    assert result.finding("two") is two and result.findings() == (one, two)
    assert result.number("two").value == pytest.approx(1.9375)
    assert result.table().loc[1, "low"] == one.estimate().interval.low + 1  # type: ignore[union-attr]
    assert result.verdict() == "one: 0.938 against 0; two: 1.94 nats against 0.25."
    with pytest.raises(ConfigError, match="no finding 'three'"):
        result.finding("three")
    with pytest.raises(DataError, match="two findings are called 'one'"):
        FindingsResult(analysis="behaviour", found=(one, one))


def test_findings_that_are_left_out_are_counted() -> None:
    for more, words in ((1, "1 more finding."), (2, "2 more findings.")):
        found = tuple(Finding(f"f{at}", VALUES, GROUPS) for at in range(NAMED + more))
        assert FindingsResult(analysis="toy", found=found).verdict().endswith(words)


def test_of_a_curve_the_last_layer_is_the_headline_and_all_are_drawn() -> None:
    layers = [Finding(f"r at layer {at}", VALUES + at, GROUPS, curve="r", layer=at) for at in range(3)]
    spread = Finding("spread", VALUES, GROUPS, unit="bits", statistic=lambda w: float(w @ VALUES**2))
    result = FindingsResult(analysis="toy", found=(*layers, spread))
    assert [one.name for one in result.numbers()] == ["r-at-layer-2", "spread"]
    assert [one.name for one in result.figures()] == ["findings-bits", "curve-r"]
    curve = result.figure("curve-r").frame()
    assert list(curve[curve["series"] == "this model"]["value"]) == [one.value for one in layers]
    assert set(curve[curve["series"] == "control"]["value"]) == {0.0}
    assert result.table().set_index("finding").loc["spread", ["low", "high"]].isna().all()


def test_the_state_is_not_saved(tmp_path: Path) -> None:
    result = FindingsResult(analysis="toy", found=(Finding("f", VALUES, GROUPS),), state={"x": object()})
    again = load(result.save(tmp_path / "toy"))
    assert isinstance(again, FindingsResult) and again.state == {} and again.found[0].value == 0.9375
