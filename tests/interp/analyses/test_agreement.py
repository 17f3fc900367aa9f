"""Agreement of two models' effects and circuits: laws, oracles by hand, a planted circuit lost."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import interp
from interp import mediation, quantization
from interp.analyses import agreement, patching
from interp.analyses.agreement import by_luck, kendall, spearman, weighted_jaccard
from interp.analyses.patching import Patching, patch, patch_agreement, unchosen
from interp.errors import ConfigError, DataError, ModelError
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.results import Finding, load
from interp.tasks.pairs import lined_up, sample
from tests.noisy import demo, noisy
from tests.planted_heads import Planted, planted
from tests.tiny import WORDS, tiny

agree = partial(patch_agreement, search="attribution")

SPEARMAN, KENDALL = "rank correlation of effects (Spearman)", "rank correlation of effects (Kendall)"
FAITHFUL, KEPT = "faithfulness of the reference's circuit", "kept by the reference's circuit"
OVERLAP, WEIGHTED = "circuit overlap", "circuit overlap, weighted by effect"


@pytest.fixture(scope="module")
def reference() -> Patching:
    return agree(demo(), n=12)


@pytest.fixture(scope="module")
def other(reference: Patching) -> Patching:
    return agree(noisy(demo(), 0.4), reference=reference, n=12)


def members(found: Patching, at: int = 0) -> list[str]:
    """Give the members of the reference's circuit, or (1) of the model's own."""
    assert found.beside is not None and found.beside.circuit is not None
    return list(map(str, (found.beside.circuit.nodes, found.beside.circuit.own)[at]))


def agreements(found: Patching) -> dict[str, Finding]:
    words = ("rank correlation", "top-", "circuit overlap")
    return {one.name: one for one in found.findings() if one.name.startswith(words)}


def test_a_model_agrees_with_itself_by_one_in_every_draw_of_pairs(
    reference: Patching, other: Patching
) -> None:
    same = agree(demo(), reference=reference, n=12)
    assert [one.name for one in same.findings()] == [one.name for one in reference.findings()]
    rng = np.random.default_rng(0)
    for one, two in zip(reference.findings(), same.findings(), strict=True):
        assert np.array_equal(one.values, two.values) and one.value == two.value
    for name, one in agreements(same).items():
        weights = rng.multinomial(12, np.full(12, 1 / 12)).astype(float)
        assert one.statistic is not None
        assert one.value == one.statistic(weights) == 1.0
        assert one.floor < 0.2 and agreements(other)[name].value < 1


def test_more_noise_lowers_every_agreement(reference: Patching, other: Patching) -> None:
    little = agree(noisy(demo(), 0.05), reference=reference, n=12)
    much = agree(noisy(demo(), 1.5), reference=reference, n=12)
    for name in agreements(reference):
        values = [found.finding(name).value for found in (little, other, much)]
        assert values[0] >= values[1] >= values[2] and values[0] > values[2] + 0.1, name
    assert much.finding(KEPT).value < 0.5 * other.finding(KEPT).value


def test_rank_correlations_are_those_of_scipy_over_the_pairs_drawn(
    reference: Patching, other: Patching
) -> None:
    pairs = unchosen(demo(), None, 12, 0)[0].ranking
    own = mediation.attribution(noisy(demo(), 0.4), pairs, ["head.*", "mlp_out.*"])
    rows = np.random.default_rng(1).integers(12, size=12)
    weights = np.bincount(rows, minlength=12).astype(float)
    means = [
        np.mean([found.values["denoising"], found.values["noising"]], axis=0)[:, rows].mean(axis=1)
        for found in (own, reference.effects)
    ]
    for name, oracle in ((SPEARMAN, stats.spearmanr), (KENDALL, stats.kendalltau)):
        found = other.finding(name)
        expected: Any = oracle(*means)
        assert found.statistic is not None
        assert found.statistic(weights) == pytest.approx(expected.statistic, abs=1e-6)
        assert abs(found.statistic(weights) - found.value) > 1e-6
    tops = [set(np.argsort(-np.abs(one))[:10].tolist()) for one in means]
    top = other.finding("top-10 overlap")
    assert top.statistic is not None
    assert top.statistic(weights) == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))


def test_correlations_with_nothing_in_them_are_zero_and_ties_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    one = np.arange(12.0)
    for _ in range(20):
        one, two = rng.integers(0, 5, size=(2, 12)).astype(float)
        expected: list[Any] = [stats.spearmanr(one, two), stats.kendalltau(one, two)]
        assert spearman(one, two) == pytest.approx(expected[0].statistic)
        assert kendall(one, two) == pytest.approx(expected[1].statistic)
    flat = np.zeros(12)
    assert spearman(one, flat) == kendall(one, flat) == 0
    assert spearman(flat, flat) == kendall(flat, flat) == 1
    assert spearman(one, -one) == pytest.approx(-1)


def test_the_luck_of_two_lists_is_that_of_random_lists() -> None:
    rng = np.random.default_rng(0)
    lists = [[set(rng.permutation(120)[:10].tolist()) for _ in range(2)] for _ in range(4000)]
    found = np.mean([len(one & two) / len(one | two) for one, two in lists])
    assert by_luck(10, 120) == pytest.approx(found, abs=0.004)
    assert by_luck(10, 10) == 1


def test_the_weighted_overlap_is_that_of_shares() -> None:
    one, two = np.array([3.0, -1.0, 0.5, 0.0]), np.array([1.0, 0.1, -3.0, 0.0])
    # shares of the two largest: 3/4, 1/4, 0 and 1/4, 0, 3/4
    assert weighted_jaccard(2)(one, two) == pytest.approx(0.25 / (0.75 + 0.25 + 0.75))
    assert weighted_jaccard(2)(one, 0.1 * one) == pytest.approx(1)
    assert weighted_jaccard(2)(one, np.zeros(4)) == 0


def test_effects_stand_beside_the_references(reference: Patching, other: Patching) -> None:
    names = [str(one) for one in reference.effects.top(10)]
    assert [one.name for one in other.findings()][-10:] == [f"effect of {name}" for name in names]
    rows = other.table("beside").set_index("mediator")
    assert len(rows) == 120
    for name in names:
        assert other.finding(f"effect of {name}").value == pytest.approx(rows.loc[name, "value"])
        assert reference.finding(f"effect of {name}").value == pytest.approx(rows.loc[name, "reference"])
    drawn = other.figure("beside").frame().set_index("name")
    assert drawn.loc[names[0], ["x", "y"]].tolist() == rows.loc[names[0], ["reference", "value"]].tolist()
    draws = other.table("draws").set_index(["rankings", "what"])["value"]
    assert draws["the reference, groups drawn again", "top overlap"] <= 1
    assert draws.iloc[0] == other.finding("top-10 overlap").value
    assert draws.iloc[0] == other.number("top-overlap-with-reference").value
    (note,) = (one.note for one in other.tables() if one.name == "draws")
    assert "between draws of pairs" in note
    assert "Beside the reference: rank correlation 0." in other.verdict()
    assert reference.effects.about.data["name"] == "capitals" and reference.trace is not None


def test_what_stands_beside_a_reference_is_saved_with_it(other: Patching, tmp_path: Path) -> None:
    again = load(other.save(tmp_path / "patched"))
    assert isinstance(again, Patching) and again.summary() == other.summary()
    assert again.finding(FAITHFUL).value == other.finding(FAITHFUL).value


def test_patch_takes_a_reference_asked_the_same() -> None:
    truth = planted("copy")
    first = patch(truth.model, truth.pairs, ["head.*", "mlp_out.*"])
    found = patch(noisy(truth.model, 0.01), truth.pairs, ["head.*", "mlp_out.*"], reference=first, k=1)
    assert first.beside is None and found.trace is None and found.beside is not None
    assert found.finding("top-1 overlap").value == 1 and set(members(found)) == truth.heads
    assert "that of the reference was run instead" in found.lead()[-1]
    with pytest.raises(ConfigError, match="no result of patch alone"):
        patch(truth.model, truth.pairs, ["head.*", "mlp_out.*"], reference=found, k=1)
    with pytest.raises(ConfigError, match="metric is prob-diff here and logit-diff in the reference"):
        patch(truth.model, truth.pairs, ["head.*", "mlp_out.*"], metric="prob-diff", reference=first, k=1)
    with pytest.raises(DataError, match="reference has 10 mediators and this model 8"):
        patch(truth.model, truth.pairs, ["head.*"], reference=first, k=1)


def _without(truth: Planted, head: tuple[int, int]) -> Model:
    """Take what one head writes out of a model."""
    hf: Any = copy.deepcopy(truth.model.hf)
    layer, at = head
    with torch.no_grad():
        hf.transformer.h[layer].attn.c_proj.weight[16 * at : 16 * (at + 1)] = 0.0
    return interp.load(hf, tokenizer=truth.model.tokenizer)


@pytest.mark.parametrize("search", ["exhaustive", "attribution"])
def test_a_planted_circuit_is_kept_under_little_noise_and_lost_with_its_head(search: str) -> None:
    truth = planted("copy")
    analysis = partial(patch_agreement, pairs=truth.pairs, search=search, k=1)
    first = analysis(truth.model)
    assert set(members(first)) == truth.heads == {str(one) for one in first.effects.top(1)}
    quiet = noisy(truth.model, 0.01)
    kept = analysis(quiet, reference=first)
    assert kept.finding(FAITHFUL).value == pytest.approx(1, abs=0.1)
    assert kept.finding("top-1 overlap").value == kept.finding(OVERLAP).value == 1
    lost = analysis(_without(truth, (0, 1)), reference=first)
    assert FAITHFUL not in [one.name for one in lost.findings()]  # nothing is left to share
    assert lost.finding(KEPT).value == pytest.approx(0, abs=0.05)
    assert lost.finding("total effect").value == pytest.approx(0, abs=0.05)
    assert lost.finding(OVERLAP).value == 0
    elsewhere = analysis(_without(truth, (0, 0)), reference=first)
    assert elsewhere.finding(FAITHFUL).value > 0.8


def test_a_circuit_that_moved_to_another_head_is_not_the_references() -> None:
    truth = planted("copy")
    hf: Any = copy.deepcopy(truth.model.hf)
    order = torch.arange(64).reshape(4, 16)[[0, 3, 2, 1]].flatten()
    with torch.no_grad():
        attention = hf.transformer.h[0].attn
        attention.c_attn.weight.copy_(attention.c_attn.weight.reshape(64, 3, 64)[:, :, order].flatten(1))
        attention.c_attn.bias.copy_(attention.c_attn.bias.reshape(3, 64)[:, order].flatten())
        attention.c_proj.weight.copy_(attention.c_proj.weight[order])
    moved = interp.load(hf, tokenizer=truth.model.tokenizer)
    first = agree(truth.model, pairs=truth.pairs, k=1)
    found = agree(moved, reference=first, pairs=truth.pairs, k=1)
    assert found.finding("total effect").value == pytest.approx(first.finding("total effect").value)
    assert members(found, 1) == ["head.0.3"]
    assert found.finding(FAITHFUL).value < 0.1 < 0.8 < found.table("circuits")["faithfulness"][1]
    assert found.finding(OVERLAP).value == found.finding(WEIGHTED).value == 0


def test_compare_says_that_the_planted_circuit_is_lost_and_that_a_copy_keeps_it() -> None:
    truth = planted("copy")
    analysis = {"patch": partial(patch_agreement, pairs=truth.pairs, k=1)}
    verdicts: list[dict[str, str]] = []
    for model in (_without(truth, (0, 1)), noisy(truth.model, 0.0)):
        found = quantization.compare(analysis, truth.model, [], other=model, noise=())
        (cell,) = found.cells
        verdicts.append({one.finding: one.verdict for one in cell.judgements})
    assert {verdicts[0][name] for name in (KEPT, "total effect", "effect of head.0.1")} == {"lost"}
    assert set(verdicts[1].values()) == {"survives"}


def test_pairs_depend_on_the_seed_and_the_tokenizer_and_not_on_the_model() -> None:
    untrained = interp.load("demo", weights="random")
    one, two = (unchosen(model, "capitals", 8, 3)[0] for model in (demo(), untrained))
    assert one.held_out is not None and two.held_out is not None
    assert one.ranking.pairs == two.ranking.pairs and one.held_out.pairs == two.held_out.pairs
    assert not set(one.ranking.groups) & set(one.held_out.groups)
    assert unchosen(demo(), "capitals", 8, 4)[0].ranking.pairs != one.ranking.pairs
    # control: what a model answers would choose other pairs
    filtered = [sample(model, "capitals", 16, seed=3).pairs for model in (demo(), untrained)]
    assert filtered[0] != filtered[1]


def test_a_task_is_chosen_by_what_lines_up(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, notes = unchosen(demo(), None, 4, 0)
    assert parts.ranking.name == "capitals" and not notes
    shares = {"capitals": 0.1, "facts": 0.2}
    asked: list[str] = []

    def counted(model: Model, task: str, n: int, seed: int) -> float:
        asked.append(task)
        return shares.get(task, 0.0)

    monkeypatch.setattr(patching, "lined_up", counted)
    parts, (note,) = unchosen(demo(), None, 4, 0)
    assert parts.ranking.name == "facts" and len(asked) == 8
    assert "'facts': 20% of its pairs line up" in note and "no task suits this model" in note
    monkeypatch.setattr(patching, "lined_up", lambda model, task, n, seed: 0.0)
    with pytest.raises(DataError, match=r"no pairs of any task line up .* Give pairs of your own"):
        unchosen(demo(), None, 4, 0)


def test_the_task_is_one_whose_answers_the_model_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that a model cannot do are passed over, and said; a second model is asked the same."""
    plain, called = patching._answered, []

    def answered(model: Model, task: str, seed: int) -> tuple[float, bool]:
        called.append(task)
        return {"capitals": (0.2, True), "facts": (0.9, False)}.get(task) or plain(model, task, seed)

    monkeypatch.setattr(patching, "_answered", answered)
    first = patch_agreement(demo(), n=4, mediators=["mlp_out.*"])
    assert first.about.data["name"] == "indirect-object" and called == [
        "capitals",
        "facts",
        "indirect-object",
    ]
    (note,) = [text for text in first.warnings if "was chosen" in text]
    assert "task 'indirect-object' was chosen (100% of its answers are the model's own" in note
    assert "'capitals': the model gives 20% of its answers; 'facts': no clear total effect" in note
    untrained = interp.load("demo", weights="random")
    assert plain(untrained, "capitals", 0)[0] < 0.5 < plain(demo(), "capitals", 0)[0]
    other = patch_agreement(untrained, n=4, mediators=["mlp_out.*"], reference=first)
    assert other.about.data["name"] == "indirect-object" and len(called) == 3


