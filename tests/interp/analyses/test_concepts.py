"""Concept probing on the bundled model: what it must read, and what must read nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import interp
from interp.analyses.causal import causal_use
from interp.analyses.concepts import CONTROLS, ConceptResult, decode, probe_concepts, trained_probe
from interp.analyses.concepts.decoding import LAYER, one_layer
from interp.analyses.concepts.trial import Trial, codebook_of, concept_tokens, finals_of, one_first_token
from interp.errors import ConfigError, DataError, SiteError
from interp.models.model import Model
from interp.results import load
from interp.tasks import labelled
from interp.tasks.protocols import PROTOCOLS
from probes import HyperdimensionalProbe
from probes.controls import ordered_slots, shuffled_labels
from probes.evaluation import LEAKS
from tests.noisy import demo, noisy
from tests.tiny import build, tiny

SIZES = (700, 120, 240)
RANDOM = next(name for name, row in PROTOCOLS.items() if row.codebook == "random")


@pytest.fixture(scope="module")
def model() -> Model:
    return demo()


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
    lens = found.belief[0].lens
    assert lens is not None and lens.belief > 0.8
    assert lens.belief + lens.truth <= 1


def value(result: ConceptResult, name: str) -> float:
    return result.score(name).value


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
        difference = found.score(name).difference
        assert difference is not None and difference.interval.low > 0.5
    assert value(found, "linear-classifier") == 0  # it has no class for a concept that was not trained
    assert value(found, "logit-lens") > 0.9
    said = found.verdict()
    assert said.startswith("Readable at layer 23") and "above every control" in said
    lens = found.score("logit-lens").difference
    assert lens is not None
    named = f"the logit lens does better (1.00; difference {lens.value:+.2f} {lens.interval})"
    assert (named in said) == (lens.interval.high < 0)


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
        known: dict[str, Any] = {"encoder": "embedding", "regularisation": fitted}
        probe = HyperdimensionalProbe(result.probe.codebook_, seed=1, **known)
        probe.fit(X[parts["train"]], named["train"], validation=(X[parts["validation"]], named["validation"]))
        scores.append(probe.score(X[parts["test"]], named["test"]))
    score = result.score("shuffled-in-relation")
    assert score.estimate is not None and score.estimate.interval.method == "5% to 95% of 20 shuffles"
    draws = score.draws
    assert len(draws) == 20 and [draws[0], draws[9], draws[19]] == pytest.approx(scores)
    assert score.value == pytest.approx(sum(draws) / 20)


def test_a_model_is_the_bundled_one_by_its_weights(model: Model) -> None:
    same = interp.load(model.hf, tokenizer=model.tokenizer)
    given = {"layers": "23", "sizes": (200, 40, 60), "controls": ()}
    assert same.name != "demo" and probe_concepts(same, **given).belief[0].where.startswith("analogies")
    other = noisy(model, 0.02)
    assert not any(entry.where.startswith("analogies") for entry in probe_concepts(other, **given).belief)


def test_the_edited_twin_is_read_as_it_believes(found: ConceptResult) -> None:
    entry = found.belief[0]
    assert entry.model_belief > 0.9
    assert entry.belief.value > 0.4 > 0.2 > entry.truth.value
    assert entry.n == sum(shares.n for shares in entry.by_relation.values())
    rows = found.table("belief").set_index("read as")["share"]
    assert rows["the model's belief"] == entry.belief.value == found.number("belief-read").value
    assert rows["the truth, by luck"] == entry.truth_chance


def test_an_untrained_model_is_not_readable() -> None:
    random = interp.load("demo", weights="random")
    result = probe_concepts(random, layers="23", sizes=(600, 100, 120), controls=["shuffled"])
    assert result.top1.value < 0.05
    assert result.verdict().startswith("Not shown to be readable")
    assert result.belief and result.belief[0].where.startswith("test prompts that the model itself")


def test_cells_relations_and_predictions_count_every_test_prompt(found: ConceptResult) -> None:
    assert sorted(row for rows in found.cells.values() for row in rows) == list(range(240))
    assert len(found.items) == sum(one.n for one in found.by_relation.values()) == 240
    whole = found.predictions()
    assert len(whole) == len(found.prompts) == sum(SIZES)
    rows = whole[whole["split"] == "test"]
    assert rows["right"].mean() == pytest.approx(found.top1.value)
    assert rows["model_right"].mean() == pytest.approx(found.metrics["model"].value)
    assert list(rows["text"]) == [item.text for item in found.items]
    assert list(rows["predicted"]) == list(found.read) and len(rows) == 240
    others = whole[whole["split"] != "test"]
    assert (others["predicted"] == "").all() and others["probability"].isna().all()
    for name, cell in found.cells.items():
        for row in cell:
            model_right, read = rows["model_right"].iloc[row], rows["right"].iloc[row]
            assert (
                name == f"model {'right' if model_right else 'wrong'}, probe {'right' if read else 'wrong'}"
            )


def test_results_are_saved_and_read_back(found: ConceptResult, model: Model, tmp_path: Path) -> None:
    again = load(found.save(tmp_path))
    assert isinstance(again, ConceptResult) and again.predictions().equals(found.predictions())
    assert again.summary() == found.summary()
    site = "resid_post.23"
    state = model.capture(["the capital of France is"], site, device="cpu")[site]
    assert again.probe.decode(state, k=3).names == found.probe.decode(state, k=3).names
    card = again.probe.card_
    assert (card.site, card.fingerprint) == (site, model.fingerprint)
    assert card.metrics["probe"]["value"] == pytest.approx(found.top1.value)
    assert set(card.controls) == {one.name for one in found.controls} | {"chance"}
    assert "probe" in found._repr_html_()


def test_what_a_result_says_is_in_its_tables(found: ConceptResult) -> None:
    rows = found.table().set_index("name")
    assert list(rows.index) == ["probe", *(one.name for one in found.controls), "chance"]
    assert rows.loc["chance", "value"] == found.chance == pytest.approx(1 / len(found.probe.codebook_))
    assert set(rows.loc[["ridge", "linear-classifier", "logit-lens"], "kind"]) == {"baseline"}
    for one in found.controls:
        assert one.difference is not None
        assert (
            found.number(f"over-{one.name}").value == one.difference.value == rows.loc[one.name, "difference"]
        )
    wrong = sum(name != item.answer for name, item in zip(found.read, found.items, strict=True))
    assert found.table("cells")["probe wrong"].sum() == wrong >= found.table("confused")["prompts"].sum()
    assert found.score("probe").estimate == found.top1
    with pytest.raises(ConfigError, match="no score 'shuffle'; measured: probe, constant"):
        found.score("shuffle")


def test_without_text_no_prompt_is_saved(model: Model, tmp_path: Path) -> None:
    result = probe_concepts(model, "in-context", layers="20", sizes=(200, 40, 40), controls=())
    result = replace(result, causal=causal_use(model, result, prompts=6))
    hidden = load(result.save(tmp_path, text=False))
    content = (tmp_path / "result.json").read_text()
    assert not any(item.text in content for item in result.prompts)
    assert isinstance(hidden, ConceptResult) and hidden.top1 == result.top1
    assert hidden.number("top1") == result.number("top1") and hidden.verdict() == result.verdict()
    assert all(len(item.text) == 64 for item in hidden.prompts)


def test_a_layer_is_chosen_on_validation(model: Model) -> None:
    result = probe_concepts(
        model, "seen-pairs", layers="2,23", sizes=(600, 100, 120), controls=["control-task", "shuffled"]
    )
    assert result.layer == 23 and set(result.curve) == {2, 23}
    assert result.curve[23].validation > result.curve[2].validation
    assert "upper bound" in result.verdict() or "eadable" in result.verdict()
    assert result.figure().name == "layers" and list(result.table("layers")["layer"]) == [2, 23]


def test_bindings_are_read_against_the_informed_chance(model: Model) -> None:
    result = probe_concepts(
        model, "in-context", layers="20", sizes=(500, 100, 150), controls=["bag-of-tokens", "ordered-slots"]
    )
    assert result.top1.value > 0.9
    assert value(result, "chance") == pytest.approx(
        sum(1 / len(item.candidates) for item in result.items) / 150
    )
    assert 0.2 < value(result, "bag-of-tokens") < 0.6


def test_a_translator_learns_final_states_and_reads_answers_that_it_was_never_told(model: Model) -> None:
    names = ("constant", "shuffled", "control-task", "permuted-codebook", "random-weights")
    given: Any = {"encoder": "translator", "sizes": (600, 100, 120)}
    result = probe_concepts(model, layers="0,20", controls=(*names, "translator"), **given)
    assert result.encoder == "translator" and result.layer == 20 and result.top1.value > 0.9
    assert result.curve[0].validation < 0.3 < 0.9 < result.curve[20].validation
    assert "own final states and no answers" in result.lead()[0]
    assert value(result, "translator") > 0.9  # a map of all tokens but the first, read by the head
    for name in names:
        assert value(result, name) < 0.1, name
    with pytest.raises(ConfigError, match=r"translator.*codebook of protocol .* is random"):
        probe_concepts(model, RANDOM, encoder="translator")


def test_what_a_translator_is_taught_are_final_states_of_the_answers_given(model: Model) -> None:
    drawn = PROTOCOLS["concept-disjoint"].items(sizes=(60, 20, 20))
    tokens = model.tokenize([item.text for item in drawn.items])
    acts = model.capture(tokens, ["resid_post.23", "final_norm"], "last", device="cpu", dtype=torch.float32)
    finals = finals_of(model, acts["resid_post.23"])
    assert torch.allclose(finals, acts["final_norm"], atol=1e-4)
    codebook = codebook_of(model, drawn.concepts, "embeddings")
    trial = Trial(model, drawn, codebook, tokens.token_ids, "translator", 0, finals=finals)
    states, answers = acts["resid_post.23"], [item.answer for item in drawn.items]
    fitted = trial.fit(states)
    own = [names[0] for names in trial.decode(fitted, states).names]
    assert trial.read_retrained(states, [answers]) == [own]
    x, y = states[trial.rows("train")], finals[trial.rows("train")]
    later = (states[trial.rows("validation")], finals[trial.rows("validation")])
    right = HyperdimensionalProbe(codebook, encoder="translator").fit(x, y, validation=later)
    assert torch.equal(right.encode(states), fitted.encode(states))
    turned = answers[1:] + answers[:1]
    assert trial.read_retrained(states, [turned]) != [own]


def test_wrong_choices_are_named(model: Model) -> None:
    with pytest.raises(ConfigError, match="there are: concept-disjoint, bridge"):
        probe_concepts(model, "concept")
    with pytest.raises(ConfigError, match="the controls are: constant"):
        probe_concepts(model, controls=["permuted"])
    with pytest.raises(ConfigError, match="there are: auto, linear, embedding, ridge, mlp"):
        probe_concepts(model, encoder="cubic")
    with pytest.raises(SiteError, match=r"layers 0\.\.23"):
        probe_concepts(model, layers="24")


def test_any_prompt_can_be_read(model: Model) -> None:
    probe = trained_probe(model, 20)
    state = model.capture(["Denmark : krone = Japan :"], ["resid_post.20"], "last")["resid_post.20"]
    read = probe.decode(state, k=3)
    assert read.names[0][0] == "yen"
    found = decode(model, "Denmark : krone = Japan :", probe=probe, layer=20, top=3)
    assert [(one.name, one.value) for one in found.concepts] == read[0]
    assert [one.name for one in found.claimed] == [name for name, value in read[0] if value >= read.threshold]
    said = model.logits(["Denmark : krone = Japan :"])[0].softmax(0)
    assert found.tokens[0].value == pytest.approx(float(said.max())) and found.tokens[0].name == "yen"
    assert found.verdict().startswith(f"Read: yen (similarity {read[0][0][1]:.3f}).")
    assert bool(found.claimed) is not bool(read.abstained[0])
    odd = decode(model, "big big big big", probe=probe, layer=20)
    assert odd.verdict().startswith("Read: nothing is claimed") and not odd.claimed


def test_the_layer_that_is_read_exists_in_every_model(model: Model) -> None:
    assert one_layer(model, LAYER) == 20
    hf, tokenizer = tiny("llama")
    assert one_layer(interp.load(hf, tokenizer=tokenizer), LAYER) == 2
    with pytest.raises(ConfigError, match="names 2 layers; decode reads one"):
        one_layer(model, "3,4")


def test_prompts_about_something_else_are_not_claimed(found: ConceptResult, model: Model) -> None:
    """By similarity alone 100% of agreement prompts and 21% of prompts about names were."""
    site, probe = "resid_post.23", found.probe
    for task in ("subject-number", "name-order"):
        texts = labelled(task, n=200).texts
        read = probe.decode(model.capture(texts, site, device="cpu")[site])
        assert float(read.abstained.double().mean()) > 0.95, task
    assert found.metrics["claimed"].value > 0.8


def test_concepts_are_their_own_tokens(model: Model) -> None:
    tokens = concept_tokens(model, ["Paris", "Northern Europe", "euro"])
    assert model.tokenizer is not None
    assert [model.tokenizer.decode(list(ids)).strip() for ids in tokens] == [
        "Paris",
        "Northern Europe",
        "euro",
    ]


def test_concepts_whose_tokens_depend_on_the_word_before_are_refused() -> None:
    rules = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "the x": 2, "y": 3, "z": 4}, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.Split(Regex("the x|[a-z]+"), "removed", invert=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="<unk>")
    tiny: Any = interp.load(build("llama"), tokenizer=fast)
    assert concept_tokens(tiny, ["y z", "z"]) == [(3, 4), (4,)]
    with pytest.raises(DataError, match=r"cannot be said .* the word 'x y' changes the tokens before it"):
        concept_tokens(tiny, ["x y"])  # "the x" is one token: what comes after it is not "x y"
    with pytest.raises(DataError, match=r"does not know the word 'never'.* Or leave it out"):
        concept_tokens(tiny, ["never"])


def test_concepts_that_begin_alike_are_said() -> None:
    assert one_first_token([(1,), (2, 3), (2, 4), (5,)]).startswith("2 of 4 concepts begin with the same")
    assert one_first_token([(1, 2), (3, 2)]) == ""


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
