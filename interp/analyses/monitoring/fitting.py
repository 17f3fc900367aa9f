"""Fit a monitor: probe on one part of the groups, threshold on a second, every number on a third."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp.analyses.monitoring.messages import Messages, messages_of, states_of
from interp.analyses.monitoring.monitor import Monitor
from interp.analyses.monitoring.result import Cell, MonitorResult, Rate
from interp.analyses.monitoring.sources import WORDLESS, Fold, read_without_model, source_folds
from interp.analyses.monitoring.talks import Talks, check_two
from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model
from interp.results import About
from interp.sites import parse_layers
from probes.evaluation import (
    Split,
    auroc,
    expected_calibration_error,
    folds,
    group_split,
    platt,
    threshold_at,
)
from probes.pooling import Sequences
from probes.sequences import SequenceProbe
from probes.statistics import clopper_pearson

__all__ = ["POSITIONS", "fit_monitor"]

POSITIONS = "role:assistant & content"
SHARES = (0.5, 0.25, 0.25)


def fit_monitor(
    model: ModelLike,
    talks: Talks,
    *,
    alarm: str,
    layers: str = "50%",
    positions: str = "",
    pooling: str = "mean",
    kind: str = "logistic",
    rate: float = 0.05,
    negatives: Talks | None = None,
    seed: int = 0,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> MonitorResult:
    """Fit a monitor on labelled conversations, set its threshold, and test it on conversations it never saw.

    Every message with a selected token is an example with the label of its conversation; what has one group
    stays in one part. A half of the groups trains the probe (and, of several layers, chooses one by its AUROC
    on folds of them), a quarter sets threshold and calibration, a quarter tests.

    Args:
        model: what is watched.
        talks: with two labels.
        alarm: the label that raises an alarm.
        layers: which blocks' ``resid_post``, in the layer grammar.
        positions: a selector; the assistant's content of conversations, all tokens of texts where left out.
        pooling: how token scores become one (:data:`probes.pooling.POOLINGS`).
        kind: the linear probe, where the pooling's weights are fixed.
        rate: the false positive rate at which the threshold is set.
        negatives: other conversations, none of which should raise an alarm, to set the threshold on.
        seed: of the split, folds and probe.
        batch_size: as for ``Model.capture``.
        progress: show progress bars.

    Raises:
        ConfigError: an unknown pooling or kind, or a rate that the negatives cannot support.
        DataError: labels that are not two, too few groups, a selector that selects nothing.
        SiteError: a layer the model does not have.
    """
    model = as_model(model)
    check_two(talks, alarm)
    chosen = parse_layers(layers, model.n_layers, name=model.name, kind="resid_post")
    positions = talks.positions(positions, POSITIONS)
    messages = messages_of(model, talks.prompts, positions)
    bench = _Bench(talks, messages, alarm, pooling, kind, seed)
    split = bench.split()
    states = states_of(
        model, messages, [f"resid_post.{at}" for at in chosen], batch_size=batch_size, progress=progress
    )
    ranked = {site: bench.rank(data, split.train) for site, data in states.items()} if len(states) > 1 else {}
    site = max(ranked, key=lambda one: ranked[one]) if ranked else next(iter(states))
    probe = bench.probe(states[site], split.train)
    scores = probe.pooled(states[site])[:, 0]
    calm = _calm(model, negatives, talks, positions, site, probe, batch_size)
    if calm is None:
        own = split.validation[~bench.positive[split.validation]]
        calm = (talks.name, scores[own], [bench.groups[at] for at in own])
    try:
        threshold = threshold_at(calm[1], rate, groups=calm[2])
    except ValueError as error:
        raise ConfigError(f"{error} (threshold on {calm[0]!r})") from error
    slope, offset = platt(bench.positive[split.validation], scores[split.validation])
    monitor = Monitor(
        probe, site, positions, threshold, slope, offset, f"negatives of {calm[0]}", model.described
    )
    return _result(model, bench, monitor, split, states[site], scores, ranked, rate)


class _Bench:
    """Messages with labels, and how probes are fitted on some of them."""

    def __init__(
        self, talks: Talks, messages: Messages, alarm: str, pooling: str, kind: str, seed: int
    ) -> None:
        self.talks, self.messages, self.alarm, self.seed = talks, messages, alarm, seed
        self.pooling, self.kind = pooling, kind
        self.labels = np.array([talks.labels[at] for at in messages.talk])
        self.positive = self.labels == alarm
        self.groups = [talks.groups[at] for at in messages.talk]
        self.sources = [talks.sources[at] for at in messages.talk]
        self.texts = [talks.texts[at] for at in messages.talk]
        try:
            SequenceProbe(pooling=pooling, base=kind).check()
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def split(self) -> Split:
        """Three parts, all with both labels."""
        split = group_split(self.groups, SHARES, seed=self.seed, stratify=self.labels)
        for part in (split.train, split.validation, split.test):
            if len(set(self.labels[part].tolist())) < 2:
                raise DataError(
                    f"'{self.talks.name}' has too few groups of a label for training, threshold and "
                    "test; give at least 8 groups of each."
                )
        return split

    def probe(self, data: Sequences, rows: np.ndarray) -> SequenceProbe:
        """A probe fitted on some messages."""
        probe = SequenceProbe(pooling=self.pooling, base=self.kind, seed=self.seed, positive=self.alarm)
        return probe.fit(data[rows], self.labels[rows], groups=[self.groups[at] for at in rows])

    def rank(self, data: Sequences, rows: np.ndarray) -> float:
        """The AUROC of held-out folds of training groups."""
        found = np.zeros(len(rows))
        units = [self.groups[at] for at in rows]
        for out in folds(units, 3, seed=self.seed, stratify=self.labels[rows]):
            keep = np.setdiff1d(np.arange(len(rows)), out)
            found[out] = self.probe(data, rows[keep]).pooled(data[rows[out]])[:, 0]
        return auroc(self.positive[rows], found, groups=units).value

    def alarmed(self, rows: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        """Of each group among some messages whether one raises an alarm."""
        found: dict[str, bool] = {}
        for at, alarm in zip(rows.tolist(), alarms.tolist(), strict=True):
            found[self.groups[at]] = found.get(self.groups[at], False) or alarm
        return np.array(list(found.values()))

    def area(self, rows: np.ndarray, scores: np.ndarray) -> Any:
        """The AUROC of some messages, with its interval over groups."""
        return auroc(self.positive[rows], scores, groups=[self.groups[at] for at in rows])

    def transfer(self, data: Sequences) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
        """The AUROC on each source of probes of each other source, and of all others together.

        No probe is trained on a group that it is tested on. Beside the cells, why some are missing.
        """
        names = list(dict.fromkeys(self.sources))
        if len(names) < 2:
            return (), ()
        try:
            folds_of = source_folds(self.positive, self.sources, self.groups)
        except DataError as error:
            return (), (f"from source to source nothing is shown: {error}",)
        at, missing = np.asarray(self.sources), []
        found = [self._cell("all others", fold, data) for fold in folds_of]
        mixed = [name for name in names if len(set(self.positive[at == name].tolist())) == 2]
        for taught in mixed:
            for fold in folds_of:
                rows = np.flatnonzero(at == taught)
                if taught == fold.name:
                    continue
                try:
                    one = Fold.apart(fold.name, rows, fold.test, self.positive, self.groups)
                except DataError as error:
                    missing.append(f"from {taught} to {fold.name} nothing is shown: {error}")
                else:
                    found.append(self._cell(taught, one, data))
        return tuple(found), tuple(missing)

    def _cell(self, taught: str, fold: Fold, data: Sequences) -> Cell:
        scores = self.probe(data, fold.train).pooled(data[fold.test])[:, 0]
        area = self.area(fold.test, scores)
        return Cell(taught, fold.name, area.value, area.interval.low, area.interval.high, len(fold.test))


def _calm(
    model: Any,
    negatives: Talks | None,
    talks: Talks,
    positions: str,
    site: str,
    probe: SequenceProbe,
    batch_size: str | int,
) -> tuple[str, np.ndarray, Sequence[str]] | None:
    """The scores of other negatives, none of which the probe was trained on."""
    if negatives is None:
        return None
    shared = len(negatives.hashes() & talks.hashes())
    if shared:
        raise DataError(
            f"{shared} of the texts of '{negatives.name}' are in '{talks.name}' too, on which the probe is "
            "trained; give negatives that it has not seen."
        )
    both = sorted(set(negatives.groups) & set(talks.groups))
    if both:
        raise DataError(
            f"{counted(len(both), 'group')} of '{negatives.name}' {'is' if len(both) == 1 else 'are'} in "
            f"'{talks.name}' too, on which the probe is trained, first {both[0]!r}; give negatives of other "
            "groups."
        )
    messages = messages_of(model, negatives.prompts, positions)
    scores = probe.pooled(states_of(model, messages, [site], batch_size=batch_size)[site])[:, 0]
    return negatives.name, scores, [negatives.groups[at] for at in messages.talk]


def _result(
    model: Any,
    bench: _Bench,
    monitor: Monitor,
    split: Split,
    data: Sequences,
    scores: np.ndarray,
    ranked: dict[str, float],
    rate: float,
) -> MonitorResult:
    test, value = split.test, monitor.threshold.value
    transfer, missing = bench.transfer(data)
    fold = Fold("test", split.train, test)
    sides = [(name, test[bench.positive[test] == side]) for name, side in SIDES]
    rates = tuple(_rate(name, bench.alarmed(rows, scores[rows] > value)) for name, rows in sides)
    areas = {"monitor": bench.area(test, scores[test])}
    for name, row in WORDLESS.items():
        found = read_without_model(
            row, bench.messages.ids, bench.texts, bench.positive, bench.groups, fold, seed=bench.seed
        )
        areas[name] = bench.area(test, found)
    reliability = expected_calibration_error(bench.positive[test], monitor.probability(scores[test]), bins=5)
    measured = {
        "auroc": {
            "value": areas["monitor"].value,
            "low": areas["monitor"].interval.low,
            "high": areas["monitor"].interval.high,
        },
        **{rate.name: {"value": rate.share, "low": rate.low, "high": rate.high} for rate in rates},
    }
    return MonitorResult(
        monitor=replace(monitor, measured=measured),
        rates=rates,
        areas=tuple(
            Cell("", name, one.value, one.interval.low, one.interval.high, len(test))
            for name, one in areas.items()
        ),
        reliability=tuple(
            (float(a), float(b), int(n))
            for a, b, n in zip(reliability.confidence, reliability.accuracy, reliability.counts, strict=True)
            if n
        ),
        error=reliability.error,
        transfer=transfer,
        layers=tuple(ranked.items()),
        sizes=(len(split.train), len(split.validation), len(test)),
        about=About(model=model.described, data=bench.talks.described),
        seed=bench.seed,
        warnings=(*bench.messages.tokens.warnings, *missing),
    )


SIDES = (("false-positive-rate", False), ("recall", True))


def _rate(name: str, alarms: np.ndarray) -> Rate:
    found = clopper_pearson(int(alarms.sum()), len(alarms))
    return Rate(name, float(alarms.mean()), found.low, found.high, int(alarms.sum()), len(alarms))
