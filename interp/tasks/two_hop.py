"""Two facts in a row, the bridge only described.

'the currency of the country whose capital is Paris is the' -> euro.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from interp.tasks.prompts import Example, PairTexts
from interp.tasks.relations import Bridge
from interp.tasks.splits import Split, in_split, is_held_out
from interp.tasks.world import World

__all__ = ["TEMPLATES", "Composition", "compositions", "example", "generate", "pairs"]

TEMPLATES: tuple[str, ...] = (
    "the {noun} of {bridge} is",
    "{bridge} : its {noun} is",
    "in {bridge} the {noun} is",
)


@dataclass(frozen=True)
class Composition:
    """Join two facts through the entity that is neither asked for nor named."""

    bridge: Bridge
    subject: str
    entity: str
    second: str
    answer: str
    noun: str
    """How the answer is called: 'the <noun> of <entity> is'."""

    @property
    def held_out(self) -> bool:
        """Whether this composition was never trained, in any template."""
        return is_held_out("two-hop-composition", self.bridge.relation, self.entity, self.second)


@functools.lru_cache(maxsize=8)
def compositions(world: World) -> tuple[Composition, ...]:
    """List every pair of facts that the bridges allow, in a fixed order."""
    found = []
    for bridge in world.bridges:
        for fact in world.facts[bridge.relation]:
            for second in bridge.second:
                answer = world.objects.get((second, fact.object))
                if answer is not None and answer != fact.subject:
                    noun = world.relations[second].noun
                    found.append(Composition(bridge, fact.subject, fact.object, second, answer, noun))
    return tuple(found)


def example(composition: Composition, template: int) -> Example:
    """Ask for the second hop in one of the templates."""
    phrase = composition.bridge.phrase.format(composition.subject)
    return Example(
        prompt=TEMPLATES[template].format(noun=composition.noun, bridge=phrase),
        answer=composition.answer,
        task="two-hop",
        template=f"{composition.bridge.relation}/{template}",
        group=f"{composition.bridge.relation}:{composition.entity}:{composition.second}",
        label=composition.second,
        variables=(
            ("subject", composition.subject),
            ("bridge", composition.entity),
            ("first", composition.bridge.relation),
            ("second", composition.second),
        ),
    )


def generate(world: World, rng: random.Random, split: Split, *, trained: bool = True) -> Example:
    """Draw a two-hop prompt.

    Args:
        world: supplies the facts.
        rng: the only source of randomness.
        split: ``"train"``, or ``"held-out"`` for (composition, template) combinations that were not
            trained.
        trained: with ``split="held-out"``, whether the composition itself was trained in other templates
            (True) or in none (False: the model has to compose).
    """
    while True:
        composition = rng.choice(compositions(world))
        template = rng.randrange(len(TEMPLATES))
        if composition.held_out:
            if split == "held-out" and not trained:
                return example(composition, template)
        elif trained and in_split(
            split,
            "two-hop",
            composition.bridge.relation,
            composition.subject,
            composition.second,
            str(template),
        ):
            return example(composition, template)


def bridges(world: World, rng: random.Random) -> Iterator[Example]:
    """Yield prompts about a country that is only described, asking for anything but where it lies.

    The label is the continent of that country.
    """
    pool = [
        c
        for c in compositions(world)
        if c.bridge.relation in ("capital_of", "country_of") and c.second not in ("continent", "region")
    ]
    while True:
        composition = rng.choice(pool)
        drawn = example(composition, rng.randrange(len(TEMPLATES)))
        yield replace(drawn, label=world.objects["continent", composition.entity])


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[PairTexts]:
    """Yield pairs of two hops without end: another first entity, or another second question."""
    known = compositions(world)
    while True:
        one = rng.choice(known)
        fits = [
            other
            for other in rng.sample(known, min(400, len(known)))
            if other.bridge == one.bridge
            and other.answer != one.answer
            and (other.subject == one.subject) == (kind == "second")
            and (other.second == one.second) == (kind == "first")
        ]
        if fits:
            other, at = rng.choice(fits), rng.randrange(len(TEMPLATES))
            clean, corrupt = example(one, at).prompt, example(other, at).prompt
            yield PairTexts(clean, corrupt, (one.answer,), (other.answer,), kind, one.entity)
