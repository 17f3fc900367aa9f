"""Loading: what is accepted, what is refused and with which words; nothing global or given is changed."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from interp.errors import ConfigError, ModelError
from interp.models import load
from interp.models.loading import untrained_model
from tests.tiny import build, tokenizer


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the hub out of these tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny Llama with its tokenizer."""
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    build("llama").save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def test_a_folder(folder: Path) -> None:
    model = load(folder)
    assert model.name == str(folder) and model.weights == "trained" and model.warnings == ()
    expected = build("llama")(torch.tensor([[5, 6]])).logits[:, -1]
    assert torch.allclose(model.logits(["w01 w02"]), expected, atol=1e-6)


def test_what_is_kept_names_no_folder_of_this_machine(folder: Path, tmp_path: Path) -> None:
    """Of a model, its untrained twin, and one that transformers loaded: in descriptions, states and cards."""
    model = load(folder)
    twin = untrained_model(model)
    assert twin.name == model.name and twin.weights == "random" and twin.fingerprint != model.fingerprint
    for one in (model, twin, load(model.hf)):
        assert one.described["name"] == "tiny-llama"
        saved = one.capture(["w01 w02"], ["resid_post.0"]).save(tmp_path / f"{one.weights}-{id(one)}")
        texts = [path.read_bytes() for path in saved.rglob("*") if path.is_file()]
        assert texts and not any(str(folder.parent).encode() in text for text in texts)
    demo = untrained_model(load("demo", weights="random"))
    assert demo.described["name"] == "demo" and load("demo").called == "demo"
    named = replace(model, name="owner/model")  # of the hub: as it is
    assert named.described["name"] == "owner/model"
    assert not model.hf.training and "llama" in repr(model)


def test_sizes(folder: Path) -> None:
    model = load(str(folder))
    sizes = (model.n_layers, model.d_model, model.n_heads, model.n_kv_heads, model.d_head, model.d_mlp)
    assert sizes == (3, 32, 4, 2, 8, 48)
    assert (model.vocab_size, model.max_length, model.dtype) == (64, 48, torch.float32)
    assert "resid_post" in model.sites and model.disabled == {}
    assert model.certificate["errors"]["resid_mid.l = resid_pre.l + attn_out.l"] < 1e-6
    assert len(model.fingerprint) == len(model.tokenizer_fingerprint) == 64


def test_a_loaded_model_is_taken_as_it_is() -> None:
    hf = build("llama")
    before = {name: tensor.clone() for name, tensor in hf.state_dict().items()}
    model = load(hf)
    assert model.hf is hf and model.name == "LlamaForCausalLM"
    assert all(torch.equal(before[name], tensor) for name, tensor in hf.state_dict().items())
    assert "no tokenizer" in model.warnings[0] and model.tokenizer_fingerprint == ""


@pytest.mark.parametrize("kind", ["folder", "loaded"])
def test_random_weights_are_seeded_and_leave_the_global_generator_alone(folder: Path, kind: str) -> None:
    source: Any = folder if kind == "folder" else build("llama")
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    first, second = load(source, weights="random"), load(source, weights="random")
    assert torch.equal(torch.rand(3), expected)
    assert first.fingerprint == second.fingerprint != load(source).fingerprint
    assert first.weights == "random" and first.hf.config.num_hidden_layers == 3
    assert first.capture([[5, 6]], "resid_post.0").weights == "random"


def test_edited_weights_add_the_differences(folder: Path, tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path)
    name = "model.layers.1.mlp.down_proj.weight"
    delta = torch.randn(32, 48, generator=torch.Generator().manual_seed(0)).half()
    save_file({name: delta}, tmp_path / "edited.safetensors")
    plain, edited = load(tmp_path), load(tmp_path, weights="edited")
    expected = plain.hf.get_parameter(name) + delta.float()
    assert torch.equal(edited.hf.get_parameter(name), expected)
    assert edited.weights == "edited" and edited.fingerprint != plain.fingerprint
    save_file({"no.such.weight": delta}, tmp_path / "edited.safetensors")
    with pytest.raises(ModelError, match=r"'no.such.weight' .* which the model does not have"):
        load(tmp_path, weights="edited")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_checkpoints_run_in_fp32_on_a_cpu_unless_asked(tmp_path: Path, dtype: torch.dtype) -> None:
    build("llama").to(dtype).save_pretrained(tmp_path)
    model = load(tmp_path, device="cpu")
    assert model.dtype == torch.float32
    assert f"the checkpoint is {dtype}; computing in float32" in model.warnings[0]
    assert load(tmp_path, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert load(tmp_path, device="cpu", dtype=torch.float64).dtype == torch.float64


def test_bf16_passes_validation() -> None:
    model = load(build("gemma2").to(torch.bfloat16))
    assert (
        model.disabled == {}
        and model.capture([[5, 6]], "resid_post.1")["resid_post.1"].dtype == torch.bfloat16
    )


def test_a_tokenizer_can_be_given(folder: Path, tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path)
    bare = load(tmp_path)
    assert bare.tokenizer is None and "prompts must be token ids" in bare.warnings[0]
    assert load(tmp_path, tokenizer=folder).tokenize("w01").token_ids == ((5,),)
    assert load(tmp_path, tokenizer=tokenizer()).tokenizer is tokenizer()
    with pytest.raises(ModelError, match="no tokenizer at"):
        load(tmp_path, tokenizer=tmp_path)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        ModelError, match=r"is a folder without config.json \(it holds notes.txt\). Give a folder written by"
    ):
        load(tmp_path)
    with pytest.raises(ModelError, match=r"is a file\. Give the folder"):
        load(tmp_path / "notes.txt")


