"""Run a probing analysis: capture once, fit layer by layer, measure against the controls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from interp.activations import Activations
from interp.analyses.controls import SHUFFLES, Guessing, beyond_guessing, refitted_alike, spread
from interp.analyses.multiple_comparisons import Looks, audited, leak_note, many_looks
from interp.analyses.probing.carried import carried
from interp.analyses.probing.result import ProbeResult
from interp.analyses.probing.scores import CONTROLS, Score
from interp.analyses.probing.several_tokens import (
    check_pooling,
    last_read,
    mean_states,
    sequence_probe,
    sequences_of,
)
from interp.analyses.probing.splitting import check_labels, split_of, warnings_of
from interp.analyses.representation_similarity import row_cosine
from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.results import About
from interp.sites import parse_layers
from interp.tasks import Labelled
from interp.tasks.files import as_labelled
from probes.base import Probe
from probes.controls import bag_of_tokens, length_only, shuffled_labels
from probes.evaluation import Audit, Split, accuracy, majority_label, right
from probes.linear import LinearProbe
from probes.pooling import Sequences
from probes.statistics import paired_difference
from probes.table import PROBES

__all__ = ["check_kind", "probe"]

TARGETS = {
    "number": "numbers",
    "labels": "several labels per example",
    "sequence": "several tokens of a prompt (give a pooling, and a kind that reads one label)",
}
DEFAULT_CONTROLS = ("shuffled", "random-weights", "bag-of-tokens", "majority")


def probe(
    model: ModelLike,
    data: Any,
    *,
    layers: str | int | Sequence[int] = "all",
    kind: str = "logistic",
    position: Any = "last",
    pooling: str = "",
    seed: int = 0,
    controls: Collection[str] = DEFAULT_CONTROLS,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    random_model: Model | None = None,
    reference: ProbeResult | None = None,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> ProbeResult:
    """Train a probe on the residual stream, test it on held-out groups, and measure it against controls.

    Args:
        model: what is read.
        data: prompts with labels and groups: Labelled, a file, a DataFrame or a list of mappings with text
            and label (``interp.tasks.files.as_labelled``); its own splits are kept where it has them.
        layers: which blocks' ``resid_post``, in the layer grammar (``20``, ``8-24:4``, ``50%``, ``all``). Of
            several, one is chosen on the validation split.
        kind: a key of :data:`probes.PROBES`.
        position: "last", the index of a token that every prompt has, or a selector of one token of each
            (``interp.conversations.selectors``), such as "answer[-1]"; with ``pooling`` any positions that
            ``Model.capture`` takes.
        pooling: how the scores of several tokens become one, a name of :data:`probes.pooling.POOLINGS`.
        seed: of the split, the shuffling, inner folds and the intervals.
        controls: keys of ``CONTROLS``.
        fractions: of groups, for train, validation and test, where the data has no splits.
        random_model: the same architecture with random weights, for the control of that name; made where left
            out.
        reference: what this function returned for another model and the same data. Its penalty is used at
            every layer, its layer is the one reported, and there each model is also read with the other's
            probe (``carried``).
        batch_size: prompts per forward pass; "auto" chooses.
        progress: show progress bars.

    Returns:
        The result: accuracies on test with 95% intervals over groups, paired differences to every control,
        and a verdict.

    Raises:
        ConfigError: an unknown kind or control, wrong fractions, or several layers without a validation
            split.
        SiteError: a layer the model does not have.
        DataError: one class, labels with too few groups, groups in two splits, activations that are not
            finite, or a reference of other data, tokens, layers or width.
    """
    model = as_model(model)
    data = as_labelled(data)
    _check_choices(kind, controls, data)
    check_labels(data)
    check_pooling(pooling, kind, reference=reference is not None)
    chosen = _layers(layers, model)
    split, notes = split_of(data, fractions, seed)
    if len(chosen) > 1 and not len(split.validation):
        raise ConfigError(
            "several layers need a validation split to choose from; give the validation fraction a share."
        )
    leakage = audited(data.texts, data.labels, split, groups=data.groups)
    job = Job(data, split, kind, position, seed, leakage, notes, pooling)
    if reference is not None:
        check_reference(reference, model, job, chosen)
    tokens = model.tokenize(list(data.prompts))
    first = "embed" if "embedding" in controls else ""
    acts = captured(
        model, tokens, data, chosen, position, batch_size, progress, first=first, several=bool(pooling)
    )
    twin = untrained_twin(model, random_model, acts) if "random-weights" in controls else None
    others = twin and captured(
        twin, tokens, data, chosen, position, batch_size, progress, several=bool(pooling)
    )
    if reference is None:
        return job.result(model, acts, chosen, controls, others=others, progress=progress)
    like, at = reference.probes, reference.layer
    found = job.result(model, acts, chosen, controls, others=others, like=like, layer=at, progress=progress)
    return replace(found, carried=carried(found, reference))


@dataclass(frozen=True, eq=False)
class Reading:
    """What one fitted probe says about every prompt.

    Attributes:
        probe: the fitted probe; None for the majority label.
        predicted: one label per prompt.
        probability: of that label; NaN where the probe has none.
        validation: accuracy on the validation split, None where there is none.
    """

    probe: Probe | None
    predicted: tuple[str, ...]
    probability: np.ndarray
    validation: float | None


@dataclass(frozen=True, eq=False)
class Job:
    """What every fit of one analysis shares: the data, their split and audit, and the kind of probe."""

    data: Labelled
    split: Split
    kind: str
    position: Any
    seed: int
    leakage: Audit
    notes: tuple[str, ...] = ()
    pooling: str = ""

    def states(self, acts: Activations, site: str) -> Any:
        """What a probe is given of a site: ``[example dim]`` at one token, sequences of several."""
        return sequences_of(acts, site) if self.pooling else acts[site]

    def result(
        self,
        model: Model,
        acts: Activations,
        layers: Sequence[int],
        controls: Collection[str],
        *,
        others: Activations | None = None,
        like: Mapping[int, Probe] | None = None,
        layer: int | None = None,
        progress: bool = False,
    ) -> ProbeResult:
        """Fit a probe at every layer, choose one, and measure it against the controls there.

        Args:
            model: what was read.
            acts: its states.
            layers: which of them.
            controls: keys of ``CONTROLS``.
            others: the states of the model with random weights, for the control of that name.
            like: by layer, a fitted probe whose penalty is used.
            layer: which is reported; the best on validation where left out.
            progress: show a progress bar.
        """
        given, shown = like or {}, tqdm(layers, desc="probes", disable=not progress)
        readings = {at: self.read(self.states(acts, f"resid_post.{at}"), like=given.get(at)) for at in shown}
        best = max(layers, key=lambda at: readings[at].validation or 0.0) if layer is None else layer
        scores: list[Score] = []
        for at, reading in readings.items():
            scores.append(self.score(at, "probe", reading))
            if others is not None:
                untrained = self.read(self.states(others, f"resid_post.{at}"))
                scores.append(self.score(at, "random-weights", untrained, against=reading))
        names = [name for name in controls if name != "random-weights"]
        scores += self.controls(best, readings[best], acts, names)
        selection = f"layer {best}, as asked"
        if layer is not None:
            selection = f"layer {best}, the reference's"
        elif len(layers) > 1:
            rank = readings[best].validation
            selection = f"layer {best}, the best of {len(layers)} by accuracy on validation ({rank:.2f})"
        return _result(model, acts, self, best, selection, readings, scores)

    def read(
        self,
        X: Any,
        *,
        labels: Sequence[str] | None = None,
        kind: str | None = None,
        like: Probe | None = None,
    ) -> Reading:
        """Fit a probe on the training rows of ``X`` and let it read every row.

        Args:
            X: ``[example dim]``, one row per prompt; or sequences.
            labels: what to train (and choose the penalty) on, instead of the true labels.
            kind: another kind of probe than the analysis's.
            like: a fitted probe whose settings and penalty are used.
        """
        row = PROBES[kind or self.kind]
        targets = np.asarray(self.data.labels if labels is None else labels)
        train, held = self.split.train, self.split.validation
        groups = [self.data.groups[i] for i in train]
        later = (X[held], targets[held]) if len(held) else None
        empty = row.create(seed=self.seed) if like is None else refitted_alike(like)
        if isinstance(X, Sequences) and like is None:
            empty = sequence_probe(self.pooling, row.name, seed=self.seed)
        fitted = empty.fit(X[train], targets[train], groups=groups, validation=later)
        predicted = tuple(fitted.predict(X).tolist())
        sure = (
            np.asarray(fitted.predict_proba(X)).max(axis=1)
            if row.probabilities
            else np.full(len(predicted), np.nan)
        )
        return Reading(fitted, predicted, sure.astype(np.float64), self._validation(predicted))

    def _validation(self, predicted: Sequence[str]) -> float | None:
        held = self.split.validation
        return float(right(self.data.labels, predicted)[held].mean()) if len(held) else None

    def score(self, layer: int, name: str, reading: Reading, *, against: Reading | None = None) -> Score:
        """Score a reading on the test rows, and the difference of ``against`` to it."""
        rows = self.split.test
        groups = [self.data.groups[i] for i in rows]
        labels = [self.data.labels[i] for i in rows]
        own = right(labels, [reading.predicted[i] for i in rows])
        found = accuracy(labels, [reading.predicted[i] for i in rows], groups=groups, seed=self.seed)
        difference = None
        if against is not None:
            theirs = right(labels, [against.predicted[i] for i in rows])
            difference = paired_difference(theirs, own, groups=groups, seed=self.seed)
        return Score(layer, name, found.value, found, difference, reading.validation)

    def controls(self, layer: int, reading: Reading, acts: Activations, names: Sequence[str]) -> list[Score]:
        """Score the controls at the chosen layer, and chance."""
        scores = [
            self._shuffled(layer, reading, self.states(acts, f"resid_post.{layer}"))
            if name == "shuffled"
            else self.score(layer, name, self._control(name, layer, acts), against=reading)
            for name in names
        ]
        return [*scores, Score(layer, "chance", 1 / len(set(self.data.labels)))]

    def _control(self, name: str, layer: int, acts: Activations) -> Reading:
        seen = [ids[: at + 1] for ids, at in zip(acts.token_ids, last_read(acts), strict=True)]
        match name:
            case "bag-of-tokens":
                known = sorted({token for i in self.split.train for token in seen[i]})
                return self.read(bag_of_tokens(seen, vocabulary=known), kind="logistic")
            case "embedding":
                return self.read(self.states(acts, "embed"))
            case "length":
                return self.read(length_only(seen), kind="logistic")
            case _:
                guess = majority_label([self.data.labels[i] for i in self.split.train])
                predicted = (guess,) * len(self.data)
                return Reading(None, predicted, np.full(len(self.data), np.nan), self._validation(predicted))

    def looks(self, readings: dict[int, Reading]) -> Looks | None:
        """How sure the best layer on test is, all of them having been looked at."""
        rows = self.split.test
        labels = [self.data.labels[i] for i in rows]
        guess = majority_label([self.data.labels[i] for i in self.split.train])
        return many_looks(
            list(readings),
            [right(labels, [reading.predicted[i] for i in rows]) for reading in readings.values()],
            right(labels, [guess] * len(rows)),
            groups=[self.data.groups[i] for i in rows],
            against="guessing the commonest label",
            seed=self.seed,
        )

    def guessing(self, reading: Reading) -> Guessing:
        """Test the reading of the test prompts against guessing."""
        rows = self.split.test
        labels, read, groups = (
            [column[i] for i in rows] for column in (self.data.labels, reading.predicted, self.data.groups)
        )
        return beyond_guessing(labels, read, groups, seed=self.seed)

    def _shuffled(self, layer: int, reading: Reading, X: Any) -> Score:
        """Train and test the same probe, with its penalty, on labels exchanged between groups, many times."""
        assert reading.probe is not None
        train, held, test = self.split.train, self.split.validation, self.split.test
        groups = [self.data.groups[i] for i in train]
        hits, alike = np.empty((SHUFFLES, len(test))), list[np.ndarray]()
        for at in range(SHUFFLES):
            labels = np.asarray(self._exchanged(self.seed * SHUFFLES + at))
            later = (X[held], labels[held]) if len(held) else None
            fitted = refitted_alike(reading.probe).fit(
                X[train], labels[train], groups=groups, validation=later
            )
            hits[at] = right(labels[test], fitted.predict(X[test]))
            if isinstance(fitted, LinearProbe) and isinstance(reading.probe, LinearProbe):
                alike.append(row_cosine(reading.probe.coef_, fitted.coef_))
        score = self.spread_score(layer, "shuffled", hits, reading)
        return replace(score, directions=tuple(np.mean(alike, axis=0).tolist())) if alike else score

    def spread_score(self, layer: int, name: str, hits: np.ndarray, against: Reading) -> Score:
        """Score a control that was drawn many times: its mean, its spread, and the probe's lead over it."""
        rows = self.split.test
        groups = [self.data.groups[i] for i in rows]
        own = right([self.data.labels[i] for i in rows], [against.predicted[i] for i in rows])
        found = spread(hits, groups)
        difference = paired_difference(own, hits.mean(axis=0), groups=groups, seed=self.seed, support="share")
        return Score(layer, name, found.value, found, difference, draws=tuple(hits.mean(axis=1).tolist()))

    def _exchanged(self, seed: int) -> list[str]:
        """Exchange labels between groups, within each part."""
        labels = list(self.data.labels)
        for rows in (self.split.train, self.split.validation, self.split.test):
            own, groups = [labels[i] for i in rows], [self.data.groups[i] for i in rows]
            for i, label in zip(rows, shuffled_labels(own, groups=groups, seed=seed), strict=True):
                labels[i] = label
        return labels


