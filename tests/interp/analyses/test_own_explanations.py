"""Edits and reasons of chat models: planted ones are shown, empty ones are not."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import interp
from interp.analyses.own_explanations import Sentence, counterfactuals, explanations
from interp.analyses.own_explanations.counterfactuals import random_edits, surprise, word_distance
from interp.analyses.own_explanations.explanations import named_words, without
from interp.analyses.own_explanations.sentences import Asked, _read, asked, words_of
from interp.errors import ConfigError, DataError
from interp.models import Model
from interp.paths import assets
from tests.interp.analyses.monitored import TEMPLATE
from tests.tiny import WORDS, build, tokenizer

NAMES = ("counterfactuals", "explanations")
SWAPS = {"good": "bad", "bad": "good"}
FILLERS = [
    "the",
    "cat",
    "sat",
    "near",
    "an",
    "old",
    "house",
    "while",
    "rain",
    "fell",
    "over",
    "green",
    "hills",
]
OWN = [Sentence(f"{WORDS[at]} {WORDS[at + 1]} w03 w0{at}", ("w01", "w02")[at % 2]) for at in range(4, 10)]


def planted(n: int = 24) -> list[Sentence]:
    """Sentences whose label is one word among fillers, in pairs."""
    rng, found = random.Random(0), []
    for at in range(n):
        words, cue = rng.sample(FILLERS, 8), ("good", "bad")[at % 2]
        words.insert(rng.randrange(8), cue)
        found.append(Sentence(" ".join(words), {"good": "w01", "bad": "w02"}[cue], cue))
    return found


def bag(self: Asked, model: Any, texts: Sequence[str]) -> np.ndarray:
    """A reader that counts: what is planted in the place of a model."""
    return np.array([2.0 * (words_of(one).count("good") - words_of(one).count("bad")) + 0.1 for one in texts])


def text_in(talk: Sequence[dict[str, str]]) -> str:
    return talk[0]["content"].split('"')[1]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, str], str]], None]:
    """Put a writer in the place of generation: from the last message and the sentence to what is written."""
    monkeypatch.setattr(Asked, "odds", bag)
    places = [import_module(f"interp.analyses.own_explanations.{name}") for name in NAMES]
    monkeypatch.setattr(places[0], "surprise", lambda judge, texts: np.zeros(len(texts)))

    def put(writer: Callable[[str, str], str]) -> None:
        def written(model: Any, talks: Any, *, max_new_tokens: int) -> list[str]:
            return [writer(talk[-1]["content"], text_in(talk)) for talk in talks]

        for place in places:
            monkeypatch.setattr(place, "written", written)

    return put


@lru_cache
def model() -> Model:
    """A tiny chat model that reads long conversations."""
    words = copy.deepcopy(tokenizer())
    words.chat_template = TEMPLATE
    return interp.load(build("llama", max_position_embeddings=256), tokenizer=words)


def test_an_editor_that_knows_the_word_is_shown_and_one_that_does_not_is_not(write: Any) -> None:
    def knows(asked: str, text: str) -> str:
        return (
            " ".join(SWAPS.get(word, word) for word in text.split()) if asked.startswith("Change") else text
        )

    write(knows)
    found = counterfactuals(model(), data=planted(), n=24)
    valid = found.finding("validity: edits that flip the own answer")
    assert valid.value == 1 and valid.floor < 0.4
    assert found.finding("minimality: words kept by flips").value == pytest.approx(8 / 9)
    assert (
        "that is more than with random edits" in found.verdict()
        and "more than with a paraphrase" in found.verdict()
    )
    assert found.finding("the own answer is the label").value == 1
    write(lambda asked, text: text)  # changes nothing, and keeps all words
    none = counterfactuals(model(), reference=found, data=planted(), n=24)
    assert none.finding("validity: edits that flip the own answer").value == 0
    assert none.finding("minimality: words kept by flips").value == 0
    assert none.verdict().count("is not shown") == 2
    write(
        lambda asked, text: "good bad" if "good" in text else ""
    )  # rewritten by lot: random edits do as well
    lot = counterfactuals(model(), data=planted(), n=24)
    assert "that is not shown to be more than with random edits" in lot.verdict()


def test_a_reason_that_names_the_word_is_shown_and_one_that_names_another_is_not(write: Any) -> None:
    write(lambda asked, text: f"Because of '{next(word for word in text.split() if word in SWAPS)}'.")
    found = explanations(model(), data=planted(), n=24)
    lost = found.finding("faithfulness: log-odds lost without what is named")
    assert lost.value == pytest.approx(2.0) and lost.floor == pytest.approx(0.0)
    assert found.finding("cue: marked words that are named").value == 1
    assert "carries the answer more than" in found.verdict()
    write(lambda asked, text: next(word for word in text.split() if word not in SWAPS and len(word) > 2))
    other = explanations(model(), reference=found, data=planted(), n=24)
    assert other.finding("faithfulness: log-odds lost without what is named").value == 0
    assert "is not shown to carry the answer" in other.verdict()
    for empty in (
        lambda asked, text: text,
        lambda asked, text: "It is so.",
    ):  # everything, or nothing, is named
        write(empty)
        nothing = explanations(model(), data=planted(), n=24)
        assert "None of 24 explanations names words" in nothing.verdict()
        one = nothing.finding("faithfulness: log-odds lost without what is named")
        assert one.value == one.floor == 0


def test_a_real_chat_model_is_asked_and_the_same_again_is_the_same() -> None:
    for run in (counterfactuals, explanations):
        first = run(model(), data=OWN, n=6)
        again = run(model(), reference=first, data=OWN, n=6)
        for one, two in zip(first.found, again.found, strict=True):
            np.testing.assert_array_equal(one.values, two.values)
            assert np.isfinite(one.values).all()
        assert first.table("texts").shape[0] == 6
        with pytest.raises(ConfigError, match="the reference read other sentences"):
            run(model(), reference=first, data=OWN[:4], n=4)


def test_odds_are_the_mean_over_both_orders() -> None:
    given = asked(model(), OWN, n=6, seed=0)
    found = given.odds(model(), given.texts)
    for at, text in enumerate(given.texts):
        odds = []
        for order in (given.labels, (given.labels[1], given.labels[0])):
            log_p = model().logits([given.question(text, order=order)])[0].double().log_softmax(0)
            one, two = (sum(float(log_p[i].exp()) for i in ids) for ids in given.tokens)
            odds.append(np.log(one) - np.log(two))
        assert found[at] == pytest.approx(np.mean(odds), abs=1e-4)


def test_surprise_is_the_mean_of_each_token_alone() -> None:
    text = OWN[0].text
    (row,) = model().tokenize([text]).token_ids
    nats = [
        -float(model().logits([row[:at]])[0].double().log_softmax(0)[row[at]]) for at in range(1, len(row))
    ]
    assert surprise(model(), [OWN[1].text, text])[1] == pytest.approx(np.mean(nats), abs=1e-4)


def test_small_parts() -> None:
    assert word_distance("a b c", "a x c d") == 2 and word_distance("a b", "a b") == 0
    assert word_distance("", "a b") == 2 and word_distance("b a", "a b") == 2
    rng = random.Random(0)
    for size in range(5):
        assert word_distance("a b c", random_edits("a b c", size, ["x", "y"], rng)) == size
    assert named_words("The soup was cold, and sad.", 'the "cold" soup') == (1, 3)
    assert without("a b c", (0, 2)) == "b"


def test_what_cannot_be_asked_is_said() -> None:
    with pytest.raises(DataError, match="has no template for conversations"):
        counterfactuals(interp.load(build("llama"), tokenizer=tokenizer()))
    with pytest.raises(DataError, match="exactly two labels are needed"):
        explanations(model(), data=[*OWN, Sentence("w05", "w09")])
    with pytest.raises(ConfigError, match="ask for at least 2"):
        explanations(model(), n=1)


def test_the_bundled_sentences_are_in_pairs_and_their_cues_are_in_them() -> None:
    rows = _read(assets("opinions", "sentences.csv"))
    assert len(rows) == 40 and [one.label for one in rows] == ["positive", "negative"] * 20
    assert all({*words_of(one.cue)} and {*words_of(one.cue)} <= {*words_of(one.text)} for one in rows)
    assert len({one.text for one in rows}) == 40
