"""The text of a continuation: stops, pieces of whole characters, conversations, and its result."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import interp
from interp import Sampling
from interp.errors import ConfigError, DataError
from interp.models import Model, NewToken, load
from interp.models.generated import Generation
from interp.models.streaming import Speech
from interp.report.figures import drawing
from interp.results import load as read
from tests.chats import spelled_in_bytes, with_byte_fallback
from tests.interp.models.conftest import PROMPTS
from tests.tiny import build, tokenizer

TEXT = "n\u00e9 \U0001f389 stop\u00e9"


@pytest.mark.parametrize("stops", [(), ("stop",), ("sto", "\u00e9 \U0001f389"), ("none",)])
def test_pieces_are_whole_characters_and_join_to_the_text(stops: tuple[str, ...]) -> None:
    words = spelled_in_bytes()
    ids = words(TEXT)["input_ids"]
    assert len(ids) == len(TEXT.encode()) > len(TEXT)
    speech, pieces, used = Speech(words, stops), [], 0
    for used in range(1, len(ids) + 1):
        speech.read(ids[:used])
        pieces.append(speech.piece(last=speech.stopped or used == len(ids)))
        assert "\ufffd" not in pieces[-1]
        if speech.stopped:
            break
    first = min((TEXT.find(stop) for stop in stops if stop in TEXT), default=len(TEXT))
    assert "".join(pieces) == speech.text == TEXT[:first]
    assert speech.stopped == (first < len(TEXT))
    count = speech.needed(ids[:used])
    assert words.decode(ids[:count]) == TEXT[:first]
    assert count == len(TEXT[:first].encode()) and (not speech.stopped or count < used)


def tidying() -> PreTrainedTokenizerFast:
    """A tokenizer of words that tidies its text: a blank before a point, or the end of a verb, goes."""
    words = tokenizer.__wrapped__()
    own = PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, eos_token="</s>")
    own.add_tokens(["n", "'t", "n't", ".", "'", "ve"])
    own.clean_up_tokenization_spaces = True
    return own


WORDS = {"byte-level": spelled_in_bytes(), "byte-fallback": with_byte_fallback(), "tidying": tidying()}
WORDS["byte-level"].add_special_tokens({"eos_token": "</s>"})


def spoken(
    words: PreTrainedTokenizerFast, ids: list[int], stops: tuple[str, ...]
) -> tuple[Speech, list[str]]:
    """What is streamed while tokens come one by one."""
    speech, pieces = Speech(words, stops), []
    for used in range(1, len(ids) + 1):
        speech.read(ids[:used])
        pieces.append(speech.piece(last=speech.stopped or used == len(ids)))
        if speech.stopped:
            break
    return speech, pieces


@pytest.mark.parametrize("name", WORDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pieces_join_to_the_text_whatever_the_tokens(name: str, data: st.DataObject) -> None:
    words = WORDS[name]
    first = len(words) - 8 if name == "tidying" else 0
    anything = st.integers(first, len(words) - 1) | st.just(words.eos_token_id)
    runs = st.one_of(
        st.lists(anything, max_size=4),  # bytes that are no characters, and special tokens among them
        st.text("ab \u00e9\u4f60\U0001f389", max_size=4).map(lambda text: words(text)["input_ids"]),
    )
    ids = [one for run in data.draw(st.lists(runs, max_size=5)) for one in run]
    stops = data.draw(st.lists(st.text("ab \u00e9", min_size=1, max_size=2), max_size=2))
    speech, pieces = spoken(words, ids, tuple(stops))
    assert "".join(pieces) == speech.text
    if not speech.stopped:
        assert speech.text == words.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(("name", "delayed"), [("byte-level", 0), ("byte-fallback", 1)])
def test_a_character_is_given_out_as_soon_as_nothing_can_undo_it(name: str, delayed: int) -> None:
    words = WORDS[name]
    ids = words("a\u00e9b")["input_ids"]
    _, pieces = spoken(words, [*ids, *words("\u4f60")["input_ids"][-3:-1]], ())
    at = next(number for number, piece in enumerate(pieces) if "\u00e9" in piece)
    assert at == len(words("a\u00e9")["input_ids"]) - 1 + delayed  # a row of bytes ends where a letter comes
    assert pieces[-1].strip("\ufffd") == "" != pieces[-1]


def test_a_stop_across_tokens_cuts_text_ids_numbers_and_states(llama: Model) -> None:
    free = llama.generate(PROMPTS, max_new_tokens=6)
    words = [free.texts[0].split(" ")[at] for at in (2, 3)]
    stop = f"{words[0][1:]} {words[1][:2]}"  # the end of one token and the beginning of the next
    told: list[NewToken] = []
    made = llama.generate(
        PROMPTS,
        max_new_tokens=6,
        stop=[stop, "nothing"],
        capture="resid_post.1",
        tokens="all",
        on_token=told.append,
    )
    cut = free.texts[0].index(stop)
    assert made.ends[0] == "stop" and made.texts[0] == free.texts[0][:cut]
    assert made.token_ids[0] == free.token_ids[0][:3]  # the third one holds the last letter that is left
    assert len(made.logprobs[0]) == len(made.ranks[0]) == len(made.pieces[0]) == 3
    length = len(llama.tokenize(PROMPTS).token_ids[0]) + 3
    assert made.activations.positions[0] == tuple(range(length))
    assert not made.activations["resid_post.1"][0, length:].any()
    for number, text in enumerate(made.texts):
        assert "".join(one.text for one in told if one.prompt == number) == text
        assert [one.ends for one in told if one.prompt == number][-1] == made.ends[number]
    own = [one for one in told if one.prompt == 1]
    assert [one.token_id for one in own] == list(made.token_ids[1]) and [one.step for one in own] == [
        *range(len(own))
    ]
    before = len(llama.tokenize(PROMPTS).token_ids[1]) - 1
    for one in own:  # the state that chose the token, at the one before it
        state = made.activations["resid_post.1"][1, before + one.step]
        assert one.states["resid_post.1"].equal(state)


def test_a_special_token_as_a_stop_ends_the_text_and_is_kept(llama: Model) -> None:
    end = llama.generate(PROMPTS[:1], max_new_tokens=3).token_ids[0][1]
    words = tokenizer.__wrapped__()
    words.add_special_tokens({"additional_special_tokens": [words.convert_ids_to_tokens(end)]})
    model = replace(llama, tokenizer=words)
    made = model.generate(PROMPTS[:1], max_new_tokens=3, stop=words.convert_ids_to_tokens(end))
    assert made.token_ids[0][-1] == end and len(made.token_ids[0]) == 2 and made.ends == ("end token",)


TEMPLATE = (
    "{% for m in messages %}{{ {'user': 'w58', 'assistant': 'w59'}[m.role] }} {{ m.content }} </s> "
    "{% endfor %}{% if add_generation_prompt %}w59 {% endif %}"
)


@pytest.fixture(scope="module")
def chatty() -> Model:
    """A tiny model with a chat template of words, whose turns end with the tokenizer's end token."""
    words = tokenizer.__wrapped__()
    words.chat_template = TEMPLATE
    hf = build("llama")
    hf.generation_config.eos_token_id = 63
    return load(hf, tokenizer=words)


