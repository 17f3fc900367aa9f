"""The names that users type: a snapshot. A change of names is decided here and in the CHANGELOG."""

from __future__ import annotations

import ast
import importlib
import importlib.util

import pytest

from tests.architecture.syntax import ROOT, read

NAMES = {
    "interp": [
        "Activations",
        "InterpError",
        "Intervention",
        "Model",
        "Sampling",
        "Site",
        "__version__",
        "audit",
        "examine",
        "load",
        "mediation",
        "patch",
        "plot",
        "probe",
        "probe_concepts",
        "quantization",
        "show_tokens",
        "tasks",
    ],
    "probes": [
        "HyperdimensionalProbe",
        "LDAProbe",
        "LinearRegressionProbe",
        "LogisticProbe",
        "MLPProbe",
        "MeanDifferenceProbe",
        "MultiLabelProbe",
        "NearestCentroidProbe",
        "NotFittedError",
        "PROBES",
        "Probe",
        "ProbeFileError",
        "RidgeProbe",
        "RidgeRegressionProbe",
        "SequenceProbe",
        "Sequences",
        "WhitenedMeanDifferenceProbe",
        "controls",
        "evaluation",
        "hyperdimensional",
        "load",
        "statistics",
        "sweeps",
        "vsa",
    ],
}
MOST = {"interp": 20, "probes": 24}


@pytest.mark.parametrize("package", NAMES)
def test_public_names_are_the_snapshot(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == NAMES[package]
    assert len(module.__all__) <= MOST[package]
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in NAMES for name in NAMES[package]]
)
def test_every_public_name_loads_and_is_documented(package: str, name: str) -> None:
    value = getattr(importlib.import_module(package), name)
    assert value is not None
    assert isinstance(value, str | dict) or value.__doc__


@pytest.mark.parametrize("package", NAMES)
def test_a_name_that_does_not_exist_is_named_with_those_that_do(package: str) -> None:
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nonsense'.*load"):
        _ = importlib.import_module(package).nonsense


@pytest.mark.parametrize("package", NAMES)
def test_type_checkers_see_the_same_names(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname or alias.name
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen | {"__version__"} == {*NAMES[package], "__version__"}


def test_an_old_name_works_with_a_warning_and_is_not_listed() -> None:
    from interp import quantization

    with pytest.warns(DeprecationWarning, match=r"quantization\.verify_quantization; the old name goes"):
        old = quantization.examine
    assert old is quantization.verify_quantization
    assert "examine" not in quantization.__all__


def test_no_module_has_the_name_of_something_else_that_its_package_exports() -> None:
    """``import package.name`` would put the module where the function was."""
    found = []
    for module in read():
        if not module.package or "exports(__name__" not in module.text:
            continue
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ImportFrom) or node.module == module.name:
                continue
            names = [alias.asname or alias.name for alias in node.names]
            below = [name for name in names if importlib.util.find_spec(f"{module.name}.{name}")]
            found += [f"{module.name}.{name}" for name in below if name != "exports"]
    assert not found
