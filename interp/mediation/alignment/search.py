"""Distributed alignment search: find the directions that carry a variable, and hold them to controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from interp.errors import ConfigError, DataError
from interp.mediation.alignment.accuracy import hits
from interp.mediation.alignment.cases import divided, left_alone
from interp.mediation.alignment.controls import CONTROLS, Directions, Problem, solved
from interp.mediation.alignment.result import Alignment, Score
from interp.mediation.alignment.training import Course
from interp.mediation.mediators import Mediator
from interp.mediation.proposals import mediator_at, values_at
from interp.mediation.subspaces import Subspace
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site
from probes.statistics import Estimate, bootstrap, paired_difference

__all__ = ["das"]


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
    course = Course(dims, steps, batch, rate, patience, among, seed)
    course.check(values_at(model, next(iter(variables.values()))[:1].clean, mediator).shape[1])
    problem = Problem(model, variables, mediator, divided(variables, fractions, seed), course)
    found, curve = solved(problem, "das")
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
        model=model.described,
        seed=seed,
        warnings=tuple(dict.fromkeys(note for one in variables.values() for note in one.notes)),
    )


def _check_controls(names: Sequence[str]) -> None:
    for name in names:
        if name not in CONTROLS:
            raise ConfigError(f"control {name!r} asked; there are: {', '.join(CONTROLS)}.")


def _placed(mediator: Mediator, subspace: Subspace | None) -> Mediator:
    return replace(mediator, subspace=subspace)


def _hits(problem: Problem, model: Model, directions: Directions) -> dict[str, np.ndarray]:
    """Say per variable which held-out interchanges give the source's answer."""
    tested, course = problem.part(problem.division.test), problem.course
    return {
        name: hits(
            model,
            tested[name],
            [_placed(problem.mediator, directions[name])],
            among=course.among,
            seed=course.seed,
        )[0]
        for name in problem.variables
    }


def _scores(problem: Problem, own: dict[str, np.ndarray], controls: Sequence[str]) -> list[Score]:
    tested, seed = problem.part(problem.division.test), problem.course.seed
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
    tested, course = problem.part(problem.division.test), problem.course
    found: dict[str, Estimate] = {}
    for name in problem.variables if len(problem.variables) > 1 else ():
        mediator = _placed(problem.mediator, directions[name])
        left: list[np.ndarray] = []
        groups: list[str] = []
        for pairs in (pairs for other, pairs in tested.items() if other != name):
            kept, again = left_alone(pairs), course.seed
            left.append(hits(problem.model, kept, [mediator], among=course.among, seed=again)[0])
            groups += [*pairs.groups, *pairs.groups]
        found[name] = bootstrap(np.concatenate(left), groups=groups, seed=course.seed)
    return found
