"""Probes carried between models: against fits by hand, a turned model, and copies with more noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import interp
from interp.activations import Activations
from interp.analyses import transfer
from interp.analyses.transfer import probe_transfer
from interp.errors import ConfigError, DataError, SiteError
from interp.results import FindingsResult
from interp.tasks import Labelled, labelled
from probes.controls import shuffled_labels
from tests.noisy import demo, noisy
from tests.tiny import tiny

N = 400
AT = "linear probe, {}, layer 17"
HIGH = "hyperdimensional probe, {}, layer 17"


@cache
def before() -> FindingsResult:
    return probe_transfer(demo(), n=N, layers="17")


@cache
def after() -> FindingsResult:
    return probe_transfer(noisy(demo(), 0.3), n=N, layers="17", reference=before())


def states(model: interp.Model, data: Labelled) -> np.ndarray:
    """Read the Hugging Face model itself, prompts of one length together."""
    ids = model.tokenize(list(data.texts)).token_ids
    found = np.empty((len(ids), 64))
    for length in set(map(len, ids)):
        rows = [i for i, row in enumerate(ids) if len(row) == length]
        with torch.no_grad():
            run = model.hf(torch.tensor([ids[i] for i in rows]), output_hidden_states=True)
        found[rows] = run.hidden_states[18][:, -1].numpy()
    return found


def test_every_accuracy_is_that_of_probes_fitted_by_hand() -> None:
    data = labelled("analogy-relation", n=N)
    labels, parts = np.array(data.labels), np.array(data.splits)
    penalty = before().table("penalties")["penalty"][0]
    rows = [states(model, data) for model in (demo(), noisy(demo(), 0.3))]
    train, test = parts == "train", parts == "test"
    fitted = []
    for X in rows:
        scaler = StandardScaler().fit(X[train])
        solver = LogisticRegression(C=1 / (penalty * train.sum()), max_iter=3000, tol=1e-6)
        solver.fit(scaler.transform(X[train]), labels[train])
        fitted.append((scaler, solver))
    plan = {"retrained": (1, 1), "from the reference": (0, 1), "to the reference": (1, 0)}
    values = {}
    for what, (taught, read) in plan.items():
        scaler, solver = fitted[taught]
        values[what] = solver.score(scaler.transform(rows[read][test]), labels[test])
        found = after().finding(AT.format(what))
        assert found.value == pytest.approx(values[what], abs=0.02), what
        assert found.groups == tuple(np.array(data.groups)[test]) and found.floor < 0.2
    assert max(values.values()) - min(values.values()) > 0.05
    raw = [solver.coef_ / scaler.scale_ for scaler, solver in fitted]
    first, second = (one - one.mean(0) for one in raw)
    want = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(after().finding(AT.format("directions")).values, want, atol=0.02)


def test_the_model_itself_loses_nothing() -> None:
    again = probe_transfer(demo(), n=N, layers="17", reference=before())
    for one, other in zip(before().found, again.found, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(one.values, other.values, atol=1e-9)
    for name in (AT.format("directions"), HIGH.format("same concept"), HIGH.format("codebook agreement")):
        assert before().finding(name).value == pytest.approx(1) and abs(before().finding(name).floor) < 0.3
    for form in (AT, HIGH):
        assert before().finding(form.format("retrained")).excess > 0.3
        assert (
            before().finding(form.format("retrained")).value
            == before().finding(form.format("to the reference")).value
        )


def test_the_control_is_the_mean_of_twenty_probes_of_exchanged_labels() -> None:
    """By scikit-learn, on labels exchanged in every part; a single one of them is off by luck."""
    data = labelled("analogy-relation", n=N)
    labels, parts = np.array(data.labels), np.array(data.splits)
    penalty, X = before().table("penalties")["penalty"][0], states(demo(), data)
    train, test = parts == "train", parts == "test"
    scaler = StandardScaler().fit(X[train])
    hits = []
    for seed in range(20):
        wrong = labels.copy()
        for part in ("train", "test"):
            rows = np.flatnonzero(parts == part)
            groups = [data.groups[i] for i in rows]
            wrong[rows] = shuffled_labels(labels[rows].tolist(), groups=groups, seed=seed)
        solver = LogisticRegression(C=1 / (penalty * train.sum()), max_iter=3000, tol=1e-6)
        solver.fit(scaler.transform(X[train]), wrong[train])
        hits.append(solver.predict(scaler.transform(X[test])) == wrong[test])
    assert before().finding(AT.format("retrained")).floor == pytest.approx(np.mean(hits), abs=0.01)
    assert np.std(np.mean(hits, axis=1)) > 0.01


def turned(by: torch.Tensor) -> Callable[..., Activations]:
    """Read activations as they are, and turn them."""
    plain = transfer.captured

    def read(*given: Any, **named: Any) -> Activations:
        found = plain(*given, **named)
        return replace(found, tensors={site: rows @ by for site, rows in found.items()})

    return read


def test_a_turned_model_keeps_what_can_be_read_and_loses_what_transfers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = before()
    turn = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))[0]
    monkeypatch.setattr(transfer, "captured", turned(turn))
    found = probe_transfer(demo(), n=N, layers="17", reference=known)
    for form in (AT, HIGH):
        assert (
            found.finding(form.format("retrained")).value
            > known.finding(form.format("retrained")).value - 0.2
        )
        for way in ("from the reference", "to the reference"):
            assert found.finding(form.format(way)).value < 0.2
    assert abs(found.finding(AT.format("directions")).value) < 0.2
    assert found.finding(HIGH.format("codebook agreement")).value > 0.5


def test_more_noise_keeps_less() -> None:
    found = [
        probe_transfer(noisy(demo(), share), n=N, layers="17", reference=before())
        for share in (0.02, 0.3, 1.0)
    ]
    for name in (
        AT.format("from the reference"),
        AT.format("directions"),
        HIGH.format("from the reference"),
        HIGH.format("same concept"),
        HIGH.format("codebook agreement"),
    ):
        values = [one.finding(name).value for one in found]
        assert values == sorted(values, reverse=True) and values[0] > values[-1] + 0.3, name


def own(n: int = 48) -> Labelled:
    """Make prompts of which one label has no test prompt."""
    texts = tuple(f"w{i % 7:02d} w{i:02d}" for i in range(n))
    labels = tuple(("a", "b", "c")[i % 2 if i < n - 4 else 2] for i in range(n))
    splits = tuple("train" if i % 3 or i >= n - 4 else "test" for i in range(n))
    return Labelled("own", "", texts, labels, tuple(map(str, range(n))), splits)


@pytest.mark.parametrize("family", ["gpt_neox", "gemma2"])
def test_own_data_on_other_families_and_in_bf16(family: str) -> None:
    model = interp.load(tiny(family)[0], tokenizer=tiny(family)[1])
    full = probe_transfer(model, data=own(), layers=[0, 2])
    half = probe_transfer(noisy(model, 0.0, dtype=torch.bfloat16), data=own(), layers=[0, 2], reference=full)
    assert half.finding("linear probe, directions, layer 0").value > 0.9
    assert full.about.data["labels"] == 2 and any(
        "1 label was left out, such as 'c'" in text for text in full.warnings
    )
    assert [one.name for one in full.found] == [one.name for one in half.found]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="probed at layers"):
        probe_transfer(demo(), n=N, layers="18", reference=before())
    with pytest.raises(DataError, match="other prompts, labels, groups"):
        probe_transfer(demo(), n=N - 20, layers="17", reference=before())
    relabelled = replace(labelled("analogy-relation", n=N), groups=tuple(map(str, range(N))))
    with pytest.raises(DataError, match="other prompts, labels, groups"):
        probe_transfer(demo(), n=N, layers="17", data=relabelled, reference=before())
    with pytest.raises(ConfigError, match="the tasks are"):
        probe_transfer(demo(), data="nothing")
    with pytest.raises(ConfigError, match="at least 1"):
        probe_transfer(demo(), n=0)
    with pytest.raises(SiteError):
        probe_transfer(demo(), n=N, layers="30")
