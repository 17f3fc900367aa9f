"""Concept probing on the bundled model: what it must read, and what must read nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import interp
from interp.analyses.causal import causal_use
from interp.analyses.concepts import CONTROLS, ConceptResult, probe_concepts, trained_probe
from interp.analyses.concepts.vocabulary import concept_tokens
from interp.errors import ConfigError, SiteError
from interp.models.model import Model
from interp.tasks import labelled
from interp.tasks.protocols import PROTOCOLS
from probes import HyperdimensionalProbe, load
from probes.controls import ordered_slots, shuffled_labels
from probes.evaluation import LEAKS
from tests.noisy import noisy

SIZES = (1200, 200, 240)


@pytest.fixture(scope="module")
def model() -> Model:
    return interp.load("demo")


@pytest.fixture(scope="module")
def found(model: Model) -> ConceptResult:
    return probe_concepts(model, "concept-disjoint", layers="23", sizes=SIZES)


def test_several_layers_come_with_a_curve_and_the_price_of_looking(model: Model) -> None:
    result = probe_concepts(model, layers="2,23", sizes=(600, 100, 120), controls=("constant",))
    assert set(result.curve) == {2, 23}
    assert result.looks is not None and result.looks.best == 23 and result.looks.p_value < 0.01
    assert "best of 2 layers on test is layer 23" in result.looks.sentence


def test_what_the_default_probe_reads_is_used_by_the_bundled_model(
    found: ConceptResult, model: Model
) -> None:
    result = causal_use(model, found, prompts=12)
    assert result.measure == "preference" and result.kind == "hyperdimensional"
    assert result.used and result.verdict().startswith(
        "The model uses these directions (one for each prompt)"
    )


def test_the_prompts_are_audited(found: ConceptResult, model: Model) -> None:
    assert found.leakage.clean and found.looks is None
    stored = probe_concepts(model, "seen-pairs", layers="23", sizes=(300, 60, 60), controls=())
    assert stored.leakage.clean and set(LEAKS) - set(stored.leakage.kinds) == {"group"}


def test_the_logit_lens_says_what_the_edited_state_leans_to(found: ConceptResult) -> None:
    entry = found.belief[0]
    assert entry["lens_belief"] > 0.8
    assert entry["lens_belief"] + entry["lens_truth"] <= 1


def value(result: ConceptResult, name: str) -> float:
    return next(score.value for score in result.scores if score.name == name)


def test_unseen_concepts_are_read_and_every_control_reads_nothing(found: ConceptResult) -> None:
    assert found.top1.value > 0.7
    for name in (
        "constant",
        "bag-of-tokens",
        "ordered-slots",
        "shuffled",
        "permuted-codebook",
        "random-weights",
    ):
        assert value(found, name) < 0.1
        score = next(score for score in found.scores if score.name == name)
        assert score.difference is not None and score.difference.interval.low > 0.5
    assert value(found, "linear-classifier") == 0  # it has no class for a concept that was not trained
    assert value(found, "logit-lens") > 0.9
    assert found.verdict.startswith("readable at layer 23") and "above every control" in found.verdict
    lens = next(score for score in found.scores if score.name == "logit-lens").difference
    assert lens is not None
    named = f"the logit lens does better (1.00; difference {lens.value:+.2f} {lens.interval})"
    assert (named in found.verdict) == (lens.interval.high < 0)


def test_the_shuffled_control_is_many_probes_fitted_by_hand(model: Model) -> None:
    """Answers exchanged between the facts of each part by hand, 20 times, with the probe's own penalty."""
    result = probe_concepts(
        model, "seen-pairs", layers="23", sizes=(300, 60, 80), controls=["shuffled-in-relation"], seed=1
    )
    row = PROTOCOLS["seen-pairs"]
    items = row.items(seed=1, sizes=(300, 60, 80)).items
    X = model.capture([item.text for item in items], "resid_post.23", device="cpu")["resid_post.23"]
    fitted = result.probe.fitted_.notes["regularisation"]
    scores = []
    for seed in (20, 29, 39):
        answers = [item.answer for item in items]
        for key in {(item.part, item.relation) for item in items}:
            rows = [i for i, item in enumerate(items) if (item.part, item.relation) == key]
            facts = [items[i].fact for i in rows]
            new = shuffled_labels([answers[i] for i in rows], groups=facts, seed=seed)
            for i, name in zip(rows, new, strict=True):
                answers[i] = name
        parts = {
            part: [i for i, item in enumerate(items) if item.part == part]
            for part in ("train", "validation", "test")
        }
        named = {part: [answers[i] for i in rows] for part, rows in parts.items()}
        probe = HyperdimensionalProbe(result.probe.codebook_, seed=1, regularisation=fitted)
        probe.fit(X[parts["train"]], named["train"], validation=(X[parts["validation"]], named["validation"]))
        scores.append(probe.score(X[parts["test"]], named["test"]))
    score = next(score for score in result.scores if score.name == "shuffled-in-relation")
    assert score.estimate is not None and score.estimate.interval.method == "5% to 95% of 20 shuffles"
    draws = score.draws
    assert len(draws) == 20 and [draws[0], draws[9], draws[19]] == pytest.approx(scores)
    assert score.value == pytest.approx(sum(draws) / 20)


def test_a_model_is_the_bundled_one_by_its_weights(model: Model) -> None:
    same = interp.load(model.hf, tokenizer=model.tokenizer)
    given = {"layers": "23", "sizes": (200, 40, 60), "controls": ()}
    assert same.name != "demo" and probe_concepts(same, **given).belief[0]["where"].startswith("analogies")
    other = noisy(model, 0.02)
    assert not any(entry["where"].startswith("analogies") for entry in probe_concepts(other, **given).belief)


