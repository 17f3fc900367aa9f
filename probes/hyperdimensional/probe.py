"""The Hyperdimensional Probe: activations into hypervectors, hypervectors into names."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.arrays import Inputs, training
from probes.base import Probe, check_seed
from probes.hyperdimensional.decoding import Decodings, decode
from probes.hyperdimensional.editing import Replacement, edited
from probes.hyperdimensional.encoders import ENCODERS
from probes.hyperdimensional.fitted import Fitted, learn
from probes.hyperdimensional.inputs import (
    Labels,
    as_features,
    as_given,
    as_targets,
    check,
    check_labels,
    codebook_of,
    listed,
    parts,
    whole_numbers,
)
from probes.hyperdimensional.lesson import Settings
from probes.hyperdimensional.reduction import reduce
from probes.statistics.groups import counted
from probes.vsa.codebook import Candidates, Codebook, CodebookError

__all__ = ["HyperdimensionalProbe"]

PAPER = (
    "compat='paper' trains the published targets with the published losses: what is bound to the subject "
    "is a "
    "table of the answers, so its scores do not show that the model knows them. Read them against "
    "published_floors()."
)


@final
class HyperdimensionalProbe(Probe):
    """Map activations into the concept space of a vector symbolic architecture, and decode them there.

    After Bronzini et al. 2025 (arXiv 2509.25045), with other defaults: one layer instead of pooled ones, a
    linear map trained with a softmax over the concepts instead of a network, the answer's own hypervector or
    a role-bound record as target, decoding that never sees the answer. ``compat="paper"`` restores the
    published choices for comparison.

    Args:
        codebook: the concepts; where left out, random ones for the labels met in ``fit``.
        seed: of the codebook made in ``fit``, the held-out part, the order of the examples and the weights.
        dimension: of the codebook made in ``fit``.
        encoder: a key of ``ENCODERS``: ``linear``, ``embedding`` (for codebooks made from embeddings, where
            concepts are read that were never trained), ``ridge`` (the fast screen), ``mlp``;
            ``translator`` learns the model's final states, without labels, and reads any concept.
        reduction: ``none`` for one layer, or how several become one vector: a key of ``REDUCTIONS``.
        holdout: what the validation part holds out where ``fit`` is given none: whole ``groups``, or
            ``concepts``, for a test on concepts that were never trained.
        regularisation: penalties to choose from on validation; the encoder's own list where left out.
        rank: how many axes a linear prediction may use; "auto" for the width of the embeddings of a codebook
            made from embeddings, and all otherwise.
        hidden: width of the network's layers; 512, or 4,096 with ``compat="paper"``.
        epochs: passes over the training examples, at most.
        batch_size: examples per step; 512, or 32 with ``compat="paper"``.
        learning_rate: where the encoder's own does not do.
        patience: epochs without a better validation rank before training stops.
        temperature: factor on the similarities before the softmax, where the encoder's own does not do.
        level: share of null inputs that a decoding claims all the same, and of validation inputs that count
            as unlike training; sets both limits of abstention.
        compat: ``"paper"`` for the published network, losses, choice of checkpoint and rounding.

    Attributes:
        codebook_: the concepts decoded.
        fitted_: the map, its scaling and the abstention thresholds.
        whole_numbers_: whether the labels were whole numbers, which ``predict`` then gives back.
    """

    kind: ClassVar[str] = "hyperdimensional"
    codebook_: Codebook
    fitted_: Fitted
    whole_numbers_: bool

    def __init__(
        self,
        codebook: Codebook | None = None,
        *,
        seed: int = 0,
        dimension: int = 4096,
        encoder: str = "linear",
        reduction: str = "none",
        holdout: Literal["groups", "concepts"] = "groups",
        regularisation: float | Sequence[float] | None = None,
        rank: int | Literal["auto"] | None = "auto",
        hidden: int | None = None,
        epochs: int = 40,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        patience: int = 6,
        temperature: float | None = None,
        level: float = 0.05,
        compat: Literal["paper"] | None = None,
    ) -> None:
        self.codebook = codebook
        self.seed = seed
        self.dimension = dimension
        self.encoder = encoder
        self.reduction = reduction
        self.holdout = holdout
        self.regularisation = regularisation
        self.rank = rank
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.temperature = temperature
        self.level = level
        self.compat = compat

    @training()
    def fit(
        self,
        X: Inputs,
        y: Labels,
        *,
        groups: Collection[Any] | None = None,
        validation: tuple[Inputs, Labels] | None = None,
        progress: bool = False,
    ) -> HyperdimensionalProbe:
        """Learn from examples and give the probe itself.

        Args:
            X: ``[example dim]``, or ``[example layer dim]`` with a reduction; it is not changed.
            y: one concept per example, or targets made by a codebook (``records``, ``sets``, ...); for
                ``encoder="translator"`` the model's own final states, ``[example d_model]``, and no label.
            groups: what must not straddle training and validation, one per example.
            validation: held-out ``(X, y)`` on which everything is chosen: of the test's kind, so with
                concepts that are not trained where the test has such concepts.
            progress: show a progress bar.

        Raises:
            TypeError: X holds no numbers.
            ValueError: numbers that are not finite, lengths that differ, an unknown encoder, reduction or
                rule.
            CodebookError: concepts that the codebook does not have.
        """
        check_seed(self.get_params())
        features = self.features(X)
        check_labels(y, "mlp" if self.compat else self.encoder)
        codebook = self.codebook or codebook_of(y, self.dimension, self.seed)
        codebook = codebook.to(features.device)
        targets = as_targets(codebook, y, len(features))
        settings = self.settings(codebook, progress=progress)
        if validation is None:
            rows = parts(targets, groups, self.holdout, self.seed)
            both = [(features[part], targets[part]) for part in rows]
        else:
            held = self.features(validation[0])
            both = [(features, targets), (held, as_targets(codebook, validation[1], len(held)))]
        encoder = "mlp" if self.compat else self.encoder
        self.fitted_ = learn(codebook, both, settings, encoder=encoder, level=self.level)
        self.codebook_, self.whole_numbers_ = codebook, whole_numbers(y)
        return self

    def calibrate(self, X: Inputs, *, level: float | None = None) -> HyperdimensionalProbe:
        """Set the abstention threshold on inputs that hold no concept, instead of exchanged validation ones.

        Args:
            X: null inputs, as for :meth:`fit`.
            level: share of them that may be claimed.
        """
        self.require_fitted("fitted_")
        wanted = self.level if level is None else level
        self.fitted_ = self.fitted_.calibrated(self.codebook_, self.features(X), wanted)
        return self

    def encode(self, X: Inputs) -> Float[Tensor, "example width"]:
        """The real-valued hypervector predicted for each example."""
        self.require_fitted("fitted_")
        return self.fitted_(self.features(X))

    def decode(
        self,
        X: Inputs,
        *,
        role: str | None = None,
        k: int = 5,
        candidates: Candidates | None = None,
        keys: Sequence[str] | None = None,
    ) -> Decodings:
        """Read the concepts out of each example; the right answer is never an input.

        Nothing is claimed (``abstained``) where the best similarity is below the threshold, which a share
        ``level`` of exchanged validation states passes, or where the state lies farther from those of
        training than all but ``level`` of the validation states. Both hold for prompts like those of
        validation.

        Args:
            X: as for :meth:`fit`.
            role: which role of a record; may be left out where there is one.
            k: how many concepts to give.
            candidates: names to rank among, where the prompt allows only some.
            keys: with ``compat="paper"`` only: the concept of each prompt that is unbound first.

        Raises:
            NotFittedError: nothing was learned yet.
            ValueError: an unknown role, none where there are several, or keys without ``compat="paper"``.
            CodebookError: unknown candidates or keys.
        """
        vectors = self.encode(X)
        if keys is not None:
            if self.compat is None:
                raise ValueError(
                    "keys are taken with compat='paper' only: unbinding by a word of the prompt hands the "
                    "probe "
                    "the subject. Leave keys out, or train on records and ask for a role."
                )
            named = self.codebook_.algebra.as_real(self.codebook_.vectors[self.codebook_.index(list(keys))])
            vectors = vectors * named.to(vectors)
        chosen = self._role(role)
        threshold = self.fitted_.thresholds[chosen]
        read = decode(self.codebook_, vectors, role=chosen, k=k, candidates=candidates, threshold=threshold)
        return replace(read, unfamiliar=self.fitted_.unfamiliar(self.features(X)))

    def edit(
        self, X: Inputs, replace: Replacement, *, role: str | None = None, dose: float = 1.0
    ) -> torch.Tensor | np.ndarray:
        """The states after the least change that puts one name in another's place.

        The scores of the old and the new name are exchanged by the shortest change of the state that does so
        (:func:`probes.hyperdimensional.editing.edited`).

        Args:
            X: ``[example dim]``, not changed.
            replace: old name -> new name, for every example; or one pair of them per example.
            role: which role of a record; may be left out where there is one.
            dose: 1 exchanges the scores; more goes on in the same direction.

        Returns:
            ``[example dim]``, as X's kind of array.

        Raises:
            NotFittedError: nothing was learned yet.
            ValueError: an encoder that is not linear, several layers, or pairs that do not fit.
            CodebookError: an unknown name.
        """
        role = self._role(role)
        if self.reduction != "none":
            raise ValueError(f"a probe of several layers ({self.reduction}) cannot write to one state.")
        found = edited(self.fitted_, self.codebook_, self.features(X), replace, role=role, dose=dose)
        return as_given(found, X)

    def decision_function(self, X: Inputs) -> torch.Tensor | np.ndarray:
        """``[example concept]`` similarities, in the codebook's order, as X's kind of array."""
        role = self._role(None)
        vectors = self.encode(X)
        if role:
            vectors = self.codebook_.algebra.unbind_real(vectors, self.codebook_.role(role))
        return as_given(self.codebook_.similarities(vectors), X)

    def predict(self, X: Inputs) -> np.ndarray:
        """The most similar concept of every example, abstention aside."""
        found = np.array([names[0] for names in self.decode(X, k=1).names])
        return found.astype(np.int64) if self.whole_numbers_ else found

    def score(self, X: Inputs, y: Labels) -> float:
        """The accuracy, from 0 to 1, over all examples."""
        predicted = self.predict(X)
        labels = listed(y)
        if len(labels) != len(predicted):
            raise ValueError(
                f"{counted(len(labels), 'label')} for {counted(len(predicted), 'example')}; give one label "
                "per example."
            )
        return float(np.mean([str(a) == str(b) for a, b in zip(labels, predicted.tolist(), strict=True)]))

    @property
    def width(self) -> int:
        """The number of columns after the reduction."""
        self.require_fitted("fitted_")
        return len(self.fitted_.mean)

    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments that are plain values: all but the codebook, which is a file."""
        return {name: value for name, value in self.get_params().items() if name != "codebook"}

    def arrays(self) -> dict[str, np.ndarray]:
        """The scaling and the encoder's arrays."""
        self.require_fitted("fitted_")
        return self.fitted_.arrays()

    def facts(self) -> dict[str, Any]:
        """The codebook's fingerprint, the roles, the thresholds and the notes of the fit."""
        self.require_fitted("fitted_")
        known = {"codebook": self.codebook_.fingerprint, "concepts": len(self.codebook_)}
        known |= {"whole_numbers": self.whole_numbers_, "codebook_given": self.codebook is not None}
        return known | self.fitted_.facts()

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> HyperdimensionalProbe:
        """Take back what :meth:`arrays` and :meth:`facts` gave; the codebook comes by :meth:`load_parts`."""
        self.fitted_, self.whole_numbers_ = Fitted.restored(arrays, facts), bool(facts["whole_numbers"])
        return self

    def save_parts(self, folder: Path) -> None:
        """Write the codebook beside the probe."""
        self.codebook_.save(folder)

    def load_parts(self, folder: Path, facts: dict[str, Any]) -> None:
        """Read the codebook back.

        Raises:
            CodebookError: it is missing, corrupt, or not the one the probe was trained on.
        """
        found = Codebook.load(folder)
        if found.fingerprint != facts["codebook"]:
            raise CodebookError(
                f"the codebook in {folder} is not the one this probe was trained on. Save the probe again."
            )
        self.codebook_ = found
        self.codebook = found if facts["codebook_given"] else None

    def settings(self, codebook: Codebook, *, progress: bool = False) -> Settings:
        """How an encoder is trained for a codebook.

        Raises:
            ValueError: an unknown encoder or rule of holding out, or a penalty that is not positive.
        """
        paper = self.compat == "paper"
        check(self.encoder, self.holdout)
        if paper:
            warnings.warn(PAPER, UserWarning, stacklevel=3)
        row = ENCODERS["mlp" if paper else self.encoder]
        embedded = codebook.projection.centre if codebook.projection is not None else None
        automatic = None if embedded is None else len(embedded)
        return Settings(
            regularisation=row.penalties(self.regularisation),
            rank=self.rank if isinstance(self.rank, int) else automatic if self.rank else None,
            hidden=self.hidden or (4096 if paper else 512),
            learning_rate=self.learning_rate or (1e-4 if paper else row.learning_rate),
            batch_size=self.batch_size or (32 if paper else 512),
            epochs=self.epochs,
            patience=self.patience,
            temperature=self.temperature or row.temperature,
            published=paper,
            seed=self.seed,
            progress=progress,
        )

    def features(self, X: Inputs) -> Float[Tensor, "example width"]:
        """One vector per example, in float32.

        Raises:
            ValueError: a shape that the reduction does not take, or numbers that are not finite.
        """
        return reduce(as_features(X), self.reduction)

    def _role(self, role: str | None) -> str:
        self.require_fitted("fitted_")
        roles = self.fitted_.roles
        if role is None and len(roles) == 1:
            return roles[0]
        if role is None or role not in roles:
            asked = "no role" if role is None else f"role {role!r}"
            known = ", ".join(repr(name) for name in roles)
            raise ValueError(f"{asked} asked; this probe decodes: {known}.")
        return role
