"""Spans of rendered conversations against the pieces that each template is known to write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.conversations import Rendered, answered, render
from interp.errors import ConfigError, DataError
from tests.chats import MARKS, TEMPLATES, Parts, chat_tokenizer

CALL = {
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": 'the "big" one', "days": 3}},
}
WORDS = [
    "Paris",
    "the capital",
    ".",
    "\n",
    " ",
    "user",
    "assistant",
    "\u00e9\u00df\u4f60",
    "q0zk000000kz",
    "{{ x }}",
    *MARKS,
]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join).filter(str.strip)


def conversation(texts: list[str], *, system: bool, ends: str) -> list[dict[str, Any]]:
    """User and assistant in turn, with a system message before them or not."""
    messages = [{"role": "system", "content": texts[0]}] if system else []
    for number, text in enumerate(texts[1:]):
        messages.append({"role": ("user", "assistant")[number % 2], "content": text})
    if messages[-1]["role"] != ends:
        messages.append({"role": ends, "content": "so"})
    return messages


def check(found: Rendered, parts: Parts) -> None:
    """Every token is in one span, and it is the span of its characters by the rule for tokens on a border."""
    assert found.text == "".join(part[0] for part in parts)
    owners = [part[1:] for part in parts for _ in part[0]]
    spans = [(s.kind, s.role, s.turn) for s in found.spans for _ in range(s.start, s.stop)]
    assert [s.start for s in found.spans] == [0, *(s.stop for s in found.spans[:-1])]
    assert found.spans[-1].stop == len(found.ids) == len(spans)
    for (start, stop), span in zip(found.offsets, spans, strict=True):
        touched = owners[start:stop] or [owners[start]]
        own = [one for one in touched if one[0] != "template"]
        assert span == (own or touched)[0]


@pytest.mark.parametrize("straddles", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=12, deadline=None)
@given(
    texts=st.lists(TEXTS, min_size=2, max_size=5),
    system=st.booleans(),
    ends=st.sampled_from(["user", "assistant"]),
)
def test_spans_are_what_the_template_writes_whatever_the_texts_say(
    name: str, straddles: bool, texts: list[str], system: bool, ends: str
) -> None:
    tokenizer = chat_tokenizer(name, straddles=straddles)
    messages = conversation(texts, system=system, ends=ends)
    if name == "mistral" and system and ends == "assistant":
        messages = messages[1:]  # such a template drops the system message
    for message in messages:  # what an assistant thinks is tested below
        if message["role"] == "assistant":
            message["content"] = message["content"].replace("<think>", "<turn>")
            if name == "thinking":
                message["content"] = message["content"].replace("</think>", "<end>")
    found = render(messages, tokenizer)
    told: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=ends != "assistant")
    assert list(found.ids) == list(told["input_ids"])
    check(found, TEMPLATES[name][1](messages))


def written(found: Rendered) -> list[tuple[str | None, str, str]]:
    """Role, kind and text of every span."""
    ends = [(found.offsets[s.start][0], found.offsets[s.stop - 1][1]) for s in found.spans]
    return [(s.role, s.kind, found.text[a:b]) for s, (a, b) in zip(found.spans, ends, strict=True)]


def test_thinking_is_told_from_the_answer_and_that_of_earlier_turns_is_gone() -> None:
    messages = [
        {"role": "user", "content": "one </think> <|close|>"},
        {"role": "assistant", "content": "<think>\nforgotten\n</think>\n\nfirst"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "reasoning_content": "two more <|open|>", "content": "second"},
    ]
    for own in (messages, [*messages[:3], {"role": "assistant", "content": "<think>two more</think>second"}]):
        found = render(own, chat_tokenizer("thinking"))
        check(found, TEMPLATES["thinking"][1](own))
        assert [s.kind for s in found.spans if s.turn == 3] == [
            "template",
            "thinking",
            "template",
            "content",
            "template",
        ]
        assert "forgotten" not in found.text and not any(
            s.kind == "thinking" for s in found.spans if s.turn == 1
        )


def test_thinking_in_the_content_of_a_template_that_knows_none() -> None:
    messages = [
        {"role": "user", "content": "<think>no</think>"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
    ]
    found = render(messages, chat_tokenizer("chatml"))
    texts = [
        (s.kind, found.text[found.offsets[s.start][0] : found.offsets[s.stop - 1][1]]) for s in found.spans
    ]
    assert (
        ("content", "<think>no</think>") in texts
        and ("thinking", "hm") in texts
        and ("content", "yes") in texts
    )


def test_a_tool_call_is_a_span_from_its_name_to_its_last_argument() -> None:
    tools: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    messages = [
        {"role": "user", "content": "Is it warm? <call>"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"degrees": 20}'},
    ]
    tokenizer = chat_tokenizer("tools")
    found = render(messages, tokenizer, tools=tools)
    told: Any = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True)
    assert list(found.ids) == list(told["input_ids"])
    texts = written(found)
    call = 'weather", "arguments": {"city": "the \\"big\\" one", "days": 3'
    assert ("assistant", "tool_call", call) in texts
    assert ("tool", "content", '{"degrees": 20}') in texts
    assert texts[0][:2] == (None, "template") and "Tools: " in texts[0][2]


def test_the_ways_to_end_are_those_of_transformers() -> None:
    tokenizer = chat_tokenizer("chatml")
    messages = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is"}]
    wanted = {
        "answer": {"add_generation_prompt": True},
        "message": {"continue_final_message": True},
        "none": {},
        "auto": {},
    }
    for way, flags in wanted.items():
        found: Any = render(messages, tokenizer, continue_=way)
        told: Any = tokenizer.apply_chat_template(messages, **flags)
        assert list(found.ids) == list(told["input_ids"])
    open_ = render(messages, tokenizer, continue_="message")
    assert open_.text.endswith("It is") and open_.spans[-1].kind == "content"


def test_texts_that_hold_special_tokens_are_told_of() -> None:
    found = render([{"role": "user", "content": "a <s> b"}], chat_tokenizer("chatml"))
    assert "its text holds '<s>', which the tokenizer reads as special tokens" in found.warnings[0]
    assert not render([{"role": "user", "content": "a b"}], chat_tokenizer("chatml")).warnings


def test_a_message_that_the_template_leaves_out_is_told_of() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    found = render(messages, chat_tokenizer("mistral"))
    assert "leaves out message 0 (system)" in found.warnings[0]


def test_an_answer_written_behind_a_prompt() -> None:
    tokenizer = chat_tokenizer("thinking")
    prompt = render([{"role": "user", "content": "a"}], tokenizer)
    new = tokenizer("the model\n</think>\n\nIt is.</s>")["input_ids"]
    spans = answered(prompt.spans, new, tokenizer, prompt=prompt.text, offsets=prompt.offsets)
    assert [s.start for s in spans] == [0, *(s.stop for s in spans[:-1])]
    assert spans[-1].stop == len(prompt.ids) + len(new)
    assert [(s.kind, s.turn) for s in spans[-5:]] == [
        ("template", 1),
        ("thinking", 1),
        ("template", 1),
        ("content", 1),
        ("template", 1),
    ]


TWICE = "{% for m in messages %}{{ m.role }}: {{ m.content }} ({{ m.content }}) {% endfor %}"
LOUD = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }} {% endfor %}"
CUT = "{% for m in messages %}{{ m.role }}: {{ m.content[:5] }} {% endfor %}"
USER = [{"role": "user", "content": "a long question"}]


@pytest.mark.parametrize(
    ("messages", "template", "message"),
    [
        (USER, TWICE, "writes the same text twice. Give the rendered text"),
        (USER, LOUD, "the spans of its messages cannot be told"),
        (USER, CUT, "Give the rendered text, or change the texts or the template"),
        (USER, "", "has no chat template. Give a text, load a chat model"),
        ([{"content": "a"}], "chatml", "has only 'content'; every message needs a 'role'"),
        ([{"role": " ", "content": "a"}], "chatml", "has the role ' '; every message needs a 'role'"),
        ([{"role": "user"}], "chatml", "message 0 (user) has no 'content'; give a text"),
        ([{"role": "user", "content": 3}], "chatml", "its 'content' is a int; give a text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "chatml", "give a text, or a list of"),
        (
            [*USER, *USER],
            "gemma",
            "refuses these messages (user, user): roles must take turns. Change the roles",
        ),
        ([], "chatml", "is no list of messages; give a list of"),
    ],
)
def test_what_cannot_be_rendered_is_refused_with_the_remedy(
    messages: Any, template: str, message: str
) -> None:
    tokenizer = chat_tokenizer(template)
    with pytest.raises(DataError) as caught:
        render(messages, tokenizer)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="continue_ 'maybe' asked; use 'auto', 'answer', 'message', 'open', 'none'"
    ):
        render(USER, chat_tokenizer("chatml"), continue_="maybe")


def test_a_token_over_a_border_belongs_to_the_message() -> None:
    messages = [{"role": "user", "content": "The user."}, {"role": "assistant", "content": "The a."}]
    found = render(messages, chat_tokenizer("mistral", straddles=True))
    spelled = [found.text[start:stop] for start, stop in found.offsets]
    assert ". " in spelled  # of which the second character is the template's
    assert [("".join(spelled[s.start : s.stop]), s.kind) for s in found.spans[2:4]] == [
        ("The user. ", "content"),
        ("[/INST]", "template"),
    ]


CLOSES = (
    "{% for m in messages %}<|open|>{{ m.role }}\n{{ m.content }}<|close|>{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% else %}{{ eos_token }}{% endif %}"
)
ASKS = (
    "{% if messages | length == 1 and messages[0].role == 'system' %}{{ raise_exception('no question') }}"
    "{% endif %}{% for m in messages %}<|open|>{{ m.role }}\n{{ m.content }}<|close|>{% endfor %}"
)


@pytest.mark.parametrize("template", [CLOSES, ASKS])
def test_a_template_that_ends_or_refuses_fewer_messages_is_told_all_the_same(template: str) -> None:
    messages = conversation(["Be <|close|> it.", "a", "b"], system=True, ends="assistant")
    found = written(render(messages, chat_tokenizer(template)))
    sides = [(one["role"], f"<|open|>{one['role']}\n", one["content"], "<|close|>") for one in messages]
    pieces = [(role, text) for role, *texts in sides for text in texts]
    pieces[-1] = ("assistant", "<|close|></s>" if template == CLOSES else "<|close|>")
    assert [(role, text) for role, _, text in found] == pieces


def test_a_call_that_its_result_names_again_is_told() -> None:
    template = (
        "{% for m in messages %}<|open|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
        "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
        "{% if m.role == 'tool' %} from {{ messages[1].tool_calls[0].function.name }}{% endif %}{% endfor %}"
    )
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    found = written(render([*messages, {"role": "tool", "content": "20"}], chat_tokenizer(template)))
    assert [kind for _, kind, _ in found].count("tool_call") == 1
    assert ("tool", "content", "20") in found
