"""The table of metrics: logits after the last token to one number per pair, never reduced, in fp32.

A metric of whole answers is measured in steps, one for each token: see ``interp.mediation.steps``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import DataError
from interp.pairs import PairSet

__all__ = ["METRICS", "Metric", "Targets"]

Logits = Float[Tensor, "batch vocab"]
Values = Float[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class Targets:
    """Which tokens are right and wrong, padded to tensors.

    Attributes:
        answers: ``[batch answer]`` token ids.
        answered: ``[batch answer]``, False where padded.
        foils: ``[batch foil]`` token ids.
        foiled: ``[batch foil]``, False where padded.
        reference: ``[batch vocab]`` logits of the unpatched clean prompt, for metrics that compare with it.
    """

    answers: Int[Tensor, "batch answer"]
    answered: Bool[Tensor, "batch answer"]
    foils: Int[Tensor, "batch foil"]
    foiled: Bool[Tensor, "batch foil"]
    reference: Float[Tensor, "batch vocab"] | None = None

    @classmethod
    def of(cls, pairs: PairSet, device: torch.device, reference: Tensor | None = None) -> Targets:
        """Pad the ids of a pair set.

        Raises:
            DataError: an answer and a foil begin with the same token.
        """
        for row, (right, wrong) in enumerate(zip(pairs.answer_ids, pairs.foil_ids, strict=True)):
            if set(right) & set(wrong):
                pair = pairs.pairs[row]
                raise DataError(
                    f"pair {row}: the answer {pair.answers[0]!r} and the foil {pair.foils[0]!r} begin with "
                    "the same token, and this metric reads one token. Use metric 'answer-log-odds', which "
                    "reads them whole."
                )
        return cls(*_padded(pairs.answer_ids, device), *_padded(pairs.foil_ids, device), reference)

    def rows(self, index: Int[Tensor, " row"]) -> Targets:
        """The targets of some pairs, in that order, with repeats."""
        reference = None if self.reference is None else self.reference[index]
        return Targets(
            self.answers[index], self.answered[index], self.foils[index], self.foiled[index], reference
        )


def _padded(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(1, *(len(row) for row in ids))
    table = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids], device=device)
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in ids], device=device)
    return table, mask


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(dim=1) / mask.sum(dim=1)


def _logit_diff(logits: Logits, targets: Targets) -> Values:
    """Subtract the mean logit of the foils from that of the answers."""
    right = _mean(logits.gather(1, targets.answers), targets.answered)
    return right - _mean(logits.gather(1, targets.foils), targets.foiled)


def _log_prob(logits: Logits, targets: Targets) -> Values:
    """The log of the answers' total probability (nats)."""
    logs = torch.log_softmax(logits, dim=1).gather(1, targets.answers)
    return logs.masked_fill(~targets.answered, -torch.inf).logsumexp(dim=1)


def _prob(logits: Logits, targets: Targets) -> Values:
    return _log_prob(logits, targets).exp()


def _prob_diff(logits: Logits, targets: Targets) -> Values:
    chances = torch.softmax(logits, dim=1)
    right = (chances.gather(1, targets.answers) * targets.answered).sum(dim=1)
    return right - (chances.gather(1, targets.foils) * targets.foiled).sum(dim=1)


def _accuracy(logits: Logits, targets: Targets) -> Values:
    top = logits.argmax(dim=1, keepdim=True)
    return ((targets.answers == top) & targets.answered).any(dim=1).to(logits.dtype)


def _kl(logits: Logits, targets: Targets) -> Values:
    """The divergence of the run from the clean run, negative so that more is nearer to clean (nats)."""
    assert targets.reference is not None
    clean = torch.log_softmax(targets.reference, dim=1)
    return -(clean.exp() * (clean - torch.log_softmax(logits, dim=1))).sum(dim=1)


def _next_tokens(logits: Logits, targets: Targets) -> Values:
    """Subtract the log-probabilities of the foils' next tokens from those of the answers' (nats)."""
    logs = torch.log_softmax(logits, dim=1)
    right = (logs.gather(1, targets.answers) * targets.answered).sum(dim=1)
    return right - (logs.gather(1, targets.foils) * targets.foiled).sum(dim=1)


@dataclass(frozen=True)
class Metric:
    """What is read off the logits of an answer.

    Attributes:
        name: what users type (``--metric``).
        unit: of its values.
        description: one line.
        values: gives one number per row; more means more like the clean prompt.
        differentiable: whether gradients of it mean something.
        whole: the sides, ``answer`` and ``foil``, that are scored as a whole: all their tokens, each given
            those before it. Its value is then a sum over such steps. () where first tokens are compared.
    """

    name: str
    unit: str
    description: str
    values: Callable[[Tensor, Targets], Tensor]
    differentiable: bool = True
    whole: tuple[str, ...] = ()


_ROWS = (
    Metric("logit-diff", "logits", "mean logit of the answers less that of the foils", _logit_diff),
    Metric("log-prob", "nats", "log of the answers' total probability", _log_prob),
    Metric("prob", "probability", "the answers' total probability", _prob),
    Metric("prob-diff", "probability", "the answers' total probability less the foils'", _prob_diff),
    Metric("kl", "nats", "minus the divergence from the clean run, summed over the vocabulary", _kl),
    Metric(
        "answer-log-odds",
        "nats",
        "log-probability of the whole answer less that of the whole foil, all their tokens",
        _next_tokens,
        whole=("answer", "foil"),
    ),
    Metric(
        "answer-log-prob",
        "nats",
        "log-probability of the whole answer, all its tokens",
        _next_tokens,
        whole=("answer",),
    ),
    Metric("accuracy", "share", "whether an answer is the likeliest token", _accuracy, differentiable=False),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
