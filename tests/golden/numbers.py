"""Numbers with names: how they are collected, kept in a file and compared with a run of today.

A name ends with its kind, after the last " / ": numbers of one kind are of one size, and a number near
zero is compared on the scale of its kind. A name that ends with "~" is held only on the machine that
wrote it: a near tie or a sum that is zero but for rounding decides it, and both differ by processor.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["FOLDER", "Numbers", "differences", "machine", "moved", "read", "write"]

FOLDER = Path(__file__).parent
HERE, ELSEWHERE = 1e-9, 1e-5
BOUNDS = 1e-3
"""Bounds of intervals elsewhere: a draw whose variance is small moves a quantile by more than sums."""
READ = {"similarity": 2e-4, "threshold": 2e-4}
"""By kind, elsewhere: what a fitted encoder reads; a solved system spreads the rounding of sums (7e-5 between
two processors, with the same code)."""
SCALE_OF = {"interaction": "effect"}
"""A difference of effects is held on their scale."""
TIE = 1e-3
ROUNDING = -5


class Numbers(dict[str, Any]):
    """Name -> number or text. Floats are compared by tolerance; whole numbers and texts exactly."""

    def add(self, name: str, value: Any, *, tie: bool = False) -> None:
        """Keep one value, and hold it on this machine only if ``tie``; None is left out."""
        if value is None:
            return
        name += " ~" if tie else ""
        assert name not in self, f"two numbers are called {name!r}"
        if isinstance(value, bool) or (hasattr(value, "dtype") and str(value.dtype) == "bool"):
            value = "yes" if value else "no"
        elif hasattr(value, "item"):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        self[name] = value if isinstance(value, str | int | float) else str(value)

    def row(self, name: str, row: Mapping[str, Any], kinds: Sequence[str], *, tie: bool = False) -> None:
        """Keep some entries of a row, each under its key as the kind."""
        for kind in kinds:
            self.add(f"{name} / {kind.replace('_', ' ')}", row.get(kind), tie=tie)

    def order(self, name: str, value: float | None, *, tie: bool = False) -> None:
        """Keep only the order of magnitude of what measures rounding: -6 for 2e-6, -99 for zero."""
        if value is not None:
            order = -99 if value == 0 else math.floor(math.log10(abs(value)))
            self.add(f"{name} / order", order, tie=tie)

    def ranks(self, name: str, labels: Sequence[str], sizes: Sequence[float], first: int = 10) -> None:
        """Keep who is first, second and so on, except where a neighbour is nearly as large."""
        sizes = [abs(size) for size in sizes]
        for at, label in enumerate(labels[:first]):
            near = [sizes[i] for i in (at - 1, at + 1) if 0 <= i < len(sizes)]
            if all(abs(size - sizes[at]) > TIE * max(sizes[0], 1e-30) for size in near):
                self.add(f"{name} {at + 1} / rank", label)


def machine() -> dict[str, str]:
    """What sums depend on: the processor, the build of torch and the versions of the numerical packages."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in facts.items()}
    packages = ("torch", "numpy", "scipy", "scikit-learn", "transformers")
    return {
        "processor": found.get("model name", platform.processor()),
        "flags": _short(" ".join(sorted(found.get("flags", "").split()))),
        "torch": _short(torch.__config__.show() + torch.backends.cpu.get_cpu_capability()),
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(golden: Mapping[str, Any], found: Mapping[str, Any], *, same_machine: bool) -> list[str]:
    """Every number of ``golden`` that is not found again, one sentence each."""
    scales = _scales(golden)
    return [
        f"{name}: {value!r} -> {found.get(name, 'missing')!r}"
        for name, value in golden.items()
        if (same_machine or not (name.endswith(" ~") or _of_rounding(name, golden, found)))
        and (name not in found or not _same(name, value, found[name], scales, same_machine))
    ]


def _of_rounding(name: str, *sides: Mapping[str, Any]) -> bool:
    """Whether a margin is the noise floor of its machine, or what is judged by such a margin."""
    finding, _, kind = name.rpartition(" / ")
    judged = kind in ("delta", "clear", "verdict")
    return judged and any(f"{finding} / delta / order ~" in side for side in sides)


def moved(golden: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What is new, gone or moved at all beyond the tolerance of one machine, old -> new."""
    lines = differences(golden, found, same_machine=True)
    return lines + [f"{name}: new, {value!r}" for name, value in found.items() if name not in golden]


def _same(name: str, old: Any, new: Any, scales: Mapping[str, float], same_machine: bool) -> bool:
    kind = _kind(name)
    if kind == "order":
        return abs(old - new) <= 1 or (not same_machine and max(old, new) <= ROUNDING)
    if isinstance(old, str) or isinstance(new, str) or (isinstance(old, int) and isinstance(new, int)):
        return bool(old == new)
    bound = kind.endswith(("low", "high"))
    tolerance = HERE if same_machine else BOUNDS if bound else READ.get(kind, ELSEWHERE)
    return abs(old - new) <= tolerance * max(abs(old), abs(new), scales[SCALE_OF.get(kind, kind)])


def _kind(name: str) -> str:
    return name.rpartition(" / ")[2].removesuffix(" ~")


def _scales(golden: Mapping[str, Any]) -> dict[str, float]:
    scales: dict[str, float] = {}
    for name, value in golden.items():
        if not isinstance(value, str):
            scales[_kind(name)] = max(scales.get(_kind(name), 0.0), abs(value))
    return scales


def read(name: str) -> dict[str, Any]:
    """The file of one run: ``machine`` and ``numbers``."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def write(name: str, numbers: Mapping[str, Any]) -> None:
    """Write the file of one run, as measured on this machine."""
    content = {"machine": machine(), "numbers": dict(sorted(numbers.items()))}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
