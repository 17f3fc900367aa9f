"""The facts that are asked: bundled ones, a few relations in equal parts, or the user's own."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interp.analyses.prompts import answer_ids, known_ids
from interp.errors import ConfigError, DataError, counted
from interp.models.model import Model
from interp.tasks import one_hop
from interp.tasks.own_facts import read_facts
from interp.tasks.prompts import Labelled
from interp.tasks.world import World, load_world

__all__ = ["RELATIONS_ASKED", "OwnFacts", "Question", "Questions", "ask"]

RELATIONS_ASKED = ("capital", "currency", "plural", "antonym")
"""Few, so that each has enough questions to be judged alone."""
OwnFacts = Labelled | Sequence[tuple[str, ...]] | str | Path
"""Prompts labelled with their answers, tuples of prompt, answer and, if wanted, relation, or a file or folder
of facts as ``interp.tasks.read_facts`` reads it."""


@dataclass(frozen=True)
class Question:
    """One prompt with its answer.

    Attributes:
        prompt: the text before the answer.
        answer: one or more words.
        relation: what is asked; "" where there is one kind only.
        group: the fact, over which intervals are.
        ids: the tokens of the answer.
    """

    prompt: str
    answer: str
    relation: str
    group: str
    ids: tuple[int, ...]

    @property
    def token(self) -> int:
        """The first token of the answer: what is looked for inside the model."""
        return self.ids[0]


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked of every model alike.

    Attributes:
        asked: the questions, relations in turn.
        usual: relation to the tokens of what answers it most often; () where that cannot be asked.
        notes: what a reader should know.
    """

    asked: tuple[Question, ...]
    usual: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The sha256 of prompts, answers and tokens."""
        rows = [(one.prompt, one.answer, one.relation, one.ids) for one in self.asked]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations in the order in which they first occur."""
        return tuple(dict.fromkeys(one.relation for one in self.asked))

    def others(self, row: int) -> tuple[int, ...]:
        """The first tokens of other answers to the relation of one question, without its own."""
        own = self.asked[row]
        found = {one.token for one in self.asked if one.relation == own.relation} - {own.token}
        return tuple(sorted(found))

    def wrong(self, seed: int) -> tuple[int, ...]:
        """Draw for each question the token of another answer to its relation; -1 where there is none."""
        rng = random.Random(f"wrong:{seed}")
        rows = (self.others(row) for row in range(len(self.asked)))
        return tuple(rng.choice(others) if others else -1 for others in rows)


def ask(
    model: Model, data: OwnFacts | None, relations: Sequence[str] | None, *, n: int, seed: int
) -> Questions:
    """Draw the questions, which depend on the seed and the tokenizer alone.

    Args:
        model: whose tokenizer decides which facts can be asked.
        data: the user's own, all of which must be fit to ask; of a file of facts, and of the bundled ones
            where left out, what the tokenizer knows is asked.
        relations: which of the relations of bundled facts, or of a file.
        n: how many at most.
        seed: of the draw.

    Raises:
        ConfigError: n below 1, unknown relations, or relations for data of one's own.
        DataError: nothing that this tokenizer can ask.
    """
    if n < 1:
        raise ConfigError(f"n={n} questions asked; ask for at least 1.")
    world = read_facts(data) if isinstance(data, str | Path) else load_world()
    if data is not None and not isinstance(data, str | Path):
        if relations is not None:
            raise ConfigError(
                "relations choose among the bundled facts; leave them out with questions of your own."
            )
        return _own(model, data, n, seed)
    every = RELATIONS_ASKED if data is None else tuple(world.relations)
    names = every if relations is None else tuple(relations)
    if unknown := [name for name in names if name not in world.relations]:
        raise ConfigError(f"relation {unknown[0]!r} asked, but there are: {', '.join(world.relations)}.")
    if bare := [name for name in names if not world.relations[name].templates]:
        raise DataError(
            f"relation {bare[0]!r} of '{data}' has no template, and recall asks in sentences. Give each "
            "relation one, such as 'the capital of {} is' (column template; in LRE prompt_templates), or "
            "choose relations."
        )
    return _of_world(model, world, names, n, seed, "the bundled facts" if data is None else f"'{data}'")