def test_a_conversation_gets_the_beginning_of_an_answer(chatty: Model) -> None:
    chat = [{"role": "user", "content": "w01 w02"}]
    made = chatty.generate(
        [chat, "w05"], max_new_tokens=5, sample=Sampling(seed=3), capture="embed", tokens="all"
    )
    assert list(made.activations.token_ids[0][:5]) == chatty.tokenizer("w58 w01 w02 </s> w59")["input_ids"]
    said = " ".join(piece for piece in made.pieces[0] if piece != "</s>")
    assert made.messages == ((*chat, {"role": "assistant", "content": said}), None)
    again = chatty.tokenize([list(made.messages[0])])
    assert (
        list(again.token_ids[0][: 5 + len(said.split())])
        == list(made.activations.token_ids[0])[: 5 + len(said.split())]
    )
    answer = chatty.generate(
        [chat], max_new_tokens=5, sample=Sampling(seed=3), capture="embed", tokens="role:assistant & content"
    )
    places = answer.activations.positions[0]
    assert [chatty.tokenizer.decode([answer.activations.token_ids[0][at]]) for at in places] == said.split()
    assert made.activations["embed"][0, list(places)].equal(answer.activations["embed"][0])
    begun = [*chat, {"role": "assistant", "content": "w07"}]
    more = chatty.generate([begun], max_new_tokens=3)
    assert more.messages[0][-1]["content"].startswith("w07 ") and len(more.messages[0]) == 2


