"""``interp monitor``: fit a monitor of conversations, watch messages or an answer with it, run a recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from interp.cli.budget import Job
from interp.cli.dry_run import of_monitor, show_plan
from interp.cli.frame import Made, Work, command
from interp.cli.options import COUNT, RunSettings, SchemeSettings, flag, layers_flag
from interp.cli.session import Outcome
from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    from interp.analyses.monitoring import Talks

__all__ = ["monitor"]

EXAMPLES = (
    "interp monitor --model smollm2 --data chats.jsonl --alarm deceptive --pooling max --out runs/m",
    "interp monitor --model smollm2 --with runs/m/monitor --data new.jsonl",
    'interp monitor --model smollm2 --with runs/m/monitor "Can you keep a secret?"',
    "interp monitor --model smollm2 --recipe evaluation-awareness",
)
RECIPES = ("evaluation-awareness",)
MIDDLE, QUARTERS = "50%", "25%,50%,75%"
LEAST = 72
"""Prompts of the recipe: six of each bundled source."""
ASKED = 2 * 1.5
"""Passes in which the model is asked about a prompt: in both orders, with the question around it."""
STEERED = 44
"""Changes of an evaluation of steering: four doses of ten directions, none, and what they do besides."""
LEFT_OUT = 1 / 6
"""The part of the prompts that the first sources left out hold."""


def _recipes() -> Collection[str]:
    return RECIPES


def _kinds() -> Collection[str]:
    from probes import PROBES

    return PROBES


@dataclass(frozen=True, kw_only=True)
class MonitorSettings(RunSettings, SchemeSettings):
    """Fit a monitor on labelled conversations, or watch conversations with one.

    Fitting: --data FILE --alarm LABEL. The run's folder monitor/ is what --with takes. Watching prints one
    JSON line for each message, or for each token of the answer to a prompt, and then the run.
    """

    prompt: str | None = flag(None, "What the model answers while it is watched.", given="position")
    with_: str | None = flag(None, "A monitor: the folder monitor/ of a run.", metavar="FOLDER")
    data: str | None = flag(
        None, "Conversations, one object with messages (and label, group, source) a line.", metavar="FILE"
    )
    alarm: str | None = flag(None, "The label of --data that raises an alarm.", metavar="LABEL")
    negatives: str | None = flag(
        None, "Other conversations to set the threshold on, none of which should raise one.", metavar="FILE"
    )
    fpr: float = flag(
        0.05,
        "The false positive rate at which the threshold is set.",
        metavar="RATE",
        allowed="a number above 0 and below 1",
        check=lambda rate: 0 < rate < 1,
    )
    layers: str | None = layers_flag(f"{MIDDLE}; in the recipe {QUARTERS}")
    positions: str | None = flag(
        None,
        "Which tokens are read: a selector such as 'role:assistant & content'.",
        metavar="SELECTOR",
        shown="the assistant's content; of texts, and in the recipe, see docs/monitors.md",
    )
    pooling: str = flag(
        "mean", "How token scores become one, such as max (`interp ls poolings`).", metavar="NAME"
    )
    kind: str | None = flag(
        None, "Kind of linear probe (`interp ls probes`).", metavar="NAME", allowed=_kinds, shown="logistic"
    )
    recipe: str | None = flag(
        None, "A worked recipe: evaluation-awareness.", metavar="NAME", allowed=_recipes
    )
    tokens: int = flag(64, "How many tokens the answer to a prompt has, at most.", **COUNT)
    steer: bool = flag(False, "Of the recipe: also steer along its direction while the model is asked.")

    def check(self) -> None:
        """Refuse what does not go together."""
        super().check()
        from interp.analyses.probing.several_tokens import check_pooling

        check_pooling(self.pooling, self.kind or "logistic", reference=False)
        given = [name for name in ("with_", "recipe") if getattr(self, name)]
        if len(given) == 2:
            raise ConfigError("--with and --recipe exclude each other. Give one.")
        if self.recipe is None and self.data is None and (self.prompt is None or self.with_ is None):
            raise ConfigError(
                "nothing to do: fit a monitor with --data FILE --alarm LABEL, watch with --with FOLDER and "
                "--data FILE or a prompt, or run --recipe evaluation-awareness."
            )
        if self.prompt is not None and (self.with_ is None or self.data is not None):
            raise ConfigError("a prompt is watched with --with FOLDER, and without --data. Leave one out.")
        if self.with_ is None and self.recipe is None and self.alarm is None:
            raise ConfigError("--data needs --alarm, the label that raises an alarm.")
        if self.dry_run and self.prompt is not None:
            raise ConfigError("--dry-run has no plan for one answer; leave it out, or try --tokens 4.")
        if self.steer and self.recipe is None:
            raise ConfigError("--steer belongs to --recipe evaluation-awareness; leave it out.")

    def about(self) -> str:
        """What is done."""
        return self.recipe or ("watch" if self.with_ else "fit")


@dataclass(frozen=True)
class _Size:
    """What a call reads.

    Attributes:
        talks: the conversations.
        positions: the selector.
        layers: that are read.
        models: 2 with an untrained twin.
        more: passes of one prompt besides, for each.
        least: the fewest conversations that say anything.
    """

    talks: Talks
    positions: str
    layers: tuple[int, ...]
    models: int
    more: float
    least: int


def _size(work: Work, settings: MonitorSettings) -> _Size:
    from interp.analyses.awareness import bundled
    from interp.analyses.awareness.run import CONTENT
    from interp.analyses.monitoring import Monitor
    from interp.analyses.monitoring.fitting import POSITIONS
    from interp.sites import Site, parse_layers

    model = work.model
    own = settings.data
    labelled = settings.with_ is None
    talks = bundled() if own is None else _talks(own, replace(settings, limit=None), labelled=labelled)
    if settings.with_ is not None:
        read = Monitor.load(settings.with_)
        layer = Site.parse(read.site).layer
        return _Size(talks, read.positions, (0 if layer is None else layer,), 1, 0.0, 1)
    asked = settings.layers or (QUARTERS if settings.recipe else MIDDLE)
    layers = tuple(parse_layers(asked, model.n_layers, name=model.name, kind="resid_post"))
    where = talks.positions(settings.positions or "", CONTENT if settings.recipe else POSITIONS)
    if settings.recipe is None:  # a quarter of the negatives, say half of all, sets the threshold
        return _Size(talks, where, layers, 1, 0.0, math.ceil(8 / settings.fpr))
    more = ASKED * (1 + settings.steer * STEERED * LEFT_OUT)
    return _Size(talks, where, layers, 1 + (settings.weights != "random"), more, LEAST)


def _job(work: Work, settings: MonitorSettings) -> Job:
    """Passes to the deepest layer, and of the recipe those in which the model is asked."""
    size = _size(work, settings)
    each = size.models * (max(size.layers) + 1) / work.model.n_layers + size.more
    given = [prompt if isinstance(prompt, str) else list(prompt) for prompt in size.talks.prompts]
    return Job(
        whole=len(given),
        least=min(size.least, len(given)),
        texts=given,
        passes=lambda n: each * n,
        shown=lambda n: f"{counted(n, 'prompt')}",
    )


def plan(work: Work, settings: MonitorSettings) -> Outcome:
    """What fitting, watching, or the recipe would take."""
    settings = _sized(work, settings)
    size = _size(work, settings)
    talks = _limited(size.talks, settings)
    more = size.more * len(talks)
    found = of_monitor(work.model, talks.prompts, size.positions, size.layers, models=size.models, more=more)
    return Outcome(found.to_dict(), lambda: show_plan(found), status="planned")


def _sized(work: Work, settings: MonitorSettings) -> MonitorSettings:
    if settings.prompt is not None:
        return settings
    return work.sized(settings, lambda: _job(work, settings), own=settings.data is not None)


@command(MonitorSettings, examples=EXAMPLES, plan=plan)
def monitor(work: Work, settings: MonitorSettings) -> Made:
    """Fit, watch, or run the recipe."""
    settings = _sized(work, settings)
    if settings.recipe is not None:
        return _recipe(work, settings)
    return _watch(work, settings) if settings.with_ is not None else _fit(work, settings)


def _talks(path: str, settings: MonitorSettings, *, labelled: bool) -> Talks:
    from interp.analyses.monitoring import read_talks

    return _limited(read_talks(path, labelled=labelled), settings)


def _limited(found: Talks, settings: MonitorSettings) -> Talks:
    """So many of them as --limit says, drawn at random and left in order."""
    if settings.limit is None or settings.limit >= len(found):
        return found
    import random

    return found.select(sorted(random.Random(settings.seed).sample(range(len(found)), settings.limit)))


def _fit(work: Work, settings: MonitorSettings) -> Made:
    from interp.analyses.monitoring import fit_monitor

    assert settings.data is not None and settings.alarm is not None
    other = None if settings.negatives is None else _talks(settings.negatives, settings, labelled=False)
    result = fit_monitor(
        work.certified(),
        _talks(settings.data, settings, labelled=True),
        alarm=settings.alarm,
        layers=settings.layers or MIDDLE,
        positions=settings.positions or "",
        pooling=settings.pooling,
        kind=settings.kind or "logistic",
        rate=settings.fpr,
        negatives=other,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )
    result.monitor.save(work.run.begin() / "monitor")
    return Made(result, folders=("monitor",), facts={"data": dict(result.about.data)})


def _watch(work: Work, settings: MonitorSettings) -> Made:
    from interp.analyses.monitoring import Monitor, answer, watch

    assert settings.with_ is not None
    own = Monitor.load(settings.with_)
    model = work.certified()

    def told(line: Any) -> None:
        if not settings.json:
            click.echo(json.dumps(line.to_dict(), ensure_ascii=False))

    if settings.data is not None:
        talks = _talks(settings.data, settings, labelled=False)
        return Made(watch(model, own, talks, on_line=told, batch_size=settings.batch_size))
    assert settings.prompt is not None
    chat = bool(getattr(model.tokenizer, "chat_template", None))
    prompt = [{"role": "user", "content": settings.prompt}] if chat else settings.prompt
    return Made(answer(model, own, [prompt], max_new_tokens=settings.tokens, on_line=told))


def _recipe(work: Work, settings: MonitorSettings) -> Made:
    from interp.analyses.awareness import awareness, bundled

    own = settings.data
    talks = _limited(bundled(), settings) if own is None else _talks(own, settings, labelled=True)
    result = awareness(
        work.certified(),
        talks,
        alarm=settings.alarm or "evaluation",
        layers=settings.layers or QUARTERS,
        positions=settings.positions or "",
        kind=settings.kind or "mean-difference",
        twin=settings.weights != "random",
        steer=settings.steer,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )
    return Made(result, facts={"data": dict(result.about.data)})
