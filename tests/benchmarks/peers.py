"""One library in one process: what it does, how long that takes against plain Hugging Face, and whether numbers agree.

Run by ``capture.py``; alone: ``python tests/benchmarks/peers.py native FOLDER 1x16 20 out.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from models import inputs, open_model, twin
from timing import interleave

__all__ = ["PEERS", "Row"]

RAW = "Hugging Face, model(ids)"
LEAN = "Hugging Face, no cache, last logits"
BLOCKS = {"gpt2": "transformer.h", "llama": "model.layers"}


@dataclass(frozen=True)
class Row:
    """Describe one thing that is timed.

    Attributes:
        name: what it is.
        call: does it, and returns residual streams by layer: ``[batch pos d_model]`` or ``[batch d_model]``.
        floor: the row it is compared with.
        goal: the largest ratio aimed at, or None.
        last: it keeps the last position only.
    """

    name: str
    call: Callable[[], Mapping[int, Tensor]]
    floor: str = RAW
    goal: float | None = None
    last: bool = False


@dataclass
class Case:
    """Hold what every peer needs.

    Attributes:
        folder: of the model.
        hf: the model, untouched.
        ids: ``[batch pos]``.
    """

    folder: Path
    hf: PreTrainedModel
    ids: Tensor
    blocks: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blocks = list(attrgetter(BLOCKS[self.hf.config.model_type])(self.hf))

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def early(self) -> list[int]:
        """The layers after a quarter, a half and three quarters of the model."""
        return [self.n_layers * part // 4 - 1 for part in (1, 2, 3)]

    def reach(self, layer: int) -> float:
        """Return the share of a forward pass that reading one layer may cost."""
        return (layer + 1) / self.n_layers + 0.05

    def raw(self) -> dict[int, Tensor]:
        with torch.no_grad():
            self.hf(self.ids)
        return {}

    def lean(self) -> dict[int, Tensor]:
        with torch.no_grad():
            self.hf(self.ids, use_cache=False, logits_to_keep=1)
        return {}

    def hidden_states(self) -> dict[int, Tensor]:
        """Read what Hugging Face offers; its last entry is after the final norm, so it is left out."""
        with torch.no_grad():
            states = self.hf(self.ids, output_hidden_states=True).hidden_states
        return dict(enumerate(states[1:-1]))

    def hooks_by_hand(self) -> dict[int, Tensor]:
        """Read with the shortest possible hooks: what any library on hooks must pay."""
        found: dict[int, Tensor] = {}
        handles = [
            block.register_forward_hook(lambda m, a, out, i=i: found.__setitem__(i, _first(out)[:, -1].clone()))
            for i, block in enumerate(self.blocks)
        ]
        self.lean()
        for handle in handles:
            handle.remove()
        return found

    def reference(self) -> dict[int, Tensor]:
        """Return every block's output at all positions, read by this file's own hooks."""
        found: dict[int, Tensor] = {}
        handles = [
            block.register_forward_hook(lambda m, a, out, i=i: found.__setitem__(i, _first(out).clone()))
            for i, block in enumerate(self.blocks)
        ]
        self.raw()
        for handle in handles:
            handle.remove()
        return found


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def native(case: Case) -> list[Row]:
    """Use this library."""
    import interp

    model, prompts = interp.load(case.hf), case.ids.tolist()
    strict = 1.10 if case.hf.config.model_type == "llama" else 1.05

    def streams(acts: interp.Activations) -> dict[int, Tensor]:
        return {site.layer: acts[site] for site in acts.sites if site.kind == "resid_post" and site.layer is not None}

    def run(sites: str | list[str], positions: str) -> Callable[[], dict[int, Tensor]]:
        return lambda: streams(model.run(prompts, capture=sites, positions=positions).activations)

    six = [f"{kind}.*" for kind in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z")]
    return [
        Row("output_hidden_states=True", case.hidden_states),
        Row("hooks by hand, last token", case.hooks_by_hand, LEAN, last=True),
        Row("interp capture resid_post.*", lambda: streams(model.capture(prompts, "resid_post.*")), last=True),
        Row("interp run, resid_post.* + last logits", run("resid_post.*", "last"), LEAN, strict, last=True),
        Row("interp run, the same at all positions", run("resid_post.*", "all"), LEAN, strict),
        Row("interp run, six kinds of site, last token", run(six, "last"), LEAN, last=True),
        *[
            Row(
                f"interp capture resid_post.{k}", lambda k=k: streams(model.capture(prompts, f"resid_post.{k}")),
                goal=case.reach(k), last=True,
            )
            for k in case.early
        ],
    ]  # fmt: skip


def transformer_lens(case: Case) -> list[Row]:
    """Use TransformerLens's bridge, without its compatibility mode, on a twin."""
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = AutoTokenizer.from_pretrained(case.folder)
    bridge = TransformerBridge.boot_transformers(str(case.folder), hf_model=twin(case.hf), tokenizer=tokenizer)
    name = "blocks.{}.hook_resid_post".format

    def forward() -> dict[int, Tensor]:
        with torch.no_grad():
            bridge(case.ids)
        return {}

    def cached(layers: list[int], **stop: int) -> dict[int, Tensor]:
        wanted = {name(layer) for layer in layers}
        with torch.no_grad():
            _, cache = bridge.run_with_cache(case.ids, names_filter=lambda hook: hook in wanted, **stop)
        return {layer: cache[name(layer)] for layer in layers}

    early = [
        Row(f"TransformerLens, layer {k}, stop_at_layer", lambda k=k: cached([k], stop_at_layer=k + 1))
        for k in case.early
    ]
    everything = list(range(case.n_layers))
    return [
        Row("TransformerLens, forward alone", forward),
        Row("TransformerLens, resid_post", lambda: cached(everything)),
        *early,
    ]


