"""Edge scores by position add up to EAP, find what cancels in it, and are those of a plain reference."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from interp import mediation, patch, results
from interp.errors import ConfigError, DataError, SiteError
from interp.mediation import Edge, Effects
from interp.mediation.edges.blocks import Blocks
from interp.mediation.edges.graph import Graph
from interp.mediation.experiment import spent
from interp.mediation.searches import effects
from tests.interp.mediation.edges.models import made, pairs_of
from tests.planted_heads import planted
from tests.stress.table import stress

EAP = mediation.Attribution(verify=0)


def summed(told: Effects, direction: str) -> dict[str, np.ndarray]:
    """Add up the parts of each edge, per pair."""
    found: dict[str, Any] = defaultdict(float)
    for part, row in zip(told.mediators, told.values[direction], strict=True):
        found[str(part).partition("@")[0]] = found[str(part).partition("@")[0]] + row
    return found


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gpt_neox", "gemma2"])
def test_over_all_positions_the_parts_of_an_edge_add_up_to_its_score_by_attribution(family: str) -> None:
    model = made(family)
    pairs = pairs_of(model)[[0, 1]]
    asked = ["edge.*->*.1*", "edge.*->logits"]
    whole = effects(model, pairs, asked, search=EAP)
    told = effects(model, pairs, asked, search="peap")
    for direction in mediation.DIRECTIONS:
        sums = summed(told, direction)
        wanted = whole.values[direction]
        found = np.stack([sums[str(edge)] for edge in whole.mediators])
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
        parts = np.abs(told.values[direction])
        assert parts.sum() > 1.2 * np.abs(wanted).sum()  # some cancel


def test_a_part_is_the_slope_of_one_key_and_one_query_in_a_plain_reference() -> None:
    """Autograd on GPT-2's own attention, written out: values and keys of head 0 of the last block."""
    model = made("gpt2")
    pairs = pairs_of(model)[[0]]
    layer, hf = model.n_layers - 1, model.hf
    told = effects(
        model,
        pairs,
        [f"edge.embed->v.{layer}.0", f"edge.embed->k.{layer}.0"],
        search="peap",
        directions="noising",
    )
    clean, corrupt = (torch.tensor(side.token_ids) for side in (pairs.clean, pairs.corrupt))
    block = hf.transformer.h[layer]  # type: ignore[attr-defined]
    width, n = 8, clean.shape[1]
    kept: dict[str, torch.Tensor] = {}
    handle = block.register_forward_pre_hook(lambda _, args: kept.update(x=args[0].detach()))
    with torch.no_grad():
        hf(clean)
        handle.remove()
        positions = torch.arange(n)
        embed = lambda ids: hf.transformer.wte(ids) + hf.transformer.wpe(positions)  # type: ignore[attr-defined] # noqa: E731
        change = (embed(corrupt) - embed(clean))[0]
    answer, foil = pairs.answer_ids[0][0], pairs.foil_ids[0][0]
    # one copy of the stream per query, of which that query alone sees keys and values
    streams = kept["x"].expand(n, n, -1).clone().requires_grad_()

    def logit_diff(given: torch.Tensor, kinds: str) -> torch.Tensor:
        plain = block.attn.c_attn(block.ln_1(kept["x"]))[0].split(32, dim=-1)
        moved = block.attn.c_attn(block.ln_1(given)).split(32, dim=-1)
        heads = [one.view(n, 4, width).transpose(0, 1) for one in plain]
        q, k, v = heads
        own_k = moved[1][..., :width] if kinds == "k" else k[0].expand(n, n, width)
        own_v = moved[2][..., :width] if kinds == "v" else v[0].expand(n, n, width)
        mask = torch.full((n, n), float("-inf")).triu(1)
        z = (q @ k.transpose(1, 2) / width**0.5 + mask).softmax(-1) @ v
        scores = (q[0][:, None] * own_k).sum(-1) / width**0.5 + mask
        first = (scores.softmax(-1)[:, None] @ own_v)[:, 0]
        z = torch.cat([first[None], z[1:]]).transpose(0, 1).reshape(1, n, 32)
        stream = kept["x"] + block.attn.c_proj(z)
        stream = stream + block.mlp(block.ln_2(stream))
        logits = hf.lm_head(hf.transformer.ln_f(stream))[0, -1]  # type: ignore[attr-defined]
        return logits[answer] - logits[foil]

    for kind in "kv":
        (slope,) = torch.autograd.grad(logit_diff(streams, kind), streams)
        for query in range(n):
            for key in range(query + 1):
                name = f"embed->{kind}.{layer}.0@{key}>{query}"
                wanted = -float(slope[query, key] @ change[key])
                assert float(told.values["noising"][told.place(name), 0]) == pytest.approx(wanted, abs=1e-6)
    assert np.abs(told.values["noising"]).max() > 1e-3


def test_the_circuit_of_one_position_that_attribution_averages_away_is_found() -> None:
    truth = stress("one-position")
    total = float(mediation.exhaustive(truth.model, truth.pairs, "head.0.1").total.mean())
    asked = ["edge.head.0.0->v.1.1"]
    assert abs(effects(truth.model, truth.pairs, asked, search=EAP).mean()[0]) < 0.01 * total
    told = effects(truth.model, truth.pairs, asked, search="peap")
    large = {
        str(part): value / total
        for part, value in zip(told.mediators, told.mean(), strict=True)
        if abs(value) > 0.02 * total
    }
    assert large == {
        "head.0.0->v.1.1@1>3": pytest.approx(0.5, abs=0.05),
        "head.0.0->v.1.1@2>3": pytest.approx(-0.5, abs=0.05),
    }


