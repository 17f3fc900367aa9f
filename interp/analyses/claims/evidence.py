"""What a claim rests on: readings, prompt by prompt, of the algebra, its controls and plain readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.concepts.known import LEAST, ask, protocol_of
from interp.analyses.concepts.one_pass import OnePass
from interp.models.model import Model
from interp.tasks.protocols import PROTOCOLS, Protocol, ProtocolItems
from probes.statistics import Estimate, bootstrap, paired_difference

__all__ = ["Arm", "Claim", "Counts", "Evidence", "Facts", "Held", "Part", "Setting", "judged"]

Right = Int[np.ndarray, " example"]
Counts = Int[np.ndarray, " _"] | Float[np.ndarray, " _"]
"""What is averaged over prompts: right or wrong, or a share of one prompt's concepts."""


@dataclass(frozen=True)
class Arm:
    """Another reader of the same prompts.

    Attributes:
        name: what it is.
        estimate: the share it reads right.
        difference: the algebra's share less this one, paired by prompt.
    """

    name: str
    estimate: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Part:
    """One piece of what is read, by the algebra and by the plain alternative."""

    name: str
    algebra: Estimate
    plain: Estimate


@dataclass(frozen=True)
class Held:
    """How often states of wrongly answered prompts are read to hold something of one kind.

    Attributes:
        reader: who reads.
        when: ``before`` the first new token, or ``after`` the last.
        kind: what of: a key of ``interp.analyses.claims.failures.KINDS``.
        share: of the prompts.
    """

    reader: str
    when: str
    kind: str
    share: Estimate


@dataclass(frozen=True)
class Claim:
    """One row of the table.

    Attributes:
        name: a key of ``CLAIMS``.
        measure: what is counted, of which share is meant.
        found: the share of the trained model's states, read through the algebra.
        controls: what must be beaten, the hardest first.
        alternatives: readers without the algebra; first the one that the algebra is compared with, which is
            the strongest on validation prompts, or named in advance where they say nothing.
        parts: the pieces of what is read, where there are several.
        note: what a reader should know.
        held: what wrongly answered prompts hold, where that was asked.
    """

    name: str
    measure: str
    found: Estimate
    controls: tuple[Arm, ...]
    alternatives: tuple[Arm, ...]
    parts: tuple[Part, ...] = ()
    note: str = ""
    held: tuple[Held, ...] = ()

    @property
    def shown(self) -> bool:
        """Whether every control is beaten."""
        return all(arm.difference.interval.low > 0 for arm in self.controls)

    @property
    def verdict(self) -> str:
        """What the intervals allow one to say."""
        if not self.shown:
            worst = min(self.controls, key=lambda arm: arm.difference.interval.low)
            return f"not shown: {worst.name} may do as well"
        best = self.alternatives[0]
        if all(arm.difference.interval.low > 0 for arm in self.alternatives):
            return f"the algebra reads more than {best.name}"
        if best.difference.interval.high < 0:
            return f"holds, but the algebra reads less than {best.name}"
        if best.difference.interval.low > 0:  # some other one is not beaten
            best = min(self.alternatives, key=lambda arm: arm.difference.interval.low)
        return f"holds, and the algebra gives nothing over {best.name}"


@dataclass(frozen=True, eq=False)
class Evidence:
    """1 for every test prompt that is read right, by each reader.

    Attributes:
        measure: what counts as right.
        right: of the trained model's states, through the algebra.
        controls: name -> of each control.
        alternatives: name -> of each reader without the algebra; the first is compared with the algebra.
        groups: the fact of each prompt: what intervals are over.
        parts: name -> (through the algebra, without it), for each piece of what is read.
        note: what a reader should know.
        held: (reader, when, kind) -> 1 for every wrongly answered prompt in which that is read.
        held_groups: the fact of each of these prompts.
        validation: name -> the share that each of ``alternatives`` reads on validation prompts: the strongest
            there is compared with the algebra; {} leaves them in their order.
    """

    measure: str
    right: Right
    controls: Mapping[str, Right]
    alternatives: Mapping[str, Right]
    groups: Sequence[str]
    parts: Mapping[str, tuple[Counts, Counts]] = field(default_factory=dict)
    note: str = ""
    held: Mapping[tuple[str, str, str], Counts] = field(default_factory=dict)
    held_groups: Sequence[str] = ()
    validation: Mapping[str, float] = field(default_factory=dict)


