"""Draws: the same whatever the batch, from what was asked for; oracles are NumPy and transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from transformers.generation import logits_process

from interp import Sampling
from interp.errors import ConfigError
from interp.models import Model, load, sampling
from tests.interp.models.conftest import PROMPTS
from tests.tiny import build, tokenizer

WAYS = {
    "plain": Sampling(seed=5),
    "hot": Sampling(1.7, seed=1),
    "top-p": Sampling(0.8, top_p=0.7, seed=2),
    "top-k": Sampling(1.2, top_k=5, seed=3),
    "min-p": Sampling(1.0, min_p=0.1, seed=4),
    "all": Sampling(0.9, top_p=0.8, top_k=12, min_p=0.02, seed=6),
}


def warped(logits: torch.Tensor, way: Sampling) -> torch.Tensor:
    """The distribution by transformers' own warpers, in float64."""
    rows = logits.double() / way.temperature
    if way.top_k:
        rows = logits_process.TopKLogitsWarper(way.top_k)(None, rows)
    if way.top_p < 1:
        rows = logits_process.TopPLogitsWarper(way.top_p)(None, rows)
    if way.min_p:
        rows = logits_process.MinPLogitsWarper(way.min_p)(None, rows)
    return rows.softmax(-1)


@pytest.mark.parametrize("name", WAYS)
def test_bounds_are_those_of_transformers(name: str) -> None:
    logits = 3 * torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    found, wanted = WAYS[name].probabilities(logits), warped(logits, WAYS[name])
    assert torch.allclose(found, wanted, atol=1e-12)
    assert ((found > 0) == (wanted > 0)).all()
    if WAYS[name].bounds:
        assert not torch.allclose(found, Sampling(WAYS[name].temperature).probabilities(logits), atol=1e-3)


@pytest.mark.parametrize("name", WAYS)
def test_tokens_are_those_of_a_plain_loop(name: str, llama: Model) -> None:
    """One prompt at a time, no cache, no padding: the first arrival of exponential clocks, by NumPy."""
    way = WAYS[name]
    made = llama.generate(PROMPTS, max_new_tokens=4, sample=way)
    for number, ids in enumerate(llama.tokenize(PROMPTS).token_ids):
        text = list(ids)
        for step in range(4):
            with torch.no_grad():
                logits = llama.hf(torch.tensor([text]), use_cache=False).logits[:, -1]
            clocks = np.random.default_rng([way.seed, number, step]).standard_exponential(logits.shape[-1])
            with np.errstate(divide="ignore"):
                text.append(int(np.argmin(clocks / warped(logits, way)[0].numpy())))
            if text[-1] == END:
                break
        assert made.token_ids[number] == tuple(text[len(ids) :])


def test_draws_follow_the_distribution() -> None:
    """Chi-squared over the tokens that a bound keeps, at one in a thousand; even draws would be seen."""
    way = WAYS["all"]
    logits = torch.randn(1, 24, generator=torch.Generator().manual_seed(1))
    chances = way.probabilities(logits)[0].numpy()
    settled = way.choose(logits.repeat(4000, 1), range(4000), 0)
    counts = np.bincount(settled.tokens.numpy(), minlength=24)
    kept = chances > 0
    assert 4 < kept.sum() < 24 and not counts[~kept].any()
    expected = 4000 * chances[kept]
    limit = chi2.ppf(0.999, kept.sum() - 1)
    assert ((counts[kept] - expected) ** 2 / expected).sum() < limit
    assert ((4000 / kept.sum() - expected) ** 2 / expected).sum() > limit


END = 2


def test_what_is_sure_stays_under_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near ties at every bound: logits moved by less than half of what may be, in 2,000 draws of each way."""
    monkeypatch.setattr(sampling, "NEAR", 0.002)
    generator = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(2000, 16, generator=generator, dtype=torch.float64) * 8).round() / 8
    logits += 0.004 * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    reach = 0.45 * 0.002 * logits.abs().amax(-1, keepdim=True)
    for name, way in WAYS.items():
        settled = way.choose(logits, range(2000), 0)
        assert 0.5 < settled.sure.float().mean() < 1, name
        flips = 0
        for _ in range(3):
            moved = logits + reach * (
                2 * torch.rand(logits.shape, generator=generator, dtype=torch.float64) - 1
            )
            other = way.choose(moved, range(2000), 0).tokens != settled.tokens
            assert not (other & settled.sure).any(), name
            flips += int(other.sum())
        assert flips, name


LINES = [f"w{10 + number} w{20 + number % 7} w05"[: 3 + 4 * (number % 3)] for number in range(9)]


def noisy(model: Model, scale: float) -> Any:
    """A hook that changes logits as another batch could: by the shape of the pass alone."""

    def act(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        seed = output.shape[0] * 1000 + args[0].shape[1]
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
        return output + scale * noise * (len(output) > 1 or args[0].shape[1] == 1)

    return model.hf.lm_head.register_forward_hook(act)


@pytest.mark.parametrize("name", ["all", "greedy"])
def test_no_draw_depends_on_the_batch(name: str, llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch sizes 1, 3 and 8, with a cache and without, under noise a thousand times that of float32."""
    way = WAYS.get(name, Sampling(0.0))
    given: dict[str, Any] = {"max_new_tokens": 6, "sample": way}
    monkeypatch.setattr(sampling, "NEAR", 0.06)
    handle = noisy(llama, 0.03)
    try:
        made = [llama.generate(LINES, **given, batch_size=size).token_ids for size in (1, 3, 8)]
        made.append(llama.generate(LINES, **given, use_cache=False, batch_size=5).token_ids)
        monkeypatch.setattr(sampling, "NEAR", 0.0)
        unguarded = [llama.generate(LINES, **given, batch_size=size).token_ids for size in (3, 8)]
    finally:
        handle.remove()
    assert made[0] == made[1] == made[2] == made[3]
    assert len(set(unguarded)) > 1


