"""The store on disk: reads back what was appended, survives being killed, refuses what does not belong."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.activations import Activations
from interp.errors import ArtifactError, ConfigError, DataError, SiteError
from interp.store import ActivationStore
from tests.interp.test_activations import made

SITES = ("resid_post.0", "resid_post.1", "head.0.3")
TOTAL, SIZE = 30, 4
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")


def part(rows: range, *, width: int = 3, several: bool = False, **facts: Any) -> Activations:
    """Make the same activations for the same rows, whoever asks."""
    lengths = [1 + row % 3 for row in rows] if several else None
    return made(len(rows), names=SITES, lengths=lengths, width=width, seed=rows.start, **facts)


def fill(folder: Path, *, total: int = TOTAL, width: int = 3, done: Callable[[], Any] | None = None) -> None:
    """Append what is missing, as a capture does."""
    with ActivationStore(folder, cache_keys={site: "key" for site in SITES}) as store:
        for rows in store.missing(total, size=SIZE):
            store.append(part(rows, width=width))
            if done is not None:
                done()


def tree(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Give the folder of a finished store."""
    fill(tmp_path)
    return tmp_path


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.booleans(),
    st.lists(st.integers(-8, 7), min_size=1, max_size=12),
)
@settings(max_examples=30, deadline=None)
def test_rows_are_read_in_the_order_asked(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], several: bool, asked: list[int]
) -> None:
    """Whatever the shards and the rows: reading equals selecting from the parts joined in memory."""
    folder = tmp_path_factory.mktemp("store")
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    parts = [
        part(range(start, start + size), several=several) for start, size in zip(starts, sizes, strict=True)
    ]
    with ActivationStore(folder) as store:
        assert [store.append(each) for each in parts] == list(range(len(parts)))
    whole = Activations.concatenate(parts)
    store = ActivationStore(folder)
    assert len(store) == sum(sizes) and store.n_shards == len(sizes)
    assert store.load() == whole
    assert list(store.shards()) == parts
    rows = [row % len(store) - len(store) * (row < 0) for row in asked]
    assert store.load(rows=rows) == whole.select(examples=rows)
    assert torch.equal(store.read("head.0.3", rows), whole.select(examples=rows)["head.0.3"])
    assert store.load("resid_post.*", slice(0, 1)).keys() == ("resid_post.0", "resid_post.1")


def test_the_layout_is_the_documented_one(filled: Path) -> None:
    names = sorted(tree(filled))
    assert names[0] == "activations/head.0.3/00000.safetensors"
    assert "activations/index/00007.json" in names and "activations/store.json" in names
    assert len(names) == 8 * 4 + 1
    store = ActivationStore(filled)
    assert repr(store) == f"ActivationStore({str(filled)!r}: 30 examples, 3 sites)"
    assert store.cache_keys == {site: "key" for site in SITES}
    assert [str(site) for site in store.sites] == ["head.0.3", "resid_post.0", "resid_post.1"]
    assert store.verify() == 8 * 3


def test_missing_rows_are_those_not_there_yet(filled: Path) -> None:
    store = ActivationStore(filled)
    assert list(store.missing(30)) == []
    assert list(store.missing(37, size=4)) == [range(30, 34), range(34, 37)]
    with pytest.raises(DataError, match="holds 30 examples, but 29 were asked"):
        store.missing(29)


def test_opening_writes_nothing(tmp_path: Path) -> None:
    assert len(ActivationStore(tmp_path / "new")) == 0
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_leaves_the_finished_shards_and_no_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ActivationStore(tmp_path) as store:
        store.append(part(range(4)))
        raise ZeroDivisionError
    assert len(ActivationStore(tmp_path)) == 4
    assert not [name for name in tree(tmp_path) if "lock" in name]


@posix
@pytest.mark.parametrize(
    "trial", [*range(8), *(pytest.param(n, marks=pytest.mark.slow) for n in range(8, 100))]
)
def test_a_killed_writer_loses_at_most_one_shard(tmp_path: Path, trial: int) -> None:
    """Kill at a random moment, resume, and find the bytes of a run that was never interrupted.

    The writer says when an append has returned: none of those may be lost, and at most one more may be there.
    """
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    began = time.monotonic()
    fill(clean, width=2000)
    moment = random.Random(trial).uniform(0, 1.1 * (time.monotonic() - began))
    acknowledged = _killed_after(moment, killed)
    found = ActivationStore(killed)
    assert acknowledged <= found.n_shards <= acknowledged + 1
    assert found.verify() == 3 * found.n_shards
    fill(killed, width=2000)
    assert tree(killed) == tree(clean)


def _killed_after(moment: float, folder: Path) -> int:
    """Fill a folder in a child process that is killed after some seconds; count the appends that returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fill(folder, width=2000, done=lambda: os.write(writing, b"."))
        finally:
            os._exit(0)
    os.close(writing)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as stream:
        return len(stream.read())


@pytest.mark.parametrize("stage", range(6))
def test_a_crash_between_any_two_files_is_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    """Fail at the n-th file written: header, three tensor files, index, and the next shard's first file."""
    from interp import store as module

    fill(tmp_path / "clean")
    written = iter(range(100))

    def failing(write: Callable[..., Any]) -> Callable[..., Any]:
        def inner(path: Path, content: Any) -> Any:
            if next(written) == stage:
                path.parent.mkdir(parents=True, exist_ok=True)
                (path.parent / f".{path.name}.x.tmp").write_bytes(b"half")
                (path.parent / ".tmpAbC123").write_bytes(b"half, by safetensors")
                raise KeyboardInterrupt
            return write(path, content)

        return inner

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for name in ("write_tensors", "write_facts"):
            patch.setattr(module, name, failing(getattr(module, name)))
        fill(tmp_path / "broken")
    assert len(ActivationStore(tmp_path / "broken")) == (SIZE if stage == 5 else 0)
    fill(tmp_path / "broken")
    assert tree(tmp_path / "broken") == tree(tmp_path / "clean")


