"""What a report chooses to say: mistakes, examples, undetermined intervals, names."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from interp.report.certificate import certificate_table, short_name
from interp.report.confusion import MOST_LABELS, confusion_figure, confusion_table, examples
from interp.report.probing import scores_table, story


def rows(*found: tuple[str, str, str, float], split: str = "test") -> pd.DataFrame:
    frame = pd.DataFrame(found, columns=["text", "label", "predicted", "probability"])
    return frame.assign(split=split)


ROWS = rows(
    ("t0", "a", "a", 0.9),
    ("t1", "a", "b", 0.6),
    ("t2", "a", "b", 0.8),
    ("t3", "b", "a", 0.7),
    ("t4", "b", "b", 0.5),
)


def test_the_surest_mistake_of_each_kind_comes_first() -> None:
    wrong, right = examples(ROWS)
    assert [(e.text, e.actual, e.predicted) for e in wrong] == [
        ("t2", "a", "b"),
        ("t3", "b", "a"),
        ("t1", "a", "b"),
    ]
    assert [(e.text, e.confidence) for e in right] == [("t0", "probability 0.90"), ("t4", "probability 0.50")]


def test_only_test_prompts_count_and_probes_without_probabilities_show_none() -> None:
    for frame in (rows(("t", "a", "b", 0.5), split="train"), None, pd.DataFrame({"text": ["t"]})):
        assert (
            examples(frame) == ([], []) and confusion_figure(frame) is None and confusion_table(frame) is None
        )
    assert examples(rows(("t", "a", "b", float("nan"))))[0][0].confidence == ""


def test_confusions_are_counted() -> None:
    table = confusion_table(ROWS)
    assert table is not None and table.rows == (("a", "b", "2 of 3"), ("b", "a", "1 of 2"))
    figure = confusion_figure(ROWS)
    assert figure is not None
    found = {(r.actual, r.predicted): (r.n, r.share) for r in figure.data.itertuples()}
    assert found == {
        ("a", "a"): (1, 1 / 3),
        ("a", "b"): (2, 2 / 3),
        ("b", "a"): (1, 0.5),
        ("b", "b"): (1, 0.5),
    }


def test_more_labels_than_a_figure_can_show_are_left_to_the_table() -> None:
    many = rows(*[(f"t{i}", f"l{i}", "l0", 0.5) for i in range(MOST_LABELS + 1)])
    assert confusion_figure(many) is None and confusion_table(many) is not None


SCORE: dict[str, Any] = {
    "layer": 3,
    "name": "probe",
    "value": 1.0,
    "low": None,
    "high": None,
    "n": 4.0,
    "n_groups": 1.0,
    "difference": None,
    "difference_low": None,
    "difference_high": None,
    "validation": None,
    "method": "undetermined",
    "note": "",
}


def test_an_undetermined_interval_is_said_and_chance_has_none() -> None:
    chance = SCORE | {"name": "chance", "value": 0.5, "n": None, "n_groups": None, "method": "exact"}
    table = scores_table({"layer": 3, "scores": [SCORE, chance]})
    assert [(row[0], row[2]) for row in table.rows] == [("probe, layer 3", "undetermined"), ("chance", "")]
    assert "4 test prompts in 1 groups" in table.note


def test_a_story_can_be_told_of_little() -> None:
    told = story({}, {"layer": 3, "layers": [3], "verdict": "decodable", "scores": [SCORE]}, None)
    assert told.verdict == "Decodable." and len(told.figures) == 1 and told.certificate is None


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