def test_a_prompt_keeps_its_draws_among_others(llama: Model) -> None:
    """Of a longer list, of its part, and beside others: by its place alone."""
    way = WAYS["plain"]
    whole = llama.generate(LINES, max_new_tokens=5, sample=way)
    part = llama.generate(LINES[5:8], max_new_tokens=5, sample=Sampling(seed=5, first=5))
    assert part.token_ids == whole.token_ids[5:8]
    others = llama.generate([*LINES[:5], *PROMPTS], max_new_tokens=5, sample=way)
    assert others.token_ids[:5] == whole.token_ids[:5]
    again = llama.generate(LINES, max_new_tokens=5, temperature=1.0, seed=5)
    assert again.token_ids == whole.token_ids and again.texts == whole.texts
    assert llama.generate(LINES, max_new_tokens=5, sample=Sampling(seed=6)).token_ids != whole.token_ids


@pytest.mark.parametrize("sample", [None, Sampling(seed=1)])
def test_low_precision_warns_that_a_batch_can_change_a_token(llama: Model, sample: Sampling | None) -> None:
    rough = load(build("llama").to(torch.bfloat16), tokenizer=tokenizer(), check=False)
    given: dict[str, Any] = {"max_new_tokens": 2, "sample": sample}
    said = [" ".join(one.generate(PROMPTS, **given).warnings) for one in (rough, llama)]
    assert "chosen at low precision" in said[0] and "low precision" not in said[1]
    assert "low precision" not in " ".join(rough.generate(PROMPTS, **given, batch_size=1).warnings)


def test_greedy_is_transformers_own_with_several_end_tokens(llama: Model) -> None:
    hf = build("llama")
    model = load(hf, tokenizer=tokenizer())
    free = model.generate(PROMPTS, max_new_tokens=6).token_ids
    ends = [free[0][2], free[1][3]]
    hf.generation_config.eos_token_id = ends
    made = model.generate(PROMPTS, max_new_tokens=6)
    for ids, new, end in zip(model.tokenize(PROMPTS).token_ids, made.token_ids, made.ends, strict=True):
        with torch.no_grad():
            whole = hf.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=6, pad_token_id=0)
        assert new == tuple(whole[0, len(ids) :].tolist())
        assert end == ("end token" if new[-1] in ends else "length")
    assert {"end token", "length"} <= set(made.ends) or len({len(new) for new in made.token_ids}) > 1


def test_numbers_are_of_the_models_own_distribution(llama: Model) -> None:
    made = llama.generate(PROMPTS, max_new_tokens=3, sample=WAYS["all"], capture="logits", steps="all")
    for row, new in enumerate(made.token_ids):
        logs = made.activations["logits"][row, :3].double().log_softmax(-1)
        for step, token in enumerate(new):
            assert made.logprobs[row][step] == pytest.approx(float(logs[step, token]), abs=1e-5)
            entropy = -float((logs[step].exp() * logs[step]).sum())
            assert made.entropies[row][step] == pytest.approx(entropy, abs=1e-4)
            assert made.ranks[row][step] == 1 + int((logs[step] > logs[step, token]).sum())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "temperature": ({"temperature": float("inf")}, "temperature inf asked; use 0 for the likeliest token"),
    "top_p": ({"top_p": 1.5}, "top_p 1.5 asked; use a probability above 0, such as 0.9"),
    "no top_p": ({"top_p": 0.0}, "top_p 0.0 asked; use a probability above 0"),
    "top_k": ({"top_k": -1}, "top_k -1 asked; use a number of tokens, such as 50; 0 for all"),
    "min_p": ({"min_p": -0.1}, "min_p -0.1 asked; use a share from 0 to 1"),
    "seed": ({"seed": -1}, "seed -1 asked; use a whole number from 0"),
    "cold": ({"temperature": 0.0, "top_p": 0.9}, r"so top_p=0.9 changes nothing; leave it out"),
}
WRONG_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "twice": ({"sample": Sampling(), "temperature": 0.5}, "put them into the Sampling"),
    "tokens": ({"tokens": "all"}, "no sites are captured; give capture="),
    "steps": ({"tokens": "all", "capture": "embed", "steps": [0]}, "steps are for calls without tokens"),
    "empty stop": ({"stop": ["w01", ""]}, "stop '' asked, which every text holds"),
    "stop id": ({"stop": 64}, r"stop 64 asked, but the model has token ids 0\.\.63"),
    "where": ({"tokens": 99, "capture": "embed"}, "position 99 asked, but prompt 0 has positions 0..8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_samplings(name: str) -> None:
    given, message = WRONG[name]
    with pytest.raises(ConfigError, match=message):
        Sampling(**given)


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str, llama: Model) -> None:
    from interp.errors import InterpError

    given, message = WRONG_CALLS[name]
    with pytest.raises(InterpError, match=message):
        llama.generate(PROMPTS, max_new_tokens=2, **given)
