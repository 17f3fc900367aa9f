"""Pairs of prompts that differ in one thing: clean and corrupt, with the answer to each.

A ``PairSet`` is token-aligned on construction: clean and corrupt of a pair have equally many tokens, answer
and foil differ in their first token, or are meant to be scored whole. What does not line up is refused, or
dropped, with the share on record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from interp.conversations import Span
from interp.conversations.messages import check, is_conversation, transcript, with_tools
from interp.errors import AlignmentError, ConfigError, DataError, counted
from interp.models.answers import score
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.tokens import JOINTS, Joint, Tokens, continuation, followed
from interp.paths import objects, records_of, text_of

__all__ = ["Pair", "PairSet"]


Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or messages ``{"role": ..., "content": ...}``."""
SIDES = ("clean", "corrupt")


@dataclass(frozen=True)
class Pair:
    """Two prompts and what should come next.

    Attributes:
        clean: the prompt: a text; or messages, behind which the template begins an answer, or whose last one
            goes on where that is the assistant's.
        corrupt: the counterfactual prompt, token by token beside the clean one.
        answers: words that are right after ``clean``.
        foils: words that are right after ``corrupt``, or that ``clean`` is measured against.
        kind: which counterfactual; ``"null"`` where nothing that matters differs.
        group: what must not straddle a split, and what intervals are over.
        joint: how the words follow: after a "blank", "direct", or "auto", as the prompt's end demands. A word
            that is written with a blank before it is taken as it is.
    """

    clean: Prompt
    corrupt: Prompt
    answers: tuple[str, ...]
    foils: tuple[str, ...]
    kind: str = ""
    group: str = ""
    joint: Joint = "auto"