def test_an_answer_in_a_chat_ends_at_the_tokenizers_end_token_too(chatty: Model) -> None:
    chats = [[{"role": "user", "content": f"w{number}"}] for number in range(10, 50)]
    made = chatty.generate(chats, max_new_tokens=8, sample=Sampling(1.5, seed=0))
    ended = [ids for ids in made.token_ids if 2 in ids]
    assert ended and all(ids.index(2) == len(ids) - 1 for ids in ended)
    assert all("</s>" not in one[-1]["content"] for one in made.messages)
    texts = [f"w58 w{number} </s> w59" for number in range(10, 50)]
    plain = chatty.generate(texts, max_new_tokens=8, sample=Sampling(1.5, seed=0))
    assert any(2 in ids[:-1] for ids in plain.token_ids)


def test_selectors_look_at_the_finished_text(llama: Model) -> None:
    free = llama.generate(PROMPTS, max_new_tokens=5)
    word = free.texts[2].split()[1]
    for cache in (True, False):
        made = llama.generate(
            PROMPTS[2:3], max_new_tokens=5, capture="embed", tokens=f'token:" {word}"[-1]', use_cache=cache
        )
        ids = made.activations.token_ids[0]
        assert llama.tokenizer.decode([ids[made.activations.positions[0]]]) == word
    with pytest.raises(DataError, match="selects no token of prompt 0"):
        llama.generate(PROMPTS[2:3], max_new_tokens=2, capture="embed", tokens='text:"nowhere"')


def test_parts_join_to_the_whole_and_come_back(llama: Model, tmp_path: Path) -> None:
    given = {"max_new_tokens": 4, "capture": "resid_post.0", "tokens": "new"}
    whole = llama.generate(PROMPTS, **given, sample=Sampling(0.8, top_k=9, seed=2))
    parts = [
        llama.generate(PROMPTS[at : at + 2], **given, sample=Sampling(0.8, top_k=9, seed=2, first=at))
        for at in (0, 2)
    ]
    joined = Generation.concatenate(parts)
    assert (joined.token_ids, joined.texts, joined.ends) == (whole.token_ids, whole.texts, whole.ends)
    assert joined.activations.positions == whole.activations.positions
    again = read(whole.save(tmp_path))
    assert isinstance(again, Generation) and again.activations == whole.activations
    assert again.token_ids == whole.token_ids and again.logprobs == whole.logprobs
    hidden = read(whole.save(tmp_path / "hidden", text=False))
    written = "".join(path.read_text() for path in (tmp_path / "hidden").rglob("*.json"))
    assert "w0" not in written and hidden.entropies == whole.entropies and len(hidden.token_ids[0]) == 4
    assert "<svg" in interp.plot(whole).svg()
    with pytest.raises(DataError, match="no continuations to join"):
        Generation.concatenate([])
    with pytest.raises(DataError, match="drawn in several ways"):
        Generation.concatenate([parts[0], llama.generate(PROMPTS[:1], max_new_tokens=1)])


