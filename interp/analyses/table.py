"""The analyses that can be run again at every precision: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.analyses.measured import Measured

__all__ = ["ANALYSES", "AnalysisRow"]


@dataclass(frozen=True)
class AnalysisRow:
    """Describe an analysis ``(model, *, reference=None, n=None, seed=0) -> Measured``.

    Attributes:
        name: what users type (``--analyses``).
        module: where it is.
        function: its name there and in ``interp.analyses``.
        description: one line.
        n: how many items it takes by default; 0 where it takes none.
    """

    name: str
    module: str
    function: str
    description: str
    n: int

    def bound(self, *, n: int | None = None, seed: int = 0) -> Callable[..., Measured]:
        """Give the analysis as ``(model, *, reference=None) -> Measured``.

        Args:
            n: how many items; its own number where left out.
            seed: of draws.
        """
        function: Any = getattr(import_module(self.module), self.function)
        return partial(function, n=self.n if n is None else n, seed=seed)


_ROWS = (
    AnalysisRow(
        "recall",
        "interp.analyses.knowledge",
        "recall",
        "one-hop facts by relation, and the neurons and layers that raise the answer's log-probability",
        400,
    ),
    AnalysisRow(
        "two-hop",
        "interp.analyses.hops",
        "two_hop",
        "is the entity in the middle recalled, is it used, and are both questions answered?",
        100,
    ),
    AnalysisRow(
        "probe",
        "interp.analyses.transfer",
        "probe_transfer",
        "linear and hyperdimensional probes fitted anew, and carried over in both directions",
        1200,
    ),
    AnalysisRow(
        "patch",
        "interp.analyses.agreement",
        "patch_agreement",
        "effects of heads and MLPs, their ranking, and the full model's circuit inside the other model",
        32,
    ),
    AnalysisRow(
        "geometry",
        "interp.analyses.similarity",
        "geometry",
        "cosine, linear CKA, shared neighbours and effective rank of the residual stream, layer by layer",
        200,
    ),
    AnalysisRow(
        "behaviour",
        "interp.analyses.outputs",
        "behaviour",
        "next-token distributions: divergence, agreement, surprise, and answers that flip",
        200,
    ),
    AnalysisRow(
        "cost",
        "interp.analyses.costs",
        "cost",
        "bytes of weights, peak memory, and time of prefill and decoding, against full precision in one run",
        0,
    ),
)

ANALYSES: dict[str, AnalysisRow] = {row.name: row for row in _ROWS}
