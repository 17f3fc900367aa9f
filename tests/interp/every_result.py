"""One instance of every result class, by schema: what the test of all results walks over."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import interp
from interp import mediation
from interp.results import Result
from interp.store import ActivationStore
from tests.interp.mediation.test_planted_subspaces import balanced
from tests.planted import planted_subspace
from tests.planted_heads import PLANTED
from tests.tiny import tiny

__all__ = ["MAKERS"]


def alignment() -> Result:
    """Two variables of a planted subspace, and one control."""
    found = planted_subspace()
    variables = {"value": balanced(found), "other": balanced(found)}
    return mediation.das(found.model, variables, "resid_post.0", dim=(2, 1), steps=11, controls=("random",))


def stored() -> Result:
    """Two shards of a tiny model's stream."""
    hf, words = tiny("llama")
    model = interp.load(hf, tokenizer=words)
    with tempfile.TemporaryDirectory() as folder, ActivationStore(folder) as store:
        for ids in ([[1, 2, 3], [4, 5]], [[6, 7]]):
            store.append(model.capture(ids, ["resid_post.*"], "last"))
        return store.summary()


def curve() -> Result:
    """Of the heads of a planted circuit, beside a random order."""
    found = PLANTED["copy"]()
    return mediation.curve(found.model, found.pairs, sorted(found.heads), control=True)


def evaluation() -> Result:
    """Of a planted circuit, with all its controls."""
    found = PLANTED["copy"]()
    return mediation.evaluate(found.model, found.pairs, sorted(found.heads))


def circuit_transfer() -> Result:
    """A planted circuit on its own pairs and on others."""
    found, other = PLANTED["copy"](), PLANTED["copy"](seed=1)
    return mediation.selectivity(found.model, sorted(found.heads), found.pairs, {"other": other.pairs})


MAKERS: dict[str, Callable[[], Result]] = {
    "interp.alignment/2": alignment,
    "interp.capture/2": stored,
    "interp.circuit-transfer/1": circuit_transfer,
    "interp.curve/2": curve,
    "interp.evaluation/2": evaluation,
}
"""Schema -> makes a small result of that class."""
