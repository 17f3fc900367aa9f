"""Probe for concepts: capture, choose a layer on validation, read the test prompts, measure the controls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from interp.activations import Activations
from interp.analyses.concepts import belief as beliefs
from interp.analyses.concepts.controls import BASELINES, CONTROLS, Stand
from interp.analyses.concepts.result import ConceptResult
from interp.analyses.concepts.summary import by_relation, cells_of, leakage_of, looks_of, metrics_of
from interp.analyses.concepts.trial import Trial
from interp.analyses.concepts.verdict import verdict
from interp.analyses.concepts.vocabulary import codebook_of, concept_tokens
from interp.analyses.guessing import Guessing, beyond_guessing
from interp.analyses.looks import leak_note
from interp.analyses.probing.scores import Score
from interp.analyses.shuffles import spread
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.sites import parse_layers
from interp.tasks.protocols import PROTOCOLS, Protocol
from interp.tasks.world import World
from probes.hyperdimensional import ENCODERS, ConceptScores, Decodings, HyperdimensionalProbe, evaluate
from probes.statistics import bootstrap, paired_difference

__all__ = ["probe_concepts"]


def probe_concepts(
    model: ModelLike,
    protocol: str = "concept-disjoint",
    *,
    layers: str | int | Sequence[int] = "all",
    encoder: str = "linear",
    seed: int = 0,
    controls: Collection[str] | None = None,
    sizes: tuple[int, int, int] | None = None,
    world: World | None = None,
    random_model: Model | None = None,
    edited: tuple[Model, World] | None = None,
    dimension: int = 4096,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> ConceptResult:
    """Train a Hyperdimensional Probe under a protocol and say what it reads, against its controls.

    Args:
        model: what is read.
        protocol: a key of ``interp.tasks.protocols.PROTOCOLS``.
        layers: which blocks' ``resid_post``; of several, one is chosen on validation.
        encoder: a key of ``probes.hyperdimensional.ENCODERS``.
        seed: of the prompts, the codebook, every fit and the intervals.
        controls: keys of ``CONTROLS``; the protocol's own and the baselines where left out.
        sizes: prompts for training, validation and test, at most.
        world: the facts; the bundled ones where left out.
        random_model: the untrained twin; made where left out.
        edited: a twin that believes false facts, and the world it believes in; the bundled model has one.
        dimension: of the hypervectors.
        batch_size: prompts per forward pass; "auto" chooses.
        progress: show progress bars.

    Raises:
        ConfigError: an unknown protocol, encoder or control.
        SiteError: a layer the model does not have.
        DataError: a concept without a token.
    """
    model = as_model(model)
    row = _checked(protocol, encoder, controls)
    drawn = row.items(seed=seed, world=world, sizes=sizes)
    tokens = model.tokenize([item.text for item in drawn.items])
    codebook = codebook_of(model, drawn.concepts, row.codebook, dimension=dimension, seed=seed)
    trial = Trial(model, drawn, codebook, tokens.token_ids, encoder, seed)
    acts = _captured(model, tokens, _layers(layers, model), batch_size, progress)
    layer, curve, rights = _chosen(trial, acts, _layers(layers, model), progress)
    states = acts[f"resid_post.{layer}"]
    probe = trial.fit(states)
    trial = replace(trial, regularisation=probe.fitted_.notes["regularisation"])
    read = trial.decode(probe, states)
    found = evaluate(read, trial.gold, groups=trial.facts, seed=seed)
    names, notes = _controls(model, row, controls)
    twin = _twin(model, random_model) if "random-weights" in names else None
    untrained = twin and _captured(twin, tokens, [layer], batch_size, progress)[f"resid_post.{layer}"]
    stand = Stand(trial, states, probe, untrained, layer)
    guessing = _guessing(trial, read.names)
    scores = tuple(_scores(stand, found, names, progress))
    said, preferred, right = _own_answers(trial, batch_size)
    leakage = leakage_of(trial, row)
    notes = (*drawn.notes, *notes, *acts.warnings, found.top1.note, leak_note(leakage))
    return ConceptResult(
        **_asked(row, encoder, seed),
        model=_facts_of(model, acts),
        layer=layer,
        curve=curve,
        scores=scores,
        metrics=metrics_of(found, trial, right),
        by_relation=by_relation(trial, found, right),
        cells=cells_of(trial, read, said, right),
        belief=_beliefs(stand, edited, read.names, preferred, right),
        items=trial.test,
        **_read(read),
        said=said,
        model_right=right,
        probe=probe,
        selection=_selection(layer, curve),
        verdict=verdict(found.top1, layer, guessing, [s for s in scores if s.difference], row),
        guessing=guessing,
        warnings=tuple(filter(None, notes)),
        leakage=leakage,
        looks=looks_of(stand, list(curve), rights),
    )


def _asked(row: Protocol, encoder: str, seed: int) -> dict[str, Any]:
    return {"protocol": row.name, "question": row.question, "encoder": encoder, "seed": seed}


def _read(read: Decodings) -> dict[str, Any]:
    return {"read": [names[0] for names in read.names], "similarity": read.similarities[:, 0].tolist()}


def _checked(protocol: str, encoder: str, controls: Collection[str] | None) -> Protocol:
    for name, asked, known in (("protocol", protocol, PROTOCOLS), ("encoder", encoder, ENCODERS)):
        if asked not in known:
            raise ConfigError(f"{name} {asked!r} asked; there are: {', '.join(known)}.")
    for name in controls or ():
        if name not in CONTROLS:
            raise ConfigError(f"control {name!r} asked; the controls are: {', '.join(CONTROLS)}.")
    return PROTOCOLS[protocol]


def _layers(layers: str | int | Sequence[int], model: Model) -> list[int]:
    text = layers if isinstance(layers, str | int) else ",".join(map(str, layers))
    return parse_layers(text, model.n_layers, name=model.name, kind="resid_post")


def _controls(
    model: Model, row: Protocol, asked: Collection[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = (*row.controls, *BASELINES) if asked is None else tuple(asked)
    if asked is None and model.weights == "random":
        note = "the model has random weights: the random-weights control is left out"
        return tuple(name for name in names if name != "random-weights"), (note,)
    return names, ()


def _captured(
    model: Model, tokens: Any, layers: Sequence[int], batch_size: str | int, progress: bool
) -> Activations:
    sites = [f"resid_post.{layer}" for layer in layers]
    return model.capture(
        tokens, sites, "last", batch_size=batch_size, device="cpu", dtype=torch.float32, progress=progress
    )


def _chosen(
    trial: Trial, acts: Activations, layers: Sequence[int], progress: bool
) -> tuple[int, dict[int, dict[str, float]], list[np.ndarray]]:
    """Choose the layer whose probe ranks validation answers best, with one penalty for all."""
    if len(layers) == 1:
        return layers[0], {}, []
    screen = replace(trial, regularisation=1.0 if trial.encoder == "linear" else None)
    curve: dict[int, dict[str, float]] = {}
    rights: list[np.ndarray] = []
    for layer in tqdm(layers, desc="layers", disable=not progress):
        states = acts[f"resid_post.{layer}"]
        fitted = screen.fit(states)
        names = [found[0] for found in screen.decode(fitted, states).names]
        rights.append(screen.right(names))
        estimate = bootstrap(rights[-1], groups=trial.facts, seed=trial.seed)
        curve[layer] = {
            "validation": float(fitted.fitted_.notes["validation_score"]),
            "test": estimate.value,
            "low": estimate.interval.low,
            "high": estimate.interval.high,
        }
    return max(curve, key=lambda at: curve[at]["validation"]), curve, rights


def _scores(stand: Stand, found: ConceptScores, names: Sequence[str], progress: bool) -> list[Score]:
    """Give the probe, its controls and baselines with paired differences, and chance."""
    trial, layer = stand.trial, stand.layer
    scores = [_score(layer, "probe", found.right, trial, probe=stand.probe)]
    for name in tqdm(names, desc="controls", disable=not progress):
        scores.append(_score(layer, name, CONTROLS[name].read(stand), trial, against=found.right))
    return [*scores, Score(layer, "chance", _chance(trial))]


def _guessing(trial: Trial, read: Sequence[Sequence[str]]) -> Guessing:
    """Test against guessing: answers exchanged among facts of a relation, or drawn from the candidates."""
    return beyond_guessing(
        trial.gold,
        [names[0] for names in read],
        trial.facts,
        strata=[item.relation for item in trial.test],
        candidates=[item.candidates for item in trial.test],
        seed=trial.seed,
    )


def _selection(layer: int, curve: dict[int, dict[str, float]]) -> str:
    if not curve:
        return f"layer {layer} was the one asked"
    rank = curve[layer]["validation"]
    return f"layer {layer}, the best of {len(curve)} by mean reciprocal rank on validation ({rank:.2f})"


def _score(
    layer: int,
    name: str,
    right: np.ndarray,
    trial: Trial,
    *,
    against: np.ndarray | None = None,
    probe: HyperdimensionalProbe | None = None,
) -> Score:
    given: Any = {"groups": trial.facts, "seed": trial.seed}
    drawn = right.ndim == 2
    found = spread(right, trial.facts) if drawn else bootstrap(right, **given)
    own = right.mean(axis=0) if drawn else right
    difference = None if against is None else paired_difference(against, own, support="share", **given)
    held = None if probe is None else float(probe.fitted_.notes["validation_score"])
    draws = tuple(right.mean(axis=1).tolist()) if drawn else ()
    return Score(layer, name, found.value, found, difference, held, draws)


def _chance(trial: Trial) -> float:
    """Give one over the concepts, or over those the prompt narrows the answer to."""
    return float(np.mean([1 / (len(item.candidates) or len(trial.codebook)) for item in trial.test]))


def _twin(model: Model, given: Model | None) -> Model:
    from interp.models.loading import load

    return given if given is not None else load(model.hf, weights="random", tokenizer=model.tokenizer)


def _own_answers(trial: Trial, batch_size: str | int) -> tuple[list[str], list[str], list[bool]]:
    """Give the model's next token, the concept it prefers, and whether the token is the expected one."""
    model, items = trial.model, trial.test
    logits = model.logits([item.text for item in items], batch_size=batch_size).cpu()
    first = torch.tensor([ids[0] for ids in concept_tokens(model, trial.codebook.names)])
    wanted = [ids[0] for ids in concept_tokens(model, [item.output or item.answer for item in items])]
    top = logits.argmax(dim=1).tolist()
    preferred = [trial.codebook.names[i] for i in logits[:, first].argmax(dim=1).tolist()]
    said = [_text(model, token) for token in top]
    return said, preferred, [a == b for a, b in zip(top, wanted, strict=True)]


