"""Activations too large for memory, on disk: appended in shards, resumable, checksummed, read back in parts.

```
<folder>/activations/
  store.json                the model, the sites with their dtypes and widths, the cache keys
  <site>/00000.safetensors  one file per site and shard
  index/00000.json          the shard's rows and its files' sha256; written last: it makes the shard count
  .waiting/00004.json       a shard that another process wrote (:func:`write_shard`), its files in
  .waiting/00004/           beside it, until all shards before it are there and it is moved to its place
```

A shard is the unit: after a crash those in ``index`` are whole, and at most one has to be made again. The
same parts appended in the same order give the same bytes, however often the work was interrupted.
"""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Shaped
from torch import Tensor

from interp.activations.choosing import Examples, Sites, indices, matching, resolve
from interp.activations.files import check_file, read_facts, read_tensors, write_facts, write_tensors
from interp.activations.value import Activations, facts_of, from_facts, tail
from interp.addresses import Address, AddressLock, Place, place
from interp.errors import ArtifactError, ConfigError, DataError, SiteError, counted
from interp.results import About, Number, Result, Table
from interp.runs.lock import Lock
from interp.sites import Site

__all__ = ["ActivationStore", "Part", "Stored", "discard", "write_shard"]

STORE_SCHEMA = "interp.store/1"
SHARD_SCHEMA = "interp.store.shard/1"
WAITING_SCHEMA = "interp.store.waiting/1"
WAITING = ".waiting"
"""A folder that is no part of a finished run: another process may still write there when the run ends."""
SHARD = 256
"""Prompts of a shard."""
BINDING = ("fingerprint", "weights", "scheme", "sites", "single", "axes")


@dataclass(frozen=True)
class Part:
    """One shard's place in a store.

    Attributes:
        number: of the shard.
        start: its first row.
        stop: the row after its last.
    """

    number: int
    start: int
    stop: int

    @property
    def rows(self) -> range:
        """Its rows."""
        return range(self.start, self.stop)


