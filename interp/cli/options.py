"""Settings, declared once: a field is a flag, a YAML key, an environment variable and an argument.

Nothing heavy is imported here, and tables of allowed words are functions, so that ``--help`` stays quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import click

from interp.cli.budget import DEFAULT as DEFAULT_BUDGET
from interp.cli.budget import read_time
from interp.errors import ConfigError

__all__ = [
    "DEFAULT_TASK",
    "GROUPS",
    "ModelSettings",
    "PromptSettings",
    "RunSettings",
    "SchemeSettings",
    "Settings",
    "SizeSettings",
    "as_text",
    "choose",
    "facts_flag",
    "features_flag",
    "flag",
    "keys",
    "layers_flag",
    "options",
    "position",
    "read_value",
    "suggestion",
]

DEFAULT_TASK = "analogy-relation"
GROUPS = ("What", "Model", "Run", "Output")
TRUE = ("true", "yes", "on", "1", "t", "y")
FALSE = ("false", "no", "off", "0", "f", "n")
ABSENT = (None, "null", "~")


def flag(
    default: Any,
    help: str,
    *names: str,
    metavar: str = "TEXT",
    group: str = "What",
    allowed: str | Callable[[], Collection[str]] = "",
    check: Callable[[Any], object] | None = None,
    many: bool = False,
    shown: str = "",
    part: Literal["result", "speed", "call"] = "result",
    given: Literal["anywhere", "flag", "position"] = "anywhere",
    private: bool = False,
) -> Any:
    """Declare one setting.

    Args:
        default: its value where nobody gives one.
        help: one line.
        names: its spellings; ``--`` and the field's name where left out.
        metavar: what stands for the value in help.
        group: the heading under which help shows it.
        allowed: what is allowed, as text for messages; or a function that reads a table of words, called
            when the command runs.
        check: whether a value of the right type is allowed.
        many: the flag may be repeated.
        shown: the default as help shows it, where the value does not say it.
        part: ``result`` changes what is computed; ``speed`` may differ between a run and its continuation;
            ``call`` says how this call talks and where it writes, and is not repeated by another.
        given: ``flag``: never by a file or the environment; ``position``: an argument without a flag.
        private: a text that a model reads: ``--no-text`` keeps it out of the run.
    """
    facts = {"help": help, "names": names, "metavar": metavar, "group": group, "allowed": allowed}
    facts |= {"check": check, "many": many, "shown": shown, "part": part, "given": given}
    facts |= {"private": private}
    return dataclasses.field(default=default, metadata=facts)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How every command talks."""

    configurable: ClassVar[bool] = False
    """Whether --config and --set are taken."""

    json: bool = flag(False, "Print one JSON envelope instead of tables.", group="Output", part="call")
    quiet: bool = flag(False, "No progress, no notes.", "-q", "--quiet", group="Output", part="call")
    verbose: bool = flag(False, "More notes, and tracebacks.", "-v", "--verbose", group="Output", part="call")

    def check(self) -> None:
        """Refuse words that no table holds; a command adds what does not go together.

        Raises:
            ConfigError: naming the flag, the value, what is allowed and the nearest word.
        """
        for one in dataclasses.fields(self):
            value, table = getattr(self, one.name), one.metadata["allowed"]
            if callable(table) and value is not None:
                words = typing.cast(Callable[[], Collection[str]], table)()
                for word in value if isinstance(value, tuple) else (value,):
                    choose(spelling(one), word, words)

    def about(self) -> str:
        """A word for the name of the run folder: the task, the data, the analyses."""
        return ""


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """Which model, and how it is run, at its own precision."""

    configurable: ClassVar[bool] = True

    model: str = flag(
        "demo",
        "demo (bundled), smollm2, a Hugging Face name, a folder or a GGUF file.",
        group="Model",
        metavar="MODEL",
    )
    revision: str | None = flag(None, "Branch, tag or commit on the hub.", group="Model", metavar="REV")
    weights: Literal["trained", "random", "edited", "latent", "latent-shuffled"] = flag(
        "trained",
        "trained, random (same architecture, untrained); demo only: edited, latent, latent-shuffled.",
        group="Model",
        metavar="WHICH",
    )
    adapter: tuple[str, ...] = flag(
        (),
        "A folder of a PEFT adapter that is put on the model; may be repeated, what they add is summed.",
        group="Model",
        metavar="FOLDER",
        many=True,
    )
    backend: Literal["native", "transformer-lens", "nnsight"] = flag(
        "native", "What runs the hooks: native, transformer-lens or nnsight.", group="Model", metavar="NAME"
    )
    device: str = flag(
        "auto",
        "auto, cpu, mps, cuda or cuda:N.",
        group="Model",
        metavar="DEVICE",
        allowed="auto, cpu, mps, cuda or cuda:0",
        check=re.compile(r"auto|cpu|mps|cuda(:\d+)?").fullmatch,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag(
        "auto", "Arithmetic: auto, float32, bfloat16 or float16.", group="Model", metavar="DTYPE"
    )
    batch_size: int | Literal["auto"] = flag(
        "auto",
        "Prompts at a time: auto or a number.",
        group="Model",
        metavar="N",
        allowed="auto, or a whole number from 1",
        check=lambda n: n == "auto" or n >= 1,
        part="speed",
    )
    offline: bool = flag(False, "Never use the network.", group="Model", part="speed")
    trust_remote_code: bool = flag(
        False,
        "Run Python code that comes with the model. By this flag alone.",
        group="Model",
        given="flag",
    )
    seed: int = flag(
        0,
        "Seed of every random choice.",
        group="Run",
        metavar="N",
        allowed="a whole number from 0",
        check=lambda n: 0 <= n < 2**32,
    )


@dataclass(frozen=True, kw_only=True)
class SchemeSettings(ModelSettings):
    """Which model, at which precision of its weights."""

    scheme: str = flag(
        "none",
        "Precision of the weights: none, or a scheme.",
        group="Model",
        metavar="NAME",
        allowed="none, or a name of `interp ls schemes` such as int8",
        check=re.compile(r"[a-z0-9]+(:[a-z0-9_]+)?(-g\d+)?", re.IGNORECASE).fullmatch,
    )

    def check(self) -> None:
        """Refuse an unknown scheme too, and one that needs texts, which only compare takes."""
        super().check()
        if self.scheme == "none":
            return
        from interp.quantization.schemes import Scheme

        if Scheme.parse(self.scheme).needs_calibration:
            raise ConfigError(
                f"--scheme {self.scheme!r} chooses its rounding on texts (calibration), which this command "
                "does not take. Use `interp compare`, or interp.quantization.quantize(model, scheme, "
                "calibration=texts)."
            )


def _tasks() -> Collection[str]:
    from interp.tasks import LABELLED

    return LABELLED


def _is_time(text: str | None) -> bool:
    if text is None:
        return True
    with contextlib.suppress(ValueError):
        read_time(text)
        return True
    return False


def layers_flag(shown: str = "") -> Any:
    """The flag of the layers that are read, all where it is left out; None where another default is shown."""
    return flag(
        None if shown else "all",
        "Layers, counted from 0: 20   8,12   8-24:4   -1   50%   all",
        "--layers",
        "--layer",
        metavar="LAYERS",
        allowed="20, 8,12, 8-24:4, -1, 50% or all",
        many=True,
        shown=shown,
    )


def features_flag() -> Any:
    """The flag of dictionaries whose features are sites of the model."""
    return flag(
        (), "Dictionaries whose features are sites (`interp features`).", metavar="FOLDERS", group="Model"
    )


def facts_flag() -> Any:
    """The flag of a file of facts."""
    text = (
        "Your own facts: a CSV, TSV or JSONL file of subject,relation,answer[,template][,group]; or Google, "
    )
    return flag(None, f"{text}BATS or LRE files.", metavar="FILE")


COUNT = {"allowed": "a whole number from 1", "check": lambda n: n is None or n >= 1, "metavar": "N"}


@dataclass(frozen=True, kw_only=True)
class SizeSettings(Settings):
    """How much a command takes: what is asked for, or what fits a time.

    What the budget chooses becomes the setting ``limit`` (or ``full``) of the run, so that the run's own
    settings, and the command it names, do exactly the same again on any machine.
    """

    limit: int | None = flag(
        None, "Use so many prompts (patch: pairs).", shown="as many as fit --budget", **COUNT
    )
    budget: str | None = flag(
        None,
        "About how long it may take on this machine, by a measured forward pass: 60s, 5m, 1h or off.",
        metavar="TIME",
        group="Run",
        allowed="a time such as 60s, 5m or 1h, or off",
        check=_is_time,
        shown=f"{DEFAULT_BUDGET}, and your own data whole",
        part="speed",
    )
    full: bool = flag(False, "The whole size, however long it takes.", group="Run", part="speed")

    def shared_out(self, shares: tuple[float, float, float]) -> tuple[int, int, int] | None:
        """--limit in prompts for training, validation and test, one at least of each; None without it."""
        if self.limit is None:
            return None
        train, held, test = (max(1, round(self.limit * share)) for share in shares)
        return train, held, test

    @property
    def given(self) -> tuple[str, ...]:
        """The flags that say how much is taken."""
        return tuple(name for name in ("full", "limit") if getattr(self, name))

    def check(self) -> None:
        """Refuse two sizes."""
        super().check()
        if len(self.given) > 1:
            raise ConfigError(
                f"{' and '.join(f'--{name}' for name in self.given)} exclude each other. Give one."
            )


@dataclass(frozen=True, kw_only=True)
class RunSettings(SizeSettings):
    """What a command that leaves a run folder does with it."""

    out: str | None = flag(None, "The folder or file to write.", group="Run", metavar="PATH", part="call")
    overwrite: bool = flag(False, "Replace the run in --out.", group="Run", part="call")
    resume: bool = flag(False, "Continue the unfinished run in --out.", group="Run", part="call")
    dry_run: bool = flag(
        False, "Print the plan (tokens, memory, disk) and write nothing.", group="Run", part="call"
    )
    yes: bool = flag(False, "Answer yes to every question.", group="Run", part="call")

    def check(self) -> None:
        """Refuse to resume nothing."""
        super().check()
        if self.resume and self.out is None and not self.overwrite:
            raise ConfigError("--resume needs --out, the folder of the unfinished run (`interp ls runs`).")


@dataclass(frozen=True, kw_only=True)
class PromptSettings(RunSettings, SchemeSettings):
    """Prompts of a bundled task or of a file, read by a model, into a run folder."""

    task: str | None = flag(
        None, "A bundled task (`interp ls tasks`).", metavar="NAME", allowed=_tasks, shown=DEFAULT_TASK
    )
    data: str | None = flag(
        None,
        "Your own prompts: CSV, TSV, JSONL or parquet of text,label[,group]; a file or a folder.",
        metavar="FILE",
    )
    text: bool = flag(
        True, "Keep the prompts' text in the run, or only its hash.", "--text/--no-text", group="Run"
    )

    def check(self) -> None:
        """Refuse a task and a file at once."""
        super().check()
        if self.data is not None and self.task is not None:
            raise ConfigError(
                f"--task {self.task!r} and --data {self.data!r} exclude each other. Give one of them."
            )

    def about(self) -> str:
        """The name of the prompts."""
        if self.data is None:
            return self.task or DEFAULT_TASK
        path = Path(self.data)
        return path.parent.name if "*" in path.name else path.stem


def keys(kind: type[Settings]) -> dict[str, dataclasses.Field[Any]]:
    """The settings of a command by public name, its own before those it shares."""
    found = {one.name: one for one in dataclasses.fields(kind)}
    names = [name for part in kind.__mro__ for name in inspect.get_annotations(part) if name in found]
    return {name.rstrip("_"): found[name] for name in dict.fromkeys(names)}


def spelling(one: dataclasses.Field[Any]) -> str:
    """How a setting is written on the command line."""
    name = one.name.rstrip("_")
    return name.upper() if one.metadata["given"] == "position" else f"--{name.replace('_', '-')}"


def options(kind: type[Settings]) -> list[click.Parameter]:
    """The click parameters of a command, made from its settings."""
    made: list[click.Parameter] = []
    for key, one in keys(kind).items():
        facts = one.metadata
        if facts["given"] == "position":
            needed = one.default is dataclasses.MISSING
            several = isinstance(one.default, tuple)
            name = f"[{key.upper()}]..." if several else key.upper() if needed else None
            made.append(click.Argument([key], metavar=name, required=needed, nargs=-1 if several else 1))
            continue
        default = facts["shown"] or as_text(one.default)
        if facts["names"] == ("--text/--no-text",):
            default = "--text"
        text = facts["help"] + (f"  [default: {default}]" if default else "")
        names = [key, *(facts["names"] or (spelling(one),))]
        if isinstance(one.default, bool):
            made.append(click.Option(names, is_flag=True, default=None, help=text))
        else:
            made.append(click.Option(names, metavar=facts["metavar"], multiple=facts["many"], help=text))
    if kind.configurable:
        help_text = "Settings from a YAML file, or from a run's run.json."
        made.append(click.Option(["config", "--config"], metavar="FILE", help=help_text))
        help_text = "One setting, such as --set seed=1."
        made.append(click.Option(["set", "--set"], metavar="KEY=VALUE", multiple=True, help=help_text))
    return made


def as_text(value: Any) -> str:
    """A value as it is typed; nothing for what is off or absent."""
    if value is None or isinstance(value, bool):
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def read_value(one: dataclasses.Field[Any], hint: Any, value: Any, origin: str) -> Any:
    """Read a value of the declared type from text, a list of texts or a Python value.

    Raises:
        ConfigError: when it is not allowed, naming the setting, the value, where it came from and what is
            allowed.
    """
    facts = one.metadata
    arms = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if types.NoneType in arms and (value in ABSENT or (value == "" and str in arms)):
        return None
    for arm in arms:
        with contextlib.suppress(TypeError, ValueError):
            found = _read_as(arm, value, many=facts["many"])
            if (found != "" or one.default == "") and (facts["check"] is None or facts["check"](found)):
                return found
    choices = [word for arm in arms if typing.get_origin(arm) is Literal for word in typing.get_args(arm)]
    told = facts["allowed"] if isinstance(facts["allowed"], str) else ""
    told = told or ", ".join(choices) or ("true or false" if hint is bool else "text")
    place = "" if origin in ("flag", "default") else f" (from {origin})"
    near = suggestion(str(value), choices or told.split(", "))
    raise ConfigError(f"{spelling(one)} {str(value)!r}{place} is not allowed; allowed: {told}.{near}")


def _read_as(kind: Any, value: Any, *, many: bool) -> Any:
    """Read a value as one type; a ValueError or TypeError says that it is not of it."""
    if typing.get_origin(kind) is tuple:
        texts = (value,) if isinstance(value, str) else value
        return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)[typing.get_args(kind).index(value)]
    if kind is bool:
        return (*FALSE, *TRUE).index(str(value).lower()) >= len(FALSE)
    if kind is str and many and isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if kind is types.NoneType or not isinstance(value, str | int) or isinstance(value, bool):
        raise TypeError
    return kind(value)


