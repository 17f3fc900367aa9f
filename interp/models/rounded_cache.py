"""Keys and values held at few bits: what a quantized key-value cache does to a model.

Every attention module is given a cache that rounds what is put into it, in whole passes as in steps, so that
a prompt is read as it would be read from the cache. Weights stay as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from interp.errors import ModelError

__all__ = ["GRADIENTS", "attach", "cache_bits", "rounded"]

GRADIENTS = "keys and values are rounded, and the slope of rounding is zero nearly everywhere"
NAMES = ("past_key_values", "cache", "layer_past")
"""What attention modules call the cache that they are given: the second name is that of transformers 5.24."""
SMALLEST, ALIKE, IDS = 1e-8, 1e-3, ((1, 2, 3, 4),)


def rounded(values: Float[Tensor, "*batch d_head"], bits: int) -> Float[Tensor, "*batch d_head"]:
    """Round every vector to ``2**bits`` equal steps between its own least and largest number.

    One token's key or value in one head shares a scale and an offset; both are kept in full. (Other caches
    group keys by channel over tokens, which needs tokens that are not there yet.)

    Args:
        values: keys or values.
        bits: of a code.
    """
    plain = values.float()
    low, high = plain.amin(-1, keepdim=True), plain.amax(-1, keepdim=True)
    scale = ((high - low) / (2**bits - 1)).clamp_min(SMALLEST)
    return (((plain - low) / scale).round() * scale + low).to(values.dtype)


class _Rounding:
    """A cache around another one, or around none: what goes in is rounded first."""

    def __init__(self, cache: Any, hook: RoundedCache) -> None:
        self._cache, self._hook = cache, hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Keep rounded keys and values, after projection, norm and rotation, and give all that are kept."""
        hook = self._hook
        hook.shapes.append((tuple(keys.shape), tuple(values.shape)))
        if hook.bits:
            keys, values = rounded(keys, hook.bits), rounded(values, hook.bits)
        return self._cache.update(keys, values, *args, **kwargs)


class RoundedCache:
    """A hook before an attention module that puts a rounding cache in the place of its cache, or of none.

    Attributes:
        name: of the argument.
        bits: of a code; 0 rounds nothing.
        shapes: of the keys and values seen in the last pass.
    """

    def __init__(self, name: str, bits: int) -> None:
        self.name, self.bits, self.shapes = name, bits, list[tuple[tuple[int, ...], tuple[int, ...]]]()

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Exchange the argument."""
        self.shapes.clear()
        given = kwargs.get(self.name)
        return args, {**kwargs, self.name: _Rounding(DynamicCache() if given is None else given, self)}


def cache_bits(modules: Sequence[nn.Module]) -> int:
    """At how many bits the modules of a model keep keys and values; 0 where they are not rounded."""
    hooks = (hook for module in modules for hook in module._forward_pre_hooks.values())
    return next((hook.bits for hook in hooks if isinstance(hook, RoundedCache)), 0)


def attach(hf: PreTrainedModel, attention: Sequence[nn.Module | None], bits: int) -> None:
    """Round the keys and values of a model from now on; the model must be the caller's own copy.

    A cache that keeps without rounding must first be seen once in every layer, and change nothing.

    Args:
        hf: the model.
        attention: the attention module of every layer.
        bits: of a code.

    Raises:
        ModelError: attention that keeps no keys and values where Hugging Face's caches do, that shares them
            between layers, or that computes something else when it is given a cache.
    """
    model: Any = hf
    hooks = [_hook(hf, layer, module) for layer, module in enumerate(attention)]
    ids = torch.tensor(IDS, device=hf.device) % model.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        before = model(input_ids=ids, use_cache=False).logits
        handles = [
            module.register_forward_pre_hook(hook, with_kwargs=True)
            for module, hook in zip(attention, hooks, strict=True)
            if module is not None
        ]
        try:
            after = model(input_ids=ids, use_cache=False).logits
            _check(hf, hooks, ids.shape[1], float((after - before).abs().max() / before.abs().max()))
        except BaseException:
            for handle in handles:
                handle.remove()
            raise
    for hook in hooks:
        hook.bits = bits


def _hook(hf: PreTrainedModel, layer: int, attention: nn.Module | None) -> RoundedCache:
    found = () if attention is None else inspect.signature(attention.forward).parameters
    name = next((name for name in NAMES if name in found), "")
    if not name or getattr(hf.config.get_text_config(), "num_kv_shared_layers", 0):
        raise _refused(hf, f"layer {layer} keeps none of its own where the caches of transformers do")
    return RoundedCache(name, 0)


def _check(hf: PreTrainedModel, hooks: Sequence[RoundedCache], width: int, off: float) -> None:
    for layer, hook in enumerate(hooks):
        fits = len(hook.shapes) == 1 and all(len(one) == 4 and one[2] == width for one in hook.shapes[0])
        if not fits:
            raise _refused(hf, f"layer {layer} gave its cache {hook.shapes or 'nothing'}")
    if not off <= ALIKE:
        raise _refused(hf, f"with a cache that rounds nothing its logits differ by {off:.1g}")


def _refused(hf: PreTrainedModel, why: str) -> ModelError:
    return ModelError(
        f"keys and values of a {type(hf).__name__} cannot be rounded: {why}. Compare schemes of weights, "
        "such as int8 and int4."
    )
