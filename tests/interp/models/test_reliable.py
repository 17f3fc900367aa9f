"""Threads, long factors, padding, compiled and offloaded models: right, or refused with a true reason."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.errors import DataError, ModelError
from interp.models import Intervention, Model, load
from interp.models.forward import length_border, plan_batches
from tests.tiny import build, tokenizer

IDS = [[5, 6, 7, 8, 9]]


def test_threads_do_not_get_each_others_edits(llama: Model) -> None:
    plain = llama.logits(IDS)
    writes = [Intervention("resid_post.0", 0.0)]
    cut = llama.run(IDS, interventions=writes).logits
    wrong: list[str] = []

    def ask(name: str, call: Any, expected: Any) -> None:
        for _ in range(40):
            if not torch.equal(call(), expected):
                wrong.append(name)

    threads = [
        threading.Thread(target=ask, args=("plain", lambda: llama.logits(IDS), plain)),
        threading.Thread(target=ask, args=("cut", lambda: llama.run(IDS, interventions=writes).logits, cut)),
        threading.Thread(target=ask, args=("again", lambda: llama.logits(IDS), plain)),
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong and cut is not None and not torch.allclose(cut, plain, atol=1e-3)


ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 2.0,
    "short_factor": [1.0] * 4,
    "long_factor": [3.0, 2.0, 5.0, 4.0],
    "original_max_position_embeddings": 20,
}


def test_prompts_from_both_sides_of_the_long_factors_border_share_no_batch() -> None:
    hf = build("llama", max_position_embeddings=40, rope_parameters=ROPE)
    model = load(hf)
    assert length_border(model.architecture) == 20
    short, long = [[5 + n % 50 for n in range(size)] for size in (12, 30)]
    together = model.capture([short, long], "resid_post.1")["resid_post.1"]
    for row, prompt in enumerate((short, long)):
        with torch.no_grad():
            alone = hf(torch.tensor([prompt]), output_hidden_states=True).hidden_states[2][0, -1]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)
    assert plan_batches([3, 20, 21, 4], "auto", border=20) == [[0, 1, 3], [2]]
    assert length_border(load(build("llama")).architecture) is None


def test_padding_in_ids_without_a_mask_is_said(llama: Model) -> None:
    rows = torch.tensor([[5, 6, 7], [8, 9, 0]])
    assert "1 of 2 rows of ids end with the token that pads, 0" in llama.capture(rows, "embed").warnings[-1]
    assert not llama.capture(rows[:, :2], "embed").warnings
    assert not llama.capture([[5, 6, 0], [7, 8, 9]], "embed").warnings, "lists of several lengths are prompts"


def test_half_a_surrogate_pair_is_no_text(llama: Model) -> None:
    with pytest.raises(DataError, match=r"\\\\ud83d.*surrogate pair at character 4"):
        llama.capture(["w01", "w02 \ud83d"], "embed")


def test_compiled_models_are_refused_with_what_to_give() -> None:
    hf = build("llama")
    with pytest.raises(ModelError, match=r"Give model\._orig_mod"):
        load(torch.compile(hf, backend="eager"))
    model = load(copy.deepcopy(hf), tokenizer=tokenizer())
    model.hf.compile(backend="eager")
    with pytest.raises(ModelError, match="was compiled in place"):
        model.logits(IDS)


def test_weights_on_disk_are_read_from_there(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    hf = build("llama")
    expected = load(hf).capture(IDS, "resid_post.*")
    away = accelerate.disk_offload(copy.deepcopy(hf), tmp_path, execution_device=torch.device("cpu"))
    model = load(away)
    found = model.capture(IDS, "resid_post.*")
    for site in expected.sites:
        torch.testing.assert_close(found[site], expected[site])
    assert model.fingerprint == load(hf).fingerprint and not model.disabled
    heads = model.capture(IDS, "head.1.*")
    for site in heads.sites:
        torch.testing.assert_close(heads[site], load(hf).capture(IDS, site)[site])
