"""The causal test of a probe, on models whose use of a direction is known because it was set by hand."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.analyses import CausalUse, ProbeResult, causal_use, probe
from interp.analyses.causal import EDITS, check_directions
from interp.analyses.causal.directions import (
    Pairwise,
    Spanned,
    coefficients_of,
    directions_of,
    drawn,
    towards,
)
from interp.analyses.causal.measures import Divergence, Preference, States, matched
from interp.analyses.controls import Guessing
from interp.errors import ConfigError
from interp.results import load
from interp.tasks import Labelled
from probes import HyperdimensionalProbe, LogisticProbe
from probes.vsa import MAP, Codebook
from tests.planted import PlantedSubspace, planted_subspace
from tests.tiny import WORDS

FILLERS = WORDS[42:48]
"""Words without an embedding: they only make more prompts."""


@pytest.fixture(scope="module")
def planted() -> PlantedSubspace:
    """Plant a variable that the answer is read from, beside a nuisance that nothing reads; answers loud."""
    found = planted_subspace()
    with torch.no_grad():
        found.model.hf.lm_head.weight.mul_(4)
    return found


def _data(planted: PlantedSubspace, label: str) -> Labelled:
    """Label prompts by the answer to the variable's value, or by the nuisance, which is no answer."""
    right = dict(zip(planted.values, planted.answers, strict=True))
    parts = list(product(FILLERS, planted.values, planted.nuisances[:4]))
    names = {
        "value": [right[value] for _, value, _ in parts],
        "nuisance": [f"kind {planted.nuisances.index(nuisance) % 2}" for _, _, nuisance in parts],
    }
    texts = tuple(f"{filler} {value} {nuisance} {planted.query}" for filler, value, nuisance in parts)
    return Labelled(label, label, texts, tuple(names[label]), texts, ("",) * len(texts))


def _probed(planted: PlantedSubspace, label: str, kind: str = "logistic") -> ProbeResult:
    return probe(planted.model, _data(planted, label), layers=0, kind=kind, controls=("majority",))


@pytest.fixture(scope="module")
def used(planted: PlantedSubspace) -> CausalUse:
    return causal_use(planted.model, _probed(planted, "value"))


@pytest.fixture(scope="module")
def unused(planted: PlantedSubspace) -> CausalUse:
    return causal_use(planted.model, _probed(planted, "nuisance"))


def test_what_the_answer_is_read_from_is_used(used: CausalUse) -> None:
    assert used.used and used.verdict().startswith("The model uses these 3 directions: erasing them lowers")
    assert used.measure == "preference" and used.rank == 3 and used.site == "resid_post.0"
    for effect in used.effects:
        assert effect.stands_out and effect.p_value == pytest.approx(1 / 21)
        assert effect.estimate.value > 2 * effect.random > 0


def test_what_nothing_reads_is_readable_and_not_shown_to_be_used(unused: CausalUse) -> None:
    assert unused.readable and not unused.used and unused.measure == "divergence"
    wanted = "Readable, but not shown to be used: erasing this direction moves the distribution"
    assert unused.verdict().startswith(wanted)
    assert all(
        unused.effect(name).estimate.value < unused.effect(name).random for name in ("ablate", "patch")
    )
    assert any("no words that the model could say" in text for text in unused.warnings)


def test_what_a_probe_of_chance_labels_reads_is_not_called_used(planted: PlantedSubspace) -> None:
    data = _data(planted, "value")
    shuffled = np.random.default_rng(0).permutation(list(data.labels)).tolist()
    found = probe(planted.model, replace(data, labels=tuple(shuffled)), layers=0, controls=("majority",))
    assert found.verdict().startswith("Not shown to be decodable")
    tested = causal_use(planted.model, found)
    assert not tested.readable and "Neither shown to be readable nor used" in tested.verdict()
    assert tested.readable is found.guessing.beaten
    told = replace(found, guessing=Guessing(0.5, 0.001))
    assert causal_use(planted.model, told).verdict().startswith("Readable, but not shown to be used")


