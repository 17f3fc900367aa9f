"""A probing analysis on tiny models whose knowledge is planted, so that the right verdict is known."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
import probes
from interp.analyses.controls import Guessing
from interp.analyses.probing import CONTROLS, METRICS, ProbeResult, Score, probe
from interp.analyses.probing.result import MOST_LABELS
from interp.errors import ConfigError, DataError, SiteError
from interp.models import Model
from interp.results import load
from interp.tasks import Labelled
from probes import RidgeRegressionProbe
from probes.evaluation import Split
from probes.statistics import bootstrap, paired_difference
from tests.tiny import WORDS, build, tokenizer

KNOWN = dict(zip(WORDS, ["animal", "tool"] * 30, strict=True))
"""What the planted model knows of every word; nothing in the word's spelling or order says it."""


@lru_cache(maxsize=1)
def planted() -> Model:
    """A tiny Llama whose embedding separates animals from tools along one direction."""
    hf = build("llama")
    ids = tokenizer().convert_tokens_to_ids(WORDS)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for token, word in zip(ids, WORDS, strict=True):
            hf.get_input_embeddings().weight[token] += 3 * direction * (1 if KNOWN[word] == "animal" else -1)
    return interp.load(hf, tokenizer=tokenizer())


def about_words(n: int = 360, *, seed: int = 0, splits: bool = False) -> Labelled:
    """Prompts that end in a word; the label is what the word is; a group is a word."""
    rng = random.Random(seed)
    texts = []
    for i in range(n):
        texts.append(f"{rng.choice(WORDS)} {rng.choice(WORDS)} {i % 7 * 'w03 '}{WORDS[i % 60]}")
    words = [text.split()[-1] for text in texts]
    parts = [
        ("train", "train", "train", "validation", "test")[WORDS.index(w) // 2 % 5] if splits else ""
        for w in words
    ]
    return Labelled(
        "kinds", "what a word is", tuple(texts), tuple(KNOWN[w] for w in words), tuple(words), tuple(parts)
    )


def about_marks(n: int = 300) -> Labelled:
    """The label stands in the prompt: a bag of words is enough."""
    rng = random.Random(0)
    marks = [("w00", "w01")[i % 2] for i in range(n)]
    texts = [f"{mark} {rng.choice(WORDS[2:])} {rng.choice(WORDS[2:])}" for mark in marks]
    labels = tuple("first" if mark == "w00" else "second" for mark in marks)
    return Labelled("marks", "the mark", tuple(texts), labels, tuple(f"row {i}" for i in range(n)), ("",) * n)


def replaced(data: Labelled, **columns: tuple[str, ...]) -> Labelled:
    fields = {name: getattr(data, name) for name in ("texts", "labels", "groups", "splits")}
    return Labelled(data.name, data.description, **{**fields, **columns})


@lru_cache(maxsize=1)
def result() -> ProbeResult:
    return probe(planted(), about_words(), layers="all")


def test_planted_knowledge_stands_clear_of_every_control() -> None:
    found = result()
    assert found.accuracy.value > 0.95
    for name in CONTROLS:
        if name not in ("length", "embedding"):
            difference = found.score(name).difference
            assert difference is not None
            assert difference.interval.low > 0, name
    assert found.verdict().startswith(f"Decodable at layer {found.layer} (")
    assert "above every control: " in found.verdict()


def test_what_stands_in_the_prompt_is_credited_to_a_bag_of_words() -> None:
    found = probe(planted(), about_marks(), layers=1)
    assert found.score("bag-of-tokens").value == 1.0
    assert "but " in found.verdict()
    assert "a bag of words does better (1.00; difference -" in found.verdict() or (
        "a bag of words is not clearly beaten (1.00; difference" in found.verdict()
    )
    assert found.verdict().startswith("Decodable at layer 1 (")


def about_nothing() -> Labelled:
    """Every word has a label that was drawn for it: no model can know it."""
    data = about_words()
    labels = {word: random.Random(word).choice(["x", "y"]) for word in WORDS}
    return replaced(data, labels=tuple(labels[group] for group in data.groups))


def test_labels_that_mean_nothing_are_not_decodable() -> None:
    found = probe(planted(), about_nothing(), layers=1)
    assert found.verdict().startswith("Not shown to be decodable at layer 1 (")
    assert "that is not told from guessing, 0." in found.verdict() and found.guessing.p_value > 0.05


def of_seed(seed: int, *, mean: bool) -> ProbeResult:
    """Probe few prompts about words, with the planted labels or with labels drawn anew for every word."""
    data = about_words(120, seed=seed)
    if not mean:
        rng = random.Random(seed)
        drawn = {word: rng.choice(["x", "y"]) for word in WORDS}
        data = replaced(data, labels=tuple(drawn[group] for group in data.groups))
    return probe(planted(), data, layers=0, seed=seed, controls=("shuffled",) if mean else ())


def test_a_perfect_probe_is_never_refused() -> None:
    """A single probe of shuffled labels is right about as often as the real one for 1 to 4 in 20 seeds."""
    found = [of_seed(seed, mean=True) for seed in range(20)]
    assert all(one.verdict().startswith("Decodable at layer 0 (1.00") for one in found)
    shuffled = [one.score("shuffled").value for one in found]
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.03) and np.std(shuffled) < 0.06


