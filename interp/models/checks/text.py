"""The beginning-of-sequence token: how many a prompt gets, plainly and through the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.models.certificate import Check
from interp.models.checks.case import Case, skipped

__all__ = ["beginning", "chat"]

PLAIN = "beginning-of-sequence tokens per prompt"
CHAT = "beginning-of-sequence tokens per chat prompt"
_TEXT = "The capital of France is"


def beginning(case: Case) -> Check:
    """Count them in a text; two or more are a warning."""
    tokenizer = case.model.tokenizer
    if tokenizer is None or tokenizer.bos_token_id is None:
        return skipped(PLAIN, f"the model has {'no tokenizer' if tokenizer is None else 'no such token'}.")
    return _counted(case, PLAIN, _TEXT, "what the tokenizer itself adds")


def chat(case: Case) -> Check:
    """Count them in a chat prompt, whose template may write one that the tokenizer adds again."""
    tokenizer = case.model.tokenizer
    if tokenizer is None or tokenizer.bos_token_id is None or not tokenizer.chat_template:
        return skipped(CHAT, "there is no chat template, or no such token.")
    message = [{"role": "user", "content": _TEXT}]
    text = str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    doubled = _leading(_ids(tokenizer(text)), tokenizer.bos_token_id) > 1
    plain = "from the template"
    return _counted(case, CHAT, text, "prevented: the tokenizer alone would double it" if doubled else plain)


def _counted(case: Case, name: str, text: str, detail: str) -> Check:
    tokenizer = case.model.tokenizer
    assert tokenizer is not None
    count = _leading(case.model.tokenize([text]).token_ids[0], tokenizer.bos_token_id)
    if count > 1:
        detail = f"the tokenizer doubles {tokenizer.bos_token!r}; use add_bos=False and write it once"
    return Check(name, "pass" if count <= 1 else "warn", float(count), 1.0, "tokens", detail)


def _ids(encoded: Any) -> Sequence[int]:
    return list(encoded["input_ids"])


def _leading(ids: Sequence[int], bos: Any) -> int:
    """Count how often an id stands at the very start."""
    return next((count for count, token in enumerate(ids) if token != bos), len(ids))
