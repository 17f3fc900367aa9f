"""The ready readers: lenses, maps fitted to states, and what should read nothing; a function and a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
from jaxtyping import Float

from interp.analyses.concepts.trial import preferred
from interp.analyses.readers.material import Material
from interp.analyses.readers.reader import Names, Reader
from interp.errors import ConfigError
from interp.lenses import LENSES
from interp.lenses import make as make_lens
from probes import RidgeProbe
from probes.controls import shuffled_labels
from probes.hyperdimensional import ENCODERS
from probes.translation import Moments, fit_translator

__all__ = ["READERS", "ReaderRow", "encoder_named", "make", "of_all", "reader_names"]

TOP = 5
PROBE = "probe"
States = Float[torch.Tensor, "example dim"]
Map = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ReaderRow:
    """A kind of reader.

    Attributes:
        name: what ``--reader`` takes.
        description: what it makes of a state, in a line.
        learns: what it learns from; "" for nothing but the model.
        kind: ``free`` needs no label, ``labels`` is trained on answers, ``control`` should read nothing.
        make: makes it of its material.
        quick: whether ``all`` has it: fits that take minutes are asked for by name.
        layered: whether it reads a layer; one that does not is measured once.
    """

    name: str
    description: str
    learns: str
    kind: Literal["free", "labels", "control"]
    make: Callable[[Material], Reader]
    quick: bool = True
    layered: bool = True


def _lens(kind: str, material: Material) -> Reader:
    """A lens: the concepts by the logits of their first tokens."""
    lens = make_lens(kind, material.model, layers=material.layers, seed=material.seed)
    names, tokens = material.drawn.concepts, torch.tensor(material.first)

    def read(states: States, layer: int) -> Names:
        found: list[list[str]] = []
        for part in lens.parts(len(states)):
            given = states[part].to(material.model.device, material.model.dtype)
            kept = lens.logits(given, layer).cpu()[:, tokens]
            found += [[names[at] for at in row] for row in kept.topk(min(TOP, len(names))).indices.tolist()]
        return found

    return Reader(kind, read, ("states", "layer"))


def _translator_of_prompts(material: Material) -> Reader:
    """The concept whose first token the translated state prefers, by a map that has seen such prompts."""
    names, readout, seen = material.drawn.concepts, material.readout, material.seen
    held = [*material.part("validation"), *material.part("validation-unanswered")]

    @cache
    def fitted(layer: int) -> Map:
        if layer == material.model.n_layers - 1:
            return readout.normed
        moments = seen.moments.get(layer)
        if moments is None:
            moments = seen.at_end(layer, [*material.part("train"), *material.part("train-unanswered")])
        return fit_translator(moments, seen.at_end(layer, held))

    def read(states: States, layer: int) -> Names:
        return [[names[at]] for at in preferred(readout, fitted(layer), states, material.first)]

    return Reader("translator-prompts", read, ("states", "layer"))


def _probe(encoder: str, material: Material) -> Reader:
    """A Hyperdimensional Probe, trained once for each layer."""
    trial = material.trial(encoder)
    fitted = cache(lambda layer: trial.fit(material.seen.states[layer]))

    def read(states: States, layer: int) -> Names:
        return fitted(layer).decode(states, k=TOP).names

    return Reader(PROBE if encoder == "auto" else f"{PROBE}-{encoder}", read, ("states", "layer"))


def _linear(material: Material) -> Reader:
    """A ridge classifier over the answers of the training part, trained once for each layer."""
    items, rows = material.drawn.items, material.part("train")
    answers, groups = [items[row].answer for row in rows], [items[row].fact for row in rows]

    @cache
    def fitted(layer: int) -> RidgeProbe:
        return RidgeProbe(seed=material.seed).fit(material.seen.states[layer][rows], answers, groups=groups)

    def read(states: States, layer: int) -> Names:
        return [[str(name)] for name in fitted(layer).predict(states)]

    return Reader("linear", read, ("states", "layer"))


def _to_rows(material: Material, X: States, answers: list[str]) -> Callable[[States], Names]:
    """Fit features to the unembedding rows of answers; the concept whose row is nearest by angle is read."""
    concepts = material.drawn.concepts
    place = {name: at for at, name in enumerate(concepts)}

    def moments(part: str) -> Moments:
        rows = material.part(part)
        targets = material.rows[[place[answers[row]] for row in rows]]
        return Moments(X.shape[1], material.rows.shape[1]).add(X[rows], targets)

    centre = material.rows.mean(dim=0)
    known = torch.nn.functional.normalize(material.rows - centre, dim=1)
    fitted = fit_translator(moments("train"), moments("validation"))

    def read(states: States) -> Names:
        found = fitted(states).to(known.dtype) - centre
        return [[concepts[at]] for at in (found @ known.T).argmax(dim=1).tolist()]

    return read


def _ridge(material: Material) -> Reader:
    fitted = cache(lambda layer: _to_rows(material, material.seen.states[layer], material.answers))
    return Reader("ridge", lambda states, layer: fitted(layer)(states), ("states", "layer"))


def _shuffled(material: Material) -> Reader:
    """The same ridge on answers exchanged between facts, in training and in validation."""
    items, answers = material.drawn.items, list(material.answers)
    for part in ("train", "validation"):
        rows = material.part(part)
        given: Any = {"groups": [items[row].fact for row in rows], "seed": material.seed}
        for row, answer in zip(rows, shuffled_labels([answers[row] for row in rows], **given), strict=True):
            answers[row] = answer
    fitted = cache(lambda layer: _to_rows(material, material.seen.states[layer], answers))
    return Reader("shuffled", lambda states, layer: fitted(layer)(states), ("states", "layer"))


def _subject(material: Material) -> Reader:
    """The same ridge on the subject's own embedding: what needs no layer of the model at all."""
    X = material.subject_rows([item.text for item in material.drawn.items])
    fitted = _to_rows(material, X, material.answers)
    return Reader("subject", lambda prompts: fitted(material.subject_rows(prompts)), ("prompts",))


