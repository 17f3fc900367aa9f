"""Every lens of the table: after the last block it is the model; what is fitted is fitted once and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import interp
from interp import lenses
from interp.errors import ConfigError
from interp.lenses import LENSES, JacobianLens, jacobian_cache
from interp.models.model import Model
from tests.tiny import build, tokenizer


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A tiny model, and a cache of its own."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    for module, name, value in (
        ("interp.lenses.texts", "TOKENS", 800),
        ("interp.lenses.translator", "TOKENS", 800),
        ("interp.lenses.jacobian_cache", "ROWS", 128),
    ):
        monkeypatch.setattr(f"{module}.{name}", value)
    return interp.load(build("llama"), tokenizer=tokenizer())


@pytest.mark.parametrize("kind", [kind for kind in LENSES if kind != "patchscope"])
def test_after_the_last_block_a_lens_is_the_model(kind: str, model: Model) -> None:
    lens = lenses.make(kind, model)
    run = model.run(["w01 w02 w03", "w07"], capture=["resid_post.*"])
    assert run.logits is not None and run.activations is not None
    assert lens.layers == (0, 1, 2) and lens.kind == kind and lens.vocab_size == model.vocab_size
    own = lens.logits(run.activations["resid_post.2"], 2)
    torch.testing.assert_close(own, run.logits.float(), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(lens.logits(run.activations["resid_post.0"], 0), run.logits, atol=1e-2)
    fitted_on = lens.card()["fitted_on"]
    assert bool(fitted_on) == bool(LENSES[kind].fitted)


def test_a_jacobian_lens_is_fitted_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lenses.make("jacobian", model, layers=[0, 2])
    assert isinstance(first, JacobianLens) and first.fitted_on["n"] >= 3 and first.errors[0] > 0
    monkeypatch.setattr(jacobian_cache, "fitted", None)  # nothing can be fitted any more
    again = lenses.make("jacobian", model, layers=[0])
    assert isinstance(again, JacobianLens) and torch.equal(again.matrices[0], first.matrices[0])
    assert again.card()["fitted_on"] == first.card()["fitted_on"]
    with pytest.raises(TypeError):
        lenses.make("jacobian", model, layers=[1])  # another layer is another fit
    with pytest.raises(TypeError):
        lenses.make("jacobian", model, layers=[0], seed=1)


def test_given_texts_are_averaged_over(model: Model) -> None:
    texts = [" ".join(f"w{(7 * at + step) % 60:02d}" for at in range(24)) for step in range(3)]
    found = lenses.make("jacobian", model, layers=[1], texts=texts)
    by_hand = lenses.jacobian.fitted(model, [1], model.tokenize(texts).token_ids)
    assert isinstance(found, JacobianLens) and found.fitted_on["texts"] == "that were given"
    torch.testing.assert_close(found.matrices[1], by_hand.matrices[1])


def test_short_texts_keep_more_of_their_tokens(model: Model) -> None:
    found = lenses.make("jacobian", model, layers=[1], texts=["w01 w02 w03 w04", "w05 w06 w07 w08"])
    assert isinstance(found, JacobianLens) and found.fitted_on["skip"] == 1


def test_an_unknown_kind_is_named_with_those_there_are(model: Model) -> None:
    with pytest.raises(ConfigError, match="logit, translator, jacobian, patchscope; or give a published"):
        lenses.make("tuned", model)
