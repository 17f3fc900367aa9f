"""The result of the analyses that were made to be compared between two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp import results
from interp.errors import ConfigError
from interp.results.findings import Finding, named, row

if TYPE_CHECKING:
    import pandas

__all__ = ["Measured"]

SCHEMA = "interp.measured/1"


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """Hold the findings of one analysis of one model.

    Attributes:
        analysis: its name, a key of ``interp.analyses.ANALYSES``.
        found: the findings, in the order in which a reader wants them.
        model: name, weights, fingerprint, tokenizer_fingerprint, scheme.
        facts: what else is worth keeping, as JSON types.
        state: what the same analysis of another model measures itself against: tensors, probes, effects.
            Never written to disk.
        seed: of draws and intervals.
        warnings: what a reader should know.
    """

    analysis: str
    found: tuple[Finding, ...]
    model: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse two findings of one name."""
        named(self.found)

    def findings(self) -> tuple[Finding, ...]:
        """Give the findings, for ``interp.quantization.compare``."""
        return self.found

    def finding(self, name: str) -> Finding:
        """Give one finding by name.

        Raises:
            ConfigError: there is none of that name.
        """
        known = named(self.found)
        if name not in known:
            raise ConfigError(f"no finding {name!r}; there are: {', '.join(list(known)[:12])}.")
        return known[name]

    def table(self) -> pandas.DataFrame:
        """Give one row per finding: finding, value, low, high, control, unit, n, n_groups."""
        import pandas

        return pandas.DataFrame([row(one, self.seed) for one in self.found])

    def diff(self, reference: Measured) -> pandas.DataFrame:
        """Give the change of each finding from the same analysis of another model.

        Raises:
            ConfigError: another analysis.
        """
        if reference.analysis != self.analysis:
            raise ConfigError(f"{self.analysis} cannot be compared with {reference.analysis}.")
        return results.difference(self.table(), reference.table(), ["finding"])

    def to_dict(self) -> dict[str, Any]:
        """Give the table and the facts as JSON types."""
        table = self.table()
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "analysis": self.analysis,
                "model": dict(self.model),
                "findings": table.astype(object).where(table.notna(), None).to_dict("records"),
                "facts": dict(self.facts),
                "seed": self.seed,
                "warnings": list(self.warnings),
            }
        )
        return plain

    def _repr_html_(self) -> str:
        """Give the findings as an escaped table for notebooks."""
        return results.table_html(self.table(), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        first = "; ".join(f"{one.name} {one.value:.3g}" for one in self.found[:3])
        more = f"; and {len(self.found) - 3} more" if len(self.found) > 3 else ""
        return f"Measured({self.analysis}: {first}{more})"
