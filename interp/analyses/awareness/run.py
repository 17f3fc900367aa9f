"""Run the recipe: sources left out, controls without the model, the model asked, an untrained twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.analyses.awareness.asking import Purpose, asked
from interp.analyses.awareness.folds import Layers, LeftOut, across_sources, area
from interp.analyses.awareness.result import AwarenessResult
from interp.analyses.monitoring.messages import messages_of, states_of
from interp.analyses.monitoring.sources import WORDLESS, read_without_model, source_folds
from interp.analyses.monitoring.talks import Talks, check_two, read_talks
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model, untrained_model
from interp.models.model import Model
from interp.paths import assets
from interp.results import About
from interp.sites import parse_layers
from probes.linear import LinearProbe
from probes.table import PROBES

__all__ = ["ALARM", "awareness", "bundled"]

ALARM, PROBE, TWIN, ASKED = "evaluation", "probe", "random weights", "the model asked"
CONTENT = "role:user & content"
DOSES = (0.25, 0.5, 1.0, 2.0)


def bundled() -> Talks:
    """The prompts that come with the toolkit: twelve sources, six of either label."""
    return read_talks(*sorted(assets("awareness").glob("*.jsonl")), name="evaluation-awareness")


def awareness(
    model: ModelLike,
    talks: Talks | None = None,
    *,
    alarm: str = ALARM,
    layers: str = "25%,50%,75%",
    positions: str = "",
    kind: str = "mean-difference",
    twin: bool = True,
    steer: bool = False,
    seed: int = 0,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> AwarenessResult:
    """Ask whether the mean state of a prompt tells an evaluation from a user, on sources left out.

    Of sources with one label each, some of either label are left out at a time; of sources with both, one.
    Each is left out once, and a group that is tested is not trained on. The layer is chosen on the other
    sources alone. Beside it, on the same sources: a bag of words, the length, the format, the model itself
    asked what the prompt was written for, and the same probe with random weights.

    Args:
        model: what is read.
        talks: prompts with labels and sources; the bundled ones where left out.
        alarm: the label that is looked for.
        layers: which blocks' ``resid_post``.
        positions: a selector; the user's content, or all tokens of a text, where left out.
        kind: of linear probe.
        twin: whether the same architecture with random weights is read too.
        steer: whether the direction is also added at several doses while the model is asked in both orders of
            the answers, beside random directions (:func:`interp.analyses.steering.evaluate`).
        seed: of probes and draws.
        batch_size: as for ``Model.capture``.
        progress: show progress bars.

    Raises:
        ConfigError: a kind that is no linear probe.
        DataError: labels that are not two, or too few sources.
        SiteError: a layer the model does not have.
    """
    model, talks = as_model(model), talks or bundled()
    check_two(talks, alarm)
    if kind not in PROBES or not issubclass(PROBES[kind].load(), LinearProbe):
        known = [name for name, row in PROBES.items() if issubclass(row.load(), LinearProbe)]
        raise ConfigError(f"kind {kind!r} asked; the recipe reads a direction: {', '.join(known)}.")
    positions = talks.positions(positions, CONTENT)
    positive = np.array([label == alarm for label in talks.labels])
    chosen = parse_layers(layers, model.n_layers, name=model.name, kind="resid_post")
    folds = source_folds(positive, talks.sources, talks.groups)
    states = _states(model, talks, positions, chosen, batch_size, progress)
    found = across_sources(states, positive, talks.sources, talks.groups, kind=kind, seed=seed)
    rivals = _without_model(model, talks, positions, positive, seed)
    scores = asked(model, talks.prompts, batch_size=batch_size)
    rivals[ASKED] = _rows(folds, [area(positive, scores[fold.test], talks.groups, fold) for fold in folds])
    if twin:
        other = untrained_model(model)
        theirs = _states(other, talks, positions, chosen, batch_size, progress)
        rivals[TWIN] = across_sources(theirs, positive, talks.sources, talks.groups, kind=kind, seed=seed)
    steered = _steered(model, talks, positive, positions, found, seed, progress) if steer else None
    return AwarenessResult(
        alarm=alarm,
        kind=kind,
        positions=positions,
        layers=tuple(chosen),
        found=found,
        rivals=rivals,
        steering=steered,
        about=About(model=model.described, data=talks.described),
        seed=seed,
        warnings=model.warnings,
    )


def _states(
    model: Model, talks: Talks, positions: str, layers: Sequence[int], batch_size: str | int, progress: bool
) -> Layers:
    """The mean state of the selected tokens of every prompt, layer by layer."""
    messages = messages_of(model, talks.prompts, positions)
    sites = [f"resid_post.{layer}" for layer in layers]
    found = states_of(model, messages, sites, batch_size=batch_size, progress=progress)
    talk = np.asarray(messages.talk)
    means: dict[int, np.ndarray] = {}
    for layer, site in zip(layers, sites, strict=True):
        data = found[site]
        total, count = np.zeros((len(talks), data.shape[1])), np.zeros(len(talks))
        np.add.at(total, talk, data.states.sum(axis=1))
        np.add.at(count, talk, data.lengths)
        means[layer] = total / count[:, None]
    return means


def _rows(folds: Any, areas: Sequence[tuple[float, float, float]]) -> tuple[LeftOut, ...]:
    pairs = zip(folds, areas, strict=True)
    return tuple(LeftOut(fold.name, -1, *ends, len(fold.test)) for fold, ends in pairs)


def _without_model(
    model: Model, talks: Talks, positions: str, positive: np.ndarray, seed: int
) -> dict[str, tuple[LeftOut, ...]]:
    """What words, length and format read of the same sources."""
    messages = messages_of(model, talks.prompts, positions)
    ids: list[tuple[int, ...]] = [()] * len(talks)
    for talk, row in zip(messages.talk, messages.ids, strict=True):
        ids[talk] += row
    folds, found = source_folds(positive, talks.sources, talks.groups), {}
    for name, row in WORDLESS.items():
        scores = [
            read_without_model(row, ids, talks.texts, positive, talks.groups, fold, seed=seed)
            for fold in folds
        ]
        pairs = zip(folds, scores, strict=True)
        found[name] = _rows(folds, [area(positive, one, talks.groups, fold) for fold, one in pairs])
    return found


def _steered(
    model: Model,
    talks: Talks,
    positive: np.ndarray,
    positions: str,
    found: Sequence[LeftOut],
    seed: int,
    progress: bool,
) -> Any:
    """Add the direction of all sources but the first left out, while the model is asked about those."""
    from interp.analyses.steering import evaluate
    from interp.steering import fit

    fold = source_folds(positive, talks.sources, talks.groups)[0]
    sides = [
        [_given(talks.prompts[at]) for at in fold.train if positive[at] == side] for side in (True, False)
    ]
    up, down = sides
    vector = fit(model, up, down, f"resid_post.{found[0].layer}", positions=positions, seed=seed)
    chat = bool(getattr(model.tokenizer, "chat_template", None))
    score = Purpose(tuple(talks.prompts[at] for at in fold.test), chat)
    return evaluate(
        model, vector, score, doses=DOSES, beside=("random", "opposite"), seed=seed, progress=progress
    )


def _given(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else list(prompt)
