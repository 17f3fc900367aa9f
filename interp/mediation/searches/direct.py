"""Direct effects: a writer's value is replaced only in the stream that the final norm reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.errors import SiteError
from interp.mediation.experiment import SIGNS, Estimates, Experiment
from interp.mediation.mediators import Mediator
from interp.mediation.noise import rounding_error
from interp.mediation.partial_forward import within
from interp.mediation.searches.search import Search
from interp.mediation.writers import check_heads_add_up, written_by_heads
from interp.sites import Site

__all__ = ["Direct", "need_writers"]

WRITERS = ("embed", "head", "attn_out", "mixer_out", "mlp_out")


@dataclass(frozen=True, kw_only=True)
class Direct(Search):
    """Replace what each writer adds to the final residual stream, exactly, the rest of the model frozen.

    Mediators are ``embed``, ``head.*``, ``attn_out.*`` or ``mlp_out.*``. The final norm is live. Only the
    last token counts, since only it is read. What an exhaustive search finds beyond this goes through later
    parts of the model: indirect effect = effect - direct effect.
    """

    name = "direct"
    description = "replace each mediator only where the final norm reads it: its direct effect"

    def passes(self, experiment: Experiment) -> float | int:
        """Both sides plain, and both in each direction."""
        return 2 + 2 * len(experiment.directions)

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Read all writers at the end, and replace each there.

        Raises:
            SiteError: a mediator that adds nothing to the stream itself, or heads behind a norm.
        """
        need_writers(experiment)
        values = {direction: _effects(experiment, direction) for direction in experiment.directions}
        noise = rounding_error(experiment, values, _effects)
        cost = {"forwards": self.passes(experiment)}
        return Estimates(values, experiment.clean, experiment.corrupt, cost, noise)


def _effects(experiment: Experiment, direction: str) -> np.ndarray:
    """``[mediator pair]`` direct effects in one direction."""
    streams, changes = _changes(experiment, direction)
    model, targets = experiment.model, experiment.targets
    plain = experiment.values(model.unembed(streams), targets)
    found = [experiment.values(model.unembed(streams + change), targets) - plain for change in changes]
    return SIGNS[direction] * np.stack(found)


def need_writers(experiment: Experiment) -> None:
    """Refuse mediators that add nothing to the stream themselves.

    Raises:
        SiteError: names one, or heads behind a norm.
    """
    for mediator in experiment.mediators:
        if mediator.site.kind not in WRITERS:
            raise SiteError(
                f"'{mediator}' adds nothing to the residual stream by itself, so it has no direct effect; "
                f"mediators that do: {', '.join(WRITERS)}."
            )
    layers = {m.layer for m in experiment.mediators if m.site.kind == "head" and m.layer is not None}
    check_heads_add_up(experiment.model, experiment.pairs.clean, sorted(layers))


def _changes(experiment: Experiment, direction: str) -> tuple[Tensor, list[Tensor]]:
    """The final streams ``[pair d_model]``, and per mediator what is added to them."""
    base = experiment.base(direction)[0]
    last = torch.tensor(experiment.pairs.lengths) - 1
    final = f"resid_post.{experiment.model.n_layers - 1}"
    sources = experiment.sources(direction)
    read = experiment.model.capture(base, [*(str(site) for site in sources), final], "last")
    at = (torch.arange(len(last)), last)
    there = {site: value[at] for site, value in sources.items()}
    changes = [
        _change(experiment, m, read[str(m.carriers[0])], there[m.carriers[0]]) for m in experiment.mediators
    ]
    return read[final], changes


def _change(experiment: Experiment, mediator: Mediator, node: Tensor, there: Tensor) -> Tensor:
    """What a mediator's replacement adds to the stream at the last position, ``[pair d_model]``."""
    place = mediator.places[0]
    if isinstance(place.index, int):
        node, there = node[:, place.index], there[:, place.index]
    change = within(place.subspace, node, there.to(node), experiment.replacement.rule) - node
    if isinstance(place.index, int):
        change = written_by_heads(experiment.model, Site("z", mediator.layer), {place.index: change})
    lengths = torch.tensor(experiment.pairs.lengths, device=change.device)
    if mediator.position is None:
        return change
    read = (mediator.position % lengths) == lengths - 1
    return change * read[:, None]
