"""Directions learned from interchanges, each with the answer it should give.

The rotation of distributed alignment search (Geiger et al. 2024, arXiv 2303.02536, section 3), of which only
the rows that are interchanged are kept. The model is not changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError, counted
from interp.mediation.directions import values_at
from interp.mediation.distributed_alignment.downstream import Downstream
from interp.mediation.mediators import Mediator
from interp.mediation.metrics import Targets
from interp.models.forward import gradients
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import PairSet

__all__ = [
    "LOSSES",
    "Division",
    "Interchanges",
    "TrainingConfig",
    "divided",
    "joined",
    "learned",
    "left_alone",
    "prepared",
]

CHECK_EVERY = 10


def _among_answers(logits: Tensor, targets: Targets) -> Tensor:
    """Minus the log of the wanted tokens' share among wanted and unwanted ones (nats)."""
    right = _total(logits, targets.answers, targets.answered)
    wrong = _total(logits, targets.foils, targets.foiled)
    return torch.nn.functional.softplus(wrong - right)


def _among_all(logits: Tensor, targets: Targets) -> Tensor:
    """Minus the log of the wanted tokens' probability (nats)."""
    return torch.logsumexp(logits, dim=1) - _total(logits, targets.answers, targets.answered)


def _total(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return torch.logsumexp(logits.gather(1, ids).masked_fill(~mask, -torch.inf), dim=1)


LOSSES: dict[str, Callable[[Tensor, Targets], Tensor]] = {
    "answers": _among_answers,
    "vocabulary": _among_all,
}


@dataclass(frozen=True)
class Division:
    """Which groups are for fitting, for stopping and for reporting.

    Attributes:
        train: names of groups.
        validation: names of groups.
        test: names of groups.
    """

    train: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]

    def part(self, pairs: PairSet, groups: frozenset[str]) -> PairSet:
        """The pairs of some groups."""
        return pairs[[at for at, group in enumerate(pairs.groups) if group in groups]]


