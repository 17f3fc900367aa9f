"""Put the settings of one call together from where they were given, and remember from where.

Precedence: flag > ``--set key=value`` > ``--config`` file > environment (``INTERP_*``) > ``interp.yaml`` >
default. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from interp.cli.options import PromptSettings, Settings, as_text, keys, read_value, spelling, suggestion
from interp.errors import ConfigError

__all__ = ["Resolved", "resolve"]

PREFIX = "INTERP_"
LIBRARY = ("INTERP_CACHE",)
"""Variables that the library reads itself: they are no settings of a command."""
FILE = "interp.yaml"
LISTED = 50
"""Settings that a message lists; those of all commands together are more."""
HASH = "sha256:"
"""Before the hash of a text that ``--no-text`` kept out of a run."""
Given = dict[str, tuple[Any, str]]
"""Public name -> value and origin."""


@dataclass(frozen=True)
class Resolved:
    """The settings of one call, and where each came from.

    Attributes:
        command: the command's name.
        settings: the settings.
        origins: setting -> ``flag``, ``--set``, a file's name, an environment variable's name or ``default``.
    """

    command: str
    settings: Settings
    origins: dict[str, str]

    @property
    def configuration(self) -> dict[str, Any]:
        """The settings by public name, as JSON holds them: with ``--no-text`` without what a model reads."""
        found = {key: getattr(self.settings, one.name) for key, one in keys(type(self.settings)).items()}
        for key in self._private:
            text = found.pop(key)
            if isinstance(self.settings, PromptSettings):
                found[key] = HASH + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    @property
    def _private(self) -> tuple[str, ...]:
        """The settings that hold a text which ``--no-text`` keeps out of the run."""
        if getattr(self.settings, "text", True):
            return ()
        known = keys(type(self.settings)).items()
        return tuple(
            key for key, one in known if one.metadata["private"] and getattr(self.settings, one.name)
        )

    @property
    def identity(self) -> frozenset[str]:
        """The settings that a run and its continuation must agree on."""
        return frozenset(
            k for k, one in keys(type(self.settings)).items() if one.metadata["part"] == "result"
        )

    def command_line(self, *, resume: str | None = None, kept: bool = False) -> str:
        """The shell command that does the same again, wherever the values came from.

        Args:
            resume: the folder of an unfinished run: the command that continues it.
            kept: it is written into the run: with ``--no-text`` without what a model reads.
        """
        words = ["interp", self.command]
        for one in dataclasses.fields(self.settings):
            value = getattr(self.settings, one.name)
            hidden = kept and one.name.rstrip("_") in self._private
            if one.metadata["part"] == "call" or value == one.default or hidden:
                continue
            words += [str(value)] if one.metadata["given"] == "position" else _as_flag(one, value)
        line = shlex.join([*words, *(["--out", resume, "--resume"] if resume else [])])
        without = ", ".join(self._private) if kept else ""
        return f"{line}  # and {without}, which --no-text kept out" if without else line


def _as_flag(one: dataclasses.Field[Any], value: Any) -> list[str]:
    name = spelling(one)
    if isinstance(value, bool):
        return [name if value else name.replace("--", "--no-", 1)]
    return [name, as_text(value)]


def resolve(
    command: str,
    kinds: Mapping[str, type[Settings]],
    *,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    config: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str | Path = ".",
) -> Resolved:
    """Put a command's settings together.

    Args:
        command: its name.
        kinds: the settings of every command by name: what one of them knows is no error in a shared place.
        flags: values given by flag or in a Python call; ``None`` means not given.
        sets: ``key=value`` texts of ``--set``.
        config: a YAML (or JSON) file; a finished run's ``run.json`` works too.
        environment: the environment's variables; ``None`` takes the process's own.
        folder: where ``interp.yaml`` is looked for.

    Raises:
        ConfigError: for an unknown key or a value that is not allowed, naming it, its origin, what is
            allowed and the nearest match.
    """
    kind = kinds[command]
    known = keys(kind)
    anywhere = {key: one for other in kinds.values() for key, one in keys(other).items()}
    typed = {key: (value, "flag") for key, value in (flags or {}).items() if value is not None}
    merged: Given = {
        **_from_project(Path(folder) / FILE, command, kinds, anywhere),
        **_from_environment(os.environ if environment is None else environment, known, anywhere),
        **_from_file(config, command, known),
        **_from_sets(sets, known),
        **typed,
    }
    if strange := next((key for key in merged if key not in known), None):
        raise ConfigError(
            f"unknown setting {strange!r}; allowed: {', '.join(known)}.{suggestion(strange, known)}"
        )
    hints = typing.get_type_hints(kind)
    values = {
        known[key].name: read_value(known[key], hints[known[key].name], value, origin)
        for key, (value, origin) in merged.items()
    }
    origins = {key: merged[key][1] if key in merged else "default" for key in known}
    return Resolved(command, kind(**values), origins)


def _from_project(
    path: Path, command: str, kinds: Mapping[str, type[Settings]], anywhere: Mapping[str, Any]
) -> Given:
    """Read ``interp.yaml``: keys for every command, and a block per command that wins over them."""
    if not path.is_file():
        return {}
    known = keys(kinds[command])
    content = _yaml(path)
    general = {key: value for key, value in content.items() if key not in kinds}
    _refuse(general, anywhere, path.name)
    own = content.get(command) or {}
    if not isinstance(own, Mapping):
        raise ConfigError(f"{path.name}: {command} must hold settings (key: value), not {own!r}.")
    _refuse(own, known, f"{path.name}, block {command}")
    both = {**{key: value for key, value in general.items() if key in known}, **own}
    return {key: (value, path.name) for key, value in both.items()}


def _from_environment(
    environment: Mapping[str, str], known: Mapping[str, Any], anywhere: Mapping[str, Any]
) -> Given:
    given = {
        name[len(PREFIX) :].lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in LIBRARY and value
    }
    _refuse(given, anywhere, "the environment (INTERP_*)")
    return {key: (value, PREFIX + key.upper()) for key, value in given.items() if key in known}


def _from_file(path: str | Path | None, command: str, known: Mapping[str, Any]) -> Given:
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
        ours = {
            k for k, one in known.items() if one.metadata["part"] == "call" or one.metadata["given"] == "flag"
        }
        ours |= {  # --no-text kept their hash alone
            k
            for k, one in known.items()
            if one.metadata["private"] and str(content["configuration"].get(k)).startswith(HASH)
        }
        given = {k: v for k, v in content["configuration"].items() if k not in ours}
    else:
        given = {key: value for key, value in content.items() if key != "command"}
    _refuse(given, known, str(path))
    return {key: (value, path.as_posix()) for key, value in given.items()}


def _from_sets(sets: Sequence[str], known: Mapping[str, Any]) -> Given:
    found: Given = {}
    for text in sets:
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set {text!r} has no '='; write --set key=value, for example --set seed=1.")
        found[key.strip().replace("-", "_")] = (value, "--set")
    _refuse(found, known, "--set")
    return found


def _refuse(given: Iterable[str], known: Mapping[str, dataclasses.Field[Any]], where: str) -> None:
    """Refuse unknown keys, and keys that may only be given on the command line."""
    allowed = sorted(key for key, one in known.items() if one.metadata["given"] == "anywhere")
    for key in given:
        if key in known and known[key].metadata["given"] == "flag":
            raise ConfigError(
                f"{key} in {where}: running a model's own code can be allowed by the flag "
                f"{spelling(known[key])} alone."
            )
        if key not in allowed:
            few = len(allowed) <= LISTED
            told = f"allowed: {', '.join(allowed)}" if few else "`interp COMMAND --help` lists them"
            raise ConfigError(f"unknown setting {key!r} in {where}; {told}.{suggestion(key, allowed)}")


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
