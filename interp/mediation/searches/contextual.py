"""Contextual decomposition: what a part of the stream becomes on its way through the model, split off.

Every stream is a sum ``r + i`` of what is relevant (what would go if the mediator were replaced) and the
rest. Attention keeps its pattern and norms keep their scale, both those of the sum, so that r passes them
linearly; an MLP gives ``f(r + i) - f(i)`` to r (CD-T; Hsu et al. 2024, 2407.00886). Biases belong to the
rest, where the paper shares them out by size: so an MLP is one function, whatever a family puts in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ConfigError, ModelError
from interp.mediation.backward_rules import BackwardRule, following
from interp.mediation.edges.blocks import Blocks
from interp.mediation.experiment import SIGNS, Estimates, Experiment
from interp.mediation.frozen_norm import TOLERANCE, FrozenNorm, Readout
from interp.mediation.metrics import Targets
from interp.mediation.patches import interchange
from interp.mediation.searches.direct import need_writers
from interp.mediation.searches.search import GradientSearch, by_direction
from interp.mediation.writers import written_by_heads
from interp.models.forward import gradients
from interp.models.hooks import eager_attention, evaluating
from interp.models.model import Model
from interp.sites import Site

__all__ = ["Contextual", "Split"]

Streams = Float[Tensor, "copy pos d_model"]
LINEAR = BackwardRule(
    description="attention with its pattern, norms with their scale", hold_norms=True, q=0.0, k=0.0
)
COPIES = 32


@dataclass(frozen=True, kw_only=True)
class Contextual(GradientSearch):
    """Estimate each effect as the part of the logit difference that a mediator's change turns into (CD-T).

    Mediators are ``embed``, ``head.*``, ``attn_out.*`` or ``mlp_out.*``, in blocks that run attention before
    the MLP with a norm before each. Patterns and norms do not respond: effects through queries, keys or a
    norm's scale are not seen. Costs more than replacing each mediator exactly: what it adds is the split.
    """

    name = "contextual"
    description = "split each mediator's part off, through activations exactly, patterns held (CD-T)"

    def passes(self, experiment: Experiment) -> float | int:
        """Per mediator a pass of attention with two gradients, and one of the block, from its layer on."""
        depth = experiment.model.n_layers
        later = [depth if m.layer is None else depth - 1 - m.layer for m in experiment.mediators]
        own = sum(m.site.kind in ("head", "attn_out") for m in experiment.mediators)
        return 2 + len(experiment.directions) * (2 + (2.5 * sum(later) + own) / depth)

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Split every mediator's part off, and read what it is in the end.

        Raises:
            ConfigError: another metric than the logit difference, or a replacement made of the value.
            ModelError: blocks of another build.
            SiteError: a mediator that adds nothing to the stream itself.
        """
        if experiment.metric.name != "logit-diff" or experiment.replacement.rule is not interchange:
            raise ConfigError(
                f"contextual splits the logit difference under a value that is put in; metric "
                f"{experiment.metric.name!r} and replacement {experiment.replacement.name!r} were asked. Use "
                "logit-diff and interchange, or the search 'attribution'."
            )
        need_writers(experiment)
        _need_build(experiment.model)
        return by_direction(experiment, _direction)


def _need_build(model: Model) -> None:
    """Refuse blocks whose attention and MLP do not follow each other with a norm before each."""
    build = model.architecture
    if build.parallel or model.backend is not None:
        raise ModelError(
            f"contextual needs blocks that run attention, then the MLP; {model.name!r} does not. Use the "
            "search 'relp' or 'attribution'."
        )
    for layer in range(model.n_layers):
        norm = build.part(layer, "resid_mid")
        attention, mlp = build.part(layer, "attn_out"), build.part(layer, "mlp_out")
        if any(one is None or "norm" in type(one).__name__.lower() for one in (attention, mlp)) or (
            norm is None or "norm" not in type(norm).__name__.lower()
        ):
            raise ModelError(
                f"contextual needs a norm before the MLP and none after; layer {layer} of {model.name!r} is "
                "built otherwise. Use the search 'relp' or 'attribution'."
            )


def _direction(experiment: Experiment, direction: str) -> tuple[np.ndarray, dict[str, Any]]:
    """``[mediator pair]`` estimates in one direction."""
    model, tokens = experiment.model, experiment.base(direction)[0]
    sources = experiment.sources(direction)
    own = model.capture(tokens, [str(site) for site in sources], "all")
    found = np.zeros((len(experiment.mediators), len(experiment.pairs)))
    steps = 0.0
    for pair, length in enumerate(experiment.pairs.lengths):
        split = Split.of(model, tokens.token_ids[pair])
        lost = [
            _lost(
                experiment, m, own[str(m.carriers[0])][pair, :length], sources[m.carriers[0]][pair, :length]
            )
            for m in experiment.mediators
        ]
        for start in range(0, len(lost), COPIES):
            chosen = slice(start, start + COPIES)
            final = split.passed([m.site for m in experiment.mediators[chosen]], torch.stack(lost[chosen]))
            parts = split.read(final[:, -1], experiment.pairs[[pair]])
            found[chosen, pair] = -SIGNS[direction] * parts.cpu().numpy()
        steps += split.steps
    return found, {"forwards": 2 + steps / len(experiment.pairs)}


