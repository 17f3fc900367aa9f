"""Integrated gradients: the error's order, the exact effect as limit; each pair on its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, DataError
from interp.mediation import SEARCHES, AtPStar, IntegratedGradients
from interp.mediation.searches import effects
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import PairSet
from tests.interp.mediation.quick import TRAINED
from tests.interp.mediation.test_search import made, pairs_of
from tests.tiny import build, tokenizer


def straight() -> Model:
    """A model without a final norm: its last block's writers reach the logits through the head alone."""
    hf = build("llama")
    hf.model.norm = torch.nn.Identity()
    return load(hf, tokenizer=tokenizer())


@pytest.mark.parametrize("search", ["attribution", "atp-star", "ig-inputs", "ig-activations", "direct"])
def test_every_estimate_is_exact_behind_a_linear_last_hop(search: str) -> None:
    """Oracle 6; the control: one layer earlier the model bends, and no estimate is exact."""
    model = straight()
    pairs = pairs_of(model)
    names = ["mlp_out.1", "mlp_out.2"]
    exact = mediation.exhaustive(model, pairs, names)
    given = AtPStar(drops="none") if search == "atp-star" else SEARCHES[search]
    found = effects(model, pairs, names, search=given)
    for direction in exact.directions:
        early, last = (
            np.abs(found.values[direction][at] - exact.values[direction][at]).max() for at in (0, 1)
        )
        assert last < 2e-5 < 1e-3 < np.abs(exact.values[direction][1]).max()
        assert early > 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_embeddings_account_for_the_total_effect_with_an_error_of_second_order(family: str) -> None:
    """Oracle 7: the midpoint rule's error falls by about four when the steps double."""
    model = made(family)
    pairs = pairs_of(model, 3)
    errors: list[float] = []
    for steps in (16, 32, 64):
        search = IntegratedGradients(steps=steps, verify=0)
        found = effects(model, pairs, "embed", search=search, positions="all", directions="noising")
        error = found.cost["noising"]["completeness_error"]
        assert error == pytest.approx(np.abs(found.values["noising"][0] - found.total).max(), abs=1e-5)
        errors.append(error)
    assert errors[0] / errors[2] > 6
    assert errors[2] < 0.02 * np.abs(found.total).max()
    plain = mediation.attribution(model, pairs, "embed", positions="all", directions="noising", verify=0)
    assert np.abs(plain.values["noising"][0] - found.total).max() > 3 * errors[0]


@pytest.mark.parametrize("family", ["gpt2", "olmo2"])
def test_a_whole_site_moved_on_its_own_tends_to_its_exact_effect(family: str) -> None:
    model = made(family)
    pairs = pairs_of(model, 3)
    names = ["attn_out.0", "mlp_out.1"]
    exact = mediation.exhaustive(model, pairs, names)

    def missed(steps: int) -> float:
        found = effects(
            model, pairs, names, search=IntegratedGradients(path="activations", steps=steps, verify=0)
        )
        return max(float(np.abs(found.values[d] - exact.values[d]).max()) for d in exact.directions)

    assert missed(4) / missed(16) > 5
    assert missed(16) < 0.01 * float(np.abs(exact.values["noising"]).max())


def test_parts_of_a_site_share_out_its_effect() -> None:
    model = made()
    pairs = pairs_of(model, 3)
    heads = effects(
        model, pairs, ["head.1.*", "z.1"], search=IntegratedGradients(path="activations", verify=0)
    )
    rows = dict(zip(map(str, heads.mediators), heads.values["denoising"], strict=True))
    assert np.allclose(rows.pop("z.1"), sum(rows.values()), atol=1e-5)


def joined(model: Model) -> PairSet:
    """Prompts of two lengths."""
    long, short = pairs_of(model, 2, length=9), pairs_of(model, 2, length=6, seed=1)
    return PairSet.build(model, [*long.pairs, *short.pairs])


@pytest.mark.parametrize(
    "search", [row.name for row in SEARCHES.values() if "sites" in row.over and row.name not in TRAINED]
)
def test_every_search_treats_each_pair_on_its_own(search: str) -> None:
    """What the command line passes; prompts of several lengths give what each gives alone."""
    model = made()
    pairs = joined(model)
    writers, metric = (
        search in ("direct", "contextual"),
        "logit-diff" if search == "contextual" else "log-prob",
    )
    names = ["head.1.*", "mlp_out.2"] + ([] if writers else ["q.2.1", "k.1.0", "resid_pre.1"])

    def run(some: PairSet) -> mediation.Effects:
        at = -1 if search == "direct" else -2
        return effects(model, some, names, search=search, metric=metric, positions=at)

    together = run(pairs)
    assert together.search == search
    alone = [run(replace(pairs[[at]])) for at in range(len(pairs))]
    for direction in together.directions:
        wanted = np.concatenate([one.values[direction] for one in alone], axis=1)
        assert np.allclose(together.values[direction], wanted, atol=2e-5)
        assert np.abs(wanted).max() > 1e-3
    assert SEARCHES[search].exact or together.verified.sample > 2


def test_a_verified_estimate_says_how_sure_its_rank_correlation_is() -> None:
    model = made()
    found = effects(model, pairs_of(model), ["head.*", "mlp_out.*"], search=IntegratedGradients(verify=2))
    assert found.verified is not None and found.verified.sample == 15
    rank = found.number("rank-correlation")
    assert rank.value == found.verified.rank_correlation
    assert -1 <= rank.low < rank.value < rank.high <= 1


def test_paths_and_steps_that_there_are_not() -> None:
    model = made()
    pairs = pairs_of(model)
    with pytest.raises(ConfigError, match="path 'weights' asked; use inputs or activations"):
        IntegratedGradients(path="weights")
    with pytest.raises(ConfigError, match="0 steps asked"):
        IntegratedGradients(steps=0)
    with pytest.raises(ConfigError, match="metric 'accuracy' has no gradient"):
        effects(model, pairs, "head.*", search="ig-inputs", metric="accuracy")


def test_counts_below_zero_and_no_pairs_are_refused() -> None:
    model = made()
    pairs = pairs_of(model)
    with pytest.raises(ConfigError, match="verify=-1 asked"):
        mediation.attribution(model, pairs, "head.*", verify=-1)
    with pytest.raises(ConfigError, match="k=-1 asked"):
        mediation.exhaustive(model, pairs, "head.0.*").top(-1)
    with pytest.raises(DataError, match="an empty PairSet given"):
        mediation.exhaustive(model, pairs[:0], "head.0.*")


def test_a_function_is_not_hidden_by_a_file_of_its_name() -> None:
    """In a fresh process, after the table of the same file was read."""
    code = "from interp import mediation as m; m.ESTIMANDS; m.plan; m.stability; assert callable(m.estimands)"
    names = "[getattr(m, n) for n in m.__all__]; import types"
    check = "assert not [n for n in m.__all__ if isinstance(getattr(m, n), types.ModuleType)]"
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"{code}; {names}; {check}"], check=True)
