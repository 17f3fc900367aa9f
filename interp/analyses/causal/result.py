"""What the causal test of a probe returns: whether the model uses the directions that the probe reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from interp.analyses.causal.measures import EDITS
from interp.errors import counted
from interp.results import Figure, Finding, Number, Result, Table
from interp.tasks.prompts import text_sha256
from probes.statistics import Estimate

__all__ = ["LEVEL", "CausalUse", "Dose", "Effect"]

LEVEL = 0.05
NEEDED = ("ablate", "patch")
"""The edits that must both stand out for directions to be called used."""
DONE = {
    "preference": "lowers the right word's lead over another label's word by",
    "divergence": "moves the distribution of the next token by",
}
"""Measure -> what an edit does to it."""
HOW = (
    "To erase is to set what lies along the directions to the mean of the training prompts; to exchange, to "
    "take it from a test prompt with another label; to push, to move the state towards another label, by "
    "the dose. Random directions, as many, are moved as far in every prompt. Called used where erasing and "
    "exchanging both do more than every random draw, and the interval of the difference excludes 0."
)
SPREAD = ("random", "random_low", "random_high")
DIFFERENCE = ("difference", "difference_low", "difference_high")
HIDDEN = ("size", "stands_out", "n", "n_groups")


@dataclass(frozen=True)
class Effect:
    """How much one edit changes the output, along the probe's directions and along random ones (nats).

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

    def redacted(self) -> Effect:
        """The same with the sha256 of each group in its place: a prompt may be its own group."""
        return replace(self, groups=tuple(text_sha256(group) for group in self.groups))

    @property
    def stands_out(self) -> bool:
        """Whether it is clearly more than random directions do, over prompts and over draws."""
        return self.difference.interval.low > 0 and self.p_value <= LEVEL

    def __str__(self) -> str:
        """The effect beside that of random directions."""
        own = self.estimate
        interval = f"[{own.interval.low:.3g}, {own.interval.high:.3g}]"
        return f"{own.value:.3g} nats {interval} (random directions moved as far: {self.random:.3g})"


