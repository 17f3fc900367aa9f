"""Products taken apart again, and vectors that are no product."""

from __future__ import annotations

import itertools

import pytest
import torch

from probes.vsa import BSC, FHRR, HRR, MAP, Codebook, CodebookError, factorise

SIZES = [(20, 20, 20), (60, 60), (8, 9, 10, 11)]


def books(algebra, sizes=(20, 20, 20)) -> list[Codebook]:
    return [
        Codebook.random(algebra, [f"{at}.{i}" for i in range(size)], seed=at) for at, size in enumerate(sizes)
    ]


def product(known: list[Codebook], rows: list[int]) -> torch.Tensor:
    found = known[0].vectors[rows[0]]
    for book, row in zip(known[1:], rows[1:], strict=True):
        found = book.algebra.bind(found, book.vectors[row])
    return found


def names(known: list[Codebook], rows: list[int]) -> tuple[str, ...]:
    return tuple(book.names[row] for book, row in zip(known, rows, strict=True))


@pytest.mark.parametrize("algebra", [MAP(1024), FHRR(1024)], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_factors_are_found(algebra, sizes):
    known = books(algebra, sizes)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        rows = [int(torch.randint(size, (1,), generator=generator)) for size in sizes]
        found = factorise(known, product(known, rows), seed=seed)
        assert found.names == names(known, rows) and found.similarity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("algebra", [MAP(256), FHRR(256)], ids=str)
def test_it_is_what_trying_every_product_finds(algebra):
    known = books(algebra, (6, 7, 8))
    noise = algebra.random(2, generator=torch.Generator().manual_seed(5))
    mixed = algebra.bundle(torch.stack([product(known, [2, 3, 4]), *noise]), ties="real")
    every = [
        (float(algebra.similarity(product(known, [*rows])[None], mixed[None])), names(known, [*rows]))
        for rows in itertools.product(range(6), range(7), range(8))
    ]
    found = factorise(known, mixed)
    assert (found.similarity, found.names) == (pytest.approx(max(every)[0], abs=1e-5), max(every)[1])
    assert found.found and found.similarity < 0.8


def test_the_sign_of_a_product_is_told():
    """Two flipped factors make the same product; one makes minus the product, in which the same are named."""
    known, rows = books(MAP(1024)), [3, 1, 4]
    given = product(known, rows)
    flipped = [Codebook(b.algebra, b.names, s * b.vectors) for b, s in zip(known, (-1, -1, 1), strict=True)]
    assert torch.equal(product(flipped, rows), given)
    assert factorise(flipped, given).names == names(known, rows)
    minus = factorise(known, -given)
    assert minus.names == names(known, rows) and minus.similarity == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("algebra", [MAP(1024), FHRR(1024)], ids=str)
def test_what_is_no_product_of_the_codebooks_is_said_to_be_none(algebra):
    known = books(algebra)
    strange = [*known[:2], Codebook.random(algebra, [f"other {i}" for i in range(20)], seed=9)]
    others = [algebra.random(1, generator=torch.Generator().manual_seed(seed))[0] for seed in range(3)]
    for vector in (product(strange, [1, 2, 3]), *others):
        found = factorise(known, vector, steps=30, restarts=3)
        assert not found.found and found.names == () and abs(found.similarity) < found.threshold
    assert 3 / algebra.width**0.5 < found.threshold < 6 / algebra.width**0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: (books(MAP(64))[:1], torch.ones(64)), "1 codebooks of MAP"),
        (lambda: ([*books(MAP(64)), *books(MAP(32))], torch.ones(64)), "of one algebra"),
        (lambda: (books(HRR(64)), torch.ones(64)), "taken apart in MAP and FHRR"),
        (lambda: (books(BSC(64)), torch.ones(64) > 0), "taken apart in MAP and FHRR"),
        (lambda: (books(MAP(64)), torch.ones(65)), "a vector of length 65"),
    ],
    ids=["one", "two algebras", "HRR", "BSC", "length"],
)
def test_what_it_can_not_take_apart_is_said(given, message):
    with pytest.raises(CodebookError, match=message):
        factorise(*given())


def test_a_search_that_is_none_is_refused_and_not_taken_for_nothing_found():
    known, given = books(MAP(64)), torch.ones(64)
    for wrong in ({"steps": 0}, {"restarts": 0}, {"level": 0.0}, {"level": 1.5}):
        with pytest.raises(CodebookError, match="give at least 1 of each"):
            factorise(known, given, **wrong)
    with pytest.raises(CodebookError, match="not finite"):
        factorise(known, given * torch.nan)
