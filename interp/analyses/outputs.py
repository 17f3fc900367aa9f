"""Compare what two models say next: distributions, first choices, surprise, and answers that flip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from interp.analyses.predictions import Averages, Predictions, divergence, predictions
from interp.analyses.prompts import Own, PromptSet, prompt_set
from interp.analyses.provenance import about, check_same_tokens, earlier
from interp.errors import counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Cell, Table
from probes.statistics import mcnemar_exact

__all__ = ["behaviour"]

MOST_EXAMPLES = 20
BLIND = "control: the reference's average prediction at this place of the task's prompts"


@dataclass(frozen=True, eq=False)
class _Sight:
    """The predictions of the model and of the reference on the same prompts."""

    given: PromptSet
    own: Predictions
    ref: Predictions
    common: Averages

    @cached_property
    def divergences(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """At each place counted from the end, the divergence from the reference and the control."""
        straight = divergence(self.ref.log_p, self.own.log_p)
        blind = divergence(self.ref.log_p, self.common.log_p, self.common.index)
        items, rows = range(len(self.given)), self.common.rows
        owners = self.ref.owner[rows]
        return [straight[self.ref.owner == i] for i in items], [blind[rows[owners == i]] for i in items]

    def mean(self, values: Sequence[np.ndarray]) -> Float[np.ndarray, " item"]:
        """Average over the positions of each prompt."""
        return np.array([float(np.mean(row)) for row in values])

    def finding(self, name: str, values: Any, control: Any, unit: str, about: str) -> Finding:
        """Make a finding with one value per prompt."""
        direction = 1 if unit == "share" else -1  # agreement is more, divergence and surprise are less
        return Finding(name, values, self.given.groups, control, unit, about=about, direction=direction)


def behaviour(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 200,
    seed: int = 0,
    prompts: Own | None = None,
) -> FindingsResult:
    """Measure next-token predictions, and how far they are from the reference's.

    Findings, in this order: accuracy and log-probability of the answers (where at least half of the prompts
    have an answer of one token), KL divergence from the reference in nats (at the last token, and the mean
    over positions), agreement of the first choices, and the surprise at each prompt's own tokens.

    The control of what is compared with the reference is a predictor that knows the task and the place but
    not the prompt: the reference's average distribution over all prompts of the task, at the same place
    counted from the end. It is much closer to the reference than another prompt's distribution, so that a
    change has to be small to count as none. The answers' control is the same average of the model itself.
    Further tables: ``flips`` (answers that flipped, with McNemar's exact p), ``flipped`` (some of them) and
    ``tasks`` (the numbers task by task).

    Args:
        model: what is measured.
        reference: what this function returned for the reference model; the model itself where left out.
        n: how many prompts.
        seed: of the prompts.
        prompts: own texts, token ids, examples or labelled prompts, instead of the bundled tasks.

    Raises:
        ConfigError: fewer than two prompts asked, or a reference that is none.
        DataError: prompts the model cannot read or that have one token, or a reference that read others.
    """
    model = as_model(model)
    given = prompt_set(model, n, seed, prompts)
    if reference is not None:
        check_same_tokens(given.tokens.token_ids, earlier(reference, "behaviour", "token_ids"), "behaviour")
    own = predictions(model, given.tokens)
    ref: Predictions = own if reference is None else earlier(reference, "behaviour", "predictions")
    sight = _Sight(given, own, ref.check(own), ref.averages(given.tasks))
    answers, flips = _answers(sight, model)
    state = {"predictions": own, "token_ids": given.tokens.token_ids} if reference is None else {}
    drawn = {"n": len(given), "source": given.source, "positions": sum(given.tokens.lengths)}
    return FindingsResult(
        analysis="behaviour",
        about=about(model, {**drawn, "positions_compared": len(own.owner)}),
        asked=f"What does {model.name} say next, and is it what the reference says?",
        how=(
            f"{len(given):,} prompts ({given.source}) were read. Of {drawn['positions']:,} positions "
            f"{len(own.owner):,} were compared with the reference's next-token distribution.",
        ),
        found=(*answers, *_divergences(sight), _agreement(sight), _surprise(sight)),
        more=(*flips, Table.of("tasks", "Task by task", _tasks(sight))),
        state=state,
        seed=seed,
        warnings=_warnings(model, given, bool(answers)),
    )


def _divergences(sight: _Sight) -> tuple[Finding, ...]:
    values, control = sight.divergences
    words = f"KL(reference || model) of the next-token distributions; {BLIND}"
    first, blind = (np.array([row[0] for row in rows]) for rows in (values, control))
    return (
        sight.finding("KL at the last token", first, blind, "nats", f"after the whole prompt: {words}"),
        sight.finding(
            "KL", sight.mean(values), sight.mean(control), "nats", f"mean over a prompt's positions: {words}"
        ),
    )


def _agreement(sight: _Sight) -> Finding:
    ref, common = sight.ref, sight.common
    values = [a == b for a, b in zip(sight.own.top, ref.top, strict=True)]
    blind = common.log_p.argmax(dim=-1).numpy()[common.index] == ref.log_p.argmax(dim=-1).numpy()
    owners = ref.owner[common.rows]
    control = [blind[common.rows[owners == i]] for i in range(len(sight.given))]
    about = "share of positions at which the most probable next token is the reference's"
    return sight.finding(
        "top-1 agreement", sight.mean(values), sight.mean(control), "share", f"{about}; {BLIND}"
    )


def _surprise(sight: _Sight) -> Finding:
    control, words = _without_context(sight.given, sight.own.vocabulary)
    about = f"mean negative log-probability of a prompt's own tokens; control: {words}"
    return sight.finding("surprise at the text", sight.own.surprise, control, "nats", about)


def _without_context(given: PromptSet, vocabulary: int) -> tuple[Float[np.ndarray, " item"], str]:
    """The stronger of two models without context: all tokens alike, or the other groups' frequencies."""
    rows = [np.asarray(ids[1:], dtype=np.int64) for ids in given.tokens.token_ids]
    counts: dict[str, np.ndarray] = {}
    for group, row in zip(given.groups, rows, strict=True):
        counts.setdefault(group, np.zeros(vocabulary))
        np.add.at(counts[group], row, 1.0)
    total = np.sum(list(counts.values()), axis=0)
    frequent = np.empty(len(rows))
    for i, (group, row) in enumerate(zip(given.groups, rows, strict=True)):
        others = total - counts[group]
        share = (others[row] + 1 / vocabulary) / (others.sum() + 1)
        frequent[i] = -np.log(share).mean()
    uniform = float(np.log(vocabulary))
    if frequent.mean() < uniform:
        return frequent, "each token's frequency in the prompts of other groups"
    return np.full(len(rows), uniform), "all tokens equally probable"


def _answers(sight: _Sight, model: Model) -> tuple[tuple[Finding, ...], tuple[Table, ...]]:
    """Accuracy and log-probability of the answers, and what flipped."""
    given = sight.given
    rows = given.answered
    if not len(rows):
        return (), ()
    groups = tuple(given.groups[i] for i in rows)
    now, before = (_right(given, one, rows) for one in (sight.own, sight.ref))
    sure = _log_probability(given, sight.own.last, rows)
    average = sight.own.averages(given.tasks)
    place = average.index[np.flatnonzero(sight.own.offset == 0)]
    blind = _log_probability(given, average.log_p[torch.from_numpy(place)], rows)
    found = (
        Finding(
            "accuracy",
            now.astype(np.float64),
            groups,
            _majority(given, rows),
            "share",
            about="the most probable next token is an answer; control: the task's commonest answer",
            direction=1,
        ),
        Finding(
            "log-probability of the answer",
            sure,
            groups,
            blind,
            "nats",
            about="control: the same answer in the model's average prediction over the task's prompts",
            direction=1,
        ),
    )
    return found, _flips(sight, model, rows, before, now)


def _right(
    given: PromptSet, read: Predictions, rows: Int[np.ndarray, " answered"]
) -> Bool[np.ndarray, " answered"]:
    return np.array([read.top[i][-1] in given.answers[i] for i in rows])


def _log_probability(
    given: PromptSet, log_p: Float[torch.Tensor, "item vocab"], rows: Int[np.ndarray, " answered"]
) -> Float[np.ndarray, " answered"]:
    """The log-probability of each row's answers, all right ones together."""
    found = [float(torch.logsumexp(log_p[int(i), list(given.answers[i])].double(), dim=0)) for i in rows]
    return np.array(found)


def _majority(given: PromptSet, rows: Int[np.ndarray, " answered"]) -> Float[np.ndarray, " answered"]:
    """Which prompts are answered right by the answer that is right most often in the task."""
    counts: dict[str, dict[int, int]] = {}
    for i in rows:
        known = counts.setdefault(given.tasks[i], {})
        for token in given.answers[i]:
            known[token] = known.get(token, 0) + 1
    guess = {task: max(sorted(known), key=known.__getitem__) for task, known in counts.items()}
    return np.array([float(guess[given.tasks[i]] in given.answers[i]) for i in rows])


def _flips(
    sight: _Sight,
    model: Model,
    rows: Int[np.ndarray, " answered"],
    before: Bool[np.ndarray, " answered"],
    now: Bool[np.ndarray, " answered"],
) -> tuple[Table, ...]:
    """Answers that flipped: their number with a test, and some of them."""
    given, changed = sight.given, rows[before != now]
    shown = [
        (
            given.tokens.texts[i],
            _word(model, int(sight.ref.top[i][-1])),
            _word(model, int(sight.own.top[i][-1])),
            " / ".join(_word(model, token) for token in given.answers[i][:3]),
        )
        for i in changed[:MOST_EXAMPLES]
    ]
    counts = {"answers": len(rows), "right_to_wrong": int(np.sum(before & ~now))}
    counts |= {"wrong_to_right": int(np.sum(~before & now)), "mcnemar_p": mcnemar_exact(before, now)}
    columns = ("prompt", "reference", "now", "right")
    return (
        Table.of("flips", "Answers that flipped", [counts]),
        Table("flipped", "Some of them", columns, shown, folded=True, private=("prompt",)),
    )


def _word(model: Model, token: int) -> str:
    return str(model.tokenizer.decode([token])).strip() if model.tokenizer is not None else str(token)


def _tasks(sight: _Sight) -> list[dict[str, Cell]]:
    """Divergence and accuracy task by task."""
    given, (values, _) = sight.given, sight.divergences
    divergences, answered = sight.mean(values), set(given.answered.tolist())
    table: list[dict[str, Cell]] = []
    for task in dict.fromkeys(given.tasks):
        members = np.flatnonzero([name == task for name in given.tasks])
        rows = np.array([i for i in members if i in answered], dtype=np.int64)
        entry: dict[str, Cell] = {"task": task, "n": len(members), "kl": float(divergences[members].mean())}
        for name, read in (("accuracy", sight.own), ("accuracy_reference", sight.ref)):
            entry[name] = float(_right(given, read, rows).mean()) if len(rows) else None
        table.append(entry)
    return table


def _warnings(model: Model, given: PromptSet, answered: bool) -> tuple[str, ...]:
    found = [*model.warnings, *given.warnings]
    if not answered and any(given.tasks):
        known = sum(map(bool, given.answers))
        found.append(
            f"{known} of {counted(len(given), 'prompt')} have an answer of one token in this vocabulary: "
            "findings about "
            "answers are left out."
        )
    return tuple(found)
