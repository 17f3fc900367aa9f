"""bitsandbytes: its numbers against NumPy, and the traps of its kernels beside the way around each."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from interp import load
from interp.errors import ModelError
from interp.models import Model
from interp.quantization import SCHEMES, quantize
from interp.quantization.integrity import verify_quantization
from interp.quantization.libraries import Job, library_of
from interp.quantization.schemes import Scheme
from tests.tiny import build, tokenizer

bnb: Any = pytest.importorskip("bitsandbytes", reason="bitsandbytes, the extra [bnb], is not installed")

from interp.quantization.libraries.bitsandbytes import quiet, without_repacking  # noqa: E402

IDS = [[5, 9, 33, 21, 7], [4, 44, 12]]
FOUR = ("nf4", "fp4")
ALL = ("bnb8", *FOUR)


def layer(out: int, width: int, seed: int = 0, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = nn.Linear(width, out, bias=bias)
        made.weight.data.normal_(std=0.1)
        made.weight.data[:, ::17] *= 6
    return made.requires_grad_(False)


def packed(scheme: str, one: nn.Linear) -> nn.Module:
    parsed = Scheme.parse(scheme)
    return library_of(parsed).packed(Job(None, {"one": copy.deepcopy(one)}, parsed)).modules["one"]


def weight(scheme: str, module: nn.Module) -> np.ndarray:
    return library_of(Scheme.parse(scheme)).weight(module).numpy()


def made(family: str, **changes: Any) -> Model:
    return load(build(family, **changes), tokenizer=tokenizer())


def wide(family: str) -> Model:
    """Build a model of width 64, whose 4-bit layers a CPU can repack."""
    sizes = {} if family == "gpt2" else {"intermediate_size": 128, "num_key_value_heads": 4}
    key = "n_embd" if family == "gpt2" else "hidden_size"
    return made(family, **{key: 64}, **sizes, tie_word_embeddings=True)


def nf4_table() -> np.ndarray:
    """Derive the codes from the quantiles of a normal distribution (QLoRA, section 3 and appendix E)."""
    above = norm.ppf(np.linspace(0.9677083, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(0.9677083, 0.5, 8)[:-1])
    codes = np.sort(np.concatenate([above, below, [0.0]]))
    return codes / np.abs(codes).max()


def fp4_table() -> np.ndarray:
    """List sign, two bits of exponent and one of fraction; the largest is 12."""
    sizes = np.array([0, 0.0625, 2, 3, 4, 6, 8, 12]) / 12
    return np.unique(np.concatenate([-sizes, sizes]))


def in_blocks(values: np.ndarray, table: np.ndarray, size: int = 64) -> np.ndarray:
    """Take the nearest code times the block's largest weight; blocks run over the ends of rows."""
    flat, found = values.astype(np.float64).ravel(), np.zeros(values.size)
    for start in range(0, len(flat), size):
        part = flat[start : start + size]
        top = np.abs(part).max()
        nearest = np.abs(part[:, None] / top - table).argmin(1)
        found[start : start + size] = table[nearest] * top
    return found.reshape(values.shape)


@pytest.mark.parametrize("shape", [(8, 64), (6, 96), (7, 100), (4, 256)])
@pytest.mark.parametrize(("scheme", "table"), [("nf4", nf4_table()), ("fp4", fp4_table())])
def test_four_bit_weights_are_the_nearest_codes_of_their_block(
    scheme: str, table: np.ndarray, shape: tuple[int, int]
) -> None:
    one = layer(*shape)
    found, expected = weight(scheme, packed(scheme, one)), in_blocks(one.weight.numpy(), table)
    close = np.isclose(found, expected, atol=2e-6 * np.abs(expected).max(), rtol=1e-4)
    assert close.mean() > 0.995, "a weight half-way between two codes may go either way"
    assert np.abs(found - one.weight.numpy()).max() <= np.abs(expected - one.weight.numpy()).max() * 1.001
    other = in_blocks(one.weight.numpy(), fp4_table() if scheme == "nf4" else nf4_table())
    assert np.isclose(found, other, rtol=1e-4).mean() < 0.7, "the other table is told apart"


