"""What exact effects say of estimates."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Verified", "VerifiedEffect"]


@dataclass(frozen=True)
class VerifiedEffect:
    """One of the largest estimates beside the exact effect, with the interval of the exact one."""

    mediator: str
    estimate: float
    exact: float
    low: float
    high: float


@dataclass(frozen=True)
class Verified:
    """What exact effects say of estimates.

    Attributes:
        top: the largest estimates, which were replaced exactly.
        rank_correlation: of estimates and exact effects of a random sample; None where it is undetermined.
        low: lower end of its interval (Bonett and Wright 2000).
        high: upper end.
        sample: how many mediators were drawn.
    """

    top: tuple[VerifiedEffect, ...]
    rank_correlation: float | None = None
    low: float | None = None
    high: float | None = None
    sample: int = 0

    @property
    def largest(self) -> VerifiedEffect:
        """The largest exact effect among the largest estimates."""
        return max(self.top, key=lambda one: abs(one.exact))
