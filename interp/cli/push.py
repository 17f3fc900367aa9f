"""``interp push`` and ``interp export``: a saved thing to the Hub, and a run's tables to other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from interp.cli.frame import Work, command
from interp.cli.options import ModelSettings, Settings, flag
from interp.cli.session import Outcome
from interp.errors import ArtifactError, DataError

__all__ = ["export", "push"]

PARTS = ("vector", "monitor", "dictionary", "result")
"""What of a run is pushed: the first of these folders that it has."""


@dataclass(frozen=True, kw_only=True)
class PushSettings(ModelSettings):
    """Push a probe, translator, monitor, steering vector, dictionary, lens or result to the Hugging Face Hub.

    Safetensors, JSON and a card with what it was made on, its numbers beside their controls, and where it is
    known to be wrong. Of a run the vector, monitor or dictionary that it made is pushed, else its result.
    --model is asked for by lenses alone. You are logged in by `hf auth login`.
    """

    folder: str = flag(dataclasses.MISSING, "The folder of a saved thing, or a run.", given="position")
    repo: str = flag(dataclasses.MISSING, "The repository: user/name.", given="position")
    branch: str = flag("main", "The branch; made where it is not there.", metavar="NAME", part="call")
    visibility: Literal["public", "private"] | None = flag(
        None, "Of a new repository: public or private.", metavar="WHICH", shown="the account's", part="call"
    )
    license: str = flag("", "For the card, such as mit.", metavar="NAME", part="call")


@command(PushSettings, examples=("interp push runs/v user/name", "interp push probe/ user/p --branch draft"))
def push(work: Work, settings: PushSettings) -> Outcome:
    """Push, and say how it is loaded."""
    from interp.hub import translated
    from probes import ProbeFileError

    place = Path(settings.folder)
    try:
        pushing = _pushing(_part(place), work)
        with translated():
            source = pushing(
                settings.repo,
                revision=settings.branch,
                visibility=settings.visibility,
                license=settings.license,
            )
    except ProbeFileError as error:
        raise ArtifactError(str(error)) from error
    repo, _, commit = source.partition("@")

    def tell() -> None:
        click.echo(f"{source}\nload it: hf://{repo}@{commit[:12]}... (or hf://{repo} for the newest)")

    return Outcome({"source": source, "repo": repo, "commit": commit}, tell)


def _part(place: Path) -> Path:
    """The folder itself, or what a run has made."""
    if not place.is_dir():
        raise DataError(f"there is no folder '{place}'. Give a saved thing, or a run (`interp ls runs`).")
    if not (place / "run.json").is_file():
        return place
    return next((place / name for name in PARTS if (place / name).is_dir()), place)


def _pushing(place: Path, work: Work) -> Callable[..., str]:
    """What pushes the thing in a folder, by the file that marks its kind."""
    held = {path.name for path in place.iterdir()}
    if "vector.json" in held:
        from interp.steering import Vector

        return Vector.load(place).push_to_hub
    if "monitor.json" in held:
        from interp.analyses.monitoring import Monitor

        return Monitor.load(place).push_to_hub
    if "result.json" in held:
        from interp import results

        return results.load(place).push_to_hub
    if "cfg.json" in held:
        return _dictionary(place)
    if held & {"probe.json", "translator.json"}:
        return _of_probes(place)
    if "lens.json" in held or any(name.endswith(".safetensors") for name in held):
        from functools import partial

        from interp import lenses

        found: Any = lenses.opened(place, work.model)
        return partial(lenses.push_to_hub, found, model=work.model)
    raise DataError(
        f"'{place}' holds nothing to push (it holds {', '.join(sorted(held)[:5]) or 'nothing'}). Give "
        "the folder of a probe, translator, monitor, vector, dictionary, lens or result."
    )


def _of_probes(place: Path) -> Callable[..., str]:
    from probes import Probe
    from probes.translation import Translator

    kind = Probe if (place / "probe.json").is_file() else Translator
    return kind.load(place).push_to_hub


def _dictionary(place: Path) -> Callable[..., str]:
    """With the certificate of the run that it comes from, where there is one."""
    from functools import partial

    from interp import features, results
    from interp.features.trained import DictionaryTraining

    certificate, beside = None, place.parent / "result"
    if (beside / "result.json").is_file():
        made = results.load(beside)
        certificate = made.certificate if isinstance(made, DictionaryTraining) else None
    return partial(features.push_to_hub, features.load(place), certificate=certificate)


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Write the tables of a run, with all rows, as CSV or parquet files that any program opens.

    Other formats are written where they are made: `interp graph --neuronpedia FILE`, `interp steer --gguf
    FILE`; `mediation.MIBCircuit.save` writes MIB's circuit JSON.
    """

    run: str = flag(dataclasses.MISSING, "The run folder, or the folder of a result.", given="position")
    to: Literal["csv", "parquet"] = flag("csv", "csv or parquet.", metavar="KIND")
    out: str | None = flag(
        None, "The folder to write.", group="Run", metavar="PATH", part="call", shown="NAME-tables"
    )


@command(ExportSettings, examples=("interp export runs/x", "interp export runs/x --to parquet --out tables"))
def export(work: Work, settings: ExportSettings) -> Outcome:
    """Write the tables."""
    from interp import results

    place = Path(settings.run)
    inside = place / "result"
    result = results.load(inside if (inside / "result.json").is_file() else place)
    made = result.export(settings.out or f"{place.name}-tables", to=settings.to)
    names = [path.as_posix() for path in made]
    return Outcome({"files": names}, lambda: click.echo("\n".join(names)))
