"""What happens on the way to the answers: sublayers for all questions, neurons for some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations import Activations
from interp.analyses.knowledge.attribution import (
    SITES,
    Attribution,
    attribute,
    neuron_counts,
    neuron_findings,
    neuron_writes,
    top_by_layer,
)
from interp.analyses.knowledge.questions import Questions
from interp.analyses.layer_profiles import curve
from interp.errors import ModelError
from interp.models.model import Model
from interp.models.readout import Readout
from interp.results.findings import Finding
from interp.results.shapes import Table

__all__ = ["Inside", "inside"]

MOST_OF_ALL = 0.1
"""The largest part of all neurons that can be called the top."""


@dataclass(frozen=True, eq=False)
class Inside:
    """What sublayers and neurons of one model add to the answers.

    Attributes:
        layers: of every question, for the answer (token 0) and a wrong answer (token 1).
        neurons: of the questions ``rows``; None where they cannot be taken apart.
        rows: which questions.
        groups: the fact of every question.
        width: neurons per layer.
        missing: why something is left out.
    """

    layers: Sublayers | None
    neurons: Attribution | None
    rows: tuple[int, ...]
    groups: tuple[str, ...]
    width: int
    missing: tuple[str, ...] = ()

    def neuron_findings(self, reference: Inside, threshold: str) -> tuple[Finding, ...]:
        """Compare the neurons with the reference's; nothing where either has none."""
        if self.neurons is None or reference.neurons is None:
            return ()
        groups = [self.groups[row] for row in self.rows]
        return neuron_findings(self.neurons, reference.neurons, groups, threshold)

    def curves(self) -> tuple[Finding, ...]:
        """What attention and FFN add to the answer's log-probability, layer by layer."""
        if self.layers is None:
            return ()
        found: list[Finding] = []
        for name, gains in (("attention", self.layers.attention), ("FFN", self.layers.ffn)):
            values = gains.double().cpu().numpy()
            found += curve(
                f"{name} contribution",
                values[..., 0],
                np.zeros_like(values[..., 0]),
                groups=self.groups,
                unit="nats",
                about=f"increase of the answer's log-probability by all that {name} adds at that layer; "
                "control: nothing added",
            )
        return tuple(found)

    def tables(self, reference: Inside, threshold: str) -> tuple[Table, ...]:
        """Where the top neurons are, and the full curves with their drops from the reference."""
        columns: dict[str, list[float]] = {}
        if self.neurons is not None:
            columns["share of the top neurons"] = top_by_layer(self.neurons, self.width)
        if self.layers is not None and reference.layers is not None:
            own, other = self.layers, reference.layers
            pairs = {"attention": (own.attention, other.attention), "FFN": (own.ffn, other.ffn)}
            for name, (here, there) in pairs.items():
                columns[f"{name} contribution"] = here[..., 0].mean(dim=1).tolist()
                columns[f"{name} contribution to another answer"] = here[..., 1].mean(dim=1).tolist()
                columns[f"{name} drop"] = (there - here)[..., 0].mean(dim=1).tolist()
        layers = [(at, *row) for at, row in enumerate(zip(*columns.values(), strict=True))]
        neurons = [] if self.neurons is None else [neuron_counts(self.neurons, threshold)]
        return (
            *(Table.of("neurons", "What was measured of neurons", [row]) for row in neurons),
            Table("layers", "Layer by layer", ("layer", *columns), layers, folded=True),
        )


def inside(
    model: Model,
    questions: Questions,
    wrong: Sequence[int],
    *,
    top: int,
    prompts: int,
    reference: Inside | None,
) -> Inside:
    """Read every sublayer and the neurons of some questions, in one pass each.

    Args:
        model: what is run.
        questions: what is asked.
        wrong: the token of a wrong answer to each, or -1.
        top: how many neurons count as the top, at most a tenth of all.
        prompts: for how many questions neurons are taken apart.
        reference: of another model, whose top neurons are measured too.
    """
    asked = questions.asked
    rows = _spread(len(asked), prompts)
    found = Inside(None, None, rows, tuple(one.group for one in asked), model.d_mlp)
    off = [kind for kind in ("attn_out", "mlp_out") if kind in model.disabled]
    if off:
        why = f"contributions of layers and neurons were left out: {model.disabled[off[0]]}"
        return replace(found, missing=(why,))
    if some := [kind for kind in ("attn_out", "mlp_out") if kind in dict(model.anatomy.some)]:
        why = f"contributions of layers and neurons were left out: not every layer has '{some[0]}'."
        return replace(found, missing=(why,))
    readout = Readout.precise(model.architecture)
    right = torch.tensor([one.token for one in asked])
    tokens = torch.stack([right, torch.tensor([w if w >= 0 else 0 for w in wrong])], dim=1)
    read = model.capture([one.prompt for one in asked], [f"{kind}.*" for kind in SITES[:3]], "last")
    layers = sublayer_gains(readout, read, tokens.to(model.device), parallel=model.architecture.parallel)
    none = torch.tensor([w < 0 for w in wrong], device=layers.ffn.device)
    for gains in (layers.attention, layers.ffn):
        gains[..., 1].masked_fill_(none, 0.0)
    neurons, missing = _neurons(model, readout, questions, found, top, reference)
    return replace(found, layers=layers, neurons=neurons, missing=missing)


