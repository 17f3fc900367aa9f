"""Subspaces of a site: orthonormal directions whose coordinates are replaced while the rest stays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import DataError

__all__ = ["Subspace"]


@dataclass(frozen=True, eq=False, repr=False)
class Subspace:
    """Hold orthonormal directions, as rows, in fp32 on the CPU; make one with :meth:`of`.

    Attributes:
        name: what mediators print.
        basis: ``[dim width]``, orthonormal rows.
    """

    name: str
    basis: Float[Tensor, "dim width"]

    @classmethod
    def of(cls, vectors: Float[Tensor, "*dim width"], name: str) -> Subspace:
        """Span some vectors: one direction ``[width]``, or several ``[dim width]``, need not be orthonormal.

        Raises:
            DataError: no vectors, values that are not finite, or vectors that do not span as many dimensions.
        """
        rows = torch.atleast_2d(torch.as_tensor(vectors).detach().to("cpu", torch.float64))
        if rows.ndim != 2 or not rows.numel() or not bool(torch.isfinite(rows).all()):
            raise DataError(
                f"subspace {name!r} needs finite vectors [dim, width]; given: {tuple(rows.shape)}."
            )
        if rows.shape[0] > rows.shape[1]:
            raise DataError(
                f"subspace {name!r}: {rows.shape[0]} vectors of width {rows.shape[1]} are not independent."
            )
        lengths = rows.norm(dim=1, keepdim=True)
        scaled = rows / lengths.clamp_min(1e-300)
        if not float(torch.linalg.svdvals(scaled)[-1]) > 1e-6:
            raise DataError(
                f"subspace {name!r}: the {rows.shape[0]} vectors do not span as many dimensions; "
                "leave out zeros and repeats."
            )
        orthonormal, triangle = torch.linalg.qr(scaled.T)
        return cls(name, (orthonormal * triangle.diagonal().sign()).T.float().contiguous())

    @property
    def dim(self) -> int:
        """Give the number of directions."""
        return self.basis.shape[0]

    @property
    def width(self) -> int:
        """Give the width of the site it is for."""
        return self.basis.shape[1]

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file with one tensor, ``basis``, that ``subspace:FILE@SITE`` reads."""
        path = Path(path)
        save_file({"basis": self.basis.contiguous()}, path, metadata={"name": self.name})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Subspace:
        """Read what :meth:`save` wrote; the rows are made orthonormal again.

        Raises:
            DataError: no such file, or no tensor ``basis`` in it.
        """
        path = Path(path)
        try:
            with safe_open(path, framework="pt") as file:
                names, notes = list(file.keys()), file.metadata() or {}
                if "basis" not in names:
                    held = ", ".join(names[:5]) or "nothing"
                    raise DataError(f"'{path}' has no tensor 'basis' (it holds {held}).")
                return cls.of(file.get_tensor("basis"), notes.get("name", path.stem))
        except (OSError, SafetensorError) as error:
            raise DataError(f"'{path}' is no readable safetensors file: {error}.") from None

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.basis.numpy().tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        """Compare names and values."""
        if not isinstance(other, Subspace):
            return NotImplemented
        return self.name == other.name and self._digest == other._digest

    def __hash__(self) -> int:
        """Hash the name and the values."""
        return hash((self.name, self._digest))

    def __repr__(self) -> str:
        """Say in one line what it is."""
        return f"Subspace({self.name!r}, {self.dim} of {self.width} dimensions)"
