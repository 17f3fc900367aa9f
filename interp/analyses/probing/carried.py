"""What the probes of two models read of each other at one layer, as findings for a comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from interp.analyses.controls import SHUFFLES
from interp.analyses.probing.result import ProbeResult
from interp.analyses.prompts import partners
from interp.analyses.representation_similarity import row_cosine
from interp.results import Finding
from probes.base import Probe
from probes.evaluation import right
from probes.linear import LinearProbe

__all__ = ["carried", "retrained"]

OWN = "each model read with its own probe; control: the reference's reading of another prompt"


def carried(own: ProbeResult, reference: ProbeResult) -> tuple[Finding, ...]:
    """Read each of two models with the other's probe, at the layer of both results.

    Findings: the accuracy of the reference's probe on this model (``from the reference``) and of this model's
    on the reference (``to the reference``), against probes of exchanged labels of the reference where they
    were measured, else chance; of linear probes the cosine between their directions, label by label
    (``directions``); of others whether the first concept is the same, each model read with its own probe
    (``same concept``), and the cosine between all that they read (``codebook agreement``).
    """
    blind, control = _luck(reference)
    plan = (
        ("from the reference", reference, own, "fitted on the reference, tested on this model"),
        ("to the reference", own, reference, "fitted on this model, tested on the reference"),
    )
    labels = [one.label for one in own.tested]
    accuracies = tuple(
        _finding(
            own,
            what,
            right(labels, _probe(taught).predict(read.states)),
            blind,
            f"accuracy on test, {words}; control: {control}",
        )
        for what, taught, read, words in plan
    )
    if isinstance(_probe(own), LinearProbe):
        return (*accuracies, _directions(own, reference))
    return (*accuracies, *_readings(own, reference))


def retrained(own: ProbeResult, reference: ProbeResult) -> Finding:
    """The accuracy of this model's probe on it, against the same control as the others."""
    blind, control = _luck(reference)
    about = f"accuracy on test, fitted and tested on this model; control: {control}"
    return _finding(own, "retrained", own.finding("accuracy").values, blind, about)


def _luck(reference: ProbeResult) -> tuple[float, str]:
    """The accuracy of probes that know nothing: one for both models, or its own noise would be compared."""
    for score in reference.controls:
        if score.name == "shuffled":
            return score.value, f"{SHUFFLES} probes of exchanged labels of the reference"
    return reference.score("chance").value, "chance"


def _probe(found: ProbeResult) -> Probe:
    return found.probes[found.layer]


def _finding(
    of: ProbeResult,
    name: str,
    values: Any,
    control: Any,
    about: str,
    *,
    unit: str = "share",
    groups: tuple[str, ...] = (),
) -> Finding:
    return Finding(
        name,
        np.asarray(values, dtype=np.float64),
        groups or tuple(of.data.groups[i] for i in of.split.test),
        control if isinstance(control, float) else np.asarray(control, dtype=np.float64),
        unit,
        layer=of.layer,
        about=about,
        direction=1,
    )


def _directions(own: ProbeResult, reference: ProbeResult) -> Finding:
    first, second = _probe(own), _probe(reference)
    assert isinstance(first, LinearProbe) and isinstance(second, LinearProbe)
    luck = next((one.directions for one in reference.controls if one.directions), 0.0)
    control = (
        f"; control: the mean over {SHUFFLES} probes of exchanged labels of the reference" if luck else ""
    )
    return _finding(
        own,
        "directions",
        row_cosine(first.coef_, second.coef_),
        luck,
        f"cosine between the two probes' directions of a label{control}",
        unit="",
        groups=tuple(map(str, second.classes_.tolist())),
    )


def _readings(own: ProbeResult, reference: ProbeResult) -> tuple[Finding, Finding]:
    groups = tuple(own.data.groups[i] for i in own.split.test)
    other = partners(groups, [""] * len(groups), own.seed)
    mine, theirs = _similarities(own), _similarities(reference)
    first, second = mine.argmax(axis=1), theirs.argmax(axis=1)
    said = f"the first concept is the same, {OWN}"
    alike = f"cosine between the similarities to all concepts (less their mean), {OWN}"
    cosines, by_luck = row_cosine(mine, theirs), row_cosine(theirs, theirs[other])
    return (
        _finding(own, "same concept", first == second, second == second[other], said),
        _finding(own, "codebook agreement", cosines, by_luck, alike, unit=""),
    )


def _similarities(found: ProbeResult) -> Float[np.ndarray, "test label"]:
    scores = np.asarray(_probe(found).decision_function(found.states), dtype=np.float64)
    return scores - scores.mean(axis=1, keepdims=True)
