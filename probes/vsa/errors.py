"""What can be wrong with a codebook."""

from __future__ import annotations

__all__ = ["CodebookError"]


class CodebookError(ValueError):
    """Report names that are missing or double, rows that cannot be told apart, or files that do not fit."""
