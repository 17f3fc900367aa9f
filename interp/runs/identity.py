"""What makes two runs the same: the key of a capture, and the versions that made a run."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib import metadata

from interp._version import __version__

__all__ = ["PACKAGES", "cache_key", "versions"]

PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
)


def versions() -> dict[str, str]:
    """The versions a run depends on: Python, platform, this toolkit, the packages it computes with."""
    found = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "interp": __version__,
        **{name: version for name, version in found.items() if version},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def cache_key(
    weights: str,
    tokenizer: str,
    token_ids: Sequence[Sequence[int]],
    *,
    site: str,
    positions: str,
    dtype: str,
    scheme: str = "none",
    library: str | None = None,
) -> str:
    """The key under which a capture is kept: the same request hits it, a different one cannot.

    Args:
        weights: fingerprint of the model's weights.
        tokenizer: fingerprint of the tokenizer.
        token_ids: the exact ids, prompt by prompt.
        site: the site's name.
        positions: the positions asked for, as text.
        dtype: the arithmetic's dtype.
        scheme: the weights' quantization.
        library: major version of this toolkit; ``None`` takes the running one.

    Returns:
        A sha256 in hexadecimal, over a canonical JSON text, so that no two requests can run into each other
        by concatenation.
    """
    request = {
        "weights": weights,
        "tokenizer": tokenizer,
        "token_ids": [[int(token) for token in prompt] for prompt in token_ids],
        "site": site,
        "positions": positions,
        "dtype": dtype,
        "scheme": scheme,
        "library": __version__.split(".")[0] if library is None else library,
    }
    return hashlib.sha256(json.dumps(request, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
