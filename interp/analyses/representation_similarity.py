"""Compare the residual streams of two models on the same prompts: directions, geometry, neighbours, rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.layer_profiles import Layers, depths
from interp.analyses.prompts import Own, PromptSet, partners, prompt_set
from interp.analyses.provenance import about, check_same_tokens, earlier
from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Cell, Table

__all__ = ["Alignment", "effective_rank", "geometry", "neighbours", "overlap", "rank_of", "row_cosine"]


def row_cosine(
    first: Float[np.ndarray, "item dim"], second: Float[np.ndarray, "item dim"]
) -> Float[np.ndarray, " item"]:
    """The cosine between the rows of two matrices; 0 where a row is zero."""
    return np.sum(_unit(first) * _unit(second), axis=1)


def _unit(rows: Float[np.ndarray, "item dim"]) -> Float[np.ndarray, "item dim"]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


@dataclass(frozen=True, eq=False)
class Alignment:
    """The linear CKA of two sets of vectors for any weights of the items, in ``O(item^2)`` each.

    ``||Yc' W Xc||^2 / (||Xc' W Xc|| ||Yc' W Yc||)`` (Kornblith et al. 2019, equation 4), with W the weights
    on the diagonal and columns centred by their weighted means. It is 1 where one set is the other turned and
    scaled. It has a bias upwards for few items in many dimensions: compare it with the value for items
    exchanged at random, not with 0.

    Attributes:
        first: ``[item item]`` inner products of the first set.
        second: ``[item item]`` of the second.
    """

    first: Float[np.ndarray, "item item"]
    second: Float[np.ndarray, "item item"]

    @classmethod
    def of(cls, first: Float[np.ndarray, "item dim"], second: Float[np.ndarray, "item other"]) -> Alignment:
        """Take the vectors; means are removed first, for precision."""
        centred = [rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64) for rows in (first, second)]
        gram = [rows @ rows.T for rows in centred]
        return cls(gram[0], gram[1])

    @cached_property
    def _products(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the first with itself, of both, of the second with itself: pair by pair of items."""
        return self.first * self.first, self.first * self.second, self.second * self.second

    def __call__(self, weights: Float[np.ndarray, " item"]) -> float:
        """The CKA; 0 where one set does not vary."""
        w, total = weights, weights.sum()
        a, b = self.first @ w / total, self.second @ w / total
        own, together, other = (
            # the weighted sum over pairs of products of both centred inner products
            w @ product @ w - 2 * total * (w @ (x * y)) + (w @ x) * (w @ y)
            for product, x, y in zip(self._products, (a, a, b), (a, b, b), strict=True)
        )
        return float(together / np.sqrt(own * other)) if own * other > 0 else 0.0


def neighbours(rows: Float[np.ndarray, "item dim"], k: int) -> Int[np.ndarray, "item k"]:
    """The k other items with the highest cosine to each item, after centring."""
    unit = _unit(rows - rows.mean(axis=0))
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return np.argsort(-alike, axis=1, kind="stable")[:, :k]


def overlap(
    first: Int[np.ndarray, "item k"], second: Int[np.ndarray, "item k"]
) -> Float[np.ndarray, " item"]:
    """The share of each item's neighbours that are the same in both."""
    return (first[:, :, None] == second[:, None, :]).any(axis=2).mean(axis=1)


def effective_rank(rows: Float[np.ndarray, "item dim"], weights: Float[np.ndarray, " item"]) -> float:
    """The exponential of the entropy of the singular values, as shares of their sum.

    1 where all items lie on a line, the number of dimensions where they fill all alike. Source: Roy and
    Vetterli 2007.

    Args:
        rows: the vectors; they are centred by their weighted mean.
        weights: of the items.
    """
    kept = weights > 0
    w, values = weights[kept], rows[kept].astype(np.float64)
    values = (values - w @ values / w.sum()) * np.sqrt(w)[:, None]
    square = values @ values.T if len(values) < values.shape[1] else values.T @ values
    return float(rank_of(np.sqrt(np.clip(np.linalg.eigvalsh(square), 0, None))))


