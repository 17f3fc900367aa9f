"""The table of searches, and the one function that runs them: ``effects``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from interp.errors import ConfigError
from interp.mediation.edges.graph import Graph
from interp.mediation.effects import Effects
from interp.mediation.experiment import Experiment, Forecast
from interp.mediation.masks.gates import Bottleneck, Uniform
from interp.mediation.masks.training import MaskTraining
from interp.mediation.mediators import Mediators
from interp.mediation.parsing import experiment_of
from interp.mediation.searches.acdc import ACDC
from interp.mediation.searches.atp_star import AtPStar
from interp.mediation.searches.attribution import Attribution, EdgeIntegratedGradients
from interp.mediation.searches.contextual import Contextual
from interp.mediation.searches.direct import Direct
from interp.mediation.searches.integrated import IntegratedGradients
from interp.mediation.searches.masks import LearnedMask
from interp.mediation.searches.path_patching import PathPatching, Receivers
from interp.mediation.searches.positions import PositionAttribution
from interp.mediation.searches.search import TOP, Exhaustive, Search
from interp.mediation.searches.shapley import Shapley
from interp.models.loading import ModelLike, as_model
from interp.pairs import PairSet
from interp.sites import Site

__all__ = [
    "ACDC",
    "SEARCHES",
    "AtPStar",
    "Attribution",
    "Contextual",
    "Direct",
    "EdgeIntegratedGradients",
    "Exhaustive",
    "IntegratedGradients",
    "LearnedMask",
    "PathPatching",
    "PositionAttribution",
    "Search",
    "Shapley",
    "attribution",
    "attribution_star",
    "effects",
    "exhaustive",
    "integrated_gradients",
    "path_patching",
    "plan",
]

SEARCHES: dict[str, Search] = {
    "exhaustive": Exhaustive(),
    "attribution": Attribution(),
    "relp": Attribution(rule="relp"),
    "gim": Attribution(rule="gim"),
    "atp-star": AtPStar(),
    "ig-inputs": IntegratedGradients(path="inputs"),
    "ig-activations": IntegratedGradients(path="activations"),
    "eap-ig": EdgeIntegratedGradients(),
    "peap": PositionAttribution(),
    "contextual": Contextual(),
    "direct": Direct(),
    "hard-concrete": LearnedMask(),
    "uniform-gates": LearnedMask(gate=Uniform(), training=MaskTraining(price=0.02)),
    "bottleneck": LearnedMask(gate=Bottleneck(), training=MaskTraining(price=0.5)),
    "acdc": ACDC(),
    "shapley": Shapley(),
}


class Asked(TypedDict, total=False):
    """What may be asked of every search by keyword; see :func:`effects`."""

    metric: str
    replacement: str
    directions: str
    positions: str | int
    seed: int


def effects(
    model: ModelLike,
    pairs: PairSet | Any,
    mediators: Mediators,
    *,
    search: str | Search | Any = "exhaustive",
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Find the effect of each mediator on each pair.

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: names and globs such as ``head.*``, ``resid_post.*`` or ``edge.*->logits``, sites,
            mediators or edges.
        search: a key of ``SEARCHES``, or a search with options such as ``Attribution(verify=20)``.
        metric: a key of ``METRICS``; searches by gradients need one that has a gradient.
        replacement: a key of ``REPLACEMENTS``; of edges, what the writer adds is replaced.
        directions: ``both``, ``denoising`` or ``noising``; see ``DIRECTIONS``.
        positions: as for ``mediators_of``; an edge is replaced at all positions.
        seed: of resampling, of what is checked or sampled, and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown search, metric, replacement, direction or position, or mediators that the
            search does not take.
        DataError: no pairs.
        SiteError: a mediator that the model does not have, or that the search cannot replace.
        ModelError: the fast passes differ from whole forward passes.
    """
    found = _search(search)
    asked = experiment_of(
        model,
        pairs,
        mediators,
        metric=metric,
        replacement=replacement,
        directions=directions,
        positions=positions,
        seed=seed,
    )
    _check_over(found, asked)
    return found(asked, progress=progress)


