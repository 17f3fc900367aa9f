"""What an alignment search returns: directions, how well they carry the variable, and what does as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from interp.errors import ConfigError
from interp.mediation.distributed_alignment.controls import CONTROLS
from interp.mediation.mediators import Mediator
from interp.mediation.subspaces import Subspace
from interp.results import Cell, Figure, Number, Result, Table
from probes.statistics import Estimate

__all__ = ["Alignment", "Score"]

COIN = 0.5


@dataclass(frozen=True)
class Score:
    """One interchange accuracy on held-out pairs.

    Attributes:
        variable: whose.
        name: ``das``, or a key of ``CONTROLS``.
        accuracy: the share of interchanges that give the source's answer.
        difference: the accuracy of ``das`` less this one, paired by interchange; None for ``das`` itself.
        note: what a reader should know.
    """

    variable: str
    name: str
    accuracy: Estimate
    difference: Estimate | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Alignment(Result):
    """Directions found by distributed alignment search, with their controls.

    Attributes:
        subspaces: variable -> its directions; those of different variables are orthogonal.
        mediator: the site and position they are at.
        scores: of the directions and of every control, per variable, on groups that no training saw.
        isolation: variable -> the share of interchanges of the *other* variables' pairs that leave the answer
            alone; empty for one variable.
        curve: losses by step (nats).
        among: what the answer was compared with: ``answers`` or ``vocabulary``.
        sizes: groups for training, for stopping and for testing.
    """

    schema: ClassVar[str] = "interp.alignment/2"
    subspaces: Mapping[str, Subspace]
    mediator: Mediator
    scores: tuple[Score, ...]
    isolation: Mapping[str, Estimate]
    curve: tuple[Mapping[str, int | float], ...]
    among: str
    sizes: tuple[int, int, int]

    @property
    def subspace(self) -> Subspace:
        """The directions of the one variable.

        Raises:
            ConfigError: there are several variables.
        """
        if len(self.subspaces) > 1:
            raise ConfigError(
                f"there are several variables: {', '.join(self.subspaces)}; use subspaces[name]."
            )
        return next(iter(self.subspaces.values()))

    @property
    def accuracy(self) -> Estimate:
        """The interchange accuracy of the one variable on held-out groups."""
        _ = self.subspace
        return self.score("das").accuracy

    def score(self, name: str, variable: str = "") -> Score:
        """One score, of the first variable unless another is asked.

        Raises:
            ConfigError: it was not measured.
        """
        wanted = variable or next(iter(self.subspaces))
        for score in self.scores:
            if (score.variable, score.name) == (wanted, name):
                return score
        known = ", ".join(f"{score.name} ({score.variable})" for score in self.scores)
        raise ConfigError(f"no score {name!r} of {wanted!r}; measured: {known}.")

    # What it says -----------------------------------------------------------------------------------------

    def question(self) -> str:
        """The question that was asked."""
        return (
            f"Which directions of {self.mediator} carry {' and '.join(self.subspaces)}? ({self.about.words})"
        )

    def verdict(self) -> str:
        """What the numbers allow one to say, per variable."""
        return "; ".join(self._verdict(name) for name in self.subspaces)

    def _verdict(self, variable: str) -> str:
        found = self.score("das", variable).accuracy
        subject = f"{variable!r}: {self.subspaces[variable].dim} directions at {self.mediator}"
        controls = [s for s in self.scores if s.variable == variable and s.difference is not None]
        beaten = [s for s in controls if s.difference and s.difference.interval.low > 0]
        rivals = [s for s in controls if s not in beaten and not CONTROLS[s.name].ceiling]
        said = f"interchange accuracy {found}"
        if found.interval.low <= COIN and self.among == "answers":
            return f"{subject} are not shown to carry it ({said}; a coin gives {COIN:.2f})"
        floors = [s for s in rivals if CONTROLS[s.name].floor]
        if floors:
            return f"{subject} are not shown to carry it ({said}): {_words(floors)}"
        if rivals:
            return f"{subject} carry it ({said}), but {_words(rivals)}: a search is not shown to be needed"
        if not [s for s in controls if not CONTROLS[s.name].ceiling]:
            return f"{subject}: {said}, but nothing was controlled for"
        return f"{subject} carry it ({said}), better than every control"

    def lead(self) -> tuple[str, ...]:
        """How the directions were found."""
        train, stop, test = self.sizes
        return (
            f"Directions were trained until interchanging them between two prompts gave the other prompt's "
            f"answer (compared with {self.among}): {train} groups of pairs to train on, {stop} to stop by, "
            f"and the {test} that the accuracies are of. A search in so large a space finds directions even "
            "where there is nothing to find; the controls say how far.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The accuracy of each variable, and how well it leaves the others alone."""
        many = len(self.subspaces) > 1
        found = [self.score("das", name).accuracy for name in self.subspaces]
        names = [f"accuracy-{name}" if many else "accuracy" for name in self.subspaces]
        accuracies = [
            Number(name, one.value, one.interval.low, one.interval.high, meaning="of interchanges")
            for name, one in zip(names, found, strict=True)
        ]
        alone = [
            Number(f"isolation-{name}", one.value, one.interval.low, one.interval.high,
                   meaning="interchanges for other variables that leave the answer alone")
            for name, one in self.isolation.items()
        ]  # fmt: skip
        return (*accuracies, *alone)

    def tables(self) -> tuple[Table, ...]:
        """One row per variable and score (difference: of das less this one), then the losses by step."""
        rows: list[tuple[Cell, ...]] = []
        for one in self.scores:
            found, gap = one.accuracy, one.difference
            ends = (found.value, found.interval.low, found.interval.high, found.n, found.n_groups)
            beyond = (None,) * 3 if gap is None else (gap.value, gap.interval.low, gap.interval.high)
            rows.append((one.variable, one.name, *ends, *beyond, one.note))
        columns = ("variable", "name", "accuracy", "low", "high", "n", "n_groups")
        columns += ("difference", "difference_low", "difference_high", "note")
        note = "difference: accuracy of das less this one. Intervals: 95%, over groups that no training saw."
        scores = Table("scores", "Interchange accuracy", columns, rows, note, 0, shown=15)
        steps = [(row["step"], row["validation"], row.get("train")) for row in self.curve]
        losses = Table("losses", "Loss by step (nats)", ("step", "validation", "train"), steps, folded=True)
        return (scores, losses) if steps else (scores,)

    def figures(self) -> tuple[Figure, ...]:
        """The accuracies beside those of every control, and the losses by step."""
        several = len(self.subspaces) > 1
        data = {
            "name": [f"{s.variable}: {s.name}" if several else s.name for s in self.scores],
            "value": [s.accuracy.value for s in self.scores],
            "low": [s.accuracy.interval.low for s in self.scores],
            "high": [s.accuracy.interval.high for s in self.scores],
            "colour": [0 if s.name == "das" else -1 for s in self.scores],
        }
        coin = self.among == "answers"
        scores = Figure(
            "scores",
            "intervals",
            data,
            "Interchange accuracy beside controls",
            f"Intervals: 95%, over {self.sizes[2]} groups of pairs that no training saw.",
            x="share of interchanges that give the other prompt's answer",
            reference=COIN if coin else None,
            reference_name="a coin",
            limits=(0.0, 1.0),
        )
        points = [
            (row["step"], part, row[part])
            for part in ("validation", "train")
            for row in self.curve
            if part in row
        ]
        if not points:
            return (scores,)
        steps, series, losses = zip(*points, strict=True)
        data = {"x": steps, "series": series, "value": losses, "low": losses, "high": losses}
        caption = "The directions with the least loss on the validation groups are kept."
        return (scores, Figure("losses", "curve", data, "Loss by step", caption, "step", "loss (nats)"))


def _words(scores: list[Score]) -> str:
    """What was not beaten; an interval with zero in it does not say that two agree."""
    return " and ".join(
        f"{CONTROLS[s.name].words} ({s.accuracy.value:.2f}) "
        + (
            "does better"
            if s.difference.interval.high < 0
            else f"is not told apart (difference {s.difference})"
        )
        for s in scores
        if s.difference is not None
    )
