"""Jobs: one at a time, in the order they came, by a worker process that is ended where a job is stopped.

A process can be ended at any moment, whatever it computes; a thread could only be asked to stop, and an
exception thrown into it could leave a hook in the model. What a stop costs is loading the model again.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from interp.errors import ConfigError, InterpError

__all__ = ["Full", "Job", "Queue", "Stopped", "Worker"]

STEP = 0.05
"""Seconds between two looks at whether a job was stopped."""
KEPT = 40
"""Finished jobs that are kept, with their answers."""
LINE = 64 * 1024 * 1024
"""Bytes of an answer, at most."""


class Full(InterpError):
    """Report that too many jobs wait."""

    exit_code = 2


class Stopped(Exception):
    """Say why a worker was ended in the middle of a job."""


class Worker:
    """A process that answers one line of JSON with one line of JSON.

    Args:
        command: what is run; it says ``{"ready": ...}`` or ``{"error": ...}`` first.
        quiet: whether what it writes on stderr is dropped.
        environment: of the process; this one's where left out.
    """

    def __init__(
        self, command: Sequence[str], *, quiet: bool = True, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command, self.quiet, self.environment = list(command), quiet, environment
        self.facts: Mapping[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, stop: Callable[[], str] = lambda: "") -> Mapping[str, Any]:
        """Start it, and wait until it is ready.

        Args:
            stop: says why to give up; "" to go on.

        Raises:
            ConfigError: it could not be made ready: what it said.
            Stopped: why.
        """
        self.kill()
        self._read = b""
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if self.quiet else None,
            env=self.environment,
            start_new_session=True,  # Ctrl-C is for the server, which ends it
        )
        said = self._line(stop)
        if "ready" not in said:
            self.kill()
            raise ConfigError(str(said.get("error", "the worker did not start.")))
        self.facts = said["ready"]
        return self.facts

    def ask(
        self,
        request: Mapping[str, Any],
        stop: Callable[[], str],
        told: Callable[[str], object] = lambda _: None,
    ) -> dict[str, Any]:
        """Give it a request, and wait for the answer.

        Args:
            request: what is asked.
            stop: says why to give up; "" to go on.
            told: is given what it says of the work before its answer, such as how long it will take.

        Raises:
            Stopped: why; the process is ended.
        """
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self.kill()
            raise Stopped("the process of the model has ended") from None
        while set(said := self._line(stop)) == {"note"}:
            told(str(said["note"]))
        return said

    def _line(self, stop: Callable[[], str]) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        stream = self._process.stdout.fileno()
        with selectors.DefaultSelector() as waiting:
            waiting.register(stream, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if why := stop():
                    self.kill()
                    raise Stopped(why)
                if not waiting.select(STEP):
                    continue
                part = os.read(stream, 1 << 16)
                self._read += part
                if not part or len(self._read) > LINE:
                    self.kill()
                    raise Stopped("the process of the model has ended (was the memory full?)")
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def kill(self) -> None:
        """End it, and wait until it is gone."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with_suppressed(stream.close)
        self._process = None


def with_suppressed(close: Callable[[], None]) -> None:
    """Close a pipe whose other end may be gone.

    Args:
        close: what closes it.
    """
    try:
        close()
    except OSError:
        return


@dataclass(eq=False)
class Job:
    """What was asked, and how far it is.

    Attributes:
        view: the view's name.
        request: what it asks for.
        id: random.
        state: waiting, running, done, failed or stopped.
        made: the clock when it came; likewise ``started`` and ``ended``.
        answer: of the worker, once it is done.
        error: why it failed or was stopped.
        note: what the worker said of the work, such as how long it will take.
    """

    view: str
    request: Mapping[str, Any]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: str = "waiting"
    made: float = field(default_factory=time.monotonic)
    started: float | None = None
    ended: float | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    note: str = ""
    stopped: bool = False

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        if self.started is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.started


class Queue:
    """Jobs in order, run by one thread with one worker.

    Args:
        worker: what answers.
        waiting: how many may wait.
        limit: seconds that a job may take.
    """

    def __init__(self, worker: Worker, *, waiting: int = 16, limit: float = 300.0) -> None:
        self.worker, self.waiting, self.limit = worker, waiting, limit
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="interp-jobs", daemon=True)
        self.failed = ""

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def close(self) -> None:
        """Stop what runs, take no more, and end the worker."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self.worker.kill()

    def submit(self, view: str, request: Mapping[str, Any]) -> Job:
        """Put a job at the end.

        Raises:
            Full: too many wait.
        """
        with self._changed:
            if sum(one.state == "waiting" for one in self._jobs.values()) >= self.waiting:
                raise Full(f"{self.waiting} jobs wait already. Wait for one, or cancel one.")
            job = Job(view, request)
            self._jobs[job.id] = job
            done = [one for one in self._jobs.values() if one.ended is not None]
            for old in done[: max(0, len(done) - KEPT)]:
                del self._jobs[old.id]
            self._changed.notify_all()
        return job

    def get(self, name: str) -> Job | None:
        """A job by its id."""
        with self._changed:
            return self._jobs.get(name)

    def place(self, job: Job) -> int:
        """How many jobs come before it."""
        with self._changed:
            before = [one for one in self._jobs.values() if one.state in ("waiting", "running")]
            return before.index(job) if job in before else 0

    def cancel(self, job: Job) -> None:
        """Stop a job; one that has ended stays as it is."""
        with self._changed:
            if job.state == "waiting":
                self._end(job, "stopped", "cancelled")
            elif job.state == "running":
                job.stopped = True

    def _end(self, job: Job, state: str, error: str = "") -> None:
        job.state, job.error, job.ended = state, error, time.monotonic()

    def _next(self) -> Job | None:
        """The first job that waits, or None where there are to be no more."""
        with self._changed:
            while not self._closed:
                found = next((one for one in self._jobs.values() if one.state == "waiting"), None)
                if found is not None:
                    found.state = "running"
                    return found
                self._changed.wait()
        return None

    def _why(self, job: Job) -> str:
        if self._closed:
            return "the explorer was closed"
        if job.stopped:
            return "cancelled"
        if job.started is not None and job.seconds > self.limit:
            return f"it took longer than {self.limit:g} s (--time-limit)"
        return ""

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                if not self.worker.alive:
                    self.worker.start(lambda job=job: self._why(job))
                job.started = time.monotonic()
                asked = {"view": job.view, "request": dict(job.request)}
                told = partial(setattr, job, "note")
                answer = self.worker.ask(asked, lambda job=job: self._why(job), told)
            except Stopped as why:
                with self._changed:
                    state = "stopped" if self._why(job) else "failed"
                    self._end(job, state, str(why))
            except InterpError as error:
                with self._changed:
                    self._end(job, "failed", str(error))
            else:
                with self._changed:
                    job.answer = answer
                    self._end(job, "failed" if "error" in answer else "done", str(answer.get("error", "")))
