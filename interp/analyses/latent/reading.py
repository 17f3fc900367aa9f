"""Reading the country behind a codename: in the state at the codename, and in what is said at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.latent.asking import permutations, questions
from interp.analyses.surgery.writers import TranslatorWriter
from interp.lenses.translator import TranslatorLens
from interp.models.model import Model
from interp.tasks.codenames import Codename
from interp.tasks.world import World
from probes import HyperdimensionalProbe
from probes.statistics import permutation_p
from probes.vsa import MAP, Codebook

__all__ = ["EMBEDDING", "Reading", "places_of", "probes_of", "read", "spoken"]

DIMENSION = 2048
EMBEDDING = -1
"""Stands for the embedding among layers."""


@dataclass(frozen=True, eq=False)
class Reading:
    """Which name is read for each codename, layer by layer.

    Attributes:
        layers: where; -1 is the embedding.
        right: the name that each codename should have.
        names: per layer the name read for each codename, from its mean score over prompts.
        known: per layer the share of real names read right, in prompts that the reader was not fitted on.
    """

    layers: tuple[int, ...]
    right: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    known: tuple[float, ...]

    @property
    def hits(self) -> Float[np.ndarray, "layer codename"]:
        """1 where the right name is read."""
        return np.array([[float(a == b) for a, b in zip(row, self.right, strict=True)] for row in self.names])

    @property
    def best(self) -> int:
        """The first of the layers at which most codenames are read right."""
        return self.layers[int(self.hits.mean(axis=1).argmax())]

    @property
    def chance(self) -> Float[np.ndarray, " layer"]:
        """The share that is right on average where names are assigned to codenames at random."""
        return np.array([np.mean([[a == b for b in self.right] for a in row]) for row in self.names])

    @property
    def p(self) -> float:
        """Of the best layer, with as many looks: by permuting which name belongs to which codename."""
        right, names = np.array(self.right), np.array(self.names)
        null = (names == right[permutations(len(right))][:, None]).mean(axis=2).max(axis=1)
        return permutation_p(float(self.hits.mean(axis=1).max()), null)


def places_of(model: Model, texts: Sequence[str], names: Sequence[str]) -> list[int]:
    """The last token of a name in each text, counted from 0.

    The text up to the end of the name is tokenized by itself, which is right wherever a name ends a word.
    """
    starts = [text[: text.index(name) + len(name)] for text, name in zip(texts, names, strict=True)]
    return [length - 1 for length in model.tokenize(starts).lengths]


def sites_of(layers: Sequence[int]) -> list[str]:
    """The stream after each block; its start for the embedding."""
    return ["embed" if layer == EMBEDDING else f"resid_post.{layer}" for layer in layers]


def _states(
    model: Model, world: World, relations: Sequence[str], names: Sequence[str], layers: Sequence[int]
) -> tuple[dict[int, Float[torch.Tensor, "example d_model"]], list[str], list[bool]]:
    """At each name in every template: states by layer, the names, and whether the template is the last."""
    rows = [
        (text, name, at == len(world.relations[relation].templates) - 1)
        for relation in relations
        for name in names
        for at, text in enumerate(questions(world, relation, name))
    ]
    texts, owners, last = (list(column) for column in zip(*rows, strict=True))
    sites = sites_of(layers)
    found = model.capture(texts, sites, places_of(model, texts, owners), device="cpu", dtype=torch.float32)
    return {layer: found[site] for layer, site in zip(layers, sites, strict=True)}, owners, last


def probes_of(
    model: Model, world: World, relations: Sequence[str], layers: Sequence[int], *, seed: int = 0
) -> dict[int, tuple[HyperdimensionalProbe, float]]:
    """Fit a Hyperdimensional Probe of real subjects per layer, at the subject's last token.

    Every relation's last template is held out: on it the penalty is chosen and the accuracy measured.

    Args:
        model: what is read.
        world: the facts; their subjects are the concepts.
        relations: whose templates are read.
        layers: where; ``EMBEDDING`` for the embedding.
        seed: of the codebook and the fits.

    Returns:
        Layer -> the probe, and its share of held-out prompts read right.
    """
    subjects = sorted({fact.subject for fact in world.facts[relations[0]]})
    states, owners, last = _states(model, world, relations, subjects, layers)
    held = torch.tensor(last)
    book = Codebook.random(MAP(DIMENSION), subjects, seed=seed)
    taught = [name for name, late in zip(owners, last, strict=True) if not late]
    later = [name for name, late in zip(owners, last, strict=True) if late]
    found = {}
    for layer in layers:
        X = states[layer]
        probe = HyperdimensionalProbe(book, encoder="ridge", seed=seed)
        probe = probe.fit(X[~held], taught, validation=(X[held], later))
        found[layer] = (probe, probe.score(X[held], later))
    return found


def read(
    model: Model,
    known: Sequence[Codename],
    world: World,
    relation: str,
    probes: dict[int, tuple[HyperdimensionalProbe, float]],
) -> Reading:
    """Read the state at each codename, in the questions of a relation that no document states.

    Args:
        model: what is read.
        known: the codenames.
        world: the facts.
        relation: which questions.
        probes: of :func:`probes_of`.
    """
    layers = tuple(probes)
    states, _, _ = _states(model, world, [relation], [one.name for one in known], layers)
    names = []
    for layer, (probe, _) in probes.items():
        scores = torch.as_tensor(probe.decision_function(states[layer]))
        best = scores.unflatten(0, (len(known), -1)).mean(dim=1).argmax(dim=1)
        names.append(tuple(probe.codebook_.names[at] for at in best.tolist()))
    return Reading(
        layers, tuple(one.latent for one in known), tuple(names), tuple(share for _, share in probes.values())
    )


def spoken(
    model: Model,
    known: Sequence[Codename],
    world: World,
    relation: str,
    layers: Sequence[int],
    *,
    seed: int = 0,
) -> Reading:
    """Read the answer at the last token of each question, by a translator, among all answers of the relation.

    Args:
        model: what is read.
        known: the codenames.
        world: the facts.
        relation: what is asked.
        layers: where; not the embedding, and not the last block, after which nothing is left to translate.
        seed: of the text that translators are fitted on.
    """
    layers = [layer for layer in layers if EMBEDDING < layer < model.n_layers - 1]
    lens = TranslatorLens.of(model, layers, seed=seed)
    answers = sorted({fact.object for fact in world.facts[relation]})
    subjects = [fact.subject for fact in world.facts[relation]]
    asked = [*(one.name for one in known), *subjects]
    texts = [text for name in asked for text in questions(world, relation, name)]
    sites = sites_of(layers)
    states = model.capture(texts, sites, "last", device="cpu", dtype=torch.float32)
    names, shares = [], []
    for layer, site in zip(layers, sites, strict=True):
        writer = TranslatorWriter.of(model, layer, answers, lens=lens)
        scores = writer.scores(states[site].double()).unflatten(0, (len(asked), -1)).mean(dim=1)
        found = [writer.names[at] for at in scores.argmax(dim=1).tolist()]
        names.append(tuple(found[: len(known)]))
        real = zip(found[len(known) :], subjects, strict=True)
        shares.append(float(np.mean([said == world.objects[relation, subject] for said, subject in real])))
    right = tuple(world.objects[relation, one.latent] for one in known)
    return Reading(tuple(layers), right, tuple(names), tuple(shares))
