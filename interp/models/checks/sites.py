"""The equations of the residual stream, at every layer and every token of the prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from interp.activations import Activations
from interp.models.certificate import Check
from interp.models.checks.case import Case, judged, relative, skipped, worst
from interp.models.validate import finished
from interp.sites import Site

__all__ = ["final_norm", "middle", "stream", "sums"]

SUM = "resid_post = resid_pre + attn_out + mlp_out"
MIDDLE = "resid_mid = resid_pre + attn_out"
STREAM = "resid_pre of a layer = resid_post of the one before"
FINAL = "logits = head(norm(last resid_post))"


def stream(case: Case) -> Check:
    """Check that every block takes what the one before it gave, and block 0 the embedding."""
    acts = case.bare.capture(case.prompts, ["embed", "resid_pre.*", "resid_post.*"], "all")
    before = [acts["embed"], *(acts[f"resid_post.{layer}"] for layer in range(case.model.n_layers - 1))]
    errors = [relative(acts[f"resid_pre.{layer}"], given) for layer, given in enumerate(before)]
    value, layer = worst(errors)
    return judged(STREAM, value, case.limit, f"worst at layer {layer} of {case.model.n_layers}")


def sums(case: Case) -> Check:
    """Check what a block adds, relative to what it adds and not to the stream, which may be far larger."""
    if why := case.missing("attn_out") or case.missing("mlp_out"):
        return skipped(SUM, why)
    acts = case.bare.capture(case.prompts, ["resid_pre.*", "attn_out.*", "mlp_out.*", "resid_post.*"], "all")
    errors = []
    for layer in range(case.model.n_layers):
        pre, attention, mlp, post = _at(acts, layer, "resid_pre", "attn_out", "mlp_out", "resid_post")
        errors.append(relative(pre + attention + mlp, post, _added(pre, post, case.limit)))
    value, layer = worst(errors)
    detail = f"of what the block adds; worst at layer {layer} of {case.model.n_layers}"
    return judged(SUM, value, case.limit, detail + _remedy(case, value))


def middle(case: Case) -> Check:
    """Check the stream between attention and MLP, where the blocks have one."""
    if why := case.missing("resid_mid") or case.missing("attn_out"):
        return skipped(MIDDLE, why)
    acts = case.bare.capture(
        case.prompts, ["resid_pre.*", "attn_out.*", "resid_mid.*", "resid_post.*"], "all"
    )
    errors = []
    for layer in range(case.model.n_layers):
        pre, attention, mid, post = _at(acts, layer, "resid_pre", "attn_out", "resid_mid", "resid_post")
        errors.append(relative(pre + attention, mid, _added(pre, post, case.limit)))
    value, layer = worst(errors)
    detail = f"of what the block adds; worst at layer {layer} of {case.model.n_layers}"
    return judged(MIDDLE, value, case.limit, detail + _remedy(case, value))


def final_norm(case: Case) -> Check:
    """Check that the last stream, through the final norm, the head, scale and softcap, is the logits."""
    if why := case.missing("final_norm"):
        return skipped(FINAL, why)
    anatomy = case.bare.anatomy
    acts = case.model.capture(case.short, [Site("resid_post", anatomy.n_layers - 1), "logits"], "all")
    norm, head = anatomy.locate(Site("final_norm")).module, case.model.hf.get_output_embeddings()
    assert head is not None
    with torch.no_grad():
        found = finished(anatomy, head(norm(acts["resid_post.*"])))
    return judged(FINAL, relative(found, acts["logits"]), case.limit, "at all positions")


def _at(acts: Activations, layer: int, *kinds: str) -> tuple[Tensor, ...]:
    return tuple(acts[f"{kind}.{layer}"] for kind in kinds)


def _added(pre: Tensor, post: Tensor, limit: float) -> Tensor:
    """Give what the block adds, or the rounding noise of a stream that is far larger."""
    noise = post.double().abs().max() * torch.finfo(post.dtype).eps / limit * 4
    return torch.maximum((post - pre).double().abs().max(), noise)


def _remedy(case: Case, value: float) -> str:
    if value <= case.limit:
        return ""
    row, factor = case.model.family, case.model.anatomy.multiplier
    return f"; attn_out is read at {row.attn_out!r}, mlp_out at {row.mlp_out!r}, times {factor:g}"
