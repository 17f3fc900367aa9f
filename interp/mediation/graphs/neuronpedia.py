"""Graphs as the JSON that circuit-tracer writes and Neuronpedia shows: metadata, qParams, nodes, links.

Layout: ``circuit_tracer/frontend/graph_models.py`` of safety-research/circuit-tracer (schema version 1): an
embedding is ``E_TOKEN_POSITION``, a feature ``LAYER_FEATURE_POSITION``, an error ``LAYER_-1_POSITION``, a
logit ``N_LAYERS+1_TOKEN_POSITION``. That layout knows no heads and neurons: they are written with ids of
their own (``LAYER_head.H_POSITION``) and their kind as ``feature_type``. What tests found, and what
identifies the model, is under ``metadata.interp``; other programs leave it alone.

A node's ``influence`` in that layout is no share but a running sum: shares of all nodes' influence, added up
from the largest node to this one, so that small ones matter most (``compute_node_influence`` and
``prune_graph`` of circuit-tracer); logits have none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
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
    "heads": "heads",
    "rest": "rest",
    "skip": "skip",
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
    sums = _running(graph)
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
            "node_threshold": None if math.isnan(graph.kept) else graph.kept,
            "schema_version": 1,
            **({"interp": own} if graph.tested else {}),
        },
        "qParams": {"linkType": "both", "pinnedIds": [], "clickedId": "", "supernodes": [], "sg_pos": ""},
        "nodes": [{**_node(graph, one), "influence": sums.get(one.name)} for one in graph.nodes],
        "links": [
            {"source": ids[e.source], "target": ids[e.target], "weight": e.weight} for e in graph.edges
        ],
    }


TESTS = ("predicted", "held", "live")


def _running(graph: AttributionGraph) -> dict[str, float]:
    """Of every node but the outputs: shares of all nodes' influence, added up from the largest to it."""
    order = sorted((one for one in graph.nodes if one.kind != "output"), key=lambda one: -one.influence)
    drawn = sum(one.influence for one in order)
    whole = drawn / graph.kept if graph.kept > 0 else 1.0  # one of a file has such shares already
    sums = accumulate(one.influence / whole if whole else 0.0 for one in order)
    return {one.name: total for one, total in zip(order, sums, strict=True)}


def _shares(sums: Mapping[str, float | None]) -> dict[str, float]:
    """What each node adds to the running sum; no more than the one before it, whose share is larger."""
    found, before, most = {}, 0.0, 1.0
    for name, total in sorted(((n, t) for n, t in sums.items() if t is not None), key=lambda one: one[1]):
        most = min(most, total - before)
        found[name], before = most, total
    return found


def _id(node: Node, n_layers: int) -> str:
    if node.kind == "embed":
        return f"E_{node.index}_{node.position}"
    if node.kind == "output":
        return f"{n_layers + 1}_{node.index}_{node.position}"
    middle = {
        "feature": f"{node.index}",
        "error": "-1",
        "rest": "rest",
        "heads": "heads",
        "skip": "skip",
    }.get(node.kind, f"{node.kind}.{node.index}")
    return f"{node.layer}_{middle}_{node.position}"


def _node(graph: AttributionGraph, node: Node) -> dict[str, Any]:
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
        "activation": node.value,
        "interp_effect": node.effect,
        "interp_promotes": list(node.promoted),
    }


def from_neuronpedia(file: str | Path, model: Model) -> AttributionGraph:
    """Read a graph of this model.

    One that this package wrote comes back whole. One of another program has weights but no tests, which its
    verdict says, and names the model that the file names.

    Args:
        file: JSON.
        model: whose graph it must be.

    Raises:
        ArtifactError: it is no such file.
        DataError: it is of another model: other weights, tokens that the tokenizer does not give, or layers
            that the model does not have. It holds a number that is none, a node at no token, or one twice.
            Its nodes or links were changed, and what this package wrote beside them was not.
    """
    path = Path(file)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        meta, nodes, links = content["metadata"], content["nodes"], content["links"]
        own = meta.get("interp")
        if own is None:
            return _foreign(path, meta, nodes, links, model)
        found = from_json(own["result"], AttributionGraph)
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
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
    if not _agree(to_neuronpedia(found), nodes, links):
        raise DataError(
            f"nodes or links in '{file}' were changed, and the graph under metadata.interp was not: the "
            "tests are of other edges. Take metadata.interp out to read it as another program's, or make it "
            "anew."
        )
    return found


