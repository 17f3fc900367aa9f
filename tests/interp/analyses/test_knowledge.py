"""Facts recalled, and what neurons and sublayers add to the answers, against explicit loops."""

from __future__ import annotations

import copy
import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import interp
from interp.analyses.knowledge import attribution, recall
from interp.analyses.knowledge.attribution import (
    SITES,
    first_order,
    importances,
    neuron_writes,
)
from interp.analyses.knowledge.internals import sublayer_gains
from interp.errors import ConfigError, DataError
from interp.models import Model
from interp.models.readout import Readout
from interp.quantization import quantize
from interp.results import FindingsResult
from interp.tasks.sampling import labelled
from tests.noisy import demo as bundled
from tests.tiny import FAMILIES, WORDS, build, tokenizer


def questions(n: int = 30, seed: int = 0) -> list[tuple[str, str, str]]:
    rng = random.Random(seed)
    return [(" ".join(rng.sample(WORDS, 4)), rng.choice(WORDS), f"r{at % 2}") for at in range(n)]


def wrapped(family: str, dtype: torch.dtype = torch.float32) -> Model:
    hf: Any = build(family)
    return interp.load(hf.to(dtype), tokenizer=tokenizer())


@pytest.fixture(scope="module")
def demo() -> Model:
    return bundled()


@pytest.fixture(scope="module")
def small(demo: Model) -> FindingsResult:
    return recall(demo, n=30, prompts=4, relations=["capital", "plural"])


def test_importances_are_those_of_a_loop_over_neurons() -> None:
    model = wrapped("llama")
    prompts, tokens = ["w01 w02 w03", "w09 w08"], torch.tensor([12, 40])
    read = model.capture(prompts, [f"{kind}.*" for kind in (*SITES, "resid_mid")], "last")
    readout = Readout.precise(model.architecture)
    writes = neuron_writes(model, readout, read)
    mask = torch.ones(2, 3 * 48, dtype=torch.bool)
    found = importances(readout, writes, tokens, mask)
    for layer in range(3):
        weight = model.hf.model.layers[layer].mlp.down_proj.weight.detach()
        for row in range(2):
            base, act = read[f"resid_mid.{layer}"][row], read[f"mlp_act.{layer}"][row]
            before = model.unembed(base[None]).log_softmax(1)[0, tokens[row]]
            for neuron in range(48):
                stream = base + act[neuron] * weight[:, neuron]
                after = model.unembed(stream[None]).log_softmax(1)[0, tokens[row]]
                assert found[row, 48 * layer + neuron] == pytest.approx(float(after - before), abs=2e-5)
    assert found.abs().max() > 0.01
    half = importances(readout, writes, tokens, mask & (torch.arange(144) % 2 == 0))
    assert torch.equal(half[:, ::2], found[:, ::2]) and bool((half[:, 1::2] == -torch.inf).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_writes_of_all_neurons_add_up_to_the_contribution_of_the_ffn(family: str) -> None:
    model = wrapped(family)
    read = model.capture(["w01 w02 w03", "w09 w08"], [f"{kind}.*" for kind in SITES], "last")
    for layer, writes in enumerate(neuron_writes(model, Readout.precise(model.architecture), read)):
        rows, every = (
            torch.zeros(writes.columns.shape[0], dtype=torch.long),
            torch.arange(len(writes.columns)),
        )
        total = (writes.added(rows, every) - writes.base[0]).sum(0)
        projection = model.architecture.module(layer, "down_projection", "mlp_act")
        bias = getattr(projection, "bias", None)
        out = read[f"mlp_out.{layer}"][0]
        total = total if bias is None else total + writes.scale[0] * bias.detach()
        assert torch.allclose(total, out, atol=1e-4 * float(out.abs().max()))
        assert not torch.allclose(total * 1.01, out, atol=1e-4 * float(out.abs().max()))


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "gpt_neox", "gptj"])
def test_sublayers_are_read_from_the_streams_before_and_after_them(family: str) -> None:
    model = wrapped(family)
    kinds = [kind for kind in ("resid_pre", "resid_post", "attn_out", "mlp_out") if kind in model.sites]
    read = model.capture(["w01 w02 w03", "w09 w08"], [f"{kind}.*" for kind in kinds], "last")
    tokens = torch.tensor([[12, 13], [40, 41]])
    found = sublayer_gains(
        Readout.precise(model.architecture), read, tokens, parallel=model.architecture.parallel
    )
    for layer in range(3):
        pre, post = read[f"resid_pre.{layer}"], read[f"resid_post.{layer}"]
        attn, mlp = read[f"attn_out.{layer}"], read[f"mlp_out.{layer}"]
        middle = pre if model.architecture.parallel else post - mlp
        logs = [
            model.unembed(x).log_softmax(1).gather(1, tokens) for x in (pre, pre + attn, middle, middle + mlp)
        ]
        assert torch.allclose(found.attention[layer], logs[1] - logs[0], atol=1e-4)
        assert torch.allclose(found.ffn[layer], logs[3] - logs[2], atol=1e-4)
    assert not torch.allclose(found.ffn, found.attention, atol=1e-2)


