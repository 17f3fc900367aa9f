"""The table of methods: from the states of two sides, or from words, to a direction. A new one is a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, DataError, ModelError, SiteError, counted
from interp.lenses.translator import TranslatorLens
from interp.models.model import Model
from interp.models.tokens import continuations
from interp.sites import Site
from probes import PROBES
from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.editing import score_map

__all__ = ["METHODS", "Method", "Reader", "Sides", "pulled_back"]

Reader = HyperdimensionalProbe | TranslatorLens | None
BEFORE = "the"
"""What concepts follow when they are turned into tokens: a word after which a blank stands."""


@dataclass(frozen=True, eq=False)
class Sides:
    """States of one site on the two sides of a contrast.

    Attributes:
        positive: ``[example width]``, float64.
        negative: ``[example width]``; row i belongs to row i of the positive side where methods are paired.
        seed: of what a method draws.
    """

    positive: Float[Tensor, "positive width"]
    negative: Float[Tensor, "negative width"]
    seed: int = 0

    @property
    def difference(self) -> Float[Tensor, " width"]:
        """The difference of the two means."""
        return self.positive.mean(dim=0) - self.negative.mean(dim=0)

    @property
    def mean_length(self) -> float:
        """The mean length of a state of either side."""
        return float(torch.cat([self.positive, self.negative]).norm(dim=1).mean())

    def split(self, held: Tensor) -> Sides:
        """The same without some rows of both sides.

        Args:
            held: ``[example]``, true for rows that are left out.
        """
        up, down = (side[~held[: len(side)]] for side in (self.positive, self.negative))
        return Sides(up, down, self.seed)


@dataclass(frozen=True)
class Method:
    """A way to find a direction.

    Attributes:
        name: what users type.
        description: one line for `interp ls methods`.
        direction: from the states of the two sides to a vector of any length.
        reads: what the two sides are: ``prompts``; ``systems``, instructions under which the same prompts are
            read; or ``words``, of which no states are read.
        paired: whether row i of one side belongs to row i of the other.
    """

    name: str
    description: str
    direction: Callable[[Sides], Float[Tensor, " width"]]
    reads: Literal["prompts", "systems", "words"] = "prompts"
    paired: bool = False


def _mean_difference(sides: Sides) -> Tensor:
    return sides.difference


def _by_probe(kind: str) -> Callable[[Sides], Tensor]:
    """The direction along which a linear probe of ``probes`` tells the sides apart."""

    def direction(sides: Sides) -> Tensor:
        states = torch.cat([sides.negative, sides.positive]).numpy()
        labels = [0] * len(sides.negative) + [1] * len(sides.positive)
        coefficients = torch.as_tensor(PROBES[kind].create(seed=sides.seed).fit(states, labels).coef_)
        return (coefficients[-1] - coefficients[0] if len(coefficients) > 1 else coefficients[0]).double()

    return direction


def _pca(sides: Sides) -> Tensor:
    """The direction of the largest sum of squares of the paired differences, towards the positive side."""
    differences = sides.positive - sides.negative
    first = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    return first * (1.0 if float(first @ sides.difference) >= 0 else -1.0)


def _of_words(sides: Sides) -> Tensor:
    raise ConfigError("the method 'concept' is given words, of which no states are read.")


_ROWS = (
    Method("mean-difference", "the difference of the mean states of the two sides (CAA)", _mean_difference),
    Method(
        "whitened",
        "the same in units of the shrunk covariance within the sides",
        _by_probe("whitened-mean-difference"),
    ),
    Method("pca", "the main direction of the differences of pairs, not centred", _pca, paired=True),
    Method("probe", "the weights of a logistic probe of the two sides", _by_probe("logistic")),
    Method(
        "concept",
        "what raises some words over others as a translator or a Hyperdimensional Probe reads the state",
        _of_words,
        "words",
    ),
    Method(
        "prompts",
        "the difference of means of the same prompts under two instructions",
        _mean_difference,
        "systems",
        paired=True,
    ),
)
METHODS: dict[str, Method] = {row.name: row for row in _ROWS}


def pulled_back(
    model: Model,
    site: Site,
    positive: Sequence[str],
    negative: Sequence[str],
    reader: Reader,
    seed: int,
) -> tuple[Float[Tensor, " width"], float]:
    """The gradient of the score of some words less that of others, with the mean length of states there.

    A reader's score is linear in the state: of a translator the product of the translated state with a word's
    row of the unembedding, of a Hyperdimensional Probe that of the predicted hypervector with the word's. In
    the Euclidean metric its gradient is the least change that raises the score.

    Args:
        model: whose states.
        site: a ``resid_post``.
        positive: words, or names of the probe's codebook.
        negative: others; the mean over all words where there are none.
        reader: a fitted Hyperdimensional Probe or translators; the model's own translators where left out.
        seed: of the translator's text.

    Raises:
        SiteError: not a ``resid_post``, or the last one, where states are the final ones.
        DataError: a word that the model cannot say.
    """
    if isinstance(reader, HyperdimensionalProbe):
        names = [*positive, *negative] if negative else list(reader.codebook_.names)
        rows = score_map(reader.fitted_, reader.codebook_, names).rows
        others = rows[len(positive) :] if negative else rows
        up = rows[[names.index(name) for name in positive]].mean(dim=0)
        learned = reader.fitted_
        length = float((learned.mean.double().square() + learned.scale.double().square()).sum().sqrt())
        return up - others.mean(dim=0), length
    if site.kind != "resid_post" or site.layer in (None, model.n_layers - 1):
        raise SiteError(
            f"the method 'concept' reads resid_post before the last block, not '{site}'; take one of "
            f"resid_post.0..{model.n_layers - 2}."
        )
    layer = cast(int, site.layer)
    lens = TranslatorLens.of(model, [layer], seed=seed) if reader is None else reader
    lens.check(layer)
    translator = lens.translators[layer]
    up, down = (_rows(model, words) for words in (positive, negative))
    change = (up - down).to(translator.weight)
    length = float(lens.held_out[layer].states.double().norm(dim=1).mean())
    return (translator.weight @ change).double().cpu(), length


def _rows(model: Model, words: Sequence[str]) -> Float[Tensor, " d_model"]:
    """The mean row of the unembedding over words, each the mean of its tokens; over all tokens for none."""
    head: Any = model.hf.get_output_embeddings()
    matrix = head.weight.detach()
    if matrix.is_meta:
        raise ModelError(
            f"the unembedding of {model.name!r} is kept on disk (device_map); load 'lm_head' on a device."
        )
    if not words:
        return matrix.double().mean(dim=0).cpu()
    if model.tokenizer is None:
        raise DataError(f"{counted(len(words), 'word')} given, but {model.name!r} has no tokenizer.")
    before = model.tokenize([BEFORE]).token_ids[0]
    found = continuations(
        BEFORE, before, list(words), model.tokenizer, vocab_size=model.vocab_size, joint="blank"
    )
    return torch.stack([matrix[list(ids)].double().mean(dim=0).cpu() for ids in found]).mean(dim=0)
