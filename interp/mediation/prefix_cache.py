"""Keys and values of the tokens before the first change, which a causal model need not compute again.

``Past`` keeps what every attention layer computed for the unpatched prompts, after rotation; ``Prefix`` lends
the part before a position to patched copies. Both stand where Hugging Face expects its cache, and offer the
few methods that attention layers and mask builders call on it (transformers 5; a test pins them). Nothing is
ever cut off or overwritten, so that sliding windows are what the masks make of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.forward import cache_name
from interp.models.hooks import evaluating
from interp.models.model import Model
from interp.sites import Site

__all__ = ["Arguments", "Past", "Prefix", "Recording", "arguments", "recorded"]

Arguments = list[tuple[tuple[Any, ...], dict[str, Any]]]
"""Per block its positional and keyword arguments besides the stream."""


class _Enough(BaseException):
    """End a forward pass once every block was called. Never leaves this module."""


@dataclass(frozen=True, eq=False)
class Past:
    """Keys and values per layer.

    Attributes:
        layers: layer -> keys and values ``[example kv_head pos d_head]``.
    """

    layers: Mapping[int, tuple[Tensor, Tensor]]


@dataclass(eq=False)
class Prefix:
    """Lend the first keys and values of every layer, as a Hugging Face cache would, and keep nothing.

    Attributes:
        past: of the unpatched prompts.
        length: how many positions are lent.
        examples: ``[row]``, which prompt each row of the pass is a copy of.
    """

    past: Past
    length: int
    examples: Tensor

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, **_: Any) -> tuple[Tensor, Tensor]:
        """Put the prefix before the keys and values ``[row kv_head pos d_head]`` of a layer."""
        rows = self.examples[: len(keys)]
        before = (
            kept[:, :, : self.length].index_select(0, rows.to(kept.device))
            for kept in self.past.layers[layer_idx]
        )
        first, second = before
        return torch.cat([first, keys], dim=2), torch.cat([second, values], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The number of positions before those that are run."""
        return self.length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The position of the first token that is run."""
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """The number of keys, and the position of the first."""
        return self.length + query_length, 0


@dataclass(eq=False)
class _Recorder:
    """Stand in for an empty cache and remember what is put in."""

    ids: Tensor
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, **_: Any) -> tuple[Tensor, Tensor]:
        self.layers[layer_idx] = (keys, values)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


@dataclass(frozen=True, eq=False)
class Recording:
    """What a walk over prompts of one length begins with.

    Attributes:
        streams: ``[example pos d_model]`` before every block, and after the last.
        tuples: per block how many elements it returns, 0 for a tensor.
        past: keys and values of the prompts, or None.
    """

    streams: list[Tensor]
    tuples: list[int]
    past: Past | None


def recorded(model: Model, token_ids: Sequence[Sequence[int]], *, past: str = "kept") -> Recording:
    """Read what a walk begins with, in one pass of every prompt.

    Args:
        model: whose blocks.
        token_ids: prompts of one length.
        past: ``"kept"`` to keep keys and values, ``"none"`` not to ask for any.

    Raises:
        LookupError: some layer keeps no keys and values where Hugging Face's caches do.
    """
    passes: list[_Recorder] = []
    tuples: dict[nn.Module, int] = {}

    def lend(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        passes.append(_Recorder(kwargs["input_ids"]))
        return args, {**kwargs, cache_name(model.architecture): passes[-1]}

    def look(module: nn.Module, args: Any, output: Any) -> None:
        tuples[module] = 0 if isinstance(output, Tensor) else len(output)

    sites = [Site("resid_pre", layer) for layer in range(model.n_layers)]
    sites.append(Site("resid_post", model.n_layers - 1))
    handles = [block.register_forward_hook(look) for block in model.architecture.blocks]
    if past == "kept":
        handles.append(model.hf.register_forward_pre_hook(lend, with_kwargs=True))
    try:
        read = model.capture([list(ids) for ids in token_ids], sites, "all")
    finally:
        for handle in handles:
            handle.remove()
    found = _gathered(passes, token_ids, model.n_layers) if past == "kept" else None
    return Recording(
        [read[str(s)] for s in sites], [tuples[block] for block in model.architecture.blocks], found
    )


def _gathered(passes: Sequence[_Recorder], token_ids: Sequence[Sequence[int]], n_layers: int) -> Past:
    """Put the passes together in the order of the prompts; one that was cut short is left out."""
    whole = [one for one in passes if sorted(one.layers) == list(range(n_layers))]
    if whole and whole[-1].ids.tolist() == [list(ids) for ids in token_ids]:
        return Past(whole[-1].layers)
    at = {tuple(ids): (one, row) for one in whole for row, ids in enumerate(one.ids.tolist())}
    places = [at[tuple(ids)] for ids in token_ids]

    def joined(layer: int, which: int) -> Tensor:
        return torch.stack([one.layers[layer][which][row] for one, row in places])

    return Past({layer: (joined(layer, 0), joined(layer, 1)) for layer in range(n_layers)})


def arguments(
    model: Model, ids: Sequence[int], tuples: Sequence[int], prefix: Prefix | None = None
) -> Arguments:
    """Read what each block is called with, besides the stream, without running any block.

    Args:
        model: whose blocks.
        ids: one prompt.
        tuples: per block how many elements it returns, 0 for a tensor.
        prefix: what is lent to the pass, which then begins after it; None for the whole prompt.
    """
    found: Arguments = []

    def keep(layer: int, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        found.append((args[1:], kwargs))
        if layer == model.n_layers - 1:
            raise _Enough
        return (hidden, *[None] * (tuples[layer] - 1)) if tuples[layer] else hidden

    start = 0 if prefix is None else prefix.length
    inputs = torch.tensor([list(ids[start:])], device=model.device)
    with ExitStack() as stack:
        stack.enter_context(suppress(_Enough))
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(model.architecture.modules))
        stack.enter_context(_standing_in(model.architecture.blocks, keep))
        lent = {} if prefix is None else {cache_name(model.architecture): prefix}
        model.hf(input_ids=inputs, use_cache=False, **lent)
    return found


@contextmanager
def _standing_in(blocks: nn.ModuleList, act: Callable[..., Any]) -> Iterator[None]:
    """Call a function with each block's number and arguments instead of the block, inside the context."""
    before = [vars(block).get("forward") for block in blocks]
    try:
        for layer, block in enumerate(blocks):
            block.forward = partial(act, layer)
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            del block.forward
            if own is not None:
                block.forward = own
