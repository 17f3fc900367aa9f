"""Measure nnsight in a process of its own, since importing it changes Python; print one JSON object.

Started by the tests with the families to measure; it reads no argument but those.
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from nnsight import NNsight, TransformersModel, save

from interp.errors import InterpError
from interp.models import Intervention, as_model, load
from interp.pairs import Pair, PairSet
from tests.interp.parity.measure import MEASURES, far, state
from tests.tiny import build, tiny, tokenizer

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}


def given(family: str) -> TransformersModel:
    """Wrap a fresh model as a user would."""
    return TransformersModel(build(family), tokenizer=tokenizer(), task="text-generation")


def parity(family: str) -> dict[str, Any]:
    """Compare the backend with the native one, and with a trace written by hand."""
    hf, words = tiny(family)
    native, model = load(hf, tokenizer=words), load(hf, tokenizer=words, backend="nnsight")
    found: dict[str, Any] = {name: measure(native, model) for name, measure in MEASURES.items()}
    traces = []
    trace = NNsight.trace
    NNsight.trace = lambda *args, **named: (traces.append(1), trace(*args, **named))[1]
    acts = model.capture(IDS.tolist(), ["resid_post.1", "resid_post.0"], "all")
    NNsight.trace = trace
    found["by hand"] = far(acts["resid_post.1"], by_hand(family, 1))
    found["by hand, another layer"] = far(acts["resid_post.0"], by_hand(family, 1))
    found["traces"] = len(traces)
    found["disabled beyond the native"] = sorted(set(model.disabled) - set(native.disabled))
    return found


def by_hand(family: str, layer: int) -> torch.Tensor:
    """Read a block's output with nnsight alone."""
    model = given(family)
    block = model.get(BLOCKS.get(family, "model.layers"))[layer]
    with torch.no_grad(), model.trace(IDS):
        output = block.output
        kept = save([output if isinstance(output, torch.Tensor) else output[0]])
    return kept[0]


def held(family: str) -> dict[str, bool]:
    """Take a user's model as it is, and see that it stays so."""
    model = given(family)
    before = state(model._module)
    ours = as_model(model)
    with torch.no_grad():
        plain = tiny(family)[0](IDS).logits
    same = torch.equal(ours.run(IDS.tolist(), logits="all").logits, plain)
    ours.run(IDS.tolist(), capture=["z.1", "pattern.0"], interventions=[Intervention("resid_post.0", 0.1)])
    pairs = [Pair("w01 w02 w03", "w01 w04 w03", ("w05",), ("w06",))]
    found = {
        "the plain model's logits": same,
        "left as it was": state(model._module) == before,
        "remembered": as_model(model).hf is ours.hf,
        "its tokenizer": ours.tokenizer is model.tokenizer,
        "in place of a model": len(PairSet.build(model, pairs)) == 1,
        "weights shared": {id(p) for p in ours.hf.parameters()}
        == {id(p) for p in model._module.parameters()},
    }
    reference = weakref.ref(model)
    del model
    gc.collect()
    return found | {"freed with its last name": reference() is None}


def refused() -> dict[str, str]:
    """Collect what is said about models that cannot be taken."""
    edited, whole = given("gpt2"), given("gpt2")
    with edited.edit(inplace=True):
        edited.transformer.h[0].output[:] = 0
    cases: dict[str, Callable[[], Any]] = {
        "edits": lambda: load(edited),
        "a part": lambda: load(whole.transformer.h[0]),
        "no weights": lambda: load(NNsight(build("gpt2").to("meta"))),
        "read only": lambda: load(tiny("gpt2")[0], backend="nnsight").run(
            [[5, 6]], interventions=[Intervention("pattern.0", 0.0)]
        ),
        "nowhere": lambda: load(tiny("gpt2")[0], backend="nnsight").run(
            [[5, 6]], interventions=[Intervention("resid_post.0", 0.0, rows=[])]
        ),
    }
    return {name: _said(case) for name, case in cases.items()}


def _said(case: Callable[[], Any]) -> str:
    try:
        case()
    except InterpError as error:
        return str(error)
    return ""


def main(families: list[str]) -> None:
    """Print what was measured."""
    warnings.simplefilter("ignore")
    found = {family: parity(family) | {"held": held(family)} for family in families}
    print(json.dumps({"families": found, "refused": refused()}))


if __name__ == "__main__":
    main(sys.argv[1:])
