"""A module imports from its own floor or lower; third-party packages stay in their rooms."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.floors import DISTRIBUTIONS, INDIRECT, ROOMS, floor, third_party, upward
from tests.architecture.syntax import ROOT, none, plant, read

STANDARD = frozenset(sys.stdlib_module_names)


def test_nothing_points_up() -> None:
    none(upward(read()))


def test_third_party_packages_stay_in_their_rooms() -> None:
    none(third_party(read(), STANDARD))


def test_every_third_party_package_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {line.split(">")[0].split("=")[0].split("<")[0].strip() for line in project["dependencies"]}
    used = {DISTRIBUTIONS.get(name, name) for name in ROOMS if name not in INDIRECT}
    assert used <= declared


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("interp/sites/x.py", "import interp.models.model", "floor 0 looks up to floor 1"),
        (
            "interp/models/x.py",
            "def f():\n    from interp.tasks import labelled",
            "floor 1 looks up to floor 2",
        ),
        ("interp/models/x.py", "from ..report import plot", "floor 1 looks up to floor 5"),
        ("interp/tasks/x.py", "from interp import report", "floor 2 looks up to floor 5"),
        ("interp/tasks/x.py", "from interp import load", "floor 2 looks up to floor 9"),
        (
            "interp/report/x.py",
            "import importlib\nimportlib.import_module('interp.cli')",
            "looks up to floor 6",
        ),
        ("probes/x.py", "from interp.sites import Site", "probes never imports interp"),
        ("probes/vsa/x.py", "from probes.base import Probe", "floor 0 looks up to floor 1"),
        ("interp/report/x.py", "from probes.linear import LogisticProbe", "only probes.statistics"),
        ("interp/attic/x.py", "", "has no floor"),
    ],
)
def test_a_planted_import_is_seen(file: str, text: str, reason: str, tmp_path: Path) -> None:
    found = upward(plant(tmp_path, {file: text, "interp/report/__init__.py": ""}))
    assert len(found) == 1
    assert reason in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("interp/sites/x.py", "import torch"),
        ("interp/tasks/x.py", "def f():\n    from transformers import AutoConfig"),
        ("interp/models/model.py", "import transformer_lens"),
        ("interp/models/x.py", "from rich.table import Table"),
        ("probes/statistics/x.py", "import pandas"),
        ("interp/models/x.py", "import sklearn.linear_model"),
        ("interp/models/x.py", "import a_package_nobody_declared"),
    ],
)
def test_a_planted_third_party_import_is_seen(file: str, text: str, tmp_path: Path) -> None:
    assert len(third_party(plant(tmp_path, {file: text}), STANDARD)) == 1


def test_allowed_imports_pass(tmp_path: Path) -> None:
    allowed = {
        "interp/analyses/x.py": "from interp.models import load\nfrom probes import Probe\nimport torch",
        "interp/tasks/x.py": "from interp import errors\nfrom probes.statistics import Estimate",
        "interp/errors.py": "",
        "interp/models/backends/transformer_lens.py": "import transformer_lens, json",
    }
    modules = plant(tmp_path, allowed)
    assert upward(modules) == [] == third_party(modules, STANDARD)


def test_floors_are_those_of_the_longest_row() -> None:
    assert floor("interp.quantization.comparison") == 3
    assert floor("interp.quantization.schemes") == 2
    assert floor("interp.models.doctor") == 1
    assert floor("interp.nowhere") is None
