"""Edges beside TransformerLens's own, on random GPT-2 and Llama.

It refuses grouped queries, so a grouped Llama is compared with one whose keys and values are written out once
per query head: there an edge into a group is all edges into its heads.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from interp import mediation
from interp.mediation.edges.graph import Graph
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import PairSet
from tests.interp.mediation.edges.models import edge_attribution, pairs_of
from tests.tiny import build, tokenizer

HEADS = 4
MODELS = {"gpt2": ("gpt2", HEADS), "llama": ("llama", HEADS), "grouped llama": ("llama", 2)}
Score = dict[tuple[str, str], float]


@cache
def both(name: str) -> tuple[Model, PairSet, Any]:
    """Load one model natively, and a copy of it, with a key and a value per query head, as a bridge."""
    from transformer_lens.model_bridge import sources

    family, groups = MODELS[name]
    sized = {"num_key_value_heads": groups} if family == "llama" else {}
    model = load(build(family, **sized), tokenizer=tokenizer())
    twin = build(family, **({"num_key_value_heads": HEADS} if family == "llama" else {}))
    twin.load_state_dict(_written_out(model.hf, HEADS // groups))
    twin.set_attn_implementation("eager")
    bridge = sources.build_bridge_from_module(
        twin, type(twin).__name__, hf_config=twin.config, model_name=name
    )
    bridge.tokenizer = tokenizer()
    return model, pairs_of(model), bridge


def _written_out(hf: PreTrainedModel, times: int) -> dict[str, torch.Tensor]:
    """Repeat every group's keys and values, once per query head that reads them."""
    size = hf.config.hidden_size // HEADS
    return {
        name: value.unflatten(0, (-1, size)).repeat_interleave(times, dim=0).flatten(0, 1)
        if name.endswith(("k_proj.weight", "v_proj.weight"))
        else value
        for name, value in hf.state_dict().items()
    }


def sides(pairs: PairSet, at: int) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Give the two prompts of a pair as a batch of one, and the metric."""
    answer, foil = pairs.answer_ids[at][0], pairs.foil_ids[at][0]
    clean, corrupt = (torch.tensor([side.token_ids[at]]) for side in (pairs.clean, pairs.corrupt))
    return clean, corrupt, lambda logits: (logits[:, -1, answer] - logits[:, -1, foil]).mean()


def named(writer: Any, reader: Any, group: int) -> str:
    """Name one of their edges as one of ours; ``group`` is how many query heads share a key."""
    writers = {
        "embed": "embed",
        "attn_head_out": f"head.{writer.layer}.{writer.head}",
        "mlp_out": f"mlp_out.{writer.layer}",
    }
    index = reader.head if reader.kind in ("q_input", "logits", "mlp_in") else reader.head // group
    readers = {"logits": "logits", "mlp_in": f"mlp.{reader.layer}"}
    return f"{writers[writer.kind]}->{readers.get(reader.kind, f'{reader.kind[0]}.{reader.layer}.{index}')}"


@pytest.mark.parametrize("name", MODELS)
def test_estimates_are_those_of_transformer_lens(name: str) -> None:
    """Oracle 11: every edge, summed over positions and over the heads of a group, denoising."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    model, pairs, bridge = both(name)
    found = edge_attribution(model, pairs, directions="denoising", verify=0)
    peers = np.zeros_like(found.values["denoising"])
    rows = {str(edge): at for at, edge in enumerate(found.mediators)}
    seen = set()
    for at in range(len(pairs)):
        theirs = attribution_patch(bridge, *sides(pairs, at), EdgeAttributionConfig(granularity="edge"))
        for (writer, reader), score in theirs.edge_scores.items():
            edge = named(writer, reader, HEADS // MODELS[name][1])
            peers[rows[edge], at] += score
            seen.add(edge)
    assert seen == set(rows)
    largest = np.abs(peers).max()
    assert np.abs(found.values["denoising"] - peers).max() < 1e-5 * largest
    assert largest > 1e-2
    other = edge_attribution(model, pairs, directions="noising", verify=0)
    assert np.abs(other.values["noising"] - peers).max() > 1e-2 * largest


@pytest.mark.parametrize("name", MODELS)
def test_a_circuit_keeps_as_much_as_transformer_lens_says(name: str) -> None:
    """Oracle 11: faithfulness of a circuit of edges, everything outside ablated with the corrupt run."""
    from transformer_lens.tools.analysis import attribution_patching as theirs

    model, pairs, bridge = both(name)
    every = Graph.of(model).edges
    circuit = sorted(random.Random(0).sample(every, len(every) // 2))
    found = mediation.evaluate(
        model, pairs, circuit, universe="edge.*", random_circuits=1, knockouts=0, removals=0, controls=()
    )
    kept, none, whole = (found.values[run] for run in ("circuit", "none", "all"))
    names = set(map(str, circuit))
    shares, control = [], []
    chosen = [0, len(pairs) - 1]
    for at in chosen:
        clean, corrupt, metric = sides(pairs, at)
        nodes = [
            pair for pair in _edges(bridge, clean, metric) if named(*pair, HEADS // MODELS[name][1]) in names
        ]
        one = theirs.faithfulness(bridge, clean, corrupt, metric, nodes)
        shares.append(one.recovered)
        assert one.full_metric == pytest.approx(whole[at], abs=1e-5)
        assert one.corrupt_metric == pytest.approx(none[at], abs=1e-5)
        control.append((found.values["random 0"][at] - none[at]) / (whole[at] - none[at]))
    gap = np.abs(whole - none)
    assert np.abs(shares - ((kept - none) / (whole - none))[chosen]).max() < 1e-5 / min(1.0, gap.min())
    assert np.abs(np.array(shares) - control).max() > 1e-2


def _edges(bridge: Any, tokens: torch.Tensor, metric: Any) -> list[tuple[Any, Any]]:
    """List their edges, at every position."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    found = attribution_patch(bridge, tokens, tokens, metric, EdgeAttributionConfig(granularity="edge"))
    return list(found.edge_scores)
