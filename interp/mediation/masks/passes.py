"""Masked passes with the graph kept: every mediator is a mix of its own value and of what replaces it.

A gate of 1 keeps what the clean prompt has and a gate of 0 takes what the other one has, whichever of the two
is run: by noising the clean prompt is run and a gate of 1 leaves it alone, by denoising the corrupt prompt is
run and a gate of 1 puts the clean value in. Gates of 1 (of 0, by denoising) give the intact run bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.edges.blocks import Blocks, contribution
from interp.mediation.edges.experiment import EdgeExperiment
from interp.mediation.edges.run import carriers_of
from interp.mediation.experiment import Experiment, by_site
from interp.mediation.patches import within
from interp.mediation.site_experiment import SiteExperiment
from interp.mediation.subspaces import Subspace
from interp.models.hooks import Writer, evaluating
from interp.models.interventions import Intervention
from interp.models.readout import Readout
from interp.sites import Site

__all__ = ["EdgePass", "MaskedPass", "SitePass", "masked_pass"]


@dataclass(eq=False)
class MaskedPass(ABC):
    """Run copies of prompts of one length with gates.

    Attributes:
        experiment: whose mediators have gates.
        direction: whose prompts are run.
        noisy: whether noise of each site's own mean and spread is put in, and a gate of 1 always means the
            run's own value.
        rows: copies run so far; one of edges counts double where attention and MLP are run apart.
    """

    experiment: Any
    direction: str
    noisy: bool = False
    rows: int = 0

    @property
    def inverted(self) -> bool:
        """Whether a gate of 1 puts a value in, rather than leaving the run's own."""
        return self.direction == "denoising" and not self.noisy

    @abstractmethod
    def logits(
        self, rows: Sequence[int], gates: Float[Tensor, "row mediator"], generator: torch.Generator
    ) -> Float[Tensor, "row vocab"]:
        """The fp32 logits after the last token, with the graph back to the gates.

        Args:
            rows: pairs of one length, repeats allowed.
            gates: of each copy.
            generator: of the noise.
        """


def masked_pass(experiment: Experiment, direction: str, *, noisy: bool = False) -> MaskedPass:
    """The pass that fits an experiment's mediators."""
    made: Any = EdgePass if isinstance(experiment, EdgeExperiment) else SitePass
    return made(experiment, direction, noisy)


@dataclass(frozen=True, eq=False)
class _Owners:
    """Whose gate each part of a carrier has: ``[pos or 1, index or 1]``, the number of gates for nobody's."""

    table: Tensor
    subspace: Subspace | None


