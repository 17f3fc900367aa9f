"""What every command goes through: settings, dry run, run folder, model, writing, report, gates."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from interp.cli.budget import DEFAULT as DEFAULT_BUDGET
from interp.cli.budget import Job, choose_size, in_words, pass_seconds, read_time
from interp.cli.options import (
    DEFAULT_TASK,
    GROUPS,
    ModelSettings,
    PromptSettings,
    RunSettings,
    Settings,
    SizeSettings,
    choose,
    keys,
    options,
)
from interp.cli.session import CHOSEN, Outcome, Session, quiet
from interp.errors import ConfigError, GateError, InterpError, counted

if TYPE_CHECKING:
    import pandas

    from interp.models import Model
    from interp.models.certificate import Certificate
    from interp.results import Result
    from interp.runs import RunFolder
    from interp.tasks import Labelled

__all__ = [
    "Command",
    "ExamplesFirst",
    "Made",
    "Work",
    "about_data",
    "about_model",
    "command",
    "failed_gate",
    "load_model",
    "prompt_job",
    "prompt_table",
    "read_gates",
    "read_prompts",
]

CHECKS = 150
"""Passes of one prompt that the checks of the model take, roughly."""
EXCHANGED = 2.0
"""How many times the budget the least size must take before something quicker is done instead."""
S = TypeVar("S", bound=Settings)
Z = TypeVar("Z", bound=SizeSettings)


@dataclass(frozen=True)
class Made:
    """What a command made: a result, and what the run folder keeps beside it.

    Attributes:
        result: written into ``result/``; its tables, figures and numbers into files that anyone can read.
        tables: more of them: file name -> DataFrame, written as parquet.
        folders: that the command itself has written into the run folder.
        kept: parts of the result that it has written there, which the result then names: path -> part.
        facts: for ``run.json``, beside those about the model.
        more: for the envelope of ``--json`` alone.
        error: a failure that still leaves a whole run.
    """

    result: Result
    tables: Mapping[str, pandas.DataFrame] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    kept: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    error: InterpError | None = None


class Work:
    """What a command works with: the session, and a model that is loaded and checked when it is asked for."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.session, self.settings = session, settings

    @property
    def run(self) -> RunFolder:
        """The run folder that this command has claimed."""
        assert self.session.run is not None
        return self.session.run

    @cached_property
    def model(self) -> Model:
        """The model that the settings name, at their precision."""
        assert isinstance(self.settings, ModelSettings)
        return self.load(self.settings, getattr(self.settings, "scheme", "none"))

    @cached_property
    def certificate(self) -> Certificate:
        """What the checks of the model found; a failed one becomes a warning that the run carries."""
        from interp.models import doctor

        model = self.model
        self.session.pulse.phase(f"checking {model.name}")
        certificate = doctor.examine(model)
        self.session.pulse.phase(f"interp {self.session.command}: working")
        for check in certificate.failures:
            self.session.warn(
                f"the model fails the check '{check.name}' ({check.detail or check.value}): do not trust "
                f"these numbers"
            )
        return certificate

    def certified(self) -> Model:
        """Check the model before it is used, and give it."""
        assert self.certificate is not None
        return self.model

    def sized(self, settings: Z, job: Callable[[], Job], *, own: bool = False) -> Z:
        """The settings with a size that fits the budget, where nobody asked for one; says what was chosen.

        Args:
            settings: of the command.
            job: what it takes and costs; asked only where it is needed.
            own: the user's own items: they are left out for time only where a budget was asked for.
        """
        budget, session = read_time(settings.budget or DEFAULT_BUDGET), self.session
        if settings.given or budget is None:
            return settings
        found = job()
        each = pass_seconds(self.model, found.texts, getattr(settings, "batch_size", "auto"))
        left = max(budget - session.worked - CHECKS * each, budget / 4)
        chosen = choose_size(found, each, left)
        if chosen.seconds > EXCHANGED * budget and found.otherwise is not None:
            words, instead, other = found.otherwise()
            session.note(f"{found.shown(chosen.n)} would take about {in_words(chosen.seconds)}: {words}")
            settings, found = session.settle(settings, **instead), other
            chosen = choose_size(found, each, left)
        whole, takes = found.shown(found.whole), in_words(chosen.whole_seconds)
        if chosen.n == found.whole:
            session.note(f"{whole}: about {takes}")
            return session.settle(settings, full=True)
        fewer, lasts = found.shown(chosen.n), in_words(chosen.seconds)
        if own and settings.budget is None:
            session.note(f"{whole}: about {takes} ({fewer}: about {lasts}; --limit or --budget take fewer)")
            return session.settle(settings, full=True)
        least = ", the fewest that say anything" if chosen.seconds > budget else ""
        session.note(
            f"{whole} would take about {takes}; using {fewer} (about {lasts}{least}). "
            f"--full for all, --budget for another time than {settings.budget or DEFAULT_BUDGET}"
        )
        return session.settle(settings, **found.settings(chosen.n))

    def load(self, settings: ModelSettings, scheme: str = "none") -> Model:
        """Load the model that settings name, quantize it if asked, and say what it is."""
        self.session.pulse.phase(f"loading {settings.model}", now=True)
        model = load_model(settings, scheme)
        if model.dictionaries:
            self.session.note(f"features: {', '.join(map(repr, model.dictionaries.values()))}")
        if scheme != "none":
            self.session.note(f"quantized: {model.quantization!r}")
        self.session.note(f"model: {model!r}")
        for warning in model.warnings:
            self.session.warn(warning)
        self.session.pulse.phase(f"interp {self.session.command}: working")
        return model


