"""gptqmodel: GPTQ and AWQ, which choose the rounding on calibration texts; for mode "dense" only."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ConfigError, ModelError
from interp.quantization.libraries.library import Job, Library, Packed
from interp.quantization.schemes import Scheme

__all__ = ["Codes", "Gptqmodel", "chained", "from_awq", "from_gptq", "library", "unpacked"]

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs each half byte of an AWQ word holds, the lowest first."""


class Codes(nn.Module):
    """The weights of a layer as ``scale * (code - zero)``.

    Args:
        codes: a whole number per weight.
        scale: per output and group.
        zero: the code of 0, per output and group.
        group_of: which group each input belongs to.
        columns: a factor per input by which the weights were multiplied before rounding.
        rows: a factor per output by which they were divided.
    """

    def __init__(
        self,
        codes: Int[Tensor, "out in"],
        scale: Float[Tensor, "out groups"],
        zero: Int[Tensor, "out groups"],
        *,
        group_of: Int[Tensor, " in"],
        columns: Float[Tensor, " in"] | None = None,
        rows: Float[Tensor, " out"] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("codes", codes.to(torch.uint8))
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero.to(torch.int16))
        self.register_buffer("group_of", group_of.long())
        self.register_buffer("columns", columns)
        self.register_buffer("rows", rows)

    codes: Tensor
    scale: Tensor
    zero: Tensor
    group_of: Tensor
    columns: Tensor | None
    rows: Tensor | None

    def dequantized(self) -> Float[Tensor, "out in"]:
        """The weights, in float32, with the factors put back."""
        scale = self.scale.float()[:, self.group_of]
        weight = (self.codes.float() - self.zero.float()[:, self.group_of]) * scale
        weight = weight if self.columns is None else weight / self.columns.float()
        return weight if self.rows is None else weight * self.rows.float()[:, None]


def unpacked(words: Int[Tensor, "*any words"], bits: int) -> Int[Tensor, "*any values"]:
    """Cut 32-bit words into the values they hold, the lowest bits first.

    Args:
        words: int32.
        bits: of a value; divides 32.
    """
    shifts = torch.arange(0, 32, bits, device=words.device)
    return ((words.unsqueeze(-1).long() >> shifts) & (2**bits - 1)).flatten(-2)


def from_gptq(tensors: Mapping[str, Tensor], name: str, bits: int, factors: Mapping[str, Tensor]) -> Codes:
    """Read a layer of a GPTQ checkpoint (format 1: offsets are stored less one)."""
    codes = unpacked(tensors[f"{name}.qweight"].T, bits)
    zero = (unpacked(tensors[f"{name}.qzeros"], bits) + 1).T
    return Codes(codes, tensors[f"{name}.scales"].T, zero, group_of=tensors[f"{name}.g_idx"])


def from_awq(tensors: Mapping[str, Tensor], name: str, bits: int, factors: Mapping[str, Tensor]) -> Codes:
    """Read a layer of an AWQ checkpoint (format "gemm"), and the factors that belong to it."""
    scale = tensors[f"{name}.scales"].T
    codes = _ordered(unpacked(tensors[f"{name}.qweight"], bits)).T
    zero = _ordered(unpacked(tensors[f"{name}.qzeros"], bits)).T
    width = codes.shape[1]
    group_of = torch.arange(width) // (width // scale.shape[1])
    columns, rows = factors.get(f"{name}:columns"), factors.get(f"{name}:rows")
    return Codes(codes, scale, zero, group_of=group_of, columns=columns, rows=_filled(rows, len(codes)))


def _ordered(values: Tensor) -> Tensor:
    """Undo the order of AWQ's half bytes along the last axis."""
    groups = values.unflatten(-1, (-1, len(ORDER)))
    return groups[..., list(map(ORDER.index, range(len(ORDER))))].flatten(-2)


def _filled(rows: Tensor | None, size: int) -> Tensor | None:
    """Put ones before factors that belong to the last outputs only, as in a fused projection."""
    return None if rows is None else torch.cat([torch.ones(size - len(rows)), rows])


PROCESS = "interp.quantization.libraries.gptqmodel_process"


