"""Whole answers are scored as transformers' own loss scores them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from interp.errors import DataError
from interp.models import answers
from interp.models.loading import load
from interp.models.model import Model
from tests.tiny import WORDS, build, tokenizer

PROMPTS = ["w01 w02 w03", "w04", "w05 w06 w07 w08 w09", "w11 w12"]
ANSWERS = ["w10 w11 w12", "w13", "w14 w15", "w16 w17 w18 w19"]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(build(request.param), tokenizer=tokenizer(bos=True))


def loss(model: Model, prompt: str, answer: str) -> float:
    """Transformers' own loss over the answer's tokens in the whole text, as a sum of log-probabilities."""
    assert model.tokenizer is not None
    ids = torch.tensor([model.tokenizer(f"{prompt} {answer}")["input_ids"]])
    n = len(answer.split())
    labels = ids.clone()
    labels[:, :-n] = -100
    with torch.no_grad():
        return -float(model.hf(input_ids=ids, labels=labels).loss) * n


def test_a_whole_answer_is_what_the_models_own_loss_says(model: Model) -> None:
    found = answers.score(model, PROMPTS, ANSWERS)
    wanted = [loss(model, *one) for one in zip(PROMPTS, ANSWERS, strict=True)]
    assert found.log_probability.tolist() == pytest.approx(wanted, rel=1e-5)
    first = [loss(model, p, a.split()[0]) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert found.first.tolist() == pytest.approx(first, rel=1e-5)
    assert (found.log_probability < found.first - 0.1).tolist() == [True, False, True, True]
    assert [len(ids) for ids in found.token_ids] == [3, 1, 2, 4]


def test_parts_and_batches_change_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers.score(model, PROMPTS, ANSWERS)
    monkeypatch.setattr(answers, "NUMBERS", 1)
    parts = answers.score(model, PROMPTS, ANSWERS, batch_size=1)
    assert parts.log_probability.tolist() == pytest.approx(whole.log_probability.tolist(), rel=1e-5)


def test_probabilities_of_all_second_tokens_add_up_to_the_first(model: Model) -> None:
    found = answers.score(model, [[1, 5, 9]] * model.vocab_size, [(7, at) for at in range(model.vocab_size)])
    assert float(found.log_probability.exp().sum()) == pytest.approx(float(found.first[0].exp()), rel=1e-5)


def test_what_greedy_decoding_writes_is_likeliest(model: Model) -> None:
    written = model.generate(PROMPTS, max_new_tokens=3).token_ids
    assert answers.score(model, PROMPTS, written).likeliest.all()
    other = [(*ids[:-1], (ids[-1] + 1) % model.vocab_size) for ids in written]
    assert not answers.score(model, PROMPTS, other).likeliest.any()


def test_names_that_share_their_first_token_are_told_apart(model: Model) -> None:
    names = [(10, a, b) for a, b in pairwise(range(12, 40))] + [(11,), (12,), (10, 50)]
    found = answers.likeliest(model, PROMPTS, names)
    for row, prompt in enumerate(PROMPTS):
        one_by_one = answers.score(model, [prompt] * len(names), names).log_probability
        assert found[row] == int(one_by_one.argmax())


def test_what_cannot_be_scored_is_refused(model: Model) -> None:
    with pytest.raises(DataError, match="3 answers for 4 prompts; give a list with one answer for each"):
        answers.score(model, PROMPTS, ANSWERS[:3])
    with pytest.raises(DataError, match="one text for 1 prompt"):
        answers.score(model, "w01", "w02")
    with pytest.raises(DataError, match="an empty word was given to follow 'w01'"):
        answers.score(model, ["w01"], [" "])
    with pytest.raises(DataError, match="does not know the word 'never'"):
        answers.score(model, ["w01"], ["never"])
    with pytest.raises(DataError, match="an answer without a token"):
        answers.score(model, ["w01"], [()])
    with pytest.raises(DataError, match="at least one answer"):
        answers.likeliest(model, ["w01"], [])
    with pytest.raises(DataError, match="token id 64, but"):
        answers.score(model, ["w01"], [(3, 64)])
    with pytest.raises(DataError, match=r"49 tokens, but .* reads at most 48"):
        answers.score(model, [" ".join(WORDS[:45])], [(3,) * 4])
