"""The word-level tokenizer of the bundled model.

Every concept is one token, names of several words included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.pre_tokenizers import Split, Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from interp.tasks import addition, agreement, analogy, greater_than, indirect_object, key_value, two_hop
from interp.tasks.relations import BRIDGES, RELATIONS
from interp.tasks.world import World

__all__ = ["build_tokenizer", "capitalised", "template_words", "vocabulary"]

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
    """Give the spelling that each word has at the start of a sentence."""
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
