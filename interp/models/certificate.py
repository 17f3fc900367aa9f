"""What an examination of a model gives: its checks, its noise floor, and what was examined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from interp import results
from interp.errors import ArtifactError

__all__ = ["Certificate", "Check", "NoiseFloor", "Status"]

SCHEMA = "interp.certificate/1"
Status = Literal["pass", "warn", "fail", "skip"]
_MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL", "skip": "-"}


@dataclass(frozen=True)
class Check:
    """Hold one check of a model.

    Attributes:
        name: what was checked.
        status: "pass", "warn" (worth knowing), "fail", or "skip" (it does not apply: see detail).
        value: what was measured, or None.
        limit: what is allowed, or None where nothing is compared.
        unit: of both: "relative" (to the largest value), "logits", "nats", "tokens" or a count of things.
        detail: where it was worst, or why it was skipped.
        bound: whether the limit is the most or the least that is allowed.
    """

    name: str
    status: Status
    value: float | None = None
    limit: float | None = None
    unit: str = "relative"
    detail: str = ""
    bound: Literal["at most", "at least"] = "at most"

    @property
    def passed(self) -> bool:
        """Whether it did not fail; warnings and skipped checks do not fail, and are counted apart."""
        return self.status != "fail"


@dataclass(frozen=True)
class NoiseFloor:
    """Hold how far the same prompts differ alone and in a batch; smaller differences mean nothing.

    Attributes:
        logits: largest difference of a logit after the last token.
        kl: largest Kullback-Leibler divergence between the next-token distributions, in nats.
        relative: largest difference relative to the largest absolute logit.
        batch_size: rows of the batch.
    """

    logits: float
    kl: float
    relative: float
    batch_size: int

    def __str__(self) -> str:
        """Say it in one line."""
        compared = f"the same prompts alone and in a batch of {self.batch_size}"
        return f"{self.logits:.2g} logits, {self.kl:.2g} nats KL ({compared})"


@dataclass(frozen=True)
class Certificate:
    """Hold the outcome of ``interp doctor``.

    Attributes:
        checks: every check, in the order they ran.
        noise_floor: what batch size alone changes; None where it could not be measured.
        model: name, weights, type, sizes, dtype and device.
        fingerprint: sha256 of the weights.
        tokenizer_fingerprint: sha256 of the tokenizer, "" without one.
        disabled: kinds of site that the model does not offer, each with the reason.
        prompts: numbers of tokens of the prompts used.
        seed: of what was drawn.
        versions: of Python and the packages.
    """

    checks: tuple[Check, ...]
    noise_floor: NoiseFloor | None
    model: Mapping[str, Any]
    fingerprint: str
    tokenizer_fingerprint: str = ""
    disabled: Mapping[str, str] = field(default_factory=dict)
    prompts: tuple[int, ...] = ()
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "fail")

    def __getitem__(self, name: str) -> Check:
        """Give a check by its name.

        Raises:
            KeyError: no check has that name.
        """
        return {check.name: check for check in self.checks}[name]

    def table(self) -> Any:
        """Give a pandas DataFrame with one row per check; its columns are the fields of ``Check``."""
        import pandas

        columns = ["check", "status", "value", "bound", "limit", "unit", "detail"]
        rows = [(c.name, c.status, c.value, c.bound, c.limit, c.unit, c.detail) for c in self.checks]
        frame = pandas.DataFrame(rows, columns=columns)
        return frame.astype({"value": float, "limit": float})

    def to_dict(self) -> dict[str, Any]:
        """Give everything as a JSON-able dictionary; a number that JSON cannot hold becomes None."""
        plain, _ = results.jsonable({**asdict(self), "passed": self.passed})
        return {"schema": SCHEMA, **plain}

    def diff(self, reference: Certificate) -> Any:
        """Give the change of every measured value from another certificate, as a pandas DataFrame."""
        return results.difference(self.table(), reference.table(), ["check"])

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, atomically.

        Raises:
            ConfigError: the place cannot be written.
        """
        results.write_json(self.to_dict(), path)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: the file is missing, damaged or something else.
        """
        facts = results.read_json(path)
        if facts.pop("schema", None) != SCHEMA:
            raise ArtifactError(f"{path} is not a certificate ({SCHEMA}). Run `interp doctor` again.")
        facts.pop("passed", None)
        checks = tuple(Check(**check) for check in facts.pop("checks"))
        floor = facts.pop("noise_floor")
        prompts = tuple(facts.pop("prompts"))
        return cls(checks, NoiseFloor(**floor) if floor else None, prompts=prompts, **facts)

    def __str__(self) -> str:
        """Print it: one line per check, then the noise floor and the verdict."""
        lines = [_line(check, max(len(c.name) for c in self.checks)) for check in self.checks]
        head = ", ".join(f"{key} {value}" for key, value in self.model.items())
        floor = [f"noise floor: {self.noise_floor}"] if self.noise_floor else []
        return "\n".join([head, *lines, *floor, self.verdict])

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        count = {status: sum(check.status == status for check in self.checks) for status in _MARKS}
        parts = [f"{count['pass']} passed", f"{count['warn']} warned", f"{count['skip']} do not apply"]
        if self.failures:
            names = ", ".join(check.name for check in self.failures)
            return f"{len(self.failures)} failed ({names}); {', '.join(parts)}."
        return "No check failed: " + ", ".join(parts) + "."

    def _repr_html_(self) -> str:
        """Give an escaped HTML table for notebooks."""
        return results.table_html(
            self.table(), caption=f"{self.model.get('name', '')}: {self.verdict}", decimals=8
        )


def _line(check: Check, width: int) -> str:
    value = "" if check.value is None else f"{check.value:.2g}"
    limit = "" if check.limit is None else f"{check.bound} {check.limit:.2g}"
    measured = f"{value:>8} {limit:<16} {check.unit:<9}"
    return f"{_MARKS[check.status]:>4}  {check.name:<{width}}  {measured} {check.detail}".rstrip()
