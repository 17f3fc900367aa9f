"""What runs a model: the few operations that capture, intervention and gradients need of any machinery."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from interp.models.anatomy import Anatomy
from interp.models.hooks import Edit, Frame, Writer, eager_attention, evaluating, reading, writing
from interp.models.passes import forward, takes_cache
from interp.sites import Site

__all__ = ["Backend", "Forward", "Native"]

Forward = Callable[..., Any]
"""From a batch, which logits are needed, and cache arguments by name, to the model's output."""


class Backend(ABC):
    """Run forward passes of one model that write some sites and read others.

    Attributes:
        name: how users ask for it.
        anatomy: the model's sizes, and the sites that this backend offers.
    """

    name: ClassVar[str]
    anatomy: Anatomy

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


@dataclass(frozen=True, eq=False)
class Native(Backend):
    """Run the Hugging Face model itself with PyTorch hooks that are gone after the block."""

    name: ClassVar[str] = "native"
    anatomy: Anatomy

    @property
    def caches(self) -> bool:
        """Whether the model takes a key-value cache."""
        return takes_cache(self.anatomy)

    @contextmanager
    def session(
        self, frame: Frame, *, writes: Sequence[Mapping[Site, Edit]], reads: Sequence[Site]
    ) -> Iterator[Forward]:
        """Install hooks for the block; attention is eager in it if probabilities are read."""
        anatomy = self.anatomy
        with ExitStack() as stack:
            stack.enter_context(evaluating(anatomy.modules))
            if any(site.kind == "pattern" for site in reads):
                stack.enter_context(eager_attention(anatomy.modules))
            for group in writes:
                writers = [
                    Writer(site, anatomy.locate(site, write=True), edit) for site, edit in group.items()
                ]
                stack.enter_context(writing(writers, frame))
            stack.enter_context(reading({site: anatomy.locate(site) for site in reads}, frame))
            yield partial(forward, anatomy)
