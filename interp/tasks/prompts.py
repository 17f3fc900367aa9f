"""Prompts with a label to read out of the model: what a probe is trained and tested on."""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from interp.errors import ConfigError, DataError
from interp.tasks import agreement, analogy, indirect_object, one_hop, two_hop
from interp.tasks.examples import Example
from interp.tasks.relations import RELATIONS
from interp.tasks.world import World, load_world

__all__ = ["LABELLED", "Labelled", "LabelledTask", "labelled"]


@dataclass(frozen=True)
class Labelled:
    """Hold prompts, their labels, and the groups that must not straddle a split.

    Attributes:
        name: the task, or the file's name.
        description: one sentence for tables and reports.
        texts: the prompts.
        labels: one label for each prompt.
        groups: one group for each prompt; resampling and splitting treat a group as one unit.
        splits: ``"train"``, ``"validation"``, ``"test"``, or ``""`` where the analysis is to decide.
        source: where it comes from: ``"task"`` or a path as the user gave it.
        grouped: False where no group was given, so that every prompt is a group of its own.
    """

    name: str
    description: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...]
    source: str = "task"
    grouped: bool = True

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        lengths = {len(self.texts), len(self.labels), len(self.groups), len(self.splits)}
        if len(lengths) > 1:
            raise DataError(
                f"'{self.name}': texts, labels, groups, splits have {len(self.texts)}, {len(self.labels)}, "
                f"{len(self.groups)} and {len(self.splits)} entries; give one of each for every prompt."
            )

    def __len__(self) -> int:
        """Count the prompts."""
        return len(self.texts)

    def __repr__(self) -> str:
        """Summarise, without the texts."""
        classes, groups = len(set(self.labels)), len(set(self.groups))
        return f"Labelled({self.name!r}, n={len(self)}, classes={classes}, groups={groups})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Give the sha256 of everything that is read (texts, labels, groups, splits)."""
        rows = [self.texts, self.labels, self.groups, self.splits]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()

    def select(self, rows: Sequence[int]) -> Labelled:
        """Keep some prompts, in the order given."""
        columns = (
            tuple(column[row] for row in rows)
            for column in (self.texts, self.labels, self.groups, self.splits)
        )
        texts, labels, groups, splits = columns
        return Labelled(self.name, self.description, texts, labels, groups, splits, self.source, self.grouped)

    def limit(self, n: int, *, seed: int = 0) -> Labelled:
        """Keep at most ``n`` prompts, drawn at random and left in order."""
        if n >= len(self):
            return self
        return self.select(sorted(random.Random(seed).sample(range(len(self)), n)))


@dataclass(frozen=True)
class LabelledTask:
    """Describe a bundled probing task."""

    name: str
    description: str
    draw: Callable[[World, random.Random], Iterator[Example]]
    n: int = 2400


def _split_of(word: str) -> str:
    """Put a word into train, validation or test (60, 20, 20) by its hash, the same everywhere."""
    share = int.from_bytes(hashlib.blake2b(f"probe:{word}".encode(), digest_size=8).digest(), "big") / 2**64
    return "train" if share < 0.6 else "validation" if share < 0.8 else "test"


def _analogies(world: World, rng: random.Random) -> Iterator[Example]:
    """Yield analogies, relations in turn, in which all four words are of one split."""
    names = [name for name in RELATIONS if name not in ("capital_of", "country_of")]
    while True:
        facts = world.facts[names[0]]
        names = [*names[1:], names[0]]
        asked = rng.choice(facts)
        shown = rng.choice([fact for fact in facts if _split_of(fact.subject) == _split_of(asked.subject)])
        if analogy.clear(world, shown, asked):
            yield analogy.example(shown, asked, rng.choice(tuple(analogy.TEMPLATES)))


def _statements(world: World, rng: random.Random) -> Iterator[Example]:
    while True:
        fact = rng.choice(world.facts[rng.choice(tuple(RELATIONS))])
        yield one_hop.example(fact, rng.randrange(len(RELATIONS[fact.relation].templates)))


