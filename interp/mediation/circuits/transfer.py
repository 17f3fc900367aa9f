"""A circuit on other pairs than its own.

Generality: does it carry other templates too? Selectivity: does it carry its own task only?
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from interp.errors import DataError
from interp.mediation.circuits.evaluation import Evaluation, evaluate
from interp.mediation.circuits.runs import NODES, Circuit, ends_of
from interp.models.loading import ModelLike, as_model
from interp.pairs import PairSet
from interp.results import About, Figure, Finding, Number, Result, Table
from interp.results.findings import prefixed
from interp.results.shapes import FORMS
from probes.statistics import Estimate

__all__ = ["CircuitTransfer", "generality", "selectivity"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CircuitTransfer(Result):
    """One circuit evaluated on several sets of pairs.

    Attributes:
        evaluations: name of the pairs -> the circuit on them.
        own: the name of its own task, that others are compared with; "" where there is none.
    """

    schema: ClassVar[str] = "interp.circuit-transfer/1"
    evaluations: Mapping[str, Evaluation]
    own: str = ""

    def kept(self, name: str) -> Estimate:
        """The share of the behaviour that the circuit alone keeps."""
        return self.evaluations[name].faithfulness

    def lost(self, name: str) -> Estimate:
        """The share of the behaviour that is lost when only the circuit is replaced."""
        found = self.evaluations[name]
        return found.share(found.values["all"] + found.values["none"] - found.values["without"])

    def selectivity(self, name: str) -> tuple[float, float, float]:
        """What is lost on the circuit's own task beyond what is lost elsewhere, with its 95% interval.

        Both sides are resampled by group, independently.

        Raises:
            DataError: there is no own task, or a total effect is not told from zero.
        """
        if not self.own:
            raise DataError("selectivity compares with the circuit's own task; call mediation.selectivity.")
        for one in (self.own, name):
            if self.evaluations[one].no_share:
                raise DataError(f"pairs {one!r}: {self.evaluations[one].no_share}.")
        here, there = (_resampled(self.evaluations[one]) for one in (self.own, name))
        low, high = np.quantile(here - there, (0.025, 0.975))
        return self.lost(self.own).value - self.lost(name).value, float(low), float(high)

    # What it says -----------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> dict[str, dict[str, float | None]]:
        """A row of the table for each set of pairs; shares are empty without a total effect."""
        rows: dict[str, dict[str, float | None]] = {}
        for name, found in self.evaluations.items():
            usable = not found.no_share
            kept, lost = (self.kept(name), self.lost(name)) if usable else (None, None)
            row = _cells("kept", kept) | {"random": found.random.value if usable else None}
            row |= _cells("lost", lost)
            if self.own:
                compared = usable and name != self.own and not self.evaluations[self.own].no_share
                values = self.selectivity(name) if compared else (None, None, None)
                columns = ("selectivity", "selectivity_low", "selectivity_high")
                row |= dict(zip(columns, values, strict=True))
            rows[name] = row
        return rows

    def question(self) -> str:
        """The question that was asked."""
        what = "its own task only" if self.own else "other pairs"
        return f"Does the circuit carry {what}? ({self.about.words})"

    def verdict(self) -> str:
        """What the circuit keeps, or what is lost without it, of each set of pairs."""
        which = "lost" if self.own else "kept"
        words = "lost when only the circuit is replaced" if self.own else "kept by the circuit alone"
        shares = ", ".join(
            f"{name} {'no share' if (share := row[which]) is None else format(share, 'z.0%')}"
            for name, row in self._rows.items()
        )
        return f"Of the behaviour {words}: {shares}."

    def lead(self) -> tuple[str, ...]:
        """What was run."""
        one = next(iter(self.evaluations.values()))
        return (
            f"A circuit of {len(one.circuit):,} of {len(one.universe):,} members was evaluated by "
            f"{one.metric} on {len(self.evaluations)} sets of pairs: everything outside of it was taken "
            "from the corrupt prompt (kept), or the circuit alone (lost).",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The shares kept and lost of each set, and how much more of its own task is lost."""
        meanings = {
            "kept": "share that the circuit alone keeps",
            "lost": "share that goes when only the circuit is replaced",
            "selectivity": "lost of its own task beyond what is lost here",
        }
        return tuple(
            Number(
                f"{what}-{_slug(name)}",
                row[what],
                row[f"{what}_low"],
                row[f"{what}_high"],
                meaning=words,
                label=f"{what.capitalize()}: {name}",
            )
            for name, row in self._rows.items()
            for what, words in meanings.items()
            if what in row and (what != "selectivity" or name != self.own)
        )

    def tables(self) -> tuple[Table, ...]:
        """One row per set of pairs: shares kept by the circuit, by random ones, and lost without it."""
        rows = [(name, len(self.evaluations[name].groups), *row.values()) for name, row in self._rows.items()]
        columns = ("pairs", "n", *next(iter(self._rows.values())))
        note = "Shares are empty where the total effect is not told from zero. Intervals: 95%, over groups."
        if self.own:
            note += " selectivity: lost of the own task beyond what is lost here."
        title = "The circuit on several sets of pairs"
        return (Table("pairs", title, columns, rows, note),)

    def figures(self) -> tuple[Figure, ...]:
        """What the circuit keeps of each set, and what is lost without it; nothing without a share."""
        rows = [
            (f"{name}: {what}", row[what], row[f"{what}_low"], row[f"{what}_high"])
            for what in ("kept", "lost")
            for name, row in self._rows.items()
            if row[what] is not None
        ]
        if not rows:
            return ()
        data = dict(zip(FORMS["intervals"], zip(*rows, strict=True), strict=True))
        caption = "Intervals: 95%, over groups of pairs."
        title, x = "The circuit on several sets of pairs", "share of the behaviour"
        return (
            Figure("pairs", "intervals", data, title, caption, x, reference=1.0, reference_name="all of it"),
        )

    def findings(self) -> tuple[Finding, ...]:
        """Those of every evaluation, after the name of its pairs."""
        given = self.evaluations.items()
        return tuple(one for name, found in given for one in prefixed(found.findings(), name))


