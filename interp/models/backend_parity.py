"""The check every other backend passes at load: on one tiny prompt it must agree with the native hooks.

A kind of site that differs is disabled with the reason, never offered with other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from interp.errors import InterpError, ModelError
from interp.models.architecture import Architecture
from interp.models.backends.base import Backend
from interp.models.backends.native import Native
from interp.models.equations import tolerance
from interp.models.forward import LOGITS, last_logits
from interp.models.hooks import Edit, Frame
from interp.models.probe_pass import probe_batch
from interp.sites import KINDS, READ_ONLY, Site

__all__ = ["disagreements"]

Read = Mapping[Site, Tensor]


def disagreements(backend: Backend) -> dict[str, str]:
    """Read and write every kind of site through a backend and natively; say which kinds differ, and how.

    Raises:
        ModelError: the logits differ, or the backend cannot run the model.
    """
    architecture = backend.architecture
    native, limit = Native(architecture), 10 * tolerance(architecture.hf.dtype)
    try:
        off = _error(_logits(backend, {}), _logits(native, {}))
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{backend.name} could not run {architecture.name!r}: {error}. Use backend='native'."
        ) from error
    if off > limit:
        raise ModelError(
            f"the logits of {architecture.name!r} differ by {off:.1e} between {backend.name} and the "
            "Hugging Face model. Use backend='native'."
        )
    sites = {kind: found for kind in architecture.kinds if (found := _sites(architecture, kind))}
    if not _differ(list(sites.values()), backend, native, limit):
        return {}
    reasons = {kind: _differ([found], backend, native, limit) for kind, found in sites.items()}
    return {
        kind: f"{backend.name} does not offer '{kind}' of {architecture.name!r}: {reason}."
        for kind, reason in reasons.items()
        if reason
    }


def _sites(architecture: Architecture, kind: str) -> list[Site]:
    """A kind's site in every layer, with its last index where it needs one."""
    row = KINDS[kind]
    if kind == LOGITS.kind:
        return []
    if not row.layered:
        return [Site(kind)]
    units = architecture.anatomy.units
    last = {
        n: units(row, n) - 1 if row.index == "required" else None for n in architecture.anatomy.layers(kind)
    }
    return [Site(kind, layer, index) for layer, index in last.items()]


def _differ(groups: Sequence[Sequence[Site]], backend: Backend, native: Native, limit: float) -> str:
    """How the sites of some kinds differ, or "": all are read in one pass and written in another."""
    sites = [site for group in groups for site in group]
    try:
        ours, theirs = _reads(native, sites), _reads(backend, sites)
        if any(ours[site].shape != theirs[site].shape for site in sites):
            return "its shape is another"
        off = max(_error(theirs[site], ours[site]) for site in sites)
        if off > limit:
            return f"its values differ by {off:.1e}"
        first = [group[0] for group in groups if group[0].kind not in READ_ONLY]
        writes = {site: _noise(ours[site]) for site in first}
        off = _error(_logits(backend, writes), _logits(native, writes))
        return f"what is written there has another effect, by {off:.1e}" if off > limit else ""
    except InterpError as error:
        return str(error).partition(". ")[0].removesuffix(".")
    except KeyError:
        return "it is never computed there"
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        return f"it cannot be read ({type(error).__name__})"


def _reads(backend: Backend, sites: Sequence[Site]) -> Read:
    frame = _frame(backend)
    with torch.no_grad(), backend.session(frame, writes=[], reads=sites) as call:
        call(probe_batch(backend.architecture), "last")
    return {site: frame.found[site] for site in sites}


def _logits(backend: Backend, writes: Mapping[Site, Edit]) -> Tensor:
    frame, batch = _frame(backend), probe_batch(backend.architecture)
    with torch.no_grad(), backend.session(frame, writes=[writes], reads=[]) as call:
        return last_logits(call(batch, "last").logits, batch)


def _frame(backend: Backend) -> Frame:
    batch = probe_batch(backend.architecture)
    return Frame(batch=len(batch.rows), width=batch.width)


def _noise(like: Tensor) -> Edit:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(like.shape, generator=generator, dtype=torch.float32).to(
        like
    ) * like.float().std().to(like)
    return partial(torch.add, noise)


def _error(found: Tensor, wanted: Tensor) -> float:
    scale = wanted.float().abs().max().clamp(min=1e-6)
    return float((found.float() - wanted.float()).abs().max() / scale)