def check_kind(kind: str) -> None:
    """Refuse a kind of probe that there is not, or that does not read one label per prompt.

    Raises:
        ConfigError: naming the kinds there are.
    """
    if kind not in PROBES:
        raise ConfigError(f"kind {kind!r} asked; the kinds of probe are: {', '.join(PROBES)}.")
    if PROBES[kind].target not in ("class", "concept"):
        fits = [name for name, row in PROBES.items() if row.target in ("class", "concept")]
        raise ConfigError(
            f"a {kind} probe reads {TARGETS[PROBES[kind].target]}, and a prompt here has one label; use one "
            f"of: {', '.join(fits)}. From Python: probes.{PROBES[kind].class_name}."
        )


def captured(
    model: Model,
    tokens: Tokens,
    data: Labelled,
    layers: Sequence[int],
    position: Any,
    batch_size: str | int,
    progress: bool,
    *,
    first: str = "",
    several: bool = False,
) -> Activations:
    """Read one token of every prompt, or several, at every layer (and at ``first``), in float32 on the CPU.

    Raises:
        ConfigError: a position that names several tokens.
        DataError: activations that are not finite.
    """
    sites = [*([first] if first else []), *(f"resid_post.{layer}" for layer in layers)]
    acts = model.capture(
        tokens,
        sites,
        position,
        batch_size=batch_size,
        device="cpu",
        dtype=torch.float32,
        progress=progress,
    )
    acts = acts if several else one_token(acts, position)
    for site, tensor in acts.items():
        _check_finite(tensor, site, data, model)
    return acts


