"""Readers of a layer that are compared in one table: what each fits, and whether it needs labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float

from interp.analyses.concepts.trial import Trial, by_lens, preferred, subject_embeddings
from interp.lenses.translator import TranslatorLens
from interp.models.readout import Readout
from probes.controls import shuffled_labels
from probes.translation import Moments, fit_translator

__all__ = ["ARMS", "Arm", "LayerView"]


@dataclass(frozen=True, eq=False)
class LayerView:
    """What a reader may learn from at one layer.

    Attributes:
        trial: prompts and concepts.
        layer: the block whose ``resid_post`` is read.
        states: at the last token of every prompt.
        moments: of the states with the model's final states, at every token but the first of the prompts for
            training and for validation; None after the last block.
        readout: the model's final norm and head.
        tokens: the first token of each concept.
        rows: of the unembedding, the mean over each concept's tokens.
    """

    trial: Trial
    layer: int
    states: Float[torch.Tensor, "example d_model"]
    moments: tuple[Moments, Moments] | None
    readout: Readout
    tokens: tuple[int, ...]
    rows: Float[torch.Tensor, "concept d_model"]

    @property
    def tested(self) -> Float[torch.Tensor, "test d_model"]:
        """The states of the test prompts."""
        return self.states[self.trial.rows("test")]


def _logit_lens(view: LayerView) -> list[str]:
    return by_lens(view.trial.model, view.tested, view.trial.codebook.names)


def _translator(view: LayerView) -> list[str]:
    """The concept whose first token the translated state prefers."""
    readout = view.readout
    final: Callable[[torch.Tensor], torch.Tensor] = readout.normed
    if view.moments is not None:
        train, held = view.moments
        final = fit_translator(train, held)
    best = preferred(readout, final, view.tested, view.tokens)
    return [view.trial.codebook.names[at] for at in best]


def _translator_of_text(view: LayerView) -> list[str]:
    """The same by the translator that is kept for the model, which has seen no prompt of the protocol."""
    lens = TranslatorLens.of(view.trial.model, [view.layer])
    logs = lens.log_probabilities(view.tested, view.layer)
    best = torch.cat([found[:, list(view.tokens)].argmax(dim=1).cpu() for _, found in logs])
    return [view.trial.codebook.names[at] for at in best.tolist()]


def _ridge_to_rows(view: LayerView, X: Float[torch.Tensor, "example dim"], answers: list[str]) -> list[str]:
    """Fit features to the unembedding rows of answers, and take the concept whose row is nearest by angle."""
    trial, place = view.trial, {name: at for at, name in enumerate(view.trial.codebook.names)}

    def moments(part: str) -> Moments:
        rows = trial.rows(part)
        targets = view.rows[[place[answers[row]] for row in rows]]
        return Moments(X.shape[1], view.rows.shape[1]).add(X[rows], targets)

    centre = view.rows.mean(dim=0)
    known = torch.nn.functional.normalize(view.rows - centre, dim=1)
    read = fit_translator(moments("train"), moments("validation"))(X[trial.rows("test")])
    read = read.to(known.dtype) - centre
    return [trial.codebook.names[at] for at in (read @ known.T).argmax(dim=1).tolist()]


def _embedding_ridge(view: LayerView) -> list[str]:
    return _ridge_to_rows(view, view.states, [item.answer for item in view.trial.drawn.items])


def _hypervector_ridge(view: LayerView) -> list[str]:
    return _fitted(view, replace(view.trial, encoder="ridge", regularisation=None))


def _labelled(view: LayerView) -> list[str]:
    return _fitted(view, view.trial)


def _fitted(view: LayerView, trial: Trial) -> list[str]:
    return [names[0] for names in trial.decode(trial.fit(view.states), view.states).names]


def _shuffled(view: LayerView) -> list[str]:
    """Train on answers exchanged between facts, in training and in validation; test on the true ones."""
    items = view.trial.drawn.items
    answers = [item.answer for item in items]
    for part in ("train", "validation"):
        rows = view.trial.rows(part)
        given: Any = {"groups": [items[row].fact for row in rows], "seed": view.trial.seed}
        for row, answer in zip(rows, shuffled_labels([answers[row] for row in rows], **given), strict=True):
            answers[row] = answer
    return _ridge_to_rows(view, view.states, answers)


def _subject(view: LayerView) -> list[str]:
    """The same ridge on the subject's own embedding: what needs no layer of the model at all."""
    answers = [item.answer for item in view.trial.drawn.items]
    return _ridge_to_rows(view, subject_embeddings(view.trial), answers)


@dataclass(frozen=True)
class Arm:
    """One reader of the table.

    Attributes:
        name: what ``--encoders`` takes.
        words: what it is, in a line.
        kind: ``free`` needs no label, ``labels`` is trained on answers, ``control`` should read nothing.
        read: the concept read from each test prompt.
        layered: whether it reads a layer; one that does not is measured once.
    """

    name: str
    words: str
    kind: Literal["free", "labels", "control"]
    read: Callable[[LayerView], list[str]]
    layered: bool = True


_ROWS = (
    Arm("logit-lens", "the model's final norm and head on the state as it is", "free", _logit_lens),
    Arm(
        "translator",
        "a linear map to the model's own final state, fitted on every token of the training prompts",
        "free",
        _translator,
    ),
    Arm(
        "translator-text",
        "the same map, fitted on text that the model itself writes: it has seen no prompt like these",
        "free",
        _translator_of_text,
    ),
    Arm(
        "embedding-ridge",
        "ridge regression to the answer's unembedding row",
        "labels",
        _embedding_ridge,
    ),
    Arm("hypervector-ridge", "ridge regression to the answer's hypervector", "labels", _hypervector_ridge),
    Arm("labelled", "the labelled encoder of the Hyperdimensional Probe", "labels", _labelled),
    Arm("shuffled", "the ridge to unembedding rows, trained on exchanged answers", "control", _shuffled),
    Arm(
        "subject",
        "the ridge to unembedding rows, on the subject's own embedding instead of a state",
        "control",
        _subject,
        layered=False,
    ),
)
ARMS: Mapping[str, Arm] = {row.name: row for row in _ROWS}
"""The readers that are compared, those without labels first."""
