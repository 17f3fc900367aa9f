"""Prompts with small edits: one that changes the right answer, and others that leave it as it is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from interp.analyses.prompts import answer_ids, known_ids
from interp.errors import ConfigError, DataError, counted
from interp.models.model import Model
from interp.tasks import PAIR_TASKS, load_world
from interp.tasks.prompts import PairTexts

__all__ = ["KINDS", "SHARES", "Edited", "Readable", "deletions", "edited_prompts", "readable", "typo"]

KINDS: dict[str, tuple[str, str]] = {
    "facts": ("subject", "null"),
    "indirect-object": ("flip", "null"),
    "agreement": ("number", "attractor"),
    "addition": ("summand", "swap"),
}
"""Task of ``interp.tasks.PAIR_TASKS`` -> a counterfactual that changes its answer, and one that does not."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Of the words of a prompt that are deleted, step by step."""
DRAWN, MORE = 1500, 40
"""Prompts drawn of each kind, and for each one that is wanted: only those of both streams are kept."""
LETTERS = 4
"""A typo is made in a word of at least so many letters."""


@dataclass(frozen=True)
class Edited:
    """A prompt and its edits.

    Attributes:
        clean: the prompt.
        pivotal: the edit after which ``foils`` are right.
        benign: edits after which ``answers`` stay right.
        answers: words that are right after the clean prompt.
        foils: words that are right after the pivotal edit.
        task: where it comes from; "" for a user's own.
        group: what intervals are over.
    """

    clean: str
    pivotal: str
    benign: tuple[str, ...]
    answers: tuple[str, ...]
    foils: tuple[str, ...]
    task: str = ""
    group: str = ""


def edited_prompts(model: Model, n: int, seed: int) -> list[Edited]:
    """Draw prompts of the bundled tasks that have both kinds of edit, the tasks in equal numbers.

    Pivotal edits are the tasks' counterfactuals. Benign ones are their null counterfactuals (another
    template, another place, the other noun's number, the summands exchanged) and a typo, where the tokenizer
    knows the word with it. Nothing depends on the weights.

    Args:
        model: whose tokenizer decides which words are known.
        n: how many prompts, at most.
        seed: of the draw.

    Raises:
        ConfigError: fewer than two prompts asked.
    """
    if n < 2:
        raise ConfigError(f"n={n} prompts asked; ask for at least 2.")
    quota, found = -(-n // len(KINDS)), []
    for task, kinds in KINDS.items():
        pivotal, benign = (_drawn(task, kind, seed, max(DRAWN, MORE * quota)) for kind in kinds)
        rng = random.Random(f"typos:{task}:{seed}")
        made: list[Edited] = []
        for clean, one in pivotal.items():
            if clean not in benign or len(made) == quota:
                continue
            same = benign[clean].corrupt
            wrong = typo(clean, {*one.corrupt.split()} ^ {*clean.split()}, rng)
            known = [same] if wrong is None or known_ids(model, wrong) is None else [same, wrong]
            group = f"{task}:{one.group}"
            made.append(Edited(clean, one.corrupt, tuple(known), one.answers, one.foils, task, group))
        found.append(made)
    turns = [one for turn in range(quota) for made in found for one in made[turn : turn + 1]]
    return turns[:n]


def _drawn(task: str, kind: str, seed: int, most: int) -> dict[str, PairTexts]:
    """The first pairs of a kind by their clean prompt; one seed gives both kinds much the same prompts."""
    row = PAIR_TASKS[task]
    assert row.pairs is not None
    stream = row.pairs(load_world(), random.Random(f"edits:{task}:{seed}"), kind)
    found: dict[str, PairTexts] = {}
    for one in islice(stream, most):
        if one.corrupt != one.clean:
            found.setdefault(one.clean, one)
    return found


def typo(text: str, spared: set[str], rng: random.Random) -> str | None:
    """Exchange two neighbouring letters inside one word; None where no word is long enough.

    Args:
        text: the prompt; its last word is left as it is.
        spared: words that are left as they are: what a pivotal edit is about.
        rng: which word and which letters.
    """
    words = text.split(" ")
    open_ = [i for i, word in enumerate(words[:-1]) if word.isalpha() and len(word) >= LETTERS]
    open_ = [i for i in open_ if words[i] not in spared and len(set(words[i][1:])) > 1]
    if not open_:
        return None
    at = rng.choice(open_)
    word = words[at]
    places = [i for i in range(1, len(word) - 1) if word[i] != word[i + 1]]
    i = rng.choice(places)
    words[at] = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return " ".join(words)


def deletions(text: str, shares: Sequence[float], rng: random.Random) -> list[str]:
    """Delete a growing share of the words, those of each step among those of the next.

    Args:
        text: the prompt; its last word always stays.
        shares: of its words, rounded up.
        rng: the order in which they go.
    """
    words = text.split(" ")
    order = rng.sample(range(len(words) - 1), len(words) - 1)
    gone = [set(order[: math.ceil(share * len(words))]) for share in shares]
    return [" ".join(word for i, word in enumerate(words) if i not in out) for out in gone]


@dataclass(frozen=True)
class Readable:
    """Edited prompts whose answers the tokenizer tells apart.

    Attributes:
        items: the prompts.
        answers: ids of the first tokens of each prompt's answers.
        foils: of its foils.
        dropped: how many prompts were left out.
    """

    items: tuple[Edited, ...]
    answers: tuple[tuple[int, ...], ...]
    foils: tuple[tuple[int, ...], ...]
    dropped: int = 0


def readable(model: Model, items: Sequence[Edited]) -> Readable:
    """Keep what the tokenizer reads: answers and foils by the first tokens that only one of both has.

    Raises:
        DataError: an item without a benign edit, or fewer than two items left.
    """
    if empty := [one for one in items if not one.benign]:
        raise DataError(f"{empty[0].clean!r} has no benign edit; give each prompt at least one.")
    kept: list[tuple[Edited, tuple[int, ...], tuple[int, ...]]] = []
    for one in items:
        own, other = (_first(model, one.clean, words) for words in (one.answers, one.foils))
        if own - other and other - own:
            kept.append((one, tuple(sorted(own - other)), tuple(sorted(other - own))))
    if len(kept) < 2:
        raise DataError(
            f"of {counted(len(items), 'prompt')} {len(kept)} have answers and foils that this tokenizer "
            "knows and tells apart by their first token; at least 2 are needed."
        )
    columns = tuple(zip(*kept, strict=True))
    return Readable(columns[0], columns[1], columns[2], len(items) - len(kept))


def _first(model: Model, prompt: str, words: Sequence[str]) -> set[int]:
    """The first tokens of words as they stand after a prompt."""
    found = (answer_ids(model, prompt, word) for word in words)
    return {ids[0] for ids in found if ids}
