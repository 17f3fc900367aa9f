"""Records, sequences, sets and analogies as one hypervector each, and how to take them apart."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probes.vsa.algebra import Ties, generator_for, unit
from probes.vsa.codebook import Codebook, CodebookError, Targets, bundled

__all__ = [
    "Targets",
    "analogies",
    "names",
    "peel",
    "published_analogies",
    "records",
    "sequences",
    "sets",
    "unbind",
]


def names(codebook: Codebook, concepts: Sequence[str]) -> Targets:
    """Take for each example the vector of its concept."""
    return Targets(codebook.vectors[codebook.index(list(concepts))], {"": tuple(concepts)}, "names")


def records(
    codebook: Codebook, rows: Sequence[Mapping[str, str]], *, ties: Ties = "random", seed: int = 0
) -> Targets:
    """Bind every filler to its role and bundle: ``role_1 * filler_1 + role_2 * filler_2 + ...``.

    Unlike the published analogy target, key and value, example and query can be told apart.

    Args:
        codebook: knows the fillers; roles are drawn by name, apart from the concepts.
        rows: role -> concept, the same roles in every row.
        ties: see :meth:`Algebra.bundle`.
        seed: of random ties.

    Raises:
        CodebookError: no rows, rows with different roles, or unknown concepts.
    """
    return codebook.records(rows, ties=ties, seed=seed)


def sequences(
    codebook: Codebook, rows: Sequence[Sequence[str]], *, ties: Ties = "random", seed: int = 0
) -> Targets:
    """Rotate the item at position i by i places and bundle; rotate back by i to read position i.

    Raises:
        CodebookError: no rows, rows of different lengths, or unknown concepts.
    """
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
        raise CodebookError("sequences need rows of one length, at least one item long.")
    turned = [
        codebook.algebra.permute(codebook.vectors[codebook.index(list(column))], position)
        for position, column in enumerate(zip(*rows, strict=True))
    ]
    return Targets(bundled(codebook, turned, ties, seed), {}, "sequence", tuple(map(tuple, rows)))


def sets(
    codebook: Codebook, rows: Sequence[Sequence[str]], *, ties: Ties = "random", seed: int = 0
) -> Targets:
    """Bundle the members of each row; a member may stand once, and rows may differ in length.

    Raises:
        CodebookError: no rows, an empty row, or unknown concepts.
    """
    if not rows or any(not row for row in rows):
        raise CodebookError("sets need at least one row, and every row at least one member.")
    generator = generator_for(seed, "ties")
    bundles = [
        codebook.algebra.bundle(
            codebook.vectors[codebook.index(list(dict.fromkeys(row)))], ties=ties, generator=generator
        )
        for row in rows
    ]
    return Targets(torch.stack(bundles), {}, "set", tuple(tuple(dict.fromkeys(row)) for row in rows))


def analogies(
    codebook: Codebook,
    rows: Sequence[tuple[str, str, str, str]],
    *,
    ties: Ties = "random",
    seed: int = 0,
) -> Targets:
    """Encode ``a : b = c : d`` as a record of four roles: example key and value, query key and value."""
    roles = ("example key", "example value", "query key", "query value")
    return records(codebook, [dict(zip(roles, row, strict=True)) for row in rows], ties=ties, seed=seed)


def published_analogies(codebook: Codebook, rows: Sequence[tuple[str, str, str, str]]) -> Targets:
    """Encode ``a : b = c : d`` as ``sign(a * b + c * d)`` with ties at -1 (Bronzini et al. 2025).

    Only for comparison with the published numbers: any two of these targets resemble each other (cosine
    0.25), the constant vector of -1 scores 0.50, knowing ``a`` and ``b``, which stand in the prompt, 0.707;
    and what is bound to ``c`` is a table of the answers, not what the model computes.
    """
    columns = [codebook.vectors[codebook.index(list(column))] for column in zip(*rows, strict=True)]
    bind, bundle = codebook.algebra.bind, codebook.algebra.bundle
    pairs = torch.stack([bind(columns[0], columns[1]), bind(columns[2], columns[3])], dim=-2)
    fillers = {role: tuple(row[i] for row in rows) for i, role in enumerate("abcd")}
    return Targets(bundle(pairs, ties="negative"), fillers, "published analogy")


def unbind(
    codebook: Codebook, vectors: Shaped[Tensor, "example dim"], role: str
) -> Shaped[Tensor, "example dim"]:
    """Take a role out of records; what is left resembles the filler."""
    return codebook.algebra.unbind(vectors, codebook.role(role))


def peel(
    codebook: Codebook, vector: Shaped[Tensor, " width"], *, most: int = 5, threshold: float = 0.1
) -> list[tuple[str, float]]:
    """Read the members of a bundle one after the other: the nearest concept, then what is left without it.

    Args:
        codebook: the concepts to look for.
        vector: a hypervector or a real-valued prediction.
        most: stop after so many.
        threshold: stop when the nearest concept is less similar than this.

    Returns:
        (concept, similarity to what was left when it was found), in the order found.
    """
    real = vector if vector.is_floating_point() and len(vector) == codebook.algebra.width else None
    left: Float[Tensor, " width"] = (codebook.algebra.as_real(vector) if real is None else real).float()
    found: list[tuple[str, float]] = []
    for _ in range(min(most, len(codebook))):
        ranking = codebook.top(left[None], k=1)
        similarity = float(ranking.similarities[0, 0])
        if similarity < threshold or ranking.names[0][0] in dict(found):
            break
        found.append((ranking.names[0][0], similarity))
        member = unit(codebook.matrix[int(ranking.index[0, 0])])
        left = left - (left @ member) * member
    return found
