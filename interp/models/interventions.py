"""What to write where: the value of an intervention, and the edit it becomes for one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.errors import DataError, SiteError, out_of_memory
from interp.models.hooks import Edit
from interp.models.positions import Batch, Chosen, Positions, choose, located
from interp.models.tokens import Tokens
from interp.sites import Dimensions, Site, expand

__all__ = ["Intervention", "Plan"]


@dataclass(frozen=True, eq=False)
class Intervention:
    """Replace the value of one site at some positions of some prompts.

    Attributes:
        site: a ``Site`` or its name.
        value: a number; a tensor of the site's own shape, of ``[prompt, ...]`` or of ``[prompt, pos, ...]``
            (sizes may be 1; ``pos`` counts the chosen positions of a prompt or all its tokens); or a function
            from the chosen vectors ``[chosen, ...]`` to their replacements.
        positions: as for ``capture``; in ``generate`` they are absolute, so that ``"all"`` and open slices
            include new tokens.
        rows: which prompts; None for all. The first axis of a tensor value then counts these prompts.
    """

    site: Site | str
    value: Any
    positions: Positions = "all"
    rows: Sequence[int] | None = None


@dataclass(frozen=True, eq=False)
class _Compiled:
    site: Site
    value: Any
    chosen: Chosen
    mask: Tensor
    order: dict[int, int]
    longest: int
    fired: list[int] = field(default_factory=lambda: [0])


class Plan:
    """Interventions resolved once for all prompts, and turned into edits batch by batch."""

    @classmethod
    def of(
        cls,
        interventions: Sequence[Intervention],
        dims: Dimensions,
        tokens: Tokens,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        limits: Sequence[int] | None = None,
    ) -> Plan:
        """Resolve interventions whose positions may be selectors of the prompts' tokens."""
        placed = [
            replace(one, positions=located(one.positions, tokens, tokenizer, rows=one.rows, limits=limits))
            for one in interventions
        ]
        return cls(placed, dims, tokens.lengths, limits=limits)

    def __init__(
        self,
        interventions: Sequence[Intervention],
        dims: Dimensions,
        lengths: Sequence[int],
        *,
        limits: Sequence[int] | None = None,
    ) -> None:
        """Resolve sites and positions; ``limits`` are the lengths including tokens still to be generated."""
        self._items = [_compile(item, dims, lengths, limits or lengths) for item in interventions]
        self._parts: dict[Site, list[tuple[_Compiled, _Touched]]] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._items)

    def edits(self) -> dict[Site, Edit]:
        """What to do at each distinct site; ``prepare`` says what that is in the next pass."""
        return {item.site: partial(self._edit, item.site) for item in self._items}

    def prepare(self, batch: Batch) -> None:
        """Work out which rows and columns of the next pass every intervention touches."""
        self._parts = {}
        for item in self._items:
            touched = _touch(item, batch)
            if len(touched.rows):
                self._parts.setdefault(item.site, []).append((item, touched))

    def check_fired(self) -> None:
        """Raise if an intervention touched nothing.

        Raises:
            SiteError: names the site.
        """
        for item in self._items:
            if not item.fired[0]:
                raise SiteError(
                    f"the intervention at '{item.site}' fired nowhere: its positions and rows select no "
                    "token, or the pass ended before that site. Nothing was changed by it."
                )

    def _edit(self, site: Site, current: Tensor) -> Tensor:
        parts = self._parts.get(site)
        return current if parts is None else _edited(parts, current)


def _compile(
    item: Intervention, dims: Dimensions, lengths: Sequence[int], limits: Sequence[int]
) -> _Compiled:
    sites = expand(item.site, dims)
    if len(sites) != 1:
        raise SiteError(
            f"an intervention writes one site, but {item.site!r} names {len(sites)}. Give one each."
        )
    rows = list(range(len(lengths))) if item.rows is None else [int(row) for row in item.rows]
    if bad := [row for row in rows if not 0 <= row < len(lengths)]:
        raise DataError(
            f"the intervention at '{sites[0]}' names prompt {bad[0]}; there are 0..{len(lengths) - 1}."
        )
    picked = _rows_only(item.positions, rows, lengths, limits)
    mask = torch.zeros(len(lengths), max(limits), dtype=torch.bool)
    for row, columns in zip(rows, picked.rows, strict=True):
        mask[row, list(columns)] = True
    order = {row: number for number, row in enumerate(rows)}
    _check_value(item.value, sites[0])
    return _Compiled(sites[0], item.value, picked, mask, order, max(limits))