def _spread(total: int, wanted: int) -> tuple[int, ...]:
    """Choose rows evenly from the list, whose relations are in turn."""
    count = min(total, wanted)
    return tuple(np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist())


def _neurons(
    model: Model,
    readout: Readout,
    questions: Questions,
    plan: Inside,
    top: int,
    reference: Inside | None,
) -> tuple[Attribution | None, tuple[str, ...]]:
    if "mlp_act" in model.disabled:
        return None, (f"neurons were left out: {model.disabled['mlp_act']}",)
    if "mlp_act" in dict(model.anatomy.some):
        return None, ("neurons were left out: not every layer has 'mlp_act'.",)
    asked = [questions.asked[row] for row in plan.rows]
    read = model.capture([one.prompt for one in asked], [f"{kind}.*" for kind in SITES], "last")
    try:
        writes = neuron_writes(model, readout, read)
    except ModelError as error:
        return None, (f"neurons were left out: {error}",)
    k = max(1, min(top, int(MOST_OF_ALL * model.d_mlp * model.n_layers)))
    tokens = torch.tensor([one.token for one in asked], device=model.device)
    known = None if reference is None else reference.neurons
    found = attribute(readout, writes, tokens, k, reference=known)
    notes = () if found.exact else (_CANDIDATES,)
    return found, (notes if k == top else (*notes, f"the top {k} neurons, a tenth of all, instead of {top}"))


_CANDIDATES = (
    "neurons were put forward by the slope of the log-probability, and only those were measured; others "
    "count as below the threshold"
)


@dataclass(frozen=True, eq=False)
class Sublayers:
    """``log p(w | base + output) - log p(w | base)`` of every sublayer, in nats.

    Attributes:
        attention: ``[layer item token]``; its base is the stream that enters the block.
        ffn: likewise; its base is that plus attention's output, or the same in a parallel block.
    """

    attention: Float[Tensor, "layer item n_tokens"]
    ffn: Float[Tensor, "layer item n_tokens"]


def sublayer_gains(
    readout: Readout, read: Activations, tokens: Int[Tensor, "item n_tokens"], *, parallel: bool
) -> Sublayers:
    """Measure the log-probability increase of whole sublayers (Yu and Ananiadou 2024, section 3.2).

    Args:
        readout: the model's last step.
        read: ``resid_pre``, ``attn_out`` and ``mlp_out`` of all layers at the last token.
        tokens: whose log-probability is read, for each item its own.
        parallel: whether attention and FFN read the same stream.
    """
    layers = sum(site.kind == "resid_pre" for site in read.sites)
    attention: list[Tensor] = []
    ffn: list[Tensor] = []
    states: Tensor | None = None
    after: Tensor | None = None
    for layer in range(layers):
        pre, attn, mlp = (
            read[f"{kind}.{layer}"].to(readout.dtype) for kind in ("resid_pre", "attn_out", "mlp_out")
        )
        base = pre if parallel else pre + attn
        # most often the very numbers that the layer before ended with: they are read already
        if after is not None and states is not None and torch.equal(pre, states):
            before = after
        else:
            before = readout.log_probabilities(pre, tokens)
        middle = readout.log_probabilities(pre + attn, tokens)
        states = base + mlp
        after = readout.log_probabilities(states, tokens)
        attention.append(middle - before)
        ffn.append(after - (before if parallel else middle))
    return Sublayers(torch.stack(attention), torch.stack(ffn))
