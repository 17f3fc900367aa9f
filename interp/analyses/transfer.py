"""Fit probes on two models, and read each model with the other's probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from interp.analyses.alignment import row_cosine
from interp.analyses.depths import Layers, depths
from interp.analyses.material import partners
from interp.analyses.probing.run import captured
from interp.analyses.probing.splitting import check_labels, split_of
from interp.analyses.provenance import about, check_same_tokens, earlier
from interp.analyses.shuffles import SHUFFLES
from interp.errors import ConfigError, DataError
from interp.models.loading import ModelLike, as_model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Table
from interp.tasks import Labelled, labelled
from probes import HyperdimensionalProbe, LogisticProbe
from probes.controls import shuffled_labels
from probes.evaluation import Split
from probes.fitting import STRENGTHS
from probes.vsa import MAP, Codebook

__all__ = ["probe_transfer"]

States = Float[torch.Tensor, "example dim"]
KINDS = ("linear", "hyperdimensional")
DIMENSION = 4096
FRACTIONS = (0.6, 0.2, 0.2)


@dataclass(frozen=True, eq=False)
class _Luck:
    """What probes of exchanged labels come to: one of them is luck, so there are many.

    Attributes:
        accuracy: the mean of their accuracies.
        directions: the coefficients of each linear one, ``[label dim]``.
    """

    accuracy: float
    directions: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class _Lesson:
    """Hold what all probes learn from: labels, parts, seed."""

    data: Labelled
    split: Split
    seed: int

    @property
    def groups(self) -> tuple[str, ...]:
        """Give the groups of the test prompts."""
        return tuple(self.data.groups[i] for i in self.split.test)

    def exchanged(self, seed: int) -> list[str]:
        """Exchange labels between groups, within each part."""
        names = list(self.data.labels)
        for rows in (self.split.train, self.split.validation, self.split.test):
            groups = [self.data.groups[i] for i in rows]
            given = shuffled_labels([names[i] for i in rows], groups=groups, seed=seed)
            for i, label in zip(rows, given, strict=True):
                names[i] = label
        return names

    def fit(self, kind: str, X: States, names: Sequence[str], penalty: float | None) -> Any:
        """Fit a probe of a kind; without a penalty it is chosen on validation."""
        train, held = self.split.train, self.split.validation
        probe: Any
        if kind == "linear":
            probe = LogisticProbe(seed=self.seed, regularisation=STRENGTHS if penalty is None else penalty)
        else:
            codes = Codebook.random(MAP(DIMENSION), sorted(set(self.data.labels)), seed=self.seed)
            probe = HyperdimensionalProbe(codes, seed=self.seed, regularisation=penalty)
        groups = [self.data.groups[i] for i in train]
        later = (X[held], [names[i] for i in held])
        return probe.fit(X[train], [names[i] for i in train], groups=groups, validation=later)

    def right(self, probe: Any, X: States, names: Sequence[str] | None = None) -> Bool[np.ndarray, " test"]:
        """Say which test prompts a probe reads right, by the labels or by others."""
        read, wanted = probe.predict(X[self.split.test]), self.data.labels if names is None else names
        return np.array([a == wanted[i] for a, i in zip(read, self.split.test, strict=True)])

    def luck(self, kind: str, X: States, penalty: float) -> _Luck:
        """Train and test probes on exchanged labels, many times."""
        hits: list[np.ndarray] = []
        directions: list[np.ndarray] = []
        for seed in range(self.seed * SHUFFLES, (self.seed + 1) * SHUFFLES):
            names = self.exchanged(seed)
            probe = self.fit(kind, X, names, penalty)
            hits.append(self.right(probe, X, names))
            directions += [probe.coef_] if kind == "linear" else []
        return _Luck(float(np.mean(hits)), tuple(directions))


@dataclass(frozen=True, eq=False)
class _Fit:
    """Hold one kind of probe at one layer of one model.

    Attributes:
        states: ``[example dim]`` of all prompts.
        probe: fitted on the labels.
        penalty: the one that it was fitted with.
        luck: probes of exchanged labels with the same penalty; None where the reference's are the control.
    """

    states: States
    probe: Any
    penalty: float
    luck: _Luck | None


def _fitted(lesson: _Lesson, kind: str, X: States, penalty: float | None) -> _Fit:
    """Fit a probe with the reference's penalty; or with the one that validation prefers, and its control."""
    names = list(lesson.data.labels)
    if penalty is not None:
        return _Fit(X, lesson.fit(kind, X, names, penalty), penalty, None)
    first = lesson.fit(kind, X, names, None)
    notes = first.notes_ if kind == "linear" else first.fitted_.notes
    chosen = float(notes["regularisation"])
    return _Fit(X, lesson.fit(kind, X, names, chosen), chosen, lesson.luck(kind, X, chosen))


