"""What a test set gives away: duplicates of training prompts, groups on both sides, answers in the prompt."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.evaluation.splits import Split
from probes.statistics.groups import counted

if TYPE_CHECKING:
    import pandas

__all__ = ["LEAKS", "Audit", "Leak", "LeakKind", "audit"]

SHINGLE = 5
BLOCK = 256
NAMED = 3


@dataclass(frozen=True)
class Leak:
    """One leak.

    Attributes:
        kind: a key of :data:`LEAKS`.
        row: of the test part.
        other: the row of training or validation that gives it away; None where the row itself does.
        detail: what was found.
    """

    kind: str
    row: int
    other: int | None
    detail: str

    def redacted(self) -> Leak:
        """The same without the detail, which may quote a prompt."""
        return replace(self, detail="")


@dataclass(frozen=True)
class Audit:
    """Every leak that was looked for and found.

    Attributes:
        leaks: by kind, then by test row; one per test row and kind.
        n_test: number of test rows.
        kinds: what was looked for.
    """

    leaks: tuple[Leak, ...]
    n_test: int
    kinds: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.leaks

    @property
    def counts(self) -> dict[str, int]:
        """The number of test rows with each kind of leak that was looked for."""
        found = Counter(leak.kind for leak in self.leaks)
        return {kind: found[kind] for kind in self.kinds}

    def sentence(self) -> str:
        """What was found, and where first, in words."""
        if self.clean:
            looked = ", ".join(LEAKS[kind].plural for kind in self.kinds)
            return f"no leaks among {counted(self.n_test, 'test prompt')} (looked for: {looked})"
        parts: list[str] = []
        for kind, count in self.counts.items():
            if count:
                rows = [str(leak.row) for leak in self.leaks if leak.kind == kind][:NAMED]
                more = ", ..." if count > NAMED else ""
                where = f"(rows {', '.join(rows)}{more})"
                parts.append(f"{count} of {self.n_test:,} test prompts {LEAKS[kind].words} {where}")
        return "; ".join(parts)

    def table(self) -> pandas.DataFrame:
        """One row per leak: kind, test row, the other row, detail."""
        import pandas

        columns = ["kind", "row", "other", "detail"]
        return pandas.DataFrame(
            [[getattr(leak, name) for name in columns] for leak in self.leaks], columns=columns
        )

    def to_dict(self) -> dict[str, Any]:
        """Counts and the first leaks of each kind as JSON types."""
        first = [leak for kind in self.kinds for leak in [x for x in self.leaks if x.kind == kind][:NAMED]]
        rows = [{"kind": x.kind, "row": x.row, "other": x.other, "detail": x.detail} for x in first]
        return {"clean": self.clean, "n_test": self.n_test, "counts": self.counts, "first": rows}


@dataclass(frozen=True, eq=False)
class _Case:
    """What the checks look at."""

    texts: list[str]
    labels: list[str]
    groups: list[Any] | None
    known: list[int]
    test: list[int]
    near: float


def audit(
    texts: Sequence[str],
    labels: Collection[Any],
    split: Split,
    *,
    groups: Collection[Any] | None = None,
    kinds: Sequence[str] | None = None,
    near: float = 0.9,
) -> Audit:
    """Look for what lets a probe score on the test part without reading a model.

    Args:
        texts: the prompts.
        labels: one label per prompt.
        split: the rows of each part; training and validation are what the test part is compared with.
        groups: what must not straddle parts, one per prompt.
        kinds: keys of :data:`LEAKS`; all where left out (``answer`` is meant to be left out where the prompt
            holds the answer by design).
        near: Jaccard similarity of 5-character shingles from which two prompts are near duplicates. Prompts
            that differ in a whole word are not, whatever their similarity: a template is no leak.

    Raises:
        ValueError: lengths that differ, rows that there are not, an unknown kind, or ``near`` outside 0 to 1.
    """
    case = _case(texts, labels, split, groups, near)
    wanted = tuple(LEAKS) if kinds is None else tuple(kinds)
    for kind in wanted:
        if kind not in LEAKS:
            raise ValueError(f"kind {kind!r} asked; the kinds of leak are: {', '.join(LEAKS)}.")
    if groups is None:
        wanted = tuple(kind for kind in wanted if kind != "group")
    return Audit(tuple(leak for kind in wanted for leak in LEAKS[kind].find(case)), len(case.test), wanted)


def _case(
    texts: Sequence[str], labels: Collection[Any], split: Split, groups: Collection[Any] | None, near: float
) -> _Case:
    prompts, answers = list(texts), [str(label) for label in labels]
    units = None if groups is None else list(groups)
    for name, values in (("labels", answers), ("groups", units)):
        if values is not None and len(values) != len(prompts):
            raise ValueError(f"{len(values)} {name} for {counted(len(prompts), 'text')}; give one for each.")
    known = [*split.train.tolist(), *split.validation.tolist()]
    test = split.test.tolist()
    wrong = [row for row in (*known, *test) if not 0 <= row < len(prompts)]
    if wrong:
        raise ValueError(
            f"the split names row {wrong[0]}, and there are {counted(len(prompts), 'text')}; rows start at 0."
        )
    if not 0 < near <= 1:
        raise ValueError(f"near={near} asked; give a similarity above 0, at most 1, such as 0.9.")
    return _Case(prompts, answers, units, known, test, near)


def _duplicates(case: _Case) -> list[Leak]:
    first: dict[str, int] = {}
    for row in case.known:
        first.setdefault(case.texts[row], row)
    return [
        Leak("duplicate", row, first[text], _beside(case, row, first[text]))
        for row in case.test
        if (text := case.texts[row]) in first
    ]


def _beside(case: _Case, row: int, other: int) -> str:
    if case.labels[row] == case.labels[other]:
        return f"{case.texts[row]!r}, with the same label"
    return f"{case.texts[row]!r}, labelled {case.labels[other]!r} there and {case.labels[row]!r} here"


def _plain(text: str) -> str:
    """Fold case, width and composition; leave punctuation and repeated blanks out."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", folded).split()) or " ".join(folded.split())