def _categories(world: World, rng: random.Random) -> Iterator[Example]:
    while True:
        for template in range(len(RELATIONS["category"].templates)):
            for fact in rng.sample(world.facts["category"], len(world.facts["category"])):
                yield one_hop.example(fact, template)


def _bridges(world: World, rng: random.Random) -> Iterator[Example]:
    """Yield two-hop prompts about a country that is not named, asking for anything but its continent."""
    pool = [
        c
        for c in two_hop.compositions(world)
        if c.bridge.relation in ("capital_of", "country_of") and c.second not in ("continent", "region")
    ]
    while True:
        yield two_hop.example(rng.choice(pool), rng.randrange(len(two_hop.TEMPLATES)))


def _agreements(world: World, rng: random.Random) -> Iterator[Example]:
    while True:
        yield agreement.generate(world, rng, "train")


def _names(world: World, rng: random.Random) -> Iterator[Example]:
    while True:
        yield indirect_object.generate(world, rng, "train")


def _answer(world: World, example: Example) -> str:
    return example.answer


def _relation(world: World, example: Example) -> str:
    return example.label


def _continent(world: World, example: Example) -> str:
    return world.objects["continent", dict(example.variables)["bridge"]]


def _subject(example: Example) -> str:
    values = dict(example.variables)
    return (
        values.get("bridge")
        or values.get("noun")
        or values.get("c")
        or values.get("subject")
        or example.group
    )


_ROWS = (
    (
        LabelledTask(
            "analogy-relation",
            "which relation an analogy asks for; no pair of the test split is seen in training",
            _analogies,
            2520,
        ),
        _relation,
    ),
    (LabelledTask("fact-relation", "which relation a one-hop sentence asks for", _statements), _relation),
    (LabelledTask("category", "the category of the thing in the sentence", _categories, 472), _answer),
    (
        LabelledTask(
            "bridge-continent", "the continent of the country that a two-hop prompt only describes", _bridges
        ),
        _continent,
    ),
    (
        LabelledTask(
            "subject-number", "whether the subject is singular or plural, past an attractor", _agreements
        ),
        _relation,
    ),
    (LabelledTask("name-order", "whether the receiver or the giver is named first", _names), _relation),
)

LABELLED: dict[str, LabelledTask] = {row.name: row for row, _ in _ROWS}
_LABELS: dict[str, Callable[[World, Example], str]] = {row.name: label for row, label in _ROWS}


def labelled(name: str, *, n: int | None = None, seed: int = 0) -> Labelled:
    """Draw the prompts of a bundled probing task.

    Args:
        name: a key of ``LABELLED``.
        n: how many prompts; the task's own number when left out.
        seed: which prompts are drawn; the split of a word never depends on it.

    Raises:
        ConfigError: there is no such task, or ``n`` is below 1.
    """
    if name not in LABELLED:
        raise ConfigError(f"task '{name}' asked, but the tasks are: {', '.join(LABELLED)}.")
    task, world = LABELLED[name], load_world()
    wanted = task.n if n is None else n
    if wanted < 1:
        raise ConfigError(f"n={wanted} prompts asked; ask for at least 1.")
    found: dict[str, Example] = {}
    for example in _bounded(task.draw(world, random.Random(f"{name}-{seed}")), 50 * wanted):
        found.setdefault(example.prompt, example)
        if len(found) == wanted:
            break
    examples = list(found.values())
    groups = [_subject(example) for example in examples]
    return Labelled(
        name=name,
        description=task.description,
        texts=tuple(found),
        labels=tuple(_LABELS[name](world, example) for example in examples),
        groups=tuple(groups),
        splits=tuple(_split_of(group) for group in groups),
    )


def _bounded(examples: Iterator[Example], limit: int) -> Iterator[Example]:
    """Stop a generator that repeats itself, where fewer distinct prompts exist than were asked for."""
    for _, example in zip(range(limit), examples, strict=False):
        yield example
