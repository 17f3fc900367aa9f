"""Codebooks: one seed per name, exact search, chance on random vectors, files refused when changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from scipy import stats

from probes.vsa import ALGEBRAS, BSC, FHRR, HRR, MAP, Codebook, CodebookError

NAMES = [f"concept {i}" for i in range(60)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ALGEBRAS)
def test_adding_a_concept_changes_no_other(name: str) -> None:
    few = Codebook.random(ALGEBRAS[name](256), NAMES[:5], seed=3)
    many = few.extended(NAMES[5:])
    assert torch.equal(many.vectors[:5], few.vectors)
    assert torch.equal(many.vectors, Codebook.random(ALGEBRAS[name](256), NAMES, seed=3).vectors)
    assert not torch.equal(many.vectors, Codebook.random(ALGEBRAS[name](256), NAMES, seed=4).vectors)
    assert many.fingerprint != few.fingerprint


def test_the_first_bits_are_the_same_on_every_machine() -> None:
    vectors = Codebook.random(MAP(64), ["Paris"], seed=0).vectors[0, :12].int().tolist()
    again = Codebook.random(MAP(64), ["Rome", "Paris"], seed=0)["Paris"][:12].int().tolist()
    assert vectors == again == [1, -1, -1, 1, -1, 1, 1, -1, 1, 1, -1, -1]


def test_embeddings_keep_their_angles() -> None:
    rows = torch.randn(40, 16, generator=generator())
    codebook = Codebook.from_embeddings(MAP(16384), NAMES[:40], rows, seed=1)
    centred = torch.nn.functional.normalize(rows - rows.mean(0), dim=1)
    angle = torch.arccos((centred @ centred.T).clamp(-1, 1))
    error = codebook.similarities(codebook.vectors) - (1 - 2 * angle / torch.pi)
    assert float(error.abs().max()) < 6 / 16384**0.5
    shuffled = (
        error + (2 * angle / torch.pi)[torch.randperm(40, generator=generator())] - 2 * angle / torch.pi
    )
    assert float(shuffled.abs().max()) > 0.2


@pytest.mark.parametrize("name", ALGEBRAS)
def test_embeddings_of_new_concepts_land_where_they_would_have(name: str) -> None:
    rows = torch.randn(12, 8, generator=generator())
    whole = Codebook.from_embeddings(ALGEBRAS[name](512), NAMES[:12], rows, centre=rows.mean(0))
    grown = Codebook.from_embeddings(ALGEBRAS[name](512), NAMES[:9], rows[:9], centre=rows.mean(0))
    # Twelve rows at once or nine and three: another path through BLAS on some processors.
    torch.testing.assert_close(
        grown.extended(NAMES[9:12], rows[9:]).vectors, whole.vectors, rtol=1e-5, atol=1e-6
    )
    assert whole.top(whole.algebra.as_real(whole.vectors), k=1).names == [(n,) for n in NAMES[:12]]


def test_vectors_that_are_not_finite_and_books_beyond_the_memory_are_refused() -> None:
    book = Codebook.random(MAP(64), ["a", "b"], seed=0)
    vectors = book.vectors.float().clone()
    assert book.top(vectors, k=1).names == [("a",), ("b",)]
    vectors[1, 3] = float("nan")
    for ask in (book.top, book.similarities):
        with pytest.raises(CodebookError, match="vector 1 holds NaN or an infinite value"):
            ask(vectors)
    with pytest.raises(CodebookError, match=r"2 vectors of .* take [\d,]+ GB, and this machine has"):
        Codebook.random(MAP(10**13), ["a", "b"])


def test_embeddings_that_cannot_be_told_apart_are_refused() -> None:
    rows = torch.randn(3, 8, generator=generator())
    with pytest.raises(CodebookError, match="same embedding"):
        Codebook.from_embeddings(MAP(64), ["a", "b", "c"], rows[[0, 1, 0]])
    with pytest.raises(CodebookError, match="'b' is not finite"):
        Codebook.from_embeddings(
            MAP(64), ["a", "b", "c"], rows * torch.tensor([[1.0], [float("nan")], [1.0]])
        )
    with pytest.raises(CodebookError, match="equals the centre"):
        Codebook.from_embeddings(MAP(64), ["a", "b", "c"], rows, centre=rows[2])
    with pytest.raises(CodebookError, match="for 2 names"):
        Codebook.from_embeddings(MAP(64), ["a", "b"], rows)


def test_permuting_leaves_no_name_its_vector_and_loses_none() -> None:
    codebook = Codebook.random(MAP(128), NAMES)
    permuted = codebook.permuted(2)
    assert not (permuted.vectors == codebook.vectors).all(dim=1).any()
    assert {tuple(v) for v in permuted.vectors.tolist()} == {tuple(v) for v in codebook.vectors.tolist()}
    with pytest.raises(CodebookError, match="cannot grow"):
        permuted.extended(["new"])


@pytest.mark.parametrize("name", ALGEBRAS)
def test_the_nearest_name_is_found_under_noise(name: str) -> None:
    codebook = Codebook.random(ALGEBRAS[name](2048), NAMES)
    real = codebook.algebra.as_real(codebook.vectors).float()
    noisy = torch.nn.functional.normalize(real, dim=1) + 2 / real.shape[1] ** 0.5 * torch.randn(
        real.shape, generator=generator()
    )
    assert codebook.top(noisy, k=1).names == [(n,) for n in NAMES]
    pure = torch.randn(real.shape, generator=generator())
    assert codebook.top(pure, k=1).names != [(n,) for n in NAMES]


def test_counting_bits_equals_the_matrix_product() -> None:
    codebook = Codebook.random(MAP(1000), NAMES)  # no multiple of 64
    queries = MAP(1000).random(4, generator=generator(9))
    counted = codebook.top(queries, k=60)
    product = queries @ codebook.vectors.T / 1000
    for row in range(4):
        assert torch.allclose(counted.similarities[row], product[row][counted.index[row]], atol=1e-6)
        assert counted.similarities[row].tolist() == sorted(counted.similarities[row].tolist(), reverse=True)
    whole = codebook.top(queries.repeat(4, 1), k=60)  # more queries: the product
    assert torch.equal(whole.index[:4], counted.index)


def test_equal_similarities_keep_the_order_of_the_codebook() -> None:
    codebook = Codebook.random(MAP(256), NAMES)
    assert codebook.top(torch.zeros(5, 256), k=3).names == [tuple(NAMES[:3])] * 5


def test_candidates_restrict_the_ranking() -> None:
    codebook = Codebook.random(MAP(256), NAMES)
    shared = codebook.top(codebook.vectors[:3], k=2, candidates=NAMES[10:12])
    assert {name for names in shared.names for name in names} == set(NAMES[10:12])
    own = codebook.top(codebook.vectors[:2], k=1, candidates=[NAMES[:1], NAMES[5:6]])
    assert own.names == [(NAMES[0],), (NAMES[5],)]
    with pytest.raises(CodebookError, match="one per vector"):
        codebook.top(codebook.vectors[:3], candidates=[["concept 1"]])


def test_unknown_and_repeated_names_are_refused_with_the_nearest() -> None:
    codebook = Codebook.random(MAP(64), ["France", "Japan"])
    with pytest.raises(CodebookError, match="Did you mean 'France'"):
        codebook["Frence"]
    with pytest.raises(CodebookError, match="'Japan' stands twice"):
        codebook.extended(["Japan"])
    with pytest.raises(CodebookError, match="at least one name"):
        Codebook.random(MAP(64), [])
    with pytest.raises(CodebookError, match="must be 64 long"):
        codebook.top(torch.zeros(1, 63))
    assert "France" in codebook and "Frence" not in codebook


@pytest.mark.parametrize("algebra", [MAP(96), BSC(96), HRR(96), FHRR(96)])
def test_saved_codebooks_come_back_and_changed_ones_are_refused(algebra: object, tmp_path: Path) -> None:
    codebook = Codebook.from_embeddings(algebra, NAMES, torch.randn(60, 8, generator=generator()))  # pyright: ignore
    codebook.save(tmp_path)
    back = Codebook.load(tmp_path)
    assert back.fingerprint == codebook.fingerprint and back.names == codebook.names
    assert torch.equal(back.vectors, codebook.vectors)
    row = torch.randn(1, 8, generator=generator(1))
    assert torch.equal(back.extended(["new"], row).vectors, codebook.extended(["new"], row).vectors)
    record = json.loads((tmp_path / "codebook.json").read_text())
    record["names"][:2] = record["names"][1::-1]
    (tmp_path / "codebook.json").write_text(json.dumps(record))
    with pytest.raises(CodebookError, match="fingerprint differs"):
        Codebook.load(tmp_path)
    (tmp_path / "codebook.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(CodebookError):
        Codebook.load(tmp_path)
    with pytest.raises(CodebookError, match="no codebook in"):
        Codebook.load(tmp_path / "nowhere")


def chance(draws: int, concepts: int) -> tuple[int, float, float]:
    codebook = Codebook.random(MAP(4096), [str(i) for i in range(concepts)])
    right = 0
    for start in range(0, draws, 1000):
        vectors = torch.randn(1000, 4096, generator=generator(start))
        answers = torch.randint(0, concepts, (1000,), generator=generator(start + 1))
        right += int((codebook.top(vectors, k=1).index[:, 0] == answers).sum())
    low, high = stats.binom.interval(0.999, draws, 1 / concepts)
    return right, low, high


def test_random_vectors_score_at_chance() -> None:
    right, low, high = chance(2000, 50)
    assert low <= right <= high


@pytest.mark.slow
def test_random_vectors_score_at_chance_among_three_thousand() -> None:
    right, low, high = chance(20_000, 3000)
    assert low <= right <= high
