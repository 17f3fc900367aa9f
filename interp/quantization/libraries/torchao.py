"""torchao: weight-only int8 and fp8 per row, and int4 in groups."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.quantization.libraries.library import Job, Library, Packed

__all__ = ["Torchao", "library"]

TYPES = (torch.float32, torch.bfloat16, torch.float16)


class Torchao(Library):
    """Quantize with torchao's tensor subclasses; the modules stay ``nn.Linear``."""

    package: ClassVar[str] = "torchao"

    def packed(self, job: Job) -> Packed:
        """Each layer with a weight of torchao's.

        Raises:
            ModelError: torchao does not take the model's type of number.
        """
        from torchao.quantization import quantize_

        modules: dict[str, nn.Module] = {}
        for name, layer in job.layers.items():
            if layer.weight.dtype not in TYPES:
                raise ModelError(
                    f"{job.scheme} of a model in {layer.weight.dtype} asked, but torchao takes "
                    f"{', '.join(map(str, TYPES))}. Load it in float32, or use rtn{job.scheme.bits}."
                )
            holder = nn.ModuleList([layer])
            quantize_(holder, _config(job.scheme.name, job.group(name)))
            modules[name] = holder[0]
        return Packed(modules)

    def weight(self, module: nn.Module) -> Float[Tensor, "out in"]:
        """The dequantized weights."""
        weight: Any = module.weight
        return weight.dequantize().float()


def _config(name: str, group: int) -> Any:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerAxis, PerGroup

    if name == "fp8":
        return Float8WeightOnlyConfig(weight_dtype=torch.float8_e4m3fn)
    if name == "int8":
        return Int8WeightOnlyConfig()
    four: Any = getattr(torch, "int4")  # noqa: B009  (missing from torch's own type stubs)
    return IntxWeightOnlyConfig(weight_dtype=four, granularity=PerGroup(group) if group else PerAxis(0))


def library() -> Torchao:
    """The library."""
    return Torchao()
