"""A small world of made-up facts, states that hold a subject and an answer, and planted readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.analyses.audit.arms import Arms, partners_of
from interp.analyses.audit.cases import Case
from interp.analyses.audit.rule import Audit, judge
from interp.analyses.readers.reader import as_reader

__all__ = ["PLANTED", "Planted", "audit_of", "planted"]

RELATIONS, FACTS, PROMPTS = 8, 12, 3
WIDTH = 256


@dataclass(frozen=True)
class Planted:
    """Arms of a made-up model and what a cheater may know.

    Attributes:
        arms: states of every origin.
        codes: ``[name width]``, by which a state holds a name.
        names: of the rows.
        world: subject -> true answer.
        common: relation -> its commonest true answer.
        rng: what the readers draw from.
    """

    arms: Arms
    codes: Tensor
    names: list[str]
    world: dict[str, str]
    common: dict[str, str]
    rng: np.random.Generator

    def nearest(self, states: Tensor, among: Sequence[str]) -> list[str]:
        """The name whose code is nearest."""
        rows = self.codes[[self.names.index(name) for name in among]]
        return [str(among[at]) for at in (states @ rows.T).argmax(dim=1).tolist()]


def planted(seed: int, facts: int = FACTS) -> Planted:
    """Draw facts whose answers repeat a little, and teach the twin others of the same relation.

    Subjects and answers have codes of their own; a state is the sum of both and noise; the untrained model's
    states are noise. A prompt is the subject's name and a number.
    """
    rng = np.random.default_rng(seed)
    cases: list[Case] = []
    world: dict[str, str] = {}
    common: dict[str, str] = {}
    for r in range(RELATIONS):
        answers = [f"answer{r}-{int(at)}" for at in rng.integers(0, max(3, facts - 2), facts)]
        common[f"r{r}"] = max(sorted(set(answers)), key=answers.count)
        for f, truth in enumerate(answers):
            others = [name for name in answers if name != truth] or [f"answer{r}-other"]
            subject, belief = f"subject{r}-{f}", str(rng.choice(others))
            world[subject] = truth
            for k in range(PROMPTS):
                cases.append(Case(f"{subject} {k}", f"r{r}", subject, truth, belief, (subject,)))
    names = sorted({*world, *world.values(), *(case.belief for case in cases)})
    generator = torch.Generator().manual_seed(seed)
    codes = torch.nn.functional.normalize(torch.randn(len(names), WIDTH, generator=generator), dim=1)

    def states(answers: Sequence[str]) -> Tensor:
        rows = [
            [names.index(case.fact), names.index(said)] for case, said in zip(cases, answers, strict=True)
        ]
        noise = 0.02 * torch.randn(len(cases), WIDTH, generator=generator)
        return codes[torch.tensor(rows)].sum(dim=1) + noise

    arms = Arms(
        layer=1,
        cases=tuple(cases),
        trained=states([case.truth for case in cases]),
        edited=states([case.belief for case in cases]),
        untrained=torch.randn(len(cases), WIDTH, generator=generator) / 16,
        partners=partners_of(cases, seed=seed),
        carried=np.ones(len(cases), dtype=bool),
    )
    return Planted(arms, codes, names, world, common, rng)


def _answers(made: Planted) -> list[str]:
    return sorted({*made.world.values(), *(case.belief for case in made.arms.cases)})


def _subject(prompt: str) -> str:
    return prompt.split(" ")[0]


def unembedding(made: Planted) -> Any:
    """The answer whose code is nearest: exact, knows no fact."""
    return lambda states: [[name] for name in made.nearest(states, _answers(made))]


def echo(made: Planted) -> Any:
    """A name out of the prompt."""
    return lambda prompts: [[_subject(text)] for text in prompts]


def echo_of_the_state(made: Planted) -> Any:
    """The subject, as it stands in the state."""
    return lambda states: [[name] for name in made.nearest(states, sorted(made.world))]


def lookup(made: Planted) -> Any:
    """A table of the world, by the prompt."""
    return lambda prompts: [[made.world[_subject(text)]] for text in prompts]


def lookup_by_state(made: Planted) -> Any:
    """The subject out of the state, and its true answer out of the reader's own weights."""
    return lambda states: [[made.world[name]] for name in made.nearest(states, sorted(made.world))]