def test_first_order_is_the_slope_at_the_base() -> None:
    model = wrapped("gpt2", torch.float64)
    tokens = torch.tensor([12, 40])
    read = model.capture(["w01 w02 w03", "w09 w08"], [f"{kind}.*" for kind in SITES], "last")
    readout = Readout.precise(model.architecture)
    writes = neuron_writes(model, readout, read)
    slope = first_order(readout, writes, tokens)
    tiny = [type(w)(w.base, w.activations * 1e-6, w.columns, w.scale) for w in writes]
    mask = torch.ones_like(slope, dtype=torch.bool)
    assert torch.allclose(importances(readout, tiny, tokens, mask) * 1e6, slope, atol=1e-4)
    assert not torch.allclose(importances(readout, writes, tokens, mask), slope, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_agrees_with_itself(family: str) -> None:
    found = recall(wrapped(family), data=questions(80), prompts=3)
    named = {one.name: one for one in found.findings()}
    assert not [note for note in found.warnings if "left out" in note]
    k = found.table("neurons")["top"][0]
    assert named["neurons above the threshold"].values.tolist() == [k] * 3
    assert named[f"top {k} neurons shared"].values.tolist() == [1.0] * 3
    assert named["rank correlation of neurons"].values == pytest.approx([1.0] * 3)
    assert named["rank correlation of neurons"].floor < 0.9
    assert {"accuracy: r0", "accuracy: r1", "FFN contribution at layer 2"} <= set(named)
    assert "added to resid_" in found.lead()[0]


def test_another_model_is_compared_by_sets_and_ranks() -> None:
    model = wrapped("llama")
    other = copy.deepcopy(model.hf)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    reference = recall(model, data=questions(), prompts=3)
    found = recall(
        interp.load(other, tokenizer=tokenizer()), data=questions(), prompts=3, reference=reference
    )
    one, two = reference.state["inside"].neurons, found.state["inside"].neurons
    k, total = one.k, one.values.shape[1]
    for row in range(3):
        sets = [
            set(sorted(range(total), key=lambda at, v=v: -v[row, at])[:k]) for v in (one.values, two.values)
        ]
        tau = sorted(one.values[row])[-k]
        shared = found.finding(f"top {k} neurons shared")
        assert shared.values[row] == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
        assert shared.floor == pytest.approx(k / (2 * total - k))
        assert found.finding("neurons above the threshold").values[row] == sum(two.values[row] >= tau)
        at = sorted(sets[0])
        expected: Any = stats.spearmanr(one.values[row, at], two.values[row, at])
        assert found.finding("rank correlation of neurons").values[row] == pytest.approx(expected.statistic)
    assert 0.1 < found.finding(f"top {k} neurons shared").value < 1


def test_a_pooled_threshold_leaves_k_neurons_on_average() -> None:
    found = recall(wrapped("llama"), data=questions(), prompts=4, threshold="pooled")
    above = found.finding("neurons above the threshold")
    assert above.value == found.table("neurons")["top"][0] and len(set(above.values)) > 1


def test_where_not_all_neurons_can_be_measured_the_best_still_are(
    demo: Model,
    small: FindingsResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attribution, "MOST_WORK", 0)
    fewer = recall(demo, n=30, prompts=4, relations=["capital", "plural"], reference=small)
    assert fewer.table("neurons")["measured neurons per prompt"][0] < 0.35 * 4608
    assert any("slope" in note for note in fewer.warnings)
    assert fewer.finding("top 300 neurons shared").value > 0.9
    assert fewer.finding("rank correlation of neurons").value == pytest.approx(1)


def test_rounding_to_two_bits_loses_what_eight_bits_keep(
    demo: Model,
    small: FindingsResult,
) -> None:
    options = {"n": 30, "prompts": 4, "relations": ["capital", "plural"]}
    assert small.finding("accuracy").value > 0.95 and small.finding("accuracy").floor < 0.1
    runs = [small, *(recall(quantize(demo, s), reference=small, **options) for s in ("rtn8", "rtn4", "rtn2"))]
    for name in ("log-probability of the answer", "top 300 neurons shared", "rank correlation of neurons"):
        values = [run.finding(name).value for run in runs]
        assert all(high > low for high, low in pairwise(values))
    assert runs[1].finding("accuracy").value > 0.95 and runs[3].finding("accuracy").value < 0.2
    assert runs[1].finding("rank correlation of neurons").value > 0.98
    drops = runs[3].table("drops").set_index("part")
    assert drops.loc["saturated", "drop of accuracy"] > 0.8
    assert drops.loc["not saturated", "relations"] == 0 and runs[3].about.model["scheme"] == "rtn2"


def test_always_the_usual_answer_is_the_control(demo: Model) -> None:
    data = [("the capital of France is", "Paris"), ("the capital of Japan is", "Tokyo")]
    data += [("the capital city of France is", "Paris")]
    found = recall(demo, data=data, prompts=1)
    assert np.array_equal(found.finding("accuracy").control, [1, 0, 1])
    assert not [one for one in found.findings() if one.name.startswith("accuracy: ")]
    wrong = recall(demo, data=[(prompt, "Rome") for prompt, _ in data], prompts=1)
    assert wrong.finding("accuracy").value == 0 and wrong.finding("accuracy").floor == 1


def test_answers_of_several_tokens_are_judged_whole() -> None:
    model = wrapped("llama")
    data = [("w01 w02", "w10 w11"), ("w03", "w12"), ("w04 w05 w06", "w10 w13 w14")]
    found = recall(model, data=data, prompts=1)
    assert found.finding("log-probability of the answer").values.tolist() == pytest.approx(
        [_whole(model, *one) for one in data], rel=1e-5
    )
    said = model.generate([prompt for prompt, _ in data], max_new_tokens=2).texts
    greedy = [(prompt, text.strip()) for (prompt, _), text in zip(data, said, strict=True)]
    halves = [(p, f"{text.split()[0]} {'w20' if text.split()[1] != 'w20' else 'w21'}") for p, text in greedy]
    assert recall(model, data=greedy, prompts=1).finding("accuracy").value == 1
    assert recall(model, data=halves, prompts=1).finding("accuracy").value == 0
    assert any("2 of 3 answers have several tokens" in one for one in found.warnings)


def _whole(model: Model, prompt: str, answer: str) -> float:
    """The log-probability of an answer by transformers' own loss over its tokens."""
    assert model.tokenizer is not None
    ids, n = torch.tensor([model.tokenizer(f"{prompt} {answer}")["input_ids"]]), len(answer.split())
    labels = torch.cat([torch.full((1, ids.shape[1] - n), -100), ids[:, -n:]], dim=1)
    with torch.no_grad():
        return -float(model.hf(input_ids=ids, labels=labels).loss) * n


def test_questions_depend_on_seed_and_tokenizer_alone(demo: Model) -> None:
    asked = [recall(model, n=20, prompts=1).state["key"] for model in (demo, quantize(demo, "rtn2"))]
    assert asked[0] == asked[1] != recall(demo, n=20, prompts=1, seed=1).state["key"]


def test_half_precision_is_read_in_single() -> None:
    exact = recall(wrapped("llama"), data=questions(), prompts=3)
    half = recall(wrapped("llama", torch.bfloat16), data=questions(), prompts=3, reference=exact)
    assert half.finding("rank correlation of neurons").value > 0.95
    assert half.finding("FFN contribution at layer 1").value == pytest.approx(
        exact.finding("FFN contribution at layer 1").value, abs=0.05
    )


def test_labelled_prompts_and_their_groups_are_taken(demo: Model) -> None:
    found = recall(demo, data=labelled("category"), n=20, prompts=2)
    assert len(found.finding("accuracy").values) == 20 and found.finding("accuracy").value > 0.9


def test_what_cannot_be_asked_is_refused(demo: Model, small: FindingsResult) -> None:
    model = wrapped("llama")
    with pytest.raises(DataError, match="knows no word of the bundled facts"):
        recall(model)
    with pytest.raises(DataError, match=r"question 0: the answer 'Paris' behind 'w01' .* does not know"):
        recall(model, data=[("w01", "Paris")])
    with pytest.raises(DataError, match="question 0 has 4 parts"):
        recall(model, data=[("w01", "w02", "r", "x")])
    with pytest.raises(ConfigError, match="relation 'capitol' asked"):
        recall(demo, relations=["capitol"])
    with pytest.raises(ConfigError, match="threshold 'median' asked"):
        recall(demo, threshold="median")
    with pytest.raises(ConfigError, match="reference was made with other questions and prompts"):
        recall(demo, n=10, prompts=3, reference=small)


def test_fewer_facts_than_asked_is_said(demo: Model) -> None:
    few = recall(demo, n=60, prompts=1, relations=["sound"])
    assert len(few.finding("accuracy").values) == 33 and "33 of 60 facts can be asked" in few.warnings[0]
    assert not recall(demo, n=33, prompts=1, relations=["sound"]).warnings


def test_facts_of_a_file_are_asked_like_bundled_ones(demo: Model, tmp_path: Path) -> None:
    """An LRE relation and a table; control: what the tokenizer does not know is left out, and said."""
    pairs = [("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"), ("Nowhereland", "Xyzzy")]
    samples = [{"subject": one, "object": two} for one, two in pairs]
    relation = {"name": "capital", "prompt_templates": ["the capital of {} is"], "samples": samples}
    file = tmp_path / "capital.json"
    file.write_text(json.dumps(relation), encoding="utf-8")
    found = recall(demo, data=file, n=8, prompts=1)
    assert found.about.data["n"] == 3 and found.finding("accuracy").value == 1
    assert any("3 of 8 facts can be asked" in text for text in found.warnings)
    rows = [f"{one},capital,{two},the capital of {{}} is" for one, two in pairs]
    (tmp_path / "own.csv").write_text(
        "\n".join(["subject,relation,answer,template", *rows]), encoding="utf-8"
    )
    again = recall(demo, data=str(tmp_path / "own.csv"), n=8, prompts=1)
    np.testing.assert_array_equal(again.finding("accuracy").values, found.finding("accuracy").values)
    file.write_text(json.dumps(relation | {"prompt_templates": []}), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"relation 'capital' .* has no template, and recall asks in sentences"
    ):
        recall(demo, data=file)
    with pytest.raises(ConfigError, match="relation 'currency' asked, but there are: capital"):
        recall(demo, data=str(tmp_path / "own.csv"), relations=["currency"])
