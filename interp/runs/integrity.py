"""Read run folders back: what is there, and whether it is what was written."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from interp import results
from interp.errors import ArtifactError, ConfigError, counted

__all__ = [
    "LAYOUT",
    "MANIFEST",
    "digest",
    "files",
    "listing",
    "member",
    "open_result",
    "open_run",
    "replace",
    "state",
    "verify",
]

MANIFEST = "manifest.json"
RUN = "run.json"
FILES = (
    RUN,
    "data.parquet",
    "metrics.json",
    "metrics.parquet",
    "effects.parquet",
    "report.html",
    "log.jsonl",
)
FOLDERS = ("result", "tables", "figures", "probes", "activations", "cells")
LAYOUT = (*FILES, *FOLDERS)
READ = ("result", "probes", "activations", "cells")
"""The folders whose files are read back as part of a run; a picture may be put among the figures."""
SMALL = 1 << 22
"""Bytes of a file whose content is compared whenever a run is read: its tables and numbers."""


def digest(path: Path) -> dict[str, Any]:
    """A file's sha256 (hexadecimal) and its size in bytes."""
    with path.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": path.stat().st_size}


def member(folder: Path, name: str) -> Path:
    """The path of a file inside a run folder, refusing any name that leads out of it.

    Raises:
        ArtifactError: for an absolute name, one with ``..``, or one that passes through a link to somewhere
            else.
    """
    parts = PurePosixPath(name).parts
    outside = (
        not parts
        or ".." in parts
        or "\\" in name
        or ":" in name
        or "\0" in name
        or PurePosixPath(name).is_absolute()
    )
    if outside or not folder.joinpath(*parts).resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(
            f"{folder / MANIFEST} names {name!r}, which is outside the run folder. It is not followed; do "
            f"not trust this run."
        )
    return folder.joinpath(*parts)


def state(path: Path) -> str:
    """What is at a path: absent, finished, unfinished, foreign (something else's folder) or file."""
    if not path.exists() and not path.is_symlink():
        return "absent"
    if not path.is_dir():
        return "file"
    run = _made_here(path / RUN, "interp.run/")
    if (path / MANIFEST).is_file():
        return "finished" if run or _made_here(path / MANIFEST, "interp.manifest/") else "foreign"
    if run:
        return "unfinished"
    return "foreign" if any(not p.name.startswith(".") for p in path.iterdir()) else "absent"


def _made_here(file: Path, schema: str) -> bool:
    """Whether there is a JSON file of a schema of ours."""
    try:
        content = results.read_json(file)
    except (ArtifactError, OSError):
        return False
    return isinstance(content, dict) and str(content.get("schema", "")).startswith(schema)


def open_run(path: str | Path) -> dict[str, Any]:
    """Read ``run.json`` of a finished run, after checking that every file is there with its size.

    Small files, which a page is made of, are compared with their sha256 too; large ones by :func:`verify`.

    Raises:
        ArtifactError: when there is no finished run, or a file is missing or has another size or content.
    """
    path = Path(path)
    for name, known in manifest(path).items():
        file = _present(path, name)
        if file.stat().st_size != known["bytes"]:
            raise ArtifactError(
                f"{file} has {counted(file.stat().st_size, 'byte')}, the manifest says {known['bytes']:,}. "
                "The run is damaged: make it again with --overwrite."
            )
        if known["bytes"] <= SMALL:
            _same(file, known)
    return results.read_json(member(path, RUN))


def open_result(path: str | Path) -> tuple[dict[str, Any], results.Result]:
    """``run.json`` of a finished run, and its result.

    Raises:
        ArtifactError: when there is no finished run, or it is damaged.
        ConfigError: when an older version made it, whose results this one cannot read.
    """
    path = Path(path)
    facts = open_run(path)
    if not (path / "result" / "result.json").is_file():
        line = facts.get("command_line")
        raise ConfigError(
            f"{str(path)!r} was made by an older version of interp, whose results this one cannot show. "
            "Its own report.html and metrics.json are as they were."
            + (f" To see it here, make it again: {line} --out NEW" if line else "")
        )
    return facts, results.load(path / "result")


def verify(path: str | Path) -> dict[str, Any]:
    """Compare every file of a finished run with its recorded sha256, and give ``run.json``.

    Raises:
        ArtifactError: naming the first file that differs.
    """
    facts = open_run(path)
    for name, known in manifest(Path(path)).items():
        _same(member(Path(path), name), known)
    listed = {member(Path(path), name) for name in manifest(Path(path))}
    for folder in (Path(path) / name for name in READ):
        extra = sorted(file for file in folder.rglob("*") if file.is_file() and not _hidden(file, folder))
        if strange := [file for file in extra if file not in listed]:
            raise ArtifactError(
                f"{strange[0]} is not in the manifest: it is no part of this run. Remove it, or make the run "
                "again with --overwrite."
            )
    return facts


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _same(file: Path, known: dict[str, Any]) -> None:
    """Compare a file with the manifest's sha256.

    Raises:
        ArtifactError: it differs.
    """
    if digest(file)["sha256"] != known["sha256"]:
        raise ArtifactError(
            f"{file} is corrupt: its sha256 is not the manifest's. Make the run again with --overwrite."
        )


def manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Read the manifest's list of files: name -> sha256 and bytes.

    Raises:
        ArtifactError: when there is none, or it is damaged or names a place outside the folder.
    """
    found = state(path)
    if found != "finished":
        remedy = {
            "absent": "there is nothing there; `interp ls runs` lists the runs",
            "unfinished": "the run there never finished; make it again with --resume or --overwrite",
        }
        raise ArtifactError(
            f"{str(path)!r} is not a finished run: {remedy.get(found, 'it was not made by this toolkit')}."
        )
    files = results.read_json(path / MANIFEST).get("files")
    if not isinstance(files, dict) or RUN not in files or not all(_sound(entry) for entry in files.values()):
        raise ArtifactError(
            f"{path / MANIFEST} is damaged: it does not list files with sha256 and bytes. Make the run again."
        )
    for name in files:
        member(path, name)
    return files


def files(path: str | Path) -> tuple[str, ...]:
    """Name the files of a finished run, relative to its folder."""
    return tuple(manifest(Path(path)))


def replace(path: str | Path, name: str, content: bytes) -> Path:
    """Write one file of a finished run anew (its report, say), keeping the manifest true at every moment.

    Raises:
        ArtifactError: when there is no finished run.
    """
    path = Path(path)
    listed = manifest(path)
    target = member(path, name)
    listed.pop(name, None)
    write_manifest(
        path, listed
    )  # first without the file: a crash in between leaves a sound run that lacks it
    results.write_atomically(target, content)
    write_manifest(path, {**listed, name: digest(target)})
    return target


def write_manifest(path: Path, listed: dict[str, dict[str, Any]]) -> None:
    """Write the manifest of a run: sha256 and bytes of every file listed."""
    content = {"schema": "interp.manifest/1", "files": dict(sorted(listed.items()))}
    results.write_atomically(path / MANIFEST, results.encode(content))


def _sound(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("bytes"), int)
    )


def _present(folder: Path, name: str) -> Path:
    file = member(folder, name)
    if not file.is_file():
        raise ArtifactError(f"{file} is missing. The run is damaged: make it again with --overwrite.")
    return file


def listing(root: str | Path = "runs") -> list[dict[str, Any]]:
    """List the runs in a folder, newest first: name, command, status, task, model, started."""
    rows = []
    for path in sorted(Path(root).glob("*/" + RUN)):
        facts: dict[str, Any] = {"status": "damaged"}
        with contextlib.suppress(ArtifactError):
            facts = results.read_json(path)
        settings = facts.get("configuration", {})
        status = facts.get("status", "")
        if status == "finished" and state(path.parent) != "finished":
            status = "unfinished"
        rows.append(
            {
                "run": path.parent.as_posix(),
                "command": facts.get("command", ""),
                "status": status,
                "task": _about(settings),
                "model": settings.get("model", ""),
                "started": facts.get("started", ""),
            }
        )
    return sorted(rows, key=lambda row: row["started"], reverse=True)


def _about(settings: dict[str, Any]) -> str:
    """What a run was of, in a word: its task, its data, or its analyses."""
    return settings.get("task") or settings.get("data") or ",".join(settings.get("analyses") or ())


def remove_run(path: Path) -> None:
    """Remove a run's own files from its folder, and nothing else; folders that end up empty go too.

    First goes the manifest, so that the run is not finished, and last what says that it was a run: whoever
    comes after an end at any moment in between finds an unfinished run, not somebody else's files.
    """
    listed: dict[str, Any] = {}
    if state(path) == "finished":
        with contextlib.suppress(ArtifactError):
            listed = manifest(path)
    (path / MANIFEST).unlink(missing_ok=True)  # first: from here on the run is not finished
    for name in listed:
        if name != RUN:
            member(path, name).unlink(missing_ok=True)
    if not listed:
        _remove_layout(path)
    for top in (path / name for name in FOLDERS if not (path / name).is_symlink()):
        for folder in (*sorted(top.rglob("*"), reverse=True), top):
            _remove_if_empty(folder)
    (path / RUN).unlink(missing_ok=True)


def temporary(path: Path) -> list[Path]:
    """The half-written files that a crash left in a run; a store looks after its own."""
    own = [path / name for name in FOLDERS if name != "activations" and not (path / name).is_symlink()]
    return [*path.glob(".*.tmp"), *(file for folder in own for file in folder.rglob(".*.tmp"))]


def _remove_layout(path: Path) -> None:
    for name in FILES:
        if name != RUN:
            (path / name).unlink(missing_ok=True)
    for name in FOLDERS:
        if (path / name).is_dir() and not (path / name).is_symlink():
            shutil.rmtree(path / name)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
