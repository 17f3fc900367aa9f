"""The leakage audit: planted leaks are found, templates are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.tasks import LABELLED, labelled
from interp.tasks.protocols import PROTOCOLS
from probes.evaluation import LEAKS, Split, audit
from probes.evaluation.leakage import _plain, _similar

WORDS = ("river", "copper", "window", "garden", "letter", "marble", "silver", "pocket", "ladder", "candle")


def sentence(number: int) -> str:
    """A sentence of its own for every number, of ten words in a template."""
    a, b, c = WORDS[number % 10], WORDS[number // 10 % 10], WORDS[number // 100 % 10]
    return f"the {a} stood beside an old {b} until the {c} was found"


def clean(n: int = 60) -> tuple[list[str], list[str], list[str], Split]:
    """Prompts without a leak: the first 40 to train, the rest to test."""
    texts = [sentence(7 * at) for at in range(n)]
    labels = [("good", "bad")[at % 2] for at in range(n)]
    groups = [f"g{at}" for at in range(n)]
    return texts, labels, groups, Split(np.arange(30), np.arange(30, 40), np.arange(40, n))


LONG = (
    "when the ships came in at dawn the harbour master counted every sail and wrote them down in his ledger"
)
PLANTED = {
    "the same prompt": ("duplicate", sentence(1), sentence(1)),
    "the same prompt under another label": ("duplicate", sentence(8), sentence(8)),
    "another case": ("near duplicate", sentence(15), sentence(15).upper()),
    "a full stop and blanks": ("near duplicate", sentence(22), sentence(22).replace(" ", "  ") + "."),
    "full-width letters": ("near duplicate", "tone ABC sounds", "tone \uff21\uff22\uff23 sounds"),
    "a composed letter": ("near duplicate", "caf\u00e9 by the sea", "cafe\u0301 by the sea"),
    "a word added to a long prompt": ("near duplicate", "so " + LONG, "so " + LONG + " again"),
    "a word left out of a long prompt": ("near duplicate", LONG + " today", LONG + " "),
    "a group on both sides": ("group", "nothing like the others", "not like anything else"),
    "the answer in the prompt": ("answer", "plain words here", "this one is plainly good they said"),
}


def planted(name: str) -> tuple[list[str], list[str], list[str], Split]:
    kind, before, after = PLANTED[name]
    texts, labels, groups, split = clean()
    texts[3], texts[50] = before, after
    labels[50] = "good"
    labels[3] = "bad" if "another label" in name else "good"
    if kind == "group":
        groups[50] = groups[3]
    return texts, labels, groups, split


def test_what_is_clean_is_called_clean() -> None:
    texts, labels, groups, split = clean()
    found = audit(texts, labels, split, groups=groups)
    assert found.clean
    assert found.counts == dict.fromkeys(LEAKS, 0)
    assert found.sentence().startswith("no leaks among 20 test prompts (looked for: duplicates, ")
    assert found.table().empty


@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_leak_is_found_and_nothing_else(name: str) -> None:
    texts, labels, groups, split = planted(name)
    found = audit(texts, labels, split, groups=groups)
    assert [(leak.kind, leak.row) for leak in found.leaks] == [(PLANTED[name][0], 50)]
    assert found.leaks[0].other == (None if PLANTED[name][0] == "answer" else 3)
    assert "(rows 50)" in found.sentence()
    if "another label" in name:
        assert "labelled 'bad' there and 'good' here" in found.leaks[0].detail


def test_ten_of_ten_are_found_together() -> None:
    texts, labels, groups, split = clean(80)
    for at, (kind, before, after) in enumerate(PLANTED.values()):
        texts[at], texts[60 + at] = before, after
        if kind == "group":
            groups[60 + at] = groups[at]
        if kind == "answer":
            labels[60 + at] = "good"
    found = audit(texts, labels, split, groups=groups)
    assert {leak.row for leak in found.leaks} == set(range(60, 70))
    assert len(found.leaks) == 10
    assert found.to_dict()["counts"] == {"duplicate": 2, "near duplicate": 6, "group": 1, "answer": 1}


def test_a_template_filled_differently_is_no_leak() -> None:
    train = [
        f"the capital of the wonderful and ancient country called {name} is" for name in ("Peru", "Chad")
    ]
    test = ["the capital of the wonderful and ancient country called Cuba is"]
    found = audit(
        train + test, ["Lima", "N'Djamena", "Havana"], Split(np.arange(2), np.arange(0), np.arange(2, 3))
    )
    assert found.clean
    again = audit(
        train + train[:1], ["Lima", "x", "Lima"], Split(np.arange(2), np.arange(0), np.arange(2, 3))
    )
    assert not again.clean


def test_options_to_choose_from_and_common_words_give_nothing_away() -> None:
    texts = ["is it good or bad : rain", "is it good or bad : sun", "is it good or bad : fog"]
    split = Split(np.arange(1), np.arange(1, 2), np.arange(2, 3))
    assert audit(texts, ["bad", "good", "bad"], split, kinds=["answer"]).clean
    one = ["is it bad : rain", "is it good : sun", "is it bad : fog"]
    assert not audit(one, ["bad", "good", "bad"], split, kinds=["answer"]).clean
    article = ["a red hen", "a blue hen", "a green hen", "a grey hen"]
    parts = Split(np.arange(2), np.arange(0), np.arange(2, 4))
    assert audit(article, ["a", "b", "a", "b"], parts, kinds=["answer"]).clean


def test_labels_of_one_character_are_no_answers_in_the_text() -> None:
    split = Split(np.arange(6), np.array([], dtype=np.int64), np.arange(6, 12))
    labels = ["0", "1"] * 6
    texts = [f"case {at} has {label} of {at} parts" for at, label in enumerate(labels)]
    assert audit(texts, labels, split, kinds=["answer"]).clean
    words = ["zero" if label == "0" else "one" for label in labels]
    said = [f"case {at} has {word} of {at} parts" for at, word in enumerate(words)]
    assert audit(said, words, split, kinds=["answer"]).counts == {"answer": 6}
    assert audit([text.replace(" one", " bones") for text in said], words, split).counts["answer"] == 3


@given(st.lists(st.text("ab cd", min_size=6, max_size=14), min_size=2, max_size=8, unique=True), st.data())
def test_a_copy_is_always_found_whatever_the_order(texts: list[str], data: st.DataObject) -> None:
    source = data.draw(st.integers(0, len(texts) - 1))
    rows = [*texts, texts[source]]
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = [rows[at] for at in order]
    test = order.index(len(rows) - 1)
    known = np.array([at for at in range(len(rows)) if at != test])
    found = audit(
        shuffled, ["x"] * len(rows), Split(known, np.arange(0), np.array([test])), kinds=["duplicate"]
    )
    assert [(leak.row, leak.other) for leak in found.leaks] == [(test, order.index(source))]


@given(st.lists(st.text("abc", min_size=5, max_size=12), min_size=2, max_size=6))
def test_the_similarity_is_jaccards(texts: list[str]) -> None:
    def shingles(text: str) -> set[str]:
        return {text[at : at + 5] for at in range(len(text) - 4)}

    rows, known = [0], list(range(1, len(texts)))
    wanted = {
        (0, at): len(shingles(texts[0]) & shingles(texts[at])) / len(shingles(texts[0]) | shingles(texts[at]))
        for at in known
    }
    found = {(row, other): value for row, other, value in _similar(texts, rows, known, 1e-9)}
    assert found == pytest.approx({pair: value for pair, value in wanted.items() if value > 0})


def test_plain_forms() -> None:
    assert _plain("  The  Capital, of\tPERU?! ") == "the capital of peru"
    assert _plain("...") == "..."


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_protocols_leak_only_what_they_say(name: str) -> None:
    items = PROTOCOLS[name].items(seed=3, sizes=(800, 100, 200)).items
    split = Split.from_names([item.part for item in items])
    found = audit(
        [item.text for item in items], [item.answer for item in items], split, groups=[i.fact for i in items]
    )
    by_design = {kind for kind, count in found.counts.items() if count}
    assert by_design == set(PROTOCOLS[name].leaks)


@pytest.mark.parametrize("name", LABELLED)
def test_the_bundled_tasks_hold_no_copies(name: str) -> None:
    data = labelled(name, n=600)
    split = Split.from_names(data.splits) if any(data.splits) else None
    if split is None:
        from probes.evaluation import group_split

        split = group_split(data.groups, seed=0)
    found = audit(data.texts, data.labels, split, groups=data.groups)
    assert {kind: count for kind, count in found.counts.items() if kind != "answer" and count} == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["x"]}, "1 labels for 60 texts"),
        ({"groups": ["x"]}, "1 groups for 60 texts"),
        ({"near": 0.0}, "near=0.0 asked; give a similarity above 0"),
        ({"kinds": ["twins"]}, "kind 'twins' asked; the kinds of leak are: duplicate, near duplicate"),
        ({"split": Split(np.arange(1), np.arange(0), np.array([60]))}, "the split names row 60"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    texts, labels, groups, split = clean()
    given: dict[str, object] = {"texts": texts, "labels": labels, "split": split, "groups": groups} | change
    with pytest.raises(ValueError, match=message):
        audit(**given)  # pyright: ignore[reportArgumentType]
