"""Prompts to exact ids, masks and positions. Beginning-of-sequence and padding are decided here alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.conversations import Rendered, Span, render
from interp.conversations.messages import is_conversation
from interp.conversations.rendering import NOTHING
from interp.errors import ConfigError, DataError, counted

__all__ = [
    "JOINTS",
    "Joint",
    "Prompts",
    "Tokens",
    "continuation",
    "continuations",
    "followed",
    "listed",
    "pad",
    "position_ids",
    "tokenize",
]

SAID = 3
"""Prompts of which a warning of one kind is said."""
_ADDS_BOS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, bool]] = WeakKeyDictionary()

Joint = Literal["auto", "blank", "direct"]
"""How a word follows a prompt: after a blank, without one, or as the end of the prompt demands."""
JOINTS: tuple[Joint, ...] = ("auto", "blank", "direct")
_OPENING = "([{/_$#@\\\u201c\u2018\u00ab\u300c\u300e\uff08\u00bf\u00a1"
_SCRIPTS_WITHOUT_BLANKS = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "IDEOGRAPHIC",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
)

Prompts = Any
"""Texts, conversations, lists of token ids, a batch of a tokenizer, or ``Tokens``; one alone is one prompt.

A conversation is a list of messages ``{"role": ..., "content": ...}``; see ``interp.conversations.render``.
"""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Prompts as the model will see them.

    Attributes:
        token_ids: per prompt its exact ids, without padding.
        texts: per prompt its text; decoded where ids were given, "" without a tokenizer.
        warnings: what a reader should know, such as a beginning-of-sequence token that was not doubled.
        padding_side: where the tensors below are padded.
        pad_id: the id that pads; masked, so it never matters.
        spans: per prompt whose its tokens are; None where it is no conversation. () where none is.
        offsets: per prompt the characters of its tokens in its text, likewise.
    """

    token_ids: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    padding_side: str = "right"
    pad_id: int = 0
    spans: tuple[tuple[Span, ...] | None, ...] = ()
    offsets: tuple[tuple[tuple[int, int], ...] | None, ...] = ()

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self.token_ids)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of tokens per prompt."""
        return tuple(len(ids) for ids in self.token_ids)

    def select(self, rows: Sequence[int]) -> Tokens:
        """Some of the prompts, in that order; warnings, which name prompts by number, are left out."""
        columns = {
            name: tuple(column[row] for row in rows)
            for name in ("token_ids", "texts", "spans", "offsets")
            if (column := getattr(self, name))
        }
        return replace(self, warnings=(), **columns)

    @property
    def input_ids(self) -> Int[Tensor, "batch pos"]:
        """The padded ids."""
        return pad(self.token_ids, self.pad_id, self.padding_side)[0]

    @property
    def attention_mask(self) -> Int[Tensor, "batch pos"]:
        """One for a token, zero for padding."""
        return pad(self.token_ids, self.pad_id, self.padding_side)[1]

    @property
    def position_ids(self) -> Int[Tensor, "batch pos"]:
        """Each token's index in its own prompt, whatever the padding."""
        return position_ids(self.attention_mask)


