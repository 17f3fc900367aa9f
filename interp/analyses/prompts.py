"""The prompts on which outputs and states of two models are compared, with answers where there are any."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from interp.errors import ConfigError, DataError, counted
from interp.models.model import Model
from interp.models.tokens import Tokens, continuation, tokenize
from interp.tasks import TASKS, Labelled, load_world
from interp.tasks.prompts import Example

__all__ = ["Own", "PromptSet", "answer_ids", "known_ids", "partners", "prompt_set"]

Own = Labelled | Sequence[str | Sequence[int] | Example]
"""A user's own prompts: labelled ones, examples with answers, texts, or token ids."""
TRIES = 30


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Prompts as tokens, chosen by seed and tokenizer alone.

    Attributes:
        tokens: the prompts as every model reads them.
        tasks: the generator of each prompt; "" for a user's own.
        groups: the fact, the template or the text that each prompt comes from.
        answers: ids that count as right after each prompt; () where no answer is one known token.
        partners: for each prompt another of the same task and of another group, where there is one.
        source: where the prompts come from, in words.
        too_long: prompts left out since the model cannot read them.
    """

    tokens: Tokens
    tasks: tuple[str, ...]
    groups: tuple[str, ...]
    answers: tuple[tuple[int, ...], ...]
    partners: Int[np.ndarray, " item"]
    source: str
    too_long: int = 0

    def __len__(self) -> int:
        """Count the prompts."""
        return len(self.tasks)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know of the prompts."""
        first = self.tokens.warnings[:1]
        more = len(self.tokens.warnings) - 1
        said = tuple(f"{text} ({more} more such warnings)" if more > 0 else text for text in first)
        cut = f"{self.too_long} of the prompts drawn are too long for this model and were left out."
        return (*said, cut) if self.too_long else said

    @property
    def answered(self) -> Int[np.ndarray, " answered"]:
        """The rows with an answer; none where under half of the prompts have one."""
        rows = np.flatnonzero([bool(ids) for ids in self.answers])
        return rows if 2 * len(rows) >= len(self) else rows[:0]


def prompt_set(model: Model, n: int, seed: int, prompts: Own | None = None) -> PromptSet:
    """Draw prompts of every bundled task in equal numbers, or take a user's own.

    The bundled ones are of held-out combinations (``interp.tasks.splits``). An answer counts where it is one
    token of the model's vocabulary.

    Args:
        model: whose tokenizer is used; nothing depends on its weights.
        n: how many prompts, at most.
        seed: of the draw, and of who is whose partner.
        prompts: a user's own.

    Raises:
        ConfigError: fewer than two prompts asked.
        DataError: fewer than two prompts, a prompt the model cannot read, or no tokenizer for texts.
    """
    if n < 2:
        raise ConfigError(f"n={n} prompts asked; at least 2 are needed, since each is compared with another.")
    given: list[Any]
    if prompts is None:
        given, groups, source = [*_examples(n, seed)], None, "held-out prompts of every bundled task"
    else:
        given, groups, source = _own(prompts, n, seed)
    texts = [one.prompt if isinstance(one, Example) else one for one in given]
    tokens, kept = _readable(model, texts, drop=prompts is None)
    if len(kept) < 2:
        raise DataError(
            f"{counted(len(kept), 'prompt')} found; at least 2 are needed, since each is compared with "
            "another."
        )
    chosen = [given[i] for i in kept]
    own = (
        tuple(groups[i] for i in kept)
        if groups is not None
        else tuple(map(_group, chosen, range(len(chosen))))
    )
    tasks = tuple(one.task if isinstance(one, Example) else "" for one in chosen)
    return PromptSet(
        tokens=tokens,
        tasks=tasks,
        groups=own,
        answers=_answers(model, tokens, chosen),
        partners=partners(own, tasks, seed),
        source=source,
        too_long=len(given) - len(kept),
    )


def _examples(n: int, seed: int) -> list[Example]:
    """Draw n different prompts, the tasks in turn."""
    world, found = load_world(), dict[str, Example]()
    sources = {name: random.Random(f"{seed}:{name}") for name in TASKS}
    for turn in range(TRIES * n):
        name = list(TASKS)[turn % len(TASKS)]
        example = TASKS[name].generate(world, sources[name], "held-out")
        found.setdefault(example.prompt, example)
        if len(found) == n:
            break
    return list(found.values())


