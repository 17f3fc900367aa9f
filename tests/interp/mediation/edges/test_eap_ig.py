"""EAP-IG's own algorithm on a GPT-2 written out by hand: the oracle shares no code with the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.interp.mediation.edges.models import edge_attribution, made, pairs_of

Values = dict[str, Tensor]


def by_hand(hf: Any, ids: list[int], held: Mapping[str, Tensor]) -> tuple[Tensor, Values, Values]:
    """Logits after the last token, what every writer adds, and a leaf for the input of every reader.

    Writers named in ``held`` add that instead. Each head reads its queries, keys and values from a leaf of
    its own.
    """
    core, heads = hf.transformer, hf.config.n_head
    size = hf.config.n_embd // heads
    written: Values = {}
    leaves: Values = {}

    def add(name: str, value: Tensor) -> Tensor:
        written[name] = held.get(name, value)
        return written[name]

    def read(name: str, stream: Tensor) -> Tensor:
        leaves[name] = torch.zeros_like(stream, requires_grad=True)
        return stream + leaves[name]

    places = torch.arange(len(ids))
    stream = add("embed", core.wte(torch.tensor(ids)) + core.wpe(places))
    future = places[:, None] < places
    for layer, block in enumerate(core.h):
        weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        parts = []
        for head in range(heads):
            made = {}
            for at, kind in enumerate("qkv"):
                columns = slice(at * heads * size + head * size, at * heads * size + (head + 1) * size)
                seen = block.ln_1(read(f"{kind}.{layer}.{head}", stream))
                made[kind] = seen @ weight[:, columns] + bias[columns]
            scores = (made["q"] @ made["k"].T / size**0.5).masked_fill(future, -torch.inf)
            mixed = scores.softmax(dim=-1) @ made["v"]
            out = mixed @ block.attn.c_proj.weight[head * size : (head + 1) * size]
            parts.append(add(f"head.{layer}.{head}", out))
        stream = stream + sum(parts) + block.attn.c_proj.bias
        stream = stream + add(f"mlp_out.{layer}", block.mlp(block.ln_2(read(f"mlp.{layer}", stream))))
    return hf.lm_head(core.ln_f(read("logits", stream)))[-1], written, leaves


def eap_ig(
    hf: Any, clean: list[int], corrupt: list[int], answer: int, foil: int, path: str, steps: int
) -> Any:
    """Scores of hannamw/EAP-IG, negated: writer and reader to the estimated noising effect."""
    ends = [by_hand(hf, ids, {})[1] for ids in (clean, corrupt)]
    heads, layers = range(hf.config.n_head), range(hf.config.n_layer)
    nodes = [["embed"]]
    if path == "activations":
        for layer in layers:
            nodes += [[f"head.{layer}.{head}" for head in heads], [f"mlp_out.{layer}"]]
    points = range(1, steps + 1) if path == "activations" else range(steps)
    slopes: Values = {}
    for node in nodes:
        for k in points:
            held = {
                name: (k / steps * ends[0][name] + (1 - k / steps) * ends[1][name]).detach() for name in node
            }
            logits, _, leaves = by_hand(hf, clean, held)
            found = torch.autograd.grad(
                logits[answer] - logits[foil], list(leaves.values()), allow_unused=True
            )
            for name, slope in zip(leaves, found, strict=True):
                if slope is not None:
                    slopes[name] = slopes.get(name, torch.zeros(())) + slope / (steps * len(nodes))
    return {
        (writer, reader): -((ends[1][writer] - ends[0][writer]) * slope).sum().item()
        for writer in ends[0]
        for reader, slope in slopes.items()
    }


def test_the_hand_made_model_is_the_real_one() -> None:
    hf = made("gpt2").hf
    ids = [5, 9, 20, 7]
    with torch.no_grad():
        assert torch.allclose(by_hand(hf, ids, {})[0], hf(torch.tensor([ids])).logits[0, -1], atol=1e-5)


@pytest.mark.parametrize("path", ["inputs", "activations"])
def test_mib_scores_are_those_of_the_code_of_eap_ig(path: str) -> None:
    model = made("gpt2")
    pairs = pairs_of(model)
    asked = ["edge.*"]
    found = edge_attribution(
        model, pairs, asked, slope=path, steps=3, compat="mib", directions="noising", verify=0
    )
    mine = found.values["noising"]
    wanted = np.zeros_like(mine)
    for at in range(len(pairs)):
        prompts = [list(side.token_ids[at]) for side in (pairs.clean, pairs.corrupt)]
        theirs = eap_ig(model.hf, *prompts, pairs.answer_ids[at][0], pairs.foil_ids[at][0], path, 3)
        for row, edge in enumerate(found.mediators):
            wanted[row, at] = theirs[str(edge.writer), str(edge.reader)]  # type: ignore[union-attr]
    assert np.abs(mine - wanted).max() < 1e-5 * np.abs(wanted).max()
    some = edge_attribution(
        model, pairs, "edge.*->logits", slope=path, steps=3, compat="mib", directions="noising", verify=0
    )
    rows = [at for at, edge in enumerate(found.mediators) if str(edge).endswith("->logits")]
    assert np.allclose(some.values["noising"], mine[rows], atol=1e-6)  # whatever else was asked
    plain = edge_attribution(model, pairs, asked, slope=path, steps=3, directions="noising", verify=0)
    assert np.corrcoef(plain.values["noising"].ravel(), wanted.ravel())[0, 1] < 0.999


def test_the_other_direction_starts_from_the_other_end() -> None:
    """Denoising runs the corrupt prompts; the points are counted from the corrupt end all the same."""
    model = made("gpt2")
    pairs = pairs_of(model)
    asked = "edge.head.0.*->mlp.1"
    kept: Any = {"slope": "activations", "steps": 1, "compat": "mib", "verify": 0}
    found = edge_attribution(model, pairs, asked, directions="denoising", **kept).values["denoising"]
    ends = [[list(side.token_ids[at]) for side in (pairs.corrupt, pairs.clean)] for at in range(len(pairs))]
    carriers = 1 + 2 * model.n_layers
    for at, (corrupt, clean) in enumerate(ends):
        written = [by_hand(model.hf, ids, {})[1] for ids in (corrupt, clean)]
        total: Any = 0.0
        for layer in range(-1, 2 * model.n_layers):
            number, mlp = divmod(layer, 2)
            names = [f"mlp_out.{number}"] if mlp else [f"head.{number}.{head}" for head in range(4)]
            names = ["embed"] if layer < 0 else names
            logits, _, leaves = by_hand(
                model.hf, corrupt, {name: written[1][name].detach() for name in names}
            )
            value = logits[pairs.answer_ids[at][0]] - logits[pairs.foil_ids[at][0]]
            [slope] = torch.autograd.grad(value, leaves["mlp.1"], allow_unused=True)
            total = total + (torch.zeros(len(corrupt), 32) if slope is None else slope)
        for head in range(4):
            change = written[1][f"head.0.{head}"] - written[0][f"head.0.{head}"]
            assert found[head, at] == pytest.approx((change * total).sum().item() / carriers, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt_neox", "gptj"])
def test_lines_of_activations_run_through_parallel_blocks(family: str) -> None:
    """The edges of one writer, along its own line, add up to the exact effect of replacing that writer."""
    from interp.mediation import exhaustive

    model = made(family)
    pairs = pairs_of(model, 2)
    edges = edge_attribution(model, pairs, "edge.mlp_out.0->*", slope="activations", steps=24, verify=0)
    exact = exhaustive(model, pairs, "mlp_out.0", positions="all")
    for direction in edges.values:
        assert np.allclose(edges.values[direction].sum(axis=0), exact.values[direction][0], atol=5e-3)
    assert np.abs(exact.mean()).max() > 1e-2
