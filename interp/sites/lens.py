"""Names of TransformerLens, translated to kinds of sites."""

from __future__ import annotations

import re
from functools import lru_cache

from interp.errors import SiteError

__all__ = ["LENS", "LENS_BLOCK", "from_lens"]

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
