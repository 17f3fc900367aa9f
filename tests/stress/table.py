"""The stress models: one row each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tests.stress.chains import k_composition, q_composition, saturated_attention, v_composition
from tests.stress.neurons import backup, cancelling, one_position, or_gate, saturated_activation
from tests.stress.norms import grouped_keys, large_stream, through_the_norm
from tests.stress.truth import Stress

__all__ = ["STRESS", "stress"]

STRESS: dict[str, Callable[[], Stress]] = {
    "saturated-activation": saturated_activation,
    "saturated-attention": saturated_attention,
    "large-stream": large_stream,
    "through-the-norm": through_the_norm,
    "backup": backup,
    "or-gate": or_gate,
    "cancelling": cancelling,
    "one-position": one_position,
    "k-composition": k_composition,
    "q-composition": q_composition,
    "v-composition": v_composition,
    "grouped-keys": grouped_keys,
}


@cache
def stress(name: str) -> Stress:
    """Build one of them, once."""
    return STRESS[name]()
