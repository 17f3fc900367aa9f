"""Graphs as the JSON that circuit-tracer writes and Neuronpedia shows: metadata, qParams, nodes, links.

Layout: ``circuit_tracer/frontend/graph_models.py`` of safety-research/circuit-tracer (schema version 1): an
embedding is ``E_TOKEN_POSITION``, a feature ``LAYER_FEATURE_POSITION``, an error ``LAYER_-1_POSITION``, a
logit ``N_LAYERS+1_TOKEN_POSITION``. That layout knows no heads and neurons: they are written with ids of
their own (``LAYER_head.H_POSITION``) and their kind as ``feature_type``. What tests found, and what
identifies the model, is under ``metadata.interp``; other programs leave it alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.errors import ArtifactError, DataError, counted
from interp.lenses.words import words_of
from interp.mediation.graphs.parts import Edge, Node
from interp.mediation.graphs.result import AttributionGraph
from interp.models.model import Model
from interp.results import About
from interp.results.codec import from_json, to_json

__all__ = ["from_neuronpedia", "to_neuronpedia"]

TYPES = {
    "embed": "embedding",
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "output": "logit",
}
KINDS = {name: kind for kind, name in TYPES.items()} | {
    "lorsa error": "error",
    "head": "head",
    "neuron": "neuron",
    "rest": "rest",
}
OWN = re.compile(r"(head|neuron)\.(\d+)")


def to_neuronpedia(graph: AttributionGraph) -> dict[str, Any]:
    """A graph as JSON types.

    Args:
        graph: with its prompt.

    Raises:
        DataError: its prompt was left out.
    """
    if not graph.token_ids:
        raise DataError("this graph was saved without its prompt, which Neuronpedia's layout needs.")
    ids = {one.name: _id(one, graph.n_layers) for one in graph.nodes}
    slug = re.sub(r"[^a-z0-9]+", "-", graph.prompt.lower()).strip("-")[:60] or "graph"
    own = {
        "schema": graph.schema,
        "model": dict(graph.about.model),
        "token_ids": list(graph.token_ids),
        "n_layers": graph.n_layers,
        "ends": dict(graph.ends),
        "kept": graph.kept,
        "trust": graph.trust,
        "verdict": graph.verdict(),
        "tests": [
            {"source": ids[e.source], "target": ids[e.target], **{k: getattr(e, k) for k in TESTS}}
            for e in graph.edges
        ],
        "result": to_json(graph),
    }
    return {
        "metadata": {
            "slug": slug,
            "scan": str(graph.about.model.get("name", "")),
            "transcoder_list": list(graph.dictionaries.values()),
            "prompt_tokens": list(graph.tokens),
            "prompt": graph.prompt,
            "node_threshold": graph.kept,
            "schema_version": 1,
            "interp": own,
        },
        "qParams": {"linkType": "both", "pinnedIds": [], "clickedId": "", "supernodes": [], "sg_pos": ""},
        "nodes": [_node(graph, one, at) for at, one in enumerate(graph.nodes)],
        "links": [
            {"source": ids[e.source], "target": ids[e.target], "weight": e.weight} for e in graph.edges
        ],
    }


TESTS = ("predicted", "held", "live")


def _id(node: Node, n_layers: int) -> str:
    if node.kind == "embed":
        return f"E_{node.index}_{node.position}"
    if node.kind == "output":
        return f"{n_layers + 1}_{node.index}_{node.position}"
    middle = {"feature": f"{node.index}", "error": "-1", "rest": "rest"}.get(
        node.kind, f"{node.kind}.{node.index}"
    )
    return f"{node.layer}_{middle}_{node.position}"


def _node(graph: AttributionGraph, node: Node, at: int) -> dict[str, Any]:
    name = _id(node, graph.n_layers)
    layer = "E" if node.kind == "embed" else str(graph.n_layers + 1 if node.kind == "output" else node.layer)
    outputs = [one.name for one in graph.outputs]
    chance = graph.probabilities[outputs.index(node.name)] if node.name in outputs else 0.0
    feature = node.position if node.kind == "embed" else -1 if node.index is None else node.index
    if node.kind == "feature":
        both = (node.layer or 0) + feature
        feature = both * (both + 1) // 2 + feature  # the pairing of two numbers that the layout uses
    stem, _, place = name.rpartition("_")
    return {
        "node_id": name,
        "feature": feature,
        "layer": layer,
        "ctx_idx": node.position,
        "feature_type": TYPES.get(node.kind, node.kind),
        "token_prob": chance,
        "is_target_logit": node.kind == "output",
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{stem}-{place}",
        "clerp": graph.words(node),
        "influence": node.influence,
        "activation": node.value,
        "interp_effect": node.effect,
        "interp_promotes": list(node.promoted),
    }


def from_neuronpedia(file: str | Path, model: Model) -> AttributionGraph:
    """Read a graph of this model.

    One that this package wrote comes back whole. One of another program has weights but no tests, which its
    verdict says.

    Args:
        file: JSON.
        model: whose graph it must be.

    Raises:
        ArtifactError: it is no such file.
        DataError: it is of another model: other weights, tokens that the tokenizer does not give, or layers
            that the model does not have.
    """
    path = Path(file)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        meta, nodes, links = content["metadata"], content["nodes"], content["links"]
        own = meta.get("interp")
        if own is None:
            return _foreign(path, meta, nodes, links, model)
        found = from_json(own["result"], AttributionGraph)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"'{file}' is no attribution graph ({type(error).__name__}: {error}); it needs metadata, nodes "
            "and links, as circuit-tracer writes them."
        ) from error
    there, here = found.about.model.get("fingerprint"), model.fingerprint
    if there != here:
        raise DataError(
            f"the graph in '{file}' is of {found.about.model.get('name')!r} (weights {str(there)[:12]}), and "
            f"{model.name!r} has others ({here[:12]}). Load the model that it was made of."
        )
    return found


def _foreign(
    path: Path, meta: Mapping[str, Any], nodes: list[Any], links: list[Any], model: Model
) -> AttributionGraph:
    prompt = str(meta["prompt"])
    ids = tuple(model.tokenize([prompt]).token_ids[0])
    tokens = tuple(map(str, meta["prompt_tokens"]))
    if len(ids) != len(tokens):
        raise DataError(
            f"the graph in '{path}' is of {meta.get('scan')!r} and has {counted(len(tokens), 'token')}, of "
            f"which {model.name!r} makes {len(ids)}: it is of another model."
        )
    made = {str(one["node_id"]): _read(path, one, model) for one in nodes}
    for one in made.values():
        if one.kind == "embed" and one.index is not None and one.index != ids[one.position]:
            raise DataError(
                f"token {one.position} of the graph in '{path}' has the id {one.index}, where {model.name!r} "
                f"has {ids[one.position]}: it is of another model."
            )
    edges = []
    for link in links:
        if link["source"] in made and link["target"] in made:
            source, target = made[link["source"]].name, made[link["target"]].name
            edges.append(Edge(source, target, float(link["weight"]), 0.0))
    outputs = [one for one in nodes if KINDS.get(one["feature_type"]) == "output"]
    return AttributionGraph(
        prompt=prompt,
        tokens=words_of(model, ids),
        token_ids=ids,
        instead="",
        exchanged=False,
        foil="",
        probabilities=tuple(float(one.get("token_prob") or 0.0) for one in outputs),
        nodes=tuple(made.values()),
        edges=tuple(sorted(edges, key=lambda one: -abs(one.weight))),
        controls=(),
        ends={},
        kept=float(meta.get("node_threshold") or math.nan),
        n_sources=len(made),
        n_followed=0,
        n_layers=model.n_layers,
        dictionaries={},
        about=About(model=model.described),
        tested=False,
    )


def _read(path: Path, one: Mapping[str, Any], model: Model) -> Node:
    kind = KINDS.get(str(one["feature_type"]), "feature")
    stem = str(one["node_id"]).split("_")
    layer = None if kind in ("embed", "output") else int(one["layer"])
    if layer is not None and not 0 <= layer < model.n_layers:
        raise DataError(
            f"the graph in '{path}' has a node in layer {layer}, and {model.name!r} has layers "
            f"0..{model.n_layers - 1}: it is of another model."
        )
    own = OWN.fullmatch(stem[1])
    index = int(own[2]) if own else None if kind in ("rest", "error") else int(stem[1])
    position = int(one["ctx_idx"])
    parts = [kind, layer, None if kind == "embed" else index]
    name = ".".join(str(part) for part in parts if part is not None)
    word = words_of(model, [index]) if kind == "output" and index is not None else ()
    influence = float(one.get("influence") or 0.0)
    value = float(one.get("activation") or 0.0)
    at = name if kind == "output" else f"{name}@{position}"
    return Node(at, kind, layer, index, position, value, influence, promoted=word)
