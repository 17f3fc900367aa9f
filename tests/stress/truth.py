"""What is known of a stress model: its mediators, their effects, and what attribution says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from tests.tiny import tokenizer

__all__ = ["BOTH", "Stress", "stressed"]

BOTH = ("denoising", "noising")


@dataclass(frozen=True)
class Stress:
    """Hold a model on which estimators of effects differ.

    Attributes:
        model: wrapped.
        pairs: that the circuit tells apart.
        effects: mediator -> its exact effects (denoising, noising) in shares of the total effect; every other
            mediator has none.
        heads: what carries the whole effect when it is replaced together.
        edges: the edges of the circuit, where they are all on single paths.
        misses: what plain attribution gives nearly nothing although its effect is large, and in which
            direction.
        invents: what plain attribution gives a lot although its effect is nothing, likewise.
        nodes: the mediators among which it is searched.
    """

    model: Model
    pairs: PairSet
    effects: Mapping[str, tuple[float, float]]
    heads: frozenset[str]
    edges: frozenset[str] = frozenset()
    misses: tuple[tuple[str, str], ...] = ()
    invents: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ("head.*", "mlp_out.*")

    @property
    def mediators(self) -> frozenset[str]:
        """What has an effect in some direction."""
        return frozenset(name for name, effects in self.effects.items() if any(effects))


def stressed(
    hf: PreTrainedModel, pairs: list[Pair], *, misses: Mapping[str, Any] | None = None, **known: Any
) -> Stress:
    """Wrap a model with what is known of it; ``misses`` gives directions by mediator."""
    model = load(hf, tokenizer=tokenizer())
    missed = tuple((name, way) for name, ways in (misses or {}).items() for way in ways)
    known["heads"] = frozenset(known["heads"])
    return Stress(model, PairSet.build(model, pairs), misses=missed, **known)
