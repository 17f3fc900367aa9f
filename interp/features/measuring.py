"""What a dictionary leaves out of the states of a model, text by text, and what that costs the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InterpError
from interp.features.dictionary import Dictionary
from interp.features.texts import FIRST, counted_positions, parts
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.sites import Site

__all__ = ["Arm", "explained", "losses", "moved_to", "permuted", "rotated", "usage"]

Ids = Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class Arm:
    """Sums over the tokens of each text.

    Attributes:
        unexplained: squared length of the error.
        total: squared distance of the site from its mean over all tokens.
    """

    unexplained: Float[np.ndarray, " text"]
    total: Float[np.ndarray, " text"]


def moved_to(dictionary: Dictionary, layer: int) -> Dictionary:
    """The same dictionary at another layer."""
    places = (Site(site.kind, layer) for site in (dictionary.site_in, dictionary.site_out))
    site_in, site_out = places
    return replace(dictionary, site_in=site_in, site_out=site_out, later=())


def permuted(dictionary: Dictionary, seed: int) -> Dictionary:
    """The same with decoder rows exchanged: each feature writes what another one means."""
    order = torch.randperm(dictionary.n_features, generator=torch.Generator().manual_seed(seed))
    return replace(dictionary, decoder=dictionary.decoder[order.to(dictionary.device)], later=())


def rotated(dictionary: Dictionary, seed: int) -> Dictionary:
    """The same in a randomly rotated site: all angles between features are kept, and none to the states."""
    generator = torch.Generator().manual_seed(seed)
    width_in, width_out = dictionary.encoder.shape[1], dictionary.width
    turn_in = torch.linalg.qr(torch.randn(width_in, width_in, generator=generator))[0].to(dictionary.device)
    turn_out = turn_in
    if not dictionary.autoencodes:
        turn_out = torch.linalg.qr(torch.randn(width_out, width_out, generator=generator))[0].to(turn_in)
    return replace(
        dictionary,
        encoder=dictionary.encoder @ turn_in,
        decoder=dictionary.decoder @ turn_out,
        shift=None if dictionary.shift is None else dictionary.shift @ turn_in,
        decoder_bias=dictionary.decoder_bias @ turn_out,
        skip=None if dictionary.skip is None else turn_out.T @ dictionary.skip @ turn_in,
        later=(),
    )


def explained(model: Model, dictionaries: Sequence[Dictionary], texts: Ids) -> dict[int, Arm]:
    """What dictionaries of several layers leave out, in the same passes: layer to its sums.

    Args:
        model: whose states.
        dictionaries: at most one for each layer.
        texts: token ids; the first token of each does not count.
    """
    model = model.with_dictionaries(*dictionaries)
    sites = {one.layer: (f"error.{one.layer}", str(one.site_out)) for one in dictionaries}
    names = sorted({name for pair in sites.values() for name in pair})
    error: dict[int, list[np.ndarray]] = {layer: [] for layer in sites}
    square: dict[int, list[np.ndarray]] = {layer: [] for layer in sites}
    sums: dict[int, list[np.ndarray]] = {layer: [] for layer in sites}
    counts: list[np.ndarray] = []
    for part in parts(texts):
        read = model.capture(part, names, "all")
        inside = counted_positions(part)
        counts.append(inside.sum(dim=1).numpy())
        for layer, (left, whole) in sites.items():
            mask = inside.to(read[left].device)[..., None]
            out = read[whole].double()
            out = (out.flatten(2) if out.ndim > 3 else out) * mask
            error[layer].append((read[left].double() * mask).square().sum(dim=(1, 2)).cpu().numpy())
            square[layer].append(out.square().sum(dim=(1, 2)).cpu().numpy())
            sums[layer].append(out.sum(dim=1).cpu().numpy())
    n = np.concatenate(counts)
    found: dict[int, Arm] = {}
    for layer in sites:
        each = np.concatenate(sums[layer])
        mean = each.sum(axis=0) / n.sum()
        spread = np.concatenate(square[layer]) - 2 * each @ mean + n * (mean @ mean)
        found[layer] = Arm(np.concatenate(error[layer]), spread)
    return found


def usage(
    model: Model, dictionary: Dictionary, texts: Ids
) -> tuple[Float[np.ndarray, " text"], Float[np.ndarray, " feature"]]:
    """Active features of each text, added up over its tokens; and on how many tokens each feature is active.

    Args:
        model: whose states.
        dictionary: that reads them.
        texts: token ids; the first token of each does not count.
    """
    model, site = model.with_dictionaries(dictionary), f"feature.{dictionary.layer}"
    active: list[np.ndarray] = []
    fired = torch.zeros(dictionary.n_features, dtype=torch.float64)
    for part in parts(texts):
        on = (model.capture(part, site, "all")[site] != 0) & counted_positions(part).to(model.device)[
            ..., None
        ]
        active.append(on.sum(dim=(1, 2)).double().cpu().numpy())
        fired += on.sum(dim=(0, 1)).double().cpu()
    return np.concatenate(active), fired.numpy()


def losses(
    model: Model,
    dictionary: Dictionary,
    texts: Ids,
    arms: Sequence[str] = ("plain", "spliced", "zero", "mean"),
) -> dict[str, Float[np.ndarray, " text"]]:
    """Summed loss of each text's next tokens (nats), with the site replaced in several ways.

    ``spliced``: by what the dictionary decodes; ``zero`` and ``mean`` (over all tokens): without any of it.

    Args:
        model: whose next tokens.
        dictionary: of one of its sites.
        texts: token ids; the site is not replaced at the first token, and what follows it is not counted.
        arms: which ways.
    """
    model, out = model.with_dictionaries(dictionary), str(dictionary.site_out)
    mean = _mean(model, out, texts) if "mean" in arms else None
    places = slice(FIRST, None)
    edits = {
        "plain": [],
        "spliced": [Intervention(f"error.{dictionary.layer}", 0.0, places)],
        "zero": [Intervention(out, 0.0, places)],
        "mean": [Intervention(out, mean, places)] if mean is not None else [],
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    for part in parts(texts):
        for name in arms:
            found[name].append(_loss(model, part, edits[name]))
    return {name: np.concatenate(values) for name, values in found.items()}


def _mean(model: Model, site: str, texts: Ids) -> Tensor:
    total, count = 0.0, 0
    for part in parts(texts):
        values = model.capture(part, site, "all")[site]
        inside = counted_positions(part).to(values.device)
        total = total + values[inside].double().sum(dim=0)
        count += int(inside.sum())
    mean = total / count
    if not isinstance(mean, Tensor):
        raise InterpError("no token counts in these texts.")
    return mean.to(model.dtype)


def _loss(model: Model, part: list[list[int]], edits: list[Intervention]) -> Float[np.ndarray, " text"]:
    logits = model.run(part, interventions=edits or None, logits="all").logits
    assert logits is not None
    inside = counted_positions(part, FIRST + 1)[:, 1:].to(logits.device)
    ids = torch.zeros(inside.shape, dtype=torch.long, device=logits.device)
    for row, tokens in enumerate(part):
        ids[row, : len(tokens) - 1] = torch.tensor(tokens[1:])
    nll = -logits[:, :-1].float().log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
    return (nll * inside).double().sum(dim=1).cpu().numpy()
