"""The ways to read the residual stream that are timed, one function per library.

Each library runs in a process of its own: nnsight changes ``object`` and ``torch.Tensor`` when imported, and
TransformerLens replaces the blocks of the model it is given (here a twin that shares the weights). Each
process therefore has its own raw floor, on a model that the library never saw.

*Like for like* means that all are asked for the same work: no key-value cache, logits of the last token.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subjects import Shape, Subject, open_raw, token_ids
from timing import Contender
from torch import Tensor

__all__ = ["LIBRARIES", "RAW", "RAW_DEFAULT", "Bench", "twin"]

RAW_DEFAULT = "raw forward, default call"
RAW = "raw forward, like for like"
LEAN: dict[str, Any] = {"use_cache": False, "logits_to_keep": 1}
SIX = [f"{kind}.*" for kind in ("resid_pre", "attn_out", "z", "resid_mid", "mlp_out", "resid_post")]
SIX_GOAL = 1.15
ALONE_MARGIN = 0.05
SHORT = 16
PEER_LIMIT = 1e-5


class _Enough(Exception):
    """Ends a forward pass early in the hooks written by hand."""


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
        """The layers that are read alone: the first and one per quarter; for larger inputs one."""
        layers = [self.n_layers * part // 4 for part in range(4)]
        return layers if self.short else layers[1:2]

    @property
    def short(self) -> bool:
        """Whether a pass is short, so that more rows can be timed."""
        return self.ids.numel() <= SHORT

    def share(self, layer: int) -> float:
        """Return the share of a forward pass that reading one layer may cost."""
        return (layer + 1) / self.n_layers + ALONE_MARGIN

    def lean(self, **more: Any) -> Any:
        """Call the raw model for the last logits only."""
        return self.raw(self.ids, **LEAN, **more)

    def floors(self) -> list[Contender]:
        """The raw forward, as people call it and like for like."""
        return [Contender(RAW_DEFAULT, lambda: self.raw(self.ids)), Contender(RAW, self.lean)]

    def by_hand(self, layers: Sequence[int]) -> dict[int, Tensor]:
        """Read with the shortest hooks there are, to see what any library on hooks has to pay."""
        found: dict[int, Tensor] = {}
        blocks = self.raw.get_submodule(self.subject.blocks)
        early = len(layers) < self.n_layers

        def reader(layer: int) -> Callable[..., None]:
            def hook(module: Any, args: Any, output: Any) -> None:
                found[layer] = _stream(output)[:, -1].clone()
                if early and len(found) == len(layers):
                    raise _Enough

            return hook

        handles = [blocks[layer].register_forward_hook(reader(layer)) for layer in layers]
        with suppress(_Enough):
            self.lean()
        for handle in handles:
            handle.remove()
        return found

    def difference(self, found: Mapping[int, Tensor]) -> float:
        """Return the largest difference from Hugging Face's hidden states.

        It is relative to the layer's largest entry, or to 1 where that is smaller. The last layer is compared
        behind the final norm, since that is what Hugging Face returns there.

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


