"""Path patching against plain hooks, TransformerLens, direct effects and circuits known by construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, SiteError
from interp.mediation.edges.graph import Graph, heads_add_up
from interp.mediation.searches import effects
from interp.pairs import Pair, PairSet
from tests.interp.mediation.edges.models import made, pairs_of
from tests.interp.mediation.edges.naive import patched_paths
from tests.interp.mediation.edges.test_transformer_lens import both, sides
from tests.planted_heads import planted
from tests.tiny import WORDS

SENDERS = ["embed", "head.0.1", "mlp_out.0", "head.1.2"]
RECEIVERS = {
    "queries": ["q.2.*"],
    "a group of keys and a value": ["k.1.1", "v.1.0"],
    "several layers": ["q.1.0", "v.1.1", "mlp.1", "q.2.3", "mlp.2"],
    "an MLP": ["mlp.2"],
    "logits": ["logits"],
}


@pytest.mark.parametrize("through", [(), ("mlp",)])
@pytest.mark.parametrize("receivers", RECEIVERS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_paths_are_what_plain_hooks_give(family: str, receivers: str, through: tuple[str, ...]) -> None:
    """Oracle 10, for paths: three whole runs by hooks, nothing added up by hand."""
    model = made(family)
    pairs = pairs_of(model, 2 if receivers == "several layers" else 1)
    found = mediation.path_patching(model, pairs, SENDERS, RECEIVERS[receivers], through=through)
    readers = Graph.of(model).readers_of(RECEIVERS[receivers])
    wanted = {direction: np.zeros_like(table) for direction, table in found.values.items()}
    for at in range(len(pairs)):
        clean, corrupt = (side.token_ids[at] for side in (pairs.clean, pairs.corrupt))
        for row, sender in enumerate(found.mediators):
            for direction, (own, other) in {
                "noising": (clean, corrupt),
                "denoising": (corrupt, clean),
            }.items():
                mlps = "free" if through else "frozen"
                patched = patched_paths(model, own, other, sender.site, readers, mlps)
                wanted[direction][row, at] = _difference(patched, pairs, at)
    for direction, plain, sign in (("noising", found.clean, -1), ("denoising", found.corrupt, 1)):
        assert np.abs(found.values[direction] - sign * (wanted[direction] - plain)).max() < 1e-5
    assert np.abs(found.mean()).max() > 1e-3
    assert found.noise < 1e-5
    assert found.search == "path-patching"


def _difference(logits: torch.Tensor, pairs: PairSet, at: int) -> float:
    return float(logits[pairs.answer_ids[at][0]] - logits[pairs.foil_ids[at][0]])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "granite"])
def test_a_path_into_the_logits_is_the_direct_effect(family: str) -> None:
    """Oracle 5, with the norm live."""
    model = made(family)
    pairs = pairs_of(model)
    senders = ["embed", "head.1.*", "mlp_out.*"] if heads_add_up(model) else "*"
    found = mediation.path_patching(model, pairs, senders, "logits")
    direct = effects(model, pairs, [str(one) for one in found.mediators], search="direct", positions="all")
    assert list(map(str, found.mediators)) == list(map(str, direct.mediators))
    for direction in found.values:
        assert np.abs(found.values[direction] - direct.values[direction]).max() < 1e-5
    assert np.median(np.abs(found.mean())) > 1e-3
    assert np.abs(np.roll(found.mean(), 1) - direct.mean()).max() > 1e-2


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_without_attention_all_paths_go_through_mlps(family: str) -> None:
    """Where heads add nothing, the paths through MLPs into the logits are all that a part does."""
    model = made(family)
    with torch.no_grad():
        for name, weight in model.hf.named_parameters():
            if "attn.c_proj" in name or "attention.dense" in name:
                weight.zero_()
    words = [" ".join(WORDS[at] for at in row) for row in ((3, 9, 20, 31), (3, 9, 20, 17))]
    pairs = PairSet.build(model, [Pair(words[0], words[1], (WORDS[55],), (WORDS[56],), "word", "g")])
    parts = ["embed", "mlp_out.*"]
    found = mediation.path_patching(model, pairs, parts, "logits", through=("mlp",))
    exact = mediation.exhaustive(model, pairs, parts, positions="all")
    direct = mediation.path_patching(model, pairs, parts, "logits")
    for direction in found.values:
        assert np.abs(found.values[direction] - exact.values[direction]).max() < 1e-5
        assert np.abs(direct.values[direction] - exact.values[direction]).max() > 1e-2
    assert np.allclose(direct.mean()[-1], exact.mean()[-1], atol=1e-5)  # no MLP comes after the last one


@pytest.mark.parametrize("name", ["gpt2", "grouped llama"])
def test_direct_paths_into_queries_are_those_of_transformer_lens(name: str) -> None:
    """Oracle 11: one head into the queries of each later head, exactly."""
    from transformer_lens.patching import get_act_patch_direct_path

    model, pairs, bridge = both(name)
    clean, corrupt, metric = sides(pairs, 0)
    caches = [bridge.run_with_cache(tokens)[1] for tokens in (clean, corrupt)]
    theirs = get_act_patch_direct_path(bridge, corrupt, *caches, metric, 0, 1, "q", verbose=False)
    for reader in ("q.1.0", "q.1.3", "q.2.2"):
        found = mediation.path_patching(model, pairs, "head.0.1", reader, directions="denoising")
        _, layer, head = reader.split(".")
        wanted = float(theirs[int(layer), int(head)]) - found.corrupt[0]
        assert found.values["denoising"][0, 0] == pytest.approx(wanted, abs=1e-5)
        other = float(theirs[1 + (layer == "1"), int(head) - 1]) - found.corrupt[0]
        assert abs(other - wanted) > 1e-5


def test_a_planted_head_works_through_the_values_that_read_it_and_by_no_other_path() -> None:
    """Planted truth: the first head is read by the second's values; queries and logits are the control."""
    truth = planted("composition")
    share = {}
    for reader in ("v.1.1", "q.1.1", "k.1.1", "logits"):
        found = mediation.path_patching(truth.model, truth.pairs, "head.0.*", reader)
        share[reader] = found.mean() / found.total.mean()
    assert share["v.1.1"][0] == pytest.approx(1, abs=0.05)
    assert np.abs(share["v.1.1"][1:]).max() < 0.05
    assert max(np.abs(share[reader]).max() for reader in ("q.1.1", "k.1.1", "logits")) < 0.05
    longer = mediation.path_patching(truth.model, truth.pairs, "head.0.0", "logits", through=("mlp",))
    assert abs(float(longer.mean()[0])) < 0.05 * float(longer.total.mean())


