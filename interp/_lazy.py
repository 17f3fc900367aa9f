"""Public names of a package, loaded on first use and written once, under ``if TYPE_CHECKING:``."""

from __future__ import annotations

import ast
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import getsource
from types import MappingProxyType
from typing import Any

__all__ = ["exports", "quiet_imports"]

NOISE = {
    "torchao": ("Failed to load ", "Skipping import of cpp extensions "),
    "torchao.kernel.intmm": ("Warning: Detected no triton",),
    "torch.utils._pytree": ("%s is an Enum subclass ",),
    "bitsandbytes.backends.cpu.ops": ("Failed to load CPU gemm_4bit_forward ",),
}
"""Logger -> how the lines begin in which a library says, on any import, which of its parts is not here."""


def exports(
    package: str, renamed: Mapping[str, str] = MappingProxyType({})
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    The names and where they live are read from the imports under ``if TYPE_CHECKING:`` in the package's own
    ``__init__.py``, so that editors, type checkers and the running program see the same list:

        if TYPE_CHECKING:
            from interp.results.shapes import Number as Number

        __getattr__, __dir__, __all__ = exports(__name__)

    ``renamed`` gives old name -> public name: the old one works with a DeprecationWarning, unlisted.
    """
    homes = _homes(ast.parse(getsource(sys.modules[package])))
    names = sorted(homes)

    def load(name: str) -> Any:
        if name in renamed:
            text = f"{package}.{name} is now {package}.{renamed[name]}"
            warnings.warn(f"{text}; the old name goes in the next release.", DeprecationWarning, stacklevel=2)
            name = renamed[name]
        if name not in homes:
            if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
                return import_module(
                    f"{package}.{name}"
                )  # a module that is no public name, asked for in full
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has: {', '.join(names)}.")
        module, original = homes[name]
        # `from interp import tasks` names a module, `from interp.sites import Site` what is in one.
        value = import_module(f"{module}.{original}") if module == package else _in(module, original)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: list(names), names


def quiet_imports() -> None:
    """Drop the lines of NOISE, whoever imports these libraries; what else their loggers say is printed.

    In a notebook tqdm is imported without its warning that ipywidgets are missing: its bars are text then.
    """
    for name, starts in NOISE.items():
        logging.getLogger(name).addFilter(partial(_worth_saying, starts))
    if "ipykernel" in sys.modules and "tqdm.auto" not in sys.modules:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")
            import_module("tqdm.auto")


def _worth_saying(starts: tuple[str, ...], record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(starts)


def _in(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _homes(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Public name -> (module, its name there)."""
    blocks = [one for one in tree.body if isinstance(one, ast.If) and _type_checking(one.test)]
    imports = [one for block in blocks for one in block.body if isinstance(one, ast.ImportFrom)]
    return {
        name.asname or name.name: (str(one.module), name.name)
        for one in imports
        for name in one.names
        if str(one.module).split(".")[0] in ("interp", "probes")
    }


def _type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
