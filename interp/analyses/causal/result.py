"""What the causal test of a probe returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import results
from interp.analyses.causal.verdict import LEVEL, verdict
from interp.errors import DataError
from interp.results.findings import Finding
from probes.statistics import Estimate

if TYPE_CHECKING:
    import pandas

__all__ = ["SCHEMA", "CausalUse", "Dose", "Effect"]

SCHEMA = "interp.causal/1"


@dataclass(frozen=True)
class Effect:
    """Hold how much one edit changes the output, along the probe's directions and along random ones (nats).

    Attributes:
        edit: a key of ``EDITS``.
        estimate: along the probe's directions, over test prompts.
        random: the mean over random directions.
        random_low: the 2.5% quantile of the random directions' own means.
        random_high: the 97.5% quantile.
        difference: the probe's directions less the mean of the random ones, paired by prompt.
        p_value: how often a random draw does at least as much, the probe's own counted as one.
        whole: the same edit of the whole state; None where it lies along the directions anyway.
        size: mean length of the edit, as a share of the mean length of the states.
        changes: along the probe's directions, prompt by prompt.
        random_changes: the mean over random directions, likewise.
        groups: of the prompts.
    """

    edit: str
    estimate: Estimate
    random: float
    random_low: float
    random_high: float
    difference: Estimate
    p_value: float
    whole: Estimate | None
    size: float
    changes: tuple[float, ...] = ()
    random_changes: tuple[float, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def stands_out(self) -> bool:
        """Say whether it is clearly more than random directions do, over prompts and over draws."""
        return self.difference.interval.low > 0 and self.p_value <= LEVEL

    def row(self) -> dict[str, Any]:
        """Give the numbers as a row of a table."""
        return {
            "edit": self.edit,
            "value": self.estimate.value,
            "low": self.estimate.interval.low,
            "high": self.estimate.interval.high,
            "random": self.random,
            "random_low": self.random_low,
            "random_high": self.random_high,
            "difference": self.difference.value,
            "difference_low": self.difference.interval.low,
            "difference_high": self.difference.interval.high,
            "p_value": self.p_value,
            "whole": self.whole.value if self.whole else None,
            "size": self.size,
            "n": self.estimate.n,
            "n_groups": self.estimate.n_groups,
            "stands_out": self.stands_out,
        }


@dataclass(frozen=True)
class Dose:
    """Hold the measure after one dose of steering (nats).

    Attributes:
        dose: how far, in mean distances between prompts; 0 is the unchanged run.
        value: along the probe's directions.
        low: of its interval.
        high: of its interval.
        random: the mean over random directions.
        random_low: the 2.5% quantile of the random directions' own means.
        random_high: the 97.5% quantile.
    """

    dose: float
    value: float
    low: float
    high: float
    random: float
    random_low: float
    random_high: float


@dataclass(frozen=True, eq=False, repr=False)
class CausalUse:
    """Hold whether a model uses the directions that a probe reads.

    Attributes:
        model: name, weights and fingerprint.
        site: where the state is changed.
        position: at which token of each prompt.
        kind: the kind of probe.
        directions: what is changed, in words.
        named: the same, in a sentence.
        rank: how many directions are changed in each prompt.
        measure: ``preference`` or ``divergence``.
        measured: what that is, in words.
        effects: of every edit.
        doses: the dose-response of steering, the unchanged run among them.
        draws: how many random directions (or subspaces) stand beside it.
        seed: of everything drawn.
        reading: the probe's own verdict.
        readable: whether the probe was told from guessing, which that verdict says.
        warnings: what a reader should know.
    """

    model: Mapping[str, Any]
    site: str
    position: str | int
    kind: str
    directions: str
    named: str
    rank: int
    measure: str
    measured: str
    effects: tuple[Effect, ...]
    doses: tuple[Dose, ...]
    draws: int
    seed: int
    reading: str
    readable: bool
    warnings: tuple[str, ...] = ()

    @property
    def used(self) -> bool:
        """Say whether both erasing and exchanging stand out from random directions."""
        return all(effect.stands_out for effect in self.effects if effect.edit != "steer")

    @property
    def verdict(self) -> str:
        """Say what the numbers allow one to say."""
        return verdict(self.effects, self.named, self.readable, measure=self.measure)

    def effect(self, edit: str) -> Effect:
        """Give the effect of one edit.

        Raises:
            KeyError: no such edit.
        """
        return {effect.edit: effect for effect in self.effects}[edit]

    def table(self) -> pandas.DataFrame:
        """Give one row per edit.

        Columns: edit, value (nats), low, high, random, random_low, random_high, difference, difference_low,
        difference_high, p_value, whole, size, n, n_groups, stands_out.
        """
        import pandas

        return pandas.DataFrame([effect.row() for effect in self.effects])

    def findings(self) -> tuple[Finding, ...]:
        """Give the effect of every edit, prompt by prompt, against random directions (nats)."""
        return tuple(
            Finding(
                f"{effect.edit}: {self.measure}",
                np.array(effect.changes),
                effect.groups,
                control=np.array(effect.random_changes),
                unit="nats",
                about=f"the change of {self.measured}, beside random directions",
            )
            for effect in self.effects
            if effect.changes
        )

    def response(self) -> pandas.DataFrame:
        """Give the dose-response of steering: dose, value (nats), low, high, random and its quantiles."""
        import pandas

        return pandas.DataFrame([asdict(dose) for dose in self.doses])

    def diff(self, reference: CausalUse) -> pandas.DataFrame:
        """Give the change of every effect from another result.

        Raises:
            DataError: the two measure different things.
        """
        if reference.measure != self.measure:
            raise DataError(
                f"cannot compare a {self.measure} with a {reference.measure}: they have different measures."
            )
        return results.difference(self.table(), reference.table(), ["edit"])

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types, in stable keys."""
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "verdict": self.verdict,
                "used": self.used,
                "model": dict(self.model),
                "site": self.site,
                "position": self.position,
                "kind": self.kind,
                "directions": self.directions,
                "rank": self.rank,
                "measure": self.measure,
                "measured": self.measured,
                "effects": [effect.row() for effect in self.effects],
                "doses": [asdict(dose) for dose in self.doses],
                "draws": self.draws,
                "seed": self.seed,
                "reading": self.reading,
                "readable": self.readable,
                "warnings": list(self.warnings),
            }
        )
        return plain

    def __repr__(self) -> str:
        """Say in one line what was found."""
        return f"CausalUse({self.site!r}, {self.verdict})"

    def _repr_html_(self) -> str:
        """Give an escaped HTML table, with the verdict under it."""
        import pandas

        columns = ["edit", "value", "low", "high", "random", "random_low", "random_high", "p_value", "whole"]
        return results.table_html(pandas.DataFrame(self.table(), columns=columns), caption=self.verdict)