class ActivationStore:
    """Append activations to a folder, and read them back.

    Opening changes nothing and takes no lock, so that a store can be read while it is written. To write, use
    it in a ``with`` block, which locks the folder and removes what a crash left unfinished.

    Args:
        folder: where the store is, or will be; its files go below ``folder/activations``. An address such as
            ``s3://bucket/states`` is one of fsspec's (:mod:`interp.addresses` says what holds there).
        cache_keys: site name to the key of the request (``interp.runs.cache_key``), recorded with the first
            shard. A store that was begun under other keys is refused.

    Raises:
        ArtifactError: the store there is damaged, or a shard in its middle is missing.
        ConfigError: the store there was begun under other cache keys.

    Example:
        with ActivationStore("runs/capitals") as store:
            for rows in store.missing(len(prompts)):
                store.append(model.capture([prompts[row] for row in rows], "resid_post.*"))
    """

    def __init__(self, folder: str | Place, *, cache_keys: Mapping[str, str] | None = None) -> None:
        """Look at what is there; nothing is written."""
        self.folder = place(folder)
        self._root = self.folder / "activations"
        self._lock: Lock | AddressLock | None = None
        self._asked_keys = None if cache_keys is None else dict(cache_keys)
        self._reopen()

    def _reopen(self) -> None:
        """Read what is on disk: the header, and of every shard its length."""
        count = _count(self._root)
        self._header = _read_header(self._root) if count else {}
        self._lengths = [len(self._record(number)["token_ids"]) for number in range(count)]
        if self._header and self._asked_keys is not None:
            _refuse_other_request(self._root, self._header["cache_keys"], self._asked_keys)

    def __len__(self) -> int:
        """The number of examples in finished shards."""
        return sum(self._lengths)

    @property
    def n_shards(self) -> int:
        """Number of finished shards."""
        return len(self._lengths)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites stored, in execution order; none while the store is empty."""
        return tuple(Site.parse(name) for name in self._header.get("sites", ()))

    @property
    def model(self) -> dict[str, str]:
        """Whose states: ``fingerprint``, ``model_name`` and ``weights``; empty while the store is."""
        names = ("fingerprint", "model_name", "weights")
        return {name: str(self._header[name]) for name in names if name in self._header}

    @property
    def cache_keys(self) -> dict[str, str]:
        """The keys the store was begun under, by site name."""
        return dict(self._header.get("cache_keys", {}))

    def missing(self, total: int, *, size: int = SHARD) -> Iterator[range]:
        """The rows still to be made, in parts of ``size``: append one part each, in this order.

        Raises:
            DataError: the store holds more than ``total`` rows, so it belongs to something else.
        """
        if len(self) > total:
            raise DataError(
                f"{self._root} holds {counted(len(self), 'example')}, but {total} were asked. Use another "
                "folder."
            )
        return (range(start, min(start + size, total)) for start in range(len(self), total, size))

    def to_do(self, total: int, *, size: int = SHARD) -> list[Part]:
        """The shards that nobody has made yet, those that wait to be adopted left out.

        Raises: as :meth:`missing`.
        """
        ahead = enumerate(self.missing(total, size=size), start=self.n_shards)
        waiting = _waiting(self._root)
        return [Part(n, rows.start, rows.stop) for n, rows in ahead if n not in waiting]

    def prompts(self, number: int) -> list[list[int]] | None:
        """The token ids of a shard that is finished or waits to be adopted; None where it is neither."""
        if number < self.n_shards:
            return self._record(number)["token_ids"]
        path = _waiting_file(self._root, number)
        return read_facts(path, WAITING_SCHEMA)["record"]["token_ids"] if path.is_file() else None

    def append(self, acts: Activations) -> int:
        """Write one shard and return its number; when this returns, a crash cannot lose it.

        Raises:
            DataError: the activations come from another model or have other sites, widths or dtypes.
            ConfigError: not inside a ``with`` block, or the place cannot be written.
        """
        self._writable()
        number = self.n_shards
        self._accept(_header(acts))
        files = {site: write_tensors(_file(self._root, site, number), {site: t}) for site, t in acts.items()}
        self._add(number, _record_of(number, acts, files))
        return number

    def adopt(self) -> int:
        """Let the shards count that other processes wrote, in order, up to the first that is not there yet.

        Returns:
            How many.

        Raises:
            DataError, ConfigError: a shard of another model or another request, or one of other rows.
        """
        self._writable()
        before = self.n_shards
        while (path := _waiting_file(self._root, self.n_shards)).is_file():
            found = read_facts(path, WAITING_SCHEMA)
            _refuse_other_rows(path, found["start"], len(self))
            asked = self._header.get("cache_keys", self._asked_keys or {})
            _refuse_other_request(self._root, found["cache_keys"], asked)
            self._accept(found["header"])
            _move_tensors(self._root, self.n_shards, found["record"]["files"])
            self._add(self.n_shards, found["record"])
            path.unlink()
        return self.n_shards - before

    def tidy(self) -> None:
        """Remove what other processes left, once all that was asked is there."""
        self._writable()
        _remove(self._root / WAITING)

    def _writable(self) -> None:
        if self._lock is None:
            raise ConfigError(
                f"{self._root} is not open for writing. Use `with ActivationStore(...) as store:`."
            )

    def _accept(self, header: Mapping[str, Any]) -> None:
        """Write the header with the first part; refuse a later part that does not fit it."""
        if not self._header:
            self._header = {**header, "cache_keys": self._asked_keys or {}}
            write_facts(self._root / "store.json", self._header)
        _refuse_mixture(self._root, self._header, header)

    def _add(self, number: int, record: Mapping[str, Any]) -> None:
        """Make a shard count whose tensors are written."""
        write_facts(_index(self._root, number), record)
        self._lengths.append(len(record["token_ids"]))

    def __enter__(self) -> ActivationStore:
        """Lock the folder, look again at what is there, and remove what a crash left unfinished.

        Raises:
            ConfigError: another process is writing there, or the place cannot be written.
        """
        root = self._root
        self._lock = AddressLock.acquire(root) if isinstance(root, Address) else Lock.acquire(root)
        try:
            self._reopen()
            self.adopt()
            _remove_unfinished(self._root, self.n_shards)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Release the lock; reading stays possible."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def shards(self, sites: Sites | None = None) -> Iterator[Activations]:
        """One shard after the other, one in memory at a time, onto the CPU.

        Raises:
            ArtifactError: a shard's file is missing or damaged.
            SiteError: a site that is not stored.
        """
        names = self._names(sites)
        return (self._shard(number, names) for number in range(self.n_shards))

    def load(self, sites: Sites | None = None, rows: Examples | None = None) -> Activations:
        """Some rows, or all, as one value, in the order asked.

        Raises:
            ArtifactError: a shard's file is missing or damaged.
            SiteError, DataError: a site or a row that is not stored.
        """
        names = self._names(sites)
        wanted = list(range(len(self))) if rows is None else indices(rows, len(self))
        if not wanted:
            raise DataError(f"no rows asked of {self._root}, which holds {len(self)}. Ask at least one.")
        return self._gather(names, wanted)

    def read(self, site: str | Site, rows: Examples | None = None) -> Shaped[Tensor, "example ... dim"]:
        """One site's tensor for some rows, or all: ``[example dim]`` or ``[example pos dim]``.

        Raises: as :meth:`load`.
        """
        names = matching(site, self._names(None))
        if len(names) > 1:
            raise SiteError(
                f"{str(site)!r} matches {counted(len(names), 'site')}. Read one at a time, or use .load."
            )
        return self.load(names, rows)[names[0]]

    def _gather(self, names: Sequence[str], wanted: Sequence[int]) -> Activations:
        """Read each shard that is needed once, and put its rows where they were asked."""
        starts = [0, *accumulate(self._lengths)]
        places: dict[int, list[int]] = {}
        for at, row in enumerate(wanted):
            places.setdefault(bisect_right(starts, row) - 1, []).append(at)
        parts, order = [], []
        for number, asked in sorted(places.items()):
            rows = [wanted[at] - starts[number] for at in asked]
            parts.append(self._shard(number, names).select(examples=rows))
            order += asked
        whole = Activations.concatenate(parts)
        return whole.select(examples=sorted(range(len(order)), key=order.__getitem__))

    def verify(self) -> int:
        """Compare every file with its recorded sha256, and return the number of files compared.

        Raises:
            ArtifactError: naming the first file that is missing or differs.
        """
        compared = 0
        for number in range(self.n_shards):
            for site, digest in self._record(number)["files"].items():
                check_file(_file(self._root, site, number), digest)
                compared += 1
        return compared

    def summary(self) -> Stored:
        """What is stored: sites, shapes, tokens and bytes.

        Raises:
            DataError: no shard is finished.
        """
        names = self._names(None)
        first = self._shard(0, names)
        records = [self._record(number) for number in range(self.n_shards)]
        lengths = [len(ids) for record in records for ids in record["token_ids"]]
        shapes = (("x".join(map(str, (len(self), *t.shape[1:]))), str(t.dtype)) for _, t in first.items())
        return Stored(
            n=len(self),
            tokens=sum(lengths),
            longest=max(lengths),
            shards=self.n_shards,
            size=sum(
                entry["bytes"] for n in range(self.n_shards) for entry in self._record(n)["files"].values()
            ),
            sites=tuple((name, *shape) for name, shape in zip(names, shapes, strict=True)),
            about=About(model={"name": self._header["model_name"], "weights": self._header["weights"]}),
        )

    def __repr__(self) -> str:
        """What there is, in one line."""
        return (
            f"ActivationStore({str(self.folder)!r}: {counted(len(self), 'example')}, "
            f"{counted(len(self.sites), 'site')})"
        )

    def _names(self, sites: Sites | None) -> list[str]:
        names = list(self._header.get("sites", ()))
        if not self._lengths:
            raise DataError(f"{self._root} holds no finished shard yet. Append activations first.")
        return names if sites is None else resolve(sites, names)

    def _record(self, number: int) -> dict[str, Any]:
        record = read_facts(_index(self._root, number), SHARD_SCHEMA)
        if sorted(record["files"]) != sorted(self._header["sites"]):
            raise ArtifactError(
                f"{_index(self._root, number)} does not list the store's sites. Capture again."
            )
        if record.get("number", number) != number:  # records of older versions have none
            raise ArtifactError(
                f"{_index(self._root, number)} is that of shard {record['number']}: shards were exchanged. "
                "Capture again."
            )
        return record

    def _shard(self, number: int, names: Sequence[str]) -> Activations:
        record = self._record(number)
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensors |= read_tensors(_file(self._root, name, number), record["files"][name], [name])
        return from_facts(tensors, record)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Stored(Result):
    """What a store holds.

    Attributes:
        n: prompts.
        tokens: of all prompts together.
        longest: tokens of the longest prompt.
        shards: how many there are.
        size: bytes of all tensors on disk.
        sites: of each its name, its shape and its dtype.
    """

    schema: ClassVar[str] = "interp.capture/2"
    n: int
    tokens: int
    longest: int
    shards: int
    size: int
    sites: tuple[tuple[str, str, str], ...]

    def question(self) -> str:
        """What was asked for."""
        return f"Activations of {self.about.model.get('name', 'a model')} on {counted(self.n, 'prompt')}"

    def verdict(self) -> str:
        """How much there is."""
        return (
            f"{counted(self.n, 'prompt')} ({counted(self.tokens, 'token')}) were read at "
            f"{counted(len(self.sites), 'site')}: {_megabytes(self.size)} MB in "
            f"{counted(self.shards, 'shard')}."
        )

    def lead(self) -> tuple[str, ...]:
        """How to read it back."""
        return ("Read them back with interp.store.ActivationStore(RUN), the folder of the run.",)

    def numbers(self) -> tuple[Number, ...]:
        """The counts."""
        return (
            Number("prompts", self.n),
            Number("tokens", self.tokens),
            Number("longest", self.longest, unit="tokens", meaning="The longest prompt."),
            Number("shards", self.shards),
            Number("bytes", self.size, meaning="All tensors on disk."),
        )

    def tables(self) -> tuple[Table, ...]:
        """Every site with its shape and dtype."""
        rows = tuple(
            (name, shape.replace("x", " x "), dtype.removeprefix("torch."))
            for name, shape, dtype in self.sites
        )
        return (Table("sites", "What is stored", ("site", "shape", "dtype"), rows),)


def write_shard(
    folder: str | Place, part: Part, acts: Activations, *, cache_keys: Mapping[str, str] | None = None
) -> None:
    """Write one shard into a store that another process holds; it counts once that one has adopted it.

    Args:
        folder: of the store, as for :class:`ActivationStore`.
        part: which shard it is.
        acts: its rows.
        cache_keys: of the request, as for :class:`ActivationStore`.

    Raises:
        DataError: not the part's number of rows.
        ConfigError: the place cannot be written.
    """
    root = place(folder) / "activations"
    if len(acts) != len(part.rows):
        raise DataError(
            f"shard {part.number} has {counted(len(part.rows), 'row')}, but {len(acts)} were given. Give the "
            "states of its rows."
        )
    beside = _waiting_file(root, part.number).with_suffix("")
    files = {site: write_tensors(_tensors(beside, site), {site: t}) for site, t in acts.items()}
    facts = {
        "schema": WAITING_SCHEMA,
        "start": part.start,
        "cache_keys": dict(cache_keys or {}),
        "header": _header(acts),
        "record": _record_of(part.number, acts, files),
    }
    write_facts(_waiting_file(root, part.number), facts)


def discard(folder: str | Place, part: Part) -> bool:
    """Remove a shard that waits, because another process has made it meanwhile.

    Returns:
        Whether it waited; otherwise the store has adopted it.
    """
    path = _waiting_file(place(folder) / "activations", part.number)
    waited = path.is_file()
    with suppress(FileNotFoundError):  # adopted in this moment
        path.unlink()
    _remove(path.with_suffix(""))
    if isinstance(path, Path):
        with suppress(OSError):  # others wait there, or it is gone
            path.parent.rmdir()
    return waited


def _remove(folder: Place) -> None:
    """Remove a folder, where it is there."""
    if isinstance(folder, Address):
        folder.remove()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _record_of(number: int, acts: Activations, files: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": SHARD_SCHEMA, "number": number, "files": dict(files), **facts_of(acts)}


def _tensors(folder: Place, site: str) -> Place:
    return folder / f"{Site.parse(site)}.safetensors"


def _move_tensors(root: Place, number: int, sites: Collection[str]) -> None:
    """Move a waiting shard's files to their place; those that a crash found there already stay."""
    beside = _waiting_file(root, number).with_suffix("")
    for site in sites:
        own, waits = _file(root, site, number), _tensors(beside, site)
        if isinstance(own, Address) and isinstance(waits, Address) and waits.is_file():
            waits.replace(own)
        elif isinstance(own, Path) and isinstance(waits, Path) and waits.is_file():
            own.parent.mkdir(exist_ok=True)
            waits.replace(own)
        elif not own.is_file():
            raise ArtifactError(f"{waits} is missing. Remove {beside.parent} and capture again.")
    _remove(beside)