def _agree(written: Mapping[str, Any], nodes: list[Any], links: list[Any]) -> bool:
    """Whether a file's nodes and links are those that were written; labels may be another's."""
    near = partial(math.isclose, rel_tol=1e-6, abs_tol=1e-9)

    def same(ours: Mapping[str, Any], theirs: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
        pairs = [(ours[key], theirs[key]) for key in keys]
        return all(
            near(a, b) if isinstance(a, float) and isinstance(b, int | float) else a == b for a, b in pairs
        )

    return all(
        len(ours) == len(theirs) and all(same(a, b, keys) for a, b in zip(ours, theirs, strict=True))
        for ours, theirs, keys in (
            (written["nodes"], nodes, ("node_id", "layer", "ctx_idx", "influence", "activation")),
            (written["links"], links, ("source", "target", "weight")),
        )
    )


def _nodes_of(path: Path, nodes: list[Any], ids: Sequence[int], model: Model) -> dict[str, Node]:
    """The nodes of another program's file by their ids there, each with a name of its own."""
    sums = {}
    for one in nodes:
        kind, total = KINDS.get(one["feature_type"]), one.get("influence")
        if kind != "output" and total is not None:
            sums[str(one["node_id"])] = _number(path, one["node_id"], "influence", total, most=1.0)
    shares, names = _shares(sums), set()
    made: dict[str, Node] = {}
    for one in nodes:
        key = str(one["node_id"])
        node = _read(path, one, model, len(ids), shares.get(key, 0.0))
        if key in made:
            raise DataError(f"the graph in '{path}' has the node '{key}' twice; give each an id of its own.")
        made[key] = node if node.name not in names else replace(node, name=f"{node.name} {key}")
        names.add(made[key].name)
    for one in made.values():
        if one.kind == "embed" and one.index is not None and one.index != ids[one.position]:
            raise DataError(
                f"token {one.position} of the graph in '{path}' has the id {one.index}, where {model.name!r} "
                f"has {ids[one.position]}: it is of another model."
            )
    return made


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
    made = _nodes_of(path, nodes, ids, model)
    edges = []
    for link in links:
        if link["source"] in made and link["target"] in made:
            source, target = made[link["source"]].name, made[link["target"]].name
            edges.append(
                Edge(source, target, _number(path, f"{source} to {target}", "weight", link["weight"]), 0.0)
            )
    outputs = [one for one in nodes if KINDS.get(one["feature_type"]) == "output"]
    scan, warnings = str(meta.get("scan") or "no model"), []
    if len(edges) < len(links):
        lost = counted(len(links) - len(edges), "link")
        warnings.append(f"{lost} of '{path}' left out: no node has the id of an end")
    if scan.rpartition("/")[2].lower() != model.name.rstrip("/").rpartition("/")[2].lower():
        warnings.append(
            f"'{path}' names {scan!r} as its model, and {model.name!r} was given: only the prompt's tokens "
            "and the layers were compared"
        )
    return AttributionGraph(
        prompt=prompt,
        tokens=words_of(model, ids),
        token_ids=ids,
        instead="",
        exchanged=False,
        foil="",
        probabilities=tuple(
            _number(path, one["node_id"], "token_prob", one.get("token_prob") or 0.0) for one in outputs
        ),
        nodes=tuple(made.values()),
        edges=tuple(sorted(edges, key=lambda one: -abs(one.weight))),
        controls=(),
        ends={},
        kept=math.nan,
        n_sources=len(made),
        n_followed=0,
        n_layers=model.n_layers,
        dictionaries={},
        about=About(model={"name": scan}),
        tested=False,
        warnings=tuple(warnings),
    )


def _number(path: Path, of: str, name: str, value: Any, *, most: float = math.inf) -> float:
    """A number of a file: finite, and of a running sum between 0 and 1."""
    found = float(value)
    least = -math.inf if most == math.inf else 0.0
    if not math.isfinite(found) or not least <= found <= most + 1e-4:
        allowed = "a finite number" if most == math.inf else f"a running sum between 0 and {most:g}"
        raise DataError(f"'{of}' of the graph in '{path}' has {name} {value}; it must be {allowed}.")
    return found


def _read(path: Path, one: Mapping[str, Any], model: Model, n_tokens: int, influence: float) -> Node:
    kind = KINDS.get(str(one["feature_type"]), "feature")
    stem = str(one["node_id"]).split("_")
    layer = None if kind in ("embed", "output") else int(one["layer"])
    if layer is not None and not 0 <= layer < model.n_layers:
        raise DataError(
            f"the graph in '{path}' has a node in layer {layer}, and {model.name!r} has layers "
            f"0..{model.n_layers - 1}: it is of another model."
        )
    own = OWN.fullmatch(stem[1])
    index = int(own[2]) if own else None if kind in ("heads", "rest", "skip", "error") else int(stem[1])
    position = int(one["ctx_idx"])
    if not 0 <= position < n_tokens:
        raise DataError(
            f"'{one['node_id']}' of the graph in '{path}' stands at token {position} (ctx_idx), and the "
            f"prompt has {counted(n_tokens, 'token')}, counted from 0."
        )
    if kind == "output" and not 0 <= (index or 0) < model.vocab_size:
        raise DataError(
            f"'{one['node_id']}' of the graph in '{path}' is of token {index}, and {model.name!r} has "
            f"{model.vocab_size:,}: it is of another model."
        )
    parts = [kind, layer, None if kind == "embed" else index]
    name = ".".join(str(part) for part in parts if part is not None)
    word = words_of(model, [index]) if kind == "output" and index is not None else ()
    value = _number(path, one["node_id"], "activation", one.get("activation") or 0.0)
    at = name if kind == "output" else f"{name}@{position}"
    return Node(at, kind, layer, index, position, value, influence, promoted=word)
