"""Circuits in the JSON of MIB's circuit track: read, written, and refused for another model.

The layout (Mueller et al. 2025, 2504.13151; ``Graph.to_json`` of hannamw/EAP-IG) is ``cfg``
(n_layers, n_heads, parallel_attn_mlp, d_model), ``nodes`` (``input``, ``a5.h3``, ``m5``, ``logits``) and
``edges`` (``a5.h5->a8.h6<v>``), each with ``in_graph`` and a score. There every head has keys and values of
its own; here heads of a group share them, so that one edge here is several there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.errors import ConfigError, DataError
from interp.mediation.edges.edge import Edge, Reader
from interp.mediation.edges.graph import Graph, heads_add_up, on_a_path
from interp.mediation.effects import Effects
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.sites import Site

__all__ = ["COPIES", "MIBCircuit"]

COPIES: dict[str, str] = {
    "refuse": "keys or values of a group that are in for some of its heads only are refused",
    "any": "they are in where they are in for any head",
    "all": "they are in where they are in for all heads",
}
LOGITS = "logits"


@dataclass(frozen=True, eq=False)
class MIBCircuit:
    """A circuit of the circuit track, in the parts of one model.

    Attributes:
        edges: that are in the circuit.
        nodes: writers that are in the circuit: ``embed``, ``head.l.h``, ``mlp_out.l``.
        edge_scores: of edges, of any size; an edge without one has 0 in a file.
        node_scores: of writers; () where a file gives none.
        neurons: per writer which of the ``d_model`` numbers that it adds are in; () where a file has none.
        neuron_scores: of these numbers, NaN for one that was not scored.
    """

    edges: tuple[Edge, ...] = ()
    nodes: tuple[Site, ...] = ()
    edge_scores: Mapping[Edge, float] = field(default_factory=dict)
    node_scores: Mapping[Site, float] = field(default_factory=dict)
    neurons: Mapping[Site, tuple[bool, ...]] = field(default_factory=dict)
    neuron_scores: Mapping[Site, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def of_effects(cls, effects: Effects, model: ModelLike, k: int | None = None) -> MIBCircuit:
        """The scores of a search, and of them the ``k`` highest as the circuit.

        Args:
            effects: of ``edge.*``, or of nodes at all positions (``embed``, ``head.*``, ``mlp_out.*``).
            model: that they were found in.
            k: size of the circuit; nothing is in it where left out.

        Raises:
            ConfigError: effects of other mediators.
        """
        scores = dict(zip(effects.mediators, effects.mean().tolist(), strict=True))
        top = effects.top(k or 0, ranking="signed")
        if all(isinstance(one, Edge) for one in effects.mediators):
            edges = {one: value for one, value in scores.items() if isinstance(one, Edge)}
            return cls.of_edges(model, [one for one in top if isinstance(one, Edge)], edges)
        known = set(_writers(as_model(model)).values())
        named = {one: Site.parse(str(one)) for one in effects.mediators if one.position is None}
        strange = next((one for one in effects.mediators if named.get(one) not in known), None)
        if strange is not None:
            raise ConfigError(
                f"{strange} was scored, which is no node of MIB's graphs. Score edge.*, or embed, head.* and "
                "mlp_out.* at all positions."
            )
        nodes = [named[one] for one in top]
        return cls.of_nodes(model, nodes, {named[one]: scores[one] for one in effects.mediators})

    @classmethod
    def of_edges(
        cls, model: ModelLike, edges: Iterable[Edge], scores: Mapping[Edge, float] | None = None
    ) -> MIBCircuit:
        """A circuit of edges; its nodes are the writers of those on a path from the embedding to the logits.

        Raises:
            SiteError: an edge that the model does not have.
        """
        graph, given = Graph.of(as_model(model)), list(edges)
        chosen = graph.select(given) if given else ()
        nodes = sorted({edge.writer for edge in on_a_path(graph, chosen)}, key=graph.writers.index)
        return cls(chosen, tuple(nodes), dict(scores or {}))

    @classmethod
    def of_nodes(
        cls, model: ModelLike, nodes: Iterable[Site | str], scores: Mapping[Site, float] | None = None
    ) -> MIBCircuit:
        """A circuit of nodes: all edges between those that are in.

        Raises:
            SiteError: a node that the model does not have.
        """
        graph = Graph.of(as_model(model))
        chosen = graph.writers_of([str(one) for one in nodes])
        inside = {name for name, site in _writers(as_model(model)).items() if site in chosen} | {LOGITS}
        edges = [
            edge
            for edge in graph
            if edge.writer in chosen
            and any(_node(name) in inside for name in _readers(edge.reader, as_model(model)))
        ]
        return cls(tuple(edges), chosen, {}, dict(scores or {}))

    @classmethod
    def load(cls, path: str | Path, model: ModelLike, *, copies: str = "refuse") -> MIBCircuit:
        """Read a file for one model.

        A group's score is the sum of its heads' scores.

        Args:
            path: of the JSON file.
            model: whose graph it must be.
            copies: a key of ``COPIES``: what becomes of shared keys or values that only some heads have in.

        Raises:
            ConfigError: an unknown ``copies``.
            DataError: no such file, not that layout, or the graph of another model; says what differs.
            SiteError: the model has no edges.
        """
        if copies not in COPIES:
            raise ConfigError(f"copies={copies!r} asked; there are: {', '.join(COPIES)}.")
        model, path = as_model(model), Path(path)
        content = _read(path)
        _check_same(path, content["cfg"], _config(model), model)
        return _Reading(path, content, model, copies).circuit()

    def save(self, path: str | Path, model: ModelLike) -> Path:
        """Write the file that the benchmark's code reads, and that :meth:`load` reads back.

        The score of a group's edge is divided equally among its heads, whose sum is then the group's.

        Raises:
            SiteError: the model has no edges.
            DataError: its heads do not add up, so that the layout cannot hold its graph.
        """
        model, path = as_model(model), Path(path)
        graph, inside, chosen = Graph.of(model), set(self.edges), set(self.nodes)
        content: dict[str, Any] = {"cfg": _config(model), "nodes": {}, "edges": {}}
        for name, site in _writers(model).items():
            row: dict[str, Any] = {"in_graph": site in chosen}
            row |= {"score": float(self.node_scores.get(site, math.nan))} if self.node_scores else {}
            if self.neurons:
                row["neurons"] = list(self.neurons.get(site, (site in chosen,) * model.d_model))
                row["neurons_scores"] = list(self.neuron_scores.get(site, (math.nan,) * model.d_model))
            content["nodes"][name] = row
        content["nodes"][LOGITS] = {"in_graph": True}
        writers = {site: name for name, site in _writers(model).items()}
        for edge in graph:
            readers = _readers(edge.reader, model)
            score = float(self.edge_scores.get(edge, 0.0)) / len(readers)
            for reader in readers:
                name = f"{writers[edge.writer]}->{reader}"
                content["edges"][name] = {"score": score, "in_graph": edge in inside}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    @property
    def ranked(self) -> tuple[Edge, ...] | tuple[str, ...]:
        """Edges by their scores, the highest first; nodes where only nodes have scores.

        Raises:
            DataError: nothing was scored.
        """
        if any(self.edge_scores.values()):
            return tuple(sorted(self.edge_scores, key=lambda edge: -self.edge_scores[edge]))
        if not self.node_scores:
            raise DataError("the circuit has no scores, so that there is no ranking; give one with scores.")
        known = {site: value for site, value in self.node_scores.items() if not math.isnan(value)}
        return tuple(str(site) for site in sorted(known, key=lambda site: -known[site]))

    @property
    def weighted_edges(self) -> float:
        """MIB's size: each edge counts by the share of its writer's numbers that are in."""
        share = {site: sum(inside) / len(inside) for site, inside in self.neurons.items()}
        return sum(share.get(edge.writer, 1.0) for edge in self.edges)


@dataclass(frozen=True)
class _Reading:
    """A file's content beside the model that it is read for."""

    path: Path
    content: Mapping[str, Any]
    model: Model
    copies: str

    def circuit(self) -> MIBCircuit:
        """Everything in the file, in this model's parts."""
        writers, graph = _writers(self.model), Graph.of(self.model)
        names = {site: name for name, site in writers.items()}
        nodes = {site: self.entry("nodes", name) for name, site in writers.items()}
        self.entry("nodes", LOGITS)
        inside: list[Edge] = []
        scores: dict[Edge, float] = {}
        met: set[str] = {*writers, LOGITS}
        for edge in graph:
            copies = [f"{names[edge.writer]}->{reader}" for reader in _readers(edge.reader, self.model)]
            met.update(copies)
            rows = [self.entry("edges", name) for name in copies]
            scores[edge] = math.fsum(
                self.number(row.get("score", 0.0), name) for row, name in zip(rows, copies, strict=True)
            )
            if self.included(edge, copies, [bool(row["in_graph"]) for row in rows]):
                inside.append(edge)
        strange = [name for part in ("nodes", "edges") for name in self.content[part] if name not in met]
        if strange:
            raise self.other(f"has {strange[0]!r}, which this model has not")
        return MIBCircuit(
            tuple(inside),
            tuple(site for site, row in nodes.items() if row["in_graph"]),
            scores,
            {s: self.number(row["score"], names[s]) for s, row in nodes.items() if "score" in row},
            {s: self.neurons(row, "neurons", names[s], bool) for s, row in nodes.items() if "neurons" in row},
            {
                s: self.neurons(row, "neurons_scores", names[s], float)
                for s, row in nodes.items()
                if "neurons_scores" in row
            },
        )

    def entry(self, part: str, name: str) -> Mapping[str, Any]:
        """The row of a node or an edge."""
        row = self.content[part].get(name)
        if not isinstance(row, Mapping) or not isinstance(row.get("in_graph"), bool):
            raise self.other(f"has no entry {name!r} with a true or false in_graph among its {part}")
        return row

    def number(self, value: Any, name: str) -> float:
        """A score."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.other(f"gives {name!r} the score {value!r}, which is no number")
        return float(value)

    def neurons(self, row: Mapping[str, Any], key: str, name: str, kind: type) -> tuple[Any, ...]:
        """One value for each of the numbers that a writer adds."""
        found = row[key]
        if not isinstance(found, list) or len(found) != self.model.d_model:
            size = len(found) if isinstance(found, list) else 0
            raise self.other(
                f"gives {name!r} {size} {key}, and this model's writers add {self.model.d_model}"
            )
        return tuple(map(kind, found))

    def included(self, edge: Edge, names: Sequence[str], copies: Sequence[bool]) -> bool:
        """Whether an edge is in, whose copies are."""
        if any(copies) == all(copies):
            return all(copies)
        if self.copies == "refuse":
            odd = names[list(copies).index(not copies[0])]
            raise DataError(
                f"{self.path}: {names[0]!r} is {'in' if copies[0] else 'out'} and {odd!r} is otherwise; in "
                f"{self.model.name!r} these heads share what they read ({edge}). Say copies='any' or 'all'."
            )
        return (any if self.copies == "any" else all)(copies)

    def other(self, what: str) -> DataError:
        """Not a file for this model."""
        return DataError(f"{self.path} {what}. Give a circuit of {self.model.name!r} in MIB's JSON.")


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".pt":
        raise DataError(
            f"{path} is a pickle, which could run anything and is not opened. Write it as JSON where it was "
            "made: Graph.from_pt(...).to_json(...)."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Give a circuit in MIB's JSON.") from None
    except ValueError:
        raise DataError(f"{path} is no JSON. Give a circuit as EAP-IG's Graph.to_json writes it.") from None
    parts = ("cfg", "nodes", "edges")
    if not isinstance(content, Mapping) or not all(isinstance(content.get(p), Mapping) for p in parts):
        raise DataError(f"{path} lacks one of {', '.join(parts)}. Give a circuit in MIB's JSON.")
    return content


def _config(model: Model) -> dict[str, Any]:
    """What the layout says of a model.

    Raises:
        DataError: its heads do not add up.
    """
    if not heads_add_up(model):
        raise DataError(
            f"{model.name!r} has a norm after attention, so its heads do not add up in the stream, and MIB's "
            "graph has heads as nodes. Keep the circuit as a result instead (Evaluation.save)."
        )
    return {
        "n_layers": model.n_layers,
        "n_heads": model.n_heads,
        "parallel_attn_mlp": model.architecture.parallel,
        "d_model": model.d_model,
    }


def _check_same(path: Path, found: Mapping[str, Any], own: Mapping[str, Any], model: Model) -> None:
    for key, value in own.items():
        if key not in found and key == "d_model":  # files of nodes and edges do without it
            continue
        if found.get(key) != value:
            raise DataError(
                f"{path} is a circuit of another model: its {key} is {found.get(key)}, that of "
                f"{model.name!r} is {value}. Load the model that it was found in."
            )


def _writers(model: Model) -> dict[str, Site]:
    """MIB's name of every writer, in order of execution."""
    found = {"input": Site("embed")}
    for layer in range(model.n_layers):
        found |= {f"a{layer}.h{head}": Site("head", layer, head) for head in range(model.n_heads)}
        found[f"m{layer}"] = Site("mlp_out", layer)
    return found


def _readers(reader: Reader, model: Model) -> list[str]:
    """MIB's names of a reader: one for each head that reads what a group shares."""
    if reader.kind == LOGITS:
        return [LOGITS]
    if reader.kind == "mlp":
        return [f"m{reader.layer}"]
    share = 1 if reader.kind == "q" else model.n_heads // model.n_kv_heads
    first = (reader.index or 0) * share
    return [f"a{reader.layer}.h{head}<{reader.kind}>" for head in range(first, first + share)]


def _node(reader: str) -> str:
    """The node that a reader belongs to."""
    return reader.partition("<")[0]
