"""Differential sensitivity: toys that use, notice or ignore one word, areas by a loop, and chance."""

from __future__ import annotations

import copy
import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import quantization
from interp.analyses import sensitivity
from interp.analyses.small_edits import Edited, deletions, edited_prompts, typo
from interp.analyses.small_edits.run import Change, Told, conclusion
from interp.errors import ConfigError, DataError
from interp.models import Model
from interp.models.loading import untrained_model
from interp.results import FindingsResult
from tests.noisy import demo
from tests.tiny import build, tokenizer

ITEMS = [
    Edited(
        f"w{i:02d} w50 w40", f"w{i:02d} w50 w41", (f"w{i:02d} w51 w40",), ("w30",), ("w31",), group=f"g{i}"
    )
    for i in range(12)
]


def toy(kind: str) -> Model:
    """A model whose blocks write nothing: its answer and its state are those of the last word alone."""
    hf: Any = copy.deepcopy(build("llama"))
    with torch.no_grad():
        for layer in hf.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        hf.model.norm.weight.fill_(1.0)
        embedding, head = hf.model.embed_tokens.weight, hf.lm_head.weight
        embedding[:, :2], head[:] = 0.0, 0.0
        head[34, 0], head[35, 0] = 1.0, -1.0  # w30 and w31 read the first direction and nothing else
        embedding[45] = embedding[44]  # w41 is w40
        embedding[44:46, 0] = 1.0
        if kind == "used":
            embedding[45, 0] = -1.0
        if kind == "noticed":
            embedding[45, 1] = 3.0
    return interp.load(hf, tokenizer=tokenizer())


@cache
def of_toy(kind: str) -> FindingsResult:
    return sensitivity(toy(kind), items=ITEMS)


def finding(result: FindingsResult, name: str) -> Any:
    return next(one for one in result.findings() if one.name == name)


def test_a_toy_that_ignores_a_word_is_not_said_to_notice_it() -> None:
    found = of_toy("ignored")
    assert finding(found, "answer kept by benign edits").excess == 0
    assert "is not shown (DS 0.00" in found.verdict()
    assert "12 of 12 pivotal edits leave the answer" in found.verdict()
    assert found.verdict().endswith("noticing is not shown.")
    assert set(found.table("noticed")["ignored"]) == {0.5}


