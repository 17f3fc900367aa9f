"""What steering changes that it should not: text about anything, and a task on something else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.analyses.steering.measuring import Change, Row, logs_of, prefixed, rows_of
from interp.errors import DataError, counted
from interp.lenses.texts import drawn
from interp.models.answers import score
from interp.models.model import Model
from interp.tasks.sampling import distinct
from interp.tasks.table import TASKS
from interp.tasks.world import load_world

__all__ = ["Bystanders", "SideEffects"]

TEXTS, LENGTH = 32, 32
"""Neutral texts that are drawn from the model, and their tokens."""
TASK, ASKED, KEPT = "one-hop", 200, 40
"""The task kept aside where none is given, how many of its prompts are asked, and how many are kept."""


@dataclass(frozen=True, eq=False)
class SideEffects:
    """Side effects of one change.

    Attributes:
        kl: of each neutral text, the mean over its tokens of the divergence from the model's own next-token
            distribution to the changed one, in nats.
        surprise: of each neutral text, the mean of minus the log-probability of its tokens, in nats.
        right: of each prompt of the task kept aside, which the model answers right: 1 where it still does.
    """

    kl: Float[np.ndarray, " text"]
    surprise: Float[np.ndarray, " text"]
    right: Float[np.ndarray, " question"]

    @classmethod
    def mean(cls, found: Sequence[SideEffects]) -> SideEffects:
        """The mean over several changes."""
        names = ("kl", "surprise", "right")
        return cls(*(np.mean([getattr(one, name) for one in found], axis=0) for name in names))


@dataclass(frozen=True, eq=False)
class Bystanders:
    """Neutral texts and a task kept aside, with what the model says to them as it is.

    Attributes:
        model: what is steered.
        rows: the neutral texts as ids.
        logs: the model's own log-probabilities at each measured token.
        questions: prompts of the task that the model answers right, as ids, with the tokens of the answer.
        choosing: which neutral texts the largest dose is chosen on; the others are reported.
        words: what they are.
        warnings: of what is missing.
    """

    model: Model
    rows: tuple[Row, ...]
    logs: tuple[Tensor, ...]
    questions: tuple[Row, ...]
    choosing: Bool[np.ndarray, " text"]
    words: str
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        model: Model,
        neutral: Sequence[str] | None,
        task: Sequence[tuple[str, str]] | None,
        seed: int,
    ) -> Bystanders:
        """Gather them.

        Args:
            model: what is steered.
            neutral: texts that have nothing to do with it; drawn from the model itself where left out.
            task: prompts with their answers; facts of the bundled table where left out.
            seed: of draws and of the halves.

        Raises:
            DataError: fewer than four neutral texts, or a task of which the model answers nothing right.
        """
        own = neutral is None
        texts = (
            drawn(model, n_tokens=TEXTS * LENGTH, length=LENGTH, seed=seed) if neutral is None else neutral
        )
        rows = tuple(rows_of(model, [text for text in texts if len(text) > 1]))
        if len(rows) < 4:
            raise DataError(
                f"{counted(len(rows), 'neutral text')}; give 4 or more, half of which choose the dose."
            )
        logs = dict(logs_of(model, rows))
        order = np.random.default_rng(seed).permutation(len(rows))
        choosing = np.zeros(len(rows), dtype=bool)
        choosing[order[: len(rows) // 2]] = True
        questions = _questions(model, task, seed)
        what = f"{counted(len(rows), 'text')} {'drawn from the model itself' if own else 'that were given'}"
        warnings = () if questions else (_NO_TASK,)
        if task is not None and not questions:
            raise DataError(
                f"{model.name!r} answers none of {counted(len(task), 'prompt')} of the task right, so that "
                "nothing can be lost; give others."
            )
        if questions:
            what += f"; {counted(len(questions), 'prompt')} with answers that the model gives"
        kept = tuple(logs[at].cpu() for at in range(len(rows)))
        return cls(model, rows, kept, questions, choosing, what, warnings)

    def under(self, change: Change, context: str = "") -> SideEffects:
        """What a change does to them.

        Args:
            change: what is written.
            context: what stands before every text and prompt.
        """
        n = len(self.rows)
        kl, surprise = np.zeros(n), np.zeros(n)
        rows = prefixed(self.model, self.rows, context)
        for at, logs in logs_of(self.model, rows, change):
            plain, now = self.logs[at].double(), logs.cpu().double()
            kl[at] = float((plain.exp() * (plain - now)).sum(dim=1).mean())
            ids, start = rows[at]
            surprise[at] = -float(now.gather(1, torch.tensor(ids[start:])[:, None]).mean())
        return SideEffects(kl, surprise, self._right(change, context))

    def _right(self, change: Change, context: str) -> Float[np.ndarray, " question"]:
        found = np.zeros(len(self.questions))
        rows = prefixed(self.model, self.questions, context)
        for at, logs in logs_of(self.model, rows, change):
            ids, start = rows[at]
            found[at] = float((logs.argmax(dim=1).cpu() == torch.tensor(ids[start:])).all())
        return found


_NO_TASK = (
    "the model answers none of the bundled facts right, so no accuracy was kept aside; give a task: "
    "evaluate(..., task=[(prompt, answer), ...])."
)


def _questions(model: Model, task: Sequence[tuple[str, str]] | None, seed: int) -> tuple[Row, ...]:
    """Prompts that the model answers right, with the tokens of the answer."""
    if task is None:
        world, rng = load_world(), random.Random(f"steering:{seed}")
        stream = iter(lambda: TASKS[TASK].generate(world, rng, "train"), None)
        found = distinct(stream, ASKED, lambda one: one.prompt, tries=10 * ASKED)
        task = [(one.prompt, one.answer) for one in found]
    try:
        told = score(model, [prompt for prompt, _ in task], [answer for _, answer in task])
    except DataError:
        return ()
    prompts = model.tokenize([prompt for prompt, _ in task]).token_ids
    right = [at for at, ok in enumerate(told.likeliest.tolist()) if ok][:KEPT]
    return tuple(((*prompts[at], *told.token_ids[at]), len(prompts[at])) for at in right)
