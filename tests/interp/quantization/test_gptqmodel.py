"""gptqmodel: how checkpoints are read, what is refused, and what it makes of models where it is there."""

from __future__ import annotations

import random
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp import load
from interp.errors import ConfigError, ModelError
from interp.models import Model
from interp.models.linear import as_linear, linear_modules, put_weight
from interp.quantization import calibration_texts, quantize
from interp.quantization.libraries import gptqmodel
from interp.quantization.libraries.gptqmodel import Codes, chained, from_awq, from_gptq, unpacked
from interp.tasks import TASKS
from tests.tiny import build, tokenizer

installed = pytest.mark.skipif(
    find_spec("gptqmodel") is None, reason="gptqmodel, the extra [gptq], is not installed"
)
ROUND = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4}


def made(family: str, **changes: Any) -> Model:
    return load(build(family, **changes), tokenizer=tokenizer())


def texts(n: int = 48, *, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(4, 60) for _ in range(rng.randrange(8, 24))] for _ in range(n)]


def words(values: np.ndarray, bits: int) -> torch.Tensor:
    """Put whole numbers into 32-bit words along the last axis, the first into the lowest bits."""
    each = 32 // bits
    parts = values.astype(np.uint64).reshape(*values.shape[:-1], -1, each)
    shifted = parts << (np.arange(each, dtype=np.uint64) * np.uint64(bits))
    return torch.from_numpy(np.bitwise_or.reduce(shifted, -1).astype(np.uint32).view(np.int32).copy())


