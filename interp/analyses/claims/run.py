"""Claims about the algebra on one model: the table of claims, and the function that measures them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache

from tqdm.auto import tqdm

from interp.analyses.claims.abstention import abstention
from interp.analyses.claims.alphabet import alphabet
from interp.analyses.claims.bindings import bindings
from interp.analyses.claims.entities import entities
from interp.analyses.claims.evidence import Claim, Evidence, Setting, judged
from interp.analyses.claims.failures import failures
from interp.analyses.claims.parts import parts
from interp.analyses.claims.result import CapacityPoint, ClaimsResult
from interp.errors import ConfigError, DataError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About
from interp.sites import parse_layers
from probes.statistics import Estimate, bootstrap
from probes.vsa import MAP, measured_accuracy
from probes.vsa.capacity import Capacity

__all__ = ["CLAIMS", "ClaimRow", "claims", "over_bundles"]

LAYER = "85%"
ANSWER = 2.0
"""Passes of a prompt that answering it takes: it is read, its new tokens are drawn, and the whole is read."""
SIZES = (2000, 400, 600)
DIMENSIONS, ITEMS, CONCEPTS = (256, 1024, 4096), (5, 10, 20, 50, 100, 200), 500
BUNDLES = 20
"""Of each point of capacity: readings of one bundle share its noise, so that intervals are over bundles."""


@dataclass(frozen=True)
class ClaimRow:
    """What the algebra is said to do.

    Attributes:
        description: one line.
        measure: gives what was read, prompt by prompt.
        passes: forward passes of a prompt for each one of training, validation and test: of the model, and of
            its untrained twin.
        translators: how many are fitted first where none is kept: of the model, and of its untrained twin.
    """

    description: str
    measure: Callable[[Setting], Evidence]
    passes: tuple[float, float, float] = (2.0, 2.0, 2.0)
    translators: int = 0


CLAIMS: dict[str, ClaimRow] = {
    "parts": ClaimRow("subject, relation and answer out of one state, by unbinding their roles", parts),
    "bindings": ClaimRow("bindings of one prompt, asked by any key when read, with one probe", bindings),
    "entities": ClaimRow(
        "what belongs to the entity asked about, of several in one context", entities, (2.0, 2.0, 3.0)
    ),
    "alphabet": ClaimRow(
        "thousands of concepts that no label covered, through the translator", alphabet, (0.0, 2.0, 2.0), 2
    ),
    "abstention": ClaimRow("silence where nothing is known, at a risk that holds on new prompts", abstention),
    "failures": ClaimRow(
        "wrong answers before they are given, and what such prompts hold",
        failures,
        (2.0, 2.0, 2.0 + ANSWER),
        1,
    ),
}


def claims(
    model: ModelLike,
    which: Collection[str] | None = None,
    *,
    layer: int | str = LAYER,
    sizes: tuple[int, int, int] = SIZES,
    dimension: int = 4096,
    seed: int = 0,
    random_model: Model | None = None,
    progress: bool = False,
) -> ClaimsResult:
    """Measure what a vector symbolic algebra adds, each claim beside its controls and a plain reader.

    Args:
        model: what is read.
        which: keys of ``CLAIMS``; all where left out.
        layer: whose ``resid_post``, at the last token, in the grammar of layers.
        sizes: prompts for training, validation and test of each claim, at most.
        dimension: of the hypervectors.
        seed: of every draw and interval.
        random_model: the same architecture with random weights; made where left out.
        progress: show progress bars.

    Raises:
        ConfigError: an unknown claim, or several layers.
        SiteError: no such layer.
        DataError: no claim could be measured, for example by too few wrong answers, or since the tokenizer
            does not know a concept. Where others could, this is a warning.
    """
    model = as_model(model)
    names = tuple(CLAIMS) if which is None else tuple(which)
    for name in names:
        if name not in CLAIMS:
            raise ConfigError(f"claim {name!r} asked; there are: {', '.join(CLAIMS)}.")
    layers = parse_layers(layer, model.n_layers, name=model.name, kind="resid_post")
    if len(layers) != 1:
        raise ConfigError(f"layer {layer!r} names {len(layers)} layers; claims are read at one.")
    setting = Setting(model, layers[0], sizes, dimension, seed, random_model)
    found, left = _measured(names, setting, progress)
    notes = {arm.estimate.note for one in found for arm in (*one.controls, *one.alternatives)}
    return ClaimsResult(
        about=About(model.described, {"name": "claims", "sizes": list(sizes)}),
        seed=seed,
        warnings=(*left, *sorted(filter(None, notes | {one.found.note for one in found}))),
        layer=layers[0],
        claims=found,
        capacity=tuple(_point(dimension, items, seed) for dimension in DIMENSIONS for items in ITEMS),
        concepts=CONCEPTS,
    )


def _measured(names: Sequence[str], setting: Setting, progress: bool) -> tuple[tuple[Claim, ...], list[str]]:
    """The claims that could be measured, and why others could not."""
    found: list[Claim] = []
    left: list[str] = []
    for name in tqdm(names, desc="claims", disable=not progress):
        try:
            found.append(judged(name, CLAIMS[name].measure(setting), setting.seed))
        except DataError as error:
            if len(names) == 1:
                raise
            left.append(f"{name} could not be measured: {error}")
    if not found:
        raise DataError(" ".join(left))
    return tuple(found), left


@cache
def _point(dimension: int, items: int, seed: int) -> CapacityPoint:
    found = measured_accuracy(MAP(dimension), items, CONCEPTS, asked=BUNDLES * items, seed=seed)
    return CapacityPoint(dimension, items, found.accuracy, over_bundles(found).interval, found.expected)


def over_bundles(found: Capacity) -> Estimate:
    """The share read right, with an interval over bundles."""
    read = [int(at < right) for right in found.right for at in range(found.items)]
    groups = [bundle for bundle in range(len(found.right)) for _ in range(found.items)]
    return bootstrap(read, groups=groups, support="share")