def test_widths_that_64_does_not_divide_are_right_whatever_the_processor_makes_of_them() -> None:
    """On some processors (AVX-512) the library's own kernel misreads such widths; on others it does not."""
    for width in (64, 96, 160, 192):
        values = layer(16, width).weight
        codes, state = bnb.functional.quantize_4bit(values, blocksize=64, quant_type="nf4")
        theirs = bnb.functional.dequantize_4bit(codes, state).numpy()
        ours = weight("nf4", packed("nf4", layer(16, width)))
        assert np.allclose(ours, in_blocks(values.numpy(), nf4_table()), atol=1e-5)
        assert width % 64 or np.allclose(ours, theirs)


def test_blocks_do_not_stop_at_the_end_of_a_row() -> None:
    one = layer(7, 100)
    found, rows = weight("nf4", packed("nf4", one)), one.weight.numpy()
    by_row = np.stack([in_blocks(row, nf4_table()) for row in rows])
    assert np.isclose(found, in_blocks(rows, nf4_table()), rtol=1e-4).mean() > 0.995
    assert np.isclose(found, by_row, rtol=1e-4).mean() < 0.9


@pytest.mark.parametrize("shape", [(8, 64), (7, 100)])
def test_int8_weights_are_whole_parts_of_the_largest_of_their_row(shape: tuple[int, int]) -> None:
    one = layer(*shape)
    found = weight("bnb8", packed("bnb8", one))
    halves = one.weight.numpy().astype(np.float16).astype(np.float64)
    top = np.abs(halves).max(1, keepdims=True)
    expected = np.rint(halves * 127 / top) * top / 127
    assert np.isclose(found, expected, atol=1e-6).mean() > 0.995, "ties may go either way"
    assert np.abs(found - halves).max() <= 0.501 * top.max() / 127
    columns = np.abs(halves).max(0, keepdims=True)
    assert not np.isclose(found, np.rint(halves * 127 / columns) * columns / 127, atol=1e-6).mean() > 0.5


@pytest.mark.parametrize("scheme", [name for name, row in SCHEMES.items() if row.library and row.packs])
def test_every_scheme_quantizes_all_of_gpt2(scheme: str) -> None:
    model = made("gpt2")
    for mode in ("dense", "packed"):
        report = quantize(model, scheme, mode=mode).quantization
        assert report is not None
        assert len(report.modules) == report.expected == 3 * 4
        assert report.weight_error > 1e-4


def test_torchao_by_itself_finds_nothing_in_the_blocks_of_gpt2() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    hf = build("gpt2")
    quantize_(hf, Int8WeightOnlyConfig())
    inside = hf.transformer.h.parameters()  # pyright: ignore[reportAttributeAccessIssue]
    assert {type(one) for one in inside} == {nn.Parameter}


@pytest.mark.parametrize(("family", "scheme"), [("llama", "nf4"), ("gpt2", "nf4"), ("qwen2", "fp4")])
def test_a_packed_model_passes_every_check(family: str, scheme: str) -> None:
    model = wide(family)
    small = quantize(model, scheme, mode="packed")
    with torch.no_grad():
        small.logits(IDS)
    found = verify_quantization(small, model)
    assert found.passed, found
    cosines = [check.value for check in found.checks if "gradients" in check.name]
    assert cosines[0] > 0.9999


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_int8_is_examined_module_by_module_because_it_rounds_activations(family: str) -> None:
    model = made(family)
    small = quantize(model, "bnb8", mode="packed")
    found = verify_quantization(small, model)
    assert found.passed, found
    values = {check.name: check.value for check in found.checks}
    assert 1e-3 < values["each module multiplies by its weights"] < 0.015
    ours, theirs = small.logits(IDS), quantize(model, "bnb8").logits(IDS)
    assert (ours - theirs).abs().max() > 0.02 * theirs.abs().max(), "over a whole model it adds up"
    assert small.quantization is not None
    one = small.hf.get_submodule(small.quantization.quantized[3])
    one.register_forward_hook(lambda module, given, output: output * 1.1)
    assert not verify_quantization(small, model).passed, (
        "one module that multiplies by something else is found"
    )


@pytest.mark.parametrize("scheme", ALL)
def test_saving_leaves_the_live_model_as_it_was(scheme: str) -> None:
    small = quantize(wide("llama"), scheme, mode="packed")
    logits, before = small.logits(IDS), _tensors(small)
    small.hf.state_dict()
    assert torch.equal(small.logits(IDS), logits)
    after = _tensors(small)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def _tensors(model: Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}


