"""Translators: linear maps from one state of a network to another, fitted without a label, in closed form.

A translator is ridge regression from states to targets, as in the tuned lens (Belrose et al. 2023, arXiv
2303.08112), which fits the same kind of map by gradient descent on another loss. Everything it needs of the
examples are their first and second moments, which add up: the states themselves are never kept, and one pass
over any number of them gives every penalty and every rank. The held-out error is a function of moments too.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as bytes_from_tensors
from torch import Tensor

from probes.cards import HubCard, ProbeFileError
from probes.hub import Shared, local
from probes.statistics.groups import counted

__all__ = ["PENALTIES", "Moments", "Translator", "fit_translator"]

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-18, 3))
"""From 1e-9 to 10, two to the decade, as parts of the mean variance of the states' columns."""
ROWS = 1024
"""The most examples that are held in float64 at once."""
TENSORS, CARD = "translator.safetensors", "translator.json"
SCHEMA = 2
LEARNED = ("weight", "offset", "reached")


class Moments:
    """Counts, means and products of states and targets, gathered in float64 from any number of batches.

    Its memory does not grow with the number of examples: ``dim * (dim + out)`` numbers. Products are kept
    about the mean (Chan, Golub and LeVeque 1983), so that a large constant in the states, which language
    models have, costs no digits.

    Args:
        dim: width of the states.
        out: width of the targets.
        device: where they are gathered.

    Attributes:
        count: number of examples.
        state_mean: ``[dim]``; ``target_mean`` is ``[out]``.
        states: ``[dim dim]``, the sum over examples of products of what is left of two columns' means.
        cross: ``[dim out]``, the same of states and targets.
        targets: ``[out]``, the sum of squares of what is left of the targets' means.
    """

    def __init__(self, dim: int, out: int, *, device: torch.device | str = "cpu") -> None:
        if dim < 1 or out < 1:
            raise ValueError(f"moments of {dim} columns and {out} targets asked; give at least 1 of each.")
        zeros: Any = {"dtype": torch.float64, "device": device}
        self.count = 0
        self.state_mean, self.target_mean = torch.zeros(dim, **zeros), torch.zeros(out, **zeros)
        self.states, self.cross = torch.zeros(dim, dim, **zeros), torch.zeros(dim, out, **zeros)
        self.targets = torch.zeros(out, **zeros)

    @property
    def dim(self) -> int:
        """Width of the states."""
        return len(self.state_mean)

    @property
    def out(self) -> int:
        """Width of the targets."""
        return len(self.target_mean)

    def __repr__(self) -> str:
        """Write what it holds, in one line."""
        return f"Moments({counted(self.count, 'example')}, {self.dim} -> {self.out})"

    @torch.no_grad()
    def add(self, states: Float[Tensor, "example dim"], targets: Float[Tensor, "example out"]) -> Moments:
        """Count a batch in, in parts of bounded size; the batch is not kept and not changed.

        Returns:
            The moments themselves.

        Raises:
            ValueError: other widths than before, or numbers that are not finite. Nothing is counted then.
        """
        if states.shape[1] != self.dim or targets.shape[1] != self.out:
            found = f"{states.shape[1]} columns and {targets.shape[1]} targets"
            raise ValueError(f"{found} given to moments of {self.dim} and {self.out}.")
        if not all(bool(part.sum().isfinite()) for part in (states, targets)):
            # finite numbers alone have a finite sum, unless it overflows
            _require_finite(states, targets)
        for start in range(0, len(states), ROWS):
            part = slice(start, start + ROWS)
            self._add(*(one[part].to(self.states, copy=True) for one in (states, targets)))
        return self

    def _add(self, states: Tensor, targets: Tensor) -> None:
        """Count a part in; its own numbers are overwritten."""
        state_mean, target_mean = states.mean(dim=0), targets.mean(dim=0)
        states -= state_mean
        targets -= target_mean
        self.states.addmm_(states.T, states)
        self.cross.addmm_(states.T, targets)
        self.targets += targets.square_().sum(dim=0)
        self._join(len(states), state_mean, target_mean)

    def _join(self, count: int, state_mean: Tensor, target_mean: Tensor) -> None:
        """Move the means, and add what the distance between two groups' means adds to the products."""
        total = self.count + count
        by_states, by_targets = state_mean - self.state_mean, target_mean - self.target_mean
        between = self.count * count / total
        self.states.addr_(by_states, by_states, alpha=between)
        self.cross.addr_(by_states, by_targets, alpha=between)
        self.targets += between * by_targets.square()
        self.state_mean += by_states * (count / total)
        self.target_mean += by_targets * (count / total)
        self.count = total

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of examples; neither is changed.

        Raises:
            ValueError: they are of other widths.
        """
        if (self.dim, self.out) != (other.dim, other.out):
            raise ValueError(f"{other} cannot be merged with {self}: their widths differ.")
        both = Moments(self.dim, self.out, device=self.states.device)
        for one in (self, other):
            if one.count:
                both.states += one.states.to(both.states)
                both.cross += one.cross.to(both.states)
                both.targets += one.targets.to(both.states)
                both._join(one.count, one.state_mean.to(both.states), one.target_mean.to(both.states))
        return both

    def require(self, least: int, name: str) -> None:
        """Raise unless there are enough examples.

        Raises:
            ValueError: naming how many there are.
        """
        if self.count < least:
            raise ValueError(f"the {name} moments hold {self.count} examples; at least {least} are needed.")


def _require_finite(states: Tensor, targets: Tensor) -> None:
    """Raise where a number is not finite.

    Raises:
        ValueError: naming how many examples hold one, and the first.
    """
    bad = ~(states.isfinite().all(dim=1) & targets.isfinite().all(dim=1).to(states.device))
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(bad)} examples hold numbers that are not finite, first in row "
            f"{int(bad.nonzero()[0])}; drop those examples, or capture them in float32."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Translator(Shared):
    """A linear map from states to targets, with the way back.

    Attributes:
        weight: ``[dim out]``, float64; a translation is ``states @ weight + offset``.
        offset: ``[out]``.
        penalty: the one chosen, as a part of the mean variance of the states' columns.
        rank: the most axes that a translation may use; None for no limit.
        score: explained part of the held-out targets' variance about the training mean: 1 is perfect, 0 what
            a constant reaches.
        reached: ``[dim out]``, the covariance of the training states and their translations.
        path: each penalty with its held-out score.
        card: what it was fitted on, in the words of whoever fitted it.
    """

    weight: Float64[Tensor, "dim out"]
    offset: Float64[Tensor, " out"]
    penalty: float
    rank: int | None
    score: float
    reached: Float64[Tensor, "dim out"]
    path: tuple[tuple[float, float], ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Write what it is, in one line."""
        rank = "" if self.rank is None else f", rank {self.rank}"
        widths = " -> ".join(map(str, self.weight.shape))
        return f"Translator({widths}, penalty {self.penalty:.2g}{rank}, held-out score {self.score:.3f})"

    def __call__(self, states: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
        """Translate, in the states' precision, at least float32."""
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        return wide @ self.weight.to(wide) + self.offset.to(wide)

    @functools.cached_property
    def _decomposed(self) -> tuple[Tensor, Tensor]:
        """Axes and spreads, made when first asked for: a decomposition that translating does not need."""
        spreads, axes = torch.linalg.eigh(self.weight.T @ self.reached)
        spreads, axes = spreads.flip(0), axes.flip(1)
        eps = torch.finfo(torch.float64).eps
        least = spreads.clamp_min(0).max() * max(self.weight.shape) * eps
        kept = int((spreads > least).sum())
        return axes[:, :kept].contiguous(), spreads[:kept].contiguous()

    @property
    def axes(self) -> Float64[Tensor, "out axis"]:
        """Orthonormal directions in which translations of the training states spread, the widest first."""
        return self._decomposed[0]

    @property
    def spreads(self) -> Float64[Tensor, " axis"]:
        """The variance of translations along each axis, positive and falling."""
        return self._decomposed[1]

    @functools.cached_property
    def back(self) -> Float64[Tensor, "dim axis"]:
        """The covariance of states and translations along each axis."""
        return self.reached @ self.axes

    def pull_back(
        self, change: Float[Tensor, "*batch out"], share: float = 1.0
    ) -> Float[Tensor, "*batch dim"]:
        """The least change of a state whose translation changes as asked.

        Least in the metric of the training states' own covariance C: of all changes d with the same
        translation, the one with the smallest ``d @ inverse(C) @ d``, so along directions in which states
        differ anyway. It is ``change @ pinv(W' C W) @ W' C``.

        Args:
            change: of the translation.
            share: the part of the translations' variance to use: only the widest axes that hold so much. At
                1.0 the translation changes by all of ``change`` that a change of states can reach; less
                leaves out axes along which states hardly differ and that would ask for large changes.

        Raises:
            ValueError: a share that is not above 0 and at most 1.
        """
        wide = change.to(torch.promote_types(change.dtype, torch.float32))
        kept = self.kept(share)
        along = wide.double() @ self.axes[:, :kept].to(wide.device)
        found = along / self.spreads[:kept].to(along) @ self.back[:, :kept].T.to(along)
        return found.to(wide)

    def kept(self, share: float) -> int:
        """How many of the widest axes hold a share of the translations' variance.

        Raises:
            ValueError: a share that is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share {share} asked; give a part of the variance, above 0 and at most 1.")
        if share == 1 or not len(self.spreads):
            return len(self.spreads)
        held = self.spreads.cumsum(dim=0) / self.spreads.sum()
        return int((held < share).sum()) + 1

    def described(self, card: Mapping[str, Any]) -> Translator:
        """The same map with another card."""
        return replace(self, card=dict(card))

    def save(self, folder: str | Path) -> Path:
        """Write ``translator.safetensors`` (the learned numbers) and ``translator.json``.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = bytes_from_tensors({name: getattr(self, name).cpu().contiguous() for name in LEARNED})
        record = {
            "schema": SCHEMA,
            "penalty": self.penalty,
            "rank": self.rank,
            "score": self.score,
            "path": [list(step) for step in self.path],
            "sha256": hashlib.sha256(content).hexdigest(),
            "card": dict(self.card),
        }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (folder / TENSORS).write_bytes(content)
        (folder / CARD).write_text(text, encoding="utf-8")
        return folder

    def hub_card(self) -> HubCard:
        """How it was fitted, and how well it does, for the Hub."""
        facts = {name: value for name, value in self.card.items() if isinstance(value, str | int | float)}
        agreement = dict(self.card.get("agreement", {}))
        own = {"explained variance of held-out final states": self.score}
        own |= {"names the model's own next token": agreement.pop("translator")} if agreement else {}
        return HubCard(
            "translator",
            "Translator: states of a layer to final states",
            facts={"penalty": self.penalty, "rank": self.rank, "width": self.weight.shape[-1], **facts},
            scores=own,
            controls=agreement,
            failures=(
                "It was fitted: what it reads usually follows such states, which later blocks need not use.",
            ),
            load='from probes.translation import Translator\n\nTranslator.from_pretrained("REPO")',
        )

    @classmethod
    def load(cls, folder: str | Path) -> Translator:
        """Read a translator back.

        Args:
            folder: what :meth:`save` wrote, or ``hf://user/name[@revision]``.

        Raises:
            ProbeFileError: files that are missing, corrupt or changed.
        """
        fetched = local(folder, "translator")
        folder = fetched.folder
        try:
            record = json.loads((folder / CARD).read_text(encoding="utf-8"))
            content = (folder / TENSORS).read_bytes()
        except OSError as error:
            raise ProbeFileError(
                f"no translator in {folder}: {error.strerror}. Give a folder that save() wrote."
            ) from error
        except ValueError as error:
            raise ProbeFileError(f"{folder / CARD} is not valid JSON ({error}). Save it again.") from error
        if not isinstance(record, dict) or record.get("schema") not in (1, SCHEMA):
            raise ProbeFileError(f"{folder / CARD} is no record of schema 1 or {SCHEMA}. Save it again.")
        if hashlib.sha256(content).hexdigest() != record.get("sha256"):
            raise ProbeFileError(f"{folder / TENSORS} is not the file that {CARD} names. Save it again.")
        try:
            learned = tensors_from_bytes(content)
            if record["schema"] == 1:  # it kept the covariance along each axis
                learned["reached"] = learned["back"] @ learned["axes"].T
            facts = {name: record[name] for name in ("penalty", "rank", "score", "card")}
            facts["card"] = {**facts["card"], "hub": fetched.source} if fetched.source else facts["card"]
            steps = tuple((float(penalty), float(score)) for penalty, score in record["path"])
            return cls(**{name: learned[name] for name in LEARNED}, **facts, path=steps)
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ProbeFileError(f"{folder} does not hold a translator ({error}). Save it again.") from error


def fit_translator(
    train: Moments,
    held_out: Moments,
    penalties: Sequence[float] = PENALTIES,
    *,
    ranks: Sequence[int | None] = (None,),
) -> Translator:
    """Fit ridge regression from moments, the penalty (and rank) chosen by the held-out squared error.

    Minimises the mean squared error plus ``penalty * mean variance of a column of the states`` times the
    squared norm of the weights, the offset free. With a rank it is reduced-rank ridge regression (Mukherjee
    and Zhu 2011): the full solution projected on the leading directions of its fitted values.

    Args:
        train: of the examples to learn from.
        held_out: of examples to choose on, of texts that are not in ``train``.
        penalties: to choose from, as parts of the mean variance of the states' columns.
        ranks: the most axes a translation may use, to choose from; None for no limit.

    Raises:
        ValueError: too few examples, states or targets that never change, other widths, or penalties or
            ranks that are not positive.
    """
    train.require(2, "training")
    held_out.require(1, "held-out")
    if (train.dim, train.out) != (held_out.dim, held_out.out):
        raise ValueError(f"{held_out} does not fit {train}: their widths differ.")
    if not len(penalties) or min(penalties) <= 0:
        raise ValueError(f"penalties are {tuple(penalties)}; give at least one, all positive.")
    if not len(ranks) or any(rank is not None and rank < 1 for rank in ranks):
        raise ValueError(f"ranks are {tuple(ranks)}; give at least one, each positive or None.")
    _require_spread(train, held_out)
    if len(penalties) == 1 and penalties[0] >= PENALTIES[0] and not any(ranks):
        found = _solved(train, float(penalties[0]))
        if found is not None:
            score = _explained(train, held_out, found)
            return _translator(train, found, score, None, ((float(penalties[0]), score),))
    path = _Path.of(train, held_out)
    scores = [path.score(float(penalty)) for penalty in penalties]
    best = max(range(len(scores)), key=scores.__getitem__)
    weight, score, rank = path.reduced(float(penalties[best]), ranks)
    steps = tuple(zip(map(float, penalties), scores, strict=True))
    return _translator(train, weight, score, rank, steps, best)


def _translator(
    train: Moments,
    weight: Tensor,
    score: float,
    rank: int | None,
    path: tuple[tuple[float, float], ...],
    best: int = 0,
) -> Translator:
    """What was fitted, with what the way back needs."""
    offset = train.target_mean - train.state_mean @ weight
    reached = (train.states @ weight).div_(train.count)
    return Translator(weight, offset, path[best][0], rank, score, reached, path)


def _require_spread(train: Moments, held_out: Moments) -> None:
    """Raise unless states and targets change.

    Raises:
        ValueError: the training states, or the held-out targets, never change.
    """
    if not float(train.states.trace()) > 0:
        raise ValueError("the training states are all alike; there is nothing to translate.")
    unseen = (torch.finfo(torch.float64).eps * train.target_mean.norm()).square()
    if not _constant(train, held_out) > 100 * float(unseen):
        raise ValueError("the held-out targets never differ from the training mean; give others.")


def _constant(train: Moments, held_out: Moments) -> float:
    """The held-out squared error of always giving the training mean."""
    apart = train.target_mean - held_out.target_mean.to(train.target_mean)
    return float(held_out.targets.sum() / held_out.count) + float(apart.square().sum())


def _explained(train: Moments, held: Moments, weight: Tensor) -> float:
    """The explained part of the held-out variance by any weight."""
    bias = (held.state_mean.to(weight) - train.state_mean) @ weight
    bias += train.target_mean - held.target_mean.to(weight)
    explained = 2 * held.cross.to(weight) - held.states.to(weight) @ weight
    error = (held.targets.sum().to(weight) - (weight * explained).sum()) / held.count + bias.square().sum()
    return 1 - float(error) / _constant(train, held)


def _solved(train: Moments, penalty: float) -> Tensor | None:
    """The weight at one penalty, from a triangular factor; None where rounding leaves it none.

    Several times cheaper than eigenvectors, which a penalty below ``PENALTIES`` needs all the same: they tell
    rounding from variance.
    """
    ridged = train.states.clone()
    ridged.diagonal().add_(penalty * train.states.trace() / train.dim)
    factor, failed = torch.linalg.cholesky_ex(ridged)
    return None if int(failed) else torch.cholesky_solve(train.cross, factor)


@dataclass(frozen=True, eq=False)
class _Path:
    """All ridge solutions along the penalty, in the eigenvectors of the states' covariance.

    There a solution is ``shrink[:, None] * targets``, and the held-out error of any penalty costs one
    product of a square matrix with a vector.
    """

    train: Moments
    held_out: Moments
    values: Tensor  # [dim], the eigenvalues
    vectors: Tensor  # [dim dim]
    targets: Tensor  # [dim out]: the covariance with the targets along each eigenvector
    apart: Tensor  # [dim]: how far the held-out states' mean is from the training states', along each
    offset: Tensor  # [out]: how far the training targets' mean is from the held-out targets'
    products: Tensor  # [dim dim]: targets @ targets.T times the held-out states' covariance
    matches: Tensor  # [dim]: targets times the held-out covariance of states and targets

    @classmethod
    def of(cls, train: Moments, held_out: Moments) -> _Path:
        """Decompose once."""
        values, vectors = torch.linalg.eigh(train.states / train.count)
        targets = vectors.T @ (train.cross / train.count)
        home = train.states
        states, cross = held_out.states.to(home), held_out.cross.to(home)
        return cls(
            train,
            held_out,
            values.clamp_min(0),
            vectors,
            targets,
            (held_out.state_mean.to(home) - train.state_mean) @ vectors,
            train.target_mean - held_out.target_mean.to(home),
            (vectors.T @ states @ vectors) * (targets @ targets.T) / held_out.count,
            (vectors.T @ cross * targets).sum(dim=1) / held_out.count,
        )

    def shrink(self, penalty: float) -> Tensor:
        """What the targets along each eigenvector are multiplied by."""
        return 1 / (self.values + penalty * self.values.mean())

    def score(self, penalty: float) -> float:
        """The explained part of the held-out variance."""
        shrink = self.shrink(penalty)
        bias = (self.apart * shrink) @ self.targets + self.offset
        spread = self.held_out.targets.sum().to(shrink) / self.held_out.count
        error = spread - 2 * shrink @ self.matches + shrink @ self.products @ shrink + bias.square().sum()
        return 1 - float(error) / _constant(self.train, self.held_out)

    def reduced(self, penalty: float, ranks: Sequence[int | None]) -> tuple[Tensor, float, int | None]:
        """The weight at a penalty, with the best of some ranks: weight, score, rank."""
        shrink = self.shrink(penalty)
        weight = self.vectors @ (shrink[:, None] * self.targets)
        if not any(ranks):
            return weight, self.score(penalty), None
        fitted = (self.targets.T * shrink) @ self.targets  # of the rows that stand for the penalty, too
        directions = torch.linalg.eigh(fitted).eigenvectors.flip(1)
        found = []
        for rank in ranks:
            kept = directions[:, :rank]
            reduced = weight if rank is None else weight @ kept @ kept.T
            found.append((_explained(self.train, self.held_out, reduced), reduced, rank))
        score, weight, rank = max(found, key=lambda one: one[0])
        return weight, score, rank