def _slug(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def _cells(name: str, share: Estimate | None) -> dict[str, float | None]:
    low, high = ends_of(share)
    return {name: None if share is None else share.value, f"{name}_low": low, f"{name}_high": high}


def generality(
    model: ModelLike,
    circuit: Circuit,
    others: Mapping[str, PairSet],
    *,
    universe: Circuit = NODES,
    metric: str = "logit-diff",
    seed: int = 0,
) -> CircuitTransfer:
    """Evaluate a circuit on pairs that it was not found on, such as other templates or counterfactuals.

    A circuit that is general keeps about the same share of each.

    Args:
        model: what is run.
        circuit: its nodes or edges.
        others: name -> pairs.
        universe: as for :func:`evaluate`; likewise the others.
        metric: a key of ``METRICS``.
        seed: of random circuits and intervals.

    Raises:
        DataError: no pairs, or the model behaves the same on them with every node replaced.
    """
    return _evaluated(model, circuit, others, universe, metric, seed, "")


def selectivity(
    model: ModelLike,
    circuit: Circuit,
    pairs: PairSet,
    controls: Mapping[str, PairSet],
    *,
    universe: Circuit = NODES,
    metric: str = "logit-diff",
    seed: int = 0,
) -> CircuitTransfer:
    """Compare what replacing a circuit destroys of its own task with what it destroys of others.

    Args:
        model: what is run.
        circuit: its nodes or edges.
        pairs: of its own task.
        controls: name -> pairs of tasks that it should have nothing to do with.
        universe: as for :func:`evaluate`; likewise the others.
        metric: a key of ``METRICS``.
        seed: of random circuits and intervals.

    Raises:
        DataError: no controls, or the model behaves the same on pairs with every node replaced.
    """
    return _evaluated(model, circuit, {"own task": pairs, **controls}, universe, metric, seed, "own task")


def _evaluated(
    model: ModelLike,
    circuit: Circuit,
    given: Mapping[str, PairSet],
    universe: Circuit,
    metric: str,
    seed: int,
    own: str,
) -> CircuitTransfer:
    if len(given) < (2 if own else 1):
        raise DataError("no other pairs given; name at least one set of them, such as {'two-hop': pairs}.")
    model, found = as_model(model), {}
    for name, pairs in given.items():
        try:
            found[name] = evaluate(
                model, pairs, circuit, universe=universe, metric=metric, knockouts=0, removals=0, controls=(),
                seed=seed,
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"pairs {name!r}: {error}") from error
    first = next(iter(found.values()))
    notes = dict.fromkeys(note for one in found.values() for note in one.warnings)
    return CircuitTransfer(
        evaluations=found, own=own, about=About(first.about.model), seed=seed, warnings=tuple(notes)
    )


def _resampled(found: Evaluation, draws: int = 1000) -> np.ndarray:
    """The share lost in resamples of groups."""
    names = {group: code for code, group in enumerate(dict.fromkeys(found.groups))}
    codes = np.array([names[group] for group in found.groups])
    sums = np.stack(
        [np.bincount(codes, found.values[name], len(names)) for name in ("without", "none", "all")]
    )
    rng = np.random.default_rng(found.seed)
    picked = rng.integers(len(names), size=(draws, len(names)))
    without, none, whole = sums[:, picked].sum(axis=2)
    gap = np.where(np.abs(whole - none) > 1e-12, whole - none, np.inf)
    return (whole - without) / gap
