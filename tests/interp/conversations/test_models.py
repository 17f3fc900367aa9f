"""Conversations and selectors in models: captures, runs, interventions, probes, patching and the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.analyses.probing import probe
from interp.conversations import select
from interp.errors import ConfigError, DataError
from interp.mediation import mediators_of
from interp.models import Model
from interp.models.positions import choose, located
from interp.pairs import Pair, PairSet
from interp.tasks import read_labelled
from tests.chats import chats, tiny_chat

CHAT = [
    {"role": "user", "content": "Is Paris the capital? <|close|>"},
    {"role": "assistant", "content": "It is. Paris it is."},
]
OTHER = [{"role": "system", "content": "Be it so."}, {"role": "user", "content": "1 and 2"}]
SITE = "resid_post.1"


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_chat()


def test_one_conversation_several_and_texts_between_them(model: Model) -> None:
    one, both = model.tokenize(CHAT), model.tokenize([CHAT, "It is.", OTHER])
    assert len(one) == 1 and one.spans[0] == both.spans[0] and len(both) == 3 and both.spans[1] is None
    assert both.token_ids[2] == model.tokenize(both.texts[2]).token_ids[0]
    assert model.tokenize(both, padding_side="left").spans == both.spans
    assert both.select([2, 0]).spans == (both.spans[2], both.spans[0])
    assert not model.tokenize(["a b"]).spans


def test_a_capture_at_a_selector_is_a_capture_of_all_picked_by_hand(model: Model) -> None:
    tokens = model.tokenize([CHAT, OTHER])
    whole = model.capture(tokens, SITE, "all")
    rows = choose(located("content", tokens, model.tokenizer), tokens.lengths).rows
    found = model.capture([CHAT, OTHER], SITE, "content")
    assert found.positions == rows and found.asked == "content"
    for number, row in enumerate(rows):
        torch.testing.assert_close(found[SITE][number, : len(row)], whole[SITE][number, list(row)])
    last = model.capture([CHAT, OTHER], SITE, "content[-1]")
    assert last.single and last.positions == tuple(row[-1] for row in rows)
    torch.testing.assert_close(last[SITE], whole[SITE][[0, 1], list(last.positions)])


def test_an_intervention_at_a_selector_is_one_at_its_positions(model: Model) -> None:
    tokens = model.tokenize([CHAT, OTHER])
    (row,) = located('text:"Paris"#2', tokens, model.tokenizer, rows=[0])
    value = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    runs = [
        model.run(tokens, interventions=[interp.Intervention(SITE, value, where, rows=[0])]).logits
        for where in ('text:"Paris"#2', [row], [[0]])
    ]
    assert runs[0] is not None and runs[1] is not None and runs[2] is not None
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    assert not torch.allclose(runs[0], runs[2])


def test_an_intervention_while_generating_reaches_the_answer(model: Model) -> None:
    prompt = [CHAT[0]]
    value = 30 * torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    length = model.tokenize(prompt).lengths[0]
    found = [
        model.generate(
            prompt, max_new_tokens=4, interventions=[interp.Intervention(SITE, value, where)]
        ).token_ids
        for where in ("answer | last", slice(length - 1, None), "role:user")
    ]
    assert found[0] == found[1] != found[2]


def test_settings_of_the_template_reach_it(model: Model) -> None:
    open_ = model.tokenize(CHAT, continue_="message")
    assert open_.texts[0].endswith("Paris it is.")
    with pytest.raises(ConfigError, match="are for conversations, and no prompt is one"):
        model.tokenize(["a"], continue_="none")
    with pytest.raises(DataError, match=r"one message alone was given as prompts; put it into a list"):
        model.tokenize(CHAT[0])


def test_a_file_of_messages(tmp_path: Path) -> None:
    data = read_labelled(chats(tmp_path / "chats.jsonl", 3))
    assert data.texts[1].startswith("user: Is 1 it?\nassistant: ")
    assert data.prompts[1][0] == {"role": "user", "content": "Is 1 it?"}
    assert data.select([2]).prompts == data.prompts[2:] and data.redacted().messages == ()
    path = tmp_path / "wrong.jsonl"
    for row, message in (
        ({"messages": [{"content": "a"}]}, "line 1, message 0 has only 'content'"),
        ({"messages": "a"}, "line 1 is no list of messages"),
        ({"messages": OTHER, "text": "a"}, "line 1 has both 'text' and 'messages'; keep one"),
    ):
        path.write_text(json.dumps(row))
        with pytest.raises(DataError, match=message):
            read_labelled(path)
    path.write_text(json.dumps({"messages": OTHER}))
    assert read_labelled(path).labels == ("",)


def test_a_probe_at_a_selector_is_one_at_its_positions(model: Model, tmp_path: Path) -> None:
    data = read_labelled(chats(tmp_path / "chats.jsonl"))
    settings: dict[str, Any] = {"layers": 1, "controls": ("majority",)}
    found = probe(model, data, position="answer[-1]", **settings)
    same = probe(model, data, position=-3, **settings)  # behind it the template writes two tokens
    assert found.predicted == same.predicted and found.position == "answer[-1]"
    assert probe(model, data, position='answer & text:"."', **settings).predicted == same.predicted
    with pytest.raises(ConfigError, match=r"names [0-9]+ tokens of prompt 0; a probe reads one token"):
        probe(model, data, position="answer", **settings)


def test_mediators_at_a_selector(model: Model) -> None:
    words = [Pair(f"Is {n} big? It", f"Is {n} so? It", (" is",), (" a",)) for n in (1, 2)]
    pairs = PairSet.build(model, words, misaligned="drop")
    tokens = select("sentence:-1", pairs.clean, model.tokenizer)
    found = mediators_of(model, pairs, "resid_post.1", positions="sentence:-1")
    assert [one.position for one in found] == list(tokens.positions[0])
    with pytest.raises(DataError, match="selects no token of prompt 1"):
        mediators_of(model, pairs, "resid_post.1", positions='text:"1"')


def test_a_selection_is_shown_in_notebooks_and_as_text(model: Model) -> None:
    chosen = select('text:"<|close|>"', model.tokenize([CHAT] * 7), model.tokenizer)
    assert ">&lt;|close|&gt;</mark>" in chosen._repr_html_() and "<|close|>" not in chosen._repr_html_()
    assert "capital? \u27e6<|close|>\u27e7<|close|>" in str(chosen) and "and 2 prompts more" in str(chosen)


def test_conversations_in_an_array_or_an_iterator(model: Model) -> None:
    chat = [{"role": "user", "content": "1 and 2"}, {"role": "assistant", "content": "It is"}]
    array = np.empty(1, dtype=object)
    array[0] = chat
    wanted = model.generate([chat], max_new_tokens=2)
    for given in (array, (one for one in [chat])):
        made = model.generate(given, max_new_tokens=2)
        assert (made.prompts, made.texts) == (wanted.prompts, wanted.texts)
        assert made.messages == wanted.messages != ()
    assert model.tokenize(iter([chat])).token_ids == model.tokenize(array).token_ids
