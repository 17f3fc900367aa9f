"""What probing analyses share: what they do not show, the audit of prompts, the best of many layers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.evaluation import LEAKS, Audit, Split, audit
from probes.statistics import best_of

__all__ = ["COVERED", "NOT_USE", "Looks", "audit_lead", "audited", "leak_note", "many_looks"]

NOT_USE = (
    "That something can be read here does not show that the model uses it: to show that, change the "
    "activation and watch the output (`--causal` does)."
)
COVERED = (
    "they cover other prompts of the kind, not another split, seed or codebook. Of shuffled controls: where "
    "9 in 10 of the 20 shuffles lie."
)


@dataclass(frozen=True)
class Looks:
    """How sure the best of several layers *on test* is, when all of them were looked at.

    Attributes:
        layers: how many.
        best: the best one.
        difference: by how much it is above what the probe has to beat.
        p_value: of that, corrected for the number of layers.
        p_uncorrected: the same for one layer alone.
        against: what the probe has to beat, in words.
    """

    layers: int
    best: int
    difference: float
    p_value: float
    p_uncorrected: float
    against: str

    @property
    def sentence(self) -> str:
        """The same in words."""
        return (
            f"the best of {self.layers} layers on test is layer {self.best}: {self.difference:+.3f} over "
            f"{self.against}, p = {self.p_value:.2g}, corrected for the choice among {self.layers}"
        )


def audited(
    texts: Sequence[str],
    labels: Sequence[str],
    split: Split,
    *,
    groups: Sequence[Any],
    expected: Collection[str] = (),
) -> Audit:
    """Look for leaks between the parts.

    Args:
        texts: the prompts.
        labels: one per prompt.
        split: the parts.
        groups: what must not straddle parts.
        expected: kinds of leak that belong to the question: not looked for.
    """
    kinds = [kind for kind in LEAKS if kind not in expected]
    return audit(texts, labels, split, groups=groups, kinds=kinds)


def audit_lead(found: Audit) -> tuple[str, ...]:
    """What the audit of the prompts looked for, where it found nothing; what it found is a warning."""
    return (f"The audit of the prompts found {found.sentence()}.",) if found.clean else ()


def leak_note(found: Audit) -> str:
    """The warning of an audit that found something, with the remedies; "" for a clean one."""
    if found.clean:
        return ""
    cures = [LEAKS[kind].remedy for kind, count in found.counts.items() if count]
    return f"leaks: {found.sentence()}; to mend: {'; '.join(cures)}"


def many_looks(
    layers: Sequence[int],
    scores: Sequence[np.ndarray],
    reference: np.ndarray,
    *,
    groups: Sequence[Any],
    against: str,
    seed: int,
) -> Looks | None:
    """How sure the best layer on test is; None for one layer.

    Args:
        layers: which.
        scores: right (1) or wrong (0) per layer, ``[test_example]`` each.
        reference: the same of what the probe has to beat.
        groups: of the test examples.
        against: what that is, in words.
        seed: of the permutations.
    """
    if len(layers) < 2:
        return None
    table = np.stack([np.asarray(row, dtype=np.float64) for row in scores])
    references = np.broadcast_to(np.asarray(reference, dtype=np.float64), table.shape).copy()
    found = best_of(table, references, groups=groups, seed=seed)
    best = int(layers[found.index])
    return Looks(len(layers), best, found.difference, found.p_value, found.p_uncorrected, against)
