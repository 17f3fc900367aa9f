"""Take a direction out of a model: at every writer of the residual stream while it runs, or in the weights.

Both are the directional ablation of Arditi et al. 2024 (arXiv 2406.11717, sections 2.4 and 4.1): what no
writer writes is nowhere in the stream. They give the same logits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ConfigError, ModelError
from interp.models.interventions import Intervention
from interp.models.linear import as_linear, is_linear, put_weight
from interp.models.loading import ModelLike, as_model, load
from interp.models.model import Model
from interp.models.positions import Positions
from interp.sites import Site
from interp.steering.vector import Vector

__all__ = ["ablations", "without"]

INPUTS = {"attn_out": "z", "mixer_out": "mixer_out", "mlp_out": "mlp_act"}
"""What writes to the stream -> the site whose hook is on the matrix that it writes by."""
LEFT = 1e-4
"""The most of the direction, as a share of what a writer writes, that may be left by rounding in float32."""


def ablations(model: ModelLike, vector: Vector, *, positions: Positions = "all") -> list[Intervention]:
    """What takes the direction out of everything that is added to the residual stream.

    Args:
        model: whose writers.
        vector: with one direction of width d_model; its dose plays no part.
        positions: as for ``Intervention``.

    Raises:
        ConfigError: the vector has several directions.
        ModelError: the vector does not fit the model.
    """
    model = as_model(model)
    vector.check(model)
    projected = partial(_out_of, _one(vector))
    return [Intervention(site, projected, positions) for site in ["embed", *writers(model)]]


def writers(model: Model) -> list[str]:
    """The sites that add to the residual stream, in order of execution, without the embedding."""
    return [
        f"{kind}.{layer}"
        for layer in range(model.n_layers)
        for kind in INPUTS
        if layer in model.anatomy.layers(kind)
    ]


def without(model: ModelLike, vector: Vector) -> Model:
    """A copy of a model whose weights cannot write the direction: ``(I - v v') W`` at every writer.

    The unembedding stays as it is, also where it shares its matrix with the embedding. What the copy writes
    is measured on some tokens: nothing is taken on trust.

    Args:
        model: the original, which stays as it is.
        vector: with one direction of width d_model.

    Raises:
        ConfigError: the vector has several directions.
        ModelError: something in the model writes the direction that is no plain matrix, such as a norm behind
            a writer (Gemma 2, OLMo 2), stacked experts, or quantized weights: use ``ablations`` there.
    """
    model = as_model(model)
    vector.check(model)
    if model.quantization is not None:
        raise ModelError(
            f"the weights of {model.name!r} are quantized ({model.scheme}) and are not edited; use ablations."
        )
    direction = _one(vector)
    hf: Any = copy.deepcopy(model.hf)
    made = load(hf, tokenizer=model.tokenizer, family=model.family)
    with torch.no_grad():
        _edit(made, direction)
    made = replace(
        load(hf, tokenizer=model.tokenizer, family=model.family),
        tokenizer=model.tokenizer,
        name=model.name,
        weights="edited",
        warnings=(*model.warnings, f"its weights cannot write {vector.name!r}."),
    )
    _check(made, direction)
    return made


def _one(vector: Vector) -> Float[Tensor, " d_model"]:
    if len(vector.sites) > 1:
        raise ConfigError(
            f"vector {vector.name!r} has {len(vector.sites)} directions, and one is taken out; choose it: "
            f"vector.at({vector.sites[0]!r})."
        )
    return vector.direction


def _out_of(direction: Float[Tensor, " width"], states: Float[Tensor, "*batch width"]) -> Tensor:
    """States less their part along the direction, computed in float32 or better."""
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    along = direction.to(wide)
    return (wide - (wide @ along)[..., None] * along).to(states.dtype)


def _edit(model: Model, direction: Tensor) -> None:
    head: Any = model.hf.get_output_embeddings()
    shared = getattr(head, "weight", None)
    for table in _tables(model):
        new = nn.Parameter(
            _out_of(direction, table.weight.detach()), requires_grad=table.weight.requires_grad
        )
        if table.weight is shared:
            model.hf.config.get_text_config().tie_word_embeddings = False
        table.weight = new
    for module in _projections(model):
        plain = as_linear(module)
        put_weight(module, _out_of(direction, plain.weight.detach().T).T)
        if (bias := getattr(module, "bias", None)) is not None:
            bias.copy_(_out_of(direction, bias))


def _tables(model: Model) -> Iterator[nn.Embedding]:
    """The embeddings of tokens, positions and types, outside the blocks."""
    inside = {id(module) for block in model.architecture.blocks for module in block.modules()}
    for module in model.hf.modules():
        if isinstance(module, nn.Embedding) and id(module) not in inside and _is_wide(module, model):
            yield module


def _is_wide(table: nn.Embedding, model: Model) -> bool:
    return table.embedding_dim == model.d_model


def _projections(model: Model) -> Iterator[nn.Module]:
    """The matrices that write: the output projections of attention and the down projections."""
    seen: set[int] = set()
    for name in writers(model):
        site = Site.parse(name)
        read = Site(INPUTS[site.kind], site.layer)
        if read.kind in model.disabled or read.layer not in model.anatomy.layers(read.kind):
            continue  # what cannot be edited is found by the check
        module = model.architecture.locate(read).module
        if id(module) not in seen and is_linear(module):
            seen.add(id(module))
            yield module


def _check(model: Model, direction: Tensor) -> None:
    """Measure how much of the direction every writer still writes."""
    ids = torch.arange(min(16, model.vocab_size, model.max_length or 16)).tolist()
    sites = ["embed", *writers(model)]
    read = model.capture([ids], sites, "all", dtype=torch.float32, device="cpu")
    for site in sites:
        written = read[site].flatten(0, -2)
        left = float((written @ direction).abs().max() / written.norm(dim=1).max().clamp_min(1e-30))
        if not left <= (LEFT if model.dtype in (torch.float32, torch.float64) else 0.05):
            raise ModelError(
                f"{site} of {model.name!r} still writes the direction ({left:.1e} of its length): something "
                "stands between its matrix and the stream. Use steering.ablations, which acts on what is "
                "written."
            )
