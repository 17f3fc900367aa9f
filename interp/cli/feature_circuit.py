"""``interp patch --circuit features``: sparse feature circuits; :mod:`interp.cli.patch` hands over to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from interp.cli.budget import Job
from interp.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from interp.analyses.patching import PairsFor
    from interp.cli.frame import Work
    from interp.mediation import FeatureCircuit
    from interp.models import Model

__all__ = ["check_features", "find_circuit", "job_of_features"]

NOT_TAKEN = (
    "mediators",
    "search",
    "replacement",
    "select",
    "directions",
    "where",
    "goal",
    "baselines",
    "spans",
)
STEPS = 10
HELD = 24
"""Passes of a held-out pair: the ends, the circuit and random ones; whole, without errors, errors alone."""
TARGETS = 40
"""Kept nodes of a dictionary, each of which takes a way back to every earlier one, roughly."""


@runtime_checkable
class CircuitSettings(Protocol):
    """What is read of the settings of a command that finds a circuit of features."""

    @property
    def features(self) -> tuple[str, ...]:
        """Folders of dictionaries."""
        ...

    @property
    def metric(self) -> str:
        """A key of ``METRICS``."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...


def check_features(settings: CircuitSettings) -> None:
    """Refuse what does not go with a circuit of features.

    Raises:
        ConfigError: no dictionaries, or a flag that only a ranking takes.
    """
    plain = type(settings)()
    given = [name for name in NOT_TAKEN if getattr(settings, name) != getattr(plain, name)]
    if given:
        raise ConfigError(
            f"--{given[0]} {getattr(settings, given[0])!r} is not taken with --circuit features, whose nodes "
            "are the features and errors of --features, scored by integrated gradients. Leave it out."
        )
    if not settings.features:
        raise ConfigError(
            "--circuit features asked without dictionaries. Give --features FOLDER, of several layers for "
            "edges between features; `interp features train` makes one."
        )


def find_circuit(work: Work, settings: CircuitSettings, pairs: PairsFor) -> FeatureCircuit:
    """Find the circuit on the ranking pairs, and run it on the others.

    Raises:
        DataError: too few groups to set any aside.
    """
    from interp.mediation import feature_circuit

    if pairs.held_out is None:
        raise DataError(
            f"{counted(len(set(pairs.ranking.groups)), 'group')} of pairs, too few to set any aside: a "
            "circuit of estimates is judged on pairs that it was not found on. Give more pairs, of several "
            "groups."
        )
    return feature_circuit(
        work.certified(),
        pairs.ranking,
        metric=settings.metric,
        steps=STEPS,
        held_out=pairs.held_out,
        seed=settings.seed,
    )


def job_of_features(settings: CircuitSettings, model: Model, pairs: PairsFor) -> Job:
    """What it takes: a path for every site, twice; a way back from every kept node; runs on other pairs."""
    n, layers = len(pairs.ranking), len(model.dictionaries)
    paths, ways = 2 * 2 * layers * 2 * STEPS, TARGETS * layers * (layers - 1) / 2 + 3 * layers
    held = 0 if pairs.held_out is None else len(pairs.held_out)
    return Job(
        whole=n,
        least=min(8, n),
        texts=pairs.ranking.clean.texts,
        passes=lambda count: (2 + paths + ways) * count + HELD * held,
        shown=lambda count: counted(count, "pair"),
    )
