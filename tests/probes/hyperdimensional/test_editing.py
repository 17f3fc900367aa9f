"""Writing a concept into a state: what is read afterwards, and that no shorter change does it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.editing import NotLinearError, score_map
from probes.vsa import FHRR, HRR, MAP, Algebra, Codebook

DIM, NAMES = 12, tuple("abcdefgh")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(codes: Sequence[int], seed: int = 5, noise: float = 0.2) -> torch.Tensor:
    centres = 2 * torch.randn(len(NAMES), DIM, generator=generator(3))
    return centres[list(codes)] + noise * torch.randn(len(codes), DIM, generator=generator(seed)) + 1


CODES = torch.randint(0, len(NAMES), (160,), generator=generator(4)).tolist()
SECOND = torch.randint(0, len(NAMES), (160,), generator=generator(7)).tolist()


@pytest.fixture(scope="module")
def probe() -> HyperdimensionalProbe:
    codebook = Codebook.random(MAP(512), NAMES, seed=0)
    return HyperdimensionalProbe(codebook, encoder="ridge").fit(states(CODES), [NAMES[i] for i in CODES])


@pytest.fixture(scope="module", params=[MAP(512), HRR(512), FHRR(256)], ids=lambda algebra: algebra.name)
def of_roles(request: pytest.FixtureRequest) -> HyperdimensionalProbe:
    algebra: Algebra = request.param
    codebook = Codebook.random(algebra, NAMES, seed=0)
    X = torch.cat([states(CODES), states(SECOND, 9)], dim=1)
    rows = [{"who": NAMES[i], "what": NAMES[j]} for i, j in zip(CODES, SECOND, strict=True)]
    return HyperdimensionalProbe(codebook, encoder="ridge").fit(X, codebook.records(rows))


def pairs_of(codes: Sequence[int]) -> list[tuple[str, str]]:
    return [(NAMES[i], NAMES[(i + 3) % len(NAMES)]) for i in codes]


def test_the_new_name_is_read_where_the_old_one_was(probe: HyperdimensionalProbe) -> None:
    X, wanted = states(CODES[:40], 6), pairs_of(CODES[:40])
    before = X.clone()
    found = probe.edit(X, wanted)
    assert torch.equal(X, before)
    assert probe.predict(X).tolist() == [old for old, _ in wanted]
    assert probe.predict(found).tolist() == [new for _, new in wanted]


def test_scores_are_exchanged_and_the_dose_is_a_factor(probe: HyperdimensionalProbe) -> None:
    X = states(CODES[:20], 6).double()
    scores = score_map(probe.fitted_, probe.codebook_, ["a", "b", "c"])
    read = probe.encode(X.float()) @ probe.codebook_.matrix[:3].T
    assert scores(X) == pytest.approx(read, rel=1e-4, abs=1e-3)
    once, twice = (torch.as_tensor(probe.edit(X, {"a": "b"}, dose=dose)) for dose in (1.0, 2.0))
    assert scores(once)[:, [1, 0]] == pytest.approx(scores(X)[:, :2], rel=1e-6, abs=1e-5)
    assert twice - X == pytest.approx(2 * (once - X), rel=1e-6, abs=1e-9)
    assert torch.as_tensor(probe.edit(X, {"a": "b"}, dose=0.0)) == pytest.approx(X, abs=1e-12)


def test_no_shorter_change_does_it(probe: HyperdimensionalProbe) -> None:
    """An optimiser that knows the scores alone finds the same change."""
    X = states(CODES[:1], 6).double()
    scores = score_map(probe.fitted_, probe.codebook_, ["a", "b"])
    wanted = scores(X)[0].flip(0).numpy()
    rows, offsets = scores.rows.numpy(), scores.offsets.numpy()

    def gap(change: np.ndarray) -> np.ndarray:
        return rows @ (X[0].numpy() + change) + offsets - wanted

    found = minimize(
        lambda change: float(change @ change),
        np.zeros(DIM),
        jac=lambda change: 2 * change,
        constraints={"type": "eq", "fun": gap, "jac": lambda change: rows},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    own = (torch.as_tensor(probe.edit(X, {"a": "b"})) - X)[0].numpy()
    assert found.success
    assert own == pytest.approx(found.x, rel=1e-3, abs=1e-5)
    assert np.linalg.norm(own) > 0.1


def test_a_role_is_edited_and_the_other_stays(of_roles: HyperdimensionalProbe) -> None:
    X = torch.cat([states(CODES[:40], 6), states(SECOND[:40], 8)], dim=1)
    wanted = pairs_of(CODES[:40])
    found = of_roles.edit(X, wanted, role="who")

    def read(states: torch.Tensor | np.ndarray, role: str) -> list[str]:
        return [names[0] for names in of_roles.decode(states, role=role).names]

    assert np.mean([a == b for a, (_, b) in zip(read(found, "who"), wanted, strict=True)]) > 0.95
    kept = np.mean([a == b for a, b in zip(read(found, "what"), read(X, "what"), strict=True)])
    assert kept > 0.9


def test_several_names_at_once_and_arrays_of_numpy(probe: HyperdimensionalProbe) -> None:
    X = states([0, 1, 2], 6).numpy()
    found = probe.edit(X, {"a": "d", "b": "e"})
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert probe.predict(found).tolist()[:2] == ["d", "e"]
    same = probe.edit(X, {"a": "a"})
    assert same == pytest.approx(X, abs=1e-5)


def test_what_cannot_be_edited_is_refused(probe: HyperdimensionalProbe) -> None:
    X = states([0, 1], 6)
    with pytest.raises(ValueError, match="1 pair for 2 states"):
        probe.edit(X, [("a", "b")])
    with pytest.raises(ValueError, match="nothing to replace"):
        probe.edit(X, {})
    with pytest.raises(ValueError, match="'b' stands in 2 pairs"):
        probe.edit(X, {"a": "b", "b": "c"})
    with pytest.raises(ValueError, match="'z'"):
        probe.edit(X, {"a": "z"})
    neural = HyperdimensionalProbe(probe.codebook_, encoder="mlp", epochs=1, hidden=8)
    neural.fit(states(CODES), [NAMES[i] for i in CODES])
    with pytest.raises(NotLinearError, match="linear encoder"):
        neural.edit(X, {"a": "b"})
