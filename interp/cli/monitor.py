"""``interp monitor``: fit a monitor of conversations, watch messages or an answer with it, run a recipe."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from interp.cli.frame import Made, Work, command
from interp.cli.options import COUNT, RunSettings, SchemeSettings, flag, layers_flag
from interp.errors import ConfigError

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
        if self.steer and self.recipe is None:
            raise ConfigError("--steer belongs to --recipe evaluation-awareness; leave it out.")

    def about(self) -> str:
        """What is done."""
        return self.recipe or ("watch" if self.with_ else "fit")


@command(MonitorSettings, examples=EXAMPLES)
def monitor(work: Work, settings: MonitorSettings) -> Made:
    """Fit, watch, or run the recipe."""
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
