"""The kinds of sites, as data."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["KINDS", "ORDER", "READ_ONLY", "Kind", "nearest"]

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
    Kind("final_norm", False, "none", ""),
    Kind("logits", False, "none", ""),
)

KINDS: Mapping[str, Kind] = {row.name: row for row in _ROWS}
"""Every kind of site, in execution order inside a block."""

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
