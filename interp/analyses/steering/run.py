"""Evaluate a steering vector: every dose of every arm is scored, with its side effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from interp.analyses.steering.measuring import Change
from interp.analyses.steering.result import (
    OPPOSITE,
    OURS,
    PLAIN,
    PROMPT,
    RANDOM,
    Measured,
    Sample,
    SteeringResult,
    largest,
)
from interp.analyses.steering.scores import Score
from interp.analyses.steering.side_effects import Bystanders, SideEffects
from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.positions import Positions
from interp.results import About
from interp.steering.fitting import text_of_prompt, under
from interp.steering.vector import Vector, checked_dose, hashed

__all__ = ["BESIDE", "DOSES", "DRAWS", "evaluate", "with_evaluation"]

DOSES = (0.25, 0.5, 1.0, 2.0)
BOUND = 0.1
"""Nats per token; see docs/steering.md for what texts are like there."""
DRAWS = 8
LOOKED_AT, WRITTEN = 3, 24
"""Prompts whose continuations are kept to look at, and their tokens."""


@dataclass(frozen=True, eq=False)
class _Bench:
    """What an arm is measured with."""

    model: Model
    vector: Vector
    score: Score
    bystanders: Bystanders
    positions: Positions
    instruction: str
    doses: tuple[float, ...]
    draws: int
    seed: int

    def measured(self, dose: float, change: Change = (), instruction: str = "") -> Measured:
        """Score and side effects of one change."""
        score = self.score.values(self.model, change, instruction=instruction)
        if not np.isfinite(score).all():
            bad = counted(int((~np.isfinite(score)).sum()), "prompt")
            raise DataError(f"{self.score.words}: not a number of {bad} at dose {dose:g}; use smaller doses.")
        return Measured(dose, score, None, self.bystanders.under(change, instruction))

    def added(self, vector: Vector, dose: float) -> Measured:
        """A vector at a dose."""
        return self.measured(dose, vector.interventions(dose, positions=self.positions))


def _opposite(bench: _Bench) -> tuple[Measured, ...]:
    return tuple(bench.added(bench.vector.opposite(), dose) for dose in bench.doses)


def _random(bench: _Bench) -> tuple[Measured, ...]:
    """The same directions at every dose, so that the curve is one of directions."""
    others = [bench.vector.random(bench.seed + number) for number in range(bench.draws)]
    found = []
    for dose in bench.doses:
        each = [bench.added(one, dose) for one in others]
        draws = np.stack([one.score for one in each])
        side = SideEffects.mean([one.side for one in each])
        found.append(Measured(dose, draws.mean(axis=0), draws, side))
    return tuple(found)


def _prompt(bench: _Bench) -> tuple[Measured, ...]:
    return (bench.measured(0.0, (), bench.instruction),)


BESIDE: Mapping[str, Callable[[_Bench], tuple[Measured, ...]]] = {
    RANDOM: _random,
    OPPOSITE: _opposite,
    PROMPT: _prompt,
}
"""What a vector is measured beside: one function each."""


def evaluate(
    model: ModelLike,
    vector: Vector,
    score: Score,
    *,
    doses: Sequence[int | float] = DOSES,
    beside: Sequence[str] = tuple(BESIDE),
    instruction: str = "",
    neutral: Sequence[str] | None = None,
    task: Sequence[tuple[str, str]] | None = None,
    bound: float = BOUND,
    draws: int = DRAWS,
    positions: Positions = "all",
    seed: int = 0,
    progress: bool = False,
) -> SteeringResult:
    """Measure what a vector does to a score, beside what else could be done, and at what price.

    Args:
        model: what is steered.
        vector: fitted on other prompts than those of the score.
        score: what is to move, with its prompts; a row of ``SCORES``.
        doses: positive; the opposite sign is an arm of its own.
        beside: any of ``"random"`` (equal-norm directions), ``"opposite"`` and ``"prompt"``.
        instruction: what the arm ``prompt`` puts before each prompt; example prompts that the vector was
            fitted on where left out.
        neutral: texts for divergence and perplexity; drawn from the model itself where left out.
        task: prompts with answers, for the accuracy kept aside; bundled facts that the model knows where
            left out.
        bound: the most that the mean divergence on neutral text may be, in nats per token.
        draws: random directions.
        positions: where the vector is added.
        seed: of draws.
        progress: show a progress bar.

    Raises:
        ConfigError: doses that are not positive and different, an unknown arm, or too few draws.
        DataError: prompts of the score that the vector was fitted on, or questions that it was fitted on with
            another answer; too few different ones.
        ModelError: the vector does not fit the model.
    """
    model = as_model(model)
    levels = _levels(doses)
    _check_arms(beside, draws, bound)
    warnings = vector.check(model)
    score.check(model, vector)
    _disjoint(vector, score)
    told = instruction or "\n".join(vector.origin.examples)
    if PROMPT in beside and not told:
        raise ConfigError(
            f"vector {vector.name!r} holds no example to prompt with; give instruction='...', or leave "
            "'prompt' out of beside."
        )
    bystanders = Bystanders.of(model, neutral, task, seed)
    bench = _Bench(model, vector, score, bystanders, positions, told, levels, draws, seed)
    arms: dict[str, tuple[Measured, ...]] = {PLAIN: (bench.measured(0.0),)}
    arms[OURS] = tuple(bench.added(vector, dose) for dose in levels)
    for name in tqdm(tuple(beside), desc="beside", disable=not progress):
        arms[name] = BESIDE[name](bench)
    choosing = bystanders.choosing
    chosen = largest(levels, [float(one.side.kl[choosing].mean()) for one in arms[OURS]], bound)
    dose = levels[0] if chosen is None else chosen
    data = {"name": score.kind, "n": len(score.items)}
    return SteeringResult(
        about=About(model.described, data),
        seed=seed,
        vector=vector.name,
        sites=vector.sites,
        method=vector.origin.method,
        unit=vector.origin.unit,
        lengths=dict(vector.units),
        score=score.words,
        score_unit=score.unit,
        share=score.share,
        items=tuple(map(text_of_prompt, score.items)),
        instruction=told if PROMPT in beside else "",
        bystanders=bystanders.words,
        choosing=choosing,
        bound=bound,
        chosen=chosen,
        arms=arms,
        samples=_samples(bench, dose, beside),
        separation={site: dict(one) for site, one in vector.origin.separation.items()},
        warnings=(*warnings, *bystanders.warnings),
    )


def with_evaluation(vector: Vector, result: SteeringResult) -> Vector:
    """The same vector with what its evaluation found on its card."""
    found = {
        "score": result.score,
        "verdict": result.verdict(),
        "numbers": {one.name: asdict(one) for one in result.numbers()},
        "prompts": len(result.items),
        "bound": result.bound,
        "seed": result.seed,
    }
    return replace(vector, origin=replace(vector.origin, evaluated=found))


def _levels(doses: Sequence[int | float]) -> tuple[float, ...]:
    levels = tuple(sorted(map(checked_dose, doses)))
    if not levels or levels[0] <= 0 or len(set(levels)) < len(levels):
        raise ConfigError(
            f"doses {tuple(doses)} asked; give different positive ones, such as {DOSES}. The opposite sign "
            "is an arm of its own: beside=('opposite', ...)."
        )
    return levels


def _check_arms(beside: Sequence[str], draws: int, bound: float) -> None:
    if isinstance(beside, str) or (unknown := [name for name in beside if name not in BESIDE]):
        found = beside if isinstance(beside, str) else unknown[0]
        raise ConfigError(f"beside {found!r} asked; give any of: {', '.join(BESIDE)}, as a list.")
    if draws < 3:
        raise ConfigError(f"draws={draws} asked; 3 random directions are the fewest with an interval.")
    if not (np.isfinite(bound) and bound > 0):
        raise ConfigError(f"bound={bound} asked; give nats per token above 0, such as {BOUND}.")


def _disjoint(vector: Vector, score: Score) -> None:
    fitted = frozenset(vector.origin.prompts)
    again = [one for one in score.items if hashed(one) in fitted]
    if again:
        raise DataError(
            f"{len(again)} of {len(score.items)} prompts of the score were fitted on, first "
            f"{text_of_prompt(again[0])[:60]!r}; what moves there may not move elsewhere. Give other prompts."
        )


def _samples(bench: _Bench, dose: float, beside: Sequence[str]) -> tuple[Sample, ...]:
    """Greedy continuations of some prompts, with and without."""
    prompts: list[Any] = list(bench.score.openings[:LOOKED_AT])
    if bench.model.tokenizer is None or not prompts:
        return ()
    vectors = {OURS: bench.vector, OPPOSITE: bench.vector.opposite(), RANDOM: bench.vector.random(bench.seed)}
    changes: dict[str, Change] = {PLAIN: ()}
    for name, one in vectors.items():
        if name == OURS or name in beside:
            changes[name] = one.interventions(dose, positions=bench.positions)
    found = []
    for name, change in changes.items():
        found += _written(bench, prompts, prompts, name, dose if change else 0.0, change)
    if PROMPT in beside:
        asked = [under(bench.instruction, one) for one in prompts]
        found += _written(bench, prompts, asked, PROMPT, 0.0, ())
    texts = [text_of_prompt(one) for one in prompts]
    return tuple(sorted(found, key=lambda one: texts.index(one.prompt)))


def _written(
    bench: _Bench, prompts: list[Any], asked: list[Any], arm: str, dose: float, change: Change
) -> list[Sample]:
    texts = bench.model.generate(asked, max_new_tokens=WRITTEN, interventions=change).texts
    return [Sample(text_of_prompt(one), arm, dose, text) for one, text in zip(prompts, texts, strict=True)]
