"""How often each verdict is said where the true loss is known.

    python -m pytest tests/simulations -m slow -s

Delta is 10% of the true excess, which is 1; losses are in units of delta.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from interp.quantization import judge
from interp.results import Finding

pytestmark = pytest.mark.slow

REPEATS = 400
LOSSES = (0.0, 0.5, 0.9, 1.0, 1.05, 1.1, 1.2, 1.5, 3.0)
ALLOWED = 0.05


def findings(rng: np.random.Generator, kind: str, n: int, loss: float, sd: float) -> tuple[Finding, Finding]:
    """The same items in both models: numbers of mean 1, or answers of which three in four are right."""
    groups = tuple(map(str, range(n)))
    if kind == "share":
        # A share of 0.75 against 0.25: an excess of 0.5, of which delta is 0.05.
        right = rng.random(n) < 0.75
        lost = right & (rng.random(n) < 0.05 * loss / 0.75)
        return (
            Finding("x", right.astype(float), groups, control=0.25, unit="share", direction=1),
            Finding("x", (right & ~lost).astype(float), groups, control=0.25, unit="share", direction=1),
        )
    reference = 1 + sd * rng.normal(size=n)
    if kind == "every item alike":
        other = reference - 0.1 * loss
    elif kind == "in proportion":
        other = reference * (1 - 0.1 * loss)
    else:
        other = reference - 0.1 * loss + 0.1 * rng.normal(size=n)
    return Finding("x", reference, groups, unit="nats"), Finding("x", other, groups, unit="nats")


def said(kind: str, n: int, loss: float, sd: float) -> dict[str, float]:
    rng = np.random.default_rng(n)
    count = Counter(judge(*findings(rng, kind, n, loss, sd)).verdict for _ in range(REPEATS))
    return {verdict: times / REPEATS for verdict, times in count.items()}


@pytest.mark.parametrize(
    ("kind", "sd"),
    [
        ("every item alike", 0.5),
        ("every item alike", 1.0),
        ("in proportion", 0.5),
        ("item by item", 0.5),
        ("item by item", 1.0),
        ("share", 0.0),
    ],
)
def test_verdicts_are_rarely_wrong(kind: str, sd: float) -> None:
    wrong = []
    slack = 1.96 * np.sqrt(ALLOWED * (1 - ALLOWED) / REPEATS)
    for n in (12, 24, 60):
        for loss in LOSSES:
            found = said(kind, n, loss, sd)
            words = ", ".join(f"{word} {share:.1%}" for word, share in sorted(found.items()))
            print(f"{kind:17} sd {sd:.1f}  n {n:3}  loss {loss:4.2f} delta: {words}")
            survives = found.get("survives", 0.0)
            smaller = found.get("weakened", 0.0) + found.get("lost", 0.0)
            if 1.0 <= loss <= 1.5 and survives > ALLOWED + slack:
                wrong.append(f"n {n}, loss {loss}: survives {survives:.1%}")
            if loss <= 1.0 and smaller > ALLOWED + slack:
                wrong.append(f"n {n}, loss {loss}: weakened or lost {smaller:.1%}")
            if loss == 0.0 and kind == "every item alike" and survives < 0.95:
                wrong.append(f"n {n}, no loss: survives {survives:.1%}")
    assert not wrong, wrong
