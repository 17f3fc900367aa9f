"""Find the sites of a model whose type has no row: by structure, by common names, and by what adds up.

Names only propose. Which modules write to the residual stream, whether there is a stream between attention
and MLP, and how a fused projection is laid out are decided by the equations on one tiny forward pass, and the
row found must still pass validation like any other. Blocks that are not all alike are grouped by
their structure, and each kind of block gets a row of its own.
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
from interp.models.attention import attention_error
from interp.models.experts import named, with_experts
from interp.models.families import Family, overridden
from interp.models.forward import forward
from interp.models.hooks import evaluating
from interp.models.probe_pass import probe_batch, read_once
from interp.models.rounding import tolerance
from interp.sites import Site

__all__ = ["discover", "holds_decoder", "placed"]

_Sides = tuple[Tensor | None, Tensor | None]
_Record = dict[str, _Sides]


def discover(hf: PreTrainedModel, name: str, known: Mapping[str, Any]) -> Family:
    """A row for a model of unknown type.

    Args:
        hf: the model.
        name: what messages call it.
        known: fields that the user has decided.

    Raises:
        ModelError: no list of blocks can be found; the message says how to name it.
    """
    path = known.get("blocks") or _blocks_path(hf, name)
    blocks: Any = hf.get_submodule(path)
    kinds = _configured_kinds(hf, len(blocks))
    groups: dict[Any, list[int]] = {}
    for layer, block in enumerate(blocks):
        groups.setdefault((_structure(block), kinds[layer]), []).append(layer)
    found = [_row(hf, path, layers[0], kinds[layers[0]], known) for layers in groups.values()]
    rows: list[Family] = [found[0]] * len(blocks)
    for row, layers in zip(found, groups.values(), strict=True):
        for layer in layers:
            rows[layer] = row
    rows = _with_writers(hf, name, rows, [*groups.values()], known)
    rows = _with_layout(hf, name, rows, [*groups.values()], known)
    architecture = Architecture(hf, replace(rows[0], rows=tuple(rows)), name)
    rows = with_experts(architecture, [*groups.values()], known)
    if len(groups) == 1:
        return rows[0]
    first = next((row for row in rows if row.attention), rows[0])
    middle = next((row.resid_mid for row in rows if row.resid_mid), "")
    return replace(first, resid_mid=middle, rows=tuple(rows))


def holds_decoder(hf: PreTrainedModel) -> bool:
    """Whether a model has a text decoder beside others: an encoder of images or sounds."""
    return hf.config.get_text_config() is not hf.config


def placed(hf: PreTrainedModel, row: Family) -> Family | None:
    """Find a row's blocks where a model holds the decoder inside; None where they are not there either.

    Args:
        hf: the model.
        row: of the text decoder's type.
    """
    known = dict(hf.named_modules())
    if isinstance(known.get(row.blocks), nn.ModuleList):
        return row
    inside = _decoder_path(hf)
    norm = row.final_norm.rpartition(".")[2]
    for tail in (row.blocks.partition(".")[2], row.blocks.rpartition(".")[2]):
        if inside and isinstance(known.get(f"{inside}.{tail}"), nn.ModuleList):
            path = f"{inside}.{tail}"
            return replace(row, blocks=path, final_norm=f"{path.rpartition('.')[0]}.{norm}")
    return None


def _decoder_path(hf: PreTrainedModel) -> str:
    """Where the text decoder is in a model that holds one beside others; "" where the model is one."""
    if not holds_decoder(hf):
        return ""
    decoder = hf.get_decoder()
    return next((path for path, part in hf.named_modules() if part is decoder), "")


def _structure(block: nn.Module) -> tuple[Any, ...]:
    """What makes two blocks alike: the names and classes of their modules, but for the experts of a list."""
    return type(block).__name__, tuple(
        (path, type(part).__name__, in_features(part), out_features(part))
        for path, part in block.named_modules()
        if path and path.count(".") < 3
    )


def _configured_kinds(hf: PreTrainedModel, count: int) -> list[str]:
    """What the configuration calls the kinds of layers; "" where it says nothing."""
    config = hf.config.get_text_config()
    for name in ("layers_block_type", "layer_types", "block_types"):
        kinds = getattr(config, name, None)
        if isinstance(kinds, list | tuple) and len(kinds) == count:
            return [str(kind) for kind in kinds]
    return [""] * count


def _row(hf: PreTrainedModel, path: str, layer: int, kind: str, known: Mapping[str, Any]) -> Family:
    """Propose a row for blocks of one structure, by names."""
    block = hf.get_submodule(f"{path}.{layer}")
    attention = known.get("attention") or _attention(hf, block, kind)
    mixer = next(
        (found for n in families.MIXER_NAMES if (found := named(block, n)) != attention and found), ""
    )
    mixer = mixer or ("" if attention else _child(block, families.ATTENTION_NAMES))
    mlp = _child(block, families.MLP_NAMES)
    if mlp and mlp in (attention, mixer):
        mixer, mlp = ("", mlp) if _is_mlp(block.get_submodule(mlp)) else (mixer, "")
    absent = not attention and bool(mixer or mlp)  # there is no attention, rather than one of another name
    row = Family(
        name=hf.config.get_text_config().model_type,
        blocks=path,
        final_norm=_sibling(hf, path),
        attention=attention,
        attn_out=attention,
        mixer_out=mixer,
        mlp_out=mlp,
        resid_mid="",
        out_projection="" if absent else _below(block, attention, families.OUT_NAMES),
        down_projection=_below(block, mlp, families.DOWN_NAMES) if mlp or not absent else "",
        q="" if absent else _below(block, attention, families.Q_NAMES),
        k="" if absent else _below(block, attention, families.K_NAMES),
        v="" if absent else _below(block, attention, families.V_NAMES),
        qkv="" if absent else _below(block, attention, families.QKV_NAMES),
        stream=_active(hf),
    )
    return overridden(row, known)


def _active(hf: PreTrainedModel) -> int | None:
    """Which of several streams attention and MLP read; None where blocks hand on one."""
    config = hf.config.get_text_config()
    return next((getattr(config, n) for n in families.ACTIVE_STREAM_NAMES if hasattr(config, n)), None)


def _attention(hf: PreTrainedModel, block: nn.Module, kind: str) -> str:
    """Find attention among the children of a block; "" where what mixes tokens is something else."""
    found = _child(block, families.ATTENTION_NAMES)
    config = hf.config.get_text_config()
    heads = any(getattr(config, name, None) for name in ("num_attention_heads", "n_head", "n_heads"))
    if not found or not heads or any(part in kind for part in families.NOT_ATTENDING):
        return ""
    if found not in families.MIXER_NAMES:
        return found
    names = {path.rpartition(".")[2] for path, _ in block.get_submodule(found).named_modules()}
    asks = names & {*families.Q_NAMES, *families.QKV_NAMES}
    return found if asks else ""


def _is_mlp(part: nn.Module) -> bool:
    """Whether it is an MLP and not a recurrence, where one name stands for either."""
    names = {path.rpartition(".")[2] for path, _ in part.named_modules()}
    return bool(names & {"up_proj", "down_proj", "experts", "fc1", "fc2", "w2"}) and "in_proj" not in names


def _blocks_path(hf: PreTrainedModel, name: str) -> str:
    """Find the shallowest module list with one entry per layer; the largest of several.

    Where a configuration counts otherwise (two attentions to a block), it is the largest that is in no other.
    """
    count = getattr(hf.config.get_text_config(), "num_hidden_layers", None)
    lists = [(path, m) for path, m in hf.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    inside = _decoder_path(hf)
    lists = [(path, m) for path, m in lists if path.startswith(f"{inside}.")] or lists
    outer = [(path, m) for path, m in lists if not any(part.isdigit() for part in path.split("."))]
    lists = [(path, m) for path, m in outer if count is None or len(m) == count] or outer
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
    within = {"experts", *families.ASIDE_NAMES, *families.SHARED_NAMES}
    linear = {
        path: m
        for path, m in start.named_modules()
        if out_features(m) and in_features(m) and not within & {*path.split(".")}
    }
    for name in names:
        for path in linear:
            if path.rpartition(".")[2] == name:
                return f"{root}.{path}" if root else path
    return ""


_Rows = list[Family]
_Groups = Sequence[Sequence[int]]


def _with_writers(
    hf: PreTrainedModel, name: str, rows: _Rows, groups: _Groups, known: Mapping[str, Any]
) -> _Rows:
    """Choose, for each kind of block, the modules that make up what it adds, and what reads between."""
    base = replace(rows[0], rows=tuple(rows))
    architecture = Architecture(hf, base, name)
    multipliers = ["", *(m for m in families.MULTIPLIER_NAMES if hasattr(hf.config.get_text_config(), m))]
    multipliers = [known["multiplier"]] if "multiplier" in known else multipliers
    recorded = [
        [_record(architecture, layer) for layer in sorted({layers[0], layers[-1]})] for layers in groups
    ]
    best: list[Family | None] = [None] * len(groups)
    for multiplier in multipliers:
        factor = float(getattr(hf.config.get_text_config(), multiplier)) if multiplier else 1.0
        found = [
            _writers(rows[layers[0]], records, known, factor)
            for layers, records in zip(groups, recorded, strict=True)
        ]
        if sum(map(bool, found)) > sum(map(bool, best)):
            best = [row and replace(row, multiplier=multiplier) for row in found]
    used = next((row.multiplier for row in best if row), rows[0].multiplier)
    chosen = list(rows)
    for layers, row, records in zip(groups, best, recorded, strict=True):
        for layer in layers:
            unknown = replace(rows[layer], multiplier=used)
            chosen[layer] = unknown if row is None else _projecting(row, records, known)
    return chosen


def _writers(
    row: Family, records: Sequence[_Record], known: Mapping[str, Any], factor: float
) -> Family | None:
    """Choose the writers of one kind of block, or None where nothing adds up."""
    first = "attn_out" if row.attn_out or not row.mixer_out else "mixer_out"
    other = {"attn_out": "mixer_out", "mixer_out": "attn_out"}[first]
    for mixing, mlp in _pairs(row, first, records[0], known):
        if all(_adds_up(record, [mixing, mlp], factor) for record in records):
            middle = _middle(records, mixing, factor) if mixing and mlp else ""
            found = replace(row, **{first: mixing, other: "", "mlp_out": mlp})
            return found if "resid_mid" in known else replace(found, resid_mid=middle)
    if found := _with_beside(row, records, known, factor, first):
        return found
    both = [row.attn_out, row.mixer_out, row.mlp_out]
    if row.attn_out and row.mixer_out and all(_adds_up(record, both, factor) for record in records):
        return row
    for mixing in [known["attn_out"]] if "attn_out" in known else _after(row, first, records[0]):
        if "mlp_out" not in known and mixing in records[0] and (middle := _middle(records, mixing, factor)):
            return replace(row, **{first: mixing, other: "", "resid_mid": middle})
    return None


def _with_beside(
    row: Family, records: Sequence[_Record], known: Mapping[str, Any], factor: float, first: str
) -> Family | None:
    """Take two parts for the MLP, added before the factor: experts, and what all tokens pass."""
    shared = next((name for name in families.SHARED_NAMES if name in records[0]), "")
    mixing = getattr(row, first)
    if not shared or {"mlp_out", "beside"} & set(known) or row.mlp_out not in records[0]:
        return None
    order = [path for path in records[0] if path in (row.mlp_out, shared)]
    if len(order) < 2 or not all(_adds_up(record, [mixing, *order], factor) for record in records):
        return None
    other = {"attn_out": "mixer_out", "mixer_out": "attn_out"}[first]
    found = replace(row, **{other: ""}, beside=order[0], mlp_out=order[1], down_projection="")
    middle = _middle(records, mixing, factor)
    return found if "resid_mid" in known else replace(found, resid_mid=middle)


def _projecting(row: Family, records: Sequence[_Record], known: Mapping[str, Any]) -> Family:
    """Leave out a projection whose output is not its writer's, though the writer contains it."""
    for writer, field in (("attn_out", "out_projection"), ("mlp_out", "down_projection")):
        outer, inner = getattr(row, writer), getattr(row, field)
        if field in known or not inner or not inner.startswith(f"{outer}."):
            continue
        if not all(_same(record.get(outer), record.get(inner)) for record in records):
            row = replace(row, **{field: ""})
    return row


