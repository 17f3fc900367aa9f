"""Captures by several processes: the same bytes as by one, whoever dies; what does not belong is refused."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from interp import scaling
from interp.errors import ConfigError, DataError, ModelError
from interp.models import Model, load
from interp.scaling.capturing import fill
from interp.scaling.engines import _refuse_deadly, gpu_of
from interp.scaling.jobs import CaptureJob, Handed, cache_keys, help_out
from interp.store import ActivationStore, Part, discard, write_shard
from tests.interp.test_store import SITES, part, tree

ROWS, SIZE = 14, 4
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


def model(seed: int = 0) -> Model:
    """Give the same tiny model in every process."""
    from tests.tiny import build, tokenizer

    return load(build("llama", seed=seed), tokenizer=tokenizer())


PROMPTS = [f"w{n:02d} w{n * 7 % 60:02d} w{n % 4:02d}"[: 3 + 4 * (n % 3)] for n in range(ROWS)]


@dataclass(frozen=True)
class Deadly(CaptureJob):
    """Kill the process after a shard's tensors are written and before its record is, some times."""

    times: int = 1

    def write(self, model: Model, handed: Handed) -> Part:
        for number in range(self.times if handed[0].number == 1 else 0):
            mark = self.folder / f"killed-{number}"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().write(model, handed)