class Gptqmodel(Library):
    """Quantize a whole model with gptqmodel, in a process of its own.

    GPTQ: symmetric, activation order kept within groups, float32 arithmetic. AWQ: with offset, as in its
    paper, bfloat16 arithmetic. AWQ multiplies inputs of a layer by factors that it takes out of what comes
    before (a norm, another layer). Here they are put back, so that every site keeps its unit and norms do
    not change. Source: Frantar et al. (arXiv 2210.17323), Lin et al. (arXiv 2306.00978).
    """

    package: ClassVar[str] = "gptqmodel"
    extra: ClassVar[str] = "gptq"

    def missing(self, scheme: Scheme) -> str:
        """What has to be installed, also beside a torch that is older than gptqmodel asks for."""
        found = super().missing(scheme)
        older = "pip install --no-deps gptqmodel==7.7.0 defuser device-smi logbar tokenicer pypcre"
        return found and f"{found}, or beside torch 2.13 {older}"

    def packed(self, job: Job) -> Packed:
        """The codes of each layer.

        Raises:
            ConfigError: AWQ is asked for layers that have no group size in common.
            ModelError: gptqmodel failed; the message has its last words.
        """
        method = "awq" if job.scheme.name.startswith("awq") else "gptq"
        groups = {name: job.group(name) for name in job.layers}
        if method == "awq":
            _check_common(job, groups)
        with tempfile.TemporaryDirectory(prefix="interp-gptqmodel-") as place:
            folder = Path(place)
            _write(folder, job, method, groups)
            _run(folder, job)
            tensors = _read(folder / "quantized")
            factors = _read(folder)
        unpack = from_awq if method == "awq" else from_gptq
        names = [name for name in job.layers if f"{name}.qweight" in tensors]
        return Packed({name: unpack(tensors, name, job.scheme.bits, factors) for name in names})

    def weight(self, module: nn.Module) -> Float[Tensor, "out in"]:
        """The dequantized weights."""
        assert isinstance(module, Codes)
        return module.dequantized()

    def needed(self, layer: nn.Linear, scheme: Scheme, group: int) -> int:
        """Count codes, scales and, for AWQ, an offset per group of as many bits as a code."""
        groups = layer.out_features * (layer.in_features // group if group else 1)
        offsets = (groups * scheme.bits + 7) // 8 if scheme.name.startswith("awq") else 0
        return super().needed(layer, scheme, group) + offsets


def chained(texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Chain texts in their order and cut the chain into rows as long as the longest; the rest is dropped.

    AWQ as gptqmodel runs it looks only at the last batch where rows differ in length.
    """
    longest = max(map(len, texts))
    chain = [token for text in texts for token in text]
    return [chain[at : at + longest] for at in range(0, len(chain) - longest + 1, longest)]


def _check_common(job: Job, groups: Mapping[str, int]) -> None:
    if len(set(groups.values())) < 2:
        return
    odd = next(name for name, size in groups.items() if size != job.scheme.group)
    common = next((size for size in (64, 32) if all(_divides(size, x) for x in job.layers.values())), 0)
    remedy = f"ask for awq4-g{common}, or " if common else ""
    raise ConfigError(
        f"scheme {str(job.scheme)!r} asked, and AWQ has one group size for all layers, but {odd!r} has "
        f"{job.layers[odd].in_features} inputs, which {job.scheme.group} does not divide: {remedy}skip it."
    )


def _divides(size: int, layer: nn.Linear) -> bool:
    return layer.in_features % size == 0


def _write(folder: Path, job: Job, method: str, groups: Mapping[str, int]) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        job.hf.save_pretrained(folder / "model")
    others = [
        name
        for name, module in job.hf.named_modules()
        if name not in job.layers and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    ]
    request: dict[str, Any] = {
        "method": method,
        "bits": job.scheme.bits,
        "groups": {name: size or -1 for name, size in groups.items()},
        "skipped": others,
        "texts": chained(job.texts) if method == "awq" else [list(text) for text in job.texts],
        "device": job.hf.device.type,
    }
    (folder / "job.json").write_text(json.dumps(request))


def _run(folder: Path, job: Job) -> None:
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        "GPTQMODEL_CPU_WORKERS": str(max(2, os.cpu_count() or 2)),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", PROCESS, str(folder)],
        cwd=folder,  # it leaves logs where it runs
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip(" ^~")]
        said = " ".join(lines[-2:]) or f"nothing (exit code {done.returncode})"
        raise ModelError(
            f"scheme {str(job.scheme)!r} asked for a {job.hf.config.model_type!r} model, but gptqmodel "
            f"failed, saying {said[-300:]!r}. Built in, with other numbers: rtn{job.scheme.bits}."
        )


def _read(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def library() -> Gptqmodel:
    """The library."""
    return Gptqmodel()
