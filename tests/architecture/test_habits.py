"""The habits that a syntax tree shows: short functions, docstrings, safe formats, a silent library."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.architecture.syntax import Module, none, plant, read

LONGEST_FUNCTION, LONGEST_CLASS, LONGEST_FILE = 60, 300, 600
MEDIAN_FUNCTION, NINETIETH_FUNCTION = 8, 35
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "torch.save", "eval", "exec"}
TENSORS_ONLY = ("interp.lenses.files", "interp.features.layouts.dictionary_learning")
"""Where torch.load may be called with weights_only=True: lenses are published so."""
MAY_PRINT = ("interp.cli", "interp.__main__", "interp.demo.train", "interp.demo.evaluate", "interp.demo.edit")


def too_long(modules: Sequence[Module]) -> list[str]:
    """List files, classes and functions over their limit."""
    found = []
    for module in modules:
        if (lines := len(module.text.splitlines())) > LONGEST_FILE:
            found.append(f"{module.name}: {lines} lines")
        for one in module.definitions:
            limit = LONGEST_CLASS if one.kind == "class" else LONGEST_FUNCTION
            if one.lines > limit:
                found.append(f"{module.name}.{one.name}: {one.lines} lines")
    return found


def function_lengths(modules: Sequence[Module]) -> list[int]:
    """Give the lengths of all functions, sorted."""
    return sorted(one.lines for module in modules for one in module.definitions if one.kind == "function")


def unsafe(modules: Sequence[Module]) -> list[str]:
    """List everything that could run code hidden in a file."""
    found = []
    for module in modules:
        found += [
            f"{module.name}:{line} imports {name}"
            for line, name in module.imports()
            if name.split(".")[0] in UNSAFE
        ]
        for line, name, node in module.calls:
            pickled = any(
                word.arg == "allow_pickle" and getattr(word.value, "value", True) for word in node.keywords
            )
            tensors = name == "torch.load" and module.name in TENSORS_ONLY and _weights_only(node)
            if (name in UNSAFE_CALLS and not tensors) or pickled:
                found.append(f"{module.name}:{line} calls {name}")
    return found


def _weights_only(node: ast.Call) -> bool:
    """Whether a call of torch.load says, as a literal, that it takes tensors alone and runs nothing."""
    given = {word.arg: word.value for word in node.keywords}
    return getattr(given.get("weights_only"), "value", None) is True


def printing(modules: Sequence[Module]) -> list[str]:
    """List the print calls of library modules."""
    library = [module for module in modules if not module.name.startswith(MAY_PRINT)]
    return [
        f"{module.name}:{line}" for module in library for line, name, _ in module.calls if name == "print"
    ]


COUNTABLE = {"pairs", "prompts", "examples", "items", "groups", "questions", "mediators", "edges", "findings"}
AT_LEAST_TWO = ("interp.analyses.outputs", "interp.analyses.concepts.result")
"""Modules that print counts of prompts of which they refuse fewer than two."""


def uncounted(modules: Sequence[Module]) -> list[str]:
    """List texts such as ``{len(x)} pairs``, which say "1 pairs"; ``interp.errors.counted`` says "1 pair"."""
    found = []
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.JoinedStr):
                continue
            texts = [part.value if isinstance(part, ast.Constant) else "" for part in ("", *node.values)]
            for before, one, after in zip(texts, node.values, node.values[1:], strict=False):
                if not (isinstance(one, ast.FormattedValue) and isinstance(after, ast.Constant)):
                    continue
                if str(before).endswith("of "):  # 1 of 1 pairs
                    continue
                words = [word.strip(".,;:)") for word in str(after.value).split(" ", 2)]
                number = one.format_spec is not None and ast.unparse(one.format_spec) == "f','"
                number |= isinstance(one.value, ast.Call) and ast.unparse(one.value.func) == "len"
                if number and words[0] == "" and {*words[1:2]} & COUNTABLE:
                    found.append(f"{module.name}:{node.lineno} {ast.unparse(one)}")
    return [text for text in found if not text.startswith(AT_LEAST_TWO)]


def undocumented(modules: Sequence[Module]) -> list[str]:
    """List modules and public names whose docstring is missing or does not start with a sentence."""
    found = [
        module.name
        for module in modules
        if module.text.strip() and not _sentence(ast.get_docstring(module.tree))
    ]
    for module in modules:
        found += [
            f"{module.name}.{one.name}"
            for one in module.definitions
            if one.public and not _sentence(one.docstring)
        ]
    return found


def _sentence(docstring: str | None) -> bool:
    return bool(docstring) and docstring.split("\n\n")[0].rstrip("`").endswith((".", ":", "?", "!"))


def test_files_classes_and_functions_are_short() -> None:
    none(too_long(read()))


def test_most_functions_are_shorter_still() -> None:
    lengths = function_lengths(read())
    assert statistics.median(lengths) <= MEDIAN_FUNCTION
    assert lengths[int(0.9 * len(lengths))] <= NINETIETH_FUNCTION


def test_no_unsafe_format() -> None:
    none(unsafe(read()))


def test_the_library_never_prints() -> None:
    none(printing(read()))


def test_counts_have_a_singular() -> None:
    none(uncounted(read()))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("f'{len(x)} pairs'", 1),
        ("f'{n:,} prompts were run'", 1),
        ("f'{counted(len(x), \"pair\")}'", 0),
        ("f'{name} pairs'", 0),
        ("f'{n} of {len(x)} pairs'", 0),
    ],
)
def test_a_count_without_a_singular_is_seen(text: str, count: int, tmp_path: Path) -> None:
    assert len(uncounted(plant(tmp_path, {"interp/x.py": f"y = {text}"}))) == count


def test_public_things_have_docstrings() -> None:
    none(undocumented(read()))


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION,
        "class C:\n    def f(self):\n" + "        x = 1\n" * LONGEST_FUNCTION,
        "class C:\n" + "    x = 1\n" * LONGEST_CLASS,
        "x = 1\n" * (LONGEST_FILE + 1),
    ],
)
def test_what_is_too_long_is_seen(text: str, tmp_path: Path) -> None:
    assert len(too_long(plant(tmp_path, {"interp/x.py": text}))) == 1


def test_a_docstring_is_not_counted(tmp_path: Path) -> None:
    text = 'def f():\n    """Say it.\n' + "\n" * LONGEST_FUNCTION + '    """\n    return 1\n'
    modules = plant(tmp_path, {"probes/x.py": text})
    assert too_long(modules) == []
    assert function_lengths(modules) == [2]


def test_docstrings_of_methods_are_not_counted_in_a_class(tmp_path: Path) -> None:
    method = '    def f{}(self):\n        """Say it.\n\n        More.\n        """\n        return 1\n'
    text = "class C:\n" + "".join(method.format(i) for i in range(LONGEST_CLASS // 2 - 1))
    assert too_long(plant(tmp_path, {"probes/x.py": text})) == ["probes.x: 895 lines"]
    assert "probes.x.C: 301 lines" in too_long(
        plant(tmp_path, {"probes/x.py": text + "    x = 1\n    y = 2\n"})
    )


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from joblib import dump",
        "import torch\ntorch.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "eval('1')",
    ],
)
def test_a_planted_unsafe_format_is_seen(text: str, tmp_path: Path) -> None:
    assert len(unsafe(plant(tmp_path, {"probes/x.py": text}))) == 1


@pytest.mark.parametrize(
    ("where", "how", "seen"),
    [
        ("interp/lenses/files.py", "weights_only=True", 0),
        ("interp/lenses/files.py", "weights_only=False", 1),
        ("interp/lenses/files.py", "weights_only=not 0", 1),
        ("interp/lenses/base.py", "weights_only=True", 1),
    ],
)
def test_files_of_torch_are_read_in_one_place_without_running_code(
    where: str, how: str, seen: int, tmp_path: Path
) -> None:
    text = f"import torch\ntorch.load('x', {how})"
    assert len(unsafe(plant(tmp_path, {where: text}))) == seen


def test_a_planted_print_is_seen(tmp_path: Path) -> None:
    modules = plant(tmp_path, {"interp/models/x.py": "def f():\n    print(1)", "interp/cli/x.py": "print(1)"})
    assert printing(modules) == ["interp.models.x:2"]


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        '"""Say it."""\ndef f(): ...',
        '"""Say it."""\nclass C:\n    """Say it."""\n    def f(self): ...',
        '"""Say it."""\ndef f():\n    """no sentence"""',
    ],
)
def test_a_missing_docstring_is_seen(text: str, tmp_path: Path) -> None:
    assert len(undocumented(plant(tmp_path, {"interp/x.py": text}))) == 1


def test_private_and_nested_functions_need_no_docstring(tmp_path: Path) -> None:
    public = '"""Say it."""\ndef f():\n    """Say it."""\n    def inner(): ...\n'
    text = f"{public}def _f(): ...\nclass _C:\n    def f(self): ...\n"
    assert undocumented(plant(tmp_path, {"interp/x.py": text})) == []
