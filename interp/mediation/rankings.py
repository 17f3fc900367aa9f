"""How much a ranking of mediators depends on which prompts happened to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    import pandas

    from interp.mediation.effects import Effects

__all__ = ["ensemble", "jaccard", "sign_stability", "stability"]


def stability(effects: Effects, k: int = 10, *, draws: int = 200, seed: int = 0) -> pandas.DataFrame:
    """Draw groups of pairs again, with repeats, and compare the ranking with the one found.

    Args:
        effects: what a search returned.
        k: size of the top list that is compared.
        draws: how often groups are drawn.
        seed: of the draws.

    Returns:
        Three rows: ``rank correlation`` (Spearman, of all mean effects), ``top overlap`` (Jaccard of the two
        top lists) and ``top overlap by luck`` (the same of two random lists). Columns: what, value (the
        median), low and high (2.5% and 97.5% of draws).

    Raises:
        ConfigError: k below 1 or above the number of mediators, one group only, or gates of a mask.
    """
    import pandas

    _refuse_gates(effects)

    values = effects.per_pair()
    if not 1 <= k <= len(values):
        raise ConfigError(f"the top {k} asked, but there are {counted(len(values), 'mediator')}.")
    names = list(dict.fromkeys(effects.groups))
    if len(names) < 2:
        raise ConfigError("all pairs are of one group, so that nothing can be drawn again; give more groups.")
    code = np.array([names.index(group) for group in effects.groups])
    sums = np.stack([np.bincount(code, row, minlength=len(names)) for row in values])
    sizes = np.bincount(code, minlength=len(names))
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"rank correlation": [], "top overlap": [], "top overlap by luck": []}
    own = values.mean(axis=1)
    for _ in range(draws):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        again = sums @ times / float(sizes @ times)
        ranked: Any = stats.spearmanr(own, again)
        found["rank correlation"].append(float(ranked.statistic))
        found["top overlap"].append(jaccard(_top(own, k), _top(again, k)))
        lucky = [set(rng.permutation(len(values))[:k].tolist()) for _ in range(2)]
        found["top overlap by luck"].append(jaccard(*lucky))
    rows = [(what, np.median(drawn), *np.quantile(drawn, (0.025, 0.975))) for what, drawn in found.items()]
    return pandas.DataFrame(rows, columns=["what", "value", "low", "high"])


def sign_stability(
    effects: Effects, *, direction: str = "", draws: int = 500, seed: int = 0
) -> Float[np.ndarray, " mediator"]:
    """The share of bootstrap draws of groups in which each mean effect has the sign that was found.

    0 where the mean is 0.

    Args:
        effects: what a search returned.
        direction: one of them, or over both where left out.
        draws: how often groups are drawn.
        seed: of the draws.

    Raises:
        ConfigError: one group only, a direction that was not run, or gates of a mask.
    """
    _refuse_gates(effects)
    names, code = np.unique(np.array(effects.groups), return_inverse=True)
    if len(names) < 2:
        raise ConfigError("all pairs are of one group, so that no sign can be drawn again; give more groups.")
    values = effects.per_pair(direction)
    sums = np.stack([np.bincount(code, row, minlength=len(names)) for row in values])
    drawn = np.random.default_rng(seed).multinomial(len(names), np.ones(len(names)) / len(names), size=draws)
    same = np.sign(sums @ drawn.T) == np.sign(values.mean(axis=1))[:, None]
    return same.mean(axis=1) * (values.mean(axis=1) != 0)


def ensemble(found: Sequence[Effects]) -> tuple[Any, ...]:
    """The mediators of several searches in the order of their mean rank by absolute effect, largest first.

    Ranks, and so the order, stay the same when the effects of a search are scaled, squared or otherwise
    stretched in a way that keeps their order (2510.06811 averages normalised scores).

    Args:
        found: effects of the same mediators.

    Raises:
        ConfigError: no effects, or effects of other mediators.
    """
    if not found:
        raise ConfigError("no effects were given; give those of two searches or more.")
    first = found[0].mediators
    for one in found[1:]:
        if one.mediators != first:
            raise ConfigError(
                f"{found[0].search} and {one.search} were of other mediators, and ranks are averaged over "
                "the same. Run both on one list."
            )
    ranks = np.mean([stats.rankdata(-np.abs(one.mean())) for one in found], axis=0)
    return tuple(first[at] for at in np.argsort(ranks, kind="stable"))


def _refuse_gates(effects: Effects) -> None:
    """Refuse gates: learned once for all pairs, they stay the same whichever pairs are drawn.

    Raises:
        ConfigError: names what to do instead.
    """
    if effects.masks:
        raise ConfigError(
            f"how stable the ranking by {effects.search!r} is was asked, and its gates are of all pairs at "
            "once. Learn masks on halves of the pairs, or select by 'top'."
        )


def _top(means: np.ndarray, k: int) -> set[int]:
    return set(np.argsort(-np.abs(means), kind="stable")[:k].tolist())


def jaccard(one: set[int], two: set[int]) -> float:
    """The size of what two sets share over that of both together."""
    return len(one & two) / len(one | two)
