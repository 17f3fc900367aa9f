"""Audit readers: draw the cases, capture the arms, let every reader read them, and judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from interp.activations import Activations
from interp.analyses.audit.arms import Arms, carries, partners_of
from interp.analyses.audit.cases import Case, edited_cases, hits
from interp.analyses.audit.result import AuditResult
from interp.analyses.audit.rule import Audit, judge
from interp.analyses.audit.twins import bundled_twin
from interp.analyses.concepts.trial import concept_tokens, one_first_token
from interp.analyses.readers.material import Material
from interp.analyses.readers.reader import Names, Reader, as_reader
from interp.analyses.readers.table import make
from interp.errors import ConfigError, DataError
from interp.models.answers import score
from interp.models.loading import ModelLike, as_model, untrained_model
from interp.models.model import Model
from interp.results import About
from interp.sites import parse_layers
from interp.tasks import load_world
from interp.tasks.protocols import PROTOCOLS, ProtocolItems
from interp.tasks.world import World
from probes.statistics import Estimate, paired_difference

__all__ = ["LENS", "reader"]

AnyReader = str | Reader | Callable[..., Names]
LENS = "logit"
"""The reader that the others are compared with: it knows no fact, and reads nothing ahead."""


def reader(
    reader: AnyReader | Sequence[AnyReader],
    model: ModelLike,
    *,
    edited: tuple[ModelLike, World] | None = None,
    protocol: str = "concept-disjoint",
    layers: str | int | Sequence[int] = "all",
    world: World | None = None,
    drawn: ProtocolItems | None = None,
    cases: Sequence[Case] | None = None,
    random_model: Model | None = None,
    seed: int = 0,
    limit: int | None = None,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> AuditResult:
    """Say of a reader whether it reads the model, the prompt, the world, or nothing.

    The reader is given states at the last token of prompts about facts that an edited twin of the model was
    taught falsely, in five arms (``interp.analyses.audit.rule.ARMS``): of the model, of the twin, of the same
    architecture with random weights, of another prompt of the relation, and one constant state. What it names
    is compared with the twin's belief, the truth, the names that stand in the prompt, and with the same
    targets of other facts of the relation (permuted names). :func:`interp.analyses.audit.rule.judge` states
    the decision rule.

    Args:
        reader: a callable with parameters out of ``states`` (``[example d_model]``, float32), ``prompts``
            and ``layer``, that gives for each state its names, the likeliest first (none to abstain); a
            ``Reader``; a name of ``interp ls readers``; or several of these.
        model: whose states are read.
        edited: a copy that was taught false facts, and what it was taught; the bundled model has one.
        protocol: which analogies; a reader that is trained learns from its training part alone.
        layers: which blocks' ``resid_post``.
        world: the true facts; the bundled ones where left out.
        drawn: the prompts that readers are trained on, and all names; the protocol's where left out.
        cases: the prompts; analogies of the protocol where left out.
        random_model: the same architecture with random weights; made where left out.
        seed: of the cases, the partners, every fit and the exchange tests.
        limit: so many cases at most, those of some facts.
        batch_size: prompts per pass; "auto" chooses.
        progress: show a progress bar.

    Raises:
        ConfigError: no edited twin, or an unknown protocol or reader.
        DataError: no case that the model answers rightly and the twin falsely, or a reader that does not
            give one list of names for each state.
        SiteError: a layer the model does not have.
    """
    model = as_model(model)
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol {protocol!r} asked; there are: {', '.join(PROTOCOLS)}.")
    twin, taught = _twin(model, edited)
    row, true = PROTOCOLS[protocol], load_world() if world is None else world
    drawn = row.items(seed=seed, world=world) if drawn is None else drawn
    asked = list(edited_cases(drawn, true, taught, seed=seed) if cases is None else cases)
    kept = _limited(_held(model, twin, asked, batch_size), limit, seed)
    chosen = tuple(_layers(layers, model))
    whom = {case.text: case.standing[0] for case in kept if case.standing}
    material = Material(model, drawn, chosen, row.codebook, seed, batch_size, subjects=whom)
    readers = [_reader(one, material) for one in _several(reader)]
    if len({one.name for one in readers}) < len(readers):
        raise ConfigError(f"two readers of one name: {', '.join(one.name for one in readers)}. Rename one.")
    arms = _arms(model, twin, random_model, kept, chosen, seed, batch_size)
    lens = make(LENS, material)
    found: list[Audit] = []
    for one in tqdm(arms, desc="layers", disable=not progress):
        found += _at_layer(one, readers, lens, seed)
    name = protocol if cases is None else "facts that the model knows"
    facts = {"n": len(kept), "groups": len({case.fact for case in kept}), "asked": len(asked)}
    return AuditResult(
        about=About(model.described, {"name": name, "description": "facts the twin was taught", **facts}),
        seed=seed,
        protocol=protocol,
        twin=dict(twin.described),
        audits=tuple(found),
        warnings=tuple(filter(None, (one_first_token(concept_tokens(model, drawn.concepts)),))),
    )


def _twin(model: Model, edited: tuple[ModelLike, World] | None) -> tuple[Model, World]:
    given = bundled_twin(model) if edited is None else edited
    if given is None:
        raise ConfigError(
            f"{model.name!r} has no edited twin. Give edited=(twin, its facts): "
            "interp.demo.edit makes the bundled model's."
        )
    twin = as_model(given[0])
    if (twin.n_layers, twin.d_model) != (model.n_layers, model.d_model):
        raise ConfigError(
            f"the twin has {twin.n_layers} layers of width {twin.d_model}, the model {model.n_layers} of "
            f"{model.d_model}; give a copy of the model that was taught something else."
        )
    if twin.fingerprint == model.fingerprint:
        raise ConfigError(
            "the twin has the very weights of the model; give a copy that was taught something."
        )
    return twin, given[1]


def _layers(layers: str | int | Sequence[int], model: Model) -> list[int]:
    text = layers if isinstance(layers, str | int) else ",".join(map(str, layers))
    return parse_layers(text, model.n_layers, name=model.name, kind="resid_post")


def _several(reader: AnyReader | Sequence[AnyReader]) -> list[AnyReader]:
    if isinstance(reader, str | Reader) or callable(reader):
        return [reader]
    return list(reader)


def _reader(one: AnyReader, material: Material) -> Reader:
    return make(one, material) if isinstance(one, str) else as_reader(one)


def _held(model: Model, twin: Model, cases: Sequence[Case], batch_size: str | int) -> list[Case]:
    """The cases that the model answers with the truth and the twin with the belief."""
    if not cases:
        raise DataError("no fact of the protocol's test part was edited; ask another protocol or twin.")
    texts = [case.text for case in cases]
    truths, beliefs = [case.truth for case in cases], [case.belief for case in cases]
    right = score(model, texts, concept_tokens(model, truths), batch_size=batch_size).likeliest
    believed = score(twin, texts, concept_tokens(twin, beliefs), batch_size=batch_size).likeliest
    found = [case for case, ok in zip(cases, (right & believed).tolist(), strict=True) if ok]
    if not found:
        raise DataError(
            f"of {len(cases)} prompts about edited facts the model answers {int(right.sum())} with the truth "
            f"and the twin {int(believed.sum())} with what it was taught, none of them both: there is "
            "nothing to tell belief from truth by."
        )
    return found


def _limited(cases: list[Case], limit: int | None, seed: int) -> list[Case]:
    """The cases of so many facts that they stay within a limit."""
    if limit is None or len(cases) <= limit:
        return cases
    facts = list(dict.fromkeys(case.fact for case in cases))
    order = np.random.default_rng(seed).permutation(len(facts))
    kept: set[str] = set()
    count = {fact: sum(case.fact == fact for case in cases) for fact in facts}
    for at in order:
        if sum(count[fact] for fact in kept) + count[facts[at]] <= limit:
            kept.add(facts[at])
    return [case for case in cases if case.fact in kept]


def _arms(
    model: Model,
    twin: Model,
    random_model: Model | None,
    cases: Sequence[Case],
    layers: Sequence[int],
    seed: int,
    batch_size: str | int,
) -> list[Arms]:
    """The states of every origin, layer by layer."""
    texts, sites = [case.text for case in cases], [f"resid_post.{layer}" for layer in layers]
    untrained = random_model or untrained_model(model)
    given: Any = {"batch_size": batch_size, "device": "cpu", "dtype": torch.float32}
    found: list[Activations] = [
        one.capture(texts, sites, "last", **given) for one in (model, twin, untrained)
    ]
    partners = partners_of(cases, seed=seed)
    made: list[Arms] = []
    for layer, site in zip(layers, sites, strict=True):
        own, other, none = (one[site] for one in found)
        carried = carries(model, other, cases, layer, batch_size=batch_size)
        made.append(Arms(layer, tuple(cases), own, other, none, partners, carried))
    return made


def _at_layer(arms: Arms, readers: Sequence[Reader], lens: Reader, seed: int) -> list[Audit]:
    """Judge every reader at one layer, and compare it with the logit lens."""
    plain = arms.read(lens)
    found: list[Audit] = []
    for reader in readers:
        own = reader.name == lens.name
        read = plain if own else arms.read(reader)
        one = judge(reader.name, arms.layer, arms.cases, read, arms.partners, arms.carried, seed=seed)
        found.append(replace(one, over_lens=None if own else _over(arms.cases, read, plain)))
    return found


def _over(
    cases: Sequence[Case], read: Mapping[str, Sequence[str]], plain: Mapping[str, Sequence[str]]
) -> Estimate:
    """What a reader has over another in reading what the model and the twin would say."""
    said = (("trained", [(case.truth,) for case in cases]), ("edited", [(case.belief,) for case in cases]))
    own, other = (
        np.concatenate([hits(readings[arm], targets) for arm, targets in said]) for readings in (read, plain)
    )
    return paired_difference(own, other, groups=[case.fact for case in cases] * 2, support="share")