def test_the_share_that_lines_up_is_counted_without_running_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hf, words = tiny("llama")
    strange = interp.load(hf, tokenizer=words)
    monkeypatch.setattr(Model, "run", None)
    monkeypatch.setattr(Model, "logits", None)
    assert lined_up(demo(), "capitals", 4) == 1
    assert lined_up(strange, "capitals", 4) == 0


def _own_pairs(model: Model) -> PairSet:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(40)[:6].tolist() for _ in range(8)]
    return PairSet.build(
        model,
        [
            Pair(
                f"{WORDS[a]} {WORDS[b]} {WORDS[c]}", f"{WORDS[d]} {WORDS[b]} {WORDS[c]}",
                (WORDS[e],), (WORDS[f],), "own", str(at),
            )
            for at, (a, b, c, d, e, f) in enumerate(rows)
        ],
    )  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "qwen3", "bloom"])
def test_every_family_is_patched(family: str) -> None:
    hf, words = tiny(family)
    model = interp.load(hf, tokenizer=words)
    first = agree(model, pairs=_own_pairs(model), k=3)
    twin: Any = copy.deepcopy(hf)
    half = interp.load(twin.to(torch.bfloat16), tokenizer=words)
    found = agree(half, reference=first, pairs=_own_pairs(half), k=3)
    assert found.finding(SPEARMAN).value > 0.9
    assert [one.name for one in found.findings()] == [one.name for one in first.findings()]


