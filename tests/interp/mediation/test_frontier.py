"""Types of mediators side by side: planted truths win, shares are real interventions, chance is none."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from interp import Intervention, mediation
from interp.errors import ConfigError, DataError
from interp.mediation import FRONTIER_TYPES, Frontier
from interp.mediation.frontiers import description_length
from interp.mediation.frontiers.chance import LEVEL, draws_for
from interp.mediation.frontiers.forecast import forecast_types
from interp.mediation.frontiers.ranking import ranked
from interp.mediation.frontiers.types import Asked
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.results import load
from tests.dictionaries import random_dictionary
from tests.interp.mediation.test_circuits import made, pairs_of
from tests.planted import planted_subspace
from tests.planted_heads import PLANTED


@cache
def one_head(goal: str = "explain") -> Frontier:
    found, other = PLANTED["copy"](), PLANTED["copy"](seed=1)
    types = (
        ["layers", "sublayers", "heads", "groups", "subspaces", "edges"] if goal == "explain" else ["heads"]
    )
    given: dict[str, Any] = {"controls": other.pairs} if goal == "edit" else {}
    unseen = replace(other.pairs, pairs=tuple(replace(one, group=f"new {one.group}") for one in other.pairs))
    return mediation.frontier(found.model, found.pairs, unseen, goal=goal, types=types, **given)


@cache
def opposite() -> tuple[Model, PairSet]:
    """Two values at the ends of one axis, which all heads write a part of."""
    found = planted_subspace()
    pairs = [
        Pair(
            f"{found.values[one]} {nuisance} {found.query}",
            f"{found.values[2 - one]} {nuisance} {found.query}",
            (found.answers[one],),
            (found.answers[2 - one],),
            "value",
            nuisance,
        )
        for nuisance in found.nuisances[:16]
        for one in (0, 2)
    ]
    return found.model, PairSet.build(found.model, pairs)


def line(found: Frontier, name: str) -> Any:
    return next(one for one in found.lines if one.type == name)


def test_where_the_truth_is_one_head_heads_have_the_shortest_description() -> None:
    found = one_head()
    assert line(found, "heads").first[0] == "head.0.1"
    assert line(found, "heads").sizes == (1,)
    assert line(found, "edges").first[0] in PLANTED["copy"]().edges
    assert "too few to be told from chance" in found.verdict()
    assert "heads (8 sets)" in found.verdict()  # one of them does it: p is 1/8
    assert found.luck(line(found, "heads")) == 1 / 8
    sizes = found.table("types").set_index("type")
    assert sizes.loc["heads", "bits"] < min(sizes["bits"].drop("heads"))


def test_where_the_truth_is_one_direction_across_heads_the_subspace_wins() -> None:
    model, pairs = opposite()
    found = mediation.frontier(model, pairs, types=["layers", "sublayers", "heads", "subspaces"])
    for axis in ("scalars", "units", "bits"):
        assert found.winners[axis].type == "subspaces"
    assert line(found, "subspaces").sizes[0] == 1
    assert f"{line(found, 'subspaces').untrained[0]:.0%} in an untrained model" in found.verdict()
    assert found.number("subspaces-share").value > 0.95
    assert line(found, "heads").cost("units") > 1
    basis = planted_subspace().basis[0]
    unit = FRONTIER_TYPES["subspaces"].units(Asked(model, pairs))[0][0]
    assert abs(float(unit.subspace.basis[0] @ basis)) > 0.99


def test_an_untrained_model_shows_nothing() -> None:
    model = made()
    rng = np.random.default_rng(0)
    drawn = pairs_of(model, 12)
    flips = [
        replace(one, answers=one.foils, foils=one.answers) if rng.random() < 0.5 else one for one in drawn
    ]
    found = mediation.frontier(model, PairSet.build(model, flips), types=["heads", "sublayers"])
    total = float((found.ends[1] - found.ends[0]).mean())  # clean less corrupt
    assert found.verdict().startswith(f"Not shown: the total effect ({total:.3g} logits")
    assert not found.winners and not found.figures() and not found.findings()


def test_units_without_any_effect_are_not_told_from_chance() -> None:
    found, model = one_head(), PLANTED["copy"]()
    blind = mediation.frontier(model.model, model.pairs, types=["neurons"], budget=20)
    assert blind.verdict().startswith("Not shown: of 1 type none comes within 20 points of 100%")
    assert "Not told from chance or from an untrained model: neurons." in blind.verdict()
    assert found.beats(line(found, "edges"))
    rows = found.table("sizes")
    assert list(rows["ranking"]) == [share for one in found.lines for share in one.ranking]
    for one in found.lines:
        assert one.chosen is None or abs(1 - one.ranking[one.chosen]) <= 0.2 + 1e-12


@pytest.mark.parametrize("goal", ["explain", "edit"])
def test_what_a_set_does_is_a_real_intervention(goal: str) -> None:
    found, planted = one_head(goal), PLANTED["copy"]()
    pairs = PLANTED["copy"](seed=1).pairs
    base, source = (pairs.corrupt, pairs.clean) if goal == "explain" else (pairs.clean, pairs.corrupt)
    read = planted.model.capture(source, ["z.0"], "all")["z.0"]

    def one_head_only(current: torch.Tensor, row: int) -> torch.Tensor:
        changed = current.clone()
        changed[:, 1] = read[row, : len(current), 1]
        return changed

    wanted, divergence = [], []
    for row, ids in enumerate(base.token_ids):
        edit = Intervention("z.0", lambda current, row=row: one_head_only(current, row), "all")
        logits = planted.model.run([list(ids)], interventions=[edit]).logits[0].double()
        wanted.append(float(logits[pairs.answer_ids[row][0]] - logits[pairs.foil_ids[row][0]]))
        plain = torch.log_softmax(planted.model.logits([list(ids)])[0].double(), dim=0)
        divergence.append(float((plain.exp() * (plain - torch.log_softmax(logits, dim=0))).sum()))
    heads = line(found, "heads")
    assert heads.values[0].tolist() == pytest.approx(wanted, abs=1e-3)
    start, end = found.ends.mean(axis=1)
    assert found.share(heads, 0) == pytest.approx((np.mean(wanted) - start) / (end - start), abs=1e-4)
    if goal == "edit":
        assert heads.side[0].tolist() == pytest.approx(divergence, abs=1e-3)


def test_an_edit_is_judged_by_what_it_does_elsewhere() -> None:
    found = one_head("edit")
    assert found.number("heads-side").value == pytest.approx(line(found, "heads").side[0].mean())
    assert found.figures()[0].x == "side effect on pairs of other tasks (nats)"
    with pytest.raises(ConfigError, match="give controls"):
        mediation.frontier(PLANTED["copy"]().model, PLANTED["copy"]().pairs, goal="edit")


def test_what_is_foretold_is_the_sum_of_single_effects() -> None:
    found = one_head("predict")
    planted = PLANTED["copy"]()
    heads = line(found, "heads")
    alone = mediation.exhaustive(planted.model, planted.pairs, "head.*", directions="denoising")
    total = float(alone.total.mean())
    top = np.sort(alone.mean())[::-1]
    assert heads.foretold.tolist() == pytest.approx(
        [top[:size].sum() / total for size in heads.sizes], abs=1e-4
    )
    assert heads.shuffled.tolist() == pytest.approx(
        [size * top.mean() / total for size in heads.sizes], abs=1e-4
    )
    part = (heads.values.mean(axis=1) - found.ends[0].mean()) / (found.ends[1] - found.ends[0]).mean()
    assert found.share(heads, 0) == pytest.approx(1 - abs(heads.foretold[0] - part[0]))
    assert not found.findings()


def test_all_sublayers_bring_everything_back_and_the_whole_axis_is_there() -> None:
    model = made("gpt2")
    found = mediation.frontier(model, pairs_of(model, 12), types=["sublayers", "layers"])
    for one in found.lines:
        assert found.share(one, len(one.sizes) - 1) > 0.94
        assert list(one.sizes) == sorted(one.sizes)
        assert all(b > a for a, b in zip(one.scalars, one.scalars[1:], strict=False))


@pytest.mark.parametrize(("n", "k", "scalars", "fitted"), [(8, 1, 16, 0), (30, 4, 4, 124), (5, 5, 10, 0)])
def test_bits_are_those_of_the_code(n: int, k: int, scalars: int, fitted: int) -> None:
    wanted = math.log2(n + 1) + math.log2(math.comb(n, k)) + 16 * scalars + fitted * math.log2(12) / 2
    assert description_length(n, k, scalars, fitted, 12) == pytest.approx(wanted)


@pytest.mark.parametrize(("family", "head"), [("llama", 8), ("qwen3", 16)])
def test_every_type_counts_the_numbers_it_moves(family: str, head: int) -> None:
    model = made(family)
    asked = Asked(model, pairs_of(model))
    sizes = {
        "layers": 64, "sublayers": 32, "heads": head, "groups": 2 * head, "neurons": 1, "subspaces": 1
    }  # fmt: skip
    for name, wanted in sizes.items():
        row = FRONTIER_TYPES[name]
        [unit, *_] = row.units(asked)
        assert sum(row.scalars(model, one) for one in unit) == wanted
    counts = {
        str(one[0]): FRONTIER_TYPES["edges"].scalars(model, one[0])
        for one in FRONTIER_TYPES["edges"].units(asked)
    }
    assert counts["head.0.1->logits"] == head and counts["embed->mlp.0"] == counts["mlp_out.1->logits"] == 32


def test_directions_of_a_stream_are_orthogonal_and_so_exchanged_together() -> None:
    model = made()
    units = FRONTIER_TYPES["subspaces"].units(Asked(model, pairs_of(model)))
    first = torch.cat([unit[0].subspace.basis for unit in units if unit[0].site.layer == 0])
    assert torch.allclose(first @ first.T, torch.eye(len(first)), atol=1e-4)


@pytest.mark.parametrize(("budget", "words"), [(500.0, "each replaced"), (6.0, "gradient of all, the ")])
def test_a_search_that_does_not_fit_is_estimated_and_verified_and_says_so(budget: float, words: str) -> None:
    model = made()
    pairs, row = pairs_of(model), FRONTIER_TYPES["heads"]
    units = row.units(Asked(model, pairs))
    found = ranked(row, model, pairs, units, "denoising", "logit-diff", budget)
    assert found.search.startswith(words)
    assert found.forwards <= budget + 0.5
    exact = mediation.exhaustive(model, pairs, "head.*", directions="denoising")
    best = dict(zip(map(str, exact.mediators), exact.mean(), strict=True))
    effects = {str(unit[0]): effect for unit, effect in zip(found.units, found.effects, strict=True)}
    same = [name for name in best if abs(best[name] - effects[name]) < 1e-5]
    assert len(same) == len(best) if budget > 100 else 0 < len(same) < len(best)


def with_shares(shares: np.ndarray, lucky: np.ndarray, twin: float | None = 0.0) -> Frontier:
    """Planted pairs, on which one type reaches some shares of each pair, and random sets some shares."""
    found = one_head()
    start, end = found.ends
    heads = replace(
        line(found, "heads"),
        ranking=np.array([0.85]),
        values=(start + (end - start) * shares)[None],
        chance=(start + (end - start) * lucky.mean())[None],
        lucky=start.mean() + (end - start).mean() * lucky,
        every=False,
        untrained=None if twin is None else np.array([twin]),
    )
    return replace(found, lines=(heads,))


LUCKY = np.linspace(-0.2, 0.4, 60)


def test_a_share_below_80_percent_on_unseen_pairs_names_no_winner_however_wide_its_interval() -> None:
    noise = np.resize([1.0, -1.0], 12)
    wide = with_shares(0.7 + 0.5 * noise, LUCKY)
    assert wide.beats(wide.lines[0]) and not wide.winners
    assert wide.number("heads-share").high > 0.8
    assert "May reach 80% on unseen pairs: heads (67% by 1)." in wide.verdict()
    narrow = with_shares(0.7 + 0.01 * noise, LUCKY)
    assert "Short of 80% on unseen pairs: heads (70% by 1)." in narrow.verdict()
    assert with_shares(0.9 + 0.01 * noise, LUCKY).winners["units"].type == "heads"


@pytest.mark.parametrize(
    ("share", "twin", "beats", "wins"),
    [
        (0.9, 0.5, True, True),
        (0.9, 0.95, False, False),
        (0.9, 1.5, True, True),
        (1.0, 0.95, False, False),  # an untrained model does it too
        (1.0, 0.85, True, True),
        (0.9, None, True, True),
        (0.9, math.nan, False, False),
        (1.9, 0.95, False, False),
        (1.4, 0.5, True, False),
        (3.0, 1.0, False, False),
    ],
)
def test_what_overshoots_is_as_far_off_as_what_falls_short(
    share: float, twin: float | None, beats: bool, wins: bool
) -> None:
    found = with_shares(np.full(12, share), LUCKY, twin)
    assert found.beats(found.lines[0]) is beats
    assert bool(found.winners) is wins


def test_a_set_is_held_to_the_spread_of_random_sets_not_to_their_mean() -> None:
    spread = np.linspace(0.2, 1.0, 60)  # a quarter of them does as well as 80%
    for share, told in ((0.85, False), (0.85, True)):
        found = with_shares(np.full(12, share), LUCKY if told else spread)
        assert found.beats(found.lines[0]) is told


def test_rankings_that_say_nothing_are_told_from_chance_as_rarely_as_is_said() -> None:
    rng, false = np.random.default_rng(0), 0
    for _ in range(200):
        one = with_shares(np.zeros(12), LUCKY)
        lines = [
            replace(with_shares(np.full(12, rng.random()), rng.random(draws_for(6))).lines[0], type=name)
            for name in ("layers", "sublayers", "heads", "groups", "subspaces", "edges")
        ]
        false += min(replace(one, lines=tuple(lines)).p_values.values()) <= LEVEL
    assert false <= 20  # 10 of 200 on average
    assert with_shares(np.ones(12), rng.random(60)).p_values["heads"] <= LEVEL


@pytest.mark.parametrize("name", ["heads", "neurons", "edges", "subspaces"])
@pytest.mark.parametrize("goal", ["explain", "edit"])
def test_a_forecast_is_within_a_factor_of_two(name: str, goal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows, plain = made(), [0], LlamaDecoderLayer.forward

    def counted(self: Any, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        rows[0] += len(hidden)
        return plain(self, hidden, *args, **kwargs)

    drawn = pairs_of(model, 12)
    other = drawn[:4] if goal == "edit" else None
    asked: dict[str, Any] = {"goal": goal, "types": [name], "budget": 60}
    said = forecast_types(model, drawn[:6], 6, controls=0 if other is None else 4, **asked)
    monkeypatch.setattr(LlamaDecoderLayer, "forward", counted)
    mediation.frontier(model, drawn[:6], drawn[6:], controls=other, **asked)
    taken = rows[0] / model.n_layers
    assert taken / 2 < said < 2 * taken


def test_features_of_a_small_dictionary_are_a_type() -> None:
    model = made().with_dictionaries(random_dictionary(site="resid_post.1"))
    found = mediation.frontier(model, pairs_of(model, 12), types=["features", "heads"], budget=20)
    assert {one.type for one in found.lines} == {"features", "heads"}
    assert line(found, "features").total == model.dictionaries[1].n_features


def test_a_frontier_comes_back_from_disk(tmp_path: Any) -> None:
    found = one_head()
    again = load(found.save(tmp_path / "f"))
    assert isinstance(again, Frontier) and again.verdict() == found.verdict()
    assert again.table("sizes").equals(found.table("sizes"))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"goal": "explane"}, "goal 'explane' asked; there are: explain, edit, predict"),
        ({"types": ["heads", "hats"]}, "types 'hats' asked; use 'all' or some of: layers"),
        ({"types": "heads"}, "types 'heads' asked"),
        ({"types": []}, "types 'none' asked"),
        ({"types": ["features"]}, "no type can be compared: .*no dictionary"),
        ({"metric": "accuracy"}, "metric 'accuracy' asked; a frontier takes: logit-diff"),
        ({"metric": "answer-log-prob"}, "a frontier takes"),
        ({"budget": 0}, "budget=0 asked"),
    ],
)
def test_what_is_refused(given: dict[str, Any], reason: str) -> None:
    model = made()
    with pytest.raises(ConfigError, match=reason):
        mediation.frontier(model, pairs_of(model), **given)


def test_pairs_of_the_same_groups_are_refused() -> None:
    model = made()
    pairs = pairs_of(model)
    with pytest.raises(DataError, match="8 groups of pairs, such as 'g0', are in both sets"):
        mediation.frontier(model, pairs, pairs)
    with pytest.raises(DataError, match=r"3 groups of pairs given; .* Give at least 4"):
        mediation.frontier(model, pairs[:3])
