"""Searches as values: the table, options, one of one's own, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from interp import mediation
from interp.errors import ConfigError, DataError
from interp.mediation import SEARCHES, AtPStar, Attribution, Exhaustive, Experiment, Search, experiment_of
from interp.mediation.edges.experiment import EdgeExperiment
from interp.mediation.experiment import Estimates
from interp.mediation.searches import effects
from interp.mediation.site_experiment import SiteExperiment
from tests.interp.mediation.edges.models import made, pairs_of


@pytest.mark.parametrize("name", SEARCHES)
def test_a_row_of_the_table_is_called_what_its_effects_say(name: str) -> None:
    row, words = SEARCHES[name], {"sites", "edges", "windows", "noised tokens", "fitted constants"}
    assert row.name == name and row.description and set(row.over) <= words
    assert replace(row) == row and hash(replace(row)) == hash(row)


@dataclass(frozen=True, kw_only=True)
class Doubled(Search):
    """What a user may write: twice the exact effects."""

    times: float = 2.0
    name = "doubled"
    description = "twice what it is"

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        found = experiment.each(progress=progress)
        values = {way: self.times * one for way, one in found.values.items()}
        return replace(found, values=values, notes=("doubled",))


def test_a_search_of_ones_own_runs_as_those_of_the_table() -> None:
    model = made()
    pairs = pairs_of(model)
    found = effects(model, pairs, "head.1.*", search=Doubled(times=3), directions="noising", seed=1)
    exact = mediation.exhaustive(model, pairs, "head.1.*", directions="noising", seed=1)
    assert np.allclose(found.values["noising"], 3 * exact.values["noising"], atol=1e-6)
    assert (found.search, found.exact, found.seed) == ("doubled", True, 1)
    assert "doubled" in found.warnings
    with pytest.raises(ConfigError, match="search 'doubled' is over sites and parts of them"):
        effects(model, pairs, "edge.*->logits", search=Doubled())


def test_an_experiment_is_on_sites_or_on_edges_and_any_search_over_them_takes_it() -> None:
    model = made()
    pairs = pairs_of(model)
    sites, edges = (
        experiment_of(model, pairs, "mlp_out.*"),
        experiment_of(model, pairs, "edge.mlp_out.*->logits"),
    )
    assert isinstance(sites, SiteExperiment) and isinstance(edges, EdgeExperiment)
    for asked in (sites, edges):
        for search in (Exhaustive(), Attribution(verify=2)):
            found = search(asked)
            assert found.mediators == asked.mediators and found.search == search.name
            part = search(asked.part([1], [0, 2]))
            wanted = found.values["noising"][1:2, [0, 2]]
            assert np.allclose(part.values["noising"], wanted, atol=1e-5) and np.abs(wanted).max() > 1e-4


@pytest.mark.parametrize(
    "asked", [["mlp_out.0", "head.1.2"], ["edge.mlp_out.0->logits", "edge.head.1.2->mlp.2"]]
)
def test_a_set_is_replaced_together_and_none_of_it_is_the_plain_run(asked: list[str]) -> None:
    """The last set is everything: with all that is written replaced the other prompt's answer comes out."""
    model = made()
    pairs = pairs_of(model)
    experiment = experiment_of(model, pairs, asked, directions="noising")
    one, two = experiment.mediators
    found = experiment.replaced([(), (one,), (two,), (one, two)], "noising")
    assert np.allclose(found.plain, experiment.clean, atol=1e-5)
    assert np.array_equal(found.values[0], found.plain)
    alone = experiment.each().values["noising"]
    assert np.allclose(found.plain - found.values[1:3], alone, atol=1e-5)
    together = found.plain - found.values[3]
    assert np.abs(together - alone.sum(axis=0)).max() < np.abs(together).max()
    every = experiment_of(model, pairs, ["embed"] if "edge" not in asked[0] else ["edge.*"], positions="all")
    whole = every.replaced([every.mediators], "noising").values[0]
    assert np.allclose(whole, experiment.corrupt, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"search": "atpstar"},
            r"search 'atpstar' asked; there are: exhaustive, .* Did you mean 'atp-star'\?",
        ),
        ({"search": "zzz"}, r"search 'zzz' asked; there are: exhaustive, .*, direct, .*[a-z]\.$"),
        ({"search": AtPStar}, r"give a name or a search such as Exhaustive\(\)"),
        ({"metric": "loss"}, "metric 'loss' asked; there are: logit-diff"),
        ({"directions": "back"}, "directions 'back' asked; use 'both', denoising or noising"),
        ({"mediators": "edge.*->logits", "replacement": "steering"}, "for edges there are: interchange"),
    ],
)
def test_what_there_is_not_is_refused(given: dict[str, Any], message: str) -> None:
    model = made()
    asked: dict[str, Any] = {"mediators": "head.*"} | given
    with pytest.raises(ConfigError, match=message):
        effects(model, pairs_of(model), **asked)


def test_no_pairs_and_unknown_keywords_are_refused() -> None:
    model = made()
    with pytest.raises(DataError, match="a list given; give a PairSet"):
        effects(model, [], "head.*")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="metrics"):
        mediation.exhaustive(model, pairs_of(model), "head.*", metrics="prob")  # type: ignore[call-arg]
