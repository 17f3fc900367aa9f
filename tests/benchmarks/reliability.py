"""The table of reliability: what was tried, what survived, what failed.

Run: ``python -m tests.benchmarks.reliability [--only kills,disk] [--scale 0.1] [--out FILE]``. With ``--out``
the rows go to FILE.json and the table to FILE.txt; checks that are not run keep the rows that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.abuse import CHECKS
from tests.benchmarks.kills import Row, kills
from tests.certificates import examined_once, loaded_once

ALL: dict[str, Callable[[Path, float], Iterator[Row]]] = {**CHECKS, "kills": kills}


def table(rows: list[dict[str, object]]) -> str:
    """The rows as text."""
    lines = [f"{'tried':38s} {'times':>6s} {'survived':>9s} {'failed':>7s}  seen"]
    for row in rows:
        failures = row["failures"]
        assert isinstance(failures, list) and isinstance(row["tried"], int)
        held = row["tried"] - len(failures)
        name = f"{row['kind']}: {row['subject']}"
        lines.append(f"{name:38s} {row['tried']:6d} {held:9d} {len(failures):7d}  {row['note']}".rstrip())
        lines += [f"    {one}" for one in failures[:5]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the checks, and print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(ALL))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    os.environ["INTERP_BUDGET"] = "off"
    file = asked.out.with_suffix(".json").absolute() if asked.out else None
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in ALL}
    if file is not None and file.exists():
        rows |= json.loads(file.read_text())
    import torch

    torch.set_num_threads(1)
    with examined_once(), loaded_once():
        from interp.models import doctor, load

        doctor.examine(load("demo"))
        for name in asked.only.split(","):
            rows[name] = []
            with tempfile.TemporaryDirectory() as folder:
                for row in ALL[name](Path(folder), asked.scale):
                    rows[name].append(json.loads(json.dumps(asdict(row))))
                    print(table(rows[name][-1:]).split("\n", 1)[1], end="", flush=True)
                os.chdir("/")
            if file is not None:
                file.write_text(json.dumps(rows, indent=1) + "\n")
                file.with_suffix(".txt").write_text(table([row for part in rows.values() for row in part]))


if __name__ == "__main__":
    main()
