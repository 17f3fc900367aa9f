"""The Jacobian lens: a state carried to the last layer by the mean Jacobian of the blocks in between.

``logits = readout(J_l h)`` with ``J_l = mean over texts and positions p of sum over p' >= p of d h_last[p'] /
d h_l[p]``, where ``h_last`` is the stream after the last block, before the final norm. This is the published
definition (the package jlens, ``neuronpedia/jacobian-lens``): the positions p and p' are those of a text
after its first 16 and before its last one. After the last block J is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import DataError
from interp.lenses.base import Lens
from interp.models.forward import gradients
from interp.models.model import Model
from interp.models.readout import Readout

__all__ = ["SKIP", "JacobianLens", "fitted", "jacobians"]

SKIP = 16
"""The first tokens of a text, which are left out: their states are of another kind (attention sinks)."""
CELLS = 1 << 28
"""Numbers that the graph of a pass holds at the most: about 1 GiB in float32."""
EACH = 20
"""Numbers that a block's graph holds for each number of its stream, roughly."""


@dataclass(frozen=True, eq=False)
class JacobianLens(Lens):
    """What the model would say if the blocks after a layer were their mean Jacobian.

    Attributes:
        readout: the model's final norm and head.
        layers: the blocks it reads; the last one needs no matrix.
        matrices: block to ``[d_model d_model]``, from its stream to the last one's.
        fitted_on: what they were averaged over.
        errors: block to the standard error of its matrix over texts, as a share of the matrix's norm; NaN
            for one text alone.
    """

    kind: ClassVar[str] = "jacobian"

    readout: Readout
    layers: tuple[int, ...]
    matrices: Mapping[int, Float[Tensor, "d_model d_model"]]
    fitted_on: Mapping[str, Any]
    errors: Mapping[int, float]

    @property
    def vocab_size(self) -> int:
        """How many tokens the model tells apart."""
        return self.readout.vocab_size

    @torch.no_grad()
    def final_states(
        self, states: Float[Tensor, "*batch d_model"], layer: int
    ) -> Float[Tensor, "*batch d_model"]:
        """The streams after the last block (before the norm) that states of a layer are carried to.

        Args:
            states: of ``resid_post.layer``.
            layer: which block.

        Raises:
            SiteError: the lens does not read this layer.
        """
        self.check(layer)
        states = states.to(self.readout.architecture.device, self.readout.dtype)
        return states if layer not in self.matrices else states @ self.matrices[layer].to(states).T

    @torch.no_grad()
    def logits(self, states: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch vocab"]:
        """The logits of the streams that states of a layer are carried to.

        Args:
            states: of ``resid_post.layer``.
            layer: which block.

        Raises:
            SiteError: the lens does not read this layer.
        """
        return self.readout.logits(self.final_states(states, layer)).float()

    def card(self) -> dict[str, Any]:
        """Kind, layers, the texts, and each matrix's error over texts."""
        errors = {str(layer): None if math.isnan(one) else one for layer, one in self.errors.items()}
        known = {"kind": self.kind, "layers": list(self.layers), "errors": errors}
        return {**known, "fitted_on": dict(self.fitted_on)}


def fitted(
    model: Model,
    layers: Sequence[int],
    texts: Sequence[Sequence[int]],
    *,
    skip: int = SKIP,
    facts: Mapping[str, Any] | None = None,
) -> JacobianLens:
    """Average the Jacobians of some texts.

    Every row of every Jacobian is an exact vector-Jacobian product: a text costs one forward pass and one
    backward pass for each unit of width. Texts that are too short are left out.

    Args:
        model: whose blocks.
        layers: to be read.
        texts: their token ids.
        skip: tokens at the start of each text that are left out.
        facts: what the texts are, for the card.

    Raises:
        DataError: no text is long enough.
        ModelError: the model was made in inference mode, so that it has no gradients.
    """
    wanted = [layer for layer in layers if layer < model.n_layers - 1]
    used = [ids for ids in texts if len(ids) > skip + 1]
    if not used:
        longest = max(map(len, texts), default=0)
        raise DataError(
            f"no text has more than {skip + 1} tokens, which a Jacobian lens needs (the longest has "
            f"{longest}); give longer texts."
        )
    sums = {layer: torch.zeros(model.d_model, model.d_model, dtype=torch.float64) for layer in wanted}
    squares = dict.fromkeys(wanted, 0.0)
    for ids in used:
        for layer, one in jacobians(model, ids, wanted, skip=skip).items():
            sums[layer] += one
            squares[layer] += float(one.double().square().sum())
    n = len(used)
    means = {layer: one / n for layer, one in sums.items()}
    known = {"texts": "given", **(facts or {}), "train_tokens": sum(map(len, used)), "n": n, "skip": skip}
    readout = Readout.precise(model.architecture)
    matrices = {layer: one.to(readout.dtype) for layer, one in means.items()}
    errors = {layer: _error(means[layer], squares[layer], n) for layer in wanted}
    return JacobianLens(readout, tuple(layers), matrices, known, errors)


def _error(mean: Float[Tensor, "d_model d_model"], squares: float, n: int) -> float:
    """The standard error of a mean of matrices (Frobenius norm), as a share of the mean's norm."""
    size = float(mean.square().sum())
    return math.nan if n < 2 or not size else math.sqrt(max(0.0, squares / n - size) / (n - 1) / size)


def jacobians(
    model: Model, ids: Sequence[int], layers: Sequence[int], *, skip: int = SKIP
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """The mean Jacobians of one text, exactly: ``[out in]``, from each layer's stream to the last one's.

    Args:
        model: whose blocks.
        ids: the text; its tokens from ``skip`` to the last but one count.
        layers: from which blocks.
        skip: tokens at the start that are left out.

    Raises:
        ModelError: the model was made in inference mode, so that it has no gradients.
    """
    width, last = model.d_model, f"resid_post.{model.n_layers - 1}"
    sites = [f"resid_post.{layer}" for layer in layers]
    inside = torch.arange(skip, len(ids) - 1)
    rows = max(1, min(width, CELLS // (EACH * model.n_layers * len(ids) * width)))
    found = {layer: torch.zeros(width, width) for layer in layers}
    if not layers:
        return found
    with gradients():
        run = model.run([list(ids)] * rows, capture=[*sites, last], positions="all", logits="none", grad=True)
        assert run.activations is not None
        target, nodes = run.activations[last], [run.activations[site] for site in sites]
        for start in range(0, width, rows):
            n = min(rows, width - start)
            pull = torch.zeros_like(target)
            at = torch.arange(n)
            pull[at[:, None], inside[None, :], start + at[:, None]] = 1.0
            pulled = torch.autograd.grad(target, nodes, pull, retain_graph=start + rows < width)
            for layer, one in zip(layers, pulled, strict=True):
                found[layer][start : start + n] = one[:n, inside].mean(dim=1).float().cpu()
    return found
