"""Gradients switched off, inference mode, another default dtype: numbers are those of a fresh notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import interp
from interp import mediation
from interp.mediation.searches import effects
from interp.models import Intervention, Model, load
from interp.pairs import Pair, PairSet
from probes import HyperdimensionalProbe, LogisticProbe
from probes.vsa import FHRR, MAP, Codebook
from tests.tiny import build, tokenizer

IDS = [[5, 6, 7, 8, 9]]


@contextmanager
def grad_off() -> Iterator[None]:
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


MODES = {
    "set_grad_enabled(False)": grad_off,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@pytest.fixture(scope="module")
def pairs(llama: Model) -> Any:
    texts = [("w01 w02 w03", "w01 w04 w03"), ("w05 w06 w03", "w05 w07 w03")]
    made = [Pair(a, b, ("w10",), ("w11",), group=a) for a, b in texts]
    return PairSet.build(llama, made)


def fitted(kind: Any) -> torch.Tensor:
    X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    y = ["a" if one > 0 else "b" for one in X[:, 0].tolist()]
    return torch.as_tensor(kind.fit(X, y).decision_function(X)).clone()


CALLS: dict[str, Callable[[Model, Any], Any]] = {
    "capture": lambda model, pairs: model.capture(IDS, "resid_post.*", "all")["resid_post.1"],
    "gradient": lambda model, pairs: _gradient(model),
    "attribution": lambda model, pairs: _effects(mediation.attribution(model, pairs, "head.*", verify=0)),
    "integrated gradients": lambda model, pairs: _effects(
        effects(model, pairs, "resid_post.*", search=mediation.IntegratedGradients(verify=0))
    ),
    "edges": lambda model, pairs: _effects(mediation.attribution(model, pairs, "edge.*", verify=0)),
    "exhaustive": lambda model, pairs: _effects(mediation.exhaustive(model, pairs, "head.*")),
    "hyperdimensional": lambda model, pairs: fitted(
        HyperdimensionalProbe(Codebook.random(MAP(128), ["a", "b"], seed=0), epochs=3, seed=0)
    ),
    "logistic": lambda model, pairs: fitted(LogisticProbe(seed=0)),
}


def _gradient(model: Model) -> torch.Tensor:
    run = model.run(IDS, capture="resid_post.0", positions="all", grad=True)
    assert run.logits is not None and run.activations is not None
    with torch.inference_mode(False), torch.enable_grad():
        return torch.autograd.grad(run.logits.sum(), run.activations["resid_post.0"])[0]


def _effects(found: Any) -> torch.Tensor:
    return torch.as_tensor(found.table()["effect"].to_numpy().copy())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", CALLS)
def test_a_mode_of_torch_changes_no_number(llama: Model, pairs: Any, call: str, mode: str) -> None:
    expected = CALLS[call](llama, pairs)
    assert expected.abs().max() > 0
    with MODES[mode]():
        found = CALLS[call](llama, pairs)
    torch.testing.assert_close(found.detach(), expected.detach(), atol=1e-6, rtol=1e-5)


def test_a_model_made_and_examined_in_inference_mode(llama: Model) -> None:
    with torch.inference_mode():
        made = build("llama")
        model = load(made, tokenizer=tokenizer())
        found = model.capture(IDS, "resid_post.1", "all")["resid_post.1"].clone()
        assert interp.examine(llama).passed
    torch.testing.assert_close(found, llama.capture(IDS, "resid_post.1", "all")["resid_post.1"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_default_dtype_rounds_no_value(llama: Model, dtype: torch.dtype) -> None:
    write = [Intervention("resid_post.0", 0.1)]
    expected = llama.run(IDS, interventions=write).logits
    torch.set_default_dtype(dtype)
    try:
        found = llama.run(IDS, interventions=write).logits
        vector = Codebook.random(FHRR(64), ["a", "b"], seed=0)["a"]
    finally:
        torch.set_default_dtype(torch.float32)
    assert expected is not None and found is not None
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert vector.dtype == Codebook.random(FHRR(64), ["a", "b"], seed=0)["a"].dtype
