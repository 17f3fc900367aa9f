"""Thompson sampling among arms with Gaussian rewards: a draw of each mean, and the best is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.errors import ConfigError

__all__ = ["FIRST", "Draws", "thompson"]

FIRST = 2
"""How often every arm is tried before any draw decides: a spread needs two rewards."""
Reward = Callable[[int, np.random.Generator], float]
"""From an arm, and where its luck comes from, to its reward."""


@dataclass(frozen=True, eq=False)
class Draws:
    """What was tried, in order.

    Attributes:
        arms: which arm, from 0.
        rewards: what it gave.
    """

    arms: Int[np.ndarray, " round"]
    rewards: Float[np.ndarray, " round"]

    def mean(self, arm: int) -> float:
        """The mean reward of an arm; NaN where it was never tried."""
        own = self.rewards[self.arms == arm]
        return float(own.mean()) if len(own) else float("nan")

    def count(self, arm: int) -> int:
        """How often an arm was tried."""
        return int((self.arms == arm).sum())


def spread(draws: Draws) -> float:
    """The standard deviation of rewards within arms, pooled; 0 where each arm always gave the same."""
    own = [draws.rewards[draws.arms == arm] for arm in set(draws.arms.tolist())]
    free = sum(len(one) - 1 for one in own)
    return float(np.sqrt(sum(((one - one.mean()) ** 2).sum() for one in own) / free)) if free else 0.0


def thompson(reward: Reward, n_arms: int, rounds: int, *, seed: int = 0) -> Draws:
    """Try arms: each a few times, then always the one whose drawn mean is the largest.

    In each round ``theta_j ~ N(mean_j, s^2 / (n_j + 1))``, with the mean reward and the number of trials of
    each arm and the pooled spread s of rewards within arms. The idea of drawing baselines as a bandit
    is that of BEE (2412.17512); this update rule is ours.

    Args:
        reward: of an arm in a round.
        n_arms: how many arms.
        rounds: how many trials in all.
        seed: of everything drawn.

    Raises:
        ConfigError: fewer than two arms, or too few rounds to try each of them twice.
    """
    if n_arms < 2 or rounds < FIRST * n_arms:
        raise ConfigError(
            f"{rounds} rounds of {n_arms} arms asked; at least two arms are needed, and "
            f"{FIRST} rounds of each."
        )
    rng = np.random.default_rng(seed)
    arms, rewards = list(range(n_arms)) * FIRST, list[float]()
    for at in range(rounds):
        if at >= FIRST * n_arms:
            so_far = Draws(np.array(arms), np.array(rewards))
            errors = [spread(so_far) / np.sqrt(so_far.count(arm) + 1) for arm in range(n_arms)]
            drawn = rng.normal([so_far.mean(arm) for arm in range(n_arms)], errors)
            arms.append(int(np.argmax(drawn)))
        rewards.append(reward(arms[at], rng))
    return Draws(np.array(arms), np.array(rewards))