def _own(prompts: Own, n: int, seed: int) -> tuple[list[Any], list[str] | None, str]:
    if isinstance(prompts, str) or not len(prompts):
        raise DataError("own prompts are a list of texts, token ids or examples, with at least 2 entries.")
    if isinstance(prompts, Labelled):
        chosen = prompts.limit(n, seed=seed)
        return list(chosen.texts), list(chosen.groups), f"{chosen.name!r}"
    rows: Sequence[int] = range(len(prompts))
    if len(prompts) > n:
        rows = sorted(random.Random(seed).sample(rows, n))
    listed = [prompts[i] for i in rows]
    return [one if isinstance(one, str | Example) else list(one) for one in listed], None, "own prompts"


def _group(one: Any, row: int) -> str:
    return f"{one.task}:{one.group}" if isinstance(one, Example) else f"prompt {row}"


def _readable(model: Model, texts: Sequence[Any], *, drop: bool) -> tuple[Tokens, list[int]]:
    """Tokenize; bundled prompts that are too long for the model are left out, own ones are an error."""
    limit = model.max_length
    if not drop or limit is None:
        return model.tokenize(list(texts)), list(range(len(texts)))
    found = tokenize(list(texts), model.tokenizer, name=model.name, vocab_size=model.vocab_size)
    kept = [i for i, length in enumerate(found.lengths) if length <= limit]
    ids, words = (tuple(column[i] for i in kept) for column in (found.token_ids, found.texts))
    return replace(found, token_ids=ids, texts=words), kept


def _answers(model: Model, tokens: Tokens, chosen: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    """The known single tokens among each prompt's answers, as they stand after it."""
    found: list[tuple[int, ...]] = []
    for one, ids in zip(chosen, tokens.token_ids, strict=True):
        words = one.answers if isinstance(one, Example) else ()
        given = (answer_ids(model, one.prompt, word, ids) for word in words)
        found.append(tuple(sorted({row[0] for row in given if row is not None and len(row) == 1})))
    return tuple(found)


def partners(groups: Sequence[str], tasks: Sequence[str], seed: int) -> Int[np.ndarray, " item"]:
    """Another item for each: of the same task where that has several groups, and never of its own group.

    Items of one task are laid in a ring, group by group in an order drawn by the seed, and each is given the
    one that stands as far on as the largest group is long. Where one group has more than half of the items
    some partners are of the same group, but none is the item itself.

    Args:
        groups: of each item.
        tasks: of each item.
        seed: of the order.

    Returns:
        One row per item.

    Raises:
        DataError: a single item.
    """
    if len(groups) < 2:
        raise DataError("1 item found; at least 2 are needed, since each is compared with another.")
    found = _ring(list(range(len(groups))), groups, seed)
    for task in dict.fromkeys(tasks):
        members = [i for i, name in enumerate(tasks) if name == task]
        if len({groups[i] for i in members}) > 1:
            found |= _ring(members, groups, seed)
    return np.array([found[i] for i in range(len(groups))], dtype=np.int64)


def _ring(members: list[int], groups: Sequence[str], seed: int) -> dict[int, int]:
    sizes = Counter(groups[i] for i in members)
    names = sorted(sizes)
    random.Random(f"partners:{seed}").shuffle(names)
    place = {name: at for at, name in enumerate(names)}
    ring = sorted(members, key=lambda i: (place[groups[i]], i))
    step = max(1, max(sizes.values()) % len(ring))
    return {item: ring[(at + step) % len(ring)] for at, item in enumerate(ring)}


def answer_ids(
    model: Model, prompt: str, answer: str, before: Sequence[int] | None = None
) -> tuple[int, ...] | None:
    """The tokens of an answer, or None where the tokenizer cannot tell.

    Args:
        model: whose tokenizer.
        prompt: the text before the answer.
        answer: the answer.
        before: the prompt's tokens, where they are known.

    Returns:
        None where prompt or answer hold words the tokenizer does not know, or where the answer changes the
        tokens before it.
    """
    before = known_ids(model, prompt) if before is None else before
    if before is None or model.tokenizer is None:
        return None
    try:
        return continuation(prompt, before, answer, model.tokenizer, vocab_size=model.vocab_size)
    except DataError:
        return None


def known_ids(model: Model, text: str) -> tuple[int, ...] | None:
    """The ids of a text, or None where the tokenizer does not know a word of it.

    Args:
        model: whose tokenizer.
        text: what is tokenized, in the way of prompts.
    """
    ids = model.tokenize([text]).token_ids[0]
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    start = getattr(model.tokenizer, "bos_token_id", None)
    return None if unknown is not None and unknown != start and unknown in ids else ids
