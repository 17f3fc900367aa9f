"""Analyses that take no time, registered by the tests of ``interp compare`` in place of the real ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.errors import DataError
from interp.models import Model
from interp.results import Finding, FindingsResult, Table

__all__ = ["CALLS", "EVIL", "flat", "margins", "refusing"]

EVIL = "<script>alert(1)</script> [/red]"
CALLS: list[tuple[str, str]] = []
"""(analysis, precision) of every call, for tests of what is run again."""


def _prompts(n: int, seed: int) -> tuple[list[list[int]], tuple[str, ...]]:
    tokens = np.random.default_rng(seed).integers(3, 60, (n, 5)).tolist()
    return tokens, tuple(f"g{at // 2}" for at in range(n))


def _note(name: str, model: Model) -> None:
    scheme = "full" if model.quantization is None else model.quantization.scheme
    CALLS.append((name, scheme))


def margins(model: Model, *, reference: Any = None, n: int = 20, seed: int = 0) -> FindingsResult:
    """Measure the lead of the reference's first choice, a curve over layers, effects, and a coin."""
    _note("margins", model)
    prompts, groups = _prompts(n, seed)
    logits = model.logits(prompts).double().numpy()
    best = logits.argmax(1) if reference is None else reference.state["best"]
    lead = logits[np.arange(n), best] - logits.mean(1)
    states = [
        model.capture(prompts, [f"resid_post.{layer}"], "last")[f"resid_post.{layer}"].double().numpy()
        for layer in range(model.n_layers)
    ]
    curve = [
        Finding(f"norm at layer {layer}", np.linalg.norm(state, axis=1), groups, curve="norm", layer=layer)
        for layer, state in enumerate(states)
    ]
    coin = Finding("coin", np.arange(n) % 2 + 0.0, tuple(f"g{at // 2}" for at in range(n)), control=0.5)
    first = states[0].mean(0)
    old = first if reference is None else reference.state["first"]
    effects = [
        (f"{EVIL} {at}", float(a), float(b)) for at, (a, b) in enumerate(zip(old[:6], first[:6], strict=True))
    ]
    return FindingsResult(
        analysis="margins",
        found=(Finding(f"lead {EVIL}", lead, groups, unit="logits"), *curve, coin),
        more=(Table("effects", "Effects", ("mediator", "reference", "value"), effects),),
        state={"best": best, "first": first},
        warnings=("margins are toys",),
    )


def flat(model: Model, *, reference: Any = None, n: int = 20, seed: int = 0) -> FindingsResult:
    """Measure the first choices that agree with the reference's."""
    _note("flat", model)
    prompts, groups = _prompts(n, seed + 1)
    best = model.logits(prompts).numpy().argmax(1)
    old = best if reference is None else reference.state["best"]
    found = Finding("agreement", (best == old).astype(float), groups, control=1 / 64, unit="share")
    return FindingsResult(analysis="flat", found=(found,), state={"best": best})


def refusing(model: Model, *, reference: Any = None, n: int = 20, seed: int = 0) -> FindingsResult:
    """Refuse every quantized model."""
    _note("refusing", model)
    if model.quantization is not None and model.quantization.scheme.startswith("rtn"):
        raise DataError(f"no {EVIL} here")
    return flat(model, reference=reference, n=n, seed=seed)