def job(folder: Path, times: int = 1) -> Deadly:
    here = model()
    sites = ("resid_post.0", "resid_post.2")
    keys = cache_keys(here, here.tokenize(PROMPTS), sites, "last")
    return Deadly(model, here.fingerprint, folder, sites, "last", keys, times=times)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give the store that one process appends to."""
    folder = tmp_path_factory.mktemp("alone")
    one, tokens = job(folder), model().tokenize(PROMPTS)
    with ActivationStore(folder, cache_keys=one.keys) as store:
        for rows in store.missing(ROWS, size=SIZE):
            store.append(one.states(model(), tokens.select(rows)))
    return tree(folder)


@POSIX
def test_two_processes_make_the_same_bytes_and_a_killed_one_costs_its_shard(
    tmp_path: Path, alone: dict[str, bytes]
) -> None:
    one, tokens = job(tmp_path), model().tokenize(PROMPTS)
    with ActivationStore(tmp_path, cache_keys=one.keys) as store:
        counts = list(fill(store, one, tokens, workers=2, engine="processes", size=SIZE))
    assert (tmp_path / "killed-0").exists() and len(counts) == 4
    (tmp_path / "killed-0").unlink()
    assert tree(tmp_path) == alone
    assert ActivationStore(tmp_path).verify() == 8


def test_a_shard_that_ends_process_after_process_is_given_up() -> None:
    ended = Counter[int]()
    for _ in range(2):
        _refuse_deadly(Part(1, 4, 8), ended)
    _refuse_deadly(Part(2, 8, 12), ended)
    with pytest.raises(ModelError, match=r"shard 1 \(prompts 4 to 7\) ended 3 processes.*fewer workers"):
        _refuse_deadly(Part(1, 4, 8), ended)


def test_a_process_with_other_weights_is_refused(tmp_path: Path) -> None:
    other = CaptureJob(partial(model, seed=1), model().fingerprint, tmp_path, ("embed",), "last", {})
    with pytest.raises(ModelError, match="other weights than the job was made for"):
        other.model()


def test_helpers_make_what_is_left_and_leave_nothing_that_was_made_meanwhile(
    tmp_path: Path, alone: dict[str, bytes]
) -> None:
    here = model()
    one, tokens = job(tmp_path, times=0), here.tokenize(PROMPTS)
    with ActivationStore(tmp_path, cache_keys=one.keys) as store:
        todo = partial(ActivationStore.to_do, size=SIZE)
        helped = [part.number for part in help_out(one, here, tokens, seed=1, size=SIZE)]
        assert sorted(helped) == [1, 2, 3], "the first is the holder's"
        assert [part.number for part in todo(store, ROWS)] == [0]
        late = Part(0, 0, SIZE)
        one.write(here, (late, tokens.select(late.rows)))  # another helper was at it too
        assert list(scaling.alone(store, one, here, tokens, size=SIZE)) == []
        assert len(store) == ROWS
        one.write(here, (late, tokens.select(late.rows)))
        assert discard(tmp_path, late) and not discard(tmp_path, late)
    assert tree(tmp_path) == alone


def test_a_helper_counts_shards_as_its_own_that_the_holder_adopts_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = model()
    one, tokens = job(tmp_path, times=0), here.tokenize(PROMPTS)
    write = Deadly.write
    with ActivationStore(tmp_path, cache_keys=one.keys) as store:

        def then_the_rest(self: Deadly, model: Model, handed: Handed) -> Part:
            done = write(self, model, handed)
            assert list(scaling.alone(store, one, here, tokens, size=SIZE))[-1] == ROWS
            return done

        monkeypatch.setattr(Deadly, "write", then_the_rest)
        helped = list(help_out(one, here, tokens, seed=0, size=SIZE))
    assert len(helped) == 1 and helped[0].number in (1, 2, 3)


def test_waiting_shards_count_in_order_and_only_whole(tmp_path: Path) -> None:
    keys = {site: "key" for site in SITES}
    write_shard(tmp_path, Part(1, 4, 8), part(range(4, 8)), cache_keys=keys)
    (tmp_path / "activations" / ".waiting" / "00002").mkdir()  # a process that has not finished its shard
    with ActivationStore(tmp_path, cache_keys=keys) as store:
        assert (len(store), [one.number for one in store.to_do(12, size=4)]) == (0, [0, 2])
        write_shard(tmp_path, Part(0, 0, 4), part(range(4)), cache_keys=keys)
        assert (store.adopt(), len(store), store.adopt()) == (2, 8, 0)
        assert [one.number for one in store.to_do(12, size=4)] == [2]
        store.append(part(range(8, 12)))
        store.tidy()
    with ActivationStore(tmp_path / "plain", cache_keys=keys) as plain:
        for start in range(0, 12, 4):
            plain.append(part(range(start, start + 4)))
    assert tree(tmp_path / "activations") == tree(tmp_path / "plain" / "activations")


@pytest.mark.parametrize("moved", range(len(SITES) + 1))
def test_a_crash_while_a_shard_is_moved_loses_nothing(tmp_path: Path, moved: int) -> None:
    keys = {site: "key" for site in SITES}
    write_shard(tmp_path, Part(0, 0, 4), part(range(4)), cache_keys=keys)
    root = tmp_path / "activations"
    for site in SITES[:moved]:
        (root / site).mkdir()
        (root / ".waiting/00000" / f"{site}.safetensors").replace(root / site / "00000.safetensors")
    with ActivationStore(tmp_path, cache_keys=keys) as store:
        assert len(store) == 4 and store.verify() == len(SITES)


def test_shards_of_another_request_size_or_length_are_refused(tmp_path: Path) -> None:
    keys = {site: "key" for site in SITES}
    with pytest.raises(DataError, match="shard 0 has 4 rows, but 3 were given"):
        write_shard(tmp_path, Part(0, 0, 4), part(range(3)), cache_keys=keys)
    write_shard(tmp_path, Part(0, 0, 4), part(range(4)), cache_keys={site: "other" for site in SITES})
    with (
        pytest.raises(ConfigError, match="begun for another request"),
        ActivationStore(tmp_path, cache_keys=keys),
    ):
        pass
    write_shard(tmp_path / "b", Part(0, 8, 12), part(range(8, 12)), cache_keys=keys)
    with (
        pytest.raises(DataError, match="begins with row 8, but 0 rows are before it"),
        ActivationStore(tmp_path / "b", cache_keys=keys),
    ):
        pass


def test_wrong_calls_say_what_there_is(tmp_path: Path) -> None:
    tokens = model().tokenize(PROMPTS[:2])
    with ActivationStore(tmp_path) as store:
        with pytest.raises(ConfigError, match=r"no engine 'spark'\. Engines: processes, ray"):
            list(fill(store, job(tmp_path), tokens, workers=1, engine="spark"))
        with pytest.raises(ConfigError, match="0 workers cannot work"):
            list(fill(store, job(tmp_path), tokens, workers=0, engine="processes"))
    if find_spec("ray") is None:
        with pytest.raises(ConfigError, match=r"pip install .interp-toolkit\[ray\]'"):
            scaling.capture(model, PROMPTS, ["embed"], tmp_path / "x", engine="ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns of its own settings
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_makes_the_same_bytes(tmp_path: Path, alone: dict[str, bytes]) -> None:
    sites = ["resid_post.0", "resid_post.2"]
    scaling.capture(model, PROMPTS, sites, tmp_path, engine="ray", workers=2, size=SIZE)
    assert tree(tmp_path) == alone


def test_each_worker_sees_one_gpu_where_several_are_listed() -> None:
    listed = {"CUDA_VISIBLE_DEVICES": "3,5"}
    assert [gpu_of(n, listed) for n in range(3)] == ["3", "5", "3"]
    assert gpu_of(0, {}) is gpu_of(1, {"CUDA_VISIBLE_DEVICES": "0"}) is None