def _same(outer: _Sides | None, inner: _Sides | None) -> bool:
    if outer is None or inner is None or outer[1] is None or inner[1] is None:
        return False
    if outer[1].shape != inner[1].shape:
        return False
    error = (outer[1] - inner[1]).float().abs().max()
    return bool(error <= 10 * tolerance(outer[1].dtype) * outer[1].float().abs().max())


def _record(architecture: Architecture, layer: int) -> _Record:
    """Record the first input and the first output of the block ("") and of its parts, in execution order."""
    block, row = architecture.blocks[layer], architecture.family.row(layer)
    fields = ("out_projection", "down_projection", "attn_out", "mixer_out", "mlp_out")
    extra = {
        path: part for f in fields if (path := getattr(row, f)) and (part := architecture.part(layer, f))
    }
    parts = {"": block, **dict(block.named_children()), **extra}
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
    first = output[0] if isinstance(output, tuple | list) and output else output
    found[path] = (_squared(given, ids), _squared(first, ids))


def _squared(tensor: Any, ids: Tensor) -> Tensor | None:
    """Copy a tensor as ``[batch pos width]``, or None for anything else."""
    if not isinstance(tensor, Tensor) or tensor.numel() % ids.numel():
        return None
    return tensor.detach().clone().reshape(*ids.shape, -1)


