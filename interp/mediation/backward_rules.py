"""Backward rules: other gradients of the same values, which see past what is saturated or normed.

A gradient says what an infinitely small change does. Where a norm divides by the change itself, or a softmax
or an activation is flat, that is far from what a real replacement does. A rule changes how gradients go back
through such a part and leaves every value as it is, bit for bit. What comes out is no derivative of the
model: it ranks, and effects come from real replacements (``verify``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from interp.errors import ConfigError, ModelError
from interp.mediation.frozen_norm import TOLERANCE, FrozenNorm
from interp.models.architecture import Location
from interp.models.hooks import ONE_AT_A_TIME, Hook, eager_attention
from interp.models.model import Model
from interp.sites import Site

__all__ = ["RULES", "BackwardRule", "following", "rule_of"]


@dataclass(frozen=True, kw_only=True)
class BackwardRule:
    """How gradients go back; what is left out is as usual.

    Attributes:
        description: one line.
        hold_norms: whether the scale of every norm counts as a constant.
        ratios: whether an activation counts as multiplication by the constant ``f(x) / x``.
        temperature: of the softmax of attention, in the backward pass only.
        q: what the gradient of queries is multiplied by; 0 with that of keys holds the patterns constant.
        k: likewise, of keys.
        v: of values.
        product: of both factors of a gated MLP, activation and gate.
    """

    description: str
    hold_norms: bool = False
    ratios: bool = False
    temperature: float = 1.0
    q: float = 1.0
    k: float = 1.0
    v: float = 1.0
    product: float = 1.0


RULES: Mapping[str, BackwardRule] = {
    "plain": BackwardRule(description="the model's own gradient"),
    "relp": BackwardRule(
        description="relevance propagation: norms and patterns held, activations as ratios (RelP)",
        hold_norms=True,
        ratios=True,
        q=0.0,
        k=0.0,
        product=0.5,
    ),
    "gim": BackwardRule(
        description="norms held, attention's softmax softened, products shared out (GIM)",
        hold_norms=True,
        temperature=2.0,
        q=0.25,
        k=0.25,
        v=0.5,
        product=0.5,
    ),
}
"""RelP: 2508.21258 (FarnoushRJ/RelP), after layer-wise relevance propagation: read the note on patents in the
README. GIM: 2505.17630 (corticph/gim); its softmax goes back as ``p * (g - <g, p>)`` with ``p`` at that
temperature, without the factor 1/T, as in the authors' code."""


