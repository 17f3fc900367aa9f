"""What an alignment search returns: directions, how well they carry the variable, and what does as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import results
from interp.errors import ConfigError
from interp.mediation.alignment.controls import CONTROLS
from interp.mediation.mediators import Mediator
from interp.mediation.subspaces import Subspace
from probes.statistics import Estimate

if TYPE_CHECKING:
    import pandas

__all__ = ["Alignment", "Score"]

SCHEMA = "interp.alignment/1"


@dataclass(frozen=True)
class Score:
    """Hold one interchange accuracy on held-out pairs.

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

    def row(self) -> dict[str, Any]:
        """Give the numbers as a row of a table."""
        gap = self.difference
        return {
            "variable": self.variable,
            "name": self.name,
            "accuracy": self.accuracy.value,
            "low": self.accuracy.interval.low,
            "high": self.accuracy.interval.high,
            "n": self.accuracy.n,
            "n_groups": self.accuracy.n_groups,
            "difference": gap.value if gap else None,
            "difference_low": gap.interval.low if gap else None,
            "difference_high": gap.interval.high if gap else None,
            "note": self.note,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """Hold directions found by distributed alignment search, with their controls.

    Attributes:
        subspaces: variable -> its directions; those of different variables are orthogonal.
        mediator: the site and position they are at.
        scores: of the directions and of every control, per variable, on groups that no training saw.
        isolation: variable -> the share of interchanges of the *other* variables' pairs that leave the answer
            alone; empty for one variable.
        curve: losses by step (nats).
        among: what the answer was compared with: ``answers`` or ``vocabulary``.
        sizes: groups for training, for stopping and for testing.
        model: name, weights and fingerprint.
        seed: of everything drawn.
        warnings: what a reader should know.
    """

    subspaces: Mapping[str, Subspace]
    mediator: Mediator
    scores: tuple[Score, ...]
    isolation: Mapping[str, Estimate]
    curve: tuple[Mapping[str, int | float], ...]
    among: str
    sizes: tuple[int, int, int]
    model: Mapping[str, Any]
    seed: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def subspace(self) -> Subspace:
        """Give the directions of the one variable.

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
        """Give the interchange accuracy of the one variable on held-out groups."""
        _ = self.subspace
        return self.score("das").accuracy

    def score(self, name: str, variable: str = "") -> Score:
        """Give one score, of the first variable unless another is asked.

        Raises:
            ConfigError: it was not measured.
        """
        wanted = variable or next(iter(self.subspaces))
        for score in self.scores:
            if (score.variable, score.name) == (wanted, name):
                return score
        known = ", ".join(f"{score.name} ({score.variable})" for score in self.scores)
        raise ConfigError(f"no score {name!r} of {wanted!r}; measured: {known}.")

    @property
    def verdict(self) -> str:
        """Say what the numbers allow one to say, per variable."""
        return "; ".join(self._verdict(name) for name in self.subspaces)

    def _verdict(self, variable: str) -> str:
        found = self.score("das", variable).accuracy
        subject = f"{variable!r}: {self.subspaces[variable].dim} directions at {self.mediator}"
        controls = [s for s in self.scores if s.variable == variable and s.difference is not None]
        beaten = [s for s in controls if s.difference and s.difference.interval.low > 0]
        rivals = [s for s in controls if s not in beaten and not CONTROLS[s.name].ceiling]
        said = f"interchange accuracy {found}"
        if found.interval.low <= 0.5 and self.among == "answers":
            return f"{subject} are not shown to carry it ({said}; a coin gives 0.50)"
        floors = [s for s in rivals if CONTROLS[s.name].floor]
        if floors:
            return f"{subject} are not shown to carry it ({said}): {_words(floors)}"
        if rivals:
            return f"{subject} carry it ({said}), but {_words(rivals)}: a search is not shown to be needed"
        if not [s for s in controls if not CONTROLS[s.name].ceiling]:
            return f"{subject}: {said}, but nothing was controlled for"
        return f"{subject} carry it ({said}), better than every control"

    def table(self) -> pandas.DataFrame:
        """Give one row per variable and score.

        Columns: variable, name, accuracy, low, high, n, n_groups, difference (of das less this one),
        difference_low, difference_high, note.
        """
        import pandas

        return pandas.DataFrame([score.row() for score in self.scores])

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the directions as JSON types."""
        table = self.table().astype(object)
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "verdict": self.verdict,
                "mediator": str(self.mediator),
                "dims": {name: subspace.dim for name, subspace in self.subspaces.items()},
                "among": self.among,
                "scores": table.where(table.notna(), None).to_dict("records"),
                "isolation": {name: found.to_dict() for name, found in self.isolation.items()},
                "curve": list(self.curve),
                "groups": dict(zip(("train", "validation", "test"), self.sizes, strict=True)),
                "model": dict(self.model),
                "seed": self.seed,
                "warnings": list(self.warnings),
            }
        )
        return plain

    def diff(self, reference: Alignment) -> pandas.DataFrame:
        """Give the change of every accuracy from another alignment."""
        return results.difference(self.table(), reference.table(), ["variable", "name"])

    def save(self, folder: str | Path) -> Path:
        """Write ``alignment.json``, and per variable a file that ``subspace:FILE@SITE`` reads."""
        folder = Path(folder)
        results.write_json(self.to_dict(), folder / "alignment.json")
        for name, subspace in self.subspaces.items():
            subspace.save(folder / f"{name}.safetensors")
        return folder

    def __repr__(self) -> str:
        """Say in one line what was found."""
        return f"Alignment({self.verdict})"

    def _repr_html_(self) -> str:
        """Give an escaped HTML table with the verdict under it."""
        return results.table_html(self.table(), caption=self.verdict)


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