def test_two_writers_are_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    with ActivationStore(tmp_path) as store:
        store.append(part(range(4)))
        with pytest.raises(ConfigError, match="is being written by process"), ActivationStore(tmp_path):
            pass
        assert len(ActivationStore(tmp_path)) == 4
    with ActivationStore(tmp_path) as store:
        assert len(store) == 4


@posix
def test_racing_writers_do_not_mix(tmp_path: Path) -> None:
    """Four processes fill one folder at once; who holds the lock writes, and the result is a clean one."""
    fill(tmp_path / "clean")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                fill(tmp_path / "raced")
                code = 0
            except ConfigError:
                code = 2
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) <= {0, 2} and 0 in codes
    assert tree(tmp_path / "raced") == tree(tmp_path / "clean")


def test_writing_needs_a_with_block(filled: Path) -> None:
    with pytest.raises(ConfigError, match="Use `with ActivationStore"):
        ActivationStore(filled).append(part(range(30, 34)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "e" * 64}, "fingerprint"),
        ({"weights": "edited"}, "has weights 'trained', the part to append 'edited'"),
        ({"scheme": "int8"}, "scheme"),
        ({"several": True}, "single"),
        ({"width": 4}, "axes"),
        ({"dtype": torch.float16}, "axes"),
    ],
)
def test_what_another_model_gave_is_refused_and_not_written(
    filled: Path, change: dict[str, Any], message: str
) -> None:
    before = tree(filled)
    with pytest.raises(DataError, match=message), ActivationStore(filled) as store:
        store.append(part(range(30, 34), **change))
    assert tree(filled) == before
    with ActivationStore(filled) as store:
        assert store.append(part(range(30, 34))) == 8


def test_another_request_cannot_continue_a_store(filled: Path) -> None:
    with pytest.raises(ConfigError, match=r"the cache key of head\.0\.3 differs"):
        ActivationStore(filled, cache_keys={site: "key" for site in SITES} | {"head.0.3": "other"})
    ActivationStore(filled, cache_keys={site: "key" for site in SITES})


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("head.0.3/00002.safetensors", flip),
        ("head.0.3/00002.safetensors", Path.unlink),
        ("index/00002.json", flip),
        ("index/00002.json", Path.unlink),
        ("store.json", flip),
        ("store.json", Path.unlink),
    ],
)
def test_damage_is_found_and_named(filled: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(filled / "activations" / name)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        ActivationStore(filled).verify()
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        ActivationStore(filled).read("head.0.3")


def test_damage_elsewhere_does_not_stop_reading(filled: Path) -> None:
    flip(filled / "activations" / "head.0.3" / "00002.safetensors")
    store = ActivationStore(filled)
    assert store.read("resid_post.0").shape == (30, 3)
    assert store.read("head.0.3", range(8)).shape == (8, 3)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda s: s.read("resid_post.7"), SiteError, "was not captured"),
        (lambda s: s.read("resid_post.*"), SiteError, "matches 2 sites"),
        (lambda s: s.read("head.0.3", 30), DataError, r"there are examples 0\.\.29"),
        (lambda s: s.read("head.0.3", []), DataError, "no rows asked"),
    ],
)
def test_wrong_questions_get_an_answer(
    filled: Path, ask: Callable[[ActivationStore], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(ActivationStore(filled))


def test_an_empty_store_has_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished shard yet"):
        ActivationStore(tmp_path).load()


def _memory() -> float:
    """Give the resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _parts(count: int) -> Iterator[Activations]:
    for number in range(count):
        yield part(range(4 * number, 4 * number + 4), width=20_000)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_while_writing_and_reading(tmp_path: Path) -> None:
    """Sixty shards of one megabyte each, written and read back, must not stay in memory."""
    with ActivationStore(tmp_path) as store:
        parts = _parts(70)
        for _ in range(10):
            store.append(next(parts))
        before = _memory()
        for each in parts:
            store.append(each)
    total = sum(float(shard["head.0.3"].sum()) for shard in ActivationStore(tmp_path).shards())
    assert total != 0
    assert _memory() - before < 20


def test_a_shard_that_is_there_twice_is_named(filled: Path) -> None:
    """Copied behind the last one with its index, so that every checksum is right."""
    root, count = filled / "activations", ActivationStore(filled).n_shards
    for one in sorted(root.glob("*/00001.*")):
        shutil.copy(one, one.with_stem(f"{count:05d}"))
    with pytest.raises(ArtifactError, match=rf"{count:05d}\.json is that of shard 1: shards were exchanged"):
        ActivationStore(filled)


def test_exchanged_shards_are_named(filled: Path) -> None:
    """With their indexes, so that every checksum is right."""
    root = filled / "activations"
    for one in sorted(root.glob("*/00000.*")):
        two = one.with_stem("00001")
        spare = one.with_stem("spare")
        one.rename(spare)
        two.rename(one)
        spare.rename(two)
    with pytest.raises(ArtifactError, match=r"00000\.json is that of shard 1: shards were exchanged"):
        ActivationStore(filled)