@dataclass(frozen=True, eq=False)
class _Pair:
    """Compare one kind of probe at one layer of this model and of the reference."""

    lesson: _Lesson
    kind: str
    layer: int
    own: _Fit
    ref: _Fit

    def finding(
        self, what: str, values: Any, control: Any, about: str, *, groups: tuple[str, ...] | None = None
    ) -> Finding:
        """Make a finding of a curve."""
        return Finding(
            name=f"{self.kind} probe, {what}, layer {self.layer}",
            values=np.asarray(values, dtype=np.float64),
            groups=self.lesson.groups if groups is None else groups,
            control=np.asarray(control, dtype=np.float64),
            unit="" if "cosine" in about else "share",
            curve=f"{self.kind} probe, {what}",
            layer=self.layer,
            about=about,
            direction=1,
        )

    def accuracies(self) -> tuple[Finding, ...]:
        """Read each model with its own probe, and with the other's."""
        own, ref = self.own, self.ref
        plan = (
            ("retrained", own, own, "fitted and tested on this model"),
            ("from the reference", ref, own, "fitted on the reference, tested on this model"),
            ("to the reference", own, ref, "fitted on this model, tested on the reference"),
        )
        assert ref.luck is not None
        blind = ref.luck.accuracy  # one for both, or its own noise would be compared
        return tuple(
            self.finding(
                what,
                self.lesson.right(taught.probe, read.states),
                blind,
                f"accuracy on test, {words}; control: {SHUFFLES} probes of exchanged labels of the reference",
            )
            for what, taught, read, words in plan
        )

    def agreements(self) -> tuple[Finding, ...]:
        """Compare what the two probes are made of, or say."""
        return (self._directions(),) if self.kind == "linear" else self._readings()

    def _directions(self) -> Finding:
        rows = [fit.probe.coef_ for fit in (self.own, self.ref)]
        assert self.ref.luck is not None
        blind = np.mean([row_cosine(rows[1], one) for one in self.ref.luck.directions], axis=0)
        names = tuple(map(str, self.ref.probe.classes_.tolist()))
        about = (
            "cosine between the two probes' directions of a label; control: the "
            f"mean over {SHUFFLES} probes of exchanged labels of the reference"
        )
        return self.finding("directions", row_cosine(*rows), blind, about, groups=names)

    def _readings(self) -> tuple[Finding, ...]:
        test, groups = self.lesson.split.test, self.lesson.groups
        other = partners(groups, [""] * len(groups), self.lesson.seed)
        own, ref = (_similarities(fit.probe, fit.states[test]) for fit in (self.own, self.ref))
        first, second = own.argmax(axis=1), ref.argmax(axis=1)
        end = "each model read with its own probe; control: the reference's reading of another prompt"
        said = f"the first concept is the same, {end}"
        alike = f"cosine between the similarities to all concepts (less their mean), {end}"
        return (
            self.finding("same concept", first == second, second == second[other], said),
            self.finding("codebook agreement", row_cosine(own, ref), row_cosine(ref, ref[other]), alike),
        )


def _similarities(probe: HyperdimensionalProbe, X: States) -> Float[np.ndarray, "test concept"]:
    found = np.asarray(probe.decision_function(X), dtype=np.float64)
    return found - found.mean(axis=1, keepdims=True)


