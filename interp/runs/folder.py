"""Write one run folder."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from interp import results
from interp.errors import ArtifactError, ConfigError
from interp.runs.integrity import RUN, digest, member, remove_run, state, temporary, write_manifest
from interp.runs.lock import Lock, now

if TYPE_CHECKING:
    import pandas

import platform
from collections.abc import Sequence
from importlib import metadata

from interp._version import __version__

__all__ = ["PACKAGES", "RunFolder", "cache_key", "versions"]

SCHEMA = "interp.run/1"


class RunFolder:
    """Write one run: create it, add files, finish it. Use it in a ``with`` block.

    Leaving the block without :meth:`finish` removes everything this run wrote, unless :meth:`keep_partial`
    was called.

    Attributes:
        path: the folder.
        facts: the content of ``run.json``.
        resumed: whether it continues an unfinished run.
    """

    def __init__(self, path: Path, facts: dict[str, Any], lock: Lock, *, resumed: bool) -> None:
        """Keep an already locked folder; use :meth:`create`."""
        self.path, self.facts, self.resumed = path, facts, resumed
        self._lock = lock
        self._files: dict[str, dict[str, Any]] = {}
        self._log: list[dict[str, Any]] = []
        self._begun = self._finished = self._kept = False

    @classmethod
    def create(
        cls,
        out: str | Path | None,
        command: str,
        configuration: Mapping[str, Any],
        *,
        identity: Collection[str] | None = None,
        origins: Mapping[str, str] | None = None,
        task: str = "",
        overwrite: bool = False,
        resume: bool = False,
        root: str | Path = "runs",
    ) -> RunFolder:
        """Claim a folder for one run; nothing is deleted and no result is written yet.

        Args:
            out: the folder; ``None`` chooses ``<root>/<command>-<task>-<time>``.
            command: the command's name, such as ``"probe"``.
            configuration: the resolved settings, by name.
            identity: the settings that a run and its continuation must agree on; all where left out.
            origins: where each setting came from.
            task: a word for the default name.
            overwrite: allow the run in ``out`` to be replaced, at the moment the first new file is ready.
            resume: continue the unfinished run in ``out`` if there is one with the same settings.
            root: the folder of default names.

        Raises:
            ConfigError: when the folder is taken, is not a run, is being written, or cannot be written.
        """
        if overwrite and resume:
            raise ConfigError(
                "--overwrite and --resume exclude each other: --resume continues, --overwrite starts again."
            )
        path = Path(out) if out is not None else _fresh_name(Path(root), command, task)
        try:
            lock = Lock.acquire(path) if state(path) != "file" else None
        except OSError as error:  # a name that no folder can have
            raise ConfigError(
                f"--out {str(path)[:60]!r} cannot be used: {error.strerror}. Choose another name."
            ) from None
        try:
            found = state(path)
            _refuse_taken(path, found, command, overwrite=overwrite, resume=resume)
            resumed = resume and found == "unfinished"
            if resumed:
                _refuse_other_settings(path, configuration, identity)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        facts = {
            "schema": SCHEMA,
            "command": command,
            "status": "unfinished",
            "started": now(),
            "configuration": dict(configuration),
            "origins": dict(origins or {}),
            "versions": versions(),
        }
        assert lock is not None  # a file was refused above
        return cls(path, facts, lock, resumed=resumed)

    def begin(self) -> Path:
        """Start writing: remove what ``overwrite`` allowed to go, and note that a run is under way."""
        if not self._begun:
            self._begun = True
            if not self.resumed:
                remove_run(self.path)
            for left_by_a_crash in temporary(self.path):
                left_by_a_crash.unlink()
            results.write_atomically(self.path / RUN, results.encode(self.facts))
        return self.path

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write one file of the run, atomically, and note its checksum for the manifest.

        Raises:
            ArtifactError: when the run is finished, or the name leads out of its folder.
        """
        path = member(self.path, name)
        if self._finished:
            raise ArtifactError(
                f"{self.path} is finished already; {name!r} cannot be added. Use interp.runs.replace."
            )
        self.begin()
        results.write_atomically(path, content)
        self._files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        return path

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file as UTF-8."""
        return self.write_bytes(name, text.encode("utf-8", "backslashreplace"))

    def write_json(self, name: str, value: Any) -> tuple[str, ...]:
        """Write a JSON file; give the warnings about numbers that JSON cannot hold."""
        plain, warnings = results.jsonable(value)
        self.write_bytes(name, results.encode(plain))
        return warnings

    def write_table(self, name: str, table: pandas.DataFrame) -> Path:
        """Write a DataFrame as parquet."""
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return self.write_bytes(name, buffer.getvalue())

    def add(self, name: str) -> Path:
        """Take a file, or every file below a folder, that something else wrote here into the manifest."""
        path = member(self.path, name)
        self.begin()
        found = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
        for file in found:
            if not any(part.startswith(".") for part in file.relative_to(self.path).parts):
                self._files[file.relative_to(self.path).as_posix()] = digest(file)
        return path

    def log(self, message: str, *, level: str = "info", source: str = "interp") -> None:
        """Add a line to ``log.jsonl``, which :meth:`finish` writes."""
        self._log.append({"time": now(), "level": level, "source": source, "message": message})

    def keep_partial(self) -> None:
        """Leave what is written if the block ends early, so that ``resume`` can go on from it."""
        self._kept = True

    @property
    def resumable(self) -> bool:
        """Whether an end now would leave something that ``resume`` can go on from."""
        return self._begun and (self._kept or self.resumed) and not self._finished

    @property
    def artifacts(self) -> tuple[str, ...]:
        """Name the files written so far, relative to the folder."""
        return tuple(sorted(self._files))

    def finish(self, **facts: Any) -> Path:
        """Write ``log.jsonl``, ``run.json`` with these further facts and, last of all, ``manifest.json``."""
        self.begin()
        self.facts.update(facts, status="finished", finished=now())
        self.write_text(
            "log.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._log)
        )
        self.write_json(RUN, self.facts)
        write_manifest(self.path, self._files)
        self._finished = True
        return self.path

    def __enter__(self) -> RunFolder:
        """The folder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock; remove what an unfinished run wrote, unless it is to be kept."""
        if self._begun and not self._finished and not self.resumable:
            for name in self._files:
                (self.path / name).unlink(missing_ok=True)
            remove_run(self.path)
        self._lock.release()


def _fresh_name(root: Path, command: str, task: str) -> Path:
    words = [command, _slug(task), datetime.now().strftime("%Y%m%d-%H%M%S")]
    name = "-".join(word for word in words if word)
    candidates = (root / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(path for path in candidates if not path.exists())


def _slug(text: str) -> str:
    """Keep letters, digits, dots and dashes of a name, at most 40 of them."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return kept.strip(".-")[:40]


