"""Interpretability of a representation: the accuracy kept when only its strongest concepts are kept."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import special

from interp.analyses.layer_profiles import Layers, depths
from interp.analyses.prompts import answer_ids
from interp.analyses.provenance import about, check_same_tokens, earlier
from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model, untrained_model
from interp.models.model import Model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Table
from interp.tasks import Labelled, labelled, load_world
from probes import HyperdimensionalProbe
from probes.evaluation import group_split
from probes.statistics import paired_difference

__all__ = ["KEPT", "LIBRARIES", "Score", "conclusion", "interpretability", "kept_right", "score"]

KEPT = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
"""Shares of the concepts that are kept, at least one."""
DRAWS = 8
"""Random libraries, whose spread says what a library can score by luck."""
MOST_LAYERS, SIZE, FEW = 3, 256, 8
LEVEL, PENALTY, TINY = 0.05, 0.1, 1e-9
NAME, PROMPT = "interpretability", "it is a"


@dataclass(frozen=True, eq=False)
class Score:
    """What is kept at one layer.

    Attributes:
        right: ``[share test]`` whether each test item is read right, by share of concepts kept.
        drawn: ``[draw share test]`` the same of random libraries of that size.
        states: ``[test]`` whether it is read right from the states themselves.
        size: concepts of the library.
    """

    right: Float[np.ndarray, "share test"]
    drawn: Float[np.ndarray, "draw share test"]
    states: Float[np.ndarray, " test"]
    size: int

    @property
    def area(self) -> Float[np.ndarray, " test"]:
        """The accuracy integrated over the share that is dropped, for each test item."""
        return _areas(self.right)

    @property
    def luck(self) -> Float[np.ndarray, " test"]:
        """The same, the mean of random libraries."""
        return _areas(self.drawn).mean(axis=0)

    @property
    def spread(self) -> float:
        """The standard deviation over random libraries of their area."""
        return float(_areas(self.drawn).mean(axis=1).std(ddof=1))


def _areas(right: Float[np.ndarray, "*draw share test"]) -> Float[np.ndarray, "*draw test"]:
    """The integral over s = 1 - share kept, divided by its range."""
    s = 1 - np.array(KEPT)
    return np.asarray(np.trapezoid(right, s, axis=-2) / (s[-1] - s[0]))


def kept_right(
    states: Float[np.ndarray, "item dim"],
    labels: Int[np.ndarray, " item"],
    parts: tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]],
    library: Float[np.ndarray, "concept dim"],
    share: float,
) -> Float[np.ndarray, " test"]:
    """Read labels from the strongest concepts alone.

    ``z = LayerNorm(C x)``, with unit rows C and states less their mean over the training items; all but the
    largest ``share`` of ``|z|`` are set to 0, item by item; a linear classifier (ridge, one penalty for all)
    reads what is left.

    Args:
        states: of the items.
        labels: their codes.
        parts: training and test items.
        library: concept directions.
        share: of the concepts that are kept, at least one.
    """
    train, test = parts
    rows = library / np.linalg.norm(library, axis=1, keepdims=True)
    centred = states - states[train].mean(axis=0)
    z = centred @ rows.T
    z = z - z.mean(axis=1, keepdims=True)
    spread = z.std(axis=1, keepdims=True)
    rounding = TINY * np.linalg.norm(states, axis=1, keepdims=True)
    z = np.divide(z, spread, out=np.zeros_like(z), where=spread > rounding)
    keep = max(1, round(share * len(rows)))
    if keep < len(rows):
        order = np.argsort(-np.abs(z), axis=1, kind="stable")[:, keep:]
        np.put_along_axis(z, order, 0.0, axis=1)
    return _read(z, labels, train, test)


def _read(z: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Which test items a ridge classifier reads right."""
    mean = z[train].mean(axis=0)
    known, asked = z[train] - mean, z[test] - mean
    wanted = np.eye(int(labels.max()) + 1)[labels[train]]
    gram, offset = known @ known.T, wanted.mean(axis=0)
    ridge = PENALTY * np.trace(gram) / len(gram) or 1.0
    weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), wanted - offset)
    said = (asked @ known.T @ weights + offset).argmax(axis=1)
    return (said == labels[test]).astype(float)