def _stream(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def twin(model: Any) -> Any:
    """Copy the modules and share the weights."""
    return copy.deepcopy(model, {id(t): t for t in [*model.parameters(), *model.buffers()]})


def native(subject: Subject, folder: Path, shape: Shape) -> list[Contender]:
    """This toolkit; beside it Hugging Face's own hidden states, and hooks written by hand."""
    import interp

    model = interp.load(folder)
    bench = Bench(subject, model.hf, token_ids(model.vocab_size, shape))
    prompts = bench.ids.tolist()

    def run(sites: Any, positions: str) -> Any:
        return lambda: model.run(prompts, capture=sites, positions=positions, logits="last")

    def check(result: Any) -> float:
        logits = (result.logits - bench.lean().logits[:, -1]).abs().max().item()
        return max(logits, _checked(bench, result.activations))

    rows = [
        Contender("output_hidden_states=True", lambda: bench.lean(output_hidden_states=True), RAW),
        Contender("all resid_post, last token", run("resid_post.*", "last"), RAW, subject.goal, check),
        Contender("all resid_post, all tokens", run("resid_post.*", "all"), RAW, subject.goal, check),
        Contender("6 sites x all layers, last token", run(SIX, "last"), RAW, SIX_GOAL, check),
    ]
    return [*bench.floors(), *_by_hand(bench), *rows, *_captures(bench, model, prompts)]


def _by_hand(bench: Bench) -> list[Contender]:
    def row(name: str, layers: Sequence[int], floor: str) -> Contender:
        return Contender(name, lambda: bench.by_hand(layers), floor, None, bench.difference, PEER_LIMIT)

    every = row("hooks by hand, all resid_post", range(bench.n_layers), RAW)
    alone = bench.alone[:2] if bench.short else []
    return [every, *[row(f"hooks by hand, layer {layer} alone", [layer], RAW_DEFAULT) for layer in alone]]


def _captures(bench: Bench, model: Any, prompts: Sequence[Sequence[int]]) -> list[Contender]:
    """Passes that end after the deepest site asked for, without logits: all layers, and some layers alone."""

    def row(name: str, sites: str, floor: str, goal: float) -> Contender:
        def call() -> Any:
            return model.capture(prompts, sites)

        return Contender(name, call, floor, goal, lambda result: _checked(bench, result))

    return [
        row("capture of all resid_post, no logits", "resid_post.*", RAW, bench.subject.goal),
        *[
            row(f"capture of layer {k} alone", f"resid_post.{k}", RAW_DEFAULT, bench.share(k))
            for k in bench.alone
        ],
    ]


def _checked(bench: Bench, activations: Any) -> float:
    """Compare every captured resid_post; the last layer may differ by rounding behind the final norm."""
    found = {site.layer: activations[site] for site in activations.sites if site.kind == "resid_post"}
    last = bench.n_layers - 1
    normed = bench.difference({last: found.pop(last)}) if last in found else 0.0
    assert normed <= PEER_LIMIT, f"the last layer differs by {normed:.1e} behind the final norm"
    return bench.difference(found) if found else 0.0


def transformer_lens(subject: Subject, folder: Path, shape: Shape) -> list[Contender]:
    """TransformerLens 4's bridge."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    raw = open_raw(folder)
    bridge = TransformerBridge.boot_transformers(
        str(folder), hf_model=twin(raw), tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu"
    )
    bench = Bench(subject, raw, token_ids(raw.config.vocab_size, shape))

    def cached(layers: Sequence[int], **more: Any) -> dict[int, Tensor]:
        names = [f"blocks.{layer}.hook_resid_post" for layer in layers]
        _, cache = bridge.run_with_cache(bench.ids, names_filter=names, pos_slice=-1, **LEAN, **more)
        return {layer: cache[name][:, -1] for layer, name in zip(layers, names, strict=True)}

    def all_layers() -> dict[int, Tensor]:
        return cached(range(bench.n_layers))

    rows = [
        Contender("bridge forward, nothing read", lambda: bridge(bench.ids, **LEAN), RAW),
        Contender("run_with_cache, all resid_post", all_layers, RAW, None, bench.difference, PEER_LIMIT),
    ]
    alone = _alone(bench, "run_with_cache", lambda layer: cached([layer], stop_at_layer=layer + 1))
    return [*bench.floors(), *rows, *alone]


def nnsight(subject: Subject, folder: Path, shape: Shape) -> list[Contender]:
    """Trace and save with nnsight 0.8."""
    from nnsight import TransformersModel, save
    from transformers import AutoTokenizer

    raw = open_raw(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    traced = TransformersModel(twin(raw), tokenizer=tokenizer, task="text-generation")
    bench = Bench(subject, raw, token_ids(raw.config.vocab_size, shape))
    blocks = traced
    for part in subject.blocks.split("."):
        blocks = getattr(blocks, part)

    def all_layers() -> dict[int, Tensor]:
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

    row = Contender("trace and save, all resid_post", all_layers, RAW, None, bench.difference, PEER_LIMIT)
    return [*bench.floors(), row, *_alone(bench, "trace", one)]


def _alone(bench: Bench, what: str, read: Callable[[int], dict[int, Tensor]]) -> list[Contender]:
    """Read some layers alone with a peer's own way to stop early."""

    def row(layer: int) -> Contender:
        name = f"{what}, layer {layer} alone"
        return Contender(name, lambda: read(layer), RAW_DEFAULT, None, bench.difference, PEER_LIMIT)

    return [row(layer) for layer in bench.alone] if bench.short else []


LIBRARIES = {"interp": native, "transformer_lens": transformer_lens, "nnsight": nnsight}