@dataclass(eq=False)
class SitePass(MaskedPass):
    """Masked passes of an experiment on sites."""

    experiment: SiteExperiment

    def __post_init__(self) -> None:
        """Read, before any masked pass, what is put in."""
        self._sources = {} if self.noisy else self.experiment.sources(self.direction)
        self._spread = self._spreads() if self.noisy else {}

    def _spreads(self) -> dict[Site, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of every feature over the prompts and their positions."""
        asked = self.experiment
        base = asked.base(self.direction)[0]
        read = by_site(
            asked.model.capture(base, [str(site) for site in asked.carriers], "all"), asked.carriers
        )
        found: dict[Site, tuple[Tensor, Tensor]] = {}
        for site, values in read.items():
            inside = torch.cat(
                [row[:length] for row, length in zip(values, base.lengths, strict=True)]
            ).float()
            found[site] = (inside.mean(dim=0), inside.std(dim=0, correction=0))
        return found

    def logits(
        self, rows: Sequence[int], gates: Float[Tensor, "row mediator"], generator: torch.Generator
    ) -> Float[Tensor, "row vocab"]:
        """Run whole passes in which every carrier is mixed.

        Raises:
            ConfigError: two mediators share a part of a site.
        """
        self.rows += len(rows)
        base = self.experiment.base(self.direction)[0]
        length = base.lengths[rows[0]]
        own = 1 - gates if self.inverted else gates
        padded = torch.cat([own, own.new_ones(len(rows), 1)], dim=1)
        edits = [
            Intervention(site, partial(self._mixed, site, owners, rows, length, padded, generator))
            for (site, _), owners in self._owners(length).items()
        ]
        prompts = [list(base.token_ids[row]) for row in rows]
        found = self.experiment.model.run(prompts, interventions=edits, grad=True).logits
        assert found is not None
        return found.float()

    def _mixed(
        self,
        site: Site,
        owners: _Owners,
        rows: Sequence[int],
        length: int,
        padded: Tensor,
        generator: torch.Generator,
        current: Tensor,
    ) -> Tensor:
        """Mix the values ``[row*pos ...]`` of a carrier with what is put in."""
        value = current.unflatten(0, (len(rows), length))
        if self.noisy:
            mean, spread = (one.to(value) for one in self._spread[site])
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float32)
            source = mean + spread * drawn.to(value)
        else:
            source = self._sources[site][list(rows), :length].to(value)
        put = within(owners.subspace, value, source, self.experiment.replacement.rule)
        share = padded[:, owners.table].to(value)
        share = share.view(*share.shape, *[1] * (value.ndim - 3)) if value.ndim > 2 else share[..., 0]
        return (share * value + (1 - share) * put).flatten(0, 1)

    def _owners(self, length: int) -> dict[tuple[Site, Subspace | None], _Owners]:
        """Which gate every part of every carrier has."""
        mediators = self.experiment.mediators
        parts: dict[tuple[Site, Subspace | None], list[tuple[int, int | None, Any]]] = {}
        for at, mediator in enumerate(mediators):
            position = None if mediator.position is None else mediator.position % length
            for place in mediator.places:
                parts.setdefault((place.carrier, place.subspace), []).append((at, position, place.index))
        found: dict[tuple[Site, Subspace | None], _Owners] = {}
        for key, entries in parts.items():
            everywhere = all(position is None for _, position, _ in entries)
            tops = [max(i) if isinstance(i, tuple) else i or 0 for _, _, i in entries]
            whole = all(index is None for *_, index in entries)
            width = 1 if whole else self._width(key[0], max(tops))
            table = torch.full((1 if everywhere else length, width), len(mediators))
            for at, position, index in entries:
                here: Any = slice(None) if position is None else position
                there: Any = (
                    slice(None) if index is None else list(index) if isinstance(index, tuple) else index
                )
                if bool((table[here, there] != len(mediators)).any()):
                    raise ConfigError(
                        f"'{mediators[at]}' shares a part of '{key[0]}' with another mediator, and a mask "
                        "has one gate per part. Ask for mediators that do not overlap."
                    )
                table[here, there] = at
            found[key] = _Owners(table, key[1])
        return found

    def _width(self, site: Site, top: int) -> int:
        """The size of the axis that heads or units are counted along."""
        model = self.experiment.model
        layer = site.layer or 0
        if site.kind == "mlp_act":
            return model.anatomy.neurons[layer]
        if site.kind in ("z", "q"):
            return model.anatomy.heads[layer]
        if site.kind in ("k", "v"):
            return model.anatomy.kv_heads[layer]
        return top + 1


@dataclass(eq=False)
class EdgePass(MaskedPass):
    """Masked passes of an experiment on edges: each reader gets a stream of its own, mixed by its gates."""

    experiment: EdgeExperiment

    def __post_init__(self) -> None:
        """Read what edges carry."""
        asked = self.experiment
        base = asked.base(self.direction)[0]
        names = [str(site) for site in (Site("resid_pre", 0), Site("embed"))]
        self._first = by_site(asked.model.capture(base, names, "all"), [Site("resid_pre", 0), Site("embed")])
        self._other = asked.sources(self.direction)
        self._blocks: dict[int, Blocks] = {}
        self._places = asked.graph.indices(asked.mediators)

    def logits(
        self, rows: Sequence[int], gates: Float[Tensor, "row mediator"], generator: torch.Generator
    ) -> Float[Tensor, "row vocab"]:
        """Run block by block, every reader on its own mix."""
        model, graph = self.experiment.model, self.experiment.graph
        self.rows += len(rows) * (1 + model.architecture.parallel)
        base = self.experiment.base(self.direction)[0]
        length = base.lengths[rows[0]]
        if length not in self._blocks:
            self._blocks[length] = Blocks.of(model, base.token_ids[rows[0]])
        shut = gates if self.inverted else 1 - gates
        table = shut.new_zeros(len(rows), len(graph.readers) * len(graph.writers))
        table = table.index_add(1, self._places.to(shut.device), shut)
        run = _EdgeRun(
            self._blocks[length],
            self.experiment,
            table.view(len(rows), len(graph.readers), len(graph.writers)),
            {site: value[list(rows), :length] for site, value in self._other.items()},
        )
        with evaluating(model.architecture.modules):
            first = {site: value[list(rows), :length] for site, value in self._first.items()}
            return run.logits(first)


@dataclass(eq=False)
class _EdgeRun:
    """One pass: ``shut`` is ``[row reader writer]``, the share of each edge that comes from ``other``."""

    blocks: Blocks
    experiment: EdgeExperiment
    shut: Tensor
    other: Mapping[Site, Tensor]

    def __post_init__(self) -> None:
        self.change: list[Tensor] = []

    def logits(self, first: Mapping[Site, Tensor]) -> Tensor:
        """Run all blocks from what enters the first."""
        model, graph = self.experiment.model, self.experiment.graph
        hidden = first[Site("resid_pre", 0)].to(self.shut.device)
        self._note(Site("embed"), first)
        for layer in range(model.n_layers):
            number, mine = graph.at(layer, "mlp")[0], [w for w in graph.writers if w.layer == layer]
            heads = [w for w in mine if w.kind != "mlp_out"]

            def middle(found: Mapping[Site, Tensor], number: int = number, heads: list[Site] = heads) -> Any:
                """Note what attention wrote; give what the MLP's edges add to its input."""
                early = list(self.change)
                for writer in heads:
                    self._note(writer, found)
                seen = early if graph.reach[number] <= len(early) else self.change
                return self._shift([number], seen)[:, 0] if self._active([number]) else None

            kinds = [site.kind for site in carriers_of(heads)]
            asked = list(dict.fromkeys(["attn_out", *kinds]))
            found = self.blocks.parts(layer, hidden, asked, self._writers(layer, hidden), middle)
            self._note(Site("mlp_out", layer), found)
            hidden = hidden + found[Site("attn_out", layer)] + found[Site("mlp_out", layer)]
        last = len(graph.readers) - 1
        final = hidden[:, -1]
        if self._active([last]):
            final = final + self._shift([last], [one[:, -1:] for one in self.change])[:, 0, 0]
        return Readout.of(model.architecture).logits(final).float()

    def _note(self, writer: Site, found: Mapping[Site, Tensor]) -> None:
        """Keep by how much the other prompt's writer differs from the one just run."""
        self.change.append(contribution(self.experiment.model, writer, self.other, found))

    def _active(self, numbers: Sequence[int]) -> bool:
        """Whether any edge of these readers may be shut; a reader of open edges keeps the model's own way."""
        return self.shut.requires_grad or bool(self.shut[:, list(numbers)].any())

    def _shift(self, numbers: Sequence[int], change: Sequence[Tensor]) -> Tensor:
        """What edges add to the stream of each reader, ``[row reader pos d_model]``."""
        table = torch.stack(list(change), dim=1)
        share = self.shut[:, list(numbers), : table.shape[1]].to(table)
        return torch.einsum("brw,bwtd->brtd", share, table)

    def _writers(self, layer: int, hidden: Tensor) -> list[Writer]:
        """Compute queries, keys and values from streams of their own."""
        numbers = self.experiment.graph.at(layer, "q", "k", "v")
        if not self._active(numbers):
            return []
        streams = hidden[:, None] + self._shift(numbers, self.change)
        inner = self.blocks.normed(layer, streams.flatten(0, 1)).unflatten(0, streams.shape[:2])
        values: dict[str, list[Tensor]] = {}
        for at, number in enumerate(numbers):
            reader = self.experiment.graph.readers[number]
            site = Site(reader.kind, layer, reader.index)
            values.setdefault(reader.kind, []).append(self.blocks.project(site, inner[:, at]))
        locate = self.experiment.model.architecture.locate
        return [
            Writer(
                Site(kind, layer), locate(Site(kind, layer), write=True), partial(_put, torch.stack(heads, 2))
            )
            for kind, heads in values.items()
        ]


def _put(new: Tensor, current: Tensor) -> Tensor:
    return new.to(current.dtype)
