"""How often an interchange makes the model give the source's answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.engine import Engine
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.metrics import Targets
from interp.mediation.walk import Row
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site
from probes.statistics import Estimate, bootstrap

__all__ = ["hits", "interchange_accuracy"]


def interchange_accuracy(
    model: Model,
    pairs: PairSet,
    mediator: str | Site | Mediator,
    *,
    positions: str | int = "all",
    among: str = "answers",
    seed: int = 0,
) -> Estimate:
    """Give the share of interchanges after which the model gives the source's answer (IIA).

    Both ways: the corrupt prompt takes the clean one's value and should give the answer, and the clean prompt
    takes the corrupt one's and should give the foil (Geiger et al. 2021, arXiv 2106.02997, section 3).

    Args:
        model: what is run.
        pairs: clean and corrupt prompts; of kind "null", whose answers are equal, the answer is wanted twice.
        mediator: any one mediator, such as ``resid_post.12`` or one with a subspace.
        positions: as for ``mediators_of``, where the mediator is a name or a site.
        among: ``"answers"`` compares answers with foils; ``"vocabulary"`` wants the answer to be the
            likeliest of all tokens.
        seed: of the rows that are checked and of the interval.

    Raises:
        ConfigError: several mediators, or another ``among``.
        SiteError: a mediator that the model does not have.
    """
    found = mediators_of(model, pairs, mediator, positions=positions)
    if len(found) != 1:
        raise ConfigError(
            f"{str(mediator)!r} names {len(found)} mediators; give one, or replace several in a circuit."
        )
    right = hits(model, pairs, found, among=among, seed=seed)[0]
    return bootstrap(right, groups=[*pairs.groups, *pairs.groups], seed=seed)


def hits(
    model: Model, pairs: PairSet, mediators: Sequence[Mediator], *, among: str, seed: int
) -> Bool[np.ndarray, "mediator twice_pair"]:
    """Say which interchanges give the source's answer: into all corrupt prompts, then into all clean ones.

    Raises:
        ConfigError: another ``among``.
    """
    if among not in ("answers", "vocabulary"):
        raise ConfigError(f"among={among!r} asked; use 'answers' or 'vocabulary'.")
    ways = [_one_way(model, way, mediators, among, seed) for way in (pairs, pairs.swap())]
    return np.concatenate(ways, axis=1)


def _one_way(
    model: Model, pairs: PairSet, mediators: Sequence[Mediator], among: str, seed: int
) -> np.ndarray:
    carriers = sorted({site for mediator in mediators for site in mediator.carriers})
    read = model.capture(pairs.clean, [str(site) for site in carriers], "all")
    n = len(pairs)
    rows = [Row(at, (mediator,)) for mediator in mediators for at in range(n)]
    logits = Engine(model, pairs.corrupt, seed).logits(rows, {site: read[str(site)] for site in carriers})
    index = torch.arange(n, device=logits.device).repeat(len(mediators))
    right = _right(logits, Targets.of(pairs, logits.device).rows(index), among)
    return right.reshape(len(mediators), n).cpu().numpy()


def _right(logits: Tensor, targets: Targets, among: str) -> Tensor:
    if among == "vocabulary":
        top = logits.argmax(dim=1, keepdim=True)
        return ((targets.answers == top) & targets.answered).any(dim=1)
    best = logits.gather(1, targets.answers).masked_fill(~targets.answered, -torch.inf).amax(dim=1)
    return best > logits.gather(1, targets.foils).masked_fill(~targets.foiled, -torch.inf).amax(dim=1)
