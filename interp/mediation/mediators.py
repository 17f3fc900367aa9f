"""Mediators: a site, a part of it, a position. ``head.*`` at all positions, ``resid_post.*`` at each.

A mediator is carried by a site that can be written as a whole: a head by ``z.l`` (so that post-norms and
grouped keys need no special case), a neuron by ``mlp_act.l``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.errors import ConfigError, SiteError
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["MEDIATORS", "Mediator", "MediatorType", "mediators_of"]


@dataclass(frozen=True, order=True)
class Mediator:
    """Name what is replaced.

    Attributes:
        site: of the whole, the head or the neuron.
        position: index of the token, None for all tokens.
    """

    site: Site
    position: int | None = None

    @property
    def carrier(self) -> Site:
        """Give the site that is written."""
        if self.site.kind in ("head", "z"):
            return Site("z", self.site.layer)
        if self.site.kind == "neuron":
            return Site("mlp_act", self.site.layer)
        if self.site.index is not None:
            return Site(self.site.kind, self.site.layer)
        return self.site

    @property
    def part(self) -> int | None:
        """Give the index of the head or neuron within the carrier, None for the whole."""
        return self.site.index

    def __str__(self) -> str:
        """Write ``head.5.3`` or ``resid_post.5@7``."""
        return str(self.site) if self.position is None else f"{self.site}@{self.position}"


@dataclass(frozen=True)
class MediatorType:
    """Describe a kind of mediator (Mueller et al. 2024, arXiv 2408.01416, sections 3 and 4).

    Attributes:
        kind: of site.
        grammar: an example of what users type.
        what: what it is.
        use: when to use it, and what it cannot show.
    """

    kind: str
    grammar: str
    what: str
    use: str


_ROWS = (
    MediatorType(
        "resid_post",
        "resid_post.*",
        "the residual stream after a block, one cell per layer and position",
        "first localisation: where and when does it arrive? It does not say which part did it",
    ),
    MediatorType("resid_pre", "resid_pre.*", "the residual stream before a block", "as resid_post"),
    MediatorType("resid_mid", "resid_mid.*", "the stream between attention and MLP", "as resid_post"),
    MediatorType("attn_out", "attn_out.*", "what attention adds", "is it moved here, or computed (mlp_out)?"),
    MediatorType("mlp_out", "mlp_out.*", "what the MLP adds", "is it computed here, or moved (attn_out)?"),
    MediatorType(
        "head",
        "head.*",
        "one attention head's output",
        "routing, circuits; heads are polysemantic, and others may take over when one is replaced",
    ),
    MediatorType("q", "q.*", "one head's queries", "what a head looks for"),
    MediatorType("k", "k.*", "the keys of a key-value group", "what makes a token found"),
    MediatorType("v", "v.*", "the values of a key-value group", "what is passed on once a token is found"),
    MediatorType(
        "neuron",
        "neuron.20.*",
        "one unit of an MLP",
        "the finest native unit, for sparse effects; many, redundant, rarely one concept",
    ),
)

MEDIATORS: dict[str, MediatorType] = {row.kind: row for row in _ROWS}
GRID = ("resid_pre", "resid_mid", "resid_post", "embed")


def mediators_of(
    model: Model,
    pairs: PairSet,
    mediators: str | Site | Mediator | Sequence[str | Site | Mediator],
    *,
    positions: str | int = "auto",
) -> tuple[Mediator, ...]:
    """Expand names and globs into mediators, in the order of execution.

    Args:
        model: which sites there are.
        pairs: how long the prompts are.
        mediators: names such as ``head.*``, sites, or mediators.
        positions: ``"all"`` replaces all tokens at once, ``"each"`` one after the other, an index one of them
            (negative from the end), ``"auto"`` each for the residual stream and all for the rest.

    Raises:
        SiteError: nothing matches, the model does not offer it, or it cannot be written.
        ConfigError: pairs of several lengths with ``"each"``.
    """
    given = [mediators] if isinstance(mediators, str | Site | Mediator) else list(mediators)
    found: list[Mediator] = [item for item in given if isinstance(item, Mediator)]
    sites = [item for item in given if not isinstance(item, Mediator)]
    for site in model.expand(sites) if sites else ():
        if site.kind in ("pattern", "logits", "final_norm"):
            raise SiteError(f"'{site}' is no mediator; the types are: {', '.join(MEDIATORS)}.")
        found += [Mediator(site, at) for at in _positions(site, pairs, positions)]
    for mediator in found:
        _check(model, mediator)
    return tuple(
        sorted(dict.fromkeys(found), key=lambda m: (m.site, -1 if m.position is None else m.position))
    )


def _positions(site: Site, pairs: PairSet, positions: str | int) -> list[int | None]:
    shortest, longest = min(pairs.lengths), max(pairs.lengths)
    if isinstance(positions, int):
        if not -shortest <= positions < shortest:
            raise ConfigError(f"position {positions} asked, but the shortest prompt has {shortest} tokens.")
        return [positions]
    if positions not in ("auto", "all", "each"):
        raise ConfigError(f"positions {positions!r} asked; use 'auto', 'all', 'each' or an index.")
    if positions == "all" or (positions == "auto" and site.kind not in GRID):
        return [None]
    if shortest != longest:
        if positions == "auto":
            return [None]
        raise ConfigError(
            f"the prompts have {shortest} to {longest} tokens, so that token 3 is not the same in each; give "
            "pairs of one template, or positions=-1 for the last token."
        )
    return list(range(longest))


def _check(model: Model, mediator: Mediator) -> None:
    site = mediator.site
    if site.layer is not None and not 0 <= site.layer < model.n_layers:
        raise SiteError(f"layer {site.layer} asked, but {model.name!r} has layers 0..{model.n_layers - 1}.")
    model.anatomy.check([site.kind, mediator.carrier.kind])
