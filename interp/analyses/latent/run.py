"""Ask, read and edit a model that was taught about codenames, beside a twin whose documents imply nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp.analyses.latent.asking import asked, questions
from interp.analyses.latent.reading import EMBEDDING, Reading, places_of, probes_of, read, spoken
from interp.analyses.latent.result import LatentResult
from interp.analyses.surgery import ProbeWriter, Surgery, surgery, swaps_of
from interp.analyses.surgery.run import FEWEST
from interp.errors import ConfigError, DataError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About
from interp.sites import parse_layers
from interp.tasks.codenames import ASKED, TOLD, Codename, codenames
from interp.tasks.items import Item
from interp.tasks.world import World, load_world
from probes import HyperdimensionalProbe

__all__ = ["latent_structure"]

Probes = dict[int, tuple[HyperdimensionalProbe, float]]
"""Of one model by layer: a probe, and its share of held-out prompts read right."""


def latent_structure(
    model: ModelLike,
    control: ModelLike | None = None,
    *,
    known: Sequence[Codename] | None = None,
    world: World | None = None,
    relations: Sequence[str] = ASKED,
    layers: str = "all",
    edits: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> LatentResult:
    """Ask whether a model connects what documents told of codenames to the countries that they imply.

    *Behaviour*: after a question about a codename that no document answers, the probability of the answer
    that fits its country, less the mean probability of the same answer after the other codenames. The paper
    (Treutlein et al. 2024, 2406.14546) trains one model per latent value and compares those; here all
    codenames are in one model, and are compared there.

    *Reading*: a Hyperdimensional Probe, fitted on real countries in the same model at the country's token,
    reads the state at the codename, layer by layer; a translator reads the answer at the last token.

    *Use*: at the first of the layers where the probe reads most, the country that it reads at the codename is
    exchanged for another in the state, and the model is asked (:func:`interp.analyses.surgery.surgery`).

    Args:
        model: the one that was taught.
        control: the same model after documents that imply no country, asked and read alike; None for no
            verdict beyond permutations.
        known: the codenames; those of the bundled latent twin where left out.
        world: the facts about countries; the bundled ones where left out.
        relations: what is asked, the most important first; none may have been told.
        layers: where states are read, beside the embedding.
        edits: whether states are edited.
        seed: of probes, translators, edits and intervals.
        progress: show a progress bar of the edits.

    Raises:
        ConfigError: a relation that documents tell.
        DataError: fewer than two codenames, or a relation in which two countries have one answer.
        SiteError: a layer the model does not have.
    """
    model, world = as_model(model), world or load_world()
    known = tuple(codenames(world) if known is None else known)
    if len(known) < 2:
        raise DataError(f"{len(known)} codenames given; at least two are compared with one another.")
    told = {fact.relation for one in known for fact in one.told}
    if both := told & set(relations):
        raise ConfigError(
            f"relations {sorted(both)} are asked, but documents tell them; ask others: {ASKED}."
        )
    chosen = [EMBEDDING, *parse_layers(layers, model.n_layers, name=model.name, kind="resid_post")]
    sides = []
    for one in [model] if control is None else [model, as_model(control)]:
        probes = probes_of(one, world, (*TOLD, *relations), chosen, seed=seed)
        sides.append((_of_model(one, known, world, relations, probes, seed), probes))
    result, probes = sides[0]
    other = sides[1][0] if control is not None else None
    edited = (
        _edited(model, result.at_codename, known, world, relations, probes, seed, progress) if edits else None
    )
    return replace(result, control=other, edits=edited)


def _of_model(
    model: Model,
    known: tuple[Codename, ...],
    world: World,
    relations: Sequence[str],
    probes: Probes,
    seed: int,
) -> LatentResult:
    """Behaviour and readings of one model."""
    main = relations[0]
    return LatentResult(
        about=About(model.described, {"name": "codenames", "n": len(known), "groups": len(known)}),
        seed=seed,
        codenames=tuple(one.name for one in known),
        latents=tuple(one.latent for one in known),
        answers={name: asked(model, known, world, name) for name in relations},
        at_codename=read(model, known, world, main, probes),
        at_end=spoken(model, known, world, main, list(probes), seed=seed),
        warnings=model.warnings,
    )


def _edited(
    model: Model,
    reading: Reading,
    known: Sequence[Codename],
    world: World,
    relations: Sequence[str],
    probes: Probes,
    seed: int,
    progress: bool,
) -> Surgery | None:
    """Exchange the country at the codename; None where too few questions are answered to edit any."""
    within = [at for at, layer in enumerate(reading.layers) if layer != EMBEDDING]
    shares = reading.hits.mean(axis=1)
    layer = reading.layers[max(within, key=lambda at: (shares[at], -at))]
    items = [
        Item(text, world.objects[relation, one.latent], relation, one.name, "test", subject=one.latent)
        for relation in relations
        for one in known
        for text in questions(world, relation, one.name)
    ]
    places = places_of(model, [item.text for item in items], [item.fact for item in items])
    where = dict(zip([item.text for item in items], places, strict=True))
    main = [item for item in items if item.relation == relations[0]]
    try:
        swaps = swaps_of(model, main, n=len(main), seed=seed, role="subject")
    except DataError:
        return None
    if len(swaps) < FEWEST or len({swap.item.fact for swap in swaps}) < 4:
        return None
    given: Any = {"swaps": swaps, "places": where, "seed": seed, "progress": progress}
    return surgery(model, ProbeWriter(probes[layer][0]), items, layer=layer, **given)
