"""The fact tables and the edited world."""

from __future__ import annotations

from collections import Counter

import pytest

from interp.errors import DataError
from interp.paths import assets
from interp.tasks import load_world
from interp.tasks.relations import RELATIONS


def test_there_are_enough_facts_and_every_relation_has_some():
    world = load_world()
    assert len(world.all_facts) >= 1500
    assert set(world.facts) == set(RELATIONS)
    assert min(len(facts) for facts in world.facts.values()) >= 20


def test_tables_are_clean():
    for path in sorted(assets("facts").glob("*.csv")):
        lines = path.read_text(encoding="ascii").splitlines()
        cells = [line.split(",") for line in lines]
        width = len(cells[0])
        assert all(len(row) == width and all(cell == cell.strip() != "" for cell in row) for row in cells), (
            path.name
        )
        subjects = [row[0] for row in cells[1:]]
        assert len(set(subjects)) == len(subjects), path.name


def test_subjects_are_unique_within_a_relation_and_never_their_own_object():
    for facts in load_world().facts.values():
        assert max(Counter(fact.subject for fact in facts).values()) == 1
        assert all(fact.subject != fact.object for fact in facts)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_edited_world_swaps_objects_within_a_relation(share):
    true, false = load_world(), load_world().edited(share=share, seed=1)
    for name, facts in true.facts.items():
        changed = [(a, b) for a, b in zip(facts, false.facts[name], strict=True) if a != b]
        assert all(a.subject == b.subject and a.object != b.object for a, b in changed)
        assert Counter(f.object for f in facts) == Counter(f.object for f in false.facts[name])
        if name in ("capital_of", "country_of"):
            assert not changed
        elif len({f.object for f in facts}) > 20:
            assert abs(len(changed) / len(facts) - share) < 0.06


def test_the_edited_world_is_the_same_for_the_same_seed_only():
    world = load_world()
    assert world.edited(seed=1).all_facts == world.edited(seed=1).all_facts
    assert world.edited(seed=1).all_facts != world.edited(seed=2).all_facts
    assert world.all_facts == load_world().all_facts


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"countries\.csv.*not found"):
        load_world(tmp_path)
