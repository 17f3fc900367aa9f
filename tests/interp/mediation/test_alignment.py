"""Alignment search on random models: its passes are the model's own, and bad input is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interp import mediation, results
from interp.errors import ConfigError, DataError, SiteError
from interp.mediation.distributed_alignment import Alignment, Score
from interp.mediation.distributed_alignment.downstream import Downstream
from interp.mediation.mediators import Mediator
from interp.mediation.subspaces import Subspace
from interp.models.interventions import Intervention
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.sites import Site
from probes.statistics import Estimate, Interval
from tests.tiny import WORDS, build, tokenizer


def made(family: str = "llama") -> Model:
    return load(build(family), tokenizer=tokenizer())


def pairs_of(model: Model, n: int = 10, *, length: int = 6) -> PairSet:
    rng = np.random.default_rng(0)
    found: list[Pair] = []
    for at in range(n):
        words = [WORDS[i] for i in rng.integers(0, 50, length + at % 2)]
        other = [*words[:2], WORDS[50 + at % 5], *words[3:]]
        found.append(Pair(" ".join(words), " ".join(other), (WORDS[55],), (WORDS[56],), "word", f"g{at}"))
    return PairSet.build(model, found)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "bloom", "granite", "opt"])
@pytest.mark.parametrize("site", ["resid_post.1", "resid_pre.1", "embed", "mlp_out.1", "head.1.2"])
def test_blocks_behind_a_site_give_the_models_own_logits_and_gradients(family: str, site: str) -> None:
    model = made(family)
    pairs = pairs_of(model, 4)[[0, 2]]
    mediator = mediation.mediators_of(model, pairs, site, positions=-2)[0]
    run = Downstream.of(model, pairs.clean.token_ids, mediator)
    assert run.arguments, "the short way was given up"
    (place,) = mediator.places
    width = model.d_head if place.index is not None else model.d_model
    shift = torch.randn(width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = torch.tensor([1, 0, 1])
    logits = run(rows, lambda current: current * 1.5 + shift)
    read = model.capture(pairs.clean, str(place.carrier), -2)[str(place.carrier)].clone()
    if place.index is None:
        read = read * 1.5 + shift.detach()
    else:
        read[:, place.index] = read[:, place.index] * 1.5 + shift.detach()
    wanted = model.run(pairs.clean, interventions=[Intervention(place.carrier, read, -2)]).logits
    assert wanted is not None
    assert torch.allclose(logits.detach(), wanted[rows].float(), atol=1e-4)
    (slope,) = torch.autograd.grad(logits[:, 7].sum(), [shift])
    step = 1e-2 * slope / slope.norm()
    with torch.no_grad():
        up, down = (run(rows, lambda current, s=s: current * 1.5 + shift + s * step) for s in (1, -1))
        measured = (up - down)[:, 7].double().sum() / 2
    assert float(measured) == pytest.approx(float(slope @ step), rel=0.05)


def test_interchange_accuracy_of_everything_and_of_nothing() -> None:
    model = made()
    pairs = pairs_of(model, 12)
    own = {"clean": model.logits(pairs.clean), "corrupt": model.logits(pairs.corrupt)}
    right = [own["clean"][:, 59] > own["clean"][:, 60], own["corrupt"][:, 60] > own["corrupt"][:, 59]]
    share = float(torch.cat(right).float().mean())
    whole = mediation.interchange_accuracy(model, pairs, "resid_pre.0")
    assert whole.value == pytest.approx(share)
    assert whole.n == 24
    nothing = mediation.interchange_accuracy(model, pairs, Mediator(Site("resid_pre", 1), 0))
    assert nothing.value == pytest.approx(1 - share)  # the first token is the same: each keeps its own answer
    every = mediation.interchange_accuracy(model, pairs, "resid_pre.0", among="vocabulary")
    top = torch.cat([own["clean"].argmax(1) == 59, own["corrupt"].argmax(1) == 60])
    assert every.value == pytest.approx(float(top.float().mean()))


def test_a_search_reproduces_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model = made("gpt2")
    pairs = pairs_of(model, 10)
    before = model.fingerprint
    found = [
        mediation.das(model, pairs, "mlp_out.1", dim=3, steps=20, controls=("random", "pca"))
        for _ in range(2)
    ]
    assert torch.equal(found[0].subspace.basis, found[1].subspace.basis)
    assert model.fingerprint == before
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    gram = found[0].subspace.basis @ found[0].subspace.basis.T
    assert float((gram - torch.eye(3)).abs().max()) < 1e-5
    other = mediation.das(model, pairs, "mlp_out.1", dim=3, steps=20, controls=(), seed=1)
    assert not torch.allclose(other.subspace.basis, found[0].subspace.basis, atol=1e-3)
    again = results.load(found[0].save(tmp_path / "aligned"))
    assert isinstance(again, Alignment) and again.verdict() == found[0].verdict()
    assert torch.equal(again.subspace.basis, found[0].subspace.basis)
    assert Subspace.load(again.subspace.save(tmp_path / "answer.safetensors")).dim == 3
    assert found[0].table().equals(found[1].table())
    assert found[0].number("accuracy").value == found[0].accuracy.value
    assert found[0].table()["name"].tolist() == ["das", "random", "pca"]
    assert list(found[0].figure("scores").data["colour"]) == [0, -1, -1]
    losses = found[0].table("losses")
    assert losses["validation"].tolist() == [row["validation"] for row in found[0].curve]


def test_training_lowers_the_loss_and_a_frozen_start_does_not() -> None:
    model = made()
    pairs = pairs_of(model, 20)
    found = mediation.das(model, pairs, "resid_post.1", dim=8, steps=60, rate=0.05, controls=())
    still = mediation.das(model, pairs, "resid_post.1", dim=8, steps=60, rate=1e-9, controls=())
    assert min(row["train"] for row in found.curve if "train" in row) < 0.8 * found.curve[0]["train"]
    assert abs(still.curve[-1]["validation"] - still.curve[0]["validation"]) < 1e-3


def scored(own: float, control: str, other: float, low: float, high: float) -> Alignment:
    def estimate(value: float, low: float, high: float) -> Estimate:
        return Estimate(value, Interval(low, high, 0.95, "given"), 40, 20)

    scores = (
        Score("answer", "das", estimate(own, 0.8, 1.0)),
        Score("answer", control, estimate(other, 0.4, 0.9), estimate(own - other, low, high)),
    )
    space, site = Subspace.of(torch.ones(1, 4), "answer"), Mediator(Site("resid_pre", 1), -1)
    return Alignment(
        subspaces={"answer": space},
        mediator=site,
        scores=scores,
        isolation={},
        curve=(),
        among="answers",
        sizes=(6, 2, 2),
    )


def test_a_difference_that_may_be_zero_is_no_equality() -> None:
    """'training on arbitrary answers does as well (0.62)' was said beside an accuracy of 1.00."""
    floor = scored(1.0, "arbitrary", 0.62, -0.05, 0.7).verdict()
    assert "not shown to carry it" in floor and "as well" not in floor
    assert "training on arbitrary answers (0.62) is not told apart (difference 0.38 [-0.05, 0.70])" in floor
    rival = scored(1.0, "pca", 0.9, -0.02, 0.2).verdict()
    assert "PCA (0.90) is not told apart" in rival and "not shown to be needed" in rival
    assert "PCA (1.00) does better" in scored(0.9, "pca", 1.0, -0.2, -0.01).verdict()
    assert scored(1.0, "arbitrary", 0.5, 0.2, 0.8).verdict().endswith("better than every control")


def test_what_cannot_be_aligned_is_refused() -> None:
    model = made()
    pairs = pairs_of(model)
    for change, message in (
        ({"dim": 33}, "33 directions asked .* width 32"),
        ({"dim": (1, 2)}, "2 numbers of directions given for 1 variables"),
        ({"controls": ("nothing",)}, "control 'nothing' asked; there are: random, pca"),
        ({"among": "words"}, "among='words' asked; use 'answers' or 'vocabulary'"),
        ({"fractions": (1.0, 0.0, 0.0)}, "give three that add up to 1"),
        ({"steps": 0}, "must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            mediation.das(model, pairs, "resid_post.1", **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="are of 3 groups; training, stopping and testing"):
        mediation.das(model, pairs[:3], "resid_post.1")
    with pytest.raises(SiteError, match="a subspace needs one site with a width"):
        mediation.das(model, pairs, "resid_post.*")
    with pytest.raises(SiteError, match="a subspace needs one site with a width"):
        mediation.das(model, pairs, "neuron.1.3")
    with pytest.raises(DataError, match="no variable was given"):
        mediation.das(model, {}, "resid_post.1")
    with pytest.raises(ConfigError, match="names 3 mediators; give one"):
        mediation.interchange_accuracy(model, pairs, "resid_post.*")
    found = mediation.das(model, pairs, "resid_post.1", steps=1, controls=())
    with pytest.raises(ConfigError, match="no score 'pca' of 'answer'; measured: das"):
        found.score("pca")
    assert "nothing was controlled for" in replace(found, among="vocabulary").verdict()
