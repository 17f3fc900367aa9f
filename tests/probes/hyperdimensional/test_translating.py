"""The encoder that needs no labels: final states in, names out, for concepts that nothing was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from probes import load
from probes.hyperdimensional import HyperdimensionalProbe
from probes.translation import Moments, fit_translator
from probes.vsa import MAP, Codebook

WIDTH, CONCEPTS = 24, 150
NAMES = [f"concept {i}" for i in range(CONCEPTS)]


def rows() -> Tensor:
    return torch.randn(CONCEPTS, WIDTH, generator=torch.Generator().manual_seed(1))


def codebook(dimension: int = 4096) -> Codebook:
    return Codebook.from_embeddings(MAP(dimension), NAMES, rows(), seed=0)


def passed(n: int, seed: int, *, low: int = 0, high: int = CONCEPTS) -> tuple[Tensor, Tensor, list[str]]:
    """States, the final states of a planted model that is about to say a concept, and which."""
    draws = torch.Generator().manual_seed(seed)
    codes = torch.randint(low, high, (n,), generator=draws)
    finals = 2 * rows()[codes] + 0.5 * torch.randn(n, WIDTH, generator=draws)
    turn = torch.linalg.qr(torch.randn(2 * WIDTH, WIDTH, generator=torch.Generator().manual_seed(2))).Q.T
    states = finals @ turn + 0.1 * torch.randn(n, 2 * WIDTH, generator=draws) + 3
    return states, finals, [NAMES[code] for code in codes.tolist()]


def test_concepts_that_no_state_was_about_are_read_without_a_label() -> None:
    states, finals, _ = passed(400, 3, high=100)
    test, _, names = passed(200, 4, low=100)
    probe = HyperdimensionalProbe(codebook(), encoder="translator").fit(states, finals)
    assert probe.score(test, names) > 0.9
    control = HyperdimensionalProbe(codebook().permuted(), encoder="translator").fit(states, finals)
    assert control.score(test, names) < 0.05
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    shuffled = HyperdimensionalProbe(codebook(), encoder="translator").fit(states, finals[order])
    assert shuffled.score(test, names) < 0.1 and shuffled.fitted_.notes["validation_score"] < 0.1


def test_it_is_the_translator_and_then_the_codebooks_own_matrix() -> None:
    states, finals, _ = passed(300, 3)
    held, later, _ = passed(100, 5)
    probe = HyperdimensionalProbe(codebook(), encoder="translator").fit(
        states, finals, validation=(held, later)
    )
    mean, scale = states.mean(0), states.std(0, correction=0)
    train = Moments(2 * WIDTH, WIDTH).add((states - mean) / scale, finals)
    after = Moments(2 * WIDTH, WIDTH).add((held - mean) / scale, later)
    penalties = tuple(10.0**power for power in range(-7, 2))
    right = fit_translator(train, after, penalties)
    assert probe.fitted_.notes["regularisation"] == right.penalty
    assert probe.fitted_.notes["validation_score"] == pytest.approx(right.score)
    given = codebook()
    assert given.projection is not None
    centred = ((held - mean) / scale) @ right.weight.float()
    expected = centred @ given.projection.matrix(given.algebra)
    assert torch.allclose(centred + finals.mean(0), right((held - mean) / scale), atol=1e-4)
    assert torch.allclose(probe.encode(held), expected, atol=1e-3)


def test_it_abstains_on_exchanged_states_and_is_saved(tmp_path: Path) -> None:
    states, finals, _ = passed(400, 3)
    probe = HyperdimensionalProbe(codebook(), encoder="translator").fit(states, finals)
    test, _, names = passed(200, 4)
    columns = [
        test[torch.randperm(200, generator=torch.Generator().manual_seed(at)), at] for at in range(2 * WIDTH)
    ]
    assert float(probe.decode(torch.stack(columns, 1)).abstained.double().mean()) > 0.8
    assert float(probe.decode(test).abstained.double().mean()) < 0.3
    again = load(probe.save(tmp_path / "probe"))
    assert isinstance(again, HyperdimensionalProbe)
    assert again.predict(test).tolist() == probe.predict(test).tolist() and again.score(test, names) > 0.9


def test_what_cannot_be_translated_is_said() -> None:
    states, finals, names = passed(100, 3)
    with pytest.raises(ValueError, match="learns the model's own final states and no labels"):
        HyperdimensionalProbe(codebook(), encoder="translator").fit(states, names)
    with pytest.raises(ValueError, match=r"y is a table of numbers, and encoder='ridge' learns concepts"):
        HyperdimensionalProbe(codebook(), encoder="ridge").fit(states, finals)
    with pytest.raises(ValueError, match=r"make the codebook with Codebook\.from_embeddings"):
        HyperdimensionalProbe(Codebook.random(MAP(64), NAMES), encoder="translator").fit(states, finals)
    with pytest.raises(ValueError, match="final states of width 23 cannot be carried"):
        HyperdimensionalProbe(codebook(), encoder="translator").fit(states, finals[:, 1:])
    with pytest.raises(ValueError, match="without their codebook"):
        HyperdimensionalProbe(encoder="translator").fit(states, np.asarray(finals))
    with pytest.raises(ValueError, match="not finite"):
        HyperdimensionalProbe(codebook(), encoder="translator").fit(states, finals * float("nan"))
