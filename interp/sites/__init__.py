"""Name a point in the computation: ``kind.layer[.index]``, with the equation each kind stands for.

A site is an equation, not a module path (``+`` is exact up to the rounding of the model's own dtype):

```
resid_pre.0 = embed                                  resid_pre.(l+1) = resid_post.l
resid_mid.l = resid_pre.l + attn_out.l               sequential blocks only
resid_post.l = resid_pre.l + attn_out.l + mlp_out.l
o_proj(z.l) = sum over h of head.l.h + bias          head.l.h = W_O[h] z.l.h, before post-norm and multiplier
attn_out.l = postnorm(o_proj(z.l)) * multiplier      identity where the family has neither
mlp_out.l = postnorm(down_proj(mlp_act.l)) * multiplier
neuron.l.n = mlp_act.l[..., n]
q.l k.l v.l                                          projection outputs, before q_norm/k_norm and rotation
z.l.h = gate.l.h * sum over keys of pattern.l.h * v.l.group(h)     most have no gate; Gemma 4 norms v
final_norm, logits                                   logits after scale and softcap, as the model returns them
mlp_out.l = postnorm(sum over e of expert.l.e + shared_expert.l) * multiplier        mixtures of experts
expert.l.e = what routed expert e gives, times its weight; zero where it is not chosen
feature.l.i = dictionary.encode(its site)[..., i]    of a sparse dictionary that the model was given
error.l = its site - dictionary.decode(feature.l)    what the features leave out
mixer_out.l in place of attn_out.l                   what a recurrence, a convolution or linear attention adds
```

Blocks need not be alike: a site exists in layers that have its modules, and a sum has the terms there are.

Layers are 0-based blocks. Positions are never part of a name. Shapes, with ``...`` the positions asked for:

* ``embed resid_* attn_out mixer_out mlp_out head expert shared_expert final_norm``: ``[..., d_model]``;
* ``logits``: ``[..., vocab]``;
* ``q z``: ``[..., head, d_head]``; ``k v``: ``[..., kv head, d_head]``; with an index: ``[..., d_head]``;
* ``pattern``: ``[..., head, key position]``, the query position being the position axis;
* ``router``: ``[..., expert]``, the logits that experts are chosen by, before any bias that only chooses;
* ``feature``: ``[..., feature]``; ``feature.l.i``: ``[..., 1]``; ``error``: ``[..., width of its site]``;
* ``mlp_act``: ``[..., neuron]``; ``neuron.l.n``: ``[..., 1]``.
"""

from __future__ import annotations

from interp.sites.patterns import Anatomy, Dimensions, expand, parse_layers
from interp.sites.site import KINDS, OF_DICTIONARIES, READ_ONLY, Kind, Site, transformer_lens_name

__all__ = [
    "KINDS",
    "OF_DICTIONARIES",
    "READ_ONLY",
    "Anatomy",
    "Dimensions",
    "Kind",
    "Site",
    "attn_out",
    "embed",
    "error",
    "expand",
    "expert",
    "feature",
    "final_norm",
    "head",
    "k",
    "logits",
    "mixer_out",
    "mlp_act",
    "mlp_out",
    "neuron",
    "parse_layers",
    "pattern",
    "q",
    "resid_mid",
    "resid_post",
    "resid_pre",
    "router",
    "shared_expert",
    "transformer_lens_name",
    "v",
    "z",
]


def embed() -> Site:
    """Name the residual stream that enters block 0."""
    return Site("embed")


def resid_pre(layer: int) -> Site:
    """Name the residual stream that enters a block."""
    return Site("resid_pre", layer)


def resid_mid(layer: int) -> Site:
    """Name the residual stream between attention and MLP of a sequential block."""
    return Site("resid_mid", layer)


def resid_post(layer: int) -> Site:
    """Name the residual stream that leaves a block."""
    return Site("resid_post", layer)


def attn_out(layer: int) -> Site:
    """Name what attention adds to the residual stream."""
    return Site("attn_out", layer)


def mixer_out(layer: int) -> Site:
    """Name what a mixer other than attention adds to the residual stream."""
    return Site("mixer_out", layer)


def mlp_out(layer: int) -> Site:
    """Name what the MLP adds to the residual stream."""
    return Site("mlp_out", layer)


def mlp_act(layer: int) -> Site:
    """Name the input of the MLP's down projection."""
    return Site("mlp_act", layer)


def neuron(layer: int, index: int) -> Site:
    """Name one coordinate of ``mlp_act``."""
    return Site("neuron", layer, index)


def router(layer: int) -> Site:
    """Name the logits by which a router chooses experts."""
    return Site("router", layer)


def expert(layer: int, index: int) -> Site:
    """Name one routed expert's part of ``mlp_out``, its weight included."""
    return Site("expert", layer, index)


def feature(layer: int, index: int | None = None) -> Site:
    """Name one feature of a layer's dictionary, or all of them."""
    return Site("feature", layer, index)


def error(layer: int) -> Site:
    """Name what a layer's dictionary leaves out."""
    return Site("error", layer)


def shared_expert(layer: int) -> Site:
    """Name the part of ``mlp_out`` that every token gets, its gate included."""
    return Site("shared_expert", layer)


def q(layer: int, index: int | None = None) -> Site:
    """Name the query projection's output, of one head or of all."""
    return Site("q", layer, index)


def k(layer: int, index: int | None = None) -> Site:
    """Name the key projection's output, of one key-value head or of all."""
    return Site("k", layer, index)


def v(layer: int, index: int | None = None) -> Site:
    """Name the value projection's output, of one key-value head or of all."""
    return Site("v", layer, index)


def z(layer: int, index: int | None = None) -> Site:
    """Name the mix of values that a head passes to the output projection."""
    return Site("z", layer, index)


def head(layer: int, index: int) -> Site:
    """Name one head's part of the output projection, ``W_O[h] z.l.h``."""
    return Site("head", layer, index)


def pattern(layer: int, index: int | None = None) -> Site:
    """Name the attention probabilities, of one head or of all."""
    return Site("pattern", layer, index)


def final_norm() -> Site:
    """Name the output of the final norm."""
    return Site("final_norm")


def logits() -> Site:
    """Name the logits as the model returns them."""
    return Site("logits")
