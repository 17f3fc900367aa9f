"""One protocol on one model: prompts, states, codebook, and how a probe is fitted and read on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from interp.models.model import Model
from interp.tasks.protocols import Item, ProtocolItems
from probes.hyperdimensional import Decodings, HyperdimensionalProbe
from probes.hyperdimensional.retraining import read_retrained
from probes.vsa import Codebook

__all__ = ["Trial"]


@dataclass(frozen=True, eq=False)
class Trial:
    """Hold what every fit of one analysis shares.

    Attributes:
        model: what is read.
        drawn: the prompts.
        codebook: the concepts.
        token_ids: the tokens of each prompt.
        encoder: the kind of encoder.
        seed: of every fit.
        regularisation: the penalty chosen for the probe, which its controls share; None before.
    """

    model: Model
    drawn: ProtocolItems
    codebook: Codebook
    token_ids: Sequence[Sequence[int]]
    encoder: str
    seed: int
    regularisation: float | None = None

    def rows(self, part: str) -> list[int]:
        """Give the rows of a part."""
        return [row for row, item in enumerate(self.drawn.items) if item.part == part]

    @property
    def test(self) -> tuple[Item, ...]:
        """Give the test items."""
        return self.drawn.part("test")

    @property
    def facts(self) -> list[str]:
        """Give the fact of each test item: what intervals are over."""
        return [item.fact for item in self.test]

    @property
    def gold(self) -> list[str]:
        """Give the answer of each test item."""
        return [item.answer for item in self.test]

    def fit(self, X: Any, *, codebook: Codebook | None = None) -> HyperdimensionalProbe:
        """Fit on the training rows, choosing on the validation rows.

        Args:
            X: one row per prompt.
            codebook: another codebook.
        """
        names = [item.answer for item in self.drawn.items]
        train, held = self.rows("train"), self.rows("validation")
        later = (X[held], [names[i] for i in held])
        return self._probe(codebook).fit(X[train], [names[i] for i in train], validation=later)

    def read_retrained(self, X: Any, answers: Sequence[Sequence[str]]) -> list[list[str]]:
        """Fit once for each list of answers, and give what is read in the test rows.

        Args:
            X: one row per prompt.
            answers: what to train and choose on, instead of the true answers; one per prompt.
        """
        parts = (self.rows("train"), self.rows("validation"), self.rows("test"))
        return read_retrained(self._probe(None), X, answers, parts)

    def _probe(self, codebook: Codebook | None) -> HyperdimensionalProbe:
        return HyperdimensionalProbe(
            codebook or self.codebook,
            seed=self.seed,
            encoder=self.encoder,
            regularisation=self.regularisation,
        )

    def decode(self, probe: HyperdimensionalProbe, X: Any) -> Decodings:
        """Read the test rows."""
        return probe.decode(X[self.rows("test")])

    def right(
        self, names: Sequence[str], answers: Sequence[str] | None = None
    ) -> Int[np.ndarray, " example"]:
        """Say for each test prompt whether the name read is the answer."""
        gold = self.gold if answers is None else answers
        return np.array([int(a == b) for a, b in zip(names, gold, strict=True)], dtype=np.int64)
