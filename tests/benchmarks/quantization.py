"""Benchmark of quantization: what each scheme costs and what it changes, on two models.

    python tests/benchmarks/quantization.py           all rows; writes results/quantization-cpu.json
    python tests/benchmarks/quantization.py --quick   the bundled model, few rounds; writes where --json says

Bytes are those of the weights of the whole model, measured for packed modules (what the library stores) and
counted for dense ones (what the scheme needs: codes, scales and offsets). Times are CPU time of the process
on one thread, interleaved in random order with full precision, as ratios of medians with a 95% bootstrap
interval: prefill is one pass of all prompts, decode one token more with a cache. KL is the mean over
all positions of KL(full || scheme), in nats, of the dense twin; *packed off* is the largest difference of its
logits from those of the library's own modules. Schemes whose library is missing are listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import worker
from capture import machine
from timing import Contender, ratio_of_medians, time_rounds

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
RESULTS = HERE / "results" / "quantization-cpu.json"
SCHEMES = ("bf16", "rtn8", "rtn4", "rtn2", "int8", "int4", "bnb8", "nf4", "fp4")
PROMPTS, WIDTH, ROUNDS, QUICK = 8, 64, 9, 2


def main() -> None:
    """Measure every scheme on every model, print the table, write the JSON."""
    options = _options()
    os.environ.update(worker.ENVIRONMENT)
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    result: dict[str, Any] = {"schema": "interp.benchmarks.quantization/1", "machine": machine()}
    rounds = QUICK if options.quick else ROUNDS
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, model, ids in subjects(Path(scratch), quick=options.quick):
            rows += measured(name, model, ids, rounds)
    result |= {"rows": rows, "rounds": rounds, "prompts": PROMPTS, "width": WIDTH}
    result["minutes"] = round((time.perf_counter() - started) / 60, 1)
    show(result)
    target = options.json or (None if options.quick else RESULTS)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what quantization costs and changes.")
    parser.add_argument("--quick", action="store_true", help="one model, few rounds: shows that it works")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the result")
    return parser.parse_args()


def subjects(scratch: Path, *, quick: bool) -> Any:
    """Yield name, model and prompts: the bundled model, and a Llama of 127 million random weights."""
    import interp
    from interp import tasks

    demo = interp.load("demo")
    texts = list(tasks.labelled("category", n=16 * PROMPTS, seed=0).texts)
    long = [" . ".join(texts[at::PROMPTS]) for at in range(PROMPTS)]
    ids = [list(row[:WIDTH]) for row in demo.tokenize(long).token_ids]
    yield "demo", demo, [row for row in ids if len(row) == min(map(len, ids))] or ids
    if not quick:
        large = interp.load(llama())
        yield "llama-127m", large, random_ids(large.vocab_size)


def llama() -> Any:
    """Build a Llama with random weights, some columns of which are large as in trained models."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "layers" in name:
                scale = torch.empty(weight.shape[1]).log_normal_(0.0, 0.5, generator=generator)
                weight.mul_(scale)
    return model


