"""Saved runs for the page: an index by random-looking ids, and what a run holds, read without torch.

No name of a file ever comes from a request. A request names an id of the index; the files of that run are
those that its manifest lists, inside its own folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp import results, runs
from interp.errors import ArtifactError, ConfigError, InterpError
from interp.report.escape import printable

__all__ = ["Index", "compared"]

MOST = 2000
"""Runs that are listed."""
CALL = ("out", "overwrite", "resume", "yes", "json", "quiet", "verbose")
"""Settings that say how a call talks and where it writes."""
FACTS = ("command_line", "started", "finished")


class Index:
    """The runs that may be looked at.

    Args:
        places: run folders, and folders of runs.

    Raises:
        ConfigError: a place that is neither.
    """

    def __init__(self, places: Sequence[str | Path]) -> None:
        self.places = [Path(one).resolve() for one in places]
        for one in self.places:
            if not one.is_dir():
                raise ConfigError(f"{str(one)!r} is no folder. Give run folders, or folders that hold runs.")

    def _folders(self) -> dict[str, Path]:
        """Id -> folder of a run. A link that leads out of its place is not followed."""
        found: dict[str, Path] = {}
        for place in self.places:
            inside = [place] if (place / "run.json").is_file() else sorted(place.glob("*/run.json"))
            for path in inside[:MOST]:
                folder = path if path == place else path.parent
                if folder.resolve().is_relative_to(place) and (folder / "run.json").resolve().is_relative_to(
                    place
                ):
                    found[hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]] = folder
        return found

    def rows(self, asked: str = "") -> list[dict[str, Any]]:
        """The runs, newest first, that hold all words of a search.

        Args:
            asked: words; every one must be in the name, the command, the model or the verdict.
        """
        words = asked.casefold().split()
        rows = [_row(name, folder) for name, folder in self._folders().items()]
        kept = [
            row
            for row in rows
            if all(word in json.dumps(row, ensure_ascii=False).casefold() for word in words)
        ]
        return sorted(kept, key=lambda row: str(row["started"]), reverse=True)

    def folder(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            ArtifactError: there is none of that id.
        """
        found = self._folders().get(name)
        if found is None:
            raise ArtifactError("there is no such run; it may have been moved or removed.")
        return found

    def run(self, name: str) -> dict[str, Any]:
        """What a run holds: what was asked and found, its tables, and the names of its figures.

        Raises:
            ArtifactError: there is none of that id, or it is not finished or damaged.
        """
        folder = self.folder(name)
        facts = runs.open_run(folder)
        listed = runs.files(folder)
        found = _json(folder, "metrics.json") if "metrics.json" in listed else {}
        return {
            **_row(name, folder),
            "settings": _settings(facts),
            "warnings": _texts(facts.get("warnings")),
            "facts": {key: printable(facts.get(key, "")) for key in FACTS},
            "model_facts": {key: printable(one) for key, one in _mapping(facts.get("model")).items()},
            "found": found if isinstance(found, dict) else {},
            "figures": [one.removeprefix("figures/") for one in self._figures(listed)],
            "page": "report.html" in listed,
        }

    @staticmethod
    def _figures(listed: Sequence[str]) -> list[str]:
        return [one for one in listed if one.startswith("figures/") and one.endswith(".svg")]

    def figure(self, name: str, number: int) -> bytes:
        """A figure of a run, by its place among those that :meth:`run` names.

        Raises:
            ArtifactError: there is none.
        """
        folder = self.folder(name)
        runs.open_run(folder)
        found = self._figures(runs.files(folder))
        if not 0 <= number < len(found):
            raise ArtifactError("this run has no such figure.")
        return runs.member(folder, found[number]).read_bytes()

    def page(self, name: str) -> bytes:
        """The report of a run as it was written.

        Raises:
            ArtifactError: there is none.
        """
        folder = self.folder(name)
        runs.open_run(folder)
        if "report.html" not in runs.files(folder):
            raise ArtifactError("this run has no report; `interp report` writes one.")
        return runs.member(folder, "report.html").read_bytes()


