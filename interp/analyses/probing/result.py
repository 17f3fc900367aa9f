"""What a probing analysis returns: what a probe reads at which layer, against which controls."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from interp.analyses.causal.result import CausalUse
from interp.analyses.controls import Guessing
from interp.analyses.multiple_comparisons import COVERED, NOT_USE, Looks, audit_lead
from interp.analyses.probing.scores import (
    CONTROLS,
    Score,
    by_guessing,
    ends,
    figure_of,
    named,
    not_beaten,
    number_of,
    table_of,
    tested,
)
from interp.analyses.probing.several_tokens import read_at
from interp.errors import ConfigError, counted
from interp.results import Cell, Figure, Finding, Number, Result, Table, jsonable
from interp.tasks import Labelled
from probes.base import Probe
from probes.cards import ProbeCard
from probes.evaluation import Audit, Split, majority_label, right
from probes.statistics import Estimate
from probes.table import PROBES

if TYPE_CHECKING:
    import pandas

__all__ = ["ProbeResult"]

MOST_LABELS = 40
"""Of more labels there is no figure of which is read as which."""
MOST_PAIRS, WRONG, RIGHT = 8, 8, 4
"""Rows of the tables of confusions, of prompts read wrongly and of prompts read correctly."""
SERIES = {"probe": "trained model", "random-weights": "random weights"}
AXIS = "accuracy on the test prompts"
LESS = "Difference: the accuracy of the probe minus this one, on the same prompts."


class _Tested(NamedTuple):
    """A test prompt, its label, and what was read from it with what probability."""

    text: str
    label: str
    read: str
    probability: float

    def cells(self) -> tuple[Cell, ...]:
        sure = None if np.isnan(self.probability) else float(self.probability)
        return (self.text, self.label, self.read, sure)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ProbeResult(Result):
    """What a probe reads at which layer, against which controls, example by example.

    Attributes:
        data: the prompts and labels.
        split: which of them were for fitting, choosing and reporting.
        kind: the kind of probe.
        position: the token it reads, or the tokens.
        pooling: of several tokens, how their scores become one (:data:`probes.pooling.POOLINGS`).
        layer: the layer chosen.
        selection: how it was chosen, in words.
        scores: the probe and every control on test; at the chosen layer all of them, at the other layers the
            probe and the random-weights control.
        probes: layer to fitted probe.
        predicted: the probe's label for every prompt, at the chosen layer.
        probability: its probability of that label; NaN for probes without probabilities.
        guessing: the test against guessing, at the chosen layer.
        leakage: what the audit of the prompts found.
        looks: the best layer on test and its p-value, corrected for the number of layers; None for one layer.
        causal: whether the model uses what the probe reads, where that was tested.
        states: of the test prompts at the chosen layer: what a probe of another model can be read on.
        carried: with a reference, what the probes of both models read of each other.
    """

    schema: ClassVar[str] = "interp.probe/2"
    data: Labelled
    split: Split
    kind: str
    position: str | int
    pooling: str = ""
    layer: int
    selection: str
    scores: tuple[Score, ...]
    probes: Mapping[int, Probe]
    predicted: tuple[str, ...]
    probability: Float64[np.ndarray, " example"]
    guessing: Guessing
    leakage: Audit
    looks: Looks | None = None
    causal: CausalUse | None = None
    states: Float[Tensor, "test d_model"]
    carried: tuple[Finding, ...] = ()

    # Numbers ----------------------------------------------------------------------------------------------

    @property
    def accuracy(self) -> Estimate:
        """The accuracy on test at the chosen layer."""
        found = self.score("probe").estimate
        assert found is not None
        return found

    @property
    def layers(self) -> tuple[int, ...]:
        """Every layer that was probed."""
        return tuple(self.probes)

    @property
    def at_layer(self) -> tuple[Score, ...]:
        """The scores at the chosen layer."""
        return tuple(score for score in self.scores if score.layer == self.layer)

    @property
    def controls(self) -> tuple[Score, ...]:
        """The controls at the chosen layer."""
        return tuple(score for score in self.at_layer if score.name in CONTROLS)

    def score(self, name: str, layer: int | None = None) -> Score:
        """One score, at the chosen layer unless another is asked.

        Raises:
            ConfigError: it was not measured.
        """
        wanted = self.layer if layer is None else layer
        for score in self.scores:
            if (score.name, score.layer) == (name, wanted):
                return score
        known = ", ".join(f"{s.name} ({s.layer})" for s in self.scores[:12])
        raise ConfigError(f"no score {name!r} at layer {wanted}; measured: {known}.")

    @cached_property
    def tested(self) -> tuple[_Tested, ...]:
        """Every test prompt with its label and what was read from it."""
        columns = (self.data.texts, self.data.labels, self.predicted, self.probability.tolist())
        return tuple(_Tested(*(column[i] for column in columns)) for i in self.split.test)

    def predictions(self) -> pandas.DataFrame:
        """Every prompt: row, text, label, predicted, right, probability, group, split."""
        import pandas

        return pandas.DataFrame(
            {
                "row": range(len(self.data)),
                "text": list(self.data.texts),
                "label": list(self.data.labels),
                "predicted": list(self.predicted),
                "right": right(self.data.labels, self.predicted).astype(bool),
                "probability": self.probability,
                "group": list(self.data.groups),
                "split": self.split.names(len(self.data)),
            }
        )

    def card(self, layer: int | None = None) -> ProbeCard:
        """The card of one layer's probe, of the chosen one unless another is asked."""
        return _card(self, self.layer if layer is None else layer)

    # What it says -----------------------------------------------------------------------------------------

    def question(self) -> str:
        """What was asked."""
        asked = self.data.description.split(";")[0] or self.data.name
        return f"Can \u201c{asked}\u201d be read from layer {self.layer} of {self.about.model_name}?"

    def verdict(self) -> str:
        """Whether the label is decodable, and which comparisons the probe does not beat; then its use."""
        found = self._decodable()
        said = [f"{found[:1].upper()}{found[1:]}."]
        if self.carried:
            theirs = self.finding("from the reference").value
            said.append(f"The reference's probe is right on {theirs:.2f} of this model's test prompts.")
        return " ".join([*said, *(() if self.causal is None else (self.causal.verdict(),))])

    def _decodable(self) -> str:
        guessing = self.guessing
        rivals = {score.name: CONTROLS[score.name].words for score in self.controls}
        kept = [name for name in rivals if not CONTROLS[name].null]
        unbeaten = not_beaten(named(self.controls, kept, guessing), rivals)
        place = f"at layer {self.layer} ({self.accuracy}; {tested(guessing)})"
        if not guessing.beaten:
            more = f"; {unbeaten}" if unbeaten else ""
            luck = f"that is not told from guessing, {guessing.expected:.2f}"
            return f"not shown to be decodable {place}: {luck}{more}"
        if unbeaten:
            return f"decodable {place}, but {unbeaten}"
        if not self.controls:
            return f"above guessing {place}, but nothing was controlled for"
        known = ", ".join(f"{rivals[score.name]} {score.value:.2f}" for score in self.controls)
        return f"decodable {place}, above every control: {known}"

    def lead(self) -> tuple[str, ...]:
        """The prompts, the model, the probe, the split, the controls and the audit."""
        data, model, split = self.data, self.about.model, self.split
        where, pooled = read_at(self.position, self.pooling)
        after = (
            f"layer {self.layer}"
            if len(self.layers) == 1
            else f"each of {counted(len(self.layers), 'layer')}"
        )
        known = "; ".join(f"{score.name}, {CONTROLS[score.name].description}" for score in self.controls)
        found = (
            f"{counted(len(data), 'prompt')} of {data.name} with {counted(len(set(data.labels)), 'label')} "
            f"({data.description}) "
            f"were run through {model.get('name', 'a model')} ({model.get('weights', '')} weights). At "
            f"{where} of each prompt the residual stream after {after} was read, and a {self.kind} probe "
            f"({PROBES[self.kind].description}) was trained to tell the label{pooled}.",
            f"It was fitted on {counted(len(split.train), 'prompt')}, its settings were chosen on "
            f"{len(split.validation):,} others, and it was tested once on "
            f"{counted(len(split.test), 'prompt')} in "
            f"{counted(self.accuracy.n_groups, 'group')} that neither had seen. "
            f"{self.selection[:1].upper()}{self.selection[1:]}.",
            f"It is measured against: {known}." if known else "",
            *audit_lead(self.leakage),
        )
        return tuple(text for text in found if text)

    def numbers(self) -> tuple[Number, ...]:
        """The accuracy, the strongest control, and the difference to each control."""
        n, groups = self.accuracy.n, self.accuracy.n_groups
        found = [
            number_of(
                "accuracy", self.accuracy, f"of {counted(n, 'test prompt')} in {counted(groups, 'group')}"
            )
        ]
        measured = [(score.estimate, score.name) for score in self.controls if score.estimate is not None]
        if measured:
            best, name = max(measured, key=lambda pair: pair[0].value)
            meaning = f"{CONTROLS[name].words}: what the probe has to beat"
            found.append(number_of("strongest-control", best, meaning))
        for score in self.controls:
            if score.difference is not None:
                found.append(number_of(f"over-{score.name}", score.difference, *_over(score)))
        shares = [one for one in self.carried if one.unit == "share"]
        found += [Number(one.name.replace(" ", "-"), one.value, meaning=one.about) for one in shares]
        return (*found, *(() if self.causal is None else self.causal.numbers()))

    def tables(self) -> tuple[Table, ...]:
        """Scores, use, layers, confusions, and test prompts read wrongly and correctly."""
        title = f"Accuracy on the test prompts, layer {self.layer}"
        scores = table_of(
            self.at_layer,
            title,
            f"{self._n()}. {by_guessing(self.guessing)} Intervals: 95%, over groups; {COVERED} {LESS}",
        )
        causal = () if self.causal is None else self.causal.tables()
        layers = (self._layer_table(),) if len(self.layers) > 1 else ()
        carried = (self._carried(),) if self.carried else ()
        return (scores, *carried, *causal, *layers, *self._confusions(), *self._examples())

    def figures(self) -> tuple[Figure, ...]:
        """The curve over layers, the scores, use, and which label is read as which."""
        caption = (
            f"{self._n()}; intervals are 95%, over groups ({self.accuracy.interval.method}). Dashed: chance."
        )
        scores = figure_of(self.at_layer, "The probe against its controls", caption, AXIS)
        curve = (self._curve(caption),) if len(self.layers) > 1 else ()
        causal = () if self.causal is None else self.causal.figures()
        return (*curve, scores, *causal, *self._counts())

    def findings(self) -> tuple[Finding, ...]:
        """The accuracy on the test prompts at the chosen layer, prompt by prompt, and the causal test's.

        The control is the hardest of chance, the commonest training label (prompt by prompt) and the mean
        over probes of shuffled labels, where they were measured.
        """
        labels = [one.label for one in self.tested]
        commonest = majority_label([self.data.labels[i] for i in self.split.train])
        floors: dict[str, float | np.ndarray] = {
            "chance": 1 / len(set(self.data.labels)),
            "always the commonest label": right(labels, [commonest] * len(labels)).astype(np.float64),
        }
        for score in self.controls:
            if CONTROLS[score.name].null:
                floors[CONTROLS[score.name].words] = score.value
        hardest = max(floors, key=lambda name: float(np.mean(floors[name])))
        accuracy = Finding(
            "accuracy",
            right(labels, [one.read for one in self.tested]).astype(np.float64),
            tuple(self.data.groups[i] for i in self.split.test),
            control=floors[hardest],
            unit="share",
            layer=self.layer,
            about=f"of a {self.kind} probe on test at layer {self.layer}, beside {hardest}",
            direction=1,
        )
        return (accuracy, *self.carried, *(() if self.causal is None else self.causal.findings()))

    def cautions(self) -> tuple[str, ...]:
        """That reading is not use; and those of the causal test."""
        if self.causal is None:
            return (NOT_USE,)
        return tuple(f"causal test: {text}" for text in (*self.causal.cautions(), *self.causal.warnings))

    # Parts of it ------------------------------------------------------------------------------------------

    def _n(self) -> str:
        return f"{counted(self.accuracy.n, 'test prompt')} in {counted(self.accuracy.n_groups, 'group')}"

    def _layer_table(self) -> Table:
        twin = any(score.name == "random-weights" for score in self.scores)
        rows = [
            (
                layer,
                *self.score("probe", layer).cells("value", "low", "high"),
                *(self.score("random-weights", layer).cells(*UNTRAINED) if twin else ()),
                self.score("probe", layer).validation,
            )
            for layer in self.layers
        ]
        note = "The layer is chosen by accuracy on validation, never on test. The others are for comparison."
        note += f" Of the test column: {self.looks.sentence}." if self.looks else ""
        extra = ("random weights", *UNTRAINED[1:]) if twin else ()
        columns = ("layer", "accuracy", "low", "high", *extra, "on validation")
        main = self.layers.index(self.layer)
        return Table(
            "layers", "Layer by layer", columns, rows, note, main=main, formats={"difference": "+.3f"}
        )

    def _carried(self) -> Table:
        known = [(one, one.estimate(self.seed)) for one in self.carried]
        rows = [
            (one.name, one.value, found.interval.low, found.interval.high, one.floor, one.unit)
            for one, found in known
            if found is not None
        ]
        note = "Both models are given the same prompts, split, seed and penalty: only their states differ."
        columns = ("finding", "value", "low", "high", "control", "unit")
        return Table("carried", "Does the probe carry over?", columns, rows, note)

    def _confusions(self) -> tuple[Table, ...]:
        counts = Counter((one.label, one.read) for one in self.tested if one.label != one.read)
        of = Counter(one.label for one in self.tested)
        most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_PAIRS]
        rows = [(label, read, n, of[label]) for (label, read), n in most]
        note = f"{counts.total():,} of {counted(len(self.tested), 'test prompt')} are read wrongly."
        columns = ("is", "read as", "prompts", "of")
        return (Table("confusions", "The most frequent mistakes", columns, rows, note),) if rows else ()

    def _examples(self) -> tuple[Table, ...]:
        """Prompts read wrongly, the surest of each kind of mistake first, and correctly, one per label."""
        sure = sorted(
            (one for one in self.tested if one.label != one.read),
            key=lambda one: -np.nan_to_num(one.probability),
        )
        first = {id(one) for one in {(one.label, one.read): one for one in reversed(sure)}.values()}
        sure.sort(key=lambda one: id(one) not in first)
        good = {one.label: one for one in reversed(self.tested) if one.label == one.read}
        columns = ("prompt", "is", "read as", "probability")
        wrong, fine = (
            [one.cells() for one in sure[:WRONG]],
            [good[key].cells() for key in sorted(good)[:RIGHT]],
        )
        found = (
            Table("mistakes", "Read wrongly, the surest mistakes first", columns, wrong),
            Table("right", "Read correctly", columns, fine, folded=True),
        )
        return tuple(table for table in found if table.rows)

    def _curve(self, caption: str) -> Figure:
        """Accuracy over layers, for the model and for the same architecture with random weights."""
        kept = [score for score in self.scores if score.name in SERIES]
        kept.sort(key=lambda score: (score.name != "probe", score.layer))
        data = {
            "x": [score.layer for score in kept],
            "series": [SERIES[score.name] for score in kept],
            **ends(kept),
        }
        title, chance = "Accuracy, layer by layer", self.score("chance").value
        return Figure(
            "layers", "curve", data, title, caption, "layer", AXIS, reference=chance, limits=(0.0, 1.02)
        )

    def _counts(self) -> tuple[Figure, ...]:
        names = sorted({name for one in self.tested for name in (one.label, one.read)})
        if not 0 < len(names) <= MOST_LABELS:
            return ()
        counts = Counter((one.label, one.read) for one in self.tested)
        of = Counter(one.label for one in self.tested)
        cells = [(a, p, counts[a, p], counts[a, p] / max(of[a], 1)) for a in names for p in names]
        data: dict[str, Any] = dict(
            zip(("actual", "predicted", "n", "share"), zip(*cells, strict=True), strict=True)
        )
        caption = (
            f"n = {counted(len(self.tested), 'test prompt')}; a row is a true label, its shade the share of "
            "that row."
        )
        return (
            Figure("confusion", "counts", data, "Which label is read as which", caption, "read as", "is"),
        )


