"""Names and their hypervectors: one seed for each name, a nearest-name search, records, and files."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64, Shaped
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from probes.vsa.algebra import Algebra, Ties, generator_for, unit
from probes.vsa.algebras import ALGEBRAS
from probes.vsa.nearest import Ranking, Words, agreement, best, packed

__all__ = ["Candidates", "Codebook", "CodebookError", "Projection", "Targets", "bundled"]

SCHEMA = "probes.codebook/1"
TENSORS, RECORD = "codebook.safetensors", "codebook.json"
Candidates = Sequence[str] | Sequence[Sequence[str]]
"""Names a ranking is restricted to: the same for every query, or one list per query."""

CELLS = 16_000_000
FEW = 4


class CodebookError(ValueError):
    """Report names that are missing or double, rows that cannot be told apart, or files that do not fit."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What a probe learns to predict: one hypervector per example, and what it was made of.

    Attributes:
        vectors: ``[example dim]``.
        fillers: role -> the concept that fills it in each example; the role is ``""`` for a bare concept.
        kind: ``names``, ``record``, ``sequence``, ``set``, ``published analogy``, or ``states``
            (numbers that are no hypervectors yet).
        members: the concepts of each example, for a set.
    """

    vectors: Shaped[Tensor, "example dim"]
    fillers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: str = "record"
    members: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.vectors)

    def __getitem__(self, rows: Sequence[int]) -> Targets:
        """Take some of the examples."""
        kept = list(rows)
        fillers = {role: tuple(column[i] for i in kept) for role, column in self.fillers.items()}
        members = tuple(self.members[i] for i in kept) if self.members else ()
        return Targets(self.vectors[kept], fillers, self.kind, members)


@dataclass(frozen=True, eq=False)
class Projection:
    """What turns an embedding into a hypervector: the centre and the seed of the random matrix.

    Attributes:
        centre: ``[d_model]``, subtracted from every embedding.
        seed: of the random matrix, whose entries are normal.
    """

    centre: Float[Tensor, " d_model"]
    seed: int

    def __call__(
        self, algebra: Algebra, names: Sequence[str], rows: Float[Tensor, "concept d_model"]
    ) -> Shaped[Tensor, "concept dim"]:
        """Compute the hypervector of each embedding.

        Raises:
            CodebookError: not one row per name, another width, rows that are not finite, equal to the
                centre, or alike.
        """
        return self.projected(algebra, self.directions(names, rows))

    def projected(
        self, algebra: Algebra, directions: Float[Tensor, "concept d_model"]
    ) -> Shaped[Tensor, "concept dim"]:
        """Compute the hypervectors of what :meth:`directions` gave."""
        return _TO_VECTORS[algebra.name](directions @ self.matrix(algebra).to(directions.device))

    def matrix(self, algebra: Algebra) -> Float[Tensor, "d_model width"]:
        """Draw the random matrix: the same whenever it is asked for."""
        d_model = len(self.centre)
        generator = generator_for(self.seed, "projection", algebra.name, algebra.dimension, d_model)
        return torch.randn((d_model, algebra.width), generator=generator, dtype=torch.float32)

    def directions(
        self, names: Sequence[str], rows: Float[Tensor, "concept d_model"]
    ) -> Float[Tensor, "concept d_model"]:
        """Compute what is projected: the embeddings less their centre, of length 1.

        Raises:
            CodebookError: as the call itself.
        """
        return unit(self._centred(names, rows.detach().cpu().float()))

    def _centred(
        self, names: Sequence[str], rows: Float[Tensor, "concept d_model"]
    ) -> Float[Tensor, "concept d_model"]:
        if len(rows) != len(names) or rows.shape[1] != len(self.centre):
            raise CodebookError(
                f"rows of shape {tuple(rows.shape)} for {len(names)} names and a centre of "
                f"{len(self.centre)}; "
                "give one embedding per name, all of the model's width."
            )
        wrong = (~torch.isfinite(rows)).any(dim=1).nonzero().flatten().tolist()
        if wrong:
            raise CodebookError(
                f"the embedding of {names[wrong[0]]!r} is not finite; load the model in float32."
            )
        centred = rows - self.centre.cpu()
        lengths = torch.linalg.vector_norm(centred, dim=1)
        empty = (lengths <= 1e-6 * lengths.max().clamp_min(1e-30)).nonzero().flatten().tolist()
        if empty:
            raise CodebookError(
                f"the embedding of {names[empty[0]]!r} equals the centre, so that it has no direction; "
                "leave the concept out, or give another centre."
            )
        _refuse_twins(names, centred)
        return centred


def _refuse_twins(names: Sequence[str], rows: Float[Tensor, "concept d_model"]) -> None:
    seen: dict[bytes, str] = {}
    for name, row in zip(names, rows.numpy(), strict=True):
        twin = seen.setdefault(row.tobytes(), name)
        if twin != name:
            raise CodebookError(
                f"{twin!r} and {name!r} have the same embedding, so that nothing can tell them apart; keep "
                f"one."
            )


def _signs(projected: Float[Tensor, "concept dim"]) -> Float[Tensor, "concept dim"]:
    return torch.where(projected < 0, -1.0, 1.0)


def _phases(projected: Float[Tensor, "concept width"]) -> Shaped[Tensor, "concept dim"]:
    real, imaginary = projected.chunk(2, dim=1)
    angle = torch.atan2(imaginary, real)
    return torch.polar(torch.ones_like(angle), angle)


_TO_VECTORS = {"MAP": _signs, "BSC": lambda projected: projected < 0, "HRR": unit, "FHRR": _phases}


@dataclass(frozen=True, eq=False, repr=False)
class Codebook:
    """Names and their hypervectors, to find the names nearest to a vector.

    Made by :meth:`random` or :meth:`from_embeddings`; it only ever grows (:meth:`extended`), and adding a
    name changes no vector that was there.

    Attributes:
        algebra: how hypervectors are joined and compared.
        names: the concepts, in the order they were given.
        vectors: ``[concept dim]``, in the algebra's own type.
        seed: of the draw, or of the projection.
        source: ``random``, ``embeddings`` or ``permuted``.
        projection: how embeddings became hypervectors; None for random ones.
        embeddings: ``[concept d_model]``, centred and of length 1, as they were projected; None for random
            ones, and in a codebook that was read from a file, which keeps the hypervectors alone.
    """

    algebra: Algebra
    names: tuple[str, ...]
    vectors: Shaped[Tensor, "concept dim"]
    seed: int = 0
    source: str = "random"
    projection: Projection | None = None
    embeddings: Float[Tensor, "concept d_model"] | None = None

    @classmethod
    def random(cls, algebra: Algebra, names: Sequence[str], *, seed: int = 0) -> Codebook:
        """An independent random hypervector for every name, drawn from the seed and the name alone.

        Raises:
            CodebookError: no names, or a name twice.
        """
        known = _checked(names)
        _refuse_size(algebra, len(known))
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
                to the centre, or alike.
        """
        known = _checked(names)
        _refuse_size(algebra, len(known) + rows.shape[1])
        projection = Projection(rows.float().mean(dim=0) if centre is None else centre.float(), seed)
        found = projection.directions(known, rows)
        vectors = projection.projected(algebra, found)
        return cls(algebra, known, vectors, seed, "embeddings", projection, found)

    def extended(self, names: Sequence[str], rows: Float[Tensor, "new d_model"] | None = None) -> Codebook:
        """Make a codebook with further names; no vector that is here changes.

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
        if self.projection is None or rows is None:
            new = _drawn(self.algebra, names, self.seed)
            return replace(self, names=known, vectors=torch.cat([self.vectors, new.to(self.vectors)]))
        added = self.projection.directions(names, rows)
        new = self.projection.projected(self.algebra, added)
        grown = None if self.embeddings is None else torch.cat([self.embeddings, added.to(self.embeddings)])
        vectors = torch.cat([self.vectors, new.to(self.vectors)])
        return replace(self, names=known, vectors=vectors, embeddings=grown)

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
        source = source.to(self.vectors.device)
        rows = None if self.embeddings is None else self.embeddings[source]
        return replace(self, vectors=self.vectors[source], source="permuted", embeddings=rows)

    def to(self, device: torch.device | str) -> Codebook:
        """Move the codebook to a device."""
        if self.vectors.device == torch.device(device):
            return self
        rows = None if self.embeddings is None else self.embeddings.to(device)
        return replace(self, vectors=self.vectors.to(device), embeddings=rows)

    def __len__(self) -> int:
        """Count the concepts."""
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        """Whether a concept is here."""
        return name in self._rows

    def __getitem__(self, name: str) -> Shaped[Tensor, " dim"]:
        """Look up the hypervector of a concept."""
        return self.vectors[self.index([name])[0]]

    def index(self, names: Sequence[str]) -> Int64[Tensor, " name"]:
        """Find the row of each name.

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
        """Draw the hypervector of a role from its name; roles are never among the concepts ranked."""
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
        """Take the scores with those of all but the candidates set to minus infinity."""
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
        return _records(self, rows, ties, seed)

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
        digest = hashlib.sha256(f"{self.algebra}\x1e".encode())
        digest.update("\x1f".join(self.names).encode())
        digest.update(_stored(self).tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write ``codebook.safetensors`` and ``codebook.json`` (names, algebra, seed, fingerprint)."""
        return _save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Codebook:
        """Read a codebook back.

        Raises:
            CodebookError: files that are missing, corrupt or changed.
        """
        return _load(Path(folder))

    def __repr__(self) -> str:
        """Write what it holds, in one line."""
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
        wrong = (~vectors.isfinite()).any(dim=-1).nonzero().flatten().tolist()
        if wrong:
            raise CodebookError(
                f"vector {wrong[0]} holds NaN or an infinite value, which resembles nothing; leave it out, "
                "or look for where it comes from."
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


def _refuse_size(algebra: Algebra, rows: int) -> None:
    """Refuse vectors that the machine's memory cannot hold, where its size is known.

    Raises:
        CodebookError: says how much they take.
    """
    needed = rows * algebra.width * torch.float32.itemsize
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system says
        return
    if needed > there:
        raise CodebookError(
            f"{rows:,} vectors of {algebra} take {needed / 1e9:,.0f} GB, and this machine has "
            f"{there / 1e9:,.0f} GB of memory. Give a smaller dimension, such as 10,000."
        )


def _drawn(algebra: Algebra, names: Sequence[str], seed: int) -> Shaped[Tensor, "concept dim"]:
    rows = [
        algebra.random(1, generator=generator_for(seed, "concept", name, algebra.name, algebra.dimension))
        for name in names
    ]
    return torch.cat(rows)


def _records(codebook: Codebook, rows: Sequence[Mapping[str, str]], ties: Ties, seed: int) -> Targets:
    if not rows or not rows[0]:
        raise CodebookError("records need at least one row with at least one role.")
    roles = tuple(rows[0])
    for i, row in enumerate(rows):
        if set(row) != set(roles):
            raise CodebookError(
                f"row {i} has the roles {sorted(row)}, row 0 has {sorted(roles)}; give all the same."
            )
    fillers = {role: tuple(row[role] for row in rows) for role in roles}
    bound = [
        codebook.algebra.bind(codebook.vectors[codebook.index(column)], codebook.role(role))
        for role, column in fillers.items()
    ]
    return Targets(bundled(codebook, bound, ties, seed), fillers)


def bundled(codebook: Codebook, parts: list[Tensor], ties: Ties, seed: int) -> Shaped[Tensor, "example dim"]:
    """Superpose aligned columns of hypervectors, row by row."""
    if len(parts) == 1:
        return parts[0]
    return codebook.algebra.bundle(
        torch.stack(parts, dim=-2), ties=ties, generator=generator_for(seed, "ties")
    )


def _stored(codebook: Codebook) -> npt.NDArray[Any]:
    """The vectors as they are stored: one bit per coordinate where they are bipolar, else float32."""
    real = codebook.algebra.as_real(codebook.vectors).float().cpu().numpy()
    return np.packbits(real < 0, axis=1) if codebook.bipolar else np.ascontiguousarray(real)


def _save(codebook: Codebook, folder: Path) -> Path:
    """Write a codebook; the record, which names the fingerprint, is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"vectors": _stored(codebook)}
    if codebook.projection is not None:
        arrays["centre"] = codebook.projection.centre.cpu().numpy()
    save_file(arrays, folder / TENSORS)
    record = {
        "schema": SCHEMA,
        "algebra": codebook.algebra.name,
        "dimension": codebook.algebra.dimension,
        "seed": codebook.seed,
        "source": codebook.source,
        "fingerprint": codebook.fingerprint,
        "names": list(codebook.names),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def _load(folder: Path) -> Codebook:
    """Read a codebook back, and refuse one whose vectors are not those that were saved."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        arrays = load_file(folder / TENSORS)
    except OSError as error:
        raise CodebookError(f"no codebook in {folder}: {error}. Give a folder that save() wrote.") from error
    except (ValueError, SafetensorError) as error:
        raise CodebookError(f"the codebook in {folder} cannot be read ({error}). Save it again.") from error
    try:
        found = _rebuilt(record, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CodebookError(f"{folder / RECORD} is no record of schema {SCHEMA} ({error}).") from error
    if found.fingerprint != record["fingerprint"]:
        raise CodebookError(
            f"the vectors in {folder} are not those that {RECORD} names: their fingerprint differs. Save "
            f"it again."
        )
    return found


def _rebuilt(record: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Codebook:
    algebra = ALGEBRAS[record["algebra"]](record["dimension"])
    stored = arrays["vectors"]
    if stored.dtype == np.uint8:
        bits = torch.from_numpy(np.unpackbits(stored, axis=1, count=algebra.width).astype(bool))
        vectors = bits if algebra.dtype == torch.bool else torch.where(bits, -1.0, 1.0)
    elif algebra.dtype == torch.complex64:
        real, imaginary = torch.from_numpy(stored).chunk(2, dim=1)
        vectors = torch.complex(real.contiguous(), imaginary.contiguous())
    else:
        vectors = torch.from_numpy(stored)
    centre = arrays.get("centre")
    projection = None if centre is None else Projection(torch.from_numpy(centre), record["seed"])
    return Codebook(algebra, tuple(record["names"]), vectors, record["seed"], record["source"], projection)
