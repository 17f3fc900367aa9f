"""Curves over many prompts: by hand, by what must hold at the last layer, and in an untrained model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp import lenses, tasks
from interp.errors import ConfigError, DataError, SiteError
from interp.lenses import LensCurves
from probes.statistics import bootstrap
from tests.noisy import demo
from tests.tiny import tiny

N = 24
TARGET = "Denmark : Denmark ; Japan : Japan ; ?"


@pytest.fixture(scope="module")
def data() -> tasks.Labelled:
    return tasks.labelled("fact-relation", n=N, seed=0)


@pytest.fixture(scope="module")
def found(data: tasks.Labelled) -> LensCurves:
    return lenses.curves(demo(), data, kinds=("logit", "patchscope"), layers="0-23:4,-1", target=TARGET)


def test_agreement_rank_and_divergence_are_those_by_hand(found: LensCurves, data: tasks.Labelled) -> None:
    model = demo()
    run = model.run(list(data.texts), capture=["resid_post.16"])
    assert run.logits is not None and run.activations is not None
    own = run.logits.double().log_softmax(-1)
    said = model.unembed(run.activations["resid_post.16"]).double().log_softmax(-1)
    at, answer = found.layers.index(16), own.argmax(-1)
    measured = found.trained["logit"]
    assert measured.agreement[at].tolist() == (said.argmax(-1) == answer).double().tolist()
    np.testing.assert_allclose(measured.kl[at], (own.exp() * (own - said)).sum(-1), atol=1e-4)
    ranks = [int((row > row[one]).sum()) + 1 for row, one in zip(said, answer, strict=True)]
    assert measured.rank[at].tolist() == ranks
    row = found.table("curves").query("lens == 'logit' and model == 'trained' and layer == 16").iloc[0]
    assert row["rank"] == pytest.approx(math.exp(np.log(ranks).mean()))
    expected = bootstrap(measured.agreement[at], groups=data.groups, support="share")
    assert (row["agreement"], row["agreement_low"]) == (expected.value, expected.interval.low)


def test_at_the_last_layer_every_lens_is_the_model(found: LensCurves) -> None:
    for arm in (found.trained, found.untrained):
        for one in arm.values():
            assert (one.agreement[-1] == 1).all() and (one.rank[-1] == 1).all()
            assert one.kl[-1].max() < 1e-4
    assert found.trained["logit"].agreement[0].mean() < 1


def test_the_summary_leaves_the_last_layer_out(found: LensCurves) -> None:
    logit = found.trained["logit"]
    assert found.before == len(found.layers) - 1 == 6
    assert found.early["logit"].value == pytest.approx(logit.agreement[:-1].mean())
    part = lenses.curves(
        demo(), ["the capital of France is", "the capital of Japan is"], kinds=["logit"], layers=20
    )
    assert part.verdict().startswith("At layer 20 the logit lens names")
    last = replace(part, layers=(23,))
    assert last.verdict().startswith("At the last layer (where every lens gives the model's own output) the")
    assert part.before == 1 and part.early["logit"].value == part.trained["logit"].agreement.mean()


def test_no_interval_reaches_ranks_and_divergences_that_cannot_be(found: LensCurves) -> None:
    few = {
        kind: replace(one, rank=np.where(np.arange(N) % 24, 1.0, 900.0) + 0 * one.rank, kl=one.rank % 2 * 9.0)
        for kind, one in found.trained.items()
    }
    wild = replace(found, trained=few)
    for *_, rank, rank_low, rank_high, kl, kl_low, kl_high in wild.points:
        assert 1.0 <= rank_low <= rank <= rank_high and 0.0 <= kl_low <= kl <= kl_high


def test_the_verdict_says_what_an_untrained_model_does(found: LensCurves) -> None:
    assert found.best == max(found.early, key=lambda kind: found.early[kind].value)
    assert "In the same model untrained it is" in found.verdict()
    same = replace(found, untrained=found.trained)
    assert "shows nothing that was learned" in same.verdict()
    none = {kind: replace(one, agreement=0 * one.agreement) for kind, one in found.trained.items()}
    assert replace(found, untrained=none).verdict().endswith("untrained it is 0%.")
    assert "untrained" not in replace(found, untrained={}).verdict()


def test_the_layer_from_which_on_half_agree(found: LensCurves) -> None:
    share = np.array([0.6, 0.2, 0.4, 0.5, 0.9, 0.8, 1.0])
    agreement = (np.arange(N)[None, :] < (share * N)[:, None]).astype(float)
    made = replace(found, trained={"logit": replace(found.trained["logit"], agreement=agreement)})
    assert made.half("logit") == found.layers[3]
    made = replace(found, trained={"logit": replace(found.trained["logit"], agreement=agreement[::-1])})
    assert made.half("logit") == found.layers[-1]


def test_the_commonest_word_is_the_floor(found: LensCurves, data: tasks.Labelled) -> None:
    said = demo().logits(list(data.texts)).argmax(-1)
    _, counts = torch.unique(said, return_counts=True)
    assert found.commonest.sum() == counts.max()
    assert found.finding("agreement of logit at layer 16").control is found.commonest
    assert found.figure("agreement").reference == pytest.approx(float(counts.max()) / N)


def test_an_untrained_model_has_no_twin_and_a_twin_must_fit() -> None:
    model = interp.load(tiny("llama")[0], tokenizer=tiny("llama")[1])
    texts = ["w01 w02", "w03 w04", "w05 w06"]
    random = interp.load(model.hf, weights="random", tokenizer=model.tokenizer)
    assert lenses.curves(random, texts, kinds=["logit"]).untrained == {}
    assert set(lenses.curves(model, texts, kinds=["logit"], untrained=random).untrained) == {"logit"}
    with pytest.raises(ConfigError, match="the untrained model has 24 layers of width 64"):
        lenses.curves(model, texts, kinds=["logit"], untrained=demo())


def test_what_cannot_be_compared_is_refused() -> None:
    texts = ["the capital of France is", "the capital of Japan is"]
    with pytest.raises(DataError, match="at least 2 prompts"):
        lenses.curves(demo(), texts[:1])
    with pytest.raises(ConfigError, match="each once"):
        lenses.curves(demo(), texts, kinds=["logit", "logit"])
    for wrong in ({"data": texts[0]}, {"kinds": "logit"}):
        with pytest.raises(ConfigError, match="prompts and kinds of lenses are lists"):
            lenses.curves(demo(), **{"data": texts, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lens 'nonsense' is not known"):
        lenses.curves(demo(), texts, kinds=["nonsense"])
    with pytest.raises(SiteError, match="layer 99"):
        lenses.curves(demo(), texts, kinds=["logit"], layers=99)
