"""The equations of the residual stream, at every layer and every token of the prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from interp.activations import Activations
from interp.models import equations
from interp.models.certificate import Check
from interp.models.checks.context import Context, judged, skipped, worst
from interp.sites import Site

__all__ = ["final_norm", "middle", "stream", "sums"]

SUM = "resid_post = resid_pre + attn_out + mlp_out"
MIDDLE = "resid_mid = resid_pre + attn_out"
STREAM = "resid_pre of a layer = resid_post of the one before"
FINAL = "logits = head(norm(last resid_post))"
_STREAM = ("resid_pre.*", "resid_post.*")


def stream(case: Context) -> Check:
    """Every block takes what the one before it gave, and block 0 the embedding."""
    return _checked(case, STREAM, equations.STREAM, ("embed",))


def sums(case: Context) -> Check:
    """What a block adds, relative to what it adds and not to the stream, which may be far larger."""
    return _checked(case, SUM, equations.SUM, _STREAM, "of what the block adds; ")


def middle(case: Context) -> Check:
    """The stream between attention and MLP, where the blocks have one."""
    return _checked(case, MIDDLE, equations.MIDDLE, _STREAM, "of what the block adds; ")


def _checked(
    case: Context, name: str, equation: equations.Equation, also: tuple[str, ...], of: str = ""
) -> Check:
    """Ask an equation of all prompts; ``bare`` offers the kinds that failed at load too."""
    if why := next((why for kind in equation.kinds if (why := case.missing(kind))), ""):
        return skipped(name, why)
    kinds = [*equation.kinds, *(kind for kind in equation.terms if not case.missing(kind))]
    named = [kind for kind in equation.terms if case.model.family.names(kind)]
    if why := next((why for kind in named or equation.terms if (why := case.missing(kind))), ""):
        return skipped(name, why)
    sites = list(dict.fromkeys([*also, *(f"{kind}.*" for kind in kinds)]))
    read = _read(case.bare.capture(case.prompts, sites, "all"))
    errors = equation.errors(case.bare.architecture, read)
    value, where = worst([*errors.values()])
    layer = [*errors][where]
    detail = f"{of}worst at layer {layer} of {case.model.n_layers}"
    return judged(name, value, case.limit, detail + (_remedy(case, value) if of else ""))


def final_norm(case: Context) -> Check:
    """The last stream, through the final norm, the head, scale and softcap, is the logits."""
    if why := case.missing("final_norm"):
        return skipped(FINAL, why)
    last = Site("resid_post", case.model.n_layers - 1)
    read = _read(case.model.capture(case.short, [last, "logits"], "all"))
    with torch.no_grad():
        (value,) = equations.FINAL.errors(case.bare.architecture, read).values()
    return judged(FINAL, value, case.limit, "at all positions")


def _read(acts: Activations) -> dict[Site, Tensor]:
    return {Site.parse(str(site)): tensor for site, tensor in acts.items()}


def _remedy(case: Context, value: float) -> str:
    if value <= case.limit:
        return ""
    row, factor = case.model.family, case.model.architecture.multiplier
    return f"; attn_out is read at {row.attn_out!r}, mlp_out at {row.mlp_out!r}, times {factor:g}"
