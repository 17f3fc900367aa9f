"""Direct logit attribution, direct effects and the logit lens, against formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, ModelError, SiteError
from interp.mediation.searches import effects
from interp.models.loading import load
from tests.interp.mediation.test_search import made, pairs_of
from tests.tiny import build, tokenizer

FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox", "granite", "olmo2", "bloom", "cohere"]


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_add_up_to_the_logit_difference(family: str) -> None:
    """Oracle 5: the sum is the model's own difference, where there is a cap taken back through it."""
    model = made(family)
    pairs = pairs_of(model)
    found = mediation.direct_logit_attribution(model, pairs)
    logits = model.logits(pairs.clean).double()
    cap = getattr(model.hf.config, "final_logit_softcapping", None)
    raw = logits if cap is None else cap * torch.atanh(logits / cap)
    wanted = [
        float(raw[row, pairs.answer_ids[row][0]] - raw[row, pairs.foil_ids[row][0]]) for row in range(4)
    ]
    assert np.allclose(found.values.sum(axis=0), wanted, atol=1e-4 if cap else 1e-5)
    assert found.remainder < 1e-5 * max(1.0, np.abs(found.values).max())
    together = family in ("gemma2", "olmo2")
    assert any(name.startswith("attn_out") for name in found.writers) == together
    assert sum(name.startswith("head.") for name in found.writers) == (0 if together else 12)
    assert np.abs(found.values).max(axis=1).min() >= 0 < np.abs(found.values).max()


def test_a_contribution_is_the_formula_of_the_frozen_layer_norm() -> None:
    """GPT-2 written out; the control: a norm of the part's own is another number."""
    model = made("gpt2")
    pairs = pairs_of(model)
    found = mediation.direct_logit_attribution(model, pairs, prompts="corrupt")
    read = model.capture(pairs.corrupt, ["resid_post.2", "mlp_out.1"])
    stream, part = read["resid_post.2"].double(), read["mlp_out.1"].double()
    norm, head = model.hf.transformer.ln_f, model.hf.lm_head.weight.detach().double()  # type: ignore[union-attr]
    gain = norm.weight.detach().double()
    scale = (stream.var(dim=1, unbiased=False) + norm.eps).sqrt()
    frozen = (part - part.mean(dim=1, keepdim=True)) / scale[:, None] * gain
    live = torch.nn.functional.layer_norm(part, (32,), gain, eps=norm.eps)
    rows = range(len(pairs))
    row_of = found.values[found.writers.index("mlp_out.1")]
    for normed, same in ((frozen, True), (live, False)):
        wanted = [
            float(normed[r] @ (head[pairs.answer_ids[r][0]] - head[pairs.foil_ids[r][0]])) for r in rows
        ]
        assert np.allclose(row_of, wanted, atol=1e-5) == same


def test_contributions_are_a_result() -> None:
    model = made()
    found = mediation.direct_logit_attribution(model, pairs_of(model))
    table = found.table()
    assert table["writer"].tolist()[:3] == list(found.top(3))
    assert found.number("logit-diff").value == pytest.approx(found.total.mean())
    assert table["contribution"].sum() == pytest.approx(found.total.mean(), abs=1e-4)
    total, *parts = found.findings()
    assert sum(one.value for one in parts) == pytest.approx(total.value, abs=1e-4)
    with pytest.raises(ConfigError, match=r"no writer 'head\.9\.9'"):
        found.estimate("head.9.9")
    with pytest.raises(ConfigError, match="prompts 'both' asked; use clean or corrupt"):
        mediation.direct_logit_attribution(model, pairs_of(model), prompts="both")


def test_a_norm_of_another_kind_is_refused() -> None:
    hf = build("llama")
    hf.model.norm = torch.nn.Softsign()
    model = load(hf, tokenizer=tokenizer())
    with pytest.raises(ModelError, match="neither a layer norm nor an RMS norm"):
        mediation.direct_logit_attribution(model, pairs_of(model))


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "gptj"])
def test_where_nothing_follows_the_direct_effect_is_the_whole_effect(family: str) -> None:
    """The last MLP, and in parallel blocks the last heads; the control: earlier ones act indirectly too."""
    model = made(family)
    pairs = pairs_of(model)
    names = ["mlp_out.0", "mlp_out.2"] + (["head.2.1", "embed"] if family == "gptj" else [])
    direct = effects(model, pairs, names, search="direct", positions="all")
    exact = mediation.exhaustive(model, pairs, names, positions="all")
    rows = {str(m): at for at, m in enumerate(exact.mediators)}
    for direction in exact.directions:
        for name in names:
            gap = np.abs(direct.values[direction] - exact.values[direction])[rows[name]].max()
            assert (gap < 1e-5) == (".2" in name), name
    elsewhere = effects(model, pairs, "mlp_out.2", search="direct", positions=2)
    assert not elsewhere.values["noising"].any()


def test_what_adds_nothing_to_the_stream_has_no_direct_effect() -> None:
    model, post = made(), made("gemma2")
    with pytest.raises(SiteError, match=r"'resid_post.1@0' adds nothing .* attn_out, mixer_out, mlp_out"):
        effects(model, pairs_of(model), "resid_post.1", search="direct")
    with pytest.raises(SiteError, match=r"a norm stands between them .* Use attn_out.1"):
        effects(post, pairs_of(post), "head.1.0", search="direct")


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "opt"])
def test_the_lens_ends_in_the_models_own_answer(family: str) -> None:
    model = made(family)
    pairs = pairs_of(model)
    found = mediation.logit_lens(model, pairs)
    logits = model.logits(pairs.clean).double()
    for row in range(len(pairs)):
        answer, foil = pairs.answer_ids[row][0], pairs.foil_ids[row][0]
        chances = logits[row].softmax(0)
        assert found.values["logit_diff"][-1, row] == pytest.approx(
            float(logits[row, answer] - logits[row, foil]), abs=1e-5
        )
        assert found.values["answer_prob"][-1, row] == pytest.approx(float(chances[answer]), abs=1e-6)
        order = sorted(chances.tolist(), reverse=True)
        assert found.values["rank"][-1, row] == 1 + order.index(float(chances[answer]))
    assert np.abs(found.values["kl"][-1]).max() < 1e-6 < 1e-2 < found.values["kl"][0].min()
    assert found.sites == ("embed", *(f"resid_post.{layer}" for layer in range(3)))


def test_a_lens_is_a_result() -> None:
    model = made()
    pairs = pairs_of(model)
    found = mediation.logit_lens(model, pairs, prompts="corrupt")
    table = found.table()
    assert table["site"].tolist() == list(found.sites)
    assert not math.isclose(table["kl"][0], mediation.logit_lens(model, pairs).table()["kl"][0])
    assert found.number("logit-diff").value == pytest.approx(found.values["logit_diff"][-1].mean())
    assert found.finding("kl at resid_post.1").value == pytest.approx(table["kl"][2])
    assert found.finding("kl at resid_post.1").layer == 1
    with pytest.raises(ConfigError, match="prompts 'both' asked"):
        mediation.logit_lens(model, pairs, prompts="both")