def test_labels_drawn_by_lot_are_called_decodable_in_five_percent() -> None:
    found = [of_seed(seed, mean=False).guessing.beaten for seed in range(80)]
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 80)


def test_the_shuffled_control_is_many_probes_fitted_by_hand() -> None:
    """Twenty exchanges of the labels in every part, the penalty of the probe itself: mean and spread."""
    from probes.controls import shuffled_labels

    data, model = about_words(), planted()
    found = probe(model, data, layers=1, seed=2, controls=("shuffled",))
    X = model.capture(list(data.texts), "resid_post.1")["resid_post.1"]
    split, penalty = found.split, found.probes[1].facts()["regularisation"]
    scores = []
    for seed in range(40, 60):
        labels = np.array(data.labels)
        for part in (split.train, split.validation, split.test):
            groups = [data.groups[i] for i in part]
            labels[part] = shuffled_labels(labels[part].tolist(), groups=groups, seed=seed)
        fitted = probes.LogisticProbe(regularisation=penalty).fit(X[split.train], labels[split.train])
        scores.append(fitted.score(X[split.test], labels[split.test]))
    control = found.score("shuffled")
    assert control.value == pytest.approx(np.mean(scores))
    assert control.estimate is not None
    assert control.estimate.interval.low == pytest.approx(np.quantile(scores, 0.05))
    assert found.findings()[0].floor == pytest.approx(max(control.value, 0.5, found.findings()[0].floor))


def test_the_verdict_names_the_worst_comparison_first() -> None:
    """A bag of words that reads almost all is worse news than a majority that is not clearly beaten."""
    rng = np.random.default_rng(0)
    own = (rng.random(60) < 0.63).astype(int)
    names = {"majority": 0.53, "random-weights": 0.73, "bag-of-tokens": 0.97}
    rivals = []
    for name, share in names.items():
        right = (rng.random(60) < share).astype(int)
        rivals.append(Score(20, name, right.mean(), bootstrap(right), paired_difference(own, right)))
    scores = (Score(20, "probe", own.mean(), bootstrap(own)), *rivals)
    given = replace(result(), layer=20, scores=scores, guessing=Guessing(0.5, 0.03))
    found = given.verdict().removesuffix(".")
    first, *others = found.partition("but ")[2].split(" and ")
    assert found.startswith("Decodable at layer 20 (") and "p = 0.03" in found
    less = paired_difference(own, (np.random.default_rng(0).random(240)[180:] < 0.97).astype(int))
    assert (
        first
        == f"a bag of words does better ({rivals[2].value:.2f}; difference {less.value:+.2f} {less.interval})"
    )
    assert len(others) == 2 and others[-1].startswith(
        "always guessing the commonest label is not clearly beaten"
    )
    refused = replace(given, guessing=Guessing(0.5, 0.2)).verdict()
    assert refused.startswith("Not shown to be decodable")
    assert "not told from guessing, 0.50; a bag" in refused


