"""Write golden files again: ``python -m tests.golden.make NAME...`` (``--check``: only print what moved).

Numbers move only by a named fix: make the files it moves, put what this prints into the commit's
message, and say why. Without a name it lists the runs; ``all`` makes every file.
"""

from __future__ import annotations

import os
import sys
import time

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["INTERP_BUDGET"] = "off"

from tests.golden.numbers import FOLDER, moved, read, write  # noqa: E402  (threads are set before torch loads)
from tests.golden.runs import RUNS  # noqa: E402


def make(name: str, *, check: bool) -> None:
    """Run one, print what moved, and write its file unless ``check``."""
    started = time.process_time()
    found = RUNS[name].numbers()
    spent = time.process_time() - started
    old = read(name)["numbers"] if (FOLDER / f"{name}.json").exists() else {}
    lines = moved(old, found) if old else []
    print(f"{name}: {len(found)} numbers, {len(lines)} moved, {spent:.1f} CPU-seconds", flush=True)
    for line in lines:
        print(f"  {line}")
    if not check:
        write(name, found)


def main(words: list[str]) -> int:
    """Make the runs named; with an unknown name, or none, list them."""
    check = "--check" in words
    names = [word for word in words if word != "--check"]
    names = list(RUNS) if names == ["all"] else names
    if not names or set(names) - set(RUNS):
        print("name runs, or all: " + ", ".join(RUNS))
        return 2
    for name in names:
        make(name, check=check)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