UNTRAINED = ("value", "difference", "difference_low", "difference_high")


def _over(score: Score) -> tuple[str, str]:
    """What the difference to a control means, and what it is called."""
    if score.name == "random-weights":
        meaning = "minus the accuracy with random weights: what training put there"
        return meaning, "Trained minus untrained"
    words = CONTROLS[score.name].words
    return f"accuracy minus that of {words}, {score.value:.3f}", f"Over {words}"


def _card(result: ProbeResult, layer: int) -> ProbeCard:
    """Where a probe comes from, how it scored, where it is wrong."""
    rows, _ = jsonable([score.row() for score in result.scores if score.layer == layer])
    names = json.dumps(result.split.names(len(result.data))).encode()
    model = result.about.model
    return ProbeCard(
        model=model["name"],
        revision=model["revision"],
        weights=model["weights"],
        fingerprint=model["fingerprint"],
        scheme=model["scheme"],
        site=f"resid_post.{layer}",
        positions=f"{result.position}, {result.pooling}" if result.pooling else str(result.position),
        tokenizer=model["tokenizer_fingerprint"],
        data=result.data.name,
        data_hash=result.data.fingerprint,
        split_hash=hashlib.sha256(names).hexdigest(),
        metrics={row["name"]: row for row in rows if row["name"] == "probe"},
        controls={row["name"]: row for row in rows if row["name"] != "probe"},
        known_failures=_failures(result) if layer == result.layer else (),
    )


def _failures(result: ProbeResult) -> tuple[str, ...]:
    """The labels of the test split that are read wrong more often than right, the worst five."""
    of = Counter(one.label for one in result.tested)
    hits = Counter(one.label for one in result.tested if one.label == one.read)
    wrong = sorted((hits[label] / n, label, hits[label], n) for label, n in of.items() if hits[label] < n / 2)
    return tuple(
        f"'{label}': right on {right} of {counted(n, 'test prompt')}" for _, label, right, n in wrong[:5]
    )
