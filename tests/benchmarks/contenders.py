"""The ways to read the residual stream that are timed, one function per library.

Each library runs in a process of its own: nnsight changes ``object`` and ``torch.Tensor`` when it is imported,
and TransformerLens replaces the blocks of the model it is given. Each process therefore has its own raw floor, on
a model that the library never saw.

*Like for like* means that everything is asked for the same work: no key-value cache, logits of the last token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from subjects import Shape, Subject, open_raw, token_ids
from timing import Contender
from torch import Tensor

__all__ = ["LIBRARIES", "RAW", "RAW_DEFAULT", "Bench"]

RAW_DEFAULT = "raw forward, default call"
RAW = "raw forward, like for like"
LEAN: dict[str, Any] = {"use_cache": False, "logits_to_keep": 1}
SIX = [f"{kind}.*" for kind in ("resid_pre", "attn_out", "z", "resid_mid", "mlp_out", "resid_post")]
SIX_GOAL = 1.15
ALONE_MARGIN = 0.05
PEER_LIMIT = 1e-5


@dataclass(frozen=True, eq=False)
class Bench:
    """Hold what all contenders of one process and one shape share.

    Attributes:
        subject: the model's row.
        raw: the Hugging Face model.
        ids: ``[batch pos]``.
    """

    subject: Subject
    raw: Any
    ids: Tensor

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.raw.get_submodule(self.subject.blocks))

    @property
    def alone(self) -> list[int]:
        """The layers that are read alone."""
        last = self.n_layers - 1
        return sorted({0, self.n_layers // 4, self.n_layers // 2, 3 * self.n_layers // 4, last})

    def lean(self, **more: Any) -> Any:
        """Call the raw model for the last logits only."""
        return self.raw(self.ids, **LEAN, **more)

    def floors(self) -> list[Contender]:
        """The raw forward, as people call it and like for like."""
        return [Contender(RAW_DEFAULT, lambda: self.raw(self.ids)), Contender(RAW, self.lean)]

    def difference(self, found: Mapping[int, Tensor]) -> float:
        """Return the largest difference from Hugging Face's hidden states, relative to a layer's largest entry.

        Entries below 1 count as 1. The last layer is compared behind the final norm, since that is what Hugging
        Face returns there.

        Args:
            found: layer to ``[batch d_model]`` at the last token, or ``[batch pos d_model]``.
        """
        states = self.lean(output_hidden_states=True).hidden_states[1:]
        assert len(states) == self.n_layers
        errors = []
        for layer, tensor in found.items():
            wanted = states[layer] if tensor.ndim == 3 else states[layer][:, -1]
            error = (self._comparable(layer, tensor) - wanted).abs().max()
            errors.append((error / wanted.abs().max().clamp(min=1)).item())
        return max(errors)

    def _comparable(self, layer: int, tensor: Tensor) -> Tensor:
        return self.raw.get_submodule(self.subject.norm)(tensor) if layer == self.n_layers - 1 else tensor


def native(subject: Subject, folder: Path, shape: Shape) -> list[Contender]:
    """This toolkit, and Hugging Face's own hidden states."""
    import interp

    model = interp.load(folder)
    bench = Bench(subject, model.hf, token_ids(model.vocab_size, shape))
    prompts = bench.ids.tolist()

    def run(sites: Any, positions: str) -> Any:
        return lambda: model.run(prompts, capture=sites, positions=positions, logits="last")

    def check(result: Any) -> float:
        logits = (result.logits - bench.lean().logits[:, -1]).abs().max().item()
        return max(logits, _checked(bench, result.activations))

    def hidden() -> Any:
        return bench.lean(output_hidden_states=True)

    rows = [
        Contender("output_hidden_states=True", hidden, RAW),
        Contender("all resid_post, last token", run("resid_post.*", "last"), RAW, subject.goal, check),
        Contender("all resid_post, all tokens", run("resid_post.*", "all"), RAW, subject.goal, check),
        Contender("6 sites x all layers, last token", run(SIX, "last"), RAW, SIX_GOAL, check),
        Contender("6 sites x all layers, all tokens", run(SIX, "all"), RAW, SIX_GOAL, check),
    ]
    return [*bench.floors(), *rows, _capture_all(bench, model, prompts), *_alone(bench, model, prompts)]


