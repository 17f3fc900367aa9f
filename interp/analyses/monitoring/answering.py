"""Watch an answer while the model writes it: a score after each token, from the states of the same passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp.analyses.monitoring.monitor import Monitor
from interp.analyses.monitoring.watching import Line, OnLine, Watched, watched
from interp.conversations import parse
from interp.conversations.messages import is_conversation
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.sampling import Sampling
from interp.models.streaming import NewToken
from probes.pooling import read_pooling

__all__ = ["answer"]


@dataclass(eq=False)
class _Heard:
    """The tokens of one answer so far."""

    monitor: Monitor
    number: int
    turn: int
    words: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    keys: list[float] = field(default_factory=list)

    def add(self, state: np.ndarray, word: str) -> Line:
        """Take one more token, and say what the answer is worth so far."""
        probe = self.monitor.probe
        state = state.astype(np.float64)
        self.scores.append(float(probe.coef_[0] @ state + probe.intercept_[0]))
        self.keys.append(float(probe.query_ @ state))
        self.words.append(word)
        scores, keys = np.array(self.scores), np.array(self.keys)
        pooled = read_pooling(probe.pooling)(scores[None, :, None], keys[None], np.ones((1, len(keys)), bool))
        score = float(pooled[0, 0])
        sure, alarm = float(self.monitor.probability(score)), score > self.monitor.threshold.value
        peak = self.words[int(scores.argmax())]
        return Line(
            self.number,
            self.turn,
            "assistant",
            len(scores),
            score,
            sure,
            alarm,
            peak,
            word,
            self.scores[-1],
        )


def answer(
    model: ModelLike,
    monitor: Monitor,
    prompts: Sequence[Any],
    *,
    max_new_tokens: int = 64,
    sample: Sampling | None = None,
    on_line: OnLine | None = None,
    batch_size: str | int = "auto",
) -> Watched:
    """Let the model answer, and score the answer after each of its tokens.

    A token is scored in the pass that reads it, so that its line comes with the next token; nothing is
    computed twice. The last line of an answer is what :func:`watch` says of the finished conversation.

    Args:
        model: that the monitor was fitted on.
        monitor: it; its selector must take the assistant's tokens.
        prompts: conversations or texts to answer, or one of them.
        max_new_tokens: of each answer, at most.
        sample: how tokens are drawn; the likeliest where left out.
        on_line: told of every token as soon as it is scored.
        batch_size: as for ``Model.generate``.

    Raises:
        ConfigError: the monitor does not read answers.
        ModelError: the monitor was fitted on another model.
    """
    model = as_model(model)
    monitor.check(model)
    several = [prompts] if isinstance(prompts, str) or is_conversation(prompts) else prompts
    given = [prompt if isinstance(prompt, str) else list(prompt) for prompt in several]
    _check_reads(model, monitor, given)
    heard: dict[int, _Heard] = {}
    newest: dict[int, str] = {}
    told: dict[int, Line] = {}

    def listen(token: NewToken) -> None:
        at = token.prompt
        if token.step == 0:  # from the beginning again where memory ran out
            heard[at] = _Heard(monitor, at, len(given[at]) if not isinstance(given[at], str) else -1)
        else:
            state = token.states[monitor.site].float().cpu().numpy()
            told[at] = heard[at].add(state, newest[at])
            if on_line is not None:
                on_line(told[at])
        newest[at] = _word(model, token.token_id)

    made = model.generate(
        given,
        max_new_tokens=max_new_tokens,
        sample=sample,
        capture=monitor.site,
        tokens="new",
        on_token=listen,
        batch_size=batch_size,
    )
    special = set(model.tokenizer.all_special_ids) if model.tokenizer else set()
    assert made.activations is not None
    for at, ids in enumerate(made.token_ids):
        end = len(ids)
        while end and ids[end - 1] in special:
            end -= 1
        for step in range(len(heard[at].scores), end):  # the last token, which no pass had read
            state = made.activations[monitor.site][at, step].float().cpu().numpy()
            told[at] = heard[at].add(state, _word(model, ids[step]))
            if on_line is not None:
                on_line(told[at])
    return watched(model, monitor, {"name": "answers", "n": len(given)}, [told[at] for at in sorted(told)])


def _word(model: Model, token: int) -> str:
    return "" if model.tokenizer is None else str(model.tokenizer.decode([token]))


def _check_reads(model: Model, monitor: Monitor, prompts: Sequence[Any]) -> None:
    """Refuse a monitor of other tokens than those of an answer."""
    tokens = model.tokenize(prompts)
    for row, length in zip(
        parse(monitor.positions).resolve(tokens, model.tokenizer, new=[1] * len(tokens)),
        tokens.lengths,
        strict=True,
    ):
        if length not in row:
            raise ConfigError(
                f"this monitor reads {monitor.positions!r}, which no token of an answer is; fit one of "
                "'role:assistant & content', or watch the finished conversation."
            )
