"""What holds for every probing analysis: the audit of its prompts, and the price of many looks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from probes.evaluation import LEAKS, Split, audit
from probes.statistics import best_of

__all__ = ["audited", "leak_note", "many_looks"]


def audited(
    texts: Sequence[str],
    labels: Sequence[str],
    split: Split,
    *,
    groups: Sequence[Any],
    expected: Collection[str] = (),
) -> dict[str, Any]:
    """Look for leaks between the parts, and give counts, first leaks and a sentence as JSON types.

    Args:
        texts: the prompts.
        labels: one per prompt.
        split: the parts.
        groups: what must not straddle parts.
        expected: kinds of leak that belong to the question: not looked for.
    """
    kinds = [kind for kind in LEAKS if kind not in expected]
    found = audit(texts, labels, split, groups=groups, kinds=kinds)
    return {**found.to_dict(), "expected": list(expected), "sentence": found.sentence()}


def leak_note(leakage: dict[str, Any]) -> str:
    """Give the warning of an audit that found something, with the remedies; "" for a clean one."""
    if leakage["clean"]:
        return ""
    cures = [LEAKS[kind].remedy for kind, count in leakage["counts"].items() if count]
    return f"leaks: {leakage['sentence']}; to mend: {'; '.join(cures)}"


def many_looks(
    layers: Sequence[int],
    scores: Sequence[np.ndarray],
    reference: np.ndarray,
    *,
    groups: Sequence[Any],
    against: str,
    seed: int,
) -> dict[str, Any]:
    """Say how sure the best layer *on test* is, when all of them were looked at; {} for one layer.

    Args:
        layers: which.
        scores: right (1) or wrong (0) per layer, ``[test_example]`` each.
        reference: the same of what the probe has to beat.
        groups: of the test examples.
        against: what that is, in words.
        seed: of the permutations.
    """
    if len(layers) < 2:
        return {}
    table = np.stack([np.asarray(row, dtype=np.float64) for row in scores])
    references = np.broadcast_to(np.asarray(reference, dtype=np.float64), table.shape).copy()
    found = best_of(table, references, groups=groups, seed=seed)
    layer = layers[found.index]
    sentence = (
        f"the best of {len(layers)} layers on test is layer {layer}: {found.difference:+.3f} over {against}, "
        f"p = {found.p_value:.2g} corrected for {len(layers)} looks"
    )
    return {
        "layers": len(layers),
        "best": layer,
        "difference": found.difference,
        "p_value": found.p_value,
        "p_uncorrected": found.p_uncorrected,
        "against": against,
        "sentence": sentence,
    }
