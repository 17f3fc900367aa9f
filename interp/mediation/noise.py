"""The noise floor of effects: by how much rounding moves them, measured on effects themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

from interp.models.forward import layout
from interp.models.hooks import eager_experts
from interp.models.model import Model

__all__ = ["in_double", "rounding_error", "smallest"]

LARGEST, DRAWN, PAIRS = 2, 2, 2
"""Mediators that are run again, those of the largest effects and random ones, each in so many pairs."""
SHARE = 4
"""A copy of the weights in double precision may fill this part of the memory: one in so many."""


def rounding_error(
    job: Any, values: Mapping[str, np.ndarray], again: Callable[[Any, str], np.ndarray]
) -> float:
    """The largest difference of some effects from the same effects in double precision.

    A model too large for a copy in double precision, of another type than float32, or with a part that
    computes in one type whatever its weights are, is run again in the same type, one or two prompts at a
    time, so that every sum is taken in another order.

    Args:
        job: a search's checked arguments; ``job.part(rows, columns)`` gives those of some mediators and
        pairs.
        values: direction -> ``[mediator pair]``; the first direction is measured.
        again: what measures such a part.
    """
    direction, found = next(iter(values.items()))
    rows, columns = _sample(found, job)
    part = job.part(rows, columns)
    exact = None
    if _fits(job.model):
        with suppress(RuntimeError), in_double(job.model):  # "expected ... to have the same dtype"
            exact = again(part, direction)
    if exact is None:
        with layout(PAIRS):
            exact = again(part, direction)
    return float(np.abs(exact - found[np.ix_(rows, columns)]).max(initial=0.0))


def smallest(model: Model, *values: np.ndarray) -> float:
    """The rounding of the metric itself, below which no floor can be: the last digit of its largest value."""
    return torch.finfo(model.dtype).eps * max(float(np.abs(one).max(initial=0.0)) for one in values)


def _sample(values: np.ndarray, job: Any) -> tuple[list[int], list[int]]:
    """Numbers of mediators and of pairs; all pairs where the values put in are made of several."""
    rng = np.random.default_rng(job.seed)
    mediators, pairs = values.shape
    largest = np.argsort(-np.abs(values).max(axis=1), kind="stable")[:LARGEST].tolist()
    drawn = rng.permutation(mediators)[:DRAWN].tolist()
    some = rng.permutation(pairs)[:PAIRS].tolist() if job.replacement.paired else range(pairs)
    return sorted({*largest, *drawn}), sorted(some)


def _fits(model: Model) -> bool:
    """Whether the model can be run in double precision here."""
    device = model.device
    if model.dtype != torch.float32 or model.backend is not None or model.quantization is not None:
        return False
    if model.architecture.offloaded:  # each module's weights are made anew in float32 as it runs
        return False
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    elif device.type == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return False
    return 8 * sum(one.numel() for one in model.hf.parameters()) <= memory / SHARE


@contextmanager
def in_double(model: Model) -> Iterator[None]:
    """Run a model in double precision inside the block; its own weights are put back, bit for bit."""
    held = [*model.hf.parameters(), *model.hf.buffers()]
    own = [(tensor, tensor.data) for tensor in held if tensor.dtype == torch.float32]
    try:
        for tensor, data in own:
            tensor.data = data.double()
        with eager_experts(model.architecture.modules):
            yield
    finally:
        for tensor, data in own:
            tensor.data = data
