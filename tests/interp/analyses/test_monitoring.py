"""Monitors: fitted, saved, and watching; what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.analyses.awareness import awareness
from interp.analyses.monitoring import Monitor, answer, fit_monitor, read_talks, watch
from interp.analyses.monitoring.messages import messages_of
from interp.analyses.monitoring.sources import WORDLESS, source_folds
from interp.errors import ArtifactError, ConfigError, DataError, ModelError
from tests.interp.analyses.monitored import BAD, chat, fitted, talks
from tests.tiny import build


def test_a_planted_word_raises_alarms_at_the_stated_rate() -> None:
    found = fitted()
    assert found.areas[0].area > 0.9
    false, hits = found.rates
    own = found.monitor.threshold
    assert own.low <= own.expected <= own.high
    assert false.low <= own.high
    assert hits.share > 0.6
    assert "Told apart" in found.verdict()
    assert {one.tested for one in found.areas} == {"monitor", *WORDLESS}
    cells = {(one.taught, one.tested) for one in found.transfer}
    assert cells == {
        (taught, tested) for taught, tested in (("all others", "a"), ("all others", "b"), *("ab", "ba"))
    }
    assert all(one.area > 0.8 for one in found.transfer)


def test_labels_that_mean_nothing_are_not_told_apart() -> None:
    data = talks(80)
    mixed = replace(data, labels=tuple(np.random.default_rng(3).permutation(data.labels).tolist()))
    found = fit_monitor(chat(), mixed, alarm="bad", layers="0", pooling="mean", rate=0.2)
    assert "Not shown to tell them apart" in found.verdict()


def test_a_message_is_scored_by_its_own_tokens_as_torch_says() -> None:
    model, own, data = chat(), fitted().monitor, talks(6, seed=5)
    lines = watch(model, own, data).lines
    assert [line.turn for line in lines] == [1] * 6
    for line in lines:
        ids = torch.tensor([model.tokenize([list(data.prompts[line.conversation])]).token_ids[0]])
        with torch.no_grad():
            states = model.hf(ids, output_hidden_states=True).hidden_states[1][0].double().numpy()
        begin = 6 + 3  # "w50 user", four words, "w51 w50 assistant"
        scores = states[begin : begin + 7] @ own.probe.coef_[0] + own.probe.intercept_[0]
        assert line.score == pytest.approx(scores.max(), abs=1e-5)
        assert line.alarm == (line.score > own.threshold.value)
        assert line.tokens == 7


def test_a_saved_monitor_says_the_same(tmp_path: Path) -> None:
    own, data = fitted().monitor, talks(5, seed=6)
    again = Monitor.load(own.save(tmp_path / "m"))
    told: list[Any] = []
    found = watch(chat(), again, data, on_line=told.append)
    assert [one.score for one in told] == [one.score for one in watch(chat(), own, data).lines]
    assert tuple(told) == found.lines
    assert (again.alarm, again.threshold) == (own.alarm, own.threshold)
    assert "Monitor" in repr(type(again))
    assert "threshold" in (tmp_path / "m" / "probe" / "README.md").read_text()


def test_tokens_are_divided_by_message() -> None:
    conversation = [
        {"role": role, "content": "w01 w02"} for role in ("user", "assistant", "user", "assistant")
    ]
    found = messages_of(chat(), [conversation, "w01 w02 w03"], "all")
    assert list(zip(found.talk, found.turn, found.role, strict=True))[-1] == (1, -1, "")
    only = messages_of(chat(), [conversation], "role:assistant & content")
    assert (only.turn, [len(row) for row in only.positions]) == ((1, 3), [2, 2])


def test_sources_are_left_out_whole() -> None:
    positive = np.array([True, True, False, False, True, False] * 2)
    folds = source_folds(positive, ["a", "a", "b", "b", "c", "d"] * 2, [f"{at}" for at in range(12)])
    assert [fold.name for fold in folds] == ["a + b", "c + d"]
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert len(fold.train) + len(fold.test) == 12
    with pytest.raises(DataError, match="'b' has both labels and 'a' has one"):
        source_folds(np.array([True, True, False]), ["a", "b", "b"], ["1", "2", "3"])
    with pytest.raises(DataError, match="takes at least two of each label; found 1 source"):
        source_folds(np.array([True, False]), ["a", "b"], ["1", "2"])


def test_every_source_is_tested_once_where_one_label_has_more() -> None:
    sources = [f"{side}{at}" for side, n in (("yes", 5), ("no", 2)) for at in range(n) for _ in range(2)]
    positive = np.array([name.startswith("yes") for name in sources])
    folds = source_folds(positive, sources, [f"{at}" for at in range(14)])
    assert [fold.name for fold in folds] == ["yes0 + yes2 + yes4 + no0", "yes1 + yes3 + no1"]
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(14))


def test_a_group_that_is_tested_is_not_trained_on() -> None:
    rows = np.arange(24)
    sources, positive = [("a", "b", "c")[at % 3] for at in rows], rows // 3 % 2 == 0
    groups = [f"q{at // 3}" if at < 6 else f"own {at}" for at in rows]  # two groups in every source
    for fold in source_folds(positive, sources, groups):
        assert not {groups[at] for at in fold.train} & {groups[at] for at in fold.test}
        assert len(fold.train) == 16 - 4
    with pytest.raises(DataError, match="16 of 16 training rows share a group with it, and the 0 that stay"):
        source_folds(positive, sources, [f"q{at // 3}" for at in rows])


def test_transfer_leaves_out_the_groups_it_tests_and_says_where_none_stay() -> None:
    data = talks(120)
    own = list(data.groups)
    for at in range(0, 120, 4):  # the good conversations of the two sources share their groups
        own[at] = own[at + 2]
    found = fit_monitor(
        chat(), replace(data, groups=tuple(own)), alarm="bad", layers="0", pooling="mean", rate=0.2
    )
    assert found.transfer == ()
    assert any("from source to source nothing is shown" in one for one in found.warnings)


def test_negatives_of_training_groups_are_refused() -> None:
    data, other = talks(80), talks(40, seed=9).select(range(0, 40, 2))
    again = replace(other, groups=data.groups[:20])
    with pytest.raises(DataError, match="20 groups of 'toys' are in 'toys' too"):
        fit_monitor(chat(), data, alarm="bad", layers="0", pooling="mean", rate=0.2, negatives=again)
    fit_monitor(chat(), data, alarm="bad", layers="0", pooling="mean", rate=0.2, negatives=other)


def test_groups_of_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    groups = []
    for number in range(2):
        path = tmp_path / f"{number}" / "chats.jsonl"
        path.parent.mkdir()
        path.write_text(json.dumps({"text": f"w0{number}", "label": "a"}))
        groups += read_talks(path).groups
    assert len(set(groups)) == 2
    assert not any(str(tmp_path) in group for group in groups)  # the same file is the same elsewhere


def test_texts_beside_conversations_need_a_selector() -> None:
    data = talks(80)
    mixed = replace(data, prompts=("w01 w02", *data.prompts[1:]))
    with pytest.raises(ConfigError, match="'toys' has 1 plain text and 79 conversations, and no selector"):
        fit_monitor(chat(), mixed, alarm="bad", layers="0")
    with pytest.raises(ConfigError, match="no selector"):
        awareness(chat(), mixed, alarm="bad", layers="0")
    assert replace(data, prompts=("w01",) * 80).positions("", "content") == "all"
    assert mixed.positions("last", "content") == "last"


def test_the_verdict_of_watching_counts_conversations_at_the_rate() -> None:
    data = talks(2)
    twice = replace(data, prompts=tuple((*one, *one) for one in data.prompts))
    found = watch(chat(), fitted().monitor, twice)
    assert len(found.lines) == 4
    high = fitted().monitor.threshold.high
    hit = len({one.conversation for one in found.alarms})
    assert f"{hit} of 2 conversations, by their highest message" in found.verdict()
    assert f"up to {high * 2:.1f} would on average" in found.verdict()
    assert "of conversations do, by their highest message" in found.lead()[0]


def wrong() -> dict[str, tuple[type[Exception], str]]:
    return {
        "no alarm": (DataError, "the alarm 'worse' asked; .* 2 labels: bad, good. Name one of two"),
        "one label": (DataError, "has 1 label: good. Name one of two"),
        "rate": (ConfigError, r"0.001 asked of 20 negatives: it takes at least 999.*\(threshold on 'toys'\)"),
        "pooling": (ConfigError, "the poolings are: last, mean, max"),
        "selects nothing": (DataError, "selects no token of prompt 0"),
        "seen negatives": (DataError, "120 of the texts of 'toys' are in 'toys' too, on which the probe is"),
        "few groups": (DataError, "too few groups of a label .* give at least 8 groups of each"),
        "another model": (ModelError, "another fingerprint .* Load that model, or fit a monitor on this one"),
        "no monitor": (
            ArtifactError,
            "holds no monitor .monitor.json is missing.. Give what monitor.save wrote",
        ),
    }


@pytest.mark.parametrize("name", wrong())
def test_wrong_calls_say_what_to_do(name: str, tmp_path: Path) -> None:
    kind, message = wrong()[name]
    data, given = talks(160 if name == "rate" else 120), {"alarm": "bad", "layers": "0"}
    with pytest.raises(kind, match=message):
        match name:
            case "no alarm":
                fit_monitor(chat(), data, alarm="worse")
            case "one label":
                fit_monitor(chat(), data.select(range(0, 40, 2)), alarm="bad")
            case "rate":
                fit_monitor(chat(), data, **given, rate=0.001)
            case "pooling":
                fit_monitor(chat(), data, **given, pooling="average")
            case "selects nothing":
                fit_monitor(chat(), data, **given, positions="role:system")
            case "seen negatives":
                fit_monitor(chat(), data, **given, negatives=data)
            case "few groups":
                fit_monitor(chat(), replace(data, groups=data.labels), **given)
            case "another model":
                watch(interp.load(build("gpt2"), tokenizer=chat().tokenizer), fitted().monitor, data)
            case _:
                Monitor.load(tmp_path)


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    messages = [{"role": "user", "content": "w01"}]
    path.write_text(
        json.dumps({"messages": messages, "label": "a"}) + "\n" + json.dumps({"text": "b", "label": "c"})
    )
    found = read_talks(path)
    assert (found.labels, found.sources, found.texts) == (("a", "c"), ("chats", "chats"), ("w01", "b"))
    for line, message in {
        '{"messages": []}': "has no 'label'",
        '{"messages": [], "label": "a"}': "line 1 has neither 'messages' nor 'text'; give",
        "": "holds no conversation; write one object with 'messages' a line",
    }.items():
        path.write_text(line)
        with pytest.raises(DataError, match=message):
            read_talks(path)
    with pytest.raises(DataError, match=r"conversations are read from \.jsonl files"):
        read_talks(tmp_path / "chats.csv")


def test_bad_words_are_planted_in_answers_alone() -> None:
    assert all(not set(BAD) & set(one[0]["content"].split()) for one in talks().prompts)


def test_an_answer_is_scored_while_it_is_written_as_afterwards() -> None:
    model, own = chat(), fitted().monitor
    prompts = [[{"role": "user", "content": text}] for text in ("w01 w02 w41", "w07", "w11 w12 w13 w14 w15")]
    lines: list[Any] = []
    found = answer(model, own, prompts, max_new_tokens=9, on_line=lines.append)
    made = model.generate(prompts, max_new_tokens=9)
    for at, last in enumerate(found.lines):
        ids = list(made.token_ids[at])
        kept = [token for token in ids if token not in model.tokenizer.all_special_ids]
        ours = [line for line in lines if line.conversation == at]
        assert ours[-1] == last
        assert [line.tokens for line in ours] == list(range(1, len(kept) + 1))
        before = list(model.tokenize([prompts[at]], continue_="answer").token_ids[0])
        with torch.no_grad():
            states = model.hf(torch.tensor([before + kept]), output_hidden_states=True).hidden_states[1][0]
        scores = states.double().numpy()[len(before) :] @ own.probe.coef_[0] + own.probe.intercept_[0]
        assert [line.own for line in ours] == pytest.approx(scores.tolist(), abs=1e-5)
        assert [line.score for line in ours] == pytest.approx(
            np.maximum.accumulate(scores).tolist(), abs=1e-5
        )
    whole = [(*prompts[at], {"role": "assistant", "content": made.texts[at]}) for at in range(len(prompts))]
    again = watch(model, own, replace(talks(6).select([0, 1, 2]), prompts=tuple(whole)))
    assert [one.score for one in again.lines] == pytest.approx([one.score for one in found.lines], abs=1e-5)


def test_one_conversation_is_one_prompt() -> None:
    model, own = chat(), fitted().monitor
    one = [{"role": "user", "content": "w07 w11"}]
    assert (
        answer(model, own, one, max_new_tokens=3).lines == answer(model, own, [one], max_new_tokens=3).lines
    )
    with pytest.raises(DataError, match="prompt 0 is a plain text"):
        answer(model, own, "w07 w11")


def test_a_monitor_of_other_tokens_than_the_answer_is_refused() -> None:
    own = replace(fitted().monitor, positions="role:user & content")
    with pytest.raises(ConfigError, match="which no token of an answer is; fit one of 'role:assistant"):
        answer(chat(), own, [[{"role": "user", "content": "w01"}]])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ("role:assistant", "is not exactly the answer to prompt 0"),
        ("all", "is not exactly the answer to prompt 0"),
        ("(role:assistant & content)[-3:]", "is not exactly the answer to prompt 0"),
        ("(role:assistant & content)[:2]", "is not exactly the answer to prompt 0"),
        ("role:assistant & content[::2]", "is not exactly the answer to prompt 0"),
        ('role:assistant & content - token:"w01"', "which tokens 'token' selects is known only"),
    ],
)
def test_a_stream_that_would_differ_from_the_finished_conversation_is_refused(
    positions: str, message: str
) -> None:
    own = replace(fitted().monitor, positions=positions)
    with pytest.raises(ConfigError, match=message + ".*watch the finished conversation"):
        answer(chat(), own, [[{"role": "user", "content": "w01"}]], max_new_tokens=5)


def test_a_stream_of_part_of_the_prompt_is_refused() -> None:
    own = replace(fitted().monitor, positions="all")
    with pytest.raises(ConfigError, match="not exactly the answer to prompt 0"):
        answer(chat(), own, "w01 w02")
    assert answer(chat(), replace(own, positions="[2:]"), "w01 w02", max_new_tokens=3).lines[0].tokens <= 3
    begun = [{"role": "user", "content": "w01"}, {"role": "assistant", "content": "w02"}]
    with pytest.raises(ConfigError, match="prompt 0 ends with what the assistant says"):
        answer(chat(), fitted().monitor, begun)


def test_other_answers_of_the_conversation_do_not_matter() -> None:
    talk = [{"role": role, "content": "w01 w02"} for role in ("user", "assistant", "user")]
    found = answer(chat(), replace(fitted().monitor, positions="answer"), talk, max_new_tokens=4)
    assert found.lines[0].turn == 3


def test_an_answer_that_thinks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = [{"role": "user", "content": "w01"}]
    made = chat().generate([prompt], max_new_tokens=4)
    word = str(chat().tokenizer.decode([made.token_ids[0][1]]))
    monkeypatch.setattr("interp.analyses.monitoring.answering.MARKS", ((word, "x"),))
    with pytest.raises(ConfigError, match="the answer to prompt 0 opens thinking"):
        answer(chat(), fitted().monitor, prompt, max_new_tokens=4)
    monkeypatch.setattr("interp.analyses.monitoring.answering.MARKS", (("assistant", "x"),))
    with pytest.raises(ConfigError, match="prompt 0 opens thinking"):
        answer(chat(), fitted().monitor, prompt, max_new_tokens=4)
