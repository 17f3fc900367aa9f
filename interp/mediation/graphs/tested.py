"""What real interventions make of edges: the source is taken out, and its target is read again.

*held*: the source is missing in what the target reads, and in nothing else. The target's own norm, pattern
and activation respond: this tests that they could be held.

*live*: the source is missing in the running model, and all that comes after it responds: this tests that the
target depends on it so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from interp.activations import Activations
from interp.mediation.graphs.frozen import FrozenRun, Reading
from interp.mediation.graphs.sources import SEVERAL, Source
from interp.models.interventions import Intervention
from interp.sites import Site

__all__ = ["Changes", "changes_of", "held", "live"]

Pair = tuple[int, int]
"""A source's place and its target: a source's place, or an output's ``-1 - number``."""


@dataclass(frozen=True, eq=False)
class Changes:
    """How each source is changed.

    Attributes:
        deltas: place of a source -> ``[d_model]``, what is added to what it writes.
    """

    deltas: Mapping[int, Tensor]


def changes_of(run: FrozenRun, places: Sequence[int], other: Mapping[int, Tensor] | None = None) -> Changes:
    """Take sources out, or exchange what they write for what they write in another run.

    Args:
        run: whose sources.
        places: of these.
        other: place -> what it writes there; None takes it out.
    """
    writes = run.sources.writes
    return Changes(
        {at: -writes[at] if other is None else other[at] - writes[at] for at in dict.fromkeys(places)}
    )


def live(
    run: FrozenRun, changes: Changes, targets: Sequence[int], *, batch_size: int | str = "auto"
) -> tuple[dict[Pair, float], dict[int, float]]:
    """Change each source in the running model, one at a time.

    Args:
        run: whose sources.
        changes: of them.
        targets: what is read: places of sources, outputs as ``-1 - number``.
        batch_size: rows of one pass.

    Returns:
        The change of each target for each source, and that of the outputs' weighted sum.
    """
    places = list(changes.deltas)
    edits = []
    for row, at in enumerate(places, start=1):
        part = run.sources.parts[at]
        edits.append(_edit(part.adds_to(run.model), changes.deltas[at], part.position, row))
    read, logits = _run(run, 1 + len(places), edits, targets, batch_size)
    found: dict[Pair, float] = {}
    for target in targets:
        values = _values(run, target, read, logits)
        for row, at in enumerate(places, start=1):
            found[at, target] = float(values[row] - values[0])
    total = run.outputs.total(logits)
    return found, {at: float(total[row] - total[0]) for row, at in enumerate(places, start=1)}


def held(
    run: FrozenRun, changes: Changes, pairs: Sequence[Pair], *, batch_size: int | str = "auto"
) -> dict[Pair, float]:
    """Change each source in what one target reads, and nowhere else.

    Args:
        run: whose sources.
        changes: of them.
        pairs: source and target.
        batch_size: rows of one pass.
    """
    if not pairs:
        return {}
    edits = []
    for row, (at, target) in enumerate(pairs, start=1):
        reading = _reading(run, target)
        edits.append(_edit(reading.site, changes.deltas[at], run.sources.parts[at].position, row))
    targets = list(dict.fromkeys(target for _, target in pairs))
    read, logits = _run(run, 1 + len(pairs), edits, targets, batch_size)
    values = {target: _values(run, target, read, logits) for target in targets}
    return {pair: float(values[pair[1]][row] - values[pair[1]][0]) for row, pair in enumerate(pairs, start=1)}


def _edit(site: Site, delta: Tensor, position: int, row: int) -> Intervention:
    return Intervention(site, partial(_plus, delta), positions=position, rows=[row])


def _plus(delta: Tensor, chosen: Tensor) -> Tensor:
    return (chosen.double() + delta).to(chosen.dtype)


def _reading(run: FrozenRun, target: int) -> Reading:
    return run.reading(-1 - target if target < 0 else run.sources.parts[target])


def _run(
    run: FrozenRun,
    rows: int,
    edits: Sequence[Intervention],
    targets: Sequence[int],
    batch_size: int | str,
) -> tuple[Activations | None, Tensor]:
    sites = sorted({_read_at(run.sources.parts[one]) for one in targets if one >= 0})
    made = run.model.run(
        [list(run.ids)] * rows,
        interventions=edits,
        capture=sites or None,
        positions="all",
        batch_size=batch_size,
    )
    assert made.logits is not None
    return made.activations, made.logits


def _read_at(part: Source) -> Site:
    kind = SEVERAL.get(part.kind)
    return Site(part.kind, part.layer, part.index) if kind is None else Site(kind, part.layer)


def _values(run: FrozenRun, target: int, read: Activations | None, logits: Tensor) -> Tensor:
    """The value of a target in every row, as its reading defines it."""
    if target < 0:
        return run.outputs.values(logits)[:, -1 - target].double()
    assert read is not None
    part = run.sources.parts[target]
    value = read[str(_read_at(part))][:, part.position].double()
    along = run.reading(part).along
    return value[:, 0] if along is None else value.flatten(1) @ along.double().flatten()
