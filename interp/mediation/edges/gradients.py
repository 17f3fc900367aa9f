"""The gradient of the metric with respect to what each reader gets from the stream, before its norm.

Read off one pass and its gradients at ``q``, ``k``, ``v``, ``resid_pre``, ``resid_mid`` and ``resid_post``,
without touching the model: a head's gradient is pulled back through its rows of the projection and through
the norm, the MLP's is what the stream's gradient gains across it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import ModelError
from interp.mediation.edges.blocks import Blocks
from interp.mediation.edges.graph import Graph
from interp.models.hooks import evaluating
from interp.sites import Site

__all__ = ["ReaderSlopes", "needed"]

ALLOWED = 1e-3


def needed(graph: Graph, n_layers: int, blocks: str) -> list[Site]:
    """Give the sites whose gradients are needed.

    Args:
        graph: the model's readers.
        n_layers: how many blocks.
        blocks: ``sequential`` or ``parallel``.
    """
    kinds = ["q", "k", "v", "resid_pre", *(["resid_mid"] if blocks == "sequential" else [])]
    found = [Site(kind, layer) for layer in range(n_layers) for kind in kinds]
    return [*found, Site("resid_post", n_layers - 1)]


@dataclass(eq=False)
class ReaderSlopes:
    """Give the slopes of every reader of one pass.

    Attributes:
        blocks: of the model.
        graph: its readers.
        nodes: site -> value ``[row pos ...]`` of the pass.
        gradients: site -> the metric's gradient with respect to it.
        held: sites that were written in the pass: what a block computed there had no effect on it.
        off: largest difference between the stream's gradient and the sum of its readers', relative to it.
    """

    blocks: Blocks
    graph: Graph
    nodes: Mapping[Site, Tensor]
    gradients: Mapping[Site, Tensor]
    held: frozenset[Site] = frozenset()
    off: float = 0.0

    def each(self, first: int = 0) -> Iterator[tuple[list[int], Tensor]]:
        """Give numbers of readers and their slopes ``[row reader pos d_model]``, block by block.

        Args:
            first: the first block.

        Raises:
            ModelError: the readers' slopes do not add up to the stream's.
        """
        last = self.blocks.model.n_layers
        with evaluating(self.blocks.model.architecture.modules):
            for layer in range(first, last):
                attention = self._attention(layer)
                mlp = self._mlp(layer)
                self._check(layer, attention.sum(dim=1) + mlp)
                yield self.graph.at(layer, "q", "k", "v"), attention
                yield self.graph.at(layer, "mlp"), mlp[:, None]
        yield [len(self.graph.readers) - 1], self._after(last - 1)[:, None]

    def _after(self, layer: int) -> Tensor:
        """Give the gradient of the stream after a block."""
        last = layer == self.blocks.model.n_layers - 1
        return self.gradients[Site("resid_post", layer) if last else Site("resid_pre", layer + 1)]

    def _attention(self, layer: int) -> Tensor:
        """Pull the gradients of queries, keys and values back to the stream, head by head."""
        stream = self.nodes[Site("resid_pre", layer)]
        sites = [Site(kind, layer) for kind in "qkv"]
        inner = self.blocks.normed(layer, stream).detach()
        pulled = torch.cat([self.blocks.pulled(s, inner, self.gradients[s]) for s in sites], dim=1)
        rows, readers = pulled.shape[:2]
        copies = stream.repeat_interleave(readers, dim=0).requires_grad_()
        with torch.enable_grad():
            normed = self.blocks.normed(layer, copies)
        [found] = torch.autograd.grad(normed, copies, pulled.flatten(0, 1))
        return found.unflatten(0, (rows, readers))

    def _mlp(self, layer: int) -> Tensor:
        """Give the slope of what the MLP reads."""
        after = self._after(layer)
        if not self.blocks.model.architecture.parallel:
            return self.gradients[Site("resid_mid", layer)] - after
        if Site("mlp_out", layer) in self.held:
            return torch.zeros_like(after)
        stream = self.nodes[Site("resid_pre", layer)].clone().requires_grad_()
        with torch.enable_grad():
            out = self.blocks.read(layer, stream, ["mlp_out"])[Site("mlp_out", layer)]
        return torch.autograd.grad(out, stream, after)[0]

    def _check(self, layer: int, readers: Tensor) -> None:
        wanted = self.gradients[Site("resid_pre", layer)] - self._after(layer)
        scale = max(float(self.gradients[Site("resid_pre", layer)].abs().max()), 1e-30)
        self.off = max(self.off, float((readers - wanted).abs().max()) / scale)
        model = self.blocks.model
        if not self.off <= (ALLOWED if model.dtype == torch.float32 else 0.1):
            raise ModelError(
                f"the slopes of what layer {layer} of {model.name!r} reads do not add up to the stream's: "
                f"they differ by {self.off:.1e} of it. Use exact edges (exhaustive) instead."
            )
