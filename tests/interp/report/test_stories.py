"""What a report says of the model: its name, and the checks that failed."""

from __future__ import annotations

import pytest

from interp.report.certificate import certificate_table, short_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [("demo", "demo"), ("org/model", "org/model"), ("/a/b/tiny", "tiny"), ("./m", "m")],
)
def test_a_folder_is_called_by_its_last_part(name: str, shown: str) -> None:
    assert short_name({"model": {"name": name}}) == shown


def test_failed_checks_stand_out() -> None:
    check = {
        "name": "n",
        "status": "fail",
        "value": 0.5,
        "limit": 1e-5,
        "unit": "relative",
        "detail": "d",
        "bound": "at most",
    }
    table = certificate_table(
        {"checks": [check, check | {"status": "skip", "value": None, "limit": None}], "noise_floor": None}
    )
    assert table is not None
    assert table.rows[0] == ("n", "FAILED", "0.5", "at most 1e-05", "d")
    assert table.rows[1][1:4] == ("does not apply", "", "")
