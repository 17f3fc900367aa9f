"""Claims about wrong answers: planted states, replies that are made up, kinds of what is held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

import interp
from interp.analyses.claims import claims, failures
from interp.analyses.claims.evidence import Setting, judged
from interp.analyses.claims.peeling import SetReader, overlap
from interp.analyses.concepts.generation import Answered
from interp.analyses.concepts.trial import concept_tokens, embeddings
from interp.errors import DataError
from interp.tasks.protocols import PROTOCOLS, Item
from probes.vsa import MAP, Codebook
from tests.noisy import demo

ITEM = Item("France : Paris = Japan :", "Tokyo", "capital", "f", "test", shown=("France", "Paris"))
SIZES = (200, 40, 40)


@pytest.mark.parametrize(
    ("read", "kinds"),
    [
        (("Tokyo",), {"the target"}),
        (("Paris", "Japan"), {"the example", "other words of the context"}),
        (("Rome", "Tokyo"), {"the target", "out of context"}),
        ((), {"nothing"}),
    ],
)
def test_kinds_of_what_is_held(read, kinds):
    assert {name for name, holds in failures.KINDS.items() if holds(ITEM, read)} == kinds


def planted(n: int, seed: int) -> tuple[Codebook, torch.Tensor, list[tuple[str, ...]]]:
    """Sums of two or three embeddings, turned, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    names = tuple(f"c{i}" for i in range(60))
    book = Codebook.from_embeddings(MAP(2048), names, torch.randn(60, 64, generator=generator))
    assert book.embeddings is not None
    rng = np.random.default_rng(seed)
    sets = [tuple(names[at] for at in rng.choice(60, 2 + i % 2, replace=False)) for i in range(n)]
    sums = torch.stack([book.embeddings[book.index(one)].sum(dim=0) for one in sets])
    turned = sums @ torch.randn(64, 64, generator=generator)
    return book, turned + 0.5 * torch.randn(n, 64, generator=generator), sets


def test_sets_are_peeled_to_their_end_and_noise_gives_little():
    book, states, sets = planted(500, 3)
    rows = {"train": list(range(350)), "validation": list(range(350, 420))}
    reader = SetReader.fitted(book, states, sets, rows, seed=0)
    read = reader.read(states[420:])
    precision, recall = overlap(read, sets[420:])
    assert precision.mean() > 0.85 and recall.mean() > 0.9
    # its own end is found: sets of two and of three are read longer and shorter
    assert np.mean([len(one) for one in read[1::2]]) > np.mean([len(one) for one in read[::2]]) + 0.5
    wrong, _ = overlap(read, [*sets[421:], sets[420]])
    assert wrong.mean() < 0.15
    plain, _ = overlap(reader.plainly(states[420:], [len(one) for one in sets[420:]]), sets[420:])
    assert plain.mean() > 0.85


@pytest.fixture
def setting(monkeypatch) -> Setting:
    """A model that always errs, whose states hold most of all what it is going to say."""
    drawn = PROTOCOLS["pair-disjoint"].items(seed=0, sizes=SIZES)
    names = sorted(set(drawn.concepts))
    rows = embeddings(demo(), concept_tokens(demo(), names))
    rows = torch.nn.functional.normalize(rows - rows.mean(dim=0), dim=1)
    told = {item.text: names[(7 * at) % len(names)] for at, item in enumerate(drawn.items)}
    items = {item.text: item for item in drawn.items}

    def states(self: Setting, texts: Sequence[str]) -> torch.Tensor:
        if self.model.weights == "random":
            return torch.randn(len(texts), 64, generator=torch.Generator().manual_seed(7))
        parts = [(*(items[text].shown or ()), items[text].subject, items[text].answer) for text in texts]
        return torch.stack([rows[[names.index(name) for name in one]].sum(dim=0) for one in parts])

    def reply(model: interp.Model, prompts: Sequence[str], layer: int) -> Answered:
        said = tuple(f" {told[text]} ." if at % 10 else " zzz" for at, text in enumerate(prompts))
        held = torch.stack([3 * rows[names.index(told[text])] for text in prompts])
        shown = torch.stack([rows[names.index((items[text].shown or ("",))[0])] for text in prompts])
        return Answered(said, held + shown, shown)

    monkeypatch.setattr(Setting, "states", states)
    monkeypatch.setattr(Setting, "final_states", lambda self, X: torch.roll(X, 1, dims=0))
    monkeypatch.setattr(failures, "answered", reply)
    twin = interp.load(demo().hf, weights="random", tokenizer=demo().tokenizer)
    return Setting(demo(), 20, SIZES, 512, 0, twin)


def test_a_wrong_answer_that_a_state_holds_is_foretold(setting):
    found = judged("failures", failures.failures(setting), seed=0)
    assert found.found.value > 0.9 and found.shown
    assert "40 of 40 prompts were answered wrong, 36 of these with another concept" in found.note
    assert {arm.name for arm in found.controls} >= {"another prompt's state", "a permuted codebook"}
    assert max(arm.estimate.value for arm in found.controls) < 0.2
    held = {(one.when, one.kind): one.share.value for one in found.held if one.reader == failures.OWN}
    assert held["before", "out of context"] > 0.9 and held["before", "the target"] < 0.1
    # after, the state holds the example alone
    assert held["after", "the example"] > 0.9 and held["before", "nothing"] == 0


def test_a_model_without_wrong_answers_gives_no_such_claim(monkeypatch):
    monkeypatch.setattr("interp.analyses.claims.run.DIMENSIONS", (64,))
    given = {"layer": 20, "sizes": (20, 5, 15), "dimension": 256}
    with pytest.raises(DataError, match=r"are answered wrong, .* at least 10 are needed"):
        claims(demo(), ["failures"], **given)
    found = claims(demo(), ["failures", "bindings"], **given)
    assert [one.name for one in found.claims] == ["bindings"]
    assert found.warnings[0].startswith("failures could not be measured: of ")
