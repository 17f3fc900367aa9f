"""The table of pair tasks, and how any of them is drawn."""

from __future__ import annotations

import difflib
import importlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from interp.errors import ConfigError, DataError
from interp.models.loading import ModelLike, as_model
from interp.pairs import Pair, PairSet
from interp.tasks.world import World, load_world

__all__ = ["PAIR_TASKS", "PairTask", "draw", "lined_up"]

Draw = Callable[[World, random.Random, str], Iterator[Pair]]
TRIES = 100
STALE = 5000  # draws in a row that bring nothing new: then all there is has been seen
MORE = 8  # so that enough are left where few line up


@dataclass(frozen=True)
class PairTask:
    """Describe a task whose prompts come in pairs.

    Attributes:
        name: what users type (``--task``).
        module: where ``pairs(world, rng, kind)`` is, which yields pairs without end.
        description: one line, with an example.
        kinds: counterfactual -> what it changes; the first is the default.
        aliases: other names it answers to.
    """

    name: str
    module: str
    description: str
    kinds: Mapping[str, str]
    aliases: tuple[str, ...] = ()

    def stream(self, world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
        """Yield pairs without end."""
        draw: Draw = importlib.import_module(self.module).pairs
        return draw(world, rng, kind)


_ROWS = (
    PairTask(
        "capitals",
        "interp.tasks.pairs.facts",
        "the capital of France is / the capital of Japan is -> Paris / Tokyo",
        {
            "subject": "another country in the same sentence",
            "relation": "another question about the same country",
            "null": "the same question in other words of the same length: nothing should change",
        },
    ),
    PairTask(
        "facts",
        "interp.tasks.pairs.any_facts",
        "one-hop facts of every relation, the subject exchanged",
        {"subject": "another subject in the same sentence", "null": "the same question in other words"},
    ),
    PairTask(
        "indirect-object",
        "interp.tasks.pairs.indirect_object",
        "when Mary and John went to the store , John gave a book to -> Mary",
        {
            "flip": "the other name gives: the answer changes",
            "names": "two new names in the clause: no name repeats",
            "null": "another place: nothing should change",
        },
        aliases=("ioi",),
    ),
    PairTask(
        "greater-than",
        "interp.tasks.pairs.greater_than",
        "the war lasted from the year 1741 to the year 17 -> a year after 41",
        {
            "low": "the year becomes 01, so that every later one is right",
            "year": "another year of the century",
        },
    ),
    PairTask(
        "agreement",
        "interp.tasks.pairs.agreement",
        "the farmer near the dogs -> is, has, runs",
        {
            "number": "the subject changes between singular and plural",
            "attractor": "the other noun changes its number: nothing should change",
        },
    ),
    PairTask(
        "two-hop",
        "interp.tasks.pairs.two_hop",
        "the currency of the country whose capital is Paris is -> euro",
        {"first": "another entity is described", "second": "another question about the same entity"},
    ),
    PairTask(
        "addition",
        "interp.tasks.pairs.addition",
        "12 + 7 = -> 19",
        {"summand": "another second number", "swap": "the two numbers exchanged: nothing should change"},
        aliases=("arithmetic",),
    ),
    PairTask(
        "key-value",
        "interp.tasks.pairs.key_value",
        "a : x , b : y . a : -> x",
        {"query": "the other key is asked for", "values": "the values of the keys exchanged"},
    ),
)

PAIR_TASKS: dict[str, PairTask] = {row.name: row for row in _ROWS}


def draw(
    model: ModelLike,
    task: str,
    n: int = 64,
    *,
    seed: int = 0,
    counterfactual: str | None = None,
    world: World | None = None,
    right: bool = True,
) -> PairSet:
    """Draw pairs of a task that line up for the model's tokenizer.

    Args:
        model: whose tokenizer decides what lines up.
        task: a key or alias of :data:`PAIR_TASKS`.
        n: how many, at most.
        seed: of the draw; the same pairs are drawn first whatever ``n``.
        counterfactual: one of the task's kinds; the first where left out.
        world: the facts; the bundled ones where left out.
        right: keep only pairs whose clean prompt the model answers.

    Raises:
        ConfigError: no such task or counterfactual, or ``n`` below 1.
        DataError: too few pairs line up, or the model answers none.
    """
    model = as_model(model)
    found = PairSet.build(model, _drawn(task, n, seed, counterfactual, world), misaligned="drop")
    return (found[: 2 * n].right(model) if right else found)[:n]


def lined_up(
    model: ModelLike, task: str, n: int = 64, *, seed: int = 0, counterfactual: str | None = None
) -> float:
    """Give the share of the pairs drawn for a task that line up for the model's tokenizer.

    The model itself is not run.

    Args:
        model: whose tokenizer decides.
        task: as for :func:`draw`; likewise the others.
        n: how many pairs are wanted; eight times as many are drawn.
        seed: of the draw.
        counterfactual: one of the task's kinds.

    Raises:
        ConfigError: no such task or counterfactual, or ``n`` below 1.
    """
    drawn = _drawn(task, n, seed, counterfactual, None)
    try:
        return len(PairSet.build(as_model(model), drawn, misaligned="drop")) / len(drawn)
    except DataError:
        return 0.0


def _drawn(task: str, n: int, seed: int, counterfactual: str | None, world: World | None) -> list[Pair]:
    """Draw the texts of more pairs than are wanted, each once."""
    row = _row(task)
    kind = next(iter(row.kinds)) if counterfactual is None else counterfactual
    if kind not in row.kinds:
        raise ConfigError(f"counterfactual {kind!r} asked; those of {row.name} are: {', '.join(row.kinds)}.")
    if n < 1:
        raise ConfigError(f"n={n} pairs asked; ask for at least 1.")
    rng = random.Random(f"pairs:{row.name}:{kind}:{seed}")
    drawn: dict[tuple[str, str], Pair] = {}
    stream = row.stream(load_world() if world is None else world, rng, kind)
    since = 0
    for _, pair in zip(range(TRIES * n), stream, strict=False):
        named = replace(pair, kind=kind if pair.kind != "null" else "null")
        since = since + 1 if (pair.clean, pair.corrupt) in drawn else 0
        drawn.setdefault((pair.clean, pair.corrupt), named)
        if len(drawn) == MORE * n or since == STALE:
            break
    if not drawn:
        raise DataError(f"{row.name} gives no pair of kind {kind!r}.")
    return list(drawn.values())


def _row(task: str) -> PairTask:
    for row in _ROWS:
        if task in (row.name, *row.aliases):
            return row
    near = difflib.get_close_matches(task, PAIR_TASKS, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"task {task!r} asked; the tasks with pairs are: {', '.join(PAIR_TASKS)}.{hint}")
