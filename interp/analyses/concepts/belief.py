"""The belief test: does a probe return what the model believes, or what is true?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp.analyses.concepts.trial import Trial
from interp.analyses.concepts.vocabulary import concept_tokens
from interp.models.model import Model
from interp.tasks import analogy, load_world
from interp.tasks.protocols import Item
from interp.tasks.world import World
from probes.hyperdimensional import HyperdimensionalProbe
from probes.statistics import Estimate, bootstrap

__all__ = ["Belief", "of_edited_twin", "of_errors"]

SHOWN_PER_FACT = 6


@dataclass(frozen=True)
class Belief:
    """Hold what a probe says where the model believes something false.

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
        lens: the shares that the logit lens reads as belief and as truth at the same layer: what the state
            itself leans to there; None where it was not read.
        by_relation: relation -> (prompts, share of belief, share of truth).
    """

    where: str
    training: str
    n: int
    belief: Estimate
    truth: Estimate
    unseen: Estimate | None
    model_belief: float
    truth_chance: float
    lens: tuple[float, float] | None
    by_relation: dict[str, tuple[int, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types."""
        named = {
            name: None
            if value is None
            else {"value": value.value, "low": value.interval.low, "high": value.interval.high}
            for name, value in (("belief", self.belief), ("truth", self.truth), ("unseen", self.unseen))
        }
        return {
            "where": self.where,
            "training": self.training,
            "n": self.n,
            **named,
            "model_belief": self.model_belief,
            "truth_chance": self.truth_chance,
            "lens_belief": None if self.lens is None else self.lens[0],
            "lens_truth": None if self.lens is None else self.lens[1],
            "by_relation": {name: list(values) for name, values in self.by_relation.items()},
        }


def of_edited_twin(
    trial: Trial, probe: HyperdimensionalProbe, twin: Model, edited: World, layer: int
) -> Belief | None:
    """Read analogies about edited facts from the edited twin with the probe trained on the unedited model.

    The fact's true object is an answer of the test part, the pair shown is true and unedited.
    """
    true = load_world()
    items = _edited_items(trial, true, edited)
    if not items:
        return None
    texts = [item.text for item, _ in items]
    states = twin.capture(texts, [f"resid_post.{layer}"], "last", device="cpu", dtype=torch.float32)
    names = [found[0] for found in probe.decode(states[f"resid_post.{layer}"], k=1).names]
    tokens = concept_tokens(twin, [belief for _, belief in items])
    said = twin.logits(texts).argmax(dim=1).tolist()
    model_belief = float(np.mean([ids[0] == top for ids, top in zip(tokens, said, strict=True)]))
    return _scored(
        trial,
        items,
        names,
        model_belief,
        "analogies about facts that the edited twin was taught falsely",
        "the unedited model",
        lens=_lens(trial, twin, states[f"resid_post.{layer}"], items),
    )


def _lens(
    trial: Trial, twin: Model, states: torch.Tensor, items: Sequence[tuple[Item, str]]
) -> tuple[float, float]:
    """Read the states through the twin's own final norm and unembedding, among the concepts' first tokens."""
    names = trial.codebook.names
    tokens = torch.tensor([ids[0] for ids in concept_tokens(twin, names)])
    with torch.no_grad():
        logits = twin.unembed(states.to(twin.device, twin.dtype))[:, tokens.to(twin.device)]
    read = [names[at] for at in logits.argmax(dim=1).tolist()]
    belief = float(np.mean([name == said for name, (_, said) in zip(read, items, strict=True)]))
    return belief, float(np.mean([name == item.answer for name, (item, _) in zip(read, items, strict=True)]))


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
    items = [(trial.test[row], said[row]) for row in rows]
    return _scored(
        trial,
        items,
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
    lens: tuple[float, float] | None = None,
) -> Belief:
    facts = [item.fact for item, _ in items]
    belief = np.array([int(name == b) for name, (_, b) in zip(names, items, strict=True)], dtype=np.int64)
    truth = np.array(
        [int(name == item.answer) for name, (item, _) in zip(names, items, strict=True)], dtype=np.int64
    )
    new = np.array([b not in trial.drawn.trained for _, b in items])
    unseen = None
    if new.any():
        kept = [fact for fact, here in zip(facts, new, strict=True) if here]
        unseen = bootstrap(belief[new], groups=kept, seed=trial.seed)
    relations = np.array([item.relation for item, _ in items])
    by_relation = {
        str(name): (int(here.sum()), float(belief[here].mean()), float(truth[here].mean()))
        for name in np.unique(relations)
        for here in [relations == name]
    }
    return Belief(
        where=where,
        training=training,
        n=len(items),
        belief=bootstrap(belief, groups=facts, seed=trial.seed),
        truth=bootstrap(truth, groups=facts, seed=trial.seed),
        unseen=unseen,
        model_belief=model_belief,
        truth_chance=_chance(items, names),
        lens=lens,
        by_relation=by_relation,
    )


def _chance(items: Sequence[tuple[Item, str]], names: Sequence[str]) -> float:
    """Give how often a reading equals the truth of *another* prompt of its relation."""
    hits: list[float] = []
    for (item, _), name in zip(items, names, strict=True):
        others = [
            other.answer for other, _ in items if other.relation == item.relation and other.fact != item.fact
        ]
        if others:
            hits.append(sum(name == answer for answer in others) / len(others))
    return float(np.mean(hits)) if hits else 0.0
