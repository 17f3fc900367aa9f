"""What a search would cost, before anything is run: the numbers behind ``interp patch --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import ConfigError
from interp.mediation.edges.asked import are_edges, at_all_positions
from interp.mediation.edges.job import EdgeJob
from interp.mediation.engine import LOGITS, UNEMBEDDED
from interp.mediation.searches import SEARCHES
from interp.mediation.searches.exhaustive import prepared
from interp.mediation.searches.job import Job, Mediators
from interp.mediation.searches.verify import SAMPLE, TOP
from interp.models.loading import ModelLike
from interp.pairs import PairSet

__all__ = ["Forecast", "plan"]


@dataclass(frozen=True)
class Forecast:
    """What a search would run.

    Attributes:
        search: a key of ``SEARCHES``.
        pairs: number of pairs.
        mediators: number of mediators.
        forwards: forward passes of one prompt through the whole model; parts of a prompt or of the layers
            count as such, a backward pass as one. Unpatched prompts and checks come on top.
        naive: the same if each mediator were replaced in each pair and direction by a whole pass of its own.
        walks: passes through the blocks, each of many patched copies; 0 where nothing is replaced exactly.
        skipped: cells whose effect is exactly zero and that are not run.
        exact: whether ``forwards`` is what the bill will say; where what is run depends on what is found, it
            is an estimate.
        memory: bytes that an exhaustive search holds besides the weights, roughly: the unpatched streams,
            keys and values, what is put in, one last state per copy and the logits of some copies; 0 where
            not known.
    """

    search: str
    pairs: int
    mediators: int
    forwards: float
    naive: int
    walks: int = 0
    skipped: int = 0
    exact: bool = True
    memory: int = 0

    def __str__(self) -> str:
        """All of it in one line."""
        about = "" if self.exact else "about "
        asked = f"{self.search}: {self.pairs} pairs, {self.mediators} mediators"
        cost = f"{about}{self.forwards:,.1f} forward passes of one prompt"
        beside = f"{self.naive:,} if every mediator had whole passes of its own"
        if not self.walks:
            return f"{asked}, {cost} ({beside})"
        held = f"about {self.memory / 1e9:,.2f} GB besides the weights"
        zero = f"{self.skipped:,} cells known to be zero"
        return f"{asked}, {cost} in {self.walks} walks, {zero} ({beside}), {held}"


def plan(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    search: str = "exhaustive",
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    seed: int = 0,
) -> Forecast:
    """What a search would cost, without running the model.

    An exhaustive search is planned as it will be run, one over edges roughly. A model that turns out to allow
    less while it runs (``Bill.fallback``) costs more.

    The arguments are those of ``exhaustive``; ``search`` is a key of ``SEARCHES``.

    Raises:
        ConfigError: an unknown search, metric, replacement, direction or position.
        SiteError: a mediator that the model does not have.
    """
    if search not in SEARCHES:
        raise ConfigError(f"search {search!r} asked; there are: {', '.join(SEARCHES)}.")
    if are_edges(mediators):
        at_all_positions(positions)
        return _edges(EdgeJob.of(model, pairs, mediators, metric, replacement, directions, seed), search)
    job = Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    passes = SEARCHES[search].passes
    return _exhaustive(job) if passes is None else _estimated(job, search, passes(job))


def _exhaustive(job: Job) -> Forecast:
    """Plan what an exhaustive search runs in every direction."""
    forwards, walks, skipped, most = 0.0, 0, 0, 0
    for direction in job.directions:
        engine, rows, cells = prepared(job, direction)
        found = engine.plan(rows)
        forwards += found.forwards
        walks += len(found.walks)
        skipped += len(job.mediators) * len(job.pairs) - len(cells)
        most = max(most, len(rows))
    n, m = len(job.pairs), len(job.mediators)
    naive, memory = n * m * len(job.directions), _memory(job, most)
    return Forecast("exhaustive", n, m, forwards, naive, walks, skipped, memory=memory)


def _memory(job: Job, rows: int) -> int:
    """Bytes that one direction holds: streams, keys and values of the plain run, sources, states, logits."""
    model, tokens = job.model, sum(job.pairs.lengths)
    padded = len(job.pairs) * max(job.pairs.lengths)
    cached = (model.n_layers + 1) * model.d_model + 2 * model.n_layers * model.n_kv_heads * model.d_head
    widths = {"z": model.n_heads * model.d_head, "q": model.n_heads * model.d_head, "mlp_act": model.d_mlp}
    widths |= dict.fromkeys(("k", "v"), model.n_kv_heads * model.d_head)
    sources = sum(widths.get(site.kind, model.d_model) for site in job.carriers)
    held = tokens * cached + padded * sources + rows * model.d_model
    logits = min(rows, UNEMBEDDED, LOGITS // model.vocab_size) * model.vocab_size
    return model.dtype.itemsize * held + 4 * logits


def _estimated(job: Job, search: str, passes: int) -> Forecast:
    """Count the passes of a search by gradients, with its exact checks at the average cost of a mediator."""
    n, m = len(job.pairs), len(job.mediators)
    checks = 0.0
    if not SEARCHES[search].exact:
        checks = _exhaustive(job).forwards * min(1.0, (TOP + SAMPLE) / m)
    naive = n * m * len(job.directions)
    return Forecast(search, n, m, passes * n + checks, naive, exact=SEARCHES[search].exact)


def _edges(job: EdgeJob, search: str) -> Forecast:
    """Count what edges cost: a copy with one edge cut is run from its reader's layer on."""
    depth, ways = job.job.model.n_layers, len(job.job.directions)
    n, m = len(job.job.pairs), len(job.edges)
    layers = (depth if edge.reader.layer is None else edge.reader.layer for edge in job.edges)
    cut = sum(depth - layer for layer in layers) / depth * n * ways
    passes = SEARCHES[search].passes
    if passes is not None:
        cut = passes(job.job) * n + cut * min(1.0, (TOP + SAMPLE) / m)
    return Forecast(search, n, m, cut, n * m * ways, exact=False)