def test_numbers_of_numpy_are_numbers(llama: Model) -> None:
    three = np.int64(3)
    sample = Sampling()
    for name in ("seed", "top_k", "first"):
        object.__setattr__(sample, name, three)  # the type checks of tests let no other way in
    sample.__post_init__()
    assert sample == Sampling(seed=3, top_k=3, first=3) and type(sample.seed) is int
    wanted = llama.generate(PROMPTS, max_new_tokens=3, stop=[3, 9], sample=sample)
    made = llama.generate(PROMPTS, max_new_tokens=three, stop=[three, np.int32(9)], sample=sample)
    assert (made.token_ids, made.ends) == (wanted.token_ids, wanted.ends)
    assert llama.generate(PROMPTS, max_new_tokens=3, stop=three, sample=sample).texts
    for wrong in ({"max_new_tokens": True}, {"max_new_tokens": 1, "stop": True}):
        with pytest.raises(ConfigError, match="True asked"):
            llama.generate(PROMPTS, **wrong)


@pytest.mark.parametrize("cache", [True, False])
def test_what_only_some_finished_texts_have_is_kept_of_these(llama: Model, cache: bool) -> None:
    given: dict[str, Any] = {"max_new_tokens": 3, "capture": "resid_post.1", "use_cache": cache}
    free = llama.generate(PROMPTS, **given, tokens="all")
    word = free.texts[1].split()[-1]
    places = [
        [at for at, one in enumerate(row) if llama.tokenizer.decode([one]).strip() == word]
        for row in free.activations.token_ids
    ]
    assert not all(places) and places[1]
    without = [number for number, row in enumerate(places) if not row]
    for form, wanted in (("", places), ("[-1:]", [row[-1:] for row in places])):
        made = llama.generate(PROMPTS, **given, tokens=f'text:"{word}"{form}')
        assert made.texts == free.texts and [list(row) for row in made.activations.positions] == wanted
        for row, places_of in enumerate(wanted):
            states = made.activations["resid_post.1"][row, : len(places_of)]
            torch.testing.assert_close(states, free.activations["resid_post.1"][row, places_of])
        said = (
            f"selects no token in {len(without)} of {len(PROMPTS)} prompts ({', '.join(map(str, without))})"
        )
        assert all(said in " ".join(one.warnings) for one in (made, made.activations))
    with pytest.raises(DataError, match="tokens select nothing in any prompt"):
        llama.generate(PROMPTS, **given, tokens=slice(50, None))
    with pytest.raises(DataError, match=rf"selects no token of prompt {without[0]}.*or ask for a slice"):
        llama.generate(PROMPTS, **given, tokens=f'text:"{word}"[-1]')  # no axis for what is not there
    for nothing in ('text:"nowhere"', slice(50, None)):
        made = llama.generate(PROMPTS, **given, tokens=nothing, empty=True)
        assert made.texts == free.texts and not any(made.activations.positions)
        assert made.activations["resid_post.1"].shape == (len(PROMPTS), 0, llama.d_model)
        joined = interp.Activations.concatenate([made.activations, free.activations])
        torch.testing.assert_close(joined["resid_post.1"][len(PROMPTS) :], free.activations["resid_post.1"])


def test_the_picture_is_read_from_the_top(llama: Model) -> None:
    made = llama.generate(PROMPTS[:1], max_new_tokens=40, sample=Sampling(2.0, seed=1))
    drawn = drawing(made.figures()[0])
    assert drawn.lines
    heights = {}
    for at, text in re.findall(r' y="([\d.]+)"[^>]*>([^<]+)</text>', drawn.svg()):
        heights.setdefault(text, float(at))
    once = [at for at, one in enumerate(made.pieces[0]) if one.isalnum() and made.pieces[0].count(one) == 1]
    rows = [[heights[made.pieces[0][at]] for at in once if at // 16 == line] for line in range(3)]
    assert all(rows) and max(rows[0]) < min(rows[1]) and max(rows[1]) < min(rows[2])  # SVG counts from above
