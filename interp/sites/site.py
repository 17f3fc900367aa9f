"""The name of one point in the computation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache, total_ordering

from interp.errors import SiteError
from interp.sites.kinds import KINDS, ORDER, Kind, nearest
from interp.sites.lens import LENS, LENS_BLOCK, from_lens

__all__ = ["Site", "transformer_lens_name"]

_AFTER_ALL_LAYERS = 1 << 30


@total_ordering
@dataclass(frozen=True)
class Site:
    """Name one point in the computation of a decoder.

    Attributes:
        kind: a name in ``KINDS``.
        layer: 0-based block, or None for ``embed``, ``final_norm`` and ``logits``.
        index: head, key-value group or neuron, where the kind has one.
    """

    kind: str
    layer: int | None = None
    index: int | None = None
    _text: str = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a site that cannot exist in any model."""
        row = KINDS.get(self.kind)
        if row is None:
            raise SiteError(
                f"unknown site kind {self.kind!r}. {nearest(self.kind, KINDS)}Kinds: {', '.join(KINDS)}."
            )
        self._check_layer(row)
        self._check_index(row)
        parts = (self.kind, self.layer, self.index)
        object.__setattr__(self, "_text", ".".join(str(part) for part in parts if part is not None))
        object.__setattr__(self, "_hash", hash(parts))

    def __hash__(self) -> int:
        """Return a hash computed once: sites are looked up many times in every forward pass."""
        return self._hash

    def __reduce__(self) -> tuple[type[Site], tuple[str, int | None, int | None]]:
        """Rebuild copies from the three fields, because hashes differ between processes."""
        return Site, (self.kind, self.layer, self.index)

    def _check_layer(self, row: Kind) -> None:
        if row.layered and self.layer is None:
            raise SiteError(f"site '{self.kind}' needs a layer: for example {self.kind}.0 or {self.kind}.*")
        if not row.layered and self.layer is not None:
            raise SiteError(
                f"site '{self.kind}' has no layer, but {self.layer} was given. Write '{self.kind}'."
            )
        if self.layer is not None and (isinstance(self.layer, bool) or self.layer < 0):
            raise SiteError(
                f"layer {self.layer} in a Site must be 0 or more. Counting from the end (-1) needs a model: "
                f"give the text '{self.kind}.{self.layer}' to capture, or use expand()."
            )

    def _check_index(self, row: Kind) -> None:
        if row.index == "required" and self.index is None:
            start = f"{self.kind}.{self.layer}"
            raise SiteError(f"site '{start}' needs a {row.unit}: for example {start}.0 or {start}.*")
        if row.index == "none" and self.index is not None:
            raise SiteError(f"site '{self.kind}' takes no index, but {self.index} was given.")
        if self.index is not None and (isinstance(self.index, bool) or self.index < 0):
            raise SiteError(f"index {self.index} of site '{self.kind}' must be 0 or more.")

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read ``kind.layer[.index]`` or a TransformerLens name; ``Site.parse(str(site)) == site``.

        Args:
            text: for example ``"resid_post.5"``, ``"head.5.3"``, ``"blocks.5.hook_resid_post"``.

        Raises:
            SiteError: the text names no site; the message says what was found and the nearest kind.
        """
        return _parsed(text.strip())

    def __str__(self) -> str:
        """Return the text that ``parse`` reads back."""
        return self._text

    def __lt__(self, other: object) -> bool:
        """Order sites as one forward pass meets them."""
        if not isinstance(other, Site):
            return NotImplemented
        return self._key() < other._key()

    def _key(self) -> tuple[int, int, int]:
        outside = -1 if self.kind == "embed" else _AFTER_ALL_LAYERS
        layer = outside if self.layer is None else self.layer
        return layer, ORDER[self.kind], -1 if self.index is None else self.index


@lru_cache(maxsize=65536)
def _parsed(text: str) -> Site:
    kind, *numbers = from_lens(text).split(".")
    if kind in KINDS and (len(numbers) > 2 or not all(re.fullmatch(r"-?\d+", n) for n in numbers)):
        raise SiteError(
            f"cannot read site {text!r}: expected kind.layer[.index], such as resid_post.5 or head.5.3. "
            "Globs, ranges and '-1' need a model: give them to capture, or use expand()."
        )
    if kind not in KINDS:
        raise SiteError(f"unknown site {text!r}. {nearest(kind, KINDS)}Kinds: {', '.join(KINDS)}.")
    return Site(kind, *(int(number) for number in numbers))


def transformer_lens_name(site: Site) -> str:
    """Translate a site into the hook name of TransformerLens, which has no head or neuron index."""
    for name, kind in LENS.items():
        if kind == site.kind:
            return name
    table = {kind: name for name, kind in reversed(LENS_BLOCK.items())} | {"neuron": "mlp.hook_post"}
    if site.kind not in table:
        raise SiteError(f"'{site}' has no name in TransformerLens.")
    return f"blocks.{site.layer}.{table[site.kind]}"