def test_a_single_reader_gives_the_exact_effect_of_the_edge() -> None:
    model = made()
    pairs = pairs_of(model)
    names = [f"edge.{one}->k.2.1" for one in SENDERS]
    edges = mediation.exhaustive(model, pairs, names)
    found = mediation.path_patching(model, pairs, SENDERS, "k.2.1")
    for direction in found.values:
        assert np.allclose(found.values[direction], edges.values[direction], atol=1e-6)
    assert np.abs(found.mean()).max() > 1e-4


def test_senders_without_a_path_are_named() -> None:
    model = made()
    pairs = pairs_of(model, 1)
    found = mediation.path_patching(model, pairs, ["head.0.1", "mlp_out.*"], "q.1.*")
    assert list(map(str, found.mediators)) == ["head.0.1", "mlp_out.0"]
    assert any("no receiver comes after them: mlp_out.1, mlp_out.2" in one for one in found.warnings)
    assert any(
        "what q.1.0, q.1.1, q.1.2, q.1.3 read of each sender directly" in one for one in found.warnings
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"through": ("attn",)}, ConfigError, r"paths through \('attn',\) asked; .* of: mlp"),
        ({"through": "mlp"}, ConfigError, "paths through 'mlp' asked; give a sequence"),
        ({"receivers": ["q.1.0", "logits"]}, ConfigError, "one after the other"),
        ({"receivers": "z.1"}, SiteError, "no reader matches 'z.1'"),
        ({"senders": "q.1.0"}, SiteError, "no writer matches 'q.1.0'"),
        ({"senders": "mlp_out.2"}, SiteError, "no path from mlp_out.2 to q.1.0"),
        ({"metric": "loss"}, ConfigError, "metric 'loss' asked"),
    ],
)
def test_what_there_is_not_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model = made()
    asked: dict[str, Any] = {"senders": "head.0.0", "receivers": "q.1.0"} | change
    with pytest.raises(error, match=message):
        mediation.path_patching(model, pairs_of(model, 1), **asked)
