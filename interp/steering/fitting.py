"""Fit a steering vector: read states of two sides, find the direction, test it on held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError, DataError, SiteError, counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.positions import Positions
from interp.sites import Site
from interp.steering.methods import METHODS, Method, Reader, Sides, pulled_back
from interp.steering.vector import DIFFERENCE, Origin, Vector, described, hashed
from probes.evaluation import auroc

__all__ = ["Prompt", "fit", "question_of", "text_of_prompt", "under"]

Prompt = Any
"""A text, a conversation (a list of mappings with ``role`` and ``content``), or token ids."""
FOLDS = 5
EXAMPLES = 3
SHARE = 0.1
"""Dose 1 of a direction that was fitted on no states, as a share of the mean length of a state."""


def fit(
    model: ModelLike,
    positive: Sequence[Prompt],
    negative: Sequence[Prompt],
    site: str | Sequence[str],
    *,
    method: str = "mean-difference",
    positions: Positions = "last",
    prompts: Sequence[Prompt] = (),
    reader: Reader = None,
    name: str = "",
    seed: int = 0,
) -> Vector:
    """Fit a direction that leads from one side of a contrast to the other.

    Dose 1 has the length of the difference of the mean states of the two sides, whatever the method, so that
    methods are compared at equal length; of ``concept``, which reads no states, a tenth of the mean length of
    a state. How well the direction tells prompts apart that it was not fitted on is measured over five folds.

    Args:
        model: whose states.
        positive: prompts that have what is looked for; under ``prompts`` instructions; under ``concept``
            words.
        negative: prompts, instructions or words that have not.
        site: of width d_model, such as ``"resid_post.20"``; several, or a glob, for one direction at each.
        method: a row of ``METHODS``.
        positions: which tokens of a prompt are read, as for ``capture``; the mean of several. ``"all"``
            leaves out the special tokens with which a prompt begins, such as the beginning-of-sequence token:
            attention gathers there, its state is many times as long as others, and its share of the mean
            would say how long a text is. Where a tokenizer writes none, the first word is such a place
            in many models: ``slice(1, None)`` leaves it out.
        prompts: those that are read under both instructions, for the method ``prompts`` alone.
        reader: for ``concept``: a fitted Hyperdimensional Probe or translators; the model's own translators
            where left out.
        name: in tables; made from the method and the site where left out.
        seed: of what a method draws.

    Raises:
        ConfigError: an unknown method, or arguments that do not go with it.
        DataError: a side without prompts, sides that must pair and do not, or that do not differ.
        SiteError: a site that the model has not, or of another width.
    """
    model = as_model(model)
    row = _checked(method, positive, negative, prompts)
    sites = [str(one) for one in model.expand(site)]
    if wrong := [one for one in sites if not _wide(one)]:
        raise SiteError(
            f"'{wrong[0]}' is not of width d_model; steer resid_post, resid_pre, attn_out or mlp_out, such "
            f"as resid_post.{model.n_layers // 2}."
        )
    label = name or f"{method} at {sites[0] if len(sites) == 1 else f'{len(sites)} sites'}"
    if row.reads == "words":
        return _of_words(model, label, sites, (positive, negative), reader, seed)
    pairs = (positive, negative)
    if row.reads == "systems":
        pairs = tuple([under(text, one) for text in side for one in prompts] for side in pairs)
    units_of = _units(max(map(len, pairs)), prompts)
    up, down = (_states(model, list(side), sites, positions) for side in pairs)
    sides = {one: Sides(up[one], down[one], seed) for one in sites}
    units = {one: float(both.difference.norm()) for one, both in sides.items()}
    if flat := [one for one, unit in units.items() if not unit > 0]:
        raise DataError(
            f"the two sides have the same mean at {flat[0]}: they do not differ in the tokens that are read "
            f"(positions={positions!r}). Give other prompts or positions."
        )
    every = (*pairs[0], *pairs[1], *prompts)
    known = (*every, *map(question_of, every))
    origin = Origin(
        method,
        described(model),
        DIFFERENCE,
        len(pairs[0]),
        len(pairs[1]),
        str(positions),
        tuple(dict.fromkeys(map(hashed, known))),
        tuple(text_of_prompt(one) for one in positive[:EXAMPLES]),
        {one: both.mean_length for one, both in sides.items()},
        {one: found for one, both in sides.items() if (found := _separation(row, both, units_of))},
        seed,
    )
    return Vector.of(label, {one: row.direction(both) for one, both in sides.items()}, origin, units)


def _of_words(
    model: Model,
    label: str,
    sites: Sequence[str],
    words: tuple[Sequence[str], Sequence[str]],
    reader: Reader,
    seed: int,
) -> Vector:
    positive, negative = words
    found = {one: pulled_back(model, Site.parse(one), positive, negative, reader, seed) for one in sites}
    norms = {one: length for one, (_, length) in found.items()}
    origin = Origin(
        "concept",
        described(model),
        f"{SHARE:.0%} of the mean length of a state",
        len(positive),
        len(negative),
        prompts=tuple(map(hashed, (*positive, *negative))),
        examples=tuple(positive[:EXAMPLES]),
        norms=norms,
        seed=seed,
    )
    units = {one: SHARE * length for one, length in norms.items()}
    return Vector.of(label, {one: vector for one, (vector, _) in found.items()}, origin, units)


def under(instruction: str, prompt: Prompt) -> Prompt:
    """A prompt under an instruction: as a system message of a conversation, or as a line before a text.

    Args:
        instruction: what is to be done.
        prompt: a text or a conversation.

    Raises:
        DataError: token ids, before which no text can be put.
    """
    if isinstance(prompt, str):
        return f"{instruction}\n{prompt}"
    if prompt and all(isinstance(one, Mapping) for one in prompt):
        head, rest = prompt[0], list(prompt[1:])
        if head["role"] == "system":
            return [{**head, "content": f"{instruction}\n{head['content']}"}, *rest]
        return [{"role": "system", "content": instruction}, *prompt]
    raise DataError("a prompt of token ids takes no instruction; give texts or conversations.")


def question_of(prompt: Prompt) -> Prompt:
    """A conversation without the answer that ends it; any other prompt as it is."""
    if isinstance(prompt, str) or len(prompt) < 2 or not isinstance(prompt[-1], Mapping):
        return prompt
    return list(prompt[:-1]) if prompt[-1].get("role") == "assistant" else prompt


def text_of_prompt(prompt: Prompt) -> str:
    """The text of a prompt; of a conversation its last message."""
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1] if prompt else ""
    return str(last["content"]) if isinstance(last, Mapping) else ""


def _checked(
    method: str, positive: Sequence[Prompt], negative: Sequence[Prompt], prompts: Sequence[Prompt]
) -> Method:
    if method not in METHODS:
        raise ConfigError(f"method {method!r} asked; there are: {', '.join(METHODS)}.")
    row = METHODS[method]
    for name, side in (("positive", positive), ("negative", negative)):
        if isinstance(side, str):
            raise DataError(f"the {name} side is one text; give a list of prompts: [{side[:30]!r}].")
        if not len(side) and not (row.reads == "words" and name == "negative"):
            raise DataError(f"the {name} side is empty; give prompts of both sides.")
    if row.paired and len(positive) != len(negative):
        raise DataError(
            f"{method!r} pairs the sides, but there are {counted(len(positive), 'positive prompt')} and "
            f"{len(negative)} negative. Give one for each, or use method='mean-difference'."
        )
    if (row.reads == "systems") != bool(len(prompts)):
        raise ConfigError(
            "method 'prompts' reads prompts= under the instructions of both sides; give some, such as "
            "prompts=['Tell me about dogs.', ...]."
            if row.reads == "systems"
            else f"prompts= goes with method 'prompts' alone; {method!r} reads the two sides."
        )
    return row


def _wide(site: str) -> bool:
    return Site.parse(site).kind in (
        "embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mixer_out", "final_norm"
    )  # fmt: skip


def _states(
    model: Model, prompts: list[Prompt], sites: Sequence[str], positions: Positions
) -> dict[str, Float[Tensor, "example width"]]:
    """The states of each prompt, the mean over its chosen tokens, in float64."""
    if isinstance(positions, str) and positions == "all":
        rows = model.tokenize(prompts).token_ids
        positions = [list(range(_opened(model, ids), len(ids))) for ids in rows]
    read = model.capture(prompts, list(sites), positions, device="cpu", dtype=torch.float32)
    if read.single:
        return {site: read[site].double() for site in sites}
    counts = torch.tensor([len(row) for row in read.positions], dtype=torch.float64)
    return {site: read[site].double().sum(dim=1) / counts[:, None] for site in sites}


def _opened(model: Model, ids: Sequence[int]) -> int:
    """The number of special tokens before the first that is none; 0 where all are."""
    words: Any = model.tokenizer
    special = set() if words is None else {*words.all_special_ids} - {words.unk_token_id}
    return next((at for at, one in enumerate(ids) if one not in special), 0)


def _units(rows: int, prompts: Sequence[Prompt]) -> Int[Tensor, " row"]:
    """What each row of a side is of: of instructions x prompts the prompt, else the row (the pair).

    Args:
        rows: on the longer side.
        prompts: those that are read under instructions.
    """
    if not prompts:
        return torch.arange(rows)
    keys = [hashed(one) for one in prompts]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([numbers[keys[row % len(keys)]] for row in range(rows)])


def _separation(method: Method, sides: Sides, units: Int[Tensor, " row"]) -> dict[str, Any]:
    """How well directions of four fifths of the units tell the rest apart; nothing for few of them."""
    most = int(units.max()) + 1
    if min(most, len(sides.positive), len(sides.negative)) < 2 * FOLDS:
        return {}
    order = torch.randperm(most, generator=torch.Generator().manual_seed(sides.seed))
    fold = torch.empty(most, dtype=torch.long)
    fold[order] = torch.arange(most) % FOLDS
    fold = fold[units]
    scores: list[float] = []
    labels: list[int] = []
    groups: list[int] = []
    for number in range(FOLDS):
        held = fold == number
        kept = sides.split(held)
        direction = method.direction(kept)
        middle = (kept.positive.mean(dim=0) + kept.negative.mean(dim=0)) / 2
        spread = (torch.cat([kept.positive, kept.negative]) - middle) @ direction
        for label, side in ((1, sides.positive), (0, sides.negative)):
            found = (side[held[: len(side)]] - middle) @ direction / spread.std()
            scores += found.tolist()
            labels += [label] * len(found)
            groups += units[: len(side)][held[: len(side)]].tolist()
    return auroc(np.array(labels), np.array(scores), groups=groups).to_dict()
