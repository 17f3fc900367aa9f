"""On a real model a translator reads answers that it never saw, where the logit lens reads few."""

from __future__ import annotations

import random

import pytest
import torch

from interp.analyses.concepts.translated import Names
from interp.lenses import LogitLens
from interp.lenses.texts import prepared
from interp.lenses.translator import fitted
from interp.models import Model
from interp.tasks.few_shot import prompt, shots
from interp.tasks.world import Fact, load_world

pytestmark = pytest.mark.real
LAYER = 26
RELATIONS = ("capital", "third_person", "superlative", "comparative", "plural")


def prompts() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Prompts to learn from and to test on, each with its answer; no fact or answer is in both."""
    found: tuple[list[tuple[str, str]], ...] = ([], [])
    draws = random.Random(0)
    for relation in RELATIONS:
        facts = draws.sample(load_world().facts[relation], 52)
        answers = sorted({fact.object for fact in facts})
        unseen = set(answers[::3])
        parts: tuple[list[Fact], ...] = tuple(
            [fact for fact in facts if (fact.object in unseen) == held] for held in (False, True)
        )
        for part, into in zip(parts, found, strict=True):
            for fact in part:
                if shown := shots(fact, part, draws):
                    into.append((prompt(shown, fact.subject), fact.object))
    return found[0], found[1]


@pytest.mark.slow
def test_answers_that_were_never_trained_are_read_where_the_logit_lens_reads_nothing(
    smollm2: Model,
) -> None:
    train, test = prompts()
    answers = sorted({answer for _, answer in (*train, *test)})
    learned = " ".join(text for text, _ in train).split()
    assert not {answer for _, answer in test} & set(learned)
    lens = fitted(smollm2, [LAYER], prepared(smollm2, [text for text, _ in train], n_tokens=0))
    names = Names.of(smollm2, answers)
    states = smollm2.capture([text for text, _ in test], [f"resid_post.{LAYER}", "resid_post.29"], "last")

    def named(logits: torch.Tensor) -> list[bool]:
        best = names.scores(logits).argmax(dim=1).tolist()
        return [answers[at] == answer for at, (_, answer) in zip(best, test, strict=True)]

    right = named(smollm2.unembed(states["resid_post.29"]))
    state = states[f"resid_post.{LAYER}"]
    read, raw = named(lens.logits(state, LAYER)), named(LogitLens.of(smollm2).logits(state, LAYER))
    known = [at for at, one in enumerate(right) if one]
    shares = [sum(arm[at] for at in known) / len(known) for arm in (read, raw)]
    assert len(known) >= 40 and shares[0] > 0.75 and shares[1] < 0.35, (len(known), shares)
    shuffled = state[torch.randperm(len(state), generator=torch.Generator().manual_seed(0))]
    others = named(lens.logits(shuffled, LAYER))
    assert sum(others[at] for at in known) / len(known) < 0.1
