"""Facts of the user's: tables, three published layouts, what is refused, and every protocol on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp.errors import DataError
from interp.tasks.own_facts import read_facts
from interp.tasks.protocols import PROTOCOLS
from interp.tasks.world import World

HEAD = "subject,relation,answer,template,group\n"


def table(path: Path, *rows: str, head: str = HEAD) -> Path:
    path.write_text(head + "\n".join(rows) + "\n")
    return path


def whole(path: Path, *, grouped: bool = False) -> World:
    """60 cities in 20 countries on 4 continents, without a template for the last hop."""
    rows = [
        f"city{n},country,land{n % 20},the country of {{}} is,{n % 20 if grouped else ''}" for n in range(60)
    ]
    rows += [f"land{n},continent,part{n % 4},,{n if grouped else ''}" for n in range(20)]
    return read_facts(table(path / "own.csv", *rows))


def test_a_table_becomes_relations_templates_groups_and_bridges(tmp_path: Path) -> None:
    world = whole(tmp_path, grouped=True)
    assert {name: len(facts) for name, facts in world.facts.items()} == {"country": 60, "continent": 20}
    assert world.relations["country"].templates == ("the country of {} is",)
    assert world.relations["continent"].templates == ()
    assert [(one.relation, one.phrase, one.second) for one in world.bridges] == [
        ("country", "the country of {}", ("continent",))
    ]
    assert world.facts["country"][21].unit == "group:1" and world.concepts[0] == "city0"


def test_blanks_around_cells_go_and_groups_may_be_left_out(tmp_path: Path) -> None:
    path = table(tmp_path / "f.csv", " a , r , b ", "c,r,d", head="subject,relation,answer\n")
    facts = read_facts(path).facts["r"]
    assert [(one.subject, one.object, one.unit) for one in facts] == [("a", "b", "r:a"), ("c", "d", "r:c")]


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "in-context"])
def test_every_protocol_asks_about_own_facts(name: str, tmp_path: Path) -> None:
    world = whole(tmp_path)
    found = PROTOCOLS[name].items(world=world, sizes=(60, 10, 20))
    assert found.part("train") and found.part("test")
    assert {item.relation for item in found.items} <= {"country", "continent"}
    assert all("city" in item.text or "land" in item.text for item in found.items)


@pytest.mark.parametrize("name", ["concept-disjoint", "pair-disjoint", "known-relations"])
def test_a_group_never_stands_on_both_sides(name: str, tmp_path: Path) -> None:
    """Groups of a country tie its cities together; without them facts of one country straddle."""
    whole_sizes = (400, 100, 100)
    grouped = PROTOCOLS[name].items(world=whole(tmp_path, grouped=True), sizes=whole_sizes)
    train = {item.fact for item in grouped.part("train")}
    assert train and not train & {item.fact for item in grouped.items if item.part != "train"}
    assert all(item.fact.startswith("group:") for item in grouped.items)


@pytest.mark.parametrize(
    "rows, message",
    {
        ("a,,b,,",): "line 2: column 'relation' is empty",
        ("a,r,b,,", "c,r,d,the r of is,"): r"line 3: column 'template' is 'the r of is'; write one \{\}",
        ("a,r,b,,", "c,r,d,{} and {},"): "line 3: column 'template' is",
        ("a,r,b,,", "a,r,c,,"): "line 3: 'r' of 'a' is 'c', but 'b' at .* line 2",
        ("a,r,b,,", "c,q,d,,"): "relation 'r' has one fact",
        ("a,r,a,,",): "line 2: column 'answer' repeats the subject 'a'",
    }.items(),
)
def test_what_would_be_misread_is_refused_by_line_and_column(
    rows: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_facts(table(tmp_path / "f.csv", *rows))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'answer'"):
        read_facts(table(tmp_path / "f.csv", "a,r,b", head="subject,relation,answers\n"))


def test_google_analogies(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(
        ": capitals\nAthens Greece Oslo Norway\nAthens Greece Rome Italy\n: plural\na b c d\na x c d\n"
    )
    world = read_facts(path)
    assert world.objects["capitals", "Oslo"] == "Norway" and len(world.facts["capitals"]) == 3
    assert world.objects["plural", "a"] == "b"  # the first partner counts
    path.write_text("Athens Greece Oslo Norway\n")
    with pytest.raises(DataError, match="line 1 has no ': section' line before it"):
        read_facts(path)
    path.write_text(": s\nAthens Greece Oslo\n")
    with pytest.raises(DataError, match="line 2 has 3 words"):
        read_facts(path)


def test_bats(tmp_path: Path) -> None:
    folder = tmp_path / "BATS" / "1_Encyclopedic"
    folder.mkdir(parents=True)
    (folder / "E01 [country - capital].txt").write_text("athens\tgreece\nrome\titaly/italia\n")
    world = read_facts(tmp_path / "BATS")
    assert world.objects["country - capital", "rome"] == "italy"
    (folder / "E02 [x].txt").write_text("athens greece\n")
    with pytest.raises(DataError, match=r"E02 \[x\].txt' line 1 is .*word<TAB>answer"):
        read_facts(tmp_path / "BATS")


def test_lre(tmp_path: Path) -> None:
    samples = [{"subject": "France", "object": "Paris"}, {"subject": "Italy", "object": ["Rome", "Roma"]}]
    record = {"name": "capital city", "prompt_templates": ["The capital of {} is"], "samples": samples}
    path = tmp_path / "capital.json"
    path.write_text(json.dumps(record))
    for place in (path, tmp_path):
        world = read_facts(place)
        assert world.objects["capital city", "Italy"] == "Rome"
        assert world.relations["capital city"].templates == ("The capital of {} is",)
    path.write_text(json.dumps({**record, "samples": [{"subject": "France"}]}))
    with pytest.raises(DataError, match="sample 1 needs 'subject' and 'object'"):
        read_facts(path)
    path.write_text(json.dumps({"name": "x"}))
    with pytest.raises(DataError, match="is no LRE relation"):
        read_facts(path)


def test_a_folder_without_facts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no .txt or .json file; give a .csv"):
        read_facts(tmp_path)