def _waiting_file(root: Place, number: int) -> Place:
    return root / WAITING / f"{number:05d}.json"


def _waiting(root: Place) -> set[int]:
    """The numbers of the shards that wait to be adopted."""
    return {int(path.stem) for path in (root / WAITING).glob("*.json") if path.stem.isdecimal()}


def _refuse_other_rows(path: Place, start: int, expected: int) -> None:
    if start != expected:
        raise DataError(
            f"{path} begins with row {start}, but {expected:,} rows are before it: it was made with another "
            "size of shards. Remove that folder and capture again."
        )


def _file(root: Place, site: str, number: int) -> Place:
    return root / str(Site.parse(site)) / f"{number:05d}.safetensors"


def _index(root: Place, number: int) -> Place:
    return root / "index" / f"{number:05d}.json"


def _header(acts: Activations) -> dict[str, Any]:
    model = {
        name: getattr(acts, name) for name in ("fingerprint", "model_name", "weights", "scheme", "single")
    }
    axes = {
        name: [str(tensor.dtype).removeprefix("torch."), *tail(acts, name)] for name, tensor in acts.items()
    }
    return {"schema": STORE_SCHEMA, **model, "sites": list(acts.keys()), "axes": axes}


def _refuse_mixture(root: Place, begun: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    for name in BINDING:
        if begun[name] != header[name]:
            found = f"{root} has {name} {_short(begun[name])}, the part to append {_short(header[name])}"
            raise DataError(f"{found}. One store holds one model's activations at the same sites.")


def _refuse_other_request(root: Place, begun: Mapping[str, str], asked: Mapping[str, str]) -> None:
    changed = sorted(name for name in {*begun, *asked} if begun.get(name) != asked.get(name))
    if changed:
        raise ConfigError(
            f"{root} was begun for another request: the cache key of {', '.join(changed[:3])} differs. "
            "Use the same model, prompts, sites and positions, or another folder."
        )


def _read_header(root: Place) -> dict[str, Any]:
    if not (root / "store.json").is_file():
        raise ArtifactError(f"{root / 'store.json'} is missing, but there are shards. Capture again.")
    return read_facts(root / "store.json", STORE_SCHEMA)


def _megabytes(size: int) -> str:
    """A size in megabytes, small ones to three digits."""
    return f"{size / 1e6:,.1f}" if size >= 1e5 else f"{size / 1e6:.2g}"


def _count(root: Place) -> int:
    """Count the finished shards.

    Raises:
        ArtifactError: one in the middle is missing.
    """
    numbers = sorted(int(path.stem) for path in (root / "index").glob("*.json") if path.stem.isdecimal())
    for expected, found in enumerate(numbers):
        if expected != found:
            raise ArtifactError(
                f"{_index(root, expected)} is missing, but later shards are there. Capture again."
            )
    return len(numbers)


def _remove_unfinished(root: Place, count: int) -> None:
    """Remove temporary files, and tensor files of shards that never came to count."""
    for path in [*root.glob(".*tmp*"), *root.glob("*/.*tmp*")]:  # ours, and those of safetensors
        if path.parent.name != WAITING:  # another process may be writing there
            path.unlink()
    for path in root.glob("*/*.safetensors"):
        if path.stem.isdecimal() and int(path.stem) >= count:
            path.unlink()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
