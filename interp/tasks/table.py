"""The table of tasks: one row for each source of prompts, whatever it can give."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from interp.errors import ConfigError
from interp.tasks import (
    addition,
    agreement,
    analogy,
    greater_than,
    indirect_object,
    key_value,
    one_hop,
    patterns,
    two_hop,
)
from interp.tasks.prompts import Example, PairTexts
from interp.tasks.splits import Split
from interp.tasks.world import World

__all__ = ["LABELLED", "PAIR_TASKS", "TASKS", "Task", "find"]

NULL = "nothing should change"


@dataclass(frozen=True)
class Task:
    """A source of prompts. It gives prompts with answers, prompts with labels, or pairs, or several of these.

    Attributes:
        name: what users type (``--task``).
        description: one line; the record of the bundled model repeats it.
        sentence: a prompt with its answer, where the description holds none.
        example: draws one prompt with its answer, from trained or from held-out combinations.
        labels: yields prompts without end whose ``label`` is what a probe is to read.
        n: how many labelled prompts are drawn where no number is asked for.
        pairs: yields clean and corrupt prompts of one kind without end.
        kinds: kind of pair to what it changes; the first is the default.
        aliases: other names it answers to.
    """

    name: str
    description: str
    example: Callable[[World, random.Random, Split], Example] | None = None
    labels: Callable[[World, random.Random], Iterator[Example]] | None = None
    n: int = 2400
    pairs: Callable[[World, random.Random, str], Iterator[PairTexts]] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    sentence: str = ""

    def generate(self, world: World, rng: random.Random, split: Split) -> Example:
        """Draw one prompt with its answer.

        Args:
            world: the facts.
            rng: the only source of randomness.
            split: "train" for combinations that the bundled model was trained on, "held-out" for the others.

        Raises:
            ConfigError: the task has no prompts with answers.
        """
        if self.example is None:
            raise ConfigError(
                f"task {self.name!r} gives no prompts with answers; those that do: {_listed(TASKS)}."
            )
        return self.example(world, rng, split)


_ROWS = (
    Task("one-hop", "a fact in a sentence: the capital of France is -> Paris", one_hop.generate),
    Task("analogy", "two facts of one relation: Denmark : krone = Japan : -> yen", analogy.generate),
    Task(
        "key-value",
        "bindings that hold in the prompt only: a : x , b : y . a : -> x",
        key_value.generate,
        pairs=key_value.pairs,
        kinds={"query": "the other key is asked for", "values": "the values of the keys exchanged"},
    ),
    Task("pattern", "repeating word patterns: a b a b a -> b", patterns.generate),
    Task(
        "two-hop",
        "a fact about an entity that is only described",
        two_hop.generate,
        sentence="the currency of the country whose capital is Paris is -> euro",
        pairs=two_hop.pairs,
        kinds={"first": "another entity is described", "second": "another question about the same entity"},
    ),
    Task(
        "indirect-object",
        "who receives what the repeated name gives",
        indirect_object.generate,
        sentence="when Mary and John went to the store , John gave a book to -> Mary",
        pairs=indirect_object.pairs,
        kinds={
            "flip": "the other name gives: the answer changes",
            "names": "two new names in the clause: no name repeats",
            "null": f"another place: {NULL}",
        },
        aliases=("ioi",),
    ),
    Task(
        "greater-than",
        "a year that comes after the year given",
        greater_than.generate,
        sentence="the war lasted from the year 1741 to the year 17 -> a year after 41",
        pairs=greater_than.pairs,
        kinds={
            "low": "the year becomes 01, so that every later one is right",
            "year": "another year of the century",
        },
    ),
    Task(
        "agreement",
        "a verb that agrees with the subject, past an attractor",
        agreement.generate,
        sentence="the farmer near the dogs -> is, has, runs",
        pairs=agreement.pairs,
        kinds={
            "number": "the subject changes between singular and plural",
            "attractor": f"the other noun changes its number: {NULL}",
        },
    ),
    Task(
        "addition",
        "the sum of two numbers up to 49",
        addition.generate,
        sentence="12 + 7 = -> 19",
        pairs=addition.pairs,
        kinds={"summand": "another second number", "swap": f"the two numbers exchanged: {NULL}"},
        aliases=("arithmetic",),
    ),
    Task(
        "capitals",
        "the capital of France is / the capital of Japan is -> Paris / Tokyo",
        pairs=one_hop.capitals,
        kinds={
            "subject": "another country in the same sentence",
            "relation": "another question about the same country",
            "null": f"the same question in other words of the same length: {NULL}",
        },
    ),
    Task(
        "facts",
        "one-hop facts of every relation, the subject exchanged",
        pairs=one_hop.pairs,
        kinds={"subject": "another subject in the same sentence", "null": "the same question in other words"},
    ),
    Task(
        "analogy-relation",
        "which relation an analogy asks for; no pair of the test split is seen in training",
        labels=analogy.labels,
        n=2520,
    ),
    Task("fact-relation", "which relation a one-hop sentence asks for", labels=one_hop.statements),
    Task("category", "the category of the thing in the sentence", labels=one_hop.categories, n=472),
    Task(
        "bridge-continent",
        "the continent of the country that a two-hop prompt only describes",
        labels=two_hop.bridges,
    ),
    Task(
        "subject-number",
        "whether the subject is singular or plural, past an attractor",
        labels=agreement.labels,
    ),
    Task("name-order", "whether the receiver or the giver is named first", labels=indirect_object.labels),
)

_PAIRS = (
    "capitals",
    "facts",
    "indirect-object",
    "greater-than",
    "agreement",
    "two-hop",
    "addition",
    "key-value",
)
_BY_NAME = {row.name: row for row in _ROWS}

TASKS: dict[str, Task] = {row.name: row for row in _ROWS if row.example is not None}
"""The tasks whose prompts have answers."""
LABELLED: dict[str, Task] = {row.name: row for row in _ROWS if row.labels is not None}
"""The tasks whose prompts have labels for a probe."""
PAIR_TASKS: dict[str, Task] = {
    name: _BY_NAME[name]
    for name in (
        "capitals",
        "facts",
        "indirect-object",
        "greater-than",
        "agreement",
        "two-hop",
        "addition",
        "key-value",
    )
}
"""The tasks whose prompts come in pairs, easiest first: the order in which one is looked for."""


def find(name: str, among: Mapping[str, Task], what: str) -> Task:
    """The row of a name or alias.

    Args:
        name: what the user typed.
        among: ``TASKS``, ``LABELLED`` or ``PAIR_TASKS``.
        what: what messages call those tasks.

    Raises:
        ConfigError: there is no such row; the message names the nearest.
    """
    for row in among.values():
        if name in (row.name, *row.aliases):
            return row
    near = difflib.get_close_matches(name, among, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if any(name in (row.name, *row.aliases) for row in _ROWS):
        hint = f" {name!r} is a task without them (`interp ls tasks`, `interp ls pairs`)."
    raise ConfigError(f"task {name!r} asked; {what} are: {_listed(among)}.{hint}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
