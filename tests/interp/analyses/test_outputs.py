"""Behaviour: against plain loops over single prompts, and between copies with more and more noise."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

import interp
from interp.analyses import predictions as reading
from interp.analyses import prompts as drawing
from interp.analyses.outputs import behaviour
from interp.analyses.prompts import partners, prompt_set
from interp.errors import ConfigError, DataError
from interp.models.forward import layout
from interp.results import FindingsResult
from interp.tasks import labelled
from interp.tasks.prompts import Example
from tests.noisy import demo, noisy
from tests.tiny import tiny

N = 45


@cache
def before() -> FindingsResult:
    return behaviour(demo(), n=N)


@cache
def after() -> FindingsResult:
    return behaviour(noisy(demo(), 0.4), reference=before(), n=N)


def alone(model: interp.Model, ids: tuple[int, ...]) -> torch.Tensor:
    """Give the log-probabilities of one prompt, run alone and without any of the toolkit's machinery."""
    with torch.no_grad():
        return torch.log_softmax(model.hf(torch.tensor([ids])).logits[0].double(), dim=-1)


def test_every_number_is_that_of_a_plain_loop() -> None:
    changed = noisy(demo(), 0.4)
    given = prompt_set(demo(), N, 0)
    full = [alone(demo(), ids) for ids in given.tokens.token_ids]
    less = [alone(changed, ids) for ids in given.tokens.token_ids]
    kl = [
        torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        for p, q in zip(full, less, strict=True)
    ]
    same = [(p.argmax(-1) == q.argmax(-1)).double() for p, q in zip(full, less, strict=True)]
    surprise = [
        float(torch.nn.functional.nll_loss(q[:-1], torch.tensor(ids[1:])))
        for q, ids in zip(less, given.tokens.token_ids, strict=True)
    ]
    right = [q[-1].argmax().item() in answers for q, answers in zip(less, given.answers, strict=True)]
    sure = [
        float(q[-1][list(answers)].exp().sum().log()) for q, answers in zip(less, given.answers, strict=True)
    ]
    want = {
        "KL": [float(row.mean()) for row in kl],
        "KL at the last token": [float(row[-1]) for row in kl],
        "top-1 agreement": [float(row.mean()) for row in same],
        "surprise at the text": surprise,
        "accuracy": [float(one) for one in right],
        "log-probability of the answer": sure,
    }
    assert [one.name for one in after().found] == [
        "accuracy", "log-probability of the answer", "KL at the last token", "KL", "top-1 agreement",
        "surprise at the text",
    ]  # fmt: skip
    for name, values in want.items():
        np.testing.assert_allclose(after().finding(name).values, values, rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_control_knows_the_task_and_not_the_prompt() -> None:
    given = prompt_set(demo(), N, 0)
    full = [alone(demo(), ids).flip(0) for ids in given.tokens.token_ids]
    last, mean, agree = [], [], []
    for i, (task, rows) in enumerate(zip(given.tasks, full, strict=True)):
        kls, tops = [], []
        for k, row in enumerate(rows):
            pool = [full[j][k] for j in range(N) if given.tasks[j] == task and k < len(full[j])]
            if len(pool) > 1:
                average = torch.stack(pool).exp().mean(0).log()
                kls.append(float((row.exp() * (row - average)).sum()))
                tops.append(bool(average.argmax() == row.argmax()))
        last.append(kls[0])
        mean.append(np.mean(kls))
        agree.append(np.mean(tops))
        assert kls[0] <= np.log(Counter(given.tasks)[given.tasks[i]]) + 1e-9
    for name, values in (("KL at the last token", last), ("KL", mean), ("top-1 agreement", agree)):
        np.testing.assert_allclose(after().finding(name).control, values, rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_model_itself_differs_by_nothing_in_any_layout_of_batches() -> None:
    assert before().finding("KL").value == 0 and before().finding("top-1 agreement").value == 1
    with layout(3):
        again = behaviour(demo(), reference=before(), n=N)
    assert 0 <= again.finding("KL").value < 1e-9
    for one, other in zip(before().found, again.found, strict=True):
        assert one.name == other.name and one.groups == other.groups
        np.testing.assert_allclose(one.values, other.values, atol=1e-4)


def test_more_noise_is_further_away_in_every_finding() -> None:
    found = [behaviour(noisy(demo(), share), reference=before(), n=N) for share in (0.02, 0.2, 1.0)]
    for name, sign in (("KL", 1), ("KL at the last token", 1), ("top-1 agreement", -1), ("accuracy", -1)):
        values = [sign * one.finding(name).value for one in found]
        assert values == sorted(values) and values[0] < values[-1], name
    assert found[0].finding("accuracy").excess > 0.5 > found[-1].finding("accuracy").value


def test_flips_are_counted_and_tested() -> None:
    (flips,) = after().table("flips").to_dict("records")
    old, new = (one.finding("accuracy").values > 0 for one in (before(), after()))
    assert flips["right_to_wrong"] == sum(old & ~new) > 0 and flips["wrong_to_right"] == sum(~old & new)
    p = stats.binomtest(flips["right_to_wrong"], flips["right_to_wrong"] + flips["wrong_to_right"]).pvalue
    assert flips["mcnemar_p"] == pytest.approx(p) and flips["answers"] == N
    assert len(after().table("flipped")) == min(20, flips["right_to_wrong"] + flips["wrong_to_right"])
    tasks = after().table("tasks")
    assert tasks["n"].sum() == N
    mean = np.average(tasks["accuracy"], weights=tasks["n"])
    assert mean == pytest.approx(after().finding("accuracy").value)


def test_positions_are_left_out_where_the_vocabulary_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_NUMBERS", demo().vocab_size * N * 3)
    monkeypatch.setattr(reading, "MOST_LOGITS", demo().vocab_size * 20)
    few = behaviour(demo(), n=N)
    assert few.about.data["positions_compared"] < few.about.data["positions"] / 2
    found = behaviour(noisy(demo(), 0.4), reference=few, n=N)
    for name in ("KL at the last token", "accuracy", "surprise at the text", "top-1 agreement"):
        np.testing.assert_allclose(found.finding(name).values, after().finding(name).values, atol=1e-4)
    assert not np.allclose(found.finding("KL").values, after().finding("KL").values, atol=1e-3)


def test_answers_that_the_vocabulary_lacks_are_left_out_and_said() -> None:
    model = interp.load(tiny("gpt2")[0], tokenizer=tiny("gpt2")[1])
    found = behaviour(model, n=20)
    assert "accuracy" not in [one.name for one in found.found]
    assert any("findings about answers are left out" in text for text in found.warnings)


@pytest.mark.parametrize("family", ["gemma2", "gpt_neox", "bloom"])
def test_own_texts_on_other_families_and_in_bf16(family: str) -> None:
    model = interp.load(tiny(family)[0], tokenizer=tiny(family)[1])
    texts = ["w01 w02 w03", "w04 w05", "w06 w07 w08 w09", "w10 w02 w11"]
    full = behaviour(model, prompts=texts)
    half = behaviour(noisy(model, 0.0, dtype=torch.bfloat16), reference=full, prompts=texts)
    assert [one.name for one in full.found] == [one.name for one in half.found]
    assert full.finding("KL").value == 0 < half.finding("KL").value < full.finding("KL").floor
    assert full.finding("KL").n_groups == 4


def test_own_examples_and_labelled_prompts_bring_answers_and_groups() -> None:
    examples = [
        Example("the capital of France is", "Paris", "own", "", "France"),
        Example("the capital of Japan is", "Tokyo", "own", "", "Japan"),
    ]
    found = behaviour(demo(), prompts=examples)
    assert found.finding("accuracy").value == 1 and found.finding("accuracy").groups == (
        "own:France",
        "own:Japan",
    )
    data = labelled("fact-relation", n=30)
    assert set(behaviour(demo(), prompts=data, n=12).finding("KL").groups) <= set(data.groups)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="other tokens"):
        behaviour(demo(), reference=before(), n=N, seed=1)
    with pytest.raises(ConfigError, match="holds nothing to measure against"):
        behaviour(demo(), reference=after(), n=N)
    with pytest.raises(DataError, match="prompt 1 has one token"):
        behaviour(demo(), prompts=["the capital of France", [5]])
    with pytest.raises(ConfigError, match="at least 2"):
        behaviour(demo(), n=1)
    with pytest.raises(DataError, match="over one vocabulary"):
        before().state["predictions"].check(
            behaviour(interp.load(tiny("gpt2")[0]), prompts=[[5, 6], [7, 8]]).state["predictions"]
        )


def test_prompts_depend_on_seed_and_tokenizer_alone() -> None:
    one, other = prompt_set(demo(), 40, 3), prompt_set(noisy(demo(), 1.0), 40, 3)
    assert one.tokens.token_ids == other.tokens.token_ids and one.answers == other.answers
    assert one.tokens.token_ids != prompt_set(demo(), 40, 4).tokens.token_ids
    counts = Counter(one.tasks)
    assert set(counts) == set(drawing.TASKS) and max(counts.values()) - min(counts.values()) <= 1


def test_partners_are_a_permutation_between_groups_of_a_task() -> None:
    groups = ["a", "a", "a", "b", "b", "c", "d", "e", "f"]
    tasks = ["x"] * 6 + ["y"] * 3
    found = partners(groups, tasks, 0)
    assert sorted(found) == list(range(9))
    assert all(tasks[i] == tasks[j] and i != j for i, j in enumerate(found))
    assert all(groups[i] != groups[j] for i, j in enumerate(found))
    assert any((partners(groups, tasks, seed) != found).any() for seed in range(1, 4))
    assert partners(["a", "b"], ["x", "y"], 0).tolist() == [1, 0]
