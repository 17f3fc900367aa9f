"""What was written behind a prompt: the characters of its tokens, its spans, and the message it makes."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from interp.conversations import parse
from interp.conversations.offsets import offsets_behind
from interp.errors import DataError
from interp.models.finished import finished, with_answers
from interp.models.tokens import Tokens, tokenize
from tests.chats import spelled_in_bytes, with_byte_fallback

PARTY, HELLO = "\U0001f389", "\u4f60\u597d"
CHAT = [{"role": "user", "content": "hi"}]
OPENING = "{% if add_generation_prompt %}assistant: {% endif %}"


def ids(text: str, words: PreTrainedTokenizerFast) -> list[int]:
    """The tokens of a text; those of characters above ASCII are bytes."""
    if "<0x00>" not in words.get_vocab():
        return list(words(text, add_special_tokens=False)["input_ids"])
    letters = [[one] if one.isascii() else [f"<0x{byte:02X}>" for byte in one.encode()] for one in text]
    return [words.get_vocab()[name] for row in letters for name in row]


def chatty(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with a template of one line a message."""
    words = spelled_in_bytes()
    words.chat_template = template
    return words


def begun(messages: list[dict[str, Any]], words: PreTrainedTokenizerFast) -> Tokens:
    return tokenize([messages], words, continue_="open")


@pytest.mark.parametrize("make", [spelled_in_bytes, with_byte_fallback])
@pytest.mark.parametrize("text", [f"a{HELLO}b", f"{PARTY}{HELLO * 5}a", f"ab{PARTY}", "abc"])
def test_every_byte_of_a_character_covers_all_of_it(make: Any, text: str) -> None:
    words = make()
    whole, found = offsets_behind(ids("ab", words), ids(text, words), words)
    assert whole == text
    assert found == tuple((at, at + 1) for at, letter in enumerate(text) for _ in letter.encode())


@pytest.mark.parametrize("make", [spelled_in_bytes, with_byte_fallback])
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_text_that_ends_inside_of_a_character_is_covered_to_its_end(make: Any, kept: int) -> None:
    words = make()
    new = [*ids("ab", words), *ids(PARTY, words)[:kept]]
    text, found = offsets_behind(ids("c", words), new, words)
    assert found is not None
    assert text.strip("\ufffd") == "ab" and found[:2] == ((0, 1), (1, 2))
    assert set(found[2:]) == {(2, len(text))}


def test_bytes_that_become_no_character_keep_their_own_place() -> None:
    words = spelled_in_bytes()
    text, found = offsets_behind([], [*ids(PARTY, words)[:2], *ids("ab", words)], words)
    assert text == "\ufffdab" and found == ((0, 1), (0, 1), (1, 2), (2, 3))


def test_a_thinking_answer_that_is_cut_inside_of_a_character_is_kept() -> None:
    words = chatty("{% for m in messages %}{{m.role+': '+m.content+'\n'}}{% endfor %}" + OPENING)
    tokens = begun(CHAT, words)
    new = [*ids("<think>hm</think>ok ", words), *ids(PARTY, words)[:2]]
    full = finished(tokens, [new], words, located=True)
    spans = full.spans[0] or ()
    kinds = [(one.kind, one.stop - one.start) for one in spans[-4:]]
    assert kinds == [("template", 7), ("thinking", 2), ("template", 8), ("content", 5)]
    ((*found,),) = parse('text:"ok"').resolve(full, words)
    assert words.decode([full.token_ids[0][at] for at in found]) == "ok"
    message = with_answers((tuple(CHAT),), full, words)[0]
    assert message is not None and message[-1]["content"].startswith("ok")


def test_a_character_that_was_written_is_selected_whole() -> None:
    words = spelled_in_bytes()
    full = finished(tokenize(["x"], words), [ids(f"ok {PARTY}", words)], words, located=True)
    assert parse(f'text:"{PARTY}"').resolve(full, words) == ((4, 5, 6, 7),)
    assert parse("content").resolve(full, words) == (tuple(range(8)),)
    assert parse("template | last").resolve(full, words) == ((7,),)