def exhaustive(
    model: ModelLike, pairs: PairSet, mediators: Mediators, *, progress: bool = False, **asked: Unpack[Asked]
) -> Effects:
    """Replace each mediator on its own, exactly: :func:`effects` by ``Exhaustive()``."""
    return effects(model, pairs, mediators, search=Exhaustive(), progress=progress, **asked)


def attribution(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    verify: int = TOP,
    progress: bool = False,
    **asked: Unpack[Asked],
) -> Effects:
    """Estimate each effect from one gradient per run: :func:`effects` by ``Attribution(verify=...)``."""
    return effects(model, pairs, mediators, search=Attribution(verify=verify), progress=progress, **asked)


def attribution_star(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    drops: str = "layers",
    verify: int = TOP,
    progress: bool = False,
    **asked: Unpack[Asked],
) -> Effects:
    """Estimate each effect as AtP* does: :func:`effects` by ``AtPStar(drops=..., verify=...)``."""
    search = AtPStar(drops=drops, verify=verify)
    return effects(model, pairs, mediators, search=search, progress=progress, **asked)


def integrated_gradients(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    path: str = "inputs",
    steps: int = 8,
    verify: int = TOP,
    progress: bool = False,
    **asked: Unpack[Asked],
) -> Effects:
    """Estimate each effect from a path of gradients: :func:`effects` by ``IntegratedGradients(...)``."""
    search = IntegratedGradients(path=path, steps=steps, verify=verify)
    return effects(model, pairs, mediators, search=search, progress=progress, **asked)


def path_patching(
    model: ModelLike,
    pairs: PairSet,
    senders: str | Site | Sequence[str | Site],
    receivers: Receivers,
    *,
    through: Sequence[str] = (),
    progress: bool = False,
    **asked: Unpack[Asked],
) -> Effects:
    """Replace each sender only in what the receivers get of it: :func:`effects` by ``PathPatching(...)``.

    Senders are names and globs of writers; ``*`` is all of them.
    """
    model, search = as_model(model), PathPatching(receivers=receivers, through=through)
    writers = Graph.of(model).writers_of(senders)
    return effects(model, pairs, writers, search=search, progress=progress, **{"positions": "all", **asked})


def plan(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    search: str | Search = "exhaustive",
    **asked: Unpack[Asked],
) -> Forecast:
    """What a search would cost, without running the model; the parameters are those of :func:`effects`.

    An exhaustive search is planned as it will be run, one over edges roughly. A model that turns out to allow
    less while it runs (``Bill.fallback``) costs more.
    """
    found, experiment = _search(search), experiment_of(model, pairs, mediators, **asked)
    _check_over(found, experiment)
    return found.forecast(experiment)


def _search(asked: str | Search | Any) -> Search:
    """A search by name, or as it is.

    Raises:
        ConfigError: there is no such search; names the nearest.
    """
    if isinstance(asked, Search):
        return asked
    if not isinstance(asked, str):
        raise ConfigError(f"search {asked!r} asked; give a name or a search such as Exhaustive().")
    if asked not in SEARCHES:
        near = difflib.get_close_matches(asked, SEARCHES, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"search {asked!r} asked; there are: {', '.join(SEARCHES)}.{hint}")
    return SEARCHES[asked]


def _check_over(search: Search, asked: Experiment) -> None:
    """Refuse mediators that a search does not take.

    Raises:
        ConfigError: names the searches that take them.
    """
    lacking = [word for word in asked.asks if word not in search.over]
    if not lacking:
        return
    others = ", ".join(name for name, row in SEARCHES.items() if set(asked.asks) <= set(row.over))
    if asked.over in search.over:
        raise ConfigError(
            f"{lacking[0]} were asked for ({asked.mediators[0]}, {asked.replacement.name}), which search "
            f"{search.name!r} does not take. Those that do: {others}."
        )
    one = f"{asked.over} were asked for ({asked.mediators[0]})"
    if asked.over == "edges":
        raise ConfigError(
            f"{one}, and search {search.name!r} is over sites and parts of them. The searches over edges "
            f"are: {others}. Otherwise ask for their writers, such as head.* or mlp_out.*."
        )
    raise ConfigError(
        f"{one}, and search {search.name!r} ranks edges. Ask for edge.*, or use one of: {others}."
    )