def pad(
    rows: Sequence[Sequence[int]], pad_id: int, side: str
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Ids padded to the longest row, and the mask."""
    width = max(len(row) for row in rows)
    if side == "right":
        ids = [[*row, *[pad_id] * (width - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    else:
        ids = [[*[pad_id] * (width - len(row)), *row] for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def position_ids(mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    """Count the tokens before each token; padding counts as the nearest valid index."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def tokenize(
    prompts: Prompts,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    name: str = "the model",
    vocab_size: int | None = None,
    max_length: int | None = None,
    padding_side: str = "right",
    add_bos: str | bool = "auto",
    tools: Sequence[Any] | None = None,
    continue_: str = "auto",
    options: Mapping[str, Any] = NOTHING,
) -> Tokens:
    """Turn prompts into exact token ids.

    ``add_bos="auto"`` does what the tokenizer does, but looks at every prompt: a beginning-of-sequence token
    is never doubled, and an end-of-sequence token that the tokenizer would append is left out. Ids are taken
    as they are, and conversations as the tokenizer's chat template writes them: for these are ``tools``,
    ``continue_`` and ``options``; see ``interp.conversations.render``.

    Raises:
        DataError: a prompt is empty, too long, or holds ids the model does not have; no tokenizer for texts.
        ConfigError: ``padding_side`` or ``add_bos`` is not one of the allowed values.
    """
    if padding_side not in ("right", "left"):
        raise ConfigError(f"padding_side {padding_side!r} asked; use 'right' or 'left'.")
    if add_bos not in ("auto", True, False):
        raise ConfigError(f"add_bos {add_bos!r} asked; use 'auto', True or False.")
    prompts = listed(prompts)
    if isinstance(prompts, Tokens):
        tokens = replace(prompts, padding_side=padding_side)
    else:
        warnings: list[str] = []
        items = _as_list(prompts)
        spelled = _spelled([item for item in items if isinstance(item, str)], tokenizer)
        chats = _rendered(items, tokenizer, tools, continue_, options, warnings)
        pairs = [
            (chats[number].ids, chats[number].text)
            if number in chats
            else _one(item, number, tokenizer, add_bos, warnings, spelled)
            for number, item in enumerate(items)
        ]
        ids = tuple(tuple(pair[0]) for pair in pairs)
        warnings += _padded(prompts, ids, tokenizer)
        _check(ids, name, vocab_size, max_length)
        texts = tuple(_text(text, row, tokenizer) for row, text in pairs)
        found = [chats.get(number) for number in range(len(items))] if chats else []
        return Tokens(
            ids,
            texts,
            _few(warnings),
            padding_side,
            _pad_id(tokenizer, vocab_size),
            tuple(None if one is None else one.spans for one in found),
            tuple(None if one is None else one.offsets for one in found),
        )
    _check(tokens.token_ids, name, vocab_size, max_length)
    return tokens


def continuation(
    prompt: str,
    ids: Sequence[int],
    word: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocab_size: int | None = None,
    joint: Joint = "auto",
) -> tuple[int, ...]:
    """The tokens with which a prompt goes on when a word follows it; see :func:`continuations`."""
    return continuations(prompt, ids, [word], tokenizer, vocab_size=vocab_size, joint=joint)[0]


def continuations(
    prompt: str,
    ids: Sequence[int],
    words: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocab_size: int | None = None,
    joint: Joint = "auto",
) -> list[tuple[int, ...]]:
    """The tokens with which a prompt goes on when each of some words follows it.

    Args:
        prompt: the text before them.
        ids: the prompt's own tokens.
        words: what follows. One that begins with a blank, or a line break, is taken as it is written.
        tokenizer: of the model; likewise ``vocab_size``.
        vocab_size: number of tokens that the model has.
        joint: "blank", "direct", or "auto": without a blank after white space, an opening bracket or
            quotation mark, a special token, and in scripts that write none; after a blank elsewhere.

    Raises:
        DataError: a word is empty, unknown to the tokenizer, or changes the tokens before it.
    """
    if not all(word.rstrip() for word in words):
        raise DataError(f"an empty word was given to follow {prompt[-40:]!r}; give at least one letter.")
    found: list[tuple[int, ...]] = []
    for one in followed(
        [(prompt, ids, word) for word in words], tokenizer, vocab_size=vocab_size, joint=joint
    ):
        if isinstance(one, DataError):
            raise one
        found.append(one)
    return found


