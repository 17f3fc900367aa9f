"""What ``--dry-run`` prints: how much a command would read, compute, hold and write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.cli.budget import Job
    from interp.cli.frame import Work
    from interp.cli.options import SizeSettings
    from interp.cli.session import Outcome
    from interp.models import Model
    from interp.quantization import Scheme

__all__ = [
    "Plan",
    "of_capture",
    "of_compare",
    "of_monitor",
    "of_probe",
    "planned",
    "show_compare",
    "show_plan",
]

REPORT_BYTES = 5_500_000
BATCH_TOKENS = 8_192
OVERHEAD = 400 * 2**20
"""Python, torch and the libraries, before any model: measured, rounded up."""


@dataclass(frozen=True)
class Plan:
    """An estimate; everything but the counts is rough.

    Attributes:
        prompts: how many prompts.
        tokens: how many tokens in all, the longest prompt having ``longest``.
        longest: tokens of the longest prompt.
        forward_equivalents: full forward passes of one prompt; a pass that ends after half of the layers
            counts one half.
        peak_memory_bytes: weights, captured activations and one batch at work.
        disk_bytes: what the run folder would hold.
        sites: how many sites are read.
    """

    prompts: int
    tokens: int
    longest: int
    forward_equivalents: float
    peak_memory_bytes: int
    disk_bytes: int
    sites: int

    def to_dict(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def of_capture(
    model: Model, prompts: Sequence[Any], sites: Sequence[str], *, positions: str | int = "last"
) -> Plan:
    """Estimate ``interp capture``."""
    from interp.models.positions import choose, located

    found = model.expand(list(sites))
    tokens = model.tokenize(list(prompts))
    lengths = tokens.lengths
    cells = sum(map(len, choose(located(positions, tokens, model.tokenizer), lengths).rows))
    size = sum(_width(model, site) for site in found) * cells * model.dtype.itemsize
    shard = size * min(256, len(lengths)) // len(lengths)
    return _plan(
        model,
        lengths,
        _deepest(model, found),
        models=1,
        held=2 * shard,
        disk=size + 40 * sum(lengths),
        sites=len(found),
    )


def of_probe(
    model: Model, prompts: Sequence[Any], layers: Sequence[int], *, classes: int, models: int, more: int = 0
) -> Plan:
    """Estimate ``interp probe``: one pass per model compared, one token's residual stream at each layer.

    Args:
        model: that is probed.
        prompts: texts, or messages of conversations.
        layers: that are read.
        classes: labels of the probe.
        models: 2 where the same architecture with random weights is run too.
        more: forward passes of one prompt that are made besides.
    """
    tokens = model.tokenize(list(prompts))
    lengths = tokens.lengths
    held = len(layers) * len(lengths) * model.d_model * 4 * models
    disk = (
        REPORT_BYTES
        + len(layers) * classes * model.d_model * 8
        + sum(map(len, tokens.texts))
        + 16 * sum(lengths)
    )
    plan = _plan(model, lengths, max(layers) + 1, models=models, held=3 * held, disk=disk, sites=len(layers))
    return replace(plan, forward_equivalents=plan.forward_equivalents + more)


def of_monitor(
    model: Model,
    prompts: Sequence[Any],
    positions: str,
    layers: Sequence[int],
    *,
    models: int = 1,
    more: float = 0.0,
) -> Plan:
    """Estimate ``interp monitor``: the states of all selected tokens of every message, at each layer.

    Args:
        model: that is read.
        prompts: texts, or messages of conversations.
        positions: the selector.
        layers: that are read.
        models: 2 where the same architecture with random weights is read too.
        more: forward passes of one prompt that are made besides.
    """
    from interp.analyses.monitoring.messages import messages_of

    messages = messages_of(model, prompts, positions)
    cells = sum(map(len, messages.positions))
    held = 2 * len(layers) * cells * model.d_model * 4 * models
    lengths, depth = messages.tokens.lengths, max(layers) + 1
    plan = _plan(model, lengths, depth, models=models, held=held, disk=REPORT_BYTES, sites=len(layers))
    return replace(plan, forward_equivalents=round(plan.forward_equivalents + more, 1))


def planned(work: Work, settings: SizeSettings, job: Job, *, models: int) -> Outcome:
    """What a command takes, by what its budget counts.

    Args:
        work: with the model.
        settings: of the command, whose size is chosen first.
        job: what it takes and costs.
        models: 2 where the same architecture with random weights is run too.
    """
    from interp.cli.session import Outcome

    model, n = work.model, work.sized(settings, lambda: job).limit or job.whole
    known = model.tokenize(list(job.texts)).lengths
    lengths, held = [known[at % len(known)] for at in range(n)], 4 * models * n * model.d_model
    plan = _plan(model, lengths, 0, models=models, held=held, disk=REPORT_BYTES + held, sites=1)
    found = replace(plan, forward_equivalents=round(job.passes(n), 1))
    return Outcome(found.to_dict(), lambda: show_plan(found), status="planned")


def _plan(
    model: Model, lengths: Sequence[int], depth: int, *, models: int, held: int, disk: int, sites: int
) -> Plan:
    weights = sum(p.numel() * p.element_size() for p in model.hf.parameters())
    wide = max(model.d_mlp * 3, model.d_model * 6)
    working = min(BATCH_TOKENS, sum(lengths)) * wide * model.dtype.itemsize * 2
    return Plan(
        prompts=len(lengths),
        tokens=sum(lengths),
        longest=max(lengths),
        forward_equivalents=round(models * len(lengths) * depth / model.n_layers, 1),
        peak_memory_bytes=OVERHEAD + models * weights + held + working,
        disk_bytes=disk,
        sites=sites,
    )


def _deepest(model: Model, sites: Sequence[Any]) -> int:
    return max(
        model.n_layers
        if site.kind in ("final_norm", "logits")
        else 0
        if site.layer is None
        else site.layer + 1
        for site in sites
    )


def _width(model: Model, site: Any) -> int:
    heads = {"q": model.n_heads, "z": model.n_heads, "k": model.n_kv_heads, "v": model.n_kv_heads}
    if site.kind in heads:
        return model.d_head * (1 if site.index is not None else heads[site.kind])
    return {"mlp_act": model.d_mlp, "neuron": 1, "logits": model.vocab_size}.get(site.kind, model.d_model)


def of_compare(
    model: Model,
    other: Model | None,
    sizes: Mapping[str, int],
    schemes: Sequence[Scheme],
) -> dict[str, Any]:
    """List what ``interp compare`` would run, and what each scheme would quantize.

    Args:
        model: the reference.
        other: the other checkpoint.
        sizes: the analyses, keys of ``ANALYSES``, and how many items each takes.
        schemes: that the reference is quantized with.
    """
    labels = [*map(str, schemes), *([] if other is None else [f"{other.name} ({other.weights})"])]
    return {
        "model": f"{model.name} ({model.weights})",
        "cells": [{"analysis": name, "scheme": at, "n": n} for name, n in sizes.items() for at in labels],
        "noise_runs": 2 * len(sizes),
        "schemes": [_modules(model, scheme) for scheme in schemes],
    }


def _modules(model: Model, scheme: Scheme) -> dict[str, Any]:
    """Count the modules that a scheme would quantize, by the group size that their width allows."""
    from interp.models.linear import is_linear, linear_modules, width
    from interp.quantization.libraries.library import group_for

    found = linear_modules(model.architecture).values() if scheme.library else ()
    groups = Counter(str(group_for(width(one), scheme.group) or "row") for one in found if is_linear(one))
    return {"scheme": str(scheme), "bits": scheme.bits, "modules": groups.total(), "groups": dict(groups)}


def show_compare(plan: dict[str, Any]) -> None:
    """Print what ``interp compare`` would run."""
    import click

    from interp.report.terminal import console, of_rows, to_rich

    out = console()
    click.echo(f"The plan for {plan['model']} (nothing is written):")
    out.print(to_rich(of_rows(plan["cells"])))
    click.echo(
        f"Before that: each analysis of the reference, and up to {plan['noise_runs']} runs for noise floors."
    )
    if plan["schemes"]:
        rows = [
            row | {"groups": ", ".join(f"{n} of {size}" for size, n in row["groups"].items()) or "none"}
            for row in plan["schemes"]
        ]
        out.print(to_rich(of_rows(rows)))


def show_plan(plan: Plan) -> None:
    """Print a plan."""
    import click

    click.echo("The plan (nothing is written):")
    rows = [
        ("prompts", f"{plan.prompts:,}"),
        ("tokens", f"{plan.tokens:,} (longest prompt: {plan.longest:,})"),
        ("sites", f"{plan.sites:,}"),
        ("forward passes", f"about {plan.forward_equivalents:,.0f} prompts through the whole model"),
        ("peak memory", f"about {_size(plan.peak_memory_bytes)}"),
        ("disk", f"about {_size(plan.disk_bytes)}"),
    ]
    for name, value in rows:
        click.echo(f"  {name:<15} {value}")


def _size(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n / 1e3:.1f} kB"