def test_pushing_towards_the_other_label_turns_the_answer(used: CausalUse) -> None:
    doses = used.table("doses").set_index("dose").rename(columns={"probe's directions": "value"})
    assert list(doses.index) == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert (doses["value"].diff().dropna() < 0).all() and doses["value"].loc[[0.0, 2.0]].prod() < 0
    assert doses.loc[0.0, "low"] == doses.loc[0.0, "value"] == doses.loc[0.0, "random"]
    moved = (doses[["value", "random"]].loc[1.0] - doses[["value", "random"]].loc[0.0]).abs()
    assert moved["value"] > 2 * moved["random"] and used.effect("steer").whole is None


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(planted: PlantedSubspace) -> None:
    found = _probed(planted, "value", "nearest-centroid")
    first, again, other = (causal_use(planted.model, found, prompts=12, seed=seed) for seed in (3, 3, 4))
    assert first.summary() == again.summary() and first.summary() != other.summary()
    assert first.effects[0].estimate.n == 12


def test_a_result_says_every_edit_with_its_numbers(used: CausalUse, unused: CausalUse) -> None:
    table = used.table()
    assert table["edit"].tolist() == ["erase", "exchange", "push (per dose)"]
    assert unused.table()["edit"].tolist() == ["erase", "exchange", "push"] != list(EDITS)
    assert escape(used.verdict()) in used._repr_html_() and "resid_post.0" in used.question()
    for at, effect in enumerate(used.effects):
        row, less = table.iloc[at], effect.difference
        assert (row["effect"], row["random"], row["p"]) == (
            effect.estimate.value,
            effect.random,
            effect.p_value,
        )
        found = used.number(f"{effect.edit}-over-random")
        assert (found.value, found.low, found.high) == (less.value, less.interval.low, less.interval.high)
        assert (row["difference"], row["stands_out"]) == (less.value, effect.stands_out)
    curve = used.figure("steering").frame()
    assert curve["value"].tolist()[:5] == [dose.value for dose in used.doses]
    assert used.figure("steering").reference == used.doses[2].value


def test_a_probe_and_its_causal_test_are_one_result(planted: PlantedSubspace, tmp_path: Path) -> None:
    found = _probed(planted, "value")
    test = causal_use(planted.model, found)
    both = replace(found, causal=test)
    assert both.verdict() == f"{found.verdict()} {test.verdict()}"
    for part in ("numbers", "tables", "figures", "findings"):
        own, more, all_ = ([one.name for one in getattr(of, part)()] for of in (found, test, both))
        assert sorted(all_) == sorted(own + more)
    assert any("does not show that the model uses it" in text for text in found.cautions())
    assert not any("does not show that the model uses it" in text for text in both.cautions())
    again = load(both.save(tmp_path))
    assert again.summary() == both.summary() and again.verdict() == both.verdict()


