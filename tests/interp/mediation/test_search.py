"""Searches against whole passes, closed forms and planted circuits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp import mediation
from interp.errors import ConfigError, DataError, SiteError
from interp.mediation.engine import full_forward_logits
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.partial_forward import Patch, Row
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.tasks.pairs import PAIR_TASKS, sample
from tests.noisy import demo
from tests.tiny import WORDS, build, tokenizer


def made(family: str = "llama") -> Model:
    return load(build(family), tokenizer=tokenizer())


def pairs_of(model: Model, n: int = 4, *, length: int = 8, seed: int = 0) -> PairSet:
    """Random prompts that differ in one token in the middle."""
    rng = np.random.default_rng(seed)
    found: list[Pair] = []
    for at in range(n):
        words = [WORDS[i] for i in rng.integers(0, 50, length)]
        other = [*words[:3], WORDS[50 + at % 5], *words[4:]]
        found.append(Pair(" ".join(words), " ".join(other), (WORDS[55],), (WORDS[56],), "word", f"g{at}"))
    return PairSet.build(model, found)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_exhaustive_effects_are_those_of_whole_passes(family: str) -> None:
    model = made(family)
    pairs = pairs_of(model)
    names = ["resid_post.1", "head.1.2", "mlp_out.0"]
    found = mediation.exhaustive(model, pairs, names, positions="all")
    clean, corrupt = model.logits(pairs.clean), model.logits(pairs.corrupt)
    read = model.capture(pairs.clean, [str(m.carriers[0]) for m in found.mediators], "all")
    values = {m.carriers[0]: read[str(m.carriers[0])] for m in found.mediators}
    for at, mediator in enumerate(found.mediators):
        for pair in range(len(pairs)):
            ids = pairs.corrupt.token_ids
            patched = full_forward_logits(model, ids, [Row(pair, (mediator,))], Patch(values))[0]
            answer, foil = pairs.answer_ids[pair][0], pairs.foil_ids[pair][0]
            wanted = (patched[answer] - patched[foil]) - (corrupt[pair, answer] - corrupt[pair, foil])
            assert found.values["denoising"][at, pair] == pytest.approx(float(wanted), abs=1e-5)
    measured = METRICS["logit-diff"].values(clean, Targets.of(pairs, clean.device)).numpy()
    assert np.allclose(found.total, measured - found.corrupt)
    assert np.abs(found.values["noising"]).max() > 1e-4


def test_patching_the_whole_stream_gives_the_whole_effect() -> None:
    model = made()
    pairs = pairs_of(model)
    found = mediation.exhaustive(model, pairs, "resid_post.*", positions="all")
    for direction in found.directions:
        assert np.allclose(found.values[direction], found.total, atol=1e-5)
    assert np.allclose(found.normalised(), 1, atol=1e-4)
    assert np.abs(found.mean() - found.mean("noising")).max() < 1e-5


def test_before_the_first_difference_nothing_is_run_and_the_effect_is_zero() -> None:
    model = made()
    pairs = pairs_of(model)
    found = mediation.exhaustive(model, pairs, "resid_post.*", positions="each")
    first = pairs.first_difference[0]
    for mediator, row in zip(found.mediators, found.values["noising"], strict=True):
        assert mediator.position is not None
        if mediator.position < first:
            assert not row.any()
    assert found.cost["noising"]["skipped"] > 0
    assert (
        found.cost["noising"]["rows"] + found.cost["noising"]["skipped"] == found.values["noising"].size + 4
    )
    assert found.cost["noising"]["checked"] <= 1e-5


def test_attribution_is_exact_where_the_model_is_linear_behind_the_mediator() -> None:
    """The last residual stream reaches the logits through the final norm and the head alone."""
    model = made("gpt2")
    pairs = pairs_of(model)
    small = pairs
    exact = mediation.exhaustive(model, small, "resid_post.2", positions=-1, directions="denoising")
    guess = mediation.attribution(
        model, small, "resid_post.2", positions=-1, directions="denoising", verify=0
    )
    state = model.capture(small.corrupt, "resid_post.2")["resid_post.2"].double().requires_grad_()
    target = model.capture(small.clean, "resid_post.2")["resid_post.2"].double()
    norm, head = model.hf.transformer.ln_f, model.hf.lm_head
    logits = (
        torch.nn.functional.layer_norm(state, (32,), norm.weight.double(), norm.bias.double(), norm.eps)
        @ head.weight.double().T
    )
    value = sum(logits[i, small.answer_ids[i][0]] - logits[i, small.foil_ids[i][0]] for i in range(4))
    slope = torch.autograd.grad(value, state)[0]
    wanted = (slope * (target - state.detach())).sum(dim=1).numpy()
    assert np.allclose(guess.values["denoising"][0], wanted, atol=1e-5)
    assert not np.allclose(guess.values["denoising"], exact.values["denoising"], atol=1e-4)  # the norm bends


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_attribution_ranks_like_the_exact_search_and_verifies_its_top(family: str) -> None:
    model = made(family)
    pairs = pairs_of(model)
    found = mediation.attribution(model, pairs, ["head.*", "mlp_out.*"], verify=3)
    exact = mediation.exhaustive(model, pairs, ["head.*", "mlp_out.*"])
    assert found.verified.rank_correlation > 0.6
    truth = dict(zip(map(str, exact.mediators), exact.mean(), strict=True))
    for row in found.verified.top:
        assert row.exact == pytest.approx(truth[row.mediator], abs=1e-6)
    assert len(found.verified.top) == 3


def test_a_planted_head_is_found_and_nothing_else() -> None:
    """All heads and MLPs but one head are silenced: the searches must name that head alone."""
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
    for search in (mediation.exhaustive, mediation.attribution):
        found = search(model, pairs, "head.*")
        assert str(found.top(1)[0]) == "head.1.1"
        others = [at for at, m in enumerate(found.mediators) if str(m) != "head.1.1"]
        assert np.abs(found.mean()[others]).max() < 1e-6 < 1e-3 < np.abs(found.mean()).max()
        table = found.table()
        assert table["clear"].tolist()[0]
        assert table["effect"][0] == pytest.approx(found.total.mean(), rel=0.3)


def test_replacements_do_what_they_say() -> None:
    model = made()
    pairs = pairs_of(model)
    zero = mediation.exhaustive(model, pairs, "mlp_out.1", replacement="zero", directions="noising")
    edit = interp.Intervention("mlp_out.1", 0.0)
    cut = model.run(pairs.clean, interventions=[edit]).logits
    assert cut is not None
    wanted = METRICS["logit-diff"].values(cut.float(), Targets.of(pairs, cut.device))
    assert np.allclose(zero.clean - zero.values["noising"][0], wanted, atol=1e-5)
    assert any("never has" in note for note in zero.warnings)
    other = mediation.exhaustive(
        model, pairs, "mlp_out.1", replacement="resample", directions="noising", seed=3
    )
    again = mediation.exhaustive(
        model, pairs, "mlp_out.1", replacement="resample", directions="noising", seed=3
    )
    assert np.array_equal(other.values["noising"], again.values["noising"])
    assert not np.allclose(other.values["noising"], zero.values["noising"])


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_against_plain_arithmetic(metric: str) -> None:
    model = made()
    pairs = pairs_of(model, 3)
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    reference = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    # a step of a metric of whole answers: the next token, of the sides that are scored
    alone = METRICS[metric].whole == ("answer",)
    scored = replace(pairs, foil_ids=((),) * 3) if alone else pairs
    found = METRICS[metric].values(logits, Targets.of(scored, logits.device, reference))
    for row in range(3):
        chance = torch.softmax(logits[row].double(), 0)
        a, f = pairs.answer_ids[row][0], pairs.foil_ids[row][0]
        clean = torch.softmax(reference[row].double(), 0)
        wanted = {
            "logit-diff": float(logits[row, a] - logits[row, f]),
            "log-prob": float(chance[a].log()),
            "answer-log-prob": float(chance[a].log()),
            "answer-log-odds": float(chance[a].log() - chance[f].log()),
            "prob": float(chance[a]),
            "prob-diff": float(chance[a] - chance[f]),
            "kl": -float((clean * (clean.log() - chance.log())).sum()),
            "accuracy": float(logits[row].argmax() == a),
        }[metric]
        assert float(found[row]) == pytest.approx(wanted, abs=1e-5)


def test_what_there_is_not_is_refused() -> None:
    model, parallel = made(), made("gpt_neox")
    pairs = pairs_of(model)
    for change, message in (
        ({"metric": "logitdiff"}, "metric 'logitdiff' asked; there are: logit-diff"),
        ({"replacement": "nois"}, "replacement 'nois' asked"),
        ({"directions": "up"}, "directions 'up' asked"),
        ({"positions": 99}, "position 99 asked, but the shortest prompt has"),
    ):
        with pytest.raises(ConfigError, match=message):
            mediation.exhaustive(model, pairs, "head.*", **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="metric 'accuracy' has no gradient"):
        mediation.attribution(model, pairs, "head.*", metric="accuracy")
    with pytest.raises(SiteError, match="resid_mid"):
        mediation.exhaustive(parallel, pairs_of(parallel), "resid_mid.1")
    with pytest.raises(SiteError, match="unknown site 'haed"):
        mediation.exhaustive(model, pairs, "haed.*")
    with pytest.raises(SiteError, match="is no mediator; the types are"):
        mediation.exhaustive(model, pairs, "logits")
    with pytest.raises(SiteError, match=r"'pattern\.1' is no mediator: attention has used .*\(q or k"):
        mediation.exhaustive(model, pairs, "pattern.1")


def test_a_total_effect_of_zero_is_no_denominator() -> None:
    model = made()
    same = PairSet.build(model, [Pair("w01 w02 w03", "w01 w02 w03", ("w10",), ("w11",), "null")])
    found = mediation.exhaustive(model, same, "head.*")
    assert not np.abs(found.mean()).max() > 1e-5
    with pytest.raises(DataError, match=r"the total effect is .* within the noise floor"):
        found.normalised()
    assert found.table()["share"].isna().all()
    assert not found.differs


def test_a_total_effect_that_is_not_told_from_zero_has_no_shares() -> None:
    model = made()
    found = mediation.exhaustive(model, pairs_of(model, 2), "head.*")
    assert not found.differs  # two groups say nothing
    assert found.table()["share"].isna().all()


def test_the_bundled_model_moves_the_subject_through_a_few_heads() -> None:
    model = demo()
    pairs = sample(model, "capitals", 12)
    found = mediation.attribution(model, pairs, "head.*", verify=4)
    assert found.verified.rank_correlation > 0.9
    assert float(found.total.mean()) > 20
    top = found.verified.top[0]
    assert top.exact > 5


def ragged(model: Model, lengths: tuple[int, ...] = (6, 7, 8, 6)) -> PairSet:
    """Random prompts of several lengths that differ in the third token from the end."""
    found = []
    for at, length in enumerate(lengths):
        words = [WORDS[(7 * at + 3 * i) % 50] for i in range(length)]
        other = [*words[:-3], WORDS[50 + at], *words[-2:]]
        found.append(Pair(" ".join(words), " ".join(other), (WORDS[55],), (WORDS[56],), "word", f"g{at}"))
    return PairSet.build(model, found)


@pytest.mark.parametrize("positions", ["auto", "each"])
def test_each_position_of_prompts_of_several_lengths_is_counted_from_the_end(positions: str) -> None:
    """Against plain PyTorch hooks on the blocks: @-2 is the last but one token of every prompt."""
    model = made()
    pairs = ragged(model)
    found = mediation.exhaustive(model, pairs, "resid_post.1", positions=positions, directions="noising")
    assert [m.position for m in found.mediators] == [-6, -5, -4, -3, -2, -1]
    assert any("6 to 8 tokens: positions are counted from the end" in text for text in found.warnings)
    block = model.hf.model.layers[1]

    def run(ids: tuple[int, ...], put: torch.Tensor | None, at: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen: list[torch.Tensor] = []

        def hook(module: torch.nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
            seen.append(output.clone())
            changed = output.clone()
            if put is not None:
                changed[:, len(ids) + at] = put[:, len(ids) + at]
            return changed

        handle = block.register_forward_hook(hook)
        with torch.no_grad():
            logits = model.hf(torch.tensor([list(ids)])).logits[0, -1]
        handle.remove()
        return logits, seen[0]

    for number in range(len(pairs)):
        clean, corrupt = pairs.clean.token_ids[number], pairs.corrupt.token_ids[number]
        right, wrong = pairs.answer_ids[number][0], pairs.foil_ids[number][0]
        plain, (_, other) = run(clean, None, 0)[0], run(corrupt, None, 0)
        for row, mediator in enumerate(found.mediators):
            assert mediator.position is not None
            change = plain - run(clean, other, mediator.position)[0]
            wanted = float(change[right] - change[wrong])
            assert found.values["noising"][row, number] == pytest.approx(wanted, abs=1e-5)
    assert (
        np.abs(found.values["noising"][:3]).max() == 0
    )  # nothing differs before the third token from the end
    assert np.abs(found.values["noising"][3:]).min() > 1e-4


def test_prompts_of_one_length_are_counted_from_the_start() -> None:
    model = made()
    found = mediation.mediators_of(model, pairs_of(model), "resid_post.1", positions="each")
    assert [m.position for m in found] == list(range(8))
    whole = mediation.exhaustive(model, ragged(model), "resid_post.1", positions="all", directions="noising")
    last = mediation.exhaustive(model, ragged(model), "resid_post.1", positions=-1, directions="noising")
    assert not any("counted from the end" in text for text in (*whole.warnings, *last.warnings))


@pytest.mark.parametrize("task", PAIR_TASKS)
def test_every_bundled_task_can_be_searched_by_layer_and_token(task: str) -> None:
    """What the list of questions in the documentation promises."""
    model = demo()
    pairs = sample(model, task, 6)
    found = mediation.mediators_of(model, pairs, "resid_post.*", positions="each")
    assert len(found) == model.n_layers * min(pairs.lengths)
    assert mediation.plan(model, pairs, "resid_post.*", positions="each").forwards > 0
