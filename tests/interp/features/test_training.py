"""Training: planted directions are found, interruptions change no byte, dead features come back."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import ConfigError, DataError
from interp.features import training
from interp.features.optimisation import State, step
from interp.features.training import Plan, gather, train
from interp.store import ActivationStore
from tests.tiny import tiny

N, WIDTH = 12, 8


def sparse(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """States that are sums of two of 12 directions in 8 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(7))
    rows = rows / rows.norm(dim=1, keepdim=True)
    codes = torch.zeros(n, N)
    for at in range(n):
        codes[at, torch.randperm(N, generator=generator)[:2]] = 1 + torch.rand(2, generator=generator)
    return codes @ rows, rows


def test_a_step_is_that_of_autograd_and_torchs_adam() -> None:
    x, _ = sparse(64)
    state = State.begun(x, 20, seed=0)
    leaves = {name: value.clone().requires_grad_() for name, value in state.weights.items()}
    optimiser = torch.optim.Adam(list(leaves.values()), lr=0.01)
    for _ in range(3):
        pre = (x - leaves["decoder_bias"]) @ leaves["encoder"].T + leaves["encoder_bias"]
        values, index = pre.topk(3, dim=-1)
        out = (
            torch.zeros_like(pre).scatter(-1, index, values.relu()) @ leaves["decoder"]
            + leaves["decoder_bias"]
        )
        loss = (x - out).square().sum() / (x - x.mean(0)).square().sum()
        optimiser.zero_grad()
        loss.backward()
        rows = leaves["decoder"].detach()
        leaves["decoder"].grad -= (leaves["decoder"].grad * rows).sum(1, keepdim=True) * rows
        optimiser.step()
        with torch.no_grad():
            leaves["decoder"] /= leaves["decoder"].norm(dim=1, keepdim=True)
        found = step(state, x, k=3, rate=0.01, dead_after=10**9)
        assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, value in state.weights.items():
        assert torch.allclose(value, leaves[name].detach(), atol=1e-5), name


def test_planted_directions_are_found() -> None:
    x, rows = sparse(4096)
    state = State.begun(x, 24, seed=0)
    for at in range(900):
        part = x[(at * 256) % 4096 :][:256]
        left = step(state, part, k=2, rate=0.01 * (1 - at / 900), dead_after=3000)
    assert left < 0.1
    closest = (state.weights["decoder"] @ rows.T).max(dim=0).values
    assert int((closest > 0.95).sum()) >= 10
    drawn = torch.randn(24, WIDTH, generator=torch.Generator().manual_seed(1))
    by_chance = (drawn / drawn.norm(dim=1, keepdim=True) @ rows.T).max(dim=0).values
    assert int((by_chance > 0.95).sum()) <= 2


def test_the_auxiliary_loss_revives_dead_features() -> None:
    x, _ = sparse(2048)
    dead = {}
    for weight in (0.0, 1 / 32):
        state = State.begun(x, 48, seed=0)
        state.weights["encoder"][24:] *= 0.2  # too quiet to be among the largest
        for at in range(300):
            step(state, x[(at * 128) % 2048 :][:128], k=2, rate=0.02, dead_after=500, auxiliary=weight)
        dead[weight] = int((state.silent[24:] >= 500).sum())
    assert dead[0.0] > 20 and dead[1 / 32] <= dead[0.0] - 4


@cache
def stored(folder: str) -> ActivationStore:
    hf, words = tiny("llama")
    model = interp.load(hf, tokenizer=words)
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(4, 60, (12,), generator=generator).tolist() for _ in range(48)]
    with ActivationStore(folder) as store:
        gather(model, "resid_post.1", texts, store, shard=20)
    return ActivationStore(folder)


PLAN = Plan("resid_post.1", 64, k=4, epochs=3, batch=64, rate=0.01)


def test_an_interruption_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "EVERY", 7)
    store = stored(str(tmp_path / "store"))
    whole = train(store, PLAN)
    again = train(store, PLAN)
    assert whole.dictionary.fingerprint == again.dictionary.fingerprint
    stopped = train(store, PLAN, folder=tmp_path / "run", until=9)
    assert stopped.steps == 9 < whole.steps and stopped.dictionary.fingerprint != whole.dictionary.fingerprint
    resumed = train(store, PLAN, folder=tmp_path / "run")
    assert resumed.dictionary.fingerprint == whole.dictionary.fingerprint
    assert resumed.history == whole.history
    assert train(store, PLAN, folder=tmp_path / "run").steps == whole.steps  # finished: nothing is done again
    other = train(store, replace(PLAN, seed=1))
    assert other.dictionary.fingerprint != whole.dictionary.fingerprint
    with pytest.raises(ConfigError, match="begun with another seed"):
        train(store, replace(PLAN, seed=1), folder=tmp_path / "run")


def test_the_dictionary_is_one_of_the_states_as_they_are(tmp_path: Path) -> None:
    store = stored(str(tmp_path / "store"))
    states = torch.cat([training.states_of(acts, "resid_post.1") for acts in store.shards()])
    assert len(states) == 48 * 11  # first tokens are left out
    found = train(store, replace(PLAN, epochs=30)).dictionary
    left = found.errors(states).square().sum() / (states - states.mean(0)).square().sum()
    assert float(left) < 0.4
    assert torch.allclose(found.decoder.norm(dim=1), torch.ones(64), atol=1e-5)
    assert int((found.encode(states) != 0).sum(dim=1).max()) <= 4


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="k is between 1"):
        Plan("resid_post.1", 8, k=9)
    hf, words = tiny("llama")
    model = interp.load(hf, tokenizer=words)
    with ActivationStore(tmp_path) as store:
        store.append(model.capture([[5], [6]], "resid_post.1", "all"))
    with pytest.raises(DataError, match=r"no state of resid_post\.1"):
        train(ActivationStore(tmp_path), PLAN)