@pytest.mark.parametrize("width", [64, 96, 100, 256])
def test_widths_that_64_does_not_divide(width: int) -> None:
    model = made("llama", hidden_size=width, intermediate_size=2 * width, num_attention_heads=2)
    for scheme in ALL:
        dense, small = quantize(model, scheme), quantize(model, scheme, mode="packed")
        assert dense.quantization is not None
        assert {one.group for one in dense.quantization.modules} == {0 if scheme == "bnb8" else 64}
        ours, theirs = dense.logits(IDS), small.logits(IDS)
        reach = 0.3 if scheme == "bnb8" else 1e-5  # LLM.int8() rounds activations too when packed
        assert (ours - theirs).abs().max() < reach * ours.abs().max()
        assert (ours - model.logits(IDS)).abs().max() > 1e-4 * ours.abs().max()


def test_tied_embeddings_stay_tied() -> None:
    tied = wide("qwen2")
    for scheme in ALL:
        for mode in ("dense", "packed"):
            small = quantize(tied, scheme, mode=mode)
            shared = small.hf.get_input_embeddings().weight
            assert small.hf.get_output_embeddings().weight is shared
            assert shared is tied.hf.get_input_embeddings().weight


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("scheme", FOUR)
def test_one_token_and_several_are_multiplied_with_the_same_weights(scheme: str, rows: int) -> None:
    one = layer(64, 128)
    module = packed(scheme, one)
    states = torch.randn(rows, 128)
    expected = states.numpy() @ weight(scheme, module).T + one.bias.numpy()
    with torch.no_grad():
        assert np.allclose(module(states).numpy(), expected, atol=1e-4)


def test_a_model_that_transformers_reloads_is_switched_again(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = wide("llama")
    ours = quantize(model, "nf4", mode="packed").logits(IDS)
    model.hf.save_pretrained(tmp_path / "full")
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "full", dtype=torch.float32, device_map="cpu", quantization_config=settings
    )
    assert without_repacking(theirs) == 21
    assert torch.allclose(_last(theirs), ours, atol=1e-5), "the settings are those of transformers"
    theirs.save_pretrained(tmp_path / "small")
    again: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "small", dtype=torch.float32, device_map="cpu"
    )
    on_by_itself = [module.support_avx512bf16_for_cpu for module in again.modules() if _four(module)]
    assert on_by_itself == [bnb.functional.has_avx512bf16()] * 21, "no checkpoint keeps the switch"
    assert without_repacking(again) == 21
    assert torch.equal(_last(again), _last(theirs))
    assert without_repacking(build("llama")) == 0


def _four(module: nn.Module) -> bool:
    return isinstance(module, bnb.nn.Linear4bit)


@torch.no_grad()
def _last(hf: Any) -> torch.Tensor:
    return torch.stack([hf.eval()(torch.tensor([row])).logits[0, -1] for row in IDS])


def test_no_line_is_logged_per_call_and_the_log_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bitsandbytes")
    level, states = log.level, torch.randn(3, 64)
    with caplog.at_level(logging.DEBUG), torch.no_grad():
        packed("bnb8", layer(64, 64))(states)
        assert not [one for one in caplog.records if one.name.startswith("bitsandbytes")]
        loud = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False, threshold=6.0).to("cpu").eval()
        loud(states)
        assert [one for one in caplog.records if one.name.startswith("bitsandbytes")]
    with pytest.raises(ZeroDivisionError), quiet():
        assert log.level == logging.ERROR
        raise ZeroDivisionError
    assert log.level == level


def test_bytes_are_codes_and_scales() -> None:
    one = layer(48, 128)
    for scheme, codes, scales in (("bnb8", 48 * 128, 48), ("nf4", 48 * 64, 48 * 2)):
        parsed = Scheme.parse(scheme)
        library = library_of(parsed)
        assert library.needed(one, parsed, 0) == codes + 4 * scales
        table = 0 if scheme == "bnb8" else 16 * 4
        assert library.stored(packed(scheme, one)) == codes + 4 * scales + table


def test_a_missing_package_is_an_error_that_names_the_built_in_scheme(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("interp.quantization.libraries.library.find_spec", lambda name: None)
    for scheme, instead in (("nf4", "rtn4"), ("bnb8", "rtn8")):
        with pytest.raises(ModelError, match=rf"'{scheme}' asked.*interp-toolkit\[bnb\].*{instead}"):
            quantize(made("llama"), scheme)