def rank_of(singular: Float[np.ndarray, "*batch value"]) -> Float[np.ndarray, "*batch"]:
    """Effective ranks by singular values, none of them negative; 1 where all are 0.

    Args:
        singular: of one matrix, or of several.
    """
    total = singular.sum(axis=-1, keepdims=True)
    shares = np.divide(singular, total, out=np.zeros_like(singular), where=total > 0)
    return np.asarray(np.exp(-np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1)))


MOST_LAYERS = 7
CONTROLS = 5
"""How often prompts are exchanged for the control of CKA."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """The states of both models at one layer."""

    at: int
    given: PromptSet
    own: Float[np.ndarray, "item dim"]
    ref: Float[np.ndarray, "item dim"]
    seed: int

    def finding(
        self,
        curve: str,
        values: Float[np.ndarray, " item"],
        control: Any,
        about: str,
        *,
        unit: str = "",
        statistic: Callable[..., float] | None = None,
    ) -> Finding:
        """Make a finding of a curve."""
        return Finding(
            name=f"{curve} at layer {self.at}",
            values=values,
            groups=self.given.groups,
            control=control,
            unit=unit,
            statistic=statistic,
            curve=curve,
            layer=self.at,
            about=about,
        )

    def cosine(self) -> Finding:
        """Compare each state with the reference's of the same prompt."""
        control = row_cosine(self.ref, self.ref[self.given.partners])
        about = "cosine with the reference's state; control: its own states of two prompts of a task"
        return self.finding("cosine", row_cosine(self.own, self.ref), control, about)

    def centred_cosine(self) -> Finding:
        """Do the same after the mean over prompts is taken off each model's states."""
        own, ref = self.own - self.own.mean(axis=0), self.ref - self.ref.mean(axis=0)
        control = row_cosine(ref, ref[self.given.partners])
        about = "the same after each model's mean state is taken off, which all prompts share"
        return self.finding("centred cosine", row_cosine(own, ref), control, about)

    def cka(self) -> Finding:
        """Compare the geometry of all states, whatever turn or scale lies between the models."""
        ones, given = np.ones(len(self.ref)), self.given
        rings = [partners(given.groups, given.tasks, self.seed + turn) for turn in range(CONTROLS)]
        exchanged = [Alignment.of(self.ref[ring], self.ref)(ones) for ring in rings]
        about = "linear CKA with the reference; control: the reference, prompts exchanged within each task"
        statistic = Alignment.of(self.own, self.ref)
        return self.finding("CKA", ones, float(np.mean(exchanged)), about, statistic=statistic)

    def neighbours(self, k: int) -> Finding:
        """Count the nearest prompts that stay the nearest."""
        ref = neighbours(self.ref, k)
        control = overlap(ref[self.given.partners], ref)
        about = (
            f"share of the {k} nearest prompts (cosine, centred) that are the reference's; control: the "
            "reference's nearest to another prompt of the task"
        )
        return self.finding(
            "shared neighbours", overlap(neighbours(self.own, k), ref), control, about, unit="share"
        )

    def rank(self) -> Finding:
        """Count the dimensions that the states fill."""
        about = "exp of the entropy of the centred states' singular values; control: all on a line"
        ones = np.ones(len(self.own))
        statistic = partial(effective_rank, self.own)
        return self.finding("effective rank", ones, 1.0, about, unit="dimensions", statistic=statistic)

    def distances(self) -> dict[str, Cell]:
        """Relative distance and ratio of lengths, means over prompts."""
        lengths = np.linalg.norm(self.ref, axis=1)
        apart = np.linalg.norm(self.own - self.ref, axis=1)
        return {
            "layer": self.at,
            "relative_distance": float(np.mean(apart / lengths)),
            "length_ratio": float(np.mean(np.linalg.norm(self.own, axis=1) / lengths)),
        }