def one_token(acts: Activations, position: str | int) -> Activations:
    """States of one token of each prompt, without an axis for positions.

    Raises:
        ConfigError: the position names several tokens of a prompt.
    """
    if acts.single:
        return acts
    several = next((row for row, places in enumerate(acts.positions) if len(places) != 1), None)
    if several is not None:
        raise ConfigError(
            f"position {position!r} names {counted(len(acts.positions[several]), 'token')} of prompt "
            f"{several}; a probe reads one token: 'last', an index such as 0 or -2, or one of a selector's "
            "such as answer[-1]; of several give a pooling too, such as mean or max."
        )
    tensors = {site: tensor[:, 0] for site, tensor in acts.items()}
    return replace(acts, tensors=tensors, positions=[row[0] for row in acts.positions])


def _check_finite(tensor: torch.Tensor, site: str, data: Labelled, model: Model) -> None:
    wrong = (~torch.isfinite(tensor)).flatten(1).any(dim=1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{counted(len(wrong), 'prompt has', 'prompts have')} activations at {site} of {model.name!r} "
            "that are not finite, first "
            f"row {row} ({data.texts[row][:40]!r}); load the model in float32, or drop those prompts."
        )


def untrained_twin(model: Model, given: Model | None, acts: Activations) -> Model:
    """The model with random weights; one of another shape, or the model itself, is refused."""
    from interp.models.loading import untrained_model

    twin = given if given is not None else untrained_model(model)
    if (twin.n_layers, twin.d_model) != (model.n_layers, model.d_model):
        raise ConfigError(
            f"random_model has {counted(twin.n_layers, 'layer')} of width {twin.d_model}, the model "
            f"{model.n_layers} of "
            f"{model.d_model}; give the same architecture with random weights, or leave it out."
        )
    if twin.fingerprint == acts.fingerprint:
        raise ConfigError(
            "the random-weights control has the very weights of the model, so that their difference is 0 by "
            "construction; probe trained weights, or leave 'random-weights' out of the controls."
        )
    return twin


