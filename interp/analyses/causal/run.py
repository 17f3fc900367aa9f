"""Change what a probe reads, and watch what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp.analyses.causal.directions import Directions, coefficients_of, directions_of, drawn, towards
from interp.analyses.causal.measures import (
    EDITS,
    SPOKEN,
    Divergence,
    Edit,
    Measure,
    Preference,
    States,
    matched,
    say,
    spoken,
)
from interp.analyses.causal.result import CausalUse, Dose, Effect
from interp.analyses.causal.subjects import (
    Probed,
    Subject,
    paired,
    sampled,
    subject_of,
    training_mean,
)
from interp.errors import ConfigError
from interp.models.interventions import Intervention
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.results import About
from interp.sites import Site
from probes.statistics import bootstrap, paired_difference, permutation_p

__all__ = ["causal_use", "most_passes"]

FEWEST = 20
DRAWS, PROMPTS = 20, 60
Changes = Float[Tensor, "dose arm example"]
"""The output's change: the probe's directions first, then the whole state, then every random draw."""
RANDOM = 2
"""Where the random draws begin among the arms."""
ROWS = 1024
"""Rows whose logits are held at once."""


def causal_use(
    model: ModelLike,
    found: Probed,
    *,
    draws: int = DRAWS,
    prompts: int = PROMPTS,
    seed: int = 0,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> CausalUse:
    """Test whether the model uses the directions along which a probe reads its labels.

    The state after the probe's layer, at the token it reads, is changed along its directions alone, on test
    prompts: erased, exchanged with a prompt of another label, and pushed. The output is watched: the
    log-probability of the right label's word over another's where the model says such words, otherwise the
    divergence of the next token's distribution. Random directions, as many and moved as far in every prompt,
    are the control.

    Args:
        model: what was probed.
        found: what ``interp.analyses.probe`` or ``probe_concepts`` returned for it.
        draws: random directions (or subspaces of the same rank) beside the probe's, 20 or more.
        prompts: test prompts at most.
        seed: of the prompts, their counterparts, the random directions and the intervals.
        batch_size: prompts per forward pass; "auto" chooses.
        progress: show progress bars.

    Returns:
        Effects (nats) with 95% intervals over groups, a dose-response, and a verdict.

    Raises:
        ConfigError: a probe that is not linear, too few draws or prompts, or another model.
        DataError: the test prompts have one label.
    """
    model = as_model(model)
    _check(model, found, draws, prompts)
    whole = subject_of(found)
    coefficients = coefficients_of(whole.probe, whole.names)
    subject = sampled(whole, prompts, seed)
    tokens = model.tokenize(list(subject.texts))
    plain = model.logits(tokens)
    words, note = _words(model, subject, plain)
    subject = paired(subject, words, seed)
    site = f"resid_post.{subject.layer}"
    read = model.capture(tokens, site, subject.position, device="cpu", dtype=torch.float32)
    current = read[site].flatten(0, -2)
    places = [at if isinstance(at, int) else at[0] for at in read.positions]
    aims = (coefficients, _rows(subject.names, subject.labels), _rows(subject.names, subject.other_labels))
    mean = training_mean(model, found)
    own = directions_of(*aims)
    job = Job(
        model,
        tokens,
        Site("resid_post", subject.layer),
        places,
        States(current, current[list(subject.others)], mean, towards(*aims)),
        own,
        drawn(draws, own.rank, model.d_model, seed=seed),
        _measure(subject, words, plain),
        subject.groups,
        seed,
        batch_size,
    )
    return _result(found, subject, job, note, progress=progress)


def most_passes(draws: int = DRAWS, prompts: int = PROMPTS) -> int:
    """How many forward passes of one prompt a test makes, with so many test prompts."""
    return prompts * (draws + RANDOM) * sum(len(edit.doses) for edit in EDITS.values())


def _check(model: Model, found: Probed, draws: int, prompts: int) -> None:
    if draws < FEWEST:
        raise ConfigError(f"draws={draws} asked; give {FEWEST} or more, or chance cannot be told from use.")
    if prompts < 2:
        raise ConfigError(f"prompts={prompts} asked; give 2 or more.")
    if found.about.model["fingerprint"] != model.fingerprint:
        raise ConfigError(
            f"the probe was trained on other weights than those of {model.name!r}; give the model that was "
            "probed."
        )


def _words(model: Model, subject: Subject, plain: Tensor) -> tuple[dict[str, int], str]:
    """The labels' first tokens where the model says such words at all; {} and why not otherwise."""
    tokens = say(model, subject.names)
    if not tokens or len({tokens[label] for label in subject.labels}) < 2:
        return {}, "the labels are no words that the model could say: its whole next token is watched"
    share = spoken(plain, tokens)
    if share < SPOKEN:
        return {}, (
            f"the labels' words hold {share:.1%} of the next token's probability, so that the model does not "
            "say them here: its whole next token is watched"
        )
    return tokens, ""


def _measure(subject: Subject, words: dict[str, int], plain: Tensor) -> Measure:
    if not words:
        return Divergence.of(plain)
    right, other = (
        torch.tensor([words[name] for name in names]) for names in (subject.labels, subject.other_labels)
    )
    return Preference.of(plain, right, other)


