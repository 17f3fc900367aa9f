"""Models of texts and images are loaded as their text decoder; the oracles are plain hooks on it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.errors import ModelError
from interp.models import Intervention, Model, load
from interp.models.doctor import examine
from tests.wrappers import WRAPPERS, build_wrapper

IDS = [3, 14, 15, 9, 26, 53]
SHORT = [5, 8, 9]
QUICK = ("gemma3", "mistral3", "llava", "qwen2_5_vl", "qwen3_5", "llama4", "aya_vision")
EVERY = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in WRAPPERS]


@cache
def loaded(kind: str) -> Model:
    """Load the tiny model of a type."""
    return load(build_wrapper(kind))


def decoder(hf: Any) -> Any:
    """The text decoder by the name that Hugging Face gives it."""
    inner = getattr(hf, "model", hf)
    found = getattr(inner, "language_model", None) or getattr(inner, "text_model", None)
    return getattr(found, "model", found)  # Llama 4 keeps one with a head


def plain(hf: Any, ids: list[int], *, less: tuple[Any, Tensor] | None = None) -> tuple[list[Tensor], Tensor]:
    """Run texts with plain hooks: what every block gives, and the logits."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda m, a, out: seen.append(out if isinstance(out, Tensor) else out[0]))
        for block in decoder(hf).layers
    ]
    if less is not None:
        hooks.append(less[0].register_forward_hook(lambda m, a, out: out - less[1]))
    with torch.no_grad():
        logits = hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return seen, logits


@pytest.mark.parametrize("kind", EVERY)
def test_the_object_is_its_text_decoder(kind: str) -> None:
    model = loaded(kind)
    assert any("text decoder is used" in warning for warning in model.warnings)
    assert list(model.architecture.blocks) == list(decoder(model.hf).layers)
    run = model.run([IDS], capture="resid_post.*", positions="all", logits="all")
    streams, logits = plain(model.hf, IDS)
    assert len(streams) == model.n_layers
    for layer, seen in enumerate(streams):
        assert torch.equal(run.activations[f"resid_post.{layer}"], seen)
    assert torch.equal(run.logits[0], logits)
    assert {"attn_out", "mlp_out", "final_norm", "head"} <= set(model.sites)


@pytest.mark.parametrize("kind", EVERY)
def test_the_folder_is_its_text_decoder(kind: str, tmp_path: Path) -> None:
    loaded(kind).hf.save_pretrained(tmp_path)
    again = load(tmp_path)
    _, wanted = plain(loaded(kind).hf, IDS)
    assert torch.allclose(again.run([IDS]).logits[0], wanted[-1], atol=1e-5)
    assert again.n_layers == loaded(kind).n_layers and set(again.sites) == set(loaded(kind).sites)


@pytest.mark.parametrize("kind", EVERY)
def test_a_head_less_and_prompts_of_two_lengths(kind: str) -> None:
    model = loaded(kind)
    layer = model.anatomy.layers("head")[-1]
    site = f"head.{layer}.{model.anatomy.heads[layer] - 1}"
    output = model.capture([IDS], site, "all")[site]
    projection = model.architecture.part(layer, "out_projection")
    _, wanted = plain(model.hf, IDS, less=(projection, output))
    edit = Intervention(site, torch.zeros_like, "all")
    assert torch.allclose(model.run([IDS], interventions=[edit]).logits[0], wanted[-1], atol=2e-5)
    for side in ("left", "right"):
        both = model.run([IDS, SHORT], batch_size=2, padding_side=side).logits
        for row, ids in enumerate((IDS, SHORT)):
            assert torch.allclose(both[row], plain(model.hf, ids)[1][-1], atol=2e-5), side


@pytest.mark.parametrize("kind", ["mistral3", "qwen2_5_vl", "llama4", "aya_vision"])
def test_the_doctor_passes(kind: str) -> None:
    assert not examine(loaded(kind)).failures


def test_a_prefix_model_is_refused_by_its_true_reason() -> None:
    """PaliGemma attends to all of a prompt, later tokens included."""
    WRAPPERS["paligemma"] = {}
    try:
        with pytest.raises(ModelError, match="a later token changes what stands before it"):
            load(build_wrapper("paligemma"))
    finally:
        del WRAPPERS["paligemma"]
