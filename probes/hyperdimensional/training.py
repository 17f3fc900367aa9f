"""How each encoder is trained: by a softmax over the concepts, by least squares, as published.

The published encoder has two residual blocks on a wide latent space (Bronzini et al. 2025, section 3). With
``compat="paper"`` it also has the published losses, target range and choice of checkpoint, so that numbers
can be compared; otherwise it is trained as the linear encoder is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm.auto import tqdm

from probes.hyperdimensional.encoders import Encoder, Linear, Network, Neural, Trained, validation_score
from probes.hyperdimensional.lesson import Lesson, Settings, Slot, reciprocal_ranks, slot_vectors
from probes.vsa.algebra import generator_for
from probes.vsa.codebook import Codebook

__all__ = [
    "Place",
    "axes_of",
    "cross_entropy",
    "places_among",
    "rank_score",
    "train_linear",
    "train_network",
    "train_ridge",
]

LARGEST = 6_000
_LAST: WeakKeyDictionary[Codebook, Axes] = WeakKeyDictionary()
"""The axes that a codebook was asked for last. Layers, controls and shuffles train on the same concepts."""


@dataclass(frozen=True, eq=False)
class Place:
    """One slot in the coordinates of the basis.

    Attributes:
        concepts: ``[choice axis]``, the concepts met in training: the only ones a softmax may push away.
        everything: ``[concept axis]``, all concepts, to rank validation answers among.
        codes: ``[example member]``, rows of ``concepts``; -1 for none.
        held: the validation examples' slot, rows of ``everything``.
    """

    concepts: Float[Tensor, "choice axis"]
    everything: Float[Tensor, "concept axis"]
    codes: Int64[Tensor, "example member"]
    held: Slot


def train_linear(lesson: Lesson, settings: Settings) -> Trained:
    """Train one map per penalty and keep the one with the best validation rank.

    The prediction is confined to the principal axes of the training concepts' hypervectors: all of them for
    random codes, as many as the embeddings are wide for codes made from embeddings, since what further axes
    hold is the rounding of the projection and says nothing about concepts that were not trained.
    Concepts that no training example has are never pushed away.

    Raises:
        ValueError: targets without concepts to tell apart.
    """
    if not lesson.slots:
        raise ValueError(
            "these targets have no slots that a softmax over concepts could be trained on (a sequence, or a "
            "published analogy); use encoder='ridge' or encoder='mlp', or records with roles."
        )
    axes = axes_of(lesson, settings.rank)
    places = [
        Place(everything[rows], everything, _among(slot, rows), held)
        for slot, rows, everything, held in zip(
            lesson.slots, axes.met, axes.everything, lesson.held.slots, strict=True
        )
    ]
    best: Trained | None = None
    for penalty in sorted(settings.regularisation, reverse=True):
        weight, score, epochs = _fitted(lesson, places, penalty, settings)
        if best is None or score > best.score:
            encoder = Linear(weight[:-1], weight[-1], axes.basis)
            notes = {"regularisation": penalty, "axes": len(axes.basis), "epochs": epochs}
            best = Trained(encoder, score, notes)
    assert best is not None
    return best


def places_of(lesson: Lesson) -> list[Place]:
    """Every slot with the vectors of its concepts, in the coordinates of the hypervectors."""
    return places_among(lesson, [slot_vectors(lesson.codebook, slot.role) for slot in lesson.slots])


def places_among(lesson: Lesson, vectors: Sequence[Float[Tensor, "concept axis"]]) -> list[Place]:
    """Every slot with the vectors that its predictions are compared with.

    Args:
        lesson: what is learned.
        vectors: for each slot, one vector per concept of the codebook.
    """
    found: list[Place] = []
    for slot, held, everything in zip(lesson.slots, lesson.held.slots, vectors, strict=True):
        rows = _met(slot)
        found.append(Place(everything[rows], everything, _among(slot, rows), held))
    return found


def _met(slot: Slot) -> Int64[Tensor, " choice"]:
    """The rows of the codebook that some training example has."""
    rows = torch.unique(slot.codes)
    return rows[rows >= 0]


def _among(slot: Slot, rows: Int64[Tensor, " choice"]) -> Int64[Tensor, "example member"]:
    codes = torch.searchsorted(rows, slot.codes.clamp_min(0).contiguous()).clamp_max(len(rows) - 1)
    return torch.where(slot.codes < 0, -1, codes)


@dataclass(frozen=True, eq=False)
class Axes:
    """The principal axes of the concepts met in training, and all concepts in their coordinates.

    Attributes:
        rank: the most axes that were asked for; None for all.
        roles: the slots.
        met: for each slot the rows of its concepts that some training example has.
        basis: ``[axis width]``, orthonormal rows.
        everything: for each slot ``[concept axis]``, every concept of the codebook.
    """

    rank: int | None
    roles: tuple[str, ...]
    met: tuple[Int64[Tensor, " _"], ...]
    basis: Float[Tensor, "axis width"]
    everything: tuple[Float[Tensor, "_ axis"], ...]

    def fits(self, rank: int | None, roles: tuple[str, ...], met: tuple[Tensor, ...]) -> bool:
        """Say whether these are the axes of the same concepts."""
        alike = (self.rank, self.roles) == (rank, roles)
        return alike and all(torch.equal(own, rows) for own, rows in zip(self.met, met, strict=True))


def axes_of(lesson: Lesson, rank: int | None) -> Axes:
    """The axes of a lesson's concepts: those of the last lesson on this codebook, if it had the same."""
    codebook, roles = lesson.codebook, tuple(slot.role for slot in lesson.slots)
    met = tuple(_met(slot) for slot in lesson.slots)
    last = _LAST.get(codebook)
    if last is None or not last.fits(rank, roles, met):
        whole = [slot_vectors(codebook, role) for role in roles]
        used = [vectors[rows] for vectors, rows in zip(whole, met, strict=True)]
        basis = _basis(torch.cat(used), rank)
        last = Axes(rank, roles, met, basis, tuple(vectors @ basis.T for vectors in whole))
        _LAST[codebook] = last
    return last


