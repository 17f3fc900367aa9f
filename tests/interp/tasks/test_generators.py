"""Every generator, checked by reading its sentences with a parser of the test's own."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from interp.tasks import TASKS, Example, is_held_out, load_world
from interp.tasks.relations import BRIDGES, RELATIONS
from interp.tasks.two_hop import compositions

WORLD = load_world()


def draws(task: str, split: str = "train", n: int = 200, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    return [TASKS[task].generate(WORLD, rng, split) for _ in range(n)]


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_gives_the_same_examples_and_another_seed_does_not(task):
    assert draws(task, seed=3) == draws(task, seed=3)
    assert draws(task, seed=3) != draws(task, seed=4)


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_right_and_never_also_wrong(task):
    for example in draws(task):
        assert example.answer in example.answers
        assert not set(example.answers) & set(example.wrong)
        assert example.text.startswith(f"{example.prompt} {example.answer}")


def prompts(task: str, split: str) -> set[str]:
    """Name the combination an example stands for."""
    whole = task in ("one-hop", "two-hop")
    return {e.prompt if whole else e.group for e in draws(task, split, 3000)}


@pytest.mark.parametrize("task", [t for t in TASKS if t not in ("analogy", "key-value")])
def test_no_held_out_combination_is_ever_drawn_for_training(task):
    trained, held_out = prompts(task, "train"), prompts(task, "held-out")
    assert held_out
    assert not trained & held_out
    assert prompts(task, "train") & trained  # the comparison can find a match


def test_analogies_hold_out_unordered_pairs():
    def pairs(split):
        return {
            (e.label, *sorted((dict(e.variables)["a"], dict(e.variables)["c"])))
            for e in draws("analogy", split, 4000)
        }

    assert not pairs("train") & pairs("held-out")
    assert all(is_held_out("analogy", *pair) for pair in pairs("held-out"))


def test_key_value_never_asks_a_held_out_binding_in_training():
    for example in draws("key-value", "train", 500):
        values = dict(example.variables)
        for text, answer in example.turns:
            key = re.findall(r"[\w' -]+?(?= (?::|=|has the)$)", text)[-1].strip().removeprefix("the ")
            key = next(k for k in values["keys"].split("|") if key.endswith(k))
            assert not is_held_out("key-value", key, answer)


@pytest.mark.parametrize("task", [t for t in TASKS if t not in ("analogy",)])
def test_the_held_out_share_is_near_the_stated_one(task):
    keys = [str(i) for i in range(20_000)]
    share = sum(is_held_out(task, key) for key in keys) / len(keys)
    assert abs(share - 0.15) < 0.01


def test_one_hop_states_a_fact_of_the_tables():
    for example in draws("one-hop"):
        relation, template = example.template.split("/")
        subject = dict(example.variables)["subject"]
        assert WORLD.objects[relation, subject] == example.answer
        assert example.prompt == RELATIONS[relation].templates[int(template)].replace("{}", subject)


def test_every_fact_keeps_a_trained_template():
    from interp.tasks.one_hop import held_out_template

    for fact in WORLD.all_facts:
        n = len(RELATIONS[fact.relation].templates)
        assert not all(held_out_template(fact, index) for index in range(n))


def test_analogy_answers_by_the_same_relation_and_the_shown_pair_names_only_one():
    for example in draws("analogy"):
        values = dict(example.variables)
        joined = [r for r in RELATIONS if WORLD.objects.get((r, values["a"])) == values["b"]]
        assert joined == [example.label]
        assert WORLD.objects[example.label, values["c"]] == example.answer
        assert values["b"] != example.answer


def test_key_value_answer_stands_beside_its_key():
    for example in draws("key-value"):
        values = dict(example.variables)
        table = dict(zip(values["keys"].split("|"), values["values"].split("|"), strict=True))
        key = values["keys"].split("|")[int(values["asked"])]
        assert table[key] == example.answer
        assert len(set(table) | set(table.values())) == 2 * len(table)
        assert Counter(example.prompt.replace(".", " ").split())[key.split()[0]] >= 2


def test_patterns_repeat_with_their_period():
    for example in draws("pattern"):
        words = dict(example.variables)["words"].split("|")
        period = [words["abcdef".index(letter)] for letter in example.template]
        assert example.text == " ".join(period * 3) + " ."


def test_two_hop_composes_two_facts_and_names_neither_bridge_nor_answer():
    for example in draws("two-hop"):
        values = dict(example.variables)
        assert WORLD.objects[values["first"], values["subject"]] == values["bridge"]
        assert WORLD.objects[values["second"], values["bridge"]] == example.answer
        assert values["subject"] in example.prompt
        if values["first"] in ("capital_of", "country_of"):
            assert not re.search(
                rf"\b{re.escape(values['bridge'])}\b", example.prompt.replace(values["subject"], "")
            )


def test_untrained_compositions_never_occur_in_training():
    from interp.tasks import two_hop

    rng = random.Random(0)
    new = {two_hop.generate(WORLD, rng, "held-out", trained=False).group for _ in range(2000)}
    trained = {e.group for e in draws("two-hop", "train", 8000)}
    assert new and not new & trained
    assert 0.1 < sum(c.held_out for c in compositions(WORLD)) / len(compositions(WORLD)) < 0.2
    assert {c.bridge.relation for c in compositions(WORLD)} == {bridge.relation for bridge in BRIDGES}


def test_indirect_object_is_the_name_said_once():
    for example in draws("indirect-object"):
        names = [word for word in example.prompt.split() if word in set(WORLD.column("names"))]
        counts = Counter(names)
        assert sorted(counts.values()) == [1, 2]
        assert counts[example.answer] == 1
        assert (names[0] == example.answer) == (example.label == "ABBA")


def test_greater_than_answers_are_later_in_the_same_century():
    for example in draws("greater-than"):
        century, year = re.search(r"(\d\d)(\d\d)", example.prompt).groups()
        assert example.prompt.rstrip().endswith(century)
        assert int(example.answer) > int(year)
        assert {int(y) for y in example.answers} == set(range(int(year) + 1, 100))


def test_agreement_follows_the_subject_and_not_the_attractor():
    plural = {row[1] for row in WORLD.lists["animate_nouns"]}
    for example in draws("agreement"):
        subject = dict(example.variables)["noun"]
        column = 1 if subject in plural else 0
        assert example.answer in WORLD.column("verbs_agreement", column)
        assert set(example.wrong) == set(WORLD.column("verbs_agreement", 1 - column))


def test_addition_adds():
    for example in draws("addition"):
        first, second = (int(n) for n in re.findall(r"\d+", example.prompt))
        assert int(example.answer) == first + second < 100
