"""Two hops: recall of the bridge, its use, and the answers, against loops and finite differences."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.analyses.multi_hop import Chain, two_hop
from interp.analyses.multi_hop.chains import Chains, Placed, draw
from interp.analyses.multi_hop.run import answers, consistency, recalled, second_hop_slopes
from interp.errors import ConfigError, DataError
from interp.models import Intervention, Model
from interp.models.forward import layout
from interp.models.quantized import Quantization
from interp.models.readout import Readout
from interp.quantization import quantize
from interp.results import FindingsResult
from tests.noisy import demo as bundled
from tests.tiny import FAMILIES, WORDS, build, tokenizer


def chains(n: int = 24, seed: int = 0) -> list[Chain]:
    rng, found = random.Random(seed), []
    for at in range(n):
        a, b, c, d, bridge, answer = rng.sample(WORDS, 6)
        mention = " ".join([a, b, c][: rng.randrange(2, 4)])
        both = f"{mention} {d} w07" if at % 2 else f"w05 {d} {mention} w06"
        found.append(Chain(both, mention, mention, f"{bridge} {d}", bridge, answer, f"k{at % 2}"))
    return found


def wrapped(family: str, dtype: torch.dtype = torch.float32) -> Model:
    hf: Any = build(family)
    return interp.load(hf.to(dtype), tokenizer=tokenizer())


@pytest.fixture(scope="module")
def demo() -> Model:
    return bundled()


@pytest.fixture(scope="module")
def small(demo: Model) -> FindingsResult:
    return two_hop(demo, n=40)


def test_entrec_is_read_where_the_description_ends(demo: Model) -> None:
    asked = draw(demo, None, n=6, seed=0)
    bridges = torch.tensor([one.bridge[0] for one in asked.asked])
    found = recalled(demo, Readout.precise(demo.architecture), asked.asked, bridges)
    for row, one in enumerate(asked.asked):
        chain, ids = one.chain, demo.tokenize([one.chain.both]).token_ids[0]
        assert demo.tokenizer is not None
        assert demo.tokenizer.decode([ids[one.position]]).strip() == chain.mention.split()[-1]
        assert demo.tokenizer.decode(list(one.bridge)).strip() == chain.bridge
        for layer in (0, 11, 23):
            state = demo.capture([chain.both], [f"resid_post.{layer}"], [one.position])
            logs = demo.unembed(state[f"resid_post.{layer}"]).log_softmax(1)
            assert found[layer, row] == pytest.approx(float(logs[0, one.bridge[0]]), abs=1e-3)
    shifted = [replace(one, position=one.position - 1) for one in asked.asked]
    assert not torch.allclose(
        recalled(demo, Readout.precise(demo.architecture), shifted, bridges), found, atol=0.1
    )


def test_cnstscore_is_the_mean_of_two_cross_entropies() -> None:
    one, two = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).double().log_softmax(2)
    found = consistency(one, two)
    for row in range(3):
        p, q = one[row].exp().tolist(), two[row].exp().tolist()
        crossed = [sum(a * np.log(b) for a, b in zip(*pair, strict=True)) for pair in ((p, q), (q, p))]
        assert found[row] == pytest.approx(0.5 * sum(crossed))
    assert bool((found < consistency(one, one)).any()) and torch.allclose(found, consistency(two, one))


def test_slopes_are_those_of_finite_differences() -> None:
    model = wrapped("gpt2", torch.float64)
    asked = draw(model, chains(), n=4, seed=0)
    one_hop = model.run([one.chain.second for one in asked.asked]).logits
    assert one_hop is not None
    held, readout = one_hop.log_softmax(1), Readout.precise(model.architecture)
    found = second_hop_slopes(model, readout, asked, held)
    for row, one in enumerate(asked.asked):
        for layer in range(2):
            site = f"resid_post.{layer}"
            state = model.capture([one.chain.both], [site], [one.position])[site]
            along = torch.stack([_recall_slope(model, state, axis, one.bridge[0]) for axis in range(32)])
            up, down = (
                _score(model, one, Intervention(site, state + step * along, [one.position]), held[row])
                for step in (1e-4, -1e-4)
            )
            expected = (up - down) / 2e-4
            assert found[layer, row] == pytest.approx(expected, rel=1e-3, abs=1e-7)
    wrong = Chains(tuple(replace(o, bridge=o.answer) for o in asked.asked), asked.others, asked.usual)
    assert not torch.allclose(second_hop_slopes(model, readout, wrong, held), found, rtol=0.05)


def _score(model: Model, one: Placed, edit: Intervention, one_hop: torch.Tensor) -> float:
    logits = model.run([one.chain.both], interventions=[edit]).logits
    assert logits is not None
    return float(consistency(logits.log_softmax(1), one_hop[None]))


def _recall_slope(model: Model, state: torch.Tensor, axis: int, token: int) -> torch.Tensor:
    """Differentiate EntRec by one coordinate, by differences."""
    head: Any = model.hf.get_output_embeddings()
    norm: Any = model.hf.transformer.ln_f
    step = torch.zeros_like(state)
    step[0, axis] = 1e-5
    with torch.no_grad():
        up, down = (head(norm(state + sign * step)).log_softmax(1)[0, token] for sign in (1, -1))
    return (up - down) / 2e-5


def test_what_stands_in_has_another_bridge_and_another_answer(demo: Model) -> None:
    asked = draw(demo, None, n=60, seed=0)
    for one, other in zip(asked.asked, asked.others, strict=True):
        assert one.chain.kind == other.chain.kind
        assert one.chain.bridge != other.chain.bridge and one.chain.answer != other.chain.answer
        assert f" {one.chain.bridge} " not in f" {one.chain.both} "
    kinds = [one.chain.kind.rpartition("/")[0] for one in asked.asked]
    assert len(set(kinds)) == 14 and max(map(kinds.count, kinds)) <= 6
    again = draw(quantize(demo, "rtn2"), None, n=60, seed=0)
    assert again.fingerprint == asked.fingerprint != draw(demo, None, n=60, seed=1).fingerprint


def test_the_bundled_model_answers_and_two_bits_do_not(demo: Model, small: FindingsResult) -> None:
    for name in ("two hops", "first hop", "second hop"):
        one = small.finding(f"accuracy: {name}")
        assert one.value >= 0.95 and one.floor < 0.3
    kept, lost = (two_hop(quantize(demo, s), reference=small, n=40) for s in ("rtn8", "rtn2"))
    assert kept.finding("accuracy: two hops").value >= 0.95
    assert lost.finding("accuracy: two hops").value < 0.3 and lost.table("hops")["drop of accuracy"][2] > 0.7
    scores = [run.finding("CnstScore").excess for run in (small, kept, lost)]
    assert scores[0] == pytest.approx(scores[1], abs=0.5) and scores[2] < 0.5 * scores[0]
    near, far = (run.table("layers")["EntRec drop"].abs().max() for run in (kept, lost))
    assert near < 0.5 < far


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_asked(family: str) -> None:
    found = two_hop(wrapped(family), data=chains())
    named = {one.name: one for one in found.findings()}
    joint = [one for name, one in named.items() if name[:2] in ("SS", "SF", "FS", "FF")]
    assert len(joint) == 4 and np.sum([one.values for one in joint], axis=0) == pytest.approx(np.ones(24))
    hops = found.state["hops"]
    assert np.array_equal(named["first-hop test at layer 1"].values, hops.recall[1] > hops.recall_other[1])
    assert np.array_equal(named["second-hop test at layer 1"].values, hops.slopes[1] > 0)
    assert {"EntRec at layer 2", "second-hop test at layer 1"} <= set(named)
    assert "second-hop test at layer 2" not in named and not found.warnings
    assert 0.2 < named["first-hop test"].value < 0.8


def test_batches_of_another_layout_change_rounding_alone() -> None:
    model = wrapped("llama")
    whole = two_hop(model, data=chains())
    with layout(3):
        parts = two_hop(model, data=chains(), reference=whole)
    for name in ("slopes", "recall"):
        one, two = (getattr(run.state["hops"], name) for run in (whole, parts))
        assert two == pytest.approx(one, abs=1e-3)


def test_without_sound_gradients_the_second_test_is_left_out() -> None:
    model = wrapped("llama")
    report = Quantization("fake4", "packed", (), {}, 0, 1, 1, 0.0, gradients="its kernel cuts them off")
    found = two_hop(
        replace(model, quantization=report), data=chains(), reference=two_hop(model, data=chains())
    )
    assert any("left out" in note and "cuts them off" in note for note in found.warnings)
    names = [one.name for one in found.findings()]
    assert "first-hop test" in names and not [n for n in names if n.startswith(("second-hop", "SS", "FF"))]


def test_what_cannot_be_asked_is_refused(demo: Model, small: FindingsResult) -> None:
    model = wrapped("llama")
    with pytest.raises(DataError, match="knows no word of the bundled facts"):
        two_hop(model)
    with pytest.raises(DataError, match="chain 0: its mention 'w59 w58' is not in"):
        two_hop(model, data=[replace(chains()[0], mention="w59 w58")])
    with pytest.raises(DataError, match="chain 0: no other chain of kind 'k0'"):
        two_hop(model, data=chains()[:2])
    with pytest.raises(ConfigError, match="the reference asked other questions"):
        two_hop(demo, n=10, reference=small)
    with pytest.raises(ConfigError, match="n=0 chains asked"):
        two_hop(demo, n=0)


def test_answers_of_several_tokens_are_right_as_a_whole_and_stand_ins_begin_otherwise() -> None:
    model: Any = interp.load(build("llama"), tokenizer=tokenizer())
    plain = [Chain("w01 w02 w03", "w02", "w02 w04", "w05 w06", one, "w09", "k") for one in ("w20 w21", "w30")]
    alike = Chain("w01 w02 w07", "w02", "w02 w08", "w05 w06", "w20 w25", "w10", "k")
    said = model.generate(["w02 w04"], max_new_tokens=2).texts[0]
    right = Chain("w01 w02 w03", "w02", "w02 w04", "w05 w06", said.strip(), "w11", "k")
    asked = draw(model, [right, alike, replace(plain[1], answer="w12")], n=9, seed=0)
    both = list(zip(asked.asked, asked.others, strict=True))
    assert len(both) == 3 and all(one.bridge[0] != other.bridge[0] for one, other in both)
    assert asked.notes == ("2 of 3 bridges have several tokens; EntRec is of the first of them",)
    given = answers(model, asked)
    assert given.first.tolist() == [1.0, 0.0, 0.0]
    wrong = replace(right, bridge=f"{said.split()[0]} {'w40' if said.split()[1] != 'w40' else 'w41'}")
    again = draw(model, [wrong, alike, replace(plain[1], answer="w12")], n=9, seed=0)
    assert answers(model, again).first.tolist() == [0.0, 0.0, 0.0]  # its first token alone is no answer
    same = [replace(plain[0], bridge="w20 w22", answer="w13"), replace(alike, answer="w14")]
    with pytest.raises(DataError, match="a bridge that begins with another token; give at least two"):
        draw(model, same, n=9, seed=0)


def test_chains_of_a_file_are_asked_where_the_tokenizer_knows_them(demo: Model, tmp_path: Path) -> None:
    """As the same bundled chains; control: one in unknown words is left out, and counted."""
    bundled_ones = [one.chain for one in draw(demo, None, n=400, seed=0).asked]
    mine = [one for one in bundled_ones if one.kind == "capital_of/currency/0"][:6]
    assert len(mine) == 6
    odd = replace(mine[0], bridge="Xyzzy", answer="qqq")
    names = ("both", "mention", "first", "second", "bridge", "answer", "kind")
    with (tmp_path / "own.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([names, *([getattr(one, name) for name in names] for one in (*mine, odd))])
    found = draw(demo, tmp_path / "own.csv", n=10, seed=0)
    assert {one.chain.both for one in found.asked} == {one.both for one in mine}
    assert any("6 of 10 chains can be asked" in text for text in found.notes)
    run = two_hop(demo, data=str(tmp_path / "own.csv"), n=10)
    assert run.finding("accuracy: two hops").value >= 0.8


def test_losses_against_a_reference_are_ranked_by_groups(demo: Model, small: FindingsResult) -> None:
    """No table without a reference; beside two bits every loss is positive on average."""
    assert "losses" not in {one.name for one in small.tables()}
    lost = two_hop(quantize(demo, "rtn2"), reference=small, n=40)
    table = lost.table("losses")
    assert list(table["two_hop_loss_with"]) == ["first-hop ability of the reference", "loss of the first hop"]
    given, known = lost.state["hops"].answers, small.state["hops"].answers
    assert float((known.said - given.said).mean()) > 1
    logits = demo.logits([small.state["hops"].chains.asked[0].chain.both])[0].double().log_softmax(0)
    assert known.said[0] == pytest.approx(
        float(logits[small.state["hops"].chains.asked[0].answer[0]]), abs=1e-4
    )
    assert set(table["shown"]) <= {"yes", "not shown"} and table["groups"].min() >= 8
