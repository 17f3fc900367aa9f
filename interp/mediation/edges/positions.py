"""Edge scores by position: where along the prompt an edge carries what it carries (PEAP).

The score of an edge is a sum over positions, in which a part that works for the answer and one that works
against it cancel. Here every part is kept: of a query, an MLP or the logits by the position they read; of
keys and values by the position of the key and of the query that attends to it (Haklay et al. 2025,
2502.04577). Over all its parts an edge's score is that of EAP. The part of one query in the slope of keys and
values is that of attention run once per query, with the gradient of that query's output alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, DataError, ModelError, counted
from interp.mediation.edges.blocks import contribution
from interp.mediation.edges.edge import Edge
from interp.mediation.edges.experiment import ALLOWED, EdgeExperiment, ReaderSlopes, Scores
from interp.mediation.experiment import SIGNS, Estimates
from interp.models.forward import gradients
from interp.models.hooks import Writer
from interp.models.positions import choose, located
from interp.sites import Site

__all__ = ["REST", "Spans", "attention_again", "position_scores"]

REST, MOST_PARTS = "rest", 200_000
"""The span of tokens that no other span has; and how many parts of edges are scored at most."""
FORWARD = ("k", "v")


@dataclass(frozen=True, eq=False)
class Spans:
    """What the positions of each prompt are called, so that they can be averaged over pairs.

    Attributes:
        names: in the order in which they come.
        place: ``[pair][pos]``, the number of each token's name.
    """

    names: tuple[str, ...]
    place: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, experiment: EdgeExperiment, asked: Sequence[tuple[str, str]]) -> Spans:
        """Name the tokens of every pair.

        Args:
            experiment: whose pairs.
            asked: names and selectors, such as ``("answer", "last")`` or ``("subject", 'text:"France"')``, of
                the clean prompts; tokens outside of all are the rest. None: every position by its number.

        Raises:
            ConfigError: no spans, and prompts of different lengths; or a name that cannot be used.
            DataError: a token with two names.
        """
        lengths = experiment.pairs.lengths
        if not asked:
            if len(set(lengths)) > 1:
                raise ConfigError(
                    f"positions of prompts of {min(lengths)} to {max(lengths)} tokens asked, which are not "
                    'the same places; name spans, such as spans=(("subject", \'text:"France"\'), '
                    '("end", "last")).'
                )
            width = lengths[0]
            return cls(tuple(map(str, range(width))), (tuple(range(width)),) * len(lengths))
        names = tuple(name for name, _ in asked)
        if len({*names, REST}) <= len(names) or any(set(name) & set("@>") or not name for name in names):
            raise ConfigError(
                f"spans {', '.join(map(repr, names))} asked; give each a name of its own without '@' or '>' "
                f"that is not {REST!r}."
            )
        place = [[len(names)] * length for length in lengths]
        for number, (name, selector) in enumerate(asked):
            tokens = experiment.pairs.clean
            chosen = choose(located(selector, tokens, experiment.model.tokenizer), lengths)
            for pair, columns in enumerate(chosen.rows):
                for column in columns:
                    if place[pair][column] != len(names):
                        other = names[place[pair][column]]
                        raise DataError(
                            f"token {column} of pair {pair} is in the spans {other!r} and {name!r}; "
                            "choose spans that share no token."
                        )
                    place[pair][column] = number
        return cls((*names, REST), tuple(map(tuple, place)))


@gradients()
def position_scores(
    experiment: EdgeExperiment, asked: Sequence[tuple[str, str]] = ()
) -> tuple[EdgeExperiment, Estimates]:
    """Estimate every part of every edge from one gradient per run.

    Args:
        experiment: on edges.
        asked: as for :meth:`Spans.of`.

    Returns:
        The experiment with parts of edges for mediators, and their estimates.

    Raises:
        ConfigError: no spans for prompts of different lengths, or too many parts.
        ModelError: the parts do not add up to the gradient of the whole.
    """
    spans = Spans.of(experiment, asked)
    parts = _parts(experiment, spans)
    scores = Scores(experiment, "point", 1, "")
    values = {way: _direction(experiment, scores, spans, parts, way) for way in experiment.directions}
    found = Estimates(values, experiment.clean, experiment.corrupt, scores.bill)
    return replace(experiment, mediators=parts), found


def attention_again(experiment: EdgeExperiment, length: float | int) -> float:
    """What running attention once per query, with its gradient, costs: passes of a prompt, in one direction.

    Args:
        experiment: on edges; blocks with an edge into keys or values count, whole though only attention runs.
        length: of the prompt.
    """
    blocks = {edge.reader.layer for edge in experiment.mediators if edge.reader.kind in FORWARD}
    return 2 * length * len(blocks) / experiment.model.n_layers


def _parts(experiment: EdgeExperiment, spans: Spans) -> tuple[Edge, ...]:
    """Every part that some pair can have, edge by edge."""
    count = len(spans.names)
    single, double, last = set[int](), set[tuple[int, int]](), set[int]()
    for row in spans.place:
        single.update(row)
        last.add(row[-1])
        double.update((row[key], row[query]) for query in range(len(row)) for key in range(query + 1))
    pairs = [(a, b) for a in range(count) for b in range(count) if (a, b) in double]
    where = {
        "one": [spans.names[at] for at in range(count) if at in single],
        "two": [f"{spans.names[a]}>{spans.names[b]}" for a, b in pairs],
        "last": [spans.names[at] for at in range(count) if at in last],
    }
    total = sum(len(where[_arity(edge)]) for edge in experiment.mediators)
    if total > MOST_PARTS:
        raise ConfigError(
            f"{counted(len(experiment.mediators), 'edge')} have {total:,} parts by position; at most "
            f"{MOST_PARTS:,} are scored. Ask for fewer edges, or name spans."
        )
    return tuple(replace(edge, at=at) for edge in experiment.mediators for at in where[_arity(edge)])


def _arity(edge: Edge) -> str:
    if edge.reader.kind in FORWARD:
        return "two"
    return "last" if edge.reader.kind == "logits" else "one"


@torch.no_grad()
def _direction(
    experiment: EdgeExperiment, scores: Scores, spans: Spans, parts: Sequence[Edge], direction: str
) -> np.ndarray:
    """``[part pair]`` estimates in one direction."""
    own, other = scores.sides(direction)
    found = np.zeros((len(parts), len(experiment.pairs)))
    wanted: dict[tuple[str, int | None], list[int]] = {}
    for at, part in enumerate(parts):
        wanted.setdefault((part.reader.kind, part.reader.layer), []).append(at)
    number = {name: at for at, name in enumerate(spans.names)}
    z = sorted({Site("z", layer) for kind, layer in wanted if kind in FORWARD and layer is not None})
    for [pair] in scores.chunks(1):
        width = experiment.pairs.lengths[pair]
        here, there = ({s: one[[pair], :width] for s, one in side.items()} for side in (own, other))
        run = scores.run(direction, [pair], [], z)
        label = torch.nn.functional.one_hot(torch.tensor(spans.place[pair]), len(number)).double()
        changes: dict[Site, Tensor] = {}
        for numbers, slope in _slopes(experiment, run, wanted):
            for at in numbers:
                part = parts[at]
                if part.writer not in changes:
                    changes[part.writer] = contribution(experiment.model, part.writer, there, here)[
                        0
                    ].double()
            _fill(found[:, pair], parts, numbers, slope, changes, label, number)
        scores.off = max(scores.off, run.off)
    return SIGNS[direction] * found


Slopes = Mapping[object, Tensor]


def _slopes(
    experiment: EdgeExperiment, run: ReaderSlopes, wanted: Mapping[tuple[str, int | None], list[int]]
) -> list[tuple[list[int], Slopes]]:
    """Parts of one kind of reader in one block, with each reader's slope ``[pos d_model]``.

    Of keys and values: ``[query pos d_model]``.
    """
    graph, found = experiment.graph, []
    first = min((layer for _, layer in wanted if layer is not None), default=experiment.model.n_layers)
    for numbers, slope in run.each(first):
        layer = graph.readers[numbers[0]].layer
        whole = {graph.readers[at]: slope[0, place].double() for place, at in enumerate(numbers)}
        kinds = {graph.readers[at].kind for at in numbers}
        asked = any((kind, layer) in wanted for kind in FORWARD if kind in kinds)
        split = _by_query(run, layer) if asked else {}
        for kind in kinds:
            if (kind, layer) in wanted:
                found.append((wanted[kind, layer], split if kind in FORWARD else whole))
    return found


def _by_query(run: ReaderSlopes, layer: int | None) -> Slopes:
    """Split the slope of every key and value of a block by the query that attends to it."""
    assert layer is not None
    blocks, z = run.blocks, Site("z", layer)
    stream, slope = run.nodes[Site("resid_pre", layer)], run.gradients[z]
    width = stream.shape[1]
    sites = [Site(kind, layer) for kind in FORWARD]
    leaves = {site: run.nodes[site].repeat_interleave(width, dim=0).requires_grad_() for site in sites}
    locate = blocks.model.architecture.locate
    writers = [Writer(s, locate(s, write=True), lambda _, s=s: leaves[s].clone()) for s in sites]
    copies = stream.repeat_interleave(width, dim=0)
    seed = torch.eye(width, dtype=slope.dtype, device=slope.device)[:, :, None, None] * slope
    with torch.enable_grad():
        mixed = blocks.read(layer, copies, ["z"], writers=writers)[z]
        parts = torch.autograd.grad(mixed, list(leaves.values()), seed)
    for site, part in zip(sites, parts, strict=True):
        _check(run, site, part)
    inner = blocks.normed(layer, copies).detach()
    pulled = torch.cat(
        [blocks.pulled(site, inner, part) for site, part in zip(sites, parts, strict=True)], dim=1
    )
    found = run.before_norm(layer, copies, pulled).double()
    readers = [run.graph.readers[at] for at in run.graph.at(layer, *FORWARD)]
    return {reader: found[:, at] for at, reader in enumerate(readers)}


def _check(run: ReaderSlopes, site: Site, parts: Tensor) -> None:
    whole = run.gradients[site]
    off = float((parts.sum(dim=0, keepdim=True) - whole).abs().max()) / max(float(whole.abs().max()), 1e-30)
    model = run.blocks.model
    if not off <= (ALLOWED if model.dtype == torch.float32 else 0.1):
        raise ModelError(
            f"the slopes of '{site}' of {model.name!r}, query by query, do not add up to the whole: they "
            f"differ by {off:.1e} of it. Use the search 'attribution' over whole edges."
        )


def _fill(
    column: np.ndarray,
    parts: Sequence[Edge],
    numbers: Sequence[int],
    slopes: Slopes,
    changes: Mapping[Site, Tensor],
    label: Tensor,
    number: Mapping[str, int],
) -> None:
    """Write the scores of some parts in one pair, each edge's parts at once."""
    sums: dict[tuple[Site, object], Tensor] = {}
    for at in numbers:
        part = parts[at]
        key = (part.writer, part.reader)
        if key not in sums:
            product = (slopes[part.reader].cpu() * changes[part.writer].cpu()).sum(dim=-1)
            sums[key] = product @ label if product.ndim == 1 else label.T @ product @ label
        begin, arrow, query = part.at.partition(">")
        index = (number[query], number[begin]) if arrow else (number[begin],)
        column[at] = float(sums[key][index])
