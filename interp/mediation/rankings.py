"""How much a ranking of mediators depends on which prompts happened to be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    import pandas

    from interp.mediation.effects import Effects

__all__ = ["jaccard", "stability"]


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
        ConfigError: k below 1 or above the number of mediators, or one group only.
    """
    import pandas

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


def _top(means: np.ndarray, k: int) -> set[int]:
    return set(np.argsort(-np.abs(means), kind="stable")[:k].tolist())


def jaccard(one: set[int], two: set[int]) -> float:
    """The size of what two sets share over that of both together."""
    return len(one & two) / len(one | two)