def _basis(vectors: Float[Tensor, "choice width"], rank: int | None) -> Float[Tensor, "axis width"]:
    """Orthonormal rows that span the principal axes of the concepts' vectors."""
    most = min(vectors.shape) if rank is None else min(rank, *vectors.shape)
    if len(vectors) > LARGEST or len(vectors) > vectors.shape[1]:
        values, columns = torch.linalg.eigh(vectors.T.double() @ vectors.double())
        return columns[:, -most:].flip(1).T.contiguous().to(vectors)
    values, left = torch.linalg.eigh(vectors.double() @ vectors.T.double())
    kept = values > 1e-9 * values[-1]
    values, left = values[kept][-most:].flip(0), left[:, kept][:, -most:].flip(1)
    return ((left / values.sqrt()).T @ vectors.double()).to(vectors)


def _fitted(
    lesson: Lesson, places: list[Place], penalty: float, settings: Settings
) -> tuple[Float[Tensor, "dim1 axis"], float, int]:
    """The weights of the best epoch, their validation score, and how many epochs were run."""
    features, held = _with_one(lesson.features), _with_one(lesson.held.features)
    axes = places[0].concepts.shape[1]
    weight = torch.zeros(features.shape[1], axes, device=features.device, requires_grad=True)
    optimiser = torch.optim.AdamW([weight], lr=settings.learning_rate, weight_decay=penalty)
    steps = settings.epochs * -(-len(features) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = generator_for(settings.seed, "order")
    best, at, kept = -1.0, 0, weight.detach().clone()
    epoch = 0
    for epoch in tqdm(range(settings.epochs), desc=f"penalty {penalty:g}", disable=not settings.progress):
        for rows in torch.randperm(len(features), generator=generator).split(settings.batch_size):
            chosen = rows.to(features.device)
            with torch.autocast("cuda", torch.bfloat16, enabled=features.is_cuda):
                loss = cross_entropy(features[chosen] @ weight, places, chosen, settings.temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        score = rank_score(held @ weight.detach(), places)
        if score > best:
            best, at, kept = score, epoch, weight.detach().clone()
        elif epoch - at >= settings.patience:
            break
    return kept, best, epoch + 1


def _with_one(features: Float[Tensor, "example dim"]) -> Float[Tensor, "example dim1"]:
    return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)


def cross_entropy(
    predicted: Float[Tensor, "batch axis"],
    places: list[Place],
    rows: Int64[Tensor, " batch"],
    temperature: float,
) -> Float[Tensor, ""]:
    """The mean cross-entropy (nats) of the right concepts, added up over slots."""
    total = predicted.new_zeros(())
    for place in places:
        logs = torch.log_softmax(temperature * (predicted @ place.concepts.T), dim=1)
        codes = place.codes[rows]
        there = codes >= 0
        total = total - (logs.gather(1, codes.clamp_min(0)) * there).sum() / there.sum()
    return total


def rank_score(predicted: Float[Tensor, "held_out axis"], places: list[Place]) -> float:
    """The mean reciprocal rank of the held-out concepts over all slots."""
    ranks = [reciprocal_ranks(predicted @ p.everything.T, p.held.codes).mean() for p in places]
    return float(torch.stack(ranks).mean())


def train_network(lesson: Lesson, settings: Settings) -> Trained:
    """Train the network with AdamW; the checkpoint with the best validation score is kept."""
    device = lesson.features.device
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = Network(lesson.features.shape[1], settings.hidden, lesson.vectors.shape[1]).to(device)
        return _trained(network, lesson, settings)


def _trained(network: Network, lesson: Lesson, settings: Settings) -> Trained:
    penalty = settings.regularisation[0]
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=penalty)
    steps = settings.epochs * -(-len(lesson.features) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = generator_for(settings.seed, "order")
    objective = _Paper(lesson) if settings.published else _Softmax(lesson, settings.temperature)
    best, at, epoch = -2.0, 0, 0
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch in tqdm(range(settings.epochs), desc="network", disable=not settings.progress):
        network.train()
        for rows in torch.randperm(len(lesson.features), generator=generator).split(settings.batch_size):
            chosen = rows.to(lesson.features.device)
            with torch.autocast("cuda", torch.bfloat16, enabled=lesson.features.is_cuda):
                predicted = network(lesson.features[chosen])
            loss = objective(predicted.float(), chosen)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        score = objective.score(Neural(network))
        if score > best:
            best, at = score, epoch
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        elif epoch - at >= settings.patience:
            break
    network.load_state_dict(kept)
    return Trained(Neural(network), best, {"regularisation": penalty, "epochs": epoch + 1})


@final
class _Paper:
    """Score as published: cross-entropy of the bits, the bounded output as logit, + 0.1 squared error."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson

    def __call__(self, predicted: Float[Tensor, "batch width"], rows: Int64[Tensor, " batch"]) -> Tensor:
        wanted = self.lesson.vectors[rows]
        bits = nn.functional.binary_cross_entropy_with_logits(predicted, (wanted + 1) / 2)
        return bits + 0.1 * nn.functional.mse_loss(predicted, wanted)

    def score(self, encoder: Encoder) -> float:
        held = self.lesson.held
        return float(torch.cosine_similarity(encoder(held.features), held.vectors, dim=1).mean())


@final
class _Softmax:
    """Score by the cross-entropy of the right concepts among those met in training."""

    def __init__(self, lesson: Lesson, temperature: float) -> None:
        self.lesson, self.temperature = lesson, temperature
        self.places = places_of(lesson)

    def __call__(self, predicted: Float[Tensor, "batch width"], rows: Int64[Tensor, " batch"]) -> Tensor:
        if not self.places:
            wanted = self.lesson.vectors[rows]
            return nn.functional.mse_loss(predicted, wanted)
        return cross_entropy(predicted, self.places, rows, self.temperature)

    def score(self, encoder: Encoder) -> float:
        return validation_score(self.lesson.held, self.lesson, encoder)


def train_ridge(lesson: Lesson, settings: Settings) -> Trained:
    """Fit least squares in closed form for every penalty and keep the one with the best validation rank.

    Minimises the mean squared error plus ``regularisation`` times the squared norm of the weights, on
    features of mean 0 and variance 1, so that a penalty means the same whatever the number of examples and
    the layer.
    """
    features, targets = lesson.features.double(), lesson.vectors.double()
    mean = targets.mean(dim=0)
    values, axes = torch.linalg.eigh(features.T @ features / len(features))
    projected = axes.T @ (features.T @ (targets - mean)) / len(features)
    held = lesson.held.features.double() @ axes
    readouts = [
        (projected @ concepts.T, mean @ concepts.T, slot)
        for slot in lesson.held.slots
        for concepts in [slot_vectors(lesson.codebook, slot.role).double()]
    ]
    best: tuple[float, float] = (-2.0, 0.0)
    for penalty in sorted(settings.regularisation, reverse=True):
        shrunk = held / (values + penalty)
        if readouts:
            ranks = [reciprocal_ranks(shrunk @ m + offset, slot.codes).mean() for m, offset, slot in readouts]
            score = float(torch.stack(ranks).mean())
        else:
            predicted = shrunk @ projected + mean
            score = float(torch.cosine_similarity(predicted, lesson.held.vectors.double(), dim=1).mean())
        best = max(best, (score, penalty))
    weight = axes @ (projected / (values + best[1])[:, None])
    return Trained(Linear(weight.float(), mean.float()), best[0], {"regularisation": best[1]})
