"""Generation: the cache, the padding and the batches never change a token or a number."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.errors import ConfigError, DataError, SiteError
from interp.models import Intervention, Model, load
from tests.interp.models.conftest import PROMPTS
from tests.tiny import build, tokenizer

STEPS = 5
END = 2


def by_hand(model: Model, prompt: str, steps: int) -> list[int]:
    """Continue one prompt greedily, without cache, padding or hooks."""
    ids = model.tokenize([prompt]).input_ids
    with torch.no_grad():
        for _ in range(steps):
            ids = torch.cat([ids, model.hf(ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    new = ids[0, -steps:].tolist()
    return new[: new.index(END) + 1] if END in new else new


def test_tokens_equal_a_plain_loop(model: Model) -> None:
    expected = tuple(tuple(by_hand(model, prompt, STEPS)) for prompt in PROMPTS)
    assert model.generate(PROMPTS, max_new_tokens=STEPS).token_ids == expected


def test_captured_steps_equal_one_pass_over_the_finished_text(model: Model) -> None:
    done = model.generate(PROMPTS, max_new_tokens=STEPS, capture=["resid_post.*", "z.1", "logits"])
    full = [list(ids) for ids in done.activations.token_ids]
    again = model.capture(full, ["resid_post.*", "z.1", "logits"], "all")
    for number, length in enumerate(model.tokenize(PROMPTS).lengths):
        steps = len(done.token_ids[number])
        assert done.activations.positions[number] == tuple(range(length - 1, length - 1 + steps))
        for site, tensor in done.activations.items():
            expected = again[site][number, length - 1 : length - 1 + steps]
            assert torch.allclose(tensor[number, :steps], expected, atol=1e-4), site


def test_a_cache_of_another_name_is_used() -> None:
    """What transformers calls its cache has changed before, so the model itself is asked for the name."""
    hf, plain, widths = build("llama"), load(build("llama"), tokenizer=tokenizer()), []
    original = type(hf).forward
    name = "cache" if "cache" in inspect.signature(original).parameters else "past_key_values"

    def renamed(
        self: Any, input_ids: Any = None, attention_mask: Any = None, cache: Any = None, use_cache: Any = None
    ) -> Any:
        widths.append(input_ids.shape[1])
        given = {"attention_mask": attention_mask, name: cache, "use_cache": use_cache}
        out = original(self, input_ids=input_ids, **given)
        return SimpleNamespace(logits=out.logits, cache=getattr(out, name))

    hf.__class__ = type("Renamed", (type(hf),), {"forward": renamed})
    model = load(hf, tokenizer=tokenizer(), check=False)
    expected = plain.generate(PROMPTS, max_new_tokens=STEPS, capture="resid_post.1")
    done = model.generate(PROMPTS, max_new_tokens=STEPS, capture="resid_post.1")
    assert done.token_ids == expected.token_ids
    assert torch.allclose(done.activations["resid_post.1"], expected.activations["resid_post.1"], atol=1e-5)
    assert widths[1:] == [1] * (len(widths) - 1) and len(widths) > 1


EDITS: dict[str, list[Intervention]] = {
    "all": [Intervention("resid_post.1", lambda x: x * 0.5 + 1)],
    "prompt's last": [Intervention("attn_out.1", lambda x: -x, "last")],
    "from one on": [Intervention("mlp_out.0", torch.linspace(-3, 3, 32), slice(1, None))],
    "new token": [Intervention("z.2", lambda x: x + 3, 7, rows=[0])],
    "keys": [Intervention("k.1", lambda x: x * 3, slice(-1, None)), Intervention("head.0.1", 0.0, 0)],
}


@pytest.mark.parametrize("edits", EDITS)
def test_cached_equals_uncached_under_interventions(model: Model, edits: str) -> None:
    kept: dict[str, Any] = {
        "max_new_tokens": STEPS,
        "capture": ["resid_post.*"],
        "interventions": EDITS[edits],
    }
    cached = model.generate(PROMPTS, **kept)
    uncached = model.generate(PROMPTS, **kept, use_cache=False)
    assert cached.token_ids == uncached.token_ids
    for site, tensor in cached.activations.items():
        assert torch.allclose(tensor, uncached.activations[site], atol=1e-4), site
    plain = model.generate(PROMPTS, max_new_tokens=STEPS, capture=["resid_post.*"]).activations
    assert not torch.allclose(plain["resid_post.2"], cached.activations["resid_post.2"], atol=1e-3)


def test_a_position_is_absolute(llama: Model) -> None:
    """Editing position 7 of the 7-token prompt touches its first new token, fed in the second pass."""
    plain = llama.generate(PROMPTS[:1], max_new_tokens=3, capture="resid_post.0").activations["resid_post.0"]
    edits = [Intervention("resid_post.0", 9.0, 7)]
    found = llama.generate(PROMPTS[:1], max_new_tokens=3, capture="resid_post.0", interventions=edits)
    edited = found.activations["resid_post.0"]
    assert torch.equal(edited[0, 0], plain[0, 0])
    assert edited[0, 1].tolist() == [9.0] * 32
    assert 9.0 not in edited[0, 2]


def test_chosen_steps(llama: Model) -> None:
    everything = llama.generate(PROMPTS, max_new_tokens=STEPS, capture="resid_post.1").activations
    some = llama.generate(PROMPTS, max_new_tokens=STEPS, capture="resid_post.1", steps=[3, 0]).activations
    assert torch.equal(some["resid_post.1"], everything["resid_post.1"][:, [0, 3]])
    assert some.positions == tuple((row[0], row[3]) for row in everything.positions)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_do_not_matter(llama: Model, batch_size: int) -> None:
    expected = llama.generate(PROMPTS, max_new_tokens=STEPS, capture="resid_post.1")
    got = llama.generate(PROMPTS, max_new_tokens=STEPS, capture="resid_post.1", batch_size=batch_size)
    assert got.token_ids == expected.token_ids and got.texts == expected.texts
    assert torch.allclose(got.activations["resid_post.1"], expected.activations["resid_post.1"], atol=1e-5)


def test_it_stops_at_the_end_of_sequence_and_zeros_the_rest() -> None:
    hf = build("llama")
    model = load(hf, tokenizer=tokenizer())
    free = model.generate(PROMPTS, max_new_tokens=STEPS).token_ids
    stop = free[0][1]
    hf.generation_config.eos_token_id = stop
    done = model.generate(PROMPTS, max_new_tokens=STEPS, capture="resid_post.1")
    for number, ids in enumerate(free):
        length = ids.index(stop) + 1 if stop in ids else STEPS
        assert done.token_ids[number] == ids[:length]
        assert len(done.activations.positions[number]) == length
        assert done.activations["resid_post.1"][number, length:].abs().sum() == 0
    assert len(done.token_ids[0]) < STEPS
    with pytest.raises(DataError, match="no prompt reached the steps"):
        model.generate(PROMPTS[:1], max_new_tokens=STEPS, capture="resid_post.1", steps=[4])


def test_texts_are_decoded(llama: Model) -> None:
    done = llama.generate(PROMPTS, max_new_tokens=2)
    assert done.texts[0] == llama.tokenizer.decode(done.token_ids[0], skip_special_tokens=True)
    assert done.activations is None


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"max_new_tokens": 0}, ConfigError, "max_new_tokens 0 asked"),
        ({"max_new_tokens": 45}, DataError, "prompt 0 has 7 tokens and 45 new ones .* Use max_new_tokens=41"),
        (
            {"max_new_tokens": 3, "steps": [3]},
            ConfigError,
            r"steps \[3\] asked; use 'all' or numbers from 0 to 2",
        ),
        ({"max_new_tokens": 3, "steps": "last"}, ConfigError, "steps 'last' asked"),
        (
            {"max_new_tokens": 3, "capture": "pattern.0"},
            SiteError,
            "'pattern' cannot be captured while generating",
        ),
        (
            {"max_new_tokens": 2, "interventions": [Intervention("embed", 0.0, slice(20, 30))]},
            SiteError,
            "'embed' fired nowhere",
        ),
    ],
)
def test_bad_calls(llama: Model, keywords: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        llama.generate(PROMPTS, **keywords)


def test_drawn_tokens_follow_the_models_own_distribution(llama: Model) -> None:
    drawn = llama.generate([PROMPTS[0]] * 3000, max_new_tokens=1, temperature=1.0, seed=3)
    counts = torch.bincount(torch.tensor(drawn.token_ids)[:, 0], minlength=llama.vocab_size)
    chances = llama.logits([PROMPTS[0]])[0].double().softmax(-1)
    bins = chances.argsort(descending=True)
    expected = 3000 * torch.stack([chances[part].sum() for part in bins.chunk(8)])
    found = torch.stack([counts[part].sum() for part in bins.chunk(8)])
    assert float(((found - expected) ** 2 / expected).sum()) < 24.3  # chi-squared, 7 degrees, p = 0.001
    flat = torch.full((8,), 3000 / 8)
    assert float(((expected - flat) ** 2 / flat).sum()) > 100  # so that drawing evenly would be seen


def test_draws_depend_on_the_seed_alone_and_cold_ones_are_greedy(llama: Model) -> None:
    drawn = [llama.generate(PROMPTS, max_new_tokens=STEPS, temperature=1.0, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].token_ids == drawn[1].token_ids != drawn[2].token_ids
    greedy = llama.generate(PROMPTS, max_new_tokens=STEPS)
    cold = llama.generate(PROMPTS, max_new_tokens=STEPS, temperature=1e-6, seed=5)
    assert cold.token_ids == greedy.token_ids != drawn[0].token_ids
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"temperature \S+ asked; use 0"):
            llama.generate(PROMPTS, max_new_tokens=1, temperature=wrong)
