"""One instance of every result class, by schema: what the test of all results walks over."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import interp
from interp.results import Result
from interp.store import ActivationStore
from tests.tiny import tiny

__all__ = ["MAKERS"]


def stored() -> Result:
    """Two shards of a tiny model's stream."""
    hf, words = tiny("llama")
    model = interp.load(hf, tokenizer=words)
    with tempfile.TemporaryDirectory() as folder, ActivationStore(folder) as store:
        for ids in ([[1, 2, 3], [4, 5]], [[6, 7]]):
            store.append(model.capture(ids, ["resid_post.*"], "last"))
        return store.summary()


MAKERS: dict[str, Callable[[], Result]] = {
    "interp.capture/2": stored,
}
"""Schema -> makes a small result of that class."""
