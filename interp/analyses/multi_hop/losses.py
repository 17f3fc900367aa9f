"""Where two hops lose, is it where the first hop is weak? Rank correlation of losses over groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from interp.results.shapes import Cell, Table
from probes.statistics import bootstrap, permutation_p

__all__ = ["correlated", "loss_table"]

DRAWS, LEVEL, FEWEST = 2000, 0.05, 8
"""Orders drawn for the null, its level, and groups below which nothing is said."""


def correlated(
    loss: Float[np.ndarray, " item"],
    other: Float[np.ndarray, " item"],
    groups: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, Cell]:
    """Spearman's rank correlation over the means of groups, its interval, and how often chance gives as much.

    Args:
        loss: of every item.
        other: what it may go with.
        groups: of the items; their means are what is ranked, so that each counts once.
        seed: of the bootstrap over groups, and of the orders in which the means are exchanged under the null.

    Returns:
        ``rho`` with ``low`` and ``high``, ``p`` (two-sided) and ``groups``; all but the last None where there
        are fewer than 8 groups or one of both is the same in all of them.
    """
    names = np.array(groups)
    kinds = list(dict.fromkeys(groups))
    pairs = np.array([[loss[names == one].mean(), other[names == one].mean()] for one in kinds])
    empty: dict[str, Cell] = {"rho": None, "low": None, "high": None, "p": None, "groups": len(kinds)}
    if len(pairs) < FEWEST or not np.ptp(pairs, axis=0).all():
        return empty
    found = bootstrap(pairs, statistic=_rho, limits=(-1.0, 1.0), seed=seed)
    ranks = stats.rankdata(pairs, axis=0)
    ranks = (ranks - ranks.mean(axis=0)) / np.linalg.norm(ranks - ranks.mean(axis=0), axis=0)
    rng = np.random.default_rng(seed)
    null = np.array([rng.permutation(ranks[:, 0]) @ ranks[:, 1] for _ in range(DRAWS)])
    p = permutation_p(abs(found.value) - 1e-12, np.abs(null))
    return {**empty, "rho": found.value, "low": found.interval.low, "high": found.interval.high, "p": p}


def _rho(pairs: np.ndarray) -> float:
    """The correlation of ranks; 0 where one side is constant, as in a resample of one group."""
    ranks = stats.rankdata(pairs, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    sizes = np.sqrt((ranks**2).sum(axis=0))
    return float((ranks[:, 0] * ranks[:, 1]).sum() / sizes.prod()) if sizes.all() else 0.0


def loss_table(
    loss: Float[np.ndarray, " item"],
    ability: Float[np.ndarray, " item"],
    first_loss: Float[np.ndarray, " item"],
    groups: Sequence[str],
    *,
    seed: int = 0,
) -> Table:
    """The table ``losses``: does the loss of two hops go with the first hop?

    Wang et al. 2025 (arXiv 2505.13963) report a rank correlation between the drop of two hops and first-hop
    ability. Which drop and which ability was not readable here: ours are log-probabilities of first tokens,
    in nats.

    Args:
        loss: of the two-hop answer, reference less model.
        ability: of the first hop in the reference: the bridge's log-probability.
        first_loss: of the same, reference less model.
        groups: of the chains.
        seed: of the bootstrap and of the null.
    """
    rows: list[dict[str, Cell]] = []
    for name, other in (
        ("first-hop ability of the reference", ability),
        ("loss of the first hop", first_loss),
    ):
        found = correlated(loss, other, groups, seed=seed)
        low, high, p = found["low"], found["high"], found["p"]
        clear = p is not None and low is not None and high is not None
        shown = clear and float(p) < LEVEL and not float(low) <= 0 <= float(high)  # type: ignore[arg-type]
        rows.append({"two_hop_loss_with": name, **found, "shown": "yes" if shown else "not shown"})
    note = (
        "Spearman over the means of groups; interval by bootstrap over groups, p against exchanged groups. "
        "Loss: log-probability of the answer's first token in the reference less that here, in nats."
    )
    return Table.of("losses", "Where two hops lose", rows, note)
