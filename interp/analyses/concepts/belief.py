"""The belief test: does a probe return what the model believes, or what is true?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from interp.analyses.audit.cases import Case, edited_cases, hits, luck
from interp.analyses.concepts.trial import Trial, by_lens, concept_tokens
from interp.errors import counted
from interp.models.answers import score
from interp.models.model import Model
from interp.results import Table
from interp.tasks import load_world
from interp.tasks.world import World
from probes.hyperdimensional import HyperdimensionalProbe
from probes.statistics import Estimate, bootstrap

__all__ = ["Belief", "of_edited_twin", "of_errors"]


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
            f"{counted(self.n, 'prompt')}: {self.where}; the probe was trained on {self.training}. The "
            "model itself "
            f"says the belief in {self.model_belief:.3f} of them."
        )
        return Table(name, "Belief or truth?", ("read as", "share", "low", "high"), rows, note)


def of_edited_twin(
    trial: Trial, probe: HyperdimensionalProbe, twin: Model, edited: World, layer: int
) -> Belief | None:
    """Read analogies about edited facts from the edited model with the probe trained on the unedited one.

    The fact's true object is an answer of the test part, the pair shown is true and unedited. The cases are
    those of ``interp.audit.reader``, which adds arms and a verdict.
    """
    cases = edited_cases(trial.drawn, load_world(), edited, seed=trial.seed)
    if not cases:
        return None
    texts, site = [case.text for case in cases], f"resid_post.{layer}"
    states = twin.capture(texts, site, "last", device="cpu", dtype=torch.float32)[site]
    said = score(twin, texts, concept_tokens(twin, [case.belief for case in cases])).likeliest
    return _scored(
        trial,
        cases,
        [found[0] for found in probe.decode(states, k=1).names],
        float(said.double().mean()),
        "analogies about facts that the edited model was taught wrongly",
        "the unedited model",
        lens=by_lens(twin, states, trial.codebook.names),
    )


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
        [Case.of(trial.test[row], said[row]) for row in rows],
        [names[row] for row in rows],
        1.0,
        "test prompts that the model itself answers wrongly",
        "this model, with the world's answers",
    )


def _scored(
    trial: Trial,
    cases: Sequence[Case],
    names: Sequence[str],
    model_belief: float,
    where: str,
    training: str,
    *,
    lens: Sequence[str] | None = None,
) -> Belief:
    facts, relations = [case.fact for case in cases], [case.relation for case in cases]
    beliefs, truths = [(case.belief,) for case in cases], [(case.truth,) for case in cases]
    belief, truth = hits(names, beliefs), hits(names, truths)
    new = np.array([case.belief not in trial.drawn.trained for case in cases])
    unseen = None
    if new.any():
        kept = [fact for fact, here in zip(facts, new, strict=True) if here]
        unseen = bootstrap(belief[new], groups=kept, seed=trial.seed)
    by_luck = luck(names, truths, facts, relations).reading
    return Belief(
        where=where,
        training=training,
        n=len(cases),
        belief=bootstrap(belief, groups=facts, seed=trial.seed),
        truth=bootstrap(truth, groups=facts, seed=trial.seed),
        unseen=unseen,
        model_belief=model_belief,
        truth_chance=0.0 if np.isnan(by_luck).all() else float(np.nanmean(by_luck)),
        lens=None if lens is None else _shares(hits(lens, beliefs), hits(lens, truths)),
        by_relation={
            str(name): _shares(belief[np.array(relations) == name], truth[np.array(relations) == name])
            for name in np.unique(relations)
        },
    )


def _shares(belief: Int[np.ndarray, " item"], truth: Int[np.ndarray, " item"]) -> Shares:
    return Shares(len(belief), float(belief.mean()), float(truth.mean()))
