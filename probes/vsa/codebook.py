"""Names and their hypervectors: one seed for each name, a nearest-name search, and a fingerprint."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from probes.vsa.algebra import Algebra, Ties, unit
from probes.vsa.errors import CodebookError
from probes.vsa.popcount import Words, agreement, packed
from probes.vsa.projection import Projection
from probes.vsa.ranking import Ranking, best
from probes.vsa.seeds import generator_for

if TYPE_CHECKING:
    from probes.vsa.structures import Targets

__all__ = ["Candidates", "Codebook"]

Candidates = Sequence[str] | Sequence[Sequence[str]]
"""Names a ranking is restricted to: the same for every query, or one list per query."""

CELLS = 16_000_000
FEW = 4


@dataclass(frozen=True, eq=False, repr=False)
class Codebook:
    """Hold names and their hypervectors, and find the names nearest to a vector.

    Made by :meth:`random` or :meth:`from_embeddings`; it only ever grows (:meth:`extended`), and adding a
    name
    changes no vector that was there.

    Attributes:
        algebra: how hypervectors are joined and compared.
        names: the concepts, in the order they were given.
        vectors: ``[concept dim]``, in the algebra's own type.
        seed: of the draw, or of the projection.
        source: ``random``, ``embeddings`` or ``permuted``.
        projection: how embeddings became hypervectors; None for random ones.
    """

    algebra: Algebra
    names: tuple[str, ...]
    vectors: Shaped[Tensor, "concept dim"]
    seed: int = 0
    source: str = "random"
    projection: Projection | None = None

    @classmethod
    def random(cls, algebra: Algebra, names: Sequence[str], *, seed: int = 0) -> Codebook:
        """Give every name an independent random hypervector, drawn from the seed and the name alone.

        Raises:
            CodebookError: no names, or a name twice.
        """
        known = _checked(names)
        return cls(algebra, known, _drawn(algebra, known, seed), seed)

    @classmethod
    def from_embeddings(
        cls,
        algebra: Algebra,
        names: Sequence[str],
        rows: Float[Tensor, "concept d_model"],
        *,
        seed: int = 0,
        centre: Float[Tensor, " d_model"] | None = None,
    ) -> Codebook:
        """Turn embeddings into hypervectors that resemble each other as the embeddings do.

        The rows, less their centre, go through a seeded random projection; its signs (MAP, BSC), directions
        (HRR) or phases (FHRR) are the hypervectors. The cosine of two sign vectors is ``1 - 2 * angle / pi``
        (Charikar 2002). Concepts a probe was never trained on can then be read out, because their vectors
        follow from the model's own embedding of them.

        Args:
            algebra: how hypervectors are joined and compared.
            names: one concept per row.
            rows: rows of the model's unembedding matrix.
            seed: of the projection.
            centre: what is subtracted from every row; the mean of the rows where left out.

        Raises:
            CodebookError: names and rows that do not match, a name twice, or rows that are not finite, equal
            to
                the centre, or alike.
        """
        known = _checked(names)
        projection = Projection(rows.float().mean(dim=0) if centre is None else centre.float(), seed)
        return cls(algebra, known, projection(algebra, known, rows), seed, "embeddings", projection)

    def extended(self, names: Sequence[str], rows: Float[Tensor, "new d_model"] | None = None) -> Codebook:
        """Give a codebook with further names; no vector that is here changes.

        Args:
            names: the new concepts.
            rows: their embeddings, for a codebook made from embeddings.

        Raises:
            CodebookError: a name that is here already, missing or superfluous rows, or a permuted codebook.
        """
        known = _checked([*self.names, *names])
        if self.source == "permuted":
            raise CodebookError("a permuted codebook cannot grow; extend the original, then permute it.")
        if (rows is None) != (self.projection is None):
            wanted = "no rows" if self.projection is None else "rows, one embedding per name"
            raise CodebookError(f"this codebook was made from {self.source}: extended() takes {wanted}.")
        new = (
            _drawn(self.algebra, names, self.seed)
            if self.projection is None or rows is None
            else self.projection(self.algebra, names, rows)
        )
        return replace(self, names=known, vectors=torch.cat([self.vectors, new.to(self.vectors)]))

    def permuted(self, seed: int = 0) -> Codebook:
        """Exchange the vectors among the names, so that no name keeps its own: a control.

        Raises:
            CodebookError: fewer than two names.
        """
        if len(self) < 2:
            raise CodebookError("one name has no other to exchange its vector with.")
        order = torch.randperm(len(self), generator=generator_for(seed, "permuted"))
        source = torch.empty_like(order)
        source[order] = order.roll(1)
        moved = self.vectors[source.to(self.vectors.device)]
        return replace(self, vectors=moved, source="permuted")

    def to(self, device: torch.device | str) -> Codebook:
        """Give the codebook on a device."""
        return (
            self
            if self.vectors.device == torch.device(device)
            else replace(self, vectors=self.vectors.to(device))
        )

    def __len__(self) -> int:
        """Give the number of concepts."""
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        """Say whether a concept is here."""
        return name in self._rows

    def __getitem__(self, name: str) -> Shaped[Tensor, " dim"]:
        """Give the hypervector of a concept."""
        return self.vectors[self.index([name])[0]]

    def index(self, names: Sequence[str]) -> Int64[Tensor, " name"]:
        """Give the row of each name.

        Raises:
            CodebookError: a name that is not here.
        """
        for name in names:
            if name not in self._rows:
                near = difflib.get_close_matches(name, self.names, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise CodebookError(f"{name!r} is not among the {len(self)} concepts of this codebook.{hint}")
        rows = [self._rows[name] for name in names]
        return torch.tensor(rows, dtype=torch.int64, device=self.vectors.device)

    def role(self, name: str) -> Shaped[Tensor, " dim"]:
        """Give the hypervector of a role, drawn from its name; roles are never among the concepts ranked."""
        generator = generator_for(self.seed, "role", name, self.algebra.name, self.algebra.dimension)
        return self.algebra.random(1, generator=generator, device=self.vectors.device)[0]

    def similarities(self, vectors: Shaped[Tensor, "query length"]) -> Float[Tensor, "query concept"]:
        """Compare vectors with every concept, from -1 to 1.

        Args:
            vectors: hypervectors of the algebra, or real-valued predictions as long as ``algebra.width``.
        """
        return self._compared(self._real(vectors), self.matrix)

    def top(
        self, vectors: Shaped[Tensor, "query length"], k: int = 5, *, candidates: Candidates | None = None
    ) -> Ranking:
        """Rank the concepts by similarity to each vector; of equal ones the first in the codebook leads.

        Args:
            vectors: hypervectors, or real-valued predictions; nothing is rounded.
            k: how many to give; fewer where there are fewer candidates.
            candidates: names to rank among, where the question allows only some.

        Raises:
            CodebookError: unknown candidates, or not one list per vector.
            ValueError: k below 1.
        """
        if k < 1:
            raise ValueError(f"k={k} asked; give the number of concepts wanted, at least 1.")
        real = self._real(vectors)
        if candidates is not None:
            scores = self.among(self.similarities(vectors), candidates)
            most = int(torch.isfinite(scores).sum(dim=1).min()) if len(scores) else k
            return Ranking.of(self.names, *best(scores, min(k, most)))
        k = min(k, len(self))
        if self._can_count(real):
            return Ranking.of(self.names, *best(self._counted(real), k))
        step = max(1, CELLS // len(self))
        parts = [best(self._compared(part, self.matrix), k) for part in real.split(step)]
        values, index = (torch.cat(list(columns)) for columns in zip(*parts, strict=True))
        return Ranking.of(self.names, values, index)

    def among(
        self, scores: Float[Tensor, "query concept"], candidates: Candidates
    ) -> Float[Tensor, "query concept"]:
        """Give the scores with those of all but the candidates set to minus infinity."""
        shared = all(isinstance(name, str) for name in candidates)
        lists = [candidates] if shared else list(candidates)
        if not shared and len(lists) != len(scores):
            raise CodebookError(
                f"{len(lists)} lists of candidates for {len(scores)} vectors; give one per vector."
            )
        kept = torch.full((len(lists), len(self)), float("-inf"), device=scores.device)
        for row, names in enumerate(lists):
            found = [str(name) for name in names]
            if not found:
                raise CodebookError("an empty list of candidates leaves nothing to rank.")
            kept[row, self.index(found).to(scores.device)] = 0.0
        return scores + kept

    def records(self, rows: Sequence[Mapping[str, str]], *, ties: Ties = "random", seed: int = 0) -> Targets:
        """Bind fillers to roles, one record per row: see :func:`probes.vsa.structures.records`."""
        from probes.vsa import structures

        return structures.records(self, rows, ties=ties, seed=seed)

    @functools.cached_property
    def matrix(self) -> Float[Tensor, "concept width"]:
        """The vectors as real numbers: -1 and +1 where they are bipolar, of length 1 otherwise."""
        real = self.algebra.as_real(self.vectors).float()
        return real if self.bipolar else unit(real)

    @functools.cached_property
    def bipolar(self) -> bool:
        """Whether every coordinate is -1 or +1, so that similarities are exact fractions of the dimension."""
        real = self.algebra.as_real(self.vectors)
        return not real.is_complex() and bool((real.abs() == 1).all())

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of algebra, names and vectors."""
        from probes.vsa.files import content

        digest = hashlib.sha256(f"{self.algebra}\x1e".encode())
        digest.update("\x1f".join(self.names).encode())
        digest.update(content(self).tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write ``codebook.safetensors`` and ``codebook.json`` (names, algebra, seed, fingerprint)."""
        from probes.vsa import files

        return files.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Codebook:
        """Read a codebook back.

        Raises:
            CodebookError: files that are missing, corrupt or changed.
        """
        from probes.vsa import files

        return files.load(Path(folder))

    def __repr__(self) -> str:
        """Say what it holds, in one line."""
        return f"Codebook({self.algebra}, {len(self)} concepts, {self.source}, seed={self.seed})"

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def _real(self, vectors: Shaped[Tensor, "query length"]) -> Float[Tensor, "query width"]:
        known = (self.algebra.dimension, self.algebra.width)
        if vectors.shape[-1] not in known:
            raise CodebookError(
                f"vectors of length {vectors.shape[-1]} given to a codebook of {self.algebra}; "
                f"they must be {known[0]} long."
            )
        native = not vectors.is_floating_point() or vectors.shape[-1] != self.algebra.width
        real = self.algebra.as_real(vectors) if native else vectors
        return real.to(self.vectors.device, torch.float32)

    def _compared(
        self, real: Float[Tensor, "query width"], matrix: Float[Tensor, "concept width"]
    ) -> Float[Tensor, "query concept"]:
        lengths = torch.linalg.vector_norm(real, dim=1, keepdim=True)
        if self.bipolar:
            lengths = lengths * matrix.shape[1] ** 0.5
        return (real @ matrix.T).div_(lengths.clamp_min(torch.finfo(torch.float32).tiny))

    def _can_count(self, real: Float[Tensor, "query width"]) -> bool:
        few = real.device.type == "cpu" and len(real) <= FEW
        return few and self.bipolar and bool((real.abs() == 1).all())

    def _counted(self, real: Float[Tensor, "query width"]) -> Float[Tensor, "query concept"]:
        width = real.shape[1]
        rows = [torch.from_numpy(agreement(row, self._words, width)) for row in packed(real)]
        return torch.stack(rows)

    @functools.cached_property
    def _words(self) -> Words:
        return np.ascontiguousarray(packed(self.matrix).T)


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise CodebookError("a codebook needs at least one name.")
    twice = (
        next((name for name in {*names} if names.count(name) > 1), None)
        if len({*names}) < len(names)
        else None
    )
    if twice is not None:
        raise CodebookError(f"the name {twice!r} stands twice; give every concept once.")
    return tuple(names)


def _drawn(algebra: Algebra, names: Sequence[str], seed: int) -> Shaped[Tensor, "concept dim"]:
    rows = [
        algebra.random(1, generator=generator_for(seed, "concept", name, algebra.name, algebra.dimension))
        for name in names
    ]
    return torch.cat(rows)
