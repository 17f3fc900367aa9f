"""The graph: counts, order, grammar, and what is refused."""

from __future__ import annotations

import pytest

from interp.errors import SiteError
from interp.mediation.edges.graph import Edge, Graph, Reader
from interp.models.loading import load
from interp.sites import Site
from tests.interp.mediation.edges.models import made
from tests.tiny import build, tokenizer


def test_gpt2_small_has_32491_edges() -> None:
    """Spec 2.1: 157 writers and 445 readers; also on a real model of 12 layers and 12 heads, made narrow."""
    for graph in (
        Graph.sized(12, 12, 12),
        Graph.of(load(build("gpt2", n_layer=12, n_head=12, n_embd=24), tokenizer=tokenizer())),
    ):
        assert (len(graph.writers), len(graph.readers), graph.n_edges) == (157, 445, 32491)
        assert len(set(map(str, graph.edges))) == 32491
    assert Graph.sized(12, 12, 12, blocks="parallel").n_edges == 32491 - 12 * 12


def test_heads_reach_the_mlp_of_their_own_layer_only_in_sequential_blocks() -> None:
    own = Edge(Site("head", 1, 2), Reader("mlp", 1))
    assert own in Graph.of(made("llama"))
    assert own not in Graph.of(made("gpt_neox"))
    assert Edge(Site("mlp_out", 1), Reader("mlp", 1)) not in Graph.of(made("llama"))
    assert Edge(Site("head", 1, 2), Reader("v", 1, 0)) not in Graph.of(made("llama"))


def test_keys_and_values_are_read_by_group_and_post_norms_write_whole_layers() -> None:
    graph, normed = Graph.of(made("llama")), Graph.of(made("gemma2"))
    assert len(graph.at(1, "q")) == 4
    assert len(graph.at(1, "k")) == len(graph.at(1, "v")) == 2
    assert {w.kind for w in normed.writers} == {"embed", "attn_out", "mlp_out"}
    assert "do not add up" in normed.note
    assert not graph.note


def test_edges_print_and_parse_and_stand_in_order() -> None:
    graph = Graph.of(made())
    assert list(graph.edges) == sorted(graph.edges)
    for edge in graph.edges[::17]:
        assert graph.select(str(edge)) == (edge,)
        assert graph.select(f"edge.{edge}") == (edge,)
        assert bool(graph.mask([edge]).flatten()[graph.indices([edge])].all())
    assert str(graph.select("head.1.1->q.2.3")[0]) == "head.1.1->q.2.3"
    assert graph.select("edge.*") == graph.edges
    assert all(e.writer.layer == 1 for e in graph.select("edge.head.1.*->*"))
    assert len(graph.select("edge.*->logits")) == len(graph.writers)
    assert graph.select(["edge.*->logits", "embed->logits"]) == graph.select("edge.*->logits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("edge.haed.*->logits", r"no writer matches 'haed.\*'. Writers: embed, head.0.0..head.2.3"),
        ("edge.head.1.1->q.9.0", r"no reader matches 'q.9.0'.*Readers: q.0.0..q.2.3, k.0.0..k.2.1"),
        ("edge.head.2.0->q.1.0", "those readers come before those writers"),
        ("head.2.0", r"cannot read the edge 'head.2.0': write edge.WRITER->READER"),
        (Edge(Site("head", 2, 0), Reader("q", 1, 0)), "there is no edge 'head.2.0->q.1.0': the reader comes"),
        (Edge(Site("head", 9, 0), Reader("logits")), "its writer or its reader does not exist here"),
        ([], "no edges asked"),
    ],
)
def test_what_there_is_not_is_refused(text: object, message: str) -> None:
    with pytest.raises(SiteError, match=message):
        Graph.of(made()).select(text)  # type: ignore[arg-type]


def test_a_family_without_the_needed_sites_is_refused_by_name() -> None:
    hf = build("llama")
    model = load(hf, tokenizer=tokenizer(), family={"v": "self_attn.nothing"})
    with pytest.raises(SiteError, match=r"edges of .* \(llama\) need 'v', which it does not offer"):
        Graph.of(model)
