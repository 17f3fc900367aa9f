"""The sign of life at a terminal: soon, never in the way of what is said, and only at a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from interp.cli import pulse
from interp.cli.pulse import ERASE, Pulse


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in place of stderr; made in the test itself, since pytest sets stderr before each part."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(pulse, "FIRST", 0.05)
    monkeypatch.setattr(pulse, "STEP", 0.01)
    monkeypatch.setattr(pulse, "NEXT", 10.0)
    return found


def waited(screen: Terminal, word: str) -> bool:
    end = time.monotonic() + 5
    while word not in screen.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    return word in screen.getvalue()


def test_it_comes_in_silence_and_goes_before_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with Pulse("loading a model").beating():
        assert waited(screen, "loading a model, 0 s")
        print("done", file=sys.stderr)
        said = screen.getvalue()
        time.sleep(0.1)
        assert said.endswith(f"{ERASE}done\n") and screen.getvalue() == said
    assert sys.stderr is screen


def test_it_leaves_a_bar_and_half_a_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setattr(pulse, "NEXT", 0.05)
    with Pulse("working").beating() as found:
        sys.stderr.write("\rprobes:  10%|#")
        said = screen.getvalue()
        found.phase("later", now=True)
        time.sleep(0.2)
        assert screen.getvalue() == said
        sys.stderr.write("\r              \r")  # the bar is taken away
        assert waited(screen, "later")


def test_it_is_silent_where_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = io.StringIO()
    monkeypatch.setattr(sys, "stderr", quiet)
    monkeypatch.setattr(pulse, "FIRST", 0.0)
    with Pulse("working").beating() as found:
        found.phase("later", now=True)
        time.sleep(0.3)
    assert quiet.getvalue() == "" and sys.stderr is quiet


def test_its_line_fits_a_narrow_terminal_and_holds_no_control_character(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = terminal(monkeypatch)
    with Pulse("x" * 200 + "\x1b[31m").beating():
        assert waited(screen, "xxx")
    lines = re.split(r"[\r\n]", screen.getvalue())
    assert max(len(one.replace("\x1b[K", "")) for one in lines) < 80 and "\x1b[31m" not in screen.getvalue()


def test_a_command_at_a_terminal_says_what_it_does_before_it_loads_anything() -> None:
    main, side = pty.openpty()
    line = [sys.executable, "-m", "interp", "look", "x", "--model", "/nowhere"]
    done = subprocess.Popen(line, stdin=side, stdout=side, stderr=side, close_fds=True)
    os.close(side)
    said = b""
    while select.select([main], [], [], 60)[0]:
        try:
            part = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        said += part
        if not part:
            break
    os.close(main)
    assert done.wait(60) == 4
    text = said.decode()
    assert text.index("interp look: starting") < text.index("loading /nowhere") < text.index("ModelError")
    assert text.rstrip().split("\n")[-1].rpartition(ERASE)[2].startswith("ModelError")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    def asked(**more: str) -> str:
        facts = {**os.environ, "_INTERP_COMPLETE": f"{shell}_source", **more}
        line = [sys.executable, "-c", "from interp.cli import main; main()"]
        return subprocess.run(line, env=facts, capture_output=True, text=True, check=False).stdout

    assert "interp" in asked() and "Usage" not in asked()
    words = asked(
        _INTERP_COMPLETE=f"{shell}_complete",
        COMP_WORDS="interp pro",
        COMP_CWORD="pro" if shell == "fish" else "1",
    )
    assert "probe" in words and "patch" not in words
