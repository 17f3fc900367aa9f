"""AtP*: attribution that sees through a saturated softmax, and through paths that cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.experiment import SIGNS, Estimates, Experiment
from interp.mediation.gradients import chunks, first_order, gradients_at
from interp.mediation.mediators import Mediator, Place
from interp.mediation.searches.patterns import Attention, key_effects
from interp.mediation.searches.search import GradientSearch, by_direction
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.sites import Site

__all__ = ["AtPStar"]

DROPS = ("layers", "none")
STREAM = ("embed", "resid_pre", "resid_mid", "resid_post")
MAGNITUDES = (
    "atp-star: the size of an estimate is the mean absolute estimate over runs with one layer's gradient "
    "dropped, or the plain estimate where that is larger; its sign is that of the plain estimate. "
    "Rank by it; take effects from the verified ones"
)


@dataclass(frozen=True, kw_only=True)
class AtPStar(GradientSearch):
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

    Attributes:
        drops: ``layers`` or ``none``.

    Raises:
        ConfigError: an unknown ``drops``.
    """

    drops: str = "layers"

    name = "atp-star"
    description = "attribution that sees through saturated attention and cancelling paths (AtP*)"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.drops not in DROPS:
            raise ConfigError(f"drops {self.drops!r} asked; use {' or '.join(DROPS)}.")

    def _layers(self, experiment: Experiment) -> range:
        """The layers that are dropped one by one."""
        n = experiment.model.n_layers
        return range(n) if self.drops == "layers" and n > 1 else range(0)

    def passes(self, experiment: Experiment) -> float | int:
        """Both sides plain; what is put in read; a gradient as it is and one per dropped layer."""
        return 2 + len(experiment.directions) * (3 + 2 * len(self._layers(experiment)))

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Repair the estimates of one gradient per run.

        Raises:
            SiteError: queries or keys are replaced in a model without readable attention patterns.
        """
        layers = self._layers(experiment)
        notes = (MAGNITUDES,) if layers else ()
        return by_direction(experiment, partial(_estimates, layers), notes)


def _estimates(
    layers: Sequence[int], experiment: Experiment, direction: str
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """``[mediator pair]`` estimates in one direction; copy 0 of the rows drops no layer."""
    sources = experiment.sources(direction)
    asked = _asked(experiment.mediators)
    extra = {Site("z", place.carrier.layer) for place, _ in asked}
    sites, copies = sorted({*sources, *extra}), 1 + len(layers)
    found = np.zeros((copies, len(experiment.mediators), len(experiment.pairs)))
    lost = passes = 0
    for rows in chunks(experiment, copies):
        edits = [edit for layer in layers for edit in _dropped(experiment.model, layer, len(rows))]
        run = gradients_at(experiment, direction, [*rows] * copies, experiment.targets, sites, edits)
        nodes = {site: node[: len(rows)] for site, node in run.nodes.items()}
        parts = [
            {site: one[at * len(rows) : (at + 1) * len(rows)] for site, one in run.gradients.items()}
            for at in range(copies)
        ]
        fixed, unread, passes = _fixed(experiment, direction, rows, asked, sources, parts)
        lost += unread
        for at, part in enumerate(parts):
            found[at][:, rows] = first_order(experiment, rows, nodes, part, sources, fixed=fixed[at]).numpy()
    values = _combined(experiment.mediators, layers, found)
    return SIGNS[direction] * values, {"forwards": 1 + 2 * copies + passes, "scores_not_read": lost}


def _asked(mediators: Sequence[Mediator]) -> list[tuple[Place, bool]]:
    """The places of queries and keys, and whether one position of them is replaced."""
    found = [
        (place, mediator.position is not None)
        for mediator in mediators
        for place in mediator.places
        if place.carrier.kind in ("q", "k")
    ]
    return list(dict.fromkeys(found))


def _dropped(model: Model, layer: int, count: int) -> list[Intervention]:
    """Hold constant, in that layer's copy of the rows, what the layer adds to the stream."""
    copy = range((layer + 1) * count, (layer + 2) * count)
    there = [kind for kind in ("attn_out", "mixer_out", "mlp_out") if layer in model.anatomy.layers(kind)]
    return [Intervention(Site(kind, layer), torch.Tensor.detach, rows=copy) for kind in there]


def _fixed(
    experiment: Experiment,
    direction: str,
    rows: Sequence[int],
    asked: Sequence[tuple[Place, bool]],
    sources: Mapping[Site, Tensor],
    parts: Sequence[Mapping[Site, Tensor]],
) -> tuple[list[dict[tuple[Place, bool], Tensor]], int, int]:
    """Give, per copy, ``[row pos]`` estimates of queries and keys; what was not read; how many passes."""
    found: list[dict[tuple[Place, bool], Tensor]] = [{} for _ in parts]
    if not asked:
        return found, 0, 0
    part = experiment.pairs[list(rows)]
    tokens = part.corrupt if direction == "denoising" else part.clean
    attention = Attention.of(experiment, tokens, [place for place, _ in asked])
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
    """The plain estimates, or their signs times the mean magnitude over dropped layers where larger."""
    if not layers:
        return found[0]
    keep = np.array([[m.layer != one or m.site.kind in STREAM for one in layers] for m in mediators])
    dropped = found[1:] * keep.T[:, :, None]
    magnitude = np.abs(dropped).sum(axis=0) / keep.sum(axis=1)[:, None]
    plain = np.where(found[0] == 0, dropped.sum(axis=0), found[0])
    return np.sign(plain) * np.maximum(magnitude, np.abs(found[0]))