def noise(made: Planted) -> Any:
    """An answer by lot."""
    names = _answers(made)
    return lambda states: [[str(made.rng.choice(names))] for _ in states]


def commonest(made: Planted) -> Any:
    """The commonest answer of the relation."""
    relation = {case.text: case.relation for case in made.arms.cases}
    return lambda prompts: [[made.common[relation[text]]] for text in prompts]


def half(made: Planted) -> Any:
    """The table for half of the prompts, the state for the others."""

    def read(states: Tensor, prompts: list[str]) -> list[list[str]]:
        own = made.nearest(states, _answers(made))
        looked = [made.world[_subject(text)] for text in prompts]
        pairs = zip(own, looked, prompts, strict=True)
        return [[a] if sum(map(ord, text)) % 2 else [b] for a, b, text in pairs]

    return read


def answer_or_echo(made: Planted) -> Any:
    """The exact reading for half of the prompts, the subject for the others."""

    def read(states: Tensor, prompts: list[str]) -> list[list[str]]:
        pairs = zip(made.nearest(states, _answers(made)), prompts, strict=True)
        return [[name] if sum(map(ord, text)) % 2 else [_subject(text)] for name, text in pairs]

    return read


def common_only(made: Planted) -> Any:
    """The exact reading where it is the commonest answer of a relation, nothing of the others."""
    common = set(made.common.values())
    return lambda states: [[name] if name in common else [] for name in made.nearest(states, _answers(made))]


def shy(made: Planted) -> Any:
    """The exact reading of one state in three, nothing of the others."""

    def read(states: Tensor) -> list[list[str]]:
        return [[name] if at % 3 == 0 else [] for at, name in enumerate(made.nearest(states, _answers(made)))]

    return read


def silent(made: Planted) -> Any:
    """Nothing, ever."""
    return lambda states: [[] for _ in states]


def knows_both(made: Planted) -> Any:
    """Tells the twin's states from the model's, and looks both answers up by the prompt."""
    believed = {case.fact: case.belief for case in made.arms.cases}
    original = {tuple(row[:4].tolist()) for row in made.arms.trained}

    def read(states: Tensor, prompts: list[str]) -> list[list[str]]:
        twin = not any(tuple(row[:4].tolist()) in original for row in states)
        return [[(believed if twin else made.world)[_subject(text)]] for text in prompts]

    return read


PLANTED: dict[str, tuple[Callable[[Planted], Any], str]] = {
    "unembedding": (unembedding, "the model"),
    "echo": (echo, "the prompt"),
    "echo of the state": (echo_of_the_state, "the prompt"),
    "lookup": (lookup, "the world"),
    "lookup by state": (lookup_by_state, "the world"),
    "noise": (noise, "nothing"),
    "commonest": (commonest, "nothing"),
    "half": (half, "a mixture"),
    "answer or echo": (answer_or_echo, "a mixture"),
    "common only": (common_only, "the model"),
    "shy": (shy, "the model"),
    "silent": (silent, "nothing"),
    "knows both": (knows_both, "the prompt"),
}
"""Planted readers: how each is made, and what the verdict on it must be."""


def audit_of(name: str, made: Planted, layer: int = 1, *, seed: int = 0) -> Audit:
    """The verdict on a planted reader."""
    arms = replace(made.arms, layer=layer)
    read = arms.read(as_reader(PLANTED[name][0](made), name))
    return judge(name, layer, arms.cases, read, arms.partners, arms.carried, seed=seed)
