"""``--fail-under metric=value``: end with exit code 7 when a finished run is not good enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from interp.config import choose
from interp.errors import ConfigError, GateError

__all__ = ["failed_audit", "failed_gate", "read_gates"]


def read_gates(texts: Sequence[str], metrics: Iterable[str]) -> dict[str, float]:
    """Read ``metric=value`` texts.

    Raises:
        ConfigError: an unknown metric, or a value that is no number.
    """
    metrics = tuple(metrics)
    gates: dict[str, float] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(
                f"--fail-under {text!r} has no '='; write metric=value, such as {metrics[0]}=0.8. "
                f"Metrics: {', '.join(metrics)}."
            )
        gates[choose("--fail-under", name.strip(), metrics)] = _number(text, value)
    return gates


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(
            f"--fail-under {text!r}: {value!r} is not a number. Write metric=value, such as accuracy=0.8."
        )
    return number


def failed_gate(gates: Mapping[str, float], found: Mapping[str, float | None]) -> GateError | None:
    """Give the error of the first metric that is lower than asked (or was not measured), or ``None``."""
    for name, least in gates.items():
        value = found.get(name)
        if value is None or not value >= least:
            shown = "was not measured" if value is None else f"is {value:.4g}"
            return GateError(
                f"--fail-under {name}={least:g}: {name} {shown}. The run is complete; its gate failed."
            )
    return None


def failed_audit(strict: bool, leakage: Mapping[str, Any]) -> GateError | None:
    """Give the error of ``--strict`` where the audit of the prompts found leaks, or ``None``."""
    if not strict or leakage["clean"]:
        return None
    return GateError(f"--strict: {leakage['sentence']}. The run is complete; its audit failed.")
