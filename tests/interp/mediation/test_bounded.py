"""Boundless DAS and binary masks on planted variables: what, and how much of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp import mediation
from interp.errors import ConfigError
from interp.mediation.distributed_alignment import controls, search
from interp.mediation.distributed_alignment.bounded import BOUNDED
from interp.mediation.distributed_alignment.controls import Problem, solved
from interp.pairs import Pair, PairSet
from tests.interp.mediation.test_planted_subspaces import angle, balanced
from tests.planted import and_neuron, planted_subspace

TRAINED = ("arbitrary", "random-weights")


def test_the_boundary_is_that_of_the_planted_plane_and_controls_have_as_many_directions() -> None:
    planted = planted_subspace()
    found = mediation.das(
        planted.model,
        balanced(planted),
        "resid_post.0",
        batch=64,
        steps=100,
        rate=0.1,
        price=0.1,
        method="boundless",
        controls=("random", "pca"),
    )
    assert found.subspace.basis.shape == (2, 32)
    assert angle(found.subspace, planted.basis) < 3
    assert found.accuracy.value == 1.0
    assert float((found.subspace.basis @ found.subspace.basis.T - torch.eye(2)).abs().max()) < 1e-5
    for name in ("random", "pca"):
        score = found.score(name)
        assert score.difference is not None and score.difference.interval.low > 0


def test_a_mask_finds_the_planted_neuron() -> None:
    planted = and_neuron()
    one, two = planted.both
    pairs = [
        Pair(f"{one} {two} {planted.query}", corrupt, (planted.yes,), (planted.no,), "both", str(at))
        for at, word in enumerate(planted.fillers)
        for corrupt in (f"{one} {word} {planted.query}", f"{word} {two} {planted.query}")
    ]
    made = PairSet.build(planted.model, pairs)
    kept = {"batch": 8, "steps": 100, "rate": 0.1, "price": 0.2, "controls": ("random",)}
    found = mediation.das(planted.model, made, "mlp_act.1", method="mask", **kept)  # type: ignore[arg-type]
    neuron = int(planted.neuron.rpartition(".")[2])
    assert found.subspace.basis.argmax(dim=1).tolist() == [neuron]
    assert torch.equal(found.subspace.basis, torch.eye(24)[[neuron]])
    assert found.accuracy.value == 1.0 and found.score("random").accuracy.value < 0.8


@pytest.mark.parametrize("method", BOUNDED)
def test_shares_are_soft_at_first_and_hard_at_the_end(method: str) -> None:
    made = BOUNDED[method](16, torch.Generator().manual_seed(0), torch.device("cpu"))
    with torch.no_grad():
        made.parameters[-1].copy_(torch.linspace(-1.03, 1.0, len(made.parameters[-1])))
    between = [int(((one > 0.05) & (one < 0.95)).sum()) for one in (made.shares(1.0), made.shares(0.0))]
    assert between[0] >= 8 and between[1] <= 2
    assert torch.allclose(made.rows @ made.rows.T, torch.eye(16), atol=1e-5)
    assert 1 <= len(made.hard) < 16


def test_what_there_is_not_is_refused() -> None:
    planted = planted_subspace()
    pairs = balanced(planted)[:8]
    with pytest.raises(ConfigError, match="method 'round' asked; there are: das, boundless, mask"):
        mediation.das(planted.model, pairs, "resid_post.0", method="round")
    with pytest.raises(ConfigError, match="asked of 2 variables"):
        mediation.das(planted.model, {"a": pairs, "b": pairs}, "resid_post.0", method="mask")


@pytest.mark.parametrize("method", BOUNDED)
def test_trained_controls_have_the_rank_that_was_found(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = planted_subspace()
    ranks: dict[str, int] = {}

    def told(problem: Problem, name: str) -> Any:
        found = solved(problem, name)
        ranks[name] = len(next(iter(found[0].values())).basis)
        return found

    for module in (search, controls):
        monkeypatch.setattr(module, "solved", told)
    asked: Any = {"rate": 0.1, "batch": 64, "steps": 40, "price": 0.1, "method": method}
    mediation.das(planted.model, balanced(planted), "resid_post.0", controls=TRAINED, **asked)
    assert set(ranks) == {"das", *TRAINED} and len(set(ranks.values())) == 1 and ranks["das"] > 1
