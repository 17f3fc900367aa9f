"""Distributed alignment search: find the directions that carry a variable, and hold them to controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import ConfigError, DataError, counted
from interp.mediation.directions import mediator_at, values_at
from interp.mediation.distributed_alignment.bounded import BOUNDED
from interp.mediation.distributed_alignment.controls import CONTROLS, Directions, Problem, solved
from interp.mediation.distributed_alignment.result import Alignment, Score
from interp.mediation.distributed_alignment.training import TrainingConfig, divided, left_alone
from interp.mediation.engine import Engine
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.metrics import Targets
from interp.mediation.partial_forward import Row
from interp.mediation.subspaces import Subspace
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About
from interp.sites import Site
from probes.statistics import Estimate, bootstrap, paired_difference

__all__ = ["das", "interchange_accuracy"]


def das(
    model: Model,
    pairs: PairSet | Mapping[str, PairSet],
    site: str | Site,
    *,
    position: int = -1,
    dim: int | Sequence[int] = 1,
    steps: int = 200,
    batch: int = 32,
    rate: float = 0.03,
    patience: int = 5,
    among: str = "answers",
    fractions: Sequence[float | int] = (0.6, 0.2, 0.2),
    controls: Sequence[str] = tuple(CONTROLS),
    method: str = "das",
    price: float = 0.05,
    seed: int = 0,
) -> Alignment:
    """Find orthonormal directions whose interchange makes the model give the source's answer.

    Distributed alignment search (Geiger et al. 2024, arXiv 2303.02536): the directions are trained by
    gradient descent through the blocks behind the site, the model stays as it is; groups of pairs are
    divided into some to train on, some to stop by, and some to report on. A search in a space this large
    finds directions even where there is nothing to find, so the controls are part of the result.

    Args:
        model: what is run.
        pairs: clean and corrupt prompts that differ in the variable; or several variables by name, each with
            its own pairs (sources): each gets directions of its own, orthogonal to the others', and
            interchanging them must leave alone what the others' pairs change.
        site: one site with a width, such as ``resid_post.12`` or ``head.5.3``.
        position: of the token, negative from the end.
        dim: how many directions, for each variable or one number per variable.
        steps: at most so many training steps.
        batch: interchanges per step.
        rate: of Adam at the first step.
        patience: checks (one every 10 steps) without improvement before stopping.
        among: ``"answers"`` trains and scores the answer against the foil, ``"vocabulary"`` against all
            tokens.
        fractions: of the groups, for training, stopping and reporting.
        controls: keys of ``CONTROLS``.
        method: ``"das"`` trains as many directions as ``dim`` says; ``"boundless"`` a rotation and how many
            of its directions, ``"mask"`` which of the site's own axes (of one variable; ``dim`` is not read).
        price: nats of loss that a direction must save to be kept, where their number is learned; a boundary
            moves slowly, so give ``rate=0.1`` there.
        seed: of the division, the training, the controls and the intervals.

    Returns:
        The directions, their interchange accuracy on held-out groups with that of every control, and a
        verdict.

    Raises:
        ConfigError: too many directions for the site, too few groups, or an unknown control.
        SiteError: the model has no such site, or it is several.
        DataError: no variable.
    """
    variables = {"answer": pairs} if isinstance(pairs, PairSet) else dict(pairs)
    if not variables:
        raise DataError("no variable was given; give pairs, or pairs by the name of a variable.")
    _check_controls(controls)
    mediator = mediator_at(model, next(iter(variables.values())), site, position)
    dims = (dim,) * len(variables) if isinstance(dim, int) else tuple(dim)
    if len(dims) != len(variables):
        raise ConfigError(f"{len(dims)} numbers of directions given for {len(variables)} variables.")
    _check_method(method, len(variables))
    config = TrainingConfig(dims, steps, batch, rate, patience, among, seed, method, price)
    config.check(values_at(model, next(iter(variables.values()))[:1].clean, mediator).shape[1])
    problem = Problem(model, variables, mediator, divided(variables, fractions, seed), config)
    found, curve = solved(problem, "das")
    if method != "das":  # controls have as many directions as were found
        kept = tuple(len(space.basis) for space in found.values() if space is not None)
        again = "das" if method == "boundless" else method
        problem = replace(problem, config=replace(config, dims=kept, method=again), rank=kept[0])
    own = _hits(problem, model, found)
    scores = _scores(problem, own, controls)
    division = problem.division
    return Alignment(
        subspaces={name: space for name, space in found.items() if space is not None},
        mediator=mediator,
        scores=tuple(scores),
        isolation=_isolation(problem, found),
        curve=curve,
        among=among,
        sizes=(len(division.train), len(division.validation), len(division.test)),
        about=About(model.described, next(iter(variables.values())).described),
        seed=seed,
        warnings=tuple(dict.fromkeys(note for one in variables.values() for note in one.notes)),
    )


def _check_method(method: str, variables: int) -> None:
    """Refuse a method that there is not, or several variables where one boundary is learned."""
    if method not in ("das", *BOUNDED):
        raise ConfigError(f"method {method!r} asked; there are: das, {', '.join(BOUNDED)}.")
    if method != "das" and variables > 1:
        raise ConfigError(
            f"method {method!r} asked of {variables} variables; it learns the directions of one. Search them "
            "one by one, or by method 'das' with a number of directions each."
        )


def _check_controls(names: Sequence[str]) -> None:
    for name in names:
        if name not in CONTROLS:
            raise ConfigError(f"control {name!r} asked; there are: {', '.join(CONTROLS)}.")


def _placed(mediator: Mediator, subspace: Subspace | None) -> Mediator:
    return replace(mediator, subspace=subspace)


def _hits(problem: Problem, model: Model, directions: Directions) -> dict[str, np.ndarray]:
    """Per variable, which held-out interchanges give the source's answer."""
    tested, config = problem.part(problem.division.test), problem.config
    return {
        name: hits(
            model,
            tested[name],
            [_placed(problem.mediator, directions[name])],
            among=config.among,
            seed=config.seed,
        )[0]
        for name in problem.variables
    }


