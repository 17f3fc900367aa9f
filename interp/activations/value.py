"""The value that a capture gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor
from torch.nn import functional

from interp.activations.choosing import Examples, Sites, dtype_of, few, indices, matching, resolve
from interp.activations.files import read_facts, read_tensors, write_facts, write_tensors
from interp.errors import DataError, SiteError, counted
from interp.sites import Site

__all__ = ["Activations", "facts_of", "from_facts", "tail"]

SCHEMA = "interp.activations/1"
TENSORS = "activations.safetensors"
FACTS = "activations.json"
FIELDS = (
    "token_ids",
    "positions",
    "texts",
    "fingerprint",
    "model_name",
    "weights",
    "scheme",
    "warnings",
    "asked",
)


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """What one model computed at some sites and positions of some prompts.

    ``acts["resid_post.20"]`` is a tensor whose first axis is the example. With one position per example
    (``"last"``, an int) its shape is ``[example dim]``. Otherwise it is ``[example pos dim]``: column t
    holds the t-th position *asked for*, zero-padded to the longest row, and ``mask`` says which entries
    are real. Sites split by head have a head axis before the last one. Tensors are kept as given: neither
    copied nor detached.

    Attributes:
        tensors: site name to tensor, read-only, in execution order.
        token_ids: per example the exact ids the model saw, without padding.
        positions: per example, counted from its first token: an int, or a tuple with one int per column.
        texts: per example its text, "" where only ids were known.
        fingerprint: sha256 of the model's weights.
        model_name: what the user called the model.
        weights: "trained", "random", "edited", "latent" or "latent-shuffled".
        scheme: the weights' quantization, "none" for none.
        warnings: what was said while the prompts were tokenized.
        asked: the positions in words ("last", a selector); "" where they were numbers.

    Raises:
        DataError: no site, no example, or tensors, ids, positions and texts that do not fit together.
    """

    tensors: Mapping[str, Tensor]
    token_ids: Sequence[Sequence[int]]
    positions: Sequence[Any]
    texts: Sequence[str]
    fingerprint: str
    model_name: str
    weights: str = "trained"
    scheme: str = "none"
    warnings: Sequence[str] = ()
    asked: str = ""

    def __post_init__(self) -> None:
        """Order the sites, freeze the sequences and check that everything fits together."""
        sites = {Site.parse(str(name)): tensor for name, tensor in self.tensors.items()}
        object.__setattr__(
            self, "tensors", MappingProxyType({str(site): sites[site] for site in sorted(sites)})
        )
        object.__setattr__(self, "token_ids", tuple(tuple(map(int, ids)) for ids in self.token_ids))
        object.__setattr__(self, "positions", tuple(_frozen_row(row) for row in self.positions))
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "warnings", tuple(self.warnings))
        check(self.tensors, self.token_ids, self.positions, self.texts)

    def __getitem__(self, site: str | Site) -> Tensor:
        """One site's tensor, ``[example dim]`` or ``[example pos dim]``.

        Raises:
            SiteError: the site was not captured, or a glob matches several.
        """
        names = matching(site, self.tensors)
        if len(names) > 1:
            raise SiteError(f"{str(site)!r} matches {few(names)}. Ask one of them, or use .stack or .select.")
        return self.tensors[names[0]]

    def __contains__(self, site: object) -> bool:
        """Whether a site (or any of a glob) was captured."""
        try:
            return isinstance(site, str | Site) and bool(matching(site, self.tensors))
        except SiteError:
            return False

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.token_ids)

    __iter__ = None  # sites or examples? len() counts examples; keys() and items() give sites

    def keys(self) -> tuple[str, ...]:
        """The names of the captured sites, in execution order."""
        return tuple(self.tensors)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Site names with their tensors, in execution order."""
        return iter(self.tensors.items())

    @property
    def sites(self) -> tuple[Site, ...]:
        """The captured sites, in execution order."""
        return tuple(Site.parse(name) for name in self.tensors)

    @property
    def single(self) -> bool:
        """Whether there is one position per example, so that tensors have no position axis."""
        return is_single(self.positions)

    @property
    def mask(self) -> Bool[Tensor, "example ..."]:
        """Which entries are real: ``[example pos]``; with one position each ``[example]``, all true."""
        if self.single:
            return torch.ones(len(self), dtype=torch.bool, device=self.device)
        lengths = torch.tensor([len(row) for row in self.positions])
        return (torch.arange(int(lengths.max())) < lengths[:, None]).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the first site's tensor is."""
        return next(iter(self.tensors.values())).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first site's tensor."""
        return next(iter(self.tensors.values())).dtype

    def select(self, sites: Sites | None = None, examples: Examples | None = None) -> Activations:
        """Keep some sites, some examples, or both; examples come in the order asked, and may repeat.

        Raises:
            SiteError: a name or glob that matches nothing here.
            DataError: no example is left, one does not exist, or a mask has another length.
        """
        names = self.keys() if sites is None else resolve(sites, self.tensors)
        kept = replace(self, tensors={name: self.tensors[name] for name in names})
        return kept if examples is None else _with_rows(kept, indices(examples, len(self)))

    def redacted(self) -> Activations:
        """The same without what the prompts say: no texts, and -1 for every token id, with a warning."""
        return _redacted(self)

    def stack(self, sites: Sites | None = None) -> Shaped[Tensor, "example ... layer dim"]:
        """Stack sites of one shape: ``[example layer dim]`` or ``[example pos layer dim]``.

        The layer axis follows the order asked; globs, and None for all sites, give execution order.

        Raises:
            SiteError: a name or glob that matches nothing here.
            DataError: the sites differ in shape.
        """
        names = self.keys() if sites is None else resolve(sites, self.tensors)
        _refuse_unequal({name: list(self.tensors[name].shape) for name in names})
        return torch.stack([self.tensors[name] for name in names], dim=-2)

    def to(
        self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> Activations:
        """The same values on another device or in another dtype.

        Raises:
            ConfigError: a dtype name that torch does not have.
        """
        kind = dtype_of(dtype)
        return replace(
            self, tensors={name: tensor.to(device=device, dtype=kind) for name, tensor in self.items()}
        )

    @staticmethod
    def concatenate(parts: Sequence[Activations]) -> Activations:
        """Join activations of one model and the same sites, example after example; padding grows as needed.

        Raises:
            DataError: nothing to join, or parts that differ in model, weights, scheme, sites, dtype or width.
        """
        return _join(list(parts))

    def save(self, folder: str | Path) -> Path:
        """Write a folder: the safetensors file first, then the JSON that vouches for it, each atomically.

        Raises:
            ConfigError: the place cannot be written.
        """
        digest = write_tensors(Path(folder) / TENSORS, self.tensors)
        facts = {"schema": SCHEMA, "sites": self.keys(), "tensors": digest, **facts_of(self)}
        write_facts(Path(folder) / FACTS, facts)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path, *, sites: Sites | None = None) -> Activations:
        """Read what :meth:`save` wrote, all sites or some, onto the CPU, after checking every byte.

        Raises:
            ArtifactError: a missing, damaged or foreign file, named in the message.
            SiteError: ``sites`` asks for something that was not saved.
        """
        facts = read_facts(Path(folder) / FACTS, SCHEMA)
        names = facts["sites"] if sites is None else resolve(sites, facts["sites"])
        return from_facts(read_tensors(Path(folder) / TENSORS, facts["tensors"], names), facts)

    def __eq__(self, other: object) -> bool:
        """Compare everything, the tensors bit for bit (NaN equals NaN)."""
        if not isinstance(other, Activations):
            return NotImplemented
        same = facts_of(self) == facts_of(other) and self.keys() == other.keys()
        return same and all(identical(tensor, other.tensors[name]) for name, tensor in self.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """What there is, in one line."""
        width = "one position each" if self.single else f"up to {self.mask.shape[1]} positions each"
        model = f"{self.model_name!r}" + ("" if self.weights == "trained" else f", {self.weights} weights")
        kind = f"{str(self.dtype).removeprefix('torch.')} on {self.device}"
        return f"Activations({counted(len(self), 'example')}, {width}; {few(self.keys())}; {kind}; {model})"

    def _repr_html_(self) -> str:
        """An escaped HTML table for notebooks, one row per site."""
        return _html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy, and send between processes, like a plain value."""
        return Activations, (dict(self.tensors), *(getattr(self, name) for name in FIELDS))


def _frozen_row(row: Any) -> int | tuple[int, ...]:
    return tuple(map(int, row)) if isinstance(row, Sequence) else int(row)


def _refuse_unequal(shapes: Mapping[str, list[int]]) -> None:
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            found = f"cannot stack: {first} has shape {shapes[first]}, {name} has {shape}"
            raise DataError(f"{found}. Select sites of one width first, such as 'resid_post.*'.")


def _redacted(acts: Activations) -> Activations:
    note = "prompts and token ids were left out: an id of -1 stands for each token"
    ids = tuple((-1,) * len(row) for row in acts.token_ids)
    return replace(acts, texts=("",) * len(acts), token_ids=ids, warnings=(*acts.warnings, note))


def _with_rows(acts: Activations, rows: list[int]) -> Activations:
    positions = [acts.positions[row] for row in rows]
    index = torch.tensor(rows, dtype=torch.long)
    width = None if acts.single else max((len(row) for row in positions), default=0)
    tensors = {name: tensor[index.to(tensor.device)] for name, tensor in acts.items()}
    return replace(
        acts,
        tensors=tensors if width is None else {name: tensor[:, :width] for name, tensor in tensors.items()},
        token_ids=[acts.token_ids[row] for row in rows],
        positions=positions,
        texts=[acts.texts[row] for row in rows],
    )


def _html(acts: Activations) -> str:
    cells = [
        (name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in acts.items()
    ]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in cells)
    head = "<tr><th>site</th><th>shape</th><th>dtype</th></tr>"
    return f"<figure><table>{head}{rows}</table><figcaption>{escape(repr(acts))}</figcaption></figure>"


def facts_of(acts: Activations) -> dict[str, Any]:
    """Everything but the tensors, in plain JSON types."""
    facts = {name: getattr(acts, name) for name in FIELDS}
    return facts | {
        "token_ids": [list(ids) for ids in acts.token_ids],
        "positions": [row if isinstance(row, int) else list(row) for row in acts.positions],
        "texts": list(acts.texts),
        "warnings": list(acts.warnings),
    }


def from_facts(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Activations:
    """Put tensors and what :func:`facts_of` gave together again."""
    return Activations(tensors, **{name: facts[name] for name in FIELDS if name in facts or name != "asked"})


def _join(parts: Sequence[Activations]) -> Activations:
    if not parts:
        raise DataError("no activations to concatenate. Give at least one.")
    for number, part in enumerate(parts):
        _refuse_mixture(parts[0], part, f"part {number}")
    return replace(
        parts[0],
        tensors={name: _joined([part.tensors[name] for part in parts]) for name in parts[0].tensors},
        token_ids=[ids for part in parts for ids in part.token_ids],
        positions=[row for part in parts for row in part.positions],
        texts=[text for part in parts for text in part.texts],
        warnings=tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
    )


def _refuse_mixture(first: Activations, other: Activations, name: str) -> None:
    """Refuse to join two values that are not of one kind.

    Args:
        first: the value that the others must resemble.
        other: the value to look at.
        name: what messages call it.

    Raises:
        DataError: they differ in model, weights, scheme, kind of positions, sites, dtype, device or width.
    """
    for what in ("fingerprint", "weights", "scheme", "single"):
        a, b = getattr(first, what), getattr(other, what)
        if a != b:
            found = f"the first has {what} {_short(a)}, {name} has {_short(b)}"
            raise DataError(f"{found}. Join only what one model gave.")
    if first.keys() != other.keys():
        found = f"the first has the sites {few(first.keys())}; {name} has {few(other.keys())}"
        raise DataError(f"{found}. Select the same sites first.")
    for site in first.tensors:
        _refuse_unlike(first, other, site, name)


def _refuse_unlike(first: Activations, other: Activations, site: str, name: str) -> None:
    a, b = first.tensors[site], other.tensors[site]
    if (a.dtype, a.device) != (b.dtype, b.device):
        found = f"{site} is {a.dtype} on {a.device} in the first, {b.dtype} on {b.device} in {name}"
        raise DataError(f"{found}. Use .to first.")
    if a.ndim != b.ndim or tail(first, site) != tail(other, site):
        found = f"{site} has shape {list(a.shape)} in the first, {list(b.shape)} in {name}"
        raise DataError(f"{found}. Capture both alike.")


def _short(value: object) -> str:
    return repr(value if not isinstance(value, str) or len(value) <= 16 else value[:12] + "...")


def tail(acts: Activations, name: str) -> tuple[int, ...]:
    """The sizes that joining cannot change: not example, position, or the keys of a pattern."""
    shape = tuple(acts.tensors[name].shape)[1 if acts.single else 2 :]
    return shape[:-1] if Site.parse(name).kind == "pattern" else shape


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first axis; pad the others (position, a pattern's keys) with zeros."""
    sizes = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    return torch.cat([_padded(tensor, sizes) for tensor in tensors])


def _padded(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    missing = [size - have for size, have in zip(sizes, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    return functional.pad(tensor, [amount for gap in reversed(missing) for amount in (0, gap)])


def is_single(positions: Sequence[Any]) -> bool:
    """Whether there is one position per example rather than a row of them."""
    return bool(positions) and isinstance(positions[0], int)


def check(
    tensors: Mapping[str, Tensor],
    token_ids: Sequence[Sequence[int]],
    positions: Sequence[Any],
    texts: Sequence[str],
) -> None:
    """Refuse parts that do not fit together.

    Raises:
        DataError: saying which part has which size.
    """
    count = len(token_ids)
    if not tensors:
        raise DataError("activations need at least one site; none was given.")
    if not count:
        raise DataError("activations need at least one example; none was given or selected.")
    if not count == len(positions) == len(texts):
        sizes = f"{count} lists of token ids, {len(positions)} positions and {len(texts)} texts"
        raise DataError(f"{sizes} do not fit together: give one of each per example.")
    _check_positions(positions, token_ids)
    lead = (count,) if is_single(positions) else (count, max(len(row) for row in positions))
    for name, tensor in tensors.items():
        if tensor.ndim <= len(lead) or tuple(tensor.shape[: len(lead)]) != lead:
            needed = ", ".join(map(str, lead))
            found = f"{name} has shape {list(tensor.shape)}"
            raise DataError(f"{found}, but these examples and positions need [{needed}, ...].")


def _check_positions(positions: Sequence[Any], token_ids: Sequence[Sequence[int]]) -> None:
    single = is_single(positions)
    for number, (row, ids) in enumerate(zip(positions, token_ids, strict=True)):
        if isinstance(row, int) != single:
            raise DataError(
                "positions mix numbers with lists. Give one number per example, or one list each."
            )
        outside = [p for p in ([row] if isinstance(row, int) else row) if not 0 <= p < len(ids)]
        if outside:
            found = f"example {number} has position {outside[0]}, but its tokens are 0..{len(ids) - 1}"
            raise DataError(f"{found}. Count positions from the example's first token.")


def identical(a: Tensor, b: Tensor) -> bool:
    """Compare two tensors bit for bit, except that NaN equals NaN; devices may differ."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = a.detach(), b.detach().to(a.device)
    return bool(torch.equal(a, b) or ((a == b) | (a.isnan() & b.isnan())).all())