def check_reference(reference: ProbeResult, model: Model, job: Job, layers: Sequence[int]) -> None:
    """Refuse a reference whose probe cannot be read on this model.

    Raises:
        ConfigError: it has another kind of probe.
        DataError: it is of other data, tokens or layers, or of a model of another width.
    """
    asked, found = (job.kind, job.position), (reference.kind, reference.position)
    if asked != found:
        raise ConfigError(
            f"a {asked[0]} probe at position {asked[1]!r} asked, the reference has a {found[0]} probe at "
            f"{found[1]!r}; use the same kind and position."
        )
    n, width = len(job.data), reference.probes[reference.layer].width
    same = (reference.data.fingerprint, reference.seed) == (job.data.fingerprint, job.seed)
    if not same or reference.split.names(n) != job.split.names(n):
        raise DataError(
            "the reference was probed for other prompts, labels, groups or splits; use the same data "
            "and seed."
        )
    if reference.about.model["tokenizer_fingerprint"] != model.tokenizer_fingerprint:
        raise DataError("the reference read other tokens; use models that share a tokenizer.")
    if reference.layer not in layers or width != model.d_model:
        raise DataError(
            f"the reference was probed at layer {reference.layer} of width {width}, this model at "
            f"{list(layers)} of width {model.d_model}. Use the same layers, and models of one shape."
        )


