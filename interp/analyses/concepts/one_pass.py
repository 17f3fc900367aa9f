"""One pass of a model over prompts: what it answers, and all that readers learn from, no prompt run twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.lenses.gathering import FIRST, States, states_of
from interp.models.model import Model
from interp.models.readout import Readout
from interp.tasks.items import Item
from probes.translation import Moments

__all__ = ["OnePass", "one_pass"]

MEMORY = 1 << 32
"""Of the moments that are kept, at most; beyond it there are none."""


@dataclass(frozen=True, eq=False)
class OnePass:
    """What one pass over prompts leaves.

    Attributes:
        states: per layer ``[prompt d_model]``: ``resid_post`` at the last token of each prompt, float32.
        finals: ``[prompt d_model]``: the final states (after the norm) there.
        moments: of each layer, of its states with the final states at every token but the first of the
            prompts for training; none after the last block, nor beyond ``MEMORY``.
        right: whether each token of the answer is the likeliest where it stands; () without answers.
    """

    states: Mapping[int, Float[Tensor, "prompt d_model"]]
    finals: Float[Tensor, "prompt d_model"]
    moments: Mapping[int, Moments]
    right: tuple[bool, ...] = ()

    def at_end(self, layer: int, rows: Sequence[int]) -> Moments:
        """The moments at the last token of some prompts."""
        states = self.states[layer][list(rows)]
        return Moments(states.shape[1], self.finals.shape[1]).add(states, self.finals[list(rows)])


@torch.no_grad()
def one_pass(
    model: Model,
    items: Sequence[Item],
    token_ids: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    answers: Sequence[Sequence[int]] = (),
    batch_size: str | int = "auto",
) -> OnePass:
    """Run prompts once, each followed by its answer where it is asked for (teacher forcing).

    What stands after a token changes nothing at it, so that the states are those of the prompts alone.

    Args:
        model: what is run.
        items: the prompts.
        token_ids: of each.
        layers: whose states are kept.
        answers: the tokens of each prompt's answer; () where nothing is asked.
        batch_size: prompts per pass; "auto" chooses.
    """
    readout, last = Readout.precise(model.architecture), model.n_layers - 1
    n, width = len(items), model.d_model
    states = {layer: torch.zeros(n, width) for layer in layers}
    finals, right = torch.zeros(n, width), [False] * (n if answers else 0)
    train = torch.tensor([item.part == "train" for item in items], dtype=torch.bool)
    learned = [layer for layer in layers if layer < last]
    if len(learned) * 2 * width**2 * 8 > MEMORY:
        learned = []
    moments = {layer: Moments(width, width) for layer in learned}
    ends = torch.tensor([len(ids) for ids in token_ids]) - 1
    whole = [tuple(ids) for ids in token_ids]
    if answers:  # the last token of an answer is only predicted, never read
        whole = [(*ids, *found[:-1]) for ids, found in zip(whole, answers, strict=True)]
    for some in states_of(model, [*layers, last], whole, batch_size=batch_size):
        places = _places(some)
        normed = readout.normed(some.layers[last].to(readout.architecture.device, readout.dtype))
        final = normed.float().cpu()
        at_end, kept = places == ends[some.texts], train[some.texts] & (places <= ends[some.texts])
        finals[some.texts[at_end]] = final[at_end]
        for layer in layers:
            here = some.layers[layer].float().cpu()
            states[layer][some.texts[at_end]] = here[at_end]
            if layer in moments and kept.any():
                moments[layer].add(here[kept], final[kept])
        if answers:
            asked = places >= ends[some.texts]
            for row, ok in _answered(readout, normed[asked], some.texts[asked], answers):
                right[row] = ok
    return OnePass(states, finals, moments, tuple(right))


def _places(some: States) -> Tensor:
    """At which token of its text each state stands; those of a text follow each other."""
    new = torch.cat([torch.tensor([True]), some.texts[1:] != some.texts[:-1]])
    starts = new.nonzero()[:, 0]
    return torch.arange(len(some.texts)) - starts[new.cumsum(dim=0) - 1] + FIRST


def _answered(
    readout: Readout, normed: Tensor, texts: Tensor, answers: Sequence[Sequence[int]]
) -> list[tuple[int, bool]]:
    """Of each text, whether the likeliest tokens from the end of its prompt on are those of its answer."""
    said: dict[int, list[int]] = {}
    for part in readout.parts(len(normed)):
        best = readout.of_normed(normed[part]).argmax(dim=-1).tolist()
        for row, token in zip(texts[part].tolist(), best, strict=True):
            said.setdefault(row, []).append(token)
    return [(row, found == list(answers[row])) for row, found in said.items()]