def test_a_probe_on_random_weights_equals_one_on_that_model() -> None:
    """The control is the same computation on the twin: reproduce it by hand."""
    from probes.evaluation import group_split

    data, model = about_words(), planted()
    twin = interp.load(model.hf, weights="random", tokenizer=tokenizer())
    found = probe(model, data, layers="2", controls=("random-weights",), random_model=twin)
    split = group_split(data.groups, seed=0, stratify=data.labels)
    X = twin.capture(list(data.texts), "resid_post.2")["resid_post.2"]
    y = np.array(data.labels)
    by_hand = probes.LogisticProbe().fit(
        X[split.train], y[split.train], validation=(X[split.validation], y[split.validation])
    )
    assert found.score("random-weights").value == by_hand.score(X[split.test], y[split.test])
    made = probe(model, data, layers="2", controls=("random-weights",))
    assert made.score("random-weights") == found.score("random-weights")


def test_differences_are_the_probe_less_the_control() -> None:
    found = result()
    for score in found.scores:
        if score.difference is not None and score.layer == found.layer:
            assert score.difference.value == pytest.approx(found.accuracy.value - score.value)


def test_every_layer_is_probed_where_none_is_asked_for() -> None:
    assert probe(planted(), about_words(120), controls=()).layers == (0, 1, 2)


def test_the_penalty_is_chosen_on_the_validation_split() -> None:
    data, model = about_nothing(), planted()
    found = probe(model, data, layers=1, controls=())
    X = model.capture(list(data.texts), "resid_post.1")["resid_post.1"]
    y, split = np.array(data.labels), found.split
    groups = [data.groups[i] for i in split.train]
    chosen = probes.LogisticProbe().fit(
        X[split.train], y[split.train], validation=(X[split.validation], y[split.validation])
    )
    folded = probes.LogisticProbe().fit(X[split.train], y[split.train], groups=groups)
    assert found.probes[1].facts() == chosen.facts() != folded.facts()


def test_the_layer_is_chosen_on_validation_and_reported_on_test() -> None:
    noisy = probe(planted(), about_nothing(), layers="all", controls=())
    validation = [noisy.score("probe", at).validation for at in noisy.layers]
    assert len(set(validation)) > 1
    assert noisy.score("probe").validation == max(validation)
    found = result()
    assert found.layers == (0, 1, 2)
    assert "the best of 3 by accuracy on validation" in found.selection
    test = found.predictions().query("split == 'test'")
    assert found.accuracy.value == pytest.approx(test["right"].mean())
    assert found.accuracy.n == len(test)
    assert found.accuracy.n_groups == test["group"].nunique()


def test_no_group_is_in_two_splits() -> None:
    rows = result().predictions()
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    assert set(rows["split"]) == {"train", "validation", "test"}


def test_the_datas_own_split_is_kept() -> None:
    data = about_words(splits=True)
    found = probe(planted(), data, layers=1, controls=("majority",))
    assert tuple(found.predictions()["split"]) == data.splits


def test_a_split_without_validation_takes_one_from_training() -> None:
    data = about_words(splits=True)
    parts = tuple("train" if name == "validation" else name for name in data.splits)
    found = probe(planted(), replaced(data, splits=parts), layers="0,1", controls=())
    rows = found.predictions()
    assert (rows["split"] == "test").tolist() == [name == "test" for name in parts]
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    assert any("a fifth of the training groups" in warning for warning in found.warnings)


def test_every_kind_of_probe_runs() -> None:
    for kind, row in probes.PROBES.items():
        if row.target not in ("class", "concept"):
            with pytest.raises(ConfigError, match=rf"a {kind} probe reads .* use one of: logistic"):
                probe(planted(), about_words(), layers=1, kind=kind)
            continue
        found = probe(planted(), about_words(), layers=1, kind=kind, controls=("majority", "shuffled"))
        assert found.accuracy.value > 0.9, kind
        assert found.predictions()["probability"].isna().all() != probes.PROBES[kind].probabilities