def _checked(bench: Bench, activations: Any) -> float:
    """Compare every captured resid_post; a limit of zero demands equality before the last layer."""
    found = {site.layer: activations[site] for site in activations.sites if site.kind == "resid_post"}
    last = bench.n_layers - 1
    normed = bench.difference({last: found.pop(last)}) if last in found else 0.0
    assert normed <= PEER_LIMIT, f"the last layer differs by {normed:.1e} behind the final norm"
    return bench.difference(found) if found else 0.0


def _capture_all(bench: Bench, model: Any, prompts: Sequence[Sequence[int]]) -> Contender:
    def call() -> Any:
        return model.capture(prompts, "resid_post.*")

    name = "capture of all resid_post (no logits)"
    return Contender(name, call, RAW, bench.subject.goal, lambda result: _checked(bench, result))


def _alone(bench: Bench, model: Any, prompts: Sequence[Sequence[int]]) -> list[Contender]:
    """One layer each, in a pass that ends there."""

    def row(layer: int) -> Contender:
        goal = (layer + 1) / bench.n_layers + ALONE_MARGIN
        name = f"capture of layer {layer} alone"
        call = lambda: model.capture(prompts, f"resid_post.{layer}")  # noqa: E731
        return Contender(name, call, RAW, goal, lambda result: _checked(bench, result))

    return [row(layer) for layer in bench.alone]


def transformer_lens(subject: Subject, folder: Path, shape: Shape) -> list[Contender]:
    """TransformerLens 4's bridge, on a second copy of the model."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    raw, copy = open_raw(folder), open_raw(folder)
    bridge = TransformerBridge.boot_transformers(
        str(folder), hf_model=copy, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu"
    )
    bench = Bench(subject, raw, token_ids(raw.config.vocab_size, shape))

    def cached(layers: Sequence[int], **more: Any) -> dict[int, Tensor]:
        names = [f"blocks.{layer}.hook_resid_post" for layer in layers]
        _, cache = bridge.run_with_cache(bench.ids, names_filter=names, pos_slice=-1, **LEAN, **more)
        return {layer: cache[name][:, -1] for layer, name in zip(layers, names, strict=True)}

    def alone(layer: int) -> Contender:
        more = {"stop_at_layer": layer + 1}
        name = f"run_with_cache, layer {layer} alone"
        return Contender(name, lambda: cached([layer], **more), RAW, None, bench.difference, PEER_LIMIT)

    everything = lambda: cached(range(bench.n_layers))  # noqa: E731
    rows = [
        Contender("bridge forward, nothing read", lambda: bridge(bench.ids, **LEAN), RAW),
        Contender("run_with_cache, all resid_post", everything, RAW, None, bench.difference, PEER_LIMIT),
    ]
    return [*bench.floors(), *rows, *map(alone, bench.alone[1:-1])]


def nnsight(subject: Subject, folder: Path, shape: Shape) -> list[Contender]:
    """Trace and save with nnsight 0.8, on a second copy of the model."""
    from nnsight import TransformersModel, save
    from transformers import AutoTokenizer

    raw = open_raw(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    traced = TransformersModel(open_raw(folder), tokenizer=tokenizer, task="text-generation")
    bench = Bench(subject, raw, token_ids(raw.config.vocab_size, shape))
    blocks = traced
    for part in subject.blocks.split("."):
        blocks = getattr(blocks, part)

    def everything() -> dict[int, Tensor]:
        with traced.trace(bench.ids, **LEAN):
            found = {}
            for layer, block in enumerate(blocks):
                found[layer] = _stream(block.output)[:, -1].clone()
            save(found)
        return found

    def one(layer: int) -> dict[int, Tensor]:
        with traced.trace(bench.ids, **LEAN) as tracer:
            found = {layer: _stream(blocks[layer].output)[:, -1].clone()}
            save(found)
            tracer.stop()
        return found

    def alone(layer: int) -> Contender:
        name = f"trace, layer {layer} alone"
        return Contender(name, lambda: one(layer), RAW, None, bench.difference, PEER_LIMIT)

    row = Contender("trace and save, all resid_post", everything, RAW, None, bench.difference, PEER_LIMIT)
    return [*bench.floors(), row, *map(alone, bench.alone[1:-1])]


def _stream(output: Any) -> Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


LIBRARIES = {"interp": native, "transformer_lens": transformer_lens, "nnsight": nnsight}
