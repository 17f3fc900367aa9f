"""Which token an answer begins with, as it stands after its prompt."""

from __future__ import annotations

from interp.models.model import Model

__all__ = ["answer_token", "known_ids"]


def answer_token(model: Model, prompt: str, answer: str) -> int | None:
    """Give the first token of an answer, or None where the tokenizer cannot tell.

    Args:
        model: whose tokenizer.
        prompt: the text before the answer, without a blank at its end.
        answer: the answer.

    Returns:
        None where prompt or answer hold words the tokenizer does not know, or where the answer changes the
        tokens before it.
    """
    before, both = known_ids(model, prompt), known_ids(model, f"{prompt} {answer.strip()}")
    if before is None or both is None or both[: len(before)] != before or len(both) == len(before):
        return None
    return both[len(before)]


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