def suggestion(value: str, allowed: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest allowed word, or nothing when none is near."""
    known = {word.casefold(): word for word in allowed}
    near = difflib.get_close_matches(value.casefold(), known, n=1, cutoff=0.6)
    return f" Did you mean {known[near[0]]!r}?" if near else ""


def choose(name: str, value: str, allowed: Iterable[str]) -> str:
    """The value, if it is allowed.

    Raises:
        ConfigError: for another one, naming the setting, the value, what is allowed and the nearest match.
    """
    allowed = tuple(allowed)
    if value in allowed:
        return value
    listed = ", ".join(allowed) if allowed else "nothing yet"
    raise ConfigError(f"{name} {value!r} is not known; allowed: {listed}.{suggestion(value, allowed)}")


def position(flag: str, text: str, words: Collection[str]) -> str | int:
    """A position that was typed: one of some words, a token's index, or a selector.

    Raises:
        ConfigError: for anything else.
    """
    if text in words:
        return text
    with contextlib.suppress(ValueError):
        return int(text)
    from interp.conversations import parse

    try:
        return str(parse(text))
    except ConfigError as error:
        allowed = f"{', '.join(words)}, an index such as 0 or -2, or a selector"
        raise ConfigError(f"{flag} {text!r} is not a position; allowed: {allowed}. {error}") from None
