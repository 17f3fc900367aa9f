"""The result of an audit: readers and verdicts, with the evidence of every arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.analyses.audit.evidence import Evidence
from interp.analyses.audit.rule import ARMS, BELIEF, STANDING, TRUTH, VERDICTS, Audit
from interp.errors import ConfigError, counted
from interp.results import Figure, Number, Result, Table
from interp.results.shapes import Cell

__all__ = ["AuditResult"]

SOURCES = {"belief": BELIEF, "truth": TRUTH, "prompt": STANDING}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AuditResult(Result):
    """What readers read, layer by layer.

    Attributes:
        protocol: of the prompts.
        twin: name and fingerprint of the edited model.
        audits: one for each reader and layer, layer by layer.
    """

    schema: ClassVar[str] = "interp.audit/1"
    protocol: str
    twin: Mapping[str, Any]
    audits: tuple[Audit, ...]

    @property
    def readers(self) -> tuple[str, ...]:
        """The names of the readers."""
        return tuple(dict.fromkeys(one.reader for one in self.audits))

    def of(self, reader: str = "", layer: int | None = None) -> Audit:
        """One audit; of several layers the one where the model's own answers are read best.

        Args:
            reader: its name; the first where left out.
            layer: which; chosen on the trained model alone where left out, the first of equals.

        Raises:
            ConfigError: none of that name or layer.
        """
        name = reader or self.readers[0]
        found = [one for one in self.audits if one.reader == name and layer in (None, one.layer)]
        if not found:
            where = "" if layer is None else f" at layer {layer}"
            raise ConfigError(f"no audit of {name!r}{where}; the readers are: {', '.join(self.readers)}.")
        return max(found, key=_trained)

    def question(self) -> str:
        """The question that was asked."""
        return "Does it read the model, the prompt, the world, or nothing?"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        facts = self.about.data
        return (
            f"{counted(facts.get('n', 0), 'prompt')} about {facts.get('groups', 0):,} facts that an edited "
            f"copy of the model was taught falsely. Each reader was given states of five origins: "
            f"{'; '.join(f'{arm}: {what}' for arm, what in ARMS.items())}. Only prompts count that the model "
            f"answers with the truth and the edited copy with its belief "
            f"({facts.get('n', 0):,} of {facts.get('asked', 0):,}).",
        )

    def verdict(self) -> str:
        """Reader by reader, at its best layer."""
        return " ".join(self._said(name) for name in self.readers)

    def cautions(self) -> tuple[str, ...]:
        """What the verdicts do not show."""
        return (
            "A verdict is about these facts, this prompt form and the first name that is read.",
            "Reading the model means: what this state would make the model say. It does not mean that the "
            "model uses what is read.",
            "Where few of the twin's states carry its edit, belief and truth cannot be told apart: what is "
            "read there is inconclusive, whatever the reader.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Of each reader at its best layer what it reads of the twin's beliefs, and of the truth."""
        found: list[Number] = []
        for name in self.readers:
            best = self.of(name)
            for word in ("belief", "truth"):
                one = best.of("edited", SOURCES[word])
                if one is not None:
                    what = f"of the twin's states read as {SOURCES[word]}, at layer {best.layer}"
                    ends = one.share.interval
                    found.append(
                        Number(f"{_slug(name)}-{word}", one.share.value, ends.low, ends.high, "", what)
                    )
        layers = sum(one.verdict == "the model" for one in self.audits)
        found.append(Number("reads-the-model", layers, meaning="readers and layers with this verdict"))
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """Readers at their best layer; every layer; every arm."""
        return (self._readers(), self._layers(), self._arms())

    def figures(self) -> tuple[Figure, ...]:
        """What is read of the twin's beliefs, and of the truth, over layers."""
        if len({one.layer for one in self.audits}) > 1:
            return tuple(self._curve(word) for word in ("belief", "truth"))
        rows = [
            (
                f"{one.reader}: {target}",
                found.share.value,
                found.share.interval.low,
                found.share.interval.high,
                at,
            )
            for at, one in enumerate(self.audits)
            for target in SOURCES.values()
            if (found := one.of("edited", target)) is not None
        ]
        columns = ("name", "value", "low", "high", "colour")
        data: dict[str, list[Any]] = {name: [row[at] for row in rows] for at, name in enumerate(columns)}
        caption = "95% intervals over facts."
        return (Figure("audit", "intervals", data, "Read from the twin's states", caption, x="share"),)

    def _said(self, name: str) -> str:
        best = self.of(name)
        where = [one.layer for one in self.audits if one.reader == name and one.verdict == "the model"]
        verb = f"{name} reads {best.verdict}" if best.verdict != "inconclusive" else f"{name}: inconclusive"
        more = f"; the model at layers {_ranges(where)}" if len(self._at(name)) > 1 and where else ""
        return f"{verb} at layer {best.layer}: {best.reason}{more}."

    def _at(self, name: str) -> list[Audit]:
        return [one for one in self.audits if one.reader == name]

    def _readers(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for name in self.readers:
            best, every = self.of(name), self._at(name)
            where = [one.layer for one in every if one.verdict == "the model"]
            over = [one.layer for one in every if one.over_lens and one.over_lens.interval.low > 0]
            rows.append(
                (
                    name,
                    best.layer,
                    best.verdict,
                    *_ends(best, BELIEF),
                    _share(best, TRUTH),
                    _share(best, STANDING),
                    _ranges(where),
                    _ranges(over),
                )
            )
        columns = (
            "reader",
            "layer",
            "reads",
            "belief",
            "low",
            "high",
            "truth",
            "in the prompt",
            "reads the model at",
            "beats the logit lens at",
        )
        note = (
            "Layer: where the model's own answers are read best, on the model alone. Shares of the twin's "
            "states whose first name is the belief, the truth, or stands in the prompt. "
            + " ".join(f"{name[0].upper()}{name[1:]}: {what}." for name, what in VERDICTS.items())
        )
        return Table("readers", "What do they read?", columns, rows, note, narrow=("in the prompt", "truth"))

    def _layers(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (
                one.reader,
                one.layer,
                one.verdict,
                *_ends(one, BELIEF),
                _share(one, TRUTH),
                _share(one, STANDING),
                _trained(one),
                one.carried,
                one.abstained,
                None if one.over_lens is None else one.over_lens.value,
                None if one.over_lens is None else one.over_lens.interval.low,
                None if one.over_lens is None else one.over_lens.interval.high,
                one.reason,
            )
            for one in self.audits
        ]
        columns = (
            "reader",
            "layer",
            "reads",
            "belief",
            "low",
            "high",
            "truth",
            "in the prompt",
            "own answer",
            "carried",
            "abstained",
            "over the lens",
            "over_low",
            "over_high",
            "why",
        )
        note = (
            "Own answer: the model's own answer, read from its own states. Carried: the share of the cases "
            "in which the twin's state makes the unedited model say the belief; only these count."
        )
        return Table(
            "layers",
            "Layer by layer",
            columns,
            rows,
            note,
            folded=len(rows) > 12,
            page_only=("why", "abstained", "own answer", "over_low", "over_high"),
        )

    def _arms(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for name in self.readers:
            best = self.of(name)
            rows += [(name, best.layer, *_row(one)) for one in best.evidence]
        columns = (
            "reader",
            "layer",
            "states",
            "read as",
            "share",
            "low",
            "high",
            "by luck",
            "over luck",
            "over_low",
            "over_high",
            "p",
            "prompts",
            "facts",
        )
        note = (
            "By luck: against the same target of other facts of the relation (names permuted). Over luck: "
            "with its 99% interval over facts, on which the verdict rests."
        )
        return Table("arms", "Every arm", columns, rows, note, page_only=("p", "prompts", "facts"))

    def _curve(self, word: str) -> Figure:
        rows = [
            (one.layer, one.reader, found.share.value, found.share.interval.low, found.share.interval.high)
            for one in self.audits
            if (found := one.of("edited", SOURCES[word])) is not None
        ]
        columns = ("x", "series", "value", "low", "high")
        data: dict[str, list[Any]] = {name: [row[at] for row in rows] for at, name in enumerate(columns)}
        return Figure(
            word,
            "curve",
            data,
            f"Read from the twin's states as {SOURCES[word]}",
            "States that carry the edit. Bands: 95% intervals over facts.",
            x="layer",
            y="share",
            limits=(0.0, 1.0),
        )


def _trained(one: Audit) -> float:
    found = one.of("trained", TRUTH)
    return -1.0 if found is None else found.share.value


def _share(one: Audit, target: str) -> float | None:
    found = one.of("edited", target)
    return None if found is None else found.share.value


def _ends(one: Audit, target: str) -> tuple[float | None, float | None, float | None]:
    found = one.of("edited", target)
    return (
        (None, None, None)
        if found is None
        else (found.share.value, found.share.interval.low, found.share.interval.high)
    )


def _row(one: Evidence) -> tuple[Cell, ...]:
    ends, beyond = one.share.interval, one.excess
    return (
        one.arm,
        one.target,
        one.share.value,
        ends.low,
        ends.high,
        one.luck,
        beyond.value,
        beyond.interval.low,
        beyond.interval.high,
        one.p_value,
        one.n,
        one.n_facts,
    )


def _ranges(numbers: list[int]) -> str:
    """Numbers as ranges: ``2, 4-7``; a dash for none."""
    return ", ".join(_parts(sorted(numbers))) or "-"


def _parts(numbers: list[int]) -> Iterator[str]:
    start = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            first, last = numbers[start], numbers[at - 1]
            yield str(first) if first == last else f"{first}-{last}"
            start = at


def _slug(name: str) -> str:
    return "-".join("".join(mark if mark.isalnum() else " " for mark in name.casefold()).split()) or "reader"
