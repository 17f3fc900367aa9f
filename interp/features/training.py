"""Train a TopK dictionary (Gao et al. 2024, arXiv 2406.04093) from a store of states, resumably."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations import Activations
from interp.errors import ConfigError, DataError
from interp.features.activations import TopK
from interp.features.dictionary import Dictionary
from interp.features.optimisation import AUXILIARY, State, step
from interp.features.texts import FIRST
from interp.models.forward import progress_bar
from interp.models.model import Model
from interp.results import read_json, write_json
from interp.sites import Site
from interp.store import ActivationStore

__all__ = ["Plan", "Trained", "gather", "train"]

CHECKPOINT, ASKED = "checkpoint.safetensors", "training.json"
EVERY = 200
"""Steps between checkpoints."""
WARM, COOL = 0.05, 0.2
"""Shares of the steps in which the rate rises, and falls."""


@dataclass(frozen=True)
class Plan:
    """How a dictionary is trained.

    Attributes:
        site: of the states.
        n_features: how many features.
        k: active features per token.
        epochs: how often each state is used.
        batch: states in a step.
        rate: the largest learning rate; 0 for ``2e-4 / sqrt(n_features / 2**14)``.
        auxiliary: weight of the loss that revives dead features.
        dead_after: tokens without activity after which a feature counts as dead.
        seed: of the first weights and of the order of states.
    """

    site: str
    n_features: int
    k: int = 32
    epochs: int = 4
    batch: int = 512
    rate: float = 0.0
    auxiliary: float = AUXILIARY
    dead_after: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if not 1 <= self.k <= self.n_features or min(self.epochs, self.batch, self.dead_after) < 1:
            raise ConfigError(
                f"k={self.k} of {self.n_features} features, {self.epochs} epochs, batches of {self.batch}, "
                f"dead after {self.dead_after} tokens asked; k is between 1 and the number of features, the "
                "others are 1 or more."
            )

    @property
    def largest(self) -> float:
        """The largest learning rate."""
        return self.rate or 2e-4 / math.sqrt(self.n_features / 2**14)


@dataclass(frozen=True, eq=False)
class Trained:
    """A dictionary and how its training went.

    Attributes:
        dictionary: of the states as they are.
        plan: how it was trained.
        steps: how many.
        states: how many different states.
        history: rows of step, share of variance left out in training, share of dead features.
    """

    dictionary: Dictionary
    plan: Plan
    steps: int
    states: int
    history: tuple[tuple[float, float, float], ...]


def gather(
    model: Model,
    site: str | Site,
    texts: Sequence[Sequence[int]],
    store: ActivationStore,
    *,
    shard: int = 256,
) -> None:
    """Capture a site at all tokens of texts, as far as the store does not hold them yet.

    Args:
        model: whose states.
        site: which.
        texts: token ids.
        store: open for writing.
        shard: texts in a shard.

    Raises:
        DataError: the store holds something else.
    """
    for rows in store.missing(len(texts), size=shard):
        store.append(model.capture([list(texts[row]) for row in rows], str(site), "all", device="cpu"))


def states_of(acts: Activations, site: str) -> Float[Tensor, "token width"]:
    """The states of a shard, one a row, without first tokens and padding."""
    values = acts[site]
    if acts.single:
        return values.float()
    inside = acts.mask.clone()
    for row, places in enumerate(acts.positions):
        for column, place in enumerate(places):
            if place < FIRST:
                inside[row, column] = False
    return values[inside].flatten(1).float()


def _epoch(store: ActivationStore, plan: Plan, epoch: int) -> Iterator[Tensor]:
    """The batches of one pass over the store; each shard in an order of its own, one in memory at a time."""
    for number, acts in enumerate(store.shards(plan.site)):
        rows = states_of(acts, plan.site)
        generator = torch.Generator().manual_seed(plan.seed + 1_000_003 * epoch + 7_919 * number)
        order = torch.randperm(len(rows), generator=generator)
        size = min(plan.batch, len(rows))
        for at in range(0, len(rows) - size + 1, max(size, 1)):
            yield rows[order[at : at + size]]


def train(
    store: ActivationStore,
    plan: Plan,
    *,
    folder: str | Path | None = None,
    model_name: str = "",
    progress: bool = False,
    until: int | None = None,
) -> Trained:
    """Train a dictionary on the states of a store.

    States are scaled so that their mean length is ``sqrt(width)``; the factor is folded into the weights in
    the end, so that the dictionary is one of the states as they are. The same store, plan and machine give
    the same bytes, whether or not training was interrupted.

    Args:
        store: with the states of the plan's site, as ``interp capture`` or :func:`gather` fills it.
        plan: how.
        folder: where a checkpoint is kept; None for none.
        model_name: what the dictionary's configuration names.
        progress: show a progress bar.
        until: stop after so many steps, as an interruption would; None for the end.

    Raises:
        DataError: no states.
        ConfigError: the folder holds a checkpoint of another plan.
        ArtifactError: a damaged checkpoint, or a damaged shard.
    """
    first = next((part for acts in store.shards(plan.site) if len(part := states_of(acts, plan.site))), None)
    if first is None:
        raise DataError(f"{store.folder} holds no state of {plan.site} besides first tokens. Capture more.")
    sizes = [len(states_of(acts, plan.site)) for acts in store.shards(plan.site)]
    each = sum(n // min(plan.batch, n) for n in sizes if n)
    total = each * plan.epochs
    factor = math.sqrt(first.shape[1]) / float(first.norm(dim=1).mean())
    path = _checkpoint(folder, plan, sizes)
    state = State.load(path) if path is not None and path.is_file() else None
    state = state or State.begun(first * factor, plan.n_features, plan.seed)
    with progress_bar(total, progress, "training", "step") as advance:
        advance(state.steps)
        for epoch in range(state.steps // each, plan.epochs):
            for at, batch in enumerate(_epoch(store, plan, epoch)):
                if epoch * each + at < state.steps:
                    continue
                if state.steps == until:
                    return _trained(state, plan, factor, sum(sizes), model_name)
                _advance(state, batch * factor, plan, total)
                advance(1)
                if path is not None and (state.steps % EVERY == 0 or state.steps in (until, total)):
                    state.save(path)
    return _trained(state, plan, factor, sum(sizes), model_name)


def _advance(state: State, batch: Tensor, plan: Plan, total: int) -> None:
    done = state.steps / total
    rate = plan.largest * min(1.0, (state.steps + 1) / max(1.0, WARM * total), (1 - done) / COOL)
    left = step(state, batch, k=plan.k, rate=rate, dead_after=plan.dead_after, auxiliary=plan.auxiliary)
    if state.steps % max(1, total // 50) == 0 or state.steps == total:
        dead = float((state.silent >= plan.dead_after).double().mean())
        state.history.append((float(state.steps), left, dead))


def _checkpoint(folder: str | Path | None, plan: Plan, sizes: list[int]) -> Path | None:
    """Where the checkpoint is, once it is sure that it is one of this plan."""
    if folder is None:
        return None
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {**asdict(plan), "states": sizes}
    if (folder / ASKED).is_file():
        before = read_json(folder / ASKED)
        if other := [name for name, value in asked.items() if before.get(name) != value]:
            raise ConfigError(
                f"{folder} holds a checkpoint that was begun with another {', '.join(other)}. Use another "
                "folder."
            )
    else:
        write_json(asked, folder / ASKED)
    return folder / CHECKPOINT


def _trained(state: State, plan: Plan, factor: float, states: int, model_name: str) -> Trained:
    weights, site = state.weights, Site.parse(plan.site)
    plain = Dictionary(
        name=f"topk-{plan.n_features}-{plan.site}",
        layout="saelens",
        site_in=site,
        site_out=site,
        encoder=weights["encoder"],
        encoder_bias=weights["encoder_bias"],
        decoder=weights["decoder"],
        decoder_bias=weights["decoder_bias"],
        activation=TopK(plan.k),
        shift=weights["decoder_bias"],
        model_name=model_name,
    )
    # features in units of the site, so that a feature of 1 writes a vector of length 1
    found = replace(plain.scaled(factor).folded(), activation=TopK(plan.k))
    return Trained(found, plan, state.steps, states, tuple(state.history))
