"""A family row applied to one loaded model: which module, which side of it, which part of its tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.errors import ModelError, SiteError
from interp.features.dictionary import Dictionary
from interp.models.expert_views import ExpertOutput, ExpertSlice, Gated, Routed
from interp.models.families import Family
from interp.models.feature_views import FeatureView
from interp.models.tensor_views import (
    Fused,
    HeadOutput,
    Heads,
    Neuron,
    Pattern,
    Scaled,
    Shifted,
    Stream,
    View,
    Whole,
)
from interp.sites import KINDS, OF_DICTIONARIES, READ_ONLY, Anatomy, Site

__all__ = ["Architecture", "Location"]


@dataclass(frozen=True, eq=False)
class Location:
    """Where one site is: a module, its input or its output, and the view that cuts the site out.

    Attributes:
        module: the module to hook.
        side: "in" for its first argument, "out" for its output.
        view: how to cut the site out of that tensor and to put it back.
        slot: which element, where the output is a tuple.
        base: a module whose input the view needs as ``given``; None gives it the hooked module's own input.
        base_side: "out" where it needs that module's output instead.
        before: of a cross-layer transcoder's site, its features of earlier layers, which write here too.
        onward: where a change of its features is added besides, layer by layer.
    """

    module: nn.Module
    side: Literal["in", "out"]
    view: View
    slot: int = 0
    base: nn.Module | None = None
    base_side: Literal["in", "out"] = "in"
    before: tuple[Location, ...] = ()
    onward: tuple[Location, ...] = ()


_FIELDS = {
    **{kind: kind for kind in ("attn_out", "mixer_out", "mlp_out", "q", "k", "v")},
    **dict.fromkeys(("z", "head"), "out_projection"),
    **dict.fromkeys(("mlp_act", "neuron"), "down_projection"),
    **{"router": "router", "expert": "experts", "shared_expert": "shared_expert"},
}
"""Kind of site to the field of the row that names its module."""


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
        """Every module below and including the root."""
        if list(chain.from_iterable(map(dict.values, self._dicts))) != self._children:
            self._walk()
        return self._modules

    def parameters(self) -> Sequence[nn.Parameter]:
        """Every parameter as of the last call of ``modules``."""
        return [p for p in chain.from_iterable(map(dict.values, self._parameters)) if p is not None]


@dataclass(frozen=True, eq=False)
class Architecture:
    """Resolve the sites of one model.

    Attributes:
        hf: the Hugging Face model, untouched.
        family: the row in use.
        name: what messages call the model.
        disabled: kind of site to the reason why this model does not offer it.
        dictionaries: layer to the dictionary whose features are sites there.
    """

    hf: PreTrainedModel
    family: Family
    name: str
    disabled: Mapping[str, str] = field(default_factory=dict)
    dictionaries: Mapping[int, Dictionary] = field(default_factory=dict)

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
    def offloaded(self) -> bool:
        """Whether some weights are kept elsewhere (accelerate) and brought in when their module runs."""
        return any(parameter.is_meta for parameter in self.hf.parameters())

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
        if isinstance(found, nn.Embedding):
            return found
        inner = getattr(found, "base_layer", None) or getattr(found, "original_module", None)
        if isinstance(inner, nn.Module):
            raise ModelError(
                f"{self.name!r} has an adapter on its input embedding ({type(found).__name__}), which is not "
                "supported: load `model.merge_and_unload()`, where the adapter can be merged."
            )
        raise ModelError(f"the input embedding of {self.name!r} is no table but {type(found).__name__}.")

    @cached_property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(_number(self, "hidden_size", "n_embd", "d_model"))

    @cached_property
    def n_heads(self) -> int:
        """Query heads of the first block that has attention; 0 where none has."""
        return next(filter(None, self.anatomy.heads), 0)

    @cached_property
    def d_head(self) -> int:
        """Width of one of those heads, measured on the output projection."""
        return next(filter(None, map(self.head_width, range(self.n_layers))), 0)

    @cached_property
    def n_kv_heads(self) -> int:
        """Key-value heads of that block, measured on the projection."""
        return next(filter(None, self.anatomy.kv_heads), 0)

    @cached_property
    def d_mlp(self) -> int:
        """Neurons of the first block that has a down projection, measured on it; 0 where none has."""
        return next(filter(None, self.anatomy.neurons), 0)

    @cached_property
    def anatomy(self) -> Anatomy:
        """The heads and neurons of every block, and the layers of kinds that not every block has."""
        layers = range(self.n_layers)
        kinds = [kind for kind, row in KINDS.items() if row.layered and kind not in self.disabled]
        there = [(kind, tuple(layer for layer in layers if self.has(kind, layer))) for kind in kinds]
        return Anatomy(
            self.name,
            self.n_layers,
            tuple(map(self._heads, layers)),
            tuple(map(self._kv_heads, layers)),
            tuple(self._width(layer, "down_projection", in_features) for layer in layers),
            tuple((kind, found) for kind, found in there if len(found) < self.n_layers),
            tuple(map(self._experts, layers)),
            tuple(one.n_features if (one := self.dictionaries.get(n)) else 0 for n in layers),
        )

    def has(self, kind: str, layer: int) -> bool:
        """Whether a block has the modules of a kind."""
        row = self.family.row(layer)
        if kind in OF_DICTIONARIES:
            return layer in self.dictionaries
        if kind == "resid_mid":
            return not self.parallel and self.part(layer, "resid_mid") is not None
        if kind == "pattern":  # checked by the values
            attends = self.part(layer, "attention") is not None
            return attends and all(self.has(other, layer) for other in ("z", "v"))
        if kind in ("q", "k", "v") and row.layout != "separate":
            return self.part(layer, "qkv") is not None
        return kind not in _FIELDS or self.part(layer, _FIELDS[kind]) is not None

    def part(self, layer: int, field: str) -> nn.Module | None:
        """The module of a block that a field of its row names, or None."""
        path = getattr(self.family.row(layer), field)
        return _get(self.blocks[layer], path) if path else None

    def _width(self, layer: int, field: str, of: Callable[[nn.Module | None], int | None]) -> int:
        return of(self.part(layer, field)) or 0

    def _heads(self, layer: int) -> int:
        """Count query heads: by the width that the attention module itself says, or by the configuration."""
        attention, width = self.part(layer, "attention"), self._width(layer, "out_projection", in_features)
        if attention is None and not width:
            return 0
        own = (getattr(attention, name, None) for name in ("v_head_dim", "head_dim", "head_size"))
        size = next((size for size in own if isinstance(size, int) and size > 0), 0)
        return width // size if size and width and width % size == 0 else self._configured

    @property
    def _configured(self) -> int:
        names = ("num_attention_heads", "n_head", "num_heads", "n_heads")
        found = (getattr(self._text_config, name, None) for name in names)
        return next((number for number in found if isinstance(number, int)), 0)

    def head_width(self, layer: int) -> int:
        """The width of a block's heads, as their outputs are joined; 0 without heads."""
        heads = self._heads(layer)
        return (self._width(layer, "out_projection", in_features) or self.d_model) // heads if heads else 0

    def _experts(self, layer: int) -> int:
        """Count routed experts: by the module's own word, or by its weights."""
        experts = self.part(layer, "experts")
        if experts is None:
            return 0
        if isinstance(number := getattr(experts, "num_experts", None), int):
            return number
        if isinstance(experts, nn.ModuleList):
            return len(experts)
        return next((len(weight) for weight in experts.parameters() if weight.ndim == 3), 0)

    def _kv_heads(self, layer: int) -> int:
        heads, size = self._heads(layer), self.head_width(layer)
        if not heads:
            return 0
        if self.family.row(layer).layout != "separate":
            width = self._width(layer, "qkv", out_features)
            return max(1, (width // size - heads) // 2) if width else heads
        if (width := self._width(layer, "v", out_features)) and width % size == 0:
            return width // size
        width, own = (
            self._width(layer, "k", out_features),
            getattr(self.part(layer, "attention"), "head_dim", 0),
        )
        size = own if isinstance(own, int) and own else size
        return width // size or heads

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
        return not self.family.names("resid_mid")

    @property
    def _text_config(self) -> object:
        return self.hf.config.get_text_config()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of site this model offers."""
        absent = {kind for kind, layers in self.anatomy.some if not layers}
        return tuple(kind for kind in KINDS if kind not in self.disabled and kind not in absent)

    @cached_property
    def max_length(self) -> int | None:
        """Longest prompt the model reads, or None where its configuration sets no limit."""
        names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
        found = (getattr(self._text_config, name, None) for name in names)
        return next((number for number in found if isinstance(number, int)), None)

    def module(self, layer: int, field: str, kind: str) -> nn.Module:
        """The module of a block that a field of its row names, or an error that says there is none."""
        found = self.part(layer, field)
        if found is None:
            there = [other for other in range(self.n_layers) if self.part(other, field) is not None]
            where = f"these layers have it: {', '.join(map(str, there))}" if there else "no layer has it"
            raise SiteError(f"layer {layer} of {self.name!r} has no '{kind}'; {where}.")
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
            raise SiteError(f"'{site}' can be read but not written: {READ_ONLY[site.kind]}.")
        return self._locate(site, write)

    def _locate(self, site: Site, write: bool) -> Location:
        layer, index, kind = site.layer or 0, site.index, site.kind
        match kind:
            case "embed" | "resid_pre":
                return Location(self.blocks[layer], "in", self._stream)
            case "resid_post":
                return Location(self.blocks[layer], "out", self._stream)
            case "mlp_out" if (beside := self.part(layer, "beside")) is not None:
                view = Scaled(self.multiplier, offset=True)
                return Location(self.module(layer, kind, kind), "out", view, base=beside, base_side="out")
            case "attn_out" | "mixer_out" | "mlp_out":
                return Location(self.module(layer, kind, kind), "out", self._contribution)
            case "resid_mid" if write:
                first = "attn_out" if self.has("attn_out", layer) else "mixer_out"
                before = self.module(layer, first, kind)
                return Location(before, "out", Shifted(self._contribution), base=self.blocks[layer])
            case "resid_mid":
                return Location(self.module(layer, kind, kind), "in", Whole())
            case "z":
                view = Heads(self.anatomy.heads[layer], index)
                return Location(self.module(layer, "out_projection", kind), "in", view)
            case "head":
                projection = self.module(layer, "out_projection", kind)
                view = HeadOutput(projection, self.anatomy.heads[layer], index or 0)
                return Location(projection, "out", view)
            case "q" | "k" | "v":
                return self._locate_qkv(kind, layer, index)
            case "pattern":
                return Location(self.module(layer, "attention", kind), "out", Pattern(index), slot=1)
            case "mlp_act":
                return Location(self.module(layer, "down_projection", kind), "in", Whole())
            case "neuron":
                return Location(self.module(layer, "down_projection", kind), "in", Neuron(index or 0))
            case "router" | "expert" | "shared_expert":
                return self._locate_expert(kind, layer, index or 0)
            case "final_norm":
                return Location(self._final_norm(), "out", Whole())
            case "feature" | "error":
                return _located_feature(self, site, write)
        raise SiteError(f"'{site}' is not read by a hook.")

    @property
    def _stream(self) -> View:
        return Whole() if self.family.stream is None else Stream(self.family.stream)

    @property
    def _contribution(self) -> View:
        return Whole() if self.multiplier == 1.0 else Scaled(self.multiplier)

    def _locate_qkv(self, kind: Literal["q", "k", "v"], layer: int, index: int | None) -> Location:
        layout = self.family.row(layer).layout
        heads, groups = self.anatomy.heads[layer], self.anatomy.kv_heads[layer]
        if layout == "separate":
            view: View = Heads(heads if kind == "q" else groups, index)
            return Location(self.module(layer, kind, kind), "out", view)
        return Location(self.module(layer, "qkv", kind), "out", Fused(layout, heads, groups, kind, index))

    def _locate_expert(self, kind: str, layer: int, index: int) -> Location:
        row, module = self.family.row(layer), self.module(layer, _FIELDS[kind], kind)
        if kind == "router":
            return Location(module, "out", Routed(module), slot=row.router_slot)
        if kind == "shared_expert":
            gate = self.part(layer, "shared_gate")
            return Location(module, "out", Whole() if gate is None else Gated(gate))
        if row.expert_layout == "each":
            return Location(module, "out", ExpertSlice(self.anatomy.experts[layer], index))
        return Location(module, "out", ExpertOutput(module, index, self._expert_factor(layer)))

    def _expert_factor(self, layer: int) -> float:
        """What the block multiplies the experts' sum by."""
        name = self.family.row(layer).expert_multiplier
        owners = (self.part(layer, "experts"), self.part(layer, "mlp_out"), self._text_config)
        return float(next(getattr(one, name) for one in owners if hasattr(one, name))) if name else 1.0

    def _final_norm(self) -> nn.Module:
        found = _get(self.hf, self.family.final_norm) if self.family.final_norm else None
        if found is None:
            raise SiteError(
                f"the final norm of {self.name!r} was not found: pass family={{'final_norm': 'path'}}. "
                f"Its sites: {', '.join(self.kinds)}."
            )
        return found


def _located_feature(architecture: Architecture, site: Site, write: bool) -> Location:
    """Where a dictionary's features are written, and what they are read from."""
    dictionary = architecture.dictionaries[site.layer or 0]
    out = architecture.locate(dictionary.site_out, write=write)
    source, base, side = None, out.base, out.base_side
    if not dictionary.autoencodes:
        source, base, side = _source(architecture, dictionary)
    flat = dictionary.site_out.kind == "z"
    view = FeatureView(
        dictionary, out.view, source, site.kind, site.index, flat, _earlier(architecture, dictionary)
    )
    before = tuple(architecture.locate(Site("feature", layer)) for layer, _ in view.earlier)
    onward: tuple[Location, ...] = ()
    if write and site.kind == "feature":
        places = (Site(dictionary.site_out.kind, layer) for layer in dictionary.reached)
        onward = tuple(architecture.locate(place, write=True) for place in places)
    return Location(out.module, out.side, view, out.slot, base, side, before, onward)


def _earlier(architecture: Architecture, dictionary: Dictionary) -> tuple[tuple[int, Tensor], ...]:
    """The layers whose features write to a dictionary's site too, and by what decoder."""
    kind, layer = dictionary.site_out.kind, dictionary.site_out.layer or 0
    return tuple(
        (one.layer, one.later[one.reached.index(layer)])
        for one in architecture.dictionaries.values()
        if layer in one.reached and one.site_out.kind == kind
    )


def _source(
    architecture: Architecture, dictionary: Dictionary
) -> tuple[View, nn.Module, Literal["in", "out"]]:
    """What a transcoder reads: how it is cut, and the module and side where it passes."""
    layer = dictionary.layer
    if dictionary.read == "site":
        found = architecture.locate(dictionary.site_in)
        return found.view, found.module, found.side
    norm, down = (
        architecture.module(layer, "resid_mid", "resid_mid"),
        architecture.part(layer, "down_projection"),
    )
    reads = any(module is down for module in norm.modules())  # no norm there: the MLP itself
    return Whole(), norm, "in" if reads else "out"


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
    """The input width of a linear layer of any make, or None."""
    for name in ("in_features", "nx"):
        if isinstance(size := getattr(module, name, None), int):
            return size
    return None


def out_features(module: nn.Module | None) -> int | None:
    """The output width of a linear layer of any make, or None."""
    for name in ("out_features", "nf"):
        if isinstance(size := getattr(module, name, None), int):
            return size
    return None