def score(
    states: Float[np.ndarray, "item dim"],
    labels: Int[np.ndarray, " item"],
    parts: tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]],
    library: Float[np.ndarray, "concept dim"],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Score:
    """Keep fewer and fewer concepts of a library, and of random ones of its size.

    Args:
        states: of the items.
        labels: their codes.
        parts: training and test items.
        library: concept directions.
        seed: of the random libraries.
        draws: how many.
    """
    rng = np.random.default_rng(seed)
    others = [rng.standard_normal(library.shape) for _ in range(draws)]

    def curve(rows: np.ndarray) -> np.ndarray:
        return np.stack([kept_right(states, labels, parts, rows, share) for share in KEPT])

    plain = _read(states, labels, *parts)
    return Score(curve(library), np.stack([curve(rows) for rows in others]), plain, len(library))


@dataclass(frozen=True, eq=False)
class _Given:
    """What a library is made from."""

    model: Model
    layer: int
    states: Float[np.ndarray, "item dim"]
    data: Labelled
    train: Int[np.ndarray, " train"]
    seed: int


def _unembedding(given: _Given) -> np.ndarray:
    """Rows of the head for the words of the bundled facts that are one token, less the mean of all rows."""
    model, world = given.model, load_world()
    words = sorted({word for fact in world.all_facts for word in (fact.subject, fact.object)})
    random.Random(f"concepts:{given.seed}").shuffle(words)
    tokens: list[int] = []
    for word in words:
        ids = answer_ids(model, PROMPT, word)
        if ids is not None and len(ids) == 1 and ids[0] not in tokens:
            tokens.append(ids[0])
        if len(tokens) == SIZE:
            break
    head: Any = model.hf.get_output_embeddings()
    rows = head.weight.detach().float().cpu().double().numpy()
    return rows[tokens] - rows.mean(axis=0)


def _codebook(given: _Given) -> np.ndarray:
    """The concepts of a hyperdimensional probe, taken back through its encoder, which is linear."""
    rows = given.train.tolist()
    probe = HyperdimensionalProbe(seed=given.seed)
    probe.fit(
        given.states[rows].astype(np.float32),
        [given.data.labels[i] for i in rows],
        groups=[given.data.groups[i] for i in rows],
    )
    width = given.states.shape[1]
    steps = probe.encode(torch.eye(width)) - probe.encode(torch.zeros(1, width))
    return (probe.codebook_.vectors.float().cpu() @ steps.float().cpu().T).double().numpy()


def _dictionary(given: _Given) -> np.ndarray:
    """The encoder rows of the dictionary of that layer."""
    found = given.model.dictionaries.get(given.layer)
    if found is None or found.encoder.shape[1] != given.states.shape[1]:
        raise ConfigError(
            f"library='dictionary' asked, and {given.model.name!r} has none at layer {given.layer}; layers "
            f"with one: {sorted(given.model.dictionaries) or 'none'}. Give model.with_dictionaries(...)."
        )
    return found.encoder.detach().float().cpu().double().numpy()


LIBRARIES: dict[str, Callable[[_Given], np.ndarray]] = {
    "unembedding": _unembedding,
    "codebook": _codebook,
    "dictionary": _dictionary,
}
"""Where concept directions come from: words of the vocabulary, a hyperdimensional probe, features."""


