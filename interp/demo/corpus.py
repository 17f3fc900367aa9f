"""The tokenizer, and a seeded stream of training batches, mixed from the generators of ``interp.tasks``."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.pre_tokenizers import Split, Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.demo.architecture import token_id
from interp.tasks import (
    addition,
    agreement,
    analogy,
    greater_than,
    indirect_object,
    key_value,
    patterns,
    two_hop,
)
from interp.tasks.prompts import Example
from interp.tasks.relations import BRIDGES, RELATIONS
from interp.tasks.table import TASKS
from interp.tasks.world import World

__all__ = ["Batch", "Mix", "batches", "build_tokenizer", "encode"]

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
PUNCTUATION = (".", ",", ":", ";", "=", "+", "?", "!", "-", "'")


def _template_texts() -> Iterable[str]:
    """Yield every template of every generator, with its slots."""
    for relation in RELATIONS.values():
        yield from relation.templates
        yield relation.noun
    yield from (bridge.phrase for bridge in BRIDGES)
    yield from analogy.TEMPLATES.values()
    yield from (part for parts in key_value.TEMPLATES.values() for part in parts)
    for templates in (
        two_hop.TEMPLATES,
        indirect_object.TEMPLATES,
        greater_than.TEMPLATES,
        addition.TEMPLATES,
    ):
        yield from templates
    yield from agreement.TEMPLATES.values()


def template_words() -> tuple[str, ...]:
    """List every word that a template itself contributes, sorted, slots and punctuation left out."""
    text = " ".join(re.sub(r"\{\w*\}", " ", template) for template in _template_texts())
    return tuple(sorted(set(re.findall(r"[A-Za-z]+", text))))


def capitalised(words: Iterable[str]) -> tuple[str, ...]:
    """The spelling that each word has at the start of a sentence."""
    return tuple(sorted({word[:1].upper() + word[1:] for word in words}))


def vocabulary(world: World) -> tuple[str, ...]:
    """List every token in the order of its id.

    Special tokens, punctuation, numbers, template words, concepts.
    """
    numbers = [str(n) for n in range(100)] + [f"{n:02d}" for n in range(10)]
    words = template_words()
    ordered = [*SPECIAL, *PUNCTUATION, *numbers, *words, *capitalised(words), *world.words]
    return tuple(dict.fromkeys(ordered))


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Build the tokenizer: words split at blanks and punctuation, digits in pairs, a leading ``<bos>``.

    Digits are split in pairs from the left, so that '1741' is the two tokens '17' and '41'.
    """
    words = vocabulary(world)
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = PreTokenizers([Whitespace(), Split(Regex(r"\d\d"), behavior="isolated")])
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", words.index("<bos>"))]
    )
    compound = [word for word in words if re.search(r"\W", word) and word[0].isalpha()]
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=False) for word in compound])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="right",
        model_max_length=256,
    )


_STARTERS = frozenset(template_words())


@dataclass(frozen=True)
class Mix:
    """How much of each task a stage trains on, and with which words.

    Attributes:
        shares: task name to its share of the sentences.
        words: how many concepts copying tasks draw from; 0 for all.
        sizes: how many bindings a key-value prompt may hold.
        names: how many names the indirect-object task draws from; 0 for all.
        context_weight: loss weight of a token that nothing determines, against 1 for an answer.
        joined: share of the rows that hold two sentences.
        capitals: share of the sentences whose first word is capitalised.
    """

    shares: Mapping[str, float]
    words: int = 0
    sizes: tuple[int, ...] = (2, 3, 4, 5)
    names: int = 0
    context_weight: float = 0.05
    joined: float = 0.15
    capitals: float = 0.5


@dataclass(frozen=True)
class Batch:
    """Right-padded rows; a weight belongs to the token it stands on, as a target."""

    input_ids: Int[Tensor, "batch pos"]
    weights: Float[Tensor, "batch pos"]

    @property
    def n_tokens(self) -> int:
        """Count the cells, padding included."""
        return self.input_ids.numel()


