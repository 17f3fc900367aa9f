"""EntRec and CnstScore of one model, and the gradient of one along the other (Yang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyses.hops.chains import Chains, Placed
from interp.models.answers import score
from interp.models.forward import gradients, plan_batches
from interp.models.model import Model
from interp.models.readout import Readout

__all__ = ["Answers", "answers", "consistency", "recalled", "second_hop_slopes"]


@dataclass(frozen=True, eq=False)
class Answers:
    """Hold how the questions are answered.

    Attributes:
        first: 1 where every token of the bridge is the likeliest after the question for it, else 0.
        second: 1 where the question that names the bridge is answered, else 0.
        both: 1 where the two-hop question is answered, else 0.
        consistency: CnstScore of two-hop and one-hop question, in nats.
        consistency_other: with the one-hop question about another bridge.
        one_hop: log-probabilities after the question that names the bridge.
    """

    first: Float[np.ndarray, " item"]
    second: Float[np.ndarray, " item"]
    both: Float[np.ndarray, " item"]
    consistency: Float[np.ndarray, " item"]
    consistency_other: Float[np.ndarray, " item"]
    one_hop: Float[Tensor, "item vocab"]


def answers(model: Model, chains: Chains) -> Answers:
    """Ask every question once.

    Args:
        model: what is run.
        chains: what is asked.
    """
    asked = chains.asked
    first, second, both, other = (
        model.logits(prompts)
        for prompts in (
            [one.chain.first for one in asked],
            [one.chain.second for one in asked],
            [one.chain.both for one in asked],
            [one.chain.second for one in chains.others],
        )
    )
    logs = [logits.double().log_softmax(dim=1) for logits in (both, second, other)]
    return Answers(
        _right(model, first, [(one.chain.first, one.bridge) for one in asked]),
        _right(model, second, [(one.chain.second, one.answer_alone) for one in asked]),
        _right(model, both, [(one.chain.both, one.answer) for one in asked]),
        consistency(logs[0], logs[1]).cpu().numpy(),
        consistency(logs[0], logs[2]).cpu().numpy(),
        logs[1],
    )


def _right(
    model: Model, logits: Tensor, asked: Sequence[tuple[str, tuple[int, ...]]]
) -> Float[np.ndarray, " item"]:
    """1 where every token of the answer is the likeliest where it stands."""
    if any(len(ids) > 1 for _, ids in asked):
        return score(model, [text for text, _ in asked], [ids for _, ids in asked]).likeliest.double().numpy()
    return (logits.argmax(dim=1).cpu() == torch.tensor([ids[0] for _, ids in asked])).double().numpy()


def consistency(one: Float[Tensor, "item vocab"], two: Float[Tensor, "item vocab"]) -> Float[Tensor, " item"]:
    """Give CnstScore: half the negative cross-entropies of two distributions in both directions, in nats.

    Args:
        one: log-probabilities.
        two: log-probabilities.
    """
    return 0.5 * ((one.exp() * two).sum(dim=1) + (two.exp() * one).sum(dim=1))


def recalled(
    model: Model, readout: Readout, where: Sequence[Placed], bridges: Int[Tensor, " item"]
) -> Float[Tensor, "layer item"]:
    """Give EntRec of every layer: the bridge's log-probability read at the end of its description, in nats.

    Args:
        model: what is run, once.
        readout: its last step.
        where: the prompts, and the position of each that is read.
        bridges: whose log-probability.
    """
    sites = [f"resid_post.{layer}" for layer in range(model.n_layers)]
    read = model.capture([one.chain.both for one in where], sites, [one.position for one in where])
    return torch.stack([readout.log_probabilities(read[site], bridges[:, None])[:, 0] for site in sites])


def second_hop_slopes(
    model: Model, readout: Readout, chains: Chains, one_hop: Float[Tensor, "item vocab"]
) -> Float[Tensor, "layer item"]:
    """Give the slope of CnstScore as the description's end moves along EntRec's gradient: is recall used?

    The derivative at 0 of ``CnstScore(x + a * grad_x EntRec)`` is the product of both gradients: one backward
    pass through the model and one through the last step, for all layers at once.

    Args:
        model: what is run with its graph.
        readout: its last step.
        chains: what is asked.
        one_hop: log-probabilities after the question that names the bridge, held.

    Returns:
        For layers 0 to the last but one.

    Raises:
        ModelError: the model's gradients are not to be believed.
    """
    asked = chains.asked
    lengths = model.tokenize([one.chain.both for one in asked]).lengths
    found = torch.zeros(model.n_layers - 1, len(asked), dtype=torch.float64)
    for rows in plan_batches(lengths, "auto", device=model.device.type):
        held = one_hop[torch.tensor(rows, device=one_hop.device)]
        found[:, rows] = _slopes(model, readout, [asked[row] for row in rows], held)
    return found


@gradients()
def _slopes(model: Model, readout: Readout, asked: Sequence[Placed], one_hop: Tensor) -> Tensor:
    sites = [f"resid_post.{layer}" for layer in range(model.n_layers - 1)]
    run = model.run([one.chain.both for one in asked], capture=sites, positions="all", grad=True)
    assert run.logits is not None and run.activations is not None
    nodes = [run.activations[site] for site in sites]
    score = consistency(run.logits.double().log_softmax(dim=1), one_hop).sum()
    gradients: Any = torch.autograd.grad(score, nodes)
    items = torch.arange(len(asked), device=nodes[0].device)
    at = torch.tensor([one.position for one in asked], device=nodes[0].device)
    bridges = torch.tensor([[one.bridge[0]] for one in asked], device=nodes[0].device)
    slopes: list[Tensor] = []
    for node, gradient in zip(nodes, gradients, strict=True):
        states = node.detach()[items, at].to(readout.dtype).requires_grad_(True)
        with torch.enable_grad():
            recall = readout.of_tokens(states, bridges).sum()
        (along,) = torch.autograd.grad(recall, states)
        slopes.append((gradient[items, at].double() * along.double()).sum(dim=1).cpu())
    return torch.stack(slopes)
