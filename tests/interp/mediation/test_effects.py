"""Effects as values: saved and loaded, taken apart into estimands, drawn again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ArtifactError, ConfigError
from interp.mediation import Effects, Mediator, Subspace
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.naive import naive_logits
from interp.mediation.walk import Patch, Row
from interp.report.patching import _verdict
from interp.sites import Site
from tests.interp.mediation.test_search import made, pairs_of


def test_effects_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    model = made()
    pairs = pairs_of(model, 5)
    space = Subspace.of(torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(1)), "two")
    names = [
        "head.1.*",
        "kv.0.1",
        "neuron.1.3+5",
        "resid_post.1",
        Mediator(Site("resid_pre", 1), -1, subspace=space),
    ]
    found = mediation.exhaustive(model, pairs, names)
    again = Effects.load(found.save(tmp_path / "effects"))
    assert again.mediators == found.mediators
    assert again.to_dict() == found.to_dict()
    for direction in found.directions:
        assert np.array_equal(again.values[direction], found.values[direction])
        assert np.abs(found.values[direction]).max() > 1e-3
    assert again.table().equals(found.table())
    (tmp_path / "effects" / "effects.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="does not hold effects"):
        Effects.load(tmp_path / "effects")


def test_estimands_are_what_their_formulas_say() -> None:
    """Every formula is computed from whole passes, run one by one."""
    model = made()
    pairs = pairs_of(model, 3)
    mediator = Mediator(Site("head", 1, 2))
    read = {side: model.capture(getattr(pairs, side), "z.1", "all")["z.1"] for side in ("clean", "corrupt")}

    def metric(base: str, source: str | None) -> float:
        ids = getattr(pairs, base).token_ids
        rows = [Row(at, (mediator,) if source else ()) for at in range(3)]
        values = (
            torch.zeros_like(read["clean"]) if source == "zero" else read.get(source or "", read["clean"])
        )
        logits = naive_logits(model, ids, rows, Patch({Site("z", 1): values}))
        return float(METRICS["logit-diff"].values(logits, Targets.of(pairs, logits.device)).mean())

    y = metric
    wanted = {
        "total effect": y("clean", None) - y("corrupt", None),
        "natural indirect effect, denoising": y("corrupt", "clean") - y("corrupt", None),
        "natural indirect effect, noising": y("clean", None) - y("clean", "corrupt"),
        "natural direct effect, M held clean": y("clean", None) - y("corrupt", "clean"),
        "natural direct effect, M held corrupt": y("clean", "corrupt") - y("corrupt", None),
    }
    table = mediation.estimands(mediation.exhaustive(model, pairs, [mediator]), "head.1.2")
    got = dict(zip(table["estimand"], table["value"], strict=True))
    for name, value in wanted.items():
        assert got[name] == pytest.approx(value, abs=1e-5)
    assert got["mediated interaction"] == pytest.approx(
        wanted["natural indirect effect, noising"] - wanted["natural indirect effect, denoising"], abs=1e-5
    )
    assert "controlled direct effect" not in got
    zeroed = mediation.estimands(mediation.exhaustive(model, pairs, [mediator], replacement="zero"), mediator)
    got = dict(zip(zeroed["estimand"], zeroed["value"], strict=True))
    assert not any(name.startswith("natural") for name in got)
    assert got["effect in the clean run, M = m"] == pytest.approx(
        y("clean", None) - y("clean", "zero"), abs=1e-5
    )
    assert got["controlled direct effect"] == pytest.approx(
        y("clean", "zero") - y("corrupt", "zero"), abs=1e-5
    )
    with pytest.raises(ConfigError, match=r"no effect of .head\.0\.0."):
        mediation.estimands(mediation.exhaustive(model, pairs, [mediator]), "head.0.0")


@pytest.mark.parametrize("replacement", ["mean", "resample", "noise:1", "steering:1", "interpolate:0.5"])
def test_nothing_is_natural_where_the_mediator_was_never_as_in_the_other_prompt(replacement: str) -> None:
    found = replace(of_values(np.ones((2, 6))), replacement=replacement)
    table = mediation.estimands(found, found.mediators[0])
    assert not table["estimand"].str.contains("natural|mediated").any()
    assert not table["formula"].str.contains("M clean|M corrupt").any()
    direct = mediation.estimands(
        replace(found, replacement="interchange", search="direct"), found.mediators[0]
    )
    assert not direct["estimand"].str.contains("natural|mediated").any()


def of_values(values: np.ndarray) -> Effects:
    """Effects of heads with these numbers, each pair a group of its own."""
    n = values.shape[1]
    names = tuple(Mediator(Site("head", at, 0)) for at in range(len(values)))
    groups = tuple(f"g{at}" for at in range(n))
    return Effects(
        names, {"noising": values}, np.ones(n), np.zeros(n), groups, "exhaustive", "logit-diff", "logits",
        "interchange", 0.0, {}, {},
    )  # fmt: skip


def test_effects_of_exactly_zero_logits_are_no_shares() -> None:
    """Zeros and ones in logits got the interval of a share, such as 0.0 [0.0, 0.52]."""
    found = of_values(np.stack([np.zeros(5), np.array([1.0, 0.0, 1.0, 1.0, 0.0]), np.ones(5)]))
    for name in ("head.0.0", "head.1.0", "head.2.0"):
        interval = found.estimate(name).interval
        assert "clopper" not in interval.method and "score" not in interval.method
    mixed = found.estimate("head.1.0").interval
    assert mixed.low < 0 < mixed.high  # t = 0.6 / 0.245 = 2.4 with 4 degrees of freedom: p = 0.07
    shares = replace(found, metric="accuracy", unit="share").estimate("head.0.0").interval
    assert (shares.low, shares.high) == pytest.approx((0.0, 1 - 0.025**0.2))  # 5 of 5 by Clopper and Pearson


def test_a_few_real_effects_are_told_from_chance_among_thousands() -> None:
    """999 flips give no p below 0.001, which no correction over 5,000 mediators leaves small."""
    noise = np.random.default_rng(0).normal(size=(5000, 32))
    assert of_values(noise).table(200)["q"].min() > 0.05
    real = noise.copy()
    real[:20] += 2.0
    found = of_values(real).table(20)
    assert set(found["mediator"]) == {f"head.{at}.0" for at in range(20)}
    assert (found["q"] <= 0.05).mean() >= 0.95  # one of twenty happens to be skewed, and is told less surely
    few = of_values(real[:, :6])  # six groups have 64 ways of signs: nothing can be told among so many
    assert few.table(20)["q"].min() > 0.2


def test_ten_pairs_tell_four_of_fifty_six_whatever_the_seed() -> None:
    """999 drawn flips gave q 0.08 where all 512 patterns of signs give 2 / 1024 x 56 / 4 = 0.027."""
    values = np.random.default_rng(0).normal(size=(56, 10))
    values[:4] = np.random.default_rng(1).uniform(20, 30, size=(4, 10))
    for seed in range(3):
        found = replace(of_values(values), seed=seed)
        assert found.table(4)["q"].tolist() == pytest.approx([2 / 1024 * 56 / 4] * 4)
    few = of_values(values[:, :6])
    told = _verdict(few.to_dict())
    assert "6 groups of pairs are too few to tell any of 56 mediators from chance" in told


def test_opposite_directions_do_not_cancel() -> None:
    """Y = a + 2 (a xor b), clean (1, 1), corrupt (0, 0): b is worth +4 in one prompt and -4 in the other."""
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.normal(size=(2, 3, 12))
    denoising = np.array([[2.0], [4.0], [0.1]]) + noise[0]
    noising = np.array([[2.0], [-4.0], [-0.01]]) + noise[1]
    found = replace(of_values(noising), values={"denoising": denoising, "noising": noising}, noise=1e-3)
    found = replace(found, clean=2 + noise[0, 0], corrupt=np.zeros(12))
    table = found.table().set_index("mediator")
    assert [str(one) for one in found.top(2)] == ["head.1.0", "head.0.0"]
    assert table.loc["head.1.0", "opposite"] and not table.loc["head.0.0", "opposite"]
    assert abs(table.loc["head.1.0", "effect"]) == pytest.approx(4.0, abs=0.02)
    assert table.loc["head.0.0", "effect"] == pytest.approx(2.0, abs=0.02)
    assert table.loc["head.2.0", "effect"] == pytest.approx(0.045, abs=0.01)  # -0.01 is not told from zero
    assert "in opposite ways in the two prompts: denoising +4.00, noising -4.00" in _verdict(found.to_dict())
    assert found.estimate("head.1.0", "noising").value == pytest.approx(-4.0, abs=0.02)


def test_the_headline_of_an_estimate_is_its_verified_effect() -> None:
    exact = [
        {"mediator": "head.0.0", "estimate": 14.9, "exact": 25.9, "low": 24.0, "high": 28.0},
        {"mediator": "head.1.0", "estimate": 3.0, "exact": 32.8, "low": 30.0, "high": 35.0},
    ]
    values = np.array([[14.9], [3.0], [0.0]]) + 0.01 * np.random.default_rng(0).normal(size=(3, 12))
    clean = 30 + np.random.default_rng(1).normal(size=12)
    found = replace(of_values(values), search="attribution", cost={"exact": {"top": exact}}, clean=clean)
    told = _verdict(found.to_dict())
    assert told.startswith("head.1.0 has the largest effect of the 2 that were verified exactly: 32.80 [30")
    assert "(estimated 3.00)" in told


def test_stability_is_perfect_where_pairs_agree_and_luck_where_they_are_noise() -> None:
    rng = np.random.default_rng(0)
    mediators = tuple(Mediator(Site("head", layer, head)) for layer in range(4) for head in range(10))
    same = np.repeat(rng.normal(size=(40, 1)), 30, axis=1)
    noise = rng.normal(size=(40, 30))

    def effects(values: np.ndarray) -> Effects:
        ones, groups = np.ones(30), tuple(f"g{at}" for at in range(30))
        facts = {
            "search": "exhaustive",
            "metric": "logit-diff",
            "unit": "logits",
            "replacement": "interchange",
        }
        return Effects(
            mediators, {"noising": values}, ones, -ones, groups, **facts, noise=0.0, cost={}, model={}
        )

    steady = mediation.stability(effects(same), 8).set_index("what")["value"]
    shaky = mediation.stability(effects(noise), 8).set_index("what")["value"]
    assert steady["rank correlation"] == pytest.approx(1) and steady["top overlap"] == pytest.approx(1)
    assert shaky["top overlap"] < 0.8
    assert shaky["top overlap by luck"] == pytest.approx(8 * 8 / 40 / (16 - 8 * 8 / 40), abs=0.06)
    with pytest.raises(ConfigError, match="the top 41"):
        mediation.stability(effects(same), 41)


@pytest.mark.parametrize(
    "text", ["head.5.3", "resid_post.5@7", "kv.5.1@-1", "neuron.5.1+8", "neuron.5.1", "embed"]
)
def test_mediators_read_back_what_they_print(text: str) -> None:
    assert str(Mediator.parse(text)) == text


def test_what_is_exact_is_said_by_the_result_and_kept_on_disk(tmp_path: Path) -> None:
    """Path patching replaces values, so that its effects are exact; the report took it for an estimate."""
    model = made()
    pairs = pairs_of(model, 12)
    paths = mediation.path_patching(model, pairs, "head.2.*", "logits")
    guess = mediation.attribution(model, pairs, "head.2.*", verify=0)
    assert paths.exact and not guess.exact
    assert not mediation.edge_attribution(model, pairs, "edge.head.2.*->logits", verify=0).exact
    for found in (paths, guess):
        assert Effects.load(found.save(tmp_path / found.search)).exact is found.exact
    exact, estimated = (_verdict({**one.to_dict(), "effects": _all_told(one)}) for one in (paths, guess))
    assert "(exact)" in exact and "(estimated, not verified)" in estimated


def _all_told(found: Effects) -> list[dict[str, object]]:
    return [row | {"clear": True, "q": 0.0, "share": 1.0} for row in found.to_dict()["effects"]]
