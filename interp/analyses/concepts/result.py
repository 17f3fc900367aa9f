"""What a concept-probing analysis returns: which concepts can be read where, against which controls."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float64

from interp.analyses.causal.result import CausalUse
from interp.analyses.concepts.belief import Belief
from interp.analyses.concepts.controls import CONTROLS, FLOORS
from interp.analyses.concepts.known import Known
from interp.analyses.controls import Guessing
from interp.analyses.multiple_comparisons import COVERED, NOT_USE, Looks, audit_lead
from interp.analyses.probing.scores import (
    Score,
    by_guessing,
    figure_of,
    named,
    not_beaten,
    number_of,
    table_of,
    tested,
)
from interp.errors import ConfigError, counted
from interp.results import Figure, Finding, Number, Result, Table, jsonable
from interp.tasks import Labelled
from interp.tasks.protocols import PROTOCOLS, Item, Protocol, ProtocolItems
from probes.cards import ProbeCard
from probes.evaluation import Audit
from probes.hyperdimensional import HyperdimensionalProbe
from probes.statistics import Estimate

if TYPE_CHECKING:
    import pandas

__all__ = ["ConceptResult", "LayerScore", "RelationScore"]

MOST_CONFUSED = 15
EXAMPLES = 5
"""Prompts shown of each cell of the two-by-two table."""
AXIS = "top-1 on the test prompts"
BESIDE = (
    "Baselines (ridge, linear classifier, logit lens, translator) read the same states: where one does "
    "better, the probe is not the best reader, but the concepts are there to be read all the same."
)
METRICS = {
    "top5": "right concept among the best five",
    "mrr": "mean reciprocal rank",
    "cosine": "cosine with the right concept",
    "bits": "share of coordinates with the right sign",
    "claimed": "share claimed (not abstained)",
    "precision": "share right among those claimed",
    "unseen": "top-1 on answers that were never trained",
    "asked": "top-1 on every test prompt asked, those the model answers wrong too",
    "model": "share the model itself answers right (each token the likeliest)",
}


@dataclass(frozen=True)
class LayerScore:
    """How well a layer is read, by a quick fit with one penalty for all layers.

    Attributes:
        validation: mean reciprocal rank of the right concept on validation.
        test: top-1 on test, for orientation.
        ahead: top-1 on validation less that of the logit lens, where the layer is chosen by that.
    """

    validation: float
    test: Estimate
    ahead: float | None = None

    @property
    def chosen_by(self) -> float:
        """What a layer is chosen by: its lead over the logit lens where that was measured, else its rank."""
        return self.validation if self.ahead is None else self.ahead


@dataclass(frozen=True)
class RelationScore:
    """Of the test prompts of one relation, the shares that the probe reads and that the model answers.

    Where the model was asked first (``known``), its share is of all prompts that were asked.
    """

    n: int
    probe: float
    model: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ConceptResult(Result):
    """Which concepts can be read where, against which controls, prompt by prompt.

    Attributes:
        protocol: a key of ``PROTOCOLS``.
        encoder: the kind of encoder.
        prompts: of every part.
        layer: the layer reported, chosen on validation where there were several.
        curve: layer -> how well it is read; {} where one layer was asked.
        top1: the probe's share of right concepts on test.
        controls: the same of every control and baseline, with the probe's difference to it.
        metrics: further scores of the probe (the keys of ``METRICS``) that could be computed.
        floors: of the cosine and of the bits, what the best constant prediction scores.
        read: the concept read from each test prompt.
        similarity: of that concept.
        said: the model's own next token after each test prompt.
        model_right: whether that is the expected one.
        belief: what the probe says where the model believes something false.
        guessing: the test against guessing: answers exchanged among the facts of a relation, or drawn from
            the candidates that the prompt leaves.
        leakage: what the audit of the prompts found, apart from what belongs to the protocol.
        looks: the best layer on test and its p-value, corrected for the number of layers; None for one layer.
        probe: the fitted probe.
        causal: whether the model uses what the probe reads, where that was tested.
        known: which relations the model answers right, where it was asked first: the test is then of prompts
            that it answers right.
    """

    schema: ClassVar[str] = "interp.concepts/2"
    protocol: str
    encoder: str
    prompts: tuple[Item, ...]
    layer: int
    curve: Mapping[int, LayerScore]
    top1: Estimate
    controls: tuple[Score, ...]
    metrics: Mapping[str, Estimate]
    floors: Mapping[str, float]
    read: tuple[str, ...]
    similarity: tuple[float, ...]
    said: tuple[str, ...]
    model_right: tuple[bool, ...]
    belief: tuple[Belief, ...]
    guessing: Guessing
    leakage: Audit
    looks: Looks | None
    probe: HyperdimensionalProbe
    causal: CausalUse | None = None
    known: Known | None = None

    # Readings --------------------------------------------------------------------------------------------

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The test prompts."""
        return tuple(item for item in self.prompts if item.part == "test")

    @cached_property
    def right(self) -> tuple[bool, ...]:
        """Whether each test prompt is read right."""
        return tuple(name == item.answer for name, item in zip(self.read, self.items, strict=True))

    @cached_property
    def guessed(self) -> Float64[np.ndarray, " item"]:
        """Of each test prompt, what guessing scores among the concepts that it leaves open."""
        concepts = len(self.probe.codebook_)
        return np.array([1 / (len(item.candidates) or concepts) for item in self.items])

    @property
    def chance(self) -> float:
        """The top-1 of guessing among the concepts that each prompt leaves open."""
        return float(self.guessed.mean())

    @property
    def ceiling(self) -> float:
        """The top-1 of the best guess from the training prompts alone, without the model."""
        return ProtocolItems(self.prompts, ()).ceiling()

    @cached_property
    def data(self) -> Labelled:
        """The prompts of every part, with the concept that should be read from each."""
        return labelled(PROTOCOLS[self.protocol], self.prompts)

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """The probe's score, those of every control and baseline, and chance."""
        held = float(self.probe.fitted_.notes["validation_score"])
        own = Score(self.layer, "probe", self.top1.value, self.top1, validation=held)
        return (own, *self.controls, Score(self.layer, "chance", self.chance))

    def score(self, name: str) -> Score:
        """The score of the probe, of a control, or of chance.

        Raises:
            ConfigError: it was not measured.
        """
        found = {one.name: one for one in self.scores}
        if name not in found:
            raise ConfigError(f"no score {name!r}; measured: {', '.join(found)}.")
        return found[name]

    @cached_property
    def by_relation(self) -> dict[str, RelationScore]:
        """Relation -> how its test prompts are read and answered."""
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(self.items):
            rows.setdefault(item.relation, []).append(row)
        right, own = np.array(self.right), np.array(self.model_right)
        asked = {} if self.known is None else {n: one.value for n, one in self.known.relations.items()}
        return {
            name: RelationScore(len(at), float(right[at].mean()), asked.get(name, float(own[at].mean())))
            for name, at in sorted(rows.items())
        }

    @cached_property
    def cells(self) -> dict[str, tuple[int, ...]]:
        """``model right, probe wrong`` and so on -> which of the test prompts."""
        found: dict[str, tuple[int, ...]] = {}
        for model in (True, False):
            for probe in (True, False):
                name = f"model {'right' if model else 'wrong'}, probe {'right' if probe else 'wrong'}"
                pairs = enumerate(zip(self.model_right, self.right, strict=True))
                found[name] = tuple(row for row, pair in pairs if pair == (model, probe))
        return found

    def predictions(self) -> pandas.DataFrame:
        """One row for each prompt of every part; what was read and said of the test prompts alone.

        Columns: row, text, label, predicted, right, probability (the similarity of the concept that was
        read), group, split, relation, said, model_right.
        """
        import pandas

        rows = [row for row, item in enumerate(self.prompts) if item.part == "test"]
        found = pandas.DataFrame(
            {
                "row": range(len(self.prompts)),
                "text": self.data.texts,
                "label": self.data.labels,
                "predicted": "",
                "right": False,
                "probability": float("nan"),
                "group": self.data.groups,
                "split": self.data.splits,
                "relation": [item.relation for item in self.prompts],
                "said": "",
                "model_right": False,
            }
        )
        test = {"predicted": self.read, "right": self.right, "probability": self.similarity}
        for name, values in (test | {"said": self.said, "model_right": self.model_right}).items():
            found.loc[rows, name] = list(values)
        return found

    def card(self) -> ProbeCard:
        """The card that goes with the saved probe."""
        return _card(self)

    # What it says ----------------------------------------------------------------------------------------

    @property
    def selection(self) -> str:
        """How the layer was chosen, in words."""
        if not self.curve:
            return f"layer {self.layer}, as asked"
        best = self.curve[self.layer]
        how = f"mean reciprocal rank on validation ({best.validation:.2f})"
        if best.ahead is not None:
            how = f"the lead over the logit lens in top-1 on validation ({best.ahead:+.2f})"
        return f"layer {self.layer}, the best of {len(self.curve)} by {how}"

    def question(self) -> str:
        """What the protocol asks."""
        asked = PROTOCOLS[self.protocol].question
        return f"{asked[:1].upper()}{asked[1:]} ({self.about.words})"

    def verdict(self) -> str:
        """Whether the concepts can be read, and what reads them as well; then their use."""
        found = _readable(self, PROTOCOLS[self.protocol])
        own = f"{found[:1].upper()}{found[1:]}."
        return own if self.causal is None else f"{own} {self.causal.verdict()}"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        return (
            f"{len(self.prompts):,} prompts of the protocol '{self.protocol}' were run through "
            f"{self.about.model_name}. A Hyperdimensional Probe ({self.encoder} encoder) was trained on "
            f"the residual stream at the last token of the training prompts{self._learned}, its settings "
            "were chosen on validation prompts, and the test prompts were read once. "
            f"{self.selection[:1].upper()}{self.selection[1:]}.",
            *((self.known.sentence(),) if self.known else ()),
            *audit_lead(self.leakage),
        )

    @property
    def _learned(self) -> str:
        """What a translator learns in place of answers."""
        return ", to give the model's own final states and no answers" if self.encoder == "translator" else ""

    def cautions(self) -> tuple[str, ...]:
        """That reading is not use, or what the causal test does not show; baselines; what is not known."""
        known = (BESIDE, *self._unknown())
        if self.causal is None:
            return (NOT_USE, *known)
        causal = (*self.causal.cautions(), *self.causal.warnings)
        return (*(f"causal test: {text}" for text in causal), *known)

    def _unknown(self) -> tuple[str, ...]:
        """That the model itself does not know most of the answers; nothing where it may."""
        found = self.metrics.get("model")
        if self.known or found is None or found.interval.high >= 0.5:
            return ()
        return (
            f"The model itself gives {found.value:.0%} of the answers ({found.interval}): what it does not "
            "know can hardly be read from it, and a low score says little about the layer.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Top-1, the strongest control, what is read of beliefs, and what the probe has over each control."""
        found = [number_of("top1", self.top1, f"of {self._n()}", "Concepts read right (top-1)")]
        rivals = [one for one in self.controls if one.estimate and not CONTROLS[one.name].baseline]
        if rivals:
            best = max(rivals, key=lambda one: one.value)
            assert best.estimate is not None
            meaning = f"{CONTROLS[best.name].words}: what the probe has to beat"
            found.append(number_of("strongest-control", best.estimate, meaning))
        for entry in self.belief[:1]:
            luck = f"against the world's truth there; by luck {entry.truth_chance:.3f}"
            found.append(number_of("belief-read", entry.belief, entry.where))
            found.append(number_of("truth-read", entry.truth, luck))
        for one in self.controls:
            if one.difference is not None:
                words = CONTROLS[one.name].words
                meaning = f"top-1 minus that of {words}, {one.value:.3f}"
                over = number_of(f"over-{one.name}", one.difference, meaning, f"Over {words}")
                found.append(replace(over, hidden=True))
        if self.known is not None:
            meaning = "of the prompts asked before probing; only those count"
            found.append(number_of("known", self.known.overall, meaning, "Answered right by the model"))
        return (*found, *(() if self.causal is None else self.causal.numbers()))

    def tables(self) -> tuple[Table, ...]:
        """Scores, use, further scores, beliefs, relations, confusions, layers, and examples."""
        names = ("belief", *(f"belief-{at}" for at in range(2, len(self.belief) + 1)))
        found = (
            self._scores_table(),
            *(() if self.causal is None else self.causal.tables()),
            _metrics_table(self),
            *((_cells_table(self),) if self.known is None else (self.known.table(),)),
            *(entry.table(name) for entry, name in zip(self.belief, names, strict=False)),
            _relations_table(self),
            _confused_table(self),
            _layers_table(self),
            _examples_table(self),
        )
        return tuple(one for one in found if one.rows)

    def figures(self) -> tuple[Figure, ...]:
        """The curve over layers where there are several, the probe against its controls, and use."""
        title = "The probe against its controls and baselines"
        scores = [replace(one, name=_shown(one.name)) for one in self.scores]
        caption = "Intervals: 95%, over facts. Dashed: chance."
        curve = (_curve_figure(self),) if self.curve else ()
        causal = () if self.causal is None else self.causal.figures()
        return (*curve, figure_of(scores, title, caption, AXIS), *causal)

    def findings(self) -> tuple[Finding, ...]:
        """The shares of test prompts that the probe reads and that the model answers right, prompt by prompt.

        The probe's control is the hardest of chance (prompt by prompt), the mean prediction, and the means
        over probes of shuffled answers. The model chooses among its whole vocabulary, so that its chance is
        taken as 0.
        """
        floors: dict[str, float | np.ndarray] = {"chance": self.guessed}
        floors |= {CONTROLS[one.name].words: one.value for one in self.controls if one.name in FLOORS}
        hardest = max(floors, key=lambda name: float(np.mean(floors[name])))
        groups = tuple(item.fact for item in self.items)
        read = Finding(
            "concepts read right",
            np.array(self.right, dtype=np.float64),
            groups,
            control=floors[hardest],
            unit="share",
            layer=self.layer,
            about=f"top-1 of the probe on test at layer {self.layer}, beside {hardest}",
            direction=1,
        )
        said = Finding(
            "answered by the model itself",
            np.array(self.model_right, dtype=np.float64),
            groups,
            unit="share",
            about="whether its next token is the expected one",
        )
        own = (said,) if self.known is None else ()
        return (read, *own, *(() if self.causal is None else self.causal.findings()))

    # Tables and figures ----------------------------------------------------------------------------------

    def _n(self) -> str:
        words = f"{counted(self.top1.n, 'test prompt')} about {counted(self.top1.n_groups, 'fact')}"
        return words if self.known is None else f"{words}, all of which the model answers right"

    def _scores_table(self) -> Table:
        guessing = by_guessing(self.guessing, "answers are exchanged between the facts of a relation")
        less = "Difference: the probe less this one. Intervals: 95%, over facts;"
        note = f"{self._n()}. {guessing} {less} {COVERED}"
        title = f"Concepts read right on the test prompts (top-1), layer {self.layer}"
        found = table_of(self.scores, title, note)
        rows = [(row[0], _kind(str(row[0])), *row[1:]) for row in found.rows]
        return replace(found, columns=("name", "kind", *found.columns[1:]), rows=rows, narrow=("kind",))


def _metrics_table(result: ConceptResult) -> Table:
    rows = [
        (words, result.metrics[name].value, *_ends(result.metrics[name]), result.floors.get(name))
        for name, words in METRICS.items()
        if name in result.metrics
    ]
    note = f"The best guess from the training prompts alone, without the model: top-1 {result.ceiling:.3f}."
    return Table("metrics", "Further scores", ("what", "value", "low", "high", "floor"), rows, note)


def _cells_table(result: ConceptResult) -> Table:
    n = {name: len(rows) for name, rows in result.cells.items()}
    rows = [
        (f"model {who}", n[f"model {who}, probe right"], n[f"model {who}, probe wrong"])
        for who in ("right", "wrong")
    ]
    title = "Is the answer in the state, and does it come out?"
    note = "Model wrong, probe right: the answer was in the state and did not come out."
    return Table("cells", title, ("test prompts", "probe right", "probe wrong"), rows, note)


def _relations_table(result: ConceptResult) -> Table:
    found = sorted(result.by_relation.items(), key=lambda pair: (-pair[1].probe, pair[0]))
    rows = [(name, one.n, one.probe, one.model) for name, one in found]
    columns = ("relation", "prompts", "probe", "model itself")
    return Table("relations", "Relation by relation", columns, rows)


def _confused_table(result: ConceptResult) -> Table:
    pairs = ((item.answer, name) for item, name in zip(result.items, result.read, strict=True))
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    rows = [(answer, name, n) for (answer, name), n in wrong.most_common(MOST_CONFUSED)]
    return Table("confused", "Confused most often", ("right concept", "concept read", "prompts"), rows)


def _layers_table(result: ConceptResult) -> Table:
    rows = [(at, one.validation, one.test.value, *_ends(one.test)) for at, one in result.curve.items()]
    note = "The layer is chosen on validation. The test column is of a quick probe with one penalty."
    note += f" Of the test column: {result.looks.sentence}." if result.looks else ""
    columns = ("layer", "rank on validation", "top-1 on test", "low", "high")
    if any(one.ahead is not None for one in result.curve.values()):
        columns = (*columns, "ahead of the logit lens on validation")
        pairs = zip(rows, result.curve.values(), strict=True)
        rows = [(*row, one.ahead) for row, one in pairs]
    main = list(result.curve).index(result.layer) if result.curve else None
    return Table("layers", "Layer by layer", columns, rows, note, main)


def _examples_table(result: ConceptResult) -> Table:
    found = [
        (name, result.items[at].text, result.items[at].answer, result.read[at], result.said[at])
        for name, rows in result.cells.items()
        for at in rows[:EXAMPLES]
    ]
    columns = ("case", "prompt", "right concept", "concept read", "the model says")
    return Table("examples", "Examples from the test prompts", columns, found, folded=True)


def _curve_figure(result: ConceptResult) -> Figure:
    found = [one.test for one in result.curve.values()]
    data = {
        "x": list(result.curve),
        "series": ["top-1 on test"] * len(found),
        "value": [one.value for one in found],
        "low": [one.interval.low for one in found],
        "high": [one.interval.high for one in found],
    }
    caption = "Intervals: 95%, over facts. The layer reported is chosen on validation."
    title = "Concepts read right, layer by layer"
    return Figure("layers", "curve", data, title, caption, x="layer", y=AXIS, limits=(0.0, 1.02))


def _card(result: ConceptResult) -> ProbeCard:
    """Where the probe comes from, how it scored, where it is wrong."""
    rows, _ = jsonable({one.name: one.row() for one in result.scores})
    threshold = next(iter(result.probe.fitted_.thresholds.values()))
    worst = sorted((one.probe, name, one.n) for name, one in result.by_relation.items() if one.probe < 0.5)
    model = result.about.model
    return ProbeCard(
        model=model["name"],
        weights=model["weights"],
        fingerprint=model["fingerprint"],
        scheme=model["scheme"],
        site=f"resid_post.{result.layer}",
        positions="last",
        tokenizer=model["tokenizer_fingerprint"],
        data=f"protocol {result.protocol}",
        data_hash=hashlib.sha256("\n".join(item.text for item in result.items).encode()).hexdigest(),
        metrics={"probe": rows.pop("probe")},
        controls=rows,
        threshold=f"nothing is claimed below similarity {threshold:.3f} (95% of states with exchanged "
        "coordinates stay below), "
        "nor where a state lies farther from those of training than 95% of the validation states",
        intended_use="reading the concepts of its codebook from the last token of a prompt",
        known_failures=tuple(
            f"{name}: {share:.0%} of {counted(n, 'prompt')} read" for share, name, n in worst[:5]
        ),
    )


def labelled(protocol: Protocol, prompts: tuple[Item, ...]) -> Labelled:
    """The prompts of a protocol as labelled ones: the concept that should be read, over facts."""
    return Labelled(
        protocol.name,
        protocol.question,
        tuple(item.text for item in prompts),
        tuple(item.answer for item in prompts),
        tuple(item.fact for item in prompts),
        tuple(item.part for item in prompts),
    )


def _readable(found: ConceptResult, protocol: Protocol) -> str:
    """The verdict of the probe; the test against guessing alone decides whether concepts are readable."""
    words = {name: row.words for name, row in CONTROLS.items()}
    scores = [one for one in found.controls if one.difference]
    controls = [one for one in scores if not CONTROLS[one.name].baseline]
    rivals = [one.name for one in controls if not CONTROLS[one.name].null]
    unbeaten = not_beaten(named(controls, rivals, found.guessing), words)
    baselines = [one for one in scores if CONTROLS[one.name].baseline]
    better = not_beaten([s for s in baselines if s.difference and s.difference.interval.high < 0], words)
    ahead = f"; among other readers of the same states, {better}" if better else ""
    place = f"at layer {found.layer} (top-1 {found.top1}; {tested(found.guessing)})"
    if not found.guessing.beaten:
        more = f"; {unbeaten}" if unbeaten else ""
        luck = f"that is not told from guessing, {found.guessing.expected:.3f}"
        return f"not shown to be readable {place}: {luck}{more}"
    if unbeaten:
        return f"readable {place}, but {unbeaten}{ahead}"
    if protocol.upper_bound:
        return f"an upper bound, not evidence: {place[3:]}; {protocol.knower}{ahead}"
    if not controls:
        return f"above guessing {place}, but nothing was controlled for{ahead}"
    best = max(controls, key=lambda score: score.value)
    most = f"the best is {words[best.name]}, {best.value:.2f}"
    return f"readable {place}, above every control ({most}){ahead}"


def _kind(name: str) -> str:
    if name not in CONTROLS:
        return name
    return "baseline" if CONTROLS[name].baseline else "control"


def _shown(name: str) -> str:
    return f"{name} (baseline)" if _kind(name) == "baseline" else name


def _ends(found: Estimate) -> tuple[float, float]:
    return found.interval.low, found.interval.high
