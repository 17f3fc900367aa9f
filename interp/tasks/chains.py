"""Chains of two facts: what a two-hop question is made of, and files of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from interp.errors import DataError
from interp.tasks.files import cell, rows_of

__all__ = ["Chain", "read_chains"]

OWN = ("both", "mention", "first", "second", "bridge", "answer")
PUBLIC = ("e1.value", "e2.value", "e3.value", "r1(e1).prompt", "r2(e2).prompt", "r2(r1(e1)).prompt")
KIND, COPULAS = "fact_comp_type", ("is", "was", "are", "were")
"""Columns of one's own, those of TwoHopFact, what the latter calls a kind, and what ends no mention."""


@dataclass(frozen=True)
class Chain:
    """Two facts that share an entity which the question for both only describes.

    Attributes:
        both: the two-hop question: ``the currency of the country whose capital is Paris is``.
        mention: its part that describes the bridge: ``the country whose capital is Paris``.
        first: the question for the bridge: ``the country whose capital is Paris is``.
        second: the question that names the bridge: ``the currency of France is the``.
        bridge: the entity in the middle: ``France``.
        answer: to ``both`` and ``second``: ``euro``.
        kind: relations and template; chains of one kind stand in for each other.
        group: over which intervals are; the bridge where "".
    """

    both: str
    mention: str
    first: str
    second: str
    bridge: str
    answer: str
    kind: str = ""
    group: str = ""


def read_chains(path: str | Path) -> tuple[Chain, ...]:
    """Read chains for the two-hop analysis from a ``.csv``, ``.tsv`` or ``.jsonl`` file in UTF-8.

    Args:
        path: with the columns ``both``, ``mention``, ``first``, ``second``, ``bridge``, ``answer`` and, if
            wanted, ``kind`` and ``group``, as in :class:`Chain`; or with those of TwoHopFact (Yang et al.
            2024): ``e1.value``, ``e2.value``, ``e3.value``, ``r1(e1).prompt``, ``r2(e2).prompt``,
            ``r2(r1(e1)).prompt`` and, if wanted, ``fact_comp_type``. There the mention is what the questions
            for the bridge and for both have alike, up to ``e1.value`` at least, without an "is" (or was, are,
            were) at its end. Other columns are not read.

    Raises:
        DataError: no such file, not UTF-8, no rows, a missing column, an empty cell, or a two-hop question
            without its mention; the message names the line and the column.
    """
    path = Path(path)
    rows = rows_of(path, ())
    names = [str(name) for name in rows[0][1]]
    public = "r2(r1(e1)).prompt" in names
    wanted = PUBLIC if public else OWN
    if missing := [name for name in wanted if name not in names]:
        raise DataError(
            f"'{path}' has no column '{missing[0]}'; its columns are: {', '.join(names)}. Chains need "
            f"{', '.join(OWN)}, or {', '.join(PUBLIC)} (TwoHopFact)."
        )
    read = _public if public else _own
    return tuple(read(path, line, row) for line, row in rows)


def _own(path: Path, line: int, row: Mapping[str, object]) -> Chain:
    texts = [cell(path, line, row, name) for name in OWN]
    kind, group = (str(row.get(name) or "").strip() for name in ("kind", "group"))
    chain = Chain(*texts, kind=f"{kind}/0", group=group)
    if chain.mention not in chain.both:
        raise DataError(
            f"'{path}' line {line}: column 'mention' is {chain.mention!r}, which is not in {chain.both!r}."
        )
    return chain


def _public(path: Path, line: int, row: Mapping[str, object]) -> Chain:
    entity, bridge, answer, first, second, both = (cell(path, line, row, name) for name in PUBLIC)
    mention = _mention(first, both, entity)
    if not mention:
        raise DataError(
            f"'{path}' line {line}: {both!r} (r2(r1(e1)).prompt) does not hold what {first!r} "
            f"(r1(e1).prompt) begins with, up to {entity!r} (e1.value)."
        )
    return Chain(both, mention, first, second, bridge, answer, f"{str(row.get(KIND) or '').strip()}/0")


def _mention(first: str, both: str, entity: str) -> str:
    """The longest beginning of the one question that is in the other, cut at the end of a word.

    Its first letter may be a capital in one of them. Both may go on with "is", which is not of the mention,
    and the entity alone describes nothing.
    """
    best = ""
    for at in range(len(both)):
        if both[at].lower() != first[:1].lower():
            continue
        pairs = zip(both[at + 1 :], first[1:], strict=False)
        length = 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        found = both[at : at + length]
        if both[at + length : at + length + 1].isalnum() or first[length : length + 1].isalnum():
            found = found[: max(found.rfind(" "), 0)]
        best = max(best, found.rstrip(), key=len)
    bare, _, last = best.rpartition(" ")
    best = bare if last in COPULAS and entity in bare else best
    described = entity in best and any(map(str.isalnum, best.replace(entity, "", 1)))
    return best if described else ""
