"""The name of one point in the computation."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, total_ordering
from typing import Literal

from interp.errors import SiteError

__all__ = [
    "KINDS",
    "OF_DICTIONARIES",
    "READ_ONLY",
    "Kind",
    "Site",
    "from_lens",
    "nearest",
    "transformer_lens_name",
]

LENS = {
    "hook_embed": "embed",
    "ln_final.hook_normalized": "final_norm",
    "unembed.hook_out": "logits",
    "hook_logits": "logits",
}
LENS_BLOCK = {
    "hook_resid_pre": "resid_pre",
    "hook_in": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_out": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "hook_mixer_out": "mixer_out",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "v",
    "attn.hook_z": "z",
    "attn.hook_pattern": "pattern",
    "attn.hook_result": "head",
    "mlp.hook_post": "mlp_act",
}


@lru_cache(maxsize=4096)
def from_lens(text: str) -> str:
    """Translate a TransformerLens hook name; any other text is returned as it is."""
    if "hook_" not in text:
        return text
    if text in LENS:
        return LENS[text]
    match = re.fullmatch(r"blocks\.([^.]+)\.(.+)", text)
    if match and match[2] in LENS_BLOCK:
        kind = LENS_BLOCK[match[2]]
        return f"{kind}.{match[1]}" + (".*" if kind == "head" else "")
    known = [*LENS, *(f"blocks.0.{name}" for name in LENS_BLOCK)]
    raise SiteError(f"no site corresponds to the TransformerLens name {text!r}. Known: {', '.join(known)}.")


Index = Literal["none", "optional", "required"]


@dataclass(frozen=True)
class Kind:
    """One kind of site: whether it has a layer, whether it has an index, and what the index counts."""

    name: str
    layered: bool
    index: Index
    unit: str


_ROWS = (
    Kind("embed", False, "none", ""),
    Kind("resid_pre", True, "none", ""),
    Kind("q", True, "optional", "head"),
    Kind("k", True, "optional", "kv head"),
    Kind("v", True, "optional", "kv head"),
    Kind("pattern", True, "optional", "head"),
    Kind("z", True, "optional", "head"),
    Kind("head", True, "required", "head"),
    Kind("attn_out", True, "none", ""),
    Kind("mixer_out", True, "none", ""),
    Kind("resid_mid", True, "none", ""),
    Kind("router", True, "none", ""),
    Kind("expert", True, "required", "expert"),
    Kind("shared_expert", True, "none", ""),
    Kind("mlp_act", True, "none", ""),
    Kind("neuron", True, "required", "neuron"),
    Kind("mlp_out", True, "none", ""),
    Kind("resid_post", True, "none", ""),
    Kind("feature", True, "optional", "feature"),
    Kind("error", True, "none", ""),
    Kind("final_norm", False, "none", ""),
    Kind("logits", False, "none", ""),
)

KINDS: Mapping[str, Kind] = {row.name: row for row in _ROWS}
"""Every kind of site, in execution order inside a block."""

OF_DICTIONARIES: tuple[str, ...] = ("feature", "error")
"""Kinds that exist in layers for which the model was given a dictionary."""

READ_ONLY: Mapping[str, str] = {
    "pattern": "attention has used its probabilities by the time it returns them. Write z, which follows "
    "from them: z.l.h is the sum over keys of pattern.l.h times v.l of its group, so capture pattern and v, "
    "change the pattern and write the sum",
    "logits": "nothing in the model reads them. Change the logits that are returned, or write the last "
    "resid_post",
}
"""Kinds that an intervention cannot write -> why, and what to write instead."""

ORDER = {row.name: number for number, row in enumerate(_ROWS)}


def nearest(text: str, names: Iterable[str]) -> str:
    """Suggest the closest of some names, as a sentence, or nothing."""
    close = difflib.get_close_matches(text, list(names), n=1)
    return f"Nearest: {close[0]}. " if close else ""


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
        """A hash computed once: sites are looked up many times in every forward pass."""
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
        """The text that ``parse`` reads back."""
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
