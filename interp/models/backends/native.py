"""The native backend: the Hugging Face model itself, with PyTorch hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from interp.models.architecture import Architecture
from interp.models.backends.base import Backend, Forward
from interp.models.forward import cache_name, forward
from interp.models.hooks import Edit, Frame, Writer, eager_attention, evaluating, reading, writing
from interp.sites import Site

__all__ = ["Native"]


@dataclass(frozen=True, eq=False)
class Native(Backend):
    """Run the Hugging Face model itself with PyTorch hooks that are gone after the block."""

    name: ClassVar[str] = "native"
    architecture: Architecture

    @property
    def caches(self) -> bool:
        """Whether the model takes a key-value cache."""
        return bool(cache_name(self.architecture))

    @contextmanager
    def session(
        self, frame: Frame, *, writes: Sequence[Mapping[Site, Edit]], reads: Sequence[Site]
    ) -> Iterator[Forward]:
        """Install hooks for the block; attention is eager in it if probabilities are read."""
        architecture = self.architecture
        with ExitStack() as stack:
            stack.enter_context(evaluating(architecture.modules))
            if any(site.kind == "pattern" for site in reads):
                stack.enter_context(eager_attention(architecture.modules))
            for group in writes:
                writers = [
                    Writer(site, architecture.locate(site, write=True), edit) for site, edit in group.items()
                ]
                stack.enter_context(writing(writers, frame))
            stack.enter_context(reading({site: architecture.locate(site) for site in reads}, frame))
            yield partial(forward, architecture)
