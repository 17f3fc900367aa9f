"""The Jacobian lens of a model: fitted once on texts that the model writes, kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp.lenses.files import opened, saved
from interp.lenses.jacobian import SKIP, JacobianLens, fitted
from interp.lenses.texts import drawn
from interp.models.gguf import alone, cache
from interp.models.model import Model
from interp.models.readout import Readout

__all__ = ["jacobian_lens"]

VERSION = 1
"""Of what is kept in the cache."""
ROWS, LEAST, MOST = 2048, 3, 32
"""About how many backward passes of a text there are, the fewest texts and the most."""
LENGTH = 48
"""Tokens of each text that is drawn."""
FIRST = 1
"""Tokens that are left out where no text is long enough for the published rule."""
_log = logging.getLogger(__name__)


def jacobian_lens(
    model: Model,
    layers: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    seed: int = 0,
) -> JacobianLens:
    """The Jacobian lens of a model, fitted where this was not done yet.

    It costs about 2,048 backward passes of a text of 48 tokens, and at least three texts: long for a wide
    model on a CPU. Published lenses are opened by :func:`interp.lenses.opened`.

    Args:
        model: whose states it will read.
        layers: the blocks to read; None for all.
        texts: to average over; None for texts that are drawn from the model.
        seed: of the draws.

    Raises:
        DataError: no text is long enough.
        ConfigError: the cache cannot be written.
    """
    chosen = tuple(range(model.n_layers) if layers is None else layers)
    wanted = [layer for layer in chosen if layer < model.n_layers - 1]
    settings = json.dumps([VERSION, ROWS, LEAST, MOST, LENGTH, SKIP, seed, list(texts or ())])
    marks = f"{model.fingerprint}|{model.tokenizer_fingerprint}|{settings}"
    folder = cache() / "jacobians" / hashlib.sha256(marks.encode()).hexdigest()[:32]
    place = {layer: folder / f"resid_post.{layer}.safetensors" for layer in wanted}
    with alone(folder.with_suffix(".lock")):
        missing = [layer for layer in wanted if not place[layer].is_file()]
        if missing:
            _log.info("fitting a Jacobian lens for layers %s; it is kept in %s", missing, folder)
            made = _made(model, missing, texts, seed)
            for layer in missing:
                one = replace(
                    made, matrices={layer: made.matrices[layer]}, errors={layer: made.errors[layer]}
                )
                saved(one, place[layer], model)
        parts: list[Any] = [opened(place[layer], model) for layer in wanted]
    return JacobianLens(
        Readout.precise(model.architecture),
        chosen,
        {layer: one.matrices[layer] for layer, one in zip(wanted, parts, strict=True)},
        parts[0].fitted_on if parts else {},
        {layer: one.errors[layer] for layer, one in zip(wanted, parts, strict=True)},
    )


def _made(model: Model, layers: Sequence[int], texts: Sequence[str] | None, seed: int) -> JacobianLens:
    n = max(LEAST, min(MOST, ROWS // model.d_model))
    if texts:
        ids = model.tokenize(list(texts)).token_ids
        facts = {"texts": "that were given", "given": len(ids)}
    else:
        ids = drawn(model, n_tokens=n * LENGTH, length=LENGTH, seed=seed)
        facts = {"texts": "drawn from the model itself", "drawn": len(ids)}
    ids = ids[: 4 * n] if texts else ids
    skip = SKIP if sum(len(one) > SKIP + 1 for one in ids) >= min(LEAST, len(ids)) else FIRST
    used = [one for one in ids if len(one) > skip + 1][:n]
    return fitted(model, layers, used or ids, skip=skip, facts={**facts, "seed": seed})