def _first(row: Family, first: str) -> list[str]:
    """The likely writers that mix tokens."""
    return [path for path in (getattr(row, first), row.out_projection) if path]


def _after(row: Family, first: str, record: _Record) -> list[str]:
    """The likely writers that mix tokens, and the parts between them and the MLP, such as a norm."""
    order = list(record)
    ends = [order.index(path) for path in (getattr(row, first), row.mlp_out) if path in order]
    between = order[ends[0] + 1 : ends[1]] if len(ends) == 2 else []
    return [*_first(row, first), *between]


def _pairs(row: Family, first: str, record: _Record, known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List candidate writers, likely ones first, then all parts in execution order (attention before MLP).

    One of the two may be all that a block adds: "" stands for the other.
    """
    others = [path for path in record if path]
    mixing = [known[first]] if first in known else [*_first(row, first), *others]
    second = [known["mlp_out"]] if "mlp_out" in known else [row.mlp_out, row.down_projection, *others]
    pairs = dict.fromkeys(product(mixing, second))
    found = [(a, m) for a, m in pairs if a and m and a != m and a in record and m in record]
    alone = [(a, "") for a in _first(row, first) if a in record] if first not in known else []
    alone += [("", m) for m in (row.mlp_out,) if m in record and not getattr(row, first)]
    return alone + found


def _adds_up(record: _Record, writers: Sequence[str], factor: float) -> bool:
    """Whether some parts are all that the block adds."""
    pre, post = record[""]
    added = [record[path][1] for path in writers if path and path in record]
    if (
        pre is None
        or post is None
        or not added
        or any(one is None or one.shape != pre.shape for one in added)
    ):
        return False
    change = (post - pre).float() if post.shape == pre.shape else torch.full((1,), float("inf"))
    total = torch.stack([one for one in added if one is not None]).sum(0).float()
    error = (change - factor * total).abs().max()
    return bool(error <= 10 * tolerance(pre.dtype) * change.abs().max())


def _middle(records: Sequence[_Record], attn_out: str, factor: float) -> str:
    """Find the part whose input is the stream after attention in every recorded block, or ""."""
    for path in [path for path in records[0] if path]:
        if all(_reads_middle(record, path, attn_out, factor) for record in records):
            return path
    return ""


def _reads_middle(record: _Record, path: str, attn_out: str, factor: float) -> bool:
    given, pre, attention = record[path][0], record[""][0], record[attn_out][1]
    if given is None or pre is None or attention is None or not given.shape == pre.shape == attention.shape:
        return False
    middle = (pre + factor * attention).float()
    return bool(
        (given.float() - middle).abs().max() <= 10 * tolerance(pre.dtype) * (middle - pre).abs().max()
    )


def _with_layout(
    hf: PreTrainedModel, name: str, rows: _Rows, groups: _Groups, known: Mapping[str, Any]
) -> _Rows:
    """Decide whether queries, keys and values are separate, and how a fused projection is laid out."""
    chosen = list(rows)
    for layers in groups:
        row = rows[layers[0]]
        if "layout" in known or (row.q and row.k and row.v) or not row.qkv:
            continue
        found = _layout(hf, name, row, chosen, layers)
        for layer in layers:
            chosen[layer] = found
    return chosen


def _layout(hf: PreTrainedModel, name: str, row: Family, rows: _Rows, layers: Sequence[int]) -> Family:
    for layout in ("thirds", "groups"):
        tried = replace(row, layout=layout)
        here = [tried if layer in layers else other for layer, other in enumerate(rows)]
        architecture = Architecture(hf, replace(tried, rows=tuple(here)), name)
        try:
            sites = [Site(kind, layers[0]) for kind in ("pattern", "z", "v")]
            found, _ = read_once(
                architecture, {site: architecture.locate(site) for site in sites}, eager=True
            )
        except (InterpError, RuntimeError, TypeError, ValueError, AttributeError, LookupError):
            continue
        if attention_error(*(found[site] for site in sites)) <= 10 * tolerance(hf.dtype):
            return tried
    return replace(row, qkv="")