def nnsight(case: Case) -> list[Row]:
    """Use nnsight on a twin."""
    from nnsight import TransformersModel

    tokenizer = AutoTokenizer.from_pretrained(case.folder)
    model = TransformersModel(twin(case.hf), tokenizer=tokenizer, task="text-generation")
    blocks = attrgetter(BLOCKS[case.hf.config.model_type])(model)
    ids = case.ids

    def traced() -> dict[int, Tensor]:
        with torch.no_grad():
            with model.trace(ids):  # noqa: SIM117 - one line would lose the trace
                found = list().save()  # noqa: C408 - nnsight adds the method to instances made by a call
                for block in blocks:
                    found.append(block.output)
        return {layer: _first(output) for layer, output in enumerate(found)}

    def stopped(k: int) -> dict[int, Tensor]:
        with torch.no_grad():
            with model.trace(ids) as tracer:  # noqa: SIM117
                found = blocks[k].output.save()
                tracer.stop()
        return {k: _first(found)}

    early = [Row(f"nnsight, layer {k}, tracer.stop", lambda k=k: stopped(k)) for k in case.early]
    return [Row("nnsight, trace and save", traced), *early]


PEERS: dict[str, Callable[[Case], list[Row]]] = {
    "native": native,
    "transformer-lens": transformer_lens,
    "nnsight": nnsight,
}


def difference(row: Row, reference: Mapping[int, Tensor]) -> float | None:
    """Return the largest absolute difference from the reference; None where the row reads nothing."""
    found = row.call()
    pairs = [(value, reference[layer][:, -1] if row.last else reference[layer]) for layer, value in found.items()]
    return max((float((a - b).abs().max()) for a, b in pairs), default=None)


def measure(peer: str, folder: Path, shape: str, rounds: int) -> dict[str, Any]:
    """Time one peer on one model and shape."""
    torch.set_num_threads(1)
    hf = open_model(folder)
    case = Case(folder, hf, inputs(shape, int(hf.config.vocab_size)))
    reference = case.reference()
    floors = [Row(RAW, case.raw), Row(LEAN, case.lean, RAW)]
    rows = [*floors, *PEERS[peer](case)]
    differences = {row.name: difference(row, reference) for row in rows}
    seconds = interleave({row.name: row.call for row in rows}, rounds=rounds)
    scale = max(float(value.abs().max()) for value in reference.values())
    facts = [{k: v for k, v in asdict(row).items() if k != "call"} for row in rows]
    return {"rows": facts, "seconds": seconds, "differences": differences, "scale": scale}


if __name__ == "__main__":
    peer, folder, shape, rounds, out = sys.argv[1:]
    Path(out).write_text(json.dumps(measure(peer, Path(folder), shape, int(rounds))))
