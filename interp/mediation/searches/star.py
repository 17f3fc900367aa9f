"""AtP*: attribution that sees through a saturated softmax, and through paths that cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.effects import Effects
from interp.mediation.mediators import Mediator, Place
from interp.mediation.metrics import Targets
from interp.mediation.searches.estimating import Measured, estimated
from interp.mediation.searches.gradients import SIGNS, chunks, first_order, slopes
from interp.mediation.searches.job import Job, Mediators
from interp.mediation.searches.patterns import Attention, key_effects
from interp.mediation.searches.verify import TOP
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["attribution_star"]

DROPS = ("layers", "none")
STREAM = ("embed", "resid_pre", "resid_mid", "resid_post")
MAGNITUDES = (
    "atp-star: the size of an estimate is the mean absolute estimate over runs with one layer's gradient "
    "dropped, or the plain estimate where that is larger; its sign is that of the plain estimate. "
    "Rank by it; take effects from the verified ones"
)


def attribution_star(
    model: Model,
    pairs: PairSet,
    mediators: Mediators,
    *,
    drops: str = "layers",
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    verify: int = TOP,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimate every effect as AtP* does (Kramar et al. 2024, 2403.00745): two repairs of attribution.

    *Queries and keys*: the attention pattern is computed anew with the replaced queries or keys, and only
    what comes after it is taken as linear; so a softmax that is saturated does not hide an effect. A key that
    is replaced at one position goes through the closed form of softmax. Other mediators keep the first-order
    estimate; of a key-value group, the two parts are added up.

    *Cancellation* (``drops="layers"``, GradDrop): the gradient is taken once more per layer with what that
    layer adds to the stream held constant. Values are then magnitudes for ranking: the mean over layers of
    the absolute estimates of each pair, with the sign of the plain estimate. Runs that drop the layer a
    mediator is inside of are left out (they give 0), hence the paper's factor ``1 / (layers - 1)``. Unlike
    in the paper, no magnitude is below that of the plain estimate: a mediator whose every path leads through
    one layer would otherwise be lost in a shallow model. With ``drops="none"`` values are the signed
    estimates themselves, in units of the metric.

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: as for :func:`exhaustive`; likewise the others.
        drops: ``layers`` or ``none``.
        metric: a key of ``METRICS`` that has a gradient.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``.
        positions: as for ``mediators_of``.
        verify: how many of the largest to verify exactly, as for :func:`attribution`; 0 for none.
        seed: of resampling, of the sample and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: as for :func:`attribution`, or an unknown ``drops``.
        SiteError: queries or keys are replaced in a model without readable attention patterns.
    """
    if drops not in DROPS:
        raise ConfigError(f"drops {drops!r} asked; use {' or '.join(DROPS)}.")
    job = Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    layers = range(model.n_layers) if drops == "layers" and model.n_layers > 1 else range(0)
    notes = (MAGNITUDES,) if layers else ()
    estimate = partial(_estimates, layers)
    return estimated(job, estimate, search="atp-star", verify=verify, progress=progress, warnings=notes)


