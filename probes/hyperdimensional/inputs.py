"""What the Hyperdimensional Probe is given, as tensors and targets; and what it holds out of them."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from probes.arrays import Inputs, as_array
from probes.evaluation import group_split
from probes.statistics.groups import counted
from probes.vsa import structures
from probes.vsa.algebra import generator_for
from probes.vsa.algebras import MAP
from probes.vsa.codebook import Codebook, Targets

__all__ = [
    "Labels",
    "as_features",
    "as_given",
    "as_targets",
    "check",
    "check_labels",
    "codebook_of",
    "exchanged",
    "is_states",
    "listed",
    "parts",
    "whole_numbers",
]

Labels = Collection[Any] | Targets
"""One concept per example, or targets that a codebook made."""


def as_features(X: Inputs) -> Float[Tensor, ...]:
    """Float32 on the caller's device; the input is never changed.

    Raises:
        TypeError: not a tensor, array or sparse matrix of numbers.
        ValueError: fewer than two axes, no example or column, or numbers that are not finite.
    """
    tensor = _tensor(X)
    if tensor.ndim < 2 or 0 in tensor.shape:
        raise ValueError(
            f"X has shape {tuple(tensor.shape)}; a probe reads [example, dim]: one row per example."
        )
    wrong = (~torch.isfinite(tensor)).flatten(1).any(dim=1).nonzero()
    if len(wrong):
        raise ValueError(
            f"X holds numbers that are not finite, first in row {int(wrong[0])}; drop those examples, or "
            f"capture "
            "them in float32."
        )
    return tensor


def as_given(found: Tensor, X: Inputs) -> torch.Tensor | np.ndarray:
    """Numbers as the kind of array that X is, in its precision where that is one of floating point."""
    if isinstance(X, torch.Tensor):
        return found.to(X.device, X.dtype if X.is_floating_point() else torch.float64)
    dtype = X.dtype if isinstance(X, np.ndarray) and X.dtype.kind == "f" else np.float64
    return found.cpu().numpy().astype(dtype)


def _tensor(X: Inputs) -> Tensor:
    if isinstance(X, torch.Tensor):
        plain = X.clone() if X.is_inference() else X.detach()
        return plain.float()
    if isinstance(X, sparse.spmatrix | sparse.sparray):
        return torch.from_numpy(sparse.csr_array(X).astype(np.float32).toarray())
    return torch.from_numpy(as_array(X).astype(np.float32))


def listed(y: Any) -> list[Any]:
    """Labels as a plain list."""
    return y.tolist() if isinstance(y, np.ndarray | torch.Tensor) else list(y)


def as_targets(codebook: Codebook, y: Labels, n: int) -> Targets:
    """The targets of n examples; a table of numbers are the final states that a translator learns.

    Raises:
        ValueError: not one per example, or final states that are not finite.
        CodebookError: concepts that the codebook does not have.
    """
    if len(y) != n:
        raise ValueError(
            f"y has {counted(len(y), 'label')} for {counted(n, 'example')}; give one label per example."
        )
    if is_states(y):
        return Targets(as_features(y).to(codebook.vectors.device), kind="states")
    return y if isinstance(y, Targets) else structures.names(codebook, [str(label) for label in listed(y)])


def exchanged(features: Float[Tensor, "example dim"], seed: int) -> Float[Tensor, "example dim"]:
    """Exchange every column among the examples on its own: the same values, and no concept left."""
    generator = generator_for(seed, "exchanged")
    order = torch.stack(
        [torch.randperm(len(features), generator=generator) for _ in range(features.shape[1])], 1
    )
    return features.gather(0, order.to(features.device))


def _concepts_apart(targets: Targets, seed: int, share: float = 0.2) -> tuple[list[int], list[int]]:
    """Hold a share of the concepts out: rows without any of them, and rows whose every filler is one of them.

    Of a record only the last role's concepts are held out: the others stand in the prompt.

    Raises:
        ValueError: targets without concepts that could be held out.
    """
    if not targets.fillers:
        raise ValueError("holdout='concepts' needs bare concepts or records; give a validation part instead.")
    columns = list(targets.fillers.values())
    answers = columns[-1]
    names = sorted(set(answers))
    random.Random(seed).shuffle(names)
    held = set(names[: max(1, round(share * len(names)))])
    later = [i for i, name in enumerate(answers) if name in held]
    rows = [i for i in range(len(targets)) if not held.intersection(column[i] for column in columns)]
    return rows, later


def parts(
    targets: Targets, groups: Collection[Any] | None, holdout: str, seed: int
) -> tuple[list[int], list[int]]:
    """The rows to train on and the rows to choose on.

    Raises:
        ValueError: too few groups or concepts for two parts.
    """
    n = len(targets)
    if holdout == "concepts":
        rows, later = _concepts_apart(targets, seed)
    else:
        names = next(iter(targets.fillers.values()), None)
        units = range(n) if groups is None else groups
        split = group_split(units, (0.8, 0.2, 0.0), seed=seed, stratify=names)
        rows, later = split.train.tolist(), split.validation.tolist()
    if not rows or not later:
        raise ValueError(
            f"{counted(n, 'example')} leave {len(rows)} to train on and {len(later)} to choose on; give "
            "more groups or "
            "concepts, or a validation part."
        )
    return rows, later


def check(encoder: str, holdout: str) -> None:
    """Raise ValueError for an unknown encoder or holdout."""
    from probes.hyperdimensional.encoders import ENCODERS

    if encoder not in ENCODERS:
        raise ValueError(f"encoder={encoder!r} asked; the encoders are: {', '.join(ENCODERS)}.")
    if holdout not in ("groups", "concepts"):
        raise ValueError(f"holdout={holdout!r} asked; hold out 'groups' or 'concepts'.")


def is_states(y: Any) -> bool:
    """Whether y is a table of numbers, the targets of an encoder that needs no labels."""
    if not isinstance(y, np.ndarray | torch.Tensor) or y.ndim != 2:
        return False
    return y.is_floating_point() if isinstance(y, torch.Tensor) else y.dtype.kind == "f"


def check_labels(y: Labels, encoder: str) -> None:
    """Raise ValueError where there is one concept only, or final states for an encoder of concepts."""
    if is_states(y) and encoder != "translator":
        raise ValueError(
            f"y is a table of numbers, and encoder={encoder!r} learns concepts; give one concept per "
            "example, or use encoder='translator' for final states."
        )
    if isinstance(y, Targets) or is_states(y):
        return
    classes = {str(label) for label in listed(y)}
    if len(classes) < 2:
        found = ", ".join(repr(name) for name in classes) or "none"
        raise ValueError(f"y holds one class, {found}; a probe needs at least two to tell apart.")


def whole_numbers(y: Labels) -> bool:
    """Say whether every label is a whole number."""
    if isinstance(y, Targets) or is_states(y):
        return False
    return all(isinstance(label, int) and not isinstance(label, bool) for label in listed(y))


def codebook_of(y: Labels, dimension: int, seed: int) -> Codebook:
    """Make random hypervectors for the labels.

    Raises:
        ValueError: final states, or targets, which were made by a codebook that has to be given.
    """
    if isinstance(y, Targets) or is_states(y):
        raise ValueError("targets given without their codebook; pass it: HyperdimensionalProbe(codebook).")
    return Codebook.random(MAP(dimension), sorted({str(label) for label in listed(y)}), seed=seed)
