"""The command line: ``interp probe --layer 20``. One short file per command: parse, call the library, report."""

from __future__ import annotations

from interp.cli.main import main

__all__ = ["main"]
