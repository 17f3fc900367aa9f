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

PROBE = "probe.safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class Subspace:
    """Orthonormal directions, as rows, in fp32 on the CPU; make one with :meth:`of`.

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
        """The number of directions."""
        return self.basis.shape[0]

    @property
    def width(self) -> int:
        """The width of the site it is for."""
        return self.basis.shape[1]

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file with one tensor, ``basis``, that ``subspace:FILE@SITE`` reads."""
        path = Path(path)
        save_file({"basis": self.basis.contiguous()}, path, metadata={"name": self.name})
        return path

    @classmethod
    def from_coefficients(
        cls,
        coefficients: Float[Tensor, "*label width"],
        name: str,
        *,
        scale: Float[Tensor, " width"] | None = None,
    ) -> Subspace:
        """Span the directions along which a linear probe tells its classes apart.

        Of scores ``x @ coefficients.T`` only differences between classes matter: their mean is taken away,
        and what the rest spans is kept (one direction for two classes). A single row is a direction itself.

        Args:
            coefficients: one row per class (or a single one), for the values as the probe saw them.
            name: of the subspace.
            scale: what the values were divided by before the probe saw them, per feature; None where the
                coefficients are in the units of the raw values, as those of ``probes`` are.

        Raises:
            DataError: no finite coefficients, or all classes have the same.
        """
        rows = torch.atleast_2d(torch.as_tensor(coefficients).detach().to("cpu", torch.float64))
        if scale is not None:
            rows = rows / torch.as_tensor(scale).to("cpu", torch.float64)
        if rows.ndim != 2 or not rows.numel() or not bool(torch.isfinite(rows).all()):
            raise DataError(
                f"subspace {name!r} needs finite coefficients [label, width]; given: {tuple(rows.shape)}."
            )
        apart = rows if len(rows) == 1 else rows - rows.mean(dim=0)
        _, sizes, directions = torch.linalg.svd(apart, full_matrices=False)
        kept = directions[sizes > 1e-6 * max(float(sizes[0]), 1e-30)]
        if not len(kept):
            raise DataError(f"subspace {name!r}: the coefficients of all classes are equal; fit the probe.")
        if len(rows) == 2:  # points from the first class to the second
            kept = kept[:1] * torch.sign(kept[0] @ (rows[1] - rows[0]))
        return cls.of(kept.float(), name)

    @classmethod
    def load(cls, path: str | Path) -> Subspace:
        """Read what :meth:`save` wrote, or the directions of a saved linear probe (its folder or its file).

        Raises:
            DataError: no such file, or neither a tensor ``basis`` nor a probe's ``coef`` in it.
        """
        path = Path(path)
        file = path / PROBE if path.is_dir() else path
        name = file.parent.name if file.name == PROBE else file.stem
        try:
            with safe_open(file, framework="pt") as content:
                names, notes = list(content.keys()), content.metadata() or {}
                if "basis" in names:
                    return cls.of(content.get_tensor("basis"), notes.get("name", name))
                if "coef" in names:
                    return cls.from_coefficients(content.get_tensor("coef"), name)
        except (OSError, SafetensorError) as error:
            raise DataError(f"'{path}' is no readable safetensors file: {error}.") from None
        held = ", ".join(names[:5]) or "nothing"
        raise DataError(
            f"'{path}' has no tensor 'basis', and none 'coef' of a linear probe (it holds {held})."
        )

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
        """What it is, in one line."""
        return f"Subspace({self.name!r}, {self.dim} of {self.width} dimensions)"
