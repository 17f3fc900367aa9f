"""An encoder that is fitted among the concepts' embeddings and projected into the algebra afterwards.

A codebook made from embeddings is a random projection of them, rounded. What is fitted to the rounded vectors
spends itself on the rounding; a map to the embeddings does not, and one product with the same random matrix
carries it into the algebra, where it can be bound, bundled and compared as any prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from probes.hyperdimensional.encoders import Linear, Trained
from probes.hyperdimensional.lesson import Lesson, Settings
from probes.hyperdimensional.training import Place, cross_entropy, places_among, rank_score
from probes.vsa.algebra import unit
from probes.vsa.codebook import Codebook

__all__ = ["basis_of", "ridge_solver", "train_embedding"]

RIDGE = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0)
"""Penalties of the ridge, chosen on validation: see :func:`ridge_solver`."""
COARSE = (1e-2, 0.1, 1.0)
"""The same where each costs a factorisation of its own."""
NARROW = 1_024
ITERATIONS = 25
_BASES: WeakKeyDictionary[Codebook, dict[tuple[str, ...], Tensor]] = WeakKeyDictionary()


def train_embedding(lesson: Lesson, settings: Settings) -> Trained:
    """Fit a map to the concepts' embeddings by ridge, then by a softmax pulled towards it, and project it.

    Two steps in each slot. Least squares from the states to the embeddings of their concepts (centred, of
    length 1), in closed form, its penalty chosen by validation rank. Then the weights minimise the
    cross-entropy of the right concept among those met in training, plus ``regularisation`` times the
    temperature times the squared distance from the ridge's weights: the ridge knows where a concept lies that
    no example has, the softmax what tells trained concepts apart. ``regularisation`` is chosen by validation
    rank as well. The score is that rank, among embeddings.

    Raises:
        ValueError: a codebook without embeddings, targets without slots, or fewer axes asked for than an
            embedding has.
    """
    rows = _embeddings(lesson, settings)
    places = places_among(lesson, [rows] * len(lesson.slots))
    starts = [_ridge(lesson, place) for place in places]
    features, held = _with_one(lesson.features), _with_one(lesson.held.features)
    best: tuple[float, float, list[Tensor]] = (-1.0, 0.0, [])
    for pull in sorted(settings.regularisation, reverse=True):
        weights = [
            _pulled(features, place, start, pull, settings)
            for place, (start, _) in zip(places, starts, strict=True)
        ]
        ranks = [rank_score(held @ weight, [place]) for weight, place in zip(weights, places, strict=True)]
        score = sum(ranks) / len(ranks)
        if score > best[0]:
            best = (score, pull, weights)
    weight = torch.cat(best[2], dim=1)
    basis = basis_of(lesson.codebook, tuple(slot.role for slot in lesson.slots)).to(weight)
    notes = {"regularisation": best[1], "ridge": [penalty for _, penalty in starts], "axes": len(basis)}
    return Trained(Linear(weight[:-1].contiguous(), weight[-1].contiguous(), basis), best[0], notes)


def _embeddings(lesson: Lesson, settings: Settings) -> Float[Tensor, "concept d_model"]:
    rows = lesson.codebook.embeddings
    if rows is None:
        raise ValueError(
            f"encoder='embedding' fits a map to the concepts' embeddings, and {lesson.codebook} keeps none; "
            "make it with Codebook.from_embeddings, or use encoder='linear'."
        )
    if not lesson.slots:
        raise ValueError(
            "these targets have no slots whose embeddings could be fitted (a sequence, or a published "
            "analogy); use encoder='ridge' or encoder='mlp', or records with roles."
        )
    if settings.rank is not None and settings.rank < rows.shape[1]:
        raise ValueError(
            f"rank={settings.rank} asked of encoder='embedding', whose axes are the {rows.shape[1]} of the "
            "embeddings; leave rank out, or use encoder='linear'."
        )
    return rows.to(lesson.features)


def basis_of(codebook: Codebook, roles: tuple[str, ...]) -> Float[Tensor, "axis width"]:
    """The codebook's random matrix, bound with each role in turn: what carries embeddings into the algebra.

    It is drawn once for each codebook.
    """
    known = _BASES.setdefault(codebook, {})
    if roles not in known:
        assert codebook.projection is not None  # it has embeddings
        algebra = codebook.algebra
        matrix = codebook.projection.matrix(algebra).to(codebook.vectors.device)
        bound = [
            algebra.unbind_real(matrix, algebra.inverse(codebook.role(role))) if role else matrix
            for role in roles
        ]
        known[roles] = torch.cat(bound)
    return known[roles]


def _ridge(lesson: Lesson, place: Place) -> tuple[Float[Tensor, "dim1 d_model"], float]:
    """The ridge with the best validation rank, its offset in the last row; and its penalty."""
    there = place.codes >= 0
    targets = (place.concepts[place.codes.clamp_min(0)] * there[..., None]).sum(dim=1)
    targets = unit(targets) if place.codes.shape[1] > 1 else targets
    mean = targets.mean(dim=0)
    solved = ridge_solver(lesson.features, targets - mean)
    held, best = lesson.held.features, (-1.0, 0.0, mean)
    narrow = min(lesson.features.shape) <= NARROW
    for penalty in sorted(RIDGE if narrow else COARSE, reverse=True):
        weight = solved(penalty)
        score = rank_score(held @ weight + mean, [place])
        if score > best[0]:
            best = (score, penalty, weight)
    return torch.cat([best[2], mean[None]]), best[1]


def ridge_solver(
    features: Float[Tensor, "example dim"], targets: Float[Tensor, "example out"]
) -> Callable[[float], Float[Tensor, "dim out"]]:
    """Prepare the weights that minimise the mean squared error plus a penalty times their squared norm.

    In closed form, on the smaller of examples and dimensions: once for all penalties where that is small, by
    one Cholesky factorisation for each penalty where it is not.

    Args:
        features: of mean 0.
        targets: of mean 0.

    Returns:
        The weights of a penalty.
    """
    n, primal = len(features), features.shape[1] <= len(features)
    narrow = min(features.shape) <= NARROW
    x, y = (features.double(), targets.double()) if narrow else (features, targets)
    gram = (x.T @ x if primal else x @ x.T) / n
    right = (x.T @ y if primal else y) / n

    def given(inner: Tensor) -> Tensor:
        return (inner if primal else x.T @ inner).to(features)

    if narrow:
        values, axes = torch.linalg.eigh(gram)
        values, turned = values.clamp_min(0), axes.T @ right
        return lambda penalty: given(axes @ (turned / (values + penalty)[:, None]))
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return lambda penalty: given(torch.cholesky_solve(right, torch.linalg.cholesky(gram + penalty * eye)))


def _with_one(features: Float[Tensor, "example dim"]) -> Float[Tensor, "example dim1"]:
    return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)


def _pulled(
    features: Float[Tensor, "example dim1"],
    place: Place,
    start: Float[Tensor, "dim1 d_model"],
    pull: float,
    settings: Settings,
) -> Float[Tensor, "dim1 d_model"]:
    """Minimise the cross-entropy from the ridge on; the loss is convex, and nothing is drawn."""
    weight = start.clone().requires_grad_(True)
    rows = torch.arange(len(features), device=features.device)
    most = min(ITERATIONS, settings.epochs)
    optimiser = torch.optim.LBFGS(
        [weight], max_iter=most, max_eval=2 * most, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        wrong = cross_entropy(features @ weight, [place], rows, settings.temperature)
        total = wrong + pull * settings.temperature * (weight - start).square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    return weight.detach()
