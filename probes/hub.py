"""Sharing on the Hugging Face Hub: safetensors, JSON and a card, fetched by commit, checked by sha256.

A shared repository holds the files that ``save`` writes, ``README.md`` (the card) and ``interp.json``, which
names the kind of thing and the sha256 of every other file. What is fetched are the files that it names, no
others; a pickle is neither written nor read. Where a folder of a saved thing is taken, an address
``hf://user/name`` or ``hf://user/name@revision`` is taken too.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from probes.cards import HubCard, ProbeFileError, hub_readme

__all__ = ["Fetched", "HubError", "Shared", "address", "local", "push"]

This = TypeVar("This", bound="Shared")
"""The class that a thing is fetched as."""

SCHEMA, MANIFEST, CARD = "interp.hub/1", "interp.json", "README.md"
SAFE = (".safetensors", ".json", ".md")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
SCHEME = "hf://"
MAIN = "main"
SECONDS = 10.0
"""How long an answer of the Hub may take."""
REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
PRIVATE = re.compile(r"(?:/(?:home|Users|root|tmp|private|var|mnt)/|[A-Za-z]:\\\\?Users\\)[^\s\"',;:)\]}]*")
"""A folder of somebody's machine."""


class HubError(ProbeFileError):
    """Report what cannot be shared or fetched.

    Attributes:
        reason: ``address`` for a name that is none, ``access`` for no network, no such repository and no
            right to it, ``content`` for files that are missing, changed, unsafe or of another kind.
    """

    def __init__(self, message: str, reason: Literal["address", "access", "content"] = "content") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Fetched:
    """Where the files of a saved thing are.

    Attributes:
        folder: that holds them.
        source: ``user/name@commit`` of what was fetched; "" for a folder of this machine.
    """

    folder: Path
    source: str = ""


class Shared:
    """What can be pushed to the Hub and fetched from it; ``save`` and ``load`` do the reading and writing."""

    def hub_card(self) -> HubCard:
        """What the card says."""
        raise NotImplementedError

    def push_to_hub(
        self,
        repo: str,
        *,
        revision: str = MAIN,
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
            HubError: the Hub refuses it or cannot be reached, or a file would name a folder of this machine.
        """
        write: Callable[[Path], object] = self.save  # type: ignore[attr-defined]
        return push(write, self.hub_card(), repo, revision=revision, visibility=visibility, license=license)

    @classmethod
    def from_pretrained(cls: type[This], repo: str, *, revision: str = MAIN) -> This:
        """Fetch it from the Hugging Face Hub, into the Hub's cache.

        Args:
            repo: ``user/name``.
            revision: a branch, a tag or a commit; its commit is kept in what is loaded.

        Raises:
            HubError: no such thing, no network, a file that is not what was pushed, or another kind of thing.
        """
        return cls.load(f"{SCHEME}{repo}@{revision}")  # type: ignore[attr-defined]


def address(place: str | Path) -> tuple[str, str] | None:
    """Repository and revision of ``hf://user/name[@revision]``; None for what is no such address.

    Raises:
        HubError: it begins like one and is none.
    """
    text = str(place)
    if not text.startswith((SCHEME, "hf:/")):  # a path swallows one stroke of the two
        return None
    repo, _, revision = text.removeprefix("hf:").strip("/").partition("@")
    _check_repo(repo)
    return repo, revision or MAIN


def local(place: str | Path, kind: str) -> Fetched:
    """The folder of a saved thing: the one that is given, or an address's files in the Hub's cache.

    Args:
        place: a folder or an address.
        kind: what is wanted, such as ``"probe"``; a kind that ends with ``/`` is of all that begin so.

    Raises:
        HubError: see ``from_pretrained``.
    """
    found = address(place)
    if found is None:
        return Fetched(Path(place))
    repo, revision = found
    folder = _snapshot(repo, revision, [MANIFEST])
    commit = folder.name
    record = _manifest(folder, repo, commit)
    if not (record["kind"] == kind or (kind.endswith("/") and record["kind"].startswith(kind))):
        raise HubError(
            f"{repo} at {commit[:12]} holds a {_worded(record['kind'])}, asked for a {_worded(kind)}. Load "
            "it as what it is, or give another repository."
        )
    folder = _snapshot(repo, commit, sorted(record["files"]))
    for name, digest in record["files"].items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise HubError(
                f"{name} of {repo} at {commit[:12]} is not the file that {MANIFEST} names (sha256). Remove "
                f"{folder} and fetch it again; if that does not help, ask who pushed it."
            )
    return Fetched(folder, f"{repo}@{commit}")


def push(
    write: Callable[[Path], object],
    card: HubCard,
    repo: str,
    *,
    revision: str = MAIN,
    visibility: Literal["public", "private"] | None = None,
    license: str = "",
) -> str:
    """Push what ``write`` writes into a folder, with a card.

    Args:
        write: is called with an empty folder.
        card: what the card says.
        repo: ``user/name``.
        revision: the branch.
        visibility: of a new repository.
        license: for the card.

    Returns:
        ``user/name@commit``.

    Raises:
        HubError: see ``Shared.push_to_hub``.
    """
    _check_repo(repo)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        (folder / CARD).write_text(hub_readme(card, repo, _front(card, license)), encoding="utf-8")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files:
            _check_file(path, path.relative_to(folder).as_posix())
        digests = {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path != folder / CARD  # whoever owns the repository may go on writing there
        }
        record = {"schema": SCHEMA, "kind": card.kind, "files": digests}
        (folder / MANIFEST).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return f"{repo}@{_committed(folder, card, repo, revision, visibility)}"


def _committed(folder: Path, card: HubCard, repo: str, revision: str, visibility: str | None) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    api = HfApi(library_name="interp-toolkit")
    with _said(repo, revision):
        private = None if visibility is None else visibility == "private"
        api.create_repo(repo, private=private, exist_ok=True)
        if revision != MAIN:
            api.create_branch(repo, branch=revision, exist_ok=True)
        made = api.create_commit(
            repo,
            [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files],
            commit_message=f"Add {_worded(card.kind)}",
            revision=revision,
        )
    return str(made.oid)


def _front(card: HubCard, license: str) -> str:
    """The front matter, in the Hub's own words."""
    from huggingface_hub import ModelCardData

    base = card.model if REPO.fullmatch(card.model) else None
    facts: dict[str, Any] = {"library_name": "interp-toolkit", "base_model": base, "license": license or None}
    return ModelCardData(**facts, tags=["interpretability", card.kind.partition("/")[0]]).to_yaml()


def _check_repo(repo: str) -> None:
    if not REPO.fullmatch(repo) or ".." in repo or "--" in repo or len(repo) > 96:
        raise HubError(
            f"{repo!r} is no repository of the Hub; give user/name (hf://user/name[@revision] where a folder "
            "is taken).",
            "address",
        )


def _check_file(path: Path, name: str) -> None:
    """Refuse a file of another format, and text that tells of this machine."""
    if path.suffix not in SAFE:
        raise HubError(f"{name} is no {', '.join(SAFE)} file, and nothing else is pushed.")
    if path.suffix == ".safetensors":
        return
    text, home = path.read_text(encoding="utf-8").replace("\\\\", "\\"), Path.home()
    own = re.search(re.escape(str(home)), text) if len(home.parts) > 1 else None
    if found := PRIVATE.search(text) or own:
        raise HubError(
            f"{name} names {found.group()!r}, a folder of this machine, which would be public. Give the data "
            "and the model another name where it was made, or save it without texts and push that."
        )


def _snapshot(repo: str, revision: str, files: list[str]) -> Path:
    """The files of a revision in the Hub's cache; the folder is named after its commit."""
    from huggingface_hub import snapshot_download

    with _said(repo, revision):
        return Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=files, etag_timeout=SECONDS, max_workers=4
            )
        )


