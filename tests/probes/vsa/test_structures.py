"""Records, sequences, sets and analogies: made, taken apart, and the floors of the published target."""

from __future__ import annotations

import pytest
import torch

from probes.hyperdimensional import published_floors
from probes.vsa import ALGEBRAS, MAP, Codebook, CodebookError, structures

NAMES = [f"c{i}" for i in range(1000)]


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return Codebook.random(MAP(4096), NAMES)


def quadruples(n: int) -> list[tuple[str, str, str, str]]:
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(5))[: 4 * n].reshape(n, 4)
    return [tuple(NAMES[i] for i in row) for row in order.tolist()]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("name", ALGEBRAS)
def test_a_record_gives_every_filler_back_by_its_role(name: str) -> None:
    codebook = Codebook.random(ALGEBRAS[name](4096), NAMES[:100])
    rows = [{"country": "c1", "capital": "c2"}, {"country": "c3", "capital": "c4"}]
    targets = codebook.records(rows)
    for role in ("country", "capital"):
        found = codebook.top(structures.unbind(codebook, targets.vectors, role), k=1)
        assert [names[0] for names in found.names] == [row[role] for row in rows]
        assert targets.fillers[role] == tuple(row[role] for row in rows)
    stranger = codebook.top(structures.unbind(codebook, targets.vectors, "river"), k=1)
    assert float(stranger.similarities.max()) < 0.12


def test_rows_with_other_roles_are_refused(codebook: Codebook) -> None:
    with pytest.raises(CodebookError, match="row 1 has the roles"):
        codebook.records([{"a": "c1"}, {"b": "c1"}])
    with pytest.raises(CodebookError, match="at least one row"):
        codebook.records([])


def test_a_sequence_knows_the_order(codebook: Codebook) -> None:
    targets = structures.sequences(codebook, [["c1", "c2", "c3"], ["c3", "c2", "c1"]])
    for position in range(3):
        turned = codebook.algebra.permute(targets.vectors, -position)
        assert [n[0] for n in codebook.top(turned, k=1).names] == [f"c{1 + position}", f"c{3 - position}"]


def test_peeling_finds_the_members_of_a_set_and_stops(codebook: Codebook) -> None:
    targets = structures.sets(codebook, [["c1", "c2", "c3"], ["c4", "c5", "c5"]])
    assert {name for name, _ in structures.peel(codebook, targets.vectors[0])} == {"c1", "c2", "c3"}
    assert {name for name, _ in structures.peel(codebook, targets.vectors[1])} == {"c4", "c5"}
    noise = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    assert structures.peel(codebook, noise) == []


def test_the_published_target_has_the_floors_of_its_ties(codebook: Codebook) -> None:
    targets = structures.published_analogies(codebook, quadruples(200))
    floors = published_floors(codebook, targets)
    assert floors["constant"].cosine == pytest.approx(0.50, abs=0.01)
    assert floors["constant"].bits == pytest.approx(0.75, abs=0.01)
    assert floors["example pair"].cosine == pytest.approx(0.707, abs=0.01)
    cosines = torch.corrcoef(targets.vectors[:20])
    raw = torch.nn.functional.normalize(targets.vectors[:20], dim=1)
    assert float((raw @ raw.T)[0, 1:].mean()) == pytest.approx(0.25, abs=0.03)
    assert abs(float(cosines[0, 1:].mean())) < 0.05  # the resemblance is nothing but the shared mean


def test_a_record_has_no_such_floors(codebook: Codebook) -> None:
    targets = structures.analogies(codebook, quadruples(200))
    constant = torch.full((1, 4096), -1.0)
    assert abs(float(torch.cosine_similarity(constant, targets.vectors).mean())) < 0.01
    with pytest.raises(ValueError, match="published_analogies"):
        published_floors(codebook, targets)


@pytest.mark.parametrize(("accuracy", "cosine"), [(0.75, 0.25), (0.85, 0.35), (0.94, 0.44)])
def test_bits_flipped_at_random_leave_the_answer_readable(
    codebook: Codebook, accuracy: float, cosine: float
) -> None:
    rows = quadruples(100)
    targets = structures.published_analogies(codebook, rows)
    generator = torch.Generator().manual_seed(0)
    flips = torch.where(torch.rand(targets.vectors.shape, generator=generator) < accuracy, 1.0, -1.0)
    keys = codebook.vectors[codebook.index([row[2] for row in rows])]
    read = codebook.top(targets.vectors * flips * keys, k=1)
    right = [names[0] == row[3] for names, row in zip(read.names, rows, strict=True)]
    assert all(right)
    assert float(read.similarities.mean()) == pytest.approx(cosine, abs=0.02)


def test_targets_can_be_taken_in_part(codebook: Codebook) -> None:
    targets = codebook.records([{"a": "c1"}, {"a": "c2"}, {"a": "c3"}])[[2, 0]]
    assert targets.fillers == {"a": ("c3", "c1")} and len(targets) == 2