@pytest.mark.parametrize("content", [None, "", " ", "Sure "])
@pytest.mark.parametrize("behind", ["\n", ""])
def test_the_answer_is_the_assistants_message(content: str | None, behind: str) -> None:
    between = "{% if not loop.last %}{{'\n'}}{% endif %}" if not behind else "{{'\n'}}"
    line = "{{m.role+': '+m.content}}" if behind else "{{m.content}}"
    words = chatty("{% for m in messages %}" + line + between + "{% endfor %}" + OPENING * bool(behind))
    messages = CHAT if content is None else [*CHAT, {"role": "assistant", "content": content}]
    tokens = begun(messages, words)
    full = finished(tokens, [ids("yes", words)], words, located=False)
    assert [(one.role, one.turn) for one in full.spans[0] or ()][-1] == ("assistant", 1)
    said = with_answers((tuple(messages),), full, words)[0]
    assert said == (*CHAT, {"role": "assistant", "content": f"{content or ''}yes".strip()})
    assert parse("answer[-3:]").resolve(full, words) == (tuple(range(tokens.lengths[0], full.lengths[0])),)


SPOKEN = "{% for m in messages %}{{m.role+': '+m.content+'\n'}}{% endfor %}" + OPENING


@pytest.mark.parametrize(
    ("begun_with", "written", "wanted"),
    [
        ("<think>\n", "hm</think>ok", [("thinking", "hm"), ("content", "ok")]),
        ("<think>\nwell ", "hm</think>ok", [("thinking", "well hm"), ("content", "ok")]),
        ("<think>\nwell", ", hm", [("thinking", "well, hm")]),
        ("[THINK]a", "b</think>[/THINK]c", [("thinking", "ab</think>"), ("content", "c")]),
        ("<think>a</think>", "ok", [("thinking", "a"), ("content", "ok")]),
        ("so: <think>a", "b</think>c", [("content", "so: <think>ab</think>c")]),  # it does not begin with it
    ],
)
def test_thinking_that_an_answer_was_begun_with_is_thinking(
    begun_with: str, written: str, wanted: list[tuple[str, str]]
) -> None:
    words = chatty(SPOKEN)
    messages = [*CHAT, {"role": "assistant", "content": begun_with}]
    full = finished(begun(messages, words), [ids(written, words)], words, located=True)
    spans, row = full.spans[0] or (), full.token_ids[0]
    said = {kind: "" for kind, _ in wanted}
    for one in spans:
        assert one.turn is None or one.turn == (one.role == "assistant")
        if one.role == "assistant" and one.kind != "template":
            said[one.kind] += words.decode(row[one.start : one.stop])
    assert said == dict(wanted)
    atoms = [("think", "thinking"), ("answer", "content")]
    for word, kind in [both for both in atoms if both[1] in said]:
        ((*found,),) = parse(word).resolve(full, words)
        assert words.decode([row[at] for at in found]) == said[kind]
    message = (with_answers((tuple(messages),), full, words)[0] or ())[-1]
    assert message["content"] == said.get("content", "").strip()
    assert message.get("reasoning_content", "") == said.get("thinking", "")


@pytest.mark.parametrize("template", [SPOKEN, "{% for m in messages %}{{m.content}}{% endfor %}"])
def test_a_mark_in_what_the_user_says_opens_no_thinking(template: str) -> None:
    words = chatty(template)
    messages = [{"role": "user", "content": "hi <think>"}]
    full = finished(begun(messages, words), [ids("a</think>b", words)], words, located=False)
    kinds = {one.kind for one in full.spans[0] or () if one.turn == 1 and one.kind != "template"}
    assert kinds == {"content"}


def test_a_message_whose_thinking_was_cut_is_thinking_where_it_is_closed_too() -> None:
    words = chatty(SPOKEN)
    messages = [*CHAT, {"role": "assistant", "content": "<think>\nhm"}, *CHAT]
    tokens = tokenize([messages], words)
    ((*found,),) = parse("think").resolve(tokens, words)
    assert words.decode([tokens.token_ids[0][at] for at in found]) == "hm"
    with pytest.raises(DataError, match="selects no token"):
        parse("answer").resolve(tokens, words)


def test_new_tokens_that_a_tokenizer_would_not_write_are_found_behind_a_beginning_of_sequence() -> None:
    words = with_byte_fallback()
    words.add_special_tokens({"bos_token": "<s>"})
    begin = [("<s>", words.convert_tokens_to_ids("<s>"))]
    words.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=begin)
    tokens = tokenize(["ab"], words)
    assert tokens.token_ids[0][0] == begin[0][1] and tokens.texts == ("ab",)
    new = [words.get_vocab()["<0x61>"], *ids("b", words)[-1:]]  # "ab" in bytes, and as a letter
    full = finished(tokens, [new], words, located=True)
    length = full.lengths[0]
    assert full.texts == ("abab",) and parse('text:"ab"#2').resolve(full, words) == (
        (length - 2, length - 1),
    )
