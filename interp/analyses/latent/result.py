"""What became of codenames: what is answered, what is read, and whether what is read is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from interp.analyses.latent.asking import Asked
from interp.analyses.latent.reading import EMBEDDING, Reading
from interp.analyses.surgery import Surgery
from interp.errors import counted
from interp.results import Cell, Figure, Finding, Number, Result, Table
from probes.statistics import Estimate, holm, paired_difference

__all__ = ["LatentResult"]

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LatentResult(Result):
    """Whether a model connects what documents told of codenames.

    Attributes:
        codenames: what documents are about.
        latents: the country behind each.
        answers: relation -> how it was answered, the most important first.
        at_codename: the country that a Hyperdimensional Probe reads at the codename.
        at_end: the answer to the first relation that a translator reads at the last token.
        control: the same of a model whose documents imply no country; None where there is none.
        edits: the country exchanged at the codename; None where that was not done, or too few questions were
            answered.
    """

    schema: ClassVar[str] = "interp.latent/1"
    codenames: tuple[str, ...]
    latents: tuple[str, ...]
    answers: Mapping[str, Asked]
    at_codename: Reading
    at_end: Reading
    control: LatentResult | None = None
    edits: Surgery | None = None

    @property
    def main(self) -> Asked:
        """The first relation."""
        return next(iter(self.answers.values()))

    @cached_property
    def p(self) -> Mapping[str, float]:
        """Of each relation, corrected for their number (Holm)."""
        corrected = holm([one.p for one in self.answers.values()])
        return dict(zip(self.answers, np.asarray(corrected).tolist(), strict=True))

    def over_control(self, relation: str) -> Estimate | None:
        """The score less that of the control model, codename by codename; None without one."""
        if self.control is None:
            return None
        pair = (self.answers[relation].score, self.control.answers[relation].score)
        return paired_difference(*pair, seed=self.seed, support="real")

    @property
    def told_apart(self) -> bool:
        """Whether the first relation is answered beyond chance: by its interval and by permutations."""
        return self.main.estimate.interval.low > 0 and self.p[self.main.relation] <= LEVEL

    @property
    def connected(self) -> bool | None:
        """Whether the dots are connected; None where the control model does it too."""
        if not self.told_apart:
            return False
        over = self.over_control(self.main.relation)
        if self.control is not None and (
            over is None or not over.interval.low > 0 or self.control.told_apart
        ):
            return None
        return True

    @property
    def is_read(self) -> bool:
        """Whether the country is read beyond chance; that the best layer was looked for is counted."""
        return self.at_codename.p <= LEVEL

    @property
    def read_beyond_control(self) -> bool | None:
        """Whether it is read at more codenames than in the control model, each at its best; None without."""
        if self.control is None:
            return None
        pair = (self.at_codename, self.control.at_codename)
        own, other = (one.hits[one.layers.index(one.best)].astype(float) for one in pair)
        return paired_difference(own, other, seed=self.seed).interval.low > 0

    def question(self) -> str:
        """The question that was asked."""
        return f"Does {self.about.model_name} know which country a codename stands for, without being told?"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        asked = " and ".join(self.answers)
        found = (
            f"Documents told the currency, language and region of "
            f"{counted(len(self.codenames), 'country', 'countries')} under codenames; never a name, nor the "
            f"{asked}. The score of an answer is its probability after its codename less its mean "
            "probability after the other codenames."
        )
        return (found,)

    def verdict(self) -> str:
        """Connected or not, read or not, used or not."""
        own = self.main
        ends = own.estimate.interval
        score = (
            f"P({own.relation} of the implied country) {own.own.mean():.3f} against {own.others.mean():.3f} "
            "after other codenames, difference "
            f"{own.estimate.value:+.3f} [{ends.low:+.3f}, {ends.high:+.3f}], "
            f"first of all countries for {own.first.mean():.0%} of {counted(len(own.own), 'codename')}, "
            f"p {self.p[own.relation]:.2g}"
        )
        if self.control is not None:
            score += f"; documents that imply nothing: {self.control.main.estimate.value:+.3f}"
        words = {True: "Connected", False: "Not shown", None: "Inconclusive (the control model does it too)"}
        return f"{words[self.connected]}: {score}. {self._read()} {self._used()}"

    def _read(self) -> str:
        reading = self.at_codename
        at = reading.layers.index(reading.best)
        beside = ""
        if self.control is not None:
            beside = f"; documents that imply nothing: {self.control.at_codename.hits.mean(axis=1).max():.0%}"
        share = (
            f"{reading.hits[at].mean():.0%} of codenames {_where(reading.best)} (p {reading.p:.2g}{beside})"
        )
        if not self.is_read:
            return f"A Hyperdimensional Probe of real countries does not read them: {share}."
        alike = ", no more than where nothing is implied" if self.read_beyond_control is False else ""
        return f"A Hyperdimensional Probe of real countries reads the implied one at {share}{alike}."

    def _used(self) -> str:
        if self.edits is None:
            return "Whether it is used was not tested."
        return f"{'It is used' if self.edits.works else 'It is not shown to be used'}. {self.edits.verdict()}"

    def cautions(self) -> tuple[str, ...]:
        """What the numbers do not show."""
        return (
            "Codenames are compared within one model, which learned them all; intervals are over codenames, "
            "not over training runs.",
            "Where only the codenames' embeddings were trained, the documents search for a point among those "
            "of known countries; that is a weaker thing than weights that learn.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The scores, the shares read, and what editing does."""
        found = []
        for name, one in self.answers.items():
            ends = one.estimate.interval
            found.append(
                Number(f"{name}-score", one.estimate.value, ends.low, ends.high, "", f"score of {name}")
            )
            over = self.over_control(name)
            if over is not None:
                ends = over.interval
                meaning = f"score of {name} less that of the control model"
                found.append(Number(f"{name}-over-control", over.value, ends.low, ends.high, "", meaning))
        at = self.at_codename
        share = float(at.hits.mean(axis=1).max())
        found.append(
            Number("read-at-codename", share, None, None, "", "share of codenames read right, best layer")
        )
        return (*found, *(() if self.edits is None else self.edits.numbers()[:3]))

    def tables(self) -> tuple[Table, ...]:
        """Behaviour, readings by layer, codenames; then the edits."""
        found = [self._behaviour(), self._readings(), self._codenames()]
        return (*found, *(() if self.edits is None else self.edits.tables()[:1]))

    def _behaviour(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        models = {"this model": self} | ({} if self.control is None else {"control": self.control})
        for who, result in models.items():
            for name, one in result.answers.items():
                ends, near = one.estimate.interval, one.over_rivals
                means = (float(one.own.mean()), float(one.others.mean()), float(one.rivals.mean()))
                rows.append(
                    (
                        f"{name}, {who}",
                        one.estimate.value,
                        ends.low,
                        ends.high,
                        result.p[name],
                        *means,
                        near.interval.low,
                        float(one.first.mean()),
                    )
                )
        columns = (
            "question",
            "score",
            "low",
            "high",
            "p",
            "own",
            "others",
            "rivals",
            "over_rivals_low",
            "first",
        )
        note = (
            "own: P of the implied country's answer; others: of the same answer after other names; "
            "rivals: of the answers of countries most like it; over_rivals_low: the low end of own less "
            "rivals; "
            "first: share of codenames whose answer is the likeliest of all countries. 95% intervals over "
            "codenames; p by permuting countries, corrected for the questions."
        )
        return Table(
            "behaviour", "Questions that no document answers", columns, rows, note, formats={"p": ".2g"}
        )

    def _readings(self) -> Table:
        own, end, other = self.at_codename, self.at_end, self.control
        said = dict(zip(end.layers, end.hits.mean(axis=1), strict=True))
        real = dict(zip(end.layers, end.known, strict=True))
        rows: list[tuple[Cell, ...]] = []
        for at, layer in enumerate(own.layers):
            beside = None if other is None else float(other.at_codename.hits[at].mean())
            spoken = float(said[layer]) if layer in said else None
            rows.append(
                (
                    "embedding" if layer == EMBEDDING else str(layer),
                    float(own.hits[at].mean()),
                    beside,
                    float(own.chance[at]),
                    own.known[at],
                    spoken,
                    real.get(layer),
                )
            )
        columns = (
            "layer",
            "country",
            "country_control",
            "chance",
            "real_countries",
            "answer",
            "real_answers",
        )
        note = (
            "country: share of codenames whose country a Hyperdimensional Probe reads at the codename, "
            "fitted on real countries (real_countries: their share in held-out templates); answer: whose "
            "answer a translator reads at the last token (real_answers: of real countries)."
        )
        return Table("readings", "What is read, layer by layer", columns, rows, note, shown=30)

    def _codenames(self) -> Table:
        one, reading = self.main, self.at_codename
        at = reading.layers.index(reading.best)
        rows = [
            (name, latent, float(one.own[i]), float(one.others[i]), float(one.first[i]), reading.names[at][i])
            for i, (name, latent) in enumerate(zip(self.codenames, self.latents, strict=True))
        ]
        columns = ("codename", "implied", "own", "others", "first", "read")
        title = f"Codenames: the {one.relation}, and the country read {_where(reading.best)}"
        return Table("codenames", title, columns, rows, shown=30)

    def figures(self) -> tuple[Figure, ...]:
        """What is read by layer."""
        rows: list[tuple[float, str, float, float, float]] = []
        models = {"country at the codename": self.at_codename, "answer at the last token": self.at_end}
        if self.control is not None:
            models["country at the codename, control"] = self.control.at_codename
        for name, reading in models.items():
            shares = reading.hits.mean(axis=1).tolist()
            rows += [(layer, name, s, s, s) for layer, s in zip(reading.layers, shares, strict=True)]
        columns = ("x", "series", "value", "low", "high")
        data: dict[str, Any] = dict(zip(columns, zip(*rows, strict=True), strict=True))
        caption = "Share of codenames for which the right name is the first of all; -1 is the embedding."
        return (
            Figure("readings", "curve", data, "What is read of a codename", caption, x="layer", y="share"),
        )

    def findings(self) -> tuple[Finding, ...]:
        """The answers beside what they would be after other codenames; the country read, layer by layer."""
        found = [
            Finding(
                f"P of the implied {name}",
                one.own,
                self.codenames,
                control=one.others,
                unit="share",
                direction=1,
            )
            for name, one in self.answers.items()
        ]
        own = self.at_codename
        found += [
            Finding(
                f"country read {_where(layer)}",
                own.hits[at],
                self.codenames,
                control=float(own.chance[at]),
                unit="share",
                curve="country read",
                layer=layer,
                direction=1,
            )
            for at, layer in enumerate(own.layers)
        ]
        return tuple(found)


def _where(layer: int) -> str:
    return "in the embedding" if layer == EMBEDDING else f"after layer {layer}"
