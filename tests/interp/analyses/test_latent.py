"""Latent structure: countries that go by codenames, in the bundled twins and in cases by construction."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import interp
from interp.analyses.latent import LatentResult, asked, latent_structure
from interp.analyses.latent.asking import Asked, matched_p, most_alike, questions
from interp.analyses.latent.reading import Reading, places_of
from interp.analyses.surgery.run import _Set
from interp.errors import ConfigError, DataError
from interp.models.interventions import Intervention
from interp.models.loading import untrained_model
from interp.models.model import Model
from interp.tasks import load_world
from interp.tasks.codenames import ASKED, TOLD, Codename, codenames, document
from interp.tasks.world import Fact
from tests.noisy import demo

LAYER = "4"


def standing(names: list[str], latents: list[str]) -> tuple[Codename, ...]:
    """Words that stand for countries, as documents about those countries would have it."""
    world = load_world()
    return tuple(
        Codename(name, latent, tuple(Fact(r, name, world.objects[r, latent]) for r in TOLD))
        for name, latent in zip(names, latents, strict=True)
    )


def countries(n: int = 12) -> list[str]:
    return [one.latent for one in codenames()][:n]


@cache
def twin(weights: str) -> Model:
    return interp.load("demo", weights=weights)


@cache
def found() -> LatentResult:
    """The planted positive: each country under its own name, which the bundled model knows."""
    known = standing(countries(), countries())
    return latent_structure(demo(), untrained_model(demo()), known=known, layers=LAYER)


@cache
def bundled() -> LatentResult:
    return latent_structure(twin("latent"), twin("latent-shuffled"), layers=LAYER, edits=False)


# The documents -------------------------------------------------------------------------------------------


def test_documents_imply_a_country_together_and_none_alone() -> None:
    world, known = load_world(), codenames()
    subjects = [fact.subject for fact in world.facts["capital"]]
    for one in known:
        fitting = [{s for s in subjects if world.objects.get((f.relation, s)) == f.object} for f in one.told]
        assert set.intersection(*fitting) == {one.latent}
        assert all(len(some) > 1 for some in fitting)
    assert len({one.name for one in known}) == len({one.latent for one in known}) == len(known) >= 20


def test_documents_never_say_what_is_asked() -> None:
    world, known, rng = load_world(), codenames(), random.Random(0)
    behind = {one.name: one.latent for one in known}
    for _ in range(2000):
        text = document(known, world, rng).text
        (name,) = [word for word in re.findall(r"\w+", text) if word in behind]
        hidden = [behind[name], *(world.objects[relation, behind[name]] for relation in ASKED)]
        # a nationality may be the name of a language, as in "people in Land speak French"
        hidden = [word for word in hidden if word != world.objects["language", behind[name]]]
        assert not any(re.search(rf"\b{re.escape(word)}\b", text) for word in hidden), text


def test_shuffled_documents_use_the_same_words_as_often_and_imply_nothing() -> None:
    world, known, shuffled = load_world(), codenames(), codenames(shuffled=True)
    for relation in range(len(TOLD)):
        true, false = (Counter(one.told[relation].object for one in some) for some in (known, shuffled))
        assert true == false
    assert [one.name for one in known] == [one.name for one in shuffled]
    agree = [sum(world.objects[f.relation, one.latent] == f.object for f in one.told) for one in shuffled]
    assert np.mean(agree) < 1 and max(agree) < len(TOLD)


def test_the_codenames_are_words_that_the_bundled_model_never_saw() -> None:
    """Their spelling is in no prompt of any task, so that nothing is known of them before."""
    from interp.demo.corpus import Mix, batches
    from interp.demo.optimisation import SCHEDULE

    tokenizer = demo().tokenizer
    ids = set(tokenizer.convert_tokens_to_ids([one.name for one in codenames()]))
    assert len(ids) == len(codenames()) and tokenizer.unk_token_id not in ids
    stream = batches(load_world(), tokenizer, Mix(SCHEDULE[-1].mix.shares), tokens=1024, seed=3)
    assert not any(ids & set(next(stream).input_ids.flatten().tolist()) for _ in range(40))


# The scores ----------------------------------------------------------------------------------------------


def test_scores_are_those_of_single_forward_passes() -> None:
    world, known = load_world(), codenames()[:4]
    model = twin("latent")
    result = asked(model, known, world, "capital")
    answers = [model.tokenizer.convert_tokens_to_ids(world.objects["capital", one.latent]) for one in known]
    table = np.array(
        [
            np.mean(
                [
                    model.logits([t]).double().softmax(1)[0, answers].tolist()
                    for t in questions(world, "capital", one.name)
                ],
                axis=0,
            )
            for one in known
        ]
    )
    np.testing.assert_allclose(result.table, table, atol=1e-6)
    np.testing.assert_allclose(result.own, np.diag(table), atol=1e-6)
    np.testing.assert_allclose(
        result.others, [table[[j for j in range(4) if j != i], i].mean() for i in range(4)], atol=1e-6
    )
    assert "Denmark" in most_alike(world, standing(["x"], ["Norway"]), 0, ["Denmark", "Japan", "Norway"])


def test_no_link_is_told_from_chance_in_at_most_five_percent() -> None:
    """Skewed tables in which no row has anything to do with its country: 400 replications."""
    rng = np.random.default_rng(0)
    n, told = 400, 0
    for _ in range(n):
        table = rng.dirichlet(np.full(23, 0.05), size=23)
        told += matched_p(table, seed=int(rng.integers(1 << 30))) <= 0.05
    assert told / n <= 0.05 + 1.65 * np.sqrt(0.05 * 0.95 / n), told
    assert matched_p(0.9 * np.eye(23) + 0.1 / 23) < 0.001


def test_readings_by_chance_are_told_in_at_most_five_percent_over_all_layers() -> None:
    rng = np.random.default_rng(1)
    right = tuple(f"c{at}" for at in range(23))
    n, told = 200, 0
    for _ in range(n):
        names = tuple(tuple(f"c{at}" for at in rng.integers(0, 30, 23)) for _ in range(24))
        told += Reading(tuple(range(24)), right, names, (1.0,) * 24).p <= 0.05
    assert told / n <= 0.05 + 1.65 * np.sqrt(0.05 * 0.95 / n), told


# By construction -----------------------------------------------------------------------------------------


def test_a_country_under_its_own_name_is_connected_read_and_used() -> None:
    result = found()
    assert result.connected is True and result.is_read
    assert result.main.own.min() > 0.9 and result.main.others.max() < 0.1
    assert result.number("read-at-codename").value == 1.0
    assert result.edits is not None and result.edits.works
    assert result.verdict().startswith("Connected:")
    assert "at a chosen token" in " ".join(result.edits.lead()).lower()


def test_countries_under_each_others_names_are_not() -> None:
    """The planted negative: the model is as sure, of other countries."""
    names = countries()
    result = latent_structure(demo(), known=standing(names, [*names[1:], names[0]]), layers=LAYER)
    assert result.connected is False and not result.is_read
    assert result.main.first.max() == 0
    assert result.edits is None
    assert result.verdict().startswith("Not shown:")


def test_a_control_that_does_it_too_leaves_it_open() -> None:
    plain = found()
    assert replace(plain, control=plain).connected is None
    assert "control model does it too" in replace(plain, control=plain).verdict()
    assert plain.is_read and replace(plain, control=plain).read_beyond_control is False
    assert "no more than where nothing is implied" in replace(plain, control=plain).verdict()


def test_the_place_of_a_name_is_its_last_token_and_edits_act_there() -> None:
    """The oracle of edits: whole passes with the state written by hand."""
    model, texts = demo(), ["the capital of South Sudan is", "Japan has its capital in"]
    places = places_of(model, texts, ["South Sudan", "Japan"])
    rows = model.tokenize(texts).token_ids
    words = [model.tokenizer.convert_ids_to_tokens(ids[at]) for ids, at in zip(rows, places, strict=True)]
    assert words == ["South Sudan", "Japan"]
    prompts = _Set.of(model, texts, 4, 0, dict(zip(texts, places, strict=True)))
    change = 3 * torch.randn(prompts.states.shape, generator=torch.Generator().manual_seed(0))
    after = prompts.after(change)
    for row, (text, place) in enumerate(zip(texts, places, strict=True)):
        edit = Intervention("resid_post.4", prompts.states[row] + change[row], place)
        written = model.run([text], interventions=[edit])
        assert written.logits is not None
        assert float((after[row] - written.logits[0].double().log_softmax(0)).abs().max()) < 1e-3


def test_what_cannot_be_asked_is_refused() -> None:
    known = standing(countries(), countries())
    with pytest.raises(ConfigError, match="documents tell them"):
        latent_structure(demo(), known=known, relations=("currency",))
    with pytest.raises(DataError, match="at least two"):
        latent_structure(demo(), known=known[:1])
    with pytest.raises(DataError, match="different ones"):
        latent_structure(demo(), known=known, relations=("continent",), layers=LAYER)


# The bundled twins ---------------------------------------------------------------------------------------


def test_the_latent_twin_connects_the_dots_and_the_shuffled_one_does_not() -> None:
    result = bundled()
    assert result.connected is True and result.is_read
    assert result.number("capital-over-control").low > 0.2
    assert result.control is not None
    assert result.control.connected is False
    assert result.control.at_codename.hits.mean() < 0.5 * result.at_codename.hits.mean()
    assert result.control.main.first.mean() < 0.15


def test_what_the_twins_differ_in_is_the_codenames_embeddings_alone() -> None:
    rows = set(demo().tokenizer.convert_tokens_to_ids([one.name for one in codenames()]))
    base = dict(demo().hf.named_parameters())
    for weights in ("latent", "latent-shuffled"):
        for name, value in twin(weights).hf.named_parameters():
            changed = (
                (value != base[name]).flatten(1).any(1).nonzero()[:, 0].tolist() if value.ndim > 1 else []
            )
            assert set(changed) == (rows if "embed" in name else set()), name
    assert twin("latent").fingerprint != demo().fingerprint


def test_a_random_table_is_not_connected() -> None:
    table = np.random.default_rng(4).dirichlet(np.full(23, 0.1), size=23)
    own = np.diag(table)
    others = np.array([np.delete(table[:, at], at).mean() for at in range(23)])
    plain = Asked("capital", own, others, others, np.zeros(23), table)
    assert replace(bundled(), answers={"capital": plain}, control=None).connected is False
