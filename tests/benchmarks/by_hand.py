"""Attribution's passes with the shortest hooks there are: what any library on hooks has to pay."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from contenders import LEAN
from torch import Tensor

__all__ = ["attribution_by_hand"]


def attribution_by_hand(one: Any) -> np.ndarray:
    """Give ``[node]`` scores of heads and MLPs by layer, averaged over pairs.

    Args:
        one: the model and the pairs, a ``Case``.
    """
    from interp.sites import Site

    locate, layers = one.model.architecture.locate, range(one.model.n_layers)
    nodes: dict[tuple[int, str], Tensor] = {}

    def before(key: tuple[int, str], module: Any, args: Any) -> Any:
        leaf = torch.is_grad_enabled() and not args[0].requires_grad
        nodes[key] = args[0].detach().requires_grad_() if leaf else args[0]
        return (nodes[key], *args[1:])

    def after(key: tuple[int, str], module: Any, args: Any, output: Any) -> None:
        nodes[key] = output

    handles = [
        handle
        for layer in layers
        for handle in (
            locate(Site("z", layer)).module.register_forward_pre_hook(partial(before, (layer, "head"))),
            locate(Site("mlp_out", layer)).module.register_forward_hook(partial(after, (layer, "mlp_out"))),
        )
    ]
    try:
        with torch.no_grad():
            one.model.hf(one.clean, **LEAN)
        clean = dict(nodes)
        metric = one.measured(one.model.hf(one.corrupt, **LEAN).logits).sum()
        slopes = torch.autograd.grad(metric, list(nodes.values()))
    finally:
        for handle in handles:
            handle.remove()
    found: list[Tensor] = []
    for (key, node), slope in zip(nodes.items(), slopes, strict=True):
        parts = one.model.n_heads if key[1] == "head" else 1
        change = (slope * (clean[key] - node.detach())).double()
        found.append(change.unflatten(-1, (parts, -1)).sum(dim=(1, 3)).mean(dim=0))
    return torch.cat(found).numpy()