def _rows_only(
    positions: Positions, rows: list[int], lengths: Sequence[int], limits: Sequence[int]
) -> Chosen:
    return choose(positions, [lengths[row] for row in rows], limits=[limits[row] for row in rows])


def _check_value(value: Any, site: Site) -> None:
    if not isinstance(value, Tensor | int | float) and not callable(value):
        raise DataError(
            f"the value for '{site}' is a {type(value).__name__}; give a tensor, a number or a function."
        )


@dataclass(frozen=True, eq=False)
class _Touched:
    """The elements of one pass that an intervention touches: batch rows, columns, prompts, positions."""

    rows: Tensor
    columns: Tensor
    prompts: list[int]
    positions: list[int]


def _touch(item: _Compiled, batch: Batch) -> _Touched:
    start = torch.tensor(batch.starts)[:, None]
    absolute = start + torch.arange(batch.width)
    inside = (absolute >= 0) & (absolute < item.mask.shape[1])
    chosen = item.mask[list(batch.rows)].gather(1, absolute.clamp(0, item.mask.shape[1] - 1)) & inside
    rows, columns = chosen.nonzero(as_tuple=True)
    prompts = [batch.rows[row] for row in rows.tolist()]
    positions = absolute[rows, columns].tolist()
    device = batch.input_ids.device
    return _Touched(rows.to(device), columns.to(device), prompts, positions)


def _edited(parts: list[tuple[_Compiled, _Touched]], current: Tensor) -> Tensor:
    """A copy of a site's value with every touched vector replaced."""
    result = current.clone()
    for item, touched in parts:
        index = (touched.rows.to(current.device), touched.columns.to(current.device))
        result[index] = _value(item, touched, result[index])
        item.fired[0] += len(touched.prompts)
    return result


def _value(item: _Compiled, touched: _Touched, chosen: Tensor) -> Tensor:
    """The replacement of the chosen vectors ``[chosen, ...]``."""
    if isinstance(item.value, Tensor):
        new = _aligned(item, item.value, touched, chosen.ndim - 1)
    elif isinstance(item.value, int | float):
        new = torch.tensor(item.value, dtype=torch.float64)  # not torch's default, which may round it
    else:
        new = item.value(chosen)
        if not isinstance(new, Tensor):
            raise DataError(f"the function for '{item.site}' returned {type(new).__name__}, not a tensor.")
    try:
        return new.to(device=chosen.device, dtype=chosen.dtype).broadcast_to(chosen.shape)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise DataError(
            f"the value for '{item.site}' has shape {tuple(new.shape)}, which does not fit the chosen "
            f"vectors {tuple(chosen.shape)}, tokens first. Give {tuple(chosen.shape[1:])}, [prompt, ...] or "
            "[prompt, pos, ...]."
        ) from None


def _aligned(item: _Compiled, value: Tensor, touched: _Touched, dims: int) -> Tensor:
    """Pick the rows of ``[prompt, ...]`` or ``[prompt, pos, ...]`` that belong to the touched tokens."""
    extra = value.ndim - dims
    if extra <= 0:
        return value
    prompts = [item.order[prompt] for prompt in touched.prompts]
    _check_axis(item, value, 0, "prompts", {1, len(item.order)})
    rows = torch.tensor([0] * len(prompts) if value.shape[0] == 1 else prompts, device=value.device)
    if extra == 1:
        return value[rows]
    if extra > 2:
        raise DataError(
            f"the value for '{item.site}' has {value.ndim} axes; at most {dims + 2} make sense here."
        )
    width = value.shape[1]
    counts = max(len(row) for row in item.chosen.rows)
    _check_axis(item, value, 1, "positions", {1, counts, item.longest})
    columns = _columns(item, touched, width, counts, prompts)
    return value[rows, torch.tensor(columns, device=value.device)]


def _columns(item: _Compiled, touched: _Touched, width: int, counts: int, prompts: list[int]) -> list[int]:
    if width == 1:
        return [0] * len(prompts)
    if width == counts and not item.chosen.everything:
        return [item.chosen.rows[row].index(p) for row, p in zip(prompts, touched.positions, strict=True)]
    return touched.positions


def _check_axis(item: _Compiled, value: Tensor, axis: int, what: str, allowed: set[int]) -> None:
    if value.shape[axis] not in allowed:
        sizes = " or ".join(str(size) for size in sorted(allowed))
        raise DataError(
            f"the value for '{item.site}' has shape {tuple(value.shape)}; "
            f"its axis {axis} counts {what} and must be {sizes}."
        )
