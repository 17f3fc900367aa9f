"""The circuit run against arithmetic by hand, whole runs, and one edge patched by plain hooks."""

from __future__ import annotations

import random

import pytest
import torch

from interp.errors import ModelError
from interp.mediation.edges.engine import CutRow, EdgeEngine, edge_logits
from interp.mediation.edges.graph import Edge, Graph, Reader
from interp.models.model import Model
from interp.sites import Site
from tests.interp.mediation.edges.models import made, micro, pairs_of, values_of
from tests.interp.mediation.edges.naive import patched_edge
from tests.tiny import FAMILIES


def test_the_micro_model_by_hand() -> None:
    """Oracle 10, MicroModel: clean (25, 49), corrupt (-25, -49); with 1, 2, 3 edges from the clean prompt."""
    model = micro()
    clean, corrupt = model.tokenize([[3]]), model.tokenize([[4]])
    assert model.logits(clean)[0, :2].tolist() == [25, 49]
    assert model.logits(corrupt)[0, :2].tolist() == [-25, -49]
    graph = Graph.of(model)
    edges = graph.indices(
        [
            Edge(Site("head", 0, 1), Reader("logits")),
            Edge(Site("head", 0, 0), Reader("v", 1, 1)),
            Edge(Site("embed"), Reader("v", 0, 0)),
        ]
    )
    engine = EdgeEngine(model, corrupt, graph)
    rows = [CutRow(0, edges[:count]) for count in range(4)]
    values = values_of(model, clean, graph.writers)
    found = engine.logits(rows, values)[:, :2]
    assert found.tolist() == [[-25, -49], [-19, -41], [-13, -25], [-9, -13]]
    aside = engine.logits([CutRow(0, graph.indices(graph.select("head.0.0->logits")))], values)[0, :2]
    assert aside.tolist() == [-23, -45]


def test_the_micro_model_by_hand_as_circuits() -> None:
    """Oracle 10, MicroModel: clean edges count once the whole path to the logits is kept."""
    model = micro()
    clean, corrupt = model.tokenize([[3]]), model.tokenize([[4]])
    graph = Graph.of(model)
    path = ["embed->v.0.0", "head.0.0->v.1.1", "head.1.1->logits"]
    circuits = [graph.select(path[:count]) for count in (1, 2, 3)]
    found = edge_logits(model, clean, values_of(model, corrupt, graph.writers), circuits)
    assert found[:, 0, :2].tolist() == [[-25, -49], [-25, -49], [-19, -33]]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_edges_are_the_clean_run_and_none_the_corrupt_one(family: str) -> None:
    """Oracle 10, on every family: grouped queries, post-norms, parallel blocks, fused layouts."""
    model = made(family)
    pairs = pairs_of(model)
    graph = Graph.of(model)
    other = values_of(model, pairs.corrupt, graph.writers)
    responding = [
        edge for edge in graph.edges if str(edge.reader) == "logits" and edge.writer.kind != "embed"
    ]
    half = random.Random(0).sample(list(graph.edges), graph.n_edges // 2)
    found = edge_logits(model, pairs.clean, other, [graph.edges, (), responding, half])
    clean, corrupt = model.logits(pairs.clean), model.logits(pairs.corrupt)
    limit = 1e-5 * max(1.0, float(clean.abs().max()))
    assert (found[0] - clean).abs().max() <= limit
    assert (found[1] - corrupt).abs().max() <= limit
    assert (found[2] - corrupt).abs().max() <= limit  # every reader gets corrupt edges, the writers respond
    assert min((found[3] - plain).abs().max() for plain in (clean, corrupt)) > 0.01  # half is neither


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_one_edge_is_what_plain_hooks_give(family: str) -> None:
    """Oracle 10: brute force, one edge at a time, written without anything of the runner."""
    model = made(family)
    pairs = pairs_of(model, 1)
    graph = Graph.of(model)
    rng = random.Random(1)
    kinds = {
        kind: [e for e in graph.edges if e.reader.kind == kind] for kind in ("q", "k", "v", "mlp", "logits")
    }
    edges = [edge for found in kinds.values() for edge in rng.sample(found, 4)]
    places = graph.indices(edges)
    engine = EdgeEngine(model, pairs.clean, graph)
    rows = [CutRow(0, place) for place in places[:, None].unbind()]
    found = engine.logits(rows, values_of(model, pairs.corrupt, graph.writers))
    plain = model.logits(pairs.clean)[0]
    moved = 0
    for edge, logits in zip(edges, found, strict=True):
        wanted = patched_edge(model, pairs.clean.token_ids[0], pairs.corrupt.token_ids[0], edge)
        assert (logits - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max())), str(edge)
        moved += float((wanted - plain).abs().max()) > 1e-4
    assert moved > len(edges) / 2


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_rows_do_not_see_each_other(family: str) -> None:
    """Circuits of every size in one call are what they are alone."""
    model = made(family)
    pairs = pairs_of(model)
    graph = Graph.of(model)
    other = values_of(model, pairs.corrupt, graph.writers)
    rng = random.Random(0)
    every = graph.indices(graph.edges).tolist()
    cuts = [torch.tensor(rng.sample(every, size)) for size in (1, 2, 60, len(every) - 1)]
    rows = [CutRow(example, cut) for cut in cuts for example in range(len(pairs))]
    rng.shuffle(rows)
    together = EdgeEngine(model, pairs.clean, graph).logits(rows, other)
    engine = EdgeEngine(model, pairs.clean, graph)
    for row, logits in zip(rows, together, strict=True):
        assert torch.allclose(logits, engine.logits([row], other)[0], atol=2e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4


def test_later_edges_cost_less() -> None:
    model = made()
    pairs = pairs_of(model, 1)
    graph = Graph.of(model)
    other = values_of(model, pairs.corrupt, graph.writers)
    spent = []
    for text in ("embed->q.0.0", "embed->q.2.0", "embed->logits"):
        engine = EdgeEngine(model, pairs.clean, graph)
        engine.logits([CutRow(0, graph.indices(graph.select(text)))], other)
        spent.append(engine.bill.forwards)
    assert spent == pytest.approx([1, 1 / 3, 0])


def test_a_model_whose_edges_do_not_add_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    monkeypatch.setattr("interp.mediation.edges.run._weighted", _twice)
    with pytest.raises(ModelError, match=r"edges of .* \(llama\) do not add up to its own runs"):
        _one(model)


def _twice(mask: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    return 2 * torch.einsum("ru,rupd->rpd", mask.to(change.dtype), change)


def _one(model: Model) -> torch.Tensor:
    pairs, graph = pairs_of(model, 1), Graph.of(model)
    other = values_of(model, pairs.corrupt, graph.writers)
    return edge_logits(model, pairs.clean, other, [()])
