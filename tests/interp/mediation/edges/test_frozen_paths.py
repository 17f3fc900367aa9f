"""Path patching through MLPs against whole runs that are put together from interventions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp import Intervention
from interp.mediation import path_patching
from interp.mediation.edges.graph import Graph, heads_add_up
from interp.models.model import Model
from interp.pairs import PairSet
from tests.interp.mediation.edges.models import made, pairs_of


def difference(logits: torch.Tensor | None, pairs: PairSet) -> np.ndarray:
    assert logits is not None
    ids = zip(pairs.answer_ids, pairs.foil_ids, strict=True)
    return np.array([float(row[a[0]] - row[f[0]]) for row, (a, f) in zip(logits, ids, strict=True)])


def frozen(model: Model, pairs: PairSet, sender: str, receivers: list[str]) -> np.ndarray:
    """Give the metric of clean prompts after path patching, in two passes as Wang et al. describe it.

    First every head keeps its clean value but the sender, so that only MLPs pass on what changes. Then the
    receivers of a clean run get what they got there; where they are the logits, the first run is the answer.
    """
    kind = "z" if heads_add_up(model) else "attn_out"
    sites = [f"{kind}.{layer}" for layer in range(model.n_layers)]
    clean, corrupt = (model.capture(tokens, sites, "all") for tokens in (pairs.clean, pairs.corrupt))
    values = {site: clean[site].clone() for site in sites}
    where, *numbers = sender.split(".")
    if where == "head":
        site, head = f"z.{numbers[0]}", int(numbers[1])
        values[site][:, :, head] = corrupt[site][:, :, head]
    else:
        values[sender] = model.capture(pairs.corrupt, sender, "all")[sender]
    edits = [Intervention(site, value) for site, value in values.items()]
    if receivers == ["logits"]:
        return difference(model.run(pairs.clean, interventions=edits).logits, pairs)
    asked = sorted({one.rpartition(".")[0] for one in receivers})
    noted = model.run(pairs.clean, capture=asked, positions="all", interventions=edits).activations
    assert noted is not None
    plain = model.capture(pairs.clean, asked, "all")
    given = {site: plain[site].clone() for site in asked}
    for one in receivers:
        site, _, number = one.rpartition(".")
        given[site][:, :, int(number)] = noted[site][:, :, int(number)]
    edits = [Intervention(site, value) for site, value in given.items()]
    return difference(model.run(pairs.clean, interventions=edits).logits, pairs)


@pytest.mark.parametrize("receivers", [["logits"], ["q.2.0", "k.2.0", "v.2.1"]])
@pytest.mark.parametrize("family", ["gemma2", "gpt_neox", "granite", "olmo2"])
def test_paths_through_mlps_are_those_of_runs_with_frozen_heads(family: str, receivers: list[str]) -> None:
    """Spec 3.11 where norms follow attention, blocks are parallel, and contributions have a multiplier."""
    model = made(family)
    pairs = pairs_of(model)
    heads = "head.0.1" if heads_add_up(model) else "attn_out.0"
    senders = ["embed", heads, "mlp_out.0", "mlp_out.1"]
    assert set(senders) <= set(map(str, Graph.of(model).writers))
    found = path_patching(model, pairs, senders, receivers, through=("mlp",), directions="noising")
    direct = path_patching(model, pairs, senders, receivers, directions="noising")
    clean, differ = difference(model.logits(pairs.clean), pairs), 0
    for at, sender in enumerate(map(str, found.mediators)):
        wanted = clean - frozen(model, pairs, sender, receivers)
        assert np.allclose(found.values["noising"][at], wanted, atol=2e-5), sender
        differ += not np.allclose(direct.values["noising"][at], wanted, atol=1e-4)
    assert differ >= 2  # the direct edges alone do something else
    assert np.abs(found.values["noising"]).max() > 1e-3
