"""Effects as values: saved and loaded, taken apart into estimands, drawn again, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interp import mediation
from interp.analyses.agreement import Beside
from interp.errors import ArtifactError, ConfigError
from interp.mediation import Effects, Mediator, Subspace
from interp.mediation.engine import full_forward_logits
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.partial_forward import Patch, Row
from interp.mediation.verified import Verified, VerifiedEffect
from interp.results import load
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
    again = load(found.save(tmp_path / "effects"))
    assert isinstance(again, Effects) and again.mediators == found.mediators
    assert again.summary() == found.summary() and again.cost == found.cost
    for direction in found.directions:
        assert np.array_equal(again.values[direction], found.values[direction])
        assert np.abs(found.values[direction]).max() > 1e-3
    assert again.table().equals(found.table())
    (tmp_path / "effects" / "result.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="its checksum does not match its content"):
        load(tmp_path / "effects")


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
        logits = full_forward_logits(model, ids, rows, Patch({Site("z", 1): values}))
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
        mediators=names, values={"noising": values}, clean=np.ones(n), corrupt=np.zeros(n), groups=groups,
        search="exhaustive", metric="logit-diff", unit="logits", replacement="interchange", noise=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("replacement", ["interchange", "zero", "mean", "optimal:4"])
def test_only_what_was_put_in_from_the_other_prompt_is_said_to_carry_the_difference(replacement: str) -> None:
    told = replace(of_values(np.ones((2, 4))), replacement=replacement).cautions()[0]
    assert ("carries the difference" in told) == (replacement == "interchange") != (replacement in told)


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
    assert of_values(noise).table().head(200)["q"].min() > 0.05
    real = noise.copy()
    real[:20] += 2.0
    found = of_values(real).table().head(20)
    assert set(found["mediator"]) == {f"head.{at}.0" for at in range(20)}
    assert (found["q"] <= 0.05).mean() >= 0.95  # one of twenty happens to be skewed, and is told less surely
    few = of_values(real[:, :6])  # six groups have 64 ways of signs: nothing can be told among so many
    assert few.table().head(20)["q"].min() > 0.2


def test_ten_pairs_tell_four_of_fifty_six_whatever_the_seed() -> None:
    """999 drawn flips gave q 0.08 where all 512 patterns of signs give 2 / 1024 x 56 / 4 = 0.027."""
    values = np.random.default_rng(0).normal(size=(56, 10))
    values[:4] = np.random.default_rng(1).uniform(20, 30, size=(4, 10))
    for seed in range(3):
        found = replace(of_values(values), seed=seed)
        assert found.table().head(4)["q"].tolist() == pytest.approx([2 / 1024 * 56 / 4] * 4)
    few = of_values(values[:, :6])
    told = few.verdict()
    assert "6 groups of pairs are too few to tell any of 56 mediators from chance" in told
    assert "pairs of at least 12 groups" in told and 2 / 2**12 * 56 <= 0.05 < 2 / 2**11 * 56


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
    assert "in opposite ways in the two prompts: denoising +4.00, noising -4.00" in found.verdict()
    assert found.estimate("head.1.0", "noising").value == pytest.approx(-4.0, abs=0.02)
    # What a comparison judges and what draws of pairs rank is what the table shows.
    judged = {one.name: one.value for one in found.findings()}
    for name, shown in table["effect"].items():
        assert judged[name] == pytest.approx(shown, rel=1e-12)
    kept = mediation.stability(found, 1).set_index("what").loc["top overlap"]
    assert (kept["value"], kept["low"]) == (1.0, 1.0)  # in means of both directions head.0.0 would lead
    same = Beside(found, 1, None).findings(found, 0)
    assert {one.name: one.value for one in same}["effect of head.1.0"] == judged["head.1.0"]


def test_the_headline_of_an_estimate_is_its_verified_effect() -> None:
    top = (
        VerifiedEffect("head.0.0", 14.9, 25.9, 24.0, 28.0),
        VerifiedEffect("head.1.0", 3.0, 32.8, 30.0, 35.0),
    )
    values = np.array([[14.9], [3.0], [0.0]]) + 0.01 * np.random.default_rng(0).normal(size=(3, 12))
    clean = 30 + np.random.default_rng(1).normal(size=12)
    found = replace(of_values(values), search="attribution", verified=Verified(top), clean=clean)
    told = found.verdict()
    assert told.startswith("head.1.0 has the largest effect of the 2 that were verified exactly: 32.80 [30")
    assert "(estimated 3.00)" in told
    number = found.number("largest-effect")
    assert (number.title, number.value, number.low) == ("Largest: head.1.0", 32.8, 30.0)


def test_stability_is_perfect_where_pairs_agree_and_luck_where_they_are_noise() -> None:
    rng = np.random.default_rng(0)
    mediators = tuple(Mediator(Site("head", layer, head)) for layer in range(4) for head in range(10))
    same = np.repeat(rng.normal(size=(40, 1)), 30, axis=1)
    noise = rng.normal(size=(40, 30))

    def effects(values: np.ndarray) -> Effects:
        return replace(of_values(values), mediators=mediators)

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
    assert not mediation.attribution(model, pairs, "edge.head.2.*->logits", verify=0).exact
    for found in (paths, guess):
        again = load(found.save(tmp_path / found.search))
        assert isinstance(again, Effects) and again.exact is found.exact
    exact, estimated = (_all_told(one).verdict() for one in (paths, guess))
    assert "(exact)" in exact and "(estimated, not verified)" in estimated
    assert paths.tables()[0].title == "Effects (logits)"
    assert guess.tables()[0].title == "Estimated effects (logits)"
    assert "the exact effect may lie outside, and none was verified" in guess.tables()[0].note


def _all_told(found: Effects) -> Effects:
    """The same with every value so far from zero that all are told from chance."""
    values = {direction: 1.0 + one for direction, one in found.values.items()}
    return replace(found, values=values, clean=found.corrupt + 2)


def effects(denoising: np.ndarray, noising: np.ndarray, total: float, noise: float = 1e-6) -> Effects:
    """Effects of heads of one layer with these numbers, each pair a group of its own."""
    n = denoising.shape[1]
    names = tuple(Mediator(Site("head", 0, at)) for at in range(len(denoising)))
    groups = tuple(f"g{at}" for at in range(n))
    return Effects(
        mediators=names, values={"denoising": denoising, "noising": noising}, clean=np.full(n, total),
        corrupt=np.zeros(n), groups=groups, search="exhaustive", metric="logit-diff", unit="logits",
        replacement="interchange", noise=noise,
    )  # fmt: skip


def gated(gate: Callable[[int, int], int]) -> Effects:
    """Two parts a and b, 1 in clean prompts and 0 in corrupt ones, and Y = gate(a, b): by hand."""
    spread = np.linspace(0.9, 1.1, 12)
    enough = [gate(1, 0) - gate(0, 0), gate(0, 1) - gate(0, 0)]
    needed = [gate(1, 1) - gate(0, 1), gate(1, 1) - gate(1, 0)]
    one, two = (np.array(values)[:, None] * spread for values in (enough, needed))
    return effects(one, two, float(gate(1, 1) - gate(0, 0)))


def test_the_sign_of_the_interaction_is_explained_as_it_is() -> None:
    both, either = gated(lambda a, b: a & b), gated(lambda a, b: a | b)
    assert (both.table()["interaction"] > 0).all() and (either.table()["interaction"] < 0).all()
    note = both.tables()[0].note
    above, below = note.split("Above zero")[1].split("Below zero")
    assert "(AND)" in above and "(OR, backup)" in below
    one_way = replace(both, values={"noising": both.values["noising"]})
    assert "Interaction" not in one_way.tables()[0].note


def test_a_map_without_findings_is_pale() -> None:
    """Effects of 0.002 logits that nothing tells from chance filled the scale of a metric of 20 logits."""
    rng = np.random.default_rng(0)
    nothing = effects(*(0.002 * rng.normal(size=(2, 6, 24))), total=20.0)
    assert nothing.figure("map").limits == (-20.0, 20.0)
    found = gated(lambda a, b: a | b)
    assert found.figure("map").limits is None


def test_a_row_that_is_no_finding_says_why() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 24)) * np.array([[1.0], [1.0], [1e-9]])
    values[0] += 5
    table = effects(values, values, total=5.0).table()
    assert dict(zip(table["mediator"], table["remark"], strict=True)) == {
        "head.0.0": "",
        "head.0.1": "not told from chance",
        "head.0.2": "below the noise floor",
    }
