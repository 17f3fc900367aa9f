"""An attribution graph: its nodes and edges, what tests made of them, and how far it may be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Any, ClassVar

from interp.errors import counted
from interp.mediation.graphs.parts import KINDS, Edge, Joint, Node, carried
from interp.mediation.graphs.told import CAUTIONS, READ, READ_CAUTION, TESTED, percent
from interp.results import Figure, Number, Result, Table
from probes.statistics import clopper_pearson

__all__ = ["AttributionGraph", "places_of"]

SHOWN = 80
LEVEL = 0.05
"""How often at most random graphs may come as near."""
TOLD = {True: "yes", False: "no", None: "no test"}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AttributionGraph(Result):
    """What one answer is made of, node by node, with a test of every edge.

    Attributes:
        prompt: its text; "" where ids were given and there is no tokenizer.
        tokens: of the prompt, as words.
        token_ids: of the prompt.
        instead: the text of the prompt whose writes stand in for a source's, where there is one.
        exchanged: whether there is one; else sources are taken out.
        foil: the token whose logit is taken off; "" for the mean of all logits.
        probabilities: of the outputs, by the model.
        nodes: in order of execution, the outputs last.
        edges: the largest first.
        controls: for each edge another source in its place, with the edge's own prediction.
        joint: what all drawn paths do together, by a real intervention; None where nothing was run.
        ends: where influence ends, by kind; 1 in all.
        kept: share of all nodes' influence that is drawn.
        n_sources: all parts that write to the stream.
        n_followed: heads, neurons and features whose inputs were looked at.
        n_layers: blocks of the model.
        dictionaries: layer -> the dictionary whose features are nodes there.
        tested: whether interventions were made; a graph of another program's file has none.
        suspect: names of those dictionaries whose certificate says that they may not be of this model.
    """

    schema: ClassVar[str] = "interp.graph/1"

    prompt: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    instead: str
    exchanged: bool
    foil: str
    probabilities: tuple[float, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    controls: tuple[Edge, ...]
    joint: Joint | None = None
    ends: Mapping[str, float]
    kept: float
    n_sources: int
    n_followed: int
    n_layers: int
    dictionaries: Mapping[str, str] = field(default_factory=dict)
    tested: bool = True
    suspect: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[Node, ...]:
        """The nodes that are explained."""
        return tuple(one for one in self.nodes if one.kind == "output")

    @property
    def unshown(self) -> float:
        """The share of influence that does not end in the prompt's tokens."""
        return max(0.0, 1.0 - self.ends.get("embed", 0.0)) if self.ends else 1.0

    @property
    def carried(self) -> float:
        """The share of influence that drawn edges alone carry from the answer back to the prompt's tokens."""
        return carried(self.nodes, self.edges)

    def confirmed(self, of: str = "live", edges: Sequence[Edge] | None = None) -> tuple[int, int]:
        """How many edges are confirmed, of how many that were tested.

        Args:
            of: ``live`` or ``held``.
            edges: which; the drawn ones where left out.
        """
        found = [one.confirmed(of) for one in (self.edges if edges is None else edges)]
        return sum(one is True for one in found), sum(one is not None for one in found)

    @property
    def trust(self) -> float | None:
        """The part of what tokens really do to the answer that drawn paths alone bring about, less chance.

        What overshoots counts as what falls short by as much; chance is the mean of random graphs of whole
        paths, of as many edges. None where nothing was tested, where there is no control, where random graphs
        come as near (p above 0.05), where single edges are not confirmed clearly more often than the
        control's, where no drawn path leads back to a token, and where a dictionary is suspect.
        """
        if self.joint is None or self._doubt():
            return None
        return self.joint.reached - self.joint.chance

    def _doubt(self) -> str:
        """Why there is no trust score; "" where there is one."""
        (right, n), (other, m) = self.confirmed(), self.confirmed(edges=self.controls)
        if not n:
            return "No edge was tested that could fail."
        if not m:
            return "No other node could stand in an edge's place, so there is no control."
        if not self.carried:
            return "No drawn path leads from the answer back to a token: draw more nodes and edges."
        if self.joint is None:
            return "What drawn paths do together was not tested."
        if self.joint.p > LEVEL:
            return "Random graphs of as many edges do as well together."
        if clopper_pearson(right, n).low <= clopper_pearson(other, m).high:
            return "Single edges are not confirmed clearly more often than others in their place."
        names = ", ".join(map(repr, self.suspect))
        several = "dictionaries" if len(self.suspect) > 1 else "dictionary"
        return f"The certificate of {several} {names} says SUSPECT: see the warnings." if names else ""

    def redacted(self) -> AttributionGraph:
        """The same without the prompt, and without words or ids that say what it was."""
        nodes = tuple(
            replace(
                one,
                promoted=(),
                index=None if one.kind in ("embed", "output") else one.index,
                name=f"output.{at}" if one.kind == "output" else one.name,
            )
            for at, one in enumerate(self.nodes)
        )
        names = {old.name: new.name for old, new in zip(self.nodes, nodes, strict=True)}
        edges, controls = (
            tuple(replace(e, target=names.get(e.target, e.target)) for e in part)
            for part in (self.edges, self.controls)
        )
        none = ("",) * len(self.tokens)
        bare = replace(self, prompt="", instead="", foil="", tokens=none, token_ids=())
        return replace(bare, nodes=nodes, edges=edges, controls=controls)

    def words(self, node: Node) -> str:
        """A node as a reader sees it: what it is, and the token it stands at."""
        token = self.tokens[node.position] if node.position < len(self.tokens) else ""
        if node.kind == "output":
            return f"says {node.promoted[0]!r}" if node.promoted else "an output"
        if node.kind == "embed":
            return f"token {token!r}" if token else node.name
        name = node.name.partition("@")[0]
        return f"{name} at {token!r}" if token else node.name

    def question(self) -> str:
        """What is asked of the prompt."""
        end = self.prompt if len(self.prompt) <= SHOWN else f"\u2026{self.prompt[1 - SHOWN :]}"
        answer = " / ".join(repr(one.promoted[0]) for one in self.outputs if one.promoted) or "the answer"
        return f"What is {answer} made of, after \u201c{end}\u201d?"

    def verdict(self) -> str:
        """How many edges hold, beside the control, what is not shown, and the trust score."""
        if not self.tested:
            return f"{counted(len(self.edges), 'edge')}, none tested; how much it leaves out is not known."
        share = (
            f"{percent(self.unshown)} of the influence ends not in tokens but in what is not explained, and "
            f"drawn edges alone carry {percent(self.carried)} of all back to tokens"
        )
        right, n = self.confirmed()
        if not n:
            why = "each source is all that its target reads"
            why += ", or writes the same in the other prompt" if self.exchanged else ""
            return f"Not shown: {counted(len(self.edges), 'edge')}, none tested ({why}); {share}."
        other, m = self.confirmed(edges=self.controls)
        control = f" (another node in the source's place: {percent(other / m)})" if m else ""
        said = f"{right} of {counted(n, 'drawn edge')} confirmed in the running model{control}; {share}."
        if (joint := self.joint) is not None:
            said += (
                f" Along them alone, in the running model, tokens do {percent(joint.share)} of what they do "
                f"to the answer (random graphs: {percent(joint.chance)}, p = {joint.p:.2g})."
            )
        doubt = self._doubt()
        return f"Not shown: {said} {doubt}" if doubt else f"{said} Trust {self.trust:.2f}."

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        if not self.tested:
            nodes, edges = counted(len(self.nodes), "node"), counted(len(self.edges), "edge")
            return (READ.format(model=self.about.model_name, nodes=nodes, edges=edges),)
        how = (
            "exchanged for what it writes in the other prompt" if self.exchanged else "taken out of the model"
        )
        of = f"the logit less that of {self.foil!r}" if self.foil else "the logit less the mean of all logits"
        features = f" Features stand in layers {', '.join(self.dictionaries)}." if self.dictionaries else ""
        return (
            f"{self.n_sources:,} parts of {self.about.model_name} write to the stream at "
            f"{counted(len(self.tokens), 'token')}; {self.n_followed:,} heads, neurons and features were "
            f"followed back from the output ({of}). Attention and norms are held, activations count as their "
            "ratio to what they get, so that what a node reads is the exact sum of its edges and a bias "
            f"(Ameisen et al. 2025). Drawn are nodes with {percent(self.kept)} of the influence of all."
            f"{features}",
            TESTED.format(how=how, all="exchanged" if self.exchanged else "taken out"),
        )

    def numbers(self) -> tuple[Number, ...]:
        """Shares of edges, of influence, and the trust score."""
        return (
            self._share(
                "edges-confirmed", "live", self.edges, "drawn edges whose target changes as predicted"
            ),
            self._share(
                "edges-held", "held", self.edges, "the same where the source is missing for this target alone"
            ),
            self._share(
                "control-confirmed",
                "live",
                self.controls,
                "another node in the source's place, as the control",
            ),
            Number(
                "unshown",
                self.unshown if self.ends else None,
                meaning="influence that ends in errors of dictionaries, biases and parts not followed",
            ),
            Number(
                "carried",
                self.carried if self.ends else None,
                meaning="influence that drawn edges alone carry from the answer back to the prompt's tokens",
            ),
            Number(
                "through-paths",
                None if self.joint is None else self.joint.share,
                meaning="of what tokens do to the answer, what they do along drawn paths alone, measured",
            ),
            Number(
                "random-paths",
                None if self.joint is None else self.joint.chance,
                meaning="how near random graphs of whole paths come, of as many edges: the control",
            ),
            Number("paths-p", None if self.joint is None else self.joint.p, meaning="how often as near"),
            Number(
                "trust",
                self.trust,
                meaning="through-paths, an excess counted as a lack (130% as 70%), less random-paths",
                label="Trust",
            ),
            Number(
                "kept",
                None if isnan(self.kept) else self.kept,
                meaning="share of all nodes' influence that is drawn",
            ),
            Number("nodes", len(self.nodes), hidden=True),
            Number("edges", len(self.edges), hidden=True),
        )

    def _share(self, name: str, of: str, edges: Sequence[Edge], meaning: str) -> Number:
        right, n = self.confirmed(of, edges)
        if not n:
            return Number(name, None, meaning=meaning)
        found = clopper_pearson(right, n)
        return Number(name, right / n, found.low, found.high, meaning=f"{meaning} ({right} of {n})")

    def tables(self) -> tuple[Table, ...]:
        """Nodes by influence, edges, and where influence ends."""
        promoted = {one.name: ", ".join(map(repr, one.promoted)) for one in self.nodes}
        nodes = [
            (
                *(one.name, KINDS[one.kind], self.words(one)),
                *(one.value, one.influence, one.effect, promoted[one.name]),
            )
            for one in sorted(self.nodes, key=lambda one: -one.influence)
        ]
        columns = ("node", "kind", "words", "value", "influence", "effect", "promotes")
        how = "exchanged" if self.exchanged else "taken out"
        note = (
            f"influence: the share that goes through it; effect: the change of the output when it is {how}, "
            "of this one prompt, without an interval."
            if self.tested
            else "influence: at most this share of all nodes', as the file has it."
        )
        edges = [
            (e.source, e.target, e.weight, e.share, e.predicted, e.held, e.live, TOLD[e.confirmed()])
            for e in self.edges
        ]
        edge_columns = ("source", "target", "weight", "share", "predicted", "held", "live", "confirmed")
        ends = [(kind, share) for kind, share in self.ends.items()]
        return (
            Table(
                "nodes",
                "Nodes, by influence",
                columns,
                nodes,
                note,
                private=("node", "words", "promotes"),
                narrow=("promotes", "kind", "node"),
            ),
            Table(
                "edges",
                "Edges, by influence",
                edge_columns,
                edges,
                "predicted, held, live: changes of the "
                "target, by the weight, where the source is missing for it alone, and in the running model.",
                narrow=("share", "held"),
            ),
            Table("ends", "Where influence ends", ("kind", "share"), ends, formats={"share": ".1%"}),
        )

    def figures(self) -> tuple[Figure, ...]:
        """Nodes over tokens and layers, with their edges."""
        spots = places_of(self)
        rows: list[tuple[Any, ...]] = []
        for edge in self.edges:
            (x, y), (to_x, to_y) = spots[edge.source], spots[edge.target]
            rows.append((f"{edge.source} to {edge.target}", x, y, to_x, to_y, edge.weight))
        largest = sorted(self.nodes, key=lambda one: -one.influence)[:25]
        rows += [(one.name, *spots[one.name], None, None, one.influence) for one in largest]
        columns = ("name", "x", "y", "to_x", "to_y", "value")
        data = {name: tuple(row[at] for row in rows) for at, name in enumerate(columns)}
        return (
            Figure(
                "graph",
                "graph",
                data,
                "The graph",
                "The prompt runs from left to right, up is later. Blue edges add to their target, orange "
                f"ones take away. Named: the {len(largest)} nodes with most influence; graph.html opens all.",
                x="token of the prompt",
                y="layer",
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What a graph of one prompt does not show."""
        return CAUTIONS if self.tested else (READ_CAUTION,)


def places_of(graph: AttributionGraph) -> dict[str, tuple[float, float]]:
    """Where each node stands: its token, nodes of one block and token side by side, and its layer."""
    cells: dict[tuple[int, float], list[Node]] = {}
    for one in graph.nodes:
        height = (
            -1.0 if one.kind == "embed" else graph.n_layers if one.kind == "output" else float(one.layer or 0)
        )
        height += 0.45 if one.kind in ("neuron", "feature", "rest", "skip", "error") else 0.0
        cells.setdefault((one.position, height), []).append(one)
    found = {}
    for (position, height), group in cells.items():
        step = min(0.14, 0.8 / len(group))
        for at, one in enumerate(group):
            found[one.name] = (position + step * (at - (len(group) - 1) / 2), height)
    return found
