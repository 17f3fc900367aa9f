"""Claim: bindings of one prompt, asked by any key when it is read, with one probe."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.claims.evidence import Evidence, Setting
from interp.tasks.world import load_world
from probes.controls import bag_of_tokens
from probes.hyperdimensional.embedding import ridge_solver
from probes.vsa import MAP, Codebook

__all__ = ["bindings", "mapped", "scaled"]

N_KEYS, N_VALUES, COUNTS = 10, 20, (2, 3)
PENALTIES = (1e-4, 1e-2, 1.0)
Rows = list[int]


@dataclass(frozen=True)
class Bound:
    """A prompt such as ``Paris : lion , Rome : chair .`` and what it binds."""

    text: str
    keys: tuple[str, ...]
    values: tuple[str, ...]

    @classmethod
    def drawn(cls, keys: Sequence[str], values: Sequence[str], rng: random.Random) -> Bound:
        """Bind some of the keys to some of the values."""
        n = rng.choice(COUNTS)
        own, theirs = rng.sample(keys, n), rng.sample(values, n)
        text = " , ".join(f"{key} : {value}" for key, value in zip(own, theirs, strict=True))
        return cls(f"{text} .", tuple(own), tuple(theirs))


@dataclass(frozen=True, eq=False)
class Prompts:
    """Different prompts of each part, and the codebooks of keys and values."""

    items: list[Bound]
    train: Rows
    held: Rows
    test: Rows
    keys: Codebook
    values: Codebook

    @property
    def asked(self) -> list[tuple[int, str, str]]:
        """Every binding of the test prompts: row, key, value."""
        return _asked(self.items, self.test)


def _asked(items: Sequence[Bound], rows: Rows) -> list[tuple[int, str, str]]:
    return [
        (row, key, value)
        for row in rows
        for key, value in zip(items[row].keys, items[row].values, strict=True)
    ]


def bindings(setting: Setting) -> Evidence:
    """Train one map to the sum of all bindings, and ask it for every key of new prompts.

    The state is that of the full stop, before any key is asked for: what is read there the model has put
    together ahead of the question.
    """
    drawn = _drawn(setting)
    texts = [item.text for item in drawn.items]
    states = setting.states(texts)
    bag = torch.from_numpy(bag_of_tokens(setting.model.tokenize(texts).token_ids).toarray()).float()
    turned = [Bound(item.text, item.keys, (*item.values[1:], item.values[0])) for item in drawn.items]
    controls = {
        "random weights": _one_probe(drawn, setting.untrained.states(texts), drawn.items),
        "a bag of words": _one_probe(drawn, bag, drawn.items),
        "values exchanged in each prompt": _one_probe(drawn, states, turned),
        "naming any value of the prompt": _any(drawn, setting.seed),
    }
    return Evidence(
        "the value of the key asked for, among those of the prompt",
        _one_probe(drawn, states, drawn.items),
        controls,
        {"a linear probe for each key": _probe_per_key(drawn, states)},
        [drawn.items[row].text for row, _, _ in drawn.asked],
        note=f"{N_KEYS} keys, {N_VALUES} values, {COUNTS[0]} or {COUNTS[1]} bindings a prompt; read at its "
        "full stop, before a key is asked for",
    )


def _drawn(setting: Setting) -> Prompts:
    rng = random.Random(f"bindings:{setting.seed}")
    words = rng.sample(sorted(load_world().concepts), N_KEYS + N_VALUES)
    keys, values = words[:N_KEYS], words[N_KEYS:]
    found: dict[str, Bound] = {}
    while len(found) < sum(setting.sizes):
        item = Bound.drawn(keys, values, rng)
        found.setdefault(item.text, item)
    train, held = setting.sizes[0], setting.sizes[0] + setting.sizes[1]
    rows = list(range(len(found)))
    algebra = MAP(setting.dimension)
    books = (Codebook.random(algebra, names, seed=setting.seed) for names in (keys, values))
    return Prompts([*found.values()], rows[:train], rows[train:held], rows[held:], *books)


def scaled(X: Float[torch.Tensor, "example dim"], train: Rows) -> Float[torch.Tensor, "example dim"]:
    """The features with mean 0 and variance 1 over the training rows; those that do not vary are centred."""
    mean, scale = X[train].mean(dim=0), X[train].std(dim=0, correction=0)
    return (X - mean) / torch.where(scale > 1e-6 * scale.max(), scale, 1.0)


def mapped(
    X: Float[torch.Tensor, "example dim"],
    targets: Float[torch.Tensor, "example width"],
    train: Rows,
    judged: Callable[[Float[torch.Tensor, "example width"]], float],
) -> Float[torch.Tensor, "example width"]:
    """What a ridge from states to hypervectors gives for every row, with the penalty that is judged best.

    Args:
        X: the states.
        targets: of every row; those of ``train`` are learned.
        train: the training rows.
        judged: a score of what is given, on validation rows.
    """
    X, mean = scaled(X, train), targets[train].mean(dim=0)
    solved = ridge_solver(X[train], targets[train] - mean)
    return max((X @ solved(penalty) + mean for penalty in PENALTIES), key=judged)


def _one_probe(
    drawn: Prompts, X: Float[torch.Tensor, "example dim"], taught: Sequence[Bound]
) -> Int[np.ndarray, " asked"]:
    """Ridge to the sum of all bindings; the penalty is chosen on validation prompts, as they are taught."""
    bind = drawn.keys.algebra.bind
    targets = torch.stack(
        [
            bind(
                drawn.keys.vectors[drawn.keys.index(item.keys)],
                drawn.values.vectors[drawn.values.index(item.values)],
            ).sum(dim=0)
            for item in taught
        ]
    )

    def read(
        vectors: Float[torch.Tensor, "example width"], items: Sequence[Bound], rows: Rows
    ) -> Int[np.ndarray, " asked"]:
        asked = _asked(items, rows)
        keys = drawn.keys.vectors[drawn.keys.index([key for _, key, _ in asked])]
        own = vectors[[row for row, _, _ in asked]]
        scores = drawn.values.similarities(drawn.keys.algebra.unbind(own, keys))
        scores = drawn.values.among(scores, [items[row].values for row, _, _ in asked])
        gold = drawn.values.index([value for _, _, value in asked])
        return (scores.argmax(dim=1) == gold).long().numpy()

    given = mapped(X, targets, drawn.train, lambda vectors: float(read(vectors, taught, drawn.held).mean()))
    return read(given, drawn.items, drawn.test)


def _probe_per_key(drawn: Prompts, X: Float[torch.Tensor, "example dim"]) -> Int[np.ndarray, " asked"]:
    """For each key a ridge classifier of its value, fitted on the prompts that hold the key."""
    from probes import RidgeProbe

    right: dict[tuple[int, str], int] = {}
    X = scaled(X, drawn.train)
    for key in drawn.keys.names:
        rows = [row for row in drawn.train if key in drawn.items[row].keys]
        probe = RidgeProbe().fit(X[rows], [_value(drawn.items[row], key) for row in rows])
        classes = [str(name) for name in probe.classes_]
        asked = [(row, value) for row, one, value in drawn.asked if one == key]
        if not asked:
            continue
        scores = np.asarray(probe.decision_function(X[[row for row, _ in asked]]))
        for (row, value), line in zip(asked, scores, strict=True):
            known = [name for name in drawn.items[row].values if name in classes]
            named = max(known, key=lambda name: line[classes.index(name)], default="")
            right[row, key] = int(named == value)
    return np.array([right[row, key] for row, key, _ in drawn.asked])


def _value(item: Bound, key: str) -> str:
    return item.values[item.keys.index(key)]


def _any(drawn: Prompts, seed: int) -> Int[np.ndarray, " asked"]:
    rng = random.Random(seed)
    return np.array([int(rng.choice(drawn.items[row].values) == value) for row, _, value in drawn.asked])
