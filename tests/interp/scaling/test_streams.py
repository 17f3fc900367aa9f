"""Rows that come one after the other, and stores at addresses: the same states, in bounded memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from interp import scaling
from interp.addresses import Address, AddressLock, place
from interp.errors import ArtifactError, ConfigError, DataError
from interp.scaling import capturing
from interp.scaling.jobs import CaptureJob, Handed
from interp.store import ActivationStore, Part, write_shard
from tests.interp.scaling.test_scaling import PROMPTS, ROWS, SIZE, model
from tests.interp.test_store import SITES, part

ASKED = ["resid_post.0", "resid_post.2"]


def rows(n: int = ROWS, seen: list[int] | None = None) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(PROMPTS[:n]):
        if seen is not None:
            seen.append(number)
        yield {"id": number, "text": text}


def states(store: ActivationStore) -> list[list[float]]:
    found = store.load()
    return [found[site].flatten().tolist() for site in found.keys()]  # noqa: SIM118


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    """The states of the same prompts, all held in memory."""
    found = model().capture(PROMPTS, ASKED, "last")
    assert found["resid_post.0"].std() > 0
    return [found[site].flatten().tolist() for site in ASKED]


def same(found: list[list[float]], wanted: list[list[float]]) -> bool:
    return all(one == pytest.approx(other, abs=1e-5) for one, other in zip(found, wanted, strict=True))


def test_a_stream_gives_what_a_list_gives_and_goes_on_where_it_stopped(
    tmp_path: Path, known: list[list[float]]
) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from rows(9)
        raise TimeoutError("the line is dead")

    call = partial(scaling.stream, model, sites=ASKED, size=SIZE)
    with pytest.raises(TimeoutError):
        call(broken(), folder=tmp_path)
    assert len(ActivationStore(tmp_path)) == 8
    store = call(rows(), folder=tmp_path)
    assert same(states(store), known)
    whole = scaling.stream(model, rows(), ASKED, tmp_path / "whole", size=SIZE)
    assert states(whole) == states(store)
    with pytest.raises(DataError, match=r"shard 0 of .* holds other prompts than rows 0 to 3"):
        call(({"text": f"w{n:02d}"} for n in range(ROWS)), folder=tmp_path)
    with pytest.raises(DataError, match="holds 14 prompts, the rows given are 8"):
        call(rows(8), folder=tmp_path)
    with pytest.raises(DataError, match="row 0 has no column 'prompt'; its columns are: id, text"):
        call(rows(), folder=tmp_path / "other", column="prompt")
    with pytest.raises(ConfigError, match="begun for another request"):
        call(rows(), folder=tmp_path, positions="all")


@pytest.mark.slow
def test_workers_take_rows_as_they_need_them(tmp_path: Path, known: list[list[float]]) -> None:
    seen: list[int] = []
    read: list[int] = []
    adopt = ActivationStore.adopt

    def watched(store: ActivationStore) -> int:
        read.append(len(seen))
        return adopt(store)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActivationStore, "adopt", watched)
        store = scaling.stream(model, rows(seen=seen), ASKED, tmp_path, size=2, workers=2)
    assert same(states(store), known)
    assert all(n <= 2 * (done + 1) for done, n in enumerate(read)), "no shard more than workers had asked for"


def test_a_data_set_of_hugging_face_in_streaming_mode(
    tmp_path: Path, known: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows()))
    streamed = datasets.load_dataset(
        "json", data_files=str(tmp_path / "a.jsonl"), split="train", streaming=True, cache_dir=str(tmp_path)
    )
    store = scaling.stream(model, streamed, ASKED, tmp_path / "store", size=SIZE)
    assert same(states(store), known)


def local(folder: Path) -> Address:
    """A folder of this machine as if it were an address without renames and locks."""
    return Address(fsspec.filesystem("file"), folder.as_posix())


@pytest.fixture(params=["memory", "local"])
def somewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Address]:
    """Give an empty place on each of two file systems."""
    found = place(f"memory://{tmp_path.name}") if request.param == "memory" else local(tmp_path / "there")
    assert isinstance(found, Address)
    yield found
    found.remove()


def test_a_store_at_an_address_reads_back_and_notices_damage(
    somewhere: Address, known: list[list[float]]
) -> None:
    one = scaling.stream(model, rows(9), ASKED, somewhere, size=SIZE)
    assert len(one) == 9 and one.verify() == 6
    again = scaling.stream(model, rows(8), ASKED, somewhere / "resumed", size=SIZE)
    assert len(again) == 8
    store = scaling.stream(model, rows(), ASKED, somewhere / "resumed", size=SIZE)
    assert same(states(store), known) and store.summary().shards == 4
    assert sum(len(shard) for shard in store.shards()) == ROWS
    assert not [*store.folder.glob("activations/**/*tmp*")], "nothing is left over"
    for pattern in ("activations/resid_post.2/00001.safetensors", "activations/index/00002.json"):
        (file,) = store.folder.glob(pattern)
        content = bytearray(file.read())
        content[len(content) // 2] ^= 1
        file.write(bytes(content))
        with pytest.raises(ArtifactError, match=r"corrupt|is not valid JSON"):
            ActivationStore(store.folder).verify()
        content[len(content) // 2] ^= 1
        file.write(bytes(content))
    assert ActivationStore(store.folder).verify() == 8


def test_waiting_shards_are_adopted_at_an_address_too(somewhere: Address) -> None:
    keys = {site: "key" for site in SITES}
    write_shard(somewhere, Part(1, 4, 8), part(range(4, 8)), cache_keys=keys)
    with ActivationStore(somewhere, cache_keys=keys) as store:
        assert len(store) == 0
        write_shard(somewhere, Part(0, 0, 4), part(range(4)), cache_keys=keys)
        assert (store.adopt(), len(store)) == (2, 8)
        store.tidy()
    assert ActivationStore(somewhere).verify() == 2 * len(SITES)


def test_an_address_has_one_writer_and_a_dead_one_does_not_block(somewhere: Address) -> None:
    lock = AddressLock.acquire(somewhere)
    with pytest.raises(ConfigError, match=rf"is being written by process {os.getpid()} on .* remove"):
        AddressLock.acquire(somewhere)
    lock.release()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True)
    import platform

    card = {"pid": int(dead.stdout), "host": platform.node(), "time": "then"}
    (somewhere / ".lock").write(json.dumps(card).encode())
    AddressLock.acquire(somewhere).release()
    (somewhere / ".lock").write(json.dumps({**card, "host": "elsewhere"}).encode())
    with pytest.raises(ConfigError, match="on elsewhere, since then"):
        AddressLock.acquire(somewhere)


WRITER = """
import sys
from pathlib import Path
from tests.interp.scaling.test_streams import ASKED, local, model, rows
from interp import scaling
print("ready", flush=True)
scaling.stream(model, rows(), ASKED, local(Path(sys.argv[1])), size=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("trial", range(5))
def test_a_killed_writer_at_an_address_loses_at_most_one_shard(
    tmp_path: Path, trial: int, known: list[list[float]]
) -> None:
    import random
    import time

    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    time.sleep(random.Random(trial).uniform(0.1, 0.6))
    child.send_signal(signal.SIGKILL)
    child.wait()
    store = scaling.stream(model, rows(), ASKED, local(tmp_path), size=2)
    assert same(states(store), known)


def test_what_is_no_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'nonsense://x' cannot be used"):
        place("nonsense://x")
    assert place(f"file://{tmp_path}") == tmp_path

    def elsewhere(job: CaptureJob, handed: Iterable[Handed], workers: int) -> Iterator[Part]:
        """Make shards in the memory of another process."""
        return (one[0] for one in handed)

    monkeypatch.setitem(vars(capturing), "ENGINES", {"processes": elsewhere})
    with pytest.raises(ConfigError, match=r"holds 0 of 14 prompts.*the workers do not see the same files"):
        scaling.stream(model, rows(), ASKED, f"memory://{tmp_path.name}", size=SIZE, workers=2)
