"""Put the settings together from where they were given, and remember from where."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from interp.config.choices import suggestion
from interp.config.commands import COMMANDS, FLAG_ONLY, POSITIONAL, Config
from interp.errors import ConfigError

__all__ = ["Resolved", "keys", "resolve"]

PREFIX = "INTERP_"
FILE = "interp.yaml"
TALK = frozenset({"json", "quiet", "verbose", "yes", "out", "overwrite", "resume", "dry_run"})


@dataclass(frozen=True)
class Resolved:
    """Hold the settings of one call and where each came from.

    Attributes:
        command: the command's name.
        settings: the validated settings.
        origins: setting -> ``flag``, ``--set``, a file's name, an environment variable's name or ``default``.
    """

    command: str
    settings: Config
    origins: dict[str, str]

    @property
    def configuration(self) -> dict[str, Any]:
        """Give the settings as a JSON-able dictionary, by their public names."""
        return self.settings.model_dump(mode="json", by_alias=True)

    def command_line(self, *, resume: str | None = None) -> str:
        """Write the shell command that does the same again, wherever the values came from.

        Args:
            resume: the folder of an unfinished run: the command that continues it.
        """
        defaults = type(self.settings).model_fields
        words = ["interp", self.command]
        for key, field in keys(type(self.settings)).items():
            value = getattr(self.settings, field)
            if key in TALK or value == defaults[field].default:
                continue
            words += [str(value)] if key in POSITIONAL else _as_flag(key, value)
        return shlex.join([*words, *(["--out", resume, "--resume"] if resume else [])])


def _as_flag(key: str, value: Any) -> list[str]:
    name = "--" + key.replace("_", "-")
    if isinstance(value, bool):
        return [name if value else name.replace("--", "--no-", 1)]
    if key == "fail_under":
        return [part for item in value for part in (name, item)]
    return [name, ",".join(value) if isinstance(value, tuple) else str(value)]


def keys(model: type[Config]) -> dict[str, str]:
    """Give public name -> field name of a command's settings."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def resolve(
    command: str,
    *,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    config: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str | Path = ".",
) -> Resolved:
    """Put a command's settings together.

    Args:
        command: a key of ``COMMANDS``.
        flags: values given by flag or in the Python call; ``None`` means not given.
        sets: ``key=value`` texts of ``--set``.
        config: a YAML (or JSON) file; a finished run's ``run.json`` works too.
        environment: the environment's variables; ``None`` takes the process's own.
        folder: where ``interp.yaml`` is looked for.

    Raises:
        ConfigError: for an unknown key or a value that is not allowed, naming it, its origin, what is
            allowed and the nearest match.
    """
    model = COMMANDS[command]
    known = keys(model)
    layers = [
        _from_project(Path(folder) / FILE, command, known),
        _from_environment(os.environ if environment is None else environment, known),
        _from_file(config, command, known),
        _from_sets(sets, known),
        {key: (value, "flag") for key, value in (flags or {}).items() if value is not None},
    ]
    merged: dict[str, tuple[Any, str]] = {}
    for layer in layers:
        merged.update(layer)
    origins = {key: merged[key][1] if key in merged else "default" for key in known}
    try:
        settings = model.model_validate({key: value for key, (value, _) in merged.items()})
    except ValidationError as error:
        raise _explained(error, model, origins) from None
    return Resolved(command, settings, origins)


def _from_project(path: Path, command: str, known: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Read ``interp.yaml``: keys for every command, and a block per command that wins over them."""
    if not path.is_file():
        return {}
    content = _yaml(path)
    anywhere = {key for model in COMMANDS.values() for key in keys(model)}
    general = {key: value for key, value in content.items() if key not in COMMANDS}
    _refuse(general, anywhere, path.name)
    own = content.get(command) or {}
    if not isinstance(own, Mapping):
        raise ConfigError(f"{path.name}: {command} must hold settings (key: value), not {own!r}.")
    _refuse(own, known, f"{path.name}, block {command}")
    both = {**{key: value for key, value in general.items() if key in known}, **own}
    return {key: (value, path.name) for key, value in both.items()}


def _from_environment(environment: Mapping[str, str], known: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    given = {
        name[len(PREFIX) :].lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value
    }
    _refuse(given, {key for model in COMMANDS.values() for key in keys(model)}, "the environment (INTERP_*)")
    return {key: (value, PREFIX + key.upper()) for key, value in given.items() if key in known}


def _from_file(path: str | Path | None, command: str, known: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    if path is None:
        return {}
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"--config {str(path)!r} is not a file. Give a YAML file of settings, or a run's run.json."
        )
    content = _yaml(path)
    if "configuration" in content:  # a run.json: the settings of that run
        if content.get("command") != command:
            raise ConfigError(
                f"--config {str(path)!r} is a run of `interp {content.get('command')}`, not of `interp "
                f"{command}`."
            )
        given = {k: v for k, v in content["configuration"].items() if k not in TALK | FLAG_ONLY}
    else:
        given = {key: value for key, value in content.items() if key != "command"}
    _refuse(given, known, str(path))
    return {key: (value, path.as_posix()) for key, value in given.items()}


def _from_sets(sets: Sequence[str], known: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for text in sets:
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set {text!r} has no '='; write --set key=value, for example --set seed=1.")
        found[key.strip().replace("-", "_")] = (value, "--set")
    _refuse(found, known, "--set")
    return found


def _refuse(given: Iterable[str], known: Iterable[str], where: str) -> None:
    known = {key for key in known if key not in POSITIONAL}
    for key in given:
        if key in FLAG_ONLY:
            raise ConfigError(
                f"{key} in {where}: running a model's own code can be allowed by the flag "
                f"--{key.replace('_', '-')} alone."
            )
        if key not in known:
            raise ConfigError(
                f"unknown setting {key!r} in {where}; allowed: "
                f"{', '.join(sorted(known - FLAG_ONLY))}.{suggestion(key, known)}"
            )


class _Loader(yaml.BaseLoader):
    """Read every scalar as text (``8-24`` and ``no`` stay what was typed), and refuse a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {name!r} appears twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path} is not valid YAML{where}: {getattr(error, 'problem', '') or 'unreadable'}."
        ) from error
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} must hold settings, one `key: value` a line, not a {type(content).__name__}."
        )
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _explained(error: ValidationError, model: type[Config], origins: Mapping[str, str]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    name = key if key in POSITIONAL else f"--{key.replace('_', '-')}"
    if first["type"] == "extra_forbidden":
        return ConfigError(
            f"unknown setting {key!r}; allowed: {', '.join(keys(model))}.{suggestion(key, keys(model))}"
        )
    if first["type"] == "missing":
        return ConfigError(f"{name} is missing. See `interp --help`.")
    field = model.model_fields[keys(model)[key]]
    choices = [str(c) for c in get_args(field.annotation) if isinstance(c, str)]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    allowed = str(extra.get("allowed") or ", ".join(choices) or first["msg"].lower())
    value = first["input"] if isinstance(first["input"], str) else str(first["input"])
    origin = "" if origins.get(key) in ("flag", "default", None) else f" (from {origins[key]})"
    return ConfigError(
        f"{name} {value!r}{origin} is not allowed; allowed: "
        f"{allowed}.{suggestion(value, choices or allowed.split(', '))}"
    )
