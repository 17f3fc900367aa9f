"""An import hook that checks the annotations of every function and dataclass of some packages at run time.

``install("interp", "probes")`` wraps what these packages define: beartype looks at arguments and
returned values. Where an annotation holds a shape of jaxtyping, a call is one scope of axis names: a name
means one size in all arguments and the returned value. The hook of jaxtyping does the same, but makes a
scope for every function and looks at the arguments twice, which makes importing and running several times
slower.

A check is built at the first call, when every name of the module exists. A name that exists for the type
checker only (``if TYPE_CHECKING``) stands for anything; the rest of its annotation is still checked.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, FunctionType, ModuleType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

_NAME = "__checked__"  # what the hooked modules call `checked`
_typed = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def install(*packages: str) -> _Finder:
    """Check what is imported from these packages from now on; none of them may be imported already."""
    early = [name for name in sys.modules if name.partition(".")[0] in packages]
    if early:
        raise RuntimeError(f"imported before their annotations could be checked: {', '.join(sorted(early))}")
    finder = _Finder(packages)
    sys.meta_path.insert(0, finder)
    return finder


def checked(thing: Any) -> Any:
    """A function, or a dataclass with its constructor, whose annotations are checked at every call."""
    if inspect.isclass(thing):
        if is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    if hasattr(thing, _NAME) or not inspect.isfunction(thing):
        return thing
    check: Callable[..., Any] | None = None

    @functools.wraps(thing)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal check
        if check is None:
            check = _check(thing)
        return check(*args, **kwargs)

    setattr(call, _NAME, True)
    return call


def _check(function: FunctionType) -> Callable[..., Any]:
    """The function with its annotations read and enforced; the function itself keeps its own."""
    names = _Names(function.__globals__)
    hints = {name: _read(hint, names) for name, hint in function.__annotations__.items()}
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    copy.__annotations__ = hints
    if inspect.isgeneratorfunction(
        copy
    ):  # arguments are looked at when it is called, not when it is first asked
        copy = _started(copy)
    typed = _typed(copy)
    if not any(_has_shape(hint) for hint in hints.values()):
        return typed

    def scoped(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with jaxtyping.jaxtyped("context"):
            return typed(*args, **kwargs)

    return scoped


def _started(generator: FunctionType) -> Callable[..., Any]:
    """An ordinary function that returns what the generator function returns."""

    @functools.wraps(generator)
    def start(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return generator(*args, **kwargs)

    return start


class _Names(dict[str, Any]):
    """The names that an annotation may use; one that is not there at run time is Any."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def __missing__(self, name: str) -> Any:
        return self.known.get(name, getattr(builtins, name, Any))


def _read(hint: Any, names: _Names) -> Any:
    """The type that an annotation means; Any where what it asks of a missing name makes no sense."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, {}, names)
    except Exception:
        return Any


def _has_shape(hint: Any) -> bool:
    """Whether a type is, or holds, an array type with a shape."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_has_shape(part) for part in get_args(hint))


BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where statements hold statements: a function or class stands nowhere else."""


def _decorate(node: ast.AST) -> None:
    """Put `checked` next to each function, inside its other decorators, and outside those of each class."""
    for block in BLOCKS:
        for inner in getattr(node, block, ()):
            _decorate(inner)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node.decorator_list.append(ast.copy_location(ast.Name(_NAME, ast.Load()), node))
    elif isinstance(node, ast.ClassDef):
        node.decorator_list.insert(0, ast.copy_location(ast.Name(_NAME, ast.Load()), node))


class _Loader(SourceFileLoader):
    """Loads a module with every function and class decorated."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path))
        _decorate(tree)
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[_NAME] = checked
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds the modules of the packages where Python would, and has them loaded with checks."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