@dataclass(frozen=True)
class Dose:
    """The measure after one dose of steering (nats).

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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CausalUse(Result):
    """Whether a model uses the directions that a probe reads.

    Attributes:
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
        readable: whether the probe was told from guessing.
    """

    schema: ClassVar[str] = "interp.causal/2"
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
    readable: bool

    @property
    def used(self) -> bool:
        """Whether both erasing and exchanging stand out from random directions."""
        return all(self.effect(edit).stands_out for edit in NEEDED)

    def effect(self, edit: str) -> Effect:
        """The effect of one edit.

        Raises:
            KeyError: no such edit.
        """
        return self._by_edit[edit]

    @property
    def _by_edit(self) -> Mapping[str, Effect]:
        return {effect.edit: effect for effect in self.effects}

    def question(self) -> str:
        """What was asked."""
        return f"Does the model use what the {self.kind} probe reads at {self.site}?"

    def verdict(self) -> str:
        """Whether the model uses the directions, and what each edit that decides does."""
        it = "them" if self.named.startswith("these") else "it"
        missing = [edit for edit in NEEDED if not self.effect(edit).stands_out]
        if not missing:
            aside = "" if self.readable else ", though the label was not shown to be readable from it"
            return f"The model uses {self.named}{aside}: {self._listed(NEEDED, it, it)}."
        start = "Readable, but not shown to be used" if self.readable else NEITHER
        return f"{start}: {self._listed(missing, self.named, it)}{self._alone(it)}."

    def _listed(self, edits: Sequence[str], name: str, it: str) -> str:
        """What edits do; what is changed has a name where it is mentioned first, and one afterwards."""
        first, *rest = (self.effect(edit) for edit in edits)
        found = [f"{EDITS[first.edit].words} {name} {DONE[self.measure]} {first}"]
        return ", ".join([*found, *(f"{EDITS[effect.edit].words} {it} by {effect}" for effect in rest)])

    def _alone(self, it: str) -> str:
        """What does stand out where not everything that is needed does."""
        shown = [f"{EDITS[effect.edit].words} {it}" for effect in self.effects if effect.stands_out]
        if not shown:
            return ""
        does = "does" if len(shown) == 1 else "do"
        return f"; {' and '.join(shown)} {does} stand out, which alone does not show use"

    def lead(self) -> tuple[str, ...]:
        """What was changed, and what was watched."""
        at = "the last token" if self.position == "last" else f"token {self.position}"
        watched = "by how much this falls: " if self.measure == "preference" else ""
        changed = f"Changed at {at} of {self.site}: {self.directions}."
        return (f"{changed} Watched, in nats: {watched}{self.measured}.",)

    def numbers(self) -> tuple[Number, ...]:
        """Of every edit, what it does more than random directions."""
        return tuple(
            Number(
                f"{effect.edit}-over-random",
                less.value,
                less.interval.low,
                less.interval.high,
                "nats",
                f"{effect.estimate.value:.3g} along the probe's directions, {effect.random:.3g} along others",
                f"To {EDITS[effect.edit].verb}, over random directions",
            )
            for effect in self.effects
            for less in [effect.difference]
        )

    def tables(self) -> tuple[Table, ...]:
        """The effect of every edit, and the dose-response of pushing."""
        rows = [
            (
                EDITS[one.edit].verb + " (per dose)" * (one.edit == "steer" and self.measure == "preference"),
                one.estimate.value,
                one.estimate.interval.low,
                one.estimate.interval.high,
                one.random,
                one.random_low,
                one.random_high,
                one.difference.value,
                one.difference.interval.low,
                one.difference.interval.high,
                one.p_value,
                None if one.whole is None else one.whole.value,
                one.size,
                one.stands_out,
                one.estimate.n,
                one.estimate.n_groups,
            )
            for one in self.effects
        ]
        columns = ("edit", "effect", "low", "high", *SPREAD, *DIFFERENCE, "p", "whole state", *HIDDEN)
        of = self.effects[0].estimate
        note = (
            f"{self.lead()[0]} {counted(of.n, 'test prompt')} in {counted(of.n_groups, 'group')}; "
            f"{self.draws} random draws, "
            f"their interval is over draws. {HOW}"
        )
        formats: dict[str, str] = dict.fromkeys(("effect", "random", "difference", "p", "whole state"), ".3g")
        effects = Table(
            "effects", "Does the model use it?", columns, rows, note, formats=formats, hidden=HIDDEN
        )
        doses = [
            tuple(getattr(dose, name) for name in ("dose", "value", "low", "high", *SPREAD))
            for dose in self.doses
        ]
        note = (
            f"In nats: {self.measured}. Dose 0 is the unchanged run; intervals (95%) are of the change from "
            "it, over groups, and of random directions over draws."
        )
        columns = ("dose", "probe's directions", "low", "high", *SPREAD)
        formats = {"dose": "g", "probe's directions": ".3g", "random": ".3g"}
        return (effects, Table("doses", PUSHED, columns, doses, note, formats=formats))

    def figures(self) -> tuple[Figure, ...]:
        """The dose-response."""
        series = (("probe's directions", ("value", "low", "high")), ("random directions", SPREAD))
        rows = [
            (dose.dose, name, *(getattr(dose, key) for key in keys))
            for name, keys in series
            for dose in self.doses
        ]
        data: dict[str, Any] = dict(
            zip(("x", "series", "value", "low", "high"), zip(*rows, strict=True), strict=True)
        )
        caption = (
            "Bands: 95%, of the change from dose 0: over groups, of random directions over "
            f"{self.draws} draws."
        )
        rest = next(dose.value for dose in self.doses if dose.dose == 0)
        return (
            Figure(
                "steering",
                "curve",
                data,
                PUSHED,
                caption,
                "dose",
                "nats",
                reference=rest,
                reference_name="unchanged",
            ),
        )

    def findings(self) -> tuple[Finding, ...]:
        """The effect of every edit, prompt by prompt, against random directions (nats)."""
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


NEITHER = "Neither shown to be readable nor used"
PUSHED = "Pushed towards another label"
