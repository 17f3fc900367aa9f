"""Small instances of the results that are made to be compared, and of a comparison."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import interp
from interp.analyses.costs import cost
from interp.errors import DataError
from interp.models import Model
from interp.quantization import compare, quantize, verify_quantization
from interp.results import About, Finding, FindingsResult, Result, Table
from tests.tiny import tiny

__all__ = ["certificate", "compared", "cost_of_a_model", "integrity", "measured"]


def toy_model() -> Model:
    """A small model with a tokenizer."""
    hf, words = tiny("llama")
    return interp.load(hf, tokenizer=words)


def measured() -> Result:
    """Findings of every kind: a mean, one of a share, a statistic, and a curve."""
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=24), tuple(f"g{at // 2}" for at in range(24))
    curve = [
        Finding(f"r at layer {at}", values + at, groups, control=values, unit="nats", curve="r", layer=at)
        for at in range(3)
    ]
    found = (
        Finding("mean", values, groups, unit="nats"),
        Finding("accuracy", (values > -1).astype(float), groups, control=0.5, unit="share", direction=1),
        Finding("spread", values, groups, statistic=lambda w: float(np.average(values**2, weights=w))),
        *curve,
    )
    more = Table("said", "What was said", ("prompt", "n", "p"), [("a < b", 3, 0.5)], private=("prompt",))
    return FindingsResult(analysis="toy", found=found, more=(more,), about=About({"name": "toy"}))


def cost_of_a_model() -> Result:
    """A tiny model beside itself."""
    return cost(toy_model(), n=2, prompts=2, width=8)


def compared() -> Result:
    """Findings and a cost at two precisions: some survive, some do not, one is not shown."""

    def signs(model: Model, *, reference: Any = None) -> FindingsResult:
        prompts = np.random.default_rng(0).integers(3, 60, (16, 5)).tolist()
        logits = model.logits(prompts).double().numpy()
        best = logits.argmax(1) if reference is None else reference.state["best"]
        groups = tuple(f"g{at // 2}" for at in range(16))
        lead = logits[np.arange(16), best] - logits.mean(1)
        stream = model.capture(prompts, ["resid_post.*"], "last")
        norms = [stream[f"resid_post.{at}"].double().norm(dim=1).numpy() for at in range(model.n_layers)]
        found = (
            Finding("lead", lead, groups, unit="logits"),
            Finding("agreement", (logits.argmax(1) == best).astype(float), groups, control=1 / 64),
            Finding("coin", np.arange(16) % 2 + 0.0, groups, control=0.5, unit="share"),
            *(Finding(f"norm at layer {i}", x, groups, curve="norm", layer=i) for i, x in enumerate(norms)),
        )
        rows = [
            (f"head.0.{at}", float(a), float(b)) for at, (a, b) in enumerate(zip(lead, best, strict=True))
        ]
        more = (Table("effects", "Effects", ("mediator", "reference", "value"), rows),)
        return FindingsResult(analysis="signs", found=found, more=more, state={"best": best})

    def refusing(model: Model, *, reference: Any = None) -> FindingsResult:
        if model.quantization is not None:
            raise DataError("not at this precision.")
        return signs(model)

    analyses = {"signs": signs, "refusing": refusing, "cost": partial(cost, n=2, prompts=2, width=8)}
    return compare(analyses, toy_model(), ["rtn8", "rtn2"], noise=("layout",))


def certificate() -> Result:
    """Of a tiny model without a fault."""
    return interp.examine(toy_model())


def integrity() -> Result:
    """Of a tiny model at eight bits."""
    model = toy_model()
    return verify_quantization(quantize(model, "rtn8"), model)