def numbers(bits: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw codes ``[out 16, in 64]``, scales and zeros ``[out 16, groups 2]``."""
    rng = np.random.default_rng(seed)
    codes, zeros = rng.integers(0, 2**bits, (16, 64)), rng.integers(1, 2**bits, (16, 2))
    return codes, rng.uniform(0.01, 0.2, (16, 2)).astype(np.float32), zeros


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_words_are_cut_lowest_bits_first(bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (3, 64))
    found = unpacked(words(values, bits), bits)
    assert np.array_equal(found.numpy(), values)
    assert not np.array_equal(found.flip(-1).numpy(), values)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_gptq_layer_is_read(bits: int) -> None:
    codes, scales, zeros = numbers(bits, seed=bits)
    groups = np.random.default_rng(9).permutation(np.repeat([0, 1], 32))
    tensors = {
        "a.qweight": words(codes, bits).T.contiguous(),
        "a.qzeros": words(zeros.T - 1, bits),
        "a.scales": torch.from_numpy(scales.T.copy()),
        "a.g_idx": torch.from_numpy(groups.astype(np.int32)),
    }
    expected = (codes - zeros[:, groups]) * scales[:, groups]
    found = from_gptq(tensors, "a", bits, {}).dequantized().numpy()
    assert np.allclose(found, expected, atol=1e-5)
    in_order = (codes - zeros[:, np.sort(groups)]) * scales[:, np.sort(groups)]
    assert not np.allclose(found, in_order, atol=1e-2)


def awq(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> dict[str, torch.Tensor]:
    """Pack as AWQ does: of eight outputs, numbers 0 2 4 6 1 3 5 7 from the lowest bits up."""
    order = np.concatenate([start + np.array([0, 2, 4, 6, 1, 3, 5, 7]) for start in (0, 8)])
    return {
        "a.qweight": words(codes.T[:, order], 4),
        "a.qzeros": words(zeros.T[:, order], 4),
        "a.scales": torch.from_numpy(scales.T.copy()),
    }


def test_an_awq_layer_is_read_and_its_factors_are_put_back() -> None:
    codes, scales, zeros = numbers(4, seed=1)
    tensors, groups = awq(codes, scales, zeros), np.repeat([0, 1], 32)
    expected = (codes - zeros[:, groups]) * scales[:, groups]
    assert np.allclose(from_awq(tensors, "a", 4, {}).dequantized().numpy(), expected, atol=1e-5)
    columns, rows = torch.rand(64) + 0.5, torch.rand(8) + 0.5
    factors = {"a:columns": columns, "a:rows": rows, "b:columns": columns * 3}
    found = from_awq(tensors, "a", 4, factors).dequantized().numpy()
    down = np.concatenate([np.ones(8), rows.numpy()])  # a fused projection: factors of its last outputs
    assert np.allclose(found, expected / columns.numpy() * down[:, None], atol=1e-5)
    assert not np.allclose(found, expected, atol=1e-2)


def test_texts_are_chained_into_rows_as_long_as_the_longest() -> None:
    assert chained([[1, 2], [3, 4, 5], [6], [7, 8]]) == [[1, 2, 3], [4, 5, 6]]
    assert chained([[1, 2], [3, 4]]) == [[1, 2], [3, 4]]


def test_what_cannot_be_done_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama")
    with pytest.raises(ConfigError, match=r"gptq4 chooses its rounding on texts.*calibration_texts"):
        quantize(model, "gptq4")
    with pytest.raises(ConfigError, match=r"'packed' asked, but awq4 is offered as mode='dense' only"):
        quantize(model, "awq4", mode="packed", calibration=texts())
    monkeypatch.setattr("interp.quantization.libraries.library.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"'gptq8' asked.*interp-toolkit\[gptq\].*rtn8"):
        quantize(model, "gptq8", calibration=texts())


def test_awq_refuses_layers_without_a_common_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.quantization.libraries.library.find_spec", lambda name: "there")
    uneven = made("llama", hidden_size=64, intermediate_size=96, num_key_value_heads=4)
    with pytest.raises(ConfigError, match=r"'model.layers.0.mlp.down_proj' has 96 inputs.*ask for awq4-g32"):
        quantize(uneven, "awq4", calibration=texts())


def test_the_last_words_of_a_process_that_fails_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.quantization.libraries.library.find_spec", lambda name: "there")
    monkeypatch.setattr(gptqmodel, "PROCESS", "a_module_that_is_not_there")
    with pytest.raises(ModelError, match=r"'gptq4' asked for a 'llama' model.*a_module_that.*rtn4"):
        quantize(made("llama"), "gptq4", calibration=texts())


def test_calibration_texts_are_drawn_from_what_was_trained_on() -> None:
    assert calibration_texts(20, seed=3) == calibration_texts(20, seed=3)
    assert calibration_texts(20, seed=3) != calibration_texts(20, seed=4)
    assert len(set(calibration_texts(90, seed=0))) > 80
    only = calibration_texts(5, names=["addition"])
    assert all(text.startswith("the sum of") or "+" in text or "plus" in text for text in only)
    for names, n, said in ((["nothing"], 2, "task 'nothing' asked"), ([], 0, "at least 1")):
        with pytest.raises(ConfigError, match=said):
            calibration_texts(n, names=names)
    assert set(TASKS)


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "scheme", "count"), [("gpt2", "gptq4", 12), ("llama", "gptq8", 21), ("llama", "gptq4", 21)]
)
def test_gptq_is_nearer_than_rounding_and_leaves_the_base_alone(
    family: str, scheme: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, other = made(family), texts(16, seed=5)
    before, logits = model.fingerprint, model.logits(other)
    small = quantize(model, scheme, calibration=texts())
    report = small.quantization
    assert report is not None
    assert len(report.modules) == report.expected == count
    assert report.calibration["texts"] == 48
    off = [_off(one.logits(other), logits) for one in (small, quantize(model, f"rtn{scheme[-1]}-g32"[:4]))]
    assert off[0] < off[1] * (1.0 if scheme == "gptq4" else 3.0)
    assert off[0] > 1e-5
    assert model.fingerprint == before
    assert not list(tmp_path.iterdir()), "the library's logs stay in its own folder"


def _off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@installed
@pytest.mark.slow
def test_awq_computes_what_its_checkpoint_does_and_its_norms_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[Mapping[str, torch.Tensor]] = []
    read = gptqmodel._read

    def keep(folder: Path) -> dict[str, torch.Tensor]:
        kept.append(read(folder))
        return dict(kept[-1])

    monkeypatch.setattr(gptqmodel, "_read", keep)
    model, other = made("llama", **ROUND), texts(16, seed=5)
    small = quantize(model, "awq4", calibration=texts())
    checkpoint, factors = kept
    norms = {name: value for name, value in model.hf.named_parameters() if "layernorm" in name}
    assert len(norms) == 6
    moved = {name: value / factors[f"{_reader(name)}:columns"] for name, value in norms.items()}
    for name, value in moved.items():
        assert torch.allclose(checkpoint[name].float(), value, rtol=0.02), (
            "the norm that was saved, in bfloat16"
        )
        assert not torch.allclose(checkpoint[name].float(), norms[name], rtol=0.02)
        assert torch.equal(small.hf.get_parameter(name), norms[name])
    assert _off(small.logits(other), _as_saved(checkpoint, moved).logits(other)) < 1e-4
    assert _off(small.logits(other), _as_saved(checkpoint, norms).logits(other)) > 0.05, "factors do matter"


def _reader(norm: str) -> str:
    """Name a layer that reads from a norm."""
    block, _, kind = norm.removesuffix(".weight").rpartition(".")
    return f"{block}.self_attn.q_proj" if kind == "input_layernorm" else f"{block}.mlp.gate_proj"


def _as_saved(tensors: Mapping[str, torch.Tensor], norms: Mapping[str, torch.Tensor]) -> Model:
    """Give the model that an AWQ checkpoint describes, no factor put back, with the norms given."""
    model = made("llama", **ROUND)
    for name, module in linear_modules(model.architecture).items():
        codes = from_awq(tensors, name, 4, {})
        assert isinstance(codes, Codes)
        assert as_linear(module).weight.shape == codes.dequantized().shape
        put_weight(module, codes.dequantized())
    with torch.no_grad():
        for name, value in norms.items():
            model.hf.get_parameter(name).copy_(value)
    return model