def _refuse_taken(path: Path, found: str, command: str, *, overwrite: bool, resume: bool) -> None:
    place = f"--out {str(path)!r}"
    if found == "file":
        raise ConfigError(f"{place} is a file, not a folder. Choose another name.")
    if found == "foreign":
        raise ConfigError(
            f"{place} holds files that are no run of this toolkit, so it is left alone. Choose a new or "
            f"empty folder."
        )
    if found == "finished" and resume:
        raise ConfigError(
            f"{place} holds a finished run: nothing to resume. Read it with `interp show`, or use "
            f"--overwrite."
        )
    if found == "finished" and not overwrite:
        raise ConfigError(
            f"{place} holds a finished run already. Use --overwrite to replace it, or choose another folder."
        )
    if found == "unfinished" and not (overwrite or resume):
        raise ConfigError(
            f"{place} holds an unfinished run. Use --resume to continue it, --overwrite to start again, "
            f"or another folder."
        )
    if found in ("finished", "unfinished") and (before := _command_of(path)) not in (command, ""):
        raise ConfigError(
            f"{place} holds a run of `interp {before}`, not of `interp {command}`. Choose another folder."
        )


def _command_of(path: Path) -> str:
    try:
        return str(results.read_json(path / RUN).get("command", ""))
    except (ArtifactError, OSError):  # absent or damaged: what may be overwritten all the same
        return ""


def _refuse_other_settings(
    path: Path, configuration: Mapping[str, Any], identity: Collection[str] | None
) -> None:
    before = results.read_json(path / RUN).get("configuration", {})
    now_asked = results.jsonable(configuration)[0]
    for name in sorted({*before, *now_asked} if identity is None else identity):
        if before.get(name) != now_asked.get(name):
            raise ConfigError(
                f"--resume: the run in {str(path)!r} has {name} = {before.get(name)!r}, asked is "
                f"{now_asked.get(name)!r}. "
                "Use the same settings, or --overwrite."
            )


PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
)


def versions() -> dict[str, str]:
    """The versions a run depends on: Python, platform, this toolkit, the packages it computes with."""
    found = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "interp": __version__,
        **{name: version for name, version in found.items() if version},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def cache_key(
    weights: str,
    tokenizer: str,
    token_ids: Sequence[Sequence[int]],
    *,
    site: str,
    positions: str,
    dtype: str,
    scheme: str = "none",
    library: str | None = None,
) -> str:
    """The key under which a capture is kept: the same request hits it, a different one cannot.

    Args:
        weights: fingerprint of the model's weights.
        tokenizer: fingerprint of the tokenizer.
        token_ids: the exact ids, prompt by prompt.
        site: the site's name.
        positions: the positions asked for, as text.
        dtype: the arithmetic's dtype.
        scheme: the weights' quantization.
        library: major version of this toolkit; ``None`` takes the running one.

    Returns:
        A sha256 in hexadecimal, over a canonical JSON text, so that no two requests can run into each other
        by concatenation.
    """
    request = {
        "weights": weights,
        "tokenizer": tokenizer,
        "token_ids": [[int(token) for token in prompt] for prompt in token_ids],
        "site": site,
        "positions": positions,
        "dtype": dtype,
        "scheme": scheme,
        "library": __version__.split(".")[0] if library is None else library,
    }
    return hashlib.sha256(json.dumps(request, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
