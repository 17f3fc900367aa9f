"""What searches over edges say that they cost, against the calls of the model's own modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp import mediation
from interp.mediation import EdgeIntegratedGradients, experiment_of
from interp.mediation.edges.engine import CutRow
from interp.mediation.masks.passes import masked_pass
from interp.mediation.searches import effects
from interp.models.model import Model
from interp.sites import Site
from tests.interp.mediation.edges.models import made, pairs_of

FAMILIES = ["llama", "gptj"]
"""One whose blocks run attention and then the MLP, one in which both read the same stream."""


@dataclass
class Calls:
    """Rows that went through each block's attention, and rows whose gradient came back through its MLP."""

    attention: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)

    def passes(self, model: Model) -> float:
        return (sum(self.attention) + sum(self.back)) / model.n_layers


@contextmanager
def counting(model: Model) -> Iterator[Calls]:
    """Count by plain hooks of PyTorch on the modules of every block; a norm alone reaches neither."""
    calls, handles = Calls(), []
    for layer in range(model.n_layers):
        attention, mlp = (
            model.architecture.locate(Site(kind, layer)).module for kind in ("attn_out", "mlp_out")
        )
        assert attention is not mlp

        def ran(module: nn.Module, given: Any, out: Any) -> None:
            first: Tensor = out if isinstance(out, Tensor) else out[0]
            calls.attention.append(len(first))

        def entered(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            own = given[0].view_as(given[0])  # of the MLP alone, where attention reads the same
            if own.requires_grad:
                own.register_hook(lambda slope: calls.back.append(len(slope)))
            return (own, *given[1:])

        handles += [attention.register_forward_hook(ran), mlp.register_forward_pre_hook(entered)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


SEARCHES: dict[str, Any] = {
    "attribution": mediation.Attribution(verify=0),
    "inputs": EdgeIntegratedGradients(verify=0, steps=2),
    "activations": EdgeIntegratedGradients(verify=0, steps=2, path="activations"),
    "mib": EdgeIntegratedGradients(verify=0, steps=2, path="activations", compat="mib"),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("directions", ["both", "noising"])
def test_estimates_bill_every_pass_and_are_planned_so(family: str, search: str, directions: str) -> None:
    model = made(family)
    pairs = pairs_of(model)
    asked: dict[str, Any] = {"search": SEARCHES[search], "directions": directions}
    for edges in ("edge.*", "edge.head.1.*->mlp.2"):
        with counting(model) as calls:
            found = effects(model, pairs, edges, **asked)
        counted = (calls.passes(model) - found.cost["setup"]) / len(pairs)
        assert counted == pytest.approx(found.cost["forwards"], abs=0.011)  # bills are rounded
        planned = mediation.plan(model, pairs, edges, **asked)
        assert planned.forwards == pytest.approx(counted * len(pairs))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_of_exact_effects_is_their_bill(family: str) -> None:
    model = made(family)
    pairs = pairs_of(model)
    for edges in ("edge.head.1.*->*", "edge.embed->mlp.*"):
        planned = mediation.plan(model, pairs, edges, directions="noising")
        found = effects(model, pairs, edges, directions="noising")
        assert planned.forwards == pytest.approx(found.cost["noising"]["forwards"], abs=0.011)
        assert planned.forwards <= planned.naive


@pytest.mark.parametrize("family", FAMILIES)
def test_circuits_and_masks_bill_both_parts_of_a_block_that_is_run_in_two(family: str) -> None:
    model = made(family)
    asked: Any = experiment_of(model, pairs_of(model), "edge.*", directions="noising")
    engine, carried = asked.engine("noising"), asked.sources("noising")
    head, mlp, both = ("edge.head.1.*->logits", "edge.embed->mlp.1", "edge.embed->*")
    cuts = [asked.graph.indices(asked.graph.select([name])) for name in (head, mlp, both)]
    rows = [CutRow(at, cut) for cut in cuts for at in range(len(asked.pairs))]
    with counting(model) as calls:
        engine.logits(rows, carried)
    assert engine.bill.forwards + engine.bill.setup == pytest.approx(calls.passes(model))
    assert engine.bill.forwards > len(rows) / 2
    masked = masked_pass(asked, "noising", noisy=False)
    gates, draw = torch.full((2, len(asked.mediators)), 0.5), torch.Generator().manual_seed(0)
    masked.logits([0, 1], gates, draw)
    before = masked.rows
    with counting(model) as calls, torch.no_grad():
        masked.logits([0, 1], gates, draw)
    assert masked.rows - before == pytest.approx(calls.passes(model))
