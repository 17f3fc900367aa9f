"""What a comparison returns: finding by finding, scheme by scheme, with the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from interp.errors import ConfigError, counted
from interp.quantization.comparison import figures, tables
from interp.quantization.comparison.verdicts import VERDICTS, Cell, Judged, Judgement
from interp.results.codec import UNSAVED
from interp.results.measured import slug
from interp.results.result import Result
from interp.results.shapes import About, Figure, Number, Table

__all__ = ["Comparison", "checkpoint_label"]

NAMED = 3
NAMING = ("weakened", "lost")
CAUTIONS = (
    "A verdict is about these items, this model and this seed. That a finding survives says that the "
    "difference is smaller than delta, not that there is none.",
    "Findings of one analysis share items, and neighbouring layers share what they carry: their verdicts "
    "are not independent, and no correction is made for their number. One lost finding among many may be "
    "chance.",
)
DENSE = (
    "In mode dense the model computes with the scheme's numbers in full precision arithmetic: its speed and "
    "memory are those of the full model. Bytes are those that the scheme needs, counted; a library may store "
    "more (mode packed measures them)."
)
UNCLEAR = (
    "The reference itself does not show these: it is not told from the control, or not from its own noise. "
    "There is nothing to survive."
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Result):
    """One or several analyses of a model against the same analyses of others.

    Attributes:
        other: the other checkpoint; None where only precisions of one are compared.
        cells: one per analysis and scheme.
        references: of the reference, one cell per analysis.
        noise: analysis -> which noise floors were measured, in words.
        mode: ``dense`` or ``packed``.
        seconds: how long everything took.
        results: (analysis, scheme) -> what the analysis returned, and (analysis, "") -> the reference's. Not
            saved.
    """

    schema: ClassVar[str] = "interp.comparison/3"
    other: About | None
    cells: tuple[Cell, ...]
    references: tuple[Cell, ...]
    noise: Mapping[str, str]
    mode: str
    seconds: float = 0.0
    results: Mapping[tuple[str, str], object] = field(default_factory=dict, metadata=UNSAVED)

    @property
    def analyses(self) -> tuple[str, ...]:
        """The names of the analyses."""
        return tuple(dict.fromkeys(cell.analysis for cell in self.cells))

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes, or the name of the other checkpoint."""
        return tuple(dict.fromkeys(cell.scheme for cell in self.cells))

    def cell(self, analysis: str, scheme: str) -> Cell:
        """One analysis at one scheme.

        Raises:
            ConfigError: it was not run.
        """
        for one in self.cells:
            if (one.analysis, one.scheme) == (analysis, scheme):
                return one
        known = ", ".join(f"{one.analysis} at {one.scheme}" for one in self.cells[:12])
        raise ConfigError(f"no {analysis!r} at {scheme!r} in this comparison; there are: {known}.")

    def judgement(self, scheme: str, finding: str, analysis: str = "") -> Judgement:
        """The verdict on one finding at one scheme.

        Args:
            scheme: which.
            finding: its name.
            analysis: of which analysis; needed where two have a finding of that name.

        Raises:
            ConfigError: there is none, or there are several.
        """
        found = [
            row.one
            for row in self.rows
            if row.scheme == scheme and row.one.finding == finding and analysis in ("", row.analysis)
        ]
        if len(found) != 1:
            many = "several analyses have it: say which" if found else "no analysis has it"
            names = dict.fromkeys(row.one.finding for row in self.rows)
            raise ConfigError(f"finding {finding!r} at {scheme!r}: {many}; there are: {', '.join(names)}.")
        return found[0]

    @cached_property
    def rows(self) -> tuple[Judged, ...]:
        """Every verdict, finding by finding, so that the schemes of one stand together."""
        found = [Judged(cell.analysis, cell.scheme, one) for cell in self.cells for one in cell.judgements]
        order = {name: at for at, name in enumerate(self.analyses)}
        found.sort(key=lambda row: order[row.analysis])
        return tuple(row for rows in tables.grouped(found) for row in rows)

    def question(self) -> str:
        """The question."""
        precisions = [scheme for scheme in self.schemes if scheme != self._other]
        parts = [f"at {', '.join(precisions)}"] if precisions else []
        parts += [f"in {self._other}"] if self._other else []
        return f"What of {self.about.model_name} survives {' and '.join(parts)}?"

    def verdict(self) -> str:
        """What becomes of the findings that the reference shows, scheme by scheme."""
        at = [one for one in self.schemes if self._judged_here(one)]
        own = [f"{one.analysis}, {one.scheme}: {one.judged}" for one in self.cells if one.judged]
        said = "; ".join([*(self._said(scheme) for scheme in at), *own])
        refused = len({cell.analysis for cell in self.cells if cell.refused})
        more = f" {counted(refused, 'analysis', 'analyses')} could not be run everywhere: see below."
        return f"{said[:1].upper()}{said[1:]}." + (more if refused else "")

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        ran = "was" if len(self.analyses) == 1 else "were"
        model, hidden = self.about.model, len({(r.analysis, r.one.finding) for r in self._hidden})
        said = [
            f"{counted(len(self.analyses), 'analysis', 'analyses')} ({', '.join(self.analyses)}) of "
            f"{model['name']} ({model['weights']} weights, {model['dtype']}) {ran} run again on the same "
            "items in each other model. Differences are taken item by item; intervals draw whole groups of "
            f"items. Mode: {self.mode}. Seed: {self.seed}. It took {self.seconds:,.0f} seconds.",
        ]
        if self._other:
            said.append(
                f"{self._other} is another checkpoint: what differs there comes from other weights, and is "
                "no effect of precision."
            )
        if hidden:
            said.append(
                f"{counted(hidden, 'finding')} the reference itself does not show: listed apart, and not "
                "counted."
            )
        return tuple(said)

    def numbers(self) -> tuple[Number, ...]:
        """How many findings survive at each scheme."""
        found = []
        for scheme in filter(self._judged_here, self.schemes):
            shown = [row.one.verdict for row in self._shown if row.scheme == scheme]
            rest = ", ".join(f"{n} {name}" for name in list(VERDICTS)[1:] if (n := shown.count(name)))
            without = "none shown by the reference" if self._ran(scheme) else "nothing was run"
            found.append(
                Number(
                    f"survive-{slug(scheme)}",
                    shown.count("survives") if shown else None,
                    unit=f"of {len(shown)} survive" if shown else "",
                    meaning=rest or ("nothing else" if shown else without),
                    label=scheme,
                )
            )
        for cell in self.cells:
            own = f"-{slug(cell.scheme)}" if len(self.schemes) > 1 else ""
            title = f"{cell.analysis}, {cell.scheme}" if own else cell.analysis
            found += [
                replace(
                    one,
                    name=f"{slug(cell.analysis)}-{one.name}{own}",
                    label=f"{title}: {one.label or one.name}",
                )
                for one in cell.numbers
            ]
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """``verdicts`` first (a row per finding, a column per scheme); ``findings`` has every number.

        ``findings`` has one row per analysis, finding and scheme: verdict, reference, value, difference
        (value less reference, over the same items) with low and high (its 95% interval over groups),
        reference_control and control (what each model has to beat), reference_excess and excess (of each
        model over its control), change (of the excess: what the verdict is on) with its interval, noise (what
        another batch layout or bf16 changes in the reference), delta (the smallest change that would matter),
        shown (whether the reference itself shows the finding), unit, n, n_groups, note.
        """
        findings, hidden = tables.grouped(self._shown), tables.grouped(self._hidden)
        layers = [found for found in findings if found[0].one.curve]
        made = {cell.scheme: (cell.quantization, cell.integrity) for cell in self.cells}
        reports = {scheme: (one, two) for scheme, (one, two) in made.items() if one is not None}
        at = self.schemes
        first = tables.side_by_side("verdicts", "Verdicts", tables.heads(findings), at)
        others = (
            tables.concluded(self.references, self.cells),
            tables.overview(self.references, self.cells),
            tables.counts([cell for cell in self.cells if cell.judgements or cell.refused]),
            tables.weights(reports),
            *tables.apart(self.cells),
            *tables.stacked(self.references, self.cells),
            tables.refused(self.cells),
            tables.side_by_side("layers", "Verdicts layer by layer", layers, at, folded=True),
            tables.side_by_side("unclear", "Not judged", hidden, at, note=UNCLEAR, folded=True),
            tables.every(self.rows),
        )
        rest = (one for one in others if one.rows or one.name == "findings")
        return tuple(rest) if self._apart and not first.rows else (first, *rest)

    def figures(self) -> tuple[Figure, ...]:
        """Changes in units of delta, effects against effects, curves over layers."""
        found = list(figures.figures(self.rows, self.references, self.cells))
        for cell in self.cells:
            own = f"-{slug(cell.scheme)}" if len(self.schemes) > 1 else ""
            found += [replace(one, name=f"{slug(cell.analysis)}-{one.name}{own}") for one in cell.figures]
        return tuple(found)

    def cautions(self) -> tuple[str, ...]:
        """What verdicts do not say, and what the analyses warn of, each text once with where it was said."""
        places: dict[tuple[str, str], list[str]] = {}
        for cell in self.cells:
            missing = [f"the finding {name!r} of the reference is missing" for name in cell.missing]
            for text in [*cell.warnings, *missing]:
                places.setdefault((cell.analysis, text), []).append(cell.scheme)
        made = [cell.quantization for cell in self.cells if cell.quantization]
        dense = any(one.mode == "dense" for one in made)
        said = [
            f"{analysis}, {', '.join(found)}: {text}"
            for (analysis, text), found in places.items()
            if text not in self.warnings
        ]
        return (*CAUTIONS, *([DENSE] if dense else []), *said)

    @property
    def _other(self) -> str:
        """The name under which the other checkpoint stands among the schemes, or ""."""
        return checkpoint_label(self.other.model) if self.other else ""

    @property
    def _apart(self) -> bool:
        """Whether every analysis laid two models beside each other itself."""
        return any(cell.judged for cell in self.cells) and not self.rows

    def _judged_here(self, scheme: str) -> bool:
        """Whether there is more at a scheme than what analyses said themselves."""
        return any(not cell.judged for cell in self.cells if cell.scheme == scheme)

    def _ran(self, scheme: str) -> bool:
        return any(not cell.refused for cell in self.cells if cell.scheme == scheme)

    @property
    def _shown(self) -> list[Judged]:
        return [row for row in self.rows if row.one.shown]

    @property
    def _hidden(self) -> list[Judged]:
        return [row for row in self.rows if not row.one.shown]

    def _said(self, scheme: str) -> str:
        """What becomes of the findings at one scheme, in a clause."""
        shown = [row for row in self._shown if row.scheme == scheme]
        place = f"in {scheme}" if scheme == self._other else f"at {scheme}"
        if not self._ran(scheme):
            return f"{place} no analysis could be run"
        if not shown:
            return f"{place} the reference shows no finding to judge"
        counts = {verdict: [row for row in shown if row.one.verdict == verdict] for verdict in VERDICTS}
        n = len(shown)
        if len(counts["survives"]) == n:
            return f"{place} {'the one finding survives' if n == 1 else f'all {n} findings survive'}"
        parts = [
            f"{place} {len(counts['survives'])} of {counted(n, 'finding')} survive{'s' if n == 1 else ''}"
        ]
        for verdict, rows in list(counts.items())[1:]:
            named = f" ({_named(rows)})" if verdict in NAMING else ""
            if rows:
                parts.append(f"{len(rows)} {'is' if len(rows) == 1 else 'are'} {verdict}{named}")
        return ", ".join(parts)


def checkpoint_label(model: Mapping[str, Any]) -> str:
    """The name under which another checkpoint stands among the schemes.

    Args:
        model: as ``Model.described`` says it.
    """
    return f"{model['name']} ({model['weights']})"


def _named(rows: Sequence[Judged]) -> str:
    """The first findings, and after them curves with the number of their layers."""
    curves = Counter((row.analysis, row.one.curve) for row in rows if row.one.curve)
    names = [f"{row.analysis}: {row.one.finding}" for row in rows if not row.one.curve]
    names += [f"{name}: {curve} at {counted(n, 'layer')}" for (name, curve), n in curves.items()]
    analyses = Counter(row.analysis for row in rows).most_common()
    if len(names) > NAMED and len(analyses) > 1:
        return ", ".join(f"{n} of {name}" for name, n in analyses)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
