"""Find the sites of a model whose type has no row: by structure, by common names, and by what adds up.

Names only propose. Which modules write to the residual stream, whether there is a stream between attention
and MLP, and how a fused projection is laid out are decided by the equations on one tiny forward pass, and the
row found must still pass validation like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.errors import InterpError, ModelError
from interp.models import families
from interp.models.architecture import Architecture, in_features, out_features
from interp.models.equations import attention_error, probe_batch, read_once, tolerance
from interp.models.families import Family, overridden
from interp.models.forward import forward
from interp.models.hooks import evaluating
from interp.sites import Site

__all__ = ["discover"]

_Record = dict[str, tuple[Tensor | None, Tensor | None]]


def discover(hf: PreTrainedModel, name: str, known: Mapping[str, Any]) -> Family:
    """Return a row for a model of unknown type.

    Args:
        hf: the model.
        name: what messages call it.
        known: fields that the user has decided.

    Raises:
        ModelError: no list of blocks can be found; the message says how to name it.
    """
    path = known.get("blocks") or _blocks_path(hf, name)
    block = hf.get_submodule(f"{path}.0")
    attention = known.get("attention") or _child(block, families.ATTENTION_NAMES)
    mlp = _child(block, families.MLP_NAMES)
    row = Family(
        name=hf.config.get_text_config().model_type,
        blocks=path,
        final_norm=_sibling(hf, path),
        attention=attention,
        attn_out=attention,
        mlp_out=mlp,
        resid_mid="",
        out_projection=_below(block, attention, families.OUT_NAMES),
        down_projection=_below(block, mlp, families.DOWN_NAMES),
        q=_below(block, attention, families.Q_NAMES),
        k=_below(block, attention, families.K_NAMES),
        v=_below(block, attention, families.V_NAMES),
        qkv=_below(block, attention, families.QKV_NAMES),
    )
    row = overridden(row, known)
    row = _with_writers(hf, name, row, known)
    return _with_layout(hf, name, row, known)


def _blocks_path(hf: PreTrainedModel, name: str) -> str:
    """Find the shallowest module list with one entry per layer; the largest of several."""
    count = getattr(hf.config.get_text_config(), "num_hidden_layers", None)
    lists = [(path, m) for path, m in hf.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    lists = [(path, m) for path, m in lists if count is None or len(m) == count]
    if not lists:
        raise ModelError(
            f"no list of blocks found in {name!r} ({hf.config.model_type}). "
            "Pass family={'blocks': 'path.to.the.block.list', ...} at load."
        )
    return min(lists, key=lambda item: (item[0].count("."), -sum(p.numel() for p in item[1].parameters())))[0]


def _child(block: nn.Module, names: Iterable[str]) -> str:
    children = dict(block.named_children())
    return next((name for name in names if name in children), "")


def _sibling(hf: PreTrainedModel, blocks: str) -> str:
    """Find the final norm beside the list of blocks."""
    parent = blocks.rpartition(".")[0]
    name = _child(hf.get_submodule(parent), families.NORM_NAMES)
    return f"{parent}.{name}" if name and parent else name


def _below(block: nn.Module, root: str, names: Sequence[str]) -> str:
    """Find a linear layer by name below a child of the block, or in the block itself without such a child."""
    start = block.get_submodule(root) if root else block
    linear = {path: m for path, m in start.named_modules() if out_features(m) and in_features(m)}
    for name in names:
        for path in linear:
            if path.rpartition(".")[2] == name:
                return f"{root}.{path}" if root else path
    return ""


def _with_writers(hf: PreTrainedModel, name: str, row: Family, known: Mapping[str, Any]) -> Family:
    """Choose the two modules whose outputs make up what the block adds, and the one that reads in between."""
    architecture = Architecture(hf, row, name)
    records = [_record(architecture, layer) for layer in sorted({0, architecture.n_layers - 1})]
    multipliers = ["", *(m for m in families.MULTIPLIER_NAMES if hasattr(hf.config.get_text_config(), m))]
    for multiplier in [known["multiplier"]] if "multiplier" in known else multipliers:
        factor = float(getattr(hf.config.get_text_config(), multiplier)) if multiplier else 1.0
        for attn_out, mlp_out in _pairs(row, records[0], known):
            if all(_adds_up(record, attn_out, mlp_out, factor) for record in records):
                found = replace(row, attn_out=attn_out, mlp_out=mlp_out, multiplier=multiplier)
                return (
                    found
                    if "resid_mid" in known
                    else replace(found, resid_mid=_middle(records, attn_out, factor))
                )
    return row


def _record(architecture: Architecture, layer: int) -> _Record:
    """Record the first input and the first output of the block ("") and of its parts, in execution order."""
    block = architecture.blocks[layer]
    extra = {architecture.family.out_projection, architecture.family.down_projection} - {""}
    parts = {"": block, **dict(block.named_children()), **{path: block.get_submodule(path) for path in extra}}
    batch = probe_batch(architecture)
    found: _Record = {}

    with ExitStack() as stack:
        for path, part in parts.items():
            stack.callback(
                part.register_forward_hook(
                    partial(_keep, found, path, batch.input_ids), with_kwargs=True
                ).remove
            )
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(architecture.modules))
        forward(architecture, batch, "all")
    return found


def _keep(
    found: _Record,
    path: str,
    ids: Tensor,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    given = args[0] if args else kwargs.get("hidden_states")
    found[path] = (_squared(given, ids), _squared(output if isinstance(output, Tensor) else output[0], ids))


def _squared(tensor: Any, ids: Tensor) -> Tensor | None:
    """Copy a tensor as ``[batch pos width]``, or None for anything else."""
    if not isinstance(tensor, Tensor) or tensor.numel() % ids.numel():
        return None
    return tensor.detach().clone().reshape(*ids.shape, -1)


def _pairs(row: Family, record: _Record, known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List candidate writers, likely ones first, then all parts in execution order (attention before MLP)."""
    others = [path for path in record if path]
    first = [known["attn_out"]] if "attn_out" in known else [row.attn_out, row.out_projection, *others]
    second = [known["mlp_out"]] if "mlp_out" in known else [row.mlp_out, row.down_projection, *others]
    pairs = dict.fromkeys(product(first, second))
    return [(a, m) for a, m in pairs if a and m and a != m and a in record and m in record]


