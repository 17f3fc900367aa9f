"""Kill commands at random moments, go on, and compare with what was never killed.

Half of the kills come at a random time, half at a random file operation (a rename, a flush, a removal), so
that writes are hit as often as the long work between them. Commands run in forks of one process that has
loaded and examined the bundled model.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Row", "forked", "kills", "numbers", "program", "resumed", "warmed"]

OPERATIONS = ("replace", "fsync", "unlink", "mkdir", "rmdir")
NEVER = 10**9
COMMANDS: dict[str, tuple[tuple[str, ...], int]] = {
    "capture": (("capture", "--data", "PROMPTS", "--full", "--sites", "resid_post.8,embed"), 38),
    "probe": (("probe", "--task", "category", "--layer", "20", "--limit", "200"), 16),
    "patch": (
        ("patch", "--task", "capitals", "--limit", "8", "--mediators", "attn_out.*", "--where", "-1"),
        16,
    ),
    "compare": (
        ("compare", "--schemes", "rtn8", "--analyses", "recall", "--limit", "16"),
        8,
    ),
}
"""Command -> its arguments, and how often it is killed."""
WORKERS: dict[str, tuple[tuple[str, ...], int]] = {
    "capture --workers 2": ((*COMMANDS["capture"][0], "--workers", "2"), 8),
    "patch --workers 2": ((*COMMANDS["patch"][0][:-1], "each", "--workers", "2"), 8),
}
SERVE = 6


@dataclass(frozen=True)
class Row:
    """What was tried, of what, and how often it held.

    Attributes:
        kind: what was tried.
        subject: of what.
        tried: how often.
        failures: what did not hold, in words.
        note: what was seen.
    """

    kind: str
    subject: str
    tried: int
    failures: tuple[str, ...] = ()
    note: str = ""

    @property
    def survived(self) -> int:
        """How often it held."""
        return self.tried - len(self.failures)


@cache
def prompts() -> str:
    """A file of 1,400 prompts: six shards."""
    from interp import tasks

    texts = tasks.labelled("category", n=400, seed=0).texts
    path = Path(tempfile.mkdtemp()) / "prompts.jsonl"
    rows = [{"text": f"{n // len(texts)} {texts[n % len(texts)]}", "label": "x"} for n in range(1400)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def program(arguments: Sequence[str], folder: Path) -> int:
    """Run a command in a folder, in this process, and give its exit code; PROMPTS stands for a file."""
    from interp.cli import main

    os.chdir(folder)
    return main([prompts() if one == "PROMPTS" else one for one in arguments])


def forked(
    arguments: Sequence[str],
    folder: Path,
    *,
    after: float = NEVER,
    operation: int = NEVER,
    fault: Callable[[], None] | None = None,
    meanwhile: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Run a command in a fork.

    Args:
        arguments: of the command.
        folder: where it runs.
        after: seconds after which it is killed.
        operation: the number of the file operation at which it kills itself.
        fault: called at that operation instead.
        meanwhile: called with the fork's process id before it is waited for.

    Returns:
        The exit code (-9 where killed), and the number of file operations; 0 where it did not end by itself.
    """
    said = folder.parent / f"{folder.name}.said"
    prompts()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            counted = _counting(operation, fault)
            code = program(arguments, folder)
            (folder.parent / f"{folder.name}.operations").write_text(str(counted[0]))
        finally:
            os._exit(code)
    if meanwhile is not None:
        meanwhile(child)
    until = time.monotonic() + after
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() >= until:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    count = folder.parent / f"{folder.name}.operations"
    return code, int(count.read_text()) if code != -9 and count.exists() else 0


def _counting(operation: int, fault: Callable[[], None] | None) -> list[int]:
    """Count file operations, and end (or do something else) at one of them."""
    counted = [0]

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **more: Any) -> Any:
            counted[0] += 1
            if counted[0] == operation:
                if fault is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                else:
                    fault()
            return call(*given, **more)

        return run

    for name in OPERATIONS:
        setattr(os, name, watched(getattr(os, name)))
    return counted


