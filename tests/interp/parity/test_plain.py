"""The native hooks against plain Hugging Face: not a bit apart."""

from __future__ import annotations

import pytest
import torch

from interp.models import load
from tests.interp.parity.measure import FAMILIES
from tests.tiny import tiny

IDS = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]]
BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_streams_are_those_of_the_model_called_plainly(family: str) -> None:
    hf, _ = tiny(family)
    streams: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(
            lambda module, args, out: streams.append(out if torch.is_tensor(out) else out[0])
        )
        for block in hf.get_submodule(BLOCKS.get(family, "model.layers"))
    ]
    with torch.no_grad():
        wanted = hf(torch.tensor(IDS)).logits
    for handle in handles:
        handle.remove()
    run = load(hf).run(IDS, capture="resid_post.*", positions="all", logits="all")
    assert torch.equal(run.logits, wanted)
    for layer, stream in enumerate(streams):
        assert torch.equal(run.activations[f"resid_post.{layer}"], stream)
    assert not torch.allclose(run.activations["resid_post.0"], streams[1], rtol=1e-3)
