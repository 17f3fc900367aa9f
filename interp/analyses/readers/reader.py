"""A reader: a name, and a callable that turns states into ranked names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float

from interp.errors import ConfigError, DataError

__all__ = ["Names", "Reader", "as_reader"]

Names = Sequence[Sequence[str]]
"""For each state (or prompt) the names that were read, the likeliest first; none where it abstains."""
GIVEN = ("states", "prompts", "layer")


@dataclass(frozen=True)
class Reader:
    """Anything that reads: states of one layer (and their prompts, if it wants them) in, ranked names out.

    Attributes:
        name: what a table calls it.
        read: called with the arguments of ``wants``, by name; gives one sequence of names for each state, the
            likeliest first, empty where it abstains.
        wants: which of ``states`` (``[example d_model]``, ``resid_post`` at the last token, float32 on the
            CPU), ``prompts`` (their texts) and ``layer`` (a number from 0) it is called with.
    """

    name: str
    read: Callable[..., Names]
    wants: tuple[str, ...] = ("states",)

    def __post_init__(self) -> None:
        """Refuse what no reader is given.

        Raises:
            ConfigError: ``wants`` names something else, or nothing.
        """
        wrong = [name for name in self.wants if name not in GIVEN]
        if wrong or not self.wants:
            asked = repr(wrong[0]) if wrong else "nothing"
            raise ConfigError(
                f"the reader {self.name!r} wants {asked}; a reader is given {', '.join(GIVEN)}: name its "
                "parameters so, or wrap it in a function whose parameters are."
            )

    def first(
        self, states: Float[torch.Tensor, "example d_model"], prompts: Sequence[str], layer: int
    ) -> list[str]:
        """The likeliest name of each state; "" where the reader abstains.

        Args:
            states: of ``resid_post.layer``.
            prompts: the text that goes with each state.
            layer: which block.

        Raises:
            DataError: the reader does not give one sequence of names for each state.
        """
        own = states.clone()  # a reader may change what it is given
        given: dict[str, Any] = {"states": own, "prompts": list(prompts), "layer": layer}
        found = self.read(**{name: given[name] for name in self.wants})
        if wrong := _wrong(found, len(prompts)):
            raise DataError(
                f"the reader {self.name!r} gave {wrong} for {len(prompts)} states; it must give one list of "
                'names for each, the likeliest first: [["Paris", "Rome"], [], ...].'
            )
        read = cast(Names, found)
        return [str(names[0]).strip() if len(names) else "" for names in read]


def _wrong(found: Any, n: int) -> str:
    """What is wrong with readings; "" for one list of names for each state."""
    if not isinstance(found, Sized) or isinstance(found, str):
        return f"a {type(found).__name__}"
    if len(found) != n:
        return f"{len(found)} readings"
    for names in cast(Sequence[Any], found):
        if isinstance(names, str) or not isinstance(names, Sized) or isinstance(names, Set | Mapping):
            return "texts" if isinstance(names, str) else f"a {type(names).__name__}"
        best = cast(Sequence[Any], names)[0] if len(names) else ""
        if not isinstance(best, str):
            return f"a {type(best).__name__} ({best!r:.40}) in place of a name"
    return ""


def as_reader(reader: Reader | Callable[..., Names], name: str = "") -> Reader:
    """A reader of a callable, which is given what its parameters are called.

    Args:
        reader: a reader, or a callable with parameters out of ``states``, ``prompts`` and ``layer``.
        name: what tables call it; the callable's own name where left out.

    Raises:
        ConfigError: a parameter of another name that has no default.
    """
    if isinstance(reader, Reader):
        return reader
    parameters = inspect.signature(reader).parameters.values()
    wants = tuple(one.name for one in parameters if one.name in GIVEN or one.default is one.empty)
    return Reader(name or getattr(reader, "__name__", type(reader).__name__), reader, wants)