def test_a_config_without_weights(tmp_path: Path) -> None:
    build("llama").config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="could not be loaded"):
        load(tmp_path)
    assert load(tmp_path, weights="random").weights == "random"


def test_a_broken_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ModelError, match=r"config\.json of .* cannot be used"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_type"}))
    with pytest.raises(ModelError, match=r"config\.json of .* cannot be used"):
        load(tmp_path)


def test_an_unknown_name_offline() -> None:
    with pytest.raises(ModelError) as caught:
        load("nobody/no-such-model")
    message = str(caught.value)
    assert message.startswith("'nobody/no-such-model' is neither 'demo', nor a folder here, nor a model that")
    assert "\n" not in message and caught.value.exit_code == 4


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again below: a connection is refused
    waits: list[float] = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waits.append)
    with pytest.raises(ModelError, match="'nowhere' is neither 'demo', nor a folder here"):
        load("nowhere")
    assert waits == []


def test_encoders_are_refused(tmp_path: Path) -> None:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    AutoModelForMaskedLM.from_config(AutoConfig.for_model("bert", **sizes)).save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match=r"bert|causal"):
        load(tmp_path / "bert")
    t5 = AutoConfig.for_model("t5", vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    AutoModelForSeq2SeqLM.from_config(t5).save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match="is a t5 model, which is not a causal decoder"):
        load(tmp_path / "t5")


def test_a_model_that_looks_ahead_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hf = build("llama")
    for block in hf.model.layers:
        forward = block.forward
        monkeypatch.setattr(
            block, "forward", lambda x, *args, _f=forward, **kw: _f(x, *args, **kw) + x.mean(1, keepdim=True)
        )
    with pytest.raises(ModelError, match="is not a causal language model"):
        load(hf)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"weights": "wild"}, ConfigError, "weights 'wild' asked; use one of 'trained', 'random', 'edited'"),
        ({"weights": "edited"}, ModelError, "holds no edited.safetensors. The bundled 'demo' does"),
        ({"device": "gpu"}, ConfigError, "device 'gpu' asked; use 'auto', 'cpu'"),
        ({"dtype": "float8"}, ConfigError, "dtype 'float8' asked; use 'auto', 'float32'"),
        (
            {"family": {"block": "x"}},
            ConfigError,
            "family override has unknown key 'block'. Keys: name, types, blocks",
        ),
        (
            {"family": {"blocks": "model.norm"}},
            ModelError,
            "expects the blocks of .* at 'model.norm', but found",
        ),
    ],
)
def test_bad_arguments(folder: Path, keywords: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(folder, **keywords)


def test_a_loaded_model_is_never_moved_or_converted() -> None:
    hf = build("llama")
    with pytest.raises(ModelError, match=r"the loaded model is torch.float32\. Convert it yourself"):
        load(hf, dtype="bfloat16")
    with pytest.raises(ModelError, match=r"but the loaded model is on cpu\. Move it yourself"):
        load(hf, device="meta")
    with pytest.raises(ModelError, match="needs a folder that holds"):
        load(hf, weights="edited")


def test_no_gpu_is_said(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        load(folder, device="cuda")


def test_validation_is_quick_on_24_layers() -> None:
    hf = build("llama", num_hidden_layers=24, hidden_size=64)

    def seconds() -> float:
        start = time.process_time()
        load(hf)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.3


def test_loading_draws_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(folder)
    assert capfd.readouterr() == ("", "")


def test_a_device_that_is_not_here_is_refused() -> None:
    if not torch.backends.mps.is_available():
        with pytest.raises(ConfigError, match=r"torch has no Metal here. Use 'auto' or 'cpu'"):
            load("demo", device="mps")
    with pytest.raises(ConfigError, match="device 'meta' asked; use 'auto'"):
        load("demo", device="meta")


def test_a_name_typed_wrong_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"Did you mean 'demo'\?"):
        load("deom")
