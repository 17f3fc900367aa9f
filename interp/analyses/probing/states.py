"""The states a probe is fitted on, of the model and of its untrained twin."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp.activations import Activations
from interp.errors import ConfigError, DataError
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.tasks import Labelled

__all__ = ["captured", "untrained_twin"]


def captured(
    model: Model,
    tokens: Tokens,
    data: Labelled,
    layers: Sequence[int],
    position: str | int,
    batch_size: str | int,
    progress: bool,
    *,
    first: str = "",
) -> Activations:
    """Read one token of every prompt at every layer (and at the site ``first``), in float32 on the CPU.

    Raises:
        ConfigError: a position that names several tokens.
        DataError: activations that are not finite.
    """
    sites = [*([first] if first else []), *(f"resid_post.{layer}" for layer in layers)]
    acts = model.capture(
        tokens,
        sites,
        position,
        batch_size=batch_size,
        device="cpu",
        dtype=torch.float32,
        progress=progress,
    )
    if not acts.single:
        raise ConfigError(
            f"position {position!r} asked; a probe reads one token: 'last', or an index such as 0 or -2."
        )
    for site, tensor in acts.items():
        _check_finite(tensor, site, data, model)
    return acts


def _check_finite(tensor: torch.Tensor, site: str, data: Labelled, model: Model) -> None:
    wrong = (~torch.isfinite(tensor)).any(dim=1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{len(wrong)} prompts have activations at {site} of {model.name!r} that are not finite, first "
            f"row {row} ({data.texts[row][:40]!r}); load the model in float32, or drop those prompts."
        )


def untrained_twin(model: Model, given: Model | None, acts: Activations) -> Model:
    """Give the untrained twin, and refuse one of another shape or the model itself."""
    from interp.models.loading import load

    twin = given if given is not None else load(model.hf, weights="random", tokenizer=model.tokenizer)
    if (twin.n_layers, twin.d_model) != (model.n_layers, model.d_model):
        raise ConfigError(
            f"random_model has {twin.n_layers} layers of width {twin.d_model}, the model {model.n_layers} of "
            f"{model.d_model}; give its untrained twin, or leave it out to have one made."
        )
    if twin.fingerprint == acts.fingerprint:
        raise ConfigError(
            "the random-weights control has the very weights of the model, so that their difference is 0 by "
            "construction; probe trained weights, or leave 'random-weights' out of the controls."
        )
    return twin
