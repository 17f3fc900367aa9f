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

from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ConfigError, ModelError
from interp.quantization.libraries.codes import Codes, from_awq, from_gptq
from interp.quantization.libraries.library import Job, Library, Packed
from interp.quantization.schemes import Scheme

__all__ = ["Gptqmodel", "chained", "library"]

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
        """Say what has to be installed, also beside a torch that is older than gptqmodel asks for."""
        found = super().missing(scheme)
        older = "pip install --no-deps gptqmodel==7.7.0 defuser device-smi logbar tokenicer pypcre"
        return found and f"{found}, or beside torch 2.13 {older}"

    def packed(self, job: Job) -> Packed:
        """Give the codes of each layer.

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
        """Give the dequantized weights."""
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
    """Give the library."""
    return Gptqmodel()
