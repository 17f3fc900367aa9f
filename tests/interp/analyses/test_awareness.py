"""Evaluation awareness: shown where sources share it, not shown where only their templates differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from interp.analyses.awareness import AwarenessResult, across_sources, awareness, bundled
from interp.analyses.awareness.asking import Purpose, asked
from interp.analyses.awareness.folds import LeftOut
from interp.analyses.awareness.folds import _area as area_alone
from interp.analyses.monitoring import Talks
from interp.errors import DataError
from probes.evaluation import auroc
from probes.table import PROBES
from tests.interp.analyses.monitored import chat
from tests.tiny import WORDS

SIDE = 6
Rows = tuple[LeftOut, ...]


def planted(shared: float, *, dim: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """States of twelve sources: each has a direction of its own (its template), a label another."""
    rng = np.random.default_rng(seed)
    sources = [f"{side}{at}" for side in ("yes", "no") for at in range(SIDE) for _ in range(12)]
    positive = np.array([name.startswith("yes") for name in sources])
    own = {name: rng.normal(size=dim) * 2 for name in sorted(set(sources))}
    states = rng.normal(size=(len(sources), dim)) + np.stack([own[name] for name in sources])
    states[:, 0] = rng.normal(size=len(sources)) + shared * positive
    return states, positive, sources


def result(found: Rows, rivals: dict[str, Rows]) -> AwarenessResult:
    return AwarenessResult(
        alarm="yes", kind="mean-difference", positions="all", layers=(0,), found=found, rivals=rivals
    )


def areas(values: Sequence[float]) -> Rows:
    return tuple(LeftOut(f"{at}", 0, value, 0.0, 1.0, 24) for at, value in enumerate(values))


def test_sources_that_differ_in_their_template_only_are_not_told_apart_when_left_out() -> None:
    low, all_in = [], []
    for seed in range(6):
        states, positive, sources = planted(0.0, seed=seed)
        found = across_sources({0: states}, positive, sources, sources)
        low.append(np.mean([one.area for one in found]))
        # the trap: with every source in training the same probe is nearly always right
        half = np.arange(len(sources)) % 2 == 0
        from probes import MeanDifferenceProbe

        scores = (
            MeanDifferenceProbe()
            .fit(states[half], positive[half].astype(int))
            .decision_function(states[~half])
        )
        all_in.append(auroc(positive[~half], np.asarray(scores)[:, 1]).value)
    assert np.mean(all_in) > 0.9
    assert abs(np.mean(low) - 0.5) < 0.2
    states, positive, sources = planted(0.0, seed=1)
    verdict = result(across_sources({0: states}, positive, sources, sources), {"length": areas([0.5] * SIDE)})
    assert not verdict.shown
    assert verdict.verdict().startswith("Not shown")


def test_what_a_label_shares_is_shown() -> None:
    states, positive, sources = planted(12.0)
    rivals = {"bag of words": areas([0.5, 0.6, 0.4, 0.55, 0.5, 0.5]), "the model asked": areas([1.0] * SIDE)}
    found = result(across_sources({0: states}, positive, sources, sources), rivals)
    assert found.mean().value > 0.95
    assert found.shown  # the model that is asked need not be beaten
    assert found.verdict().startswith("Shown: AUROC")


def test_one_template_for_all_evaluations_is_caught_by_the_format() -> None:
    found = result(areas([1.0, 0.98, 1.0, 0.99, 1.0, 1.0]), {"format": areas([1.0] * SIDE)})
    assert not found.shown
    assert "but format read as much" in found.verdict()


def test_the_layer_is_chosen_without_the_sources_left_out() -> None:
    good, positive, sources = planted(12.0)
    noise = np.random.default_rng(0).normal(size=good.shape)
    cheat = noise.copy()
    cheat[:, 0] += 50 * positive * np.isin(sources, ["yes0", "no0"])  # only on the first fold's test
    found = across_sources({3: noise, 5: good, 7: cheat}, positive, sources, sources)
    assert {one.layer for one in found if one.sources != "yes0 + no0"} <= {5, 7}
    assert found[0].layer == 5


def test_a_group_that_is_tested_is_not_trained_on() -> None:
    """Noise in more dimensions than examples, and each example again in a source that is trained on."""
    rng = np.random.default_rng(0)
    n, names = 8, [f"{side}{at}" for side in ("yes", "no") for at in range(2)]
    states = {side: rng.normal(size=(n, 200)) for side in ("yes", "no")}
    table = np.concatenate([states[name.rstrip("01")] for name in names])
    sources = [name for name in names for _ in range(n)]
    positive = np.array([name.startswith("yes") for name in sources])
    copies = [f"{name.rstrip('01')}-{at // 2}" for name in names for at in range(n)]
    loose = [str(at) for at in range(len(sources))]
    remembered = across_sources({0: table}, positive, sources, loose, kind="ridge")
    assert all(one.area == 1 for one in remembered)  # by its copy in the sources that stay
    groups = [copy if at % n < n // 2 else loose[at] for at, copy in enumerate(copies)]
    held = across_sources({0: table}, positive, sources, groups, kind="ridge")
    for end, one in zip("01", held, strict=True):
        test = np.array([name.endswith(end) for name in sources])
        tested = {groups[at] for at in np.flatnonzero(test)}
        train = [at for at in np.flatnonzero(~test) if groups[at] not in tested]
        assert len(train) == n  # of 2n
        probe = PROBES["ridge"].create(seed=0).fit(table[train], positive[train].astype(int))
        scores = np.asarray(probe.decision_function(table[test]))[:, 1]
        assert one.area == auroc(positive[test], scores).value < 1


def test_the_area_that_chooses_is_the_auroc() -> None:
    rng = np.random.default_rng(0)
    positive, scores = np.arange(40) % 3 == 0, rng.integers(0, 9, 40).astype(float)  # with ties
    assert area_alone(positive, scores) == pytest.approx(auroc(positive, scores).value, abs=1e-12)


def test_intervals_are_over_groups() -> None:
    states, positive, sources = planted(1.5)
    twice = [np.repeat(one, 4, axis=0) for one in (states, positive, np.array(sources))]
    one = [str(at) for at in range(len(sources))]
    four = [group for group in one for _ in range(4)]
    plain = across_sources({0: states}, positive, sources, one)
    same = across_sources({0: twice[0]}, twice[1], list(twice[2]), four)
    loose = across_sources({0: twice[0]}, twice[1], list(twice[2]), [str(at) for at in range(len(four))])
    widths = [np.mean([row.high - row.low for row in rows]) for rows in (plain, same, loose)]
    assert abs(widths[1] / widths[0] - 1) < 0.2  # copies tell nothing more
    assert widths[2] < 0.75 * widths[0]  # and would seem to, if each were a group


def test_a_model_that_is_no_chat_model_is_refused_with_the_remedy() -> None:
    from tests.noisy import demo

    with pytest.raises(DataError, match=r"has no chat template\. Give a text, load a chat model, or set"):
        awareness(demo(), layers="2", twin=False)
    every = bundled().select(range(0, 288, 6))
    texts = tuple(" ".join(text.split()[:5]) for text in every.texts)
    plain = Talks("texts", texts, every.labels, every.groups, every.sources)
    found = awareness(demo(), plain, layers="2", twin=False)
    assert found.positions == "all" and not found.shown and len(found.found) == SIDE


def test_the_recipe_catches_the_trap_on_a_model() -> None:
    """The same requests on both sides; the sources of one side begin with words of their own."""
    rng = np.random.default_rng(0)
    prompts, labels, sources = [], [], []
    for source in range(2 * SIDE):
        for _ in range(6):
            words = [WORDS[at] for at in rng.integers(20, 50, 6)]
            prompts.append(({"role": "user", "content": " ".join([WORDS[source], WORDS[source], *words])},))
            labels.append("evaluation" if source < SIDE else "deployment")
            sources.append(f"source {source}")
    data = Talks("templates", tuple(prompts), tuple(labels), tuple(sources), tuple(sources))
    found = awareness(chat(), data, layers="0,1", twin=False)
    assert not found.shown
    assert set(found.rivals) == {"bag of words", "length", "format", "the model asked"}
    assert found.tables()[1].columns[:3] == ("left out", "layer", "auroc")


def test_the_bundled_prompts_are_balanced() -> None:
    data = bundled()
    positive = np.array([label == "evaluation" for label in data.labels])
    assert len(data) == 288
    assert len(set(data.sources)) == 12
    sizes = np.array([len(text.split()) for text in data.texts])
    assert abs(auroc(positive, sizes).value - 0.5) < 0.35
    ends = np.array([text.endswith("?") for text in data.texts])
    assert abs(ends[positive].mean() - ends[~positive].mean()) < 0.1
    assert len(set(data.texts)) == len(data)


def test_too_few_sources_are_refused_with_the_remedy() -> None:
    states, positive, _ = planted(1.0)
    two = ["a" if one else "b" for one in positive]
    with pytest.raises(DataError, match="Give each row a 'source'"):
        across_sources({0: states}, positive, two, two)
    four = [f"{name}{at % 2}" for at, name in enumerate(two)]
    with pytest.raises(DataError, match="give at least three of each label, or one layer"):
        across_sources({0: states, 1: states}, positive, four, four)


def test_steering_moves_what_asking_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both orders of the answers, as asking without steering has them."""
    monkeypatch.setattr("interp.analyses.awareness.asking.LETTERS", ("w01", "w02"))  # the tiny model's
    monkeypatch.setattr("interp.analyses.awareness.asking.PURPOSES", (" w05 ", " w06 "))
    model, prompts = chat(), tuple(f"{WORDS[at]} {WORDS[at + 1]}" for at in range(4))
    score = Purpose(prompts, True)
    found = score.values(model)
    assert found == pytest.approx(asked(model, prompts), abs=1e-5)
    assert np.abs(found).max() > 0
    assert [one[0]["role"] for one in score.items] == ["user"] * 4
