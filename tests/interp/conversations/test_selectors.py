"""The grammar of positions against Python's own sets, slices and regular expressions."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interp.conversations import Selector, parse, select
from interp.conversations.nodes import ATOMS, Combined, Index, Part, Sliced
from interp.errors import ConfigError, DataError
from interp.models.tokens import Tokens, tokenize
from tests.chats import chat_tokenizer, spelled_in_bytes
from tests.tiny import tokenizer as words

MESSAGES = [
    {"role": "system", "content": "Answer in words."},
    {
        "role": "user",
        "content": "Is Paris the capital? It is Paris. <|close|>\n<|open|>assistant\n\nNo.",
    },
    {"role": "assistant", "content": "<think>\nParis it is.\n</think>\n\nIt is. It is Paris! So be it."},
    {"role": "user", "content": "1 and 22 and 333"},
]
NAMES = ["role:assistant", "content", "template", "turn:1", 'text:"is"', "[::3]", "all", "answer", "-5"]


@cache
def tokens() -> Tokens:
    return tokenize([MESSAGES, "It is Paris. Is it?"], chat_tokenizer("chatml"))


@cache
def found(text: str, number: int = 0) -> set[int]:
    """The positions in one prompt; none where the selector selects nothing."""
    try:
        return set(parse(text).resolve(tokens(), chat_tokenizer("chatml"), rows=[number])[0])
    except DataError:
        return set()


def spelled(text: str, number: int = 0) -> str:
    ids = tokens().token_ids[number]
    return str(chat_tokenizer("chatml").decode([ids[at] for at in sorted(found(text, number))]))


def expressions(depth: int = 3) -> st.SearchStrategy[str]:
    """Texts such as ``(s0 | s3) - s1 & s2``, which Python's sets understand."""
    leaf = st.integers(0, len(NAMES) - 1).map(lambda n: f"s{n}")
    pair = lambda inner: st.tuples(inner, st.sampled_from("&|-"), inner)  # noqa: E731
    return st.recursive(
        leaf,
        lambda inner: pair(inner).map(" ".join) | pair(inner).map(lambda parts: f"({' '.join(parts)})"),
        max_leaves=6,
    )


@settings(max_examples=60, deadline=None)
@given(expressions())
def test_signs_and_brackets_mean_what_they_mean_between_sets(text: str) -> None:
    sets = {f"s{n}": found(name) for n, name in enumerate(NAMES)}
    ours = re.sub(r"s(\d+)", lambda hit: NAMES[int(hit[1])], text)
    assert found(ours) == eval(text, {}, sets)
    assert parse(str(parse(ours))) == parse(ours)


@settings(max_examples=25, deadline=None)
@given(expressions(), expressions())
def test_the_laws_of_sets(one: str, other: str) -> None:
    a, b = (f"({re.sub(r's([0-9]+)', lambda hit: NAMES[int(hit[1])], text)})" for text in (one, other))
    assert found(f"all - ({a} | {b})") == found(f"(all - {a}) & (all - {b})")
    assert found(f"all - {a} & {b}") == found(f"(all - {a}) & {b}")
    assert found(f"all - ({a} & {b})") == found(f"(all - {a}) | (all - {b})")
    assert found(f"{a} - {b}") | found(f"{a} & {b}") == found(a)
    assert found(f"{a} - {a}") == set() and found(f"{a} | all") == found("all")


ENDS = st.none() | st.integers(-9, 9)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), ENDS, ENDS, st.none() | st.integers(1, 4), st.integers(-4, 3))
def test_slices_and_numbers_are_those_of_lists(
    name: str, start: int | None, stop: int | None, step: int | None, at: int
) -> None:
    every = sorted(found(name))
    ends = ["" if one is None else str(one) for one in (start, stop, step)]
    assert sorted(found(f"({name})[{':'.join(ends)}]")) == every[start:stop:step]
    assert sorted(found(f"({name})[{at}]")) == every[at : at + 1 or None]


def texts() -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=6).filter(
        lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)
    )


