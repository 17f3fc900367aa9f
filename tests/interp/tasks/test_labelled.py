"""Labelled prompts: the bundled tasks, and files of the user's."""

from __future__ import annotations

import json

import pandas
import pytest

from interp import tasks
from interp.errors import ConfigError, DataError
from interp.tasks.files import as_labelled


@pytest.mark.parametrize("name", tasks.LABELLED)
def test_a_task_is_seeded_split_by_group_and_has_every_class_in_every_split(name):
    data = tasks.labelled(name, n=400, seed=5)
    assert data == tasks.labelled(name, n=400, seed=5)
    assert data.texts != tasks.labelled(name, n=400, seed=6).texts
    assert len(set(data.texts)) == len(data)
    assert len(set(zip(data.groups, data.splits, strict=True))) == len(set(data.groups))
    assert set(data.splits) == {"train", "validation", "test"}
    assert set(data.labels) >= {
        label for label, split in zip(data.labels, data.splits, strict=True) if split == "test"
    }
    assert len(set(data.labels)) > 1


def test_analogies_share_no_subject_between_splits():
    data = tasks.labelled("analogy-relation")
    subjects = {"train": set(), "validation": set(), "test": set()}
    for text, split in zip(data.texts, data.splits, strict=True):
        left, right = (
            (text.split(" : ")[0], text.rsplit(" = ", 1)[-1])
            if "=" in text
            else (text.split(" is to ")[0], text.split(" as ")[-1].removesuffix(" is to"))
        )
        subjects[split] |= {left, right.removesuffix(" :")}
    assert not subjects["train"] & subjects["test"]
    assert not subjects["validation"] & subjects["test"]
    assert subjects["train"] & {t.split(" : ")[0] for t in data.texts}


def test_unknown_task_and_empty_draw_are_refused():
    with pytest.raises(ConfigError, match="the tasks are: analogy-relation"):
        tasks.labelled("analogie")
    with pytest.raises(ConfigError, match="at least 1"):
        tasks.labelled("category", n=0)


def test_limit_keeps_order_and_is_seeded():
    data = tasks.labelled("category")
    some = data.limit(50, seed=1)
    assert len(some) == 50
    assert [data.texts.index(text) for text in some.texts] == sorted(
        data.texts.index(text) for text in some.texts
    )
    assert some == data.limit(50, seed=1) != data.limit(50, seed=2)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_the_formats_read_the_same(tmp_path, suffix):
    rows = [
        ("a, b", "x", "g1", "train"),
        ("tab\there", "[/red]", "g2", "test"),
        ("naïve", "3", "g1", "train"),
    ]
    path = tmp_path / f"data.{suffix}"
    if suffix == "jsonl":
        names = ("text", "label", "group", "split")
        path.write_text(
            "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows), encoding="utf-8"
        )
    elif suffix == "parquet":
        import pandas

        pandas.DataFrame(rows, columns=["text", "label", "group", "split"]).to_parquet(path)
    else:
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if suffix == "tsv" else ",")
            writer.writerows([("text", "label", "group", "split"), *rows])
    data = tasks.read_labelled(path)
    assert list(zip(data.texts, data.labels, data.groups, data.splits, strict=True)) == rows
    assert data.grouped


def test_blanks_around_labels_do_not_make_classes_and_odd_line_ends_do_not_split_text(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a\u2028b ", "label": " x"}\n{"text": "c", "label": "x"}\n', encoding="utf-8")
    data = tasks.read_labelled(path)
    assert data.texts == ("a\u2028b ", "c")
    assert data.labels == ("x", "x")


def test_without_groups_every_row_is_its_own(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("text,label\na,1\nb,2\n")
    data = tasks.read_labelled(path)
    assert len(set(data.groups)) == 2
    assert not data.grouped


def test_a_folder_and_a_pattern_are_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "c", "label": "x"}\n')
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "notes.txt").write_text("nothing of the kind")
    whole = tasks.read_labelled(tmp_path)
    assert (whole.texts, whole.labels, whole.name) == (("a", "b", "c"), ("x", "y", "x"), tmp_path.stem)
    assert len(set(whole.groups)) == 3 and not whole.grouped, "line 2 of one file is not line 2 of another"
    assert tasks.read_labelled(tmp_path / "*.jsonl").texts == ("c",)
    (tmp_path / "c.csv").write_text("txt,label\na,x\n")
    with pytest.raises(DataError, match=r"c\.csv' has no column 'text'"):
        tasks.read_labelled(tmp_path)
    with pytest.raises(
        DataError, match=r"\*\.tsv', a pattern, holds no file of prompts; their names end in \.csv"
    ):
        tasks.read_labelled(tmp_path / "*.tsv")


def test_conversations_of_parquet_are_those_of_json_lines(tmp_path):
    import pyarrow
    import pyarrow.parquet

    chats = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        {"messages": [{"role": "user", "content": "a", "name": "Ann"}]},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(chats), tmp_path / "d.parquet")
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, chats)))
    found, wanted = (tasks.read_labelled(tmp_path / f"d.{suffix}") for suffix in ("parquet", "jsonl"))
    assert found.texts == wanted.texts
    assert [*map(json.loads, found.messages)] == [*map(json.loads, wanted.messages)]


BAD = {
    "broken.parquet": (b"PAR1 but no more", "cannot be read as parquet"),
    "empty.csv": (b"", "has no rows"),
    "header.csv": (b"text,label\n", "has no rows"),
    "column.csv": (b"txt,label\na,b\n", "no column 'text'.*Is 'txt' meant"),
    "latin.csv": ("text,label\ncafé,b\n".encode("latin-1"), "not UTF-8"),
    "cell.csv": (b"text,label\na,\n", "line 2: column 'label' is empty"),
    "split.csv": (b"text,label,split\na,b,tset\n", "split 'tset' is not one of"),
    "broken.jsonl": (b'{"text": "a", "label"\n', "line 1 is not JSON"),
    "list.jsonl": (b'["a", "b"]\n', "line 1 is not an object"),
    "nested.jsonl": (b'{"text": ["a"], "label": "b"}\n', "holds list, not text"),
    "data.txt": (b"a b", "ends in '.txt'"),
    "comma.csv": (b"text,label\nHello, world,x\n", "line 2 has more cells than the 2 columns"),
    "twice.csv": (b"text,label,label\na,b,c\n", "two columns 'label'"),
    "long.csv": (b"text,label\n" + b"a" * 200_000 + b",x\n", "cannot be read behind line"),
    "nan.jsonl": (b'{"text": "a", "label": NaN}\n', "column 'label' is nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_a_remedy(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        tasks.read_labelled(path)


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "prompts.csv").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"Did you mean 'prompts\.csv'"):
        tasks.read_labelled(tmp_path / "promts.csv")


def test_rows_are_read_as_a_user_has_them(tmp_path):
    rows = [{"text": "a one", "label": "x", "group": "1"}, {"text": "a two", "label": 2, "group": "2"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = tasks.read_labelled(tmp_path / "d.jsonl")
    for given in (read, tmp_path / "d.jsonl", rows, pandas.DataFrame(rows)):
        found = as_labelled(given)
        assert (found.texts, found.labels, found.groups) == (read.texts, ("x", "2"), ("1", "2"))
    missing = pandas.DataFrame([*rows, {"text": "a three", "label": float("nan"), "group": "3"}])
    with pytest.raises(DataError, match="line 3: column 'label' is empty"):
        as_labelled(missing)
    with pytest.raises(DataError, match="a int given"):
        as_labelled(3)
