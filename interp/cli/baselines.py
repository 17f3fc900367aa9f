"""``interp patch --baselines``: which baseline suits; what :mod:`interp.cli.patch` hands over to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from interp.cli.budget import Job
from interp.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from interp.analyses.patching import PairsFor
    from interp.cli.frame import Work
    from interp.mediation import Baselines
    from interp.models import Model

__all__ = ["check_baselines", "choose_baseline", "job_of_baselines"]

NOT_TAKEN = ("search", "select", "directions", "where", "goal")
STEPS = 4.0


@runtime_checkable
class BaselineSettings(Protocol):
    """What is read of the settings of a command that chooses baselines."""

    @property
    def baselines(self) -> int | None:
        """Rounds of the bandit."""
        ...

    @property
    def mediators(self) -> tuple[str, ...]:
        """What is ranked."""
        ...

    @property
    def metric(self) -> str:
        """A key of ``METRICS``."""
        ...

    @property
    def replacement(self) -> str:
        """Of what is outside a circuit."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...


def check_baselines(settings: BaselineSettings) -> None:
    """Refuse what does not go with a bandit, and too few rounds.

    Raises:
        ConfigError: a flag that only a ranking takes, or fewer rounds than each baseline twice.
    """
    from interp.mediation.bandits import ARMS
    from interp.mediation.bandits.bandit import FIRST

    plain = type(settings)()
    given = [name for name in NOT_TAKEN if getattr(settings, name) != getattr(plain, name)]
    if given:
        raise ConfigError(
            f"--{given[0]} {getattr(settings, given[0])!r} is not taken with --baselines, which attributes "
            "along a path and ranks whole nodes. Leave it out."
        )
    least = FIRST * len(ARMS)
    if (settings.baselines or 0) < least:
        raise ConfigError(
            f"--baselines {settings.baselines} asked; each baseline is tried twice: {least} or more."
        )


def choose_baseline(work: Work, settings: BaselineSettings, pairs: PairsFor) -> Baselines:
    """Run the bandit on pairs that are divided already.

    Raises:
        DataError: too few groups to set any aside.
    """
    from interp.mediation import baselines

    if pairs.held_out is None:
        raise DataError(
            f"{counted(len(set(pairs.ranking.groups)), 'group')} of pairs, too few to set any aside: a "
            "baseline is judged on pairs that it was not chosen on. Give more pairs, of several groups."
        )
    return baselines(
        work.certified(),
        pairs.ranking,
        pairs.held_out,
        universe=list(settings.mediators),
        rounds=settings.baselines or 0,
        metric=settings.metric,
        ablation=settings.replacement,
        seed=settings.seed,
    )


def job_of_baselines(settings: BaselineSettings, model: Model, pairs: PairsFor) -> Job:
    """What it takes: gradients along each site's path under each baseline, and a circuit of each size."""
    from interp.mediation.bandits import ARMS
    from interp.mediation.parsing import members_of

    n = len(pairs.ranking)
    nodes = members_of(model, pairs.ranking, list(settings.mediators), positions="all")
    sizes, carriers = len(nodes).bit_length() + 1, 2 * model.n_layers
    each = len(ARMS) * 2 * STEPS * carriers + (settings.baselines or 0) * sizes
    held = 0 if pairs.held_out is None else len(pairs.held_out)
    besides = held * sizes * (len(ARMS) + 6)
    return Job(
        whole=n,
        least=min(8, n),
        texts=pairs.ranking.clean.texts,
        passes=lambda count: each * count + besides,
        shown=lambda count: counted(count, "pair"),
    )