def followed(
    asked: Sequence[tuple[str, Sequence[int], str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocab_size: int | None = None,
    joint: Joint = "auto",
) -> list[tuple[int, ...] | DataError]:
    """:func:`continuations` of many prompts, each with its tokens and a word, in one call of the tokenizer.

    Returns:
        For each the tokens of its word, or the error that says why it has none.
    """
    if not asked:
        return []
    words = [word.rstrip() for _, _, word in asked]
    auto = joint == "auto"
    special = frozenset(tokenizer.all_special_ids) if auto else frozenset()
    blanks = [
        joint == "blank" or (auto and _wants_blank(prompt, ids, word, special))
        for (prompt, ids, _), word in zip(asked, words, strict=True)
    ]
    texts = [
        f" {word}" if blank and not word[:1].isspace() else word
        for word, blank in zip(words, blanks, strict=True)
    ]
    # Only read, never run: a prompt may fill the context, and its answer then stands outside of it.
    whole = [prompt + text for (prompt, _, _), text in zip(asked, texts, strict=True)]
    longer = list(tokenize(whole, tokenizer, vocab_size=vocab_size).token_ids)
    # a template may begin otherwise than the tokenizer does
    other = [at for at, (_, ids, _) in enumerate(asked) if longer[at][: len(ids)] != tuple(ids)]
    if other:
        read = tokenize([whole[at] for at in other], tokenizer, vocab_size=vocab_size, add_bos=False)
        for at, row in zip(other, read.token_ids, strict=True):
            longer[at] = row
    unknown: Any = tokenizer.unk_token_id
    unknown = None if unknown == tokenizer.bos_token_id else unknown
    found: list[tuple[int, ...] | DataError] = []
    for (prompt, ids, _), row, word, text, blank in zip(asked, longer, words, texts, blanks, strict=True):
        rest = row[len(ids) :] if row[: len(ids)] == tuple(ids) else ()
        if not rest and not blank and prompt[-1:].isspace():
            rest = _alone(text, tokenizer)  # the tokenizer would join the prompt's own blank to the word
        if not rest:
            found.append(
                DataError(
                    f"the word {word!r} changes the tokens before it when it follows {prompt[-40:]!r}; end "
                    "the prompt at a word's end."
                )
            )
        elif unknown is not None and unknown in rest:
            found.append(DataError(f"the tokenizer does not know the word {word.strip()!r}; give another."))
        else:
            found.append(rest)
    return found


def _wants_blank(prompt: str, ids: Sequence[int], word: str, special: frozenset[int]) -> bool:
    end = prompt[-1:]
    if not end or end.isspace() or end in _OPENING or (ids and ids[-1] in special):
        return False
    if end == '"':
        return prompt.count('"') % 2 == 0  # an even one closes
    if end == "'":
        return not (len(prompt) == 1 or prompt[-2].isspace())
    return not any(_writes_no_blanks(letter) for letter in (end, word[:1]))


def _writes_no_blanks(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(_SCRIPTS_WITHOUT_BLANKS)


def _alone(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens of a word after a line break, which no tokenizer joins to it; () where one does."""
    before = list(tokenizer("\n", add_special_tokens=False)["input_ids"])
    both = list(tokenizer(f"\n{text}", add_special_tokens=False)["input_ids"])
    if before and both[: len(before)] == before:
        return tuple(both[len(before) :])
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _rendered(
    items: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase | None,
    tools: Sequence[Any] | None,
    continue_: str,
    options: Mapping[str, Any],
    warnings: list[str],
) -> dict[int, Rendered]:
    """The conversations among some prompts, by number."""
    found: dict[int, Rendered] = {}
    for number, item in enumerate(items):
        if is_conversation(item):
            if tokenizer is None:
                raise DataError(
                    f"prompt {number} is a list of messages, but this model has no tokenizer. "
                    "Give token ids, or load with tokenizer=FOLDER or tokenizer=OBJECT."
                )
            found[number] = render(
                item, tokenizer, tools=tools, continue_=continue_, options=options, name=f"prompt {number}"
            )
            warnings += found[number].warnings
    if not found and (tools is not None or continue_ != "auto" or options):
        raise ConfigError(
            "tools, continue_ and options are for conversations, and no prompt is one. Give lists of "
            "messages."
        )
    return found


def _padded(
    prompts: Prompts, rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase | None
) -> list[str]:
    """Warn that rows of a rectangular tensor begin or end with what looks like padding."""
    pad: Any = getattr(tokenizer, "pad_token_id", None)
    if pad is None or not isinstance(prompts, Tensor | np.ndarray) or prompts.ndim != 2:
        return []
    counts = {where: sum(row[at] == pad for row in rows) for where, at in (("begin", 0), ("end", -1))}
    return [
        f"{count} of {counted(len(rows), 'row')} of ids {where} with the token that pads, {pad}, taken as "
        "given; give "
        "the tokenizer's whole batch, whose mask says what is padding."
        for where, count in counts.items()
        if 0 < count < len(rows)
    ]


def listed(prompts: Prompts) -> Prompts:
    """Iterators and arrays of objects as lists, so that they can be read more than once; others as given."""
    if isinstance(prompts, np.ndarray) and prompts.dtype == object:
        return prompts.tolist()
    return list(prompts) if isinstance(prompts, Iterator) else prompts


def _as_list(prompts: Prompts) -> list[Any]:
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, Mapping) and "role" in prompts:
        raise DataError("one message alone was given as prompts; put it into a list: [message].")
    if is_conversation(prompts):
        return [prompts]
    if isinstance(prompts, Mapping) or hasattr(prompts, "input_ids"):
        return _from_batch(prompts)
    if isinstance(prompts, Tensor):
        prompts = prompts.tolist() if prompts.ndim == 2 else [prompts.tolist()]
    items = list(prompts)
    if not items:
        raise DataError("no prompts were given. Give at least one text or list of token ids.")
    if all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        return [items]
    return items


def _from_batch(batch: Mapping[str, Any]) -> list[list[int]]:
    """Strip the padding of a tokenizer's batch, on either side."""
    ids = torch.as_tensor(batch["input_ids"]) if _is_rectangular(batch["input_ids"]) else batch["input_ids"]
    rows = [list(map(int, row)) for row in (ids if getattr(ids, "ndim", 2) == 2 else [ids])]
    mask = batch.get("attention_mask")
    if mask is None:
        return rows
    masks = [list(map(int, row)) for row in (mask if getattr(mask, "ndim", 2) == 2 else [mask])]
    kept = []
    for number, (row, flags) in enumerate(zip(rows, masks, strict=True)):
        ones = [column for column, flag in enumerate(flags) if flag]
        if ones and ones[-1] - ones[0] + 1 != len(ones):
            raise DataError(
                f"prompt {number}: its attention_mask has holes. Give a mask with padding at one end only."
            )
        kept.append([token for token, flag in zip(row, flags, strict=True) if flag])
    return kept


def _is_rectangular(rows: Any) -> bool:
    return (
        isinstance(rows, Tensor)
        or (bool(rows) and isinstance(rows[0], int))
        or len({len(r) for r in rows}) == 1
    )


def _one(
    item: Any,
    number: int,
    tokenizer: PreTrainedTokenizerBase | None,
    add_bos: str | bool,
    warnings: list[str],
    spelled: Iterator[tuple[list[int], list[int]]],
) -> tuple[list[int], str | None]:
    if isinstance(item, str):
        return _encode(number, tokenizer, add_bos, warnings, spelled), item
    if isinstance(item, Tensor):
        item = item.tolist()
    if not isinstance(item, Sequence) or not all(
        isinstance(i, int) and not isinstance(i, bool) for i in item
    ):
        raise DataError(
            f"prompt {number} is a {type(item).__name__}; give a text, a list of messages or of token ids."
        )
    ids = list(item)
    if tokenizer is not None:
        _warn_bos(ids, number, tokenizer, warnings)
    return ids, None


def _text(text: str | None, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase | None) -> str:
    """The prompt's own text, or its ids decoded."""
    if text is not None:
        return text
    return str(tokenizer.decode(list(ids))) if tokenizer is not None else ""


def _spelled(
    texts: list[str], tokenizer: PreTrainedTokenizerBase | None
) -> Iterator[tuple[list[int], list[int]]]:
    """The ids of each text, without and with what the tokenizer puts around it; all texts at once."""
    if tokenizer is None or not texts:
        return iter(())
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the prompt {text.encode('ascii', 'backslashreplace').decode()[:60]!r} holds half of a "
                f"surrogate pair at character {error.start}, which is no text. Read its file as UTF-8, or "
                "remove the character."
            ) from None
    plain, special = (tokenizer(texts, add_special_tokens=around)["input_ids"] for around in (False, True))
    return zip(map(list, plain), map(list, special), strict=True)


def _encode(
    number: int,
    tokenizer: PreTrainedTokenizerBase | None,
    add_bos: str | bool,
    warnings: list[str],
    spelled: Iterator[tuple[list[int], list[int]]],
) -> list[int]:
    if tokenizer is None:
        raise DataError(
            f"prompt {number} is a text, but this model has no tokenizer. "
            "Give token ids, or load with tokenizer=FOLDER or tokenizer=OBJECT."
        )
    plain, special = next(spelled)
    if not plain:
        raise DataError(
            f"prompt {number} is empty. Remove it; to run on the beginning-of-sequence token alone, give its "
            "id as a list."
        )
    _warn_unknown(plain, number, tokenizer, warnings)
    prefix, suffix = _around(special, plain)
    if suffix:
        warnings.append(
            f"prompt {number}: the tokenizer appends {suffix}, left out so that 'last' is the prompt's own."
        )
    bos = tokenizer.bos_token_id
    if add_bos is False:
        prefix = []
    elif add_bos is True:
        if bos is None:
            raise ConfigError(
                "add_bos=True, but this tokenizer has no beginning-of-sequence token. Use 'auto'."
            )
        prefix = prefix if bos in prefix else [bos, *prefix]
    if bos is not None and bos in prefix and plain[0] == bos:
        prefix = [token for token in prefix if token != bos]
        warnings.append(f"prompt {number} already begins with {tokenizer.bos_token!r}; it was not doubled.")
    return prefix + plain


def _around(special: list[int], plain: list[int]) -> tuple[list[int], list[int]]:
    """Split ``special`` into what stands before and after ``plain``."""
    for start in range(len(special) - len(plain) + 1):
        if special[start : start + len(plain)] == plain:
            return special[:start], special[start + len(plain) :]
    return [], []


def _warn_bos(ids: list[int], number: int, tokenizer: PreTrainedTokenizerBase, warnings: list[str]) -> None:
    bos = tokenizer.bos_token_id
    if bos is None:
        return
    if ids[:2] == [bos, bos]:
        warnings.append(f"prompt {number}: its ids begin with two {tokenizer.bos_token!r}; taken as given.")
    elif ids[:1] != [bos] and _adds_bos(tokenizer):
        warnings.append(
            f"prompt {number}: its ids do not begin with {tokenizer.bos_token!r}; taken as given."
        )


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts the token first; remembered, since asking costs as much as a layer."""
    settings = (tokenizer.bos_token_id, getattr(tokenizer, "add_bos_token", None))
    known = _ADDS_BOS.get(tokenizer)
    if known is None or known[0] != settings:
        known = _ADDS_BOS[tokenizer] = (settings, tokenizer.bos_token_id in tokenizer("")["input_ids"])
    return known[1]


def _few(warnings: Sequence[str]) -> tuple[str, ...]:
    """Warnings of which each kind is said of three prompts at most, and of how many more."""
    kinds: dict[str, list[str]] = {}
    for text in warnings:
        kinds.setdefault(re.sub(r"\d+", "0", text), []).append(text)
    said: list[str] = []
    for texts in kinds.values():
        said += texts if len(texts) <= SAID else texts[:SAID]
        if len(texts) > SAID:
            said.append(f"{len(texts) - SAID:,} more prompts: the same as prompt {_number(texts[SAID - 1])}.")
    return tuple(said)


def _number(warning: str) -> str:
    found = re.search(r"\d+", warning)
    return found[0] if found else "1"


def _warn_unknown(
    ids: list[int], number: int, tokenizer: PreTrainedTokenizerBase, warnings: list[str]
) -> None:
    unknown: Any = tokenizer.unk_token_id
    if unknown is not None and unknown != tokenizer.bos_token_id and (count := ids.count(unknown)):
        warnings.append(
            f"prompt {number}: {count} of {counted(len(ids), 'token')} are unknown ({tokenizer.unk_token!r})."
        )


def _pad_id(tokenizer: PreTrainedTokenizerBase | None, vocab_size: int | None) -> int:
    found: Any = tokenizer.pad_token_id if tokenizer is not None else None
    return found if found is not None and (vocab_size is None or found < vocab_size) else 0


def _check(rows: Sequence[Sequence[int]], name: str, vocab_size: int | None, max_length: int | None) -> None:
    for number, ids in enumerate(rows):
        if not ids:
            raise DataError(f"prompt {number} is empty. Remove it, or give at least one token.")
        if max_length is not None and len(ids) > max_length:
            raise DataError(
                f"prompt {number} has {counted(len(ids), 'token')}, but {name!r} reads at most {max_length}. "
                f"Shorten it by {counted(len(ids) - max_length, 'token')}, or split it."
            )
        if vocab_size is not None and not (min(ids) >= 0 and max(ids) < vocab_size):
            bad = next(token for token in ids if not 0 <= token < vocab_size)
            raise DataError(
                f"prompt {number} holds token id {bad}, but {name!r} has ids 0..{vocab_size - 1}. "
                "Is this the model's own tokenizer?"
            )
