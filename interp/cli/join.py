"""``interp join``: help a capture that another process runs, here or on another machine."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from interp.cli.capture import CaptureSettings, job_of
from interp.cli.frame import Work, command, load_model, read_prompts
from interp.cli.options import Settings, flag, keys
from interp.cli.session import Outcome
from interp.errors import ArtifactError, ConfigError, counted

__all__ = ["join"]


@dataclass(frozen=True, kw_only=True)
class JoinSettings(Settings):
    """Help a capture that is running, from this machine or another that sees its folder.

    Start `interp capture ... --out RUN` once and `interp join RUN` as often as there are processes to spare.
    Each loads the same model and makes shards until none is left; the run is the same, byte for byte.
    """

    run: str = flag(dataclasses.MISSING, "The run folder of the capture.", given="position")
    wait: int = flag(
        60,
        "Seconds to wait for the capture to begin.",
        metavar="SECONDS",
        group="Run",
        check=lambda seconds: seconds >= 0,
        allowed="0 or more",
    )


@command(JoinSettings, examples=("interp join runs/x", "interp join /shared/runs/x --wait 600"))
def join(work: Work, settings: JoinSettings) -> Outcome:
    """Make shards until none is left."""
    from tqdm.auto import tqdm

    from interp import scaling

    path = Path(settings.run)
    asked = CaptureSettings(**_configuration(path, settings.wait))
    model = load_model(asked, asked.scheme)
    work.session.note(f"model: {model!r}")
    tokens = model.tokenize(list(read_prompts(work, asked).prompts))
    job = job_of(model, tokens, asked, path)
    made = scaling.help_out(job, model, tokens, seed=int.from_bytes(os.urandom(8), "little"))
    n = sum(len(part.rows) for part in tqdm(made, unit="shard", disable=not work.session.progress))
    told = f"{counted(n, 'prompt')} of {path} were read here; nothing is left for others to read."
    return Outcome({"prompts": n}, lambda: click.echo(told), run=path)


def _configuration(path: Path, wait: int) -> dict[str, Any]:
    """The settings of the capture that runs there.

    Raises:
        ConfigError: nothing begins there within the time, or it is no capture.
    """
    from interp.results import read_json
    from interp.runs.integrity import RUN, state

    until = time.monotonic() + wait
    while state(path) not in ("unfinished", "finished"):
        if time.monotonic() >= until:
            raise ConfigError(
                f"no capture has begun in {path.as_posix()!r} after {counted(wait, 'second')}. Start one "
                f"with `interp capture ... --out {path.as_posix()}`, or wait longer with --wait."
            )
        time.sleep(0.2)
    facts = read_json(path / RUN)
    if facts.get("command") != "capture":
        raise ArtifactError(
            f"{path.as_posix()!r} is a run of `interp {facts.get('command')}`; only a capture can be joined."
        )
    found = {
        one.name: facts["configuration"].get(key, one.default) for key, one in keys(CaptureSettings).items()
    }
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