def rule_of(name: str) -> BackwardRule:
    """The rule of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RULES:
        raise ConfigError(f"backward rule {name!r} asked; there are: {', '.join(RULES)}.")
    return RULES[name]


@contextmanager
def following(model: Model, rule: BackwardRule) -> Iterator[None]:
    """Let gradients of this model follow a rule inside the block; values stay those of eager attention.

    Args:
        model: what is run inside the block.
        rule: one of ``RULES``, or your own.

    Raises:
        ModelError: a part that the rule changes cannot be reached in this model, or was not met.
    """
    if model.backend is not None:
        raise ModelError(
            f"backward rules change modules of Hugging Face, and {model.name!r} is run by a backend that has "
            "its own. Load it without a backend."
        )
    installed = _Installed(model, rule)
    with ONE_AT_A_TIME, ExitStack() as stack:
        stack.callback(installed.remove)
        if rule.temperature != 1.0:
            stack.enter_context(eager_attention(model.architecture.modules))
            stack.enter_context(_Softened(installed, rule.temperature))
        installed.install()
        yield
        installed.check()


@dataclass(eq=False)
class _Installed:
    """The hooks of one block, and which parts were met in it.

    ``layer`` is that of the attention that is running, None outside of one; ``owed`` says what must be met.
    """

    model: Model
    rule: BackwardRule
    layer: int | None = None
    owed: set[str] = field(default_factory=set)
    handles: list[RemovableHandle] = field(default_factory=list)
    inner: list[RemovableHandle] = field(default_factory=list)
    norms: dict[tuple[int, torch.Size], FrozenNorm] = field(default_factory=dict)
    acted: dict[int, Tensor] = field(default_factory=dict)

    def install(self) -> None:
        """Put every hook in place."""
        architecture, rule = self.model.architecture, self.rule
        if rule.hold_norms:
            self._install_norms()
        for layer in range(self.model.n_layers):
            if (rule.temperature, rule.q, rule.k, rule.v) != (1.0, 1.0, 1.0, 1.0):
                self._reach(layer, "q", "k", "v")
                attention = architecture.module(layer, "attention", "pattern")
                self.handles += [
                    attention.register_forward_pre_hook(partial(self._enter, layer)),
                    attention.register_forward_hook(self._leave, always_call=True),
                ]
                self.owed |= {f"the softmax of layer {layer}"} if rule.temperature != 1.0 else set()
            if rule.ratios or rule.product != 1.0:
                self._install_mlp(layer)

    def _reach(self, layer: int, *kinds: str) -> None:
        for kind in kinds:
            why = self.model.architecture.disabled.get(kind, "")
            if why or layer not in self.model.anatomy.layers(kind):
                raise ModelError(
                    f"this backward rule changes what goes back through '{kind}.{layer}', which "
                    f"{self.model.name!r} does not offer. {why}".rstrip()
                    + " Use the search 'attribution'."
                )

    def _install_norms(self) -> None:
        architecture = self.model.architecture
        final: Any = architecture.locate(Site("final_norm")).module
        inside = {
            f"{name} of layer {layer}": module
            for layer, block in enumerate(architecture.blocks)
            for name, module in block.named_modules()
            if _is_norm(module)
        }
        for layer in range(self.model.n_layers):
            if not any(name.endswith(f" of layer {layer}") for name in inside):
                raise ModelError(
                    f"this backward rule holds norms, and layer {layer} of {self.model.name!r} has no module "
                    "that is one. Use the search 'attribution'."
                )
        for name, module in {**inside, "the final norm": final}.items():
            self._hook(module, partial(self._norm, name))

    def _install_mlp(self, layer: int) -> None:
        architecture = self.model.architecture
        self._reach(layer, "mlp_act")
        block = architecture.blocks[layer]
        found = [module for module in block.modules() if _is_activation(module)]
        if not found:
            raise ModelError(
                f"this backward rule changes activations, and layer {layer} of {self.model.name!r} calls its "
                "own as a function that no hook reaches. Use the search 'attribution'."
            )
        for module in found:
            self._hook(module, partial(self._activation, layer))
        down = architecture.locate(Site("mlp_act", layer)).module
        self.handles.append(Hook(down, "in", partial(self._product, layer)).install())
        self.owed.add(f"the activation of layer {layer}")

    def _hook(self, module: nn.Module, call: Callable[..., Any]) -> None:
        self.handles.append(Hook(module, "out", call).install())

    def _norm(self, name: str, module: nn.Module, args: Any, out: Any) -> Tensor | None:
        """Go back through ``gain (x - mean) / scale`` with the scale held."""
        given = args[0] if args else None
        if not isinstance(given, Tensor) or not isinstance(out, Tensor) or given.shape != out.shape:
            raise ModelError(
                f"{name} of {self.model.name!r} does more than norm one tensor, so its scale cannot be held. "
                "Use the search 'attribution'."
            )
        if not (torch.is_grad_enabled() and given.requires_grad):
            return None
        key = (id(module), given.shape[1:])
        if key not in self.norms:
            self.norms[key] = FrozenNorm.measured(module, given[:1].detach())
        norm = self.norms[key]
        with torch.no_grad():
            scale, off = norm.scale(given, out)
        if not off <= TOLERANCE.get(given.dtype, 0.05):
            raise ModelError(
                f"{name} of {self.model.name!r} is neither a layer norm nor an RMS norm (it differs by "
                f"{off:.1e}), so its scale cannot be held. Use the search 'attribution'."
            )
        moved = norm.moved(given.double()) / scale[..., None]
        return _Valued.apply(moved, out.detach())

    def _activation(self, layer: int, module: nn.Module, args: Any, out: Tensor) -> Tensor | None:
        """Go back through ``x (f(x) / x)`` with the ratio held."""
        self.owed.discard(f"the activation of layer {layer}")
        given: Tensor = args[0]
        result = None
        if self.rule.ratios and torch.is_grad_enabled() and given.requires_grad:
            with torch.no_grad():
                near = torch.tensor([-1e-3, 0.0, 1e-3], dtype=given.dtype, device=given.device)
                low, at_zero, high = module.forward(near).tolist()
                if at_zero != 0.0:
                    raise ModelError(
                        f"the activation of layer {layer} of {self.model.name!r} is {at_zero:.2f} at 0, so "
                        "it is no multiple of what it gets. Use the search 'attribution' or 'gim'."
                    )
                ratio = torch.where(given == 0, (high - low) / 2e-3, out / given)
            result = _Valued.apply(given * ratio, out.detach())
        self.acted[layer] = (out if result is None else result).detach()
        return result

    def _product(self, layer: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Share the gradient of a gated MLP out between its two factors; let others be."""
        value = args[0]
        acted = self.acted.pop(layer, None)
        gated = (
            acted is None or acted.numel() != value.numel() or not torch.equal(acted.view_as(value), value)
        )
        if self.rule.product == 1.0 or not gated:
            return None
        return (_Scaled.apply(value, self.rule.product), *args[1:]), kwargs

    def _enter(self, layer: int, module: nn.Module, args: Any) -> None:
        """Scale gradients of queries, keys and values after whatever else is hooked there now."""
        self.layer = layer
        self._drop_inner()
        for kind in "qkv":
            if (factor := getattr(self.rule, kind)) != 1.0:
                location = self.model.architecture.locate(Site(kind, layer), write=True)
                self.inner.append(Hook(location.module, "out", partial(_scaled, location, factor)).install())

    def _leave(self, *_: Any) -> None:
        self.layer = None

    def _drop_inner(self) -> None:
        while self.inner:
            self.inner.pop().remove()

    def remove(self) -> None:
        """Take every hook away."""
        self._drop_inner()
        while self.handles:
            self.handles.pop().remove()

    def check(self) -> None:
        """Demand that every part that the rule changes was met.

        Raises:
            ModelError: names one that was not.
        """
        if self.owed:
            raise ModelError(
                f"this backward rule changes {min(self.owed)} of {self.model.name!r}, which was never called "
                "where a hook reaches it (a fused kernel). Use the search 'attribution'."
            )


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and not any(module.children())