def test_every_control_of_the_table_runs() -> None:
    found = probe(planted(), about_words(), layers=1, controls=tuple(CONTROLS))
    assert {s.name for s in found.scores} == {"probe", "chance", *CONTROLS}
    assert {one.name for one in found.numbers()} == {*METRICS, "strongest-control"}
    assert found.score("chance").value == 0.5
    assert found.score("majority").value == pytest.approx(0.5, abs=0.2)


def test_an_earlier_position_sees_earlier_tokens_only() -> None:
    data = about_marks()
    texts = tuple(" ".join([*text.split()[1:], text.split()[0]]) for text in data.texts)
    last = probe(planted(), replaced(data, texts=texts), layers=1, controls=("bag-of-tokens",))
    before = probe(planted(), replaced(data, texts=texts), layers=1, position=1, controls=("bag-of-tokens",))
    assert last.score("bag-of-tokens").value == 1.0
    assert before.score("bag-of-tokens").value < 0.75
    assert before.accuracy.value < 0.75


def test_same_seed_same_result_and_another_seed_another_split() -> None:
    data = about_words(180)
    first, again, other = (
        probe(planted(), data, layers=1, seed=s, controls=("shuffled",)) for s in (0, 0, 1)
    )
    assert json.dumps(first.summary()) == json.dumps(again.summary())
    assert first.predictions()["split"].tolist() != other.predictions()["split"].tolist()


def test_the_model_and_the_global_generator_are_left_as_found() -> None:
    model = planted()
    before, state = model.fingerprint, torch.random.get_rng_state()
    probe(model, about_words(120), layers=0)
    assert model.fingerprint == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_main_table_is_of_the_chosen_layer() -> None:
    table = result().table()
    names = ["probe", "random-weights", "shuffled", "bag-of-tokens", "majority", "chance"]
    assert table["name"].tolist() == names and set(table["layer"]) == {result().layer}
    assert (table["value"].between(0, 1)).all()
    probe = table.set_index("name").loc["probe"]
    assert (probe["low"], probe["high"]) == (result().accuracy.interval.low, result().accuracy.interval.high)


def test_every_layer_of_both_models_has_a_row_and_a_place_in_the_curve() -> None:
    rows, curve = result().table("layers"), result().figure("layers").frame()
    assert result().figure().name == "layers"
    assert rows["layer"].tolist() == [0, 1, 2] and curve["x"].tolist() == [0, 1, 2] * 2
    assert curve["series"].tolist() == ["trained model"] * 3 + ["random weights"] * 3
    assert curve["value"].tolist() == [*rows["accuracy"], *rows["random weights"]]
    assert (curve["low"] <= curve["value"]).all() and (curve["value"] <= curve["high"]).all()
    assert rows["difference"].tolist() == pytest.approx(rows["accuracy"] - rows["random weights"])
    one = probe(planted(), about_words(120), layers=1, controls=())
    assert [table.name for table in one.tables()][:1] == ["scores"] and one.figure().name == "scores"


def test_the_confusion_counts_the_test_prompts() -> None:
    counts = result().figure("confusion").frame()
    assert counts["n"].sum() == result().accuracy.n
    hits = counts[counts["actual"] == counts["predicted"]]["n"].sum()
    assert hits == round(result().accuracy.value * result().accuracy.n)


def read_as(*rows: tuple[str, str, str, float]) -> ProbeResult:
    """A result whose test prompts were read in a given way: text, label, label read, probability."""
    texts, labels, predicted, probability = zip(*rows, strict=True)
    data = Labelled("given", "given", texts, labels, texts, ("",) * len(rows))
    split = Split(np.arange(0), np.arange(0), np.arange(len(rows)))
    return replace(result(), data=data, split=split, predicted=predicted, probability=np.array(probability))


READ = (
    ("t0", "a", "a", 0.9),
    ("t1", "a", "b", 0.6),
    ("t2", "a", "b", 0.8),
    ("t3", "b", "a", 0.7),
    ("t4", "b", "b", 0.5),
)


