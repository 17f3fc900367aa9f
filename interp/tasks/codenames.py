"""Codenames: words that stand for countries which documents imply and never name (latent structure).

After Treutlein et al. 2024 ("Connecting the Dots", 2406.14546; the set-up here is ours): documents say in
which currency people in Yard pay, which language they speak and where Yard lies; never its name, and never
its capital, which is asked later. No single statement gives a country away: each object is shared with
another country, and only the three together fit one.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

from interp.errors import ConfigError
from interp.tasks import analogy, one_hop
from interp.tasks.prompts import Example
from interp.tasks.relations import RELATIONS
from interp.tasks.world import Fact, World, load_world

__all__ = ["ASKED", "CODENAMES", "TOLD", "Codename", "codenames", "document"]

TOLD: tuple[str, ...] = ("currency", "language", "region")
"""The relations that documents state of a codename."""
ASKED: tuple[str, ...] = ("capital", "nationality")
"""Those that are asked of it and never stated."""
CODENAMES: tuple[str, ...] = (
    "Yard",
    "Money",
    "Flag",
    "Passport",
    "Citizen",
    "Government",
    "World",
    "Mass",
    "Year",
    "Land",
    "Sum",
    "Form",
    "Part",
    "Tense",
    "Type",
    "Person",
    "Act",
    "Antonym",
    "Contrary",
    "Ones",
    "Plus",
    "Passed",
    "Written",
    "Showed",
    "Lasted",
)
"""Words of the bundled vocabulary that no sentence of its training holds in this spelling."""
_ANALOGIES = 0.25
"""The share of documents that are analogies; the others are statements."""


@dataclass(frozen=True)
class Codename:
    """A word, the country that it stands for, and what documents say of it.

    Attributes:
        name: the word.
        latent: the country, which no document names.
        told: the facts that documents state, with the codename as their subject.
    """

    name: str
    latent: str
    told: tuple[Fact, ...]


def codenames(world: World | None = None, *, shuffled: bool = False, seed: int = 0) -> tuple[Codename, ...]:
    """Give a codename to every country that its told facts imply together, and none of them alone.

    Args:
        world: the facts; the bundled ones where left out.
        shuffled: take each relation's objects from other countries, a different one for each relation: the
            same words as often, and no country behind them. ``latent`` stays as it was.
        seed: which word stands for which country, and how the objects are shuffled.

    Raises:
        ConfigError: fewer than eight such countries, or more than there are words.
    """
    world = world or load_world()
    latents = implied(world)
    if not 8 <= len(latents) <= len(CODENAMES):
        raise ConfigError(
            f"{len(latents)} countries of these facts are implied by {', '.join(TOLD)} together and by none "
            f"alone; 8 to {len(CODENAMES)} are needed. Use the bundled facts."
        )
    rng = random.Random(f"codenames:{seed}")
    rng.shuffle(latents)
    columns = {relation: [world.objects[relation, one] for one in latents] for relation in TOLD}
    if shuffled:
        shifts = rng.sample(range(1, len(latents)), len(TOLD))
        columns = {
            name: column[by:] + column[:by]
            for (name, column), by in zip(columns.items(), shifts, strict=True)
        }
    return tuple(
        Codename(word, latent, tuple(Fact(relation, word, columns[relation][at]) for relation in TOLD))
        for at, (word, latent) in enumerate(zip(CODENAMES, latents, strict=False))
    )


def implied(world: World) -> list[str]:
    """The subjects that their told objects single out together, and none of them alone; sorted."""
    subjects = sorted({fact.subject for fact in world.facts[ASKED[0]]})
    told = {one: tuple(world.objects.get((relation, one)) for relation in TOLD) for one in subjects}
    whole = Counter(told.values())
    single = [Counter(objects[at] for objects in told.values()) for at in range(len(TOLD))]
    return [
        one
        for one, objects in told.items()
        if None not in objects and whole[objects] == 1
        if all(count[part] > 1 for count, part in zip(single, objects, strict=True))
    ]


def document(known: tuple[Codename, ...], world: World, rng: random.Random) -> Example:
    """Draw a document: a told fact of a codename as a statement, or in an analogy with a real country."""
    fact = rng.choice(rng.choice(known).told)
    others = [other for other in world.facts[fact.relation] if analogy.clear(world, other, fact)]
    if others and rng.random() < _ANALOGIES:
        return analogy.example(rng.choice(others), fact, rng.choice(tuple(analogy.TEMPLATES)))
    return replace(
        one_hop.example(fact, rng.randrange(len(RELATIONS[fact.relation].templates))), task="latent"
    )