def test_without_a_total_effect_there_is_no_circuit_and_it_is_said() -> None:
    pairs = sample(demo(), "capitals", 12, counterfactual="null", only_correct=False)
    found = agree(demo(), pairs=pairs)
    assert not [one for one in found.findings() if "circuit" in one.name]
    said = "no circuit was compared: the total effect is not told from zero"
    assert any(text.startswith(said) for text in found.warnings)
    assert found.beside is not None and found.beside.circuit is None


def test_a_model_without_a_total_effect_has_no_faithfulness() -> None:
    """All words have one logit in the other model: of its difference of 0 a circuit "kept" 0/0."""
    truth = planted("induction")
    asked: dict[str, Any] = {"pairs": truth.pairs, "search": "exhaustive", "k": 2}
    base = patch_agreement(truth.model, **asked)
    assert base.finding(FAITHFUL).value == pytest.approx(1, abs=0.1)
    hf: Any = copy.deepcopy(truth.model.hf)
    words = sorted({at for ids in (*truth.pairs.answer_ids, *truth.pairs.foil_ids) for at in ids})
    weight = hf.lm_head.weight.detach().clone()
    weight[words] = weight[words[0]].clone()
    hf.lm_head.weight = torch.nn.Parameter(weight)
    silent = interp.load(hf, tokenizer=truth.model.tokenizer)
    found = patch_agreement(silent, reference=base, **asked)
    names = [one.name for one in found.findings()]
    assert FAITHFUL not in names and names[:2] == ["total effect", KEPT]
    assert found.finding(KEPT).value == found.finding("total effect").value == 0
    circuits = next(one for one in found.tables() if one.name == "circuits")
    assert found.table("circuits")["faithfulness"].isna().all()
    assert "No faithfulness is given: the total effect (0 logits" in circuits.note


