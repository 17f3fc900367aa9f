"""Probe for concepts: capture, choose a layer on validation, read the test prompts, measure the controls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from interp.activations import Activations
from interp.analyses.audit.twins import bundled_twin
from interp.analyses.concepts import belief as beliefs
from interp.analyses.concepts.controls import BASELINES, CONTROLS, ControlContext
from interp.analyses.concepts.known import Known, ask
from interp.analyses.concepts.result import METRICS, ConceptResult, LayerScore, labelled
from interp.analyses.concepts.trial import (
    Trial,
    by_lens,
    concept_tokens,
    finals_of,
    trial_of,
)
from interp.analyses.controls import Guessing, beyond_guessing, spread
from interp.analyses.multiple_comparisons import Looks, audited, leak_note, many_looks
from interp.analyses.probing.scores import Score
from interp.errors import ConfigError
from interp.models.answers import likeliest, score
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About
from interp.sites import parse_layers
from interp.tasks.protocols import PROTOCOLS, Item, Protocol, ProtocolItems
from interp.tasks.world import World
from probes.evaluation import Audit, Split
from probes.hyperdimensional import ENCODERS, ConceptScores, HyperdimensionalProbe, evaluate
from probes.statistics import Estimate, bootstrap, paired_difference

__all__ = ["probe_concepts"]

SCREEN = {"linear": 1.0, "embedding": 0.03, "translator": 0.1}
"""The one penalty with which layers are compared."""


def probe_concepts(
    model: ModelLike,
    protocol: str = "concept-disjoint",
    *,
    layers: str | int | Sequence[int] = "all",
    encoder: str = "auto",
    seed: int = 0,
    controls: Collection[str] | None = None,
    sizes: tuple[int, int, int] | None = None,
    world: World | None = None,
    random_model: Model | None = None,
    edited: tuple[Model, World] | None = None,
    dimension: int | None = None,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> ConceptResult:
    """Train a Hyperdimensional Probe under a protocol and say what it reads, against its controls.

    Args:
        model: what is read.
        protocol: a key of ``interp.tasks.protocols.PROTOCOLS``.
        layers: which blocks' ``resid_post``; of several, one is chosen on validation.
        encoder: a key of ``probes.hyperdimensional.ENCODERS``; "auto" takes the protocol's own:
            ``translator`` (it learns the model's own final states after the training prompts, and no answer)
            where the question is what the model is about to say; else ``embedding`` for a codebook made from
            embeddings, and ``linear`` for a random one.
        seed: of the prompts, the codebook, every fit and the intervals.
        controls: keys of ``CONTROLS``; the protocol's own and the baselines where left out.
        sizes: prompts for training, validation and test, at most.
        world: the facts; the bundled ones where left out.
        random_model: the same architecture with random weights; made where left out.
        edited: a copy of the model that was taught false facts, and its facts; the bundled model has one.
        dimension: of the hypervectors; 4,096 where left out, 8,192 for a translator.
        batch_size: prompts per forward pass; "auto" chooses.
        progress: show progress bars.

    Raises:
        ConfigError: an unknown protocol, encoder or control; an encoder that the protocol's codebook does
            not allow.
        SiteError: a layer the model does not have.
        DataError: a concept that the tokenizer does not know.
    """
    model = as_model(model)
    row = _checked(protocol, encoder, controls)
    drawn = row.items(seed=seed, world=world, sizes=sizes)
    learner = row.encoder if encoder == "auto" else encoder
    given: Any = {"dimension": dimension, "seed": seed, "batch_size": batch_size, "progress": progress}
    trial, by_layer, known, doubts = _seen(model, row, drawn, learner, _layers(layers, model), **given)
    layer, curve, rights = _chosen(trial, by_layer, row.layer, progress)
    states = by_layer[layer]
    probe, trial = trial.settled(states)
    read = trial.decode(probe, states)
    found = evaluate(read, trial.gold, groups=trial.facts, seed=seed)
    names, notes = _controls(model, row, controls, trial.encoder)
    twin = _twin(model, random_model) if "random-weights" in names else None
    untrained = twin and _untrained(twin, trial, layer, batch_size, progress)
    context = ControlContext(trial, states, probe, untrained, layer)
    said, preferred, right = _own_answers(trial, batch_size) if known is None else _known_answers(trial)
    leakage = _leakage(trial, row)
    notes = (*trial.drawn.notes, *notes, *doubts, found.top1.note, leak_note(leakage), trial.alike)
    result = ConceptResult(
        about=_about(model, row, trial.drawn.items),
        seed=seed,
        protocol=row.name,
        encoder=trial.encoder,
        prompts=trial.drawn.items,
        layer=layer,
        curve=curve,
        top1=found.top1,
        controls=_scores(context, names, found.right, progress),
        metrics=_metrics(found, trial, right) | _every(context, found.right, known),
        floors={"cosine": found.cosine_floor, "bits": found.bits_floor},
        read=tuple(names[0] for names in read.names),
        similarity=tuple(read.similarities[:, 0].tolist()),
        said=tuple(said),
        model_right=tuple(right),
        belief=_beliefs(context, (edited, world), [names[0] for names in read.names], preferred, right),
        guessing=_guessing(trial, read.names),
        leakage=leakage,
        looks=_looks(context, list(curve), rights),
        probe=probe,
        known=known,
        warnings=tuple(filter(None, notes)),
    )
    probe.card_ = result.card()
    return result


def _about(model: Model, row: Protocol, items: tuple[Item, ...]) -> About:
    data = labelled(row, items)
    facts = {"n": len(data), "groups": len(set(data.groups)), "fingerprint": data.fingerprint}
    return About(model.described, {"name": data.name, "description": data.description, **facts})


def _checked(protocol: str, encoder: str, controls: Collection[str] | None) -> Protocol:
    for name, asked, known in (("protocol", protocol, PROTOCOLS), ("encoder", encoder, ("auto", *ENCODERS))):
        if asked not in known:
            raise ConfigError(f"{name} {asked!r} asked; there are: {', '.join(known)}.")
    if encoder in ("translator", "embedding") and PROTOCOLS[protocol].codebook == "random":
        raise ConfigError(
            f"encoder {encoder!r} asked, which reads concepts by the model's embeddings, and the codebook "
            f"of protocol {protocol!r} is random; take another encoder, or one of the protocols "
            f"{', '.join(name for name, row in PROTOCOLS.items() if row.codebook != 'random')}."
        )
    for name in controls or ():
        if name not in CONTROLS:
            raise ConfigError(f"control {name!r} asked; the controls are: {', '.join(CONTROLS)}.")
    return PROTOCOLS[protocol]


def _layers(layers: str | int | Sequence[int], model: Model) -> list[int]:
    text = layers if isinstance(layers, str | int) else ",".join(map(str, layers))
    return parse_layers(text, model.n_layers, name=model.name, kind="resid_post")


def _controls(
    model: Model, row: Protocol, asked: Collection[str] | None, encoder: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = (*row.controls, *BASELINES) if asked is None else tuple(asked)
    if asked is None and encoder != "translator":  # such a probe is a labelled one itself
        names = tuple(name for name in names if name != "labelled")
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


def _untrained(twin: Model, trial: Trial, layer: int, batch_size: str | int, progress: bool) -> torch.Tensor:
    """The states of the model with random weights, of the prompts that a control learns or is read on."""
    rows = [*trial.learned("train"), *trial.learned("validation"), *trial.rows("test")]
    tokens = twin.tokenize([list(trial.token_ids[row]) for row in rows])
    found = _captured(twin, tokens, [layer], batch_size, progress)[f"resid_post.{layer}"]
    whole = torch.zeros(len(trial.token_ids), found.shape[1])
    whole[rows] = found
    return whole


def _seen(
    model: Model,
    row: Protocol,
    drawn: ProtocolItems,
    encoder: str,
    layers: Sequence[int],
    *,
    dimension: int | None,
    seed: int,
    batch_size: str | int,
    progress: bool,
) -> tuple[Trial, Mapping[int, torch.Tensor], Known | None, tuple[str, ...]]:
    """The trial, the states of each layer, what the model knows where it is asked, and doubts about them."""
    known, seen = None, None
    if row.asked == "answers":
        drawn, known, seen = ask(model, drawn, layers, seed=seed, batch_size=batch_size)
    tokens, last = model.tokenize([item.text for item in drawn.items]), model.n_layers - 1
    given: Any = {"dimension": dimension, "seed": seed}
    trial = trial_of(model, drawn, row.codebook, tokens.token_ids, encoder, **given)
    if seen is not None:
        return replace(trial, seen=seen, finals=seen.finals), seen.states, known, ()
    translates = trial.encoder == "translator"
    acts = _captured(model, tokens, sorted({*layers, last} if translates else layers), batch_size, progress)
    if translates:
        trial = replace(trial, finals=finals_of(model, acts[f"resid_post.{last}"]))
    return trial, {layer: acts[f"resid_post.{layer}"] for layer in layers}, known, tuple(acts.warnings)


def _chosen(
    trial: Trial, states: Mapping[int, torch.Tensor], how: str, progress: bool
) -> tuple[int, dict[int, LayerScore], list[np.ndarray]]:
    """Choose a layer on validation prompts, with one penalty for all.

    Args:
        trial: the prompts.
        states: of each layer.
        how: a key of ``interp.tasks.protocols.LAYERS``.
        progress: show a progress bar.
    """
    if len(states) == 1:
        return next(iter(states)), {}, []
    screen = replace(trial, regularisation=SCREEN.get(trial.encoder))
    curve: dict[int, LayerScore] = {}
    rights: list[np.ndarray] = []
    for layer, here in tqdm(states.items(), desc="layers", disable=not progress):
        fitted = screen.fit(here)
        names = [found[0] for found in screen.decode(fitted, here).names]
        rights.append(screen.right(names))
        estimate = bootstrap(rights[-1], groups=trial.facts, seed=trial.seed)
        ahead = _ahead(trial, fitted, here) if how == "ahead" else None
        curve[layer] = LayerScore(_validated(trial, fitted, here), estimate, ahead)
    return max(curve, key=lambda at: curve[at].chosen_by), curve, rights


def _ahead(trial: Trial, fitted: HyperdimensionalProbe, states: torch.Tensor) -> float:
    """The share of validation prompts that the probe reads right, less that of the logit lens."""
    rows = trial.rows("validation")
    gold = [trial.drawn.items[row].answer for row in rows]
    own = [names[0] for names in fitted.decode(states[rows], k=1).names]
    lens = by_lens(trial.model, states[rows], trial.codebook.names)
    gained = [(a == name) - (b == name) for a, b, name in zip(own, lens, gold, strict=True)]
    return sum(gained) / len(gained)


def _validated(trial: Trial, fitted: HyperdimensionalProbe, states: torch.Tensor) -> float:
    """The mean reciprocal rank of the right concept on validation.

    A translator's own score is another: how much of the final states' variance it explains.
    """
    if trial.encoder != "translator":
        return float(fitted.fitted_.notes["validation_score"])
    rows = trial.rows("validation")
    gold = [trial.drawn.items[row].answer for row in rows]
    return evaluate(fitted.decode(states[rows]), gold, seed=trial.seed).mrr.value


def _scores(
    context: ControlContext, names: Sequence[str], probe: np.ndarray, progress: bool
) -> tuple[Score, ...]:
    """Every control and baseline, with what the probe has over it."""
    todo = tqdm(names, desc="controls", disable=not progress)
    return tuple(_score(context, name, CONTROLS[name].read(context), probe) for name in todo)


def _score(context: ControlContext, name: str, right: np.ndarray, probe: np.ndarray) -> Score:
    """What a control reads right; of one that was drawn many times, the mean and the spread of its draws."""
    given: Any = {"groups": context.trial.facts, "seed": context.trial.seed}
    drawn = right.ndim == 2
    found = spread(right, context.trial.facts) if drawn else bootstrap(right, **given)
    own = right.mean(axis=0) if drawn else right
    return Score(
        context.layer,
        name,
        found.value,
        found,
        paired_difference(probe, own, support="share", **given),
        draws=tuple(right.mean(axis=1).tolist()) if drawn else (),
    )


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


def _metrics(found: ConceptScores, trial: Trial, right: Sequence[bool]) -> dict[str, Estimate]:
    """The further scores of the probe, those of unseen concepts alone among them."""
    named = {name: getattr(found, name) for name in METRICS if hasattr(found, name)}
    named["model"] = bootstrap(np.array(right, dtype=np.int64), groups=trial.facts, seed=trial.seed)
    new = np.array([item.answer not in trial.drawn.trained for item in trial.test])
    if new.any() and not new.all():
        groups = [fact for fact, here in zip(trial.facts, new, strict=True) if here]
        named["unseen"] = bootstrap(found.right[new], groups=groups, seed=trial.seed)
    return {name: one for name, one in named.items() if one is not None}


def _known_answers(trial: Trial) -> tuple[list[str], list[str], list[bool]]:
    """What :func:`_own_answers` gives where only prompts are kept that the model answers right."""
    return [item.output for item in trial.test], trial.gold, [True] * len(trial.test)


def _every(context: ControlContext, right: np.ndarray, known: Known | None) -> dict[str, Estimate]:
    """Top-1 on every test prompt that was asked, and the share of them that the model answers right."""
    if known is None:
        return {}
    trial = context.trial
    items, rows = trial.drawn.part("unanswered"), trial.rows("unanswered")
    read = [names[0] for names in context.probe.decode(context.states[rows], k=1).names] if rows else []
    own = [int(name == item.answer) for name, item in zip(read, items, strict=True)]
    given: Any = {"groups": [*trial.facts, *(item.fact for item in items)], "seed": trial.seed}
    answered = np.repeat([1, 0], [len(right), len(own)])
    return {
        "asked": bootstrap(np.array([*right, *own], dtype=np.int64), **given),
        "model": bootstrap(answered, **given),
    }


def _leakage(trial: Trial, row: Protocol) -> Audit:
    """Audit the prompts, apart from what belongs to the protocol."""
    items = trial.drawn.items
    return audited(
        [item.text for item in items],
        [item.answer for item in items],
        Split.from_names([item.part for item in items]),
        groups=[item.fact for item in items],
        expected=row.leaks,
    )


def _looks(context: ControlContext, layers: Sequence[int], rights: Sequence[np.ndarray]) -> Looks | None:
    """How sure the best layer on test is, against the mean prediction."""
    if not rights:
        return None
    trial, control = context.trial, CONTROLS["constant"]
    constant = control.read(context)
    return many_looks(layers, rights, constant, groups=trial.facts, against=control.words, seed=trial.seed)


def _twin(model: Model, given: Model | None) -> Model:
    from interp.models.loading import untrained_model

    return given if given is not None else untrained_model(model)


def _own_answers(trial: Trial, batch_size: str | int) -> tuple[list[str], list[str], list[bool]]:
    """The model's next token, the concept it prefers, and whether it writes the expected one, all of it."""
    model, items = trial.model, trial.test
    tokens = model.tokenize([item.text for item in items])
    names = trial.codebook.names
    preferred = likeliest(model, tokens, concept_tokens(model, names), batch_size=batch_size)
    wanted = concept_tokens(model, [item.output or item.answer for item in items])
    own = score(model, tokens, wanted, batch_size=batch_size)
    said = [_text(model, token) for token in own.said.tolist()]
    return said, [names[at] for at in preferred], own.likeliest.tolist()


def _text(model: Model, token: int) -> str:
    assert model.tokenizer is not None
    return str(model.tokenizer.decode([token])).strip()


def _beliefs(
    context: ControlContext,
    given: tuple[tuple[Model, World] | None, World | None],
    read: Sequence[str],
    preferred: Sequence[str],
    right: Sequence[bool],
) -> tuple[beliefs.Belief, ...]:
    """What is read where the model errs, and from a twin that was taught false facts.

    Args:
        context: of the probe.
        given: the twin with its facts, and the facts of the prompts; None for the bundled ones.
        read: the concept read from each test prompt.
        preferred: the concept that the model itself prefers.
        right: whether it answers as expected.
    """
    trial, (edited, world) = context.trial, given
    analogies = all(item.shown for item in trial.test)
    own = all(item.output in ("", item.answer) for item in trial.test)
    found = [beliefs.of_errors(trial, read, preferred, [not ok for ok in right])] if own else []
    twin = edited or (bundled_twin(trial.model) if analogies and world is None else None)
    if twin is not None and analogies:
        found.insert(0, beliefs.of_edited_twin(trial, context.probe, *twin, context.layer))
    return tuple(entry for entry in found if entry is not None)