def test_the_edited_twin_is_read_as_it_believes(found: ConceptResult) -> None:
    entry = found.belief[0]
    assert entry["model_belief"] > 0.9
    assert entry["belief"]["value"] > 0.4 > 0.2 > entry["truth"]["value"]
    assert entry["n"] == sum(n for n, _, _ in entry["by_relation"].values())


def test_an_untrained_model_is_not_readable() -> None:
    random = interp.load("demo", weights="random")
    result = probe_concepts(random, layers="23", sizes=(600, 100, 120), controls=["shuffled"])
    assert result.top1.value < 0.05
    assert result.verdict.startswith("not shown to be readable")
    assert result.belief and result.belief[0]["where"].startswith("test prompts that the model itself")


def test_cells_relations_and_predictions_count_every_test_prompt(found: ConceptResult) -> None:
    assert sum(n for n, _ in found.cells.values()) == len(found.items) == 240
    assert sum(n for n, _, _ in found.by_relation.values()) == 240
    rows = found.predictions()
    assert rows["right"].mean() == pytest.approx(found.top1.value)
    assert rows["model_right"].mean() == pytest.approx(found.metrics["model"]["value"])
    assert len(rows) == 240


def test_results_are_saved_compared_and_read_back(found: ConceptResult, model: Model, tmp_path: Path) -> None:
    folder = found.save(tmp_path)
    assert json.loads((folder / "metrics.json").read_text())["schema"] == "interp.concepts/1"
    probe = load(folder / "probes" / "resid_post.23", fingerprint=model.fingerprint, site="resid_post.23")
    assert probe.card_.metrics["probe"]["value"] == pytest.approx(found.top1.value)
    assert (found.diff(found)["change"] == 0).all()
    assert "probe" in found._repr_html_()


def test_a_layer_is_chosen_on_validation(model: Model) -> None:
    result = probe_concepts(
        model, "seen-pairs", layers="2,23", sizes=(600, 100, 120), controls=["control-task", "shuffled"]
    )
    assert result.layer == 23 and set(result.curve) == {2, 23}
    assert result.curve[23]["validation"] > result.curve[2]["validation"]
    assert "an upper bound" in result.verdict or "readable" in result.verdict


def test_bindings_are_read_against_the_informed_chance(model: Model) -> None:
    result = probe_concepts(
        model, "in-context", layers="20", sizes=(800, 150, 150), controls=["bag-of-tokens", "ordered-slots"]
    )
    assert result.top1.value > 0.9
    assert value(result, "chance") == pytest.approx(
        sum(1 / len(item.candidates) for item in result.items) / 150
    )
    assert 0.2 < value(result, "bag-of-tokens") < 0.6


def test_wrong_choices_are_named(model: Model) -> None:
    with pytest.raises(ConfigError, match="there are: concept-disjoint, bridge"):
        probe_concepts(model, "concept")
    with pytest.raises(ConfigError, match="the controls are: constant"):
        probe_concepts(model, controls=["permuted"])
    with pytest.raises(ConfigError, match="there are: linear, ridge, mlp"):
        probe_concepts(model, encoder="cubic")
    with pytest.raises(SiteError, match=r"layers 0\.\.23"):
        probe_concepts(model, layers="24")


def test_any_prompt_can_be_read(model: Model) -> None:
    probe = trained_probe(model, 20)
    state = model.capture(["Denmark : krone = Japan :"], ["resid_post.20"], "last")["resid_post.20"]
    assert probe.decode(state, k=3).names[0][0] == "yen"


def test_prompts_about_something_else_are_not_claimed(found: ConceptResult, model: Model) -> None:
    """By similarity alone 100% of agreement prompts and 21% of prompts about names were."""
    site, probe = "resid_post.23", found.probe
    for task in ("subject-number", "name-order"):
        texts = labelled(task, n=200).texts
        read = probe.decode(model.capture(texts, site, device="cpu")[site])
        assert float(read.abstained.double().mean()) > 0.95, task
    assert found.metrics["claimed"]["value"] > 0.8


def test_concepts_are_their_own_tokens(model: Model) -> None:
    tokens = concept_tokens(model, ["Paris", "Northern Europe", "euro"])
    assert model.tokenizer is not None
    assert [model.tokenizer.decode(list(ids)).strip() for ids in tokens] == [
        "Paris",
        "Northern Europe",
        "euro",
    ]


def test_unembedding_the_last_layer_gives_the_logits(model: Model) -> None:
    prompts = ["the capital of France is", "Denmark : krone = Japan :"]
    states = model.capture(prompts, ["resid_post.23", "resid_post.22"], "last")
    assert torch.allclose(model.unembed(states["resid_post.23"]), model.logits(prompts), atol=1e-4)
    assert not torch.allclose(model.unembed(states["resid_post.22"]), model.logits(prompts), atol=1e-1)


def test_slots_know_places_that_a_bag_does_not() -> None:
    first, columns = ordered_slots([[1, 2, 3], [3, 2, 1]])
    assert first.toarray().sum() == 6 and len(columns) == 5
    assert (first.toarray()[0] != first.toarray()[1]).any()
    later, _ = ordered_slots([[9, 2, 3]], vocabulary=columns)
    assert later.toarray().sum() == 2


def test_every_control_is_described() -> None:
    assert all(row.words and row.description and name == row.name for name, row in CONTROLS.items())
