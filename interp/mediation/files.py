"""Effects on disk: every number in a safetensors file, everything else in JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from interp import results
from interp.errors import ArtifactError
from interp.mediation.edges.edge import ARROW, Edge
from interp.mediation.mediators import Mediator
from interp.mediation.subspaces import Subspace

if TYPE_CHECKING:
    from interp.mediation.effects import Effects

__all__ = ["read_effects", "write_effects"]

NUMBERS, FACTS = "effects.safetensors", "effects.json"
PLAIN = ("search", "metric", "unit", "replacement", "noise", "cost", "model", "seed", "warnings")


def write_effects(effects: Effects, folder: str | Path) -> Path:
    """Write ``effects.json`` (the table and all facts) and ``effects.safetensors`` (every pair's numbers)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"values.{name}": torch.from_numpy(found.copy()) for name, found in effects.values.items()}
    tensors |= {"clean": torch.from_numpy(effects.clean), "corrupt": torch.from_numpy(effects.corrupt)}
    subspaces = {one for m in effects.mediators if (one := getattr(m, "subspace", None)) is not None}
    tensors |= {f"subspace.{one.name}": one.basis for one in subspaces}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / NUMBERS)
    facts = {
        **effects.to_dict(),
        "mediators": list(map(str, effects.mediators)),
        "groups": list(effects.groups),
    }
    results.write_json(facts, folder / FACTS)
    return folder


def read_effects(folder: str | Path) -> dict[str, Any]:
    """Read what :func:`write_effects` wrote, as the fields of ``Effects``.

    Raises:
        ArtifactError: a file is missing, damaged, or of something else.
    """
    folder = Path(folder)
    facts = results.read_json(folder / FACTS)
    try:
        tensors = load_file(folder / NUMBERS)
        spaces = {
            name.removeprefix("subspace."): Subspace(name.removeprefix("subspace."), tensor)
            for name, tensor in tensors.items()
            if name.startswith("subspace.")
        }
        found: dict[str, Any] = {name: facts[name] for name in PLAIN}
        return found | {
            "mediators": tuple(_mediator(name, spaces) for name in facts["mediators"]),
            "groups": tuple(facts["groups"]),
            "warnings": tuple(facts["warnings"]),
            "exact": bool(facts["exact"]),
            "clean": tensors["clean"].numpy(),
            "corrupt": tensors["corrupt"].numpy(),
            "values": {
                name.removeprefix("values."): tensor.numpy()
                for name, tensor in sorted(tensors.items())
                if name.startswith("values.")
            },
        }
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"'{folder}' does not hold effects saved by this toolkit ({error}). Save them again with "
            "effects.save(folder)."
        ) from error


def _mediator(name: str, spaces: Mapping[str, Subspace]) -> Mediator | Edge:
    return Edge.parse(name) if ARROW in name else Mediator.parse(name, spaces)