def _is_activation(module: nn.Module) -> bool:
    kind = type(module)
    known = kind.__module__ in ("transformers.activations", "torch.nn.modules.activation")
    named = any(part in kind.__name__.lower() for part in ("gelu", "relu", "silu"))
    return (known or named) and not isinstance(module, nn.MultiheadAttention | nn.Softmax)


def _scaled(location: Location, factor: float, module: nn.Module, args: Any, out: Any) -> Any:
    tensor = out if isinstance(out, Tensor) else out[location.slot]
    value = _Scaled.apply(location.view.read(tensor, None), factor)
    return location.view.replaced(out, location.slot, location.view.write(tensor, None, value), args)


class _Valued(torch.autograd.Function):
    """The second tensor's value with the first one's gradient."""

    @staticmethod
    def forward(ctx: Any, through: Tensor, value: Tensor) -> Tensor:
        """The value."""
        ctx.dtype = through.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Give it to the first."""
        return grads[0].to(ctx.dtype), None


class _Scaled(torch.autograd.Function):
    """The same value, its gradient multiplied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        """The value."""
        ctx.factor = factor
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Multiply."""
        return grads[0] * ctx.factor, None


class _Tempered(torch.autograd.Function):
    """A softmax that goes back as one at another temperature."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, value: Tensor, dim: int, temperature: float) -> Tensor:
        """The value."""
        ctx.dim, ctx.temperature = dim, temperature
        ctx.save_for_backward(scores)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Give ``p (g - <g, p>)``."""
        (scores,) = ctx.saved_tensors
        soft = torch.softmax(scores / ctx.temperature, dim=ctx.dim)
        back = torch.ops.aten._softmax_backward_data(grads[0].to(soft.dtype), soft, ctx.dim, soft.dtype)
        return back, None, None, None


_SOFTMAX = (nn.functional.softmax, torch.softmax, Tensor.softmax)


class _Softened(TorchFunctionMode):
    """Catch the softmax of attention, whichever way a family spells it."""

    def __init__(self, installed: _Installed, temperature: float) -> None:
        """Note what is installed."""
        super().__init__()
        self._installed, self._temperature = installed, temperature

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let everything else be."""
        kwargs = kwargs or {}
        value = func(*args, **kwargs)
        layer = self._installed.layer
        if func not in _SOFTMAX or layer is None:
            return value
        self._installed.owed.discard(f"the softmax of layer {layer}")
        scores: Tensor = args[0]
        if not (torch.is_grad_enabled() and scores.requires_grad):
            return value
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
        return _Tempered.apply(scores.to(value.dtype), value.detach(), dim, self._temperature)