def _capitalise(text: str, rng: random.Random, share: float) -> str:
    """Capitalise the first word of a sentence when it is a template's own word."""
    first = text.split(" ", 1)[0]
    if first in _STARTERS and rng.random() < share:
        return first[:1].upper() + text[1:]
    return text


def encode(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast, rng: random.Random, mix: Mix
) -> list[tuple[list[int], list[float]]]:
    """Turn examples into token ids and target weights, ``<bos>`` first."""
    parts: list[str] = []
    for example in examples:
        for index, (text, answer) in enumerate(example.turns):
            parts.append(_capitalise(text, rng, mix.capitals) if index == 0 else text)
            parts.append(answer)
        parts.append(example.end)
    ids = iter(tokenizer(parts, add_special_tokens=False)["input_ids"])
    rows = []
    for example in examples:
        row, weights = [], []
        for _ in example.turns:
            for weight in (mix.context_weight, 1.0):
                piece = next(ids)
                row += piece
                weights += [weight] * len(piece)
        row += next(ids)
        weights += [mix.context_weight] * (len(row) - len(weights))
        rows.append((row, weights))
    return rows


def _join(
    rows: list[tuple[list[int], list[float]]], bos: int, rng: random.Random, share: float
) -> list[tuple[list[int], list[float]]]:
    """Put ``<bos>`` before every row, and sometimes a second sentence behind the first."""
    result, pending = [], None
    for row, weights in rows:
        if pending is not None:
            result.append((pending[0] + row, pending[1] + weights))
            pending = None
        elif rng.random() < share:
            pending = ([bos, *row], [0.0, *weights])
        else:
            result.append(([bos, *row], [0.0, *weights]))
    return result + ([pending] if pending else [])


def make_batch(rows: Sequence[tuple[list[int], list[float]]], pad: int) -> Batch:
    """Pad rows on the right and stack them."""
    length = max(len(row) for row, _ in rows)
    ids = torch.full((len(rows), length), pad, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    for index, (row, weight) in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        weights[index, : len(row)] = torch.tensor(weight)
    return Batch(ids, weights)


def _draw(
    world: World, rng: random.Random, mix: Mix, words: Sequence[str], names: tuple[str, ...], task: str
) -> Example:
    if task == "key-value":
        return key_value.generate(world, rng, "train", vocabulary=words, sizes=mix.sizes)
    if task == "pattern":
        return patterns.generate(world, rng, "train", vocabulary=words)
    if task == "indirect-object":
        return indirect_object.generate(world, rng, "train", names=names)
    return TASKS[task].generate(world, rng, "train")


def batches(
    world: World,
    tokenizer: PreTrainedTokenizerFast,
    mix: Mix,
    *,
    tokens: int,
    seed: int,
    pool: int = 2048,
) -> Iterator[Batch]:
    """Yield batches for ever, the same ones for the same seed.

    Args:
        world: what is true.
        tokenizer: the bundled model's.
        mix: what to draw.
        tokens: how many cells a batch holds at most.
        seed: the only source of randomness.
        pool: how many sentences are drawn and sorted by length at a time, so that little is padding.
    """
    rng = random.Random(seed)
    fixed = random.Random(0)
    words = fixed.sample(world.concepts, mix.words) if mix.words else world.concepts
    names = tuple(fixed.sample(world.column("names"), mix.names)) if mix.names else world.column("names")
    tasks, shares = tuple(mix.shares), tuple(mix.shares.values())
    pad, bos = token_id(tokenizer, "<pad>"), token_id(tokenizer, "<bos>")
    while True:
        drawn = [_draw(world, rng, mix, words, names, task) for task in rng.choices(tasks, shares, k=pool)]
        rows = sorted(
            _join(encode(drawn, tokenizer, rng, mix), bos, rng, mix.joined), key=lambda row: len(row[0])
        )
        groups, group = [], []
        for row in rows:
            if group and (len(group) + 1) * len(row[0]) > tokens:
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
        rng.shuffle(groups)
        yield from (make_batch(group, pad) for group in groups)
