"""Watch an answer while the model writes it: a score after each token, from the states of the same passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp.analyses.monitoring.messages import messages_of
from interp.analyses.monitoring.monitor import Monitor
from interp.analyses.monitoring.watching import Line, OnLine, Watched, watched
from interp.conversations import parse
from interp.conversations.messages import MARKS, is_conversation
from interp.conversations.nodes import Combined, Node, Part, Sliced
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.sampling import Sampling
from interp.models.streaming import NewToken
from probes.pooling import read_pooling

__all__ = ["answer"]

BY_WORDS = ("text", "regex", "sentence", "token")
"""Words of a selector whose tokens depend on what will be written."""
REMEDY = "fit one of 'role:assistant & content', or watch the finished conversation."


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
    computed twice. The last line of an answer is what :func:`watch` says of the finished conversation; a
    monitor that reads other tokens than exactly those of the answer is refused, and so is an answer that
    begins to think, since thinking is not read, or read otherwise, when the conversation is finished.

    Args:
        model: that the monitor was fitted on.
        monitor: it; its selector must take all tokens of an answer, and nothing around them.
        prompts: conversations or texts to answer, or one of them.
        max_new_tokens: of each answer, at most.
        sample: how tokens are drawn; the likeliest where left out.
        on_line: told of every token as soon as it is scored.
        batch_size: as for ``Model.generate``.

    Raises:
        ConfigError: the monitor does not read exactly the tokens of an answer, or the model thinks.
        ModelError: the monitor was fitted on another model.
    """
    model = as_model(model)
    monitor.check(model)
    several = [prompts] if isinstance(prompts, str) or is_conversation(prompts) else prompts
    given = [prompt if isinstance(prompt, str) else list(prompt) for prompt in several]
    _check_reads(model, monitor, given, max_new_tokens)
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
        _check_silent("".join([*heard[at].words[-7:], newest[at]]), f"the answer to prompt {at}")

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


def _check_reads(model: Model, monitor: Monitor, prompts: Sequence[Any], n: int) -> None:
    """Refuse a monitor of other tokens than exactly those of an answer.

    All of up to n new tokens must be selected while they are written, and in a conversation that is finished
    exactly what the assistant says.
    """
    selector, n = parse(monitor.positions), max(n, 1)
    if found := sorted(_words_of(selector.node) & set(BY_WORDS)):
        raise ConfigError(
            f"this monitor reads {monitor.positions!r}, and which tokens {found[0]!r} selects is known only "
            f"when the answer is finished; {REMEDY}"
        )
    tokens = model.tokenize(prompts)
    rows = selector.resolve(tokens, model.tokenizer, new=[n] * len(tokens))
    for at, (row, length) in enumerate(zip(rows, tokens.lengths, strict=True)):
        new = set(range(length, length + n))
        if not new & set(row):
            raise ConfigError(
                f"this monitor reads {monitor.positions!r}, which no token of an answer is; {REMEDY}"
            )
        if not new <= set(row) or (isinstance(prompts[at], str) and new != set(row)):
            raise _other(monitor, at)
        if tokens.texts[at].rstrip().endswith(tuple(opening for opening, _ in MARKS)):
            _check_silent(tokens.texts[at].rstrip()[-16:], f"prompt {at}")
    for at, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            _check_finished(model, monitor, prompt, at, n)


def _check_finished(model: Model, monitor: Monitor, prompt: Sequence[Any], at: int, n: int) -> None:
    """Refuse a monitor that reads more, or less, of a finished answer than what the assistant says."""
    if prompt[-1]["role"] == "assistant":
        raise ConfigError(
            f"prompt {at} ends with what the assistant says, of which an answer would be the rest; leave "
            "that message out, or watch the finished conversation."
        )
    said = {"role": "assistant", "content": " ".join(["a"] * (n + 1))}
    found = messages_of(model, [[*prompt, said]], monitor.positions)
    spans = found.tokens.spans[0] or ()
    own = [span for span in spans if span.turn == len(prompt) and span.kind == "content"]
    wanted = tuple(token for span in own for token in range(span.start, span.stop))
    if dict(zip(found.turn, found.positions, strict=True)).get(len(prompt)) != wanted:
        raise _other(monitor, at)


def _other(monitor: Monitor, at: int) -> ConfigError:
    return ConfigError(
        f"this monitor reads {monitor.positions!r}, which is not exactly the answer to prompt {at}, so that "
        f"its score would be another when the answer is finished; {REMEDY}"
    )


def _check_silent(text: str, where: str) -> None:
    """Refuse thinking, whose tokens a finished conversation may not have."""
    for opening, _ in MARKS:
        if opening in text:
            raise ConfigError(
                f"{where} opens thinking ({opening!r}), which a monitor of answers does not read; let the "
                "model answer with Model.generate, and watch the finished conversation."
            )


def _words_of(node: Node) -> set[str]:
    """The words that a selector is made of."""
    if isinstance(node, Combined):
        return _words_of(node.left) | _words_of(node.right)
    if isinstance(node, Sliced):
        return _words_of(node.of)
    return {node.word} if isinstance(node, Part) else set()