def _lost(experiment: Experiment, mediator: Any, own: Tensor, other: Tensor) -> Tensor:
    """What a mediator writes that its replacement would not: ``[pos d_model]``."""
    place = mediator.places[0]
    change = own - other.to(own)
    if isinstance(place.index, int):
        change = written_by_heads(
            experiment.model, Site("z", mediator.layer), {place.index: change[:, place.index]}
        )
    if mediator.position is None:
        return change
    kept = torch.zeros(len(change), 1, dtype=change.dtype, device=change.device)
    kept[mediator.position] = 1.0
    return change * kept


@dataclass(eq=False)
class Split:
    """The run of one prompt, through which parts of its streams are passed.

    Attributes:
        blocks: of the model, for this prompt.
        before: per block the stream ``[1 pos d_model]`` before it, and the last one.
        middle: per block the stream before its MLP.
        steps: forward passes made, a backward pass counted as one.
    """

    blocks: Blocks
    before: Sequence[Tensor]
    middle: Sequence[Tensor]
    steps: float = 0.0

    @classmethod
    def of(cls, model: Model, ids: Sequence[int]) -> Split:
        """Run a prompt once."""
        layers = range(model.n_layers)
        names = [f"{kind}.{layer}" for kind in ("resid_pre", "resid_mid") for layer in layers]
        read = model.capture([list(ids)], [*names, f"resid_post.{model.n_layers - 1}"], "all")
        before = [read[f"resid_pre.{layer}"] for layer in layers] + [read[f"resid_post.{model.n_layers - 1}"]]
        with eager_attention(model.architecture.modules):  # which is given its mask; others may be given none
            blocks = Blocks.of(model, ids)
        return cls(blocks, before, [read[f"resid_mid.{layer}"] for layer in layers])

    def passed(self, sites: Sequence[Site], parts: Streams) -> Streams:
        """What parts of the stream, each written by a site, have become in the final stream.

        Args:
            sites: who wrote each.
            parts: what each wrote that counts as relevant.
        """
        model = self.blocks.model
        relevant = torch.zeros_like(parts)
        for at, site in enumerate(sites):
            if site.kind == "embed":
                relevant[at] = parts[at]
        modules = model.architecture.modules
        with ExitStack() as stack:
            stack.enter_context(eager_attention(modules))
            stack.enter_context(evaluating(modules))
            for layer in range(model.n_layers):
                live = relevant.flatten(1).any(dim=1)
                relevant[live] = relevant[live] + self.attended(layer, relevant[live])
                for at, site in enumerate(sites):
                    if site.layer == layer and site.kind != "mlp_out":
                        relevant[at] = relevant[at] + parts[at]
                live = relevant.flatten(1).any(dim=1)
                relevant[live] = relevant[live] + self.thought(layer, relevant[live])
                for at, site in enumerate(sites):
                    if site.layer == layer and site.kind == "mlp_out":
                        relevant[at] = relevant[at] + parts[at]
        return relevant

    @gradients()
    def attended(self, layer: int, relevant: Streams) -> Streams:
        """What attention makes of parts of its stream: the pattern and the norms as they are, so linear."""
        if not len(relevant):
            return relevant
        site = Site("attn_out", layer)
        stream = self.before[layer].expand_as(relevant).clone().requires_grad_()
        modules = self.blocks.model.architecture.modules
        with eager_attention(modules), following(self.blocks.model, LINEAR):  # whose slope has a slope
            out = self.blocks.read(layer, stream, ["attn_out"])[site]
        way = torch.zeros_like(
            out, requires_grad=True
        )  # the slope is linear in it: its own slope goes forward
        (back,) = torch.autograd.grad(out, stream, way, create_graph=True)
        (found,) = torch.autograd.grad(back, way, relevant)
        self.steps += 3 * len(relevant) / self.blocks.model.n_layers / 2
        return found.detach()

    @torch.no_grad()
    def thought(self, layer: int, relevant: Streams) -> Streams:
        """What the MLP makes of parts of its stream: its output less that of the rest."""
        if not len(relevant):
            return relevant
        model, site = self.blocks.model, Site("mlp_out", layer)
        norm: Any = model.architecture.module(layer, "resid_mid", "resid_mid")
        stream = self.before[layer].expand_as(relevant)
        taken = partial(_without, norm, FrozenNorm.measured(norm, self.middle[layer][0, :1]), relevant)
        whole = self.blocks.read(layer, self.before[layer], ["mlp_out"])[site]
        handle = norm.register_forward_hook(taken)
        try:
            rest = self.blocks.read(layer, stream, ["mlp_out"])[site]
        finally:
            handle.remove()
        self.steps += len(relevant) / model.n_layers
        return whole - rest

    def read(self, parts: Float[Tensor, "copy d_model"], pair: Any) -> Float[Tensor, " copy"]:
        """What parts of the final stream add to the logit difference, the final norm's scale held.

        Args:
            parts: at the last token.
            pair: the answers and foils of this prompt.
        """
        stream = self.before[-1][:, -1]
        return Readout.of(self.blocks.model, stream, Targets.of(pair, stream.device))(parts)


def _without(
    norm: nn.Module, frozen: FrozenNorm, relevant: Tensor, module: nn.Module, args: Any, out: Tensor
) -> Tensor:
    """The norm's output less what parts of its input make of it, at the scale of the whole."""
    scale, off = frozen.scale(args[0], out)
    if not off <= TOLERANCE.get(out.dtype, 0.05):
        raise ModelError(
            f"{type(norm).__name__} is neither a layer norm nor an RMS norm (it differs by {off:.1e}), so "
            "its scale cannot be held. Use the search 'attribution'."
        )
    return out - (frozen.moved(relevant.double().view(out.shape)) / scale[..., None]).to(out.dtype)