def interpretability(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 800,
    seed: int = 0,
    layers: Layers | None = None,
    library: str = "unembedding",
    data: Labelled | None = None,
) -> FindingsResult:
    """Measure how much a linear classifier still reads when only the strongest concepts of a state are kept.

    The curve over the share of concepts that are dropped, ``s``, from none to 99%, and its integral over
    ``s``, as the Inherent Interpretability Score (arXiv 2510.24105) but of accuracy less what luck gives:
    a *random* library with at least as many rows as the states have dimensions keeps everything at ``s = 0``,
    and scores about 1 there. So the score is taken less that of random libraries of equal size, and beside
    the same of the architecture with random weights. States lose their mean first, and the mask is hard;
    where the paper's text and code differ or are silent, the choice is this project's own.

    A layer is said to be read by its concepts only where the score is beyond the random libraries' and the
    untrained twin's, both over test items (intervals over groups) and over the luck of the draw of a library
    (the spread of random ones), corrected for the number of layers (Bonferroni).

    Args:
        model: what is measured.
        reference: what this function returned for the reference model: it must have read the same tokens. Its
            untrained twin is taken over.
        n: how many prompts, at most; 60% of their groups train the classifiers.
        seed: of prompts, split and libraries.
        layers: which blocks' ``resid_post`` at the last token; three evenly spaced ones where left out.
        library: a key of ``LIBRARIES``.
        data: labelled prompts; those of the task analogy-relation where left out.

    Raises:
        ConfigError: an unknown library, too few prompts, a library that this model does not have, or a
            reference of another analysis.
        SiteError: a layer the model does not have.
        DataError: a library of fewer than eight concepts, labels that cannot be split by group, or a
            reference that read other tokens.
    """
    model = as_model(model)
    if library not in LIBRARIES:
        raise ConfigError(f"library {library!r} asked; there are: {', '.join(LIBRARIES)}.")
    at = depths(model, layers, MOST_LAYERS)
    drawn = labelled("analogy-relation", n=n, seed=seed) if data is None else data.limit(n, seed=seed)
    split = group_split(drawn.groups, (0.6, 0.0, 0.4), seed=seed, stratify=drawn.labels)
    parts = (np.asarray(split.train), np.asarray(split.test))
    names = {name: code for code, name in enumerate(dict.fromkeys(drawn.labels))}
    if len(names) < 2 or min(len(part) for part in parts) < 2 * len(names):
        raise DataError(
            f"{counted(len(drawn.labels), 'prompt')} with {counted(len(names), 'label')} leave too few "
            "to train and to test on; give more prompts (n=...) of at least two labels."
        )
    labels = np.array([names[name] for name in drawn.labels])
    tokens = model.tokenize(list(drawn.texts))
    if reference is not None:
        check_same_tokens(
            tokens.token_ids, earlier(reference, "interpretability", "token_ids"), "interpretability"
        )

    def scored(one: Model) -> dict[int, Score]:
        return _scores(one, tokens, drawn, labels, parts, at, library, seed)

    own = scored(model)
    blank = scored(untrained_model(model)) if reference is None else earlier(reference, NAME, "blank")
    if [(layer, c.size) for layer, c in own.items()] != [(layer, c.size) for layer, c in blank.items()]:
        raise DataError("the reference was scored at other layers or with a library of another size.")
    groups = tuple(drawn.groups[i] for i in parts[1].tolist())
    counts = np.bincount(labels[parts[0]], minlength=len(names))
    chance = float((labels[parts[1]] == counts.argmax()).mean())
    size = next(iter(own.values())).size
    return FindingsResult(
        analysis=NAME,
        about=about(model, {"n": len(drawn.labels), "library": library, "size": size, "layers": list(at)}),
        asked=f"Is what the states of {model.name} say carried by a few concepts?",
        how=(
            f"{counted(len(parts[0]), 'prompt')} to train on and {len(parts[1])} of other groups to test on "
            f"({drawn.name}); library {library!r} of {counted(size, 'concept')} in {model.d_model} "
            f"dimensions, beside {counted(DRAWS, 'random library', 'random libraries')} of that size.",
        ),
        conclusion=conclusion(own, blank, groups),
        found=_findings(own, blank, groups, chance),
        more=_tables(own, blank, chance),
        state={"token_ids": tokens.token_ids, "blank": blank},
        seed=seed,
        warnings=model.warnings,
    )


def _scores(
    model: Model,
    tokens: Any,
    data: Labelled,
    labels: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
    at: tuple[int, ...],
    library: str,
    seed: int,
) -> dict[int, Score]:
    acts = model.capture(tokens, [f"resid_post.{layer}" for layer in at], device="cpu", dtype=torch.float32)
    found = {}
    for layer in at:
        states = acts[f"resid_post.{layer}"].double().numpy()
        rows = LIBRARIES[library](_Given(model, layer, states, data, parts[0], seed))
        rows = rows[np.linalg.norm(rows, axis=1) > 0]
        if len(rows) < FEW:
            raise DataError(
                f"library {library!r} has {counted(len(rows), 'concept')} in this vocabulary; at least "
                f"{FEW} are needed. Use another library."
            )
        found[layer] = score(states, labels, parts, rows, seed=seed)
    return found