_TRUE = "true statements"
QUICK = ("logit", "translator", "embedding", "ridge")
"""Lenses and encoders that are in ``all``."""
_ROWS = (
    *(
        ReaderRow(
            row.name,
            row.description,
            row.fitted,
            "free",
            partial(_lens, row.name),
            row.name in QUICK,
        )
        for row in LENSES.values()
    ),
    ReaderRow(
        "translator-prompts",
        "the translator, fitted on the protocol's own training prompts instead",
        "prompts without their answers",
        "free",
        _translator_of_prompts,
    ),
    ReaderRow(
        PROBE,
        "a Hyperdimensional Probe: a map into a space of concepts",
        _TRUE,
        "labels",
        partial(_probe, "auto"),
        False,
    ),
    *(
        ReaderRow(
            f"{PROBE}-{name}",
            f"the probe by the encoder {name}: {row.description}",
            "prompts without their answers" if name == "translator" else _TRUE,
            "free" if name == "translator" else "labels",
            partial(_probe, name),
            name in QUICK,
        )
        for name, row in ENCODERS.items()
    ),
    ReaderRow("ridge", "ridge regression to the answer's unembedding row", _TRUE, "labels", _ridge),
    ReaderRow(
        "linear", "a ridge classifier: it can only say answers it was trained on", _TRUE, "labels", _linear
    ),
    ReaderRow(
        "shuffled",
        "the ridge to unembedding rows, trained on exchanged answers",
        "false statements",
        "control",
        _shuffled,
    ),
    ReaderRow(
        "subject",
        "the ridge to unembedding rows, on the subject's own embedding instead of a state",
        _TRUE,
        "control",
        _subject,
        layered=False,
    ),
)
READERS: Mapping[str, ReaderRow] = {row.name: row for row in _ROWS}
"""Every reader by name, lenses first; any callable is one too (:class:`interp.audit.Reader`)."""


def reader_names() -> tuple[str, ...]:
    """What ``--reader`` takes."""
    return tuple(READERS)


def of_all() -> tuple[str, ...]:
    """The readers that ``all`` stands for."""
    return tuple(name for name, row in READERS.items() if row.quick)


def encoder_named(name: str) -> str | None:
    """The encoder of a Hyperdimensional Probe that a reader's name stands for; None of another reader."""
    if name == PROBE:
        return "auto"
    encoder = name.removeprefix(f"{PROBE}-")
    return encoder if encoder != name else None


def make(name: str, material: Material) -> Reader:
    """Make a ready reader.

    Args:
        name: a row of ``READERS``.
        material: what it is made of.

    Raises:
        ConfigError: no such row.
    """
    if name not in READERS:
        raise ConfigError(f"reader {name!r} asked; there are: {', '.join(READERS)}, and any callable.")
    return READERS[name].make(material)
