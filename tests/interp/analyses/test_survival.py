"""The ready analyses compared: the model survives itself, two bits are told, few items lose nothing."""

from __future__ import annotations

from functools import cache, partial

import pytest

from interp import quantization
from interp.analyses import ANALYSES
from interp.paths import assets
from interp.quantization import Comparison
from tests.noisy import demo

pytestmark = pytest.mark.skipif(
    not assets("demo-24l", "config.json").is_file(), reason="the bundled model is not in this checkout"
)
ITEMS = {"recall": 60, "two-hop": 40, "probe": 200, "patch": 8, "geometry": 30, "behaviour": 80}
QUICK: dict[str, dict[str, str]] = {"patch": {"search": "attribution"}}
HEADLINE = {
    "recall": "accuracy",
    "two-hop": "accuracy: two hops",
    "probe": "linear probe, from the reference, layer 20",
    "patch": "kept by the reference's circuit",
    "geometry": "centred cosine at layer 23",
    "behaviour": "KL",
}


@cache
def compared(name: str) -> Comparison:
    analysis = partial(ANALYSES[name].bound(n=ITEMS[name]), **QUICK.get(name, {}))
    return quantization.compare({name: analysis}, demo(), ["fp32", "rtn2"])


@pytest.mark.parametrize("name", ITEMS)
def test_the_model_survives_itself_within_its_noise(name: str) -> None:
    table = compared(name).table("findings")
    own = table[table["scheme"] == "fp32"]
    assert len(own) > 3
    assert set(own["verdict"]) == {"survives"}
    assert (own["difference"].abs() <= own["noise"] + 1e-12).all()


@pytest.mark.parametrize("name", ITEMS)
def test_two_bits_are_told(name: str) -> None:
    found = compared(name).judgement("rtn2", HEADLINE[name])
    assert found.shown
    assert found.verdict in ("lost", "weakened")


@pytest.mark.parametrize("name", ["recall", "behaviour", "patch"])
def test_a_few_items_lose_nothing_at_eight_bits(name: str) -> None:
    analysis = partial(ANALYSES[name].bound(n=4), **QUICK.get(name, {}))
    found = quantization.compare({name: analysis}, demo(), ["int8", "fp32"], noise=("layout",))
    table = found.table("findings")
    assert not set(table["verdict"]) & {"lost"}
    assert set(table[table["scheme"] == "fp32"]["verdict"]) <= {"survives", "inconclusive"}
