"""What is written must arrive, and writing what was there already must change nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from interp.models.certificate import Check
from interp.models.checks.case import Case, judged, relative
from interp.models.interventions import Intervention
from interp.sites import Site

__all__ = ["edits_count", "own_values"]

EDITS = "an edit changes the logits"
OWN = "writing a site's own value changes nothing"
_WRITTEN = ("attn_out", "mlp_out", "resid_post")
_PER_LAYER = ("resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_act", "mlp_out", "resid_post")


def edits_count(case: Case) -> Check:
    """Edit one site per row of a batch, at the last token; each must move its logits."""
    sites = _sites(case, _WRITTEN)
    prompt = case.short[0]
    stream = case.model.capture([prompt], "resid_post.*").stack()[0].float()
    noise = torch.randn(stream.shape, generator=torch.Generator().manual_seed(case.seed)).to(stream)
    sizes = stream.std(-1, keepdim=True)
    edits = [
        Intervention(site, _adds(noise[site.layer or 0] * sizes[site.layer or 0]), "last", rows=[row])
        for row, site in enumerate(sites)
    ]
    rows = [prompt] * (len(sites) + 1)
    logits = case.model.run(rows, interventions=edits, batch_size=len(rows)).logits
    assert logits is not None
    changes = [relative(logits[row], logits[-1]) for row in range(len(sites))]
    value, limit = min(changes), 10 * case.limit
    status = "pass" if value >= limit else "fail"
    detail = f"least at {sites[changes.index(value)]}, of {len(sites)} sites edited one at a time"
    return Check(EDITS, status, value, limit, "relative", detail, bound="at least")


def own_values(case: Case) -> Check:
    """Write at every site of every layer what is there; the logits must stay."""
    sites = _sites(case, _PER_LAYER)
    edits = [Intervention(site, torch.clone, "all") for site in sites]
    run = case.model.run(case.short, interventions=edits, batch_size=len(case.short))
    plain = case.model.run(case.short, batch_size=len(case.short))
    assert run.logits is not None and plain.logits is not None
    return judged(OWN, relative(run.logits, plain.logits), case.limit, f"{len(sites)} sites written at once")


def _sites(case: Case, kinds: tuple[str, ...]) -> list[Site]:
    offered = [kind for kind in kinds if kind not in case.model.disabled]
    return [Site(kind, layer) for layer in range(case.model.n_layers) for kind in offered]


def _adds(change: Tensor) -> object:
    return lambda chosen: chosen + change.to(chosen.dtype)
