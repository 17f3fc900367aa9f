"""The laws of every algebra on random vectors, a negative control beside each; torchhd as second opinion."""

from __future__ import annotations

import warnings

import pytest
import torch

from probes.vsa import ALGEBRAS, BSC, FHRR, HRR, MAP, Algebra

D = 4096
NOISE = 6 / D**0.5


@pytest.fixture(params=tuple(ALGEBRAS))
def algebra(request: pytest.FixtureRequest) -> Algebra:
    return ALGEBRAS[request.param](D)


def drawn(algebra: Algebra, n: int, seed: int = 0) -> torch.Tensor:
    return algebra.random(n, generator=torch.Generator().manual_seed(seed))


def like(algebra: Algebra, a: torch.Tensor, b: torch.Tensor) -> float:
    return float(algebra.similarity(a[None], b[None])[0, 0])


def test_random_vectors_resemble_themselves_and_no_other(algebra: Algebra) -> None:
    found = algebra.similarity(*[drawn(algebra, 20)] * 2)
    assert torch.allclose(found.diagonal(), torch.ones(20), atol=1e-5)
    assert float((found - found.diagonal().diag()).abs().max()) < NOISE


def test_the_same_generator_gives_the_same_vectors_and_another_seed_does_not(algebra: Algebra) -> None:
    assert torch.equal(drawn(algebra, 3), drawn(algebra, 3))
    assert not torch.equal(drawn(algebra, 3), drawn(algebra, 3, seed=1))


def test_binding_commutes_associates_and_has_an_identity(algebra: Algebra) -> None:
    a, b, c = drawn(algebra, 3)
    assert like(algebra, algebra.bind(a, b), algebra.bind(b, a)) == pytest.approx(1, abs=1e-4)
    left, right = algebra.bind(a, algebra.bind(b, c)), algebra.bind(algebra.bind(a, b), c)
    assert like(algebra, left, right) == pytest.approx(1, abs=1e-4)
    assert like(algebra, algebra.bind(a, algebra.identity()), a) == pytest.approx(1, abs=1e-4)
    assert abs(like(algebra, left, algebra.bind(a, b))) < NOISE


def test_unbinding_gives_the_part_back_and_another_key_does_not(algebra: Algebra) -> None:
    a, b, wrong = drawn(algebra, 3)
    bound = algebra.bind(a, b)
    floor = 0.6 if isinstance(algebra, HRR) else 0.9999
    assert like(algebra, algebra.unbind(bound, b), a) > floor
    assert torch.equal(algebra.unbind(bound, b), algebra.bind(bound, algebra.inverse(b)))
    assert abs(like(algebra, algebra.unbind(bound, wrong), a)) < NOISE
    assert abs(like(algebra, bound, a)) < NOISE


def test_binding_keeps_similarity(algebra: Algebra) -> None:
    a, other, c = drawn(algebra, 3)
    mixed = algebra.bundle(torch.stack([a, other, a]), generator=torch.Generator().manual_seed(1))
    before = like(algebra, mixed, a)
    after = like(algebra, algebra.bind(mixed, c), algebra.bind(a, c))
    assert after == pytest.approx(before, abs=0.12 if isinstance(algebra, HRR) else 1e-4)
    assert abs(like(algebra, algebra.bind(mixed, c), a)) < NOISE


def test_a_bundle_resembles_its_members_and_nothing_else(algebra: Algebra) -> None:
    items = drawn(algebra, 4)
    bundle = algebra.bundle(items[:3], generator=torch.Generator().manual_seed(1))
    found = algebra.similarity(bundle[None], items)[0]
    assert float(found[:3].min()) > 0.4
    assert abs(float(found[3])) < NOISE


def test_binding_distributes_over_bundling(algebra: Algebra) -> None:
    a, *rest = drawn(algebra, 4)
    kept = torch.stack(rest)
    left = algebra.bind(a, algebra.bundle(kept))
    right = algebra.bundle(torch.stack([algebra.bind(a, item) for item in kept]))
    assert like(algebra, left, right) == pytest.approx(1, abs=1e-3)


def test_permuting_back_is_exact_and_a_permuted_vector_is_another(algebra: Algebra) -> None:
    a = drawn(algebra, 1)[0]
    assert torch.equal(algebra.permute(algebra.permute(a, 5), -5), a)
    assert abs(like(algebra, algebra.permute(a), a)) < NOISE


