"""One fact in one sentence: 'the capital of France is' -> Paris."""

from __future__ import annotations

import random

from interp.tasks.examples import Example
from interp.tasks.relations import RELATIONS
from interp.tasks.splits import Split, is_held_out
from interp.tasks.world import Fact, World

__all__ = ["example", "generate", "held_out_template"]


def held_out_template(fact: Fact, template: int) -> bool:
    """Say whether this fact was never trained in this template.

    The fact's first trained template is never held out.
    """
    keys = [
        is_held_out("one-hop", fact.relation, fact.subject, str(index))
        for index in range(len(RELATIONS[fact.relation].templates))
    ]
    return keys[template] and not (all(keys) and template == 0)


def example(fact: Fact, template: int) -> Example:
    """State a fact in one of its relation's templates."""
    return Example(
        prompt=RELATIONS[fact.relation].templates[template].format(fact.subject),
        answer=fact.object,
        task="one-hop",
        template=f"{fact.relation}/{template}",
        group=fact.key,
        label=fact.relation,
        variables=(("subject", fact.subject), ("relation", fact.relation)),
    )


def generate(world: World, rng: random.Random, split: Split) -> Example:
    """Draw a fact and a template whose combination belongs to the split."""
    while True:
        fact = rng.choice(world.all_facts)
        template = rng.randrange(len(RELATIONS[fact.relation].templates))
        if held_out_template(fact, template) == (split == "held-out"):
            return example(fact, template)
