"""What all drawn paths do together, by a real intervention: tokens change along drawn edges alone.

Each node on a path gets its own input with the changes that drawn edges bring to it, and works out anew what
it writes, with its own norm, pattern and activation; everything else stays as it is (path patching:
Goldowsky-Dill et al. 2023, arXiv 2304.05969). What arrives at the output stands beside what the tokens do to
it altogether.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from interp.mediation.graphs.frozen import FrozenRun
from interp.mediation.graphs.influence import Key
from interp.mediation.graphs.sources import Source, projected
from interp.models.interventions import Intervention
from interp.sites import Site

__all__ = ["along_paths", "altogether"]

Pair = tuple[int, Key]
ACTIVE = {"head": "z", "heads": "z", "neuron": "mlp_act", "rest": "mlp_act", "feature": "feature"}
"""The site at which each kind of node is read."""


def altogether(run: FrozenRun, deltas: Mapping[int, Tensor]) -> float:
    """The change of the outputs' weighted sum where tokens are changed for all that reads them.

    Args:
        run: whose.
        deltas: place of an embedding -> ``[d_model]``, what is added to it.
    """
    changed = torch.zeros_like(run.values[Site("resid_pre", 0)][0], dtype=torch.float64)
    for at, delta in deltas.items():
        changed[run.sources.parts[at].position] += delta
    edit = Intervention(Site("resid_pre", 0), partial(_plus, changed), positions="all", rows=[1])
    made = run.model.run([list(run.ids)] * 2, interventions=[edit])
    assert made.logits is not None
    total = run.outputs.total(made.logits)
    return float(total[1] - total[0])


def along_paths(
    run: FrozenRun,
    graphs: Sequence[Sequence[Pair]],
    deltas: Mapping[int, Tensor],
    *,
    batch_size: int | str = "auto",
) -> list[float]:
    """The same where each change goes along the edges of a graph alone, for several graphs.

    Args:
        run: whose parts.
        graphs: of each its edges.
        deltas: place of an embedding -> ``[d_model]``, what is added to it.
        batch_size: rows of one pass.
    """
    into: list[dict[Key, list[int]]] = []
    for edges in graphs:
        into.append({})
        for source, target in edges:
            into[-1].setdefault(target, []).append(source)
    written: list[dict[int, Tensor]] = [dict(deltas) for _ in graphs]
    orders = run.sources.orders
    for order in sorted({orders[at] for one in into for at in one if at >= 0}):
        rows = [
            (number, at) for number, one in enumerate(into) for at in one if at >= 0 and orders[at] == order
        ]
        changes = [_read(run, at, into[number][at], written[number]) for number, at in rows]
        for (number, at), new in zip(rows, _anew(run, rows, changes, batch_size), strict=True):
            written[number][at] = new - run.sources.writes[at]
    return _arrived(run, into, written, batch_size)


def _read(
    run: FrozenRun, target: Key, sources: Sequence[int], written: Mapping[int, Tensor]
) -> Float[Tensor, "pos d_model"]:
    """What drawn edges add to the stream that a target reads."""
    found = torch.zeros(len(run.ids), run.sources.writes.shape[1], dtype=torch.float64)
    found = found.to(run.sources.writes.device)
    for source in sources:
        if source in written:
            found[run.sources.parts[source].position] += written[source]
    return found


def _edits(site: Site, changes: Sequence[Tensor], rows: Sequence[int]) -> list[Intervention]:
    return [
        Intervention(site, partial(_plus, change), positions="all", rows=[row])
        for row, change in zip(rows, changes, strict=True)
        if bool(change.any())
    ]


def _plus(delta: Tensor, chosen: Tensor) -> Tensor:
    return (chosen.double() + delta.reshape(chosen.shape)).to(chosen.dtype)


def _anew(
    run: FrozenRun, rows: Sequence[tuple[int, int]], changes: Sequence[Tensor], batch_size: int | str
) -> list[Tensor]:
    """What nodes of one sublayer write where what they read is changed."""
    parts = [run.sources.parts[at] for _, at in rows]
    edits: list[Intervention] = []
    for site in sorted({one.reads(run.model) for one in parts}):
        here = [row for row, one in enumerate(parts) if one.reads(run.model) == site]
        edits += _edits(site, [changes[row] for row in here], here)
    sites = sorted({Site(ACTIVE[one.kind], one.layer) for one in parts})
    made = run.model.run(
        [list(run.ids)] * len(rows),
        interventions=edits or None,
        capture=sites,
        positions="all",
        logits="none",
        batch_size=batch_size,
    )
    assert made.activations is not None
    read = made.activations
    found = []
    for row, part in enumerate(parts):
        found.append(_written(run, part, read[str(Site(ACTIVE[part.kind], part.layer))][row, part.position]))
    return found


def _written(run: FrozenRun, part: Source, value: Tensor) -> Float[Tensor, " d_model"]:
    """What a node writes, given its sublayer's activations at its token."""
    layer = part.layer or 0
    if part.kind == "feature":
        decoder = run.model.dictionaries[layer].decoder[part.index]
        return value[part.index].double() * decoder.double()
    alone = value * run.sources.members(part, value)
    kind = "attn_out" if ACTIVE[part.kind] == "z" else "mlp_out"
    both = projected(run.model, layer, kind, torch.stack([alone, torch.zeros_like(alone)]))
    return both[0] - both[1]


def _arrived(
    run: FrozenRun,
    into: Sequence[Mapping[Key, Sequence[int]]],
    written: Sequence[Mapping[int, Tensor]],
    batch_size: int | str,
) -> list[float]:
    """The change of the outputs' weighted sum, each output by what is drawn into it."""
    n = len(run.outputs.tokens)
    changes = [
        _read(run, -1 - number, one.get(-1 - number, ()), had)
        for one, had in zip(into, written, strict=True)
        for number in range(n)
    ]
    site = Site("resid_post", run.model.n_layers - 1)
    made = run.model.run(
        [list(run.ids)] * (1 + len(changes)),
        interventions=_edits(site, changes, range(1, 1 + len(changes))) or None,
        batch_size=batch_size,
    )
    assert made.logits is not None
    values = run.outputs.values(made.logits).double()
    moved = (values[1:] - values[0]).reshape(len(into), n, n)
    weights = run.outputs.weights.to(moved)
    return [float((one.diagonal() * weights).sum()) for one in moved]
