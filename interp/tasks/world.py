"""What is true: the bundled fact tables, and a copy of them in which some facts are swapped."""

from __future__ import annotations

import csv
import functools
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from interp.errors import DataError
from interp.paths import assets
from interp.tasks.relations import BRIDGES, RELATIONS, Bridge, Relation

__all__ = ["Fact", "World", "load_world"]

_LISTS = ("names", "places", "objects", "events", "verbs_agreement", "animate_nouns")


@dataclass(frozen=True)
class Fact:
    """The statement that ``object`` stands in ``relation`` to ``subject``.

    Attributes:
        relation: its name.
        subject: whom it is about.
        object: the answer.
        group: facts of one group never stand on both sides of a split; "" where each stands for itself.
    """

    relation: str
    subject: str
    object: str
    group: str = ""

    @property
    def key(self) -> str:
        """The fact's name by relation and subject, whatever its object is."""
        return f"{self.relation}:{self.subject}"

    @property
    def unit(self) -> str:
        """What must not straddle a split, and what intervals are over: the group, or the fact itself."""
        return f"group:{self.group}" if self.group else self.key


@dataclass(frozen=True, eq=False)
class World:
    """Every fact by relation, and the word lists the generators draw from.

    Attributes:
        facts: relation -> its facts.
        lists: name -> rows of words.
        relations: relation -> the sentences that state it; one without any is stated by examples.
        bridges: which relations can follow each other, and how the entity between them is described.
    """

    facts: Mapping[str, tuple[Fact, ...]]
    lists: Mapping[str, tuple[tuple[str, ...], ...]]
    relations: Mapping[str, Relation] = field(default_factory=lambda: RELATIONS)
    bridges: tuple[Bridge, ...] = BRIDGES

    @functools.cached_property
    def objects(self) -> Mapping[tuple[str, str], str]:
        """Map (relation, subject) to object."""
        return {(fact.relation, fact.subject): fact.object for fact in self.all_facts}

    @functools.cached_property
    def relations_between(self) -> Mapping[tuple[str, str], frozenset[str]]:
        """Map (subject, object) to the relations that join them.

        An example pair is clear when there is one.
        """
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for fact in self.all_facts:
            found[fact.subject, fact.object].add(fact.relation)
        return {pair: frozenset(names) for pair, names in found.items()}

    @functools.cached_property
    def all_facts(self) -> tuple[Fact, ...]:
        """List every fact, relation by relation."""
        return tuple(fact for facts in self.facts.values() for fact in facts)

    @functools.cached_property
    def concepts(self) -> tuple[str, ...]:
        """List every subject and object once, sorted."""
        return tuple(sorted({word for fact in self.all_facts for word in (fact.subject, fact.object)}))

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """List every concept and every word of the lists once, sorted."""
        listed = {word for rows in self.lists.values() for row in rows for word in row}
        return tuple(sorted(listed.union(self.concepts)))

    def column(self, name: str, index: int = 0) -> tuple[str, ...]:
        """One column of a word list, for example ``column("names")``."""
        return tuple(row[index] for row in self.lists[name])

    def edited(self, *, share: float = 0.2, seed: int = 0) -> World:
        """Make a world in which a share of each relation's facts is false.

        The objects of the facts drawn are swapped among them.

        Args:
            share: the part of the facts of every relation to change, in 0 to 1.
            seed: which facts are drawn.

        Returns:
            A new world; every changed fact keeps its subject and takes the object of another changed fact.
            Inverse relations (``capital_of``, ``country_of``) keep the truth, so that what changes is exactly
            what is listed.
        """
        rng = random.Random(seed)
        inverse = {"capital_of", "country_of"}
        changed = {
            name: facts if name in inverse else tuple(_swap(facts, share, rng))
            for name, facts in self.facts.items()
        }
        return replace(self, facts=changed)


def _swap(facts: tuple[Fact, ...], share: float, rng: random.Random) -> list[Fact]:
    """Give each fact of a random share the object of another, so that every one chosen becomes false."""
    chosen = rng.sample(range(len(facts)), max(2, round(share * len(facts))))
    pool = [facts[i].object for i in chosen]
    rng.shuffle(pool)
    truth = [facts[i].object for i in chosen]
    for k, true in enumerate(truth):
        if pool[k] == true:
            partners = [j for j in range(len(pool)) if pool[j] != true and truth[j] != pool[k]]
            if partners:
                j = rng.choice(partners)
                pool[k], pool[j] = pool[j], pool[k]
    result = list(facts)
    for i, new in zip(chosen, pool, strict=True):
        result[i] = replace(facts[i], object=new)
    return result


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(
            f"fact table '{path.name}' was not found in {path.parent}. "
            "Reinstall the package or restore assets/facts."
        )
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _facts(relation: Relation, rows: Iterable[Mapping[str, str]]) -> tuple[Fact, ...]:
    """Read one relation.

    A subject met twice keeps its first object (two capitals, one language for a nationality).
    """
    seen: dict[str, Fact] = {}
    for row in rows:
        subject, obj = row[relation.subject], row[relation.object]
        if subject and obj and subject != obj:
            seen.setdefault(subject, Fact(relation.name, subject, obj))
    return tuple(seen.values())


@functools.cache
def load_world(folder: Path | None = None) -> World:
    """Read the fact tables.

    Args:
        folder: where the CSV files are; the bundled ``assets/facts`` when left out.

    Raises:
        DataError: a table is missing.
    """
    folder = folder or assets("facts")
    facts = {name: _facts(row, _read(folder / f"{row.file}.csv")) for name, row in RELATIONS.items()}
    lists = {name: tuple(tuple(row.values()) for row in _read(folder / f"{name}.csv")) for name in _LISTS}
    lists["names"] = tuple(row[:1] for row in lists["names"])
    return World(facts, lists)
