"""The ready analyses compared: the model survives itself, two bits are told, few items lose nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from interp import quantization
from interp.analyses import ANALYSES
from interp.paths import assets
from interp.quantization import Comparison
from tests.noisy import demo

pytestmark = pytest.mark.skipif(
    not assets("demo-24l", "config.json").is_file(), reason="the bundled model is not in this checkout"
)
ITEMS = {
    "recall": 20,
    "two-hop": 16,
    "probe": 120,
    "patch": 8,
    "geometry": 14,
    "behaviour": 30,
    "sensitivity": 24,
    "trajectory": 8,
    "interpretability": 200,
}
QUICK: dict[str, dict[str, Any]] = {"patch": {"search": "attribution"}, "recall": {"prompts": 6}}
HEADLINE = {
    "recall": "accuracy",
    "two-hop": "accuracy: two hops",
    "probe": "linear probe, from the reference, layer 20",
    "patch": "kept by the reference's circuit",
    "geometry": "centred cosine at layer 23",
    "behaviour": "KL",
    "sensitivity": "answer kept by benign edits",
    "trajectory": "effective rank at layer 23",
    "interpretability": "accuracy from the states at layer 23",
}


def bound(name: str, n: int) -> Any:
    return partial(ANALYSES[name].bound(n=n), **QUICK.get(name, {}))


@pytest.fixture(scope="module")
def compared() -> Comparison:
    analyses = {name: bound(name, n) for name, n in ITEMS.items()}
    return quantization.compare(analyses, demo(), ["fp32", "rtn2"])


@pytest.mark.parametrize("name", ITEMS)
def test_the_model_survives_itself_within_its_noise(compared: Comparison, name: str) -> None:
    table = compared.table("findings")
    own = table[(table["analysis"] == name) & (table["scheme"] == "fp32")]
    assert len(own) > 3
    assert set(own["verdict"]) == {"survives"}
    assert (own["difference"].abs() <= own["noise"] + 1e-12).all()


@pytest.mark.parametrize("name", ITEMS)
def test_two_bits_are_told(compared: Comparison, name: str) -> None:
    found = compared.judgement("rtn2", HEADLINE[name], name)
    assert found.shown
    assert found.verdict in ("lost", "weakened")


@pytest.mark.parametrize("name", ["recall", "behaviour", "patch"])
def test_a_few_items_lose_nothing_at_eight_bits(name: str) -> None:
    found = quantization.compare({name: bound(name, 4)}, demo(), ["int8", "fp32"], noise=("layout",))
    table = found.table("findings")
    assert not set(table["verdict"]) & {"lost"}
    assert set(table[table["scheme"] == "fp32"]["verdict"]) <= {"survives", "inconclusive"}
