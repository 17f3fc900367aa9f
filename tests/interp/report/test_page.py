"""The page: self-contained, nothing from data is markup, only our own scripts may run."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser

import pytest

from interp.report.document import Document, ShownNumber, ShownTable
from interp.report.page import render
from tests.interp.report.test_figures import EVIL, counts, curve


@lru_cache
def evil_page() -> str:
    table = ShownTable(EVIL, (EVIL, "n"), ((EVIL, 0.5), (None, float("nan"))), note=EVIL, main=0)
    story = Document(
        EVIL,
        EVIL,
        EVIL,
        lead=(EVIL,),
        numbers=(ShownNumber(EVIL, EVIL, EVIL, EVIL),),
        tables=(table,),
        figures=(replace(curve(), title=EVIL, caption=EVIL), counts()),
        cautions=(EVIL,),
        certificate=table,
        command=EVIL,
        facts=((EVIL, EVIL),),
        words=((EVIL, EVIL),),
    )
    return render(story)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.policy = ""
        self._into: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "action")]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        if tag == "script":
            self._into = self.scripts
            self._into.append("")

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._into = None


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_text_from_data_is_never_markup() -> None:
    page = read(evil_page())
    assert len(page.scripts) == 1, "our own"
    assert not any("alert(1)" in script for script in page.scripts)
    assert page.handlers == []
    assert "\x1b" not in evil_page()


def test_nothing_comes_from_outside() -> None:
    page = read(evil_page())
    assert all(link.startswith("#") for link in page.links), page.links
    assert not re.search(
        r"@import|url\((?!['\"]?(#|data:))", re.sub(r"<script>.*?</script>", "", evil_page(), flags=re.DOTALL)
    )


def test_the_policy_allows_exactly_the_scripts_that_are_there() -> None:
    page = read(evil_page())
    allowed = set(re.findall(r"'sha256-([^']+)'", page.policy))
    assert allowed == {
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts
    }
    directives = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    assert directives["default-src"] == "'none'" and "unsafe" not in directives["script-src"]


def test_figures_are_there_as_svg_and_the_page_is_small() -> None:
    page = evil_page()
    assert page.count('<svg role="img"') == 2 and len(page) < 200_000
    ids = re.findall(r'<(?:g|path|clipPath|marker|rect|use)[^>]* id="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "ids of two drawings do not collide"


def test_missing_numbers_are_shown_as_a_dash() -> None:
    assert len(re.findall("<td[^>]*>\u2013</td>", evil_page())) == 4


@pytest.mark.parametrize(
    "part",
    [
        "Make it again",
        "How far this goes",
        "Is the model read correctly?",
        "The words used here",
    ],
)
def test_every_part_of_the_story_has_its_heading(part: str) -> None:
    assert part in evil_page()
    assert part == "Make it again" or part not in render(Document("k", "t", "v"))


def test_every_table_can_be_scrolled_so_that_no_column_is_cut() -> None:
    columns = tuple(f"c{at}" for at in range(12))
    wide = ShownTable("wide", columns, (tuple("x" * 12 for _ in columns),))
    narrow = ShownTable("narrow", columns[:9], (columns[:9],), folded=True)
    text = render(Document("", "", "", first=wide, tables=(narrow,)))
    boxes = re.findall(
        r'<div class="scroll" tabindex="0" role="region" aria-label="(\w+)"><table([^>]*)>', text
    )
    assert boxes == [("wide", ' class="wide"'), ("narrow", "")] and text.count("<table") == 2
    rule = re.search(r"\.scroll \{(.*?)\}", text, re.S)
    assert rule is not None and "overflow-x: auto" in rule[1] and "max-width: min(96vw" in rule[1]