def random_ids(vocab: int) -> list[list[int]]:
    """Draw token ids."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(10, vocab, (PROMPTS, WIDTH), generator=generator).tolist()


def measured(name: str, model: Any, ids: list[list[int]], rounds: int) -> list[dict[str, Any]]:
    """Give one row per scheme, full precision first."""
    import torch

    full = torch.log_softmax(logits(model, ids), dim=-1)
    size = sum(one.numel() * one.element_size() for one in unique(model.hf))
    rows: list[dict[str, Any]] = [{"model": name, "scheme": "fp32", "bytes": size, "kl": 0.0, "top1": 1.0}]
    for scheme in SCHEMES:
        print(f"{name}: {scheme} ...", file=sys.stderr, flush=True)
        rows.append({"model": name, "scheme": scheme} | row(model, scheme, ids, full, rounds))
    return rows


def unique(hf: Any) -> list[Any]:
    """Give every parameter once."""
    return list(dict.fromkeys(hf.parameters()))


def logits(model: Any, ids: list[list[int]]) -> Any:
    """Give the fp32 logits of all positions, ``[prompt pos vocab]``."""
    return model.run(ids, logits="all").logits.float()


def row(model: Any, scheme: str, ids: list[list[int]], full: Any, rounds: int) -> dict[str, Any]:
    """Measure one scheme: dense for its numbers, packed for its cost."""
    import torch

    from interp.errors import InterpError
    from interp.quantization import quantize

    try:
        dense = quantize(model, scheme)
    except InterpError as error:
        return {"missing": str(error)}
    theirs = logits(dense, ids)
    change = torch.log_softmax(theirs, dim=-1)
    found: dict[str, Any] = {
        "kl": float((full.exp() * (full - change)).sum(-1).mean()),
        "top1": float((full.argmax(-1) == change.argmax(-1)).float().mean()),
        "modules": len(dense.quantization.quantized),
        "bytes": dense.quantization.bytes_after,
        "weight_error": dense.quantization.weight_error,
        "seconds": dense.quantization.seconds,
    }
    try:
        packed = dense if scheme == "bf16" else quantize(model, scheme, mode="packed")
    except InterpError as error:
        return found | {"packed": str(error)}
    found["packed_off"] = float((logits(packed, ids) - theirs).abs().max())
    found["packed_bytes"] = packed.quantization.bytes_after
    return found | timed(model, packed, ids, rounds)


def timed(model: Any, packed: Any, ids: list[list[int]], rounds: int) -> dict[str, Any]:
    """Time prefill and one decoded token against full precision."""
    contenders = [
        Contender(f"{job} {which}", call)
        for which, one in (("full", model), ("packed", packed))
        for job, call in jobs(one.hf, ids).items()
    ]
    seconds = time_rounds(contenders, rounds, warm_up=1)
    found: dict[str, Any] = {}
    for job in ("prefill", "decode"):
        ratio = ratio_of_medians(seconds[f"{job} packed"], seconds[f"{job} full"])
        found[job] = [ratio.value, ratio.low, ratio.high]
        found[f"{job}_ms"] = 1000 * median(seconds[f"{job} packed"])
    return found


def jobs(hf: Any, ids: list[list[int]]) -> dict[str, Any]:
    """Give what is timed, as calls without arguments."""
    import torch

    tokens = torch.tensor(ids)
    one = tokens[:1]

    @torch.no_grad()
    def prefill() -> Any:
        return hf(tokens, use_cache=False, logits_to_keep=1)

    @torch.no_grad()
    def decode() -> Any:
        past = hf(one[:, :4], use_cache=True).past_key_values
        for at in range(4, 12):
            past = hf(one[:, at : at + 1], past_key_values=past, use_cache=True).past_key_values

    return {"prefill": prefill, "decode": decode}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print("machine: " + ", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    print(
        "\nbytes: of all weights, as the scheme needs them and as the library stores them; times: one\n"
        f"thread, ratio to full precision over {result['rounds']} interleaved rounds, packed modules; KL in\n"
        "nats, over "
        f"{result['prompts']} prompts of {result['width']} tokens\n"
    )
    form = "{:<11}{:<7}{:>8}{:>9}{:>11}{:>9}{:>10}{:>8}{:>8}  {:<18}{:<18}{:>10}"
    heads = ("model", "scheme", "modules", "MB", "MB packed", "seconds", "KL", "top-1", "error")
    print(form.format(*heads, "prefill x [95%]", "decode x [95%]", "packed off"))
    for row in result["rows"]:
        if "missing" in row:
            print(f"{row['model']:<11}{row['scheme']:<7}{row['missing']}")
        else:
            print(form.format(*_cells(row)))
        if "packed" in row:
            print(f"{'':<18}packed: {row['packed']}")
    print(f"\ntook {result['minutes']} minutes")


def _cells(row: dict[str, Any]) -> list[str]:
    def number(key: str, form: str, scale: float = 1.0) -> str:
        return form.format(row[key] / scale) if row.get(key) is not None else ""

    def times(key: str) -> str:
        return "{:.2f} [{:.2f}, {:.2f}]".format(*row[key]) if key in row else ""

    return [
        row["model"],
        row["scheme"],
        number("modules", "{:,.0f}"),
        number("bytes", "{:,.2f}", 1e6),
        number("packed_bytes", "{:,.2f}", 1e6),
        number("seconds", "{:.2f}"),
        number("kl", "{:.1e}"),
        number("top1", "{:.3f}"),
        number("weight_error", "{:.3f}"),
        times("prefill"),
        times("decode"),
        number("packed_off", "{:.1e}"),
    ]


if __name__ == "__main__":
    main()
