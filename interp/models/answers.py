"""How likely a whole answer is: the sum of its tokens' log-probabilities, each given those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import DataError, counted
from interp.models.model import Model
from interp.models.tokens import Joint, Prompts, Tokens, continuation, followed, tokenize

__all__ = ["Scored", "answer_ids", "likeliest", "score"]

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
        said: the likeliest first token, whatever the answer.
    """

    token_ids: tuple[tuple[int, ...], ...]
    log_probability: Float[Tensor, " prompt"]
    first: Float[Tensor, " prompt"]
    likeliest: Bool[Tensor, " prompt"]
    said: Int[Tensor, " prompt"]


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
        found = "one text" if isinstance(answers, str) else counted(len(answers), "answer")
        raise DataError(
            f"{found} for {counted(len(tokens), 'prompt')}; give a list with one answer for each prompt."
        )
    ids = _all_ids(model, tokens, answers, joint)
    whole = torch.zeros(len(ids), dtype=torch.float64)
    first, right, said = whole.clone(), whole.bool(), whole.long()
    for rows in _parts(ids, model.vocab_size):
        # the last token of an answer is only predicted, never read
        texts = [(*tokens.token_ids[row], *ids[row][:-1]) for row in rows]
        found = _logits(model, texts, [len(ids[row]) for row in rows], batch_size)
        for row, logits in zip(rows, found, strict=True):
            kept = logits[: len(ids[row])].double().log_softmax(dim=-1).cpu()
            wanted, top = torch.tensor(ids[row]), kept.argmax(dim=1)
            each = kept.gather(1, wanted[:, None])[:, 0]
            whole[row], first[row] = each.sum(), each[0]
            right[row], said[row] = (top == wanted).all(), top[0]
    return Scored(ids, whole, first, right, said)


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


def answer_ids(
    model: Model, text: str, prompt: Sequence[int], answer: str | Sequence[int], joint: Joint = "auto"
) -> tuple[int, ...]:
    """The tokens of an answer that follows a prompt.

    Raises:
        DataError: it is empty, unknown to the tokenizer, or changes the tokens before it.
    """
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


def _all_ids(
    model: Model, tokens: Tokens, answers: Sequence[str | Sequence[int]], joint: Joint
) -> tuple[tuple[int, ...], ...]:
    """The tokens of one answer to each prompt; texts are asked of the tokenizer together."""
    given = list(zip(tokens.texts, tokens.token_ids, answers, strict=True))
    asked = [(text, ids, answer) for text, ids, answer in given if isinstance(answer, str) and answer.strip()]
    if model.tokenizer is None or len(asked) < len(given):
        return tuple(answer_ids(model, *one, joint) for one in given)
    told: list[tuple[int, ...]] = []
    for one in followed(asked, model.tokenizer, vocab_size=model.vocab_size, joint=joint):
        if isinstance(one, DataError):
            raise one
        told.append(one)
    return tuple(told)


def _logits(
    model: Model, texts: Sequence[Sequence[int]], counts: Sequence[int], batch_size: str | int
) -> Float[Tensor, "prompt pos vocab"]:
    """The logits after the last tokens of each text, as many as it has to predict."""
    if max(counts) == 1:
        return model.logits(texts, batch_size=batch_size)[:, None]
    places = [list(range(len(text) - n, len(text))) for text, n in zip(texts, counts, strict=True)]
    run = model.run(texts, capture="logits", positions=places, logits="none", batch_size=batch_size)
    assert run.activations is not None
    return run.activations["logits"]


def _parts(answers: Sequence[Sequence[int]], vocab_size: int) -> Iterator[list[int]]:
    """Rows of answers whose logits fit memory together: answers of one token, then longer ones."""
    order = sorted(range(len(answers)), key=lambda row: len(answers[row]))
    part: list[int] = []
    for row in order:
        longer = part and len(answers[row]) > 1 == len(answers[part[-1]])
        if part and (longer or (len(part) + 1) * len(answers[row]) * vocab_size > NUMBERS):
            yield part
            part = []
        part.append(row)
    if part:
        yield part
