"""``interp patch --goal``: types of mediators side by side; what :mod:`interp.cli.patch` hands over to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from interp.cli.budget import Job
from interp.cli.options import choose
from interp.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from interp.analyses.patching import PairsFor
    from interp.cli.frame import Work
    from interp.mediation import Frontier
    from interp.models import Model
    from interp.pairs import PairSet

__all__ = ["ALL", "check_goal", "compare_types", "job_of_types", "wants_types"]

ALL = "all"
CONTROLS = 4
"""Pairs of each other task that an edit should leave alone."""
NOT_TAKEN = ("search", "replacement", "select", "directions", "where")


@runtime_checkable
class TypesSettings(Protocol):
    """What is read of the settings of a command that compares types."""

    @property
    def mediators(self) -> tuple[str, ...]:
        """Names of types, or ``all``."""
        ...

    @property
    def goal(self) -> str | None:
        """A key of ``GOALS``."""
        ...

    @property
    def passes(self) -> int:
        """The budget of each search."""
        ...

    @property
    def metric(self) -> str:
        """A key of ``METRICS``."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...

    def about(self) -> str:
        """The name of the pairs."""
        ...


def wants_types(settings: TypesSettings) -> bool:
    """Whether types are to be compared, not mediators ranked."""
    return settings.goal is not None or settings.mediators == (ALL,)


def types_of(settings: TypesSettings) -> list[str]:
    """The types that are asked for."""
    from interp.mediation import FRONTIER_TYPES

    default = type(settings)().mediators
    return list(FRONTIER_TYPES if settings.mediators in ((ALL,), default) else settings.mediators)


def check_goal(settings: TypesSettings) -> None:
    """Refuse what does not go with a goal.

    Raises:
        ConfigError: an unknown type, or a flag that only a ranking takes.
    """
    from interp.mediation import FRONTIER_TYPES

    for name in types_of(settings):
        choose("--mediators with --goal", name, (ALL, *FRONTIER_TYPES))
    plain = type(settings)()
    given = [name for name in NOT_TAKEN if getattr(settings, name) != getattr(plain, name)]
    if given:
        raise ConfigError(
            f"--{given[0]} {getattr(settings, given[0])!r} is not taken where types are compared "
            "(--mediators all, --goal): each type is searched within --passes. Leave it out."
        )


def compare_types(work: Work, settings: TypesSettings, pairs: PairsFor) -> Frontier:
    """Run a frontier on pairs that are divided already.

    Raises:
        DataError: too few groups to set any aside.
    """
    from interp.mediation import GOALS, frontier

    if pairs.held_out is None:
        raise DataError(
            f"{counted(len(set(pairs.ranking.groups)), 'group')} of pairs, too few to set any aside: types "
            "are compared on pairs that no ranking has seen. Give more pairs, of several groups."
        )
    goal = settings.goal or next(iter(GOALS))
    model = work.certified()
    controls = controls_for(model, settings) if GOALS[goal].side else None
    asked: Any = {"metric": settings.metric, "seed": settings.seed, "progress": work.session.progress}
    return frontier(
        model,
        pairs.ranking,
        pairs.held_out,
        goal=goal,
        types=types_of(settings),
        controls=controls,
        budget=settings.passes,
        **asked,
    )


def controls_for(model: Model, settings: TypesSettings) -> PairSet:
    """A few pairs of every task but the one at hand.

    Raises:
        DataError: no pairs of any other task line up.
    """
    from interp.pairs import PairSet
    from interp.tasks import PAIR_TASKS, sample

    own = {row.name for row in PAIR_TASKS.values() if settings.about() in (row.name, *row.aliases)}
    found: list[Any] = []
    for name in PAIR_TASKS:
        if name in own:
            continue
        try:
            found += sample(model, name, CONTROLS, seed=settings.seed, only_correct=False).pairs
        except DataError:  # this tokenizer has no such pairs
            continue
    if not found:
        raise DataError(
            f"no pairs of other tasks line up for {model.name!r}, on which an edit should do nothing. Use "
            "--goal explain."
        )
    return PairSet.build(model, found, misaligned="drop")


def job_of_types(settings: TypesSettings, model: Model, pairs: PairsFor) -> Job:
    """What comparing types takes: each search, the same in the twin, and all sets, those of chance too."""
    from interp.mediation import GOALS
    from interp.mediation.frontiers.forecast import forecast_types
    from interp.tasks import PAIR_TASKS

    goal, n = settings.goal or next(iter(GOALS)), len(pairs.ranking)
    asked: Any = {"goal": goal, "types": types_of(settings), "budget": settings.passes}
    others = CONTROLS * (len(PAIR_TASKS) - 1)
    held = 0 if pairs.held_out is None else len(pairs.held_out)
    plain = forecast_types(model, pairs.ranking, held, **asked)
    besides = forecast_types(model, pairs.ranking, held, controls=others, **asked) - plain
    return Job(
        whole=n,
        least=min(8, n),
        texts=pairs.ranking.clean.texts,
        passes=lambda count: plain * count / n + besides,
        shown=lambda count: f"{counted(count, 'pair')}",
    )
