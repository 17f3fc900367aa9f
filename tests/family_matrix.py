"""The matrix of families: what holds for each type of decoder, measured against plain hooks.

``python -m tests.family_matrix [type ...]`` prints it as a table. A number is the largest error, relative to
the largest value; "0" is equality of every bit, and "." that the model has no such part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ModelError
from interp.mediation import exhaustive
from interp.models import Intervention, Model, load
from interp.models.doctor import examine
from interp.pairs import Pair, PairSet
from interp.quantization import quantize
from tests import more_families, tiny, wrappers

__all__ = ["COLUMNS", "KINDS", "LIMITS", "loaded", "measured", "refusal"]

IDS = [3, 14, 15, 52, 35, 6]
SHORT = [5, 8, 9]
SKIPPED = ("gemma3", "falcon", "stablelm", "starcoder2", "phi3", "mixtral")  # a row of their own elsewhere

KINDS: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: tiny.tiny(name)[0] for name in tiny.FAMILIES},
    **{name: lambda name=name: tiny.build(name) for name in tiny.OTHERS if name not in SKIPPED},
    **{name: lambda name=name: more_families.build(name) for name in more_families.MORE},
    **{name: lambda name=name: wrappers.build_wrapper(name) for name in wrappers.WRAPPERS},
}
"""Every type in the matrix, and what builds its tiny model."""


@cache
def loaded(kind: str) -> Model:
    """Load the tiny model of a type, with a tokenizer of words."""
    return load(KINDS[kind](), tokenizer=tiny.tokenizer())


def refusal(kind: str) -> str:
    """Why a type is refused; "" where it loads."""
    try:
        loaded(kind)
    except ModelError as error:
        return str(error)
    return ""


@contextmanager
def hooked(module: nn.Module, act: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Put a plain forward hook on a module."""
    handle = module.register_forward_hook(lambda m, args, output: act(args, output))
    try:
        yield
    finally:
        handle.remove()


def plain(model: Model, ids: list[int]) -> Tensor:
    """The last logits of Hugging Face's model, without anything of ours."""
    with torch.no_grad():
        return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def exact(model: Model) -> float:
    """What every block gives, against plain hooks: no tolerance."""
    seen: list[Tensor] = []
    found = model.capture([IDS], "resid_post.*", "all")
    handles = [
        block.register_forward_hook(lambda m, a, out: seen.append(out if isinstance(out, Tensor) else out[0]))
        for block in model.architecture.blocks
    ]
    plain(model, IDS)
    for handle in handles:
        handle.remove()
    active = model.family.stream
    streams = [one if active is None else one[active] for one in seen]
    return max(float((found[f"resid_post.{layer}"] - one).abs().max()) for layer, one in enumerate(streams))


def equations(model: Model) -> float:
    """The worst of the equations that hold, at load; those that do not have disabled their kinds."""
    allowed = model.certificate["errors"]
    return max(error for error in allowed.values() if error < 1e-3)


def padding(model: Model) -> float:
    """Prompts of two lengths, padded left and right, against each alone."""
    errors = []
    for side in ("left", "right"):
        both = model.run([IDS, SHORT], batch_size=2, padding_side=side).logits
        assert both is not None
        errors += [off(both[row], plain(model, ids)) for row, ids in enumerate((IDS, SHORT))]
    return max(errors)


def head(model: Model) -> float | None:
    """The last head of the last layer zeroed, against a projection that gives that much less."""
    if "head" not in model.sites:
        return None
    layer = model.anatomy.layers("head")[-1]
    site = f"head.{layer}.{model.anatomy.heads[layer] - 1}"
    less = model.capture([IDS], site, "all")[site]
    projection = model.architecture.part(layer, "out_projection")
    assert projection is not None
    with hooked(projection, lambda args, output: output - less.view(output.shape)):
        wanted = plain(model, IDS)
    found = model.run([IDS], interventions=[Intervention(site, 0.0, "all")]).logits
    assert found is not None and off(wanted, plain(model, IDS)) > 1e-5
    return off(found[0], wanted)


