"""Conversations in files: what the model may call beside the messages, and pairs of conversations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.analyses.monitoring import read_talks
from interp.conversations import render
from interp.errors import AlignmentError, DataError
from interp.mediation import exhaustive, mediators_of
from interp.models import Model
from interp.pairs import Pair, PairSet
from interp.steering import read_pairs
from interp.tasks import read_labelled
from tests.chats import chat_tokenizer, tiny_chat

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CHAT = [{"role": "user", "content": "Is it big?"}, {"role": "assistant", "content": "It is."}]


@pytest.fixture(scope="module")
def chatml() -> Model:
    return tiny_chat()


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def told(messages: list[dict[str, Any]], template: str = "tools", **settings: Any) -> list[int]:
    """The ids that transformers itself makes."""
    rows: Any = chat_tokenizer(template).apply_chat_template(messages, tokenize=True, **settings)
    return list(rows["input_ids"])


@pytest.mark.parametrize("kind", ["labelled", "talks", "contrast"])
def test_tools_of_a_line_reach_the_template(kind: str, tmp_path: Path) -> None:
    row: dict[str, Any] = {"messages": CHAT, "label": "a", "tools": TOOLS}
    other: dict[str, Any] = {"messages": CHAT, "label": "b"}
    path = tmp_path / "x.jsonl"
    if kind == "labelled":
        prompts: Any = read_labelled(lines(path, row, other)).prompts
    elif kind == "talks":
        prompts = read_talks(lines(path, row, other)).prompts
    else:
        pair = {"positive": CHAT, "negative": [*CHAT[:1], {"role": "assistant", "content": "no"}]}
        found = read_pairs(lines(path, {**pair, "tools": TOOLS}, pair))
        assert "weather" in str(found.negative[0]) and "weather" not in str(found.negative[1])
        prompts = found.positive
    model = tiny_chat("tools")
    ids = model.tokenize([list(prompt) for prompt in prompts]).token_ids
    assert list(ids[0]) == told(CHAT, tools=TOOLS) != told(CHAT) == list(ids[1])


@pytest.mark.parametrize("tools", ["weather", [1], {"type": "function"}])
@pytest.mark.parametrize("read", [read_labelled, read_talks, read_pairs])
def test_tools_that_are_none_name_the_line(read: Any, tools: Any, tmp_path: Path) -> None:
    row = {"messages": CHAT, "label": "a", "positive": CHAT, "negative": [*CHAT, *CHAT], "tools": tools}
    with pytest.raises(DataError, match="line 1: its 'tools' are no list of schemas; give"):
        read(lines(tmp_path / "x.jsonl", row))


def test_tools_of_a_conversation_are_said_once_and_a_deaf_template_is_told() -> None:
    own = [{**CHAT[0], "tools": TOOLS}, CHAT[1]]
    tokenizer = chat_tokenizer("tools")
    assert render(own, tokenizer, tools=[]) == render(CHAT, tokenizer, tools=TOOLS)
    assert render(own, tokenizer).warnings == ()
    assert render(own, chat_tokenizer("chatml")).warnings == (
        "the conversation: the chat template leaves out its tools.",
    )
    with pytest.raises(DataError, match="'tools' in 2 of its messages; keep them in the first"):
        render([{**one, "tools": TOOLS} for one in CHAT], tokenizer)


def asks(place: str, *, system: str = "", begun: str | None = None) -> list[dict[str, Any]]:
    found = [{"role": "system", "content": system}] if system else []
    found.append({"role": "user", "content": f"Is {place} big?"})
    return found if begun is None else [*found, {"role": "assistant", "content": begun}]


@pytest.mark.parametrize("begun", [None, "It is"])
def test_pairs_of_conversations_are_what_the_template_writes(
    begun: str | None, chatml: Model, tmp_path: Path
) -> None:
    rows = [
        {"clean": asks(a, begun=begun), "corrupt": asks(b, begun=begun), "answer": "the", "foil": "own"}
        for a, b in [("Paris", "France"), ("is", "it")]
    ]
    pairs = PairSet.from_jsonl(chatml, lines(tmp_path / "pairs.jsonl", *rows))
    ending: dict[str, Any] = {"add_generation_prompt": True}
    ending = ending if begun is None else {"continue_final_message": True}
    for row, clean, corrupt in zip(rows, pairs.clean.token_ids, pairs.corrupt.token_ids, strict=True):
        assert list(clean) == told(row["clean"], "chatml", **ending)
        assert list(corrupt) == told(row["corrupt"], "chatml", **ending)
    text = "the" if begun is None else " the"  # behind a line break there is no blank
    first = chatml.tokenizer(text, add_special_tokens=False)["input_ids"][0]
    assert pairs.answer_ids == ((first,), (first,))
    assert pairs.groups == [
        "user: Is Paris big?" + ((begun and f"\nassistant: {begun}") or ""),
        pairs.groups[1],
    ]
    again = PairSet.from_jsonl(chatml, pairs.save(tmp_path / "again.jsonl"))
    assert again.clean.token_ids == pairs.clean.token_ids
    assert again.described["fingerprint"] == pairs.described["fingerprint"]
    spans = pairs[[1]].swap().clean.spans[0]
    assert spans is not None and spans[-1].stop == len(pairs.corrupt.token_ids[1])


def test_patching_conversations_at_a_selector_is_patching_what_differs(chatml: Model) -> None:
    pairs = PairSet.build(chatml, [Pair(asks("it"), asks("is"), ("the",), ("own",))])
    mediators = mediators_of(chatml, pairs, "embed", positions='role:user & text:" it"')
    assert tuple(one.position for one in mediators) == pairs.first_difference
    found = exhaustive(chatml, pairs, mediators, metric="logit-diff")
    clean, corrupt = (chatml.logits(side)[0].double() for side in (pairs.clean, pairs.corrupt))
    ((a,), (f,)) = (pairs.answer_ids[0], pairs.foil_ids[0])
    total = float((clean[a] - clean[f]) - (corrupt[a] - corrupt[f]))
    assert abs(total) > 1e-3  # all that differs is one word of the user's
    assert abs(float(found.values["noising"][0, 0]) - total) < 1e-4
    others = mediators_of(chatml, pairs, "embed", positions="template")
    assert abs(exhaustive(chatml, pairs, others, metric="logit-diff").values["noising"]).max() < 1e-4


def test_answers_of_conversations_are_scored_whole_where_the_tokenizer_begins_otherwise(
    chatml: Model,
) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = chat_tokenizer("chatml")
    begin = ("<s>", tokenizer.convert_tokens_to_ids("<s>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[begin]
    )
    model = replace(chatml, tokenizer=tokenizer)
    given = [Pair(asks("it"), asks("is"), ("the capital",), ("the user",))]
    pairs, plain = (PairSet.build(one, given, whole=True) for one in (model, chatml))
    assert model.tokenize(["it"]).token_ids[0][0] == begin[1]  # which the template does not write
    assert pairs.answer_ids == plain.answer_ids
    one, other = (
        exhaustive(chosen, pairs, "embed", metric="answer-log-odds").values["noising"]
        for chosen in (model, chatml)
    )
    assert abs(one - other).max() == 0 < abs(one).max()


@pytest.mark.parametrize(
    ("clean", "corrupt", "message"),
    [
        (asks("it"), "Is it big?", "clean has messages of user, and corrupt is a text. Give both"),
        (
            asks("it", system="a"),
            asks("it"),
            "has messages of system, user, and corrupt has messages of user",
        ),
        (asks("it"), asks("the capital of it"), "message 0 (user) has "),
        (  # equally many tokens in all, but the border between the messages is not the same
            asks("it", system="a model is it"),
            asks("it is", system="a model is"),
            "message 0 (system) has ",
        ),
    ],
)
def test_pairs_that_do_not_stand_side_by_side_are_refused(
    clean: Any, corrupt: Any, message: str, chatml: Model
) -> None:
    with pytest.raises(AlignmentError) as caught:
        PairSet.build(chatml, [Pair(clean, corrupt, ("the",), ("own",))])
    assert message in str(caught.value) and "misaligned='drop'" in str(caught.value)
    good = Pair(asks("Paris"), asks("France"), ("the",), ("own",))
    kept = PairSet.build(chatml, [Pair(clean, corrupt, ("the",), ("own",)), good], misaligned="drop")
    assert kept.pairs == (good,)
