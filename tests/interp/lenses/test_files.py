"""Published lenses are read as they are laid out, checked by hand; what is none is refused in one line."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import interp
from interp import lenses
from interp.errors import ArtifactError, SiteError
from interp.lenses import JacobianLens, TunedLens, jacobian, opened, saved
from interp.models.model import Model
from tests.tiny import tiny

LAYERS, WIDTH = 3, 32


@pytest.fixture(scope="module")
def model() -> Model:
    return interp.load(tiny("llama")[0])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tuned(
    folder: Path, model: Model, *, bias: bool = True, prefix: str = "", **changes: Any
) -> dict[str, Any]:
    """A folder as the package tuned-lens writes it: the state that enters block I, from 0 on."""
    state = {f"{prefix}{i}.weight": draw(WIDTH, WIDTH, seed=i) for i in range(LAYERS)}
    if bias:
        state |= {f"{prefix}{i}.bias": draw(WIDTH, seed=10 + i) for i in range(LAYERS)}
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "params.pt")
    head: Any = model.hf.get_output_embeddings()
    mark = np.array_str(head.weight.detach().float().numpy(), precision=1)
    config = {
        "base_model_name_or_path": "somebody/else",
        "d_model": WIDTH,
        "num_hidden_layers": LAYERS,
        "bias": bias,
        "base_model_revision": None,
        "unembed_hash": hashlib.sha256(mark.encode()).hexdigest(),
        "lens_type": "linear_tuned_lens",
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    return state


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "layer_translators."])
def test_a_tuned_lens_reads_what_its_maps_give_by_hand(
    model: Model, tmp_path: Path, bias: bool, prefix: str
) -> None:
    state = tuned(tmp_path / "lens", model, bias=bias, prefix=prefix)
    lens = opened(tmp_path / "lens", model)
    assert isinstance(lens, TunedLens) and lens.layers == (0, 1, 2)
    states = draw(4, WIDTH, seed=99)
    for layer in (0, 1):  # hidden_states[layer + 1] is what block `layer` gives: translator layer + 1
        moved = states + states @ state[f"{prefix}{layer + 1}.weight"].T
        moved = moved + state[f"{prefix}{layer + 1}.bias"] if bias else moved
        torch.testing.assert_close(lens.logits(states, layer), model.unembed(moved), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(lens.logits(states, layer), model.unembed(states), atol=1e-2)
    torch.testing.assert_close(lens.logits(states, 2), model.unembed(states))
    assert lens.card()["file"]["checked"] == "the unembedding"


def test_safetensors_are_taken_before_pt(model: Model, tmp_path: Path) -> None:
    state = tuned(tmp_path, model)
    (tmp_path / "params.pt").write_bytes(b"not even a file of torch")
    save_file(state, tmp_path / "params.safetensors")
    assert isinstance(opened(tmp_path, model), TunedLens)


@pytest.mark.parametrize("half", [True, False])
def test_a_jacobian_lens_reads_what_its_matrices_give_by_hand(
    model: Model, tmp_path: Path, half: bool
) -> None:
    rows = {layer: draw(WIDTH, WIDTH, seed=layer) for layer in (0, 1)}
    rows = {layer: one.half() if half else one for layer, one in rows.items()}
    path = tmp_path / "x_jacobian_lens.pt"
    torch.save({"J": rows, "source_layers": [0, 1], "n_prompts": 7, "d_model": WIDTH}, path)
    for place in (path, tmp_path):
        lens = opened(place, model)
        assert isinstance(lens, JacobianLens) and lens.layers == (0, 1, 2) and lens.fitted_on["n"] == 7
    states = draw(4, WIDTH, seed=99)
    expected = model.unembed(torch.einsum("oi,ni->no", rows[1].float(), states))
    torch.testing.assert_close(lens.logits(states, 1), expected, atol=1e-5, rtol=1e-5)
    assert "does not say which model" in lens.card()["fitted_on"]["checked"]
    view = lenses.view(model, [3, 4, 5], lens=str(path), layers="0,2")
    assert view.kind == "jacobian" and view.layers == (0, 2)
    torch.save({"J": {1: rows[1]}}, path)
    assert lenses.view(model, [3, 4, 5], lens=str(path)).layers == (1, 2)
    with pytest.raises(SiteError, match="reads no layer 0"):
        lenses.view(model, [3, 4, 5], lens=str(path), layers="0,1")


def test_what_we_write_comes_back_and_belongs_to_its_model(model: Model, tmp_path: Path) -> None:
    made = jacobian.fitted(model, range(3), [[5, 9, 14, 3, 22, 31]], skip=1)
    path = saved(made, tmp_path / "lens.safetensors", model)
    again = opened(path, model)
    assert isinstance(again, JacobianLens)
    assert torch.equal(again.matrices[0], made.matrices[0])
    assert again.card()["errors"] == made.card()["errors"] and again.fitted_on == made.fitted_on
    other = interp.load(tiny("llama")[0], weights="random")
    with pytest.raises(ArtifactError, match="made for a model of fingerprint"):
        opened(path, other)


class Runs:
    """Whoever unpickles it runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/nowhere-at-all"),))


