"""A family row applied to one loaded model: which module, which side of it, which part of its tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from interp.errors import ModelError, SiteError
from interp.models.families import Family
from interp.models.tensor_views import Fused, HeadOutput, Heads, Neuron, Pattern, Scaled, Shifted, View, Whole
from interp.sites import KINDS, READ_ONLY, Site

__all__ = ["Architecture", "Location"]


@dataclass(frozen=True, eq=False)
class Location:
    """Say where one site is: a module, its input or its output, and the view that cuts the site out.

    Attributes:
        module: the module to hook.
        side: "in" for its first argument, "out" for its output.
        view: how to cut the site out of that tensor and to put it back.
        slot: which element, where the output is a tuple.
        base: a block whose input the view needs as ``given``; None gives it the hooked module's own input.
    """

    module: nn.Module
    side: Literal["in", "out"]
    view: View
    slot: int = 0
    base: nn.Module | None = None


class Tree:
    """Remember a model's modules, and notice when one of them got other children."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._walk()

    def _walk(self) -> None:
        self._modules = list(self._root.modules())
        self._dicts = [module._modules for module in self._modules]
        self._parameters = [module._parameters for module in self._modules]
        self._children = list(chain.from_iterable(map(dict.values, self._dicts)))

    def modules(self) -> Sequence[nn.Module]:
        """Return every module below and including the root."""
        if list(chain.from_iterable(map(dict.values, self._dicts))) != self._children:
            self._walk()
        return self._modules

    def parameters(self) -> Sequence[nn.Parameter]:
        """Return every parameter as of the last call of ``modules``."""
        return [p for p in chain.from_iterable(map(dict.values, self._parameters)) if p is not None]


