"""Make a graph of one prompt: trace it, prune it, test what is drawn, and say what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, DataError, counted
from interp.features.certificate import certified
from interp.lenses.words import words_of
from interp.mediation.frozen_norm import FrozenNorm
from interp.mediation.graphs.frozen import FrozenRun
from interp.mediation.graphs.influence import Flow, flow
from interp.mediation.graphs.joint import along_paths, altogether
from interp.mediation.graphs.outputs import Outputs
from interp.mediation.graphs.parts import Edge, Joint, Node
from interp.mediation.graphs.paths import Pruned, pruned, random_paths
from interp.mediation.graphs.result import AttributionGraph
from interp.mediation.graphs.sources import read_sources
from interp.mediation.graphs.tested import changes_of, held, live
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.tokens import continuation
from interp.results import About
from interp.sites import Site

__all__ = ["attribution_graph"]

PROMOTED = 5
RANDOM = 20
"""Random graphs that drawn paths together are held to: the best of 21 is one in p = 0.048."""


def attribution_graph(
    model: ModelLike,
    prompt: str | Sequence[int],
    *,
    answer: str | int | None = None,
    foil: str | int | None = None,
    instead: str | Sequence[int] | None = None,
    neurons: int = 64,
    alone: float | int = 0.05,
    followed: int = 4000,
    keep: float = 0.8,
    nodes: int = 60,
    edges: int = 100,
    seed: int = 0,
    batch_size: int | str = "auto",
) -> AttributionGraph:
    """Trace what one answer is made of, and test every edge that is drawn by a real intervention.

    Heads and neurons are nodes, each at one token; where the model has dictionaries (``with_dictionaries``),
    features are, with what they leave out. See ``interp.mediation.graphs.frozen`` for what an edge is.

    Args:
        model: what is run.
        prompt: a text, or its token ids.
        answer: a word or a token's id, whose logit is explained; the likeliest tokens' (at most 3) where
            left out.
        foil: whose logit is taken off; the mean of all logits where left out.
        instead: a prompt of as many tokens: edges are tested by what their source writes there. Left out, the
            source is taken out.
        neurons: of each MLP, over all tokens, that are nodes of their own at most.
        alone: first-order effect, as a share of the output, from which on a head or neuron is a node of its
            own. The others of its block at one token are one node. 0: each head, and ``neurons`` neurons.
        followed: how many heads, neurons and features are followed back at most.
        keep: the share of the influence that reaches tokens, from which on no more paths are drawn.
        nodes: how many are drawn at most.
        edges: how many are drawn, and tested, at most.
        seed: of the control's draws and of random graphs.
        batch_size: rows of one pass of the tests.

    Raises:
        ConfigError: a number or a token out of range, a foil without an answer, or so few nodes and edges
            that nothing is drawn.
        DataError: prompts of different lengths, or twice the same.
        SiteError: the model lacks a site that a graph is made of.
        ModelError: a part of the model cannot be made linear.
    """
    model = as_model(model)
    most = {"followed": followed, "nodes": nodes, "edges": edges}
    _check(answer, foil, (keep, alone), {"neurons": neurons, **most})
    tokens = model.tokenize([prompt])
    ids = list(tokens.token_ids[0])
    outputs = _outputs(model, tokens.texts[0], ids, answer, foil)
    run = FrozenRun.of(model, ids, outputs, neurons=neurons, alone=alone)
    found = flow(run, most=followed)
    drawn = pruned(run, found, keep=keep, nodes=nodes, edges=edges)
    there = None if instead is None else _written_there(run, model, instead)
    if not drawn.edges:
        raise ConfigError(
            f"followed={followed}, nodes={nodes}, edges={edges} leave no path from the answer back to a "
            "token, so that nothing is drawn. Give more of each, such as followed=4000, nodes=60, edges=100."
        )
    tests = _tested(run, found, drawn, there, seed, batch_size)
    joint = _joint(run, found, drawn, there, seed, batch_size)
    judged = [certified(model.with_dictionaries(), one) for _, one in sorted(model.dictionaries.items())]
    places = [*drawn.nodes, *(-1 - number for number in range(len(outputs.tokens)))]
    return AttributionGraph(
        prompt=tokens.texts[0],
        tokens=words_of(model, ids),
        token_ids=tuple(map(int, ids)),
        instead="" if instead is None else model.tokenize([instead]).texts[0],
        exchanged=instead is not None,
        foil="" if outputs.foil is None else words_of(model, [outputs.foil])[0],
        probabilities=tuple(outputs.probabilities.tolist()),
        nodes=_nodes(run, found, places, tests.effects),
        edges=tests.drawn,
        controls=tests.controls,
        joint=joint,
        ends=dict(found.ends),
        kept=drawn.kept,
        n_sources=len(run.sources.parts),
        n_followed=len(found.shares) - len(outputs.tokens),
        n_layers=model.n_layers,
        dictionaries={str(layer): one.name for layer, one in model.dictionaries.items()},
        suspect=tuple(str(one.dictionary["name"]) for one in judged if one.suspicions),
        about=About(model=model.described),
        seed=seed,
        warnings=(*model.warnings, *tokens.warnings, *(one.line() for one in judged)),
    )


def _check(
    answer: str | int | None,
    foil: str | int | None,
    shares: tuple[float, float | int],
    numbers: Mapping[str, int],
) -> None:
    keep, alone = shares
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{name}={value} asked; a graph needs 1 or more.")
    if not 0 < keep <= 1:
        raise ConfigError(f"keep={keep} asked; it is a share of the influence, above 0 and at most 1.")
    if not 0 <= alone < float("inf"):
        raise ConfigError(f"alone={alone} asked; it is a share of the output, 0 or above.")
    if foil is not None and answer is None:
        raise ConfigError("a foil is what an answer is compared with; give the answer too.")


def _outputs(
    model: Model, text: str, ids: list[int], answer: str | int | None, foil: str | int | None
) -> Outputs:
    if answer is None:
        return Outputs.likeliest(model, ids)
    first, other = (None if one is None else _token(model, text, ids, one) for one in (answer, foil))
    assert first is not None
    return Outputs.between(model, ids, first, other)


def _token(model: Model, text: str, ids: list[int], word: str | int) -> int:
    """The first token of a word that follows the prompt."""
    if isinstance(word, int):
        if not 0 <= word < model.vocab_size:
            raise ConfigError(
                f"token {word} asked; {model.name!r} has tokens 0..{model.vocab_size - 1}. Give one of "
                "these, or a word."
            )
        return word
    if model.tokenizer is None:
        raise DataError(f"{word!r} is a text, but {model.name!r} has no tokenizer; give a token's id.")
    return continuation(text, ids, word, model.tokenizer, vocab_size=model.vocab_size)[0]


def _written_there(run: FrozenRun, model: Model, instead: str | Sequence[int]) -> Float[Tensor, "source dim"]:
    """What each source writes in another prompt."""
    ids = list(model.tokenize([instead]).token_ids[0])
    if len(ids) != len(run.ids):
        raise DataError(
            f"the prompt has {counted(len(run.ids), 'token')} and the one instead of it {len(ids)}; a node "
            "stands at one token, so that both need as many."
        )
    if ids == list(run.ids):
        raise DataError(
            "the prompt instead is the prompt itself, so that nothing is exchanged and nothing tested. Give "
            "another of as many tokens, or none: sources are then taken out."
        )
    read = model.capture([ids], [str(site) for site in run.values], "all")
    values = {site: read[str(site)][0] for site in run.values}
    return read_sources(model, ids, values, {}, 0, like=run.sources).writes


def _joint(
    run: FrozenRun, found: Flow, drawn: Pruned, there: Tensor | None, seed: int, batch_size: int | str
) -> Joint:
    """Change tokens along all drawn paths at once, and along random ones of as many edges."""
    tokens = [at for at, part in enumerate(run.sources.parts) if part.kind == "embed"]
    deltas = changes_of(run, tokens, None if there is None else dict(enumerate(there))).deltas
    edges = [(source, target) for source, target, _ in drawn.edges]
    others = [random_paths(run, found, len(edges), seed + at) for at in range(RANDOM)]
    moved = along_paths(run, [edges, *others], deltas, batch_size=batch_size)
    return Joint(altogether(run, deltas), moved[0], tuple(moved[1:]))


@dataclass(frozen=True)
class _Tests:
    """Edges with their tests, and the change of the output without each source."""

    drawn: tuple[Edge, ...]
    controls: tuple[Edge, ...]
    effects: Mapping[int, float]


def _tested(
    run: FrozenRun, found: Flow, drawn: Pruned, there: Tensor | None, seed: int, batch_size: int | str
) -> _Tests:
    """Test what is drawn, and beside each edge another source at its place, with the same prediction."""
    pairs = [(source, target) for source, target, _ in drawn.edges]
    others = _others(run, drawn, np.random.default_rng(seed))
    places = [*drawn.nodes, *(source for source, _ in others.values())]
    other = None if there is None else dict(enumerate(there))
    changes = changes_of(run, places, other)
    targets = list(dict.fromkeys(target for _, target in pairs))
    moved, effects = live(run, changes, targets, batch_size=batch_size)
    near = held(run, changes, [*pairs, *others.values()], batch_size=batch_size)
    edges, controls = [], []
    for source, target, share in drawn.edges:
        reading = run.reading(-1 - target if target < 0 else run.sources.parts[target])
        position = run.sources.parts[source].position
        edge = Edge(
            name_of(run, source),
            name_of(run, target),
            float(reading.weights[source - reading.reach.start]),
            share,
            part=float(found.shares[target][source - reading.reach.start]),
            predicted=float((changes.deltas[source] * reading.slope[position]).sum()),
            held=near[source, target],
            live=moved[source, target],
        )
        edges.append(edge)
        if (pair := others.get((source, target))) is not None:
            place = name_of(run, pair[0])
            controls.append(replace(edge, source=place, held=near[pair], live=moved[pair]))
    return _Tests(tuple(edges), tuple(controls), {at: effects[at] for at in drawn.nodes})


def _others(
    run: FrozenRun, drawn: Pruned, rng: np.random.Generator
) -> dict[tuple[int, int], tuple[int, int]]:
    """For each edge another source of its target that no edge leads from: of the graph, if there is one."""
    linked = {(source, target) for source, target, _ in drawn.edges}
    found = {}
    for source, target, _ in drawn.edges:
        reading = run.reading(-1 - target if target < 0 else run.sources.parts[target])
        last = len(run.ids) - 1 if target < 0 else run.sources.parts[target].position
        inside = range(reading.reach.start, reading.reach.stop)
        near = [at for at in drawn.nodes if at in inside]
        for pool in (near, inside):
            free = [
                at
                for at in pool
                if (at, target) not in linked and at != target and run.sources.parts[at].position <= last
            ]
            if free:
                found[source, target] = (free[int(rng.integers(len(free)))], target)
                break
    return found


def name_of(run: FrozenRun, place: int) -> str:
    """The name of a source, or of an output.

    Args:
        run: whose.
        place: of a source, or ``-1 - number`` of an output.
    """
    return f"output.{run.outputs.tokens[-1 - place]}" if place < 0 else str(run.sources.parts[place])


def _nodes(
    run: FrozenRun, found: Flow, places: Sequence[int], effects: Mapping[int, float]
) -> tuple[Node, ...]:
    made = []
    sources = [at for at in places if at >= 0]
    words = dict(zip(sources, _promoted(run, sources), strict=True))
    for at in places:
        if at < 0:
            reading, token = run.reading(-1 - at), run.outputs.tokens[-1 - at]
            last, weight = len(run.ids) - 1, float(run.outputs.weights[-1 - at])
            word = words_of(run.model, [token])
            made.append(
                Node(
                    name_of(run, at),
                    "output",
                    None,
                    token,
                    last,
                    reading.value,
                    weight,
                    True,
                    None,
                    word,
                    reading.bias,
                )
            )
            continue
        part = run.sources.parts[at]
        reading = run.reading(part) if at in found.shares else None
        value = reading.value if reading is not None else _value(run, at)
        made.append(
            Node(
                str(part),
                part.kind,
                part.layer,
                part.index,
                part.position,
                value,
                float(found.influence[at]),
                reading is not None,
                effects.get(at),
                words[at],
                0.0 if reading is None else reading.bias,
            )
        )
    return tuple(made)


def _value(run: FrozenRun, at: int) -> float:
    """Of a part that was not followed: its activation, or the length of what it writes."""
    part = run.sources.parts[at]
    if part.kind in ("neuron", "feature"):
        kind = "mlp_act" if part.kind == "neuron" else "feature"
        return float(run.values[Site(kind, part.layer)][0, part.position, part.index].detach())
    return float(run.sources.writes[at].norm())


def _promoted(run: FrozenRun, places: Sequence[int]) -> list[tuple[str, ...]]:
    """The tokens whose logits what each source writes raises most, through the final norm's gain."""
    if not places:
        return []
    head: Any = run.model.hf.get_output_embeddings()
    with torch.no_grad():
        moved = FrozenNorm.of(run.model).moved(run.sources.writes[list(places)])
        zero = torch.zeros_like(moved[:1])
        raised = head.forward(moved.to(run.model.dtype)) - head.forward(zero.to(run.model.dtype))
        top = raised.float().topk(PROMOTED, dim=-1).indices
    return [words_of(run.model, row) for row in top.tolist()]
