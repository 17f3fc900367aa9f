"""Results of the house as findings: the same numbers as in their tables, item by item."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import mediation, quantization
from interp.analyses import causal_use, probe, probe_concepts
from interp.errors import DataError
from interp.mediation.circuits.runs import share_kept
from interp.models.model import Model
from interp.results.findings import Finding, named
from interp.tasks import Labelled, sample
from tests.noisy import demo, noisy
from tests.planted import planted_subspace
from tests.planted_heads import Planted, planted
from tests.tiny import WORDS

NODES = ["head.*", "mlp_out.*"]


@pytest.fixture(scope="module")
def truth() -> Planted:
    return planted("induction")


@pytest.fixture(scope="module")
def effects(truth: Planted) -> mediation.Effects:
    return mediation.exhaustive(truth.model, truth.pairs, NODES)


def drawn_again(n: int, seed: int = 3) -> tuple[list[int], np.ndarray]:
    """Give rows drawn with repeats, and how often each was drawn."""
    rows = np.random.default_rng(seed).integers(n, size=n).tolist()
    return rows, np.bincount(rows, minlength=n).astype(np.float64)


def test_effects_are_findings_over_pairs_with_the_numbers_of_the_table(effects: mediation.Effects) -> None:
    found = named(effects.findings())
    assert list(found) == ["total effect", *map(str, effects.mediators)]
    assert found["total effect"].value == pytest.approx(effects.total.mean())
    table = effects.table().set_index("mediator")
    for name in map(str, effects.mediators):
        assert found[name].value == pytest.approx(table.loc[name, "effect"])
        assert found[name].groups == effects.groups and found[name].floor == 0
        both = [effects.values[way][effects.place(name)] for way in ("denoising", "noising")]
        assert found[name].values == pytest.approx((both[0] + both[1]) / 2)
    assert {one.unit for one in found.values()} == {effects.unit} != {""}


def test_only_kinds_with_one_mediator_in_a_layer_form_a_curve(
    effects: mediation.Effects, truth: Planted
) -> None:
    found = named(effects.findings())
    assert (found["mlp_out.1"].curve, found["mlp_out.1"].layer) == ("mlp_out", 1)
    assert (found["head.1.3"].curve, found["head.1.3"].layer) == ("", 1)
    cells = named(mediation.attribution(truth.model, truth.pairs, "resid_post.*").findings())
    assert {one.curve for one in cells.values()} == {"", *(f"resid_post@{at}" for at in range(6))}


def test_more_effects_than_can_be_compared_are_refused(
    effects: mediation.Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp.mediation.effects.MOST", len(effects.mediators))
    effects.findings()
    monkeypatch.setattr("interp.mediation.effects.MOST", len(effects.mediators) - 1)
    with pytest.raises(DataError, match=r"10 effects cannot be compared one by one, 9 can: search fewer"):
        effects.findings()


def test_a_function_that_returns_effects_is_an_analysis() -> None:
    model = demo()
    pairs = sample(model, "capitals", 12, seed=0)

    def heads_that_matter(model: Any, *, reference: Any = None) -> mediation.Effects:
        return mediation.attribution(model, pairs, "head.8.*", verify=0)

    found = quantization.compare(heads_that_matter, model, ["fp32", "rtn2"], noise=())
    verdicts = {scheme: {j.finding: j.verdict for j in found.cell("heads_that_matter", scheme).judgements}
                for scheme in ("fp32", "rtn2")}  # fmt: skip
    assert set(verdicts["fp32"]) == {"total effect", *(f"head.8.{head}" for head in range(4))}
    assert set(verdicts["fp32"].values()) == {"survives"}
    assert verdicts["rtn2"]["head.8.3"] in ("weakened", "lost")


def test_an_evaluation_gives_shares_that_follow_the_pairs_drawn(truth: Planted) -> None:
    found = mediation.evaluate(truth.model, truth.pairs, sorted(truth.heads), controls=())
    given = named(found.findings())
    faithful, lost = given["faithfulness of the circuit"], given["lost without the circuit"]
    assert faithful.value == pytest.approx(found.faithfulness.value) == pytest.approx(1, abs=0.1)
    assert faithful.floor == pytest.approx(found.random.value)
    assert lost.value == pytest.approx(1 - found.completeness.value)
    rows, weights = drawn_again(len(truth.pairs))
    part, none, whole = (found.values[name][rows].mean() for name in ("circuit", "none", "all"))
    assert faithful.statistic is not None
    assert faithful.statistic(weights) == pytest.approx((part - none) / (whole - none))
    kept = given["kept by the circuit alone"]
    assert kept.value == pytest.approx((found.values["circuit"] - found.values["none"]).mean())
    assert kept.excess > 0.5 * given["effect of all of them"].value
    wrong = mediation.evaluate(truth.model, truth.pairs, ["head.0.0", "head.1.0"], controls=())
    assert abs(named(wrong.findings())["faithfulness of the circuit"].value) < 0.1
    bare = mediation.evaluate(truth.model, truth.pairs, sorted(truth.heads), controls=(), random_circuits=0)
    assert named(bare.findings())["faithfulness of the circuit"].floor == 0


def test_where_nothing_lies_between_the_ends_no_share_is_kept() -> None:
    same = np.array([1.0, 2.0])
    share = share_kept(same + 1, same, same)
    assert share(np.ones(2)) == 0
    assert share_kept(same + 1, same, same + 2)(np.ones(2)) == pytest.approx(0.5)


def test_a_curve_gives_its_area_against_a_random_order(truth: Planted, effects: mediation.Effects) -> None:
    order = effects.top(10)
    found = mediation.curve(truth.model, truth.pairs, order)
    lucky = mediation.curve(truth.model, truth.pairs, order[::-1])
    area, *sizes = replace(found, control=lucky).findings()
    assert area.value == pytest.approx(found.cpr) and area.floor == pytest.approx(lucky.cpr)
    assert area.excess > 0.3
    assert [one.value for one in sizes] == pytest.approx(found.faithfulness[1:-1].tolist())
    rows, weights = drawn_again(len(truth.pairs))
    again = mediation.curve(truth.model, truth.pairs[rows], order)
    assert area.statistic is not None and area.statistic(weights) == pytest.approx(again.cpr, abs=1e-4)
    assert area.statistic(weights) != pytest.approx(area.value, abs=1e-6)
    assert found.findings()[0].floor == 0
    assert replace(found, runs=None).findings() == ()


def test_interactions_patching_and_circuits_on_other_pairs_have_findings(truth: Planted) -> None:
    both = mediation.interactions(truth.model, truth.pairs, ["head.0.2", "head.1.3", "head.0.0"])
    given = named(both.findings())
    assert list(given) == ["head.0.0 x head.0.2", "head.0.0 x head.1.3", "head.0.2 x head.1.3"]
    assert given["head.0.2 x head.1.3"].value == pytest.approx(both.matrix[1, 2])
    whole = interp.patch(truth.model, truth.pairs, NODES)
    assert whole.trace is not None
    circuit = named(whole.findings())
    assert circuit["circuit: faithfulness of the circuit"].value == pytest.approx(
        whole.trace.evaluation.faithfulness.value
    )
    assert circuit["circuit: area under faithfulness"].floor == pytest.approx(whole.trace.random_curve.cpr)
    assert circuit["head.1.3"].value == pytest.approx(whole.effects.mean()[whole.effects.place("head.1.3")])
    assert interp.patch(truth.model, truth.pairs, "head.0.2").findings()[0].name == "total effect"
    general = mediation.generality(truth.model, sorted(truth.heads), {"a": truth.pairs, "b": truth.pairs})
    names = [one.name for one in general.findings()]
    assert len(set(names)) == len(names) == 8 and names[0] == "a: faithfulness of the circuit"


def _about_values(seed: int = 0) -> tuple[Model, Labelled]:
    found = planted_subspace(seed)
    with torch.no_grad():
        found.model.hf.lm_head.weight.mul_(4)
    right = dict(zip(found.values, found.answers, strict=True))
    parts = list(product(WORDS[42:46], found.values, found.nuisances[:4]))
    texts = tuple(f"{filler} {value} {nuisance} {found.query}" for filler, value, nuisance in parts)
    labels = tuple(right[value] for _, value, _ in parts)
    return found.model, Labelled("value", "value", texts, labels, texts, ("",) * len(texts))


def test_a_probe_gives_right_and_wrong_prompts_against_its_hardest_floor() -> None:
    model, data = _about_values()
    found = probe(model, data, layers=0, controls=("shuffled", "majority"))
    (accuracy,) = found.findings()
    assert accuracy.value == pytest.approx(found.accuracy.value)
    assert set(np.unique(accuracy.values)) <= {0.0, 1.0} and accuracy.layer == 0
    floors = [found.score(name).value for name in ("shuffled", "majority", "chance")]
    assert accuracy.floor == pytest.approx(max(floors))
    assert accuracy.groups == tuple(data.groups[i] for i in found.split.test)
    lucky = replace(found, scores=tuple(replace(s, value=0.9) if s.name == "shuffled" else s
                                        for s in found.scores))  # fmt: skip
    assert lucky.findings()[0].floor == 0.9 and "shuffled labels" in lucky.findings()[0].about


def test_a_causal_test_gives_every_edit_beside_random_directions() -> None:
    model, data = _about_values()
    found = causal_use(model, probe(model, data, layers=0, controls=()))
    given = named(found.findings())
    assert list(given) == [f"{effect.edit}: {found.measure}" for effect in found.effects]
    for effect in found.effects:
        one = given[f"{effect.edit}: {found.measure}"]
        assert one.value == pytest.approx(effect.estimate.value)
        assert one.floor == pytest.approx(effect.random)
        assert one.excess == pytest.approx(effect.difference.value)
    assert "changes" not in str(found.summary())


def test_concepts_are_compared_by_what_is_read_and_what_is_said() -> None:
    controls = ("constant", "shuffled")
    found = probe_concepts(demo(), layers="23", sizes=(200, 40, 40), controls=controls)
    read, said = found.findings()
    assert read.value == pytest.approx(found.top1.value)
    assert said.value == pytest.approx(np.mean(found.model_right))
    measured = [score.value for score in found.scores if score.name in (*controls, "chance")]
    assert read.floor == pytest.approx(max(measured)) and read.excess > 0
    assert read.groups == said.groups == tuple(item.fact for item in found.items)


def test_two_models_give_findings_of_the_same_names_and_items(truth: Planted) -> None:
    other = noisy(truth.model, 0.3)
    one, two = (interp.patch(model, truth.pairs, NODES).effects.findings() for model in (truth.model, other))
    assert [(a.name, a.groups) for a in one] == [(b.name, b.groups) for b in two]
    assert any(not np.allclose(a.values, b.values) for a, b in zip(one, two, strict=True))


def test_a_finding_of_results_is_unchanged_by_a_copy_of_the_model(truth: Planted) -> None:
    hf = copy.deepcopy(truth.model.hf)
    same = interp.load(hf, tokenizer=truth.model.tokenizer)
    given: list[tuple[Finding, ...]] = [
        mediation.exhaustive(model, truth.pairs, NODES).findings() for model in (truth.model, same)
    ]
    assert all(np.array_equal(a.values, b.values) for a, b in zip(*given, strict=True))