def _row(name: str, folder: Path) -> dict[str, Any]:
    """A line of the index; a run whose files cannot be read is listed as damaged."""
    row: dict[str, Any] = {"id": name, "name": printable(folder.name), "status": "damaged"}
    row |= {"command": "", "about": "", "model": "", "started": "", "verdict": ""}
    try:
        facts = _json(folder, "run.json")
        status = printable(facts.get("status", ""))
        finished = (folder / runs.MANIFEST).is_file()
        settings = _mapping(facts.get("configuration"))
        about = settings.get("task") or settings.get("data") or settings.get("prompt") or ""
        row |= {
            "status": status if finished or status != "finished" else "unfinished",
            "command": printable(facts.get("command", "")),
            "about": printable(about)[:200],
            "model": printable(settings.get("model", "")),
            "started": printable(facts.get("started", "")),
        }
        if finished and (folder / "metrics.json").is_file():
            row["verdict"] = printable(_json(folder, "metrics.json").get("verdict", ""))[:400]
    except (InterpError, OSError, ValueError, RecursionError):
        row["status"] = "damaged"
    return row


def _json(folder: Path, name: str) -> dict[str, Any]:
    found = results.read_json(runs.member(folder, name))
    if not isinstance(found, dict):
        raise ArtifactError(f"{name} is no mapping.")
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> list[str]:
    return [printable(one) for one in value] if isinstance(value, list) else []


def _settings(facts: Mapping[str, Any]) -> dict[str, str]:
    """The settings that somebody gave."""
    origins = _mapping(facts.get("origins"))
    given = _mapping(facts.get("configuration")).items()
    return {
        printable(key): printable(one)
        for key, one in given
        if origins.get(key) != "default" and key not in CALL
    }


def compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two runs side by side: the settings in which they differ, and every number that both have.

    Args:
        first: as :meth:`Index.run` gives it.
        second: the other one.
    """
    names = [*first["settings"], *(one for one in second["settings"] if one not in first["settings"])]
    settings = [
        {"name": name, "first": first["settings"].get(name, ""), "second": second["settings"].get(name, "")}
        for name in names
        if first["settings"].get(name, "") != second["settings"].get(name, "")
    ]
    ours, theirs = (_mapping(one["found"].get("numbers")) for one in (first, second))
    rows = [
        _difference(name, _mapping(ours[name]), _mapping(theirs[name])) for name in ours if name in theirs
    ]
    only = [name for name in {**ours, **theirs} if (name in ours) != (name in theirs)]
    same = first["found"].get("schema") == second["found"].get("schema")
    note = (
        "A difference of two runs has no interval here: they may share prompts, which the intervals of each "
        "do not know. `interp compare` measures both on the same items, and gives one."
    )
    heads = [
        {key: one[key] for key in ("id", "name", "command", "model", "verdict", "figures")}
        for one in (first, second)
    ]
    return {"runs": heads, "settings": settings, "numbers": rows, "only": only, "alike": same, "note": note}


def _difference(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    a, b = first.get("value"), second.get("value")
    both = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (a, b))
    keys = ("value", "low", "high")
    parts = [{key: one.get(key) for key in keys} for one in (first, second)]
    overlap = _overlap(*parts)
    return {
        "name": name,
        "unit": str(first.get("unit", "")),
        "first": parts[0],
        "second": parts[1],
        "difference": b - a if both else None,  # type: ignore[operator]
        "intervals": overlap,
    }


def _overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Whether the intervals of two numbers overlap; "" where one has none."""
    ends = [one.get(key) for one in (first, second) for key in ("low", "high")]
    if not all(isinstance(one, int | float) for one in ends):
        return ""
    low, high, other_low, other_high = ends
    return "overlap" if low <= other_high and other_low <= high else "apart"  # type: ignore[operator]
