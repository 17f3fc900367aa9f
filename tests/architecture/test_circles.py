"""No module needs itself by way of others: lazy imports and imports for types alone count too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.architecture.syntax import Module, plant, read


def needs(modules: Sequence[Module]) -> dict[str, set[str]]:
    """Module -> the project's modules that it names in an import, wherever it stands."""
    known = frozenset(module.name for module in modules)
    return {
        module.name: {name for _, name in module.imports(known) if name in known and name != module.name}
        for module in modules
    }


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """The groups of modules that reach each other, each as one line (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(" <-> ".join(sorted(group)))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(found)


def test_no_module_needs_itself() -> None:
    found = circles(needs(read()))
    assert not found, "\n" + "\n".join(found)


def test_planted_circles_are_seen_however_they_are_written(tmp_path: Path) -> None:
    modules = plant(
        tmp_path,
        {
            "interp/a.py": "from interp.b import x",
            "interp/b.py": "def f():\n    from interp import c",
            "interp/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from interp.a import x",
            "interp/d.py": "from interp.a import x",
        },
    )
    assert circles(needs(modules)) == ["interp.a <-> interp.b <-> interp.c"]
