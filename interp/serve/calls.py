"""A call of the library as a value: it can be run, and it can be written as the Python that runs it.

What the explorer computes and what it gives to copy are the same value, so that they cannot differ.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from interp.errors import ConfigError

__all__ = ["MODEL", "Call", "Loaded", "Recipe"]


class _Model:
    """What stands for the model in a call."""

    def __repr__(self) -> str:
        return "model"


MODEL = _Model()


@dataclass(frozen=True)
class Call:
    """A function of the library with its arguments.

    Attributes:
        function: its full name, such as ``interp.lenses.view``; ``model.generate`` for a method of the model.
        arguments: plain values, ``MODEL``, or calls whose values they are.
        options: the same by keyword.
    """

    function: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, model: Any) -> Any:
        """Call it.

        Args:
            model: what stands for ``MODEL``.
        """
        module, _, name = self.function.rpartition(".")
        home = model if module == "model" else _home(module)
        given = {key: _value(one, model) for key, one in self.options.items()}
        return getattr(home, name)(*(_value(one, model) for one in self.arguments), **given)

    def __repr__(self) -> str:
        """The expression, with names as the imports of :meth:`imports` bring them."""
        parts = [repr(one) for one in self.arguments]
        parts += [f"{key}={one!r}" for key, one in self.options.items()]
        module, _, name = self.function.rpartition(".")
        head = f"{module}.{name}" if module == "model" else ".".join(self.function.split(".")[-self._depth :])
        return f"{head}({', '.join(parts)})"

    @property
    def _depth(self) -> int:
        """How many parts of the name are written: two for a method of a class."""
        return 2 if self.function.split(".")[-2][:1].isupper() else 1

    def imports(self) -> Iterator[str]:
        """The import lines of it and of the calls in it."""
        parts = self.function.split(".")
        if parts[0] != "model":
            cut = len(parts) - self._depth
            yield f"from {'.'.join(parts[:cut])} import {parts[cut]}"
        for one in (*self.arguments, *self.options.values()):
            for inner in one if isinstance(one, list | tuple) else (one,):
                if isinstance(inner, Call):
                    yield from inner.imports()


def _home(module: str) -> Any:
    """A module of ours, or a class in one."""
    outer, _, last = module.rpartition(".")
    return getattr(import_module(outer), last) if last[:1].isupper() else import_module(module)


def _value(one: Any, model: Any) -> Any:
    if one is MODEL:
        return model
    if isinstance(one, Call):
        return one.run(model)
    return type(one)(_value(part, model) for part in one) if isinstance(one, list | tuple) else one


@dataclass(frozen=True)
class Loaded:
    """How the model was loaded: what a copied line needs to load it again.

    Attributes:
        model: its name.
        options: arguments of ``interp.load`` other than the defaults.
        scheme: precision of the weights.
        features: folders of dictionaries.
        probes: folders of saved probes that a view may read; no other is.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    scheme: str = "none"
    features: Sequence[str] = ()
    probes: Sequence[str] = ()

    def chosen(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """A request with the folder of the probe that it names; no other place is ever read.

        Args:
            request: of a view.

        Raises:
            ConfigError: there is none of that name.
        """
        if request.get("colour") != "probe":
            return request
        asked = request["probe"].strip()
        found = [one for one in self.probes if asked in ("", one, Path(one).name)]
        if not found:
            known = ", ".join(self.probes) or "none: start `interp serve --probes FOLDER`"
            raise ConfigError(f"probe {asked!r:.80} asked; there are: {known}.")
        return {**request, "probe": found[0]}

    def load(self) -> Any:
        """Load it."""
        from interp.models import load

        model = load(self.model, **self.options)
        if self.features:
            from interp.features import load_all

            model = model.with_dictionaries(*(one for place in self.features for one in load_all(place)))
        if self.scheme != "none":
            from interp.quantization import quantize

            model = quantize(model, self.scheme)
        return model

    def python(self) -> list[str]:
        """The lines that load it."""
        given = "".join(f", {key}={value!r}" for key, value in self.options.items())
        lines = [f"model = interp.load({self.model!r}{given})"]
        if self.features:
            lines.insert(0, "from interp.features import load_all")
            parts = ", ".join(f"*load_all({place!r})" for place in self.features)
            lines.append(f"model = model.with_dictionaries({parts})")
        if self.scheme != "none":
            lines.insert(0, "from interp.quantization import quantize")
            lines.append(f"model = quantize(model, {self.scheme!r})")
        return lines

    def flags(self) -> list[str]:
        """The same as flags of a command."""
        found = [] if self.model == "demo" else ["--model", self.model]
        for key, value in self.options.items():
            flag = f"--{key.replace('_', '-')}"
            for one in value if isinstance(value, tuple | list) else (value,):
                found += [flag] if one is True else [flag, str(one)]
        found += ["--features", ",".join(self.features)] if self.features else []
        return found + ([] if self.scheme == "none" else ["--scheme", self.scheme])


@dataclass(frozen=True)
class Recipe:
    """How a view is made: by a call, and by a command.

    Attributes:
        call: what is computed.
        command: words of the command behind ``interp``, the flags of the model left out; () for none.
        file: a file that the command reads: its name, and its one line.
        without: why there is no command.
        notes: what was chosen, and what it can show: sentences.
    """

    call: Call
    command: tuple[str, ...] = ()
    file: tuple[str, str] | None = None
    without: str = ""
    notes: Sequence[str] = ()

    def python(self, loaded: Loaded) -> str:
        """Python that computes it from nothing."""
        lines = loaded.python()
        imports = sorted({*self.call.imports(), *(line for line in lines if line.startswith("from "))})
        rest = [line for line in lines if not line.startswith("from ")]
        shown = ["print(result.verdict())", "result.table()"]
        return "\n".join(["import interp", *imports, "", *rest, f"result = {self.call!r}", *shown, ""])

    def shell(self, loaded: Loaded) -> str:
        """The command that computes it; "" where there is none."""
        if not self.command:
            return ""
        name, *rest = self.command
        line = shlex.join(["interp", name, *loaded.flags(), *rest])
        if self.file is None:
            return line
        place, content = self.file
        return f"printf '%s\\n' {shlex.quote(content)} > {shlex.quote(place)}\n{line}"
