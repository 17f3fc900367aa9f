"""The Hub for what ``interp`` saves: the doors of :mod:`probes.hub`, with this package's exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from interp.errors import ArtifactError, ConfigError, InterpError, ModelError
from probes import hub
from probes.cards import HubCard
from probes.hub import Fetched

__all__ = ["Fetched", "HubCard", "Shared", "local", "push"]

This = TypeVar("This", bound="Shared")
"""The class that a thing is fetched as."""

ERRORS: dict[str, type[InterpError]] = {
    "address": ConfigError,
    "access": ModelError,
    "content": ArtifactError,
}
"""The exception of each reason that a Hub's error has."""


class Shared(hub.Shared):
    """What can be pushed to the Hub and fetched from it."""

    def push_to_hub(
        self,
        repo: str,
        *,
        revision: str = hub.MAIN,
        visibility: Literal["public", "private"] | None = None,
        license: str = "",
    ) -> str:
        """Push it to the Hugging Face Hub: safetensors, JSON and a card, never a pickle.

        Args:
            repo: ``user/name``; made where it does not exist.
            revision: the branch; made where it does not exist.
            visibility: of a new repository; None for what the account does by itself.
            license: for the card, such as ``"mit"``.

        Returns:
            ``user/name@commit``, which always names these bytes.

        Raises:
            ConfigError: no name of a repository.
            ModelError: the Hub refuses it or cannot be reached.
            ArtifactError: a file would name a folder of this machine.
        """
        with translated():
            return super().push_to_hub(repo, revision=revision, visibility=visibility, license=license)

    @classmethod
    def from_pretrained(cls: type[This], repo: str, *, revision: str = hub.MAIN) -> This:
        """Fetch it from the Hugging Face Hub, into the Hub's cache.

        Args:
            repo: ``user/name``.
            revision: a branch, a tag or a commit; its commit is kept in what is loaded.

        Raises:
            ConfigError: no name of a repository.
            ModelError: no such repository or revision, or no network.
            ArtifactError: a file that is not what was pushed, or another kind of thing.
        """
        with translated():
            return super().from_pretrained(repo, revision=revision)


def local(place: str | Path, kind: str) -> Fetched:
    """The folder of a saved thing: the one that is given, or an address's files in the Hub's cache.

    Args:
        place: a folder, or ``hf://user/name[@revision]``.
        kind: what is wanted, such as ``"steering-vector"``.

    Raises:
        InterpError: see ``Shared.from_pretrained``.
    """
    with translated():
        return hub.local(place, kind)


def push(
    write: Callable[[Path], object],
    card: HubCard,
    repo: str,
    *,
    revision: str = hub.MAIN,
    visibility: Literal["public", "private"] | None = None,
    license: str = "",
) -> str:
    """Push what ``write`` writes into a folder, with a card; see ``Shared.push_to_hub``.

    Args:
        write: is called with an empty folder.
        card: what the card says.
        repo: ``user/name``.
        revision: the branch.
        visibility: of a new repository.
        license: for the card.

    Raises:
        InterpError: see ``Shared.push_to_hub``.
    """
    with translated():
        return hub.push(write, card, repo, revision=revision, visibility=visibility, license=license)


@contextmanager
def translated() -> Iterator[None]:
    """Raise a Hub's error as one of this package."""
    try:
        yield
    except hub.HubError as error:
        raise ERRORS[error.reason](str(error)) from error
