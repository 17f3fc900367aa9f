"""Models and pairs that several tests of edges share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from interp.mediation import Attribution, EdgeIntegratedGradients, Effects, Search
from interp.mediation.edges.run import carriers_of
from interp.mediation.searches import effects
from interp.models.loading import load
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import Pair, PairSet
from interp.sites import Site
from tests.tiny import WORDS, build, tokenizer

__all__ = ["edge_attribution", "made", "micro", "pairs_of", "values_of"]


def made(family: str = "llama") -> Model:
    return load(build(family), tokenizer=tokenizer())


def pairs_of(model: Model, n: int = 3, *, length: int = 7, seed: int = 0) -> PairSet:
    """Random prompts that differ in two tokens; the last pair is longer."""
    rng = np.random.default_rng(seed)
    found: list[Pair] = []
    for at in range(n):
        words = [WORDS[i] for i in rng.integers(0, 50, length + (at == n - 1))]
        other = [*words[:2], WORDS[50 + at % 5], words[3], WORDS[51 + at % 3], *words[5:]]
        found.append(Pair(" ".join(words), " ".join(other), (WORDS[55],), (WORDS[56],), "word", f"g{at}"))
    return PairSet.build(model, found)


def edge_attribution(
    model: Model,
    pairs: PairSet,
    edges: Any = "edge.*",
    *,
    slope: str = "point",
    verify: int = 10,
    directions: str = "both",
    **options: Any,
) -> Effects:
    """Edges by gradients at one point (EAP), or averaged along a path (EAP-IG)."""
    search: Search
    if slope == "point":
        search = Attribution(verify=verify, **options)
    else:
        search = EdgeIntegratedGradients(path=slope, verify=verify, **options)
    return effects(model, pairs, edges, search=search, directions=directions)


def values_of(model: Model, tokens: Tokens, writers: tuple[Site, ...]) -> dict[Site, torch.Tensor]:
    """What the writers' carriers are on some prompts."""
    sites = carriers_of(writers)
    read = model.capture(tokens, [str(site) for site in sites], "all")
    return {site: read[str(site)] for site in sites}


def micro() -> Model:
    """MicroModel: two layers whose runs can be worked out by hand, as a GPT-2.

    Each layer adds ``(1, 2) * x`` by its head 0 and ``(3, 4) * x`` by its head 1, so that a stream ``(1, 1)``
    becomes ``(5, 7)`` and then ``(25, 49)``. Token 3 is the stream (1, 1), token 4 is (-1, -1); the first two
    logits are the stream. There are no norms, and the MLPs add nothing.
    """
    config = GPT2Config(
        vocab_size=64, n_embd=4, n_layer=2, n_head=2, n_positions=8, bos_token_id=1, eos_token_id=2
    )
    hf = GPT2LMHeadModel(config).eval()
    hf.lm_head.weight = torch.nn.Parameter(torch.zeros(64, 4))
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
        hf.transformer.wte.weight[:, 2] = torch.arange(64) * 0.01  # a check at load wants tokens that differ
        hf.transformer.wte.weight[3] = torch.tensor([1.0, 1.0, 0.0, 0.0])
        hf.transformer.wte.weight[4] = torch.tensor([-1.0, -1.0, 0.0, 0.0])
        hf.lm_head.weight[:2, :2] = torch.eye(2)
        hf.lm_head.weight[2:, 2] = 1.0
        for block in hf.transformer.h:
            for head, scale in enumerate(((1.0, 2.0), (3.0, 4.0))):
                columns = slice(8 + 2 * head, 10 + 2 * head)  # this head's values
                block.attn.c_attn.weight[:2, columns] = torch.eye(2)
                block.attn.c_proj.weight[2 * head : 2 * head + 2, :2] = torch.diag(torch.tensor(scale))
    hf.transformer.ln_f = torch.nn.Identity()
    for block in hf.transformer.h:
        block.ln_1, block.ln_2 = torch.nn.Identity(), torch.nn.Identity()
    return load(hf, tokenizer=tokenizer())
