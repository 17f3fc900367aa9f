"""``interp doctor``: is this environment complete, and is this model read correctly?"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from interp.cli.frame import Work, command
from interp.cli.options import SchemeSettings
from interp.cli.session import Outcome
from interp.errors import ModelError

if TYPE_CHECKING:
    from interp.quantization import Integrity

__all__ = ["doctor", "environment"]

NEEDED = (
    "torch",
    "transformers",
    "transformer-lens",
    "nnsight",
    "torchao",
    "scikit-learn",
    "scipy",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "tokenizers",
    "einops",
    "jaxtyping",
    "pyyaml",
    "click",
    "rich",
    "tqdm",
    "jinja2",
    "matplotlib",
)


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(SchemeSettings):
    """Check the environment and whether numbers from a model can be trusted (exit 4 when a check fails)."""


@command(
    DoctorSettings,
    examples=("interp doctor", "interp doctor --model gpt2", "interp doctor --model ./my-model --json"),
)
def doctor(work: Work, settings: DoctorSettings) -> Outcome:
    """Examine packages, accelerators and a model."""
    from interp.models.doctor import examine
    from interp.report import terminal
    from interp.report.document import document

    surroundings = environment()
    model = work.model
    certificate = examine(model, seed=settings.seed)
    integrity = _integrity(work, settings)
    failed = [row["item"] for row in surroundings if row["status"] == "fail"]
    failed += [check.name for check in certificate.failures]
    failed += [f"{check.name} ({one.mode})" for one in integrity for check in one.failures]
    remedy = (
        "Do not trust numbers from it; `interp doctor --json` gives every measurement."
        if certificate.failures
        else "Install what is missing."
    )
    error = (
        ModelError(f"{model.name}: {len(failed)} checks failed: {', '.join(failed)}. {remedy}")
        if failed
        else None
    )

    def show() -> None:
        _show(surroundings)
        for one in (certificate, *integrity):
            terminal.write(document(one))

    data = {
        "environment": surroundings,
        "certificate": certificate.summary(),
        "integrity": [one.summary() for one in integrity],
        "passed": not failed,
    }
    return Outcome(data, show, error=error)


def _integrity(work: Work, settings: DoctorSettings) -> list[Integrity]:
    """Examine a quantized model against its base, and its scheme in the library's own modules."""
    if settings.scheme in ("none", "fp32", "bf16"):
        return []
    from interp.quantization import Scheme, quantize, verify_quantization

    base = work.load(settings)
    models = [work.model]
    if Scheme.parse(settings.scheme).packs:
        models.append(quantize(base, settings.scheme, mode="packed"))
    return [verify_quantization(one, base) for one in models]


def environment() -> list[dict[str, str]]:
    """Check Python, the packages, the accelerators and the bundled model: one row each."""
    import torch

    from interp.paths import assets

    rows = [{"item": "python", "status": "pass", "found": platform.python_version()}]
    rows += [_package(name) for name in NEEDED]
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    rows.append(
        {"item": "accelerators", "status": "pass", "found": ", ".join(gpus) or "none: computing on the CPU"}
    )
    rows.append(
        {
            "item": "cpu",
            "status": "pass",
            "found": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use",
        }
    )
    bundled = (assets("demo-24l") / "config.json").is_file()
    rows.append(
        {
            "item": "bundled model",
            "status": "pass" if bundled else "warn",
            "found": "demo" if bundled else "not here",
        }
    )
    writable = os.access(Path.cwd(), os.W_OK)
    rows.append(
        {
            "item": "this folder",
            "status": "pass" if writable else "warn",
            "found": "writable" if writable else "not writable: use --out",
        }
    )
    return rows


def _package(name: str) -> dict[str, str]:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return {"item": name, "status": "fail", "found": f"not installed: pip install {name}"}
    return {"item": name, "status": "pass", "found": re.sub(r"\+.*", "", version)}


def _show(surroundings: list[dict[str, str]]) -> None:
    versions = ", ".join(
        f"{row['item']} {row['found']}"
        for row in surroundings
        if row["item"] in (*NEEDED, "python") and row["status"] == "pass"
    )
    click.echo(f"environment: {versions}")
    for row in surroundings:
        if row["item"] not in (*NEEDED, "python") or row["status"] != "pass":
            click.echo(f"{row['item']}: {row['found']}")
