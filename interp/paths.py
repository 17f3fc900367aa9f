"""Where the files that come with the package are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["assets"]


def assets(*parts: str) -> Path:
    """Find a file or folder of the bundled assets, in a checkout or in an installed package.

    Args:
        *parts: path components below the assets folder, for example ``"facts", "countries.csv"``.
    """
    here = Path(__file__).resolve().parent
    for root in (here.parent / "assets", here / "assets"):
        if root.is_dir():
            return root.joinpath(*parts)
    return (here / "assets").joinpath(*parts)
