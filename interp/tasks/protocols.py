"""Protocols: the prompts a concept probe is trained and tested on, and what it could know without a model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from interp.tasks import analogy, few_shot, key_value, two_hop
from interp.tasks.items import Item, Part, ProtocolItems, Sizes, check_apart, given_away, parts_of
from interp.tasks.numbers import with_numbers
from interp.tasks.sampling import distinct
from interp.tasks.splits import Split
from interp.tasks.world import Fact, World, load_world

__all__ = ["PROTOCOLS", "Item", "Protocol", "ProtocolItems", "check_apart"]

TRIES = 200
LAYERS = {
    "best": "the layer with the best rank of the right concept on validation prompts",
    "ahead": "the layer where the probe is furthest ahead of the logit lens on validation prompts",
}
"""How one of several layers is chosen, never on test prompts."""
N_VALUES = 60
MOST_OBJECTS = 0.5


@dataclass(frozen=True)
class Protocol:
    """A way of asking what a probe reads.

    Attributes:
        name: what users type (``--protocol``).
        draw: makes its prompts from the facts, a seed and sizes.
        sizes: prompts for training, validation and test where none are asked for.
        question: what it tests, in one sentence.
        knower: what a probe could score without the model.
        codebook: ``embeddings`` (of the model's unembedding) or ``random``.
        controls: which controls bind it, keys of ``interp.analyses.concepts.CONTROLS``.
        holdout: what the validation part holds out: ``concepts`` or ``groups``.
        upper_bound: whether a good score can be had by storing the facts.
        leaks: kinds of leak that belong to the question (``probes.evaluation.LEAKS``).
        asked: which prompts count: ``all``, or those that the model, asked first, ``answers`` right.
        facts: the bundled facts that are drawn from where none are given.
        encoder: how a probe learns where nobody says: ``translator`` where the question is what the model is
            about to say; ``auto`` for one that learns the concepts as labels.
        layer: which of several layers is reported, a key of ``LAYERS``.
    """

    name: str
    draw: Callable[[World, int, Sizes], ProtocolItems]
    sizes: Sizes
    question: str
    knower: str
    codebook: Literal["embeddings", "random"]
    controls: tuple[str, ...]
    holdout: Literal["concepts", "groups"] = "groups"
    upper_bound: bool = False
    leaks: tuple[str, ...] = ()
    asked: Literal["all", "answers"] = "all"
    facts: Callable[[], World] = load_world
    encoder: Literal["auto", "translator"] = "auto"
    layer: Literal["best", "ahead"] = "best"

    def items(
        self, *, seed: int = 0, world: World | None = None, sizes: Sizes | None = None
    ) -> ProtocolItems:
        """Draw the prompts.

        Args:
            seed: of the shares and of the draw.
            world: the facts; the bundled ones where left out.
            sizes: prompts for training, validation and test, at most; the protocol's own where left out.
        """
        return self.draw(
            self.facts() if world is None else world, seed, self.sizes if sizes is None else sizes
        )


def _concept_disjoint(world: World, seed: int, sizes: Sizes) -> ProtocolItems:
    """Train on one-hop statements, test on analogies whose answer was no answer and no subject in training.

    Objects are shared out 60/15/25 over training, validation and test; a statement trains the probe when its
    object is a training concept and its subject is not held out. Analogies are of pairs that the bundled
    model was not trained on, with an example pair that fits one relation only.
    """
    rng = random.Random(f"concept-disjoint:{seed}")
    part = parts_of([fact.object for fact in world.all_facts], (0.6, 0.15, 0.25), seed)
    held = {name for name, where in part.items() if where != "train"}
    asked_units = {fact.unit for fact in world.all_facts if fact.object in held}
    taught = [
        fact
        for fact in world.all_facts
        if not held & {fact.object, fact.subject} and fact.unit not in asked_units
    ]
    statements = [
        Item(
            text=text,
            answer=fact.object,
            relation=fact.relation,
            fact=fact.unit,
            part="train",
            output=fact.object,
            subject=fact.subject,
        )
        for fact in taught
        for text in few_shot.statements(world, fact, taught, rng)
    ]
    rng.shuffle(statements)
    found = statements[: sizes[0]]
    plan: list[tuple[Part, int]] = [("validation", sizes[1]), ("test", sizes[2])]
    for name, n in plan:
        asked = [fact for fact in world.all_facts if part[fact.object] == name]
        found += _analogies(world, name, n, asked=asked, shown=lambda fact: True, rng=rng, split="held-out")
    result = check_apart(ProtocolItems(tuple(found), world.concepts), lambda item: item.answer)
    return check_apart(result, lambda item: item.fact)


def _bridge(world: World, seed: int, sizes: Sizes) -> ProtocolItems:
    """Train on compositions of some bridge entities, test on compositions of others.

    The probe is trained on two-hop prompts, since a bridge need not be stored where an answer is. Validation
    and test take the compositions that the bundled model was never trained on, and then others up to the
    size asked for; ``notes`` says how many.
    """
    rng = random.Random(f"bridge:{seed}")
    known = two_hop.compositions(world)
    part = parts_of([c.entity for c in known], (0.5, 0.2, 0.3), seed)
    new: dict[Part, list[Item]] = {"train": [], "validation": [], "test": []}
    old: dict[Part, list[Item]] = {"train": [], "validation": [], "test": []}
    for composition in known:
        where = part[composition.entity]
        for template in range(len(two_hop.TEMPLATES)):
            item = _bridge_item(composition, template, where)
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
    return check_apart(ProtocolItems(tuple(drawn), world.concepts, (note,)), lambda item: item.answer)


def _bridge_item(composition: two_hop.Composition, template: int, part: Part) -> Item:
    return Item(
        text=two_hop.example(composition, template).prompt,
        answer=composition.entity,
        relation=composition.bridge.relation,
        fact=f"{composition.bridge.relation}:{composition.subject}",
        part=part,
        output=composition.answer,
        subject=composition.subject,
    )


def _in_context(world: World, seed: int, sizes: Sizes) -> ProtocolItems:
    """Bind keys to values afresh in every prompt, and ask for one.

    Nothing but the prompt says which value belongs to the key, so that a probe which stores facts has the
    informed chance of one over the number of values in the prompt.
    """
    rng = random.Random(f"in-context:{seed}")
    words = rng.sample(sorted(world.concepts), 2 * N_VALUES)
    keys, values = words[:N_VALUES], words[N_VALUES:]
    found: dict[str, Item] = {}
    plan: list[tuple[Part, int]] = [("train", sizes[0]), ("validation", sizes[1]), ("test", sizes[2])]
    for part, n in plan:
        wanted = len(found) + n
        while len(found) < wanted:
            item = _binding(keys, values, rng, part)
            found.setdefault(item.text, item)
    return ProtocolItems(tuple(found.values()), tuple(sorted(values)))


def _binding(keys: list[str], values: list[str], rng: random.Random, part: Part) -> Item:
    n = rng.choice((2, 3, 4))
    bound, with_values = rng.sample(keys, n), rng.sample(values, n)
    asked = rng.randrange(n)
    example = key_value.example(bound, with_values, [asked], rng.choice(tuple(key_value.TEMPLATES)))
    return Item(
        text=example.prompt,
        answer=with_values[asked],
        relation=f"{n} bindings",
        fact=example.prompt,
        part=part,
        output=with_values[asked],
        candidates=tuple(with_values),
        subject=bound[asked],
    )


def _pair_disjoint(world: World, seed: int, sizes: Sizes) -> ProtocolItems:
    """Train and test on analogies of many-to-one relations; facts are shared out over the parts.

    A test fact stands in no training prompt, neither asked nor shown, but its answer does with other
    subjects. On one-to-one relations nothing would be left to learn, so they are left out: a relation counts
    that has at most half as many objects as facts.
    """
    rng = random.Random(f"pair-disjoint:{seed}")
    facts = [
        fact
        for known in world.facts.values()
        if len({fact.object for fact in known}) <= MOST_OBJECTS * len(known)
        for fact in known
    ]
    counts = Counter((fact.relation, fact.object) for fact in facts)
    facts = [fact for fact in facts if counts[fact.relation, fact.object] >= 3]
    part = parts_of([_pair(fact) for fact in facts], (0.6, 0.15, 0.25), seed)
    taught = {(fact.relation, fact.object) for fact in facts if part[_pair(fact)] == "train"}
    found: list[Item] = []
    plan: list[tuple[Part, int]] = [("train", sizes[0]), ("validation", sizes[1]), ("test", sizes[2])]
    for name, n in plan:
        asked = [
            fact for fact in facts if part[_pair(fact)] == name and (fact.relation, fact.object) in taught
        ]
        found += _analogies(
            world, name, n, asked=asked, shown=lambda fact: part.get(_pair(fact)) == "train", rng=rng
        )
    result = check_apart(ProtocolItems(tuple(found), world.concepts), lambda item: item.fact)
    return check_apart(result, lambda item: f"{item.subject} -> {item.answer}")


def _pair(fact: Fact) -> str:
    """The group, or the pair of words: one that two relations share is one thing to know."""
    return fact.unit if fact.group else f"{fact.subject} -> {fact.object}"


def _seen_pairs(world: World, seed: int, sizes: Sizes) -> ProtocolItems:
    """Train and test on analogies over the same facts; only the prompts differ.

    A probe can store which answer belongs to which subject, so this is an upper bound (Bronzini et al. 2025
    train and probe on the same quadruples).
    """
    rng = random.Random(f"seen-pairs:{seed}")
    found = _analogies(world, "train", sizes[0], asked=world.all_facts, shown=lambda fact: True, rng=rng)
    met, texts = {(item.relation, item.subject) for item in found}, {item.text for item in found}
    asked = [fact for fact in world.all_facts if (fact.relation, fact.subject) in met]
    plan: list[tuple[Part, int]] = [("validation", sizes[1]), ("test", sizes[2])]
    for part, n in plan:
        more = _analogies(world, part, 2 * n, asked=asked, shown=lambda fact: True, rng=rng)
        fresh = [item for item in more if item.text not in texts][:n]
        texts |= {item.text for item in fresh}
        found += fresh
    return ProtocolItems(tuple(found), world.concepts)


def _analogies(
    world: World,
    part: Part,
    n: int,
    *,
    asked: Sequence[Fact],
    shown: Callable[[Fact], bool],
    rng: random.Random,
    split: Split | None = None,
) -> list[Item]:
    """Draw n different analogies, or as many as there are within a fixed number of tries.

    Args:
        world: the facts.
        part: which part they are for.
        n: how many.
        asked: the facts to ask for.
        shown: which facts may stand as the example.
        rng: the only source of randomness.
        split: which pairs, by what the bundled model was trained on; any where left out.
    """
    if not asked:
        return []
    pools = {name: tuple(fact for fact in facts if shown(fact)) for name, facts in world.facts.items()}

    def tried() -> Iterator[Item | None]:
        while True:
            question = rng.choice(asked)
            pool = pools[question.relation]
            example = rng.choice(pool) if pool else question
            fits = split is None or analogy.in_pair_split(split, example, question)
            if (
                fits
                and analogy.clear(world, example, question)
                and not given_away(question.object, (example.subject, example.object, question.subject))
            ):
                yield _analogy_item(example, question, rng.choice(tuple(analogy.TEMPLATES)), part)
            else:
                yield None

    return distinct(tried(), n, lambda item: item.text, tries=TRIES * n)


def _analogy_item(shown: Fact, asked: Fact, template: str, part: Part) -> Item:
    return Item(
        text=analogy.example(shown, asked, template).prompt,
        answer=asked.object,
        relation=asked.relation,
        fact=asked.unit,
        part=part,
        output=asked.object,
        subject=asked.subject,
        shown=(shown.subject, shown.object),
    )


_COMMON = ("constant", "bag-of-tokens", "ordered-slots", "shuffled", "random-weights")
_NEW_CONCEPTS = (
    *_COMMON,
    "permuted-codebook",
    "subject-embedding",
)  # exchanged codes only rename concepts that were trained
_ROWS = (
    Protocol(
        "concept-disjoint",
        _concept_disjoint,
        (4000, 800, 1200),
        "can concepts be read that the probe was never trained on?",
        "nothing: the answers of the test are in no training prompt",
        "embeddings",
        _NEW_CONCEPTS,
        holdout="concepts",
    ),
    Protocol(
        "bridge",
        _bridge,
        (3000, 400, 1200),
        "can the middle of two hops be read, which is neither in the prompt nor in the output?",
        "nothing: the bridges of the test are in no training prompt",
        "embeddings",
        (*_NEW_CONCEPTS, "shuffled-in-relation"),
        holdout="concepts",
    ),
    Protocol(
        "in-context",
        _in_context,
        (3000, 500, 1200),
        "can a binding be read that holds in one prompt only?",
        "which values stand in the prompt: one over their number",
        "random",
        _COMMON,
        leaks=("answer",),
    ),
    Protocol(
        "pair-disjoint",
        _pair_disjoint,
        (4000, 600, 1200),
        "can facts be read that the probe was never trained on, where it knows the answers?",
        "the commonest answer of the relation",
        "embeddings",
        (*_COMMON, "control-task"),
    ),
    Protocol(
        "seen-pairs",
        _seen_pairs,
        (6000, 600, 1200),
        "what does the published protocol score, where every fact of the test was trained?",
        "everything: the facts of the test are stored in the training part",
        "embeddings",
        (*_COMMON, "control-task"),
        upper_bound=True,
        leaks=("group",),
    ),
    Protocol(
        "known-relations",
        few_shot.known_relations,
        (2400, 500, 900),
        "can answers that the model knows be read before it gives them, where they were never trained?",
        "nothing: the answers of the test are in no training prompt",
        "embeddings",
        _NEW_CONCEPTS,
        holdout="concepts",
        asked="answers",
        facts=with_numbers,
        encoder="translator",
        layer="ahead",
    ),
)

PROTOCOLS: dict[str, Protocol] = {row.name: row for row in _ROWS}
"""The protocols, the strictest first."""
