"""Features in every search, in circuits and their controls: planted ones are found, laws hold."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import interp
from interp import Intervention, mediation
from interp.errors import SiteError
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.searches import effects as effects_of
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from tests.dictionaries import planted_dictionary, planted_pairs, random_dictionary, transcoder
from tests.tiny import tiny


@cache
def planted() -> tuple[Model, PairSet]:
    """Prompts ``w_a w_b query``: a decides the answer, b is the same in both."""
    found = planted_dictionary()
    model = found.model.with_dictionaries(found.dictionary)
    return model, PairSet.build(model, planted_pairs(found)[::4])


@cache
def tiny_pairs() -> tuple[Model, PairSet]:
    hf, words = tiny("llama")
    model = interp.load(hf, tokenizer=words)
    pairs = [
        Pair(f"w0{at} w11 w12 w13", f"w1{at} w11 w12 w13", ("w20",), ("w21",), "", str(at)) for at in range(4)
    ]
    return model, PairSet.build(model, pairs)


def test_planted_codes_are_read_exactly() -> None:
    found = planted_dictionary()
    model = found.model.with_dictionaries(found.dictionary)
    read = model.capture([" ".join(found.words)], ["feature.0", "error.0"], "all")
    codes = read["feature.0"][0, -12:]
    assert torch.equal(codes != 0, torch.eye(12, dtype=torch.bool))
    assert torch.allclose(codes, torch.eye(12), atol=1e-5)
    assert float(read["error.0"].abs().max()) < 1e-5


@pytest.mark.parametrize("search", ["exhaustive", "attribution", "atp-star", "ig-inputs", "ig-activations"])
def test_every_search_ranks_the_features_of_the_words_that_differ(search: str) -> None:
    model, pairs = planted()
    effects = effects_of(model, pairs, ["feature.*", "error.*"], search=search)
    names = [str(one) for one in effects.mediators]
    assert names == [*(f"feature.0.{at}" for at in (*range(10), 11)), "error.0"]  # word 10 is in no prompt
    sizes = dict(zip(names, np.abs(effects.mean()), strict=True))
    assert min(sizes[f"feature.0.{at}"] for at in range(9)) > 20 * max(
        sizes["feature.0.9"], sizes["feature.0.11"], sizes["error.0"], 1e-9
    )


def test_all_features_and_the_error_together_are_the_whole_site() -> None:
    model, pairs = tiny_pairs()
    model = model.with_dictionaries(random_dictionary(site="resid_post.1", activation="topk"))
    sets = ["feature.1", "error.1", "resid_post.1"]
    asked = mediation.experiment_of(model, pairs, sets, positions="all")
    feature, error, whole = (next(m for m in asked.mediators if str(m) == name) for name in sets)
    for direction in ("denoising", "noising"):
        found = asked.replaced([(feature, error), (whole,), (feature,)], direction)
        assert np.allclose(found.values[0], found.values[1], atol=1e-4)
        assert not np.allclose(found.values[2], found.values[1], atol=1e-2)
        side = asked.clean if direction == "denoising" else asked.corrupt
        assert np.allclose(found.values[1], side, atol=1e-4)


def test_one_by_one_they_are_the_joint_vector() -> None:
    model, pairs = tiny_pairs()
    model = model.with_dictionaries(random_dictionary(site="mlp_out.1"))
    active = mediators_of(model, pairs, "feature.1.*")
    asked = mediation.experiment_of(model, pairs, [*active, "feature.1"])
    joint = next(m for m in asked.mediators if m.site.index is None)
    found = asked.replaced([active, (joint,)], "noising")
    assert np.allclose(found.values[0], found.values[1], atol=1e-4)
    assert np.abs(found.values[0] - found.plain).max() > 1e-2


@pytest.mark.parametrize("kind", ["autoencoder", "transcoder"])
def test_gradients_are_finite_differences(kind: str) -> None:
    model, pairs = tiny_pairs()
    dictionary = random_dictionary(site="resid_post.1") if kind == "autoencoder" else transcoder(layer=1)
    model = model.with_dictionaries(dictionary)
    asked = mediation.experiment_of(model, pairs, "feature.1.*", replacement="interpolate:0.01")
    estimates, exact = asked.first_order().values, asked.each().values
    for direction in ("denoising", "noising"):
        size = np.abs(exact[direction]).max()
        assert size > 1e-5
        assert np.abs(estimates[direction] - exact[direction]).max() < 0.05 * size


def test_patched_passes_are_whole_passes_with_interventions() -> None:
    model, pairs = tiny_pairs()
    model = model.with_dictionaries(random_dictionary(site="resid_post.1"), transcoder(layer=0))
    effects = mediation.exhaustive(model, pairs, ["feature.1.3", "feature.1.3+4+5", "feature.0.7", "error.0"])
    read = model.capture(pairs.clean, ["feature.0", "feature.1", "error.0"], "all")
    plain = model.logits(pairs.corrupt)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(pairs))
        answers, foils = ([ids[0] for ids in side] for side in (pairs.answer_ids, pairs.foil_ids))
        return logits[rows, answers] - logits[rows, foils]

    for at, mediator in enumerate(effects.mediators):
        layer = mediator.layer
        if mediator.site.kind == "error":
            edits = [Intervention("error.0", read["error.0"])]
        else:
            units = mediator.units or (mediator.site.index,)
            edits = [
                Intervention(f"feature.{layer}.{unit}", read[f"feature.{layer}"][..., unit : unit + 1])
                for unit in units
            ]
        wanted = metric(model.run(pairs.corrupt, interventions=edits).logits) - metric(plain)
        assert np.allclose(effects.values["denoising"][at], wanted.numpy(), atol=1e-4)
    assert str(effects.mediators[-1]) in ("feature.1.3+4+5", "feature.1.3")
    assert Mediator.parse("feature.1.3+4+5") in effects.mediators


@pytest.mark.parametrize("replacement", ["mean", "zero", "resample", "noise:1", "steering:1", "projection"])
def test_replacements_act_on_features(replacement: str) -> None:
    model, pairs = tiny_pairs()
    model = model.with_dictionaries(random_dictionary(site="resid_post.1"))
    effects = mediation.exhaustive(model, pairs, ["feature.1.*", "error.1"], replacement=replacement)
    assert np.isfinite(effects.mean()).all() and np.abs(effects.mean()).max() > 1e-4
    if replacement == "zero":
        edit = Intervention(str(effects.mediators[0]), 0.0)
        found = model.run(pairs.clean, interventions=[edit]).logits
        rows, ids = torch.arange(len(pairs)), [ids[0] for ids in pairs.answer_ids]
        foils = [ids[0] for ids in pairs.foil_ids]
        change = (found - model.logits(pairs.clean))[rows]
        wanted = change[rows, foils] - change[rows, ids]
        assert np.allclose(effects.values["noising"][0], wanted.numpy(), atol=1e-4)


def test_a_circuit_of_features_is_evaluated_with_its_controls() -> None:
    model, pairs = planted()
    universe = ("feature.*", "error.*")
    best = [f"feature.0.{at}" for at in range(9)]
    found = mediation.evaluate(model, pairs, best, universe=universe)
    assert found.number("faithfulness").value == pytest.approx(1.0, abs=0.02)
    none = mediation.evaluate(model, pairs, ["feature.0.9", "feature.0.11", "error.0"], universe=universe)
    assert none.number("faithfulness").value == pytest.approx(0.0, abs=0.02)
    found = mediation.curve(model, pairs, best, universe=universe, control=True)
    assert found.verdict() and any("explains" in text for text in found.warnings)


def test_interactions_know_what_comes_first() -> None:
    model, pairs = tiny_pairs()
    model = model.with_dictionaries(random_dictionary(site="mlp_out.1"))
    found = mediation.interactions(
        model, pairs, ["feature.1.3", "feature.1.5", "head.1.0", Mediator.parse("resid_post.1")]
    )
    names = [str(one) for one in found.mediators]
    order = {one: at for at, one in enumerate(names)}
    assert found.upstream[order["head.1.0"], order["feature.1.3"]]
    assert not found.upstream[order["feature.1.3"], order["feature.1.5"]]
    assert found.upstream[order["feature.1.3"], order["resid_post.1"]]


def test_globs_name_active_features_and_none_is_said() -> None:
    model, pairs = tiny_pairs()
    own = random_dictionary(site="resid_post.1")
    model = model.with_dictionaries(own)
    found = {m.site.index for m in mediators_of(model, pairs, "feature.1.*")}
    read = [model.capture(side, "feature.1", "all")["feature.1"] for side in (pairs.clean, pairs.corrupt)]
    assert found == set(torch.stack(read).flatten(0, 2).any(dim=0).nonzero()[:, 0].tolist())
    silent = type(own)(**{**vars(own), "encoder_bias": own.encoder_bias - 1e4})
    with pytest.raises(SiteError, match="none of which is active"):
        mediators_of(tiny_pairs()[0].with_dictionaries(silent), pairs, "feature.1.*")


def test_features_of_the_last_layer_at_single_positions() -> None:
    model, pairs = tiny_pairs()
    before = model.with_dictionaries(random_dictionary(site="resid_pre.2"))
    found = mediation.exhaustive(before, pairs, "feature.2", positions="each")
    assert np.abs(found.values["noising"][0]).max() > 1e-4  # attention of the last block still reads them
    after = model.with_dictionaries(random_dictionary(site="resid_post.2"))
    found = mediation.exhaustive(after, pairs, "feature.2", positions="each")
    assert not found.values["noising"][:-1].any() and np.abs(found.values["noising"][-1]).max() > 1e-4


@pytest.mark.slow
def test_other_results_over_features_say_what_the_dictionary_is_worth() -> None:
    model, pairs = planted()
    found = mediation.frontier(model, pairs, types=["features", "layers"])
    assert any("explains" in text for text in found.warnings)
    assert not any("explains" in text for text in mediation.frontier(model, pairs, types=["layers"]).warnings)
    graph = mediation.attribution_graph(model, "w00 w09 w11", nodes=6, edges=6)
    assert any("explains" in text for text in graph.warnings)
