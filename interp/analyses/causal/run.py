"""Change what a probe reads, and watch what the model says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp.analyses.causal.directions import coefficients_of, directions_of, drawn, towards
from interp.analyses.causal.edits import EDITS, States
from interp.analyses.causal.job import RANDOM, Job
from interp.analyses.causal.measures import SPOKEN, Divergence, Measure, Preference, say, spoken
from interp.analyses.causal.result import CausalUse
from interp.analyses.causal.subjects import Probed, Subject, paired, sampled, subject_of, training_mean
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.sites import Site

__all__ = ["causal_use", "most_passes"]

FEWEST = 20
DRAWS, PROMPTS = 20, 60


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
    current = model.capture(tokens, site, subject.position, device="cpu", dtype=torch.float32)[site]
    aims = (coefficients, _rows(subject.names, subject.labels), _rows(subject.names, subject.other_labels))
    mean = training_mean(model, found)
    own = directions_of(*aims)
    job = Job(
        model,
        tokens,
        Site("resid_post", subject.layer),
        subject.position,
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
    """Give how many forward passes of one prompt a test makes, with so many test prompts."""
    return prompts * (draws + RANDOM) * sum(len(edit.doses) for edit in EDITS.values())


def _check(model: Model, found: Probed, draws: int, prompts: int) -> None:
    if draws < FEWEST:
        raise ConfigError(f"draws={draws} asked; give {FEWEST} or more, or chance cannot be told from use.")
    if prompts < 2:
        raise ConfigError(f"prompts={prompts} asked; give 2 or more.")
    if found.model["fingerprint"] != model.fingerprint:
        raise ConfigError(
            f"the probe was trained on other weights than those of {model.name!r}; give the model that was "
            "probed."
        )


def _words(model: Model, subject: Subject, plain: Tensor) -> tuple[dict[str, int], str]:
    """Give the labels' first tokens where the model says such words at all; {} and why not otherwise."""
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
        model={key: found.model[key] for key in ("name", "weights", "fingerprint", "scheme")},
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
        reading=found.verdict,
        readable=found.guessing.beaten,
        warnings=tuple(text for text in notes if text),
    )