@dataclass(frozen=True, eq=False)
class Architecture:
    """Resolve the sites of one model.

    Attributes:
        hf: the Hugging Face model, untouched.
        family: the row in use.
        name: what messages call the model.
        disabled: kind of site to the reason why this model does not offer it.
    """

    hf: PreTrainedModel
    family: Family
    name: str
    disabled: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The blocks in order."""
        found = _get(self.hf, self.family.blocks)
        if not isinstance(found, nn.ModuleList) or not len(found):
            raise ModelError(
                f"family row {self.family.name!r} expects the blocks of {self.name!r} at "
                f"{self.family.blocks!r}, but found {type(found).__name__}. "
                "Pass family={'blocks': '...'} with the path of the block list."
            )
        return found

    @property
    def modules(self) -> Sequence[nn.Module]:
        """Every module of the model; walking the tree again only after a module was added or replaced."""
        return self.tree.modules()

    @cached_property
    def tree(self) -> Tree:
        """The model's modules and parameters, remembered."""
        return Tree(self.hf)

    def check(self, kinds: Iterable[str]) -> None:
        """Refuse kinds that this model does not offer.

        Raises:
            SiteError: names the reason and the kinds there are.
        """
        for kind in kinds:
            if kind in self.disabled:
                raise SiteError(f"{self.disabled[kind]} Its sites: {', '.join(self.kinds)}.")

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the input embedding is, or is brought to when it runs, and prompts must go."""
        found = self.embedding.weight.device
        if found.type != "meta":
            return found
        hook = getattr(self.embedding, "_hf_hook", None)  # accelerate keeps the weights elsewhere
        return torch.device(getattr(hook, "execution_device", None) or "cpu")

    @property
    def embedding(self) -> nn.Embedding:
        """The input embedding."""
        found = self.hf.get_input_embeddings()
        assert isinstance(found, nn.Embedding)
        return found

    @cached_property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(_number(self, "hidden_size", "n_embd", "d_model"))

    @cached_property
    def n_heads(self) -> int:
        """Query heads per block."""
        return int(_number(self, "num_attention_heads", "n_head", "num_heads", "n_heads"))

    @cached_property
    def d_head(self) -> int:
        """Width of a head, measured on the output projection."""
        width = in_features(_get(self.blocks[0], self.family.out_projection))
        return width // self.n_heads if width else self.d_model // self.n_heads

    @cached_property
    def n_kv_heads(self) -> int:
        """Key-value heads per block, measured on the projection."""
        family = self.family
        if family.layout == "separate":
            width = out_features(_get(self.blocks[0], family.k))
            return width // self.d_head if width else self.n_heads
        width = out_features(_get(self.blocks[0], family.qkv))
        return max(1, (width // self.d_head - self.n_heads) // 2) if width else self.n_heads

    @cached_property
    def d_mlp(self) -> int:
        """Neurons per block, measured on the down projection; 0 where there is none."""
        return in_features(_get(self.blocks[0], self.family.down_projection)) or 0

    @cached_property
    def vocab_size(self) -> int:
        """Number of tokens the model embeds."""
        return int(self.embedding.weight.shape[0])

    @cached_property
    def multiplier(self) -> float:
        """The factor on both contributions."""
        return float(getattr(self._text_config, self.family.multiplier)) if self.family.multiplier else 1.0

    @cached_property
    def parallel(self) -> bool:
        """Whether attention and MLP read the same stream."""
        if self.family.parallel:
            return bool(getattr(self._text_config, self.family.parallel))
        return not self.family.resid_mid

    @property
    def _text_config(self) -> object:
        return self.hf.config.get_text_config()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of site this model offers."""
        return tuple(kind for kind in KINDS if kind not in self.disabled)

    def module(self, layer: int, path: str, kind: str) -> nn.Module:
        """Return a module of a block, or say that this block does not have it."""
        found = _get(self.blocks[layer], path) if path else None
        if found is None:
            raise SiteError(
                f"{self.name!r} has no '{kind}' in layer {layer}. Its sites: {', '.join(self.kinds)}."
            )
        return found

    def locate(self, site: Site, *, write: bool = False) -> Location:
        """Find a site, to read it or to write it.

        Raises:
            SiteError: this model does not offer the kind, or it can only be read.
        """
        known = self._located.get((site, write))
        if known is None:
            known = self._located[site, write] = self._checked(site, write)
        return known

    @cached_property
    def _located(self) -> dict[tuple[Site, bool], Location]:
        return {}

    def _checked(self, site: Site, write: bool) -> Location:
        self.check([site.kind])
        if write and site.kind in READ_ONLY:
            raise SiteError(
                f"'{site}' can be read but not written. Write resid_post, attn_out, z or another site."
            )
        return self._locate(site, write)

    def _locate(self, site: Site, write: bool) -> Location:
        family, layer, index, kind = self.family, site.layer or 0, site.index, site.kind
        match kind:
            case "embed" | "resid_pre":
                return Location(self.blocks[layer], "in", Whole())
            case "resid_post":
                return Location(self.blocks[layer], "out", Whole())
            case "attn_out" | "mlp_out":
                return Location(self.module(layer, getattr(family, kind), kind), "out", self._contribution)
            case "resid_mid" if write:
                attn_out = self.module(layer, family.attn_out, kind)
                return Location(attn_out, "out", Shifted(self._contribution), base=self.blocks[layer])
            case "resid_mid":
                return Location(self.module(layer, family.resid_mid, kind), "in", Whole())
            case "z":
                return Location(self._out_projection(layer, kind), "in", Heads(self.n_heads, index))
            case "head":
                projection = self._out_projection(layer, kind)
                return Location(projection, "out", HeadOutput(projection, self.n_heads, index or 0))
            case "q" | "k" | "v":
                return self._locate_qkv(kind, layer, index)
            case "pattern":
                return Location(self.module(layer, family.attention, kind), "out", Pattern(index), slot=1)
            case "mlp_act":
                return Location(self.module(layer, family.down_projection, kind), "in", Whole())
            case "neuron":
                return Location(self.module(layer, family.down_projection, kind), "in", Neuron(index or 0))
            case "final_norm":
                return Location(self._final_norm(), "out", Whole())
        raise SiteError(f"'{site}' is not read by a hook.")

    @property
    def _contribution(self) -> View:
        return Whole() if self.multiplier == 1.0 else Scaled(self.multiplier)

    def _out_projection(self, layer: int, kind: str) -> nn.Module:
        return self.module(layer, self.family.out_projection, kind)

    def _locate_qkv(self, kind: Literal["q", "k", "v"], layer: int, index: int | None) -> Location:
        family = self.family
        if family.layout == "separate":
            heads = self.n_heads if kind == "q" else self.n_kv_heads
            return Location(self.module(layer, getattr(family, kind), kind), "out", Heads(heads, index))
        view = Fused(family.layout, self.n_heads, self.n_kv_heads, kind, index)
        return Location(self.module(layer, family.qkv, kind), "out", view)

    def _final_norm(self) -> nn.Module:
        found = _get(self.hf, self.family.final_norm) if self.family.final_norm else None
        if found is None:
            raise SiteError(f"{self.name!r} has no final norm. Its sites: {', '.join(self.kinds)}.")
        return found


def _number(architecture: Architecture, *names: str) -> int:
    config = architecture.hf.config.get_text_config()
    for name in names:
        if isinstance(value := getattr(config, name, None), int):
            return value
    raise ModelError(f"the configuration of {architecture.name!r} has none of {', '.join(names)}.")


def _get(root: nn.Module, path: str) -> nn.Module | None:
    found: object = root
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, nn.Module) else None


def in_features(module: nn.Module | None) -> int | None:
    """Return the input width of a linear layer of any make, or None."""
    for name in ("in_features", "nx"):
        if isinstance(size := getattr(module, name, None), int):
            return size
    return None


def out_features(module: nn.Module | None) -> int | None:
    """Return the output width of a linear layer of any make, or None."""
    for name in ("out_features", "nf"):
        if isinstance(size := getattr(module, name, None), int):
            return size
    return None
