"""The frame of the command line: help, quickness, the envelope, how calls end, what is left as found."""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from interp.cli.main import COMMANDS, EXAMPLES, main, program
from interp.cli.session import Session, quiet
from interp.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    GateError,
    InterpError,
    ModelError,
    OutOfMemoryError,
)
from tests.interp.cli.conftest import Call

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "transformers",
    "rich",
    "matplotlib",
    "sklearn",
    "yaml",
)


def loaded_by(code: str) -> list[str]:
    line = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, cwd=ROOT, check=True)
    return found.stderr.split()


@pytest.mark.parametrize("arguments", [["--help"], ["probe", "--help"], ["ls", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(f"from interp.cli import main\nassert main({arguments!r}) == 0") == []


def test_the_check_for_heavy_packages_can_fail() -> None:
    assert loaded_by("import numpy") == ["numpy"]


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    """Measure processor time: on a machine with other work to do, the clock on the wall says nothing."""

    def used() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    times = []
    for _ in range(3):
        before = used()
        subprocess.run([sys.executable, "-m", "interp", "--help"], capture_output=True, cwd=ROOT, check=True)
        times.append(used() - before)
    assert min(times) < 0.3


def test_help_shows_examples_first_and_every_command() -> None:
    text = CliRunner().invoke(program, ["--help"]).output
    assert text.startswith("Examples:")
    assert text.index(EXAMPLES[0]) < text.index("Usage:") < text.index("Commands:")
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_defaults_and_groups(name: str) -> None:
    result = CliRunner().invoke(program, [name, "--help"])
    assert result.exit_code == 0
    assert (
        result.output.index(f"interp {name}") < result.output.index("Usage:") < result.output.rindex("--json")
    )


def test_the_examples_in_help_can_be_parsed() -> None:
    import shlex

    for name in COMMANDS:
        command = program.get_command(
            program.make_context("interp", [name, "--help"], resilient_parsing=True), name
        )
        assert command is not None
        for example in command.examples:
            words = shlex.split(example.split("|")[0])
            assert words[:2] == ["interp", name]
            command.make_context(name, words[2:])


def test_without_a_command_help_goes_to_stderr_with_code_2(call: Call) -> None:
    answer = call()
    assert (answer.code, answer.out) == (2, "")
    assert "Examples:" in answer.err


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make ``interp ls`` end with an exception of the test's choice."""
    from interp.cli import ls

    def with_error(error: BaseException) -> None:
        def listing() -> list[dict[str, Any]]:
            raise error

        monkeypatch.setitem(ls.LISTS, "tasks", listing)

    return with_error


ENDS = [
    (InterpError("x"), 1),
    (ConfigError("x"), 2),
    (DataError("x"), 3),
    (ModelError("x"), 4),
    (OutOfMemoryError("x"), 5),
    (ArtifactError("x"), 6),
    (GateError("x"), 7),
    (KeyboardInterrupt(), 130),
    (ZeroDivisionError("x"), 1),
    (RuntimeError("a\nb\x1b[31m"), 1),
]


@pytest.mark.parametrize(
    ("error", "code"),
    ENDS,
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_end_has_its_code_one_line_and_an_envelope(
    call: Call, broken: Any, error: BaseException, code: int
) -> None:
    broken(error)
    plain = call("ls", "tasks")
    assert (plain.code, plain.out) == (code, "")
    assert len(plain.err.splitlines()) == 1 and "Traceback" not in plain.err and "\x1b" not in plain.err
    answer = call("ls", "tasks", "--json")
    assert answer.code == code
    assert answer.envelope["status"] != "ok"
    assert answer.envelope["data"]["error"]["exit_code"] == code


def test_an_unexpected_error_points_to_v_which_shows_the_traceback(call: Call, broken: Any) -> None:
    broken(ZeroDivisionError("never"))
    assert "with -v" in call("ls", "tasks").err
    loud = call("ls", "tasks", "-v")
    assert "Traceback" in loud.err and "ZeroDivisionError: never" in loud.err


def test_torchs_out_of_memory_is_code_5(call: Call, broken: Any) -> None:
    import torch

    said = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    for error in (torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(said), MemoryError()):
        broken(error)
        answer = call("ls", "tasks")
        assert answer.code == 5 and "--batch-size" in answer.err


def test_a_full_disk_is_no_defect(call: Call, broken: Any) -> None:
    broken(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/result"))
    answer = call("ls", "tasks")
    assert answer.code == 2 and "cannot write: No space left on device. Free some space" in answer.err


ENVELOPE = {"schema", "command", "version", "run", "status", "data", "warnings", "artifacts", "timing"}


@pytest.mark.parametrize("what", ["models", "tasks", "sites", "probes", "runs"])
def test_every_list_prints_a_table_and_an_envelope(call: Call, what: str) -> None:
    plain = call("ls", what)
    assert plain.code == 0 and plain.out and not plain.err
    envelope = call("ls", what, "--json").envelope
    assert set(envelope) == ENVELOPE
    assert (envelope["schema"], envelope["command"], envelope["status"], envelope["run"]) == (
        "interp.envelope/1",
        "ls",
        "ok",
        None,
    )
    assert list(envelope["data"]) == [what]


def test_not_a_number_becomes_null_with_a_warning(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.cli import ls

    monkeypatch.setitem(ls.LISTS, "tasks", lambda: [{"score": float("nan")}])
    envelope = call("ls", "tasks", "--json").envelope
    assert envelope["data"] == {"tasks": [{"score": None}]}
    assert envelope["warnings"] == ["tasks[0].score: nan is not a JSON number, written as null"]


def test_text_from_data_is_inert(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.cli import ls

    monkeypatch.setitem(ls.LISTS, "tasks", lambda: [{"task": "[/red]\x1b[31m"}])
    assert "[/red]\\x1b[31m" in call("ls", "tasks").out


def test_library_warnings_reach_stderr_and_the_envelope_once_and_chatter_does_not(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.cli import ls

    def listing() -> list[dict[str, Any]]:
        for _ in range(2):
            logging.getLogger("interp.models").warning("padding %s", "left")
        logging.getLogger("transformers").warning("chatter")
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        return []

    monkeypatch.setitem(ls.LISTS, "tasks", listing)
    answer = call("ls", "tasks", "--json")
    assert answer.envelope["warnings"] == ["padding left"]
    assert answer.err == "warning: padding left\n"
    assert "DeprecationWarning" in call("ls", "tasks", "-v").err


def test_surroundings_are_left_as_found(call: Call, broken: Any) -> None:
    def state() -> tuple[Any, ...]:
        loggers = [logging.getLogger(name) for name in ("interp", "probes", "transformers", "torch")]
        return (
            dict(os.environ),
            [(log.level, list(log.handlers)) for log in loggers],
            warnings.filters[:],
            warnings.showwarning,
        )

    before = state()
    call("ls", "sites", "--json")
    broken(KeyboardInterrupt())
    call("ls", "tasks")
    assert state() == before


def test_offline_holds_inside_the_command_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with quiet(Session([]), offline=True):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in os.environ


def test_the_environment_can_ask_for_json_and_flags_win(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_JSON", "true")
    assert call("ls", "sites").envelope["command"] == "ls"


def test_a_reader_that_goes_away_is_no_error() -> None:
    line = f"{sys.executable} -m interp ls sites --json | head -c 1"
    found = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout == "{" and "Broken" not in found.stderr and "Traceback" not in found.stderr


def test_an_interrupted_run_prints_the_command_that_does_it_again(
    monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    from interp.cli import doctor

    monkeypatch.setattr(doctor, "environment", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    answer = call("doctor", "--seed", "3", "--set", "device=cpu")
    assert answer.code == 130
    assert answer.err.strip().endswith("run again: interp doctor --device cpu --seed 3")


@pytest.mark.parametrize(
    ("asked", "found"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_as_a_program_its_threads_wait_asleep(
    asked: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["interp", "--version"])
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert main(["--version"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == asked.get("GOMP_SPINCOUNT")  # from Python nothing is set
    assert main() == 0
    assert os.environ.get("GOMP_SPINCOUNT") == found
