"""The command line: one short file per command, which parses, calls the library and reports."""

from __future__ import annotations

from interp.cli.main import main

__all__ = ["main"]
