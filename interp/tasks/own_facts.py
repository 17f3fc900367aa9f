"""Facts of the user's: a table of subject, relation, answer, or an analogy file as others publish them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import DataError
from interp.paths import text_of
from interp.tasks.files import cell, rows_of
from interp.tasks.relations import Bridge, Relation
from interp.tasks.world import Fact, World

__all__ = ["read_facts"]

COLUMNS = ("subject", "relation", "answer")
FORMATS = (
    "a .csv, .tsv or .jsonl file of subject, relation, answer[, template][, group]; a .txt file of "
    "': section' lines and four words a line (Google analogies); a .json file of name, prompt_templates, "
    "samples (LRE), or a folder of them; a folder of .txt files of 'word<TAB>a/b/c' (BATS)"
)


@dataclass(frozen=True)
class _Row:
    """A fact as it was read, and where."""

    where: str
    fact: Fact
    template: str = ""


def read_facts(path: str | Path) -> World:
    """Read facts of the user's into a world that every protocol of concept probing can ask about.

    A relation without a template is asked by examples: ``a -> b``, one pair a line. Where the answers of a
    relation are subjects of another, the bridge between them is "the RELATION of SUBJECT".

    Args:
        path: a table (``.csv``, ``.tsv``, ``.jsonl``) with the columns ``subject``, ``relation`` and
            ``answer``; ``template``, a sentence with ``{}`` for the subject that ends where the answer goes;
            and ``group``, which never stands on both sides of a split. Or a file or folder in the layout of
            the Google analogies (Mikolov et al. 2013), BATS (Gladkova et al. 2016) or LRE (Hernandez et al.
            2024).

    Raises:
        DataError: no such file, another layout, an empty cell, a template without ``{}``, two answers to one
            question, or a relation of one fact; the message names file, line and column.
    """
    path = Path(path)
    if path.is_dir():
        rows = _folder(path)
    elif path.suffix.lower() == ".txt":
        rows = _google(path)
    elif path.suffix.lower() == ".json":
        rows = _lre(path)
    else:
        rows = _table(path)
    return _world(path, [*rows])


def _world(path: Path, rows: list[_Row]) -> World:
    """The facts by relation, its templates, and the bridges between relations."""
    facts: dict[str, dict[str, _Row]] = {}
    templates: dict[str, dict[str, None]] = {}
    for row in rows:
        known = facts.setdefault(row.fact.relation, {})
        first = known.setdefault(row.fact.subject, row)
        if first.fact.object != row.fact.object:
            raise DataError(
                f"{row.where}: {row.fact.relation!r} of {row.fact.subject!r} is {row.fact.object!r}, but "
                f"{first.fact.object!r} at {first.where}; keep one answer for each subject."
            )
        if row.template:
            templates.setdefault(row.fact.relation, {})[row.template] = None
    for name, known in facts.items():
        if len(known) < 2:
            where = next(iter(known.values())).where
            raise DataError(f"{where}: relation {name!r} has one fact; give two or more of each relation.")
    if not facts:
        raise DataError(f"'{path}' holds no facts; give {FORMATS}.")
    relations = {
        name: Relation(name, path.name, "subject", "answer", _noun(name), tuple(templates.get(name, ())))
        for name in facts
    }
    found = {name: tuple(row.fact for row in known.values()) for name, known in facts.items()}
    return World(found, {}, relations, tuple(_bridges(found)))


def _noun(relation: str) -> str:
    return relation.replace("_", " ").replace("-", " ").strip()


def _bridges(facts: Mapping[str, tuple[Fact, ...]]) -> Iterator[Bridge]:
    """Every relation whose answers other relations are asked about."""
    subjects = {name: {fact.subject for fact in known} for name, known in facts.items()}
    for name, known in facts.items():
        answers = {fact.object for fact in known}
        second = tuple(other for other, about in subjects.items() if other != name and answers & about)
        if second:
            yield Bridge(name, f"the {_noun(name)} of {{}}", second)


def _table(path: Path) -> Iterator[_Row]:
    rows = rows_of(path, COLUMNS)
    for line, row in rows:
        subject, relation, answer = (cell(path, line, row, name) for name in COLUMNS)
        template, group = (str(row.get(name) or "").strip() for name in ("template", "group"))
        if subject == answer:
            raise DataError(
                f"'{path}' line {line}: column 'answer' repeats the subject {subject!r}, which no probe need "
                "read; remove the line."
            )
        yield _Row(
            f"'{path}' line {line}",
            Fact(relation, subject, answer, group),
            _template(f"'{path}' line {line}: column 'template'", template),
        )


def _template(where: str, text: str) -> str:
    """A sentence that asks for the answer, its place for the subject written ``{}``."""
    text = text.replace("{subject}", "{}").removesuffix("{answer}").removesuffix("{object}").rstrip()
    if text and (text.count("{}") != 1 or set("{}") & set(text.replace("{}", ""))):
        raise DataError(
            f"{where} is {text!r}; write one {{}} where the subject stands, and end where the answer goes: "
            "'the capital of {} is'."
        )
    return text


def _google(path: Path) -> Iterator[_Row]:
    """``: section`` and lines of ``a b c d``, two facts of the section; a word's first partner counts."""
    section, seen = "", dict[tuple[str, str], str]()
    for number, line in enumerate(text_of(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if words[0].startswith(":"):
            section = line.strip().lstrip(":").strip()
        elif len(words) != 4 or not section:
            found = f"{len(words)} words" if section else "no ': section' line before it"
            raise DataError(
                f"'{path}' line {number} has {found}; Google analogies are ': section' lines, each followed "
                "by lines of four words."
            )
        else:
            for a, b in (words[:2], words[2:]):
                if seen.setdefault((section, a), b) == b and a != b:
                    yield _Row(f"'{path}' line {number}", Fact(section, a, b))


def _folder(path: Path) -> Iterator[_Row]:
    """A folder, or a folder of folders, of BATS or LRE files: one relation a file."""
    files = sorted(one for one in path.rglob("*") if one.suffix.lower() in (".txt", ".json"))
    if not files:
        raise DataError(f"'{path}' holds no .txt or .json file; give {FORMATS}.")
    for one in files:
        yield from _lre(one) if one.suffix.lower() == ".json" else _bats(one)


def _bats(path: Path) -> Iterator[_Row]:
    """``word<TAB>a/b/c``: the first of the answers counts."""
    seen: set[str] = set()
    for number, line in enumerate(text_of(path).splitlines(), 1):
        word, tab, answers = line.strip().partition("\t")
        answer = answers.split("/")[0].strip()
        if not line.strip():
            continue
        if not tab or not word or not answer:
            raise DataError(f"'{path}' line {number} is {line!r}; BATS files hold 'word<TAB>answer/answer'.")
        if word not in seen and word != answer:  # a word that is there twice has more answers
            seen.add(word)
            yield _Row(f"'{path}' line {number}", Fact(_named(path.stem), word, answer))


def _named(stem: str) -> str:
    """The name of a BATS file without its number and brackets: ``E01 [country - capital]``."""
    _, bracket, inside = stem.partition("[")
    return inside.rstrip("] ").strip() if bracket else stem


def _lre(path: Path) -> Iterator[_Row]:
    """``name``, ``prompt_templates``, ``samples`` of ``subject`` and ``object``; the first object counts."""
    try:
        found: Any = json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise DataError(f"'{path}' line {error.lineno} is not JSON: {error.msg}.") from None
    wanted = ("name", "samples")
    if not isinstance(found, Mapping) or not all(key in found for key in wanted):
        raise DataError(f"'{path}' is no LRE relation: it needs 'name', 'prompt_templates' and 'samples'.")
    texts: Iterable[Any] = found.get("prompt_templates") or ("",)
    templates = [_template(f"'{path}': prompt_templates", str(one)) for one in texts]
    seen: set[str] = set()
    for number, sample in enumerate(found["samples"], 1):
        where = f"'{path}' sample {number}"
        if not isinstance(sample, Mapping) or not all(_text(sample.get(k)) for k in ("subject", "object")):
            raise DataError(f"{where} needs 'subject' and 'object', both text that is not empty.")
        subject, answer = _text(sample["subject"]), _text(sample["object"])
        if subject not in seen and subject != answer:
            seen.add(subject)
            fact = Fact(str(found["name"]).strip(), subject, answer)
            yield from (_Row(where, fact, template) for template in templates)


def _text(value: Any) -> str:
    value = value[0] if isinstance(value, list) and value else value
    return value.strip() if isinstance(value, str) else ""
