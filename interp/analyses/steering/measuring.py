"""What is measured token by token, with and without interventions: log-probabilities of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.conversations.messages import is_conversation
from interp.errors import DataError
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.steering.fitting import under

__all__ = ["Change", "Row", "log_probabilities", "logs_of", "prefixed", "rows_of"]

Change = Sequence[Intervention]
Row = tuple[tuple[int, ...], int]
"""The ids of a text, and from which of them on it is measured."""
NUMBERS = 1 << 24
"""The most logits that are held at once."""


def rows_of(model: Model, texts: Sequence[Any], context: str = "") -> list[Row]:
    """The ids of texts, each measured from its second token on, or whole after a context.

    Of a conversation the last message is measured, as far as the assistant wrote it: its content, not the
    template's own tokens.

    Args:
        model: whose tokenizer.
        texts: texts, conversations, or token ids.
        context: what stands before each, on a line of its own, or as a system message; it is not measured.

    Raises:
        DataError: a text of one token, of which nothing can be measured; a conversation that does not end
            with something that the assistant said.
    """
    if any(map(is_conversation, texts)):
        return [_of_conversation(model, under(context, one) if context else one) for one in texts]
    rows = [(ids, 1) for ids in model.tokenize(list(texts)).token_ids]
    if short := next((text for text, (ids, _) in zip(texts, rows, strict=True) if len(ids) < 2), None):
        raise DataError(f"the text {short!r} has one token, of which nothing follows; give longer ones.")
    return prefixed(model, rows, context)


def _of_conversation(model: Model, messages: Any) -> Row:
    tokens = model.tokenize([messages], continue_="none")
    spans = [one for one in tokens.spans[0] or () if one.kind == "content"]
    if not spans or spans[-1].role != "assistant":
        found = spans[-1].role if spans else "nothing"
        raise DataError(
            f"a conversation ends with {found}, and what is measured is how likely the assistant's last "
            "message is; end it with one."
        )
    first = next(one.start for one in spans if one.turn == spans[-1].turn)
    return tokens.token_ids[0][: spans[-1].stop], first


def prefixed(model: Model, rows: Sequence[Row], context: str) -> list[Row]:
    """The same rows after a context; the same tokens of each are measured.

    Args:
        model: whose tokenizer.
        rows: texts as ids.
        context: a text; "" for none.
    """
    if not context:
        return list(rows)
    before = model.tokenize([f"{context}\n"]).token_ids[0]
    begin = _beginning(model)
    found = []
    for ids, start in rows:
        rest = ids[1:] if ids[0] == begin else ids
        found.append(((*before, *rest), len(before) + start - (len(ids) - len(rest))))
    return found


def _beginning(model: Model) -> int | None:
    found: Any = None if model.tokenizer is None else model.tokenizer.bos_token_id
    return found


def logs_of(
    model: Model, rows: Sequence[Row], change: Change = ()
) -> Iterator[tuple[int, Float[Tensor, "pos vocab"]]]:
    """The log-probabilities of every next token of each row, some rows at a time.

    Args:
        model: what is run.
        rows: texts as ids.
        change: what is written meanwhile.

    Yields:
        The number of a row, and its log-probabilities at the tokens that are measured, in float32.
    """
    for part in _parts(rows, model.vocab_size):
        texts = [list(rows[at][0][:-1]) for at in part]  # the last token is only predicted
        places = [list(range(rows[at][1] - 1, len(rows[at][0]) - 1)) for at in part]
        run = model.run(texts, capture="logits", positions=places, logits="none", interventions=change)
        assert run.activations is not None
        for number, at in enumerate(part):
            logits = run.activations["logits"][number, : len(places[number])]
            yield at, logits.float().log_softmax(dim=-1)


def log_probabilities(model: Model, rows: Sequence[Row], change: Change = ()) -> list[Float[Tensor, " pos"]]:
    """The log-probability of each measured token of each row, in nats.

    Args:
        model: what is run.
        rows: texts as ids.
        change: what is written meanwhile.
    """
    found: dict[int, Tensor] = {}
    for at, logs in logs_of(model, rows, change):
        ids, start = rows[at]
        wanted = torch.tensor(ids[start:], device=logs.device)
        found[at] = logs.gather(1, wanted[:, None])[:, 0].double().cpu()
    return [found[at] for at in range(len(rows))]


def _parts(rows: Sequence[Row], vocab_size: int) -> Iterator[list[int]]:
    """Rows of similar length whose logits fit memory together."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at][0]))
    part: list[int] = []
    for at in order:
        if part and (len(part) + 1) * len(rows[at][0]) * vocab_size > NUMBERS:
            yield part
            part = []
        part.append(at)
    if part:
        yield part