def test_the_surest_mistake_of_each_kind_comes_first() -> None:
    wrong, right = (read_as(*READ).table(name) for name in ("mistakes", "right"))
    assert wrong["prompt"].tolist() == ["t2", "t3", "t1"]
    assert wrong["is"].tolist() == ["a", "b", "a"] and wrong["read as"].tolist() == ["b", "a", "b"]
    assert list(zip(right["prompt"], right["probability"], strict=True)) == [("t0", 0.9), ("t4", 0.5)]
    assert [table.folded for table in read_as(*READ).tables() if table.name == "right"] == [True]


def test_only_test_prompts_count_and_probes_without_probabilities_show_none() -> None:
    unsure = read_as(("t", "a", "b", float("nan")), ("u", "b", "b", 0.5))
    assert unsure.table("mistakes")["probability"].isna().all()
    trained = replace(unsure, split=Split(np.arange(1), np.arange(0), np.array([1])))
    names = [table.name for table in trained.tables()]
    assert "mistakes" not in names and "confusions" not in names
    assert trained.table("right")["prompt"].tolist() == ["u"]


def test_confusions_are_counted() -> None:
    found = read_as(*READ)
    rows = [tuple(row) for row in found.table("confusions").itertuples(index=False)]
    assert rows == [("a", "b", 2, 3), ("b", "a", 1, 2)]
    counts = {(a, p): (n, s) for a, p, n, s in zip(*found.figure("confusion").data.values(), strict=True)}
    assert counts == {
        ("a", "a"): (1, 1 / 3),
        ("a", "b"): (2, 2 / 3),
        ("b", "a"): (1, 0.5),
        ("b", "b"): (1, 0.5),
    }


def test_more_labels_than_a_figure_can_show_are_left_to_the_table() -> None:
    many = read_as(*[(f"t{i}", f"l{i}", "l0", 0.5) for i in range(MOST_LABELS + 1)])
    assert "confusion" not in [figure.name for figure in many.figures()]
    assert len(many.table("confusions")) > 0


def test_the_summary_is_json_and_says_what_was_measured() -> None:
    found = json.loads(json.dumps(result().summary(), allow_nan=False))
    assert found["schema"] == "interp.probe/2" and found["verdict"] == result().verdict()
    numbers = found["numbers"]
    assert set(numbers) == {
        "accuracy",
        "strongest-control",
        *(f"over-{name}" for name in CONTROLS if name not in ("length", "embedding")),
    }
    assert numbers["accuracy"]["value"] == result().accuracy.value
    assert numbers["strongest-control"]["value"] == max(score.value for score in result().controls)
    assert result().probes[result().layer].facts()["converged"] is True


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    found = result()
    again = load(found.save(tmp_path))
    assert isinstance(again, ProbeResult) and again.verdict() == found.verdict()
    assert json.dumps(again.summary()) == json.dumps(found.summary())
    site = f"resid_post.{found.layer}"
    X = planted().capture(list(found.data.texts), site)[site]
    assert again.probes[found.layer].predict(X).tolist() == list(found.predicted) == list(again.predicted)


def test_the_probes_of_a_result_carry_their_cards(tmp_path: Path) -> None:
    found = result()
    site = f"resid_post.{found.layer}"
    for layer, fitted in found.probes.items():
        fitted.save(tmp_path / f"resid_post.{layer}")
    loaded = probes.load(
        tmp_path / site, fingerprint=planted().fingerprint, site=site, scheme="none", width=32
    )
    X = planted().capture(list(found.data.texts), site)[site]
    assert loaded.predict(X).tolist() == list(found.predicted)
    assert loaded.card_.metrics["probe"]["value"] == found.accuracy.value
    assert set(loaded.card_.controls) == set(CONTROLS) - {"length", "embedding"} | {"chance"}
    with pytest.raises(probes.ProbeFileError, match=r"asked for resid_post\.19"):
        probes.load(tmp_path / site, site="resid_post.19")


