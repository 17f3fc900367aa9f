"""Learn token scores and their pooling from the labels of whole prompts, by gradients written out.

With weights a_t of the tokens (of :mod:`probes.pooling`) and scores s_t = w . x_t + b, the pooled score is
S = sum a_t s_t, so that dS/dw = sum a_t x_t, and with keys k_t = u . x_t and a = softmax(k),
dS/du = sum a_t (s_t - S) x_t. The maximum has the gradient of the token that it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special
from scipy.sparse.linalg import LinearOperator, eigsh

from probes.pooling import Pooling, Sequences

__all__ = ["Bags", "Learned", "learned"]

STEPS = 100
SHARP = 2.0
"""How strongly the keys lean to a direction at the start, in standard deviations of a token."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned, on standardised states.

    Attributes:
        weights: ``[output dim]``.
        offsets: ``[output]``.
        query: ``[dim]``.
        strength: the penalty.
        held_out: cross-entropy on what it was judged on, in nats.
        converged: whether the solver ended by itself.
    """

    weights: np.ndarray
    offsets: np.ndarray
    query: np.ndarray
    strength: float
    held_out: float
    converged: bool


@dataclass(frozen=True, eq=False)
class Bags:
    """Sequences with labels.

    Attributes:
        pooling: how scores are pooled.
        data: the sequences.
        codes: ``[prompt]``, the label of each: its place among the names; -1 for one that was not trained.
        n_classes: number of labels.
    """

    pooling: Pooling
    data: Sequences
    codes: np.ndarray
    n_classes: int

    @classmethod
    def of(cls, pooling: Pooling, data: Sequences, labels: np.ndarray, names: Sequence[Any]) -> Bags:
        """Take labels by name."""
        place = {name: at for at, name in enumerate(names)}
        codes = np.array([place.get(label, -1) for label in labels.tolist()], dtype=np.int64)
        return cls(pooling, data, codes, len(names))

    @property
    def n_outputs(self) -> int:
        """Scores of a token: one for two labels, else one each."""
        return 1 if self.n_classes == 2 else self.n_classes

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread of every column over all tokens; constant columns keep spread 1."""
        tokens = self.data.states[self.data.valid]
        spread = tokens.std(axis=0)
        constant = spread <= 1e-10 * max(float(spread.max()), 1e-290)
        return tokens.mean(axis=0), np.where(constant, 1.0, spread)

    def scaled(self, mean: np.ndarray, spread: np.ndarray) -> Bags:
        """The same with standardised states, zeros where there is no token."""
        states = np.where(self.data.valid[:, :, None], (self.data.states - mean) / spread, 0.0)
        return Bags(self.pooling, Sequences(states, self.data.lengths), self.codes, self.n_classes)

    def raw(self, found: Learned) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients, offsets and query for the states as they came; keys up to a constant."""
        mean, spread = self.scale()
        coef = found.weights / spread
        return coef, found.offsets - coef @ mean, found.query / spread

    def loss(self, parts: tuple[np.ndarray, np.ndarray, np.ndarray], strength: float) -> tuple[float, Any]:
        """The mean cross-entropy with its penalty, and its gradient in the parts."""
        (weights, offsets, query), states, n = parts, self.data.states, len(self.data)
        scores, keys = states @ weights.T + offsets, states @ query
        shares = self.pooling.weights(scores, keys, self.data.valid)
        pooled = (shares * scores).sum(axis=1)
        logits = np.hstack([-pooled / 2, pooled / 2]) if self.n_outputs == 1 else pooled
        logs = special.log_softmax(logits, axis=1)
        slope = (np.exp(logs) - np.eye(self.n_classes)[self.codes]) / n
        outer = (slope[:, 1:] - slope[:, :1]) / 2 if self.n_outputs == 1 else slope
        spread = outer[:, None] * shares
        flat = states.reshape(-1, states.shape[2])
        by_weights = spread.reshape(-1, self.n_outputs).T @ flat + strength * weights
        by_query = np.zeros_like(query)
        if self.pooling.row.keyed:
            lean = (spread * (scores - pooled[:, None])).sum(axis=2)
            by_query = lean.reshape(-1) @ flat + strength * query
        total = -logs[np.arange(n), self.codes].mean()
        total += strength / 2 * (float((weights**2).sum()) + float((query**2).sum()))
        return float(total), (by_weights, outer.sum(axis=0), by_query)

    def starts(self, seed: int) -> list[np.ndarray]:
        """``[output dim]`` directions to start from: of the mean states, and of what only some tokens have.

        The second is the direction in which the tokens of a label vary most beyond those of the others: a few
        tokens that stand out change the spread of all tokens more than their mean.
        """
        codes = [1] if self.n_outputs == 1 else range(self.n_classes)
        weight = self.data.valid / self.data.lengths[:, None]
        means = np.einsum("ntd,nt->nd", self.data.states, weight)
        near = np.stack([means[self.codes == c].mean(0) - means[self.codes != c].mean(0) for c in codes])
        far = np.stack([self._standing_out(self.codes == c, seed) for c in codes])
        return [_unit(near), _unit(far)]

    def _standing_out(self, rows: np.ndarray, seed: int) -> np.ndarray:
        own, rest = (self.data.states[part][self.data.valid[part]] for part in (rows, ~rows))
        width = own.shape[1]
        if width == 1:
            return np.ones(1)

        def beyond(v: np.ndarray) -> np.ndarray:
            return own.T @ (own @ v) / len(own) - rest.T @ (rest @ v) / len(rest)

        first = np.random.default_rng(seed).normal(size=width)
        make: Any = LinearOperator  # its stubs do not know the call that its own page shows
        solve: Any = eigsh
        operator = make((width, width), matvec=beyond, dtype=np.float64)
        found: np.ndarray = solve(operator, k=1, which="LA", v0=first, tol=1e-3)[1][:, 0]
        along = own @ found
        return found if along.max() > -along.min() else -found


def learned(
    bags: Bags, strengths: Sequence[float], judge: Bags, *, seed: int = 0, start: Learned | None = None
) -> Learned:
    """Fit every start and every penalty, strongest first, and give the one with the lowest loss on ``judge``.

    Args:
        bags: what is learned from.
        strengths: penalties.
        judge: what decides between them.
        seed: of the search for a start.
        start: where to start from, instead of :meth:`Bags.starts`.
    """
    place = bags.scale()
    own, other = bags.scaled(*place), judge.scaled(*place)
    if start is not None:
        begun = [(start.weights, start.offsets, start.query)]
    else:
        keyed, zero = bags.pooling.row.keyed, np.zeros(bags.data.shape[1])
        begun = [
            (one, np.zeros(len(one)), SHARP * _unit(one.sum(0, keepdims=True))[0] if keyed else zero)
            for one in own.starts(seed)
        ]
    found: list[Learned] = []
    for parts in begun:
        for strength in strengths:
            parts, converged = _descended(own, parts, strength)
            weights, offsets, query = parts
            judged = _judged(other, parts)
            found.append(Learned(weights, offsets, query, strength, judged, converged))
    return min(found, key=lambda one: one.held_out)


def _descended(own: Bags, parts: Any, strength: float) -> tuple[Any, bool]:
    """Walk down from the given parts; says whether the solver ended by itself."""
    shapes = [part.shape for part in parts]
    ends = np.cumsum([part.size for part in parts])[:-1]

    def split(flat: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(p.reshape(s) for p, s in zip(np.split(flat, ends), shapes, strict=True))

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slopes = own.loss(split(flat), strength)  # type: ignore[arg-type]
        return value, np.concatenate([slope.ravel() for slope in slopes])

    flat = np.concatenate([part.ravel() for part in parts])
    done: Any = optimize.minimize(
        objective, flat, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "ftol": 1e-7}
    )
    return split(done.x), bool(done.nit < STEPS)


def _judged(other: Bags, parts: Any) -> float:
    known = np.flatnonzero(other.codes >= 0)
    if not len(known):
        return np.inf
    kept = Bags(other.pooling, other.data[known], other.codes[known], other.n_classes)
    return kept.loss(parts, 0.0)[0]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
