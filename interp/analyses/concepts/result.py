"""What a concept-probing analysis returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import results
from interp.analyses.concepts.itemised import of_concepts
from interp.analyses.guessing import Guessing
from interp.analyses.looks import Looks, told
from interp.analyses.probing.scores import Score
from interp.errors import ConfigError
from interp.results.findings import Finding
from interp.tasks.protocols import Item
from probes.evaluation import Audit
from probes.hyperdimensional import HyperdimensionalProbe
from probes.statistics import Estimate

if TYPE_CHECKING:
    import pandas

__all__ = ["SCHEMA", "ConceptResult"]

SCHEMA = "interp.concepts/1"


@dataclass(frozen=True, eq=False, repr=False)
class ConceptResult:
    """Hold which concepts can be read where, against which controls, prompt by prompt.

    Attributes:
        protocol: its name.
        question: what it asks.
        model: name, weights, fingerprint, tokenizer_fingerprint, scheme.
        encoder: the kind of encoder.
        seed: of everything drawn.
        layer: the layer reported, chosen on validation where there were several.
        curve: layer -> validation mean reciprocal rank, and top-1 on test for orientation.
        scores: the probe's top-1, every control's and baseline's, chance; with paired differences.
        metrics: further scores of the probe: top-5, mean reciprocal rank, cosine and bits with their floors,
            share claimed, precision where claimed.
        by_relation: relation -> (prompts, top-1 of the probe, top-1 of the model itself).
        cells: "model right, probe right" and so on -> (count, examples).
        belief: what the probe says where the model believes something false.
        items: the test prompts.
        read: the concept read from each.
        similarity: of that concept.
        said: the model's own next token after each.
        model_right: whether that is the expected one.
        probe: the fitted probe.
        selection: how the layer was chosen.
        verdict: the finding in plain words.
        guessing: the test against guessing: answers exchanged among the facts of a relation, or drawn from
            the candidates that the prompt leaves.
        warnings: what a reader should know.
        leakage: what the audit of the prompts found, apart from what belongs to the protocol.
        looks: the best layer on test and its p-value, corrected for the number of layers; None for one layer.
    """

    protocol: str
    question: str
    model: Mapping[str, Any]
    encoder: str
    seed: int
    layer: int
    curve: Mapping[int, Mapping[str, float]]
    scores: tuple[Score, ...]
    metrics: Mapping[str, Any]
    by_relation: Mapping[str, tuple[int, float, float]]
    cells: Mapping[str, tuple[int, list[dict[str, str]]]]
    belief: tuple[Mapping[str, Any], ...]
    items: Sequence[Item]
    read: Sequence[str]
    similarity: Sequence[float]
    said: Sequence[str]
    model_right: Sequence[bool]
    probe: HyperdimensionalProbe
    selection: str
    verdict: str
    guessing: Guessing
    leakage: Audit
    warnings: tuple[str, ...] = ()
    looks: Looks | None = None

    @property
    def top1(self) -> Estimate:
        """Give the probe's share of right concepts on test."""
        found = next(score.estimate for score in self.scores if score.name == "probe")
        assert found is not None
        return found

    def table(self) -> pandas.DataFrame:
        """Give one row for the probe, each control and baseline, and chance."""
        import pandas

        return pandas.DataFrame([score.row() for score in self.scores])

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the prompts and the probe as JSON types, in stable keys."""
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "protocol": self.protocol,
                "question": self.question,
                "model": dict(self.model),
                "kind": "hyperdimensional",
                "encoder": self.encoder,
                "seed": self.seed,
                "layer": self.layer,
                "layers": sorted(self.curve),
                "curve": {str(at): dict(values) for at, values in self.curve.items()},
                "scores": [score.row() for score in self.scores],
                "metrics": dict(self.metrics),
                "guessing": asdict(self.guessing),
                "by_relation": {name: list(row) for name, row in self.by_relation.items()},
                "cells": {name: {"n": n, "examples": rows} for name, (n, rows) in self.cells.items()},
                "belief": list(self.belief),
                "selection": self.selection,
                "verdict": self.verdict,
                **told(self.leakage, self.looks),
                "warnings": list(self.warnings),
            }
        )
        return plain

    def diff(self, reference: ConceptResult) -> pandas.DataFrame:
        """Give the change of every score from another result of the same protocol.

        Raises:
            ConfigError: another protocol.
        """
        if reference.protocol != self.protocol:
            raise ConfigError(f"protocol {self.protocol!r} cannot be compared with {reference.protocol!r}.")
        own, theirs = self.table().set_index("name"), reference.table().set_index("name")
        both = [name for name in own.index if name in theirs.index]
        kept = own.loc[both, ["value"]].rename(columns={"value": "this"})
        return kept.assign(
            reference=theirs.loc[both, "value"], change=own.loc[both, "value"] - theirs.loc[both, "value"]
        ).reset_index()

    def findings(self) -> tuple[Finding, ...]:
        """Give the probe's and the model's own right answers on test, prompt by prompt."""
        return of_concepts(self)

    def predictions(self) -> pandas.DataFrame:
        """Give one row per test prompt: what was asked, read and said."""
        import pandas

        return pandas.DataFrame(
            {
                "text": [item.text for item in self.items],
                "answer": [item.answer for item in self.items],
                "relation": [item.relation for item in self.items],
                "fact": [item.fact for item in self.items],
                "read": list(self.read),
                "similarity": list(self.similarity),
                "said": list(self.said),
                "right": [a == item.answer for a, item in zip(self.read, self.items, strict=True)],
                "model_right": list(self.model_right),
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``metrics.json``, ``predictions.parquet`` and the probe with its codebook and card."""
        from interp.analyses.concepts.cards import card_of

        folder = Path(folder)
        results.write_json(self, folder / "metrics.json")
        self.predictions().to_parquet(folder / "predictions.parquet", index=False)
        self.probe.save(folder / "probes" / f"resid_post.{self.layer}", card=card_of(self))
        return folder

    def __repr__(self) -> str:
        """Say in one line what was found."""
        return f"ConceptResult({self.protocol!r}, {self.verdict})"

    def _repr_html_(self) -> str:
        """Give an escaped HTML table, with the verdict under it."""
        import pandas

        columns = ["name", "value", "low", "high", "difference", "difference_low", "difference_high"]
        rows = pandas.DataFrame([score.row() for score in self.scores], columns=columns)
        return results.table_html(rows, caption=self.verdict)