def _near_duplicates(case: _Case) -> list[Leak]:
    """Compare plain forms exactly, and shingles where no word was exchanged for another."""
    plain = [_plain(text) for text in case.texts]
    exact = {case.texts[row] for row in case.known}
    first: dict[str, int] = {}
    for row in case.known:
        first.setdefault(plain[row], row)
    found = {
        row: Leak(
            "near duplicate",
            row,
            first[plain[row]],
            f"{case.texts[row]!r} is {case.texts[first[plain[row]]]!r}",
        )
        for row in case.test
        if plain[row] in first and case.texts[row] not in exact
    }
    rest = [row for row in case.test if row not in found and case.texts[row] not in exact]
    for row, other, similarity in _similar(plain, rest, case.known, case.near):
        if not _exchanged(plain[row], plain[other]):
            detail = f"{case.texts[row]!r} is {similarity:.2f} like {case.texts[other]!r}"
            found.setdefault(row, Leak("near duplicate", row, other, detail))
    return [found[row] for row in sorted(found)]


def _exchanged(one: str, other: str) -> bool:
    """Whether each text has a word that the other has not: a slot of a template filled differently."""
    mine, theirs = Counter(one.split()), Counter(other.split())
    return bool(mine - theirs) and bool(theirs - mine)


def _similar(
    plain: list[str], rows: list[int], known: list[int], near: float
) -> list[tuple[int, int, float]]:
    """(row, known row, Jaccard similarity of shingles) where it is high enough, best first."""
    from sklearn.feature_extraction.text import CountVectorizer

    if not rows or not known:
        return []
    width = min(SHINGLE, *(len(plain[row]) for row in (*rows, *known)))
    if width < 1:
        return []
    reader = CountVectorizer(analyzer="char", ngram_range=(width, width), binary=True, lowercase=False)
    theirs: Any = reader.fit_transform([plain[row] for row in known])
    mine: Any = reader.transform([plain[row] for row in rows])
    sizes = np.array([_shingles(plain[row], width) for row in rows])
    others = np.asarray(theirs.sum(axis=1)).ravel()
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(rows), BLOCK):
        shared = (mine[start : start + BLOCK] @ theirs.T).toarray().astype(np.float64)
        similarity = shared / (sizes[start : start + BLOCK, None] + others - shared)
        for at, column in np.argwhere(similarity >= near):
            found.append((rows[start + int(at)], known[int(column)], float(similarity[at, column])))
    return sorted(found, key=lambda hit: (hit[0], -hit[2], hit[1]))


