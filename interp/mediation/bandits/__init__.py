"""Which baseline suits path attribution: drawn as by a bandit, and held to circuits on unseen pairs."""

from __future__ import annotations

from interp.mediation.bandits.result import Baselines
from interp.mediation.bandits.run import ARMS, baselines

__all__ = ["ARMS", "Baselines", "baselines"]
