"""What differs between a model and one that was made of it by training."""

from __future__ import annotations

from interp.analyses.training_changes.run import difference

__all__ = ["difference"]
