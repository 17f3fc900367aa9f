"""A finding is a mean of items or a statistic of their weights, and refuses what cannot be averaged."""

from __future__ import annotations

import numpy as np
import pytest

from interp.analyses.measured import Measured
from interp.errors import ConfigError, DataError
from interp.results.findings import Finding, Findings

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


def test_measured_is_a_result_with_findings() -> None:
    one, two = Finding("one", VALUES, GROUPS), Finding("two", VALUES + 1, GROUPS, unit="nats")
    result = Measured("behaviour", (one, two), {"name": "m"})
    assert isinstance(result, Findings)
    assert list(result.table()["finding"]) == ["one", "two"]
    assert result.finding("two") is two
    changed = result.diff(Measured("behaviour", (one, Finding("two", VALUES, GROUPS)), {}))
    assert list(changed["value_change"]) == pytest.approx([0.0, 1.0])
    assert "warnings" in result.to_dict()
    with pytest.raises(ConfigError, match="no finding 'three'"):
        result.finding("three")
    with pytest.raises(DataError, match="two findings are called 'one'"):
        Measured("behaviour", (one, one), {})
    with pytest.raises(ConfigError, match="recall cannot be compared"):
        Measured("recall", (one,), {}).diff(result)