def numbers(folder: Path) -> str:
    """One hash of everything in a run that is a number (result, tables, states, probes), no clock or path."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name.split("/")[0] in (
            "result",
            "activations",
            "probes",
            "tables",
            "data.parquet",
        ):
            found.update(name.encode() + file.read_bytes())
    return found.hexdigest()


def _shards(folder: Path) -> dict[str, int]:
    """The records of finished shards, each with what tells a file that was written anew."""
    return {one.name: one.stat().st_ino for one in (folder / "activations" / "index").glob("*.json")}


def resumed(arguments: Sequence[str], folder: Path, wanted: str) -> str:
    """Go on in a folder; what did not hold, or ""."""
    from interp.runs.integrity import state

    run, there = folder / "run", _shards(folder / "run")
    before = state(run)
    code, _ = forked(("show", "run", "--verify"), folder)
    if code != (0 if before == "finished" else 6):
        return f"show --verify of a run that is {before} ended with {code}"
    if before != "finished":
        code, _ = forked((*arguments, "--out", "run", "--resume"), folder)
        if code:
            return f"--resume of a run that is {before} ended with {code}: {_last_line(folder)}"
    again = [name for name, inode in there.items() if _shards(run).get(name) != inode]
    if again:
        return f"{len(again)} finished shards were made again"
    if numbers(run) != wanted:
        return "other numbers"
    code, _ = forked(("show", "run", "--verify"), folder)
    left = [one.name for one in run.rglob(".*") if before != "finished"]
    return f"show --verify: {code}" if code else f"left over: {left}" if left else ""


def _last_line(folder: Path) -> str:
    lines = (folder.parent / f"{folder.name}.said").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def kills(root: Path, scale: float) -> Iterator[Row]:
    """Kill every command, and the workers of those that have some.

    Args:
        root: an empty folder.
        scale: of the number of kills.
    """
    for name, (arguments, times) in COMMANDS.items():
        wanted, seconds, operations = _never_killed(arguments, root / name)
        failures, draw, seen = [], random.Random(name), {"finished": 0, "begun": 0}
        for trial in range(max(1, round(times * scale))):
            folder = root / f"{name}-{trial}"
            folder.mkdir()
            when = (
                {"after": draw.uniform(0, seconds)}
                if trial % 2
                else {"operation": draw.randint(1, operations)}
            )
            code, _ = forked((*arguments, "--out", "run"), folder, **when)  # type: ignore[arg-type]
            seen["finished"] += code == 0
            seen["begun"] += (folder / "run" / "run.json").exists()
            if why := resumed(arguments, folder, wanted):
                failures.append(f"{when}: {why}")
            shutil.rmtree(folder)
        note = (
            f"{seen['begun']} had begun to write, {seen['finished']} came too late ({operations} operations)"
        )
        yield Row("kill and resume", name, trial + 1, tuple(failures), note)
    for name, (arguments, times) in WORKERS.items():
        yield _killed_workers(name, arguments, root, max(1, round(times * scale)))
    yield _killed_server(max(1, round(SERVE * scale)))


def warmed(arguments: Sequence[str], folder: Path) -> None:
    """Run a command here, so that forks need not import what it imports."""
    folder.mkdir(parents=True)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        code = program((*arguments, "--out", "run"), folder)
        program(("show", "run", "--verify"), folder)
    assert code == 0, f"{arguments}: {said.getvalue()[-300:]}"


def _never_killed(arguments: Sequence[str], folder: Path) -> tuple[str, float, int]:
    """The numbers of a run, its seconds and its file operations; a second run has the same numbers."""
    found = []
    warmed(arguments, folder / "here")
    for number in range(2):
        own = folder / str(number)
        own.mkdir(parents=True)
        began = time.monotonic()
        code, operations = forked((*arguments, "--out", "run"), own)
        assert code == 0, f"{arguments}: {_last_line(own)}"
        found.append((numbers(own / "run"), time.monotonic() - began, operations))
    assert found[0][0] == found[1][0], f"{arguments}: two runs differ without a kill"
    return found[1]


def _children(pid: int) -> list[int]:
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            stat = (one / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == pid and b"spawn_main" in (one / "cmdline").read_bytes():
                found.append(int(one.name))
        except OSError:
            continue
    return found


def _killed_workers(name: str, arguments: Sequence[str], root: Path, times: int) -> Row:
    """Kill a worker (its place is taken), or the process that holds the run (the run is resumed)."""
    plain = arguments[: arguments.index("--workers")]
    (root / name).mkdir()
    assert forked((*plain, "--out", "run"), root / name)[0] == 0
    wanted, failures, draw, hit = numbers(root / name / "run"), [], random.Random(name), 0
    for trial in range(times):
        folder = root / f"{name}-{trial}"
        folder.mkdir()
        holder = trial % 2 == 1

        def strike(pid: int, holder: bool = holder) -> None:
            nonlocal hit
            until = time.monotonic() + 90
            while time.monotonic() < until and not _children(pid) and _alive(pid):
                time.sleep(0.05)
            time.sleep(draw.uniform(0, 12))
            for one in [pid] if holder else _children(pid)[:1]:
                hit += _alive(one)
                os.kill(one, signal.SIGKILL)

        code, _ = forked((*arguments, "--out", "run"), folder, meanwhile=strike)
        if not holder and code:
            failures.append(f"a worker was killed: the run ended with {code}: {_last_line(folder)}")
        elif why := resumed(arguments, folder, wanted):
            failures.append(why)
        shutil.rmtree(folder)
    return Row(
        "kill and resume", name, times, tuple(failures), f"{hit} kills hit; every other one the holder"
    )


def _alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _killed_server(times: int) -> Row:
    """Kill the explorer's worker in a job: that job alone fails, the next is answered as before."""
    from interp.serve.jobs import Queue, Worker
    from interp.serve.requests import read_request
    from interp.serve.views import VIEWS

    settings = json.dumps({"model": "demo"})
    queue = Queue(Worker([sys.executable, "-m", "interp.serve.worker", settings]))
    queue.start()
    request = read_request(VIEWS["tokens"].fields, {"prompt": "the capital of France is", "draws": 3})
    failures, draw = [], random.Random("serve")

    def asked(kill: bool) -> tuple[str, Any]:
        job = queue.submit("tokens", request)
        if kill:
            while job.state == "waiting":
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.4))
            process = queue.worker._process
            if process is not None:
                process.kill()
        until = time.monotonic() + 240
        while job.state in ("waiting", "running") and time.monotonic() < until:
            time.sleep(0.02)
        return job.state, {name: job.answer.get(name) for name in ("html", "page", "python")}

    first = asked(kill=False)
    for _ in range(times):
        state, _ = asked(kill=True)
        after = asked(kill=False)
        if state not in ("failed", "stopped", "done") or after != first or first[0] != "done":
            failures.append(f"the killed job is {state}, the next {after[0]}")
    queue.close()
    return Row("kill and ask again", "serve", times, tuple(failures), "the worker, in the middle of a job")
