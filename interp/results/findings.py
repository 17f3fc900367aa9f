"""One number of a result with the values it is made of, so that it can be compared item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from interp.errors import DataError, counted
from probes.statistics import Estimate, bootstrap

__all__ = ["Finding", "FixedStatistic", "named", "prefixed"]

Statistic = Callable[[Float[np.ndarray, " item"]], float]


@dataclass(frozen=True)
class FixedStatistic:
    """What is left of a statistic on disk: its value over all items, without the function that gave it."""

    value: float

    def __call__(self, weights: Float[np.ndarray, " item"]) -> float:
        """The value, for equal weights alone.

        Raises:
            DataError: other weights: an interval would need the function itself.
        """
        if np.ptp(weights) == 0:
            return self.value
        raise DataError(
            "a finding that was read from disk keeps its value, not the function behind it, so it has no "
            "interval. Run the analysis again to compare it."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Finding:
    """One number that an analysis found, item by item, with what it has to beat.

    A finding is what ``values`` say beyond ``control``. Two findings of the same name, from two models, are
    compared over the same items in the same order; intervals draw whole groups.

    Attributes:
        name: unique in its result, in words: ``"accuracy: capital"``, ``"EntRec at layer 3"``.
        values: one number per item, whose mean is the finding. With a ``statistic`` only its length counts.
        groups: the fact or template of each item.
        control: what the number would be with nothing there: chance, or one number per item.
        unit: such as ``"nats"`` or ``"share"``.
        statistic: for what is no mean: from the weight of each item (how often it was drawn; all ones for the
            value itself) to the number.
        curve: findings of one curve share this name, such as ``"EntRec"``; "" outside a curve.
        layer: where on the curve.
        about: one sentence for the reader.
        direction: +1 where only a value above its control is a finding (accuracy), -1 where only one below it
            is (surprise), 0 where either may be (the effect of a head).
        matters: the smallest change that matters, item by item, of a mean; a tenth of the excess where left
            out.
    """

    name: str
    values: Float[np.ndarray, " item"]
    groups: tuple[str, ...]
    control: float | Float[np.ndarray, " ..."] = 0.0
    unit: str = ""
    statistic: FixedStatistic | Statistic | None = None
    curve: str = ""
    layer: int | None = None
    about: str = ""
    direction: int = 0
    matters: Float[np.ndarray, " item"] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be averaged.

        Raises:
            DataError: no items, values that are not finite, or not one group and one control per item.
        """
        for what, found in (("values", self.values), ("control", np.atleast_1d(self.control))):
            if not np.isfinite(found).all():
                raise DataError(
                    f"finding {self.name!r}: {what} hold {int((~np.isfinite(found)).sum())} numbers that are "
                    "not finite. Leave such items out, in all models alike, and say so."
                )
        n = len(self.values)
        if n == 0 or len(self.groups) != n or (np.ndim(self.control) == 1 and len(self._controls) != n):
            raise DataError(
                f"finding {self.name!r}: {counted(n, 'value')}, {counted(len(self.groups), 'group')} and "
                f"{np.size(self.control)} controls; give at least one value, and one group for each."
            )
        least = self.matters
        if least is not None and (self.statistic is not None or len(least) != n or not (least > 0).all()):
            raise DataError(
                f"finding {self.name!r}: 'matters' is of a mean; give a number above 0 for each of its "
                f"{counted(n, 'item')}."
            )

    @property
    def _controls(self) -> np.ndarray:
        return np.asarray(self.control, dtype=np.float64)

    @property
    def value(self) -> float:
        """The number itself."""
        if self.statistic is not None:
            return float(self.statistic(np.ones(len(self.values))))
        return float(np.mean(self.values))

    @property
    def floor(self) -> float:
        """The mean of the control."""
        return float(np.mean(self._controls))

    @property
    def excess(self) -> float:
        """The value less its control."""
        return self.value - self.floor

    @property
    def n_groups(self) -> int:
        """How many independent groups there are."""
        return len(set(self.groups))

    def saved(self) -> Finding:
        """What is written in its place: a function becomes the number it gives."""
        if self.statistic is None or isinstance(self.statistic, FixedStatistic):
            return self
        return replace(self, statistic=FixedStatistic(self.value))

    def estimate(self, seed: int = 0) -> Estimate | None:
        """The value with its interval over groups; None for a statistic, which needs a comparison."""
        if self.statistic is not None:
            return None
        return bootstrap(self.values, groups=self.groups, seed=seed)

    def __repr__(self) -> str:
        """Name, value and control in one line."""
        unit = f" {self.unit}" if self.unit else ""
        number = f"{self.value:.3g}{unit} against {self.floor:.3g}"
        return f"Finding({self.name!r}: {number}, {counted(len(self.values), 'item')})"


def named(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Findings by name.

    Raises:
        DataError: two have the same name.
    """
    found: dict[str, Finding] = {}
    for one in findings:
        if one.name in found:
            raise DataError(f"two findings are called {one.name!r}; give each a name of its own.")
        found[one.name] = one
    return found


def prefixed(findings: Sequence[Finding], prefix: str) -> tuple[Finding, ...]:
    """Findings with a word before each name, so that those of two results can stand together."""
    return tuple(replace(one, name=f"{prefix}: {one.name}") for one in findings)
