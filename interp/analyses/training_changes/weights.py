"""How the weights of two models of one architecture differ, matrix by matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.analyses.representation_similarity import rank_of
from interp.models.model import Model
from interp.models.peft_adapters import merged
from interp.results.shapes import Cell, Table

__all__ = ["WeightChange", "by_part", "change_of", "every_matrix", "weight_changes"]

SMALL = 1e-3
"""A singular value below this share of the largest does not count towards the rank."""


@dataclass(frozen=True)
class WeightChange:
    """The change of one parameter.

    Attributes:
        name: in the Hugging Face model.
        layer: of its block; None outside of the blocks.
        part: its module inside the block, such as ``mlp.down_proj``, or its name elsewhere.
        norm: ``||W||``, of the base (Frobenius).
        moved: ``||W' - W||``.
        effective: effective rank of the difference: the exponential of the entropy of its singular values, as
            shares of their sum (Roy and Vetterli 2007); 0 where nothing moved, or for a vector.
        rank: singular values above a thousandth of the largest, and above the rounding of the base.
        full: the smaller side of the matrix.
    """

    name: str
    layer: int | None
    part: str
    norm: float
    moved: float
    effective: float = 0.0
    rank: int = 0
    full: int = 0

    @property
    def relative(self) -> float:
        """The change over the norm of the base."""
        return self.moved / self.norm if self.norm else 0.0


def change_of(before: Float[Tensor, ...], after: Float[Tensor, ...]) -> tuple[float, float, float, int]:
    """Norm, norm of the change, effective rank and rank of the change."""
    base = before.detach().double()
    moved = after.detach().double() - base
    norm, size = float(base.norm()), float(moved.norm())
    if not size or moved.ndim < 2:
        return norm, size, 0.0, 0
    flat = moved.flatten(0, -2)
    gram = flat.T @ flat if flat.shape[1] <= flat.shape[0] else flat @ flat.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    rounding = torch.finfo(before.dtype).eps * norm
    kept = singular[singular > max(SMALL * float(singular.max()), rounding)]
    return norm, size, float(rank_of(kept.cpu().numpy())) if len(kept) else 0.0, len(kept)


def weight_changes(base: Model, model: Model) -> tuple[WeightChange, ...] | None:
    """Every parameter of the base beside the same of the other; None where they have other names or shapes.

    What adapters add is added to the weights of a copy first.
    """
    one, two = merged(base.hf), merged(model.hf)
    before, after = (dict(hf.named_parameters()) for hf in (one, two))
    if before.keys() != after.keys() or any(before[name].shape != after[name].shape for name in before):
        return None
    places = _places(base, one)
    found = []
    for name, weight in before.items():
        norm, moved, effective, rank = change_of(weight, after[name].to(weight.device))
        layer, part = places.get(name, (None, name.removesuffix(".weight")))
        full = min(weight.flatten(0, -2).shape) if weight.ndim > 1 else 0
        found.append(WeightChange(name, layer, part, norm, moved, effective, rank, full))
    return tuple(found)


def _places(base: Model, hf: nn.Module) -> dict[str, tuple[int, str]]:
    """The layer and the part of each parameter that stands in a block."""
    blocks = {id(block): layer for layer, block in enumerate(base.architecture.blocks)}
    inside = [(name, blocks[id(module)]) for name, module in base.hf.named_modules() if id(module) in blocks]
    return {
        name: (layer, name.removeprefix(f"{prefix}.").removesuffix(".weight"))
        for name, _ in hf.named_parameters()
        for prefix, layer in inside
        if name.startswith(f"{prefix}.")
    }


def _together(rows: Sequence[WeightChange]) -> float:
    """The change of several parameters over the norm of all of them."""
    norm = sum(one.norm**2 for one in rows) ** 0.5
    return sum(one.moved**2 for one in rows) ** 0.5 / norm if norm else 0.0


def by_part(own: Sequence[WeightChange], twin: Sequence[WeightChange] | None) -> tuple[Table, ...]:
    """The change by layer and by kind of module: relative norm, share of all that moved, mean ranks."""
    total = sum(one.moved**2 for one in own) or 1.0
    made = []
    for name, key in (("layer", lambda one: one.layer), ("module", lambda one: one.part)):
        rows: list[dict[str, Cell]] = []
        for value in dict.fromkeys(key(one) for one in own):
            some = [one for one in own if key(one) == value]
            matrices = [one for one in some if one.full and one.moved]
            row: dict[str, Cell] = {
                name: "outside the blocks" if value is None else str(value),
                "relative change": _together(some),
                "share of the change": sum(one.moved**2 for one in some) / total,
                "effective rank": _mean([one.effective for one in matrices]),
                "rank": _mean([float(one.rank) for one in matrices]),
            }
            if twin is not None:
                others = [one for one in twin if key(one) == value]
                row["twin: relative change"] = _together(others)
                row["twin: effective rank"] = _mean(
                    [one.effective for one in others if one.full and one.moved]
                )
            rows.append(row)
        note = "Frobenius norms; ranks are means over the matrices that moved."
        made.append(Table.of(f"weights-by-{name}", f"Change of the weights by {name}", rows, note))
    return tuple(made)


def every_matrix(own: Sequence[WeightChange]) -> Table:
    """Every parameter that moved, the largest relative change first."""
    rows: list[dict[str, Cell]] = [
        {
            "parameter": one.name,
            "relative change": one.relative,
            "effective rank": one.effective,
            "rank": one.rank,
            "full rank": one.full,
        }
        for one in sorted(own, key=lambda one: -one.relative)
        if one.moved
    ]
    table = Table.of("parameters", "Change of each parameter", rows)
    return Table(table.name, table.title, table.columns, table.rows, folded=True)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
