"""Names of edges: what a writer adds to the residual stream, as one reader reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import total_ordering
from typing import TypeGuard

from interp.errors import ConfigError, SiteError
from interp.sites import Site

__all__ = ["ARROW", "PREFIX", "Edge", "Edges", "Reader", "are_edges"]

PREFIX = "edge."
ARROW = "->"
READERS = {"q": (0, 2), "k": (1, 2), "v": (2, 2), "mlp": (3, 1), "logits": (4, 0)}
"""Kinds of reader: their place in the order in which a block reads, and how many numbers name one."""
_LAST = 1 << 30


@total_ordering
@dataclass(frozen=True)
class Reader:
    """Name what takes its input from the residual stream.

    Attributes:
        kind: ``q``, ``k``, ``v``, ``mlp`` or ``logits``.
        layer: of the block; None for ``logits``.
        index: query head for ``q``, key-value group for ``k`` and ``v``, else None.
    """

    kind: str
    layer: int | None = None
    index: int | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compute the hash once: a graph looks its readers up millions of times."""
        object.__setattr__(self, "_hash", hash((self.kind, self.layer, self.index)))

    def __hash__(self) -> int:
        """The hash that was computed."""
        return self._hash

    def __reduce__(self) -> tuple[type[Reader], tuple[str, int | None, int | None]]:
        """Make copies from the three fields, because hashes differ between processes."""
        return Reader, (self.kind, self.layer, self.index)

    @classmethod
    def parse(cls, text: str) -> Reader:
        """Read what ``str`` wrote.

        Raises:
            SiteError: there is no such kind of reader, or a part is no number.
        """
        kind, *rest = text.split(".")
        if READERS.get(kind, (0, -1))[1] != len(rest) or not all(part.isdecimal() for part in rest):
            raise SiteError(f"cannot read the reader {text!r}; write q.5.2, k.5.0, v.5.0, mlp.5 or logits.")
        return cls(kind, *map(int, rest))

    def __str__(self) -> str:
        """Write ``q.5.2``, ``mlp.5`` or ``logits``."""
        return ".".join(str(part) for part in (self.kind, self.layer, self.index) if part is not None)

    def __lt__(self, other: object) -> bool:
        """Order readers as a forward pass meets them."""
        if not isinstance(other, Reader):
            return NotImplemented
        return self._key() < other._key()

    def _key(self) -> tuple[int, int, int]:
        return (
            _LAST if self.layer is None else self.layer,
            READERS[self.kind][0],
            -1 if self.index is None else self.index,
        )


@total_ordering
@dataclass(frozen=True)
class Edge:
    """Name what is replaced: one writer's part of what one reader reads, at all positions.

    Attributes:
        writer: ``embed``, ``head.l.h``, ``attn_out.l`` or ``mlp_out.l``.
        reader: what reads it.
        at: "" for all positions, or the part of the edge that a position-aware score is of: a position or a
            span (``3``), for keys and values with the query's after an arrow (``1>3``).
    """

    writer: Site
    reader: Reader
    at: str = ""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compute the hash once, as a reader does."""
        object.__setattr__(self, "_hash", hash((self.writer, self.reader, self.at)))

    def __hash__(self) -> int:
        """The hash that was computed."""
        return self._hash

    def __reduce__(self) -> tuple[type[Edge], tuple[Site, Reader, str]]:
        """Make copies from the fields, because hashes differ between processes."""
        return Edge, (self.writer, self.reader, self.at)

    @property
    def site(self) -> Site:
        """The site that is written."""
        return self.writer

    @property
    def carrier(self) -> Site:
        """The site whose value the other prompt supplies: ``z.l`` for a head."""
        return Site("z", self.writer.layer) if self.writer.kind == "head" else self.writer

    @property
    def carriers(self) -> tuple[Site, ...]:
        """The sites that are written, under the name that mediators have."""
        return (self.carrier,)

    @property
    def layer(self) -> int | None:
        """The block of the reader; None for ``logits``."""
        return self.reader.layer

    @property
    def position(self) -> None:
        """None: an edge is replaced at all positions."""
        return

    @classmethod
    def parse(cls, text: str) -> Edge:
        """Read what ``str`` wrote.

        Raises:
            SiteError: there is no arrow, or no such writer or reader.
        """
        body, _, at = text.strip().removeprefix(PREFIX).partition("@")
        writer, arrow, reader = body.partition(ARROW)
        if not arrow:
            raise SiteError(f"cannot read the edge {text!r}; an edge is written head.3.1->q.5.2.")
        return cls(Site.parse(writer), Reader.parse(reader), at)

    def __str__(self) -> str:
        """Write ``head.3.1->q.5.2``, or ``head.3.1->v.5.0@1>3`` of a part."""
        return f"{self.writer}{ARROW}{self.reader}" + (f"@{self.at}" if self.at else "")

    def __lt__(self, other: object) -> bool:
        """Order edges as a forward pass meets their readers, then their writers."""
        if not isinstance(other, Edge):
            return NotImplemented
        return (self.reader, self.writer, self.at) < (other.reader, other.writer, other.at)


Edges = str | Edge | Sequence[str | Edge]


def are_edges(asked: object) -> TypeGuard[Edges]:
    """Whether mediators that were asked for are edges: ``edge.*``, or ``Edge`` values.

    Raises:
        ConfigError: some are edges and some are not.
    """
    given = list(asked) if isinstance(asked, Sequence) and not isinstance(asked, str) else [asked]
    found = [isinstance(one, Edge) or (isinstance(one, str) and _is_edge(one.strip())) for one in given]
    if any(found) and not all(found):
        raise ConfigError("edges and other mediators were asked for together; search for them one by one.")
    return any(found)


def _is_edge(text: str) -> bool:
    return text.startswith(PREFIX) or ARROW in text