def judged(name: str, found: Evidence, seed: int) -> Claim:
    """Intervals and paired differences of what was read."""
    groups = list(found.groups)

    def share(right: Counts, groups: Sequence[str] = groups) -> Estimate:
        return bootstrap(right, groups=list(groups), seed=seed, support="share")

    def arms(known: Mapping[str, Right]) -> tuple[Arm, ...]:
        return tuple(
            Arm(
                other,
                share(right),
                paired_difference(found.right, right, groups=groups, seed=seed, support="share"),
            )
            for other, right in known.items()
        )

    parts = tuple(Part(part, share(own), share(plain)) for part, (own, plain) in found.parts.items())
    controls = tuple(sorted(arms(found.controls), key=lambda arm: -arm.estimate.value))
    order = found.validation
    alternatives = tuple(sorted(arms(found.alternatives), key=lambda arm: -order.get(arm.name, 0.0)))
    held = tuple(Held(*where, share(right, found.held_groups)) for where, right in found.held.items())
    return Claim(name, found.measure, share(found.right), controls, alternatives, parts, found.note, held)


@dataclass(frozen=True, eq=False)
class Facts:
    """Prompts that ask a model for facts, by the protocol that suits it, and the states after them.

    Attributes:
        row: the protocol.
        drawn: its prompts; the parts for training, validation and test are those that the model answers
            right, where the protocol asks it first.
        states: ``[prompt d_model]``: of the layer, at the last token.
        seen: the pass that asked; None where the model was not asked.
        note: what it was asked, with "; " behind it; "" where it was not.
    """

    row: Protocol
    drawn: ProtocolItems
    states: Float[torch.Tensor, "prompt d_model"]
    seen: OnePass | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Setting:
    """What all claims are measured on.

    Attributes:
        model: what is read.
        layer: whose ``resid_post``, at the last token.
        sizes: prompts for training, validation and test, at most.
        dimension: of the hypervectors.
        seed: of every draw.
        given: the same architecture with random weights; made where left out.
    """

    model: Model
    layer: int
    sizes: tuple[int, int, int]
    dimension: int
    seed: int
    given: Model | None = None

    @cached_property
    def untrained(self) -> Setting:
        """The same on random weights."""
        from interp.models.loading import untrained_model

        twin = self.given or untrained_model(self.model)
        return replace(self, model=twin)

    def facts(self, sizes: tuple[int, int, int], least: Mapping[str, int] = LEAST) -> Facts:
        """Ask for facts; of a model that is not bundled only those count that it answers right.

        Args:
            sizes: prompts for training, validation and test, at most.
            least: how many answered right each part needs.

        Raises:
            DataError: it answers too few right.
        """
        row = PROTOCOLS[protocol_of(self.model)]
        drawn = row.items(seed=self.seed, sizes=sizes)
        if row.asked == "all":
            return Facts(row, drawn, self.states([item.text for item in drawn.items]))
        drawn, known, seen = ask(self.model, drawn, [self.layer], seed=self.seed, least=least)
        note = f"the model was asked {known.overall.n} prompts first and answers {known.overall.value:.2f} "
        return Facts(row, drawn, seen.states[self.layer], seen, f"{note}of them right: only those are read; ")

    def states(self, texts: Sequence[str]) -> Float[torch.Tensor, "example d_model"]:
        """The states at the last token of texts."""
        site = f"resid_post.{self.layer}"
        found = self.model.capture(list(texts), [site], "last", device="cpu", dtype=torch.float32)
        return found[site]

    def final_states(
        self, states: Float[torch.Tensor, "example d_model"]
    ) -> Float[torch.Tensor, "example d_model"]:
        """The model's own final states that states of the layer are translated to, without labels."""
        from interp.lenses import TranslatorLens

        lens = TranslatorLens.of(self.model, [self.layer], seed=self.seed)
        return lens.final_states(states, self.layer).float().cpu()
