"""Whether what else is in a batch matters: of whole passes, and in half precision of every block alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.certificate import Check
from interp.models.checks.context import Context, judged, worst
from interp.models.interventions import Intervention
from interp.models.rounding import rounded_otherwise
from interp.sites import Site

__all__ = ["BATCH", "batched", "block_errors"]

BATCH = "in a batch = alone"
PARTS = ("attn_out", "mixer_out", "mlp_out", "resid_post")
EXACT = 1e-5


def batched(case: Context) -> Check:
    """Check that other rows of a batch do not matter; beyond rounding is a warning, far beyond a failure.

    In half precision rounding grows from block to block until it hides much. There every block is also run
    on the very input it has alone: what a batch changes then must be what rounding that input once does.
    """
    floor, layers = case.batched
    value = worst([floor.relative, layers])[0]
    far = min(100 * case.limit, 0.5)
    detail = "the noise floor, below, is what of it reaches the logits"
    if case.limit > EXACT and "resid_pre" not in case.model.disabled:
        errors = block_errors(case)
        limits = {site: max(case.limit / 2, 4 * rounded) for site, (_, rounded) in errors.items()}
        at = max(errors, key=lambda site: errors[site][0] / limits[site])
        if not errors[at][0] <= limits[at]:
            return judged(BATCH, errors[at][0], limits[at], f"at {at}, given the same input as alone")
    return judged(BATCH, value, case.limit, detail, otherwise="warn" if value <= far else "fail")


def block_errors(case: Context) -> dict[str, tuple[float, float]]:
    """What a batch changes at the sites of blocks that get the same input, and what one rounding of it does.

    Both are relative to the largest value of the site: the median over the tokens of a prompt, since a
    rounding may send single tokens to other experts, of the worst prompt.
    """
    model, rows = case.model, case.short
    kinds = [kind for kind in PARTS if kind not in model.disabled and model.anatomy.layers(kind)]
    sites = [str(Site(kind, layer)) for kind in kinds for layer in model.anatomy.layers(kind)]
    inputs = [str(Site("resid_pre", layer)) for layer in range(model.n_layers)]

    def ran(size: int, edits: Sequence[Intervention]) -> dict[str, Tensor]:
        run = model.run(
            rows, capture=[*inputs, *sites], positions="all", batch_size=size, interventions=edits or None
        )
        assert run.logits is not None and run.activations is not None
        return {**{site: run.activations[site] for site in (*inputs, *sites)}, "logits": run.logits[:, None]}

    alone = ran(1, ())
    again = rounded_otherwise(case.seed)

    def given(change: Any) -> list[Intervention]:
        return [Intervention(site, change(alone[site].to(model.dtype)), "all") for site in inputs]

    together, rounded = ran(len(rows), given(torch.clone)), ran(1, given(again))
    compared = [site for site in alone if site not in inputs]
    return {
        site: (_apart(together[site], alone[site]), _apart(rounded[site], alone[site])) for site in compared
    }


def _apart(found: Float[Tensor, "prompt pos dim"], wanted: Float[Tensor, "prompt pos dim"]) -> float:
    """The median over tokens of the largest difference over the largest value, of the worst prompt."""
    size = wanted.double().abs().max().clamp_min(1e-30)
    each = (found.double() - wanted.double()).abs().amax(dim=-1)
    return float(each.median(dim=-1).values.max() / size)