def test_spans_average_over_pairs_of_different_lengths_and_add_up_too() -> None:
    model = made("llama")
    pairs = pairs_of(model)
    assert len(set(pairs.lengths)) > 1
    asked = ["edge.embed->v.1.0", "edge.embed->mlp.1", "edge.embed->logits"]
    search = mediation.PositionAttribution(spans=(("end", "last"),))
    told = effects(model, pairs, asked, search=search)
    names = [str(one).partition("@")[2] for one in told.mediators]
    assert names == ["end>end", "rest>end", "rest>rest", "end", "rest", "end"]
    whole = effects(model, pairs, asked, search=EAP)
    for edge, row in zip(whole.mediators, whole.values["denoising"], strict=True):
        np.testing.assert_allclose(summed(told, "denoising")[str(edge)], row, atol=1e-5)


def test_a_span_at_which_nothing_is_read_is_named() -> None:
    model = made("llama")
    search = mediation.PositionAttribution(spans=(("start", "[1:3]"), ("end", "last")))
    told = effects(model, pairs_of(model), "edge.*->logits", search=search)
    said = [text for text in told.warnings if "no part of these edges is at" in text]
    assert len(said) == 1 and "'start'" in said[0] and "'end'" not in said[0]
    read = effects(model, pairs_of(model), ["edge.embed->mlp.1"], search=search)
    assert not [text for text in read.warnings if "no part of these edges" in text]


def test_a_part_of_an_edge_is_written_read_and_ordered_like_an_edge() -> None:
    edge = Edge.parse("edge.head.0.1->v.1.0@subject>end")
    assert (edge.at, str(edge)) == ("subject>end", "head.0.1->v.1.0@subject>end")
    assert Edge.parse(str(edge)) == edge != Edge.parse("head.0.1->v.1.0")
    assert sorted([edge, Edge.parse("head.0.1->v.1.0")])[1] == edge
    with pytest.raises(SiteError, match="the part of an edge at one position is scored, not cut"):
        Graph.of(made("llama")).select([edge])


def test_what_has_no_positions_in_common_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama")
    pairs = pairs_of(model)
    with pytest.raises(ConfigError, match=r"positions of prompts of 7 to 8 tokens asked.*name spans"):
        effects(model, pairs, "edge.*->logits", search="peap")
    with pytest.raises(ConfigError, match="give each a name of its own"):
        effects(
            model,
            pairs,
            "edge.*->logits",
            search=mediation.PositionAttribution(spans=(("rest", "last"),)),
        )
    with pytest.raises(DataError, match=r"token 6 of pair 0 is in the spans 'a' and 'b'"):
        search = mediation.PositionAttribution(spans=(("a", "last"), ("b", "last")))
        effects(model, pairs, "edge.*->logits", search=search)
    monkeypatch.setattr("interp.mediation.edges.positions.MOST_PARTS", 5)
    with pytest.raises(ConfigError, match=r"parts by position; at most 5 are scored\. Ask for fewer edges"):
        effects(model, pairs[[0]], "edge.*->mlp.1", search="peap")
    with pytest.raises(ConfigError, match="search 'peap' ranks edges"):
        effects(model, pairs, "head.*", search="peap")


def test_parts_are_saved_and_opened(tmp_path: Any) -> None:
    model = made("llama")
    told = effects(model, pairs_of(model)[[0, 1]], "edge.embed->v.1.*", search="peap")
    opened = results.load(told.save(tmp_path / "parts"))
    assert isinstance(opened, Effects) and opened.mediators == told.mediators
    np.testing.assert_array_equal(opened.mean(), told.mean())
    assert not told.exact and any("peap: parts of edges" in one for one in told.warnings)


def test_attention_that_runs_once_per_query_is_billed_and_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama")
    pairs = pairs_of(model)[[0, 1]]
    copies: list[int] = []
    read = Blocks.read

    def counting(self: Blocks, layer: int, stream: Any, kinds: Any, **asked: Any) -> Any:
        copies.append(len(stream) if list(kinds) == ["z"] else 0)
        return read(self, layer, stream, kinds, **asked)

    monkeypatch.setattr(Blocks, "read", counting)
    for mediators, split in (("edge.*", True), ("edge.*->mlp.*", False)):
        copies.clear()
        told = effects(model, pairs, mediators, search="peap", directions="noising")
        again = 2 * sum(copies) / model.n_layers / len(pairs)
        assert (again > 10) == split
        assert spent(told.cost, len(pairs)) == pytest.approx(4 + again, abs=0.02)
        planned = mediation.plan(model, pairs, mediators, search="peap", directions="noising")
        assert planned.forwards / len(pairs) == pytest.approx(4 + again, abs=0.02)


def test_parts_of_edges_form_no_circuit_and_that_is_said() -> None:
    truth = planted("induction")
    found = patch(truth.model, truth.pairs, "edge.embed->v.*", search="peap")
    assert found.trace is None and "parts of edges by position are scored, not cut" in found.lead()[-1]
