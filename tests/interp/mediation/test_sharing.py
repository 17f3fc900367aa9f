"""Walks shared by files: the numbers of one process, byte for byte; what is lost or damaged is made again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from interp import mediation, scaling
from interp.errors import ConfigError
from interp.mediation.batching import Costs
from interp.mediation.effects import Effects
from interp.mediation.partial_forward import PartialForward
from interp.mediation.sharing import Shared, sharing
from interp.models.model import Model
from tests.interp.mediation.edges.models import made, pairs_of

ASKED = ["head.*", "resid_post.*"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks of few rows, so that there are many."""
    whole = Costs.of
    monkeypatch.setattr(Costs, "of", lambda model: Costs(whole(model).depth, 0.0, 60))


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the sizes of the walks that are run."""
    last, seen = PartialForward.last, list[int]()

    def watched(self: PartialForward, rows: object, *given: object, **more: object) -> torch.Tensor:
        seen.append(len(rows))  # type: ignore[arg-type]
        return last(self, rows, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(PartialForward, "last", watched)
    return seen


def effects(model: Model, replacement: str = "interchange") -> Effects:
    return mediation.exhaustive(model, pairs_of(model, 4), ASKED, replacement=replacement, seed=0)


def equal(one: Effects, other: Effects) -> bool:
    arrays = all(np.array_equal(one.values[name], other.values[name]) for name in one.values)
    return arrays and one.cost == other.cost and one.noise == other.noise and one.verdict() == other.verdict()


def test_a_helper_makes_the_walks_and_the_numbers_are_those_of_one_process(
    tmp_path: Path, walked: list[int]
) -> None:
    model = made()
    alone = effects(model)
    whole = len(walked)
    walked.clear()
    with sharing(tmp_path, seed=1):
        assert equal(effects(model), alone)
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) > 20
    walked.clear()
    with sharing(tmp_path):
        assert equal(effects(model), alone)
    assert len(walked) == whole - len(files), "what is left are checks"
    lost, damaged = files[3], files[7].with_suffix(".safetensors")
    lost.unlink()
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(bytes(content))
    walked.clear()
    with sharing(tmp_path):
        assert equal(effects(model), alone)
    assert len(walked) == whole - len(files) + 2
    assert float(np.abs(alone.mean()).max()) > 0.01


def test_walks_of_another_question_or_model_are_not_taken(tmp_path: Path, walked: list[int]) -> None:
    model = made()
    other = made("gpt2")
    with sharing(tmp_path):
        effects(model)
    n = len([*tmp_path.glob("*.json")])
    for question, wanted in (
        (partial(effects, model, "zero"), effects(model, "zero")),
        (partial(effects, other), effects(other)),
    ):
        with sharing(tmp_path):
            assert equal(question(), wanted)
        assert len([*tmp_path.glob("*.json")]) > n
        n = len([*tmp_path.glob("*.json")])


def test_without_sharing_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shared, "give", lambda *_: pytest.fail("written"))
    effects(made())


def _killed_once(folder: str) -> Effects:
    """The call; the first helper to make its second walk kills itself in the middle of writing it."""
    give: Callable[..., None] = Shared.give

    def deadly(self: Shared, name: str, made: tuple[torch.Tensor, float]) -> None:
        give(self, name, made)
        mark = Path(folder) / "killed"
        if self.seed is not None and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    Shared.give = deadly  # type: ignore[method-assign]
    return effects(made())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_two_processes_and_a_killed_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import time

    def patient() -> Effects:
        """The same call, once the helper has begun."""
        until = time.monotonic() + 120
        while not (tmp_path / "killed").exists() and time.monotonic() < until:
            time.sleep(0.1)
        return effects(made())

    alone = effects(made())
    same = partial(_killed_once, str(tmp_path))
    assert equal(scaling.together(patient, same, tmp_path / "walks", workers=2), alone)
    assert (tmp_path / "killed").exists() and not (tmp_path / "walks").exists()
    assert "1 of 1 helping process ended early" in caplog.text


def test_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 workers cannot work"):
        scaling.together(lambda: 1, int, tmp_path, workers=0)
    assert scaling.together(lambda: 1, int, tmp_path / "x", workers=1) == 1