def test_a_toy_that_moves_but_answers_alike_notices_and_does_not_use() -> None:
    found = of_toy("noticed")
    assert finding(found, "answer kept by benign edits").excess == 0
    assert "noticed but not used: first at layer 0" in found.verdict()
    deleted = finding(found, "answer kept, 50% of the words deleted (rounded up)")
    assert deleted.excess == 0, "who does not read the prompt keeps its answer, and that is no strength"
    lengths = [len(one.clean.split()) for one in ITEMS]
    real = np.mean([-(-n // 2) / n for n in lengths])
    assert f"on average {real:.0%} of the words" in deleted.about
    assert set(found.table("noticed")["ignored"]) == {1.0}


def test_a_toy_that_reads_the_word_uses_it() -> None:
    found = of_toy("used")
    assert finding(found, "answer kept by benign edits").excess == 1
    assert finding(found, "the edit's own answer is taken").excess == 1
    assert "more often than benign ones (DS 1.00" in found.verdict()
    assert "too few to ask" in found.verdict()
    for share in ("10%", "50%"):  # the last word stays, and nothing else is read
        assert finding(found, f"answer kept, {share} of the words deleted (rounded up)").value == 1


def test_areas_are_those_of_a_loop_and_weights_count_prompts() -> None:
    rng = np.random.default_rng(0)
    owner = np.array([0, 0, 1, 2, 3, 3, 4])
    pivotal, benign = rng.integers(0, 4, 5).astype(float), rng.integers(0, 4, 7).astype(float)
    told = Told.of((np.arange(5), pivotal), (owner, benign), 5)
    for weights in (np.ones(5), np.array([0.0, 2, 1, 0, 3])):
        total = over = 0.0
        for i in range(5):
            for j, at in enumerate(owner):
                w = weights[i] * weights[at] / (owner == at).sum()
                total += w
                over += w * (1.0 if pivotal[i] > benign[j] else 0.5 if pivotal[i] == benign[j] else 0.0)
        assert told(weights) == pytest.approx(over / total)
    assert Told.of((np.array([], int), pivotal[:0]), (owner, benign), 5)(np.ones(5)) == 0.5


def drawn(rng: np.random.Generator, n: int, shift: float, *, left: float = 0.5) -> tuple[Change, Change]:
    """Edits of both kinds from one distribution, the pivotal ones further by a shift."""

    def change(more: float) -> Change:
        far = rng.normal(size=(4, n)) * 0.3 + rng.normal(size=n) + more
        return Change(np.arange(n), rng.random(n) < left, far, rng.random(n))

    return change(shift), change(0.0)


def said(rng: np.random.Generator, shift: float, n: int = 40) -> str:
    pivotal, benign = drawn(rng, n, shift)
    groups, rows = tuple(f"g{i}" for i in range(n)), []
    for layer in range(4):
        a, b = ((one.owner[one.kept], one.far[layer][one.kept]) for one in (pivotal, benign))
        found = Told.of(a, b, n).estimate(groups, 1 - 0.05 / 4)
        low, high = found.interval.low, found.interval.high
        rows.append(
            {
                "layer": layer,
                "ignored": found.value,
                "ignored_low": low,
                "ignored_high": high,
                "ignored_control": 0.5,
            }
        )
    return conclusion(pivotal, benign, groups, rows)


def test_chance_is_rarely_called_a_finding() -> None:
    rng = np.random.default_rng(1)
    texts = [said(rng, 0.0) for _ in range(120)]
    assert sum("more often than benign ones (DS" in text for text in texts) <= 6
    assert sum("noticed but not used" in text for text in texts) <= 6
    assert sum("noticed but not used" in said(rng, 2.0) for _ in range(20)) >= 18


def test_typos_spare_words_and_deletions_are_nested() -> None:
    rng = random.Random(0)
    for _ in range(40):
        found = typo("the capital of France is near", {"France"}, rng)
        assert found is not None
        words = found.split()
        assert words[0] == "the" and words[3] == "France" and words[-1] == "near"
        assert sorted(words[1]) == sorted("capital") and words[1][0] == "c" and words[1] != "capital"
    assert typo("it is of a", set(), rng) is None
    text = "a b c d e f g h i j"
    steps = [row.split() for row in deletions(text, (0.1, 0.3, 0.5), rng)]
    assert [len(row) for row in steps] == [9, 7, 5]
    assert all(row[-1] == "j" for row in steps)
    assert set(steps[2]) < set(steps[1]) < set(steps[0]) < set(text.split())


def test_prompts_depend_on_the_seed_and_have_both_edits() -> None:
    items = edited_prompts(demo(), 16, 0)
    assert items == edited_prompts(demo(), 40, 0)[:16] and items != edited_prompts(demo(), 16, 1)
    assert {one.task for one in items} == {"facts", "indirect-object", "agreement", "addition"}
    assert all(one.benign and len({one.clean, one.pivotal, *one.benign}) > 2 for one in items)


def test_the_bundled_model_uses_what_its_untrained_twin_does_not() -> None:
    found = sensitivity(demo(), n=24, layers="23")
    assert finding(found, "answer kept by benign edits").excess > 0.9
    assert finding(found, "edits told apart at layer 23").excess > 0.2
    twin = sensitivity(untrained_model(demo()), n=24, layers="23")
    assert "is not shown (DS" in twin.verdict()


def test_the_conclusion_is_kept_and_stands_in_a_comparison(tmp_path: Any) -> None:
    def run(model: Model, *, reference: Any = None) -> FindingsResult:
        return sensitivity(model, reference=reference, items=ITEMS)

    kept = interp.results.load(of_toy("used").save(tmp_path / "r"))
    assert kept.verdict() == of_toy("used").verdict()
    both = quantization.compare({"edits": run}, toy("used"), [], other=toy("noticed"), noise=("layout",))
    shown = both.table("conclusions").set_index("scheme")["conclusion"]
    assert "too few to ask" in shown["reference"] and "noticed but not used" in shown.iloc[1]
    assert both.judgement(both.schemes[0], "answer kept by benign edits").verdict == "lost"


def test_what_cannot_be_asked_is_refused() -> None:
    model = toy("used")
    with pytest.raises(ConfigError, match="n=1 prompts asked"):
        sensitivity(model, n=1)
    with pytest.raises(DataError, match="has no benign edit"):
        sensitivity(model, items=[Edited("w01 w02", "w01 w03", (), ("w04",), ("w05",))])
    with pytest.raises(DataError, match="are needed"):
        sensitivity(model, items=ITEMS[:1])
    with pytest.raises(DataError, match="read other tokens"):
        sensitivity(model, items=ITEMS[1:], reference=of_toy("used"))
    with pytest.raises(ConfigError, match="give one of 'sensitivity'"):
        sensitivity(model, items=ITEMS, reference=interp.analyses.geometry(model, prompts=["w01 w02"] * 4))