def load_model(settings: ModelSettings, scheme: str = "none") -> Model:
    """The model that settings name, with their dictionaries, quantized if asked."""
    import interp.models

    model = interp.models.load(
        settings.model,
        weights=settings.weights,
        device=settings.device,
        dtype=settings.dtype,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
        adapter=settings.adapter or None,
        backend=settings.backend,
    )
    if places := getattr(settings, "features", ()):
        from interp.features import load_all

        model = model.with_dictionaries(*(one for place in places for one in load_all(place)))
    if scheme != "none":
        from interp.quantization import quantize

        model = quantize(model, scheme)
    return model


class ExamplesFirst:
    """Help that shows examples before the options."""

    examples: tuple[str, ...] = ()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, then what it does, usage and options."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        self.format_help_text(ctx, formatter)  # type: ignore[attr-defined]
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)  # type: ignore[attr-defined]
        self.format_options(ctx, formatter)  # type: ignore[attr-defined]


class Command(ExamplesFirst, click.Command):
    """A command: its settings, and what runs with them."""

    def __init__(
        self, name: str, kind: type[Settings], examples: tuple[str, ...], run: Callable[..., None]
    ) -> None:
        super().__init__(name, help=kind.__doc__, params=options(kind), callback=lambda **_: run())
        self.kind, self.examples = kind, examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group."""
        groups = {key: one.metadata["group"] for key, one in keys(self.kind).items()}
        groups = {**groups, "config": "Run", "set": "Run"}
        shown = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        rows = [(groups.get(str(one.name), GROUPS[-1]), one.get_help_record(ctx)) for one in shown]
        for group in GROUPS:
            if found := [row for place, row in rows if row and place == group]:
                with formatter.section(group):
                    formatter.write_dl(found)


def command(
    kind: type[S], *, examples: tuple[str, ...], plan: Callable[[Work, S], Outcome] | None = None
) -> Callable[[Callable[[Work, S], Outcome | Made]], Command]:
    """Make a click command of a function.

    Args:
        kind: its settings. With :class:`RunSettings` the function runs in a claimed run folder and gives what
            is written there; else it gives what is printed.
        examples: lines that can be typed.
        plan: says what a run would take, for ``--dry-run``.
    """

    def decorate(run: Callable[[Work, S], Outcome | Made]) -> Command:
        def callback() -> None:
            context = click.get_current_context()
            _execute(context.obj, run.__name__, context.params, run, plan)

        return Command(run.__name__, kind, examples, callback)

    return decorate


def _execute(
    session: Session,
    name: str,
    params: Mapping[str, Any],
    run: Callable[[Work, Any], Outcome | Made],
    plan: Callable[[Work, Any], Outcome] | None,
) -> None:
    """Put the settings together, run a command with libraries kept quiet, and print what it came to."""
    from interp.cli.sources import resolve

    session.command = name
    flags = {key: value for key, value in params.items() if key not in ("config", "set") and value != ()}
    session.resolved = resolve(
        name, session.kinds(), flags=flags, sets=params.get("set") or (), config=params.get("config")
    )
    settings = session.resolved.settings
    session.as_json, session.quiet, session.verbose = settings.json, settings.quiet, settings.verbose
    if session.quiet:
        session.pulse.stop()
    with quiet(session, offline=isinstance(settings, ModelSettings) and settings.offline):
        settings.check()
        session.pulse.phase(f"interp {name}: starting", now=isinstance(settings, ModelSettings))
        work = Work(session, settings)
        if not isinstance(settings, RunSettings):
            outcome = run(work, settings)
        elif settings.dry_run and plan is not None:
            outcome = plan(work, settings)
        else:
            with _claim(session, settings):
                work.settings = settings = session.resolved.settings
                outcome = _finish(work, run(work, settings))
        assert isinstance(outcome, Outcome)
        session.end(outcome)
    if outcome.error is not None:
        raise outcome.error


def _claim(session: Session, settings: RunSettings) -> RunFolder:
    """Claim the run folder of a command; at a terminal, ask before a finished run is replaced."""
    from interp.runs import RunFolder
    from interp.runs.integrity import state

    settings = _continued(session, settings)
    resolved = session.resolved
    assert resolved is not None
    replaces = settings.overwrite and settings.out is not None and state(Path(settings.out)) == "finished"
    asks = replaces and not settings.yes and sys.stdin.isatty()
    if asks and not click.confirm(f"Replace the run in {settings.out}?", err=True):
        raise ConfigError(f"--overwrite: {settings.out!r} was left as it is. Choose another --out.")
    session.run = RunFolder.create(
        settings.out,
        resolved.command,
        resolved.configuration,
        identity=resolved.identity,
        origins=resolved.origins,
        task=settings.about(),
        overwrite=settings.overwrite,
        resume=settings.resume,
    )
    return session.run


def _continued(session: Session, settings: RunSettings) -> RunSettings:
    """The settings with the size that the budget chose for the run that is continued."""
    from interp.results import read_json
    from interp.runs.integrity import RUN, state

    if settings.given or not settings.resume or settings.out is None:
        return settings
    path = Path(settings.out)
    before = read_json(path / RUN) if state(path) == "unfinished" else {}
    given = {
        name: before["configuration"][name]
        for name, origin in before.get("origins", {}).items()
        if origin == CHOSEN
    }
    return session.settle(
        settings, **{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    )


def _finish(work: Work, made: Outcome | Made) -> Outcome:
    """Write what a command made, and its report; look at the gates."""
    from interp.report import terminal
    from interp.report.document import document
    from interp.report.page import write

    assert isinstance(made, Made)
    session, run = work.session, work.run
    result = _keep(work, made)
    _end(work, made.facts)
    facts = {**run.facts, "path": run.path.as_posix()}
    shown = document(result, facts)
    page = write(run.path, shown)

    def show() -> None:
        terminal.write(shown)
        session.say(f"run: {run.path}   report: {page}")

    found = {one.name: one.value for one in result.numbers()}
    gates = read_gates(getattr(work.settings, "fail_under", ()), found)
    data = {**result.summary(), "certificate": {"passed": work.certificate.passed}, **made.more}
    error = made.error or failed_gate(gates, found)
    return Outcome(data, show, run=run.path, artifacts=(*run.artifacts, page.name), error=error)


def _keep(work: Work, made: Made) -> Result:
    """Write a result: as it is, and as tables, figures and numbers that anyone can read.

    Returns:
        The result as it was written: with ``--no-text`` it has no prompts.
    """
    from interp import results
    from interp.report.figures import drawing
    from interp.report.page import figure_page

    session, run, result = work.session, work.run, made.result
    session.pulse.phase("writing the run and its report")
    for text in result.warnings:
        session.warn(text, aloud=session.as_json)  # else the printed document ends with them
    text = getattr(work.settings, "text", True)
    kept = {f"../{path}": part for path, part in made.kept.items()}
    result.save(run.begin() / "result", text=text, kept=kept)
    if not text:
        result = results.load(run.path / "result")
    for name in dict.fromkeys(("result", *made.folders, *(path.partition("/")[0] for path in made.kept))):
        run.add(name)
    run.write_json("metrics.json", result.summary())
    for one in result.tables():
        run.write_table(f"tables/{one.name}.parquet", one.frame())
    for name, table in made.tables.items():
        run.write_table(name, table)
    for one in result.figures():
        figure = drawing(one)
        run.write_text(f"figures/{one.name}.svg", figure.svg())
        run.write_text(f"figures/{one.name}.html", figure_page(figure))
    return result


def _end(work: Work, facts: Mapping[str, Any]) -> None:
    """Close the run with what it was made of."""
    from interp.results.codec import to_json

    work.run.finish(
        model=about_model(work.model),
        certificate={"passed": work.certificate.passed, "result": to_json(work.certificate)},
        **facts,
        command_line=work.session.line,
        warnings=work.session.warnings,
    )


def about_model(model: Model) -> dict[str, Any]:
    """What ``run.json`` says about a model."""
    from interp.models.peft_adapters import active

    return {
        "name": model.name,
        "weights": model.weights,
        "family": model.hf.config.model_type,
        "layers": model.n_layers,
        "width": model.d_model,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "fingerprint": model.fingerprint,
        "tokenizer_fingerprint": model.tokenizer_fingerprint,
        "adapters": list(active(model.hf)),
        "scheme": model.scheme,
        "quantization": None if model.quantization is None else model.quantization.to_dict(),
        "commit": getattr(model.hf.config, "_commit_hash", None),
    }


def about_data(data: Labelled) -> dict[str, Any]:
    """What ``run.json`` says about the prompts."""
    return data.described


def prompt_table(data: Labelled, token_ids: Sequence[Sequence[int]], *, keep_text: bool) -> pandas.DataFrame:
    """``data.parquet``: one row per prompt; without the text, its sha256."""
    import pandas

    data = data if keep_text else data.redacted()
    return pandas.DataFrame(
        {
            "row": range(len(data)),
            "text" if keep_text else "text_sha256": list(data.texts),
            "label": list(data.labels),
            "group": list(data.groups),
            "split": list(data.splits),
            "token_ids": [list(ids) for ids in token_ids] if keep_text else [[] for _ in token_ids],
            "n_tokens": [len(ids) for ids in token_ids],
        }
    )


def read_prompts(work: Work, settings: PromptSettings) -> Labelled:
    """Read the prompts that --task or --data names; without either, the default task."""
    data = _prompts(settings)
    work.session.note(
        f"data: {data.name}, {counted(len(data), 'prompt')}, {counted(len(set(data.labels)), 'label')}, "
        f"{counted(len(set(data.groups)), 'group')}"
    )
    return data


def _prompts(settings: PromptSettings) -> Labelled:
    from interp import tasks

    if settings.data is not None:
        data = tasks.read_labelled(settings.data)
        return data if settings.limit is None else data.limit(settings.limit, seed=settings.seed)
    name = settings.task or DEFAULT_TASK
    whole = tasks.LABELLED[name].n
    return tasks.labelled(name, n=min(settings.limit or whole, whole), seed=settings.seed)


def prompt_job(settings: PromptSettings, passes: float, least: int = 1) -> Job:
    """What a command on prompts takes.

    Args:
        settings: whose prompts, all of them.
        passes: whole forward passes for each.
        least: the fewest that say anything.
    """
    prompts = _prompts(settings).prompts
    return Job(
        whole=len(prompts),
        least=min(least, len(prompts)),
        texts=prompts,
        passes=lambda n: passes * n,
        shown=lambda n: f"{counted(n, 'prompt')}",
    )


def read_gates(texts: Sequence[str], metrics: Iterable[str]) -> dict[str, float]:
    """Read ``metric=value`` texts.

    Raises:
        ConfigError: an unknown metric, or a value that is no number.
    """
    metrics = tuple(metrics)
    gates: dict[str, float] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(
                f"--fail-under {text!r} has no '='; write metric=value, such as {metrics[0]}=0.8. "
                f"Metrics: {', '.join(metrics)}."
            )
        gates[choose("--fail-under", name.strip(), metrics)] = _number(text, value)
    return gates


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(
            f"--fail-under {text!r}: {value!r} is not a number. Write metric=value, such as accuracy=0.8."
        )
    return number


def failed_gate(gates: Mapping[str, float], found: Mapping[str, float | int | None]) -> GateError | None:
    """The error of the first metric that is lower than asked (or was not measured), or ``None``."""
    for name, least in gates.items():
        value = found.get(name)
        if value is None or not value >= least:
            shown = "was not measured" if value is None else f"is {value:.4g}"
            return GateError(
                f"--fail-under {name}={least:g}: {name} {shown}. The run is complete; its gate failed."
            )
    return None