def test_unbinding_real_predictions_equals_unbinding_vectors(algebra: Algebra) -> None:
    a, key = drawn(algebra, 2)
    bound = algebra.bind(a, key)
    real = algebra.unbind_real(algebra.as_real(bound)[None], key)
    expected = algebra.as_real(algebra.unbind(bound, key))[None]
    assert torch.allclose(real, expected, atol=1e-4)
    assert not torch.allclose(real, algebra.as_real(bound)[None], atol=1e-2)


def test_batches_equal_single_vectors(algebra: Algebra) -> None:
    items = drawn(algebra, 6).reshape(2, 3, D)
    whole = algebra.bundle(items)
    assert torch.allclose(algebra.as_real(whole[1]), algebra.as_real(algebra.bundle(items[1])), atol=1e-6)
    assert torch.allclose(
        algebra.as_real(algebra.bind(items[0], items[1])[2]),
        algebra.as_real(algebra.bind(items[0, 2], items[1, 2])),
        atol=1e-5,
    )


def test_ties_follow_the_rule_asked_for() -> None:
    a, b = drawn(MAP(D), 2)
    x, y = torch.stack([a, b]), a == b
    negative = MAP(D).bundle(x, ties="negative")
    assert torch.equal(negative, (a + b + a * b - 1) / 2)  # the identity of the published target
    assert torch.equal(MAP(D).bundle(x, ties="real"), a + b)
    ternary = MAP(D).bundle(x, ties="ternary")
    assert torch.equal(ternary == 0, ~y)
    fair = MAP(D).bundle(x, ties="random", generator=torch.Generator().manual_seed(2))
    assert torch.equal(fair[y], a[y])
    assert abs(float(fair[~y].mean())) < 6 / int((~y).sum()) ** 0.5
    assert float(negative[~y].mean()) == -1  # the bias that random ties do not have


def test_random_ties_need_a_generator_and_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="without a generator"):
        MAP(64).bundle(drawn(MAP(64), 2))
    with pytest.raises(ValueError, match="BSC knows: random, negative"):
        BSC(64).bundle(drawn(BSC(64), 2), ties="ternary")
    with pytest.raises(ValueError, match="at least 2"):
        MAP(1)


@pytest.fixture(scope="module")
def torchhd() -> object:
    with warnings.catch_warnings():  # third-party: deprecations inside the oracle are not ours
        warnings.simplefilter("ignore")
        return pytest.importorskip("torchhd")


NAMES = {MAP: "MAP", BSC: "BSC", HRR: "HRR", FHRR: "FHRR"}


def test_torchhd_binds_and_bundles_alike(algebra: Algebra, torchhd: object) -> None:
    items = drawn(algebra, 3)
    theirs = torchhd.ensure_vsa_tensor(items, NAMES[type(algebra)])  # pyright: ignore[reportAttributeAccessIssue]
    ours = algebra.bind(items[0], items[1])
    bound = torch.Tensor.as_subclass(theirs[0].bind(theirs[1]), torch.Tensor)
    exact = isinstance(algebra, MAP | BSC)
    assert torch.equal(ours, bound) if exact else torch.allclose(ours, bound, atol=1e-5)
    bundled = algebra.bundle(items, ties="negative")
    summed = torch.Tensor.as_subclass(theirs.multibundle(), torch.Tensor)
    if isinstance(algebra, MAP):
        assert torch.equal(bundled, torch.where(summed > 0, 1.0, -1.0))
    elif isinstance(algebra, BSC):
        assert torch.equal(bundled, summed)
    else:
        found = algebra.as_real(bundled), algebra.as_real(summed)
        assert float(torch.cosine_similarity(*found, dim=0)) == pytest.approx(
            1, abs=1e-5 if algebra.name == "HRR" else 0.2
        )


def test_torchhd_agrees_with_the_negative_rule_on_ties(torchhd: object) -> None:
    items = drawn(MAP(D), 2)
    theirs = torchhd.ensure_vsa_tensor(items, "MAP").multibundle().normalize()  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.equal(MAP(D).bundle(items, ties="negative"), torch.Tensor.as_subclass(theirs, torch.Tensor))
    assert not torch.equal(
        MAP(D).bundle(items, ties="ternary"), torch.Tensor.as_subclass(theirs, torch.Tensor)
    )
