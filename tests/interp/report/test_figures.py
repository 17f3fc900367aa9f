"""Figures keep their numbers, and both drawings show exactly those."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.errors import DataError
from interp.report.figures import FAINT, PALETTE, Figure

EVIL = "<script>alert(1)</script> [/red] $x_1$ \x1b &amp;"


def curve() -> Figure:
    rng = np.random.default_rng(0)
    rows = [
        (x, name, v, v - 0.1, v + 0.1)
        for name in ("probe", EVIL)
        for x, v in enumerate(rng.uniform(0.2, 0.8, 6))
    ]
    return Figure(
        "curve",
        pd.DataFrame(rows, columns=["x", "series", "value", "low", "high"]),
        EVIL,
        "n = 6",
        x="layer",
        y=EVIL,
        reference=0.5,
    )


def intervals() -> Figure:
    rows = [("probe", 0.9, 0.85, 0.95), (EVIL, 0.4, 0.3, 0.45)]
    return Figure(
        "intervals",
        pd.DataFrame(rows, columns=["name", "value", "low", "high"]),
        "scores",
        "n",
        x="accuracy",
        reference=0.1,
        limits=(0.0, 1.0),
    )


def counts() -> Figure:
    names = ["a", EVIL, "c"]
    rows = [(one, other, 10 * (one == other) + 1, 0.5) for one in names for other in names]
    return Figure(
        "counts",
        pd.DataFrame(rows, columns=["actual", "predicted", "n", "share"]),
        "confusion",
        "n",
        x="read as",
        y="is",
    )


def scatter() -> Figure:
    rows = [(EVIL, name, x, x + 0.1 * i) for i, name in enumerate(("int8", EVIL)) for x in (0.1, 0.5, 0.9)]
    return Figure(
        "scatter", pd.DataFrame(rows, columns=["name", "series", "x", "y"]), "effects", "n", x="full", y=EVIL
    )


FIGURES = {"curve": curve, "intervals": intervals, "counts": counts, "scatter": scatter}


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
    texts = [e.text for e in ElementTree.fromstring(Figure("intervals", data, "t", "c").svg()).iter()]
    assert label in texts


@pytest.mark.parametrize("form", FIGURES)
def test_the_same_figure_gives_the_same_bytes(form: str) -> None:
    assert FIGURES[form]().svg() == FIGURES[form]().svg()


def test_plotly_draws_the_numbers_of_the_table() -> None:
    figure = curve()
    drawn = figure.plotly()
    lines = [trace for trace in drawn.data if trace.mode == "lines+markers"]
    for trace, (_, part) in zip(lines, figure.data.groupby("series", sort=False), strict=True):
        assert list(trace.y) == list(part["value"])
        assert [list(pair) for pair in trace.customdata] == part[["low", "high"]].to_numpy().tolist()
    ends = [
        (t.x[0] - t.error_x.arrayminus[0], t.x[0] + t.error_x.array[0]) for t in intervals().plotly().data
    ]
    assert np.allclose(ends, intervals().data[["low", "high"]])
    assert np.asarray(counts().plotly().data[0].customdata).tolist() == [[11, 1, 1], [1, 11, 1], [1, 1, 11]]


def test_a_scatter_has_the_line_on_which_both_are_the_same_and_equal_axes() -> None:
    drawn = scatter().plotly()
    same, *dots = drawn.data
    assert list(same.x) == list(same.y) == list(drawn.layout.xaxis.range) == list(drawn.layout.yaxis.range)
    assert same.x[0] < 0.1 and same.x[1] > 1.0
    assert [list(one.y) for one in dots] == [[0.1, 0.5, 0.9], [0.2, 0.6, 1.0]]
    assert len({one.marker.symbol for one in dots}) == 2, "series are told apart by more than colour"


def test_intervals_can_have_a_strip_and_colours_of_their_own() -> None:
    plain = intervals()
    told = replace(plain, data=plain.data.assign(colour=[-1, 2]), band=(0.3, 0.5))
    shapes = [shape for shape in told.plotly().layout.shapes if shape.type == "rect"]
    assert [(one.x0, one.x1) for one in shapes] == [(0.3, 0.5)] and "fill-opacity" not in plain.svg()
    assert [t.marker.color for t in told.plotly().data] == [FAINT, PALETTE[2]]
    assert [t.marker.color for t in plain.plotly().data] == [PALETTE[0], FAINT]
    assert PALETTE[2] in told.svg() and PALETTE[2] not in plain.svg()


@pytest.mark.parametrize("form", FIGURES)
def test_plotly_labels_are_escaped_because_plotly_reads_tags(form: str) -> None:
    text = FIGURES[form]().plotly().to_json()
    assert "\\u003cscript" not in text.replace("\\u003cscript", "", 0) or "&lt;script" in text
    labels = str(FIGURES[form]().plotly().data)
    assert "<script>" not in labels and "&lt;script&gt;" in labels


def test_a_figure_is_displayed_with_its_caption_and_saved_twice(tmp_path: Path) -> None:
    figure = curve()
    assert "<figcaption>n = 6</figcaption>" in figure._repr_html_()
    svg, page = figure.save(tmp_path, "accuracy")
    assert svg.read_text() == figure.svg()
    assert "<script src=" not in page.read_text() and len(page.read_text()) > 1_000_000
    assert "rows" in repr(figure)


def test_a_table_without_the_columns_is_refused() -> None:
    with pytest.raises(DataError, match="needs the column 'low'"):
        Figure("intervals", pd.DataFrame({"name": ["a"], "value": [1.0]}), "t", "c")


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
