"""Which tokens an answer has, as it stands after its prompt."""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import DataError
from interp.models.model import Model
from interp.models.tokens import continuation

__all__ = ["answer_ids", "known_ids"]


def answer_ids(
    model: Model, prompt: str, answer: str, before: Sequence[int] | None = None
) -> tuple[int, ...] | None:
    """Give the tokens of an answer, or None where the tokenizer cannot tell.

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
    """Give the ids of a text, or None where the tokenizer does not know a word of it.

    Args:
        model: whose tokenizer.
        text: what is tokenized, in the way of prompts.
    """
    ids = model.tokenize([text]).token_ids[0]
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    start = getattr(model.tokenizer, "bos_token_id", None)
    return None if unknown is not None and unknown != start and unknown in ids else ids
