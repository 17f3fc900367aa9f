r"""One prompt's run made linear between its parts: attention and norms held, activations as ratios.

Everything that is added to the residual stream is a *source*: embeddings, heads, neurons (or features), and
what is left of each MLP. Every part that reads the stream is a *reading*, whose value is a linear function of
the stream once the patterns of attention and the scales of norms count as constants:

    neuron.l.n   its activation, as ``ratio * pre-activation``; of a gated MLP the product of both factors is
                 shared out between them, half the gradient each, so that shares add up to the activation
    feature.l.i  its activation; a feature that is 0 reads nothing
    head.l.h     ``c . W_O[h] z.h``, what the head writes along c, the gradient of the output with respect to
                 what attention adds there, under the same rule. It reads through its values alone (OV): that
                 queries and keys decide where it looks is held
    heads.l, rest.l
                 several heads, or neurons, of a block at one token: ``c . `` what they write together
    output       a token's logit less the mean of all logits, or less a foil's

The weight of an edge is ``A[s -> t] = write(s) . gradient(t)`` (Ameisen et al. 2025, "Circuit Tracing", with
heads as nodes of their own), and exactly

    value(t) = sum over s of A[s -> t] + bias(t)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.mediation.backward_rules import BackwardRule, following
from interp.mediation.graphs.outputs import Outputs
from interp.mediation.graphs.sources import SEVERAL, Source, Sources, check, effect_of, read_sources
from interp.models.forward import gradients
from interp.models.model import Model
from interp.sites import Site

__all__ = ["RULE", "FrozenRun", "Reading"]

RULE = BackwardRule(
    description="norms and patterns held, activations as ratios, products shared out",
    hold_norms=True,
    ratios=True,
    q=0.0,
    k=0.0,
    product=0.5,
)


@dataclass(frozen=True, eq=False)
class Reading:
    """What one part reads.

    Attributes:
        source: the part, where it writes too; None for an output.
        output: the number of the output; None for another part.
        site: the stream that it reads.
        reach: the span of sources that have been written by then, and not been read into features since.
        slope: ``[pos d_model]``, with respect to that stream.
        value: of the part.
        bias: what of it comes from no source.
        weights: ``[source]`` of that span.
        along: of a head or a group: what ``z`` or ``mlp_act`` at its token is multiplied by.
    """

    source: Source | None
    output: int | None
    site: Site
    reach: slice
    slope: Float[Tensor, "pos d_model"]
    value: float
    bias: float
    weights: Float[Tensor, " source"]
    along: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FrozenRun:
    """A run whose graph is kept.

    Attributes:
        model: what ran.
        ids: the prompt.
        outputs: what is explained.
        values: site -> its value, a node of the graph.
        sources: all that is written.
        along: ``attn_out.l`` and ``mlp_out.l`` -> ``[pos d_model]``, the gradient of the output there.
        measured: ``[output]``, their values.
    """

    model: Model
    ids: tuple[int, ...]
    outputs: Outputs
    values: Mapping[Site, Tensor]
    sources: Sources
    along: Mapping[Site, Tensor]
    measured: Tensor
    known: dict[Source | int, Reading] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Model,
        ids: Sequence[int],
        outputs: Outputs,
        *,
        neurons: int = 64,
        alone: float = 0.0,
        frozen: bool = True,
    ) -> FrozenRun:
        """Run a prompt.

        Args:
            model: what is run.
            ids: the prompt.
            outputs: what is explained.
            neurons: of each MLP without dictionary, over all tokens: at most so many that matter most to
                first order are sources of their own.
            alone: first-order effect from which on a head or neuron is a source of its own, as a share of
                the output; the others of its block at a token are one source.
            frozen: False for the model's own gradient, with nothing held: a control.

        Raises:
            SiteError: the model does not offer a site that is needed.
            ModelError: a part of it cannot be made linear, or its parts do not add up.
        """
        check(model)
        sites = _sites(model)
        rule = RULE if frozen else BackwardRule(description="nothing held")
        with following(model, rule), gradients():
            run = model.run([list(ids)], capture=sites, positions="all", grad=True)
            assert run.activations is not None and run.logits is not None
            values = {site: run.activations[str(site)] for site in sites}
            measured = outputs.values(run.logits[0])
            total = (measured * outputs.weights.to(measured)).sum()
            wanted = [s for s in sites if s.kind in ("attn_out", "mlp_out")]
            slopes = torch.autograd.grad(total, [values[s] for s in wanted], retain_graph=True)
        by_site = {site: one[0].detach() for site, one in zip(wanted, slopes, strict=True)}
        read = {site: one[0].detach() for site, one in values.items()}
        sources = read_sources(model, ids, read, by_site, neurons, alone * abs(float(total.detach())))
        return cls(model, tuple(ids), outputs, values, sources, by_site, measured)

    def reading(self, part: Source | int, *, kept: bool = True) -> Reading:
        """What a head, neuron or feature reads, or the output of that number.

        Args:
            part: which.
            kept: whether it is kept for the next call; of thousands of parts that takes gigabytes.
        """
        if part in self.known:
            return self.known[part]
        found = self._output(part) if isinstance(part, int) else self._part(part)
        if kept:
            self.known[part] = found
        return found

    def _output(self, number: int) -> Reading:
        site = Site("resid_post", self.model.n_layers - 1)
        slope = self._slope(self.measured[number], None, site)
        return self._made(None, number, site, slope, float(self.measured[number].detach()))

    def _part(self, part: Source) -> Reading:
        site, layer = part.reads(self.model), part.layer or 0
        if part.kind in SEVERAL:
            values = self.values[Site(SEVERAL[part.kind], layer)]
            along = self._through(part)
            seed = torch.zeros_like(values)
            seed[0, part.position] = along
            value = float((values[0, part.position].detach() * along).sum())
            return self._made(part, None, site, self._slope(values, seed, site), value, along)
        kind = "mlp_act" if part.kind == "neuron" else "feature"
        values = self.values[Site(kind, layer)]
        seed = torch.zeros_like(values)
        seed[0, part.position, part.index] = 1.0
        value = float(values[0, part.position, part.index].detach())
        return self._made(part, None, site, self._slope(values, seed, site), value)

    def _through(self, part: Source) -> Tensor:
        """What ``z`` or ``mlp_act`` at its token is multiplied by: the output's gradient, of this part."""
        layer, site = part.layer or 0, part.adds_to(self.model)
        values = self.values[Site(SEVERAL[part.kind], layer)][0]
        slope = self.along[site]
        along = effect_of(self.model, layer, site.kind, values, slope)[part.position]
        return along * self.sources.members(part, along)

    def _slope(self, value: Tensor, seed: Tensor | None, site: Site) -> Tensor:
        with gradients():
            (found,) = torch.autograd.grad(value, self.values[site], seed, retain_graph=True)
        return found[0].double()

    def _made(
        self,
        source: Source | None,
        output: int | None,
        site: Site,
        slope: Tensor,
        value: float,
        along: Tensor | None = None,
    ) -> Reading:
        if not bool(slope.isfinite().all()):
            raise ModelError(f"the gradient of '{source or 'output'}' in {self.model.name!r} is not finite.")
        reach = self.sources.reach(site, source)
        weights = self.sources.carried(slope, reach)
        own = value - float((slope * self.values[site][0].detach().double()).sum())
        bias = own + self.sources.carried_bias(slope, reach)
        return Reading(source, output, site, reach, slope, value, bias, weights, along)


def _sites(model: Model) -> list[Site]:
    kinds = ["resid_pre", "attn_out", "z", "mlp_out", "mlp_act"]
    if not model.architecture.parallel:
        kinds.append("resid_mid")
    found = [Site(kind, layer) for layer in range(model.n_layers) for kind in kinds]
    for layer in model.dictionaries:
        found += [Site("feature", layer), Site("error", layer), Site("resid_post", layer)]
    return sorted({*found, Site("resid_post", model.n_layers - 1)})