def probe_transfer(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 1200,
    seed: int = 0,
    data: str | Labelled = "analogy-relation",
    layers: Layers = "50%,70%,85%",
) -> FindingsResult:
    """Fit linear and hyperdimensional probes on this model, and carry probes over in both directions.

    Both models are given the same prompts, split by group, codebook, seed and penalty (the one that the
    reference's validation prompts prefer), so that only the states differ. Findings, each a curve over layers
    and for both kinds of probe: accuracy when retrained, of the reference's probe on this model, and of this
    model's on the reference; the cosine between the directions of the linear probes; whether the two
    hyperdimensional probes read the same concept, and the cosine between what they read.

    A probe that transfers says that the states still mean the same to a fixed reader; one that does well only
    when retrained, that they moved. What a probe has to beat besides exchanged labels is measured by
    ``interp.analyses.probe``.

    Args:
        model: what is read.
        reference: what this function returned for the reference model; the model itself where left out.
        n: how many prompts, at most.
        seed: of prompts, split, codebook and fits.
        data: a key of ``interp.tasks.LABELLED``, or labelled prompts.
        layers: which blocks' ``resid_post`` at the last token.

    Raises:
        ConfigError: an unknown task, fewer than one prompt asked, or a reference that is none.
        SiteError: a layer the model does not have.
        DataError: labels that cannot be split by group, states that are not finite, or a reference of other
            prompts, layers or width.
    """
    model = as_model(model)
    lesson, notes = _lesson(data, n, seed)
    at = depths(model, layers, 3)
    tokens = model.tokenize(list(lesson.data.texts))
    acts = captured(model, tokens, lesson.data, at, "last", "auto", False)
    states = {layer: acts[f"resid_post.{layer}"] for layer in at}
    known = None if reference is None else _known(reference, lesson, tokens.token_ids, states)
    own = {
        (kind, layer): _fitted(lesson, kind, states[layer], known[kind, layer].penalty if known else None)
        for kind in KINDS
        for layer in at
    }
    state = {"fits": own, "token_ids": tokens.token_ids, "data": lesson.data.fingerprint}
    both = {key: _Pair(lesson, *key, fit, (known or own)[key]) for key, fit in own.items()}
    found = [one for pair in both.values() for one in (*pair.accuracies(), *pair.agreements())]
    parts = {part: len(getattr(lesson.split, part)) for part in ("train", "validation", "test")}
    labels = len(set(lesson.data.labels))
    return FindingsResult(
        analysis="probe",
        about=about(model, {"name": lesson.data.name, "labels": labels, **parts, "layers": list(at)}),
        asked=f"Do probes carry over between the reference and {model.name}?",
        how=(
            f"Probes of {labels} labels ({lesson.data.name}) were fitted on {parts['train']:,} prompts, "
            f"their penalty chosen on {parts['validation']:,} and tested on {parts['test']:,} others.",
        ),
        found=_by_curve(found),
        more=(
            Table.of(
                "penalties",
                "The penalties of the probes",
                [
                    {"kind": kind, "layer": layer, "penalty": fit.penalty}
                    for (kind, layer), fit in own.items()
                ],
            ),
        ),
        state={} if known else state,
        seed=seed,
        warnings=(*model.warnings, *notes),
    )


def _by_curve(found: Sequence[Finding]) -> tuple[Finding, ...]:
    curves = list(dict.fromkeys(one.curve for one in found))
    return tuple(sorted(found, key=lambda one: curves.index(one.curve)))


def _lesson(data: str | Labelled, n: int, seed: int) -> tuple[_Lesson, tuple[str, ...]]:
    """Draw prompts and split them; labels that lack a part are left out, whatever any model says."""
    if n < 1:
        raise ConfigError(f"n={n} prompts asked; ask for at least 1.")
    drawn = labelled(data, n=n, seed=seed) if isinstance(data, str) else data.limit(n, seed=seed)
    check_labels(drawn)
    kept = drawn
    if any(drawn.splits):
        parts = [
            {b for a, b in zip(drawn.splits, drawn.labels, strict=True) if a == part}
            for part in ("train", "test")
        ]
        kept = drawn.select([i for i, label in enumerate(drawn.labels) if label in parts[0] & parts[1]])
        check_labels(kept)
    split, notes = split_of(kept, FRACTIONS, seed)
    lost = sorted(set(drawn.labels) - set(kept.labels))
    if lost:
        words = f"{len(lost)} labels such as {lost[0]!r} have no training or no test prompt and were left out"
        notes = (*notes, words)
    return _Lesson(kept, split, seed), notes


def _known(
    reference: FindingsResult,
    lesson: _Lesson,
    token_ids: tuple[tuple[int, ...], ...],
    states: dict[int, States],
) -> dict[tuple[str, int], _Fit]:
    """Give the reference's fits, if they are of the same prompts, labels, layers and width."""
    check_same_tokens(token_ids, earlier(reference, "probe", "token_ids"), "probe")
    fits: dict[tuple[str, int], _Fit] = earlier(reference, "probe", "fits")
    theirs = {layer: fit.states.shape for (_, layer), fit in fits.items()}
    if theirs != {layer: rows.shape for layer, rows in states.items()}:
        raise DataError(
            f"the reference was probed at layers {list(theirs)}, this model at {list(states)}, or its width "
            "is another. Use the same layers, and models of one shape."
        )
    if earlier(reference, "probe", "data") != lesson.data.fingerprint or reference.seed != lesson.seed:
        raise DataError(
            "the reference was probed for other labels, groups or splits; use the same data and seed."
        )
    return fits
