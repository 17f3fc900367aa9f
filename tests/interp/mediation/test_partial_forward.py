"""The walk against whole forward passes, on every family and every kind of mediator."""

from __future__ import annotations

import random

import pytest
import torch

from interp.errors import SiteError
from interp.mediation.engine import full_forward_logits
from interp.mediation.mediators import Mediator
from interp.mediation.partial_forward import PartialForward, Patch, Row, interchange
from interp.mediation.subspaces import Subspace
from interp.models.loading import load
from interp.models.model import Model
from interp.sites import Site
from tests.tiny import FAMILIES, tiny

KINDS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head", "q", "k", "v", "neuron")


def loaded(family: str) -> Model:
    hf, tokenizer = tiny(family)
    return load(hf, tokenizer=tokenizer)


def prompts(model: Model, n: int = 3, length: int = 12, *, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[1, *(rng.randrange(3, 60) for _ in range(length - 1))] for _ in range(n)]


def cells(model: Model, length: int, *, seed: int = 0) -> list[Mediator]:
    """A few mediators of each kind that the model offers, at random layers, positions and parts."""
    rng, found = random.Random(seed), []
    for kind in KINDS:
        try:
            sites = model.expand(f"{kind}.*" if kind != "neuron" else "neuron.1.*")
        except SiteError:
            continue
        for site in rng.sample(sites, min(3, len(sites))):
            found += [Mediator(site), Mediator(site, rng.randrange(length))]
    return found + parts(model, length)


def parts(model: Model, length: int) -> list[Mediator]:
    """Key-value groups, several neurons together, and subspaces of a stream and of a head."""
    torch.manual_seed(0)
    wide, narrow = (Subspace.of(torch.randn(2, size), "two") for size in (model.d_model, model.d_head))
    found = [Mediator(Site("resid_post", 1), subspace=wide), Mediator(Site("resid_pre", 0), 4, subspace=wide)]
    if "z" in model.sites:
        found += [Mediator(Site("head", 1, 2), at, subspace=narrow) for at in (None, length - 1)]
    if "mlp_act" in model.sites:
        found += [Mediator(Site("mlp_act", 1), at, units=(1, 5, 8)) for at in (None, 6)]
    if {"k", "v"} <= set(model.sites):
        found += [Mediator(Site("k", 1, 1), at, with_values=True) for at in (None, 5)]
    return found


def values(model: Model, token_ids: list[list[int]], mediators: list[Mediator]) -> dict[Site, torch.Tensor]:
    carriers = sorted({site for m in mediators for site in m.carriers})
    read = model.capture(token_ids, [str(site) for site in carriers], "all")
    return {site: read[str(site)] for site in carriers}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_walk_gives_the_logits_of_whole_passes(family: str) -> None:
    model = loaded(family)
    base, source = prompts(model), prompts(model, seed=1)
    mediators = cells(model, 12)
    patch = Patch(values(model, source, mediators))
    rows = [Row(at % 3, (m,)) for at, m in enumerate(mediators)]
    rows += [Row(0), Row(1, tuple(mediators[:4])), Row(2, (mediators[0], mediators[-1]))]
    walked, whole = PartialForward.of(model, base)(rows, patch), full_forward_logits(model, base, rows, patch)
    assert (walked - whole).abs().max() <= 1e-5 * max(1.0, float(whole.abs().max()))
    clean = model.logits(base)
    changed = [(whole[at] - clean[row.example]).abs().max() for at, row in enumerate(rows)]
    assert changed[-3] <= 1e-5
    assert sum(float(change) > 1e-6 for change in changed) > len(rows) / 2  # the patches do something


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_patching_a_run_into_itself_changes_nothing(family: str) -> None:
    model = loaded(family)
    base = prompts(model)
    mediators = cells(model, 12)
    walker = PartialForward.of(model, base)
    rows = [Row(at % 3, (m,)) for at, m in enumerate(mediators)]
    plain = walker([Row(row.example) for row in rows], Patch({}))
    assert torch.equal(walker(rows, Patch(values(model, base, mediators))), plain) or torch.allclose(
        walker(rows, Patch(values(model, base, mediators))), plain, atol=1e-6
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_patching_everything_is_the_source_run(family: str) -> None:
    model = loaded(family)
    base, source = prompts(model), prompts(model, seed=1)
    every = tuple(Mediator(Site("resid_pre", 1), at) for at in range(12))
    patch = Patch(values(model, source, list(every)))
    found = PartialForward.of(model, base)([Row(at, every) for at in range(3)], patch)
    assert torch.allclose(found, model.logits(source), atol=1e-5)
    assert not torch.allclose(found, model.logits(base), atol=1e-3)


def test_a_rule_sees_current_and_source_values() -> None:
    model = loaded("llama")
    base, source = prompts(model), prompts(model, seed=1)
    mediators = cells(model, 12)
    rows = [Row(0, (m,)) for m in mediators]
    stored = values(model, source, mediators)
    for rule in (
        lambda current, given: (current + given) / 2,
        lambda current, given: torch.zeros_like(current),
    ):
        patch = Patch(stored, rule)
        walked, whole = (
            PartialForward.of(model, base)(rows, patch),
            full_forward_logits(model, base, rows, patch),
        )
        assert torch.allclose(walked, whole, atol=1e-5)
        assert not torch.allclose(
            walked, PartialForward.of(model, base)(rows, Patch(stored, interchange)), atol=1e-4
        )


def test_rows_pay_only_for_the_layers_they_need() -> None:
    model = loaded("llama")
    base = prompts(model)
    walker = PartialForward.of(model, base)
    late = Mediator(Site("resid_pre", model.n_layers - 1), 3)
    walker([Row(0, (late,))] * 5, Patch(values(model, base, [late])))
    assert walker.steps == 5  # one block each
    early = Mediator(Site("resid_pre", 0), 3)
    walker([Row(0, (late,)), Row(1, (early,))], Patch(values(model, base, [late, early])))
    assert walker.steps == 5 + 1 + model.n_layers