def _rows(names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    at = {name: row for row, name in enumerate(names)}
    return torch.tensor([at[name] for name in wanted])


def _result(found: Probed, subject: Subject, job: Job, note: str, *, progress: bool) -> CausalUse:
    shown = tqdm(EDITS.items(), desc="causal test", disable=not progress)
    changes = {name: job.changes(edit) for name, edit in shown}
    effects = tuple(job.effect(EDITS[name], table) for name, table in changes.items())
    notes = dict.fromkeys((note, *(effect.estimate.note for effect in effects)))
    return CausalUse(
        about=About(model=found.about.model),
        site=str(job.site),
        position=subject.position,
        kind=subject.probe.kind,
        directions=job.own.words,
        named=job.own.named,
        rank=job.own.rank,
        measure=job.measure.name,
        measured=job.measure.words,
        effects=effects,
        doses=job.response(EDITS["steer"], changes["steer"]),
        draws=len(job.others),
        seed=job.seed,
        readable=found.guessing.beaten,
        warnings=tuple(text for text in notes if text),
    )


@dataclass(frozen=True, eq=False)
class Job:
    """What every edit shares.

    Attributes:
        model: what is run.
        tokens: the prompts.
        site: whose states are changed.
        places: per prompt the token.
        states: what is changed.
        own: the probe's directions.
        others: the random ones.
        measure: what is watched.
        groups: of the prompts.
        seed: of the intervals.
        batch_size: prompts per forward pass; "auto" chooses.
    """

    model: Model
    tokens: Tokens
    site: Site
    places: Sequence[int]
    states: States
    own: Directions
    others: Sequence[Directions]
    measure: Measure
    groups: Sequence[str]
    seed: int
    batch_size: str | int

    def changes(self, edit: Edit) -> Changes:
        """Apply an edit along the probe's directions, to the whole state and along random directions."""
        found = [self._arms(edit.shift(self.states, dose)) for dose in edit.doses]
        return torch.stack(found)

    def _arms(self, shift: Tensor) -> Tensor:
        moves = [self.own.along(shift), shift, *(matched(shift, self.own, other) for other in self.others)]
        states = self.states.current + torch.stack(moves)
        arms = max(1, ROWS // states.shape[1])
        return torch.cat([self._run(part) for part in states.split(arms)])

    def _run(self, states: Float[Tensor, "arm example d_model"]) -> Float[Tensor, "arm example"]:
        """Run every prompt once per arm, its state replaced, and give the change of the output."""
        arms, n = states.shape[:2]
        prompts = [list(ids) for ids in self.tokens.token_ids] * arms
        edit = Intervention(self.site, states.flatten(0, 1), [*self.places] * arms)
        logits = self.model.run(prompts, interventions=[edit], batch_size=self.batch_size).logits
        assert logits is not None
        change = self.measure.change(logits.float(), torch.arange(n).repeat(arms))
        return change.double().cpu().reshape(arms, n)

    def effect(self, edit: Edit, changes: Changes) -> Effect:
        """Compare the probe's directions with random ones, over prompts and over draws."""
        arms = [self.measure.fold(changes[:, arm], edit.doses).numpy() for arm in range(changes.shape[1])]
        own, whole, table = arms[0], arms[1], np.stack(arms[RANDOM:])
        means = table.mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        given = {"groups": self.groups, "seed": self.seed}
        return Effect(
            edit.name,
            bootstrap(own, support="real", **given),
            float(means.mean()),
            float(low),
            float(high),
            paired_difference(own, table.mean(axis=0), support="real", **given),
            permutation_p(float(own.mean()), means),
            None if np.allclose(own, whole) else bootstrap(whole, support="real", **given),
            self._size(edit),
            tuple(own.tolist()),
            tuple(table.mean(axis=0).tolist()),
            tuple(self.groups),
        )

    def _size(self, edit: Edit) -> float:
        """The mean length of the edit at dose 1, as a share of that of the states."""
        move = self.own.along(edit.shift(self.states, 1.0))
        return float(move.norm(dim=1).mean() / self.states.current.norm(dim=1).mean())

    def response(self, edit: Edit, changes: Changes) -> tuple[Dose, ...]:
        """The measure by dose, the unchanged run at 0."""
        rows = [self._dose(dose, table.numpy()) for dose, table in zip(edit.doses, changes, strict=True)]
        rest = self.measure.level(0.0)
        return tuple(sorted([*rows, Dose(0.0, *[rest] * 6)], key=lambda row: row.dose))

    def _dose(self, dose: float, table: np.ndarray) -> Dose:
        found = bootstrap(table[0], groups=self.groups, seed=self.seed, support="real")
        means = table[RANDOM:].mean(axis=1)
        level = self.measure.level
        low, high = sorted(map(level, (found.interval.low, found.interval.high)))
        below, above = sorted(level(float(at)) for at in np.quantile(means, [0.025, 0.975]))
        return Dose(dose, level(found.value), low, high, level(float(means.mean())), below, above)
