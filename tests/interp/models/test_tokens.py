"""Tokens: exact ids, one beginning-of-sequence token at most, padding that says nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import ConfigError, DataError
from interp.models import Model, load
from interp.models.tokens import Tokens, continuations, followed, position_ids, tokenize
from tests.tiny import build, tokenizer

PLAIN, BOS, BOTH = tokenizer(), tokenizer(bos=True), tokenizer(bos=True, eos=True)


def test_ids_are_the_tokenizers_own() -> None:
    tokens = tokenize(["w01 w02", "w03"], BOS)
    assert tokens.token_ids == ((1, 5, 6), (1, 7))
    assert tokens.texts == ("w01 w02", "w03") and tokens.warnings == ()
    assert tokens.lengths == (3, 2) and len(tokens) == 2


@given(
    st.lists(st.lists(st.integers(4, 63), min_size=1, max_size=9), min_size=1, max_size=6),
    st.sampled_from(["right", "left"]),
)
def test_padded_tensors_hold_exactly_the_ids(rows: list[list[int]], side: str) -> None:
    tokens = tokenize(rows, PLAIN, padding_side=side)
    for row, ids, mask, positions in zip(
        rows, tokens.input_ids, tokens.attention_mask.bool(), tokens.position_ids, strict=True
    ):
        assert ids[mask].tolist() == row
        assert positions[mask].tolist() == list(range(len(row)))
        edge = mask[: len(row)] if side == "right" else mask[-len(row) :]
        assert edge.all()


def test_position_ids_of_a_left_padded_mask() -> None:
    assert position_ids(torch.tensor([[0, 0, 1, 1]])).tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize(
    "prompts", ["w01 w02", ["w01 w02"], [[5, 6]], [5, 6], torch.tensor([[5, 6]]), [torch.tensor([5, 6])]]
)
def test_forms_of_one_prompt(prompts: Any) -> None:
    assert tokenize(prompts, PLAIN).token_ids == ((5, 6),)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("tensors", ["pt", None])
def test_a_tokenizers_batch_is_stripped_of_padding(side: str, tensors: str | None) -> None:
    batch = PLAIN(["w01 w02 w03", "w04"], padding=True, padding_side=side, return_tensors=tensors)
    assert tokenize(batch, PLAIN).token_ids == ((5, 6, 7), (8,))


def test_tokens_are_taken_as_they_are() -> None:
    tokens = tokenize(["w01 w02", "w03"], BOS)
    again = tokenize(tokens, BOS, padding_side="left")
    assert again.token_ids == tokens.token_ids and again.padding_side == "left"


def test_bos_is_never_doubled() -> None:
    tokens = tokenize(["<s> w01", "w01"], BOS)
    assert tokens.token_ids == ((1, 5), (1, 5))
    assert tokens.warnings == ("prompt 0 already begins with '<s>'; it was not doubled.",)


@pytest.mark.parametrize(
    ("tok", "add_bos", "expected"),
    [
        (PLAIN, "auto", [5]),
        (PLAIN, True, [1, 5]),
        (BOS, "auto", [1, 5]),
        (BOS, True, [1, 5]),
        (BOS, False, [5]),
    ],
)
def test_add_bos(tok: Any, add_bos: str | bool, expected: list[int]) -> None:
    assert tokenize(["w01"], tok, add_bos=add_bos).token_ids == (tuple(expected),)


def test_an_appended_eos_is_left_out_and_said() -> None:
    tokens = tokenize(["w01"], BOTH)
    assert tokens.token_ids == ((1, 5),)
    assert tokens.warnings == (
        "prompt 0: the tokenizer appends [2], left out so that 'last' is the prompt's own.",
    )


def test_ids_with_none_or_two_bos_are_taken_and_said() -> None:
    tokens = tokenize([[5, 6], [1, 1, 5], [1, 5]], BOS)
    assert tokens.token_ids == ((5, 6), (1, 1, 5), (1, 5))
    assert [warning.partition(":")[0] for warning in tokens.warnings] == ["prompt 0", "prompt 1"]
    assert tokenize([[5, 6]], PLAIN).warnings == ()


def test_unknown_words_are_said() -> None:
    assert tokenize(["w01 zebra"], PLAIN).warnings == ("prompt 0: 1 of 2 tokens are unknown ('<unk>').",)


def test_what_holds_for_many_prompts_is_said_of_a_few() -> None:
    """1,500 prompts with unknown words gave 1,500 lines; control: of three prompts each is said."""
    said = tokenize([f"w0{at} zebra" for at in range(1, 8)], PLAIN).warnings
    assert [text.partition(":")[0] for text in said[:3]] == ["prompt 0", "prompt 1", "prompt 2"]
    assert said[3] == "4 more prompts: the same as prompt 2."
    assert len(tokenize(["w01 zebra"] * 3, PLAIN).warnings) == 3


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompts were given"),
        (["w01", ""], "prompt 1 is empty"),
        (["w01", "   "], "prompt 1 is empty"),
        ([[5], []], "prompt 1 is empty"),
        ([[5], [64]], r"prompt 1 holds token id 64, but 'm' has ids 0..63"),
        ([[-1]], "prompt 0 holds token id -1"),
        ([list(range(4, 15))], "prompt 0 has 11 tokens, but 'm' reads at most 10. Shorten it by 1 token"),
        ([3.5], "prompt 0 is a float; give a text, a list of messages or of token ids"),
        ([["w01"]], "prompt 0 is a list; give a text"),
        ({"input_ids": [[5, 6, 7]], "attention_mask": [[1, 0, 1]]}, "prompt 0: its attention_mask has holes"),
        ({"input_ids": [[5, 6, 7, 8, 9]], "attention_mask": [[1, 0, 0, 0, 1]]}, "has holes"),
        ({"input_ids": [[5, 6]], "attention_mask": [[0, 0]]}, "prompt 0 is empty"),
    ],
)
def test_bad_prompts(prompts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tokenize(prompts, PLAIN, name="m", vocab_size=64, max_length=10)


def test_texts_need_a_tokenizer_and_ids_do_not() -> None:
    with pytest.raises(
        DataError, match=r"this model has no tokenizer. Give token ids, or load with tokenizer="
    ):
        tokenize(["w01"], None)
    assert tokenize([[5]], None).texts == ("",)


def test_bad_choices() -> None:
    with pytest.raises(ConfigError, match="padding_side 'top' asked"):
        tokenize(["w01"], PLAIN, padding_side="top")
    with pytest.raises(ConfigError, match="add_bos 'maybe' asked"):
        tokenize(["w01"], PLAIN, add_bos="maybe")


def test_the_model_tokenizes_with_its_own_limits(llama: Model) -> None:
    tokens = llama.tokenize(["w01 w02", "w03"], padding_side="left")
    assert isinstance(tokens, Tokens) and tokens.input_ids.tolist() == [[5, 6], [0, 7]]
    with pytest.raises(DataError, match="reads at most 48"):
        llama.tokenize([[5] * 49])


def test_warnings_travel_with_the_activations() -> None:
    model = load(build("llama"), tokenizer=BOS)
    assert model.capture(["<s> w01"], "resid_post.0").warnings == (
        "prompt 0 already begins with '<s>'; it was not doubled.",
    )


def test_a_pad_token_inside_a_prompt_is_a_token() -> None:
    """Hugging Face guesses when the pad id occurs without a mask; here it is a token like any other."""
    model = load(build("gpt2", pad_token_id=9))
    alone = model.capture([[5, 9, 9]], "resid_post.*", "all")
    other = model.capture([[5, 9, 9], [7, 8, 9, 10]], "resid_post.*", "all")
    assert torch.allclose(alone["resid_post.2"][0], other["resid_post.2"][0, :3], atol=1e-5)


@given(st.data())
def test_many_words_together_are_those_asked_one_by_one(data: st.DataObject) -> None:
    """Prompts that begin as the tokenizer does or otherwise; words that are unknown or join the prompt."""
    words = data.draw(st.sampled_from([PLAIN, BOS, BOTH]))
    asked = []
    for _ in range(data.draw(st.integers(1, 6))):
        text = " ".join(data.draw(st.lists(st.sampled_from(["w01", "w02", "w03"]), min_size=1, max_size=3)))
        text += data.draw(st.sampled_from(["", " ", " (", "w"]))
        begin = data.draw(st.sampled_from([[], [1]]))
        ids = tuple([*begin, *words(text, add_special_tokens=False)["input_ids"]])
        asked.append((text, ids, data.draw(st.sampled_from(["w07", " w08", "strange", "w09 w10", "01"]))))
    joint = data.draw(st.sampled_from(["auto", "blank", "direct"]))
    alone: list[Any] = []
    for text, ids, word in asked:
        try:
            alone += continuations(text, ids, [word], words, joint=joint)
        except DataError as error:
            alone.append(str(error))
    together = followed(asked, words, joint=joint)
    assert [str(one) if isinstance(one, DataError) else one for one in together] == alone


def test_a_word_that_is_wrong_does_not_change_what_is_read_of_another() -> None:
    bad, good = ("w01 strange w02", (1, 5, 3, 6), "strange"), ("w01 w02", (1, 5, 6), "w07")
    found = followed([bad, good, ("w01 w02", (5, 6), "w07"), ("w01 w02", (9, 9), "w07")], BOS)
    assert found[1] == found[2] == (11,)
    assert "does not know the word 'strange'" in str(found[0]) and "changes the tokens" in str(found[3])
