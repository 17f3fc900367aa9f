"""Patch a model as the reference was patched, and compare effects, rankings and circuits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interp.analyses.agreement.choosing import Drawn, drawn
from interp.analyses.agreement.circuit import Circuit, circuit_of, judged
from interp.analyses.agreement.rankings import Rankings
from interp.analyses.measured import Measured
from interp.analyses.provenance import check_same_tokens, earlier, origin
from interp.errors import ConfigError, DataError
from interp.mediation import SEARCHES, Effects
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.findings import Finding

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
        found = SEARCHES[self.search].run(model, pairs, list(self.mediators), seed=self.seed)
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
    between: dict[str, Any]
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
    reference: Measured | None = None,
    n: int = 32,
    seed: int = 0,
    pairs: PairSet | str | None = None,
    mediators: str | Sequence[str] = NODES,
    search: str = "exhaustive",
    k: int = 10,
) -> Measured:
    """Measure the effects of heads and MLPs, how they rank, and the reference's circuit inside the model.

    Findings, in this order: the total effect; faithfulness of the reference's circuit, on pairs of other
    groups; rank correlation and top-k overlap with the reference; overlap of circuits of the same size; then
    the effects of the reference's k largest mediators. What compares two models is 1 where they are the same.
    ``facts`` gives all effects beside the reference's (``scatter``), how much the reference's own top list
    changes with the pairs drawn (``between_draws``), and the circuits. Without a total effect that is told
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
    if search not in SEARCHES:
        raise ConfigError(f"search {search!r} asked; there are: {', '.join(SEARCHES)}.")
    texts = tuple((p.clean, p.corrupt) for p in pairs) if isinstance(pairs, PairSet) else pairs
    named = (mediators,) if isinstance(mediators, str) else tuple(mediators)
    asked = _Asked(texts, n, seed, named, search, k)
    base: _Base = _Base.of(asked, model, pairs) if reference is None else earlier(reference, "patch", "base")
    own = base.effects if reference is None else base.effects_of(model, asked)
    rankings = Rankings(own, base.effects, k)
    circuit, circuit_facts = judged(model, base.given.held, base.circuit, rankings, seed)
    left_out = f"no circuit was compared: {base.circuit.note}" if base.circuit.note else ""
    return Measured(
        analysis="patch",
        found=_found(rankings, circuit),
        model=origin(model),
        facts=_facts(base, rankings, circuit_facts),
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
    return (total, *circuit[:2], *rankings.headline(), *circuit[2:], *rankings.further(), *rankings.effects())


def _facts(base: _Base, rankings: Rankings, circuit: dict[str, Any]) -> dict[str, Any]:
    own = rankings.own
    return {
        **base.given.facts(),
        "search": own.search,
        "metric": own.metric,
        "replacement": own.replacement,
        "n_mediators": len(own.mediators),
        "top": [str(one) for one in own.top(rankings.k)],
        "reference_top": [str(one) for one in base.effects.top(rankings.k)],
        "estimates": None if own.verified is None else asdict(own.verified),
        "between_draws": {**base.between, **_closer(base, rankings)},
        "circuit": circuit,
        "scatter": rankings.scatter(),
    }


def _closer(base: _Base, rankings: Rankings) -> dict[str, Any]:
    """Say whether this model's top list differs from the reference's by less than draws of pairs do."""
    k, now = rankings.k, rankings.headline()[1].value
    again = base.between.get("groups drawn again")
    if again is None:
        return {"words": "all pairs are of one group, so that none can be drawn again"}
    drawn_again = float(again["top overlap"]["value"])
    found = {True: "more", False: "no more"}[now > drawn_again]
    return {
        "overlap_now": now,
        "words": f"the top {k} shares {now:.2f} with the reference's, {found} than the reference's own does "
        f"between draws of pairs ({drawn_again:.2f}, the median)",
    }