def jlens(path: Path, **changes: Any) -> Path:
    content = {"J": {0: draw(WIDTH, WIDTH)}, "source_layers": [0], "n_prompts": 1, "d_model": WIDTH}
    torch.save(content | changes, path)
    return path


HOSTILE = {
    "a pickle": (lambda p: p.write_bytes(pickle.dumps(Runs())), "without running code"),
    "a pickle in a torch file": (lambda p: torch.save({"J": Runs()}, p), "without running code"),
    "rubbish": (lambda p: p.write_bytes(b"\x00" * 64), "without running code"),
    "another width": (lambda p: jlens(p, d_model=64), "a model of width 64; this one has 32"),
    "matrices of another width": (
        lambda p: jlens(p, J={0: draw(8, 8)}),
        r"has shape \[8, 8\].*another model",
    ),
    "a layer too many": (
        lambda p: jlens(p, J={7: draw(WIDTH, WIDTH)}, source_layers=[7]),
        "reads layer 7; .* has layers 0 to 2",
    ),
    "layers that are not there": (lambda p: jlens(p, source_layers=[0, 1]), "says that it reads layers"),
    "layers that are no list": (lambda p: jlens(p, source_layers=5), "says that it reads layers 5"),
    "layers of two kinds": (lambda p: jlens(p, source_layers=[0, "x"]), "says that it reads layers"),
    "a layer between two": (lambda p: jlens(p, J={0.5: draw(WIDTH, WIDTH)}), "holds no matrices J"),
    "no matrices": (lambda p: torch.save([1, 2], p), "holds no matrices J"),
    "names for layers": (lambda p: torch.save({"w": draw(2)}, p), "holds no matrices J"),
    "values that are none": (
        lambda p: jlens(p, J={0: torch.full((WIDTH, WIDTH), torch.nan)}),
        "not finite",
    ),
    "whole numbers": (lambda p: jlens(p, J={0: torch.ones(WIDTH, WIDTH, dtype=torch.int64)}), "no tensor"),
}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ("[1, 2]", "without running code"),
        ('{"model": "x"}', "a model of fingerprint x"),
        ('{"errors": [1]}', "errors are no numbers"),
        ('{"errors": {"0": "x"}}', "errors are no numbers"),
    ],
)
def test_facts_of_a_file_that_are_none_are_refused_in_one_line(
    facts: str, message: str, model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "lens.safetensors"
    save_file({"J.0": draw(WIDTH, WIDTH)}, path, {"jacobian_lens": facts})
    with pytest.raises(ArtifactError, match=message):
        opened(path, model)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_no_lens_of_this_model_is_refused_in_one_line(
    kind: str, model: Model, tmp_path: Path
) -> None:
    make, message = HOSTILE[kind]
    path = tmp_path / "lens.pt"
    make(path)
    with pytest.raises(ArtifactError, match=message) as refused:
        opened(path, model)
    assert "\n" not in str(refused.value) and not Path("/nowhere-at-all").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 64}, "a model of width 64"),
        ({"num_hidden_layers": 12}, "a model of layers 12; this one has 3"),
        ({"unembed_hash": "0" * 64}, "made for 'somebody/else'.*another unembedding"),
    ],
)
def test_a_tuned_lens_of_another_model_is_refused(
    changes: dict[str, Any], message: str, model: Model, tmp_path: Path
) -> None:
    tuned(tmp_path, model, **changes)
    with pytest.raises(ArtifactError, match=message):
        opened(tmp_path, model)


def test_a_tuned_lens_without_a_layer_or_with_a_broken_configuration_is_refused(
    model: Model, tmp_path: Path
) -> None:
    state = tuned(tmp_path, model)
    torch.save({name: one for name, one in state.items() if name != "2.weight"}, tmp_path / "params.pt")
    with pytest.raises(ArtifactError, match=r"2\.weight is no tensor"):
        opened(tmp_path, model)
    for text in ("{", "[1]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ArtifactError, match="no configuration of a lens"):
            opened(tmp_path, model)


def test_a_place_with_no_lens_is_said(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no lens at"):
        lenses.make(str(tmp_path / "no.pt"), model)
    with pytest.raises(ArtifactError, match="holds 0 files of lenses"):
        opened(tmp_path, model)
