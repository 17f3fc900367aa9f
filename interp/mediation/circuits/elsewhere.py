"""A circuit on other pairs than its own.

Generality: does it carry other templates too? Selectivity: does it carry its own task only?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import results
from interp.errors import DataError
from interp.mediation.circuits.evaluation import Evaluation, evaluate
from interp.mediation.circuits.runs import NODES, Circuit
from interp.mediation.itemised import prefixed
from interp.models.loading import ModelLike, as_model
from interp.pairs import PairSet
from interp.results.findings import Finding
from probes.statistics import Estimate

if TYPE_CHECKING:
    import pandas

__all__ = ["Elsewhere", "generality", "selectivity"]


@dataclass(frozen=True, eq=False, repr=False)
class Elsewhere:
    """Hold one circuit evaluated on several sets of pairs.

    Attributes:
        evaluations: name of the pairs -> the circuit on them.
        own: the name of its own task, that others are compared with; "" where there is none.
    """

    evaluations: Mapping[str, Evaluation]
    own: str = ""

    def kept(self, name: str) -> Estimate:
        """Give the share of the behaviour that the circuit alone keeps."""
        return self.evaluations[name].faithfulness

    def lost(self, name: str) -> Estimate:
        """Give the share of the behaviour that is lost when only the circuit is replaced."""
        found = self.evaluations[name]
        return found.share(found.values["all"] + found.values["none"] - found.values["without"])

    def selectivity(self, name: str) -> tuple[float, float, float]:
        """Give what is lost on the circuit's own task beyond what is lost elsewhere, with its 95% interval.

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

    def table(self) -> pandas.DataFrame:
        """Give one row per set of pairs: shares kept by the circuit, by random ones, and lost without it.

        They are empty where the total effect is not told from zero.
        """
        import pandas

        rows: list[dict[str, Any]] = []
        for name, found in self.evaluations.items():
            usable = not found.no_share
            kept, lost = (self.kept(name), self.lost(name)) if usable else (None, None)
            row: dict[str, Any] = {"pairs": name, "n": len(found.groups)}
            row |= _cells("kept", kept) | {"random": found.random.value if usable else None}
            row |= _cells("lost", lost)
            if self.own:
                compared = usable and name != self.own and not self.evaluations[self.own].no_share
                value, low, high = self.selectivity(name) if compared else (None, None, None)
                row |= {"selectivity": value, "selectivity_low": low, "selectivity_high": high}
            rows.append(row)
        return pandas.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Give the table and what it is of as JSON types."""
        first = next(iter(self.evaluations.values()))
        plain, _ = results.jsonable(
            {
                "members": list(map(str, first.circuit)),
                "universe": len(first.universe),
                "metric": first.metric,
                "own": self.own,
                "pairs": self.table().to_dict("records"),
            }
        )
        return plain

    def findings(self) -> tuple[Finding, ...]:
        """Give those of every evaluation, after the name of its pairs."""
        given = self.evaluations.items()
        return tuple(one for name, found in given for one in prefixed(found.findings(), name))

    def diff(self, reference: Elsewhere) -> pandas.DataFrame:
        """Give the change of every share from another result."""
        return results.difference(self.table(), reference.table(), ["pairs"])

    def _repr_html_(self) -> str:
        """Give the table, escaped, for notebooks."""
        return results.table_html(self.table(), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        kept = ", ".join(
            f"{name} {'no share' if found.no_share else format(self.kept(name).value, '.2f')}"
            for name, found in self.evaluations.items()
        )
        return f"Elsewhere(kept: {kept})"


def _cells(name: str, share: Estimate | None) -> dict[str, float | None]:
    if share is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: share.value, f"{name}_low": share.interval.low, f"{name}_high": share.interval.high}


def generality(
    model: ModelLike,
    circuit: Circuit,
    others: Mapping[str, PairSet],
    *,
    universe: Circuit = NODES,
    metric: str = "logit-diff",
    seed: int = 0,
) -> Elsewhere:
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
) -> Elsewhere:
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
) -> Elsewhere:
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
    return Elsewhere(found, own)


def _resampled(found: Evaluation, draws: int = 1000) -> np.ndarray:
    """Give the share lost in resamples of groups."""
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
