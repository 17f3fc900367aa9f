"""The belief test: does a probe return what the model believes, or what is true?"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from interp.analyses.concepts.trial import Trial, by_lens, concept_tokens
from interp.models.answers import score
from interp.models.model import Model
from interp.results import Table
from interp.tasks import analogy, load_world
from interp.tasks.protocols import Item
from interp.tasks.world import World
from probes.hyperdimensional import HyperdimensionalProbe
from probes.statistics import Estimate, bootstrap

__all__ = ["Belief", "of_edited_twin", "of_errors"]

SHOWN_PER_FACT = 6


@dataclass(frozen=True)
class Shares:
    """Of some prompts, the shares read as the model's belief and as the truth."""

    n: int
    belief: float
    truth: float


@dataclass(frozen=True)
class Belief:
    """What a probe says where the model believes something false.

    Attributes:
        where: on which prompts, in words.
        training: what the probe was trained on, in words.
        n: number of prompts.
        belief: share read as the model's belief.
        truth: share read as the world's truth.
        unseen: share read as the belief where the belief was no answer in training; None without such
            prompts.
        model_belief: share of the prompts that the model itself answers with the belief.
        truth_chance: the truth's share among all readings of other prompts of the relation: what reading the
            truth by luck would score.
        lens: the same shares by the logit lens at the same layer: what the state itself leans to there; None
            where it was not read.
        by_relation: relation -> the shares of its prompts.
    """

    where: str
    training: str
    n: int
    belief: Estimate
    truth: Estimate
    unseen: Estimate | None
    model_belief: float
    truth_chance: float
    lens: Shares | None
    by_relation: Mapping[str, Shares]

    def table(self, name: str) -> Table:
        """What is read as belief and as truth, beside luck and the logit lens."""
        found = {"the model's belief": self.belief, "the world's truth": self.truth}
        if self.unseen is not None:
            found["the belief, where it was never trained"] = self.unseen
        rows: list[tuple[str, float, float | None, float | None]] = [
            (what, one.value, one.interval.low, one.interval.high) for what, one in found.items()
        ]
        rows.append(("the truth, by luck", self.truth_chance, None, None))
        if self.lens is not None:
            rows.append(("the belief, by the logit lens", self.lens.belief, None, None))
            rows.append(("the truth, by the logit lens", self.lens.truth, None, None))
        note = (
            f"{self.n:,} prompts: {self.where}; the probe was trained on {self.training}. The model itself "
            f"says the belief in {self.model_belief:.3f} of them."
        )
        return Table(name, "Belief or truth?", ("read as", "share", "low", "high"), rows, note)


def of_edited_twin(
    trial: Trial, probe: HyperdimensionalProbe, twin: Model, edited: World, layer: int
) -> Belief | None:
    """Read analogies about edited facts from the edited model with the probe trained on the unedited one.

    The fact's true object is an answer of the test part, the pair shown is true and unedited.
    """
    true = load_world()
    items = _edited_items(trial, true, edited)
    if not items:
        return None
    texts, site = [item.text for item, _ in items], f"resid_post.{layer}"
    states = twin.capture(texts, site, "last", device="cpu", dtype=torch.float32)[site]
    said = score(twin, texts, concept_tokens(twin, [belief for _, belief in items])).likeliest
    return _scored(
        trial,
        items,
        [found[0] for found in probe.decode(states, k=1).names],
        float(said.double().mean()),
        "analogies about facts that the edited model was taught wrongly",
        "the unedited model",
        lens=by_lens(twin, states, trial.codebook.names),
    )


def _edited_items(trial: Trial, true: World, edited: World) -> list[tuple[Item, str]]:
    asked = {item.answer for item in trial.test}
    rng = random.Random(f"belief:{trial.seed}")
    found: list[tuple[Item, str]] = []
    for fact in true.all_facts:
        belief = edited.objects[fact.relation, fact.subject]
        if belief == fact.object or fact.object not in asked:
            continue
        pool = [
            shown
            for shown in true.facts[fact.relation]
            if edited.objects[shown.relation, shown.subject] == shown.object
            and analogy.clear(true, shown, fact)
            and belief != shown.object
        ]
        for shown in rng.sample(pool, min(SHOWN_PER_FACT, len(pool))):
            example = analogy.example(shown, fact, rng.choice(tuple(analogy.TEMPLATES)))
            item = Item(example.prompt, fact.object, fact.relation, fact.key, "test", subject=fact.subject)
            found.append((item, belief))
    return found


def of_errors(
    trial: Trial, names: Sequence[str], said: Sequence[str], wrong: Sequence[bool]
) -> Belief | None:
    """Compare readings with the model's own answer, on the test prompts that the model gets wrong.

    Args:
        trial: the analysis.
        names: what the probe read from each test prompt.
        said: the concept that the model itself prefers after each.
        wrong: whether the model's own next token is not the expected one.
    """
    rows = [row for row, missed in enumerate(wrong) if missed and said[row] != trial.test[row].answer]
    if not rows:
        return None
    return _scored(
        trial,
        [(trial.test[row], said[row]) for row in rows],
        [names[row] for row in rows],
        1.0,
        "test prompts that the model itself answers wrongly",
        "this model, with the world's answers",
    )


def _scored(
    trial: Trial,
    items: Sequence[tuple[Item, str]],
    names: Sequence[str],
    model_belief: float,
    where: str,
    training: str,
    *,
    lens: Sequence[str] | None = None,
) -> Belief:
    facts = [item.fact for item, _ in items]
    belief, truth = _hits(items, names)
    new = np.array([said not in trial.drawn.trained for _, said in items])
    unseen = None
    if new.any():
        kept = [fact for fact, here in zip(facts, new, strict=True) if here]
        unseen = bootstrap(belief[new], groups=kept, seed=trial.seed)
    relations = np.array([item.relation for item, _ in items])
    return Belief(
        where=where,
        training=training,
        n=len(items),
        belief=bootstrap(belief, groups=facts, seed=trial.seed),
        truth=bootstrap(truth, groups=facts, seed=trial.seed),
        unseen=unseen,
        model_belief=model_belief,
        truth_chance=_chance(items, names),
        lens=None if lens is None else _shares(*_hits(items, lens)),
        by_relation={
            str(name): _shares(belief[relations == name], truth[relations == name])
            for name in np.unique(relations)
        },
    )


def _hits(
    items: Sequence[tuple[Item, str]], names: Sequence[str]
) -> tuple[Int[np.ndarray, " item"], Int[np.ndarray, " item"]]:
    """1 for each prompt that is read as the belief, and for each that is read as the truth."""
    pairs = list(zip(items, names, strict=True))
    belief = np.array([int(name == said) for (_, said), name in pairs], dtype=np.int64)
    return belief, np.array([int(name == item.answer) for (item, _), name in pairs], dtype=np.int64)


def _shares(belief: Int[np.ndarray, " item"], truth: Int[np.ndarray, " item"]) -> Shares:
    return Shares(len(belief), float(belief.mean()), float(truth.mean()))


def _chance(items: Sequence[tuple[Item, str]], names: Sequence[str]) -> float:
    """How often a reading equals the truth of *another* prompt of its relation."""
    hits: list[float] = []
    for (item, _), name in zip(items, names, strict=True):
        others = [
            other.answer for other, _ in items if other.relation == item.relation and other.fact != item.fact
        ]
        if others:
            hits.append(sum(name == answer for answer in others) / len(others))
    return float(np.mean(hits)) if hits else 0.0
