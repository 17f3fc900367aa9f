"""A concept-probing result as findings: what the probe reads and what the model says, prompt by prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.analyses.concepts.controls import CONTROLS, FLOORS
from interp.results.findings import Finding

if TYPE_CHECKING:
    from interp.analyses.concepts.result import ConceptResult

__all__ = ["of_concepts"]


def of_concepts(found: ConceptResult) -> tuple[Finding, ...]:
    """Give the share of test prompts that the probe reads right, and that the model itself answers.

    The probe's control is the hardest of chance (over the concepts, or over those to which the prompt narrows
    the answer; prompt by prompt), the mean prediction, and the means over probes of shuffled answers.
    The model chooses among its whole vocabulary, so that its chance is taken as 0.
    """
    concepts = len(found.probe.codebook_)
    floors: dict[str, float | np.ndarray] = {
        "chance": np.array([1 / (len(item.candidates) or concepts) for item in found.items])
    }
    for score in found.scores:
        if score.name in FLOORS:
            floors[CONTROLS[score.name].words] = score.value
    hardest = max(floors, key=lambda name: float(np.mean(floors[name])))
    groups = tuple(item.fact for item in found.items)
    read = [a == item.answer for a, item in zip(found.read, found.items, strict=True)]
    return (
        Finding(
            "concepts read right",
            np.array(read, dtype=np.float64),
            groups,
            control=floors[hardest],
            unit="share",
            layer=found.layer,
            about=f"top-1 of the probe on test at layer {found.layer}, beside {hardest}",
            direction=1,
        ),
        Finding(
            "answered by the model itself",
            np.array(found.model_right, dtype=np.float64),
            groups,
            unit="share",
            about="whether its next token is the expected one",
        ),
    )
