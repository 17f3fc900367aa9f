"""Does training hide a capability, or take it away? Three answers, each over seeds, and one verdict.

"Mechanistically analyzing the effects of fine-tuning" (arXiv 2311.12786) finds that fine-tuning often puts a
small wrapper on capabilities, which stay. Its text was not at hand: the measures and the rule are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from interp.analyses.fine_tuning_wrapper import rule
from interp.analyses.fine_tuning_wrapper.capability import FEWEST, Capability, found_lacking
from interp.analyses.fine_tuning_wrapper.hidden import Hidden, late, read_inside, translated
from interp.analyses.fine_tuning_wrapper.pruning import Pruned, Units, prune, units_of
from interp.analyses.fine_tuning_wrapper.revival import STARTS, Curve, relearn, start_of
from interp.analyses.knowledge.questions import OwnFacts
from interp.analyses.layer_profiles import depths
from interp.analyses.provenance import about, earlier
from interp.errors import ConfigError, counted
from interp.lenses import TranslatorLens
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Cell, Table

__all__ = ["wrapper"]

MOST_LAYERS, READER = 6, "linear reader"


def wrapper(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 100,
    seed: int = 0,
    seeds: int = 3,
    steps: int = 48,
    data: OwnFacts | None = None,
) -> FindingsResult:
    """Say whether what the base answers and the tuned model does not is wrapped or deleted.

    Three parts, each for several divisions of the facts into seen and unseen ones: *hidden*, can a linear
    reader of some layer, fitted in each model, still name unseen answers (or, where that fails in the base,
    the base's translator, fitted without answers)? *pruning*, how many answers come
    back when the k units (heads, neurons) that hold them down most are set to zero,
    ``R(k) = (A(tuned less k) - A(tuned)) / (A(base) - A(tuned))``, beside random units of like size and the
    neurons whose weights moved most? *Revival*, how many steps of a short training on seen facts bring 90% of
    the unseen ones back, from the tuned model, from a copy whose middle layers were re-drawn, and from
    scratch? A is 1 in the base and 0 in the tuned model on these questions, by their choice.

    Args:
        model: what was trained.
        reference: what this function returned for the base; left out, the model is the base.
        n: how many lacking questions, at most.
        seed: the first of the divisions.
        seeds: how many.
        steps: of each training.
        data: own prompts with their answers instead of the bundled facts.

    Raises:
        ConfigError: a reference that is none, or no seed.
        DataError: a base that answers nothing.
    """
    model = as_model(model)
    if seeds < 1 or steps < 2:
        raise ConfigError(f"{seeds} seeds of {steps} steps asked; give at least 1 of 2.")
    if reference is None:
        return FindingsResult(analysis="wrapper", about=about(model, {}), found=(), state={"model": model})
    base: Model = earlier(reference, "wrapper", "model")
    found = found_lacking(base, model, n=n, seed=seed, data=data)
    known = sum(asked for asked, _ in found.asked.values())
    gone = sum(lost for _, lost in found.asked.values())
    given = {"n": len(found.lacking), "known": known, "lacking": gone}
    made = FindingsResult(
        analysis="wrapper",
        about=about(model, given),
        asked=f"Is what {model.called} does not answer any more wrapped or deleted?",
        found=(),
        seed=seed,
        warnings=model.warnings,
    )
    if not found.enough:
        return replace(
            made,
            more=(_lost(found),),
            judged=f"nothing to explain: of {known} questions that {base.called} answers, {model.called} "
            f"lacks {gone}, and {FEWEST} facts are the fewest that can be divided",
        )
    units = units_of(base, model, found.lacking)
    seen = _Seen.of(base, model, found, units, range(seed, seed + seeds), steps)
    return replace(
        made,
        how=(
            f"{counted(len(found.lacking), 'question')} that {base.called} answers and {model.called} does "
            f"not were divided {counted(seeds, 'time')} into seen and unseen facts. {rule.RULE}",
        ),
        found=seen.findings(),
        more=(seen.parts_table(), _lost(found), seen.layers(), seen.removed(), seen.returns()),
        judged=rule.verdict(seen.parts),
    )


def _known(values: Sequence[float]) -> float | None:
    """The mean; nothing where one is not a number, as it is where there was nothing to measure."""
    return None if np.isnan(values).any() else float(np.mean(values))


def _lost(found: Capability) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "relation": name or "questions",
            "the base answers": known,
            "the model lacks": gone,
            "share": gone / known,
        }
        for name, (known, gone) in sorted(found.asked.items(), key=lambda row: -row[1][1] / row[1][0])
    ]
    return Table.of("lacking", "What is lacking", rows)


@dataclass(frozen=True, eq=False)
class _Seen:
    """All that was measured, seed by seed."""

    found: Capability
    layers_read: tuple[int, ...]
    inside: Mapping[str, Sequence[Hidden]]
    pruned: Sequence[Sequence[Pruned]]
    curves: Mapping[str, Sequence[Curve]]
    seeds: Sequence[int]
    reader: str

    @classmethod
    def of(
        cls, base: Model, tuned: Model, found: Capability, units: Units, seeds: Sequence[int], steps: int
    ) -> _Seen:
        """Measure."""
        at = depths(base, None, MOST_LAYERS)
        drawn = start_of("re-drawn", base, tuned, seeds[0])
        models = {"base": base, "tuned": tuned, "re-drawn": drawn}
        inside = {name: [read_inside(one, found, at, seed) for seed in seeds] for name, one in models.items()}
        reader = READER
        if not rule.works(inside["base"]):
            at, reader = late(base), "translator of the base"
            lens = TranslatorLens.of(base, at)
            inside = {
                name: [translated(one, found, lens, seed, at) for seed in seeds]
                for name, one in models.items()
            }
        pruned = [prune(tuned, found, units, seed) for seed in seeds]
        curves = {
            name: [
                relearn(start_of(name, base, tuned, seed), found, name=name, steps=steps, seed=seed)
                for seed in (seeds[:1] if name == "scratch" else seeds)
            ]
            for name in STARTS
        }
        return cls(found, at, inside, pruned, curves, list(seeds), reader)

    @property
    def parts(self) -> tuple[rule.Part, ...]:
        """What each part says."""
        return (
            rule.hidden(self.inside["base"], self.inside["tuned"], self.reader),
            rule.back(self.pruned),
            rule.quick(self.curves),
        )

    def findings(self) -> tuple[Finding, ...]:
        """Of the first seed, fact by fact: what is read, and what removing units brings back."""
        _, rows = self.found.divided(self.seeds[0])
        groups = tuple(self.found.lacking[row].group for row in rows)
        own, best = self.inside["tuned"][0].best, rule.chosen(self.pruned[0])
        return (
            Finding(
                "unseen answers read inside",
                np.array(own.unseen),
                groups,
                own.shuffled,
                "share",
                about=f"{self.reader}, layer {own.layer}, first seed; control: the same on exchanged answers",
                direction=1,
            ),
            Finding(
                "answers brought back by removing units",
                np.array(best.back),
                groups,
                best.random,
                "share",
                about=f"{best.count} units, first seed; control: random units of like size",
                direction=1,
            ),
        )

    def parts_table(self) -> Table:
        """The three parts over seeds."""
        rows: list[dict[str, Cell]] = []
        for part in self.parts:
            mean, low, high = rule.spread(part.values)
            rows.append(
                {"part": rule.PARTS[part.name], "says": part.says, "value": mean, "least": low, "most": high}
                | {"found": part.words}
            )
        note = (
            f"Values: the reader's accuracy over that in the base, R(k), and the ratio of steps to 90%; "
            f"mean, least and most over {counted(len(self.seeds), 'seed')}."
        )
        return Table.of("parts", "The three parts", rows, note)

    def layers(self) -> Table:
        """What is read at each layer of each model, means over seeds."""
        rows: list[dict[str, Cell]] = []
        for at, layer in enumerate(self.layers_read):
            row: dict[str, Cell] = {"layer": layer}
            for name, seeds in self.inside.items():
                row[name] = float(np.mean([one.layers[at].accuracy for one in seeds]))
            row["exchanged answers"] = float(
                np.mean([one.layers[at].shuffled for one in self.inside["tuned"]])
            )
            rows.append(row)
        fitted = (
            "fitted on text that it drew" if self.reader != READER else "fitted in the model that it reads"
        )
        note = f"Share of unseen answers that a {self.reader} names, {fitted}."
        return Table.of("inside", "Still there?", rows, note)

    def removed(self) -> Table:
        """R(k) and its controls, means over seeds."""
        rows: list[dict[str, Cell]] = []
        for at, one in enumerate(self.pruned[0]):
            every = [seed[at] for seed in self.pruned]
            _, low, high = rule.spread([each.share for each in every])
            rows.append(
                {
                    "k": one.count,
                    "R(k)": float(np.mean([each.share for each in every])),
                    "least": low,
                    "most": high,
                    "random units": float(np.mean([each.random for each in every])),
                    "neurons that moved most": _known([each.heaviest for each in every]),
                    "other answers kept": _known([each.kept for each in every]),
                    "first units": ", ".join(one.names[:3]),
                }
            )
        note = "On unseen facts; units were chosen on the others. Least and most: over seeds."
        return Table.of("pruning", "What removing units brings back", rows, note)

    def returns(self) -> Table:
        """The revival curves, means over seeds."""
        rows: list[dict[str, Cell]] = []
        for at, step in enumerate(self.curves["tuned"][0].steps):
            row: dict[str, Cell] = {"step": step}
            row |= {
                n: float(np.mean([one.accuracy[at] for one in seeds])) for n, seeds in self.curves.items()
            }
            rows.append(row)
        areas = ", ".join(
            f"{name} {np.mean([one.area for one in seeds]):.2f}" for name, seeds in self.curves.items()
        )
        starts = "; ".join(f"{name}: {words}" for name, words in STARTS.items())
        note = f"Accuracy on unseen facts after so many steps. Mean over the steps: {areas}. {starts}."
        return Table.of("revival", "How it returns", rows, note)
