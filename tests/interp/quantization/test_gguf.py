"""GGUF: block formats equal to the package's own arithmetic, and files as models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.errors import ModelError
from interp.models import gguf as files
from interp.quantization import SCHEMES, quantize
from tests.tiny import build, tokenizer

gguf = pytest.importorskip("gguf")
FORMATS = [name for name, row in SCHEMES.items() if row.library == "gguf"]
IDS = [[5, 6, 7, 8, 9]]


@pytest.mark.parametrize("scheme", FORMATS)
def test_weights_are_those_of_the_packages_own_dequantizer(scheme: str) -> None:
    base = interp.load(build("llama", intermediate_size=64), tokenizer=tokenizer())
    made = quantize(base, scheme)
    kind = gguf.GGMLQuantizationType[scheme.partition(":")[2].upper()]
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        plain, found = (
            model.hf.get_submodule(f"model.layers.1.{name}").weight.detach().numpy() for model in (base, made)
        )
        codes = gguf.quants.quantize(plain, kind)
        np.testing.assert_array_equal(found, gguf.quants.dequantize(codes, kind))
        assert np.abs(found - plain).max() > 0
        row = next(one for one in made.quantization.modules if one.name.endswith(f"1.{name}"))  # type: ignore[union-attr]
        assert row.bytes == codes.nbytes and row.group == 32
    assert made.scheme == scheme and made.run(IDS, capture="resid_post.0", positions="all", grad=True)


def test_a_width_that_blocks_do_not_divide_is_said() -> None:
    made = quantize(interp.load(build("llama")), "gguf:q4_0")
    assert made.quantization is not None
    assert {why for why in made.quantization.skipped.values()} == {
        "blocks of 32 weights do not divide its width"
    }


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Llama as a GGUF file of Q8_0, written with the package's own writer."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    hf = build("llama", hidden_size=64, intermediate_size=64, num_attention_heads=2, num_key_value_heads=2)
    config, path = hf.config, tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(64)
    writer.add_block_count(3)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(32)
    writer.add_vocab_size(64)
    words = [*tokenizer().convert_ids_to_tokens(range(61)), "a", "b", "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * 64)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
    }
    kept: dict[str, np.ndarray] = {}
    for name, tensor in hf.state_dict().items():
        there = name.replace("model.layers.", "blk.")
        for old, new in names.items():
            there = there.replace(old, new)
        plain = tensor.float().numpy()
        if any(part in there for part in ("attn_q.", "attn_k.")):  # halves of a head interleaved, as on disk
            plain = plain.reshape(2, 2, 16, 64).swapaxes(1, 2).reshape(64, 64)
        if plain.ndim == 1 or "token_embd" in there:
            writer.add_tensor(there, plain)
            continue
        codes = gguf.quants.quantize(np.ascontiguousarray(plain), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(there, codes, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        own = gguf.quants.quantize(tensor.float().numpy(), gguf.GGMLQuantizationType.Q8_0)
        kept[name] = gguf.quants.dequantize(own, gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with torch.no_grad():
        for name, weight in kept.items():
            hf.get_parameter(name).copy_(torch.from_numpy(weight))
    torch.save(hf.state_dict(), tmp_path / "expected.pt")
    return path


def test_a_file_is_a_model(file: Path) -> None:
    model = interp.load(file)
    assert model.scheme == "gguf:Q8_0" and "gguf:Q8_0" in model.warnings[-1]
    expected = torch.load(file.parent / "expected.pt", weights_only=True)
    for name, weight in model.hf.state_dict().items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=0)
    folder = next((file.parent / "cache" / "gguf").iterdir())
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    again = interp.load(file)
    assert again.fingerprint == model.fingerprint
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp, "made once"
    assert not list((file.parent / "cache" / "gguf").glob(".making-*"))
    assert model.run(IDS, capture="resid_post.0", positions="all", grad=True), "its gradients are exact"
    assert quantize(model, "rtn4").scheme == "rtn4"


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, or not")
    with pytest.raises(ModelError, match="cannot be read as a GGUF model"):
        interp.load(tmp_path / "broken.gguf")
    assert not any((tmp_path / "cache").rglob("*.safetensors"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise files.PackageNotFoundError(name)

    monkeypatch.setattr(files, "distribution", missing)
    with pytest.raises(ModelError, match="make smollm2"):
        interp.load("smollm2")