@dataclass(frozen=True, eq=False, repr=False)
class PairSet:
    """Pairs as one model sees them.

    Attributes:
        pairs: the texts.
        clean: their tokens.
        corrupt: their tokens, each as long as its clean one.
        answer_ids: per pair the first token of each answer.
        foil_ids: per pair the first token of each foil.
        notes: what a reader should know, such as the share that was kept.
        name: of the task or the file; "" for pairs that were made by hand.
        description: what they are like, in a few words.
    """

    pairs: tuple[Pair, ...]
    clean: Tokens
    corrupt: Tokens
    answer_ids: tuple[tuple[int, ...], ...]
    foil_ids: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()
    name: str = ""
    description: str = ""

    @classmethod
    def build(
        cls,
        model: ModelLike,
        pairs: Sequence[Pair],
        *,
        misaligned: Literal["refuse", "drop"] = "refuse",
        whole: bool = False,
    ) -> PairSet:
        """Tokenize pairs and check that they line up.

        Args:
            model: whose tokenizer is used.
            pairs: the texts.
            misaligned: refuse the first pair that does not line up, or drop all such pairs, and those with
                words that the tokenizer does not know, and say how many.
            whole: take answers and foils that begin with the same token, for metrics of whole answers
                (``answer-log-odds``).

        Raises:
            AlignmentError: clean and corrupt of a pair have different numbers of tokens, or conversations of
                other roles, or with messages that do not stand at the same tokens.
            DataError: no pairs (left), or answers that cannot be told from foils by their first token, or
                as a whole.
        """
        if misaligned not in ("refuse", "drop"):
            raise ConfigError(f"misaligned={misaligned!r} asked; use 'refuse' or 'drop'.")
        if not pairs:
            raise DataError("no pairs were given; give at least one.")
        model = as_model(model)
        clean, corrupt = (_tokens(model, [getattr(one, side) for one in pairs]) for side in SIDES)
        first = _Continuations(model, whole)
        kept: list[int] = []
        answers: list[tuple[int, ...]] = []
        foils: list[tuple[int, ...]] = []
        first.read(pairs, clean)
        for number, pair in enumerate(pairs):
            if misaligned == "drop" and first.unknown(clean.token_ids[number] + corrupt.token_ids[number]):
                continue
            try:
                _check_roles(number, pair)
                _check_aligned(model, number, clean, corrupt)
                both = first.told_apart(number, pair, clean)
            except (AlignmentError, DataError):
                if misaligned == "refuse":
                    raise
                continue
            kept.append(number)
            answers.append(both[0])
            foils.append(both[1])
        if not kept:
            raise DataError(
                f"none of {counted(len(pairs), 'pair')} lines up for {model.name!r}; use "
                "misaligned='refuse' (--misaligned refuse) to see why."
            )
        share = f"{len(kept)} of {counted(len(pairs), 'pair')} line up for this tokenizer"
        notes = (share,) if len(kept) < len(pairs) else ()
        if strange := sum(first.unknown(clean.token_ids[at] + corrupt.token_ids[at]) for at in kept):
            notes += (
                f"{strange} of {counted(len(kept), 'pair')} hold words that the tokenizer does not know",
            )
        if long := first.several([(pairs[at], clean.texts[at]) for at in kept]):
            notes += (
                f"{long} of {counted(len(kept), 'pair')} have an answer or a foil of several tokens, of "
                "which all "
                "metrics but answer-log-odds and answer-log-prob read the first",
            )
        return cls(
            tuple(pairs[at] for at in kept),
            _picked(clean, kept),
            _picked(corrupt, kept),
            tuple(answers),
            tuple(foils),
            notes,
        )

    @classmethod
    def from_jsonl(
        cls,
        model: ModelLike,
        path: str | Path,
        *,
        misaligned: Literal["refuse", "drop"] = "refuse",
        whole: bool = False,
    ) -> PairSet:
        """Read pairs from a file of one JSON object per line.

        Its keys: clean, corrupt, answer, foil[, kind, group, joint]. ``answer`` and ``foil`` are a text or a
        list of texts; ``joint`` is how they follow (see :class:`Pair`). ``clean`` and ``corrupt`` are texts,
        or lists of messages, with ``tools`` of both beside them. The parameters are those of :meth:`build`.

        Raises:
            DataError: no such file, a line that is no such object, or what :meth:`build` refuses.
        """
        path = Path(path)
        found = cls.build(model, _read(path), misaligned=misaligned, whole=whole)
        return replace(found, name=path.stem)

    def save(self, path: str | Path) -> Path:
        """Write the texts as :meth:`from_jsonl` reads them."""
        rows = [
            {"clean": p.clean, "corrupt": p.corrupt, "answer": list(p.answers), "foil": list(p.foils)}
            | {"kind": p.kind, "group": p.group}
            | ({"joint": p.joint} if p.joint != "auto" else {})
            for p in self.pairs
        ]
        path = Path(path)
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False, default=dict) + "\n" for row in rows),
            encoding="utf-8",
        )
        return path

    @property
    def first_difference(self) -> tuple[int, ...]:
        """Of each pair the first position whose tokens differ; the length where none does."""
        found: list[int] = []
        for clean, corrupt in zip(self.clean.token_ids, self.corrupt.token_ids, strict=True):
            differ = [at for at, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b]
            found.append(differ[0] if differ else len(clean))
        return tuple(found)

    @property
    def groups(self) -> list[str]:
        """Of each pair what intervals are over; its own text where it has no group."""
        return [pair.group or _said(pair.clean) for pair in self.pairs]

    @property
    def described(self) -> dict[str, Any]:
        """Name, description, n, groups and fingerprint of the texts: what a result says of its data."""
        rows = [[p.clean, p.corrupt, p.answers, p.foils] for p in self.pairs]
        told = json.dumps(rows, ensure_ascii=False, default=dict)
        found = hashlib.sha256(told.encode("utf-8", "surrogatepass"))
        return {
            "name": self.name or "own pairs",
            "description": self.description,
            "n": len(self),
            "groups": len(set(self.groups)),
            "fingerprint": found.hexdigest(),
        }

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of tokens of each pair's prompts."""
        return self.clean.lengths

    def swap(self) -> PairSet:
        """Exchange clean and corrupt, and answers and foils with them (except where nothing changes)."""
        pairs = tuple(
            replace(p, clean=p.corrupt, corrupt=p.clean)
            if p.kind == "null"
            else replace(p, clean=p.corrupt, corrupt=p.clean, answers=p.foils, foils=p.answers)
            for p in self.pairs
        )
        ids = zip(self.pairs, self.answer_ids, self.foil_ids, strict=True)
        turned = [(a, f) if p.kind == "null" else (f, a) for p, a, f in ids]
        answers, foils = tuple(a for a, _ in turned), tuple(f for _, f in turned)
        return replace(
            self, pairs=pairs, clean=self.corrupt, corrupt=self.clean, answer_ids=answers, foil_ids=foils
        )

    def right(self, model: ModelLike, *, batch_size: str | int = "auto") -> PairSet:
        """Keep the pairs whose clean prompt the model answers rather with an answer than with a foil.

        First tokens are compared; where an answer and a foil share theirs, they are scored whole.

        Raises:
            DataError: there is none.
        """
        model = as_model(model)
        logits = model.logits(self.clean, batch_size=batch_size)
        kept = [
            row
            for row, (answers, foils) in enumerate(zip(self.answer_ids, self.foil_ids, strict=True))
            if (
                self._rather(model, row)
                if set(answers) & set(foils)
                else bool(logits[row, list(answers)].max() > logits[row, list(foils)].max())
            )
        ]
        if not kept:
            raise DataError(
                f"{model.name!r} answers none of the {len(self)} clean prompts; choose another task."
            )
        found = self[kept]
        note = f"{len(kept)} of {counted(len(self), 'pair')} kept: the model answers their clean prompt"
        return replace(found, notes=(*self.notes, note)) if len(kept) < len(self) else found

    def _rather(self, model: Model, row: int) -> bool:
        """Whether the likeliest whole answer to a clean prompt is likelier than every foil."""
        pair = self.pairs[row]
        words = (*pair.answers, *pair.foils)
        scored = score(model, self.clean.select([row] * len(words)), words, joint=pair.joint).log_probability
        return bool(scored[: len(pair.answers)].max() > scored[len(pair.answers) :].max())

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        """One pair after the other."""
        return iter(self.pairs)

    def __getitem__(self, rows: slice | Sequence[int]) -> PairSet:
        """Some of the pairs."""
        picked = list(range(len(self)))[rows] if isinstance(rows, slice) else [int(row) for row in rows]
        return replace(
            self,
            pairs=tuple(self.pairs[at] for at in picked),
            clean=_picked(self.clean, picked),
            corrupt=_picked(self.corrupt, picked),
            answer_ids=tuple(self.answer_ids[at] for at in picked),
            foil_ids=tuple(self.foil_ids[at] for at in picked),
        )

    def __repr__(self) -> str:
        """What it holds, in one line."""
        kinds = ", ".join(sorted({pair.kind for pair in self.pairs if pair.kind}))
        what = f"{len(self)} {kinds}" if kinds else counted(len(self), "pair")
        low, high = min(self.lengths), max(self.lengths)
        tokens = counted(low, "token") if low == high else f"{low} to {high} tokens"
        return f"PairSet({what}, {tokens})"