def _adds_up(record: _Record, attn_out: str, mlp_out: str, factor: float) -> bool:
    pre, post = record[""]
    attention, mlp = record[attn_out][1], record[mlp_out][1]
    if (
        pre is None
        or post is None
        or attention is None
        or mlp is None
        or not pre.shape == attention.shape == mlp.shape
    ):
        return False
    change = (post - pre).float()
    error = (change - factor * (attention + mlp).float()).abs().max()
    return bool(error <= 10 * tolerance(pre.dtype) * change.abs().max())


def _middle(records: Sequence[_Record], attn_out: str, factor: float) -> str:
    """Find the part whose input is the stream after attention in every recorded block, or ""."""
    for path in [path for path in records[0] if path]:
        if all(_reads_middle(record, path, attn_out, factor) for record in records):
            return path
    return ""


def _reads_middle(record: _Record, path: str, attn_out: str, factor: float) -> bool:
    given, pre, attention = record[path][0], record[""][0], record[attn_out][1]
    if given is None or pre is None or attention is None or given.shape != pre.shape:
        return False
    middle = (pre + factor * attention).float()
    return bool(
        (given.float() - middle).abs().max() <= 10 * tolerance(pre.dtype) * (middle - pre).abs().max()
    )


def _with_layout(hf: PreTrainedModel, name: str, row: Family, known: Mapping[str, Any]) -> Family:
    """Decide whether queries, keys and values are separate, and how a fused projection is laid out."""
    if "layout" in known or (row.q and row.k and row.v):
        return row
    if not row.qkv:
        return row
    for layout in ("thirds", "groups"):
        architecture = Architecture(hf, replace(row, layout=layout), name)
        try:
            places = {Site(kind, 0): architecture.locate(Site(kind, 0)) for kind in ("pattern", "z", "v")}
            found, _ = read_once(architecture, places, eager=True)
        except (InterpError, RuntimeError, TypeError, AttributeError, IndexError):
            continue
        if attention_error(*(found[site] for site in places)) <= 10 * tolerance(hf.dtype):
            return architecture.family
    return replace(row, qkv="")
