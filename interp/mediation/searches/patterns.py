"""What replaced queries and keys do to attention: patterns computed anew instead of a slope through softmax.

A pattern is ``p[t, i]``, the softmax over keys i of the scores of query t, and a head's output is
``z[t] = sum p[t, i] v[i]``. So a changed pattern moves the metric by ``sum (p' - p)[t, i] * g[t, i]`` with
``g[t, i] = dY/dz[t] . v[i]``, to first order in what comes after (Kramar et al. 2024, arXiv 2403.00745).
The model itself computes ``p'``: every layer reads its own unchanged stream and gets the new queries or keys,
so rotary embeddings, norms of queries and keys, caps on scores, windows and biases need no code here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.experiment import Experiment
from interp.mediation.mediators import Place
from interp.mediation.partial_forward import within
from interp.models.attention import attention_error
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.models.rounding import tolerance
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["Attention", "key_effects", "pattern_slope"]

Patterns = Float[Tensor, "row head query key"]


def pattern_slope(
    z_slope: Float[Tensor, "row pos head d_head"], v: Float[Tensor, "row pos group d_head"]
) -> Patterns:
    """The slope of the metric in each attention probability, ``dY/dz[t] . v[i]``.

    Args:
        z_slope: the metric's gradient at ``z``.
        v: the values; a group's are shared by consecutive heads.
    """
    shared = v.repeat_interleave(z_slope.shape[2] // v.shape[2], dim=2)
    return torch.einsum("rthd,rihd->rhti", z_slope.double(), shared.double())


def key_effects(pattern: Patterns, weight: Patterns, slope: Patterns) -> Patterns:
    """Give, for each query and key, the effect of giving that key alone another score.

    With ``p' = weight / (weight + sum of the others)`` the others keep their proportions, so the effect is
    ``p' g + (1 - p') * (mean of g over the others) - sum p g``: softmax in closed form, for all keys at once.

    Args:
        pattern: ``p``.
        weight: of each key alone ``p exp(change of its score)``, in the scale in which ``p`` sums to one.
        slope: ``g``, the metric's slope in each probability.
    """
    others = _without_own(pattern)
    share = weight / (weight + others).clamp_min(torch.finfo(weight.dtype).tiny)
    elsewhere = _without_own(pattern * slope) / others.clamp_min(torch.finfo(others.dtype).tiny)
    before = (pattern * slope).sum(dim=-1, keepdim=True)
    found = share * slope + (1 - share) * elsewhere - before
    return torch.where(others > 0, found, 0.0)


def _without_own(values: Patterns) -> Patterns:
    """Sum over all other keys, by adding only: no digits are lost where one key has nearly everything."""
    left = values.cumsum(dim=-1).roll(1, dims=-1)
    right = values.flip(-1).cumsum(dim=-1).flip(-1).roll(-1, dims=-1)
    left[..., 0], right[..., -1] = 0.0, 0.0
    return left + right


def _refuse_other_mixes(model: Model, layer: int, read: Mapping[Site, Tensor]) -> None:
    """Refuse a layer whose heads do not give the values mixed by the pattern alone.

    Raises:
        ConfigError: a gate, a norm or a clip stands between, which the slope in the pattern leaves out.
    """
    found = (read[Site(kind, layer)].float() for kind in ("pattern", "z", "v"))
    if attention_error(*found) > 10 * tolerance(model.dtype):
        raise ConfigError(
            f"atp-star estimates queries and keys where a head gives its pattern times its values; in layer "
            f"{layer} of {model.name!r} a gate, a norm or a clip stands between. Use search 'exhaustive' or "
            "'attribution' for them."
        )


@dataclass(frozen=True, eq=False)
class Attention:
    """The unchanged streams, queries, keys, values and patterns of some prompts.

    Attributes:
        experiment: the model and the replacement.
        tokens: the prompts.
        read: site -> ``[row pos ...]``.
    """

    experiment: Experiment
    tokens: Tokens
    read: Mapping[Site, Tensor]

    @classmethod
    def of(cls, experiment: Experiment, tokens: Tokens, places: Sequence[Place]) -> Attention:
        """Read everything in one pass.

        Args:
            experiment: the model and the replacement.
            tokens: the prompts.
            places: queries and keys that will be replaced.
        """
        layers = sorted({place.carrier.layer or 0 for place in places})
        sites = [Site(kind, layer) for layer in layers for kind in ("resid_pre", "v", "pattern")]
        sites += sorted({place.carrier for place in places})
        mixes = [Site("z", layer) for layer in layers]
        captured = experiment.model.capture(tokens, [str(site) for site in (*sites, *mixes)], "all")
        read = {site: captured[str(site)] for site in (*sites, *mixes)}
        for layer in layers:
            _refuse_other_mixes(experiment.model, layer, read)
        return cls(experiment, tokens, {site: read[site] for site in sites})

    def slope(self, layer: int, z_slope: Tensor) -> Patterns:
        """The metric's slope in each probability of a layer."""
        return pattern_slope(z_slope, self.read[Site("v", layer)])

    def pattern(self, layer: int) -> Patterns:
        """The unchanged pattern of a layer, as float64."""
        return self.read[Site("pattern", layer)].double().transpose(1, 2)

    def moved(
        self, places: Sequence[Place], sources: Mapping[Site, Tensor], parity: int | None = None
    ) -> dict[Place, Patterns]:
        """Each place's pattern after its queries or keys are replaced; one place per layer at most.

        Args:
            places: what is replaced, each in its own layer; layers do not see each other's changes.
            sources: carrier -> the replacement's source values of these prompts, ``[row pos ...]``.
            parity: replace even (0) or odd (1) positions only; None for all.
        """
        streams = [Site("resid_pre", place.carrier.layer) for place in places]
        edits = [Intervention(site, self.read[site]) for site in streams]
        edits += [self._edit(place, sources[place.carrier], parity) for place in places]
        names = {place: f"pattern.{place.carrier.layer}" for place in places}
        run = self.experiment.model.run(
            self.tokens, interventions=edits, capture=list(names.values()), positions="all", logits="none"
        )
        assert run.activations is not None
        return {place: run.activations[name].double().transpose(1, 2) for place, name in names.items()}

    def weights(
        self, places: Sequence[Place], sources: Mapping[Site, Tensor]
    ) -> tuple[dict[Place, Patterns], int]:
        """``p exp(change of score)`` for each key replaced alone, and how many could not be read.

        Two runs replace the keys at even and at odd positions. In each, the ratio of a replaced key's
        probability to that of one that stayed is free of the normaliser. It cannot be read where the keys
        that stayed have no probability left in floating point; such a key counts as unchanged.
        """
        found = {place: self.pattern(place.carrier.layer or 0).clone() for place in places}
        lost = 0
        for parity in (0, 1):
            for place, moved in self.moved(places, sources, parity).items():
                before = self.pattern(place.carrier.layer or 0)
                stayed = torch.arange(before.shape[-1], device=before.device) % 2 != parity
                both = (before * moved).masked_fill(~stayed, -1.0)
                at = both.argmax(dim=-1, keepdim=True)
                usable = both.gather(-1, at) > 0
                scale = before.gather(-1, at) / moved.gather(-1, at)
                found[place] = torch.where(usable & ~stayed, moved * scale, found[place])
                unread = ~usable & ~stayed & ((moved - before).abs() > 1e-6)
                lost += int(unread.sum())
        return found, lost

    def _edit(self, place: Place, source: Tensor, parity: int | None) -> Intervention:
        current = self.read[place.carrier]
        site, index = place.carrier, place.index
        if isinstance(index, int):
            current, source, site = (
                current[:, :, index],
                source[:, :, index],
                Site(site.kind, site.layer, index),
            )
        new = within(place.subspace, current, source.to(current), self.experiment.replacement.rule)
        if parity is not None:
            chosen = torch.arange(new.shape[1], device=new.device) % 2 == parity
            new = torch.where(chosen.view(1, -1, *[1] * (new.ndim - 2)), new, current)
        return Intervention(site, new)
