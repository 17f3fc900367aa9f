"""A worker without a model: what its prompt says, it does."""

from __future__ import annotations

import sys

from interp.serve.jobs import Worker

__all__ = ["worker"]

PROGRAM = r"""
import json, sys, time
def say(content):
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
say({"ready": {"about": "a fake", "warnings": [], "name": "fake"}})
for line in sys.stdin:
    prompt = json.loads(line)["request"]["prompt"]
    word, _, number = prompt.partition(" ")
    if word == "note":
        say({"note": "about an hour"})
        time.sleep(float(number))
    if word == "sleep":
        time.sleep(float(number))
    if word == "die":
        sys.exit(1)
    if word == "wrong":
        say({"error": "nothing of that kind"})
        continue
    html = "<p>" + prompt.replace("<", "&lt;") + "</p>"
    say({"html": html, "places": [], "page": "", "python": "", "command": ""})
"""


def worker() -> Worker:
    """One that is ready in a moment."""
    return Worker([sys.executable, "-c", PROGRAM])