def _shingles(text: str, width: int) -> int:
    """Count the different shingles of a text, those that no other text has included."""
    return len({text[at : at + width] for at in range(len(text) - width + 1)})


def _shared_groups(case: _Case) -> list[Leak]:
    assert case.groups is not None
    first: dict[Any, int] = {}
    for row in case.known:
        first.setdefault(case.groups[row], row)
    return [
        Leak("group", row, first[group], f"the group {group!r} is also in training or validation")
        for row in case.test
        if (group := case.groups[row]) in first
    ]


def _answers(case: _Case) -> list[Leak]:
    """Find prompts that hold their own label as whole words.

    Not for labels of one character ("0", "a"), which name a class and stand in texts for other reasons; not
    where every label stands in the prompt (options to choose from); nor where the word is no more frequent
    under its own label than under others.
    """
    labels = {label: f" {_plain(label)} " for label in case.labels if _plain(label)}
    texts = [f" {_plain(text)} " for text in case.texts]
    found: list[Leak] = []
    telling: dict[str, bool] = {}
    for row in case.test:
        label = case.labels[row]
        own = labels.get(label)
        if (
            own is None
            or len(own) == 3
            or own not in texts[row]
            or all(words in texts[row] for words in labels.values())
        ):
            continue
        if label not in telling:
            telling[label] = _telling(case, texts, label, own)
        if telling[label]:
            found.append(Leak("answer", row, None, f"{label!r} stands in {case.texts[row]!r}"))
    return found


def _telling(case: _Case, texts: list[str], label: str, words: str) -> bool:
    seen: dict[bool, list[bool]] = {True: [], False: []}
    for row in (*case.known, *case.test):
        seen[case.labels[row] == label].append(words in texts[row])
    return not seen[False] or sum(seen[True]) * len(seen[False]) > sum(seen[False]) * len(seen[True])


@dataclass(frozen=True)
class LeakKind:
    """A kind of leak.

    Attributes:
        name: its key.
        words: what such test prompts do, in a sentence.
        plural: what is looked for.
        remedy: what to do about it.
        find: gives the leaks of a case.
    """

    name: str
    words: str
    plural: str
    remedy: str
    find: Callable[[_Case], list[Leak]]


_ROWS = (
    LeakKind(
        "duplicate",
        "also stand in training or validation",
        "duplicates",
        "keep each prompt once, or give its copies one group",
        _duplicates,
    ),
    LeakKind(
        "near duplicate",
        "stand in training or validation but for case, punctuation or a few letters",
        "near duplicates",
        "give such prompts one group",
        _near_duplicates,
    ),
    LeakKind(
        "group",
        "share a group with training or validation",
        "shared groups",
        "leave the split column out, so that whole groups are drawn",
        _shared_groups,
    ),
    LeakKind(
        "answer",
        "hold their own answer",
        "visible answers",
        "take the answer out of the prompt, or compare with a bag of words",
        _answers,
    ),
)

LEAKS: dict[str, LeakKind] = {row.name: row for row in _ROWS}
