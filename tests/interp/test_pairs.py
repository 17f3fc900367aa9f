"""Pairs line up or are refused, and nothing is lost on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from interp.errors import AlignmentError, ConfigError, DataError
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet, own_pairs
from interp.tasks.pairs import PAIR_TASKS, sample
from tests.noisy import demo as bundled
from tests.tiny import build, tiny

GOOD = Pair("w01 w02 w03", "w01 w05 w03", ("w10",), ("w11", "w12"), "swap", "a")


@pytest.fixture(scope="module")
def model() -> Model:
    hf, tokenizer = tiny("llama")
    return load(hf, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def demo() -> Model:
    return bundled()


def test_a_pair_is_tokenized_with_its_answers(model: Model) -> None:
    found = PairSet.build(model, [GOOD])
    assert len(found.clean.token_ids[0]) == len(found.corrupt.token_ids[0])
    position = next(
        i
        for i, (a, b) in enumerate(zip(*(t.token_ids[0] for t in (found.clean, found.corrupt)), strict=True))
        if a != b
    )
    assert found.first_difference == (position,)
    wanted = model.tokenize(["w10", "w11", "w12"]).token_ids
    assert found.answer_ids == ((wanted[0][-1],),)
    assert found.foil_ids == ((wanted[1][-1], wanted[2][-1]),)
    assert repr(found).startswith("PairSet(1 swap,")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"corrupt": "w01 w05 w06 w03"},
            AlignmentError,
            r"pair 0: clean has \d tokens, corrupt has \d; they first differ at token \d \('w02' / 'w05'\)",
        ),
        ({"foils": ("w10",)}, DataError, "the answer 'w10' and the foil 'w10' are the same"),
        ({"foils": ()}, DataError, "pair 0 has no foil"),
        ({"answers": (" ",)}, DataError, "pair 0 has no answer, or an empty one"),
    ],
)
def test_what_does_not_line_up_is_refused_or_dropped(
    model: Model, change: dict[str, object], error: type[Exception], message: str
) -> None:
    from dataclasses import replace

    bad = replace(GOOD, **change)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        PairSet.build(model, [bad])
    kept = PairSet.build(model, [bad, GOOD], misaligned="drop")
    assert len(kept) == 1 and kept.notes == ("1 of 2 pairs line up for this tokenizer",)
    with pytest.raises(DataError, match="none of 1 pair lines up"):
        PairSet.build(model, [bad], misaligned="drop")


def test_equal_first_tokens_are_refused(model: Model) -> None:
    other = Pair("w01", "w02", ("w10 w11",), ("w10 w12",))
    with pytest.raises(DataError, match="start with the same token"):
        PairSet.build(model, [other])


def test_a_prompt_may_fill_the_context(model: Model) -> None:
    """The answer is the token after the prompt, which the model gives but need not read."""
    size = model.max_length
    assert size is not None
    full = [" ".join([*["w07"] * (size - 1), end]) for end in ("w01", "w02")]
    found = PairSet.build(model, [Pair(full[0], full[1], ("w03",), ("w04",))])
    short = PairSet.build(model, [Pair("w07 w01", "w07 w02", ("w03",), ("w04",))])
    assert found.lengths == (size,)
    assert (found.answer_ids, found.foil_ids) == (short.answer_ids, short.foil_ids)
    assert bool(model.logits(found.clean).isfinite().all())
    with pytest.raises(DataError, match=f"reads at most {size}"):
        PairSet.build(model, [Pair(f"{full[0]} w01", f"{full[1]} w01", ("w03",), ("w04",))])


def test_swapping_twice_is_nothing_and_swapping_once_is_something(model: Model) -> None:
    found = PairSet.build(model, [GOOD, Pair("w01", "w02", ("w03",), ("w04",), "null")])
    once, twice = found.swap(), found.swap().swap()
    assert twice.pairs == found.pairs and twice.answer_ids == found.answer_ids
    assert once.clean.token_ids == found.corrupt.token_ids
    assert once.answer_ids[0] == found.foil_ids[0] and once.answer_ids[1] == found.answer_ids[1]


def test_a_file_comes_back_as_it_was(model: Model, tmp_path: Path) -> None:
    found = PairSet.build(model, [GOOD, GOOD])
    again = PairSet.from_jsonl(model, found.save(tmp_path / "pairs.jsonl"))
    assert again.pairs == found.pairs and again.foil_ids == found.foil_ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no pairs"),
        ("{", "line 1 is not JSON"),
        ('{"clean": "a", "corrupt": "b", "answer": "c"}', "line 1 has no 'foil'"),
        ("[1]", "line 1 is not an object"),
        ("[" * 10**5, "line 1 is nested too deeply"),
        ('{"clean": ' + "9" * 5000 + "}", "line 1 cannot be read: Exceeds the limit"),
        (
            '{"clean": "a", "clean": "b", "corrupt": "b", "answer": "c", "foil": "d"}',
            "'clean' is there twice",
        ),
        (
            '{"clean": 7, "corrupt": 8, "answer": "c", "foil": "d"}',
            "clean 7 is neither a text in quotes nor a list of messages",
        ),
        (
            '{"clean": ["a"], "corrupt": "b", "answer": "c", "foil": "d"}',
            "clean .*is neither a text in quotes nor a list",
        ),
        ('{"clean": "a", "corrupt": "b", "answer": 0, "foil": "d"}', "answer 0 is neither a text nor"),
        (
            '{"clean": "a", "corrupt": "b", "answer": "c", "foil": "d", "group": "\\ud800"}',
            "line 1 holds half of a surrogate pair",
        ),
    ],
)
def test_a_wrong_file_is_named(model: Model, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        PairSet.from_jsonl(model, tmp_path / "p.jsonl")
    with pytest.raises(DataError, match=r"'.*q\.jsonl' does not exist\. Did you mean 'p\.jsonl'"):
        PairSet.from_jsonl(model, tmp_path / "q.jsonl")
    with pytest.raises(DataError, match="is a folder; give a file"):
        PairSet.from_jsonl(model, tmp_path)


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_marks_and_line_ends_of_other_systems_change_nothing(
    model: Model, tmp_path: Path, mark: str, end: str
) -> None:
    line = json.dumps(
        {"clean": "w01 w02", "corrupt": "w01 w05", "answer": "w10", "foil": "w11", "group": None}
    )
    (tmp_path / "p.jsonl").write_bytes((mark + end.join([line, "", line, ""])).encode())
    found = PairSet.from_jsonl(model, tmp_path / "p.jsonl")
    assert found.pairs == (Pair("w01 w02", "w01 w05", ("w10",), ("w11",)),) * 2
    (tmp_path / "p.jsonl").write_bytes(line.encode("utf-16"))
    with pytest.raises(DataError, match=r"is not UTF-8 \(byte 0 cannot be read\); save it as UTF-8"):
        PairSet.from_jsonl(model, tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("task", "kind"), [(name, kind) for name, row in PAIR_TASKS.items() for kind in row.kinds]
)
def test_every_task_gives_pairs_that_line_up(demo: Model, task: str, kind: str) -> None:
    found = sample(demo, task, 16, counterfactual=kind)
    assert len(found) >= 8
    assert all(len(a) == len(b) for a, b in zip(found.clean.token_ids, found.corrupt.token_ids, strict=True))
    assert all(pair.clean != pair.corrupt for pair in found)
    assert all(not set(a) & set(f) for a, f in zip(found.answer_ids, found.foil_ids, strict=True))
    assert sample(demo, task, 16, counterfactual=kind).pairs == found.pairs
    clean, corrupt = demo.logits(found.clean), demo.logits(found.corrupt)
    prefer = [
        [bool(logits[row, list(a)].max() > logits[row, list(f)].max()) for logits in (clean, corrupt)]
        for row, (a, f) in enumerate(zip(found.answer_ids, found.foil_ids, strict=True))
    ]
    assert all(right for right, _ in prefer)
    changed = sum(not right for _, right in prefer) / len(prefer)
    if all(pair.kind == "null" for pair in found):
        assert changed < 0.2  # nothing that matters differs
    elif task not in ("greater-than", "indirect-object") or kind == "flip":
        assert changed > 0.8


def test_at_least_two_counterfactuals_each() -> None:
    assert all(len(row.kinds) >= 2 for row in PAIR_TASKS.values())


def test_pairs_say_what_they_are(demo: Model, tmp_path: Path) -> None:
    found = sample(demo, "capitals", 6, only_correct=False)
    told = found[:4].described
    assert (told["name"], told["n"], told["groups"]) == ("capitals", 4, len(set(found[:4].groups)))
    assert "the capital of" in told["description"]
    assert told["fingerprint"] == found[:4].swap().swap().described["fingerprint"]
    assert told["fingerprint"] != found[:5].described["fingerprint"] != found[:4].swap().described
    read = PairSet.from_jsonl(demo, found.save(tmp_path / "mine.jsonl"))
    assert read.described == found.described | {"name": "mine", "description": ""}
    assert PairSet.build(demo, list(found)).described["name"] == "own pairs"


def test_what_there_is_not_is_refused(demo: Model) -> None:
    with pytest.raises(ConfigError, match=r"task 'capital' asked; .* Did you mean 'capitals'"):
        sample(demo, "capital")
    with pytest.raises(ConfigError, match="counterfactual 'x' asked; those of capitals are: subject"):
        sample(demo, "capitals", counterfactual="x")
    assert sample(demo, "ioi", 4).pairs == sample(demo, "indirect-object", 4).pairs


@pytest.fixture(scope="module")
def bytes_model() -> Model:
    """A tiny Llama with a byte-pair tokenizer that keeps blanks with words, as that of GPT-2 does."""
    rules = Tokenizer(models.BPE())
    word = Regex(r" ?\d{2}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s")
    rules.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(word, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rules.decoder = decoders.ByteLevel()
    text = ["Paris Tokyo Paris\nTokyo\n", "(A) (B)", "the year 1741 1756 41 56", "Paris Tokyo"] * 9
    text += [f"{n:02d} {n:02d}" for n in range(100)] * 3
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|end|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator(text, trainer)
    words = PreTrainedTokenizerFast(
        tokenizer_object=rules, eos_token="<|end|>", additional_special_tokens=["<|assistant|>"]
    )
    return load(build("llama", vocab_size=len(words)), tokenizer=words)


@pytest.mark.parametrize(
    ("clean", "corrupt", "joint", "token"),
    [
        ("the capital is", "the capitol is", "auto", "\u0120Paris"),
        ("the capital is\n", "the capitol is\n", "auto", "Paris"),
        ("the capital is (", "the capitol is (", "auto", "Paris"),
        ('the capital is "', 'the capitol is "', "auto", "Paris"),
        ('he said "so"', 'he said "no"', "auto", "\u0120Paris"),
        ("the capital is:", "the capitol is:", "auto", "\u0120Paris"),
        ("the capital is ", "the capitol is ", "auto", "Paris"),
        ("capital<|assistant|>", "capitol<|assistant|>", "auto", "Paris"),
        ("the capital is:", "the capitol is:", "direct", "Paris"),
        ("the capital is\n", "the capitol is\n", "blank", "\u0120Paris"),
    ],
)
def test_an_answer_is_the_token_the_text_goes_on_with(
    bytes_model: Model, clean: str, corrupt: str, joint: Any, token: str
) -> None:
    pair = Pair(clean, corrupt, ("Paris",), ("Tokyo",), joint=joint)
    found = PairSet.build(bytes_model, [pair])
    assert bytes_model.tokenizer is not None
    assert bytes_model.tokenizer.convert_ids_to_tokens(found.answer_ids[0][0]) == token
    written = " Paris" if token.startswith("\u0120") else "Paris"
    if not clean.endswith(" "):  # the oracle: the tokenizer's own reading of the text as it goes on
        whole = bytes_model.tokenizer(clean + written)["input_ids"]
        assert whole[len(found.clean.token_ids[0])] == found.answer_ids[0][0]


def test_every_prompt_decides_for_itself_and_a_written_blank_is_kept(bytes_model: Model) -> None:
    made = [
        Pair("Tokyo", "Paris", ("Paris",), ("Tokyo",)),
        Pair("Tokyo\n", "Paris\n", ("Paris",), ("Tokyo",)),
    ]
    first, second = PairSet.build(bytes_model, made).answer_ids
    assert first != second
    written = [Pair("Tokyo:", "Paris:", ("\nParis",), ("\nTokyo",))]
    with pytest.raises(DataError, match="start with the same token"):
        PairSet.build(bytes_model, written)


def test_years_go_on_with_their_last_digits(bytes_model: Model) -> None:
    found = sample(bytes_model, "greater-than", 4, only_correct=False)
    assert bytes_model.tokenizer is not None
    for pair, ids in zip(found.pairs, found.answer_ids, strict=True):
        assert bytes_model.tokenizer.convert_ids_to_tokens(list(ids)) == list(pair.answers)


def test_words_that_the_tokenizer_does_not_know_are_refused_or_said(model: Model) -> None:
    with pytest.raises(DataError, match="does not know the word 'zebra'"):
        PairSet.build(model, [replace(GOOD, answers=("zebra",))])
    strange = replace(GOOD, clean="w01 zebra w03", corrupt="w01 w02 w03")
    assert PairSet.build(model, [GOOD, strange]).notes == (
        "1 of 2 pairs hold words that the tokenizer does not know",
    )
    assert len(PairSet.build(model, [GOOD, strange], misaligned="drop")) == 1


@pytest.mark.parametrize("content", ['{"answer": 7}', '{"answer": [7]}', '{"joint": "glued"}'])
def test_a_line_of_another_kind_is_named(model: Model, tmp_path: Path, content: str) -> None:
    row = {"clean": "w01", "corrupt": "w02", "answer": "w10", "foil": "w11"} | json.loads(content)
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="line 1"):
        PairSet.from_jsonl(model, tmp_path / "p.jsonl")


def test_own_pairs_are_taken_as_a_user_has_them(model: Model, tmp_path: Path) -> None:
    row = {"clean": "w01 w02", "corrupt": "w03 w02", "answer": "w05", "foil": "w06"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    table = pandas.DataFrame([{**row, "group": float("nan")}])
    whole = PairSet.build(model, [Pair("w01 w02", "w03 w02", ("w05",), ("w06",))])
    for given in (whole, tmp_path / "p.jsonl", str(tmp_path / "p.jsonl"), [row], table, list(whole.pairs)):
        found = own_pairs(model, given)
        assert found.pairs == whole.pairs and found.clean.token_ids == whole.clean.token_ids
    with pytest.raises(DataError, match="line 2 has no 'foil'"):
        own_pairs(model, [row, {**row, "foil": None}])
    with pytest.raises(DataError, match="a dict given"):
        own_pairs(model, row)
