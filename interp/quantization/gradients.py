"""Are gradients through a library's modules those of the weights they stand for? Measured, not believed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from interp.quantization.libraries.library import Library

__all__ = ["ALIKE", "cosine", "gradient_fault"]

ALIKE = 0.99
ROWS = 4


def gradient_fault(
    modules: Mapping[str, nn.Module], library: Library, *, dtype: torch.dtype, seed: int = 0
) -> str:
    """What is wrong with the gradients of the first module whose are, or "".

    Each module first runs without gradients, as in any evaluation, because some kernels repack their weights
    then. After that the gradient of a random projection of its output with respect to its input must point
    where that of the dequantized weights does: a cosine of at least 0.99.

    Args:
        modules: what the library made.
        library: which knows the weights they stand for.
        dtype: of the model's activations.
        seed: of the inputs.
    """
    for name, module in modules.items():
        try:
            found = cosine(module, library, dtype=dtype, seed=seed)
        except RuntimeError as error:
            return f"{name!r} fails with them ({error})"
        if found is None:
            return f"the output of {name!r} is cut off from its input, without an error"
        if found < ALIKE:
            return (
                f"those of {name!r} do not point where the gradients of its weights do (cosine {found:.2f})"
            )
    return ""


def cosine(module: nn.Module, library: Library, *, dtype: torch.dtype, seed: int = 0) -> float | None:
    """The cosine between a module's gradient and that of its dequantized weights.

    Returns:
        None where the output needs no gradient although the input does.
    """
    weight = library.weight(module)
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(ROWS, weight.shape[1], generator=generator).to(weight.device, dtype)
    toward = torch.randn(ROWS, weight.shape[0], generator=generator).to(weight.device, dtype)
    with torch.no_grad():
        module(states)
    with torch.enable_grad():
        states = states.requires_grad_(True)
        output = module(states)
        if not output.requires_grad:
            return None
        (found,) = torch.autograd.grad((output * toward).sum(), states)
    expected = toward.float() @ weight
    return float(torch.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0))
