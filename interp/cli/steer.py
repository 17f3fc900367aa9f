"""``interp steer``: fit a direction and evaluate it, or push along one and see what the model writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.budget import DRAWN, Job
from interp.cli.frame import Made, Work, command
from interp.cli.options import COUNT, RunSettings, SchemeSettings, flag
from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    from interp.analyses.steering.scores import Score
    from interp.models import Model
    from interp.steering import Vector
    from interp.steering.pairs import Contrast

__all__ = ["steer"]

EXAMPLES = (
    "interp steer --fit pairs.jsonl --layer 20 --out v",
    'interp steer --with v --dose 2 "I think that"',
    "interp steer --model smollm2 --fit pairs.jsonl --score lexicon --words sea,ship,wave --out v",
    "interp steer --fit pairs.jsonl --method whitened --gguf v.gguf",
)
QUESTION, EXAMPLES_SHOWN, SAMPLED = 6, 3, 5
"""Tokens of a prompt of the task kept aside; examples put before a prompt by prompting; arms that write."""
DIVERGENCE = 1e-8
"""Seconds of comparing two distributions over the vocabulary, for each of its tokens: measured."""


def _methods() -> Collection[str]:
    from interp.steering import METHODS

    return [name for name, row in METHODS.items() if row.reads == "prompts"]


def _scores() -> Collection[str]:
    from interp.analyses.steering import SCORES

    return SCORES


@dataclass(frozen=True, kw_only=True)
class SteerSettings(RunSettings, SchemeSettings):
    """Fit a direction from pairs of texts and evaluate it; or add one and print texts with and without.

    With --fit: 60% of the pairs are fitted on; the others say what the direction does, dose by dose, beside
    random directions as long, the opposite sign, and simply prompting, and at what price on neutral text.
    """

    prompt: str = flag("", "The prompt to continue with --with.", given="position")
    fit: str | None = flag(
        None, "Pairs: a CSV, TSV or JSONL file of positive,negative (texts or messages).", metavar="FILE"
    )
    with_: str | None = flag(None, "A vector: a folder of --out, or a GGUF control vector.", metavar="PATH")
    dose: float = flag(1.0, "With --with: how much, in units of the vector; may be negative.", metavar="X")
    layer: str = flag("50%", "The layer, counted from 0: 20   -1   50%.", metavar="LAYER")
    method: str = flag("mean-difference", "How the direction is fitted.", metavar="NAME", allowed=_methods)
    positions: str = flag(
        "last", "Tokens that are fitted on: last, all, or a selector such as role:assistant.", metavar="WHICH"
    )
    score: str = flag("texts", "What is to move.", metavar="NAME", allowed=_scores)
    words: tuple[str, ...] = flag((), "Words of the scores log-odds, words and lexicon.", metavar="WORDS")
    against: tuple[str, ...] = flag((), "Of log-odds: the words on the other side.", metavar="WORDS")
    doses: tuple[str, ...] = flag(("0.25", "0.5", "1", "2"), "Doses that are evaluated.", metavar="DOSES")
    bound: float = flag(
        0.1,
        "The most that the divergence on neutral text may be, in nats per token.",
        metavar="NATS",
        allowed="a number above 0",
        check=lambda x: x > 0,
    )
    draws: int | None = flag(
        None,
        "Random directions.",
        metavar="N",
        allowed="a number from 3",
        check=lambda n: n is None or n > 2,
        shown="8, or as many as fit --budget",
    )
    instruction: str | None = flag(
        None, "What 'simply prompting' puts before a prompt.", metavar="TEXT", shown="fitted examples"
    )
    neutral: str | None = flag(
        None, "Neutral texts, one a line, for side effects.", metavar="FILE", shown="drawn from the model"
    )
    chat: bool = flag(False, "PROMPT is a user's message, written by the chat template.")
    max_new_tokens: int = flag(40, "With --with: tokens of each text.", **COUNT)
    gguf: str | None = flag(None, "Write a GGUF control vector too.", metavar="FILE", part="call")

    def check(self) -> None:
        """Refuse a call that neither fits nor adds, and one that does both."""
        super().check()
        if (self.fit is None) == (self.with_ is None):
            raise ConfigError(
                "give --fit FILE to fit and evaluate a vector, or --with PATH to add one to a PROMPT"
                + ("." if self.fit is None else ", not both.")
            )
        if (self.with_ is not None) != bool(self.prompt.strip()):
            raise ConfigError(
                'no prompt; --with continues one: interp steer --with v "I think that".'
                if self.with_ is not None
                else "--fit takes no prompt; add the fitted vector to it by --with."
            )
        if self.fit is not None and self.score != "texts" and not self.words and self.score != "probe":
            raise ConfigError(f"--score {self.score} needs --words, such as --words sea,ship,wave.")

    @property
    def given(self) -> tuple[str, ...]:
        """The flags that say how much is measured."""
        return tuple(name for name in ("full", "draws") if getattr(self, name))

    def about(self) -> str:
        """The data, or the vector."""
        return Path(self.fit or self.with_ or "").stem


@command(SteerSettings, examples=EXAMPLES)
def steer(work: Work, settings: SteerSettings) -> Made:
    """Fit and evaluate, or add."""
    if settings.with_ is not None:
        return _added(work, settings, work.certified())
    settings = work.sized(settings, lambda: _job(work.model, settings))
    return _fitted(work, settings, work.certified())


def _job(model: Model, settings: SteerSettings) -> Job:
    """What a fit takes: at every dose of every arm the prompts kept aside, neutral texts and a task."""
    from interp.analyses.steering.run import DRAWS, LOOKED_AT, WRITTEN
    from interp.analyses.steering.side_effects import ASKED, KEPT, LENGTH, TEXTS
    from interp.steering.pairs import read_pairs

    fitted, held = read_pairs(settings.fit or "").divided(settings.seed)
    texts = [*held.positive, *held.negative]
    mean = sum(model.tokenize(texts).lengths) / len(texts)
    scored = len(texts) if settings.score == "texts" else len(held)
    bystanders = TEXTS * LENGTH + KEPT * QUESTION
    each = scored * mean + bystanders
    if settings.score == "lexicon":
        each += len(held) * WRITTEN * (1 + DRAWN)
    instructed = EXAMPLES_SHOWN * mean * (scored + TEXTS + KEPT)
    written = TEXTS * LENGTH + SAMPLED * LOOKED_AT * WRITTEN
    once = 2 * len(fitted) * mean + ASKED * QUESTION + written * (1 + DRAWN) + instructed
    doses = len(settings.doses)

    def arms(draws: int) -> int:
        return 2 + doses * (2 + draws)

    return Job(
        whole=DRAWS,
        least=3,
        texts=texts,
        passes=lambda n: (once + arms(n) * each) / mean,
        besides=lambda n: DIVERGENCE * model.vocab_size * TEXTS * LENGTH * arms(n),
        shown=lambda n: counted(n, "random direction"),
        settings=lambda n: {"draws": n},
    )


def _added(work: Work, settings: SteerSettings, model: Model) -> Made:
    from interp.analyses.steering import side_by_side

    vector = _vector(settings.with_ or "", model)
    prompt: Any = settings.prompt
    if settings.chat:
        prompt = [{"role": "user", "content": settings.prompt}]
    where = "all" if settings.positions == "last" else settings.positions
    _write_gguf(work, settings, vector)
    result = side_by_side(
        model,
        vector,
        prompt,
        dose=settings.dose,
        max_new_tokens=settings.max_new_tokens,
        positions=where,
        seed=settings.seed,
    )
    return Made(result)


def _vector(path: str, model: Model) -> Vector:
    from interp.steering import Vector, read_control_vector

    return read_control_vector(path, model) if path.lower().endswith(".gguf") else Vector.load(path)


def _fitted(work: Work, settings: SteerSettings, model: Model) -> Made:
    from interp.analyses.concepts.decoding import one_layer
    from interp.analyses.steering import evaluate, with_evaluation
    from interp.analyses.steering.run import DRAWS
    from interp.steering import fit
    from interp.steering.pairs import read_pairs
    from interp.tasks.files import read_names

    to_fit, to_evaluate = read_pairs(settings.fit or "").divided(settings.seed)
    site = f"resid_post.{one_layer(model, settings.layer)}"
    vector = fit(
        model,
        to_fit.positive,
        to_fit.negative,
        site,
        method=settings.method,
        positions=settings.positions,
        name=Path(settings.fit or "").stem,
        seed=settings.seed,
    )
    work.session.note(f"vector: {vector!r}")
    result = evaluate(
        model,
        vector,
        _score(settings, model, to_fit, to_evaluate),
        doses=_doses(settings.doses),
        bound=settings.bound,
        draws=settings.draws or DRAWS,
        instruction=settings.instruction or "",
        neutral=None if settings.neutral is None else read_names(settings.neutral),
        seed=settings.seed,
        progress=work.session.progress,
    )
    vector = with_evaluation(vector, result)
    vector.save(work.run.begin() / "vector")
    _write_gguf(work, settings, vector)
    return Made(result, folders=("vector",))


def _write_gguf(work: Work, settings: SteerSettings, vector: Vector) -> None:
    from interp.steering import write_control_vector

    if settings.gguf is not None:
        path = write_control_vector(vector, settings.gguf)
        work.session.note(f"control vector: {path} (strength 1 is dose 1)")


def _doses(texts: tuple[str, ...]) -> tuple[float, ...]:
    try:
        return tuple(map(float, texts))
    except ValueError:
        raise ConfigError(
            f"--doses {','.join(texts)} are not numbers; give positive ones, such as 0.25,0.5,1,2."
        ) from None


def _score(settings: SteerSettings, model: Model, to_fit: Contrast, to_evaluate: Contrast) -> Score:
    """The score that is asked for, on prompts that nothing was fitted on."""
    from interp.analyses import steering

    pairs = steering.Texts(to_evaluate.positive, to_evaluate.negative)
    prompts = pairs.openings
    match settings.score:
        case "log-odds":
            return steering.LogOdds(prompts, settings.words, settings.against)
        case "words":
            return steering.Words(prompts, settings.words)
        case "lexicon":
            return steering.Lexicon(prompts, settings.words, seed=settings.seed)
        case "probe":
            return steering.ProbeScore.fitted(model, to_fit.positive, to_fit.negative, prompts)
    return pairs