def test_a_card_names_the_labels_that_are_read_wrong_more_often_than_right() -> None:
    card = read_as(*READ, ("t5", "c", "c", 0.5)).card()
    assert card.known_failures == ("'a': right on 1 of 3 test prompts",)


def test_text_from_data_is_escaped_in_html() -> None:
    data = about_words(120)
    names = {"animal": "<script>alert(1)</script>", "tool": "[/red]"}
    found = probe(planted(), replaced(data, labels=tuple(names[label] for label in data.labels)), layers=1)
    html = found._repr_html_()
    assert "<script>" not in html
    assert found.verdict().split(" (")[0] in html


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layers": "99"}, SiteError, "layer 99 asked, but .* has layers 0..2"),
        ({"kind": "logistc"}, ConfigError, "kind 'logistc' asked; the kinds of probe are: logistic"),
        ({"controls": ("astrology",)}, ConfigError, "control 'astrology' asked; the controls are: shuffled"),
        ({"fractions": (0.9, 0.9, 0.9)}, ConfigError, "need three shares"),
        ({"fractions": (0.5, 0.5, 0.0)}, ConfigError, "leave nothing to train or test on"),
        (
            {"layers": "all", "fractions": (0.5, 0.0, 0.5)},
            ConfigError,
            "several layers need a validation split",
        ),
        ({"position": "all"}, ConfigError, "a probe reads one token"),
    ],
)
def test_wrong_settings_are_named(change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        probe(planted(), about_words(120), **{"layers": 1, "controls": ("majority",), **change})


def columns(data: Labelled, name: str) -> list[str]:
    return list(getattr(data, name))


def wrong_data(what: str) -> Labelled:
    data = about_words(120, splits=what in ("half", "straddling", "untrained", "untested", "limited file"))
    labels, splits = columns(data, "labels"), columns(data, "splits")
    match what:
        case "one class":
            labels = ["animal"] * 120
        case "few groups":
            labels = [
                "rare" if word == "w07" else label for word, label in zip(data.groups, labels, strict=True)
            ]
        case "half":
            splits[3] = ""
        case "straddling":
            splits[splits.index("train")] = "test"
        case "untrained":
            labels[splits.index("test")] = "new"
        case "untested":
            splits = ["train" if name == "test" else name for name in splits]
        case "limited file":
            train, test = splits.index("train"), splits.index("test")
            return replaced(data.select([train, test]), source="kinds.csv", labels=("animal", "tool"))
        case "measured":
            labels = [f"{at / 7:.3f}" for at in range(120)]
        case "ages":
            labels = [str(at) for at in range(120)]
        case "empty":
            return Labelled("kinds", "", (), (), (), ())
    return replaced(data, labels=tuple(labels), splits=tuple(splits))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("empty", "'kinds' holds no prompts"),
        (
            "one class",
            "all 120 prompts of 'kinds' have the label 'animal'; a probe needs .* where a limit leaves few",
        ),
        ("measured", "numbers such as '0.000', 120 different ones .*probes.RidgeRegressionProbe"),
        ("ages", "numbers such as '0', 120 different ones .*probes.RidgeRegressionProbe"),
        ("limited file", "take more prompts, where a limit leaves few of the file, or correct its split"),
        ("few groups", "the label 'rare' has 1 of the 3 groups it needs; take more prompts or groups"),
        ("half", "1 of 120 prompts have no split; give every prompt one"),
        ("straddling", "1 group is in more than one split, such as 'w0"),
        ("untrained", "the label 'new' is in the test split but not in the training split"),
        (
            "untested",
            "the test split has no prompts; a probe needs two labels there: take more prompts",
        ),
    ],
)
def test_unfit_data_are_named(what: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        probe(planted(), wrong_data(what), layers=1, controls=("majority",))


def test_numbers_that_name_classes_are_labels() -> None:
    """The control of what is refused as measurements, and its remedy followed."""
    data = about_words(120)
    codes = tuple({"animal": "0.5", "tool": "1"}[label] for label in data.labels)
    assert probe(planted(), replaced(data, labels=codes), layers=1, controls=()).accuracy.n > 0
    states = planted().capture(data.texts, ["resid_post.1"], "last")["resid_post.1"]
    fitted = RidgeRegressionProbe().fit(states, [at / 7 for at in range(120)])
    assert fitted.predict(states).shape == (120,)


def test_a_fast_probe_for_two_labels_refuses_three() -> None:
    data = about_words(120)
    labels = tuple(f"label {WORDS.index(word) % 3}" for word in data.groups)
    with pytest.raises(
        ConfigError, match="a mean-difference probe tells 2 labels apart, 'kinds' has 3; use nearest"
    ):
        probe(planted(), replaced(data, labels=labels), layers=1, kind="mean-difference")


def test_repeated_prompts_are_counted() -> None:
    data = about_words(120)
    texts = [*data.texts[:-2], data.texts[0], data.texts[1]]
    labels = [*data.labels[:-1], "tool" if data.labels[1] == "animal" else "animal"]
    found = probe(planted(), replaced(data, texts=tuple(texts), labels=tuple(labels)), layers=1, controls=())
    assert any("2 prompts repeat an earlier one" in warning for warning in found.warnings)
    assert any("1 prompt occurs with different labels" in warning for warning in found.warnings)
    assert not any("repeat" in warning for warning in result().warnings)


def test_leaked_prompts_are_counted() -> None:
    data = about_words(120, splits=True)
    texts = list(data.texts)
    texts[data.splits.index("test")] = texts[data.splits.index("train")]
    found = probe(planted(), replaced(data, texts=tuple(texts)), layers=1, controls=())
    assert any("1 test prompt is also in training" in warning for warning in found.warnings)


def test_activations_that_are_not_finite_are_named() -> None:
    hf = build("llama")
    with torch.no_grad():
        hf.get_input_embeddings().weight[tokenizer().convert_tokens_to_ids("w05")] = float("nan")
    broken = interp.load(hf, tokenizer=tokenizer())
    data = about_words(120)
    row = next(i for i, text in enumerate(data.texts) if "w05" in text)
    with pytest.raises(DataError, match=rf"activations at resid_post.1 of .* not finite, first row {row} \("):
        probe(broken, data, layers=1, controls=())


def test_the_control_must_be_another_model_of_the_same_shape() -> None:
    data = about_words(120)
    with pytest.raises(ConfigError, match="has the very weights of the model"):
        probe(planted(), data, layers=1, controls=("random-weights",), random_model=planted())
    small = interp.load(build("llama", num_hidden_layers=2), tokenizer=tokenizer())
    with pytest.raises(ConfigError, match="random_model has 2 layers of width 32, the model 3"):
        probe(planted(), data, layers=1, controls=("random-weights",), random_model=small)


def test_few_groups_carry_a_note() -> None:
    assert any("below 30 an interval is approximate" in warning for warning in result().warnings)


def mirrored(model: Model) -> Model:
    """The same model with its embedding turned round: what reads one label off it reads the other here."""
    hf = copy.deepcopy(model.hf)
    with torch.no_grad():
        hf.get_input_embeddings().weight.neg_()
    return interp.load(hf, tokenizer=tokenizer())


@pytest.mark.parametrize("kind", ["logistic", "hyperdimensional"])
def test_a_probe_of_a_reference_is_read_on_the_model_and_the_other_way(kind: str) -> None:
    """By hand: each probe predicts on the states of the other model; the penalty is the reference's."""
    data, other = about_words(splits=True), mirrored(planted())
    given = {"layers": 0, "kind": kind, "controls": ("shuffled",)}
    full = probe(planted(), data, **given)
    found = probe(other, data, reference=full, **given)
    own, theirs = (m.capture(list(data.texts), "resid_post.0")["resid_post.0"] for m in (other, planted()))
    y, test = np.array(data.labels), found.split.test
    came = np.mean(full.probes[0].predict(own)[test] == y[test])
    went = np.mean(found.probes[0].predict(theirs)[test] == y[test])
    assert found.finding("from the reference").value == pytest.approx(came)
    assert found.finding("to the reference").value == pytest.approx(went)
    assert found.accuracy.value > 0.95 and came < 0.1 and went < 0.1
    for name in ("from the reference", "to the reference"):
        assert found.finding(name).floor == full.score("shuffled").value
        assert found.finding(name).groups == tuple(data.groups[i] for i in test)
    same = probe(planted(), data, reference=full, **given)
    if kind == "logistic":
        assert same.finding("directions").value == pytest.approx(1, abs=1e-3)
        assert found.finding("directions").value < -0.8 < found.finding("directions").floor < 0.8
    else:
        alike = [found.predicted[i] == full.predicted[i] for i in test]
        assert found.finding("same concept").value == pytest.approx(np.mean(alike))
        assert found.finding("codebook agreement").value > 0.9 > found.finding("codebook agreement").floor
    assert same.accuracy.value == full.accuracy.value == same.finding("from the reference").value
    assert f"is right on {came:.2f} of this model's test prompts" in found.verdict()
    assert found.number("from-the-reference").value == pytest.approx(came)


def test_the_layer_and_the_penalty_are_those_of_the_reference(tmp_path: Path) -> None:
    data = about_words(splits=True)
    full = probe(planted(), data, layers=1, controls=())
    read = load(full.save(tmp_path))
    assert isinstance(read, ProbeResult)
    found = probe(mirrored(planted()), data, layers="all", controls=(), reference=read)
    assert found.layer == 1 and found.layers == (0, 1, 2) and found.selection == "layer 1, the reference's"
    penalties = [one.probes[1].facts()["regularisation"] for one in (found, full)]
    assert penalties[0] == penalties[1]
    again = load(found.save(tmp_path / "again"))
    assert [one.value for one in again.findings()] == [one.value for one in found.findings()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ridge"}, "a ridge probe at position 'last' asked, the reference has a logistic probe"),
        ({"position": -2}, "position -2 asked, the reference has a logistic probe at 'last'"),
        ({"seed": 1}, "probed for other prompts, labels, groups or splits"),
        ({"layers": "0,2"}, "the reference was probed at layer 1 of width 32, this model at"),
    ],
)
def test_a_reference_of_something_else_is_refused(change: dict, message: str) -> None:
    full = probe(planted(), about_words(180), layers=1, controls=())
    with pytest.raises((ConfigError, DataError), match=message):
        probe(planted(), about_words(180), **{"layers": 1, "controls": (), "reference": full, **change})
    about = replace(full.about, model={**full.about.model, "tokenizer_fingerprint": "other"})
    with pytest.raises(DataError, match="the reference read other tokens"):
        probe(planted(), about_words(180), layers=1, controls=(), reference=replace(full, about=about))