def _check_choices(kind: str, controls: Collection[str], data: Labelled) -> None:
    check_kind(kind)
    for name in controls:
        if name not in CONTROLS:
            raise ConfigError(f"control {name!r} asked; the controls are: {', '.join(CONTROLS)}.")
    most, found = PROBES[kind].most_classes, len(set(data.labels))
    if most is not None and found > most:
        raise ConfigError(
            f"a {kind} probe tells {most} labels apart, '{data.name}' has {found}; use nearest-centroid."
        )


def _layers(layers: str | int | Sequence[int], model: Model) -> list[int]:
    text = layers if isinstance(layers, str | int) else ",".join(map(str, layers))
    return parse_layers(text, model.n_layers, name=model.name, kind="resid_post")


def _result(
    model: Model,
    acts: Activations,
    job: Job,
    layer: int,
    selection: str,
    readings: dict[int, Reading],
    scores: Sequence[Score],
) -> ProbeResult:
    best = readings[layer]
    found = next(score.estimate for score in scores if (score.name, score.layer) == ("probe", layer))
    assert found is not None
    unfinished = [at for at, reading in readings.items() if reading.probe and not _converged(reading.probe)]
    late = f"the solver stopped early at layers {unfinished}" if unfinished else ""
    notes = (*job.notes, *warnings_of(job.data, job.split), *acts.warnings)
    result = ProbeResult(
        data=job.data,
        split=job.split,
        kind=job.kind,
        position=job.position if isinstance(job.position, str | int) else "as given",
        pooling=job.pooling,
        layer=layer,
        selection=selection,
        scores=tuple(scores),
        probes={at: reading.probe for at, reading in readings.items() if reading.probe},
        predicted=best.predicted,
        probability=best.probability,
        guessing=job.guessing(best),
        leakage=job.leakage,
        looks=job.looks(readings),
        states=_kept(job, best.probe, acts, f"resid_post.{layer}"),
        about=About(
            model={**model.described, "revision": str(getattr(model.hf.config, "_commit_hash", None) or "")},
            data=job.data.described,
        ),
        seed=job.seed,
        warnings=tuple(n for n in (*notes, found.note, late, leak_note(job.leakage)) if n),
    )
    for at, fitted in result.probes.items():
        fitted.card_ = result.card(at)
    return result


def _kept(job: Job, fitted: Probe | None, acts: Activations, site: str) -> Any:
    """The states of the test prompts; of several tokens their mean with the probe's weights."""
    assert fitted is not None
    if not job.pooling:
        return acts[site][job.split.test]
    return mean_states(fitted, sequences_of(acts, site)[job.split.test])


def _converged(fitted: Probe) -> bool:
    return bool(fitted.facts().get("converged", True))
