"""What runs a model: the few operations that capture, intervention and gradients need of any machinery."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from interp.models.architecture import Architecture
from interp.models.hooks import Edit, Frame
from interp.sites import Site

__all__ = ["Backend", "Forward"]

Forward = Callable[..., Any]
"""From a batch, which logits are needed, and cache arguments by name, to the model's output."""


class Backend(ABC):
    """The machinery that runs forward passes of one model, writing some sites and reading others.

    Attributes:
        name: how users ask for it.
        architecture: the model's sizes, and the sites that this backend offers.
    """

    name: ClassVar[str]
    architecture: Architecture

    @property
    @abstractmethod
    def caches(self) -> bool:
        """Whether a continuation can use the key-value cache; without one it recomputes everything."""

    @abstractmethod
    def session(
        self, frame: Frame, *, writes: Sequence[Mapping[Site, Edit]], reads: Sequence[Site]
    ) -> AbstractContextManager[Forward]:
        """Open a block in which the function given runs one pass per call.

        Whether a graph is kept is decided by torch's own switches around it.

        Args:
            frame: the shape of the pass, set before each; what is read is stored in ``frame.found``.
            writes: groups of edits; of two groups that write at one place the first acts first.
            reads: sites to read; they see what was written.

        Raises:
            SiteError: a site that this backend does not offer, or that can only be read.
        """
