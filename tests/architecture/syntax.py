"""Read the packages as syntax trees: modules, imports, calls, functions. Nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "Definition", "Module", "none", "plant", "read"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("interp", "probes")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A function or class, with its length in lines; docstrings in it are not counted."""

    name: str
    kind: str
    lines: int
    docstring: str | None
    public: bool


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    path: Path
    package: bool

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    def imports(self, known: frozenset[str] = frozenset()) -> Iterator[tuple[int, str]]:
        """Yield (line, module) of every import, wherever it stands; lazy and typing-only ones count too.

        `from a import b` is `a.b` where `known` has such a module, otherwise `a`.
        """
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                for alias in node.names:
                    longer = f"{base}.{alias.name}"
                    yield node.lineno, longer if longer in known else base
            elif isinstance(node, ast.Call):
                yield from _imported_by_call(node)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        here = self.name.split(".") if self.package else self.name.split(".")[:-1]
        base = here[: len(here) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def calls(self) -> list[tuple[int, str, ast.Call]]:
        """The line, the dotted name and the node of every call."""
        return [(node.lineno, _called(node), node) for node in self.nodes if isinstance(node, ast.Call)]

    @cached_property
    def definitions(self) -> list[Definition]:
        """The functions and classes, methods and nested ones included."""
        return list(_definitions(self.tree, prefix="", public=True))


def _called(node: ast.Call) -> str:
    try:
        return ast.unparse(node.func)
    except ValueError:
        return ""


def _imported_by_call(node: ast.Call) -> Iterator[tuple[int, str]]:
    first = node.args[0] if node.args else None
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        return
    if _called(node).split(".")[-1] in ("import_module", "__import__"):
        yield node.lineno, first.value


def _definitions(node: ast.AST, prefix: str, *, public: bool) -> Iterator[Definition]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef):
            yield from _definitions(child, prefix, public=public)
            continue
        seen = public and not child.name.startswith("_") and not isinstance(node, Function)
        kind = "class" if isinstance(child, ast.ClassDef) else "function"
        name = f"{prefix}{child.name}"
        yield Definition(name, kind, _length(child), ast.get_docstring(child), seen)
        yield from _definitions(child, f"{name}.", public=seen and kind == "class")


def _length(node: Function | ast.ClassDef) -> int:
    own = [node, *(child for child in ast.walk(node) if isinstance(child, Function | ast.ClassDef))]
    told = sum(_span(one.body[0]) for one in dict.fromkeys(own) if ast.get_docstring(one) is not None)
    return _span(node) - told


def _span(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def read(root: Path = ROOT) -> list[Module]:
    """List the modules of the packages below a root; of this project they are read once."""
    return list(_own()) if root == ROOT else _below(root)


@cache
def _own() -> tuple[Module, ...]:
    return tuple(_below(ROOT))


def _below(root: Path) -> list[Module]:
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            found.append(Module(".".join(parts[:-1] if is_package else parts), path, is_package))
    return found


def plant(root: Path, files: dict[str, str]) -> list[Module]:
    """Write a small tree of packages, for a test that must see a violation, and read it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read(root)


def none(found: list[str]) -> None:
    """Fail with everything that was found, one to a line."""
    assert not found, "\n" + "\n".join(found)
