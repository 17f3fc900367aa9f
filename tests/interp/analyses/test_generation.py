"""Concepts before and after an answer, on the bundled model."""

from __future__ import annotations

import pytest
import torch

from interp.analyses.concepts import trained_probe
from interp.analyses.concepts.generation import Reply, bundled_questions, probe_generation
from interp.errors import ConfigError, DataError
from interp.models.model import Model
from probes import HyperdimensionalProbe
from tests.noisy import demo

LAYER = 23


@pytest.fixture(scope="module")
def model() -> Model:
    return demo()


@pytest.fixture(scope="module")
def probe(model: Model) -> HyperdimensionalProbe:
    return trained_probe(model, LAYER)


def test_the_answer_is_read_before_it_is_said(model: Model, probe: HyperdimensionalProbe) -> None:
    found = probe_generation(model, probe, bundled_questions(60), layer=LAYER)
    assert found.scores["answer generated"].found.value > 0.9
    assert found.scores["before and answer"].found.value > 0.4
    assert found.scores["before and answer"].by_luck.value < 0.1
    assert found.scores["before and answer"].difference.interval.low > 0.2
    assert found.table()["name"].is_unique
    assert len(found.table("replies")) == 60
    again = probe_generation(model, probe, bundled_questions(60), layer=LAYER)
    assert again.summary() == found.summary() and again.replies == found.replies


def test_after_is_the_state_that_produced_the_last_token(model: Model, probe: HyperdimensionalProbe) -> None:
    question = ("the capital of France is", "Paris")
    found = probe_generation(model, probe, [question, ("the capital of Japan is", "Tokyo")], layer=LAYER)
    reply = found.replies[0]
    assert reply.generated == "Paris ."
    site = f"resid_post.{LAYER}"
    states = model.capture([f"{question[0]} {reply.generated}"], [site], "all", device="cpu")
    all_states = states[site].to(torch.float32)[0]

    def read(position: int) -> tuple[str, ...]:
        row = probe.decode(all_states[position][None], k=5)[0]
        return tuple(name for name, similarity in row if similarity >= found.threshold)

    assert reply.before == read(-3)  # the question's last token; then the answer, then the full stop
    assert reply.after == read(-2)
    assert reply.before == ("Paris",) != reply.after
    assert reply.lost == ("Paris",)


def test_words_around_a_reply() -> None:
    reply = Reply("q", "New York", "it is new-york .", ("a", "b"), ("b", "c"), (), ())
    assert reply.mentioned
    assert (reply.gained, reply.lost) == (("c",), ("a",))
    assert not Reply("q", "York", "Yorkshire", (), (), (), ()).mentioned
    hidden = reply.redacted()
    assert hidden.before == reply.before and not {"q", "New York", reply.generated} & set(
        vars(hidden).values()
    )


def test_the_verdict_is_what_the_table_says(model: Model, probe: HyperdimensionalProbe) -> None:
    found = probe_generation(model, probe, bundled_questions(12), layer=LAYER)
    rows = found.table().set_index("name")
    for name in ("before and answer", "after and answer"):
        assert f"{rows.loc[name, 'value']:.2f} [{rows.loc[name, 'low']:.2f}" in found.verdict()
        assert f"(by luck {rows.loc[name, 'by_luck']:.2f})" in found.verdict()
    assert "Over 12 questions" in found.verdict()


def test_too_few_and_empty_questions_are_refused(model: Model, probe: HyperdimensionalProbe) -> None:
    with pytest.raises(ConfigError, match="1 question; give at least 2"):
        probe_generation(model, probe, [("a", "b")], layer=LAYER)
    with pytest.raises(DataError, match="question 1 is empty or has no answer"):
        probe_generation(model, probe, [("a", "b"), ("c", " ")], layer=LAYER)
