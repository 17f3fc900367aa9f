"""Asking a model what it knows before it is probed, with answers planted and with the bundled model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

import interp
from interp.analyses.concepts import ConceptResult, known
from interp.analyses.concepts.known import ask
from interp.analyses.concepts.one_pass import OnePass, one_pass
from interp.analyses.concepts.trial import concept_tokens, finals_of
from interp.errors import DataError
from interp.models.answers import score
from interp.models.model import Model
from interp.results import load
from interp.tasks.items import Item, ProtocolItems
from interp.tasks.protocols import PROTOCOLS
from tests.noisy import demo

SIZES = (400, 80, 150)


@pytest.fixture(scope="module")
def model() -> Model:
    return demo()


def knows(monkeypatch: pytest.MonkeyPatch, right: Any) -> None:
    """Let the model answer right where ``right(answer tokens, prompt)`` says so."""

    def passed(model: Model, items: Any, *_: Any, answers: Any, **__: Any) -> OnePass:
        said = tuple(right(ids, item.text) for ids, item in zip(answers, items, strict=True))
        return OnePass({}, torch.zeros(len(said), 1), {}, said)

    monkeypatch.setattr(known, "one_pass", passed)


def items(n: int, relation: str, part: str, word: str) -> list[Item]:
    facts = [f"{relation}:{part}:{at}" for at in range(n)]
    return [Item(f"the {word} {at}", word, relation, fact, part) for at, fact in enumerate(facts)]  # type: ignore[arg-type]


def test_one_pass_gives_answers_states_and_moments_of_several(model: Model) -> None:
    """Against whole-answer scoring, and captures of prompts alone."""
    texts = ["the capital of France is", "Paris", "the currency of Japan is", "Rome is in"]
    answers = ["Paris", "euro yen", "yen", "Italy Rome"]
    parts = ("train", "validation", "train", "test")
    drawn = [Item(a, b, "r", a, part) for a, b, part in zip(texts, answers, parts, strict=True)]  # type: ignore[arg-type]
    tokens, wanted = model.tokenize(texts).token_ids, concept_tokens(model, answers)
    found = one_pass(model, drawn, tokens, [12, 23], answers=wanted)
    assert list(found.right) == score(model, texts, wanted).likeliest.tolist()
    assert any(found.right) and not all(found.right)
    acts = model.capture(texts, ["resid_post.12", "resid_post.23"], "last", device="cpu")
    for layer in (12, 23):
        assert torch.allclose(found.states[layer], acts[f"resid_post.{layer}"].float(), atol=1e-4)
    assert torch.allclose(found.finals, finals_of(model, acts["resid_post.23"]), atol=1e-4)
    assert set(found.moments) == {12}  # after the last block nothing is left to learn
    assert found.moments[12].count == len(tokens[0]) + len(tokens[2]) - 2  # no first tokens, no answers
    held = found.at_end(12, [1, 3])
    assert held.count == 2 and torch.allclose(held.target_mean.float(), found.finals[[1, 3]].mean(dim=0))


def test_only_prompts_answered_right_train_and_test_and_the_rest_is_kept_beside(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = ProtocolItems(
        (
            *items(50, "a", "train", "Paris"),
            *items(6, "a", "validation", "euro"),
            *items(20, "a", "test", "yen"),
            *items(30, "b", "train", "Tokyo"),
            *items(30, "b", "test", "krone"),
        ),
        ("Paris", "euro", "krone", "Tokyo", "yen"),
    )
    unknown = {"Tokyo", "krone"}
    knows(monkeypatch, lambda ids, text: not unknown & set(text.split()))
    found, what, _ = ask(model, drawn)
    assert Counter(item.part for item in found.items) == {
        "train": 50, "validation": 6, "test": 20, "unanswered": 30, "train-unanswered": 30,
    }  # fmt: skip
    for part in ("unanswered", "train-unanswered"):
        assert {item.relation for item in found.part(part)} == {"b"}
    assert what.relations["a"].value == 1.0 and what.relations["b"].value == 0.0
    assert what.overall.value == pytest.approx(76 / 136) and what.overall.n == 136
    assert 0 < what.relations["b"].interval.high < 0.2
    assert "from a 100% to b 0%" in what.sentence()
    assert [row[0] for row in what.table().rows] == ["a", "b"]


def test_concepts_that_begin_alike_or_hold_the_same_tokens_and_words_it_cannot_say_are_left_out(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = dict.fromkeys(known.LEAST, 0)
    knows(monkeypatch, lambda ids, text: True)
    names = ("Paris", "euro yen", "yen euro", "Paris yen", "unheard-of")
    drawn = ProtocolItems(tuple(item for name in names for item in items(2, "a", "test", name)), names)
    found, *_ = ask(model, drawn, least=none)
    assert found.concepts == ("Paris",) and {item.answer for item in found.items} == {"Paris"}
    assert found.notes[0].startswith("4 of 5 concepts are left out, with 8 prompts")
    plain = ProtocolItems(tuple(items(2, "a", "test", "Paris")), names[:2])
    kept, *_ = ask(model, plain, least=none)
    assert kept.concepts == names[:2] and not kept.notes


def test_a_model_that_knows_nothing_is_refused_in_one_sentence(model: Model) -> None:
    """The bundled model has no word '->'."""
    drawn = PROTOCOLS["known-relations"].items(sizes=(60, 20, 20))
    with pytest.raises(DataError, match=r"'demo' answers \d% of \d+ prompts 'a -> b' right .*--facts FILE"):
        ask(model, drawn)


def test_the_whole_probe_reads_what_is_known_and_says_what_is_not(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Such a protocol learns no answers; the layer is one where the logit lens does not read as much."""
    given: Any = {"asked": "answers", "encoder": "translator", "layer": "ahead"}
    assert all(getattr(PROTOCOLS["known-relations"], name) == value for name, value in given.items())
    monkeypatch.setitem(PROTOCOLS, "concept-disjoint", replace(PROTOCOLS["concept-disjoint"], **given))
    found = interp.probe_concepts(
        model, layers="17,23", sizes=SIZES, controls=("constant", "labelled", "logit-lens", "translator")
    )
    assert (
        found.encoder == "translator" and found.layer == 17 and "lead over the logit lens" in found.selection
    )
    assert abs(found.curve[23].ahead or 0.0) < 0.1 < (found.curve[17].ahead or 0.0)
    assert found.score("labelled").estimate is not None
    assert found.known is not None and found.known.overall.value > 0.9
    assert len(found.items) == sum(found.model_right) and found.top1.value > 0.5
    n = len(found.items) + sum(item.part == "unanswered" for item in found.prompts)
    assert found.metrics["asked"].n == n == SIZES[2]
    assert found.metrics["model"].value == pytest.approx(len(found.items) / n)
    assert "The model was asked 630 prompts" in found.lead()[1]
    assert found.number("known").value == found.known.overall.value
    again = load(found.save(tmp_path))
    assert isinstance(again, ConceptResult) and again.known == found.known
    assert list(again.table("known")["relation"]) == list(found.table("known")["relation"])
