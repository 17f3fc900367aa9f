"""The floors as data: who stands where, and which third-party package may be used in which room."""

from __future__ import annotations

from collections.abc import Sequence

from tests.architecture.syntax import PACKAGES, Module

__all__ = ["DISTRIBUTIONS", "FLOORS", "INDIRECT", "ROOMS", "floor", "foreign", "third_party", "upward"]

FRONT_DOOR = 9  # `interp` itself: a library module that imports it imports everything
FLOORS: dict[str, int] = {
    "interp.__main__": 6,
    "interp.cli": 6,
    "interp.serve": 6,
    "interp.report": 5,
    "interp.analyses": 4,
    "interp.demo": 4,
    "interp.audit": 4,
    "interp.quantization.comparison": 3,
    "interp.lenses": 2,
    "interp.mediation": 2,
    "interp.steering": 2,
    "interp.quantization": 2,
    "interp.tasks": 2,
    "interp.features": 2,
    "interp.scaling": 2,
    "interp.features.activations": 1,
    "interp.features.dictionary": 1,
    "interp.models": 1,
    "interp.activations": 1,
    "interp.store": 1,
    "interp.pairs": 1,
    "interp.results": 1,
    "interp.runs": 1,
    "interp._version": 0,
    "interp._lazy": 0,
    "interp.addresses": 0,
    "interp.conversations": 0,
    "interp.errors": 0,
    "interp.hub": 1,
    "interp.paths": 0,
    "interp.sites": 0,
    "interp": FRONT_DOOR,
    "probes": 1,
    "probes._lazy": 0,
    "probes.statistics": 0,
    "probes.vsa": 0,
}
DOORS = {"interp.quantization": 3, "interp.steering": 4}
"""A package whose own ``__init__`` offers more than its modules may import: that file alone stands here."""
SEES_BOTH = (
    "interp.cli",
    "interp.analyses",
    "interp.lenses.translator",
    "interp.lenses.gathering",
    "interp.steering.methods",
    "interp.steering.fitting",
    "interp.__main__",
    "interp.hub",
)

EVERYWHERE = ("interp", "probes")
ROOMS: dict[str, tuple[str, ...]] = {
    "transformers": ("interp.models", "interp.demo"),
    "tokenizers": ("interp.models", "interp.demo"),
    "transformer_lens": ("interp.models.backends.transformer_lens",),
    "nnsight": ("interp.models.backends.nnsight",),
    "torchao": ("interp.quantization.libraries",),
    "bitsandbytes": ("interp.quantization.libraries",),
    "gguf": ("interp.quantization.libraries", "interp.models.gguf", "interp.steering.control_vectors"),
    "accelerate": ("interp.models",),
    "peft": ("interp.models.peft_adapters",),
    "gptqmodel": ("interp.quantization.libraries",),
    "rich": ("interp.report", "interp.cli"),
    "matplotlib": ("interp.report", "interp.cli"),
    "jinja2": ("interp.report",),
    "markupsafe": ("interp.report",),
    "click": ("interp.cli",),
    "starlette": ("interp.serve",),
    "uvicorn": ("interp.serve.connections",),
    "yaml": ("interp.cli", "interp.features.layouts"),
    "sklearn": ("probes",),
    "scipy": ("probes", "interp.mediation", "interp.analyses", "interp.quantization.comparison"),
    "pyarrow": ("interp.runs", "interp.store", "interp.tasks", "interp.results"),
    "ray": ("interp.scaling",),
    "fsspec": ("interp.addresses",),
    "huggingface_hub": ("interp.models", "interp.cli", "interp.features", "probes.hub"),
    "torch": EVERYWHERE,
    "numpy": EVERYWHERE,
    "pandas": EVERYWHERE,
    "einops": EVERYWHERE,
    "jaxtyping": EVERYWHERE,
    "safetensors": EVERYWHERE,
    "tqdm": EVERYWHERE,
}
BARE: dict[str, tuple[str, ...]] = {  # rooms that may use these third-party packages and no other
    "interp.errors": (),
    "interp.paths": (),
    "interp.sites": (),
    "probes.statistics": ("numpy", "scipy", "jaxtyping"),
    "probes.vsa": ("torch", "numpy", "einops", "jaxtyping", "safetensors"),
}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml", "transformer_lens": "transformer-lens"}
INDIRECT = ("accelerate", "bitsandbytes", "gguf", "gptqmodel", "markupsafe", "peft", "ray")
"""Extras, and parts of others."""


def inside(module: str, room: str) -> bool:
    """Tell whether a module is a room or stands in it."""
    return module == room or module.startswith(f"{room}.")


def _row(module: str, table: Sequence[str]) -> str | None:
    return max((room for room in table if inside(module, room)), key=len, default=None)


def floor(module: str) -> int | None:
    """Give the floor of a module; None where no row of the table covers it."""
    if module in DOORS:
        return DOORS[module]
    row = _row(module, list(FLOORS))
    return None if row is None or (row == "interp" and module != "interp") else FLOORS[row]


def _own(name: str) -> bool:
    return name.split(".")[0] in PACKAGES


def upward(modules: Sequence[Module]) -> list[str]:
    """List the imports that point to a higher floor, from probes to interp, or past the door between them."""
    known = frozenset(module.name for module in modules)
    found = []
    for module in modules:
        here = floor(module.name)
        if here is None:
            found.append(f"{module.name} has no floor: add a row to FLOORS")
            continue
        for line, target in module.imports(known):
            if _own(target) and (reason := _forbidden(module.name, here, target)):
                found.append(f"{module.name}:{line} imports {target}: {reason}")
    return found


def _forbidden(module: str, here: int, target: str) -> str | None:
    crosses = module.split(".")[0] != target.split(".")[0]
    if crosses and target.startswith("interp"):
        return "probes never imports interp"
    if crosses:
        allowed = inside(target, "probes.statistics") or any(inside(module, room) for room in SEES_BOTH)
        return None if allowed else "of probes, only probes.statistics may be used here"
    there = floor(target)
    if there is None:
        return "it has no floor"
    return f"floor {here} looks up to floor {there}" if there > here else None


def third_party(modules: Sequence[Module], standard: frozenset[str]) -> list[str]:
    """List the imports of a third-party package in a room that may not use it."""
    found = []
    for module in modules:
        for line, target in module.imports():
            package = target.split(".")[0]
            if package in standard or _own(target) or module.name == "interp":
                continue
            if not foreign(module.name, package):
                found.append(f"{module.name}:{line} imports {package}")
    return found


def foreign(module: str, package: str) -> bool:
    """Tell whether a module may import a third-party package."""
    bare = _row(module, list(BARE))
    if bare is not None and package not in BARE[bare]:
        return False
    return any(inside(module, room) for room in ROOMS.get(package, ()))
