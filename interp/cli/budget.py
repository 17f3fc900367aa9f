"""How much a command takes where nobody says: what fits a stated time, by a forward pass measured here.

Times are those of a machine that does nothing else. On a CPU the time that the main thread works is measured:
it takes part in all that torch computes, so that this is the time by the clock where nothing else runs, with
any number of threads, and other programs do not shrink the sizes. On a GPU, which works while that thread
waits, it is the time by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.models import Model

__all__ = [
    "DEFAULT",
    "MEASURED",
    "Choice",
    "Job",
    "choose_size",
    "fit_note",
    "fit_passes",
    "in_words",
    "pass_seconds",
    "read_time",
    "twin_fit_passes",
]

DEFAULT = "2m"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
MEASURED = 16
"""Prompts of the pass that is measured, fewer where one alone takes long."""
DRAWN = 1.5
"""What drawing a token costs beside reading it, in one pass over many texts: measured."""
LONG = 1.0
"""Seconds that the pass that is measured should take at most."""


def read_time(text: str) -> float | None:
    """The seconds of a time such as ``90s``, ``5m`` or ``1h``; None for ``off``.

    Raises:
        ValueError: it is no time above zero.
    """
    if text == "off":
        return None
    found = float(text[:-1]) * UNITS.get(text[-1:], 0.0)
    if not 0 < found < float("inf"):
        raise ValueError(text)
    return found


def in_words(seconds: float) -> str:
    """A rough time: ``40 s``, ``6 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.2g} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"


def pass_seconds(model: Model, texts: Sequence[Any], batch_size: int | str = "auto") -> float:
    """Seconds of one whole forward pass of one of these prompts, in a batch as commands run them.

    The first prompt alone warms up, and says how many the batch may have. The quicker of two passes counts,
    since what else the machine does can only slow one down.
    """
    alone = _timed(model, texts[:1], batch_size)
    count = min(len(texts), max(1, min(MEASURED, round(LONG / max(alone, 1e-3)))))
    some = [texts[at * len(texts) // count] for at in range(count)]
    return min(_timed(model, some, batch_size) for _ in range(2)) / count


def _timed(model: Model, texts: Sequence[Any], batch_size: int | str) -> float:
    clock = time.thread_time if _only_on_cpu(model) else time.perf_counter
    started = clock()
    model.logits(list(texts), batch_size=batch_size).sum().item()  # a GPU has then finished
    return clock() - started


def _only_on_cpu(model: Model) -> bool:
    """Whether all weights are in this machine's memory; what is elsewhere or on disk is waited for."""
    return all(one.device.type == "cpu" for one in model.hf.parameters())


def fit_passes(model: Model, layers: Sequence[int], texts: Sequence[str], seed: int = 0) -> float:
    """Whole passes of one of these texts that a first fit of translators takes; 0 where they are kept.

    They are fitted on text that the model draws, once for each model and layer (``TranslatorLens.of``).
    """
    from interp.lenses.texts import TOKENS
    from interp.lenses.translator import missing

    if not missing(model, layers, seed=seed):
        return 0.0
    lengths = model.tokenize(list(texts[:MEASURED])).lengths
    return (1 + DRAWN) * TOKENS * len(lengths) / sum(lengths)


def twin_fit_passes(model: Model, layers: Sequence[int], texts: Sequence[str], seed: int = 0) -> float:
    """The passes of :func:`fit_passes` for a model and for its untrained twin, which may be kept or not."""
    from interp.models.loading import untrained_model

    return sum(fit_passes(one, layers, texts, seed) for one in (model, untrained_model(model)))


def fit_note(model: Model, layers: Sequence[int], texts: Sequence[str], seed: int = 0) -> str:
    """How long a first fit of translators takes, and that it is kept; "" where they are kept already."""
    from interp.errors import counted
    from interp.lenses.translator import missing

    passes = fit_passes(model, layers, texts, seed)
    if not passes:
        return ""
    count, lasts = len(missing(model, layers, seed=seed)), in_words(passes * pass_seconds(model, texts))
    return (
        f"fitting translators of {counted(count, 'layer')} on text that the model draws, kept in the cache: "
        f"about {lasts} that a second run is spared"
    )


@dataclass(frozen=True)
class Job:
    """What a command takes where nobody says, and what it costs.

    Attributes:
        whole: the size without a budget.
        least: the size below which hardly anything can be told.
        texts: prompts like those that are run.
        passes: size -> forward passes of one prompt through the whole model.
        besides: size -> seconds of all else, roughly: fits, for example.
        shown: size -> the size in words: ``800 prompts``.
        settings: size -> the settings that stand for it.
        otherwise: where even the least does not fit: what is done instead, in words, as settings, and what
            that takes.
    """

    whole: int
    least: int
    texts: Sequence[Any]
    passes: Callable[[int], float]
    shown: Callable[[int], str]
    besides: Callable[[int], float] = lambda n: 0.0
    settings: Callable[[int], Mapping[str, Any]] = lambda n: {"limit": n}
    otherwise: Callable[[], tuple[str, Mapping[str, Any], Job]] | None = None

    def seconds(self, n: int, each: float) -> float:
        """The time that a size takes, with ``each`` seconds for a pass."""
        return self.passes(n) * each + self.besides(n)


@dataclass(frozen=True)
class Choice:
    """The size that was chosen, and what it takes.

    Attributes:
        n: the size.
        seconds: that it takes.
        whole_seconds: that the whole would take.
    """

    n: int
    seconds: float
    whole_seconds: float


def choose_size(job: Job, each: float, budget: float) -> Choice:
    """The largest size that fits, in two digits; the whole where it fits, never less than the least."""
    whole = job.seconds(job.whole, each)
    if whole <= budget or job.whole <= job.least:
        return Choice(job.whole, whole, whole)
    low, high = job.least, job.whole
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if job.seconds(middle, each) <= budget else (low, middle - 1)
    digits = 10 ** max(0, len(str(low)) - 2)
    n = max(job.least, low // digits * digits)
    return Choice(n, job.seconds(n, each), whole)
