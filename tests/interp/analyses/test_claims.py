"""Claims about the algebra: verdicts of known readings, planted states, and small runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp.analyses.claims import CLAIMS, ClaimsResult, claims
from interp.analyses.claims.abstention import abstention
from interp.analyses.claims.bindings import bindings
from interp.analyses.claims.entities import QUESTION, ROLES, SENTENCE, entities
from interp.analyses.claims.evidence import Evidence, Setting, judged
from interp.analyses.claims.run import over_bundles
from interp.analyses.concepts.trial import concept_tokens
from interp.errors import ConfigError
from interp.models.answers import score
from interp.results import load
from interp.tasks.protocols import PROTOCOLS
from probes.statistics import bootstrap
from probes.vsa import MAP, Codebook, measured_accuracy
from probes.vsa.capacity import Capacity
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


def of_entities(bound: bool):
    """States that are the record of the entity asked about, or all words of its context without an order."""
    told, width = re.compile(SENTENCE.replace(".", r"\.").format(r"(\w+)", r"(\w+)", r"(\w+)")), 512

    def states(setting: Setting, texts: Sequence[str]) -> torch.Tensor:
        if setting.model.weights == "random":
            return torch.randn(len(texts), width, generator=torch.Generator().manual_seed(7))
        found = [told.findall(text) for text in texts]
        words = sorted({word for context in found for one in context for word in one})
        book = Codebook.random(MAP(width), words, seed=99)
        asked = [text.split(". ")[-1].removesuffix(QUESTION.format("")) for text in texts]
        if not bound:
            bags = [
                [*(word for one in context for word in one), name]
                for context, name in zip(found, asked, strict=True)
            ]
            return torch.stack([book.vectors[book.index(bag)].float().sum(dim=0) for bag in bags])
        own = [
            next(one for one in context if one[0] == name) for context, name in zip(found, asked, strict=True)
        ]
        return book.records(
            [dict(zip(ROLES, one[1:], strict=True)) for one in own], ties="real"
        ).vectors.float()

    return states


@pytest.mark.parametrize("bound", [True, False])
def test_entities_are_read_where_they_are_bound_and_never_out_of_a_bag(monkeypatch, bound):
    monkeypatch.setattr(Setting, "states", of_entities(bound))
    twin = interp.load(demo().hf, weights="random", tokenizer=demo().tokenizer)
    found = judged("entities", entities(Setting(demo(), 20, (400, 80, 120), 1024, 0, twin)), seed=0)
    controls, parts = {arm.name: arm.estimate for arm in found.controls}, found.parts
    luck = controls["naming any thing of the context"]
    assert [part.name for part in parts] == list(ROLES) and found.shown == bound
    for share in (one for part in parts for one in (part.algebra, part.plain)):
        assert (share.value > 0.95) == bound
        assert bound or share.interval.low < luck.value < share.interval.high + 0.05
    if bound:  # what another entity has is read as little as the map was taught to
        assert controls["records of another entity of the context"].value < luck.interval.low


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


def test_a_model_that_is_not_bundled_is_asked_first_and_only_what_it_knows_is_read(monkeypatch):
    """With the prompts of the bundled model, three answers made wrong; by whole-answer scoring."""
    asked = replace(PROTOCOLS["concept-disjoint"], asked="answers", encoder="translator")
    drawn = asked.items(sizes=(400, 120, 100))
    test = [item for item in drawn.items if item.part == "test"]
    names = sorted(set(drawn.concepts))
    false = {item.text: names[names.index(item.answer) - 1] for item in test[:3]}
    wrong = tuple(
        replace(item, answer=false[item.text], output=false[item.text]) if item.text in false else item
        for item in drawn.items
    )
    told = replace(asked, draw=lambda *_: replace(drawn, items=wrong))
    monkeypatch.setitem(PROTOCOLS, "concept-disjoint", told)
    twin = interp.load(demo().hf, weights="random", tokenizer=demo().tokenizer)
    setting = Setting(demo(), 20, (400, 120, 100), 1024, 0, twin)
    facts = setting.facts(setting.sizes)
    texts, answers = [item.text for item in wrong], [item.answer for item in wrong]
    right = score(demo(), texts, concept_tokens(demo(), answers)).likeliest.tolist()
    assert [not item.part.endswith("unanswered") for item in facts.drawn.items] == right
    assert sum(right) >= 600 - 60 and not any(right[row] for row, text in enumerate(texts) if text in false)
    assert torch.allclose(facts.states, setting.states(texts), atol=1e-4)
    known = [item.fact for item in facts.drawn.part("test")]
    found = abstention(setting)
    assert len(found.right) == len(known) == 100 - len(facts.drawn.part("unanswered"))
    assert list(found.groups) == known and "the model was asked 620 prompts first" in found.note
    assert f"of {100 - len(known)} that the model answers wrong" in found.note
    assert "the same map and the model's head" in found.alternatives and found.right.mean() > 0.3
    assert max(right.mean() for right in found.controls.values()) < 0.1


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


def covered(estimate, truth: float) -> bool:
    return estimate.interval.low <= truth <= estimate.interval.high


def test_intervals_of_capacity_cover_the_theory_and_bundles_that_share_their_noise():
    """Over 200 draws; where bundles fail as wholes, readings that are taken as independent do not cover."""
    drawn = [measured_accuracy(MAP(64), 10, 60, asked=200, seed=seed) for seed in range(200)]
    assert np.mean([covered(over_bundles(one), one.expected) for one in drawn]) >= 0.92
    assert 0.4 < drawn[0].expected < 0.9  # there is something to miss
    rng, plain, whole = np.random.default_rng(0), [], []
    for _ in range(200):
        right = tuple(int(n) for n in rng.choice([2, 10], size=20))
        whole.append(covered(over_bundles(Capacity(64, 10, 60, right, 0.6)), 0.6))
        plain.append(covered(bootstrap([1] * sum(right) + [0] * (200 - sum(right))), 0.6))
    assert np.mean(whole) >= 0.92 and np.mean(plain) < 0.85


def test_wrong_choices_are_named():
    with pytest.raises(ConfigError, match="claim 'magic' asked; there are: parts, bindings"):
        claims(demo(), ["magic"])
    with pytest.raises(ConfigError, match="names 2 layers"):
        claims(demo(), ["parts"], layer="8,12")


@pytest.mark.slow
def test_concepts_that_no_label_covered_are_read():
    found = claims(demo(), ["alphabet"], layer=20, sizes=(1, 100, 200)).claims[0]
    assert found.shown and found.found.value > 0.9 and set(CLAIMS) > {"alphabet"}
