"""Several values of one model, joined example after example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from interp.activations.choosing import few
from interp.activations.value import Activations
from interp.errors import DataError
from interp.sites import Site

__all__ = ["join", "refuse_mixture", "tail"]


def join(parts: Sequence[Activations]) -> Activations:
    """Do the work of :meth:`Activations.concatenate`."""
    if not parts:
        raise DataError("no activations to concatenate. Give at least one.")
    for number, part in enumerate(parts):
        refuse_mixture(parts[0], part, f"part {number}")
    return replace(
        parts[0],
        tensors={name: _joined([part.tensors[name] for part in parts]) for name in parts[0].tensors},
        token_ids=[ids for part in parts for ids in part.token_ids],
        positions=[row for part in parts for row in part.positions],
        texts=[text for part in parts for text in part.texts],
        warnings=tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
    )


def refuse_mixture(first: Activations, other: Activations, name: str) -> None:
    """Refuse to join two values that are not of one kind.

    Args:
        first: the value that the others must resemble.
        other: the value to look at.
        name: what messages call it.

    Raises:
        DataError: they differ in model, weights, scheme, kind of positions, sites, dtype, device or width.
    """
    for what in ("fingerprint", "weights", "scheme", "single"):
        a, b = getattr(first, what), getattr(other, what)
        if a != b:
            found = f"the first has {what} {_short(a)}, {name} has {_short(b)}"
            raise DataError(f"{found}. Join only what one model gave.")
    if first.keys() != other.keys():
        found = f"the first has the sites {few(first.keys())}; {name} has {few(other.keys())}"
        raise DataError(f"{found}. Select the same sites first.")
    for site in first.tensors:
        _refuse_unlike(first, other, site, name)


def _refuse_unlike(first: Activations, other: Activations, site: str, name: str) -> None:
    a, b = first.tensors[site], other.tensors[site]
    if (a.dtype, a.device) != (b.dtype, b.device):
        found = f"{site} is {a.dtype} on {a.device} in the first, {b.dtype} on {b.device} in {name}"
        raise DataError(f"{found}. Use .to first.")
    if a.ndim != b.ndim or tail(first, site) != tail(other, site):
        found = f"{site} has shape {list(a.shape)} in the first, {list(b.shape)} in {name}"
        raise DataError(f"{found}. Capture both alike.")


def _short(value: object) -> str:
    return repr(value if not isinstance(value, str) or len(value) <= 16 else value[:12] + "...")


def tail(acts: Activations, name: str) -> tuple[int, ...]:
    """Give the sizes that joining cannot change: not example, position, or the keys of a pattern."""
    shape = tuple(acts.tensors[name].shape)[1 if acts.single else 2 :]
    return shape[:-1] if Site.parse(name).kind == "pattern" else shape


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first axis; pad the others (position, a pattern's keys) with zeros."""
    sizes = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    return torch.cat([_padded(tensor, sizes) for tensor in tensors])


def _padded(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    missing = [size - have for size, have in zip(sizes, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    return functional.pad(tensor, [amount for gap in reversed(missing) for amount in (0, gap)])
