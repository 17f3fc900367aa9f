"""Which combinations the bundled model was trained on, decided by a hash and by nothing else.

A combination (a fact in a template, two facts in an analogy, two names in a sentence) is *held out* when
the hash of its key falls below the task's share. The rule needs no list, gives the same answer on every
machine, and cannot drift from what was trained: the generators call it, the trainer calls the generators.
"""

from __future__ import annotations

import hashlib
from typing import Literal

__all__ = ["HELD_OUT_SHARES", "SALT", "Split", "in_split", "is_held_out", "part_of"]

Split = Literal["train", "held-out"]

SALT = "interp-demo-1"

HELD_OUT_SHARES: dict[str, float] = {
    "one-hop": 0.15,  # (relation, subject, template): every fact keeps at least one trained template
    "analogy": 0.15,  # unordered pair of facts
    "key-value": 0.15,  # (key, value) binding that is asked for
    "pattern": 0.15,  # unordered set of words
    "two-hop": 0.15,  # (first relation, subject, second relation, template)
    "two-hop-composition": 0.15,  # (first relation, bridge entity, second relation): never in any template
    "indirect-object": 0.15,  # unordered pair of names
    "greater-than": 0.15,  # (century, year)
    "agreement": 0.15,  # (subject noun, attractor noun)
    "addition": 0.15,  # unordered pair of summands
}


def is_held_out(task: str, *key: str) -> bool:
    """Whether a combination was kept out of training.

    Args:
        task: a key of ``HELD_OUT_SHARES``.
        *key: the parts that name the combination, in a fixed order.

    Raises:
        KeyError: the task has no share.
    """
    text = "\x1f".join((SALT, task, *key))
    draw = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return draw < HELD_OUT_SHARES[task] * 2**64


def in_split(split: Split, task: str, *key: str) -> bool:
    """Whether a combination belongs to the split asked for."""
    return is_held_out(task, *key) == (split == "held-out")


def part_of(word: str) -> str:
    """The part of a probe's data that a word belongs to (60, 20, 20) by its hash, the same everywhere."""
    share = int.from_bytes(hashlib.blake2b(f"probe:{word}".encode(), digest_size=8).digest(), "big") / 2**64
    return "train" if share < 0.6 else "validation" if share < 0.8 else "test"