def test_erasing_leaves_the_probe_nothing_to_read_and_random_directions_leave_it_all() -> None:
    """Give features of very different scales, which the probe evens out while it learns."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    states = torch.randn(300, 12, generator=generator) + 4 * torch.eye(12)[labels]
    states *= torch.logspace(-2, 2, 12)
    fitted = LogisticProbe().fit(states, labels.numpy())
    coefficients = coefficients_of(fitted, ["0", "1", "2"])
    own = directions_of(coefficients, labels, (labels + 1) % 3)
    shift = EDITS["ablate"].shift(States(states, states, states.mean(dim=0), states), 1.0)
    assert own.rank == 2
    erased = fitted.decision_function(states + own.along(shift))
    at_mean = fitted.decision_function(states.mean(dim=0, keepdim=True))
    apart = erased - at_mean
    assert float((apart - apart.mean(dim=1, keepdim=True)).abs().max()) < 1e-2
    other = drawn(1, 2, 12, seed=0)[0]
    assert fitted.score(states + matched(shift, own, other), labels.numpy()) > 0.6


def test_random_edits_are_as_long_and_lie_in_their_own_subspace() -> None:
    generator = torch.Generator().manual_seed(1)
    shift = torch.randn(5, 10, generator=generator)
    own, other = drawn(2, 3, 10, seed=2)
    edit = matched(shift, own, other)
    assert torch.allclose(edit.norm(dim=1), own.along(shift).norm(dim=1), atol=1e-5)
    assert torch.allclose(other.along(edit), edit, atol=1e-5) and not torch.allclose(own.along(edit), edit)
    assert torch.equal(matched(torch.zeros_like(shift), own, other), torch.zeros_like(shift))


@pytest.mark.parametrize("role", ["", "answer"])
def test_a_hyperdimensional_probe_ranks_by_the_directions_it_is_said_to_have(role: str) -> None:
    names = [f"c{n}" for n in range(8)]
    codebook = Codebook.random(MAP(1024), names, seed=0)
    at = torch.arange(160) % 8
    generator = torch.Generator().manual_seed(0)
    states = (torch.randn(160, 16, generator=generator) + 4 * torch.eye(16)[at]) * torch.logspace(-1, 1, 16)
    fillers = [names[n] for n in at]
    targets = codebook.records([{role: name} for name in fillers]) if role else fillers
    fitted = HyperdimensionalProbe(codebook, seed=0).fit(states, targets)
    scores = states.double() @ coefficients_of(fitted, names).T
    offsets = (states[:1].double() @ coefficients_of(fitted, names).T)[0]
    matrix = codebook.matrix[codebook.index(names)].double()
    predicted = fitted.encode(states).double()
    if role:
        predicted = codebook.algebra.unbind_real(predicted.float(), codebook.role(role)).double()
    said = predicted @ matrix.T
    assert torch.allclose(said - said[0], scores - offsets, atol=1e-3 * float(said.abs().max()))
    assert float((said - said[0]).abs().max()) > 1


def test_two_labels_have_one_direction_and_many_labels_one_for_each_prompt() -> None:
    generator = torch.Generator().manual_seed(0)
    at = torch.tensor([0, 1, 1])
    two = directions_of(torch.randn(2, 8, generator=generator).double(), at, 1 - at)
    assert isinstance(two, Spanned) and (two.rank, two.named) == (1, "this direction")
    rows = torch.randn(30, 8, generator=generator).double()
    many = directions_of(rows, at, 1 - at)
    assert isinstance(many, Pairwise) and torch.allclose(many.units, towards(rows, at, 1 - at))
    assert torch.allclose(many.units[0], -many.units[1]) and float(many.units[0].norm()) == pytest.approx(1)


def test_an_unchanged_run_has_no_effect_in_either_measure() -> None:
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    rows, right = torch.arange(3), torch.tensor([0, 1, 2])
    moved = logits.clone()
    moved[:, 0] += 1.0
    preference = Preference.of(logits, right, right + 1)
    assert preference.change(logits, rows).abs().max() == 0
    assert preference.change(moved, rows).tolist() == pytest.approx([-1.0, 0.0, 0.0], abs=1e-6)
    divergence = Divergence.of(logits)
    assert divergence.change(logits, rows).abs().max() < 1e-6 < divergence.change(moved, rows).min()


def test_wrong_calls_say_what_to_do(planted: PlantedSubspace) -> None:
    with pytest.raises(ConfigError, match=r"has no directions to change; those that have: .*logistic"):
        check_directions("mlp")
    check_directions("logistic")
    found = _probed(planted, "value", "nearest-centroid")
    with pytest.raises(ConfigError, match="give 20 or more"):
        causal_use(planted.model, found, draws=5)
    with pytest.raises(ConfigError, match="trained on other weights"):
        causal_use(planted_subspace(seed=1).model, found)
