"""Gated attention, normed values, and keys by what they decide; oracles: the families' own formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from interp import mediation
from interp.errors import ConfigError, SiteError
from interp.models import Model, families, load
from interp.models.attention import score_fault
from tests.interp.mediation.edges.models import pairs_of
from tests.more_families import build
from tests.tiny import tokenizer

IDS = [3, 14, 15, 52, 35, 6]
Form = Callable[[Any, Tensor, Tensor], Tensor]


def own(attention: nn.Module, given: Tensor, mixed: Tensor) -> Tensor:
    """No gate: Gemma 4, whose values are normed."""
    return mixed


def halved(attention: Any, given: Tensor, mixed: Tensor) -> Tensor:
    """The second half of every head's query (Qwen3-Next, Qwen3.5)."""
    return mixed * attention.q_proj(given).unflatten(-1, (mixed.shape[-2], -1)).chunk(2, dim=-1)[1].sigmoid()


def projected(attention: Any, given: Tensor, mixed: Tensor) -> Tensor:
    """A projection of its own (AFMoE)."""
    return mixed * attention.gate_proj(given).sigmoid().unflatten(-1, (mixed.shape[-2], -1))


def soft(attention: Any, given: Tensor, mixed: Tensor) -> Tensor:
    """A softplus of a projection (Laguna)."""
    return mixed * functional.softplus(attention.g_proj(given)).unflatten(-1, (mixed.shape[-2], -1))


FORMS: dict[str, Form] = {
    "qwen3_5_text": halved,
    "qwen3_next": halved,
    "qwen3_5_moe_text": halved,
    "afmoe": projected,
    "laguna": soft,
    "gemma4_text": own,
    "gemma4_shared": own,
    "gemma4_moe": own,
}


def inputs(model: Model, layer: int) -> Tensor:
    """What a layer's attention is called with, by a plain hook."""
    seen: list[Tensor] = []
    attention = model.architecture.module(layer, "attention", "pattern")
    keep = lambda module, args, named: seen.append(args[0] if args else named["hidden_states"])  # noqa: E731
    handle = attention.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model.hf(input_ids=torch.tensor([IDS]), use_cache=False)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("kind", FORMS)
def test_patterns_and_values_behind_gates_and_norms(kind: str) -> None:
    """Pattern times value, gated as the family's code says, is what the output projection reads."""
    model = load(build(kind))
    assert not {"pattern", "v", "k"} & set(model.disabled)
    for layer in model.anatomy.layers("pattern"):
        read = model.capture([IDS], [f"pattern.{layer}", f"v.{layer}", f"z.{layer}"], "all")
        pattern, v, z = (read[f"{site}.{layer}"][0] for site in ("pattern", "v", "z"))
        assert pattern.sum(-1).sub(1).abs().max() < 1e-5 and pattern.std() > 0
        attention: Any = model.architecture.module(layer, "attention", "pattern")
        v = v / (v.square().mean(-1, keepdim=True) + 1e-6).sqrt() if kind.startswith("gemma4") else v
        shared = v.repeat_interleave(z.shape[-2] // v.shape[-2], dim=-2)
        mixed = torch.einsum("qhk,khd->qhd", pattern, shared)
        with torch.no_grad():
            wanted = FORMS[kind](attention, inputs(model, layer)[0], mixed)
        assert (z - wanted).abs().max() < 1e-5 * z.abs().max()


def test_a_gate_that_is_not_known_leaves_patterns_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the name of its projection the gate stands between, and is found out."""
    monkeypatch.setattr(families, "GATE_NAMES", ())
    assert "pattern times v differs from z" in load(build("afmoe")).disabled["pattern"]


@pytest.mark.parametrize("kind", ["gemma4_text", "gemma4_shared", "qwen3_next", "smollm3", "phi3", "olmo3"])
def test_keys_decide_their_own_scores(kind: str) -> None:
    model = load(build(kind))
    assert "k" not in model.disabled and score_fault(model.architecture, "k") == ""


@pytest.mark.parametrize(
    ("given", "kind", "reason"),
    [
        ({"k": "self_attn.v_proj"}, "k", "another key in layer 0 changes no score at all"),
        ({"q": "mlp.gate_proj"}, "q", ""),
    ],
)
def test_what_is_no_key_is_left_out(given: dict[str, str], kind: str, reason: str) -> None:
    """Values are as wide as keys, so that widths cannot tell them apart."""
    assert reason in load(build("smollm3"), family=given).disabled[kind]


def test_estimates_through_a_gated_pattern_are_refused() -> None:
    """AtP* takes a head's output for its pattern times its values; control: where that is so, it runs."""
    gated = load(build("afmoe"), tokenizer=tokenizer())
    with pytest.raises(ConfigError, match="a gate, a norm or a clip stands between"):
        mediation.attribution_star(gated, pairs_of(gated), "k.1")
    plain = load(build("smollm3"), tokenizer=tokenizer())
    assert mediation.attribution_star(plain, pairs_of(plain), "k.1").mediators


@pytest.mark.parametrize(
    ("kind", "refused"), [("qwen3_next", True), ("qwen3_5_text", True), ("smollm3", False)]
)
def test_a_query_that_also_holds_a_gate_is_refused_with_the_reason(kind: str, refused: bool) -> None:
    """Half of each head's projection is no query: not read, not written, not patched as one."""
    model = load(build(kind))
    layer = model.anatomy.layers("z")[0]
    if not refused:
        assert model.capture([IDS], [f"q.{layer}"], "all")[f"q.{layer}"].shape[:2] == (1, len(IDS))
        return
    with pytest.raises(SiteError, match="the query projection also gives a gate, which 'q' would hold"):
        model.capture([IDS], [f"q.{layer}"], "all")
    attention = model.architecture.module(layer, "attention", "pattern")
    assert attention.q_proj.out_features == 2 * model.n_heads * model.d_head, "twice as wide as its queries"
