"""What each protocol keeps apart, checked on the texts themselves, beside one that keeps nothing apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from interp.tasks import load_world
from interp.tasks.numbers import number_facts, with_numbers
from interp.tasks.protocols import PROTOCOLS, Item, ProtocolItems, check_apart

NAMES = tuple(PROTOCOLS)


@pytest.fixture(scope="module")
def drawn() -> dict[str, ProtocolItems]:
    return {name: row.items(seed=0, sizes=(1500, 200, 400)) for name, row in PROTOCOLS.items()}


def words(items: tuple[Item, ...]) -> set[str]:
    return {word for item in items for word in (*item.text.split(), item.answer)}


@pytest.mark.parametrize("name", NAMES)
def test_parts_have_the_size_asked_for_and_share_no_prompt(
    name: str, drawn: dict[str, ProtocolItems]
) -> None:
    found = drawn[name]
    sizes = {part: len(found.part(part)) for part in ("train", "validation", "test")}
    assert sizes == {"train": 1500, "validation": 200, "test": 400}
    assert max(Counter(item.text for item in found.items if item.part != "train").values()) == 1
    train = {item.text for item in found.part("train")}
    assert not train & {item.text for item in found.items if item.part != "train"}
    assert {item.answer for item in found.items} <= set(found.concepts)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_draws_the_same_prompts_and_another_does_not(name: str) -> None:
    first, second, third = (PROTOCOLS[name].items(seed=s, sizes=(50, 10, 20)).items for s in (1, 1, 2))
    assert first == second != third


def test_held_out_concepts_are_in_no_training_prompt(drawn: dict[str, ProtocolItems]) -> None:
    found = drawn["concept-disjoint"]
    known = words(found.part("train"))
    held = {item.answer for item in found.items if item.part != "train"}
    templates = {word for word in held & known if word not in {i.subject for i in found.part("train")}}
    assert not held & {item.answer for item in found.part("train")}
    assert not held & {item.subject for item in found.part("train")}
    assert len(templates) < 5  # words of the templates themselves, such as 'is'
    assert not {i.answer for i in found.part("validation")} & {i.answer for i in found.part("test")}
    seen = drawn["seen-pairs"]
    assert {i.answer for i in seen.part("test")} & {i.answer for i in seen.part("train")}


def test_the_bridge_is_neither_in_the_prompt_nor_in_the_output(drawn: dict[str, ProtocolItems]) -> None:
    found = drawn["bridge"]
    for item in found.items:
        assert item.answer not in item.text.split()
        assert item.answer != item.output
    assert not {i.answer for i in found.part("test")} & found.trained
    assert "were never trained" not in found.notes[0] and "never trained on" in found.notes[0]


def test_bindings_are_fresh_and_the_candidates_stand_in_the_prompt(drawn: dict[str, ProtocolItems]) -> None:
    for item in drawn["in-context"].items:
        assert item.answer in item.candidates and 2 <= len(item.candidates) <= 4
        assert all(f" {value} " in f" {item.text} " for value in item.candidates)
    share = sum(1 / len(i.candidates) for i in drawn["in-context"].part("test")) / 400
    assert drawn["in-context"].ceiling() == pytest.approx(share)


def test_facts_of_the_test_are_in_no_training_prompt_but_their_answers_are(
    drawn: dict[str, ProtocolItems],
) -> None:
    found = drawn["pair-disjoint"]
    pairs = {(i.subject, i.answer) for i in found.part("train")} | {i.shown for i in found.part("train")}
    for item in found.part("test"):
        assert (item.subject, item.answer) not in pairs
        assert item.answer in found.trained
    assert 0.05 < found.ceiling() < 0.3
    assert drawn["seen-pairs"].ceiling() == 1.0
    assert drawn["concept-disjoint"].ceiling() == 0.0


def test_answers_follow_from_the_facts(drawn: dict[str, ProtocolItems]) -> None:
    objects = load_world().objects
    for name in ("concept-disjoint", "pair-disjoint", "seen-pairs"):
        assert all(objects[item.relation, item.subject] == item.answer for item in drawn[name].items)


def test_prompts_by_example_ask_for_answers_that_stand_in_no_training_prompt(
    drawn: dict[str, ProtocolItems],
) -> None:
    found, objects = drawn["known-relations"], with_numbers().objects
    held = {item.answer for item in found.items if item.part != "train"}
    shown = [line.split(" -> ") for item in found.items for line in item.text.split("\n")[:-1]]
    asked = [item.text.rsplit("\n", 1)[1].removesuffix(" ->") for item in found.part("train")]
    assert not held & {word for pair in shown for word in pair} and not held & set(asked)
    assert {len(item.text.split("\n")) for item in found.items} <= {2, 3, 4}
    for item in found.items:
        pairs = [line.split(" -> ") for line in item.text.split("\n")[:-1]]
        assert all(objects[item.relation, a] == b for a, b in pairs)
        assert item.answer not in {b for _, b in pairs} and item.text.endswith(f"{item.subject} ->")
        assert objects[item.relation, item.subject] == item.answer
    few = PROTOCOLS["known-relations"].items(sizes=(31, 10, 31))
    assert len({item.relation for item in few.part("train")}) > 25


@pytest.mark.parametrize("name, rule", {
    "successor": lambda n: n + 1, "predecessor": lambda n: n - 1, "double": lambda n: 2 * n,
    "square": lambda n: n * n,
}.items())  # fmt: skip
def test_relations_of_numbers_are_what_they_say(name: str, rule: Callable[[int], int]) -> None:
    facts = number_facts(seed=3).facts[name]
    assert len(facts) >= 30 and all(rule(int(fact.subject)) == int(fact.object) for fact in facts)
    assert number_facts(seed=3).facts == number_facts(seed=3).facts != number_facts(seed=4).facts


def test_inverse_relations_of_numbers_agree() -> None:
    found = number_facts().facts
    assert all(2 * int(fact.object) == int(fact.subject) for fact in found["half"])
    assert all(int(fact.object) ** 2 == int(fact.subject) for fact in found["square_root"])
    words = {fact.object: fact.subject for fact in found["numeral"]}
    both = [fact for fact in found["number"] if fact.subject in words]
    assert len(both) > 20 and all(words[fact.subject] == fact.object for fact in both)
    assert dict(number_facts(n=99).objects)["numeral", "42"] == "forty-two"


def test_a_straddling_fact_is_refused(drawn: dict[str, ProtocolItems]) -> None:
    with pytest.raises(ValueError, match="is in training and in"):
        check_apart(drawn["seen-pairs"], lambda item: item.fact)


def test_an_edited_world_changes_answers_and_nothing_else() -> None:
    edited = load_world().edited(share=0.2, seed=0)
    found = PROTOCOLS["seen-pairs"].items(seed=0, world=edited, sizes=(200, 20, 40))
    assert all(edited.objects[item.relation, item.subject] == item.answer for item in found.items)
    truth = load_world().objects
    assert any(truth[item.relation, item.subject] != item.answer for item in found.items)
