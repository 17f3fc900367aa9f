"""One probe trained on many lists of answers reads what as many probes, fitted one by one, read."""

from __future__ import annotations

import random

import pytest
import torch

from probes import HyperdimensionalProbe
from probes.hyperdimensional.retraining import read_retrained
from probes.vsa import MAP, Codebook

NAMES = [f"concept {i}" for i in range(12)]
PARTS = (range(150), range(150, 190), range(190, 240))
RANDOM = Codebook.random(MAP(256), NAMES, seed=0)
EMBEDDED = Codebook.from_embeddings(
    MAP(256), NAMES, torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
)


def drawn(seed: int = 0) -> tuple[torch.Tensor, list[str]]:
    """States that lie near the direction of their concept."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(NAMES), 16, generator=generator)
    codes = torch.randint(len(NAMES), (240,), generator=generator)
    states = directions[codes] + 0.7 * torch.randn(240, 16, generator=generator)
    return states, [NAMES[code] for code in codes.tolist()]


def one_by_one(probe: HyperdimensionalProbe, X: torch.Tensor, answers: list[str]) -> list[str]:
    train, held, test = map(list, PARTS)
    later = (X[held], [answers[i] for i in held])
    return probe.fit(X[train], [answers[i] for i in train], validation=later).predict(X[test]).tolist()


CASES = [(RANDOM, "linear"), (RANDOM, "ridge"), (RANDOM, "mlp")]
CASES += [(EMBEDDED, "linear"), (EMBEDDED, "embedding"), (EMBEDDED, "ridge"), (EMBEDDED, "mlp")]


@pytest.mark.parametrize(("codebook", "encoder"), CASES, ids=lambda one: getattr(one, "source", one))
def test_all_at_once_is_one_by_one(encoder, codebook):
    X, answers = drawn()
    few = [name if name in NAMES[:5] else NAMES[0] for name in answers]
    lists = [answers, few, answers, *(random.Random(seed).sample(answers, len(answers)) for seed in range(3))]
    settings = {"encoder": encoder, "seed": 3, "regularisation": 0.1}
    if encoder == "mlp":
        settings |= {"hidden": 16, "epochs": 2}
    found = read_retrained(HyperdimensionalProbe(codebook, **settings), X, lists, PARTS)
    fresh = [one_by_one(HyperdimensionalProbe(copied(codebook), **settings), X, names) for names in lists]
    assert found == fresh
    assert found[0] == found[2] and found[0] not in found[3:]
    right = [
        sum(a == names[i] for a, i in zip(read, PARTS[2], strict=True))
        for read, names in zip(found, lists, strict=True)
    ]
    assert encoder == "mlp" or (right[0] > 40 and max(right[3:]) < 20)


def copied(codebook: Codebook) -> Codebook:
    """The same codebook, which nothing was worked out from yet."""
    return Codebook(
        codebook.algebra,
        codebook.names,
        codebook.vectors,
        codebook.seed,
        codebook.source,
        codebook.projection,
        codebook.embeddings,
    )


def test_a_fit_is_the_same_whatever_the_codebook_was_used_for_before():
    X, answers = drawn()
    records = [{"a": name, "b": NAMES[0]} for name in answers]
    used = copied(EMBEDDED)
    before = HyperdimensionalProbe(used, rank=2).fit(X, answers)
    HyperdimensionalProbe(used).fit(X, used.records(records))
    HyperdimensionalProbe(used).fit(X[:60], answers[:60])
    for given in ({}, {"rank": 2}):
        late = HyperdimensionalProbe(used, **given).fit(X, answers)
        fresh = HyperdimensionalProbe(copied(EMBEDDED), **given).fit(X, answers)
        for name, value in fresh.arrays().items():
            assert (late.arrays()[name] == value).all()
    assert len(late.arrays()["encoder.basis"]) == len(before.arrays()["encoder.basis"]) == 2


def test_published_probes_and_probes_without_a_codebook_are_refused():
    X, answers = drawn()
    for probe in (HyperdimensionalProbe(), HyperdimensionalProbe(RANDOM, compat="paper")):
        with pytest.raises(ValueError, match="given a codebook, without compat"):
            read_retrained(probe, X, [answers], PARTS)