def _estimates(
    layers: Sequence[int], job: Job, direction: str, targets: Targets, measured: Measured
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Give ``[mediator pair]`` estimates in one direction; copy 0 of the rows drops no layer."""
    base, source = job.base(direction)
    sources = job.sources(source, job.mediators)
    asked = _asked(job.mediators)
    extra = {Site("z", place.carrier.layer) for place, _ in asked}
    sites, copies = sorted({*sources, *extra}), 1 + len(layers)
    found = np.zeros((copies, len(job.mediators), len(job.pairs)))
    lost = passes = 0
    for rows in chunks(job, copies):
        edits = [edit for layer in layers for edit in _dropped(layer, len(rows))]
        nodes, gradients = slopes(job, direction, [*rows] * copies, targets, sites, edits)
        nodes = {site: node[: len(rows)] for site, node in nodes.items()}
        parts = [
            {site: slope[at * len(rows) : (at + 1) * len(rows)] for site, slope in gradients.items()}
            for at in range(copies)
        ]
        fixed, unread, passes = _fixed(job, base, rows, asked, sources, parts)
        lost += unread
        for at, part in enumerate(parts):
            found[at][:, rows] = first_order(
                job, rows, job.mediators, nodes, part, sources, fixed=fixed[at]
            ).numpy()
    values = _combined(job.mediators, layers, found)
    return SIGNS[direction] * values, {"forwards": 1 + 2 * copies + passes, "scores_not_read": lost}


def _asked(mediators: Sequence[Mediator]) -> list[tuple[Place, bool]]:
    """Give the places of queries and keys, and whether one position of them is replaced."""
    found = [
        (place, mediator.position is not None)
        for mediator in mediators
        for place in mediator.places
        if place.carrier.kind in ("q", "k")
    ]
    return list(dict.fromkeys(found))


def _dropped(layer: int, count: int) -> list[Intervention]:
    """Hold constant, in that layer's copy of the rows, what the layer adds to the stream."""
    copy = range((layer + 1) * count, (layer + 2) * count)
    kinds = ("attn_out", "mlp_out")
    return [Intervention(Site(kind, layer), torch.Tensor.detach, rows=copy) for kind in kinds]


def _fixed(
    job: Job,
    base: Any,
    rows: Sequence[int],
    asked: Sequence[tuple[Place, bool]],
    sources: Mapping[Site, Tensor],
    parts: Sequence[Mapping[Site, Tensor]],
) -> tuple[list[dict[tuple[Place, bool], Tensor]], int, int]:
    """Give, per copy, ``[row pos]`` estimates of queries and keys; what was not read; how many passes."""
    found: list[dict[tuple[Place, bool], Tensor]] = [{} for _ in parts]
    if not asked:
        return found, 0, 0
    part = job.pairs[list(rows)]
    tokens = part.corrupt if base is job.pairs.corrupt else part.clean
    attention = Attention.of(job, tokens, [place for place, _ in asked])
    width = max(part.lengths)
    here = {place.carrier: sources[place.carrier][list(rows), :width] for place, _ in asked}
    lost, passes = 0, 1
    for places, alone in _runs(asked):
        if alone:
            patterns, unread = attention.weights(places, here)
            lost, passes = lost + unread, passes + 2
        else:
            patterns, passes = attention.moved(places, here), passes + 1
        for place, pattern in patterns.items():
            layer = place.carrier.layer or 0
            for at, gradients in enumerate(parts):
                slope = attention.slope(layer, gradients[Site("z", layer)])
                product = _product(attention.pattern(layer), pattern, slope, alone)
                for one in (alone,) if place.carrier.kind == "k" else (False, True):
                    found[at][place, one] = product
    return found, lost, passes


def _product(before: Tensor, after: Tensor, slope: Tensor, alone: bool) -> Tensor:
    """Sum over heads and over the other end: ``[row key]`` for single keys, else ``[row query]``."""
    if alone:
        return key_effects(before, after, slope).sum(dim=(1, 2))
    return ((after - before) * slope).sum(dim=(1, 3))


def _runs(asked: Sequence[tuple[Place, bool]]) -> list[tuple[list[Place], bool]]:
    """Group places that one run can replace: the same part of each layer.

    Heads are replaced one after the other because some models normalise the queries of all heads together.
    Queries do not see each other, so that one run serves single positions and all together.
    """
    groups: dict[Any, list[Place]] = {}
    for place, alone in asked:
        single = alone and place.carrier.kind == "k"
        key = (place.carrier.kind, place.index, place.subspace, single)
        groups.setdefault(key, [])
        if place not in groups[key]:
            groups[key].append(place)
    return [(places, key[-1]) for key, places in groups.items()]


def _combined(mediators: Sequence[Mediator], layers: Sequence[int], found: np.ndarray) -> np.ndarray:
    """Give the plain estimates, or their signs times the mean magnitude over dropped layers where larger."""
    if not layers:
        return found[0]
    keep = np.array([[m.layer != one or m.site.kind in STREAM for one in layers] for m in mediators])
    dropped = found[1:] * keep.T[:, :, None]
    magnitude = np.abs(dropped).sum(axis=0) / keep.sum(axis=1)[:, None]
    plain = np.where(found[0] == 0, dropped.sum(axis=0), found[0])
    return np.sign(plain) * np.maximum(magnitude, np.abs(found[0]))
