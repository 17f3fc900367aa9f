"""What a probing analysis returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import results
from interp.analyses.guessing import Guessing
from interp.analyses.looks import Looks, told
from interp.analyses.probing.itemised import of_probe
from interp.analyses.probing.scores import Score
from interp.errors import ConfigError, DataError
from interp.results.findings import Finding
from interp.tasks import Labelled
from probes.base import Probe
from probes.cards import ProbeCard
from probes.evaluation import Audit, Split, right
from probes.statistics import Estimate, paired_difference

if TYPE_CHECKING:
    import pandas

__all__ = ["ProbeResult"]

SCHEMA = "interp.probe/1"


@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult:
    """Hold what a probe reads at which layer, against which controls, example by example.

    Attributes:
        data: the prompts and labels.
        split: which of them were for fitting, choosing and reporting.
        model: name, revision, weights, fingerprint, tokenizer_fingerprint and scheme.
        kind: the kind of probe.
        position: the token it reads.
        seed: of the split, the shuffling and the intervals.
        layer: the layer chosen.
        scores: the probe and every control on test; at the chosen layer all of them, at the other layers the
            probe and the random-weights control.
        probes: layer to fitted probe.
        predicted: the probe's label for every prompt, at the chosen layer.
        probability: its probability of that label; NaN for probes without probabilities.
        selection: how the layer was chosen, in words.
        verdict: what the numbers allow one to say.
        guessing: the test against guessing, at the chosen layer.
        warnings: what a reader should know.
        leakage: what the audit of the prompts found.
        looks: the best layer on test and its p-value, corrected for the number of layers; None for one layer.
    """

    data: Labelled
    split: Split
    model: Mapping[str, str]
    kind: str
    position: str | int
    seed: int
    layer: int
    scores: tuple[Score, ...]
    probes: Mapping[int, Probe]
    predicted: tuple[str, ...]
    probability: np.ndarray
    selection: str
    verdict: str
    guessing: Guessing
    leakage: Audit
    warnings: tuple[str, ...] = ()
    looks: Looks | None = None

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

    def score(self, name: str, layer: int | None = None) -> Score:
        """Give one score, at the chosen layer unless another is asked.

        Raises:
            ConfigError: it was not measured.
        """
        wanted = self.layer if layer is None else layer
        for score in self.scores:
            if (score.name, score.layer) == (name, wanted):
                return score
        known = ", ".join(f"{s.name} ({s.layer})" for s in self.scores[:12])
        raise ConfigError(f"no score {name!r} at layer {wanted}; measured: {known}.")

    @property
    def metrics(self) -> dict[str, float]:
        """Give the numbers a run can be gated on: accuracy, and its difference to each control."""
        differences = {f"over-{s.name}": s.difference.value for s in self._headline if s.difference}
        return {"accuracy": self.accuracy.value, **differences}

    @property
    def _headline(self) -> tuple[Score, ...]:
        return tuple(score for score in self.scores if score.layer == self.layer)

    def table(self) -> pandas.DataFrame:
        """Give one row per layer and score: the chosen layer first, then the others.

        Columns: layer, name, value (accuracy), low, high, n, n_groups, difference (the probe's accuracy less
        this one), difference_low, difference_high, validation, method, note.
        """
        import pandas

        others = [score for score in self.scores if score.layer != self.layer]
        return pandas.DataFrame([score.row() for score in (*self._headline, *others)])

    def curve(self) -> pandas.DataFrame:
        """Give the accuracy by layer, with intervals: layer, name, validation, value, low, high."""
        import pandas

        shown = sorted(
            (s for s in self.scores if s.name in ("probe", "random-weights")), key=lambda s: (s.name, s.layer)
        )
        columns = ["layer", "name", "validation", "value", "low", "high"]
        return pandas.DataFrame([s.row() for s in shown], columns=columns)

    def predictions(self) -> pandas.DataFrame:
        """Give every prompt: row, text, label, predicted, right, probability, group, split."""
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

    def confusion(self) -> pandas.DataFrame:
        """Count test prompts by true label (rows) and predicted label (columns)."""
        import pandas

        labels = sorted(set(self.data.labels))
        counts = pandas.DataFrame(0, index=labels, columns=labels)
        counts.index.name, counts.columns.name = "label", "predicted"
        for i in self.split.test:
            counts.loc[self.data.labels[i], self.predicted[i]] += 1
        return counts

    def diff(self, reference: ProbeResult) -> pandas.DataFrame:
        """Give the change from another result, each at its chosen layer, one row per score.

        Columns: name, then value, value_reference, value_change and so on; where both were tested on the same
            prompts,
        ``change_low`` and ``change_high`` bound the change of the probe's accuracy, paired by example.

        Raises:
            DataError: the two are of different data.
        """
        if reference.data.name != self.data.name:
            raise DataError(
                f"cannot compare '{self.data.name}' with '{reference.data.name}': the data differ."
            )
        import pandas

        ours, theirs = (pandas.DataFrame([s.row() for s in r._headline]) for r in (self, reference))
        found = results.difference(ours, theirs, ["name"])
        if self._tested() == reference._tested():
            change = self._paired(reference)
            probe = found["name"] == "probe"
            found.loc[probe, "change_low"] = change.interval.low
            found.loc[probe, "change_high"] = change.interval.high
        return found

    def findings(self) -> tuple[Finding, ...]:
        """Give the accuracy on test at the chosen layer, prompt by prompt, against its hardest floor."""
        return of_probe(self)

    def _tested(self) -> list[tuple[str, str]]:
        return [(self.data.texts[i], self.data.labels[i]) for i in self.split.test]

    def _paired(self, reference: ProbeResult) -> Estimate:
        ours = right(self.data.labels, self.predicted)[self.split.test]
        theirs = right(reference.data.labels, reference.predicted)[reference.split.test]
        groups = [self.data.groups[i] for i in self.split.test]
        return paired_difference(ours, theirs, groups=groups, seed=self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the prompts and the coefficients, as a JSON-able dictionary."""
        differences = [
            {"layer": s.layer, "control": s.name, **s.difference.to_dict()}
            for s in self.scores
            if s.difference
        ]
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "metric": "accuracy",
            "layer": self.layer,
            "layers": list(self.layers),
            "kind": self.kind,
            "position": self.position,
            "seed": self.seed,
            "classes": sorted(set(self.data.labels)),
            "n_train": len(self.split.train),
            "n_validation": len(self.split.validation),
            "n_test": len(self.split.test),
            "n_groups": self.accuracy.n_groups,
            "metrics": self.metrics,
            "guessing": asdict(self.guessing),
            "scores": self.table().astype(object).where(self.table().notna(), None).to_dict("records"),
            "differences": differences,
            "selection": self.selection,
            "fit": dict(self.probes[self.layer].facts()),
            "model": dict(self.model),
            "data": {"name": self.data.name, "n": len(self.data), "fingerprint": self.data.fingerprint},
            **told(self.leakage, self.looks),
            "warnings": list(self.warnings),
        }

    def card(self, layer: int | None = None) -> ProbeCard:
        """Give the probe card of one layer's probe, the chosen one unless another is asked."""
        from interp.analyses.probing.cards import card_of

        return card_of(self, self.layer if layer is None else layer)

    def save(self, folder: str | Path) -> Path:
        """Write ``metrics.json``, ``predictions.parquet`` and one probe with its card per layer."""
        folder = Path(folder)
        results.write_json(self, folder / "metrics.json")
        self.predictions().to_parquet(folder / "predictions.parquet", index=False)
        for layer, probe in self.probes.items():
            probe.save(folder / "probes" / f"resid_post.{layer}", card=self.card(layer))
        return folder

    def __repr__(self) -> str:
        """Say in one line what was found."""
        return f"ProbeResult({self.data.name!r}, {self.kind}, {self.verdict})"

    def _repr_html_(self) -> str:
        """Give an escaped HTML table of the chosen layer, with the verdict under it."""
        import pandas

        numbers = ["value", "low", "high", "difference", "difference_low", "difference_high", "n", "n_groups"]
        rows = pandas.DataFrame([score.row() for score in self._headline], columns=["name", *numbers])
        return results.table_html(rows, caption=self.verdict)
