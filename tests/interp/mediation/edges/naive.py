"""Edges and paths patched by plain PyTorch hooks: slow, and with nothing of the runner in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp.mediation.edges.graph import Edge, Reader
from interp.models.model import Model
from interp.sites import Site

__all__ = ["patched_edge", "patched_paths"]

# family: blocks, norm before attention, attention, its output projection, norm before the MLP, last norm
PATHS: dict[str, tuple[str, str, str, str, str, str]] = {
    "gpt2": ("transformer.h", "ln_1", "attn", "attn.c_proj", "ln_2", "transformer.ln_f"),
    "llama": (
        "model.layers",
        "input_layernorm",
        "self_attn",
        "self_attn.o_proj",
        "post_attention_layernorm",
        "model.norm",
    ),
    "gemma2": (
        "model.layers",
        "input_layernorm",
        "self_attn",
        "self_attn.o_proj",
        "pre_feedforward_layernorm",
        "model.norm",
    ),
    "gpt_neox": (
        "gpt_neox.layers",
        "input_layernorm",
        "attention",
        "attention.dense",
        "post_attention_layernorm",
        "gpt_neox.final_layer_norm",
    ),
}


def patched_edge(model: Model, own: Sequence[int], other: Sequence[int], edge: Edge) -> Tensor:
    """Give the last logits of ``own`` with one edge as it is in ``other``."""
    hf, family = model.hf, model.hf.config.model_type
    delta = _written(hf, family, other, edge) - _written(hf, family, own, edge)
    blocks, norm1, attention, _, norm2, last = PATHS[family]
    handles = []

    def shifted(module: Any, args: Any) -> Any:
        return (args[0] + delta, *args[1:])

    if edge.reader.kind == "logits":
        handles.append(hf.get_submodule(last).register_forward_pre_hook(shifted))
    elif edge.reader.kind == "mlp":
        name = f"{blocks}.{edge.reader.layer}.{norm2}"
        handles.append(hf.get_submodule(name).register_forward_pre_hook(shifted))
    else:
        stream: list[Tensor] = []
        norm = hf.get_submodule(f"{blocks}.{edge.reader.layer}.{norm1}")
        handles.append(norm.register_forward_pre_hook(lambda module, args: stream.append(args[0])))
        module = hf.get_submodule(f"{blocks}.{edge.reader.layer}.{attention}")
        projection, columns = _columns(module, family, edge, model)

        def sliced(module: Any, args: Any, output: Tensor) -> Tensor:
            moved = module.forward(norm.forward(stream[0] + delta))
            result = output.clone()
            result[..., columns] = moved[..., columns]
            return result

        handles.append(projection.register_forward_hook(sliced))
    try:
        with torch.no_grad():
            return hf(torch.tensor([list(own)])).logits[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()


def _columns(attention: Any, family: str, edge: Edge, model: Model) -> tuple[Any, slice]:
    """Give the projection of a reader, and which of its outputs are the reader's."""
    kind, head, width = edge.reader.kind, edge.reader.index or 0, model.d_head
    if family in ("llama", "gemma2"):
        return getattr(attention, f"{kind}_proj"), slice(head * width, (head + 1) * width)
    if family == "gpt2":
        start = "qkv".index(kind) * model.n_heads * width + head * width
        return attention.c_attn, slice(start, start + width)
    start = head * 3 * width + "qkv".index(kind) * width
    return attention.query_key_value, slice(start, start + width)


def _written(hf: Any, family: str, ids: Sequence[int], edge: Edge) -> Tensor:
    """Give what the writer adds to the stream in a prompt."""
    blocks, _, _, projection, _, _ = PATHS[family]
    writer, seen = edge.writer, []
    block = f"{blocks}.{writer.layer or 0}"

    def put_in(module: Any, args: Any) -> None:
        seen.append(args[0])

    def put_out(module: Any, args: Any, output: Any) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    names = {"attn_out": "post_attention_layernorm", "mlp_out": "mlp"}
    if family == "gemma2":
        names["mlp_out"] = "post_feedforward_layernorm"
    if writer.kind == "embed":
        handle = hf.get_submodule(f"{blocks}.0").register_forward_pre_hook(put_in)
    elif writer.kind == "head":
        handle = hf.get_submodule(f"{block}.{projection}").register_forward_pre_hook(put_in)
    else:
        handle = hf.get_submodule(f"{block}.{names[writer.kind]}").register_forward_hook(put_out)
    try:
        with torch.no_grad():
            hf(torch.tensor([list(ids)]))
    finally:
        handle.remove()
    if writer.kind != "head":
        return seen[0]
    alone, out = torch.zeros_like(seen[0]), hf.get_submodule(f"{block}.{projection}")
    width = seen[0].shape[-1] // hf.config.num_attention_heads
    columns = slice((writer.index or 0) * width, ((writer.index or 0) + 1) * width)
    alone[..., columns] = seen[0][..., columns]
    with torch.no_grad():
        return out.forward(alone) - out.forward(torch.zeros_like(alone))