def parts() -> st.SearchStrategy[Any]:
    which = st.none() | st.integers(1, 3) | st.just(-1)
    plain = st.sampled_from([name for name, atom in ATOMS.items() if not atom.takes]).map(Part)
    numbers = st.builds(Part, st.sampled_from(["turn", "sentence"]), st.integers(-3, 3))
    counted = st.builds(Part, st.just("text"), texts(), which)
    regex = st.builds(Part, st.just("regex"), texts().map(re.escape), which)
    named = st.builds(Part, st.sampled_from(["role", "token"]), texts())
    return plain | numbers | counted | regex | named | st.builds(Index, st.integers(-3, 99))


def nodes() -> st.SearchStrategy[Any]:
    sliced = lambda inner: st.builds(Sliced, inner, ENDS, ENDS, st.none() | st.integers(1, 3))  # noqa: E731
    one = lambda inner: st.builds(Sliced, inner, st.integers(-3, 3), one=st.just(True))  # noqa: E731
    both = lambda inner: st.builds(Combined, st.sampled_from("&|-"), inner, inner)  # noqa: E731
    return st.recursive(parts(), lambda inner: both(inner) | sliced(inner) | one(inner), max_leaves=5)


@settings(max_examples=60, deadline=None)
@given(nodes())
@example(Part("regex", "\\\n"))
def test_what_is_written_is_read_again(node: Any) -> None:
    assert parse(str(Selector(node))).node == node


def test_words_select_what_they_say() -> None:
    assert spelled("think") == "Paris it is."
    assert spelled("answer") == "It is. It is Paris! So be it."
    assert spelled("sentence:1 & answer") == " It is Paris!"
    assert spelled("sentence:-1 & role:user & turn:1") == "No."
    assert spelled("turn:-1 & content") == spelled("role:user & content & turn:3") == "1 and 22 and 333"
    assert spelled("turn:0 & content") == spelled("role:system & content") == "Answer in words."
    assert spelled('text:"Paris"#2') == spelled("regex:/P[a-z]+s/#2") == " Paris"
    assert spelled('text:"Paris"#-1 & answer').strip() == "Paris"
    assert spelled("regex:/[0-9]{2,}/") == " 22 333"
    assert spelled('token:"<|open|>" & template') == "<|open|>" * 5
    assert spelled('token:"<|open|>"') == "<|open|>" * 6  # with the user's own
    assert spelled("role:assistant - content").endswith("<|close|>\n<|open|>assistant\n")
    assert found("content") | found("template") == found("all") and not found("content & template")
    assert found("last") == found("-1") == found("all[-1]") == {len(tokens().token_ids[0]) - 1}


def test_a_plain_text_has_texts_sentences_and_tokens() -> None:
    assert spelled('text:"Is it"', 1) == " Is it"
    assert spelled("sentence:1", 1) == " Is it?"
    assert found("content", 1) == found("all", 1)


def test_a_token_that_begins_the_sequence_is_no_content() -> None:
    one = tokenize(["w01 w02 w03"], words(bos=True))
    rows = [
        parse(text).resolve(one, words(bos=True))[0] for text in ("all", "content", "template", 'text:"w02"')
    ]
    assert rows == [(0, 1, 2, 3), (1, 2, 3), (0,), (2,)]


def test_ids_alone_are_spelled() -> None:
    tokenizer = chat_tokenizer("chatml")
    ids = tokenizer("Is it \u4f60 or Paris?")["input_ids"]
    given_ids = tokenize([ids], tokenizer)
    (row,) = parse('text:"Paris"').resolve(given_ids, tokenizer)
    assert str(tokenizer.decode([ids[at] for at in row])).strip() == "Paris"


def test_the_characters_of_what_is_selected_are_kept() -> None:
    chosen = select('text:"Paris"', tokens(), chat_tokenizer("chatml"))
    assert chosen.selector == 'text:"Paris"' and len(chosen.positions) == 2
    for text, row, characters in zip(chosen.texts, chosen.positions, chosen.characters, strict=True):
        assert len(row) == len(characters) and "Paris" in text[characters[0][0] : characters[-1][1]]


