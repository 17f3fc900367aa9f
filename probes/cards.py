"""Probe cards: what a saved probe was trained on, how it scored, and when it must not be used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["HubCard", "ProbeCard", "ProbeFileError", "hub_card", "hub_readme", "mismatches", "readme"]


class ProbeFileError(ValueError):
    """Report saved probe files that are missing, corrupt, or made for another model, site or scheme."""


@dataclass(frozen=True)
class ProbeCard:
    """Where a probe comes from. Empty text means "not recorded".

    Attributes:
        model: the model as the user named it.
        revision: the commit of the model, where it has one.
        weights: which weights: trained, random or edited.
        fingerprint: sha256 of the model's weights.
        scheme: the quantization the activations were captured under.
        site: where the activations were read.
        positions: at which tokens.
        tokenizer: hash of the tokenizer.
        template: hash of the prompt template.
        data: name of the data.
        data_hash: hash of the texts and labels.
        split_hash: hash of which example was in which split.
        metrics: scores on the test split, each with its interval.
        controls: scores of what the probe must beat.
        threshold: how a decision is made, and how that was chosen.
        intended_use: what the probe is for.
        known_failures: where it is known to be wrong.
        hub: ``user/name@commit`` of the Hub where it was fetched there.
    """

    model: str = ""
    revision: str = ""
    weights: str = "trained"
    fingerprint: str = ""
    scheme: str = "none"
    site: str = ""
    positions: str = ""
    tokenizer: str = ""
    template: str = ""
    data: str = ""
    data_hash: str = ""
    split_hash: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    controls: Mapping[str, Any] = field(default_factory=dict)
    threshold: str = "the highest score wins; no threshold"
    intended_use: str = "reading the labels it was trained on, in prompts like those it was trained on"
    known_failures: tuple[str, ...] = ()
    hub: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types."""
        known = {**asdict(self), "known_failures": list(self.known_failures)}
        return known if self.hub else {name: value for name, value in known.items() if name != "hub"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProbeCard:
        """Read a card back; fields that a later version added are ignored."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{**known, "known_failures": tuple(known.get("known_failures", ()))})


@dataclass(frozen=True)
class HubCard:
    """What the page of a shared thing says.

    Attributes:
        kind: what it is, such as ``probe``; of a result its schema.
        title: the heading.
        model: what it was made on, as the Hub calls it where it is from there.
        says: what was found, in a paragraph.
        facts: more about it, by name.
        scores: numbers by name, each a number or a mapping of value, low and high.
        controls: of what these must beat; None where they stand among the scores and tables.
        tables: more in rows: title -> names of the columns, and the rows.
        failures: where it is known to be wrong, and what is not shown.
        load: Python that loads it; ``REPO`` stands for the repository.
    """

    kind: str
    title: str
    model: str = ""
    says: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    controls: Mapping[str, Any] | None = field(default_factory=dict)
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    load: str = ""


NO_CONTROLS = ["", "## Controls", "", "None are recorded."]


def hub_readme(card: HubCard, repo: str, front: str) -> str:
    """Write a card as Markdown under the Hub's front matter, with text from data kept inert.

    Args:
        card: what it says.
        repo: ``user/name``.
        front: the front matter, without its lines of strokes.
    """
    facts = {"model": card.model, **card.facts}
    return "\n".join(
        [
            "---",
            front.strip(),
            "---",
            "",
            f"# {_plain(card.title)}",
            "",
            *([_plain(card.says), ""] if card.says else []),
            "| field | value |",
            "|---|---|",
            *(f"| {_plain(name)} | {_plain(value)} |" for name, value in facts.items()),
            *_scores("Scores", card.scores),
            *([] if card.controls is None else _scores("Controls", card.controls) or NO_CONTROLS),
            *(line for title, (columns, rows) in card.tables.items() for line in _rows(title, columns, rows)),
            "",
            "## Known failures",
            "",
            *(f"- {_plain(failure)}" for failure in card.failures or ("none recorded",)),
            "",
            "## Load it",
            "",
            "```python",
            card.load.replace("REPO", repo),
            "```",
            "",
            "`revision=` takes a branch, a tag or a commit; the commit is kept in what is loaded. Every",
            "file is compared with its sha256 in `interp.json`. Tensors and JSON are read, nothing is run.",
            "",
        ]
    )


def hub_card(kind: str, description: str, classes: list[Any], width: int, card: ProbeCard) -> HubCard:
    """A probe's card for the Hub; the parameters are those of :func:`readme`."""
    apart = ("model", "metrics", "controls", "known_failures", "hub")
    facts = {"kind": f"{kind}: {description}", "width": width, "classes": ", ".join(map(str, classes))}
    facts |= {k.replace("_", " "): v for k, v in card.to_dict().items() if k not in apart}
    return HubCard(
        "probe",
        f"Probe: {card.data or kind} at {card.site or 'an unrecorded site'}",
        card.model,
        facts=facts,
        scores=card.metrics,
        controls=card.controls,
        failures=card.known_failures,
        load='from probes import Probe\n\nprobe = Probe.from_pretrained("REPO")\nprobe.card_',
    )


def _rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(_plain(_score(one)) for one in row) + " |" for row in (columns, *rows)]
    return ["", f"## {_plain(title)}", "", lines[0], "|" + "---|" * len(columns), *lines[1:]]


def mismatches(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """List, in words, what a saved probe was made for and what it is now asked for.

    Args:
        found: the saved values of fingerprint, site, scheme, width.
        asked: the same, ``None`` where the caller did not say.
    """
    return [
        f"{name} {found[name] or 'not recorded'}, asked for {wanted}"
        for name, wanted in asked.items()
        if wanted is not None and wanted != found[name]
    ]


def readme(kind: str, description: str, classes: list[Any], width: int, card: ProbeCard) -> str:
    """Write the card as Markdown, with text from data kept inert."""
    values = {k: v for k, v in card.to_dict().items() if k not in ("metrics", "controls", "known_failures")}
    rows = [("kind", f"{kind}: {description}"), ("width", width), ("classes", ", ".join(map(str, classes)))]
    rows += [(name.replace("_", " "), value) for name, value in values.items()]
    failures = card.known_failures or ("none recorded",)
    return "\n".join(
        [
            f"# Probe card: {_plain(card.data or kind)} at {_plain(card.site or 'an unrecorded site')}",
            "",
            "| field | value |",
            "|---|---|",
            *(f"| {name} | {_plain(value)} |" for name, value in rows),
            *_scores("Scores on the test split", card.metrics),
            *_scores("Controls", card.controls),
            "",
            "## Known failures",
            "",
            *(f"- {_plain(failure)}" for failure in failures),
            "",
            "Load it with `probes.load(folder, fingerprint=..., site=...)`: another model, site, scheme or",
            "width is refused. The numbers are in `probe.safetensors` and `probe.json`; nothing is executed.",
            "",
        ]
    )


def _scores(title: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    rows = [f"| {_plain(name)} | {_plain(_score(value))} |" for name, value in values.items()]
    return ["", f"## {title}", "", "| name | value |", "|---|---|", *rows]


def _score(value: Any) -> str:
    if isinstance(value, Mapping) and value.get("value") is not None:
        ends = f" [{value['low']:.3f}, {value['high']:.3f}]" if value.get("low") is not None else ""
        return f"{value['value']:.3f}{ends}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> str:
    """Text that Markdown shows as it is: one line, marks escaped, control characters dropped."""
    text = "not recorded" if value == "" else str(value)
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e]+", " ", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|!])", r"\\\1", text)
