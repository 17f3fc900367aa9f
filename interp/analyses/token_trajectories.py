"""How the states of a text fill their space, token by token: effective rank, velocity and acceleration."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.layer_profiles import Layers, depths
from interp.analyses.provenance import about, check_same_tokens, earlier
from interp.analyses.representation_similarity import rank_of
from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model, untrained_model
from interp.models.model import Model
from interp.models.tokens import tokenize
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Table
from interp.tasks import TASKS, load_world
from probes.statistics import paired_difference

__all__ = ["CONTROLS", "Course", "conclusion", "courses", "prefix_ranks", "trajectory", "velocities"]

MOST_LAYERS = 7
DRAWS = 5
LEVEL = 0.05
TOKENS, SPARE = 48, 8
"""Tokens of each response, and words of a bundled text beyond them."""
TINY = 1e-12
"""Of the largest squared length of a state: less variance than that is rounding."""
CONTROLS: dict[str, str] = {
    "order": "the same states in a random order",
    "gaussian": "as many draws of a Gaussian, turned so that they have the very covariance of the states",
    "untrained": "the same tokens read by the architecture with random weights",
}
"""What a velocity is held to, at the same length."""
VELOCITY = "how far each prefix's effective rank lies above the mean of the shorter ones'"
ACCELERATION = "how much that grows from one prefix to the next"


def prefix_ranks(
    gram: Float[np.ndarray, "*draw pos pos"], ends: Sequence[int], tiny: float = 0.0
) -> Float[np.ndarray, "*draw end"]:
    """The effective rank of the first so many states, each prefix centred by its own mean.

    The exponential of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007), as
    :func:`interp.analyses.representation_similarity.effective_rank`.

    Args:
        gram: inner products of the states.
        ends: lengths of the prefixes.
        tiny: an eigenvalue up to this is rounding.
    """
    found = []
    for end in ends:
        part = gram[..., :end, :end]
        part = part - part.mean(axis=-1, keepdims=True)
        part = part - part.mean(axis=-2, keepdims=True)
        values = np.linalg.eigvalsh((part + np.swapaxes(part, -1, -2)) / 2)
        found.append(rank_of(np.sqrt(np.where(values > tiny, values, 0.0))))
    return np.stack(found, axis=-1)


def velocities(
    ranks: Float[np.ndarray, "*draw end"],
) -> tuple[Float[np.ndarray, "*draw"], Float[np.ndarray, "*draw"]]:
    """The velocity and the acceleration of effective ranks m_1 .. m_K of growing prefixes.

    ``d_j = m_j - mean of m_1 .. m_(j-1)``; ERV is the mean of d_2 .. d_K and ERA that of ``d_j - d_(j-1)``
    (VERL, arXiv 2509.23808). With ``m_j = a + b j`` they are ``b (K + 2) / 4`` and ``b / 2``.

    Args:
        ranks: at least three in a row.
    """
    count = np.arange(1, ranks.shape[-1])
    before = np.cumsum(ranks, axis=-1)[..., :-1] / count
    steps = ranks[..., 1:] - before
    return np.asarray(steps.mean(axis=-1)), np.asarray(np.diff(steps, axis=-1).mean(axis=-1))


@dataclass(frozen=True, eq=False)
class Course:
    """The course of every text at one layer, and of its controls.

    Attributes:
        rank: ``[text]`` effective rank of the whole length.
        velocity: ``[text]`` ERV.
        acceleration: ``[text]`` ERA.
        controls: ``order`` and ``gaussian`` -> ERV and ERA, ``[text]`` each, means over draws.
    """

    rank: Float[np.ndarray, " text"]
    velocity: Float[np.ndarray, " text"]
    acceleration: Float[np.ndarray, " text"]
    controls: Mapping[str, tuple[np.ndarray, np.ndarray]]


def courses(
    states: Float[np.ndarray, "text pos dim"], ends: Sequence[int], *, seed: int = 0, draws: int = DRAWS
) -> Course:
    """Follow every text, and the same states in random orders and drawn from a Gaussian.

    Args:
        states: of equally many tokens of each text.
        ends: lengths of the prefixes.
        seed: of the controls.
        draws: of each control; their mean is taken.
    """
    rng = np.random.default_rng(seed)
    rows: list[list[Any]] = []
    for one in states.astype(np.float64):
        tiny = TINY * float((one**2).sum(axis=1).max())
        centred = one - one.mean(axis=0)
        gram, n = centred @ centred.T, len(one)
        orders = [rng.permutation(n) for _ in range(draws)]
        mixed = [_turn(n, rng) for _ in range(draws)]
        every = np.stack([gram, *(gram[np.ix_(o, o)] for o in orders), *(a @ gram @ a.T for a in mixed)])
        ranks = prefix_ranks(every, ends, tiny)
        erv, era = velocities(ranks)
        parts = (slice(1, 1 + draws), slice(1 + draws, None))
        rows.append([ranks[0, -1], erv[0], era[0], *(x[part].mean() for part in parts for x in (erv, era))])
    table = np.array(rows).T
    return Course(
        table[0], table[1], table[2], {"order": (table[3], table[4]), "gaussian": (table[5], table[6])}
    )


def _turn(n: int, rng: np.random.Generator) -> Float[np.ndarray, "pos pos"]:
    """A random turn of the tokens that keeps their mean.

    It makes of any states others with the same mean and covariance over tokens, to the last digit, and with
    no order. Independent Gaussian states are as likely as before it, which makes it an exact null for them;
    fresh draws from their covariance would not be: they fill fewer dimensions.
    """
    basis = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, n - 1))]))[0][:, 1:]
    turn, upper = np.linalg.qr(rng.standard_normal((n - 1, n - 1)))
    return basis @ (turn * np.sign(np.diag(upper))) @ basis.T


def trajectory(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 32,
    seed: int = 0,
    layers: Layers | None = None,
    tokens: int | None = None,
    stride: int = 8,
    texts: Sequence[tuple[str, str]] | None = None,
) -> FindingsResult:
    """Measure how fast the states of a text fill their space, token by token, layer by layer.

    The effective rank of the first ``stride``, ``2 stride``, ... states of a response grows with their number
    by itself, whatever they are. So all texts are taken at one length, and velocity (ERV) and acceleration
    (ERA) are held to the same states in a random order, to a Gaussian of the same covariance, and to the
    architecture with random weights reading the same tokens. A course of its own is claimed at a layer only
    where ERV lies beyond all three on the same side, with intervals widened for the number of layers
    (Bonferroni): over texts, or over tasks for bundled texts.

    The bundled texts are sentences of one task one after the other; the first is the prompt. They are read,
    not generated, so that every model reads the same: give a model's own responses as ``texts``.

    Args:
        model: what is measured.
        reference: what this function returned for the reference model: it must have read the same tokens. Its
            untrained twin is taken over.
        n: how many texts, at most.
        seed: of the texts and of the controls.
        layers: which blocks' ``resid_post``; seven evenly spaced ones where left out.
        tokens: of each response that are read; shorter responses are left out. 48 where left out, or half of
            what the model reads where that is fewer.
        stride: tokens between two prefixes; at least three prefixes are needed.
        texts: your own prompts with their responses.

    Raises:
        ConfigError: fewer than two texts or three prefixes asked, or a reference of another analysis.
        SiteError: a layer the model does not have.
        DataError: too few texts that are long enough, or a reference that read others.
    """
    model = as_model(model)
    if tokens is None:
        half = TOKENS if model.max_length is None else model.max_length // 2
        tokens = min(TOKENS, half // stride * stride) if stride > 0 else TOKENS
    if n < 2 or stride < 2 or tokens < 3 * stride:
        raise ConfigError(
            f"n={n} texts of {tokens} tokens in steps of {stride} asked; use at least 2 texts, steps of 2 or "
            "more tokens, and at least 3 steps."
        )
    at = depths(model, layers, MOST_LAYERS)
    given = _texts(n, seed, tokens) if texts is None else texts
    ids, starts, places = _cut(model, given, n, tokens)
    if reference is not None:
        check_same_tokens(ids, earlier(reference, "trajectory", "token_ids"), "trajectory")
    ends = tuple(range(stride, tokens + 1, stride))
    own = _followed(model, ids, starts, at, ends, seed)
    blank = (
        _followed(untrained_model(model), ids, starts, at, ends, seed)
        if reference is None
        else earlier(reference, "trajectory", "untrained")
    )
    if set(blank) != set(own):
        raise DataError(f"the reference was read at layers {list(blank)}, this model at {list(own)}.")
    groups = tuple(f"text {i}" if texts is not None else _task(i) for i in places)
    return FindingsResult(
        analysis="trajectory",
        about=about(model, {"n": len(ids), "tokens": tokens, "stride": stride, "layers": list(at)}),
        asked=f"How do the states of {model.name} fill their space as a text goes on?",
        how=(
            f"{counted(tokens, 'token')} of each of {counted(len(ids), 'text')} were read; prefixes of "
            f"{', '.join(map(str, ends))} tokens, centred, at {counted(len(at), 'layer')}.",
        ),
        conclusion=conclusion(own, blank, groups),
        found=_findings(own, blank, groups),
        more=(_table(own, blank),),
        state={"token_ids": ids, "untrained": blank},
        seed=seed,
        warnings=model.warnings,
    )


def _texts(n: int, seed: int, tokens: int) -> list[tuple[str, str]]:
    """Draw sentences of one task after another until there are words enough, a task for each text in turn."""
    world, found = load_world(), []
    for turn in range(2 * n):
        task, rng = TASKS[_task(turn)], random.Random(f"trajectory:{seed}:{turn}")
        prompt, words = task.generate(world, rng, "held-out").text, list[str]()
        while len(words) < tokens + SPARE:
            words += task.generate(world, rng, "held-out").text.split()
        found.append((prompt, " ".join(words)))
    return found


def _task(turn: int) -> str:
    """The task of a bundled text: texts of one task are alike, so intervals are over tasks."""
    return list(TASKS)[turn % len(TASKS)]


def _cut(
    model: Model, texts: Sequence[tuple[str, str]], n: int, tokens: int
) -> tuple[tuple[tuple[int, ...], ...], list[int], list[int]]:
    """The ids of each text up to the last token that is read, where its response begins, and which it is."""
    columns = [[prompt for prompt, _ in texts], [f"{prompt} {response}" for prompt, response in texts]]
    before, both = (
        tokenize(one, model.tokenizer, name=model.name, vocab_size=model.vocab_size).token_ids
        for one in columns
    )
    kept: list[tuple[int, ...]] = []
    starts: list[int] = []
    places: list[int] = []
    for place, (ids, whole) in enumerate(zip(before, both, strict=True)):
        same = next((i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), len(ids))
        end = same + tokens
        if end <= len(whole) and (model.max_length is None or end <= model.max_length):
            kept.append(tuple(whole[:end]))
            starts.append(same)
            places.append(place)
    if len(kept) < 2:
        raise DataError(
            f"of {counted(len(texts), 'text')} {len(kept)} have {tokens} tokens after the prompt that this "
            "model reads; at least 2 are needed. Give longer texts, or fewer tokens (tokens=...)."
        )
    return tuple(kept[:n]), starts[:n], places[:n]


def _followed(
    model: Model,
    ids: Sequence[Sequence[int]],
    starts: Sequence[int],
    at: tuple[int, ...],
    ends: tuple[int, ...],
    seed: int,
) -> dict[int, Course]:
    positions = [list(range(start, start + ends[-1])) for start in starts]
    sites = [f"resid_post.{layer}" for layer in at]
    acts = model.capture([list(row) for row in ids], sites, positions, device="cpu", dtype=torch.float32)
    return {
        layer: courses(acts[site].double().numpy(), ends, seed=seed)
        for layer, site in zip(at, sites, strict=True)
    }


def _findings(
    own: Mapping[int, Course], blank: Mapping[int, Course], groups: tuple[str, ...]
) -> tuple[Finding, ...]:
    unit = "dimensions"
    columns: list[tuple[str, str, str, Callable[[Course], tuple[Any, Any]]]] = [
        ("ERV", VELOCITY, name, lambda c, name=name: (c.velocity, c.controls[name][0]))
        for name in ("order", "gaussian")
    ]
    columns.append(("ERA", ACCELERATION, "order", lambda c: (c.acceleration, c.controls["order"][1])))
    found = [
        Finding(
            f"{short}, against {name} at layer {layer}",
            values,
            groups,
            control,
            unit,
            curve=f"{short}, against {name}",
            layer=layer,
            about=f"{what}; control: {CONTROLS[name]}",
        )
        for short, what, name, read in columns
        for layer, course in own.items()
        for values, control in [read(course)]
    ]
    text = CONTROLS["untrained"]
    for name, key in (("ERV, against untrained", "velocity"), ("effective rank", "rank")):
        found += [
            Finding(
                f"{name} at layer {layer}",
                getattr(course, key),
                groups,
                getattr(blank[layer], key),
                unit,
                curve=name,
                layer=layer,
                about=f"control: {text}",
            )
            for layer, course in own.items()
        ]
    return tuple(found)


def _table(own: Mapping[int, Course], blank: Mapping[int, Course]) -> Table:
    rows = [
        {
            "layer": layer,
            "rank": float(c.rank.mean()),
            "rank_untrained": float(blank[layer].rank.mean()),
            "ERV": float(c.velocity.mean()),
            "ERV_order": float(c.controls["order"][0].mean()),
            "ERV_gaussian": float(c.controls["gaussian"][0].mean()),
            "ERV_untrained": float(blank[layer].velocity.mean()),
            "ERA": float(c.acceleration.mean()),
            "ERA_order": float(c.controls["order"][1].mean()),
        }
        for layer, c in own.items()
    ]
    return Table.of("courses", "Rank, velocity and acceleration beside their controls", rows)


def conclusion(own: Mapping[int, Course], blank: Mapping[int, Course], groups: tuple[str, ...]) -> str:
    """Say at which layers the velocity lies beyond all three controls, and on which side.

    Args:
        own: layer -> the model's course.
        blank: layer -> that of the untrained twin.
        groups: of the texts.
    """
    level = 1 - LEVEL / len(own)
    sides: dict[str, list[int]] = {"above": [], "below": []}
    for layer, course in own.items():
        controls = [course.controls["order"][0], course.controls["gaussian"][0], blank[layer].velocity]
        ends = [
            paired_difference(course.velocity, one, groups=groups, support="real", level=level).interval
            for one in controls
        ]
        if all(one.low > 0 for one in ends):
            sides["above"].append(layer)
        if all(one.high < 0 for one in ends):
            sides["below"].append(layer)
    said = [
        f"{side} all three controls at layer {', '.join(map(str, at))}" for side, at in sides.items() if at
    ]
    if not said:
        return (
            "A course of its own is not shown: at no layer read does the velocity of the effective rank lie "
            "beyond a random order, a Gaussian and the untrained twin on one side."
        )
    return (
        f"The velocity of the effective rank lies {' and '.join(said)}, of {counted(len(own), 'layer')} read."
    )
