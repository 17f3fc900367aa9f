"""Patch a model as the reference was patched, and compare effects, rankings and circuits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.analyses.agreement.choosing import Drawn, drawn
from interp.analyses.agreement.circuit import Circuit, circuit_of, judged
from interp.analyses.agreement.rankings import AGAIN, OVERLAP, Between, Rankings
from interp.analyses.provenance import about, check_same_tokens, earlier
from interp.errors import ConfigError, DataError
from interp.mediation import Effects
from interp.mediation.searches import effects
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Table

__all__ = ["patch_agreement"]

NODES = ("head.*", "mlp_out.*")


@dataclass(frozen=True)
class _Asked:
    """Hold what both models are asked, which must be the same."""

    pairs: str | tuple[tuple[str, str], ...] | None
    n: int
    seed: int
    mediators: tuple[str, ...]
    search: str
    k: int

    def run(self, model: Model, pairs: PairSet) -> Effects:
        """Search, with the replacement and both directions that ``interp.patch`` has by default."""
        found = effects(model, pairs, list(self.mediators), search=self.search, seed=self.seed)
        if not 1 <= self.k < len(found.mediators):
            raise ConfigError(
                f"k={self.k} asked, of {len(found.mediators)} mediators: a top list has 1 or more, not all."
            )
        return found


@dataclass(frozen=True, eq=False)
class _Base:
    """Hold what a later model is measured against.

    Attributes:
        asked: of the reference.
        given: the pairs.
        effects: of every mediator on the ranking pairs.
        circuit: found in the reference.
        between: how much its own ranking changes between draws of pairs.
        tokenizer: hash of the tokenizer.
    """

    asked: _Asked
    given: Drawn
    effects: Effects
    circuit: Circuit
    between: tuple[Between, ...]
    tokenizer: str

    @classmethod
    def of(cls, asked: _Asked, model: Model, pairs: PairSet | str | None) -> _Base:
        """Measure the reference."""
        given = drawn(model, pairs, asked.n, asked.seed)
        effects = asked.run(model, given.parts.ranking)
        held = given.parts.held_out
        other = None if held is None else asked.run(model, held)
        between = Rankings.between_draws(effects, other, asked.k, asked.seed)
        circuit = circuit_of(model, given.parts, effects, asked.seed)
        return cls(asked, given, effects, circuit, between, model.tokenizer_fingerprint)

    def effects_of(self, model: Model, asked: _Asked) -> Effects:
        """Measure another model likewise.

        Raises:
            ConfigError: it is asked something else than the reference was.
            DataError: it has another tokenizer, or other mediators.
        """
        if asked != self.asked:
            raise ConfigError(
                f"patch: the reference was asked {self.asked}, this model {asked}; ask both the same."
            )
        if model.tokenizer_fingerprint != self.tokenizer:
            for read in (self.given.parts.ranking.clean, self.given.parts.ranking.corrupt):
                check_same_tokens(model.tokenize(list(read.texts)).token_ids, read.token_ids, "patch")
        found = asked.run(model, self.given.parts.ranking)
        if found.mediators != self.effects.mediators:
            raise DataError(
                f"patch: the reference has {len(self.effects.mediators)} mediators and this model "
                f"{len(found.mediators)}, or others. Compare models of one architecture."
            )
        return found


def patch_agreement(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 32,
    seed: int = 0,
    pairs: PairSet | str | None = None,
    mediators: str | Sequence[str] = NODES,
    search: str = "exhaustive",
    k: int = 10,
) -> FindingsResult:
    """Measure the effects of heads and MLPs, how they rank, and the reference's circuit inside the model.

    Findings, in this order: the total effect; faithfulness of the reference's circuit, on pairs of other
    groups; rank correlation and top-k overlap with the reference; overlap of circuits of the same size; then
    the effects of the reference's k largest mediators. What compares two models is 1 where they are the same.
    Further tables: ``effects`` (all beside the reference's), ``draws`` (how much the reference's own ranking
    changes with the pairs drawn) and ``circuits``. Without a total effect that is told
    from zero the reference has no circuit, and the findings about it are left out.

    Args:
        model: what is patched.
        reference: what this function returned for the reference model; the model itself where left out.
        n: how many pairs of a task the ranking has; as many others are drawn for the circuit.
        seed: of the pairs and of the random circuits.
        pairs: a task of ``interp.tasks.PAIR_TASKS``, or your own pairs; where left out, the first task of
            which half of the pairs line up for the tokenizer. Pairs that a model gets wrong are kept.
        mediators: names and globs; see ``interp.mediation.MEDIATORS``.
        search: a key of ``SEARCHES``: ``exhaustive`` is exact and needs no gradients, ``attribution`` is
            quicker on large models.
        k: size of the top list.

    Raises:
        ConfigError: an unknown search or task, a k that is no part of the mediators, gradients that a
            quantized model does not have, or a reference that was asked something else.
        DataError: no pairs line up, or models with other tokenizers or mediators.
    """
    model = as_model(model)
    texts = tuple((p.clean, p.corrupt) for p in pairs) if isinstance(pairs, PairSet) else pairs
    named = (mediators,) if isinstance(mediators, str) else tuple(mediators)
    asked = _Asked(texts, n, seed, named, search, k)
    base: _Base = _Base.of(asked, model, pairs) if reference is None else earlier(reference, "patch", "base")
    own = base.effects if reference is None else base.effects_of(model, asked)
    rankings = Rankings(own, base.effects, k)
    circuit, circuits = judged(model, base.given.held, base.circuit, rankings, seed)
    left_out = f"no circuit was compared: {base.circuit.note}" if base.circuit.note else ""
    given = base.given.facts() | {"search": own.search, "metric": own.metric, "replacement": own.replacement}
    tops = {
        "top": [str(one) for one in own.top(k)],
        "reference_top": [str(one) for one in base.effects.top(k)],
    }
    return FindingsResult(
        analysis="patch",
        about=about(model, given | tops),
        asked=f"Do the same parts of {model.name} do the same thing?",
        how=(
            f"{len(own.mediators):,} mediators were replaced ({own.search}) in "
            f"{len(base.given.parts.ranking):,} pairs ({base.given.task or 'your own'}); the reference's "
            f"circuit was run on {len(base.given.held):,} pairs.",
        ),
        found=_found(rankings, circuit),
        more=(*circuits, _draws(base, rankings), rankings.beside(), *own.tables()[1:], base.given.example()),
        state={"base": base} if reference is None else {},
        seed=seed,
        warnings=tuple(dict.fromkeys(filter(None, (*base.given.notes, left_out, *own.warnings)))),
    )


def _found(rankings: Rankings, circuit: tuple[Finding, ...]) -> tuple[Finding, ...]:
    total = Finding(
        "total effect",
        rankings.own.total,
        rankings.own.groups,
        unit=rankings.own.unit,
        about="the metric of the clean prompt less that of the corrupt one",
    )
    overlaps = [one for one in circuit if one.name.startswith("circuit overlap")]
    kept = [one for one in circuit if one not in overlaps]
    return (total, *kept, *rankings.headline(), *overlaps, *rankings.further(), *rankings.effects())


def _draws(base: _Base, rankings: Rankings) -> Table:
    """How the reference's ranking changes with the pairs, and whether this model's differs by less."""
    k, now = rankings.k, rankings.headline()[1].value
    rows = [one.row() for one in base.between]
    rows.append({"pairs": "the same, this model beside the reference", "what": OVERLAP, "value": now})
    again = next((one.value for one in base.between if (one.pairs, one.what) == (AGAIN, OVERLAP)), None)
    said = "All pairs are of one group, so that none can be drawn again."
    if again is not None:
        said = (
            f"The top {k} shares {now:.2f} with the reference's, {'more' if now > again else 'no more'} than "
            f"the reference's own does between draws of pairs ({again:.2f}, the median)."
        )
    return Table.of("draws", "Rankings between draws of pairs", rows, said)
