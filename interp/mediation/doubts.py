"""What makes pairs a doubtful example of their task: the model gives other answers than they say."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interp.errors import counted
from interp.mediation.metrics import METRICS, Targets
from interp.models.model import Model
from interp.pairs import PairSet

__all__ = ["doubts", "doubts_of"]


def doubts(
    clean: Float[Tensor, "pair vocab"], corrupt: Float[Tensor, "pair vocab"] | None, targets: Targets
) -> tuple[str, ...]:
    """Say where the model does not do the task of the pairs; nothing where it does.

    Args:
        clean: logits after the clean prompts.
        corrupt: logits after the corrupt ones; None where they were not run.
        targets: the answers and foils.
    """
    n, said = len(clean), []
    best = clean.argmax(-1)[:, None]
    right = int(((best == targets.answers) & targets.answered).any(-1).sum())
    if 2 * right < n:
        said.append(
            f"the model's most likely next token begins an answer on {right} of "
            f"{counted(n, 'clean prompt')}: what is found carries the metric, not an answer that the model "
            "gives"
        )
    if corrupt is None or not targets.foiled.any(-1).all():
        return tuple(said)
    measure = METRICS["logit-diff"]
    fell = int((measure.values(clean, targets) < measure.values(corrupt, targets)).sum())
    if 2 * fell > n:
        said.append(
            f"on {fell} of {counted(n, 'pair')} the answer beats the foil by less on the clean prompt than "
            "on the corrupt one: answer and foil, or clean and corrupt, may be exchanged"
        )
    return tuple(said)


def doubts_of(model: Model, pairs: PairSet) -> tuple[str, ...]:
    """The same of pairs that are run for it, both prompts once; first tokens of answers are compared.

    Args:
        model: what is run.
        pairs: clean and corrupt prompts with answers and foils.
    """
    shared = any(set(a) & set(b) for a, b in zip(pairs.answer_ids, pairs.foil_ids, strict=True))
    if shared:  # answers that begin like their foils are told apart by metrics of whole answers alone
        return ()
    clean, corrupt = model.logits(pairs.clean).float(), model.logits(pairs.corrupt).float()
    return doubts(clean, corrupt, Targets.of(pairs, clean.device))
