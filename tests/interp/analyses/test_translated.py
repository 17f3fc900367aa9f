"""Reading what a model is about to say by a translator: names of several tokens, thresholds, words."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

import interp
from interp import Model
from interp.analyses.concepts import decode_translated
from interp.analyses.concepts.translated import RULES, Names, threshold_of
from interp.errors import ConfigError, DataError
from interp.lenses.texts import prepared
from interp.lenses.translator import Kept, TranslatorLens, fitted
from interp.lenses.words import shown
from interp.tasks.world import load_world

PROMPT = "the capital of France is"
CITIES = [*sorted({fact.object for fact in load_world().facts["capital"]})[:60], "Paris"]


@functools.cache
def demo() -> Model:
    return interp.load("demo")


@functools.cache
def lens() -> TranslatorLens:
    return fitted(demo(), [12, 20, 22], prepared(demo(), n_tokens=6000, length=48))


@functools.cache
def names(rule: str = "mean") -> Names:
    return Names.of(demo(), list(dict.fromkeys(CITIES)), rule)


def test_a_name_scores_the_weighted_mean_of_its_tokens_log_probabilities() -> None:
    logits = torch.randn(3, demo().vocab_size, generator=torch.Generator().manual_seed(0))
    logs = logits.log_softmax(1)
    given = replace(
        names(), names=("one", "two"), tokens=((5,), (7, 9)), weights=torch.tensor([[1.0, 0.0], [0.75, 0.25]])
    )
    expected = torch.stack([logs[:, 5], 0.75 * logs[:, 7] + 0.25 * logs[:, 9]], dim=1)
    assert torch.allclose(given.scores(logits), expected, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_weighs_a_name_by_one_in_all_and_one_token_alike(rule: str) -> None:
    found = names(rule)
    assert torch.allclose(found.weights.sum(1), torch.ones(len(found.names)))
    alone = [row for row, ids in enumerate(found.tokens) if len(ids) == 1]
    assert alone and torch.equal(found.weights[alone, 0], torch.ones(len(alone)))


def test_names_that_cannot_be_told_apart_are_refused() -> None:
    for wrong in (["Paris"], ["Paris", "Rome", "Paris"]):
        with pytest.raises(DataError, match="give at least 2, each once"):
            Names.of(demo(), wrong)
    with pytest.raises(DataError, match="'Paris' and ' Paris' are read by the same tokens"):
        Names.of(demo(), ["Rome", "Paris", " Paris"])
    with pytest.raises(ConfigError, match="give a list of texts"):
        Names.of(demo(), "Paris")
    with pytest.raises(ConfigError, match="rule 'last' asked; there are: first"):
        Names.of(demo(), ["Paris", "Rome"], "last")


@functools.cache
def fresh() -> Kept:
    """States of layer 20 in texts that nothing was fitted or chosen on."""
    return fitted(demo(), [20], prepared(demo(), n_tokens=6000, length=48, seed=11)).held_out[20]


@pytest.mark.parametrize("level", [0.05, 0.2])
@pytest.mark.parametrize("told", ["names", "vocabulary"])
def test_of_new_states_where_a_claim_is_wrong_no_more_are_claimed_than_stated(
    told: str, level: float
) -> None:
    other, given = fresh(), names() if told == "names" else None
    logits = lens().logits(other.states, 20)
    scores = logits.log_softmax(1) if given is None else given.scores(logits)
    null = logits.argmax(1) != other.said if given is None else given.apart(other)
    threshold, n = threshold_of(lens(), 20, given, level)
    assert threshold is not None and n > 100
    claimed = (scores.amax(dim=1).exp() >= threshold).double()
    by_text = torch.stack(
        [claimed[null & (other.texts == text)].mean() for text in other.texts[null].unique()]
    )
    spread = float(by_text.std()) * (2 / len(by_text)) ** 0.5  # of the difference of two such groups of texts
    share = float(claimed[null].mean())
    assert share < level + 2.5 * spread
    assert share > level / 5  # the threshold is not simply out of reach
    assert float(claimed[~null].mean()) > 3 * share  # and what is there is claimed more often


def test_too_few_null_states_claim_nothing() -> None:
    assert threshold_of(lens(), 20, names(), 1e-4)[0] is None
    assert threshold_of(lens(), 23, names()) == (None, 0)


def test_the_answer_is_read_before_the_last_layer_and_claimed() -> None:
    found = decode_translated(demo(), PROMPT, layers="12,20,22", concepts=names().names, lens=lens())
    last = found.readings[-1]
    assert last.names[0].name == "Paris" and last.claimed and found.n_names == len(names().names)
    assert "Paris at layer" in found.verdict() and found.tokens[0].name == "Paris"
    state = demo().capture([PROMPT], ["resid_post.22"], "last")["resid_post.22"]
    scores = names().scores(lens().logits(state, 22))[0].exp()
    assert last.names[0].value == pytest.approx(float(scores.max()), rel=1e-4)
    assert [one.layer for one in found.readings] == [12, 20, 22]
    several = sum(len(ids) > 1 for ids in names().tokens)
    assert found.n_several == several and bool(found.cautions()) == bool(several)


def test_a_prompt_about_something_else_is_not_claimed() -> None:
    found = decode_translated(
        demo(), "the plural of apple is", layers="12,20,22", concepts=names().names, lens=lens()
    )
    assert not found.readings[-1].claimed and found.tokens[0].name == "apples"


def test_without_names_every_token_is_read() -> None:
    found = decode_translated(demo(), PROMPT, layers=[22], lens=lens())
    assert found.vocabulary and found.n_names == demo().vocab_size
    assert found.readings[0].names[0].name.strip() == "Paris" and found.readings[0].claimed
    assert "tokens of the vocabulary" in found.lead()[0]


def test_the_last_block_has_no_threshold_and_so_no_claim_and_no_denial() -> None:
    found = decode_translated(demo(), PROMPT, layers=-1, concepts=CITIES, lens=lens_of_last())
    assert found.readings[0].claimed is None and found.tables()[0].rows[0][4] is None
    assert found.verdict().startswith("No layer that was read has a threshold")
    with pytest.raises(ConfigError, match="top=0 names asked"):
        decode_translated(demo(), PROMPT, layers=20, lens=lens(), top=0)


def lens_of_last() -> TranslatorLens:
    return replace(lens(), layers=(*lens().layers, demo().n_layers - 1))


@pytest.mark.parametrize(
    ("word", "seen"),
    [(" Paris", "Paris"), ("\n", "\\n"), (" ", " "), ("", "''"), (" \t", "\\t"), ("caf\u00e9", "caf\u00e9")],
)
def test_a_token_of_blanks_alone_can_be_seen(word: str, seen: str) -> None:
    assert shown(word) == seen