def _text(model: Model, token: int) -> str:
    assert model.tokenizer is not None
    return str(model.tokenizer.decode([token])).strip()


def _beliefs(
    stand: Stand,
    edited: tuple[Model, World] | None,
    read: Sequence[Sequence[str]],
    preferred: Sequence[str],
    right: Sequence[bool],
) -> tuple[dict[str, Any], ...]:
    trial, names = stand.trial, [ranked[0] for ranked in read]
    analogies = all(item.shown for item in trial.test)
    own = all(item.output in ("", item.answer) for item in trial.test)
    found = [beliefs.of_errors(trial, names, preferred, [not ok for ok in right])] if own else []
    given = edited or (_bundled(trial.model) if analogies else None)
    if given is not None and analogies:
        found.insert(0, beliefs.of_edited_twin(trial, stand.probe, *given, stand.layer))
    return tuple(entry.to_dict() for entry in found if entry is not None)


def _bundled(model: Model) -> tuple[Model, World] | None:
    """Give the edited twin of the bundled model and its world; None for any other weights."""
    if model.fingerprint != _bundled_fingerprint():
        return None
    from interp.demo.edit import edited_world
    from interp.models.loading import load

    return load("demo", weights="edited"), edited_world()


@cache
def _bundled_fingerprint() -> str:
    from interp.models.loading import load

    return load("demo").fingerprint


def _facts_of(model: Model, acts: Activations) -> dict[str, Any]:
    return {
        "name": model.name,
        "weights": model.weights,
        "fingerprint": acts.fingerprint,
        "tokenizer_fingerprint": model.tokenizer_fingerprint,
        "scheme": acts.scheme,
    }
