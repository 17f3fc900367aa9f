"""Linear modules of Hugging Face models, whichever way round they keep their weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.errors import ModelError
from interp.models.architecture import Architecture
from interp.models.rounding import relative

__all__ = ["as_linear", "is_linear", "linear_modules", "other_weights", "put_module", "put_weight", "width"]


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer or GPT-2's ``Conv1D``, which is the same transposed.

    One whose weight is of a class of its own is not: torchao's modules stay ``nn.Linear``. A subclass is, if
    it computes the same on a large random input (Falcon's).
    """
    if not isinstance(module, nn.Linear | Conv1D) or type(module.weight) not in (Tensor, nn.Parameter):
        return False
    return type(module) in (nn.Linear, Conv1D) or (isinstance(module, nn.Linear) and _plain(module))


def _plain(module: nn.Linear) -> bool:
    """Whether a subclass gives what a linear layer gives."""
    if module.weight.is_meta or not module.weight.is_floating_point():
        return False
    generator = torch.Generator().manual_seed(0)
    given = 100 * torch.randn(2, module.in_features, generator=generator).to(module.weight)
    try:
        with torch.no_grad():
            found, wanted = module.forward(given), nn.functional.linear(given, module.weight, module.bias)
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(found, Tensor) and found.shape == wanted.shape and relative(found, wanted) <= 1e-2


def linear_modules(architecture: Architecture) -> dict[str, nn.Module]:
    """The linear modules of the blocks by their name in the model; embeddings and head are elsewhere."""
    inside = {id(module) for block in architecture.blocks for module in block.modules()}
    return {
        name: module
        for name, module in architecture.hf.named_modules()
        if id(module) in inside and (is_linear(module) or isinstance(module, nn.Linear))
    }


def other_weights(architecture: Architecture) -> dict[str, nn.Parameter]:
    """The matrices of the blocks that belong to no linear module, such as stacked experts, by name."""
    linear = {id(module.weight) for module in linear_modules(architecture).values()}
    inside = {id(weight) for block in architecture.blocks for weight in block.parameters()}
    return {
        name: weight
        for name, weight in architecture.hf.named_parameters()
        if id(weight) in inside and id(weight) not in linear and weight.ndim >= 2
    }


def width(module: nn.Module) -> int:
    """Count the inputs of a linear module."""
    assert isinstance(module.weight, Tensor)
    return int(module.weight.shape[0 if type(module) is Conv1D else 1])


@torch.no_grad()
def as_linear(module: nn.Module) -> nn.Linear:
    """A linear layer ``[out, in]`` of its own that computes what a linear module does."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    table = weight.detach().T if type(module) is Conv1D else weight.detach()
    made = nn.Linear(
        table.shape[1], table.shape[0], bias=bias is not None, device=table.device, dtype=table.dtype
    )
    made.weight.copy_(table)
    if bias is not None:
        assert isinstance(bias, Tensor)
        made.bias.copy_(bias)
    return made.requires_grad_(False)


def put_weight(module: nn.Module, weight: Float[Tensor, "out in"]) -> None:
    """Give a linear module another parameter of the same type; the old one is left as it is."""
    old = module.weight
    assert isinstance(old, nn.Parameter)
    table = (weight.T if type(module) is Conv1D else weight).to(old.device, old.dtype).contiguous()
    module.weight = nn.Parameter(table, requires_grad=old.requires_grad)


def put_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another.

    Raises:
        ModelError: there is no such place.
    """
    place, _, last = name.rpartition(".")
    parent = root.get_submodule(place)
    if last not in parent._modules:
        raise ModelError(f"{type(root).__name__} has no module {name!r}.")
    parent._modules[last] = module
