"""``interp serve``: the explorer, a local page over a loaded model and saved runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.frame import Work, command
from interp.cli.options import SchemeSettings, features_flag, flag
from interp.cli.session import Outcome
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.serve.calls import Loaded
    from interp.serve.jobs import Queue

__all__ = ["ServeSettings", "command_of", "loaded_of", "serve"]

RUNS = "runs"
SECONDS = {"allowed": "a number above 0", "check": lambda x: 0 < x < float("inf"), "metavar": "SECONDS"}


@dataclass(frozen=True, kw_only=True)
class ServeSettings(SchemeSettings):
    """Open the explorer: a page of this machine alone, over a model and saved runs.

    Prints an address that holds a secret; whoever has it can use the model and read the runs. Ctrl-C ends it.
    """

    runs: tuple[str, ...] = flag(
        (), "Run folders, or folders of runs; ./runs where left out.", given="position"
    )
    read_only: bool = flag(False, "Show runs alone; no model is loaded.")
    port: int = flag(
        0,
        "The port to listen on; 0 takes a free one.",
        metavar="N",
        allowed="0, or 1024 to 65535",
        check=lambda n: n == 0 or 1024 <= n <= 65535,
        part="call",
    )
    time_limit: float = flag(300.0, "What one job may take, in seconds.", part="call", **SECONDS)
    waiting: int = flag(
        16,
        "How many jobs may wait.",
        metavar="N",
        allowed="a number from 1",
        check=lambda n: n > 0,
        part="call",
    )
    features: tuple[str, ...] = features_flag()
    probes: tuple[str, ...] = flag(
        (), "Folders of saved probes that tokens can be coloured by.", metavar="FOLDERS", part="call"
    )

    def check(self) -> None:
        """Refuse places that are no folders, and a backend that the process of the model would not share."""
        super().check()
        for place in self.runs:
            if not Path(place).is_dir():
                raise ConfigError(
                    f"RUNS: {place!r} is no folder. Give run folders, or folders that hold runs."
                )
        for place in self.probes:
            if not (Path(place) / "probe.json").is_file():
                raise ConfigError(
                    f"--probes {place!r} holds no probe; give a folder such as RUN/probes/resid_post.20."
                )


def loaded_of(settings: ServeSettings) -> Loaded:
    """How the settings load their model.

    Args:
        settings: of the command.
    """
    from interp.serve.calls import Loaded

    names = ("weights", "device", "dtype", "revision", "trust_remote_code", "adapter", "backend")
    defaults = {one.name: one.default for one in dataclasses.fields(settings)}
    given = {name: getattr(settings, name) for name in names if getattr(settings, name) != defaults[name]}
    return Loaded(settings.model, given, settings.scheme, settings.features, settings.probes)


@command(
    ServeSettings,
    examples=(
        "interp serve",
        "interp serve --model smollm2",
        "interp serve runs/first runs/second --read-only",
    ),
)
def serve(work: Work, settings: ServeSettings) -> Outcome:
    """Listen until Ctrl-C."""
    from interp.serve.runs import Index

    index = Index(settings.runs or ([RUNS] if Path(RUNS).is_dir() else []))
    queue = None if settings.read_only else _queue(work, settings)
    try:
        with _listening(settings.port) as heard:
            port, token = heard.getsockname()[1], secrets.token_urlsafe(32)
            address = f"http://127.0.0.1:{port}/#token={token}"
            work.session.note("open this address in a browser on this machine (Ctrl-C ends the explorer):")
            work.session.say(address)
            sys.stdout.flush()
            work.session.pulse.stop()
            _serve(index, queue, token, heard)
    finally:
        if queue is not None:
            queue.close()
    return Outcome({"port": port}, lambda: work.session.note("the explorer was ended"))


def _queue(work: Work, settings: ServeSettings) -> Queue:
    """The queue of jobs, with a worker that has loaded the model."""
    from interp.errors import ModelError
    from interp.serve.jobs import Queue, Stopped, Worker

    line, environment = command_of(settings)
    worker = Worker(line, quiet=not settings.verbose, environment=environment)
    work.session.note(f"loading {settings.model} ...")
    work.session.pulse.phase(f"loading {settings.model} in a process of its own")
    try:
        facts = worker.start()
    except (ConfigError, Stopped) as error:
        raise ModelError(str(error)) from None
    work.session.note(f"model: {facts['about']}")
    for text in facts["warnings"]:
        work.session.warn(text)
    queue = Queue(worker, waiting=settings.waiting, limit=settings.time_limit)
    queue.start()
    return queue


def command_of(settings: ServeSettings) -> tuple[list[str], dict[str, str]]:
    """The command of the process that holds the model, and its environment: packages as here, less noise.

    Args:
        settings: of the command.
    """
    from interp.cli.session import OFFLINE, QUIET

    path = os.pathsep.join(str(Path(one).resolve()) for one in sys.path if one)
    home = str(Path(__file__).resolve().parents[2])
    what = json.dumps(dataclasses.asdict(loaded_of(settings)))
    more = {**QUIET, **(OFFLINE if settings.offline else {}), "PYTHONPATH": f"{home}{os.pathsep}{path}"}
    return [sys.executable, "-P", "-m", "interp.serve.worker", what], {**os.environ, **more}


def _listening(port: int) -> contextlib.closing[socket.socket]:
    """A socket of this machine alone."""
    heard = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        heard.bind(("127.0.0.1", port))
        heard.listen()  # before the address is printed: who opens it at once waits, and is not refused
    except OSError as error:
        heard.close()
        raise ConfigError(f"--port {port}: {error.strerror}. Leave it out for a free one.") from None
    return contextlib.closing(heard)


def _serve(index: Any, queue: Any, token: str, heard: socket.socket) -> None:
    from interp.serve.app import Explorer, application
    from interp.serve.connections import server

    app = application(Explorer(index, queue), token, heard.getsockname()[1])
    with contextlib.suppress(KeyboardInterrupt):
        server(app).run(sockets=[heard])