def geometry(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 200,
    seed: int = 0,
    layers: Layers | None = None,
    position: str | int = "last",
    k: int = 10,
    prompts: Own | None = None,
) -> FindingsResult:
    """Measure the residual stream after several blocks, and how much of the reference's geometry it has.

    Findings, each a curve over layers: centred cosine, linear CKA, shared nearest neighbours, cosine; and the
    effective rank at the first, the middle and the last of them. Cosines depend on the basis, so they mean
    something between copies of one checkpoint only; CKA and neighbours do not. The control of all but the
    rank is the reference with its prompts exchanged within each task: what knowing the task alone gives.

    Args:
        model: what is measured.
        reference: what this function returned for the reference model; the model itself where left out.
        n: how many prompts.
        seed: of the prompts and of the controls.
        layers: which blocks' ``resid_post``; seven evenly spaced ones where left out.
        position: the token that is read: ``"last"``, or an index that every prompt has.
        k: how many neighbours; fewer where there are few prompts.
        prompts: own texts, token ids, examples or labelled prompts, instead of the bundled tasks.

    Raises:
        ConfigError: fewer than two prompts or one neighbour asked, a position of several tokens, or a
            reference that is none.
        SiteError: a layer the model does not have.
        DataError: states that are not finite, or a reference that read other tokens, layers or widths.
    """
    model = as_model(model)
    if k < 1:
        raise ConfigError(f"k={k} neighbours asked; ask for 1 or more.")
    at = depths(model, layers, MOST_LAYERS)
    given = prompt_set(model, n, seed, prompts)
    acts = model.capture(
        given.tokens, [f"resid_post.{layer}" for layer in at], position, device="cpu", dtype=torch.float32
    )
    if not acts.single:
        raise ConfigError(f"position {position!r} asked; use 'last', or the index of one token.")
    own = {layer: acts[f"resid_post.{layer}"].double().numpy() for layer in at}
    ref = own if reference is None else _reference(reference, given, own, position)
    both = [_Layer(layer, given, own[layer], ref[layer], seed) for layer in at]
    nearest = max(1, min(k, (len(given) - 1) // 2))
    ranks = sorted({0, len(both) // 2, len(both) - 1})
    data = {"n": len(given), "source": given.source, "layers": list(at), "position": position}
    return FindingsResult(
        analysis="geometry",
        about=about(model, {**data, "neighbours": nearest}),
        asked=f"How much of the reference's geometry does the residual stream of {model.name} have?",
        how=(
            f"The residual stream of {counted(len(given), 'prompt')} ({given.source}) was read at "
            f"{counted(len(at), 'layer')}, "
            f"position {position}; the {nearest} nearest prompts were compared.",
        ),
        found=(
            *(one.centred_cosine() for one in both),
            *(one.cka() for one in both),
            *(one.neighbours(nearest) for one in both),
            *(one.cosine() for one in both),
            *(both[i].rank() for i in ranks),
        ),
        more=(Table.of("distances", "Distances from the reference", [one.distances() for one in both]),),
        state={"states": own, "token_ids": given.tokens.token_ids, "position": position},
        seed=seed,
        warnings=(*model.warnings, *given.warnings),
    )


def _reference(
    reference: FindingsResult,
    given: PromptSet,
    own: dict[int, Float[np.ndarray, "item dim"]],
    position: str | int,
) -> dict[int, np.ndarray]:
    """The reference's states, if they are of the same tokens, layers and width."""
    check_same_tokens(given.tokens.token_ids, earlier(reference, "geometry", "token_ids"), "geometry")
    states: dict[int, np.ndarray] = earlier(reference, "geometry", "states")
    shapes = [{layer: rows.shape for layer, rows in one.items()} for one in (own, states)]
    if shapes[0] != shapes[1] or position != earlier(reference, "geometry", "position"):
        raise DataError(
            f"the reference was read at layers {list(states)}, this model at {list(own)}, or at another "
            "position or width. Use the same layers and position, and models of one shape."
        )
    return states