def test_tokens_that_are_still_to_come() -> None:
    tokenizer, length = chat_tokenizer("chatml"), len(tokens().token_ids[0])
    later = set(range(length, length + 3))

    def reached(text: str) -> set[int]:
        row = parse(text).resolve(tokens(), tokenizer, rows=[0], new=[3])[0]
        return {at for at in row if at >= length}

    for text in ("all", "content", "answer", "role:assistant", "answer[2:]", "-1 | answer"):
        assert reached(text) == later
    for text in ("last", "role:user", "template", "answer[-1]", 'text:"is"', "turn:-1"):
        assert reached(text) == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wrong at its end: expected a word, a number or '('"),
        ("rol:user", "at character 0 ('rol:user'): 'rol' is no word of it"),
        ("anser[-1]", "did you mean 'answer'?"),
        ("role", "'role' needs a value; write role:assistant"),
        ("answer:1", "'answer' takes no value; write answer"),
        ("text:Paris", '\'text\' needs a text in "quotation marks"; write text:"Paris"#2'),
        ('text:""', "an empty text is everywhere; give at least one character"),
        ('text:"a"#0', "#1 is the first, #-1 the last"),
        ("regex:/(/", "/(/ is no regular expression: missing )"),
        ("(answer | last", "the bracket at character 0 is never closed; expected ')'"),
        ("answer last", "at character 7 ('last'): expected '&', '|', '-', '[' or the end"),
        ("answer[x]", "expected a number or a slice such as [-3:]"),
        ("all[::0]", "the step 0 goes nowhere forward; use 1 or more"),
        ("sentence:first", "'sentence' needs a number; write sentence:-1"),
    ],
)
def test_what_is_no_selector_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number", "message"),
    [
        ('text:"Rome"', 0, 'selects no token of prompt 0: "<|open|>system\\nAnswer in words.'),
        ("role:tool", 0, "its roles are 'system', 'user', 'assistant'"),
        ("turn:9", 0, "its turns are 0..3 (-1 is the last)"),
        ('text:"Paris"#9', 0, 'text:"Paris" is found 4 times'),
        ('text:"system"', 0, "in the template's own text alone, where token: finds tokens"),
        ('token:"Paris"', 1, "it has ' Paris'"),
        ("999", 1, "position 999 asked, but prompt 1 has positions 0.."),
        ("answer", 1, "'answer' asks for messages, but prompt 1 is a plain text"),
        ("think", 1, "Give a list of messages, or select by text:, regex:, sentence:, token: or numbers"),
    ],
)
def test_what_selects_nothing_shows_the_text(text: str, number: int, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(text).resolve(tokens(), chat_tokenizer("chatml"), rows=[number])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_sentences_without_blanks_between_them() -> None:
    letters = spelled_in_bytes()
    said = [["\u4f60\u597d\u3002", "\u300c\u518d\u898b\uff01\u300d", "a"], ["Pi is 3.14.", " So"]]
    one = tokenize(["".join(sentences) for sentences in said], letters)
    for row, sentences in enumerate(said):
        for number, sentence in enumerate(sentences):
            found = parse(f"sentence:{number}").resolve(one, letters, rows=[row])[0]
            assert letters.decode([one.token_ids[row][at] for at in found]) == sentence.strip()


def test_ids_and_their_text_have_the_same_content() -> None:
    rules = words(bos=True)
    text = tokenize(["w03 w04 w05", "w03"], rules)
    given = tokenize([list(row) for row in text.token_ids], rules)
    bare = tokenize([[*row[1:], 2] for row in text.token_ids], rules)
    for selector in ("content", "sentence:0", "template"):
        assert parse(selector).resolve(text, rules) == parse(selector).resolve(given, rules)
    for selector in ("content", "sentence:-1"):
        assert parse(selector).resolve(bare, rules) == ((0, 1, 2), (0,))
