"""Causal tracing: what brings back the answer to a prompt whose subject was drowned in noise.

The corrupt run of a pair is its clean prompt with Gaussian noise added to the embeddings of the subject's
tokens (Meng et al. 2022, 2202.05262, section 2), several times; effects are means over the draws. The same
draws stand behind every mediator. Source of the other prompt: only where it differs, which names the subject.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, counted
from interp.mediation.doubts import doubts
from interp.mediation.effects import Effects
from interp.mediation.experiment import Estimates, Forecast, Replaced, Sets, by_site
from interp.mediation.mediators import Mediator
from interp.mediation.replacements import Replacement, replacement_of
from interp.mediation.site_experiment import SiteExperiment
from interp.models.interventions import Intervention
from interp.models.loading import untrained_model
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["NoisedExperiment", "TokenNoise"]

DRAWS = 10
"""Draws of the noise for each pair, as in ROME."""
EMBED = Site("embed")
N = TypeVar("N", bound="NoisedExperiment")


@dataclass(frozen=True)
class TokenNoise:
    """Which tokens of each prompt get noise, how much, and by which draws.

    Attributes:
        tokens: per pair the positions.
        size: standard deviation of what is added to each entry of an embedding.
        numbers: per pair what its draws are made from, so that a pair keeps them among other pairs.
        seed: of all draws.
    """

    tokens: tuple[tuple[int, ...], ...]
    size: float
    numbers: tuple[int, ...]
    seed: int

    @classmethod
    def of(cls, model: Model, pairs: PairSet, replacement: Replacement, seed: int) -> TokenNoise:
        """Find the tokens, and the spread of the embeddings at the subjects' (over tokens and entries).

        Raises:
            ConfigError: a pair whose prompts are the same, or without tokens beside the subject where others
                are asked for.
        """
        subject = _subjects(pairs)
        read = model.capture(pairs.clean, [EMBED], "all")[str(EMBED)]
        there = torch.cat([read[at, list(places)] for at, places in enumerate(subject)])
        size = (replacement.amount or 0.0) * float(there.double().std(correction=0))
        tokens = subject if replacement.noised == "subject" else _others(model, pairs, subject, seed)
        return cls(tokens, size, tuple(range(len(pairs))), seed)

    def rows(self, columns: Sequence[int]) -> TokenNoise:
        """The noise of some of the pairs."""
        tokens, numbers = (tuple(one[at] for at in columns) for one in (self.tokens, self.numbers))
        return replace(self, tokens=tokens, numbers=numbers)

    def added(self, embeddings: Float[Tensor, "pair pos d_model"], draw: int) -> Tensor:
        """Embeddings with the noise of one draw at the tokens."""
        found = embeddings.clone()
        for at, (places, number) in enumerate(zip(self.tokens, self.numbers, strict=True)):
            own = random.Random(f"noise:{self.seed}:{number}:{draw}").getrandbits(63)
            drawn = torch.randn((len(places), found.shape[-1]), generator=torch.Generator().manual_seed(own))
            found[at, list(places)] += self.size * drawn.to(found)
        return found


def _subjects(pairs: PairSet) -> tuple[tuple[int, ...], ...]:
    """Per pair the tokens of the clean prompt that differ from the corrupt one."""
    both = zip(pairs.clean.token_ids, pairs.corrupt.token_ids, strict=True)
    found = tuple(
        tuple(at for at, (one, two) in enumerate(zip(clean, corrupt, strict=True)) if one != two)
        for clean, corrupt in both
    )
    if () in found:
        raise ConfigError(
            f"pair {found.index(())}: clean and corrupt prompt are the same, and the tokens that differ are "
            "the subject that gets noise. Give pairs that differ in their subject."
        )
    return found


def _others(
    model: Model, pairs: PairSet, subject: Sequence[Sequence[int]], seed: int
) -> tuple[tuple[int, ...], ...]:
    """Per pair as many random tokens that are neither the subject's nor special, or all where fewer are.

    The last token, where the answer is read, is taken only where no other is left: noise there is no longer
    noise on what the model is told.
    """
    special = set() if model.tokenizer is None else set(model.tokenizer.all_special_ids)
    found: list[tuple[int, ...]] = []
    for at, (ids, own) in enumerate(zip(pairs.clean.token_ids, subject, strict=True)):
        free = [place for place, token in enumerate(ids) if place not in own and token not in special]
        free = [place for place in free if place < len(ids) - 1] or free
        if not free:
            raise ConfigError(
                f"replacement 'other-noise': pair {at} has no tokens but those of its subject, so that no "
                "others can get noise. Give longer prompts, or use subject-noise."
            )
        found.append(
            tuple(sorted(random.Random(f"other:{seed}:{at}").sample(free, min(len(own), len(free)))))
        )
    return tuple(found)


@dataclass(frozen=True, eq=False)
class NoisedExperiment(SiteExperiment):
    """An experiment whose corrupt runs are the clean prompts with noise on the embeddings of some tokens.

    Attributes:
        noise: on which tokens.
    """

    noise: TokenNoise = field(kw_only=True)

    @property
    def asks(self) -> tuple[str, ...]:
        """What a search has to take: those by gradients would need one at each noisy run."""
        return (*super().asks, "noised tokens")

    @property
    def draws(self) -> int:
        """How often each cell is run."""
        return DRAWS

    @property
    def since(self) -> tuple[int, ...]:
        """The first token that gets noise."""
        return tuple(places[0] for places in self.noise.tokens)

    def part(self: N, rows: Sequence[int], columns: Sequence[int]) -> N:
        """The same with some mediators and some pairs, which keep their draws."""
        return replace(super().part(rows, columns), noise=self.noise.rows(columns))

    def untrained(self) -> NoisedExperiment | None:
        """The same on random weights: the same draws, as many times the spread of that model's embeddings.

        None where the noise is a control itself, and of a model that is untrained.
        """
        if self.replacement.noised != "subject" or self.model.weights == "random":
            return None
        twin = untrained_model(self.model)
        return replace(self, model=twin, noise=TokenNoise.of(twin, self.pairs, self.replacement, self.seed))

    def forecast(self, sets: Sets | None = None) -> Forecast:
        """What replacing sets of mediators costs, with noise on other tokens and the twin beside."""
        own = super().forecast(sets)
        if self.replacement.noised != "subject":
            return own
        control, models = self._on_others(), 1 if self.model.weights == "random" else 2
        beside = [] if isinstance(control, str) else [control._rows((), "denoising")]
        plans = [engine.plan(rows) for engine, rows, _ in beside]
        return replace(
            own,
            forwards=models * (own.forwards + self.draws * sum(plan.forwards for plan in plans)),
            walks=models * (own.walks + self.draws * sum(len(plan.walks) for plan in plans)),
            naive=models * own.naive,
            skipped=models * own.skipped,
        )

    def base(self, direction: str) -> tuple[Tokens, Tokens]:
        """The clean prompts, whichever way."""
        return self.pairs.clean, self.pairs.clean

    def always(self, direction: str, example: int) -> tuple[Mediator, ...]:
        """The noise itself, where values are put into noisy runs."""
        if direction != "denoising":
            return ()
        return tuple(Mediator(EMBED, place) for place in self.noise.tokens[example])

    def drawn(self, direction: str) -> Iterator[dict[Site, Tensor]]:
        """What is put in by each draw: clean values and the noise, or the values of a noisy run."""
        clean = by_site(
            self.model.capture(self.pairs.clean, [EMBED, *self.carriers], "all"), [EMBED, *self.carriers]
        )
        for draw in range(self.draws):
            noised = self.noise.added(clean[EMBED], draw)
            if direction == "denoising":
                yield {**clean, EMBED: noised}
                continue
            run = self.model.run(
                self.pairs.clean,
                interventions=[Intervention(EMBED, noised)],
                capture=[str(site) for site in self.carriers],
                positions="all",
                logits="none",
            )
            assert run.activations is not None
            yield by_site(run.activations, self.carriers)

    def sources(self, direction: str, *, read: Any = None) -> dict[Site, Tensor]:
        """What the first draw puts in."""
        found = next(self.drawn(direction))
        return {site: found[site] for site in self.carriers}

    def replaced(
        self, sets: Sequence[Sequence[Mediator]], direction: str, *, progress: bool = False
    ) -> Replaced:
        """Replace each set of mediators together, in every pair and draw: means over draws."""
        found = super().replaced(sets, direction, progress=progress)
        if direction == "denoising":
            vars(self).setdefault("corrupt", found.plain)
        return found

    @cached_property
    def corrupt(self) -> Float[np.ndarray, " pair"]:
        """The metric of the noisy runs, a mean over draws."""
        return self.replaced((), "denoising").plain

    def doubts(self) -> tuple[str, ...]:
        """Where the model does not do the task of the pairs."""
        return doubts(self._clean_logits.float(), None, self.targets)

    def notes(self) -> tuple[str, ...]:
        """Which tokens got how much noise."""
        sizes = sorted(map(len, self.noise.tokens))
        which = (
            "that differ from the corrupt prompt"
            if self.replacement.noised == "subject"
            else "drawn at random"
        )
        count = counted(sizes[-1], "token") if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]} tokens"
        said = (
            f"corrupt runs are the clean prompts with noise of {self.noise.size:.3g} (standard deviation) on "
            f"the embeddings of {count} {which}; means over {self.draws} draws"
        )
        return (*super().notes(), said)

    def effects(self, found: Estimates, *, search: str, exact: bool) -> Effects:
        """The numbers of a search as a result; noise on other tokens stands beside that on the subject."""
        result = super().effects(found, search=search, exact=exact)
        if self.replacement.noised != "subject":
            return result
        others = self._on_others()
        if isinstance(others, str):
            return replace(result, warnings=(*result.warnings, f"no control: {others}"))
        control = others.replaced((), "denoising")
        beside = {**control.cost, "values": control.plain.tolist()}
        taken = (result.total.mean(), (result.clean - control.plain).mean())
        said = (
            f"the same noise on {self._which(others)} takes {taken[1]:.3g} {result.unit}, on the "
            f"subject {taken[0]:.3g}; --replacement {others.replacement.name} gives every effect under it"
        )
        cost = {**result.cost, "noise on other tokens": beside}
        return replace(result, cost=cost, warnings=(*result.warnings, said))

    def _which(self, others: NoisedExperiment) -> str:
        """The control's tokens in words; fewer than the subject's where prompts have no more."""
        own, beside = (sum(map(len, one.noise.tokens)) for one in (self, others))
        if own == beside:
            return "as many random other tokens"
        return f"fewer other tokens ({beside} for the subjects' {own} over all pairs: there are no more)"

    def _on_others(self) -> NoisedExperiment | str:
        """The same with the noise on as many other tokens, or why there are none."""
        other = replacement_of(f"other-noise:{self.replacement.amount!r}")
        try:
            return replace(
                self, replacement=other, noise=TokenNoise.of(self.model, self.pairs, other, self.seed)
            )
        except ConfigError as error:
            return str(error)
