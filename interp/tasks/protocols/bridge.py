"""Read the entity in the middle of two hops, which is neither in the prompt nor in the output."""

from __future__ import annotations

import random

from interp.tasks import two_hop
from interp.tasks.protocols.items import Item, Part, ProtocolItems, check_apart, parts_of
from interp.tasks.world import World

__all__ = ["items"]

SHARES = (0.5, 0.2, 0.3)


def items(world: World, *, seed: int, sizes: tuple[int, int, int] = (3000, 400, 1200)) -> ProtocolItems:
    """Train on compositions of some bridge entities, test on compositions of others.

    The probe is trained on two-hop prompts, since a bridge need not be stored where an answer is. Validation
    and
    test take the compositions that the bundled model was never trained on, and then others up to the size
    asked
    for; ``notes`` says how many.
    """
    rng = random.Random(f"bridge:{seed}")
    known = two_hop.compositions(world)
    part = parts_of([c.entity for c in known], SHARES, seed)
    new: dict[Part, list[Item]] = {"train": [], "validation": [], "test": []}
    old: dict[Part, list[Item]] = {"train": [], "validation": [], "test": []}
    for composition in known:
        where = part[composition.entity]
        for template in range(len(two_hop.TEMPLATES)):
            item = _item(composition, template, where)
            if f" {composition.entity} " in f" {item.text.replace('-', ' ')} ":
                continue
            (new if composition.held_out else old)[where].append(item)
    for found in (new, old):
        for rows in found.values():
            rng.shuffle(rows)
    drawn = old["train"][: sizes[0]]
    plan: list[tuple[Part, int]] = [("validation", sizes[1]), ("test", sizes[2])]
    for name, n in plan:
        drawn += (new[name] + old[name])[:n]
    never = sum(1 for item in new["test"][: sizes[2]])
    note = f"{never} of the test prompts ask compositions that the bundled model was never trained on"
    result = ProtocolItems(tuple(drawn), world.concepts, (note,))
    return check_apart(result, lambda item: item.answer)


def _item(composition: two_hop.Composition, template: int, part: Part) -> Item:
    example = two_hop.example(composition, template)
    return Item(
        text=example.prompt,
        answer=composition.entity,
        relation=composition.bridge.relation,
        fact=f"{composition.bridge.relation}:{composition.subject}",
        part=part,
        output=composition.answer,
        subject=composition.subject,
    )