def _of_world(model: Model, world: World, names: Sequence[str], n: int, seed: int, source: str) -> Questions:
    """Take facts of the relations in turn, each fact in one of its templates."""
    sources = [_facts(model, world, name, seed) for name in names]
    asked: list[Question] = []
    while sources and len(asked) < n:
        taken = [next(source, None) for source in sources]
        asked += [one for one in taken if one is not None]
        sources = [source for source, one in zip(sources, taken, strict=True) if one is not None]
    asked = asked[:n]
    if not asked:
        raise DataError(
            f"the tokenizer of {model.name!r} knows no word of {source}, so none can be asked. "
            "Give data=[(prompt, answer), ...] in words that it knows."
        )
    usual = {name: _usual(model, [f.object for f in world.facts[name]], asked, name) for name in names}
    short = f"{len(asked)} of {counted(n, 'fact')} can be asked of this tokenizer"
    return Questions(tuple(asked), usual, (*((short,) if len(asked) < n else ()), *_several(asked)))


def _facts(model: Model, world: World, relation: str, seed: int) -> Iterator[Question]:
    rng = random.Random(f"recall:{relation}:{seed}")
    facts = list(world.facts[relation])
    rng.shuffle(facts)
    for fact in facts:
        template = rng.randrange(len(world.relations[relation].templates))
        example = one_hop.example(fact, template, world.relations)
        ids = answer_ids(model, example.prompt, example.answer)
        if ids is not None:
            yield Question(example.prompt, example.answer, relation, fact.unit, ids)


def _usual(model: Model, objects: Sequence[str], asked: Sequence[Question], relation: str) -> tuple[int, ...]:
    """The tokens of the relation's most frequent object; () where it cannot be asked."""
    prompt = next((one.prompt for one in asked if one.relation == relation), None)
    found = None if prompt is None else answer_ids(model, prompt, Counter(objects).most_common(1)[0][0])
    return found or ()


def _several(asked: Sequence[Question]) -> tuple[str, ...]:
    """What is of the whole answers and what of their first tokens, where answers have several."""
    long = sum(len(one.ids) > 1 for one in asked)
    if not long:
        return ()
    return (
        f"{long} of {counted(len(asked), 'answer')} have several tokens: accuracy and log-probability are "
        "of all of "
        "them, what is found in layers and neurons is of the first",
    )


def _own(model: Model, data: Labelled | Sequence[tuple[str, ...]], n: int, seed: int) -> Questions:
    rows = _rows(data)
    if not rows:
        raise DataError("data holds no questions; give at least one prompt with its answer.")
    if n < len(rows):
        rows = [rows[at] for at in sorted(random.Random(f"recall:{seed}").sample(range(len(rows)), n))]
    asked: list[Question] = []
    for number, (prompt, answer, relation, group) in enumerate(rows):
        ids = answer_ids(model, prompt, answer)
        if ids is None:
            known = known_ids(model, f"{prompt} {answer}") is not None
            why = "changes the tokens before it" if known else "holds words the tokenizer does not know"
            raise DataError(
                f"question {number}: the answer {answer!r} behind {prompt!r} is empty or {why}; end the "
                "prompt at a word's end and use words of the model's vocabulary."
            )
        asked.append(Question(prompt, answer, relation, group, ids))
    names = dict.fromkeys(one.relation for one in asked)
    usual = {
        name: Counter(one.ids for one in asked if one.relation == name).most_common(1)[0][0] for name in names
    }
    note = "the most frequent answers are those of the questions asked"
    return Questions(tuple(asked), usual, (note, *_several(asked)))


def _rows(data: Labelled | Sequence[tuple[str, ...]]) -> list[tuple[str, str, str, str]]:
    if isinstance(data, Labelled):
        rows = zip(data.texts, data.labels, data.groups, strict=True)
        return [(text, label, data.name, group) for text, label, group in rows]
    found: list[tuple[str, str, str, str]] = []
    for number, row in enumerate(data):
        if len(row) not in (2, 3):
            raise DataError(f"question {number} has {len(row)} parts; give prompt, answer[, relation].")
        found.append((row[0], row[1], row[2] if len(row) == 3 else "", row[0]))
    return found
