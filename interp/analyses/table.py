"""The analyses that can be run again at every precision: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.results import Result

__all__ = ["ANALYSES", "Analysis"]


@dataclass(frozen=True)
class Analysis:
    """An analysis ``(model, *, reference=None, n=None, seed=0) -> Result``.

    Attributes:
        name: what users type (``--analyses``).
        description: one line.
        run: ``module:function``, imported when it is used.
        data: what its items are drawn from, in words.
        n: how many items it takes by default; 0 where it takes none.
        least: the fewest items that say anything.
        passes: whole forward passes of a prompt for each item, roughly: what a plan of time is made of.
        cells: the same for each item and each head or MLP of the model.
        fits: seconds of all else for each item and unit of the model's width.
    """

    name: str
    description: str
    run: str
    data: str
    n: int
    least: int = 0
    passes: float = 0.0
    cells: float = 0.0
    fits: float = 0.0

    @property
    def function(self) -> Callable[..., Result]:
        """The function."""
        module, _, name = self.run.partition(":")
        found: Any = getattr(import_module(module), name)
        return found

    def bound(self, *, n: int | None = None, seed: int = 0) -> Callable[..., Result]:
        """The analysis as ``(model, *, reference=None) -> Result``.

        Args:
            n: how many items; its own number where left out.
            seed: of draws.
        """
        return partial(self.function, n=self.n if n is None else n, seed=seed)


_ROWS = (
    Analysis(
        "recall",
        "one-hop facts by relation, and the neurons and layers that raise the answer's log-probability",
        "interp.analyses.knowledge:recall",
        "the bundled facts",
        400,
        least=100,
        passes=2.5,
    ),
    Analysis(
        "two-hop",
        "is the entity in the middle recalled, is it used, and are both questions answered?",
        "interp.analyses.multi_hop:two_hop",
        "chains of the bundled facts",
        100,
        least=40,
        passes=6.0,
    ),
    Analysis(
        "probe",
        "linear and hyperdimensional probes fitted anew, and carried over in both directions",
        "interp.analyses.transfer:probe_transfer",
        "prompts of the task analogy-relation",
        1200,
        least=300,
        passes=1.0,
        fits=1e-4,
    ),
    Analysis(
        "patch",
        "effects of heads and MLPs, their ranking, and the full model's circuit inside the other model",
        "interp.analyses.patching:patch_agreement",
        "pairs of the first task whose answers the model gives",
        32,
        least=8,
        passes=66.0,
        cells=0.5,
    ),
    Analysis(
        "geometry",
        "cosine, linear CKA, shared neighbours and effective rank of the residual stream, layer by layer",
        "interp.analyses.representation_similarity:geometry",
        "prompts of every bundled task",
        200,
        least=60,
        passes=3.0,
    ),
    Analysis(
        "behaviour",
        "next-token distributions: divergence, agreement, surprise, and answers that flip",
        "interp.analyses.outputs:behaviour",
        "prompts of every bundled task",
        200,
        least=60,
        passes=3.0,
    ),
    Analysis(
        "cost",
        "bytes of weights, peak memory, and time of prefill and decoding, against full precision in one run",
        "interp.analyses.costs:cost",
        "random tokens",
        0,
    ),
)

ANALYSES: dict[str, Analysis] = {row.name: row for row in _ROWS}
