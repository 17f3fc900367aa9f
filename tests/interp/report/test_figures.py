"""Figures keep their numbers, and the drawing shows exactly those."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import interp
from interp.errors import DataError
from interp.report.figures import PALETTE, Drawing, Tips

EVIL = "<script>alert(1)</script> [/red] $x_1$ \x1b &amp;"


def curve() -> Drawing:
    rng = np.random.default_rng(0)
    rows = [
        (x, name, v, v - 0.1, v + 0.1)
        for name in ("probe", EVIL)
        for x, v in enumerate(rng.uniform(0.2, 0.8, 6))
    ]
    return Drawing(
        "curve",
        pd.DataFrame(rows, columns=["x", "series", "value", "low", "high"]),
        EVIL,
        "n = 6",
        x="layer",
        y=EVIL,
        reference=0.5,
    )


def intervals() -> Drawing:
    rows = [("probe", 0.9, 0.85, 0.95), (EVIL, 0.4, 0.3, 0.45)]
    return Drawing(
        "intervals",
        pd.DataFrame(rows, columns=["name", "value", "low", "high"]),
        "scores",
        "n",
        x="accuracy",
        reference=0.1,
        limits=(0.0, 1.0),
    )


def counts() -> Drawing:
    names = ["a", EVIL, "c"]
    rows = [(one, other, 10 * (one == other) + 1, 0.5) for one in names for other in names]
    return Drawing(
        "counts",
        pd.DataFrame(rows, columns=["actual", "predicted", "n", "share"]),
        "confusion",
        "n",
        x="read as",
        y="is",
    )


def scatter() -> Drawing:
    rows = [(EVIL, name, x, x + 0.1 * i) for i, name in enumerate(("int8", EVIL)) for x in (0.1, 0.5, 0.9)]
    return Drawing(
        "scatter", pd.DataFrame(rows, columns=["name", "series", "x", "y"]), "effects", "n", x="full", y=EVIL
    )


def grid() -> Drawing:
    words = {(0, 0): " a", (1, 0): "\n", (0, 1): EVIL, (1, 1): "a very long word"}
    rows = [(x, y, ("The", " end")[x], word, 0.25 + 0.5 * x, 1 + 6 * y) for (x, y), word in words.items()]
    columns = ["x", "y", "column", "text", "value", "rank"]
    return Drawing("grid", pd.DataFrame(rows, columns=columns), EVIL, "n", x="token", y="layer")


FIGURES = {"curve": curve, "intervals": intervals, "counts": counts, "scatter": scatter, "grid": grid}


@pytest.mark.parametrize("form", FIGURES)
def test_the_svg_is_sound_xml_without_script_and_follows_the_page(form: str) -> None:
    text = FIGURES[form]().svg()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert not [e for e in root.iter() if e.tag.endswith(("script", "foreignObject"))]
    assert "currentColor" in text and "\x1b" not in text
    assert not [key for e in root.iter() for key in e.attrib if key.startswith("on")]
    assert any("<script>alert" in (e.text or "") for e in root.iter()), "the label is there, as text"


@pytest.mark.parametrize("label", ["$x_1$", "$\\frac{$", "a_b^c", "100 %", "中文", "\\alpha"])
def test_labels_are_not_read_as_mathematics(label: str) -> None:
    data = pd.DataFrame([(label, 0.5, 0.4, 0.6)], columns=["name", "value", "low", "high"])
    texts = [e.text for e in ElementTree.fromstring(Drawing("intervals", data, "t", "c").svg()).iter()]
    assert label in texts


@pytest.mark.parametrize("form", FIGURES)
def test_the_same_figure_gives_the_same_bytes(form: str) -> None:
    assert FIGURES[form]().svg() == FIGURES[form]().svg()


def titles(figure: Drawing) -> list[str]:
    """What the marks say, in the order in which they are drawn, read back from the XML."""
    root = ElementTree.fromstring(figure.svg())
    return [e.text or "" for e in root.iter() if e.tag.endswith("title")]


def test_marks_say_the_numbers_of_the_table() -> None:
    told = titles(curve())
    rows = list(curve().data.itertuples(index=False))
    assert len(told) == len(rows) == 12
    for text, row in zip(told, rows, strict=True):
        assert text.endswith(f"layer {row.x}: {row.value:.4g} [{row.low:.4g}, {row.high:.4g}]")
    assert titles(intervals())[0] == "probe: 0.9 [0.85, 0.95]"
    assert len(titles(counts())) == 9 and titles(counts())[2] == "a read as c: 1 (50%)"
    assert titles(grid())[0] == "layer 0, token 0 ('The'): ' a' 0.250; rank of the model's own word: 1"
    assert titles(grid())[3].endswith("'a very long word' 0.750; rank of the model's own word: 7")
    assert [text.split(": ")[-1] for text in titles(scatter())][:4] == [
        "0.1, 0.1",
        "0.5, 0.5",
        "0.9, 0.9",
        "0.1, 0.2",
    ]


def test_a_mark_of_a_map_says_its_place_and_whether_it_is_told_from_noise() -> None:
    rows = [(x, y, x - 2.0 * y, x != y) for y in range(3) for x in range(4)]
    data = pd.DataFrame(rows, columns=["x", "y", "value", "clear"])
    told = titles(Drawing("map", data, "t", "c", x="position", y="layer"))
    assert told[1] == "layer 0, position 1: 1" and told[5] == "layer 1, position 1: -1, not told from noise"
    assert len(told) == 12


def test_nodes_and_arrows_of_a_graph_say_their_values() -> None:
    nan = float("nan")
    rows = [("a", 0, 0, nan, nan, 1.0), ("b", 1, 1, nan, nan, -0.5), ("a>b", 0, 0, 1, 1, 0.25)]
    told = titles(
        Drawing("graph", pd.DataFrame(rows, columns=["name", "x", "y", "to_x", "to_y", "value"]), "t", "c")
    )
    assert {"a: 1", "b: -0.5", "a>b: 0.25"} == set(told)


def test_marks_of_another_number_than_the_texts_say_nothing_rather_than_what_others_say() -> None:
    svg = '<svg><g id="tip-0"><defs><path d="M"/></defs><g><use a="1"/><use a="2"/></g></g><use a="3"/></svg>'
    tips = Tips()
    tips.texts = {"tip-0": ["one"]}
    assert tips.written(svg) == svg
    tips.texts = {"tip-0": ["one", "two"]}
    assert tips.written(svg).count("<title>") == 2
    assert '<use a="2"><title>two</title></use></g></g><use a="3"/>' in tips.written(svg)


def test_intervals_can_have_a_strip_and_colours_of_their_own() -> None:
    plain = intervals()
    told = replace(plain, data=plain.data.assign(colour=[-1, 2]), band=(0.3, 0.5))
    assert "opacity: 0.16" in told.svg() and "opacity: 0.16" not in plain.svg()
    assert PALETTE[2] in told.svg() and PALETTE[2] not in plain.svg()
    assert PALETTE[0] in plain.svg() and PALETTE[0] not in told.svg()


def test_a_figure_is_displayed_with_its_caption_and_saved_twice(tmp_path: Path) -> None:
    figure = curve()
    assert "<figcaption>n = 6</figcaption>" in figure._repr_html_()
    svg, numbers = figure.save(tmp_path, "accuracy")
    assert svg.read_text() == figure.svg()
    assert pd.read_csv(numbers)["value"].tolist() == pytest.approx(figure.data["value"].tolist())
    assert "rows" in repr(figure)


def test_a_table_without_the_columns_is_refused() -> None:
    with pytest.raises(DataError, match="needs the column 'low'"):
        Drawing("intervals", pd.DataFrame({"name": ["a"], "value": [1.0]}), "t", "c")


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_first_colours_stay_apart_for_every_kind_of_eye() -> None:
    """Simulate dichromacy (Vienot et al. 1999) on linear RGB and ask for a distance between colours."""
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    blind = {
        "protan": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
        "deutan": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
        "normal": np.eye(3),
    }
    colours = [np.array([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]) ** 2.2 for c in PALETTE[:3]]
    for name, matrix in blind.items():
        seen = [np.linalg.inv(to_lms) @ matrix @ to_lms @ c for c in colours]
        apart = min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[i + 1 :])
        assert apart > 0.12, name
    assert all(abs(luminance(c) - 1) > 0.2 for c in PALETTE)


def test_words_of_a_grid_show_their_blanks_and_are_cut_and_let_the_pointer_through() -> None:
    text = grid().svg()
    words = [e.text for e in ElementTree.fromstring(text).iter() if e.tag.endswith("text")]
    assert {"\u00b7a", "\\n", "a\u00b7very\u00b7l\u2026", "\u00b7end"} <= set(words)
    assert "text{pointer-events: none}" in text and "pointer-events" not in counts().svg()


def test_a_frame_of_a_grid_says_that_the_rank_is_1() -> None:
    framed = grid().svg().count(f"stroke: {PALETTE[1]}")
    nowhere = replace(grid(), data=grid().data.assign(rank=2)).svg().count(f"stroke: {PALETTE[1]}")
    assert framed == 2 and nowhere == 0


def test_tokens_are_coloured_by_numbers_and_nothing_in_them_is_markup() -> None:
    words = [" the", "<script>", "\n", "\u202e"]
    found = interp.show_tokens(words, [0.5, -2.0, float("nan"), 1.0], unit="nats", width=3)
    shown = found.data.set_index("text")
    assert shown.loc["<script>", "value"] == 1.0 and shown.loc["<script>", "rank"] == 1
    assert shown.loc[" the", "value"] == 0.25 and shown.loc["\n", "value"] == 0.0
    assert list(found.data["y"]) == [3, 0, 0, 0]  # the last line is the lowest
    svg = found.svg()
    assert "<script" not in svg and "\u202e" not in svg and "\u00b7the" in svg and "-2 nats" in svg
    with pytest.raises(DataError, match="2 tokens and 1 numbers"):
        interp.show_tokens(["a", "b"], [1.0])
