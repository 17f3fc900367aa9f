"""The most memory that a computation holds at once, counted from the tensors it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["most_bytes"]


def most_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Give the most bytes that a computation holds at once, beyond what is there before it.

    On CUDA it is what the allocator says. Elsewhere the storages of all tensors that PyTorch's operations
    give are followed until they are freed; a buffer that one kernel takes and gives back within itself is
    not seen.

    Args:
        run: the computation.
        device: where it runs.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _Watch() as watch:
        run()
    return watch.most


class _Watch(TorchDispatchMode):
    """Follow storages from the operation that makes them until nobody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation; what stands for several tensors is taken apart first, and comes here again."""
        if any(issubclass(kind, Tensor) and kind is not Tensor for kind in types):
            return NotImplemented
        found = func(*args, **(kwargs or {}))
        given = {_key(one) for one in _tensors((args, kwargs))}
        self.live = {key: row for key, row in self.live.items() if not row[0].expired()}
        for tensor in _tensors(found):
            if (key := _key(tensor)) not in self.live and key not in given:
                storage = tensor.untyped_storage()
                self.live[key] = (StorageWeakRef(storage), storage.nbytes())
        self.most = max(self.most, sum(size for _, size in self.live.values()))
        return found


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
