"""TransformerLens: a bridge given by the user, and a backend that runs on a bridge of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedModel

from interp.errors import ModelError, SiteError
from interp.models.architecture import Architecture, Location
from interp.models.backends import Held
from interp.models.backends.base import Backend, Forward
from interp.models.forward import Logits, arguments
from interp.models.hooks import Edit, Frame, Hook, Writer, reader_hooks, writer_hooks
from interp.models.positions import Batch
from interp.models.tensor_views import Given, HeadOutput, Neuron, Pattern, Shifted, View, Whole
from interp.models.tied_weights import twin
from interp.sites import Site

__all__ = ["TransformerLens", "held", "inner", "made"]


def inner(bridge: TransformerBridge) -> PreTrainedModel:
    """What a bridge wraps: a Hugging Face model whose modules the bridge has replaced.

    Raises:
        ModelError: the bridge's weights were processed, or it holds no Hugging Face model.
    """
    name = _name(bridge)
    if bridge._weights_processed:
        raise ModelError(
            f"the weights of the bridge {name!r} were processed (folded norms, centred weights), so its "
            "residual stream is not that of the Hugging Face model. Give a bridge on which "
            "enable_compatibility_mode() was not called, or only with no_processing=True."
        )
    hf = bridge.original_model
    if not isinstance(hf, PreTrainedModel):
        raise ModelError(
            f"the bridge {name!r} holds a {type(hf).__name__}, not a Hugging Face model. "
            "Give a bridge from TransformerBridge.boot_transformers(...)."
        )
    return hf


def _name(bridge: TransformerBridge) -> str:
    return str(getattr(bridge.cfg, "model_name", None) or type(bridge).__name__)


def held(bridge: TransformerBridge) -> Held:
    """Plain Hugging Face modules around a bridge's own weights.

    The attention function is the library's default again, since a bridge switches it to eager.

    Raises:
        ModelError: as for ``inner``, or the modules are not those that the configuration describes.
    """
    hooked = any(not handle.is_permanent for point in bridge.hook_dict.values() for handle in point.fwd_hooks)
    notes = ("hooks on the bridge itself do not act here; use interventions",) if hooked else ()
    hf = twin(inner(bridge), unwrap=_unwrapped, attention=False)
    return Held(hf, bridge.tokenizer, _name(bridge), notes)


def _unwrapped(module: nn.Module) -> nn.Module:
    while isinstance(module, GeneralizedComponent) and module.original_component is not None:
        module = module.original_component
    return module


def made(architecture: Architecture) -> TransformerLens:
    """Build a bridge on a copy of a model that shares its weights.

    Raises:
        ModelError: TransformerLens does not know the architecture.
    """
    hf = twin(architecture.hf).eval()
    hf.set_attn_implementation("eager")
    try:
        bridge = build_bridge_from_module(
            hf, type(hf).__name__, hf_config=hf.config, model_name=architecture.name
        )
    except (ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"TransformerLens could not build a bridge for {architecture.name!r} ({type(hf).__name__}): "
            f"{str(error).splitlines()[0][:200]}. Use backend='native'."
        ) from error
    return TransformerLens(architecture, bridge.eval())


@dataclass(frozen=True)
class _Heads(HeadOutput):
    """Compute one head's output from ``z`` with its heads split, as TransformerLens gives it."""

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """``[..., d_model]``."""
        assert isinstance(given, Tensor)
        return super().read(tensor, given.flatten(2))


@dataclass(frozen=True)
class _Part(View):
    """Take one head of a tensor whose heads are split."""

    index: int

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """``[batch pos d_head]``."""
        return tensor[..., self.index, :]

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """A copy with that head replaced."""
        copy = tensor.clone()
        copy[..., self.index, :] = new
        return copy


_WHOLE = {
    "embed": "hook_in",
    "resid_pre": "hook_in",
    "resid_post": "hook_out",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_out": "hook_mlp_out",
    "mlp_act": "mlp.out.hook_in",
}
_SPLIT = {"z": "attn.hook_z", "q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v"}


