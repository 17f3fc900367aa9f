"""Neuron attribution of one model, and how it compares with that of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from interp.analyses.knowledge.neurons import Writes, first_order, importances
from interp.mediation.rankings import jaccard
from interp.models.readout import Readout
from interp.results.findings import Finding
from interp.results.shapes import Cell

__all__ = ["Attribution", "attribute", "neuron_counts", "neuron_findings", "top_by_layer"]

MOST_WORK = 2e11
"""Multiplications up to which every neuron gets a softmax of its own."""
CANDIDATES = 2
"""How many times the top neurons are measured, chosen by first order, where not all can be."""
Threshold = str


@dataclass(frozen=True, eq=False)
class Attribution:
    """Hold the importances of FFN neurons, prompt by prompt.

    Attributes:
        values: ``[item, layer * neuron]`` in nats; minus infinity where not measured.
        top: per item the most important neurons, the best first.
        k: how many.
        exact: whether every neuron was measured.
    """

    values: Float[np.ndarray, "item neuron"]
    top: Int[np.ndarray, "item k"]
    k: int
    exact: bool

    def tau(self, threshold: Threshold) -> Float[np.ndarray, " item"]:
        """Give the threshold of each item: its k-th best value, or one that leaves k per item on average."""
        if threshold == "per-prompt":
            return np.take_along_axis(self.values, self.top[:, -1:], axis=1)[:, 0]
        best = np.sort(self.values, axis=None)[::-1]
        return np.full(len(self.values), best[self.k * len(self.values) - 1])


def attribute(
    readout: Readout,
    writes: Sequence[Writes],
    tokens: Int[Tensor, " item"],
    k: int,
    *,
    reference: Attribution | None,
) -> Attribution:
    """Measure the neurons of all layers, or where that is too much those that first order puts forward.

    Args:
        readout: the model's last step.
        writes: of all layers.
        tokens: the answers.
        k: how many neurons count as the top.
        reference: of another model, whose top neurons are measured in any case.
    """
    n = len(tokens)
    total = sum(layer.activations.shape[1] for layer in writes)
    exact = float(n) * total * readout.vocab_size * writes[0].base.shape[1] <= MOST_WORK
    wanted = torch.full((n, total), exact)
    if not exact:
        best = first_order(readout, writes, tokens).topk(min(CANDIDATES * k, total)).indices.cpu()
        wanted.scatter_(1, best, True)
        if reference is not None:
            wanted.scatter_(1, torch.from_numpy(reference.top), True)
    values = importances(readout, writes, tokens, wanted.to(tokens.device)).double().cpu().numpy()
    top = np.argsort(-values, axis=1, kind="stable")[:, :k]
    if not exact:  # the control asks each item about the top neurons of the one whose partner it is
        asked = torch.from_numpy(top if reference is None else reference.top)
        more = torch.zeros_like(wanted).scatter_(1, asked[np.argsort(partners(n))], True) & ~wanted
        found = importances(readout, writes, tokens, more.to(tokens.device)).double().cpu().numpy()
        values = np.where(more.numpy(), found, values)
    return Attribution(values, top, k, exact)


def partners(n: int) -> list[int]:
    """Give for each item another one, half the list away."""
    return [(row + max(1, n // 2)) % n for row in range(n)]


def neuron_findings(
    own: Attribution, reference: Attribution, groups: Sequence[str], threshold: Threshold
) -> tuple[Finding, ...]:
    """Compare two attributions item by item; of one with itself all agree.

    Args:
        own: of the model at hand.
        reference: of the reference.
        groups: of the items.
        threshold: ``per-prompt`` or ``pooled``.
    """
    k, total = own.k, own.values.shape[1]
    above = (own.values >= reference.tau(threshold)[:, None]).sum(axis=1)
    shared = [jaccard(set(a), set(b)) for a, b in zip(own.top.tolist(), reference.top.tolist(), strict=True)]
    ranks = [_rank_correlation(own, reference, row, row) for row in range(len(groups))]
    strangers = [_rank_correlation(own, reference, row, at) for row, at in enumerate(partners(len(groups)))]
    where = "of each prompt" if threshold == "per-prompt" else "on average over the prompts"
    return (
        Finding(
            "neurons above the threshold",
            above.astype(np.float64),
            tuple(groups),
            unit="neurons",
            about=f"FFN neurons that raise the answer's log-probability by at least what the reference's "
            f"neuron number {k} {where} does; a count rises with noise too: read it with the overlap",
        ),
        Finding(
            f"top {k} neurons shared",
            np.array(shared),
            tuple(groups),
            k / (2 * total - k),
            "Jaccard",
            about="overlap of the most important neurons with the reference's; by chance as for random sets",
        ),
        Finding(
            "rank correlation of neurons",
            np.array(ranks),
            tuple(groups),
            np.array(strangers) if len(groups) > 1 else 0.0,
            "Spearman",
            about=f"importances of the reference's top {k} neurons, here and there; the control asks another "
            "prompt about the same neurons",
        ),
    )


def top_by_layer(own: Attribution, width: int) -> list[float]:
    """The share of the top neurons in each layer of so many neurons."""
    layers = np.bincount(own.top.ravel() // width, minlength=own.values.shape[1] // width)
    return (layers / own.top.size).tolist()


def neuron_counts(own: Attribution, threshold: Threshold) -> dict[str, Cell]:
    """What was measured of neurons."""
    return {
        "top": own.k,
        "neurons": own.values.shape[1],
        "threshold": threshold,
        "exact": own.exact,
        "measured neurons per prompt": float(np.isfinite(own.values).sum(axis=1).mean()),
    }


def _rank_correlation(own: Attribution, reference: Attribution, row: int, asked: int) -> float:
    """Correlate the reference's top neurons of one item with what they do for the item ``asked`` here."""
    at = reference.top[row]
    there, here = reference.values[row, at], own.values[asked, at]
    if len(at) < 2 or np.ptp(there) == 0 or np.ptp(here) == 0:
        return float(np.array_equal(there, here))
    found: Any = stats.spearmanr(there, here)
    return float(found.statistic)
