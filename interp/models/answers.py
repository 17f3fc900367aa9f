"""How likely a whole answer is: the sum of its tokens' log-probabilities, each given those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import DataError
from interp.models.model import Model
from interp.models.tokens import Joint, Prompts, continuation, tokenize

__all__ = ["Scored", "likeliest", "score"]

NUMBERS = 1 << 24
"""The most logits that are held at once."""


@dataclass(frozen=True, eq=False)
class Scored:
    """How likely each prompt is to go on with its answer.

    Attributes:
        token_ids: per prompt the tokens of its answer.
        log_probability: of the whole answer, in nats: the sum over its tokens, each given the prompt and the
            tokens of the answer before it (teacher forcing).
        first: of the first token alone, in nats; never less than ``log_probability``.
        likeliest: whether every token of the answer is the likeliest where it stands: what greedy decoding
            writes.
    """

    token_ids: tuple[tuple[int, ...], ...]
    log_probability: Float[Tensor, " prompt"]
    first: Float[Tensor, " prompt"]
    likeliest: Bool[Tensor, " prompt"]


def score(
    model: Model,
    prompts: Prompts,
    answers: Sequence[str | Sequence[int]],
    *,
    joint: Joint = "auto",
    batch_size: str | int = "auto",
) -> Scored:
    """Score one answer to each prompt as a whole.

    Args:
        model: what is run.
        prompts: as for ``Model.tokenize``.
        answers: one for each prompt: a text, which follows the prompt as ``joint`` says, or token ids.
        joint: how texts follow; see ``tokens.continuation``.
        batch_size: prompts per pass; "auto" chooses.

    Raises:
        DataError: not one answer for each prompt; an answer that is empty, unknown to the tokenizer, or
            changes the tokens before it; prompt and answer together longer than the model reads.
    """
    tokens = model.tokenize(prompts)
    if isinstance(answers, str) or len(answers) != len(tokens):
        found = "one text" if isinstance(answers, str) else f"{len(answers)} answers"
        raise DataError(f"{found} for {len(tokens)} prompts; give a list with one answer for each prompt.")
    given = zip(tokens.texts, tokens.token_ids, answers, strict=True)
    ids = tuple(_ids(model, *one, joint) for one in given)
    whole = torch.zeros(len(ids), dtype=torch.float64)
    first, top = whole.clone(), torch.zeros(len(ids), dtype=torch.bool)
    for rows in _parts(ids, model.vocab_size):
        # the last token of an answer is only predicted, never read
        texts = [(*tokens.token_ids[row], *ids[row][:-1]) for row in rows]
        places = [
            list(range(len(text) - len(ids[row]), len(text))) for row, text in zip(rows, texts, strict=True)
        ]
        run = model.run(texts, capture="logits", positions=places, logits="none", batch_size=batch_size)
        assert run.activations is not None
        for row, logits in zip(rows, run.activations["logits"], strict=True):
            kept = logits[: len(ids[row])].double().log_softmax(dim=-1)
            right = torch.tensor(ids[row], device=kept.device)
            each = kept.gather(1, right[:, None])[:, 0]
            whole[row], first[row] = each.sum().cpu(), each[0].cpu()
            top[row] = bool((kept.argmax(dim=1) == right).all())
    return Scored(ids, whole, first, top)


def likeliest(
    model: Model, prompts: Prompts, answers: Sequence[Sequence[int]], *, batch_size: str | int = "auto"
) -> list[int]:
    """Which of some answers each prompt most likely goes on with, each scored as a whole.

    A whole answer is never likelier than its first token, so answers are scored in the order of their first
    tokens until none that is left can be likelier: where every answer is one token, nothing more is run.

    Args:
        model: what is run.
        prompts: as for ``Model.tokenize``.
        answers: the tokens of each candidate, the same for every prompt.
        batch_size: prompts per pass; "auto" chooses.

    Returns:
        The index of an answer for each prompt; the first of equals.

    Raises:
        DataError: no answers, or as for :func:`score`.
    """
    if not answers or not all(answers):
        raise DataError("likeliest needs at least one answer, each of one token or more.")
    tokens = model.tokenize(prompts)
    logs = model.logits(tokens, batch_size=batch_size).cpu().double().log_softmax(dim=1)
    known = torch.tensor([len(ids) == 1 for ids in answers]).repeat(len(tokens), 1)
    bound = logs[:, [ids[0] for ids in answers]]  # exact where known, else at most so likely
    while True:
        best = bound.argmax(dim=1)
        asked = [row for row, at in enumerate(best.tolist()) if not known[row, at]]
        if not asked:
            return best.tolist()
        wanted = [answers[at] for at in best[asked].tolist()]
        scored = score(model, [tokens.token_ids[row] for row in asked], wanted, batch_size=batch_size)
        bound[asked, best[asked]], known[asked, best[asked]] = scored.log_probability, True


def _ids(model: Model, text: str, prompt: Sequence[int], answer: str | Sequence[int], joint: Joint) -> Any:
    if not isinstance(answer, str):
        found = tuple(int(token) for token in answer)
        if not found:
            raise DataError(f"an answer without a token was given to follow {text[-40:]!r}.")
        return tokenize([found], model.tokenizer, name=model.name, vocab_size=model.vocab_size).token_ids[0]
    if model.tokenizer is None:
        raise DataError(
            f"the answer {answer!r} is a text, but {model.name!r} has no tokenizer; give token ids."
        )
    return continuation(text, prompt, answer, model.tokenizer, vocab_size=model.vocab_size, joint=joint)


def _parts(answers: Sequence[Sequence[int]], vocab_size: int) -> Iterator[list[int]]:
    """Rows of answers whose logits fit memory together."""
    part: list[int] = []
    longest = 0
    for row, ids in enumerate(answers):
        longest = max(longest, len(ids))
        if part and (len(part) + 1) * longest * vocab_size > NUMBERS:
            yield part
            part, longest = [], len(ids)
        part.append(row)
    if part:
        yield part
