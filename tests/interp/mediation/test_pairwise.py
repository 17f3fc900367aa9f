"""Pairwise interactions against whole passes, and where there can be none."""

from __future__ import annotations

import re

import numpy as np
import pytest

import interp
from interp import mediation
from interp.errors import ConfigError
from interp.mediation import interactions
from interp.mediation.pairwise import is_upstream
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.tasks.pairs import sample
from tests.noisy import demo
from tests.planted_heads import gate
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
    assert np.allclose(found.values[0, 1], wanted, atol=1e-5)
    assert np.abs(wanted).max() > 1e-6
    assert np.array_equal(found.matrix, found.matrix.T) and not found.matrix.diagonal().any()


TRUTH = {  # the gate's output where head one and head two are (clean, clean), (clean, corrupt), ...
    "and": {(1, 1): 4.0, (1, 0): 0.0, (0, 1): 0.0, (0, 0): 0.0},
    "or": {(1, 1): 4.0, (1, 0): 4.0, (0, 1): 4.0, (0, 0): 0.0},
}


@pytest.mark.parametrize(
    ("kind", "direction", "value", "words"),
    [
        *[
            (kind, direction, f[1, 1] - f[1, 0] - f[0, 1] + f[0, 0], words)
            for kind, words in (("and", r"each needs the other \(AND\)$"), ("or", "OR"))
            for direction in ("denoising", "noising")
            for f in (TRUTH[kind],)
        ],
        # Clean, the backup is silent: its clean value adds nothing to a corrupt run, and without its corrupt
        # value (silent too) it answers as soon as the first head is corrupt.
        ("backup", "denoising", 4.0 - 4.0 - 0.0 + 0.0, "not told from none"),
        ("backup", "noising", 4.0 - 4.0 - 4.0 + 0.0, r"one covers for the other \(OR, backup\)"),
        # Behind a clean first head the second responds, so that either alone brings the answer back.
        ("chain", "denoising", 4.0 - 4.0 - 4.0 + 0.0, "or a chain: one is upstream of the other"),
        ("chain", "noising", 4.0 - 0.0 - 0.0 + 0.0, "or a chain: one is upstream of the other"),
    ],
)
def test_planted_gates_have_the_sign_of_their_truth_table(
    kind: str, direction: str, value: float, words: str
) -> None:
    truth = gate(kind)
    found = interactions(truth.model, truth.pairs, sorted(truth.heads), direction=direction)
    assert found.matrix[0, 1] == pytest.approx(value, abs=0.5)
    assert re.search(words, found.table()["reading"][0])


def test_what_is_upstream_of_what() -> None:
    sequential, parallel = (load(build(name), tokenizer=tokenizer()) for name in ("llama", "gpt_neox"))

    def ordered(model: Model, one: str, two: str) -> bool:
        return is_upstream(model, mediation.Mediator.parse(one), mediation.Mediator.parse(two))

    assert ordered(sequential, "head.0.1", "head.1.0") and not ordered(sequential, "head.1.0", "head.0.1")
    assert not ordered(sequential, "head.1.0", "head.1.3") and not ordered(sequential, "q.1.0", "k.1.0")
    assert ordered(sequential, "head.1.0", "mlp_out.1") and not ordered(parallel, "head.1.0", "mlp_out.1")
    assert ordered(parallel, "head.1.0", "mlp_out.2") and ordered(parallel, "embed", "head.0.0")
    assert not ordered(sequential, "head.0.1@3", "head.1.0@2") and ordered(sequential, "k.1.0", "head.1.0")


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
    model = demo()
    pairs = sample(model, "capitals", 12)
    found = interactions(model, pairs, ["head.0.3", "head.8.3", "head.20.1"])
    table = found.table()
    assert {table["one"][0], table["two"][0]} == {"head.0.3", "head.8.3"}
    assert table["low"][0] * table["high"][0] > 0
    assert "all others respond" in found.lead()[0]


def test_what_there_is_not_is_refused() -> None:
    model, pairs = made()
    with pytest.raises(ConfigError, match="1 mediator asked; interactions are measured of 2 to 24"):
        interactions(model, pairs, ["mlp_out.0"])
    with pytest.raises(ConfigError, match="direction 'both' asked"):
        interactions(model, pairs, ["mlp_out.*"], direction="both")
    with pytest.raises(ConfigError, match="metric 'x' asked"):
        interactions(model, pairs, ["mlp_out.*"], metric="x")