def _picked(tokens: Tokens, rows: Sequence[int]) -> Tokens:
    return replace(tokens.select(rows), warnings=tokens.warnings)


def _tokens(model: Model, prompts: Sequence[Prompt]) -> Tokens:
    chats = any(map(is_conversation, prompts))
    return model.tokenize(list(prompts), continue_="open" if chats else "auto")


def _said(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else transcript(prompt)


def _check_roles(number: int, pair: Pair) -> None:
    """Refuse messages beside a text, and messages of other roles.

    Raises:
        AlignmentError: naming what each side has.
    """
    told = [
        "is a text"
        if isinstance(given, str)
        else f"has messages of {', '.join(str(one['role']) for one in given)}"
        for given in (pair.clean, pair.corrupt)
    ]
    if told[0] != told[1]:
        raise AlignmentError(
            f"pair {number}: clean {told[0]}, and corrupt {told[1]}. Give both the same roles, in order, "
            "or use misaligned='drop' (--misaligned drop)."
        )


def _check_aligned(model: Model, number: int, both: Tokens, others: Tokens) -> None:
    clean, corrupt = both.token_ids[number], others.token_ids[number]
    spans, beside = ((one.spans[number] if one.spans else None) or () for one in (both, others))
    if (other := _first_other(spans, beside)) is not None:
        one, two = other
        texts = [_decoded(model, ids[part.start : part.stop]) for ids, part in ((clean, one), (corrupt, two))]
        of = "" if one.kind == two.kind else f" of {two.kind}"
        raise AlignmentError(
            f"pair {number}: message {one.turn} ({one.role}) has {counted(one.stop - one.start, 'token')} of "
            f"{one.kind} in clean and {two.stop - two.start}{of} in corrupt, {texts[0]!r} and {texts[1]!r}. "
            "Reword one of them, or use misaligned='drop' (--misaligned drop)."
        )
    if len(clean) == len(corrupt):
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(clean, corrupt, strict=False)) if a != b),
        min(len(clean), len(corrupt)),
    )
    words = [repr(_decoded(model, ids[at : at + 1])) for ids in (clean, corrupt)]
    raise AlignmentError(
        f"pair {number}: clean has {counted(len(clean), 'token')}, corrupt has {len(corrupt)}; they first "
        "differ at "
        f"token {at} ({' / '.join(words)}). Reword one of them, or use misaligned='drop' (--misaligned drop)."
    )


