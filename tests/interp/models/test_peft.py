"""Models with adapters of PEFT: on, off, another one, in training mode, around the embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.errors import DataError, ModelError
from interp.models import load
from tests.tiny import build

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

IDS = [[5, 6, 7, 8, 9]]


def adapted(targets: list[str], names: tuple[str, ...] = ("default",), **more: Any) -> Any:
    """A tiny Llama with adapters that are far from nothing."""
    given = {"r": 4, "lora_alpha": 32, "target_modules": targets, "task_type": "CAUSAL_LM", **more}
    model = peft.get_peft_model(build("llama"), peft.LoraConfig(**given))
    for name in names[1:]:
        model.add_adapter(name, peft.LoraConfig(**given))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def test_the_adapter_that_is_on_belongs_to_the_fingerprint() -> None:
    outer = adapted(["q_proj", "v_proj"], ("default", "other"))
    model = load(outer.base_model.model.eval())
    seen = {"default": (model.fingerprint, model.capture(IDS, "resid_post.1"))}
    with outer.disable_adapter():
        seen["off"] = (model.fingerprint, model.capture(IDS, "resid_post.1"))
    outer.set_adapter("other")
    seen["other"] = (model.fingerprint, model.capture(IDS, "resid_post.1"))
    assert len({fingerprint for fingerprint, _ in seen.values()}) == 3
    streams = [acts["resid_post.1"] for _, acts in seen.values()]
    assert all((a - b).abs().max() > 0.1 for a in streams for b in streams if a is not b)
    with pytest.raises(DataError, match="Join only what one model gave"):
        interp.Activations.concatenate([seen["default"][1], seen["off"][1]])
    outer.set_adapter("default")
    assert model.fingerprint == seen["default"][0], "back on, it is the same model again"


def test_dropout_of_an_adapter_disables_no_site() -> None:
    inner = adapted(["q_proj", "v_proj", "o_proj", "down_proj"], lora_dropout=0.5).base_model.model
    training = [
        module for name, module in inner.named_modules() if "lora_dropout." in name and module.training
    ]
    assert training, "as PEFT gives it, its dropouts are on"
    model = load(inner)
    assert not model.disabled
    assert all(module.training for module in training), "the modes are left as found"


def test_unembed_of_an_adapted_head_in_training_mode() -> None:
    inner = adapted(["q_proj", "lm_head"], lora_dropout=0.5).base_model.model
    model = load(inner.eval())
    inner.train()
    stream = model.capture(IDS, "resid_post.2")["resid_post.2"]
    torch.testing.assert_close(model.unembed(stream), model.logits(IDS), atol=1e-5, rtol=1e-5)
    inner.eval()
    torch.testing.assert_close(model.unembed(stream), model.logits(IDS), atol=1e-5, rtol=1e-5)


def test_merged_is_unmerged() -> None:
    outer = adapted(["q_proj", "v_proj", "down_proj"])
    inner = load(outer.base_model.model.eval())
    apart = inner.capture(IDS, "resid_post.*")
    merged = load(outer.merge_and_unload().eval()).capture(IDS, "resid_post.*")
    without = load(build("llama")).capture(IDS, "resid_post.*")
    for site in apart.sites:  # merging rounds the weights, so that the error grows with the state
        assert (merged[site] - apart[site]).abs().max() <= 1e-5 * apart[site].abs().max(), site
        assert float((without[site] - apart[site]).abs().max()) > 1e-2


def test_a_peft_model_is_its_model_with_the_adapters_that_are_on() -> None:
    outer = adapted(["q_proj", "v_proj"]).eval()
    model = load(outer)
    assert model.hf is outer.base_model.model and model.warnings[0] == "adapters are on: default."
    ids = torch.tensor(IDS)
    torch.testing.assert_close(model.logits(IDS), outer(input_ids=ids).logits[:, -1].detach())
    with outer.disable_adapter():
        torch.testing.assert_close(model.logits(IDS), build("llama")(ids).logits[:, -1].detach())


def test_adapters_are_put_on_from_folders(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path / "base")
    outer = adapted(["q_proj", "v_proj"]).eval()
    outer.save_pretrained(tmp_path / "one")
    other = adapted(["down_proj"]).eval()
    other.save_pretrained(tmp_path / "two")
    one = load(tmp_path / "base", adapter=tmp_path / "one")
    ids = torch.tensor(IDS)
    torch.testing.assert_close(one.logits(IDS), outer(input_ids=ids).logits[:, -1].detach())
    both = load(tmp_path / "base", adapter=[tmp_path / "one", tmp_path / "two"])
    assert both.warnings[0] == "adapters are on: one, two."
    plain = build("llama")
    with torch.no_grad():  # the oracle: the products of the adapters' own matrices, added to the weights
        for model in (outer, other):
            for name, layer in model.base_model.model.named_modules():
                if hasattr(layer, "lora_A"):
                    plain.get_submodule(name).weight += layer.get_delta_weight("default")
    torch.testing.assert_close(both.logits(IDS), plain(ids).logits[:, -1].detach(), atol=1e-5, rtol=1e-5)
    assert len({one.fingerprint, both.fingerprint, load(tmp_path / "base").fingerprint}) == 3
    with pytest.raises(ModelError, match=r"holds an adapter, not a model\. Load its base with it"):
        load(tmp_path / "one")
    with pytest.raises(ModelError, match="could not be put on"):
        load(tmp_path / "base", adapter=tmp_path / "nothing")


def test_prompt_tuning_is_refused() -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ModelError, match="PROMPT_TUNING was given, which puts tokens"):
        load(peft.get_peft_model(build("llama"), config))


def test_an_adapter_on_the_embedding_is_refused_by_its_name() -> None:
    with pytest.raises(ModelError, match=r"adapter on its input embedding .*merge_and_unload"):
        load(adapted(["embed_tokens"]))
    load(adapted(["embed_tokens"]).merge_and_unload())  # what the error says works