def _findings(
    own: Mapping[int, Score], blank: Mapping[int, Score], groups: tuple[str, ...], chance: float
) -> tuple[Finding, ...]:
    def curve(name: str, unit: str, words: str, read: Callable[[int], tuple[Any, Any]]) -> list[Finding]:
        return [
            Finding(
                f"{name} at layer {layer}",
                values,
                groups,
                control,
                unit,
                curve=name,
                layer=layer,
                about=words,
                direction=1,
            )
            for layer in own
            for values, control in [read(layer)]
        ]

    return (
        *curve(
            "score",
            "share",
            "accuracy integrated over the share of concepts dropped; control: random libraries of equal size",
            lambda layer: (own[layer].area, own[layer].luck),
        ),
        *curve(
            "score beyond luck",
            "difference of shares",
            "the score less that of random libraries; control: the same of the untrained twin",
            lambda layer: (own[layer].area - own[layer].luck, blank[layer].area - blank[layer].luck),
        ),
        *curve(
            "accuracy from the states",
            "share",
            "read from the whole state; control: the commonest label",
            lambda layer: (own[layer].states, chance),
        ),
    )


def _tables(own: Mapping[int, Score], blank: Mapping[int, Score], chance: float) -> tuple[Table, Table]:
    rows, points = [], []
    for layer, one in own.items():
        full = float(one.states.mean()) - chance
        relative = [None if full <= 0 else (float(x.mean()) - chance) / full for x in (one.area, one.luck)]
        rows.append(
            {
                "layer": layer,
                "score": float(one.area.mean()),
                "random": float(one.luck.mean()),
                "random_sd": one.spread,
                "untrained": float(blank[layer].area.mean()),
                "untrained_random": float(blank[layer].luck.mean()),
                "states": float(one.states.mean()),
                "chance": chance,
                "relative": relative[0],
                "relative_random": relative[1],
            }
        )
        points += [
            {
                "layer": layer,
                "kept": share,
                "concepts": max(1, round(share * one.size)),
                "accuracy": float(one.right[i].mean()),
                "random": float(one.drawn[:, i].mean()),
                "untrained": float(blank[layer].right[i].mean()),
            }
            for i, share in enumerate(KEPT)
        ]
    return (
        Table.of("scores", "Scores beside random libraries and the untrained twin", rows),
        Table.of("kept", "Accuracy by the share of concepts kept", points),
    )


def conclusion(own: Mapping[int, Score], blank: Mapping[int, Score], groups: Sequence[str]) -> str:
    """Say at which layers a few concepts carry more than luck and random weights explain.

    Args:
        own: layer -> the model's score.
        blank: layer -> that of the untrained twin.
        groups: of the test items.
    """
    told = [layer for layer in own if _beyond(own[layer], blank[layer], groups, LEVEL / len(own))]
    if not told:
        return (
            "That a few concepts of this library carry what the states say is not shown: at no layer read is "
            "the score beyond both random libraries of equal size and the untrained twin."
        )
    best = max(told, key=lambda layer: float((own[layer].area - own[layer].luck).mean()))
    one = own[best]
    return (
        f"Its strongest concepts carry what the states say, beyond random libraries of equal size and the "
        f"untrained twin, at layer {', '.join(map(str, told))} of {counted(len(own), 'layer')} read "
        f"(layer {best}: {one.area.mean():.2f} against {one.luck.mean():.2f} and, untrained, "
        f"{blank[best].area.mean():.2f})."
    )


def _beyond(own: Score, blank: Score, groups: Sequence[str], level: float) -> bool:
    """Whether a score is beyond luck and the twin, over items and over the draw of a library."""
    times = float(special.stdtrit(len(own.drawn) - 1, 1 - level / 2)) * math.sqrt(1 + 1 / len(own.drawn))
    margin, twins = own.area - own.luck, blank.area - blank.luck
    enough = (
        (margin, np.zeros_like(margin), own.spread),
        (margin, twins, math.hypot(own.spread, blank.spread)),
    )
    for first, second, spread in enough:
        found = paired_difference(first, second, groups=groups, support="real", level=1 - level)
        if found.interval.low <= 0 or found.value <= times * spread:
            return False
    return True