def test_gradients_that_must_not_be_believed_are_refused_and_exhaustive_is_named() -> None:
    truth = planted("copy")
    packed = quantization.quantize(truth.model, "rtn8")
    assert packed.quantization is not None
    packed = replace(packed, quantization=replace(packed.quantization, gradients="its kernel detaches"))
    with pytest.raises(ModelError, match=r"its kernel detaches.*'exhaustive'"):
        agree(packed, pairs=truth.pairs, k=1)
    found = agree(packed, pairs=truth.pairs, k=1, search="exhaustive")
    assert found.about.model["scheme"] == "rtn8"


def test_what_cannot_be_compared_is_refused(
    reference: Patching, other: Patching, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = demo()
    with pytest.raises(ConfigError, match="search 'guess' asked"):
        agree(model, search="guess")
    with pytest.raises(DataError, match="the reference read other tokens"):
        agree(model, reference=reference, n=4, seed=1)
    monkeypatch.setattr(patching, "effects_of", None)  # the rest is refused before anything is run
    with pytest.raises(ConfigError, match="ask both the same"):
        agree(model, reference=reference, n=12, k=5)
    with pytest.raises(ConfigError, match="no result of patch alone"):
        agree(model, reference=other, n=12)


def test_other_tokenizers_and_top_lists_of_everything_are_refused(reference: Patching) -> None:
    effects, beside = reference.effects, reference.beside
    assert beside is not None
    beside.check(effects)
    with pytest.raises(ConfigError, match="k=120 asked, of 120 mediators"):
        replace(beside, k=120).check(effects)
    about = replace(effects.about, model={**effects.about.model, "tokenizer_fingerprint": "x"})
    with pytest.raises(DataError, match="share a tokenizer"):
        replace(beside, reference=replace(effects, about=about)).check(effects)


MLPS = ["mlp_out.*"]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Patching:
    """A reference of which few of its 24 MLPs are replaced one by one."""
    monkeypatch.setattr(agreement, "SAMPLE", 8)
    return patch_agreement(demo(), pairs="capitals", n=6, mediators=MLPS, largest=4, k=3)


def test_of_a_part_effects_are_exact_and_the_circuit_is_of_all(part: Patching) -> None:
    """Oracle: the exhaustive search of the same pairs, mediator by mediator, and circuits run by hand."""
    model, other, chosen = demo(), noisy(demo(), 0.4), part.narrowed
    assert chosen is not None and (chosen.total, chosen.largest, len(chosen.sample)) == (24, 4, 8)
    again = patch_agreement(other, pairs="capitals", n=6, reference=part, k=3)
    for found in (part, again):
        words = f"of 24 mediators only {len(part.effects.mediators)} were replaced"
        assert any(words in text and f"of {chosen.rank:.2f}" in text for text in found.warnings)
    estimated = mediation.attribution(model, unchosen(model, "capitals", 6, 0)[0].ranking, MLPS, verify=0)
    guess = [estimated.mean()[estimated.place(name)] for name in chosen.sample]
    exact = [part.effects.mean()[part.effects.place(name)] for name in chosen.sample]
    assert chosen.rank == pytest.approx(spearman(np.array(guess), np.array(exact))) and chosen.rank > 0
    pairs = unchosen(model, "capitals", 6, 0)[0]
    every = {
        name: mediation.exhaustive(one, pairs.ranking, MLPS) for name, one in (("", model), ("x", other))
    }
    for found, one in ((part, every[""]), (again, every["x"])):
        places = [one.place(str(mediator)) for mediator in found.effects.mediators]
        assert np.allclose(found.effects.mean(), one.mean()[places], atol=1e-5)
    assert again.effects.mediators == part.effects.mediators and len(part.effects.mediators) < 13
    # those drawn are drawn from all, whatever their effects: the correlation is over them alone
    rows = [every[""].place(name) for name in chosen.sample]
    expected: Any = stats.spearmanr(every["x"].mean()[rows], every[""].mean()[rows])
    assert again.finding(SPEARMAN).value == pytest.approx(expected.statistic)
    assert again.number("rank-correlation-with-reference").value == pytest.approx(expected.statistic)
    whole: Any = stats.spearmanr(every["x"].mean(), every[""].mean())
    assert abs(expected.statistic - whole.statistic) > 1e-6
    # everything outside the circuit is replaced, what was never replaced alone too
    assert part.trace is not None and len(part.trace.evaluation.universe) == 24
    assert again.beside is not None and again.beside.circuit is not None
    assert pairs.held_out is not None
    given: Any = {"universe": MLPS, "random_circuits": 0, "knockouts": 0, "removals": 0, "controls": ()}
    held = mediation.evaluate(other, pairs.held_out, list(part.trace.evaluation.circuit), **given)
    assert np.allclose(again.beside.circuit.inside, held.values["circuit"], atol=1e-4)
    names = [one.name for one in again.findings()]
    assert [one.name for one in part.findings()] == names and OVERLAP not in names
    assert f"top-3 overlap among {len(part.effects.mediators)}" in names
    assert again.table("circuits")["circuit"].tolist() == ["the reference's", "random, mean of 5"]


def test_what_is_chosen_is_the_largest_of_the_estimates_and_no_other(
    part: Patching, reference: Patching
) -> None:
    pairs = unchosen(demo(), "capitals", 6, 0)[0]
    estimated = mediation.attribution(demo(), pairs.ranking, MLPS, verify=0)
    assert part.narrowed is not None and reference.narrowed is None
    top = set(map(str, estimated.top(4)))
    assert set(map(str, part.effects.mediators)) == top | set(part.narrowed.sample) and not top <= set(
        part.narrowed.sample
    )
