"""What a report says of the model: its name, and the checks that failed."""

from __future__ import annotations

import pytest

from interp.report.certificate import short_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [("demo", "demo"), ("org/model", "org/model"), ("/a/b/tiny", "tiny"), ("./m", "m")],
)
def test_a_folder_is_called_by_its_last_part(name: str, shown: str) -> None:
    assert short_name({"model": {"name": name}}) == shown
