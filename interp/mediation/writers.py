"""What adds to the residual stream: embedding, heads, biases and MLPs, and whether heads add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import SiteError
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["check_heads_add_up", "heads_add_up", "written", "written_by_heads"]

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}


def written(model: Model, tokens: Tokens) -> tuple[dict[str, Tensor], Tensor]:
    """What every writer adds to the stream at the last position, and the final stream.

    Where a block adds attention's output as it comes from the heads, the writers are its heads and, if there
    is one, the bias of the output projection (``attn_bias.l``). Where a norm follows (Gemma 2, OLMo 2), heads
    do not add up and ``attn_out.l`` is one writer.

    Returns:
        Name of the writer to ``[prompt d_model]``, in order of execution; and ``[prompt d_model]``.

    Raises:
        SiteError: the model does not offer a kind of site that is needed.
    """
    layers = range(model.n_layers)
    final = f"resid_post.{model.n_layers - 1}"
    model.architecture.check(("z", "attn_out", "mlp_out"))
    kinds = [kind for kind in ("z", "attn_out", "mixer_out", "mlp_out") if model.anatomy.layers(kind)]
    read = model.capture(tokens, ["embed", *(f"{kind}.*" for kind in kinds), final], "last")
    there = set(map(str, read.sites))
    found = {"embed": read["embed"]}
    for layer in layers:
        for kind in ("attn_out", "mixer_out"):
            if f"{kind}.{layer}" in there and not (kind == "attn_out" and f"z.{layer}" in there):
                found[f"{kind}.{layer}"] = read[f"{kind}.{layer}"]
        if f"attn_out.{layer}" in there and f"z.{layer}" in there:
            found |= _of_attention(model, layer, read[f"z.{layer}"], read[f"attn_out.{layer}"])
        if f"mlp_out.{layer}" in there:
            found[f"mlp_out.{layer}"] = read[f"mlp_out.{layer}"]
    return found, read[final]


def _of_attention(model: Model, layer: int, z: Tensor, out: Tensor) -> dict[str, Tensor]:
    """What attention adds, by head where heads add up."""
    if not heads_add_up(model, layer, z, out):
        return {f"attn_out.{layer}": out}
    found = {
        f"head.{layer}.{head}": written_by_heads(model, Site("z", layer), {head: z[:, head]})
        for head in range(z.shape[-2])
    }
    bias = _projected(model, layer, torch.zeros_like(z))
    return found | ({f"attn_bias.{layer}": bias} if bool(bias.any()) else {})


def heads_add_up(
    model: Model, layer: int, z: Float[Tensor, "prompt head d_head"], out: Float[Tensor, "prompt d_model"]
) -> bool:
    """Whether ``attn_out`` is the sum of the heads and a bias: measured, not looked up.

    Args:
        model: whose output projection.
        layer: of the block.
        z: what the heads give.
        out: what the block adds to the stream.
    """
    scale = float(out.abs().max().clamp_min(1e-6))
    allowed = TOLERANCE.get(model.dtype, 0.05)
    return float((_projected(model, layer, z) - out).abs().max()) <= allowed * scale


def check_heads_add_up(model: Model, tokens: Tokens, layers: Sequence[int]) -> None:
    """Refuse single heads where a norm stands between them and the stream.

    Args:
        model: what is run.
        tokens: any prompts.
        layers: where heads are asked for.

    Raises:
        SiteError: names the layer.
    """
    if not layers:
        return
    read = model.capture(
        tokens, [f"{kind}.{layer}" for layer in layers for kind in ("z", "attn_out")], "last"
    )
    for layer in layers:
        if not heads_add_up(model, layer, read[f"z.{layer}"], read[f"attn_out.{layer}"]):
            raise SiteError(
                f"heads of layer {layer} have no direct effect of their own in {model.name!r}: a norm stands "
                f"between them and the residual stream, so they do not add up. Use attn_out.{layer}."
            )


def written_by_heads(model: Model, z: Site, parts: Mapping[int, Float[Tensor, "prompt d_head"]]) -> Tensor:
    """What some heads add to the stream, ``[prompt d_model]``, without the bias.

    Args:
        model: whose output projection.
        z: the site of the heads' layer.
        parts: head to its output (or to a change of it); the others are zero.
    """
    layer = z.layer or 0
    first = next(iter(parts.values()))
    alone = first.new_zeros(len(first), model.anatomy.heads[layer], first.shape[-1])
    for head, part in parts.items():
        alone[:, head] = part
    return _projected(model, layer, alone) - _projected(model, layer, torch.zeros_like(alone))


def _projected(model: Model, layer: int, z: Tensor) -> Tensor:
    projection = model.architecture.locate(Site("head", layer, 0)).module
    with torch.no_grad():
        return projection.forward(z.flatten(-2)) * model.architecture.multiplier
