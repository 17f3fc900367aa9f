"""What a search is said to cost beforehand, against its bill afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from interp import mediation
from interp.errors import ConfigError, SiteError
from interp.mediation import Search
from interp.mediation.searches import effects
from interp.pairs import Pair, PairSet
from tests.interp.mediation.quick import quick
from tests.interp.mediation.test_search import made, pairs_of
from tests.tiny import WORDS

MEDIATORS = {"grid": ["resid_pre.*"], "heads": ["head.*", "mlp_out.*"], "late": ["resid_post.1", "head.2.*"]}


def several_lengths(model: Any) -> PairSet:
    words = [" ".join(WORDS[3 : 3 + n]) for n in (4, 7, 7, 5)]
    found = [
        Pair(text, text.replace(WORDS[4], WORDS[40 + at]), (WORDS[55],), (WORDS[56],), group=f"g{at}")
        for at, text in enumerate(words)
    ]
    return PairSet.build(model, found)


@pytest.mark.parametrize(("family", "what"), [("gpt2", "grid"), ("gemma2", "heads"), ("gpt_neox", "late")])
def test_an_exhaustive_search_costs_what_was_planned(family: str, what: str) -> None:
    model = made(family)
    for pairs in (pairs_of(model), several_lengths(model)):
        planned = mediation.plan(model, pairs, MEDIATORS[what])
        found = mediation.exhaustive(model, pairs, MEDIATORS[what])
        billed = sum(part["forwards"] for part in found.cost.values())
        assert planned.forwards == pytest.approx(billed, abs=0.011)  # bills are rounded
        assert planned.skipped == sum(part["skipped"] for part in found.cost.values())
        assert planned.mediators == len(found.mediators)
        assert planned.exact
        assert 0 < planned.forwards < planned.naive


def test_a_plan_depends_on_what_is_asked_and_runs_nothing() -> None:
    model = made("llama")
    pairs = pairs_of(model)
    calls: list[int] = []
    handle = model.hf.register_forward_pre_hook(lambda module, args: calls.append(1))
    try:
        both = mediation.plan(model, pairs, "head.*")
        one = mediation.plan(model, pairs, "head.*", directions="noising")
        zero = mediation.plan(model, pairs, "head.*", replacement="zero")
        late = mediation.plan(model, pairs, "head.2.*")
        assert not calls
    finally:
        handle.remove()
    assert one.forwards == pytest.approx(both.forwards / 2)
    assert zero.forwards > both.forwards  # no shared beginning of the prompts to make use of
    assert late.forwards < both.forwards / 3
    assert "cells known to be zero" in str(both)


@pytest.mark.parametrize(
    ("directions", "passes"), [("denoising", 3), ("noising", 4), ("both", 5)], ids=lambda value: str(value)
)
def test_attribution_runs_each_side_once_and_is_planned_so(directions: str, passes: int) -> None:
    model = made("llama")
    pairs = pairs_of(model)
    forwards: list[int] = []
    handle = model.hf.register_forward_pre_hook(
        lambda module, args, kwargs: forwards.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    backwards: list[int] = []
    block: nn.Module = model.architecture.blocks[1]
    also = block.register_full_backward_hook(lambda module, into, out: backwards.append(len(into[0])))
    try:
        found = mediation.attribution(model, pairs, "head.*", directions=directions, verify=0)
    finally:
        handle.remove()
        also.remove()
    assert (sum(forwards) + sum(backwards)) / len(pairs) == passes == found.cost["forwards"]
    planned = mediation.plan(model, pairs, "head.*", search="attribution", directions=directions)
    exact = mediation.plan(model, pairs, "head.*", directions=directions)
    assert planned.forwards == pytest.approx(passes * len(pairs) + exact.forwards)  # 12 heads: all verified
    assert not planned.exact


@pytest.mark.parametrize(
    "search",
    [
        name
        for name, row in mediation.SEARCHES.items()
        if "sites" in row.over and type(row).passes is not Search.passes
    ],
)
def test_the_passes_of_estimates_are_those_of_the_bill(search: str) -> None:
    model = made("gpt2")
    pairs = pairs_of(model)
    row = quick(search)
    given = row if row.exact else replace(row, verify=0)
    found = effects(model, pairs, ["head.*"], search=given)
    assert mediation.plan(model, pairs, "head.*", search=given).forwards == found.cost["forwards"] * len(
        pairs
    )
    checks = 0 if row.exact else mediation.plan(model, pairs, "head.*").forwards  # 12 heads: all verified
    planned = mediation.plan(model, pairs, "head.*", search=row)
    assert planned.forwards - checks == pytest.approx(found.cost["forwards"] * len(pairs))


def test_edges_are_planned_by_their_readers_layer() -> None:
    model = made("gpt2")
    pairs = pairs_of(model)
    planned = mediation.plan(model, pairs, "edge.*->logits", directions="denoising")
    assert planned.forwards == 0  # nothing is run behind the last block
    every = mediation.plan(model, pairs, "edge.*", directions="denoising")
    found = mediation.exhaustive(model, pairs, "edge.*", directions="denoising")
    assert every.forwards == pytest.approx(found.cost["denoising"]["forwards"], rel=0.01)


def test_what_there_is_not_is_refused() -> None:
    model = made()
    pairs = pairs_of(model)
    with pytest.raises(
        ConfigError, match=r"search 'exhaustiv' asked; there are: exhaustive, .* Did you mean 'exhaustive'\?"
    ):
        mediation.plan(model, pairs, "head.*", search="exhaustiv")
    with pytest.raises(SiteError, match="unknown site"):
        mediation.plan(model, pairs, "haed.*")
