"""Attribution beside TransformerLens's own node attribution, on random GPT-2 and Llama."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp import mediation
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import PairSet
from tests.interp.mediation.test_search import pairs_of
from tests.interp.parity.test_transformer_lens import bridged
from tests.tiny import build, tokenizer


def theirs(family: str, pairs: PairSet) -> dict[tuple[str, int | None, int | None, int | None], float]:
    """Score every node by position, denoising, mean over pairs; all pairs share answer and foil."""
    from transformer_lens.model_bridge import sources
    from transformer_lens.tools.analysis import attribution_patching

    answer, foil = pairs.answer_ids[0][0], pairs.foil_ids[0][0]
    clean, corrupt = (torch.tensor(side.token_ids) for side in (pairs.clean, pairs.corrupt))
    found = attribution_patching.attribution_patch(
        bridged(sources, family),
        clean,
        corrupt,
        lambda logits: (logits[:, -1, answer] - logits[:, -1, foil]).mean(),
    )
    return {(n.kind, n.layer, n.head, n.position): score for n, score in found.node_scores.items()}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_attribution_is_that_of_transformer_lens(family: str) -> None:
    """Oracle 11: every head and MLP at every position, within 1e-5 of the largest score."""
    model: Model = load(build(family), tokenizer=tokenizer())
    pairs = pairs_of(model, 3)
    wanted = theirs(family, pairs)
    found = mediation.attribution(
        model, pairs, ["head.*", "mlp_out.*"], positions="each", directions="denoising", verify=0
    )
    scores = dict(zip(found.mediators, found.mean(), strict=True))
    peers = np.array(
        [
            wanted["attn_head_out" if m.site.kind == "head" else "mlp_out", m.layer, m.site.index, m.position]
            for m in scores
        ]
    )
    ours = np.array(list(scores.values()))
    assert np.abs(ours - peers).max() < 1e-5 * np.abs(peers).max()
    assert np.abs(peers).max() > 1e-3
    assert len(ours) == 3 * (4 + 1) * 8
    other = mediation.attribution(
        model, pairs, ["head.*", "mlp_out.*"], positions="each", directions="noising", verify=0
    )
    assert np.abs(other.mean() - peers).max() > 1e-3 * np.abs(peers).max()
