"""What a concept-probing result says besides its scores: further metrics, relations, the two-by-two table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.analyses.concepts.controls import CONTROLS, Stand
from interp.analyses.concepts.trial import Trial
from interp.analyses.looks import Looks, audited, many_looks
from interp.tasks.protocols import Protocol
from probes.evaluation import Audit, Split
from probes.hyperdimensional import ConceptScores, Decodings
from probes.statistics import bootstrap

__all__ = ["by_relation", "cells_of", "leakage_of", "looks_of", "metrics_of"]

EXAMPLES = 5


def leakage_of(trial: Trial, row: Protocol) -> Audit:
    """Audit the prompts, apart from what belongs to the protocol."""
    items = trial.drawn.items
    return audited(
        [item.text for item in items],
        [item.answer for item in items],
        Split.from_names([item.part for item in items]),
        groups=[item.fact for item in items],
        expected=row.leaks,
    )


def looks_of(stand: Stand, layers: Sequence[int], rights: Sequence[np.ndarray]) -> Looks | None:
    """Say how sure the best layer on test is, against the mean prediction."""
    if not rights:
        return None
    trial = stand.trial
    constant = CONTROLS["constant"].read(stand)
    against = CONTROLS["constant"].words
    return many_looks(layers, rights, constant, groups=trial.facts, against=against, seed=trial.seed)


def metrics_of(found: ConceptScores, trial: Trial, right: Sequence[bool]) -> dict[str, Any]:
    """Give the further scores of the probe, those of unseen concepts alone among them."""
    own = bootstrap(np.array(right, dtype=np.int64), groups=trial.facts, seed=trial.seed)
    named = {
        "top5": found.top5,
        "mrr": found.mrr,
        "cosine": found.cosine,
        "bits": found.bits,
        "claimed": found.claimed,
        "precision": found.precision,
        "model": own,
    }
    new = np.array([item.answer not in trial.drawn.trained for item in trial.test])
    if new.any() and not new.all():
        groups = [fact for fact, here in zip(trial.facts, new, strict=True) if here]
        named["unseen"] = bootstrap(found.right[new], groups=groups, seed=trial.seed)
    plain: dict[str, Any] = {
        name: None
        if e is None
        else {"value": e.value, "low": e.interval.low, "high": e.interval.high, "n": e.n}
        for name, e in named.items()
    }
    return plain | {
        "cosine_floor": found.cosine_floor,
        "bits_floor": found.bits_floor,
        "ceiling": trial.drawn.ceiling(),
    }


def by_relation(
    trial: Trial, found: ConceptScores, right: Sequence[bool]
) -> dict[str, tuple[int, float, float]]:
    """Give relation -> (prompts, top-1 of the probe, share that the model itself answers)."""
    relations = np.array([item.relation for item in trial.test])
    own = np.array(right)
    return {
        str(name): (int(here.sum()), float(found.right[here].mean()), float(own[here].mean()))
        for name in np.unique(relations)
        for here in [relations == name]
    }


def cells_of(
    trial: Trial, read: Decodings, said: Sequence[str], right: Sequence[bool]
) -> dict[str, tuple[int, list[dict[str, str]]]]:
    """Sort the test prompts by whether the model and the probe are right, with examples of each."""
    cells: dict[str, tuple[int, list[dict[str, str]]]] = {}
    for model_right in (True, False):
        for probe_right in (True, False):
            rows = [
                row
                for row, item in enumerate(trial.test)
                if right[row] is model_right and (read.names[row][0] == item.answer) is probe_right
            ]
            examples = [
                {
                    "text": trial.test[row].text,
                    "answer": trial.test[row].answer,
                    "read": read.names[row][0],
                    "said": said[row],
                }
                for row in rows[:EXAMPLES]
            ]
            words = [
                f"{who} {'right' if ok else 'wrong'}"
                for who, ok in (("model", model_right), ("probe", probe_right))
            ]
            cells[", ".join(words)] = (len(rows), examples)
    return cells