def _first_other(clean: Sequence[Span], corrupt: Sequence[Span]) -> tuple[Span, Span] | None:
    """The first spans of two conversations that do not stand at the same tokens."""
    return next((both for both in zip(clean, corrupt, strict=False) if both[0] != both[1]), None)


def _decoded(model: Model, ids: Sequence[int]) -> str:
    return str(model.tokenizer.decode(list(ids))) if model.tokenizer is not None and ids else ""


class _Continuations:
    """The tokens of each word as it stands after a prompt; remembered by prompt and word."""

    def __init__(self, model: Model, whole: bool) -> None:
        self.model, self.whole = model, whole
        self.known: dict[tuple[str, str, str], tuple[int, ...]] = {}
        self.refused: dict[tuple[str, str, str], DataError] = {}

    def read(self, pairs: Sequence[Pair], clean: Tokens) -> None:
        """Ask for all words of all pairs together, which the tokenizer answers far sooner than one by one."""
        tokenizer = self.model.tokenizer
        assert tokenizer is not None  # the prompts are texts, which were tokenized before
        for joint in JOINTS:
            asked = {
                (clean.texts[number], word, joint): clean.token_ids[number]
                for number, pair in enumerate(pairs)
                if pair.joint == joint
                for word in (*pair.answers, *pair.foils)
                if word.strip()
            }
            rows = [(text, ids, word) for (text, word, _), ids in asked.items()]
            try:
                found = followed(rows, tokenizer, vocab_size=self.model.vocab_size, joint=joint)
            except DataError:  # of one of them, which is named where it is asked for by itself
                continue
            for key, one in zip(asked, found, strict=True):
                if isinstance(one, DataError):
                    self.refused[key] = one
                else:
                    self.known[key] = one

    def unknown(self, ids: Sequence[int]) -> bool:
        """Whether a prompt holds a word that the tokenizer does not know."""
        found = getattr(self.model.tokenizer, "unk_token_id", None)
        return found is not None and found != self.model.tokenizer.bos_token_id and found in ids  # type: ignore[union-attr]

    def several(self, pairs: Sequence[tuple[Pair, str]]) -> int:
        """How many pairs have a word of several tokens."""
        words = ((*both, word) for both in pairs for word in (*both[0].answers, *both[0].foils))
        return len({id(pair) for pair, text, word in words if len(self.known[text, word, pair.joint]) > 1})

    def told_apart(self, number: int, pair: Pair, clean: Tokens) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The first tokens of answers and foils.

        Raises:
            DataError: a side without words, or an answer and a foil that are the same, one of which goes on
                where the other ends, or that start with the same token where first tokens are read.
        """
        sides: list[dict[str, tuple[int, ...]]] = []
        for name, words in (("answer", pair.answers), ("foil", pair.foils)):
            if not words or not all(word.strip() for word in words):
                raise DataError(f"pair {number} has no {name}, or an empty one; give at least one word.")
            sides.append({word: self.of(number, word, pair, clean) for word in words})
        answers, foils = sides
        for a, f in product(answers, foils):
            if answers[a][0] == foils[f][0]:
                self._same(f"pair {number}: the answer {a!r} and the foil {f!r}", answers[a], foils[f])
        firsts = [tuple(dict.fromkeys(ids[0] for ids in side.values())) for side in sides]
        return firsts[0], firsts[1]

    def _same(self, what: str, answer: tuple[int, ...], foil: tuple[int, ...]) -> None:
        """Refuse an answer and a foil that begin with the same token, unless they can be told apart."""
        if answer == foil:
            raise DataError(f"{what} are the same; no metric can tell them apart.")
        ends = min(len(answer), len(foil))
        if answer[:ends] == foil[:ends]:
            raise DataError(
                f"{what}: one goes on where the other ends, so that it can never be the likelier one. Give "
                "words of which neither begins the other."
            )
        if not self.whole:
            token = _decoded(self.model, answer[:1])
            raise DataError(
                f"{what} start with the same token {token!r}, and most metrics read one token. Score "
                "them whole: metric='answer-log-odds' on PairSet.build(..., whole=True) (--metric "
                "answer-log-odds)."
            )

    def of(self, number: int, word: str, pair: Pair, clean: Tokens) -> tuple[int, ...]:
        """The tokens that follow the clean prompt when the word does."""
        text = clean.texts[number]
        key = (text, word, pair.joint)
        if key in self.refused:
            raise self.refused[key]
        if key not in self.known:
            tokenizer = self.model.tokenizer
            assert tokenizer is not None  # the prompts are texts, which were tokenized before
            size = self.model.vocab_size
            self.known[key] = continuation(
                text, clean.token_ids[number], word, tokenizer, vocab_size=size, joint=pair.joint
            )
        return self.known[key]


def own_pairs(model: ModelLike, given: Any) -> PairSet:
    """Pairs of whatever a user has them in.

    Args:
        model: whose tokens.
        given: :class:`PairSet`; a file that :meth:`PairSet.from_jsonl` reads; a pandas DataFrame or a list of
            mappings with clean, corrupt, answer and foil; or a list of :class:`Pair`.

    Raises:
        DataError: what these refuse, or something else; rows are counted from 1.
    """
    if isinstance(given, PairSet):
        return given
    if isinstance(given, str | Path):
        return PairSet.from_jsonl(model, given)
    if isinstance(given, list | tuple) and given and all(isinstance(one, Pair) for one in given):
        return PairSet.build(model, given)
    rows = records_of(given)
    if not rows:
        raise DataError(
            f"a {type(given).__name__} given; give a PairSet, a .jsonl file, a DataFrame or a list of "
            "mappings with clean, corrupt, answer and foil."
        )
    return PairSet.build(model, [_pair(Path("rows"), at, row) for at, row in enumerate(rows, start=1)])


def _read(path: Path) -> list[Pair]:
    if path.suffix.lower() in (".csv", ".tsv"):
        raise DataError(
            f"'{path}' is a table; pairs come as a .jsonl file of one object per line, such as "
            '{"clean": "...", "corrupt": "...", "answer": "...", "foil": "..."}.'
        )
    pairs = [_pair(path, number, row) for number, row in objects(path, text_of(path))]
    if not pairs:
        raise DataError(f"'{path}' has no pairs; write one object per line: clean, corrupt, answer, foil.")
    return pairs


def _pair(path: Path, number: int, row: Mapping[str, Any]) -> Pair:
    wanted = ("clean", "corrupt", "answer", "foil")
    missing = [key for key in wanted if row.get(key) in (None, "", [])]
    if missing:
        raise DataError(f"'{path}' line {number} has no {missing[0]!r}; each line needs {', '.join(wanted)}.")
    prompts = [_prompt(path, number, key, row) for key in SIDES]
    answers, foils = (_words(path, number, key, row[key]) for key in ("answer", "foil"))
    joint = row.get("joint", "auto")
    if joint not in JOINTS:
        raise DataError(f"'{path}' line {number}: joint {joint!r} asked; use {', '.join(JOINTS)}.")
    kind, group = ("" if row.get(key) is None else str(row[key]) for key in ("kind", "group"))
    return Pair(prompts[0], prompts[1], answers, foils, kind, group, joint)


def _prompt(path: Path, number: int, key: str, row: Mapping[str, Any]) -> Prompt:
    given = row[key]
    if isinstance(given, str):
        return given
    if not is_conversation(given):
        raise DataError(
            f"'{path}' line {number}: {key} {given!r} is neither a text in quotes nor a list of messages."
        )
    place = f"'{path}' line {number}, {key}"
    check(given, place)
    return with_tools(given, row.get("tools"), place)


def _words(path: Path, number: int, key: str, given: Any) -> tuple[str, ...]:
    words = [given] if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"'{path}' line {number}: {key} {given!r} is neither a text nor a list of texts.")
    return tuple(words)
