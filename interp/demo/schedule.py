"""What the bundled model is trained on, stage by stage: first copying, then facts, then depth."""

from __future__ import annotations

from dataclasses import dataclass

from interp.demo.corpus import Mix

__all__ = ["SCHEDULE", "Stage"]


@dataclass(frozen=True)
class Stage:
    """Describe one stretch of training.

    Attributes:
        name: for logs and checkpoints.
        n_layers: depth; when it is more than before, the model is grown first.
        steps: optimizer steps.
        tokens: cells of a batch.
        learning_rate: peak rate of AdamW; Muon takes three times as much.
        mix: what is drawn.
        decay: the last share of the steps in which the rate falls linearly to zero.
        until: the stage ends early when the accuracy of the last 50 steps, over answer tokens, reaches
            this.
    """

    name: str
    n_layers: int
    steps: int
    tokens: int
    learning_rate: float
    mix: Mix
    decay: float = 0.0
    until: float = 2.0


_EVERYTHING = {
    "one-hop": 0.22,
    "analogy": 0.22,
    "key-value": 0.15,
    "pattern": 0.03,
    "two-hop": 0.15,
    "indirect-object": 0.07,
    "greater-than": 0.06,
    "agreement": 0.05,
    "addition": 0.05,
}


def _copying(words: int, sizes: tuple[int, ...] = (2, 3)) -> Stage:
    """Bind keys to values drawn from ``words`` concepts (0: all); doubling keeps every step short.

    With 16 words the model learns to match keys rather than to know them: from 32 words on each doubling
    takes some 200 steps,
    while starting with all words it was still guessing among the values after 1,700.
    """
    mix = Mix({"key-value": 1.0}, words=words, sizes=sizes, joined=0.0)
    return Stage(f"copy-{words or 'all'}", 6, 1500, 1024, 2e-3, mix, until=0.94)


SCHEDULE: tuple[Stage, ...] = (
    *(_copying(words) for words in (8, 16, 32, 64, 128, 256, 512, 1024)),
    _copying(0, (2, 3, 4, 5)),
    Stage("world", 6, 4500, 1536, 2e-3, Mix(_EVERYTHING)),
    Stage("deep", 24, 3600, 2048, 1.5e-3, Mix(_EVERYTHING), decay=0.5),
)
