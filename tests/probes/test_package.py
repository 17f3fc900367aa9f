"""The package's front: names load on first use, and nothing heavy before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import probes


def test_importing_loads_nothing_heavy() -> None:
    code = """
import sys, probes
probes.PROBES["logistic"].description
print([name for name in ("torch", "numpy", "scipy", "sklearn", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert len(probes.__all__) <= 24
    assert all(getattr(probes, name) is not None for name in probes.__all__)
    assert set(probes.__all__) <= set(dir(probes))


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(
        AttributeError, match="no attribute 'LogisticProb'; it has: HyperdimensionalProbe, LDAProbe"
    ):
        _ = probes.LogisticProb


def test_rows_name_their_class() -> None:
    for name, row in probes.PROBES.items():
        assert row.name == name == row.load().kind
        assert row.load().__name__ == row.class_name
        assert row.description
