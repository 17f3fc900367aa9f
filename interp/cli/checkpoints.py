"""The finished parts of a comparison on disk, so that an interrupted one can go on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from interp import results
from interp.errors import ArtifactError, ConfigError
from interp.results.codec import from_json, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from interp.quantization.comparison import Cell
    from interp.runs import RunFolder

__all__ = ["cell_name", "keep_cell", "read_cells"]

SCHEMA = "interp.cell/2"
REFERENCE = "reference"
FOLDER = "cells"


def cell_name(analysis: str, scheme: str) -> str:
    """The file of a cell in its run; names that are no plain words get a checksum."""
    return f"{FOLDER}/{_word(analysis)}--{_word(scheme or REFERENCE)}.json"


def _word(text: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:40]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def keep_cell(run: RunFolder, cell: Cell, of: Mapping[str, Any]) -> None:
    """Write a cell, with what it was measured on.

    Args:
        run: the run.
        cell: of a comparison; the reference's has the scheme "".
        of: fingerprints of models and texts, and the seed: another run of these may use the cell.
    """
    plain = to_json(cell)
    content = {"schema": SCHEMA, "of": dict(of), "sha256": _digest(plain), "cell": plain}
    run.write_json(cell_name(cell.analysis, cell.scheme), content)
    run.keep_partial()


def read_cells(run: RunFolder, of: Mapping[str, Any]) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """The sound cells of an interrupted run, and what is wrong with the others.

    Cells of an analysis whose reference is not among them are left out: they will be run again.

    Raises:
        ConfigError: they were measured on other weights or texts than this run would use.
    """
    found: list[Cell] = []
    faults: list[str] = []
    for path in sorted((run.path / FOLDER).glob("*.json")) if run.resumed else ():
        try:
            found.append(_read(path, of))
        except ArtifactError as error:
            faults.append(f"{FOLDER}/{path.name} is damaged and is measured again ({error})")
    whole = {cell.analysis for cell in found if not cell.scheme}
    kept = tuple(cell for cell in found if cell.analysis in whole)
    _take(run, {cell_name(cell.analysis, cell.scheme) for cell in kept})
    return kept, tuple(faults)


def _take(run: RunFolder, names: Collection[str]) -> None:
    """Put files into the run that are there already."""
    for name in sorted(names):
        run.add(name)
    if names:
        run.keep_partial()


def _read(path: Path, of: Mapping[str, Any]) -> Cell:
    from interp.quantization.comparison import Cell

    content = results.read_json(path)
    if content.get("schema") != SCHEMA or content.get("sha256") != _digest(content.get("cell")):
        raise ArtifactError("its content is not what was written")
    for name, before in content["of"].items():
        if before != of.get(name):
            raise ConfigError(
                f"--resume: {path} was measured with {name} = {before}, now it is {of.get(name)}. "
                "Use --overwrite to start again, or another --out."
            )
    return from_json(content["cell"], Cell)


def _digest(plain: Any) -> str:
    return hashlib.sha256(results.encode(plain)).hexdigest()
