"""Models whose weights are on several devices, as accelerate places them: nothing but the place changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import mediation
from interp.analyses.knowledge import recall
from interp.errors import ConfigError, ModelError
from interp.models import Intervention
from interp.models.doctor import examine
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.quantization import quantize
from tests.tiny import build, tokenizer

pytest.importorskip("accelerate")
IDS = [[1, 5, 9, 20], [1, 7, 8]]
PARTS = ("embed_tokens", "layers.0", "layers.1", "layers.2", "norm", "rotary_emb")
MAPS = {
    "cpu": {"": "cpu"},
    "blocks on disk": {"layers.1": "disk", "layers.2": "disk"},
    "ends on disk": {"embed_tokens": "disk", "norm": "disk", "lm_head": "disk"},
}
PAIRS = [
    Pair("w01 w02 w03", "w01 w05 w03", ("w10",), ("w11",)),
    Pair("w04 w06 w07", "w04 w08 w07", ("w14",), ("w15",)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    build("llama").save_pretrained(place)
    tokenizer(bos=True).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def plain(folder: Path) -> Model:
    return interp.load(folder)


@pytest.fixture(scope="module", params=list(MAPS))
def placed(request: pytest.FixtureRequest, folder: Path) -> Model:
    asked = MAPS[request.param]
    whole = {name if name == "lm_head" else f"model.{name}": "cpu" for name in (*PARTS, "lm_head")}
    moved = {name if name == "lm_head" else f"model.{name}": place for name, place in asked.items() if name}
    return interp.load(folder, device_map=asked if "" in asked else whole | moved)


def test_states_logits_edits_and_texts_are_the_same(placed: Model, plain: Model) -> None:
    sites = ["embed", "resid_post.*", "head.*", "attn_out.*", "mlp_out.*", "mlp_act.*", "q.*", "final_norm"]
    found, wanted = (model.capture(IDS, sites, "all") for model in (placed, plain))
    for site in wanted.sites:
        torch.testing.assert_close(found[site], wanted[site])
    edit = [Intervention("head.1.2", 0.0)]
    runs = [model.run(IDS, interventions=edit).logits for model in (placed, plain)]
    torch.testing.assert_close(*runs)
    assert (placed.logits(IDS) - runs[0]).abs().max() > 0.01  # type: ignore[operator]
    texts = [model.generate(IDS, max_new_tokens=3).token_ids for model in (placed, plain)]
    assert texts[0] == texts[1] and placed.fingerprint == plain.fingerprint and not placed.disabled


def test_patching_is_the_same_and_leaves_the_weights_as_they_were(placed: Model, plain: Model) -> None:
    pairs = PairSet.build(plain, PAIRS)
    for search in ("exhaustive", "attribution", "direct"):
        both = [
            mediation.searches.effects(model, pairs, "head.*", search=search) for model in (placed, plain)
        ]
        for way in both[0].values:
            assert np.allclose(both[0].values[way], both[1].values[way], atol=1e-5)
        assert np.abs(both[1].mean()).max() > 1e-3
    assert {p.dtype for p in placed.hf.parameters()} == {torch.float32}  # the noise floor copied nothing
    torch.testing.assert_close(placed.logits(IDS), plain.logits(IDS))


def test_the_doctor_and_recall_agree(placed: Model, plain: Model) -> None:
    assert examine(placed).passed
    data = [("w01 w02", "w10"), ("w03", "w11 w12"), ("w04", "w13")]
    found: Any = [recall(model, data=data, prompts=2) for model in (placed, plain)]
    for one, two in zip(*(result.findings() for result in found), strict=True):
        assert one.name == two.name and one.value == pytest.approx(two.value, abs=1e-5)


def test_weights_that_are_elsewhere_are_not_rounded_but_an_untrained_twin_is_made(folder: Path) -> None:
    away = interp.load(folder, device_map={"model": "cpu", "lm_head": "disk"})
    with pytest.raises(ModelError, match=r"kept on disk or elsewhere.*Load it without device_map"):
        quantize(away, "rtn4")
    twin = interp.load(away.hf, weights="random")
    assert twin.weights == "random" and torch.isfinite(twin.logits(IDS)).all()


def test_attention_is_computed_as_asked(folder: Path, plain: Model) -> None:
    eager = interp.load(folder, attn_implementation="eager")
    assert eager.hf.config._attn_implementation == "eager" != plain.hf.config._attn_implementation
    torch.testing.assert_close(eager.logits(IDS), plain.logits(IDS), rtol=1e-4, atol=1e-5)
    random = interp.load(folder, weights="random", attn_implementation="eager")
    assert random.hf.config._attn_implementation == "eager"
    with pytest.raises(ModelError, match="could not be loaded"):
        interp.load(folder, attn_implementation="quick")


def test_what_does_not_go_together_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="device 'cpu' and a device_map were asked; give one"):
        interp.load(folder, device="cpu", device_map="auto")
    with pytest.raises(ConfigError, match="weights='random' reads none"):
        interp.load(folder, weights="random", device_map="auto")
    with pytest.raises(ConfigError, match="goes with a model loaded by name"):
        interp.load(build("llama"), device_map="auto")
    with pytest.raises(ModelError, match="could not be loaded"):
        interp.load(folder, device_map="nowhere")