@dataclass(frozen=True, eq=False)
class TransformerLens(Backend):
    """Run a bridge with hooks that are gone after the block.

    Attributes:
        architecture: of the Hugging Face model, with the sites that the bridge offers too.
        bridge: around a copy of it that shares its weights.
    """

    name: ClassVar[str] = "transformer-lens"
    architecture: Architecture
    bridge: TransformerBridge

    @property
    def caches(self) -> bool:
        """Never: every step of a continuation is computed from the start."""
        return False

    @contextmanager
    def session(
        self, frame: Frame, *, writes: Sequence[Mapping[Site, Edit]], reads: Sequence[Site]
    ) -> Iterator[Forward]:
        """Add hooks to hook points for the block."""
        groups = [
            [Writer(site, self.locate(site, write=True), edit) for site, edit in group.items()]
            for group in writes
        ]
        places = {site: self.locate(site) for site in reads}
        hooks = chain(*(writer_hooks(group, frame) for group in groups), reader_hooks(places, frame))
        frame.wanted = len(places)
        with self.bridge.hooks(fwd_hooks=[(self._names[id(h.module)], partial(_call, h)) for h in hooks]):
            yield self._forward

    def _forward(self, batch: Batch, logits: Logits, **cache: Any) -> Any:
        given = arguments(self.architecture, batch, logits, **cache)
        return SimpleNamespace(logits=self.bridge(given.pop("input_ids"), **given))

    @cached_property
    def _names(self) -> dict[int, str]:
        return {id(point): name for name, point in reversed(self._points.items())}

    @cached_property
    def _points(self) -> dict[str, HookPoint]:
        return dict(self.bridge.hook_dict)  # computed anew by the bridge whenever it is asked

    def locate(self, site: Site, *, write: bool = False) -> Location:
        """Find the hook point of a site and how the site is cut out of it.

        Raises:
            SiteError: the bridge has no such hook point, or the site can only be read.
        """
        self.architecture.locate(site, write=write)  # refuses what the model itself does not offer
        layer, kind, index = site.layer or 0, site.kind, site.index
        if kind == "resid_mid" and write:
            return Location(
                self._point(layer, "hook_attn_out", site),
                "out",
                Shifted(Whole()),
                base=self._point(layer, "hook_in", site),
            )
        if kind == "head":
            projection = self.architecture.locate(site).module
            view = _Heads(projection, self.architecture.anatomy.heads[layer], index or 0)
            return Location(
                self._point(layer, "attn.o.hook_out", site),
                "out",
                view,
                base=self._point(layer, "attn.hook_z", site),
            )
        if kind == "neuron":
            return Location(self._point(layer, "mlp.out.hook_in", site), "out", Neuron(index or 0))
        if kind == "pattern":
            return Location(self._point(layer, "attn.hook_pattern", site), "out", Pattern(index))
        if kind in _SPLIT:
            return Location(
                self._point(layer, _SPLIT[kind], site), "out", Whole() if index is None else _Part(index)
            )
        if kind == "final_norm":
            return Location(self._point(None, "ln_final.hook_out", site), "out", Whole())
        return Location(self._point(layer, _WHOLE[kind], site), "out", Whole())

    def _point(self, layer: int | None, hook: str, site: Site) -> nn.Module:
        name = hook if layer is None else f"blocks.{layer}.{hook}"
        point = self._points.get(name)
        if point is None:
            raise SiteError(
                f"the bridge of {self.architecture.name!r} has no {name!r}, so it does not offer '{site}'."
            )
        return point


def _call(step: Hook, tensor: Tensor, hook: Any) -> Tensor | None:
    """Call one of this package's hooks as TransformerLens calls its own: a tensor, and the point by name."""
    if step.side == "out":
        return step.call(step.module, (tensor,), tensor)
    changed = step.call(step.module, (tensor,), {})
    return None if changed is None else changed[0][0]
