"""Circuits: laws, a planted circuit, and MIB's areas on given curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp import mediation
from interp.errors import ConfigError, DataError, SiteError
from interp.mediation import circuits
from interp.mediation.circuits import Curve
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.tasks.pairs import sample
from tests.noisy import demo
from tests.tiny import WORDS, build, tokenizer


def made(family: str = "llama") -> Model:
    return load(build(family), tokenizer=tokenizer())


def pairs_of(model: Model, n: int = 8) -> PairSet:
    """Prompts that differ in their first word, so that the last token's own embedding is the same.

    The answer is what the clean prompt raises, so that the total effect of a random model is told from zero.
    """
    rng = np.random.default_rng(0)
    found: list[Pair] = []
    for at in range(n):
        words = [WORDS[i] for i in rng.integers(0, 50, 7)]
        other = [WORDS[51 + at % 4], *words[1:]]
        found.append(Pair(" ".join(words), " ".join(other), (WORDS[55],), (WORDS[56],), "word", f"g{at}"))
    pairs = PairSet.build(model, found)
    raised = (model.logits(pairs.clean) - model.logits(pairs.corrupt))[:, 4 + 55 : 4 + 57]
    ways = [
        one if up else replace(one, answers=one.foils, foils=one.answers)
        for one, up in zip(found, raised[:, 0] > raised[:, 1], strict=True)
    ]
    return PairSet.build(model, ways)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_all_nodes_are_the_clean_run_and_none_is_every_node_replaced(family: str) -> None:
    model = made(family)
    pairs = pairs_of(model)
    found = circuits.evaluate(model, pairs, ["head.*", "mlp_out.*"])
    assert np.allclose(found.values["circuit"], found.values["all"], atol=1e-6)
    assert np.allclose(found.values["without"], found.values["none"], atol=1e-6)
    edits = []
    for layer in range(model.n_layers):
        read = model.capture(pairs.corrupt, [f"z.{layer}", f"mlp_out.{layer}"], "all")
        edits += [interp.Intervention(f"z.{layer}", read[f"z.{layer}"])]
        edits += [interp.Intervention(f"mlp_out.{layer}", read[f"mlp_out.{layer}"])]
    logits = model.run(pairs.clean, interventions=edits).logits
    assert logits is not None
    wanted = [
        float(logits[at, pairs.answer_ids[at][0]] - logits[at, pairs.foil_ids[at][0]])
        for at in range(len(pairs))
    ]
    assert np.allclose(found.values["none"], wanted, atol=1e-5)
    assert not np.allclose(found.values["none"], found.values["all"], atol=1e-5)


def test_a_planted_head_is_the_whole_circuit() -> None:
    hf = build("gpt2")
    with torch.no_grad():
        for layer, block in enumerate(hf.transformer.h):
            block.mlp.c_proj.weight.zero_()
            block.attn.c_proj.weight.mul_(0)
            if layer == 1:
                block.attn.c_proj.weight[8:16] = torch.randn(
                    8, 32, generator=torch.Generator().manual_seed(0)
                )
    model = load(hf, tokenizer=tokenizer())
    pairs = pairs_of(model)
    effects = mediation.exhaustive(model, pairs, ["head.*", "mlp_out.*"])
    assert str(effects.top(1)[0]) == "head.1.1"
    found = circuits.evaluate(model, pairs, effects.top(1), seed=1)
    assert found.faithfulness.value == pytest.approx(1, abs=1e-4)
    assert found.completeness.value == pytest.approx(0, abs=1e-4)
    assert abs(found.random.value) < 0.5
    ranked = circuits.curve(model, pairs, effects.top(15))
    assert ranked.faithfulness[0] == 0 and np.allclose(ranked.faithfulness[1:], 1, atol=1e-4)
    backwards = circuits.curve(model, pairs, effects.top(15)[::-1])
    assert backwards.cpr < 0.6 * ranked.cpr
    assert backwards.cmd > ranked.cmd


def given(sizes: tuple[int, ...], *faithfulness: float) -> Curve:
    return Curve(sizes=sizes, faithfulness=np.array(faithfulness), total=sizes[-1], order=())


def test_areas_of_given_curves() -> None:
    perfect = given((0, 1, 100), 0.0, 1.0, 1.0)
    assert perfect.cpr == pytest.approx(0.995)
    assert perfect.cmd == pytest.approx(0.005)
    line = given((0, 50, 100), 0.0, 0.5, 1.0)
    assert (line.cpr, line.cmd) == (pytest.approx(0.5), pytest.approx(0.5))
    late = given((0, 50, 100), 0.0, 0.0, 1.0)
    assert (late.cpr, late.cmd) == (pytest.approx(0.25), pytest.approx(0.75))


def test_only_sizes_that_were_measured_are_told() -> None:
    few = given((0, 1, 2, 4, 10), 0.0, -6.0, 0.5, 0.8, 1.0)
    assert few.largest_within(0.05) is None  # half a node: nothing was run
    assert few.largest_within(0.3) == 2
    assert few.largest_within(0.4) == 3
    assert (few.smallest(0.5), few.smallest(0.6), few.smallest(1.1)) == (2, 4, None)
    many = given((0, 1, 2, 4, 8, 96), *[0.0] * 6)
    assert many.largest_within(0.05) == 3  # 4 of 96, not a line to 4.8


def test_the_bundled_models_capitals_need_few_nodes() -> None:
    model = demo()
    pairs = sample(model, "capitals", 24)
    effects = mediation.attribution(model, pairs[:12], ["head.*", "mlp_out.*"], verify=0)
    found = circuits.evaluate(model, pairs[12:], effects.top(30), random_circuits=3, removals=0, knockouts=0)
    assert found.faithfulness.value > 0.7
    assert found.random.value < 0.5 * found.faithfulness.value
    assert "keeps" in repr(found) and len(found.table()) == 8


def test_a_ranking_of_names_is_a_ranking_and_what_is_unknown_in_it_is_refused() -> None:
    model = made()
    pairs, universe = pairs_of(model), ["head.*", "mlp_out.*"]
    order = circuits.nodes_of(model, pairs)[::-2]
    values = circuits.curve(model, pairs, order, universe=universe)
    names = circuits.curve(model, pairs, [str(one) for one in order], universe=universe)
    sites = circuits.curve(model, pairs, [one.site for one in order], universe=universe)
    assert values.order == names.order == sites.order and values.order[: len(order)] == order
    assert np.array_equal(values.runs, names.runs)
    # By hand: the first two of the ranking clean, everything else corrupt.
    first = circuits.evaluate(model, pairs, list(order[:2]), knockouts=0, removals=0, controls=())
    assert values.runs is not None
    assert np.allclose(values.runs[2], first.values["circuit"], atol=1e-5)
    globbed = circuits.curve(model, pairs, ["mlp_out.*"], universe=universe)
    assert [str(one) for one in globbed.order[:3]] == ["mlp_out.0", "mlp_out.1", "mlp_out.2"]
    with pytest.raises(SiteError, match="nonsense"):
        circuits.curve(model, pairs, ["head.0.0", "nonsense"], universe=universe)
    with pytest.raises(ConfigError, match="7 in a ranking is no node and no edge"):
        circuits.curve(model, pairs, [7], universe=universe)
    with pytest.raises(ConfigError, match=r"mlp_out\.0 is ranked, but it is not in the universe"):
        circuits.curve(model, pairs, ["mlp_out.0"], universe="head.*")


def test_what_there_is_not_is_refused() -> None:
    model = made()
    pairs = pairs_of(model)
    with pytest.raises(ConfigError, match=r"resid_post\.1 is not in the universe"):
        circuits.evaluate(model, pairs, ["resid_post.1"])
    with pytest.raises(ConfigError, match="sizes from 0 to 99 asked"):
        circuits.curve(model, pairs, [], sizes=[99])
    with pytest.raises(ConfigError, match="metric 'x' asked"):
        circuits.evaluate(model, pairs, ["head.0.0"], metric="x")
    same = PairSet.build(model, [Pair("w01 w02", "w01 w02", ("w10",), ("w11",), "null")])
    with pytest.raises(DataError, match="behaves the same with every node replaced"):
        circuits.evaluate(model, same, ["head.0.0"])
    with pytest.raises(ConfigError, match="no random circuits were run"):
        _ = circuits.evaluate(model, pairs, ["head.0.0"], random_circuits=0).random
