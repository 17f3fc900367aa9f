"""The patchscope: a state that is put where it was changes nothing; after the last block it is the model."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import ConfigError
from interp.lenses.patchscope import PatchscopeLens
from tests.noisy import demo

TARGET = "Denmark : Denmark ; Japan : Japan ; ?"


@pytest.fixture(scope="module")
def lens() -> PatchscopeLens:
    return PatchscopeLens.of(demo(), target=TARGET)


def test_a_state_that_is_written_where_it_was_leaves_the_run_as_it_was(lens: PatchscopeLens) -> None:
    model, sites = demo(), ["resid_post.0", "resid_post.11", "resid_post.23"]
    own = model.run([TARGET], capture=sites, positions=lens.position)
    assert own.activations is not None and own.logits is not None
    for layer, site in zip((0, 11, 23), sites, strict=True):
        state = own.activations[site]
        assert torch.equal(lens.logits(state, layer), own.logits)
        assert not torch.allclose(lens.logits(state + 1.0, layer), own.logits, atol=1e-3)


def test_after_the_last_block_it_is_the_models_own_answer(lens: PatchscopeLens) -> None:
    model = demo()
    prompts = ["the capital of France is", "the capital of Japan is"]
    run = model.run(prompts, capture=["resid_post.23"])
    assert run.activations is not None and run.logits is not None
    torch.testing.assert_close(
        lens.logits(run.activations["resid_post.23"], 23), run.logits, atol=1e-4, rtol=0
    )


def test_a_state_reads_by_itself_what_it_reads_among_others(lens: PatchscopeLens) -> None:
    states = demo().capture(["the capital of France is", "the capital of Japan is"], ["resid_post.20"])
    both = lens.logits(states["resid_post.20"], 20)
    alone = lens.logits(states["resid_post.20"][1], 20)
    assert both.shape == (2, demo().vocab_size) and alone.shape == (demo().vocab_size,)
    torch.testing.assert_close(both[1], alone, atol=1e-4, rtol=1e-4)
    by_hand = demo().run(
        [TARGET], interventions=[interp.Intervention("resid_post.20", states["resid_post.20"][1], -1)]
    )
    assert by_hand.logits is not None
    torch.testing.assert_close(alone, by_hand.logits[0], atol=1e-4, rtol=1e-4)


def test_a_target_without_a_place_or_with_unknown_words_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no token with '\?'"):
        PatchscopeLens.of(demo(), target="Denmark : Denmark")
    with pytest.raises(ConfigError, match=r"words that 'demo' does not know.*--target"):
        PatchscopeLens.of(demo())
