"""Pairwise interactions against whole passes, and where there can be none."""

from __future__ import annotations

import numpy as np
import pytest

import interp
from interp import mediation
from interp.errors import ConfigError
from interp.mediation import interactions
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.tasks.pairs import draw
from tests.tiny import build, tokenizer


def made() -> tuple[Model, PairSet]:
    model = load(build("llama"), tokenizer=tokenizer())
    texts = [("w01 w02 w03 w04", "w09 w02 w03 w04"), ("w05 w06 w07 w08", "w10 w06 w07 w08")]
    pairs = [Pair(a, b, ("w20",), ("w21",), "word", a) for a, b in texts]
    return model, PairSet.build(model, pairs)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_two_mediators_against_four_whole_runs(direction: str) -> None:
    model, pairs = made()
    base, source = (pairs.corrupt, pairs.clean) if direction == "denoising" else (pairs.clean, pairs.corrupt)
    found = interactions(model, pairs, ["attn_out.0", "mlp_out.1"], direction=direction)

    def run(*sites: str) -> np.ndarray:
        edits = [interp.Intervention(s, model.capture(source, s, "all")[s]) for s in sites]
        logits = model.run(base, interventions=edits or None).logits
        assert logits is not None
        rows = zip(range(2), pairs.answer_ids, pairs.foil_ids, strict=True)
        return np.array([float(logits[at, a[0]] - logits[at, f[0]]) for at, a, f in rows])

    wanted = run("attn_out.0", "mlp_out.1") - run("attn_out.0") - run("mlp_out.1") + run()
    wanted = wanted if direction == "denoising" else -wanted
    assert np.allclose(found.values[0, 1], wanted, atol=1e-5)
    assert np.abs(wanted).max() > 1e-6
    assert np.array_equal(found.matrix, found.matrix.T) and not found.matrix.diagonal().any()


def test_what_carries_nothing_interacts_with_nothing() -> None:
    """Before the first difference both prompts have the same values: replacing them changes nothing."""
    model, _ = made()
    pairs = PairSet.build(
        model, [Pair("w01 w02 w03 w04", "w01 w02 w09 w04", ("w20",), ("w21",), "word", "g")]
    )
    late = mediation.Mediator(interp.Site.parse("mlp_out.1"), 3)
    early = mediation.Mediator(interp.Site.parse("mlp_out.0"), 0)
    found = interactions(model, pairs, [early, late])
    assert np.abs(found.values).max() < 1e-5


def test_the_heads_of_the_bundled_model_interact() -> None:
    model = interp.load("demo")
    pairs = draw(model, "capitals", 12)
    found = interactions(model, pairs, ["head.0.3", "head.8.3", "head.20.1"])
    table = found.table()
    assert {table["one"][0], table["two"][0]} == {"head.0.3", "head.8.3"}
    assert table["low"][0] * table["high"][0] > 0
    assert "others respond" in repr(found)


def test_what_there_is_not_is_refused() -> None:
    model, pairs = made()
    with pytest.raises(ConfigError, match="1 mediators asked; interactions are measured of 2 to 24"):
        interactions(model, pairs, ["mlp_out.0"])
    with pytest.raises(ConfigError, match="direction 'both' asked"):
        interactions(model, pairs, ["mlp_out.*"], direction="both")
    with pytest.raises(ConfigError, match="metric 'x' asked"):
        interactions(model, pairs, ["mlp_out.*"], metric="x")
