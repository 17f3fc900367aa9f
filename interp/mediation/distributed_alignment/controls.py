"""The table of controls of an alignment: what else might give the same interchange accuracy."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.mediation.directions import principal, values_at
from interp.mediation.distributed_alignment.bounded import bounded
from interp.mediation.distributed_alignment.training import (
    Division,
    TrainingConfig,
    joined,
    learned,
    prepared,
)
from interp.mediation.mediators import Mediator
from interp.mediation.subspaces import Subspace
from interp.models.loading import untrained_model
from interp.models.model import Model
from interp.pairs import PairSet

__all__ = ["CONTROLS", "Control", "Directions", "Problem", "solved"]


@dataclass(frozen=True, eq=False)
class Problem:
    """What is searched for, and where.

    Attributes:
        model: what is run.
        variables: name -> its pairs.
        mediator: the site and position.
        division: of the groups.
        config: of the training.
        rank: how many directions a method that learns their number must give; None for what it finds.
    """

    model: Model
    variables: Mapping[str, PairSet]
    mediator: Mediator
    division: Division
    config: TrainingConfig
    rank: int | None = None

    def part(self, groups: frozenset[str]) -> dict[str, PairSet]:
        """Every variable's pairs of some groups."""
        return {name: self.division.part(pairs, groups) for name, pairs in self.variables.items()}

    def differences(self, variable: str) -> Tensor:
        """Clean less corrupt values of the training pairs, ``[pair width]``."""
        pairs = self.division.part(self.variables[variable], self.division.train)
        clean, corrupt = (values_at(self.model, side, self.mediator) for side in (pairs.clean, pairs.corrupt))
        return clean - corrupt


Directions = dict[str, Subspace | None]
"""Variable -> directions; None for the whole site."""


def solved(problem: Problem, name: str) -> tuple[Directions, tuple[Mapping[str, int | float], ...]]:
    """Train directions on the training groups; give them by variable, and the losses by step."""
    train, held = (
        prepared(problem.model, *joined(problem.part(groups)), problem.mediator)
        for groups in (problem.division.train, problem.division.validation)
    )
    if problem.config.method == "das":
        blocks, curve = learned(train, held, problem.config)
    else:
        blocks, curve = bounded(train, held, problem.config, problem.rank)
    named = zip(problem.variables, blocks, strict=True)
    return {variable: Subspace.of(block, f"{name}-{variable}") for variable, block in named}, curve


def _random(problem: Problem) -> tuple[Model, Directions]:
    generator = torch.Generator().manual_seed(problem.config.seed + 1)
    width = values_at(
        problem.model, next(iter(problem.variables.values()))[:1].clean, problem.mediator
    ).shape[1]
    found: Directions = {
        name: Subspace.of(torch.randn(dim, width, generator=generator, dtype=torch.float32), f"random-{name}")
        for name, dim in zip(problem.variables, problem.config.dims, strict=True)
    }
    return problem.model, found


def _pca(problem: Problem) -> tuple[Model, Directions]:
    dims = zip(problem.variables, problem.config.dims, strict=True)
    found: Directions = {name: principal(problem.differences(name), dim, f"pca-{name}") for name, dim in dims}
    return problem.model, found


def _mean_difference(problem: Problem) -> tuple[Model, Directions]:
    found: Directions = {
        name: Subspace.of(problem.differences(name).mean(dim=0), f"mean-difference-{name}")
        for name in problem.variables
    }
    return problem.model, found


def _whole(problem: Problem) -> tuple[Model, Directions]:
    return problem.model, dict.fromkeys(problem.variables)


def _arbitrary(problem: Problem) -> tuple[Model, Directions]:
    """Train with answer and foil exchanged in half of the groups."""
    flipped = {name: _flipped(pairs, problem.config.seed) for name, pairs in problem.variables.items()}
    return problem.model, solved(replace(problem, variables=flipped), "arbitrary")[0]


def _flipped(pairs: PairSet, seed: int) -> PairSet:
    groups = sorted(set(pairs.groups))
    some = set(random.Random(f"arbitrary:{seed}").sample(groups, len(groups) // 2))
    both = zip(pairs.groups, pairs.answer_ids, pairs.foil_ids, strict=True)
    turned = [(foils, answers) if group in some else (answers, foils) for group, answers, foils in both]
    return replace(pairs, answer_ids=tuple(a for a, _ in turned), foil_ids=tuple(f for _, f in turned))


def _random_weights(problem: Problem) -> tuple[Model, Directions]:
    """Train in the same architecture, initialised at random."""
    twin = untrained_model(problem.model)
    return twin, solved(replace(problem, model=twin), "random-weights")[0]


@dataclass(frozen=True)
class Control:
    """A control of directions.

    Attributes:
        name: what users type.
        description: one line.
        words: how a verdict names it.
        directions: gives the model that is run, and the directions by variable.
        floor: whether an alignment that does not beat it shows nothing about this model.
        ceiling: whether it is an upper bound rather than a rival.
    """

    name: str
    description: str
    words: str
    directions: Callable[[Problem], tuple[Model, Directions]]
    floor: bool = False
    ceiling: bool = False


_ROWS = (
    Control("random", "a random subspace of the same rank", "a random subspace", _random, floor=True),
    Control("pca", "the principal directions of clean less corrupt, as many", "PCA", _pca),
    Control(
        "mean-difference",
        "the mean of clean less corrupt, one direction",
        "the mean difference",
        _mean_difference,
    ),
    Control("whole", "the whole site: what no subspace can exceed", "the whole site", _whole, ceiling=True),
    Control(
        "arbitrary",
        "trained with answer and foil exchanged in half of the groups",
        "training on arbitrary answers",
        _arbitrary,
        floor=True,
    ),
    Control(
        "random-weights",
        "trained in the same architecture with random weights",
        "a model of random weights",
        _random_weights,
        floor=True,
    ),
)

CONTROLS: dict[str, Control] = {row.name: row for row in _ROWS}
