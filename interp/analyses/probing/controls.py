"""The table of controls: what each rules out, in words.

A new control is one row here and one case in ``run``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONTROLS", "METRICS", "Control"]


@dataclass(frozen=True)
class Control:
    """Describe what a probe is measured against.

    Attributes:
        name: what users type (``--controls``).
        words: what it is, in a sentence such as "... does as well".
        description: one line for tables and ``interp ls``.
        null: whether it is what a probe of no information scores, so that it belongs to the test of guessing;
            the others are comparisons: what reads as much without the model, or without its training.
    """

    name: str
    words: str
    description: str
    null: bool = False


_ROWS = (
    Control(
        "shuffled",
        "probes of shuffled labels",
        "the same probe, trained and tested on labels exchanged between groups, over 20 shuffles",
        null=True,
    ),
    Control(
        "random-weights",
        "the same architecture with random weights",
        "the same probe at the same layer of the untrained twin",
    ),
    Control(
        "bag-of-tokens",
        "a bag of words",
        "a logistic probe on the counts of the tokens seen, in any order",
    ),
    Control(
        "majority",
        "always guessing the commonest label",
        "the commonest label of the training split",
    ),
    Control(
        "embedding",
        "the token's embedding",
        "the same probe on the embedding of the token read, before any layer",
    ),
    Control("length", "the number of tokens", "a logistic probe on the number of tokens alone"),
)

CONTROLS: dict[str, Control] = {row.name: row for row in _ROWS}

METRICS: tuple[str, ...] = ("accuracy", *(f"over-{name}" for name in CONTROLS))
"""What a run can be gated on: the accuracy, and its paired difference to each control."""