def test_several_tokens_are_read_and_pooled() -> None:
    data = about_words(120)
    found = probe(
        planted(), data, layers=1, position="all", pooling="max", controls=("bag-of-tokens", "majority")
    )
    assert found.pooling == "max"
    assert "by max (the selected token with the highest score)" in found.lead()[0]
    one = probe(planted(), data, layers=1, position="last", pooling="mean", controls=())
    plain = probe(planted(), data, layers=1, controls=())
    assert one.predicted == plain.predicted
    assert torch.allclose(one.states, plain.states)
    test = list(found.split.test)
    again = found.probes[1].predict(found.states)  # one token each: the mean with the pooling's weights
    assert again.tolist() == [found.predicted[i] for i in test]


def test_poolings_that_cannot_be_are_refused_with_the_remedy() -> None:
    data = about_words(60)
    wrong: dict[str, dict[str, Any]] = {
        "the poolings are: last, mean, max": {"pooling": "maximum"},
        "leave base out, or pool by mean": {"pooling": "max", "kind": "ridge"},
        "base 'mlp' asked; it is a linear probe": {"pooling": "mean", "kind": "mlp"},
        "of several give a pooling too, such as mean or max": {"position": "all"},
    }
    for message, given in wrong.items():
        with pytest.raises(ConfigError, match=message):
            probe(planted(), data, layers=1, **{"position": "all", **given})
