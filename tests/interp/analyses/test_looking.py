"""Looks at one prompt: every number against Hugging Face by hand, controls that hold, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.analyses import looking
from interp.errors import ConfigError, DataError, SiteError
from interp.models import Model
from probes import LogisticProbe, ProbeFileError
from probes.cards import ProbeCard
from tests.tiny import build, tokenizer

PROMPT = "w01 w02 w03 w04 w05"


@cache
def model() -> Model:
    return interp.load(build("llama", vocab_size=len(tokenizer())), tokenizer=tokenizer())


def ids(text: str = PROMPT) -> torch.Tensor:
    return torch.tensor([list(model().tokenize([text]).token_ids[0])])


@torch.no_grad()
def logs(inputs: torch.Tensor, **more: Any) -> torch.Tensor:
    return model().hf(inputs, **more).logits[0].double().log_softmax(dim=-1)


def test_surprise_is_what_the_model_itself_says() -> None:
    found = looking.surprise(model(), PROMPT, draws=4)
    own, tokens = logs(ids()), ids()[0]
    for at in range(1, len(tokens)):
        one = own[at - 1]
        assert found.nats[at - 1] == pytest.approx(-float(one[tokens[at]]), abs=1e-5)
        assert found.entropy[at - 1] == pytest.approx(-float((one.exp() * one).sum()), abs=1e-5)
        assert found.rank[at - 1] == 1 + int((one > one[tokens[at]]).sum())
    assert list(found.compared) == [False, True, True, True]  # one word before has no other order


def test_the_control_keeps_the_words_and_changes_their_order() -> None:
    a, b = (looking.surprise(model(), PROMPT, draws=6, seed=seed) for seed in (0, 0))
    assert np.array_equal(a.shuffled, b.shuffled, equal_nan=True)
    two = looking.surprise(model(), "w01 w02 w03", draws=3)  # the only other order of two words
    swapped = ids("w02 w01 w03")
    assert two.shuffled[:, 1] == pytest.approx(-float(logs(swapped)[1, swapped[0, 2]]), abs=1e-5)
    same = looking.surprise(model(), "w01 w01 w01 w01", draws=3)
    assert not same.compared.any() and "too short" in same.verdict()


def test_an_effect_is_how_much_less_likely_the_answer_is_with_other_tokens() -> None:
    found = looking.token_effects(model(), PROMPT, answer="w09", draws=40, seed=1)
    tokens, word = ids()[0], int(ids("w09")[0, -1])
    base = float(logs(ids())[-1, word])
    at, chances = 3, logs(ids())[2].exp()
    chances[tokens[at]] = 0.0
    changed = [logs(ids().index_fill(1, torch.tensor(at), one))[-1, word] for one in range(len(chances))]
    every = base - torch.stack(changed)
    mean = float((every * chances).sum() / chances.sum())
    value, low, high = found.control(at)  # type: ignore[misc]
    assert value == pytest.approx(found.values[at]) and low < mean < high and np.isnan(found.values[0])
    rare = min(abs(float(one) - found.drawn[0, at]) for one in every)
    assert rare < 1e-4 and found.name == "w09"  # each draw is one of those


def test_what_no_token_does_is_blank() -> None:
    found = looking.token_effects(model(), PROMPT, draws=6)
    still = replace(found, values=found.values * 0, drawn=found.drawn * 0)
    assert not any(map(still.told, range(len(still.tokens)))) and "No token" in still.verdict()
    assert set(still.figure("tokens").data["value"]) == {0.0}
    sure = replace(found, drawn=np.ones_like(found.drawn), values=np.ones_like(found.values))
    assert sure.told(3) and sure.numbers()[1].value == len(sure.there)


def test_a_probe_is_read_at_every_token(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, model().d_model)), np.repeat(["no", "yes"], 20)
    X[20:, 0] += 3
    probe = LogisticProbe(seed=0).fit(X, y)
    card = ProbeCard(site="resid_post.1", fingerprint=model().fingerprint)
    probe.save(tmp_path / "probe", card=card)
    found = looking.token_scores(model(), PROMPT, tmp_path / "probe", label="yes", draws=3)
    with torch.no_grad():
        states = model().hf(ids(), output_hidden_states=True).hidden_states[2][0].double().numpy()
    odds = np.exp(states @ probe.coef_.T + probe.intercept_)  # a row for each label
    assert found.values == pytest.approx(odds[:, 1] / odds.sum(axis=1), abs=1e-4)
    assert np.ptp(found.values) > 0.01
    two = looking.token_scores(model(), "w01 w02 w03", probe, label="yes", draws=3)  # one other order of two
    swapped = looking.token_scores(model(), "w02 w01 w03", probe, label="yes", draws=3)
    assert two.drawn[:, 2] == pytest.approx(swapped.values[2], abs=1e-5)
    with pytest.raises(ConfigError, match="the probe has: no, yes"):
        looking.token_scores(model(), PROMPT, probe, label="maybe")
    with pytest.raises(ProbeFileError):
        other = interp.load(build("llama", seed=5, vocab_size=len(tokenizer())), tokenizer=tokenizer())
        looking.token_scores(other, PROMPT, tmp_path / "probe")


def test_attention_is_what_the_model_itself_gives() -> None:
    found = looking.attention(model(), PROMPT, layers="0,2", draws=3)
    eager = build("llama", vocab_size=len(tokenizer()), attn_implementation="eager")
    eager.load_state_dict(model().hf.state_dict())
    with torch.no_grad():
        given = eager(ids(), output_attentions=True).attentions
    assert len(found.heads) == 2 * model().n_heads
    for (layer, head), pattern in zip(found.heads, found.pattern, strict=True):
        np.testing.assert_allclose(pattern, given[layer][0, head].double().numpy(), atol=1e-5)
    assert ((found.overlap >= 0) & (found.overlap <= 1 + 1e-9)).all()
    same = looking.attention(model(), "w01 w01 w01", layers=0, draws=2)  # no other order: all stays
    assert same.overlap == pytest.approx(1.0)


@pytest.mark.parametrize("site", ["resid_post.1", "head.1.0", "mlp_out.0", "embed"])
def test_patching_from_another_prompt_is_the_run_with_that_value(site: str) -> None:
    other = "w01 w02 w09 w04 w05"
    found = looking.edit(model(), PROMPT, site, 2, how="patch", source=other, draws=4, new_tokens=2)
    value = model().capture([other], [site], 2)[site]
    run = model().run([PROMPT], interventions=[interp.Intervention(site, value, 2)])
    after, plain = run.logits[0].double().log_softmax(-1), logs(ids())[-1]  # type: ignore[index]
    assert found.kl == pytest.approx(float((plain.exp() * (plain - after)).sum()), rel=1e-3, abs=1e-9)
    for one in found.said:
        token = model().tokenizer.convert_tokens_to_ids(one.token.strip())  # type: ignore[union-attr]
        assert one.before == pytest.approx(float(plain[token].exp()), abs=1e-6)
        assert one.after == pytest.approx(float(after[token].exp()), abs=1e-6)
    assert len(found.kl_random) == 4 and len(found.kl_elsewhere) == 4 and found.floor < 1e-9


def test_edits_are_what_they_say() -> None:
    state = model().capture([PROMPT], ["resid_post.1"], "all")["resid_post.1"][0]
    taken = looking.edit(model(), PROMPT, "resid_post.1", -1, draws=2, new_tokens=0)
    assert taken.length == pytest.approx(1.0) and taken.position == 4 and taken.written == ("", "", "")
    mean = looking.edit(model(), PROMPT, "resid_post.1", how="mean", draws=2, new_tokens=0)
    assert mean.length == pytest.approx(
        float((state.mean(0) - state[-1]).norm() / state[-1].norm()), rel=1e-4
    )
    half, whole = (
        looking.edit(
            model(), PROMPT, "resid_post.1", how="steer", source="w07 w08", against="w09", dose=dose, draws=2
        )
        for dose in (0.5, 1)
    )
    assert whole.length == pytest.approx(2 * half.length, rel=1e-4)


def test_a_random_change_stands_out_as_seldom_as_it_should() -> None:
    """The negative control: a random direction put in as the edit stands out in few of many draws."""
    rng = torch.Generator().manual_seed(5)
    told = 0
    for seed in range(20):
        noise = torch.randn(model().d_model, generator=rng).tolist()
        words = [f"w{int(abs(x) * 20) % 60:02d}" for x in noise[:3]]
        found = looking.edit(
            model(),
            PROMPT,
            "resid_post.0",
            how="patch",
            source=" ".join(words),
            draws=19,
            seed=seed,
            new_tokens=0,
        )
        ours = float(found.kl_random[0])
        told += ours > float(found.kl_random[1:].max())
    assert told <= 5  # one of 19 draws is the largest in 1 of 19 cases


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: looking.edit(m, PROMPT, "resid_post.1", how="cut"), ConfigError, "there are: zero, mean"),
        (lambda m: looking.edit(m, PROMPT, "resid_post.1", how="patch"), ConfigError, "needs source"),
        (lambda m: looking.edit(m, PROMPT, "resid_post.1", source="w01"), ConfigError, "takes no source"),
        (lambda m: looking.edit(m, PROMPT, "resid_post.1", 9), DataError, "tokens 0 to 4"),
        (lambda m: looking.edit(m, PROMPT, "resid_post.*"), SiteError, "an edit changes one"),
        (lambda m: looking.edit(m, PROMPT, "neuron.1.3"), SiteError, "is a number at each token"),
        (lambda m: looking.edit(m, PROMPT, "resid_post.77"), SiteError, "77"),
        (
            lambda m: looking.edit(m, PROMPT, "embed", how="patch", source=PROMPT),
            DataError,
            "nothing is changed",
        ),
        (
            lambda m: looking.edit(m, PROMPT, "embed", 0, how="patch", source="w01"),
            DataError,
            "before its end",
        ),
        (lambda m: looking.edit(m, PROMPT, "embed", draws=1), ConfigError, "at least 2"),
        (lambda m: looking.surprise(m, "w01"), DataError, "1 token; 2 to 512"),
        (lambda m: looking.surprise(m, PROMPT, draws=1), ConfigError, "at least 2"),
        (lambda m: looking.attention(m, "w01"), DataError, "1 token; 2 to 128"),
        (lambda m: looking.attention(m, PROMPT, layers=44), SiteError, "44"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(model())
