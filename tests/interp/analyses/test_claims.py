"""Claims about the algebra: verdicts of known readings, planted states, and small runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp.analyses.claims import CLAIMS, ClaimsResult, claims
from interp.analyses.claims.bindings import bindings
from interp.analyses.claims.evidence import Evidence, Setting, judged
from interp.errors import ConfigError
from interp.results import load
from tests.noisy import demo

GROUPS = [str(i) for i in range(100)]


def share(right: int, seed: int = 0) -> np.ndarray:
    """So many right of a hundred, in some order."""
    return np.random.default_rng(seed).permutation(np.arange(100) < right).astype(np.int64)


def evidence(own: int, control: int, plain: int, other: int = 0) -> Evidence:
    controls = {"nothing": share(0, 1), "the control": share(control, 2)}
    plains = {"weak": share(other, 3), "the rival": share(plain, 4)}
    return Evidence(
        "a thing", share(own), controls, plains, GROUPS, validation={"weak": 0.0, "the rival": 0.5}
    )


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ((90, 20, 30), "the algebra reads more than the rival"),
        ((60, 20, 95), "holds, but the algebra reads less than the rival"),
        ((80, 20, 80), "holds, and the algebra gives nothing over the rival"),
        ((40, 40, 10), "not shown: the control may do as well"),
    ],
)
def test_a_verdict_follows_from_the_intervals(given, verdict):
    found = judged("one", evidence(*given), seed=0)
    assert found.verdict == verdict and found.found.value == given[0] / 100
    assert found.controls[0].name == "the control" and found.alternatives[0].name == "the rival"
    assert found.alternatives[0].difference.value == pytest.approx((given[0] - given[2]) / 100)


def test_the_plain_reader_is_chosen_on_validation_prompts():
    """The one that is best on the test is not the one that the algebra is compared with."""
    right = {"lucky": np.array([1] * 60 + [0] * 40), "chosen": np.array([1] * 40 + [0] * 60)}
    own, none = np.array([1] * 80 + [0] * 20), np.array([0] * 100)
    given = Evidence("right", own, {"nothing": none}, right, [f"{at}" for at in range(100)])
    found = judged("one", replace(given, validation={"chosen": 0.5, "lucky": 0.4}), seed=0)
    assert [arm.name for arm in found.alternatives] == ["chosen", "lucky"]
    assert found.verdict == "the algebra reads more than chosen"
    equal = replace(given, alternatives={**right, "equal": own}, validation={"chosen": 0.5})
    assert judged("one", equal, seed=0).verdict == "holds, and the algebra gives nothing over equal"


def planted(setting: Setting, texts: Sequence[str]) -> torch.Tensor:
    """States that hold every pair of a prompt, each by a direction of its own; noise without training."""
    generator = torch.Generator().manual_seed(7)
    if setting.model.weights == "random":
        return torch.randn(len(texts), 256, generator=generator)
    known: dict[str, torch.Tensor] = {}
    rows = []
    for text in texts:
        pairs = text.removesuffix(" .").split(" , ")
        for pair in pairs:
            known.setdefault(pair, torch.randn(256, generator=generator))
        rows.append(torch.stack([known[pair] for pair in pairs]).sum(dim=0))
    return torch.stack(rows)


def test_bindings_that_a_state_holds_are_read_by_one_probe(monkeypatch):
    monkeypatch.setattr(Setting, "states", planted)
    twin = interp.load(demo().hf, weights="random", tokenizer=demo().tokenizer)
    setting = Setting(demo(), 20, (900, 60, 60), 512, 0, twin)
    found = judged("bindings", bindings(setting), seed=0)
    assert found.found.value > 0.8 and found.shown
    for arm in found.controls:
        assert arm.estimate.value < 0.65


@pytest.fixture(scope="module")
def result() -> ClaimsResult:
    names = ["parts", "bindings", "abstention"]
    return claims(demo(), names, layer=20, sizes=(600, 200, 100), dimension=2048)


def test_three_concepts_are_read_out_of_one_state(result):
    found = {one.name: one for one in result.claims}["parts"]
    assert found.shown and found.found.value > 0.5
    assert all(arm.estimate.value < 0.2 for arm in found.controls)
    shares = {part.name: part.algebra.value for part in found.parts}
    peeling = {"peeling, precision", "peeling, recall"}
    assert set(shares) == {"subject", "relation", "answer", *peeling}
    assert all(shares[name] > 0.25 for name in peeling)  # one of 1,000 and more, by luck
    # the plain maps are the same maps: unbinding adds noise and never knowledge
    assert found.alternatives[0].difference.value <= 0.01 and "reads more" not in found.verdict


def test_what_the_bundled_model_does_not_hold_is_not_claimed(result):
    found = {one.name: one for one in result.claims}["bindings"]
    assert not found.shown and found.verdict.startswith("not shown: ")


def test_the_stated_risk_is_kept_on_new_prompts(result):
    found = {one.name: one for one in result.claims}["abstention"]
    claimed, wrong = (int(found.note.split(word)[0].split()[-1]) for word in (" of 100 were", " were wrong"))
    assert claimed > 50 and wrong <= 0.1 * claimed
    assert found.shown and found.controls[0].estimate.value < 0.1


def test_the_result_says_all_of_it_and_comes_back(result, tmp_path):
    table = result.table("claims")
    assert list(table["claim"]) == ["parts", "bindings", "abstention"]
    assert (table["difference_low"] <= table["difference"]).all()
    assert result.number("parts-over-plain").value == pytest.approx(table["difference"][0])
    capacity = result.table("capacity")
    assert (
        (capacity["low"] <= capacity["theory"] + 0.03) & (capacity["theory"] <= capacity["high"] + 0.03)
    ).all()
    again = load(result.save(tmp_path / "claims"))
    assert again.summary() == result.summary()


def test_wrong_choices_are_named():
    with pytest.raises(ConfigError, match="claim 'magic' asked; there are: parts, bindings"):
        claims(demo(), ["magic"])
    with pytest.raises(ConfigError, match="names 2 layers"):
        claims(demo(), ["parts"], layer="8,12")


@pytest.mark.slow
def test_concepts_that_no_label_covered_are_read():
    found = claims(demo(), ["alphabet"], layer=20, sizes=(1, 1, 200)).claims[0]
    assert found.shown and found.found.value > 0.9 and set(CLAIMS) > {"alphabet"}