def _manifest(folder: Path, repo: str, commit: str) -> dict[str, Any]:
    """What is in the repository, as it says itself.

    Raises:
        HubError: it says nothing, or names what must not be read.
    """
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _foreign(repo, commit) from None
    except ValueError as error:
        raise HubError(
            f"{MANIFEST} of {repo} at {commit[:12]} is no JSON ({error}); ask who pushed it."
        ) from None
    whole = isinstance(record, dict) and record.get("schema") == SCHEMA
    if not whole or not isinstance(record.get("kind"), str) or not isinstance(record.get("files"), dict):
        raise HubError(
            f"{MANIFEST} of {repo} at {commit[:12]} is not of schema {SCHEMA}; use a newer version."
        )
    for name in record["files"]:
        parts = PurePosixPath(name)
        if (
            parts.suffix not in SAFE
            or parts.is_absolute()
            or ".." in parts.parts
            or re.search(r"[*?\[\\]", name)
        ):
            raise HubError(
                f"{repo} at {commit[:12]} names {name!r} among its files; only {', '.join(SAFE)} files "
                "inside of it are read."
            )
    return record


def _foreign(repo: str, commit: str) -> HubError:
    """Of a repository that was not pushed from here: what it holds instead."""
    from huggingface_hub import HfApi

    with _said(repo, commit):
        names = HfApi().list_repo_files(repo, revision=commit)
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        return HubError(
            f"{repo} at {commit[:12]} holds {pickles[0]}, which could run anything when it is opened, and no "
            f"{MANIFEST}: it is not read. Ask who made it for safetensors."
        )
    held = ", ".join(name for name in names if not name.startswith("."))[:120] or "nothing"
    return HubError(
        f"{repo} at {commit[:12]} was not pushed by this toolkit: it has no {MANIFEST} (it holds {held}). "
        "Dictionaries and lenses of other tools: hf download, then give the folder."
    )


@contextmanager
def _said(repo: str, revision: str) -> Iterator[None]:
    """Say in one line what the Hub refused, or that it was not reached."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RevisionNotFoundError:
        raise HubError(
            f"{repo} has no revision {revision!r}; give a branch, a tag or a commit.", "access"
        ) from None
    except GatedRepoError:
        raise HubError(
            f"{repo} is gated: ask for access on its page, then hf auth login.", "access"
        ) from None
    except RepositoryNotFoundError:
        raise HubError(
            f"the Hub has no {repo} that is seen from here. Check the name; if it is private: hf auth login.",
            "access",
        ) from None
    except LocalEntryNotFoundError as error:
        raise HubError(
            f"{repo} at {revision} is not in the Hub's cache, and the Hub was not reached. Check the network "
            f"(and HF_HUB_OFFLINE, HF_ENDPOINT), or fetch it where there is one: hf download {repo}.",
            "access",
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        remedy = (
            "log in with a token that may write: hf auth login" if status in (401, 403) else "try again later"
        )
        raise HubError(f"the Hub answers {status} for {repo}: {remedy}.", "access") from error
    except OSError as error:
        raise HubError(_unreached(repo, error), "access") from error
    except Exception as error:
        if "httpx" not in type(error).__module__ and "uploading" not in str(error):  # the client's transport
            raise
        raise HubError(_unreached(repo, error), "access") from error


def _unreached(repo: str, error: Exception) -> str:
    return (
        f"the Hub was not reached for {repo} ({type(error).__name__}). Check the network (and "
        "HF_HUB_OFFLINE, HF_ENDPOINT), then do it again."
    )


def _worded(kind: str) -> str:
    return kind.strip("/").replace("-", " ").replace("interp.", "result of ").partition("/")[0]
