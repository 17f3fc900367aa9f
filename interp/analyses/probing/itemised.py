"""A probing result as findings: the accuracy on test, prompt by prompt, against the hardest floor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.analyses.probing.controls import CONTROLS
from interp.results.findings import Finding
from probes.evaluation import majority_label, right

if TYPE_CHECKING:
    from interp.analyses.probing.result import ProbeResult

__all__ = ["of_probe"]


def of_probe(found: ProbeResult) -> tuple[Finding, ...]:
    """Give the accuracy on the test prompts at the chosen layer.

    The control is the hardest of chance, the commonest training label (prompt by prompt) and the mean over
    probes of shuffled labels, where they were measured.
    """
    rows = found.split.test
    labels = [found.data.labels[i] for i in rows]
    commonest = majority_label([found.data.labels[i] for i in found.split.train])
    majority = right(labels, [commonest] * len(labels)).astype(np.float64)
    floors: dict[str, float | np.ndarray] = {
        "chance": 1 / len(set(found.data.labels)),
        "always the commonest label": majority,
    }
    for score in found.scores:
        if score.layer == found.layer and score.name in CONTROLS and CONTROLS[score.name].null:
            floors[CONTROLS[score.name].words] = score.value
    hardest = max(floors, key=lambda name: float(np.mean(floors[name])))
    return (
        Finding(
            "accuracy",
            right(labels, [found.predicted[i] for i in rows]).astype(np.float64),
            tuple(found.data.groups[i] for i in rows),
            control=floors[hardest],
            unit="share",
            layer=found.layer,
            about=f"of a {found.kind} probe on test at layer {found.layer}, beside {hardest}",
            direction=1,
        ),
    )
