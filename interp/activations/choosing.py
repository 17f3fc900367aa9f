"""Which sites and which examples of captured activations are meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, DataError, SiteError, counted
from interp.sites import Site
from interp.sites.site import from_lens, nearest

__all__ = ["Examples", "Sites", "dtype_of", "few", "indices", "matching", "resolve"]

Sites = str | Site | Sequence[str | Site]
"""Names, globs such as ``resid_post.*``, TransformerLens names; one text may hold several, with commas."""

Examples = int | slice | Sequence[int] | Sequence[bool] | Tensor | np.ndarray
"""An index, a slice, indices or a boolean mask; negative indices count from the end."""

Names = Sequence[str] | Mapping[str, Tensor]


def resolve(sites: Sites, names: Names) -> list[str]:
    """Turn names and globs into names among ``names``, in the order asked, without repeats.

    Raises:
        SiteError: a name or glob that matches none of them.
    """
    asked = [sites] if isinstance(sites, str | Site) else list(sites)
    parts = [part for item in asked for part in (item.split(",") if isinstance(item, str) else [item])]
    found = list(dict.fromkeys(name for part in parts for name in matching(part, names)))
    if not found:
        raise SiteError(f"no sites asked. Captured: {few(names)}.")
    return found


def matching(site: str | Site, names: Names) -> list[str]:
    """The names that one name or glob matches, in their own order.

    Raises:
        SiteError: it matches none.
    """
    text = from_lens(str(site).strip())
    if text in names:
        return [text]
    found = [name for name in names if fnmatchcase(name, text)]
    if not found:
        raise SiteError(f"site {str(site)!r} was not captured. {nearest(text, names)}Captured: {few(names)}.")
    return found


def few(names: Names) -> str:
    """Name some sites in a message, at most six."""
    shown = list(names)
    return ", ".join(shown if len(shown) <= 6 else [*shown[:4], "...", shown[-1]])


def indices(examples: Examples, count: int) -> list[int]:
    """Turn any way to name examples into indices from 0.

    Raises:
        DataError: an example that does not exist, or a mask of another length.
    """
    if isinstance(examples, slice):
        return list(range(count))[examples]
    plain = examples.tolist() if isinstance(examples, Tensor | np.ndarray) else examples
    items = list(plain) if isinstance(plain, Sequence) else [plain]
    if any(isinstance(item, bool | np.bool_) for item in items):
        if len(items) != count:
            raise DataError(
                f"a mask of {counted(len(items), 'entry', 'entries')} was given for "
                f"{counted(count, 'example')}. Give one entry each."
            )
        return [number for number, keep in enumerate(items) if keep]
    for item in items:
        if not -count <= item < count:
            raise DataError(f"example {item} asked, but there are examples 0..{count - 1} (-1 is the last).")
    return [int(item) % count for item in items]


def dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Turn a dtype's name into the dtype.

    Raises:
        ConfigError: torch has no dtype of that name.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"torch has no dtype {dtype!r}. Use float32, bfloat16 or float16.")
    return found
