"""``interp generate``: what is printed and stored is what the library writes; a crash costs one part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp import results, runs
from interp.models.generated import Generation
from interp.store import ActivationStore
from tests.interp.cli.conftest import Call

ONE = ("generate", "--model", "TINY", "w01 w02 w03", "--max-new-tokens", "6")
MANY = (
    "generate",
    "--model",
    "TINY",
    "--data",
    "DATA",
    "--limit",
    "7",
    "--max-new-tokens",
    "4",
    "--out",
    "x",
)
DRAWN = (
    "--temperature",
    "0.9",
    "--top-k",
    "20",
    "--seed",
    "3",
    "--capture",
    "resid_post.1,embed",
    "--tokens",
    "new",
)


def test_one_prompt_is_printed_while_it_is_written(call: Call, place: Path) -> None:
    model = interp.load(place / "tiny")
    text = model.generate(["w01 w02 w03"], max_new_tokens=6).texts[0]
    answer = call(*ONE, "--out", "x")
    assert answer.code == 0 and answer.out.splitlines()[0] == text
    assert "6 tokens, chosen greedily: 1 reached the largest number of tokens" in answer.out
    runs.verify("x")
    stop = text.split()[3]
    cut = call(*ONE, "--stop", stop, "--json", "--out", "y").envelope["data"]
    assert cut["tables"]["texts"]["rows"][0]["text"] == text[: text.index(stop)]
    assert cut["tables"]["texts"]["rows"][0]["ends"] == "stop"
    assert call("show", "x").code == 0 and call("report", "x").code == 0


def test_many_prompts_in_parts_are_what_the_library_writes(
    call: Call, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after the first of three parts, and resumed."""
    monkeypatch.setattr("interp.store.SHARD", 3)
    append, count = ActivationStore.append, iter(range(100))

    def interrupting(self: ActivationStore, acts: interp.Activations) -> int:
        if next(count) == 1:
            raise KeyboardInterrupt
        return append(self, acts)

    with monkeypatch.context() as broken:
        broken.setattr(ActivationStore, "append", interrupting)
        assert call(*MANY, *DRAWN).code == 130
    answer = call(*MANY, *DRAWN, "--resume")
    assert answer.code == 0 and "resuming: 3 of 7 prompts" in answer.err
    runs.verify("x")
    made: Any = results.load("x/result")
    assert isinstance(made, Generation) and made.activations is None
    model = interp.load(place / "tiny")
    sample = interp.Sampling(0.9, top_k=20, seed=3)
    wanted = model.generate(
        list(made.prompts), max_new_tokens=4, sample=sample, capture="resid_post.1", tokens="new"
    )
    assert (made.token_ids, made.texts) == (wanted.token_ids, wanted.texts)
    stored = ActivationStore("x").load()
    assert stored.positions == wanted.activations.positions
    assert stored["resid_post.1"].allclose(wanted.activations["resid_post.1"], atol=1e-5)


WRONG = {
    "nothing": (("generate", "--model", "TINY"), "no prompt; give one"),
    "both": ((*MANY, "w01"), "give a prompt, or many by --task or --data, not both"),
    "top-p": ((*ONE, "--temperature", "1", "--top-p", "90"), "top_p 90.0 asked; use a probability above 0"),
    "cold": ((*ONE, "--top-k", "5"), "so top_k=5 changes nothing; leave it out"),
    "number": (
        (*ONE, "--temperature", "warm"),
        "--temperature 'warm' is not allowed; allowed: a number from 0",
    ),
    "selector": ((*ONE, "--capture", "embed", "--tokens", "answr"), "did you mean 'answer'"),
    "template": ((*ONE, "--chat"), "the tokenizer has no chat template"),
    "plan": ((*ONE, "--dry-run"), "--dry-run has no plan for generate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name: str, call: Call) -> None:
    arguments, message = WRONG[name]
    answer = call(*arguments, *(() if "--out" in arguments else ("--out", "x")))
    assert answer.code in (2, 3) and message in answer.err


def test_a_part_in_which_nothing_is_selected_is_empty(
    call: Call, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = interp.load(place / "tiny")
    assert call(*MANY[:-1], "free").code == 0
    free: Any = results.load("free/result")
    texts = list(free.prompts)
    whole = [f"{a} {b}".split() for a, b in zip(texts, free.texts, strict=True)]
    others = {word for number, words in enumerate(whole) if number != 4 for word in words}
    word = next(one for one in whole[4] if one not in others)  # that only the second of three parts has
    monkeypatch.setattr("interp.store.SHARD", 3)
    answer = call(*MANY, "--capture", "resid_post.1", "--tokens", f'text:"{word}"')
    assert answer.code == 0, answer.err
    acts = ActivationStore("x").load()
    assert [bool(row) for row in acts.positions] == [number == 4 for number in range(7)]
    wanted = model.generate(texts, max_new_tokens=4, capture="resid_post.1", tokens=f'text:"{word}"')
    torch.testing.assert_close(acts["resid_post.1"], wanted.activations["resid_post.1"])
    nothing = call(*MANY[:-1], "y", "--capture", "resid_post.1", "--tokens", 'text:"nowhere"')
    assert nothing.code != 0 and "'text:\"nowhere\"' selects no token in any of 7 prompts" in nothing.err
