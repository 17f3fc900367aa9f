"""The Hyperdimensional Probe on planted concepts: what it reads, what it cannot, and what it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from probes import NotFittedError, ProbeFileError, load
from probes.hyperdimensional import HyperdimensionalProbe, evaluate
from probes.vsa import FHRR, MAP, Codebook, structures

WIDTH, CONCEPTS = 24, 150
NAMES = [f"concept {i}" for i in range(CONCEPTS)]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def embeddings() -> torch.Tensor:
    return torch.randn(CONCEPTS, WIDTH, generator=generator(1))


def states(codes: list[int], embeddings: torch.Tensor, seed: int, *, noise: float = 0.3) -> torch.Tensor:
    """Give rotated embeddings of the concepts plus noise: what a residual stream looks like."""
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator(2))).Q
    held = embeddings[codes] @ turn
    return held + noise * torch.randn(held.shape, generator=generator(seed)) + 3


def named(codes: list[int]) -> list[str]:
    return [NAMES[i] for i in codes]


def drawn(low: int, high: int, n: int, seed: int) -> list[int]:
    return torch.randint(low, high, (n,), generator=generator(seed)).tolist()


@pytest.fixture(scope="module")
def codebook(embeddings: torch.Tensor) -> Codebook:
    return Codebook.from_embeddings(MAP(1024), NAMES, embeddings, seed=0)


TRAIN, HELD, TEST = drawn(0, 90, 600, 3), drawn(90, 110, 100, 4), drawn(110, 150, 200, 5)


@pytest.mark.parametrize(("encoder", "floor"), [("linear", 0.9), ("ridge", 0.8)])
def test_concepts_that_were_never_trained_are_read(
    codebook: Codebook, embeddings: torch.Tensor, encoder: str, floor: float
) -> None:
    held = (states(HELD, embeddings, 11), named(HELD))
    test = states(TEST, embeddings, 12)
    probe = HyperdimensionalProbe(codebook, encoder=encoder)
    probe.fit(states(TRAIN, embeddings, 10), named(TRAIN), validation=held)
    assert probe.score(test, named(TEST)) > floor
    control = HyperdimensionalProbe(codebook.permuted(), encoder=encoder)
    control.fit(states(TRAIN, embeddings, 10), named(TRAIN), validation=held)
    assert control.score(test, named(TEST)) < 0.2
    random = HyperdimensionalProbe(Codebook.random(MAP(1024), NAMES), encoder=encoder)
    random.fit(states(TRAIN, embeddings, 10), named(TRAIN), validation=held)
    assert random.score(test, named(TEST)) < 0.2


def test_holding_concepts_out_chooses_like_a_test_on_new_ones(
    codebook: Codebook, embeddings: torch.Tensor
) -> None:
    probe = HyperdimensionalProbe(codebook, holdout="concepts")
    probe.fit(states(TRAIN, embeddings, 10), named(TRAIN))
    assert probe.score(states(TEST, embeddings, 12), named(TEST)) > 0.8
    assert 0 < probe.fitted_.notes["n_train"] < len(TRAIN)


def test_decoding_never_sees_the_answer_and_scoring_is_apart(
    codebook: Codebook, embeddings: torch.Tensor
) -> None:
    probe = HyperdimensionalProbe(codebook).fit(states(TRAIN, embeddings, 10), named(TRAIN))
    read = probe.decode(states(TRAIN[:50], embeddings, 13), k=3)
    scores = evaluate(read, named(TRAIN[:50]))
    wrong = evaluate(read, named([(i + 1) % CONCEPTS for i in TRAIN[:50]]))
    assert scores.top1.value > 0.9 > 0.3 > wrong.top1.value
    assert scores.top1.value == pytest.approx(
        np.mean([n[0] == g for n, g in zip(read.names, named(TRAIN[:50]), strict=True)])
    )
    assert scores.cosine.value > scores.cosine_floor + 0.2 and scores.bits.value > scores.bits_floor + 0.1
    assert scores.mrr.value >= scores.top1.value and len(read.top(2)[0]) == 2
    assert read[0][0][0] == read.names[0][0] and len(list(read)) == len(read) == 50


def test_ranks_are_those_of_a_plain_sort(codebook: Codebook, embeddings: torch.Tensor) -> None:
    probe = HyperdimensionalProbe(codebook).fit(states(TRAIN, embeddings, 10), named(TRAIN))
    X = states(TEST, embeddings, 12, noise=3)
    scores = probe.decision_function(X)
    assert isinstance(scores, torch.Tensor)
    expected = [1 + int((row > row[code]).sum()) for row, code in zip(scores, TEST, strict=True)]
    assert evaluate(probe.decode(X), named(TEST)).ranks.tolist() == pytest.approx(expected)


def test_most_null_inputs_are_abstained_from_and_most_real_ones_are_not(
    codebook: Codebook, embeddings: torch.Tensor
) -> None:
    probe = HyperdimensionalProbe(codebook).fit(states(TRAIN, embeddings, 10, noise=0.1), named(TRAIN))
    real = probe.decode(states(TRAIN, embeddings, 14, noise=0.1))
    X = states(TRAIN, embeddings, 15, noise=0.1)
    null = X.gather(0, torch.stack([torch.randperm(600, generator=generator(i)) for i in range(WIDTH)], 1))
    assert float(probe.decode(null).abstained.double().mean()) > 0.85
    assert float(real.abstained.double().mean()) < 0.3
    before = probe.fitted_.thresholds[""]
    assert probe.calibrate(null, level=0.5).fitted_.thresholds[""] < before


def test_what_is_unlike_training_is_not_claimed_however_similar_it_is(
    codebook: Codebook, embeddings: torch.Tensor
) -> None:
    """Push states far out where the probe reads least: a quarter stays above it, none is claimed."""
    probe = HyperdimensionalProbe(codebook).fit(states(TRAIN, embeddings, 10, noise=0.1), named(TRAIN))
    X = states(TRAIN, embeddings, 14, noise=0.1)
    rows = X.double().numpy()
    scale = states(TRAIN, embeddings, 10, noise=0.1).std(dim=0).numpy()
    weight = probe.fitted_.encoder.arrays()["weight"] / scale[:, None]
    quiet = np.linalg.svd(weight.T)[2][-1]
    spread = float((rows @ quiet).std())
    pushed = probe.decode(torch.from_numpy((rows + 30 * spread * quiet).astype(np.float32)))
    plain = probe.decode(X)
    assert plain.unfamiliar is not None and pushed.unfamiliar is not None
    above = pushed.similarities[:, 0] >= pushed.threshold
    assert float(above.double().mean()) > 0.2 and float(pushed.abstained.double().mean()) > 0.95
    assert float(plain.unfamiliar.double().mean()) < 0.15


def test_the_distance_is_that_of_mahalanobis(codebook: Codebook, embeddings: torch.Tensor) -> None:
    X = states(TRAIN, embeddings, 10)
    probe = HyperdimensionalProbe(codebook).fit(X, named(TRAIN), validation=(X[:50], named(TRAIN[:50])))
    rows = X.double().numpy()
    scaled = (rows - rows.mean(0)) / rows.std(0)
    inverse = np.linalg.inv(np.cov(scaled.T, bias=True) + 1e-3 * np.eye(len(scaled.T)))
    wanted = np.sqrt(np.einsum("nd,de,ne->n", scaled, inverse, scaled) / len(inverse))
    familiar = probe.fitted_.familiar
    assert familiar is not None and familiar.farthest == pytest.approx(
        np.quantile(wanted[:50], 0.95), rel=1e-3
    )
    read = probe.decode(X)
    assert read.unfamiliar is not None
    assert np.mean(read.unfamiliar.numpy() == (wanted > familiar.farthest)) > 0.99


@pytest.mark.parametrize("encoder", ["linear", "ridge"])
def test_roles_are_read_apart(embeddings: torch.Tensor, encoder: str) -> None:
    codebook = Codebook.random(MAP(1024), NAMES)
    pairs = list(zip(drawn(0, 26, 600, 3), drawn(0, 26, 600, 6), strict=True))
    X = torch.cat(
        [states([a for a, _ in pairs], embeddings, 1), states([b for _, b in pairs], embeddings, 2)], 1
    )
    targets = codebook.records([{"key": NAMES[a], "value": NAMES[b]} for a, b in pairs])
    probe = HyperdimensionalProbe(codebook, encoder=encoder, regularisation=0.01).fit(
        X[:500], targets[list(range(500))]
    )
    for role, codes in (("key", [a for a, _ in pairs[500:]]), ("value", [b for _, b in pairs[500:]])):
        assert evaluate(probe.decode(X[500:], role=role), named(codes)).top1.value > 0.8
    other = evaluate(probe.decode(X[500:], role="key"), named([b for _, b in pairs[500:]])).top1.value
    assert other < 0.25
    with pytest.raises(ValueError, match="this probe decodes: 'key', 'value'"):
        probe.decode(X)


def test_sets_are_read_as_their_members(codebook: Codebook, embeddings: torch.Tensor) -> None:
    pairs = [(a, b) for a, b in zip(TRAIN, drawn(0, 90, 600, 6), strict=True) if a != b]
    X = embeddings[[a for a, _ in pairs]] + embeddings[[b for _, b in pairs]]
    targets = structures.sets(codebook, [[NAMES[a], NAMES[b]] for a, b in pairs])
    probe = HyperdimensionalProbe(codebook).fit(X, targets)
    found = probe.decode(X, k=2).names
    shared = [len({NAMES[a], NAMES[b]} & set(names)) for (a, b), names in zip(pairs, found, strict=True)]
    assert np.mean(shared) > 1.6


def test_complex_codes_work_too(embeddings: torch.Tensor) -> None:
    codebook = Codebook.from_embeddings(FHRR(512), NAMES, embeddings)
    probe = HyperdimensionalProbe(codebook).fit(states(TRAIN, embeddings, 10), named(TRAIN))
    assert probe.score(states(TRAIN, embeddings, 12), named(TRAIN)) > 0.9


def test_several_layers_are_joined_by_a_reduction(embeddings: torch.Tensor) -> None:
    codebook = Codebook.random(MAP(512), NAMES)
    X = torch.stack([states(TRAIN, embeddings, seed, noise=0.6) for seed in (1, 2, 3)], dim=1)
    for reduction in ("concatenate", "mean", "rms-mean", "kmeans-sum"):
        probe = HyperdimensionalProbe(codebook, reduction=reduction, encoder="ridge").fit(X, named(TRAIN))
        assert probe.score(X, named(TRAIN)) > 0.5
    with pytest.raises(ValueError, match="reads one layer"):
        HyperdimensionalProbe(codebook).fit(X, named(TRAIN))
    with pytest.raises(ValueError, match="joins layers"):
        HyperdimensionalProbe(codebook, reduction="mean").fit(X[:, 0], named(TRAIN))


def test_the_published_network_learns_its_own_targets(embeddings: torch.Tensor) -> None:
    codebook = Codebook.random(MAP(256), NAMES)
    pairs = [(drawn(0, 3, 200, seed)) for seed in (0, 1)]
    rows = [
        (NAMES[2 * a], NAMES[2 * a + 1], NAMES[20 + c], NAMES[30 + c]) for a, c in zip(*pairs, strict=True)
    ]
    targets = structures.published_analogies(codebook, rows)
    X = torch.cat([embeddings[codebook.index([row[i] for row in rows])] for i in range(4)], dim=1)
    with pytest.warns(UserWarning, match="table of the answers"):
        probe = HyperdimensionalProbe(codebook, compat="paper", hidden=64, epochs=15, learning_rate=3e-3).fit(
            X, targets
        )
    assert probe.fitted_.notes["validation_score"] > 0.8
    assert set(probe.encode(X).unique().tolist()) <= {-1.0, 0.0, 1.0}
    read = probe.decode(X, keys=[row[2] for row in rows])
    assert len(read) == 200
    plain = HyperdimensionalProbe(codebook).fit(X, named(drawn(0, 8, 200, 3)))
    with pytest.raises(ValueError, match="hands the probe the subject"):
        plain.decode(X, keys=[row[2] for row in rows])


def test_the_network_with_a_softmax_reads_unseen_examples(
    codebook: Codebook, embeddings: torch.Tensor
) -> None:
    probe = HyperdimensionalProbe(codebook, encoder="mlp", hidden=64, batch_size=64, epochs=15)
    probe.fit(states(TRAIN, embeddings, 10), named(TRAIN))
    assert probe.score(states(TRAIN, embeddings, 12), named(TRAIN)) > 0.8


def test_same_seed_same_bytes(codebook: Codebook, embeddings: torch.Tensor) -> None:
    X = states(TRAIN, embeddings, 10)
    for encoder in ("linear", "mlp"):
        first, second = (
            HyperdimensionalProbe(codebook, encoder=encoder, hidden=16, epochs=2, seed=4)
            .fit(X, named(TRAIN))
            .encode(X)
            for _ in range(2)
        )
        assert torch.equal(first, second)
        third = HyperdimensionalProbe(codebook, encoder=encoder, hidden=16, epochs=2, seed=5).fit(
            X, named(TRAIN)
        )
        assert not torch.equal(first, third.encode(X))


@pytest.mark.parametrize("encoder", ["linear", "ridge", "mlp"])
def test_saved_probes_decode_alike_and_another_codebook_is_refused(
    codebook: Codebook, embeddings: torch.Tensor, encoder: str, tmp_path: Path
) -> None:
    X = states(TRAIN, embeddings, 10)
    probe = HyperdimensionalProbe(codebook, encoder=encoder, hidden=16, epochs=2).fit(X, named(TRAIN))
    probe.save(tmp_path)
    back = load(tmp_path, codebook=codebook.fingerprint)
    assert isinstance(back, HyperdimensionalProbe)
    first, second = probe.decode(X), back.decode(X)
    assert first.names == second.names and torch.allclose(first.similarities, second.similarities)
    assert torch.equal(first.abstained, second.abstained)
    with pytest.raises(ProbeFileError, match="codebook"):
        load(tmp_path, codebook="another")
    codebook.permuted().save(tmp_path)
    with pytest.raises(ProbeFileError, match="not the one this probe was trained on"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "quadratic"}, "the encoders are: linear, embedding, ridge, mlp"),
        ({"reduction": "max"}, "the reductions are: none"),
        ({"holdout": "layers"}, "hold out 'groups' or 'concepts'"),
        ({"seed": -1}, "whole number from 0"),
        ({"regularisation": 0.0}, "positive number"),
        ({"level": 2.0}, "between 0 and 1"),
    ],
)
def test_wrong_parameters_are_named(
    codebook: Codebook, embeddings: torch.Tensor, change: dict[str, object], message: str
) -> None:
    probe = HyperdimensionalProbe(codebook, epochs=1).set_params(**change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            probe.fit(states(TRAIN, embeddings, 1), named(TRAIN))


def test_wrong_inputs_are_named(codebook: Codebook, embeddings: torch.Tensor) -> None:
    X = states(TRAIN, embeddings, 1)
    with pytest.raises(NotFittedError, match="fit"):
        HyperdimensionalProbe(codebook).decode(X)
    with pytest.raises(ValueError, match="599 labels for 600"):
        HyperdimensionalProbe(codebook).fit(X, named(TRAIN)[1:])
    with pytest.raises(ValueError, match="not among the 150 concepts"):
        HyperdimensionalProbe(codebook).fit(X, ["nowhere", *named(TRAIN)[1:]])
    broken = X.clone()
    broken[7, 3] = float("nan")
    with pytest.raises(ValueError, match="row 7"):
        HyperdimensionalProbe(codebook).fit(broken, named(TRAIN))
    probe = HyperdimensionalProbe(codebook, epochs=1).fit(X, named(TRAIN))
    with pytest.raises(ValueError, match="23 columns, but this probe was fitted on 24"):
        probe.decode(X[:, 1:])
    with pytest.raises(ValueError, match="right answers for 600"):
        evaluate(probe.decode(X), named(TRAIN)[1:])
