"""Concept surgery on the bundled model, whose last layers hold the answer that it gives."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.analyses.concepts.trial import Trial, codebook_of, concept_tokens
from interp.analyses.surgery import (
    ProbeWriter,
    Surgery,
    Swap,
    TranslatorWriter,
    replace_concepts,
    surgery,
    surgery_under,
    swaps_of,
)
from interp.analyses.surgery.arms import ARMS, Bench, random_like
from interp.analyses.surgery.protocol import SAYINGS, _others
from interp.analyses.surgery.run import _elsewhere, _Set
from interp.analyses.surgery.swaps import same_subject, unrelated
from interp.errors import ConfigError, DataError, SiteError
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


def test_prompts_known_to_be_right_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    swaps = swaps_of(demo(), drawn().part("test")[:60], n=12, seed=3)
    right = tuple(dict.fromkeys(one for swap in swaps for one in (swap.item, swap.donor)))
    asked = swaps_of(demo(), right, n=9, seed=1)
    monkeypatch.setattr("interp.analyses.surgery.swaps.score", None)
    assert swaps_of(demo(), right, n=9, seed=1, known=True) == asked


def test_mean_states_are_of_other_prompts_about_the_concept() -> None:
    pool = [
        Item(text=f"{at}", answer=a, relation=r, fact=f"{at}", part="test", subject=s)
        for at, (a, r, s) in enumerate(zip("ABABAA", "rrrrqr", "xyxyxz", strict=True))
    ]
    states = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    for role, old, new in (("answer", [2, 4, 5], [3]), ("subject", [2], [3])):
        swap: Any = Swap(pool[0], pool[1], 7, 8, role)  # type: ignore[arg-type]
        bench = Bench(ProbeWriter(probe()), (swap,), states[:1], states[1:2], pool, states, 0)
        expected = 1.5 * (states[new].mean(0) - states[old].mean(0))
        assert torch.allclose(ARMS["mean-difference"].change(bench, 1.5)[0], expected)


def test_every_answer_has_other_prompts_and_a_role_needs_a_probe() -> None:
    swaps = swaps_of(demo(), drawn().part("test")[:60], n=12, seed=3)
    found = _others(PROTOCOLS["concept-disjoint"], swaps, None, 0)
    texts = {swap.item.text for swap in swaps}
    for name in {name for swap in swaps for name in swap.pair}:
        others = [one for one in found if one.answer == name and one.text not in texts]
        assert 1 <= len(others) <= SAYINGS
    with pytest.raises(ConfigError, match="role 'subject' of writer 'translator' asked"):
        surgery_under(demo(), layer=LAYER, role="subject")


@pytest.mark.slow
def test_with_another_subject_the_model_gives_the_answer_of_that_subject() -> None:
    given: Any = {"layer": 12, "writer": "probe", "role": "subject", "sizes": (900, 150, 160), "n": 40}
    result = surgery_under(demo(), **given)
    pairs = [(item.subject, item.answer) for item in drawn().items]
    assert all(old in dict(pairs) and new in dict(pairs) for old, new in result.pairs)
    assert result.works and "on the subject after layer 12 makes" in result.verdict()


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


def test_one_prompt_is_edited_where_its_layer_is_however_it_is_named() -> None:
    ask: Any = {"prompt": "the capital of France is", "replace": {"Paris": "Rome"}, "doses": (1.0,)}
    found = [replace_concepts(demo(), layer=at, **ask) for at in (LAYER, LAYER - 24, "-4")]
    assert {one.layer for one in found} == {LAYER} and len({one.chosen.new for one in found}) == 1
    assert found[0].reached and found[0].verdict().startswith("With Rome")


def test_an_edit_that_fails_says_so_and_one_that_means_nothing_is_refused() -> None:
    ask: Any = {"prompt": "the capital of France is", "layer": LAYER, "doses": (0.01,)}
    found = replace_concepts(demo(), replace={"Paris": "Rome"}, **ask)
    assert not found.reached and found.verdict().startswith("No dose makes")
    with pytest.raises(DataError, match="begin with the same token"):
        replace_concepts(demo(), replace={"Paris": " Paris"}, **ask)
    for wrong, said in (
        ({"doses": ()}, "give at least one number"),
        ({"doses": (float("nan"),)}, "give at least one number"),
        ({"replace": {}}, "give one old name"),
    ):
        with pytest.raises(ConfigError, match=said):
            replace_concepts(demo(), **{"replace": {"Paris": "Rome"}, **ask, **wrong})
    with pytest.raises(SiteError, match="layer 99 asked"):
        replace_concepts(demo(), **{"replace": {"Paris": "Rome"}, **ask, "layer": 99})


def test_a_saved_result_says_the_same(tmp_path: Any) -> None:
    found().save(tmp_path / "surgery")
    again = load(tmp_path / "surgery")
    assert again.verdict() == found().verdict()
    assert again.table("edits").to_csv() == found().table("edits").to_csv()