def expert(model: Model) -> float | None:
    """The busiest expert zeroed, against experts that are given no weight for it."""
    if "expert" not in model.sites:
        return None
    layer = model.anatomy.layers("expert")[-1]
    read = model.capture([IDS], f"expert.{layer}.*", "all")
    sizes = {str(site): float(read[str(site)].abs().max()) for site in read.sites}
    site = max(sizes, key=lambda name: sizes[name])
    index, experts = int(site.rpartition(".")[2]), model.architecture.part(layer, "experts")
    assert experts is not None

    def without(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(args) == 1:  # every expert on every token, weighted before
            rows = args[0].view(model.anatomy.experts[layer], -1, args[0].shape[-1]).clone()
            rows[index] = 0
            return (rows.view(args[0].shape),)
        return (args[0], args[1], args[2] * (args[1] != index), *args[3:])

    handle = experts.register_forward_pre_hook(without)
    wanted = plain(model, IDS)
    handle.remove()
    found = model.run([IDS], interventions=[Intervention(site, 0.0, "all")]).logits
    assert found is not None
    return off(found[0], wanted)


def patch(model: Model) -> float:
    """Interchange in the patching engine, against whole passes with the other prompt's value put in."""
    texts = ("w01 w02 w03 w04 w05", "w01 w07 w03 w04 w05")
    pairs = PairSet.build(model, [Pair(*texts, ("w11",), ("w12",))])
    sites = [f"resid_post.{model.n_layers // 2}"]
    kinds = ("head", "expert", "mixer_out", "mlp_out")
    sites += [str(model.expand(f"{kind}.*")[-1]) for kind in kinds if kind in model.sites]
    found = exhaustive(model, pairs, sites, directions="denoising", positions="all")
    clean, corrupt = (model.tokenize([text]) for text in texts)
    answer, foil = pairs.answer_ids[0][0], pairs.foil_ids[0][0]

    def margin(edits: list[Intervention]) -> float:
        logits = model.run(corrupt, interventions=edits).logits
        assert logits is not None
        return float(logits[0, answer].double() - logits[0, foil].double())

    base, errors = margin([]), []
    for at, site in enumerate(map(str, found.mediators)):
        value = model.capture(clean, site, "all")[site]
        wanted = margin([Intervention(site, value, "all")]) - base
        errors.append(abs(float(found.values["denoising"][at, 0]) - wanted))
    return max(errors) / max(1.0, abs(base))


def int8(model: Model) -> float:
    """Plain hooks on the quantized model: its streams are read without a difference, and are others."""
    small = quantize(model, "int8")
    moved = off(plain(small, IDS), plain(model, IDS))
    assert 0 < moved < 0.5, f"int8 moves the logits by {moved}"
    return exact(small)


@dataclass(frozen=True)
class Column:
    """Name one column: what is measured, and the most that is allowed."""

    measure: Callable[[Model], float | None]
    limit: float


COLUMNS: dict[str, Column] = {
    "exact": Column(exact, 0.0),
    "equations": Column(equations, 2e-5),
    "padding": Column(padding, 1e-4),
    "head": Column(head, 1e-5),
    "expert": Column(expert, 1e-5),
    "patch": Column(patch, 1e-4),
    "int8": Column(int8, 0.0),
}
LIMITS = {name: column.limit for name, column in COLUMNS.items()}


def measured(kind: str) -> dict[str, float | None]:
    """Measure every column of one type."""
    return {name: column.measure(loaded(kind)) for name, column in COLUMNS.items()}


def _row(kind: str) -> str:
    if why := refusal(kind):
        return f"| {kind} | refused: {why} |" + " |" * len(COLUMNS)
    model = loaded(kind)
    found = examine(model)
    passed = sum(check.status == "pass" for check in found.checks)
    doctor = f"{passed} pass" + (f", {len(found.failures)} FAIL" if found.failures else "")
    cells = [doctor]
    for name, column in COLUMNS.items():
        try:
            value = column.measure(model)
        except Exception as error:
            cells.append(f"FAIL: {type(error).__name__}: {str(error)[:60]}")
            continue
        text = "." if value is None else "0" if value == 0 else f"{value:.0e}"
        cells.append(text if value is None or value <= LIMITS[name] else f"**{text}**")
    absent = ", ".join(kind for kind in model.disabled)
    return f"| {kind} | " + " | ".join(cells) + f" | {absent} |"


def main(kinds: list[str]) -> None:
    """Print the table."""
    print("| type | doctor | " + " | ".join(COLUMNS) + " | not offered |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for kind in kinds or KINDS:
        print(_row(kind), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