def patched_paths(
    model: Model, own: Sequence[int], other: Sequence[int], sender: Site, readers: Sequence[Reader], mlps: str
) -> Tensor:
    """Give the last logits of ``own`` with its readers as a sender of ``other`` makes them.

    Two runs: with the outputs of attention (and of MLPs where ``mlps`` is ``frozen``) held to those of
    ``own``, and the sender's change added where it is made; then with what the readers gave in that run.
    """
    hf, family = model.hf, model.hf.config.model_type
    blocks, _, attention, _, _, _ = PATHS[family]
    delta = _change(hf, family, own, other, sender)
    parts = [f"{blocks}.{at}.{part}" for at in range(model.n_layers) for part in (attention, "mlp")]
    plain = _outputs(hf, own, parts, {})
    held = {name: plain[name] for name in parts if mlps == "frozen" or not name.endswith(".mlp")}
    handles = []
    if sender.kind == "embed":
        first = hf.get_submodule(f"{blocks}.0")
        handles.append(first.register_forward_pre_hook(lambda module, args: (args[0] + delta, *args[1:])))
    else:
        name = f"{blocks}.{sender.layer}.{'mlp' if sender.kind == 'mlp_out' else attention}"
        held[name] = plain[name] + delta
    noted = [_projection(model, reader) for reader in readers if reader.kind != "logits"]
    names = [name for name, _ in noted]
    try:
        seen = _outputs(hf, own, names, held)
    finally:
        for handle in handles:
            handle.remove()
    if any(reader.kind == "logits" for reader in readers):
        return seen[""][0, -1].float()
    written: dict[str, list[tuple[slice, Tensor]]] = {}
    for name, columns in noted:
        written.setdefault(name, []).append((columns, seen[name][..., columns]))
    return _outputs(hf, own, [], {}, written)[""][0, -1].float()


def _outputs(
    hf: Any,
    ids: Sequence[int],
    names: Sequence[str],
    held: dict[str, Tensor],
    written: dict[str, list[tuple[slice, Tensor]]] | None = None,
) -> dict[str, Tensor]:
    """Run once and give the outputs of some modules, as they are before they are overwritten."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def changed(module: Any, args: Any, output: Any) -> Any:
            first = output if isinstance(output, Tensor) else output[0]
            found[name] = first
            if name in held:
                first = held[name]
            for columns, value in (written or {}).get(name, []):
                first = first.clone()
                first[..., columns] = value
            return first if isinstance(output, Tensor) else (first, *output[1:])

        return changed

    wanted = {*names, *held, *(written or {})} - {""}
    handles = [hf.get_submodule(name).register_forward_hook(hook(name)) for name in wanted]
    try:
        with torch.no_grad():
            found[""] = hf(torch.tensor([list(ids)])).logits
    finally:
        for handle in handles:
            handle.remove()
    return found


def _projection(model: Model, reader: Reader) -> tuple[str, slice]:
    """Name the module that gives a reader's value, and which of its outputs those are."""
    family = model.hf.config.model_type
    blocks, _, attention, _, _, _ = PATHS[family]
    if reader.kind == "mlp":
        return f"{blocks}.{reader.layer}.mlp", slice(None)
    module = model.hf.get_submodule(f"{blocks}.{reader.layer}.{attention}")
    projection, columns = _columns(module, family, Edge(Site("embed"), reader), model)
    [name] = [name for name, one in module.named_modules() if one is projection]
    return f"{blocks}.{reader.layer}.{attention}.{name}", columns


def _change(hf: Any, family: str, own: Sequence[int], other: Sequence[int], sender: Site) -> Tensor:
    edge = Edge(sender, Reader("logits"))
    return _written(hf, family, other, edge) - _written(hf, family, own, edge)
