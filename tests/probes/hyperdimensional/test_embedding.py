"""The encoder that is fitted among embeddings, against closed forms that share no code with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from probes import HyperdimensionalProbe
from probes.hyperdimensional import embedding
from probes.hyperdimensional.embedding import basis_of, ridge_solver
from probes.hyperdimensional.encoders import Linear
from probes.vsa import ALGEBRAS, MAP, Codebook, CodebookError, structures
from probes.vsa.codebook import Projection

NAMES = tuple(f"concept {i}" for i in range(40))
WIDTH, DIM = 12, 24
TRAIN, HELD, TEST = range(20), range(20, 26), range(26, 40)
"""Concepts of each part: those of validation and test are never trained."""


def rows(seed: int = 0) -> torch.Tensor:
    return torch.randn(len(NAMES), WIDTH, generator=torch.Generator().manual_seed(seed))


def states(concepts: range, each: int = 12, noise: float = 0.3, seed: int = 1) -> tuple[torch.Tensor, list]:
    """States that hold the embedding of their concept, seen through one matrix, beside noise."""
    generator = torch.Generator().manual_seed(seed)
    through = torch.randn(WIDTH, DIM, generator=torch.Generator().manual_seed(99))
    codes = [i for i in concepts for _ in range(each)]
    known = rows()[codes] @ through
    return known + noise * torch.randn(known.shape, generator=generator), [NAMES[i] for i in codes]


def codebook(algebra=None) -> Codebook:
    return Codebook.from_embeddings(algebra or MAP(2048), NAMES, rows())


def fitted(book: Codebook, encoder: str = "embedding", **given) -> HyperdimensionalProbe:
    probe = HyperdimensionalProbe(book, encoder=encoder, **given)
    X, y = states(TRAIN)
    return probe.fit(X, y, validation=states(HELD, seed=2))


def linear_of(probe: HyperdimensionalProbe) -> Linear:
    assert isinstance(probe.fitted_.encoder, Linear)
    return probe.fitted_.encoder


def embeddings_of(book: Codebook) -> torch.Tensor:
    assert book.embeddings is not None
    return book.embeddings


def projection_of(book: Codebook) -> Projection:
    assert book.projection is not None
    return book.projection


@pytest.mark.parametrize("shape", [(60, 9), (20, 35)], ids=["few dimensions", "few examples"])
@pytest.mark.parametrize("narrow", [1_024, 4], ids=["all penalties at once", "one by one"])
def test_the_ridge_is_scikit_learns(monkeypatch, shape, narrow):
    monkeypatch.setattr(embedding, "NARROW", narrow)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(*shape, generator=generator), torch.randn(shape[0], 3, generator=generator)
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    solved = ridge_solver(x, y)
    for penalty in (0.01, 0.5):
        oracle = Ridge(alpha=penalty * len(x), fit_intercept=False).fit(x.double(), y.double()).coef_.T
        np.testing.assert_allclose(solved(penalty), oracle, rtol=2e-3, atol=2e-4)
    assert (solved(0.01) - solved(0.5)).abs().max() > 0.01


def test_concepts_that_were_never_trained_are_read_and_permuted_ones_are_not():
    X, y = states(TEST, seed=3)
    own = fitted(codebook()).score(X, y)
    assert own > 0.9 and own >= fitted(codebook(), "linear").score(X, y)
    assert fitted(codebook().permuted(0)).score(X, y) < 0.2
    assert fitted(codebook()).score(torch.randn_like(X), y) < 0.2


@pytest.mark.parametrize("name", ALGEBRAS)
def test_roles_are_read_by_unbinding_in_every_algebra(name):
    book = codebook(ALGEBRAS[name](2048))

    def drawn(concepts: range, seed: int) -> tuple[torch.Tensor, list[dict[str, str]]]:
        first, a = states(concepts, seed=seed)
        second, b = states(concepts, seed=seed + 50)
        order = torch.randperm(len(b), generator=torch.Generator().manual_seed(seed)).tolist()
        both = torch.cat([first, second[order]], dim=1)
        return both, [{"who": x, "what": b[i]} for x, i in zip(a, order, strict=True)]

    X, records = drawn(TRAIN, 1)
    later, held = drawn(HELD, 2)
    probe = HyperdimensionalProbe(book, encoder="embedding")
    probe.fit(X, book.records(records), validation=(later, book.records(held)))
    asked, gold = drawn(TEST, 3)
    for role, other in (("who", "what"), ("what", "who")):
        read = [names[0] for names in probe.decode(asked, role=role, k=1).names]
        right = np.mean([a == row[role] for a, row in zip(read, gold, strict=True)])
        wrong = np.mean([a == row[other] for a, row in zip(read, gold, strict=True)])
        assert right > 0.75 and wrong < 0.2


def test_a_strong_pull_leaves_the_ridge_and_a_weak_one_tells_trained_concepts_apart():
    X, y = states(TRAIN, noise=1.5)
    later = states(HELD, noise=1.5, seed=2)
    mean, scale = X.mean(dim=0), X.std(dim=0, correction=0)
    known = embeddings_of(codebook())
    wrong, weights = {}, {}
    for pull in (1e6, 1e-4):
        probe = HyperdimensionalProbe(codebook(), encoder="embedding", regularisation=pull)
        encoder = linear_of(probe.fit(X, y, validation=later))
        logits = 20 * ((X - mean) / scale @ encoder.weight + encoder.offset) @ known[list(TRAIN)].T
        wrong[pull] = float(torch.nn.functional.cross_entropy(logits, codebook().index(y)))
        weights[pull], (penalty,) = encoder.weight, probe.fitted_.notes["ridge"]
    oracle = Ridge(alpha=penalty * len(X)).fit(((X - mean) / scale).double(), known[codebook().index(y)])
    np.testing.assert_allclose(weights[1e6], oracle.coef_.T, atol=2e-3)
    assert np.abs(weights[1e-4].numpy() - oracle.coef_.T).max() > 0.05
    assert wrong[1e-4] < 0.1 * wrong[1e6]


def test_the_prediction_is_the_projection_of_an_embedding():
    probe = fitted(codebook())
    encoder = linear_of(probe)
    X, _ = states(TEST)
    inner = (X - probe.fitted_.mean) / probe.fitted_.scale @ encoder.weight + encoder.offset
    matrix = projection_of(codebook()).matrix(MAP(2048))
    torch.testing.assert_close(probe.encode(X), inner @ matrix, rtol=1e-4, atol=1e-3)
    assert (basis_of(probe.codebook_, ("who",)) != matrix).any()


def test_members_of_a_set_are_read_together():
    book, (single, _) = codebook(), states(range(40), each=1, noise=0.0)
    pairs = [(i, (7 * i + step) % 20) for i in TRAIN for step in range(1, 7) if 6 * i % 20 != -step % 20]
    X = torch.stack([single[list(pair)].sum(dim=0) for pair in pairs])
    targets = structures.sets(book, [[NAMES[i], NAMES[j]] for i, j in pairs])
    probe = HyperdimensionalProbe(book, encoder="embedding").fit(X, targets)
    new = [(i, j) for i in TEST for j in TEST if i < j]
    read = probe.decode(torch.stack([single[list(pair)].sum(dim=0) for pair in new]), k=2).names
    right = np.mean([{*names} == {NAMES[i], NAMES[j]} for names, (i, j) in zip(read, new, strict=True)])
    assert right > 0.4  # by luck one in 780


def test_what_was_projected_stays_beside_its_vector(tmp_path):
    book = codebook()
    for one in (book, book.permuted(3), book.extended(["new"], rows(5)[:1])):
        again = projection_of(one).projected(one.algebra, embeddings_of(one))
        assert (again == one.vectors).all() and len(again) == len(one.names)
    assert not torch.equal(embeddings_of(book.permuted(3)), embeddings_of(book))
    assert Codebook.random(MAP(64), ["a", "b"]).embeddings is None
    probe = fitted(book)
    X, y = states(TEST)
    loaded = HyperdimensionalProbe.load(probe.save(tmp_path / "probe"))
    assert loaded.predict(X).tolist() == probe.predict(X).tolist()
    with pytest.raises(ValueError, match="keeps none"):
        loaded.fit(X, y)
    assert issubclass(CodebookError, ValueError)


@pytest.mark.parametrize(
    ("book", "given", "message"),
    [
        (Codebook.random(MAP(64), NAMES), {}, r"keeps none; make it with Codebook.from_embeddings"),
        (codebook(), {"rank": 3}, "rank=3 asked of encoder='embedding'"),
    ],
    ids=["no embeddings", "rank"],
)
def test_what_it_can_not_do_is_said(book, given, message):
    with pytest.raises(ValueError, match=message):
        fitted(book, **given)


def test_a_sequence_has_no_slots():
    book = codebook()
    X, y = states(TRAIN)
    with pytest.raises(ValueError, match="no slots"):
        HyperdimensionalProbe(book, encoder="embedding").fit(
            X, structures.sequences(book, [[a, a] for a in y])
        )
