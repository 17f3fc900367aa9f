"""The process in which gptqmodel runs: from a folder with a model and token ids to one with a checkpoint.

    python -m interp.quantization.libraries.gptqmodel_process FOLDER

A process of its own, because importing gptqmodel sets environment variables and logging for everybody, and
because it starts workers that import the main module again. Reads ``job.json`` (see :func:`main`) and
``model/``; writes ``quantized/`` and ``factors.safetensors``.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["main"]


def main(folder: Path) -> None:
    """Quantize ``folder/model`` as ``folder/job.json`` says.

    The job holds ``method`` ("gptq" or "awq"), ``bits``, ``groups`` (module name -> group size, -1 for a row;
    modules that are not named stay as they are), ``texts`` (token ids) and ``device``.
    """
    from safetensors.torch import save_file

    job = json.loads((folder / "job.json").read_text())
    _write_tokenizer(folder / "model")
    calibration = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["texts"]]
    dtype = torch.float32 if job["method"] == "gptq" else torch.bfloat16  # AWQ's modules hold no float32
    gptqmodel: Any = import_module("gptqmodel")
    model = gptqmodel.GPTQModel.load(str(folder / "model"), _config(job), device=job["device"], dtype=dtype)
    factors = _recorded(model)
    # the default drops texts of ten tokens or fewer, and says so in its log only
    model.quantize(calibration, batch_size=1, calibration_data_min_length=0, calibration_sort=None)
    model.save(str(folder / "quantized"))
    save_file(factors or {"none": torch.zeros(1)}, folder / "factors.safetensors")


def _write_tokenizer(folder: Path) -> None:
    """Put a tokenizer of one token into a folder: gptqmodel opens one, though token ids need none."""
    table: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"},
    }
    table |= dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "pad_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps(table))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _config(job: dict[str, Any]) -> Any:
    gptqmodel: Any = import_module("gptqmodel")
    names: Any = import_module("gptqmodel.quantization")
    sizes = list(job["groups"].values())
    common = max(set(sizes), key=sizes.count)
    others: dict[str, Any] = {
        f"+:^{re.escape(name)}$": {"group_size": size, "act_group_aware": size > 0}
        for name, size in job["groups"].items()
        if size != common
    }
    others |= {f"-:^{re.escape(name)}$": {} for name in job["skipped"]}
    shared: dict[str, Any] = {
        "bits": job["bits"],
        "group_size": common,
        "dynamic": others or None,
        "offload_to_disk": False,
        "fallback": None,  # the default rounds to nearest, silently, where too few tokens arrive
    }
    if job["method"] == "gptq":
        return gptqmodel.QuantizeConfig(**shared, act_group_aware=common > 0)
    awq = {"quant_method": names.METHOD.AWQ, "format": names.FORMAT.GEMM, "sym": False}
    return gptqmodel.QuantizeConfig(**shared, **awq)


def _recorded(model: Any) -> dict[str, Tensor]:
    """Have AWQ write down by which factors it moves size from a layer's input into what comes before.

    Returns:
        A dict that fills during quantization: ``NAME:columns`` has one factor per input of a layer whose
        weights were multiplied by it; ``NAME:rows`` one per output of a layer whose weights were divided.
    """
    awq_processor: Any = import_module("gptqmodel.looper.awq_processor")
    found: dict[str, Tensor] = {}
    original = awq_processor.apply_scale

    def apply_scale(block: nn.Module, groups: Any, input_feat_dict: Any = None) -> None:
        place = next(name for name, module in model.model.named_modules() if module is block)
        for before, layers, factor, *_ in groups:
            factor = factor.detach().float().cpu().flatten()
            for layer in layers:
                _multiply(found, f"{place}.{layer}:columns", factor)
            if isinstance(block.get_submodule(before), nn.Linear):
                _multiply(found, f"{place}.{before}:rows", factor)
        original(block, groups, input_feat_dict=input_feat_dict)

    awq_processor.apply_scale = apply_scale
    return found


def _multiply(found: dict[str, Tensor], key: str, factor: Tensor) -> None:
    found[key] = (found[key] * factor if key in found else factor).clone()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
