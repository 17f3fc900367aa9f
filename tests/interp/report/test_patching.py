"""What the report of a search over mediators says of signs, of chance, and how its map is scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from interp.mediation import Effects, Mediator
from interp.report import patching
from interp.sites import Site


def effects(denoising: np.ndarray, noising: np.ndarray, total: float, noise: float = 1e-6) -> Effects:
    """Effects of heads of one layer with these numbers, each pair a group of its own."""
    n = denoising.shape[1]
    names = tuple(Mediator(Site("head", 0, at)) for at in range(len(denoising)))
    groups = tuple(f"g{at}" for at in range(n))
    return Effects(
        names, {"denoising": denoising, "noising": noising}, np.full(n, total), np.zeros(n), groups,
        "exhaustive", "logit-diff", "logits", "interchange", noise, {}, {},
    )  # fmt: skip


def gated(gate: Callable[[int, int], int]) -> Effects:
    """Two parts a and b, 1 in clean prompts and 0 in corrupt ones, and Y = gate(a, b): by hand."""
    spread = np.linspace(0.9, 1.1, 12)
    enough = [gate(1, 0) - gate(0, 0), gate(0, 1) - gate(0, 0)]
    needed = [gate(1, 1) - gate(0, 1), gate(1, 1) - gate(1, 0)]
    one, two = (np.array(values)[:, None] * spread for values in (enough, needed))
    return effects(one, two, float(gate(1, 1) - gate(0, 0)))


def test_the_sign_of_the_interaction_is_explained_as_it_is() -> None:
    both, either = gated(lambda a, b: a & b), gated(lambda a, b: a | b)
    assert (both.table()["interaction"] > 0).all() and (either.table()["interaction"] < 0).all()
    note = patching._table(both.to_dict()).note
    above, below = note.split("Above zero")[1].split("Below zero")
    assert "(AND)" in above and "(OR, backup)" in below
    one_way = replace(both, values={"noising": both.values["noising"]})
    assert "Interaction" not in patching._table(one_way.to_dict()).note


def test_a_map_without_findings_is_pale() -> None:
    """Effects of 0.002 logits that nothing tells from chance filled the scale of a metric of 20 logits."""
    rng = np.random.default_rng(0)
    nothing = effects(*(0.002 * rng.normal(size=(2, 6, 24))), total=20.0)
    drawn = patching._map(nothing.to_dict())
    assert drawn is not None and drawn.limits == (-20.0, 20.0)
    found = gated(lambda a, b: a | b)
    assert patching._map(found.to_dict()).limits is None  # type: ignore[union-attr]


def test_a_row_that_is_no_finding_says_why() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 24)) * np.array([[1.0], [1.0], [1e-9]])
    values[0] += 5
    rows = patching._table(effects(values, values, total=5.0).to_dict()).rows
    remarks = {row[0]: row[-1] for row in rows}
    assert remarks == {
        "head.0.0": "",
        "head.0.1": "not told from chance",
        "head.0.2": "below the noise floor",
    }