def _scores(problem: Problem, own: dict[str, np.ndarray], controls: Sequence[str]) -> list[Score]:
    tested, seed = problem.part(problem.division.test), problem.config.seed
    groups = {name: [*pairs.groups, *pairs.groups] for name, pairs in tested.items()}
    scores = [Score(v, "das", bootstrap(own[v], groups=groups[v], seed=seed)) for v in problem.variables]
    for name in controls:
        model, directions = CONTROLS[name].directions(problem)
        theirs = _hits(problem, model, directions)
        for v in problem.variables:
            accuracy = bootstrap(theirs[v], groups=groups[v], seed=seed)
            gap = paired_difference(own[v], theirs[v], groups=groups[v], seed=seed)
            scores.append(Score(v, name, accuracy, gap, CONTROLS[name].description))
    return scores


def _isolation(problem: Problem, directions: Directions) -> dict[str, Estimate]:
    """Interchange each variable's directions between the held-out pairs of the others."""
    tested, config = problem.part(problem.division.test), problem.config
    found: dict[str, Estimate] = {}
    for name in problem.variables if len(problem.variables) > 1 else ():
        mediator = _placed(problem.mediator, directions[name])
        left: list[np.ndarray] = []
        groups: list[str] = []
        for pairs in (pairs for other, pairs in tested.items() if other != name):
            kept, again = left_alone(pairs), config.seed
            left.append(hits(problem.model, kept, [mediator], among=config.among, seed=again)[0])
            groups += [*pairs.groups, *pairs.groups]
        found[name] = bootstrap(np.concatenate(left), groups=groups, seed=config.seed)
    return found


def interchange_accuracy(
    model: Model,
    pairs: PairSet,
    mediator: str | Site | Mediator,
    *,
    positions: str | int = "all",
    among: str = "answers",
    seed: int = 0,
) -> Estimate:
    """The share of interchanges after which the model gives the source's answer (IIA).

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
            f"{str(mediator)!r} names {counted(len(found), 'mediator')}; give one, or replace several in a "
            "circuit."
        )
    right = hits(model, pairs, found, among=among, seed=seed)[0]
    return bootstrap(right, groups=[*pairs.groups, *pairs.groups], seed=seed)


def hits(
    model: Model, pairs: PairSet, mediators: Sequence[Mediator], *, among: str, seed: int
) -> Bool[np.ndarray, "mediator twice_pair"]:
    """Which interchanges give the source's answer: into all corrupt prompts, then into all clean ones.

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
    right = torch.zeros(len(rows), dtype=torch.bool)
    targets = Targets.of(pairs, model.device)

    def keep(numbers: Sequence[int], logits: Tensor) -> None:
        index = torch.tensor([rows[at].example for at in numbers], device=logits.device)
        right[list(numbers)] = _right(logits, targets.rows(index), among).cpu()

    Engine(model, pairs.corrupt, seed).each(rows, {site: read[str(site)] for site in carriers}, keep)
    return right.reshape(len(mediators), n).numpy()


def _right(logits: Tensor, targets: Targets, among: str) -> Tensor:
    if among == "vocabulary":
        top = logits.argmax(dim=1, keepdim=True)
        return ((targets.answers == top) & targets.answered).any(dim=1)
    best = logits.gather(1, targets.answers).masked_fill(~targets.answered, -torch.inf).amax(dim=1)
    return best > logits.gather(1, targets.foils).masked_fill(~targets.foiled, -torch.inf).amax(dim=1)
