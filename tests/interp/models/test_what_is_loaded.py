"""What is loaded is what was saved: checkpoints that do not fit, tokenizers without words, codes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import interp
from interp.errors import ModelError
from interp.models import load
from interp.models.quantized import arrived
from tests.tiny import build, tokenizer

IDS = [[5, 6, 7, 8, 9]]


def written(folder: Path, change: Any, family: str = "llama") -> Path:
    """A checkpoint whose tensors were changed on the way to disk."""
    hf = build(family)
    hf.config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    tensors = {name: tensor.contiguous().clone() for name, tensor in hf.state_dict().items()}
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def without(part: str) -> Any:
    return lambda tensors: {name: one for name, one in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {"_orig_mod." + name: one for name, one in t.items()},
            "torch.compile: save model._orig_mod",
        ),
        (lambda t: {"module." + name: one for name, one in t.items()}, "save model.module"),
        (lambda t: {"base_model.model." + name: one for name, one in t.items()}, "merge_and_unload"),
        (lambda t: {"student." + name: one for name, one in t.items()}, "begin with 'student.'"),
        (without("layers.1.mlp"), "lacks 3 tensors of the model.*layers.1.mlp.down_proj"),
        (without("lm_head"), "lacks 1 tensor of the model.*tie_word_embeddings"),
        (without("model.norm"), "model.norm.weight. Save or download it again"),
        (
            lambda t: {name.replace("q_proj.", "q_proj.base_layer."): one for name, one in t.items()},
            "an adapter's names",
        ),
    ],
)
def test_a_checkpoint_that_lacks_tensors_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        load(written(tmp_path, change))


def test_tensors_that_the_model_does_not_have_are_said(tmp_path: Path) -> None:
    more = {"model.extra.weight": torch.ones(2), "model.second.bias": torch.ones(3)}
    model = load(written(tmp_path, lambda tensors: tensors | more))
    assert model.warnings == (
        "the checkpoint holds 2 tensors that this model does not have, left out: model.extra.weight, "
        "model.second.bias.",
    )
    expected = build("llama")(torch.tensor(IDS)).logits[:, -1]
    torch.testing.assert_close(model.logits(IDS), expected, atol=1e-6, rtol=0)
    assert model.capture(IDS, "resid_post.0").warnings == model.warnings, "they stay with the numbers"


def test_a_tied_head_is_not_missed(tmp_path: Path) -> None:
    hf = build("llama", tie_word_embeddings=True)
    hf.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert load(tmp_path).warnings == ()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_broken_files_are_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    build("llama").config.save_pretrained(tmp_path)
    if name.endswith("bin"):
        torch.save({"weights": Path("x")}, tmp_path / name)
        with pytest.raises(ModelError, match=r"could not be loaded: .*(pickle|UnpicklingError|torch.load)"):
            load(tmp_path)
        return
    whole = written(tmp_path, dict) / name
    whole.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(ModelError, match="could not be loaded"):
        load(tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "gemma2", "opt", "gpt_neox", "llama"])
def test_a_folder_without_a_vocabulary_has_no_tokenizer(family: str, tmp_path: Path) -> None:
    build(family).save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.tokenizer is None and "no tokenizer at" in model.warnings[0]
    with pytest.raises(interp.errors.DataError, match="this model has no tokenizer"):
        model.capture(["one two"], "resid_post.0")
    assert len(model.logits(IDS)) == 1, "ids can be given"
    with pytest.raises(ModelError, match="no tokenizer at"):
        load(tmp_path, tokenizer=tmp_path)


def test_a_tokenizer_that_cannot_be_read_is_not_called_absent(tmp_path: Path) -> None:
    written(tmp_path, dict)
    (tmp_path / "tokenizer.json").write_text("{")
    assert "cannot be read" in load(tmp_path).warnings[0]


class Rounded(nn.Linear):
    """A linear layer of eight-bit codes; its own gradient is right, or that of other weights."""

    honest = True

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = plain.in_features, plain.out_features, None
        scale = plain.weight.detach().abs().max() / 127
        self.weight = nn.Parameter(
            (plain.weight.detach() / scale).round().to(torch.int8), requires_grad=False
        )
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.weight.float() * self.scale
        out = x @ weights.T
        return (
            out if self.honest else out.detach() + (x @ weights.flip(0).T - (x @ weights.flip(0).T).detach())
        )


class Careless(Rounded):
    honest = False


@pytest.mark.parametrize("kind", [Rounded, Careless])
def test_a_model_that_arrives_quantized_is_named_and_its_gradients_measured(kind: type[Rounded]) -> None:
    hf = copy.deepcopy(build("llama"))
    for block in hf.model.layers:  # type: ignore[union-attr]
        block.mlp.up_proj = kind(block.mlp.up_proj)
    model = load(hf)
    assert model.quantization is not None and model.quantization.expected == 3
    assert model.scheme != "none" and "arrived quantized" in model.warnings[-1]
    assert model.logits(IDS).isfinite().all()
    if kind is Careless:
        with pytest.raises(ModelError, match="do not point where its output moves"):
            model.run(IDS, capture="resid_post.0", positions="all", grad=True)
    else:
        assert model.run(IDS, capture="resid_post.0", positions="all", grad=True).logits is not None


def test_a_plain_model_has_not_arrived_quantized() -> None:
    assert all(arrived(build(family)) is None for family in ("llama", "gpt2", "gemma2"))


def gradient_is_right(module: torch.nn.Module) -> bool:
    """Whether the gradient points where the outputs of single inputs say: the map is linear."""
    eye = torch.eye(module.in_features, dtype=torch.bfloat16)  # type: ignore[attr-defined]
    with torch.no_grad():
        rows = module(eye).float()
    x = torch.zeros(1, len(eye), dtype=torch.bfloat16, requires_grad=True)
    v = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0))
    (module(x).float() @ v).sum().backward()
    assert x.grad is not None
    return float(torch.cosine_similarity(x.grad[0].float(), rows @ v, dim=0)) > 0.99


def test_bitsandbytes_and_torchao_models_are_recognised(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    build("llama", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    hf = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", quantization_config=config, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    model = load(hf)
    assert model.scheme == "bitsandbytes:nf4"
    assert model.quantization is not None
    if model.quantization.gradients:  # its kernels for processors with bfloat16 products give wrong ones
        with pytest.raises(ModelError, match=r"gradients of .* at bitsandbytes:nf4"):
            model.run(IDS, capture="resid_post.0", positions="all", grad=True)
    else:
        assert gradient_is_right(hf.model.layers[0].mlp.up_proj)
    hf.save_pretrained(tmp_path / "four")
    again = load(tmp_path / "four")
    assert again.scheme == "bitsandbytes:nf4"
    torch.testing.assert_close(again.logits(IDS), model.logits(IDS), rtol=0.02, atol=0.05)


def test_the_configuration_belongs_to_the_fingerprint() -> None:
    one, other = (
        load(build("llama", rope_parameters={"rope_type": "default", "rope_theta": base}))
        for base in (1e4, 50.0)
    )
    assert not torch.allclose(one.logits(IDS), other.logits(IDS))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == load(build("llama")).fingerprint, "made twice it is one model"


def test_nan_weights_and_overflow_are_called_what_they_are() -> None:
    broken = build("llama")
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")  # type: ignore[union-attr]
    with pytest.raises(ModelError, match=r"has NaN at 'resid_post.1'.*weights are not finite"):
        load(broken)
    large = build("llama")
    with torch.no_grad():
        large.model.layers[0].mlp.down_proj.weight.mul_(3e4)  # type: ignore[union-attr]
    assert load(large).logits(IDS).isfinite().all()
    with pytest.raises(ModelError, match=r"leave the range of torch.float16: load it in float32"):
        load(large.half())
