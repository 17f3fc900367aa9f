"""Claim: which things belong to the entity that is asked about, when several stand in one context."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.claims.bindings import mapped, scaled
from interp.analyses.claims.evidence import Evidence, Setting
from interp.analyses.concepts.trial import concept_tokens
from interp.tasks.world import load_world
from probes.controls import bag_of_tokens
from probes.vsa import MAP, Codebook, structures

__all__ = ["ROLES", "Told", "entities"]

N_NAMES, N_FILLERS, COUNTS = 10, 12, (2, 3)
ROLES = ("what it has", "where it is")
SENTENCE, QUESTION = "{} has the {} and is in the {}.", "{} has the"
Right = Int[np.ndarray, " test"]
Rows = list[int]


@dataclass(frozen=True)
class Told:
    """A context of several entities, each with a thing and a place, and a question about one of them.

    Attributes:
        entities: name, thing and place of each, in the order of the context.
        asked: which of them the question names; it ends where its thing is said next.
    """

    entities: tuple[tuple[str, str, str], ...]
    asked: int

    @property
    def text(self) -> str:
        """The prompt."""
        told = " ".join(SENTENCE.format(*one) for one in self.entities)
        return f"{told} {QUESTION.format(self.entities[self.asked][0])}"

    def record(self, shift: int = 0) -> dict[str, str]:
        """What belongs to the entity asked about, or to one that is told so many places after it."""
        return dict(zip(ROLES, self.entities[(self.asked + shift) % len(self.entities)][1:], strict=True))

    def fillers(self, role: str) -> list[str]:
        """What any entity of the context has in a role."""
        return [one[1 + ROLES.index(role)] for one in self.entities]


@dataclass(frozen=True, eq=False)
class Contexts:
    """Different prompts of each part, and the codebook of things and places."""

    items: list[Told]
    train: Rows
    held: Rows
    test: Rows
    book: Codebook

    @classmethod
    def drawn(cls, setting: Setting) -> Contexts:
        """Draw names, things and places from the bundled lists, and contexts of them."""
        rng, world = random.Random(f"entities:{setting.seed}"), load_world()
        names = rng.sample(world.column("names"), N_NAMES)
        things, places = (rng.sample(world.column(name), N_FILLERS) for name in ("objects", "places"))
        found: dict[str, Told] = {}
        while len(found) < sum(setting.sizes):
            n = rng.choice(COUNTS)
            columns = (rng.sample(words, n) for words in (names, things, places))
            item = Told(tuple(zip(*columns, strict=True)), rng.randrange(n))
            found.setdefault(item.text, item)
        rows, (train, held, _) = list(range(len(found))), setting.sizes
        book = Codebook.random(MAP(setting.dimension), [*things, *places], seed=setting.seed)
        return cls([*found.values()], rows[:train], rows[train : train + held], rows[train + held :], book)

    def gold(self, rows: Rows, role: str) -> list[str]:
        """What the entity asked about has in a role."""
        return [self.items[row].record()[role] for row in rows]


def entities(setting: Setting) -> Evidence:
    """Train one map to the record of the entity asked about, and unbind its roles in new contexts.

    Every word of the answer stands in the context, and so do those of other entities: what must be known is
    which of them belong together. What counts is the thing, which the model should say next; whether the
    state holds the place too, which nobody asks for, is a part of its own.
    """
    drawn = Contexts.drawn(setting)
    texts = [item.text for item in drawn.items]
    states = setting.states(texts)
    bag = torch.from_numpy(bag_of_tokens(setting.model.tokenize(texts).token_ids).toarray()).float()
    own, plain, thing = _by_record(drawn, states), _by_role(drawn, states), ROLES[0]
    controls = {
        "random weights": _by_record(drawn, setting.untrained.states(texts)),
        "a bag of words": _by_record(drawn, bag),
        "records of another entity of the context": _by_record(drawn, states, shift=1),
    }
    return Evidence(
        "the thing of the entity asked about, among those of its context",
        own[thing],
        {name: read[thing] for name, read in controls.items()}
        | {"naming any thing of the context": _any(drawn, setting.seed)},
        {"a linear probe for each role": plain[thing]},
        [texts[row] for row in drawn.test],
        {role: (own[role], plain[role]) for role in ROLES},
        _note(setting, drawn, own),
    )


def _by_record(drawn: Contexts, X: Float[torch.Tensor, "example dim"], shift: int = 0) -> dict[str, Right]:
    """Whether each role is read right; the penalty is chosen on validation contexts, as they are taught."""
    records = [item.record(shift) for item in drawn.items]
    targets = drawn.book.records(records, ties="real").vectors.float()

    def read(vectors: Float[torch.Tensor, "example dim"], rows: Rows, shift: int) -> dict[str, Right]:
        found: dict[str, Right] = {}
        for role in ROLES:
            scores = drawn.book.similarities(structures.unbind(drawn.book, vectors[rows], role))
            scores = drawn.book.among(scores, [drawn.items[row].fillers(role) for row in rows])
            gold = drawn.book.index([drawn.items[row].record(shift)[role] for row in rows])
            found[role] = (scores.argmax(dim=1) == gold).long().numpy()
        return found

    def judged(vectors: Float[torch.Tensor, "example dim"]) -> float:
        return float(np.mean([*read(vectors, drawn.held, shift).values()]))

    vectors = mapped(X, targets, drawn.train, judged)
    return read(vectors, drawn.test, 0)


def _by_role(drawn: Contexts, X: Float[torch.Tensor, "example dim"]) -> dict[str, Right]:
    """For each role a ridge classifier of its filler, on the same states."""
    from probes import RidgeProbe

    X, found = scaled(X, drawn.train), dict[str, Right]()
    for role in ROLES:
        probe = RidgeProbe().fit(X[drawn.train], drawn.gold(drawn.train, role))
        place = {str(name): at for at, name in enumerate(probe.classes_)}
        scores = np.asarray(probe.decision_function(X[drawn.test]))
        found[role] = np.array(
            [
                int(_first(line, place, drawn.items[row].fillers(role)) == drawn.items[row].record()[role])
                for line, row in zip(scores, drawn.test, strict=True)
            ]
        )
    return found


def _first(scores: Float[np.ndarray, " _"], place: dict[str, int], names: Sequence[str]) -> str:
    """The name of the highest score; those without one are never first, and "" stands for none."""
    return max((name for name in names if name in place), key=lambda name: scores[place[name]], default="")


def _any(drawn: Contexts, seed: int) -> Right:
    rng = random.Random(seed)
    return np.array(
        [
            int(rng.randrange(len(item.entities)) == item.asked)
            for item in map(drawn.items.__getitem__, drawn.test)
        ]
    )


def _note(setting: Setting, drawn: Contexts, own: dict[str, Right]) -> str:
    """Whether the model itself binds: how often it prefers the right thing, and what is read there."""
    items, names = [drawn.items[row] for row in drawn.test], drawn.book.names
    first = {name: ids[0] for name, ids in zip(names, concept_tokens(setting.model, names), strict=True)}
    logits = setting.model.logits([item.text for item in items]).cpu().numpy()
    thing = ROLES[0]
    says = np.array(
        [
            int(_first(line, first, item.fillers(thing)) == item.record()[thing])
            for line, item in zip(logits, items, strict=True)
        ]
    )
    luck = float(np.mean([1 / len(item.entities) for item in items]))
    read = f"{own[thing][says == 1].mean():.2f}" if says.any() else "none"
    return (
        f"{COUNTS[0]} or {COUNTS[1]} entities a context; the model itself puts the thing asked for before "
        f"the others of the context in {says.mean():.2f} of the prompts (by luck {luck:.2f}), and of these "
        f"{read} are read"
    )
