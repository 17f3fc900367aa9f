"""What a process has to know to make shards, and the loop that hands them out and lets them count."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from interp.activations import Activations
from interp.addresses import Place
from interp.errors import ModelError
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.runs import cache_key
from interp.sites import OF_DICTIONARIES
from interp.store import SHARD, ActivationStore, Part, discard, write_shard

__all__ = ["CaptureJob", "Handed", "alone", "cache_keys", "help_out"]

Handed = tuple[Part, Tokens]
"""A shard that is still to be made: its place, and its prompts."""


@dataclass(frozen=True)
class CaptureJob:
    """What any process needs to make shards of one capture; it can be sent to another.

    Attributes:
        make: gives the model; a function of a module, or a ``functools.partial`` of one.
        fingerprint: of the model that it must give.
        folder: of the store, on a disk (or at an address) that all processes see.
        sites: names, globs written out.
        positions: as for ``model.capture``.
        keys: site name to cache key.
        batch_size: prompts per pass.
        text: whether texts and token ids are kept.
    """

    make: Callable[[], Model]
    fingerprint: str
    folder: str | Place
    sites: tuple[str, ...]
    positions: str | int
    keys: dict[str, str]
    batch_size: str | int = "auto"
    text: bool = True

    def model(self) -> Model:
        """The model, in this process.

        Raises:
            ModelError: it is not the one that the job was made for.
        """
        model = self.make()
        if model.fingerprint != self.fingerprint:
            raise ModelError(
                f"this process loaded {model.name!r} with other weights than the job was made for "
                f"({model.fingerprint[:12]} instead of {self.fingerprint[:12]}). Give all processes the same "
                "files."
            )
        return model

    def states(self, model: Model, tokens: Tokens) -> Activations:
        """The states of one shard's prompts."""
        found = model.capture(
            tokens, list(self.sites), self.positions, batch_size=self.batch_size, device="cpu"
        )
        found = dataclasses.replace(found, texts=list(tokens.texts))
        return found if self.text else found.redacted()

    def write(self, model: Model, handed: Handed) -> Part:
        """Make one shard beside the store."""
        part, tokens = handed
        write_shard(self.folder, part, self.states(model, tokens), cache_keys=self.keys)
        return part


def cache_keys(model: Model, tokens: Tokens, sites: Sequence[str], positions: str | int) -> dict[str, str]:
    """The key of each site's request: model, tokenizer, dictionaries, ids, positions and dtype."""
    dtype = str(model.dtype).removeprefix("torch.")
    parts = (model.fingerprint, model.tokenizer_fingerprint, tokens.token_ids)
    own = {
        f"{kind}.{n}": one.fingerprint for n, one in model.dictionaries.items() for kind in OF_DICTIONARIES
    }
    names = {site: f"{site} {own.get('.'.join(site.split('.')[:2]), '')}".strip() for site in sites}
    return {
        site: cache_key(*parts, site=names[site], positions=str(positions), dtype=dtype) for site in sites
    }


def alone(
    store: ActivationStore, job: CaptureJob, model: Model, tokens: Tokens, *, size: int = SHARD
) -> Iterator[int]:
    """Make the shards that a store lacks in this process; those that others make meanwhile count too.

    Args:
        store: open for writing, in the job's folder.
        job: what to make.
        model: that the job was made for.
        tokens: all prompts.
        size: prompts per shard.

    Yields:
        How many prompts the store holds, after each shard.
    """
    store.adopt()
    while todo := store.to_do(len(tokens), size=size):
        store.append(job.states(model, tokens.select(todo[0].rows)))
        yield len(store)
        store.adopt()
    store.tidy()


def help_out(
    job: CaptureJob, model: Model, tokens: Tokens, *, seed: int, size: int = SHARD
) -> Iterator[Part]:
    """Make shards of a store that another process holds, until none is left to be made.

    Nobody is told who makes which: each takes one at random, and the holder the first. Of the few that are
    made twice one is thrown away; they are the same.

    Args:
        job: what to make.
        model: that the job was made for.
        tokens: all prompts.
        seed: of the order, another one for each process.
        size: prompts per shard.

    Yields:
        The shards that were made here.

    Raises:
        ConfigError: the store there was begun for another request.
    """
    draw = random.Random(seed)
    while todo := ActivationStore(job.folder, cache_keys=job.keys).to_do(len(tokens), size=size)[1:]:
        part = draw.choice(todo)
        job.write(model, (part, tokens.select(part.rows)))
        if not (len(ActivationStore(job.folder)) > part.start and discard(job.folder, part)):
            yield part
