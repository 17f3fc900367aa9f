"""Concept surgery on the bundled model, whose last layers hold the answer that it gives."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.analyses.concepts.trial import Trial, codebook_of, concept_tokens
from interp.analyses.surgery import ProbeWriter, Surgery, TranslatorWriter, surgery, swaps_of
from interp.analyses.surgery.arms import ARMS, random_like
from interp.analyses.surgery.run import _elsewhere, _Set
from interp.analyses.surgery.swaps import same_subject, unrelated
from interp.errors import DataError, SiteError
from interp.lenses.texts import prepared
from interp.lenses.translator import fitted
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.results import load
from interp.tasks.protocols import PROTOCOLS, Item, ProtocolItems
from probes import HyperdimensionalProbe
from tests.noisy import demo

LAYER = 20


@cache
def drawn() -> ProtocolItems:
    return PROTOCOLS["concept-disjoint"].items(seed=0, sizes=(900, 150, 160))


@cache
def trial_of() -> tuple[Trial, torch.Tensor]:
    model = demo()
    tokens, site = model.tokenize([item.text for item in drawn().items]), f"resid_post.{LAYER}"
    states = model.capture(tokens, [site], "last", device="cpu", dtype=torch.float32)[site]
    codebook = codebook_of(model, drawn().concepts, "embeddings", dimension=2048)
    return Trial(model, drawn(), codebook, tokens.token_ids, "ridge", 0), states


@cache
def probe() -> HyperdimensionalProbe:
    trial, states = trial_of()
    return trial.fit(states)


@cache
def found() -> Surgery:
    return surgery(demo(), ProbeWriter(probe()), drawn().part("test"), layer=LAYER, n=40, draws=2)


def test_the_model_says_the_new_answer_and_no_random_change_does_that() -> None:
    result = found()
    assert result.number("new-first").value == pytest.approx(result.estimate("concept", "new_first").value)
    assert result.number("new-first").value > 0.5
    assert result.number("random-first").value < 0.1
    assert result.works
    assert "makes the new answer the first choice" in result.verdict()


def test_a_codebook_whose_names_are_exchanged_writes_something_else() -> None:
    """The negative control: the same probe, trained on exchanged hypervectors, moves other directions."""
    trial, states = trial_of()
    wrong = trial.fit(states, codebook=trial.codebook.permuted(1))
    result = surgery(demo(), ProbeWriter(wrong), drawn().part("test"), layer=LAYER, n=40, draws=2)
    assert result.number("new-first").value < 0.1
    assert not result.works
    assert "cannot be shown" in result.verdict()


def test_a_translator_writes_what_the_model_says() -> None:
    items = drawn().part("test")
    writer = TranslatorWriter.of(demo(), LAYER, [item.answer for item in items])
    result = surgery(demo(), writer, items, layer=LAYER, n=40, draws=2)
    assert result.number("new-first").value > 0.8
    assert result.number("random-first").value < 0.1
    assert "a translator reads" in " ".join(result.lead())


def test_a_translator_that_was_fitted_elsewhere_writes_by_itself() -> None:
    """Given a lens, nothing is fitted: the scores are those of its own map, and other layers are refused."""
    model, names = demo(), ["Paris", "Rome"]
    lens = fitted(model, [LAYER], prepared(model, [item.text for item in drawn().part("train")], n_tokens=0))
    writer = TranslatorWriter.of(model, LAYER, names, lens=lens)
    states = trial_of()[1][:8]
    aims = [ids[0] for ids in concept_tokens(model, names)]
    scores = lens.logits(states, LAYER)[:, aims].double()
    change = writer.scores(states.double()) - scores
    assert float((change - change.mean(dim=0)).abs().max()) < 1e-3 < float(scores.std())
    own = TranslatorWriter.of(model, LAYER, names)
    assert float((own.scores(states.double()) - scores).abs().max()) > 0.1
    with pytest.raises(SiteError, match="reads no layer 3"):
        TranslatorWriter.of(model, 3, names, lens=lens)


def test_no_change_is_no_change_and_a_real_state_is_the_ceiling() -> None:
    result = found()
    plain = result.arms["unchanged"]
    assert plain.old_first == pytest.approx(1.0)
    for name in ("elsewhere", "unrelated", "length", "new_first"):
        assert getattr(plain, name) == pytest.approx(0.0, abs=1e-5), name
    assert np.mean(result.arms["interchange"].new_first) >= np.mean(result.arms["concept"].new_first)


def test_what_is_said_after_a_change_is_that_of_an_intervention() -> None:
    """The oracle: whole forward passes with the state written by hand."""
    model, items = demo(), drawn().part("test")[:12]
    texts = [item.text for item in items]
    prompts = _Set.of(model, texts, LAYER, 0)
    change = 30 * torch.randn(prompts.states.shape, generator=torch.Generator().manual_seed(0))
    after = prompts.after(change)
    for row, text in enumerate(texts):
        value = prompts.states[row] + change[row]
        written = model.run([text], interventions=[Intervention(f"resid_post.{LAYER}", value, "last")])
        assert written.logits is not None
        wanted = written.logits[0].double().log_softmax(0)
        assert float((after[row] - wanted).abs().max()) < 1e-3
    assert (after - prompts.before).abs().max() > 1


def test_doses_are_chosen_on_other_facts_than_are_reported() -> None:
    result = found()
    halves = [
        {f for f, kept in zip(result.facts, result.reported, strict=True) if kept is which}
        for which in (np.True_, np.False_)
    ]
    assert min(map(len, halves)) >= 5
    assert not halves[0] & halves[1]
    assert result.arms["concept"].dose in ARMS["concept"].doses


def test_random_changes_are_as_long_and_point_elsewhere() -> None:
    change = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    other = random_like(change, 0)
    assert other.norm(dim=1) == pytest.approx(change.norm(dim=1), rel=1e-5)
    assert torch.cosine_similarity(change, other).abs().max() < 0.6


def test_what_moved_elsewhere_is_half_the_absolute_change_of_the_other_tokens() -> None:
    before, after = (torch.tensor([row]).double().log() for row in ([0.5, 0.2, 0.3], [0.1, 0.8, 0.1]))
    moved = _elsewhere(before, after, torch.tensor([0]), torch.tensor([1]))
    assert moved.tolist() == pytest.approx([0.1])


def test_swaps_are_of_one_relation_and_of_answers_that_the_model_gives() -> None:
    model, items = demo(), drawn().part("test")
    swaps = swaps_of(model, items, n=30, seed=3)
    logits = model.logits([swap.item.text for swap in swaps])
    assert logits.argmax(dim=1).tolist() == [swap.old for swap in swaps]
    for swap in swaps:
        assert swap.item.relation == swap.donor.relation
        assert swap.old != swap.new
    facts = [swap.item.fact for swap in swaps]
    whole = len({item.fact for item in items})
    assert len(set(facts)) == min(len(facts), whole)


def test_prompts_beside_are_of_another_relation_or_of_the_same_subject() -> None:
    items = [
        Item("a1", "x", "r", "r:a", "test", subject="a"),
        Item("a2", "y", "s", "s:a", "test", subject="a"),
        Item("b1", "z", "r", "r:b", "test", subject="b"),
    ]
    swap: Any = swaps_of(demo(), drawn().part("test"), n=4)[0]
    one = type(swap)(items[0], items[2], 1, 2)
    assert [item.relation for item in unrelated([one], items, 0)] == ["s"]
    assert same_subject([one], items) == [(0, items[1])]


def test_a_model_that_answers_nothing_is_refused() -> None:
    untrained = interp.load("demo", weights="random")
    assert isinstance(untrained, Model)
    with pytest.raises(DataError, match="answers 0 of"):
        swaps_of(untrained, drawn().part("test")[:40])


def test_a_saved_result_says_the_same(tmp_path: Any) -> None:
    found().save(tmp_path / "surgery")
    again = load(tmp_path / "surgery")
    assert again.verdict() == found().verdict()
    assert again.table("edits").to_csv() == found().table("edits").to_csv()
