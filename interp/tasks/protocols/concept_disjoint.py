"""Read concepts that the probe was never trained on: the headline."""

from __future__ import annotations

import random

from interp.tasks import one_hop
from interp.tasks.protocols.drawing import analogies
from interp.tasks.protocols.items import Item, ProtocolItems, check_apart, parts_of
from interp.tasks.relations import RELATIONS
from interp.tasks.world import World

__all__ = ["items"]

SHARES = (0.6, 0.15, 0.25)


def items(world: World, *, seed: int, sizes: tuple[int, int, int] = (4000, 800, 1200)) -> ProtocolItems:
    """Train on one-hop statements, test on analogies whose answer was no answer and no subject in training.

    Objects are shared out 60/15/25 over training, validation and test; a statement trains the probe when its
    object is a training concept and its subject is not held out. Analogies are of pairs that the bundled
    model
    was not trained on, with an example pair that fits one relation only.
    """
    rng = random.Random(f"concept-disjoint:{seed}")
    part = parts_of([fact.object for fact in world.all_facts], SHARES, seed)
    held = {name for name, where in part.items() if where != "train"}
    statements = [
        Item(
            text=example.prompt,
            answer=fact.object,
            relation=fact.relation,
            fact=fact.key,
            part="train",
            output=fact.object,
            subject=fact.subject,
        )
        for fact in world.all_facts
        if fact.object not in held and fact.subject not in held
        for template in range(len(RELATIONS[fact.relation].templates))
        for example in [one_hop.example(fact, template)]
    ]
    rng.shuffle(statements)
    found = statements[: sizes[0]]
    for name, n in (("validation", sizes[1]), ("test", sizes[2])):
        asked = [fact for fact in world.all_facts if part[fact.object] == name]
        where = "validation" if name == "validation" else "test"
        found += analogies(world, where, n, asked=asked, shown=lambda fact: True, rng=rng, split="held-out")
    result = check_apart(ProtocolItems(tuple(found), world.concepts), lambda item: item.answer)
    return check_apart(result, lambda item: item.fact)
