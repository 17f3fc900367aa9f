"""One prompt with its answer, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Example"]


@dataclass(frozen=True)
class Example:
    """Hold a prompt, the one word that answers it, and what is needed to group and score it.

    Attributes:
        prompt: the text up to the answer.
        answer: the expected next word (one token of the bundled vocabulary).
        task: the generator's name, a key of ``interp.tasks.TASKS``.
        template: which of the task's templates was used.
        group: what must not straddle a split (the fact asked for, the pair of names, ...).
        label: what a probe may be asked to read (the relation, the number of the noun, ...).
        correct: all answers that count as right; ``(answer,)`` where only one does.
        wrong: the answers they are measured against; empty where the whole vocabulary is meant.
        more: further turns of the same prompt, each (text that follows, its answer).
        end: closing mark of the sentence.
        variables: the values the generator drew, for counterfactuals.
    """

    prompt: str
    answer: str
    task: str
    template: str
    group: str
    label: str = ""
    correct: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    more: tuple[tuple[str, str], ...] = ()
    end: str = "."
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """Give every answer that counts as right."""
        return self.correct or (self.answer,)

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """Give (text, answer) for the prompt and everything that follows it."""
        return ((self.prompt, self.answer), *self.more)

    @property
    def text(self) -> str:
        """Give the whole sentence, answers and closing mark included."""
        return " ".join(part for turn in self.turns for part in turn if part) + f" {self.end}"