def divided(variables: Mapping[str, PairSet], fractions: Sequence[float | int], seed: int) -> Division:
    """Divide the groups of all variables at random; every variable has some in each part.

    Raises:
        ConfigError: fractions that are not three shares above 0, or a variable with too few groups.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions {tuple(fractions)} asked; give three that add up to 1: 0.6, 0.2, 0.2.")
    places: dict[str, int] = {}
    for number, (name, pairs) in enumerate(variables.items()):
        own = sorted(set(pairs.groups) - set(places))
        if len(set(pairs.groups)) < 5:
            raise ConfigError(
                f"the pairs of {name!r} are of {counted(len(set(pairs.groups)), 'group')}; training, "
                "stopping and "
                "testing on separate groups needs at least 5."
            )
        random.Random(f"division:{seed}:{number}").shuffle(own)
        ends = np.maximum(np.round(np.cumsum(fractions) * len(own)), [1, 2, 3])
        places |= {group: int(np.searchsorted(ends, at, side="right")) for at, group in enumerate(own)}
    parts = [frozenset(group for group, part in places.items() if part == at) for at in range(3)]
    return Division(*parts)


def joined(variables: Mapping[str, PairSet]) -> tuple[PairSet, Int[Tensor, " case"]]:
    """Every interchange to train on, with the block of directions that is interchanged in it.

    A pair gives two cases: the corrupt prompt takes the clean one's coordinates and should give the answer,
    and the reverse. Of several variables, the blocks of the others should change nothing: they are cases with
    the answer of the prompt itself (Huang et al. 2024, RAVEL, arXiv 2402.17700: cause and isolate).

    Returns:
        Pairs whose corrupt prompt is changed, whose clean prompt is the source, and whose answer is wanted.
    """
    sets: list[PairSet] = []
    blocks: list[int] = []
    for own, pairs in enumerate(variables.values()):
        for way in (pairs, pairs.swap()):
            kept = left_alone(way)
            for block in range(len(variables)):
                sets.append(way if block == own else kept)
                blocks += [block] * len(way)
    return _concatenated(sets), torch.tensor(blocks)


def left_alone(pairs: PairSet) -> PairSet:
    """Want the answer of the corrupt prompt itself, as if nothing had been interchanged."""
    kinds = [pair.kind for pair in pairs.pairs]
    both = list(zip(kinds, pairs.answer_ids, pairs.foil_ids, strict=True))
    answers = tuple(answer if kind == "null" else foil for kind, answer, foil in both)
    foils = tuple(foil if kind == "null" else answer for kind, answer, foil in both)
    return replace(pairs, answer_ids=answers, foil_ids=foils)


def _concatenated(sets: Sequence[PairSet]) -> PairSet:
    first = sets[0]

    def tokens(of: Sequence[Tokens]) -> Tokens:
        return replace(
            of[0],
            token_ids=tuple(ids for one in of for ids in one.token_ids),
            texts=tuple(text for one in of for text in one.texts),
        )

    return PairSet(
        tuple(pair for one in sets for pair in one.pairs),
        tokens([one.clean for one in sets]),
        tokens([one.corrupt for one in sets]),
        tuple(ids for one in sets for ids in one.answer_ids),
        tuple(ids for one in sets for ids in one.foil_ids),
        first.notes,
    )


@dataclass(frozen=True, eq=False)
class Interchanges:
    """Interchanges of prompts of one length.

    Attributes:
        run: the prompts that are changed.
        sources: ``[case width]``, the other prompts' values.
        targets: the tokens that are wanted, and those that are not.
        blocks: ``[case]``, which block of directions is interchanged.
    """

    run: Downstream
    sources: Float[Tensor, "case width"]
    targets: Targets
    blocks: Int[Tensor, " case"]

    def __len__(self) -> int:
        """The number of cases."""
        return len(self.blocks)

    def batches(self, size: int, order: np.random.Generator) -> Iterator[Int[Tensor, " row"]]:
        """The rows of each batch, in random order."""
        rows = torch.from_numpy(order.permutation(len(self)))
        yield from rows.split(size)


def prepared(
    model: Model, pairs: PairSet, blocks: Int[Tensor, " case"], mediator: Mediator
) -> tuple[Interchanges, ...]:
    """Read once all that training needs, by length of prompt."""
    sources = values_at(model, pairs.clean, mediator)
    found: list[Interchanges] = []
    for length in sorted(set(pairs.lengths)):
        rows = [at for at, n in enumerate(pairs.lengths) if n == length]
        part = pairs[rows]
        run, targets = Downstream.of(model, part.corrupt.token_ids, mediator), Targets.of(part, model.device)
        read, owners = (one[rows].to(model.device) for one in (sources, blocks))
        found.append(Interchanges(run, read, targets, owners))
    return tuple(found)


@dataclass(frozen=True)
class TrainingConfig:
    """How directions are trained.

    Attributes:
        dims: directions per block.
        steps: at most so many steps.
        batch: cases per step.
        rate: of Adam at the first step; it falls to zero in a straight line.
        patience: checks on the validation part (one every 10 steps) without a better one before stopping.
        among: a key of ``LOSSES``.
        seed: of the first directions and of the order of cases.
        method: ``das``, or a key of ``BOUNDED``, which learns how many directions.
        price: nats that a direction costs where their number is learned.
    """

    dims: tuple[int, ...]
    steps: int
    batch: int
    rate: float
    patience: int
    among: str
    seed: int
    method: str = "das"
    price: float = 0.0

    def check(self, width: int) -> None:
        """Refuse a config that cannot be run.

        Raises:
            ConfigError: says which number.
        """
        if self.among not in LOSSES:
            raise ConfigError(f"among={self.among!r} asked; use {' or '.join(map(repr, LOSSES))}.")
        if min(self.dims) < 1 or sum(self.dims) > width:
            raise ConfigError(
                f"{sum(self.dims)} directions asked ({', '.join(map(str, self.dims))}), but the site has "
                f"width {width}; ask for 1 to {width} in all."
            )
        if min(self.steps, self.batch, self.patience) < 1 or not self.rate > 0:
            raise ConfigError("steps, batch and patience must be at least 1, and rate above 0.")


@dataclass(eq=False)
class _Rotation:
    """The directions while they are learned: the rows of ``weight``, made orthonormal."""

    weight: Tensor
    masks: Tensor
    curve: list[dict[str, int | float]] = field(default_factory=list)

    @property
    def basis(self) -> Tensor:
        """Orthonormal rows in fp32, a function of the weight."""
        orthonormal, triangle = torch.linalg.qr(self.weight.T)
        return (orthonormal * triangle.diagonal().sign()).T

    def losses(self, cases: Interchanges, rows: Tensor, among: str) -> Tensor:
        """The loss of each case."""
        basis, rows = self.basis, rows.to(cases.blocks.device)
        mask, source = self.masks[cases.blocks[rows]], cases.sources[rows]

        def change(current: Tensor) -> Tensor:
            shift = ((source - current.float()) @ basis.T) * mask
            return current + (shift @ basis).to(current.dtype)

        return LOSSES[among](cases.run(rows, change), cases.targets.rows(rows))

    def mean_loss(self, every: Sequence[Interchanges], among: str, batch: int) -> float:
        """The mean loss over all cases."""
        with torch.no_grad():
            parts = [
                self.losses(cases, rows, among).detach()
                for cases in every
                for rows in torch.arange(len(cases)).split(4 * batch)
            ]
        return float(torch.cat(parts).mean())


@gradients()
def learned(
    train: Sequence[Interchanges], held: Sequence[Interchanges], config: TrainingConfig
) -> tuple[list[Float[Tensor, "_ width"]], tuple[Mapping[str, int | float], ...]]:
    """Train directions on some cases, and keep those with the least loss on others.

    The rotation of distributed alignment search (Geiger et al. 2024, arXiv 2303.02536, section 3), of which
    only the rows that are interchanged are kept. The model is not changed.

    Args:
        train: cases to learn from, by length.
        held: cases to stop by.
        config: how.

    Returns:
        One orthonormal block per variable, and the losses by step (nats).
    """
    device, width = train[0].sources.device, train[0].sources.shape[1]
    config.check(width)
    rotation = _Rotation(_first(config, width).to(device), _masks(config.dims).to(device))
    optimiser = torch.optim.Adam([rotation.weight], lr=config.rate)
    order = np.random.default_rng(config.seed)
    best, kept, waited, step = float("inf"), rotation.basis.detach(), 0, 0
    while step < config.steps and waited < config.patience:
        batches = [(cases, rows) for cases in train for rows in cases.batches(config.batch, order)]
        for at in order.permutation(len(batches)):
            if step % CHECK_EVERY == 0 or step == config.steps:
                loss = rotation.mean_loss(held, config.among, config.batch)
                rotation.curve.append({"step": step, "validation": loss})
                waited = 0 if loss < best else waited + 1
                if loss < best:
                    best, kept = loss, rotation.basis.detach()
                if step == config.steps or waited >= config.patience:
                    break
            cases, rows = batches[at]
            for group in optimiser.param_groups:
                group["lr"] = config.rate * (1 - step / config.steps)
            mean = rotation.losses(cases, rows, config.among).mean()
            (rotation.weight.grad,) = torch.autograd.grad(mean, [rotation.weight])
            optimiser.step()
            rotation.curve[-1].setdefault("train", float(mean.detach()))
            step += 1
    if rotation.mean_loss(held, config.among, config.batch) < best:
        kept = rotation.basis.detach()
    return [block.cpu() for block in kept.split(list(config.dims))], tuple(rotation.curve)


def _first(config: TrainingConfig, width: int) -> Tensor:
    """Random orthonormal rows to start from."""
    generator = torch.Generator().manual_seed(config.seed)
    drawn = torch.randn(width, sum(config.dims), generator=generator, dtype=torch.float32)
    rows = torch.linalg.qr(drawn)[0].T
    return rows.contiguous().requires_grad_()


def _masks(dims: Sequence[int]) -> Tensor:
    """Which directions belong to which block: ``[block dim]``."""
    owners = torch.repeat_interleave(torch.arange(len(dims)), torch.tensor(dims))
    return (owners == torch.arange(len(dims))[:, None]).float()
