"""The engine under every division into walks, against whole forward passes, on every family."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from interp import mediation
from interp.errors import ModelError
from interp.mediation.batching import DIVISIONS, Costs
from interp.mediation.engine import Engine, full_forward_logits
from interp.mediation.mediators import Mediator
from interp.mediation.partial_forward import PartialForward
from interp.mediation.patches import Patch, Row
from interp.mediation.prefix_cache import Prefix
from interp.models.forward import cache_name
from interp.models.loading import load
from interp.models.model import Model
from interp.models.rounding import rounded_otherwise
from interp.sites import Site
from tests.interp.mediation.edges.models import pairs_of
from tests.interp.mediation.test_partial_forward import cells, loaded, prompts, values
from tests.tiny import FAMILIES, build, tokenizer

SINCE, LENGTH = 4, 14
STATE_SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
STATES: dict[str, dict[str, Any]] = {
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 16},
    "mamba": {"state_size": 4},
    "lfm2": {
        "layer_types": ["conv", "full_attention", "conv"],
        "block_ff_dim": 48,
        "block_auto_adjust_ff_dim": False,
    },
}
"""Kinds of layers that carry a state from token to token, alone or beside attention."""


def alike(model: Model, n: int = 3, length: int = LENGTH) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts, and others that equal them up to position ``SINCE``."""
    base, other = prompts(model, n, length), prompts(model, n, length, seed=1)
    return base, [one[:SINCE] + two[SINCE:] for one, two in zip(base, other, strict=True)]


def cases(model: Model, length: int = LENGTH) -> list[Row]:
    """Patched copies of three prompts: each kind of mediator, several at once, and none."""
    mediators = cells(model, length)
    rows = [Row(at % 3, (m,)) for at, m in enumerate(mediators)]
    return [*rows, Row(0), Row(1, tuple(mediators[:4])), Row(2, (mediators[0], mediators[-1]))]


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))


def engines(model: Model, ids: list[list[int]], since: int = SINCE) -> dict[str, Engine]:
    tokens = model.tokenize(ids)
    return {name: Engine(model, tokens, division=name, since=[since] * len(ids)) for name in DIVISIONS}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_division_gives_the_logits_of_whole_passes(family: str) -> None:
    model = loaded(family)
    base, source = alike(model)
    rows = cases(model)
    given = values(model, source, [m for row in rows for m in row.mediators])
    whole = full_forward_logits(model, base, rows, Patch(given))
    starts: dict[str, set[int]] = {}
    for name, engine in engines(model, base).items():
        assert off(engine.logits(rows, given), whole) <= 1e-5, name
        assert engine.bill.fallback == ""
        assert engine.bill.forwards == pytest.approx(engine.plan(rows).forwards)
        starts[name] = {walk.start for walk in engine.plan(rows).walks}
    assert starts["whole"] == {0}
    assert starts["common"] == {SINCE}
    assert len(starts["each"]) > 4
    assert min(starts["auto"]) == SINCE
    plain = model.logits(base)[[row.example for row in rows]]
    assert sum((whole - plain).abs().amax(dim=1) > 1e-4) > len(rows) / 2  # the patches do something


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_patched_into_itself_is_left_as_it_was(family: str) -> None:
    """From the first position on to the last bit; with lent keys and values to rounding."""
    model = loaded(family)
    base, _ = alike(model)
    rows = [Row(0, (Mediator(Site("resid_post", layer), at),)) for layer in range(2) for at in (4, 9, 13)]
    given = values(model, base, [m for row in rows for m in row.mediators])
    walker = PartialForward.of(model, base[:1])
    assert torch.equal(
        walker(rows, Patch(given)), walker([replace(r, mediators=()) for r in rows], Patch({}))
    )
    for engine in engines(model, base).values():
        assert off(engine.logits(rows, given), model.logits(base[:1]).expand(len(rows), -1)) <= 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_patching_everything_is_the_run_of_the_source(family: str) -> None:
    model = loaded(family)
    base, source = alike(model)
    every = Mediator(Site("resid_pre", 1))
    rows = [Row(at, (every,)) for at in range(3)]
    wanted = model.logits(source)
    for engine in engines(model, base).values():
        assert off(engine.logits(rows, values(model, source, [every])), wanted) <= 1e-5
    assert off(model.logits(base), wanted) > 1e-3


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_windows_shorter_than_the_prompt_see_the_right_keys(family: str) -> None:
    """Between a window of 6 and one of 40 there is a difference; the engine is on the right side of it."""
    length = 20
    small = load(build(family, sliding_window=6), tokenizer=tokenizer())
    large = load(build(family, sliding_window=40), tokenizer=tokenizer())
    base, source = alike(small, length=length)
    rows = cases(small, length)
    given = values(small, source, [m for row in rows for m in row.mediators])
    whole = full_forward_logits(small, base, rows, Patch(given))
    for engine in engines(small, base).values():
        assert off(engine.logits(rows, given), whole) <= 1e-5
        assert engine.bill.fallback == ""
    assert off(full_forward_logits(large, base, rows, Patch(given)), whole) > 1e-3


def test_prompts_of_several_lengths_and_first_differences() -> None:
    model = loaded("llama")
    base = [prompts(model, 1, length, seed=at)[0] for at, length in enumerate((9, 14, 9, 11))]
    other = [prompts(model, 1, len(ids), seed=9 + at)[0] for at, ids in enumerate(base)]
    since = [2, 7, 5, 10]
    source = [one[:at] + two[at:] for one, two, at in zip(base, other, since, strict=True)]
    mediators = [Mediator(Site("resid_pre", 1), -1), *map(Mediator, model.expand(["head.*", "mlp_out.*"]))]
    rows = [Row(at % 4, (m,)) for at, m in enumerate(mediators)] + [Row(at) for at in range(4)]
    given = values(model, source, mediators)
    whole = full_forward_logits(model, base, rows, Patch(given))
    for name in DIVISIONS:
        engine = Engine(model, model.tokenize(base), division=name, since=since)
        assert off(engine.logits(rows, given), whole) <= 1e-5
        assert engine.bill.forwards == pytest.approx(engine.plan(rows).forwards)


def test_one_bar_shows_the_time_left_of_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    class Bar:
        def __init__(self, total: int, **named: Any) -> None:
            self.total, self.done = total, 0
            bars.append(self)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, count: int) -> None:
            self.done += count

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    model = loaded("llama")
    base = [prompts(model, 1, length)[0] for length in (9, 12, 14)]
    source = [prompts(model, 1, length, seed=1)[0] for length in (9, 12, 14)]
    rows = [Row(at, (Mediator(Site("mlp_out", layer), None),)) for at in range(3) for layer in range(3)]
    given = values(model, source, [m for row in rows for m in row.mediators])
    Engine(model, model.tokenize(base)).each(rows, given, lambda numbers, logits: None, progress=True)
    assert [(bar.total, bar.done) for bar in bars] == [(9, 9)]


def test_control_a_prefix_that_is_one_too_long_is_found_out() -> None:
    model = loaded("llama")
    base, source = alike(model)
    rows = [Row(0, (Mediator(Site("resid_pre", 1)),))]
    given = values(model, source, list(rows[0].mediators))
    right, late = (
        Engine(model, model.tokenize(base), division="common", since=[at] * 3) for at in (SINCE, SINCE + 1)
    )
    right.logits(rows, given)
    with pytest.raises(ModelError, match="differ from whole passes by"):
        late.logits(rows, given)


def test_a_model_that_keeps_no_keys_is_walked_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama")
    base, source = alike(model)
    rows = cases(model)
    given = values(model, source, [m for row in rows for m in row.mediators])

    def forgetful(self: Prefix, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        return keys, values

    monkeypatch.setattr(Prefix, "update", forgetful)
    engine = Engine(model, model.tokenize(base), since=[SINCE] * 3)
    assert off(engine.logits(rows, given), full_forward_logits(model, base, rows, Patch(given))) <= 1e-5
    assert engine.bill.fallback.startswith("patched from the first position on: ")
    assert {walk.start for walk in engine.plan(rows).walks} == {0}


def test_a_model_whose_blocks_cannot_be_walked_is_patched_by_whole_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = loaded("llama")
    base, source = alike(model)
    rows = [Row(0, (Mediator(Site("resid_pre", 1), 6),)), Row(2)]
    given = values(model, source, list(rows[0].mediators))
    monkeypatch.setattr("interp.mediation.partial_forward._Walk._block", lambda self, layer, hidden: hidden)
    engine = Engine(model, model.tokenize(base))
    assert torch.equal(engine.logits(rows, given), full_forward_logits(model, base, rows, Patch(given)))
    assert engine.bill.fallback.startswith("patched by whole forward passes: a walk differs")
    assert engine.bill.forwards == 2


def test_in_half_precision_a_walk_may_differ_by_what_rounding_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that rounds otherwise is taken, one that is wrong is not; control: without that room neither."""
    model = load(build("llama").to(torch.bfloat16))
    base, source = alike(model)
    rows = [Row(0, (Mediator(Site("resid_pre", 1), 6),)), Row(2)]
    given = values(model, source, list(rows[0].mediators))
    last = PartialForward.last

    def fallback(change: Callable[[Tensor], Tensor]) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(PartialForward, "last", lambda *args, **named: change(last(*args, **named)))
            engine = Engine(model, model.tokenize(base))
            engine.logits(rows, given)
            return engine.bill.fallback

    refused = "patched by whole forward passes: a walk differs"
    assert fallback(rounded_otherwise(3)) == ""
    wrong = torch.linspace(-0.5, 0.5, model.d_model, dtype=torch.bfloat16)
    assert fallback(lambda state: state + wrong).startswith(refused)
    monkeypatch.setattr("interp.mediation.engine._rounding", lambda *_: 0.0)
    assert fallback(rounded_otherwise(3)).startswith(refused)


def test_experts_are_walked_with_lent_keys_like_any_other_block() -> None:
    """Which expert a token goes to is decided anew in every copy."""
    model = loaded("mixtral")
    base, source = alike(model)
    rows = cases(model)
    given = values(model, source, [m for row in rows for m in row.mediators])
    whole = full_forward_logits(model, base, rows, Patch(given))
    for engine in engines(model, base).values():
        assert off(engine.logits(rows, given), whole) <= 1e-5
        assert engine.bill.fallback == ""


@pytest.mark.parametrize("kind", STATES)
def test_models_with_a_running_state_fall_back_and_say_so(kind: str) -> None:
    config = AutoConfig.for_model(kind, **STATE_SIZES, **STATES[kind])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = load(AutoModelForCausalLM.from_config(config).eval(), tokenizer=tokenizer())
    base, source = alike(model)
    rows = [Row(0, (Mediator(Site("resid_pre", 1), 6),)), Row(2)]
    given = values(model, source, list(rows[0].mediators))
    engine = Engine(model, model.tokenize(base), since=[SINCE] * 3)
    assert off(engine.logits(rows, given), full_forward_logits(model, base, rows, Patch(given))) <= 1e-5
    assert engine.bill.fallback.startswith("patched from the first position on: its blocks cannot be run")


def test_what_falls_back_is_said_once_with_the_lengths_it_holds_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both directions and two lengths: one warning. Control: without the fault there is none."""
    model = loaded("llama")
    pairs = pairs_of(model)
    assert len(set(pairs.lengths)) == 2
    assert not [text for text in mediation.exhaustive(model, pairs, "head.*").warnings if "patched" in text]
    monkeypatch.setattr("interp.mediation.partial_forward._Walk._block", lambda self, layer, hidden: hidden)
    found = mediation.exhaustive(model, pairs, "head.*")
    said = [text for text in found.warnings if "patched" in text]
    assert len(said) == 1 and not caplog.records
    assert f"(prompts of {', '.join(map(str, sorted(set(pairs.lengths))))} tokens)" in said[0]


def test_nothing_of_the_model_is_changed() -> None:
    model = loaded("gpt2")
    base, _ = alike(model)
    own = partial(type(model.architecture.blocks[1]).forward, model.architecture.blocks[1])
    model.architecture.blocks[1].forward = own
    try:
        walker = PartialForward.of(model, base)
        walker([Row(0)], Patch({}), start=5)
        assert model.architecture.blocks[1].forward is own
        assert all(
            "forward" not in vars(block)
            for block in (model.architecture.blocks[0], model.architecture.blocks[2])
        )
        assert not model.hf._forward_pre_hooks
        past = walker.base.past
        assert past is not None
        before = {layer: keys.clone() for layer, (keys, _) in past.layers.items()}
        walker(
            [Row(0, (Mediator(Site("resid_pre", 0), 6),))],
            Patch({Site("resid_pre", 0): walker.base.streams[1]}),
            start=5,
        )
        assert all(torch.equal(past.layers[layer][0], keys) for layer, keys in before.items())
    finally:
        del model.architecture.blocks[1].forward


class _Watched(Prefix):
    """Notes which of its methods are called."""

    used: set[str]

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("_") and name != "used":
            object.__getattribute__(self, "used").add(name)
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_asks_of_a_cache_is_what_a_prefix_offers(family: str) -> None:
    """A name that transformers begins to ask for shows up here before it becomes a wrong number."""
    model = loaded(family)
    base, _ = alike(model)
    past = PartialForward.of(model, base).base.past
    assert past is not None
    asked: set[str] = set()
    prefix = _Watched.__new__(_Watched)
    prefix.used = asked
    Prefix.__init__(prefix, past, 5, torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        whole = model.hf(input_ids=torch.tensor([base[0]]), use_cache=False).logits[0, 5:]
        lent: nn.Module = model.hf
        found = lent(
            input_ids=torch.tensor([base[0][5:]]), use_cache=False, **{cache_name(model.architecture): prefix}
        )
    assert off(found.logits[0], whole) <= 1e-5
    offered = {"update", "get_seq_length", "get_query_offset", "get_mask_sizes"}
    own = {"past", "length", "examples"}
    assert asked - own <= offered | {"is_sliding", "is_compileable"}
    assert {"update", "get_seq_length"} <= asked


def test_logits_are_handed_over_in_parts_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory: at any time the logits of one part are alive, whatever the number of rows."""
    model = loaded("llama")
    base, source = alike(model)
    rows = cases(model)
    given = values(model, source, [m for row in rows for m in row.mediators])
    tokens = model.tokenize(base)
    whole = Engine(model, tokens).logits(rows, given)
    monkeypatch.setattr("interp.mediation.engine.UNEMBEDDED", 5)
    handed: list[weakref.ref[Any]] = []
    seen: dict[int, Tensor] = {}

    def keep(numbers: Any, logits: Tensor) -> None:
        assert len(numbers) <= 5
        assert [one() for one in handed if one() is not None] == []
        handed.append(weakref.ref(logits.untyped_storage()))
        seen.update({at: logits[place].clone() for place, at in enumerate(numbers)})

    Engine(model, tokens).each(rows, given, keep)
    assert len(handed) >= len(rows) / 5
    assert off(torch.stack([seen[at] for at in range(len(rows))]), whole) <= 1e-6


def test_what_is_held_does_not_grow_with_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of last states a walk's and a part's are alive at a time; control: ``logits`` keeps them all."""
    model = loaded("llama")
    base, source = alike(model)
    some = cases(model)
    given = values(model, source, [m for row in some for m in row.mediators])
    tokens = model.tokenize(base)
    monkeypatch.setattr("interp.mediation.engine.UNEMBEDDED", 8)
    monkeypatch.setattr("interp.mediation.batching.TOKENS", {"cpu": 2 * LENGTH})
    alive: list[weakref.ref[Any]] = []
    most = [0]
    last, unembed = PartialForward.last, Model.unembed

    def watched(found: Tensor) -> Tensor:
        alive.append(weakref.ref(found.untyped_storage()))
        most[0] = max(most[0], sum(one.nbytes() for one in (ref() for ref in alive) if one is not None))
        return found

    monkeypatch.setattr(PartialForward, "last", lambda *args, **given: watched(last(*args, **given)))
    monkeypatch.setattr(Model, "unembed", lambda *args: watched(unembed(*args)))

    def peak(rows: list[Row], *, kept: bool = False) -> int:
        alive.clear()
        most[0] = 0
        engine = Engine(model, tokens)
        if kept:
            engine.logits(rows, given)
        else:
            engine.each(rows, given, lambda numbers, logits: None)
        return most[0]

    few, many = some * 2, some * 12
    walk = max(len(walk.rows) for walk in Engine(model, tokens).plan(many).walks)
    bound = 4 * (3 * walk + 8) * (model.d_model + model.vocab_size)
    assert len(many) * 4 * model.d_model > 2 * bound
    assert max(peak(few), peak(many)) <= bound
    assert peak(many, kept=True) >= len(many) * 4 * model.vocab_size


def test_walks_are_as_large_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: in float32 a token of the llama takes 4 * (6 * 32 + 3 * 48) bytes."""
    model = loaded("llama")
    assert (model.d_model, model.d_mlp) == (32, 48)
    assert Costs.of(model).tokens == 4096
    monkeypatch.setattr("interp.mediation.batching.ROOM", 100 * 4 * (6 * 32 + 3 * 48) + 5)
    assert Costs.of(model).tokens == 100
    base, source = alike(model)
    rows = cases(model)
    given = values(model, source, [m for row in rows for m in row.mediators])
    engine = Engine(model, model.tokenize(base))
    plan = engine.plan(rows)
    assert max(len(walk.rows) * (LENGTH - walk.start) for walk in plan.walks) <= 100
    small = engine.logits(rows, given)
    monkeypatch.undo()
    assert off(small, Engine(model, model.tokenize(base)).logits(rows, given)) <= 1e-6


def test_the_plan_says_how_much_is_held() -> None:
    """By hand: 2 pairs of 7 tokens, heads of 3 layers of a llama with 4 heads of 8 and 2 key-value heads."""
    model = load(build("llama"), tokenizer=tokenizer())
    pairs = pairs_of(model, 2, length=7)
    found = mediation.plan(model, pairs[[0, 0]], "head.*", directions="noising")
    copies = 2 * (12 + 1)
    streams, past, z = 4 * 32, 2 * 3 * 2 * 8, 3 * 32
    assert found.memory == 4 * (2 * 7 * (streams + past + z) + copies * 32 + copies * 64)
    assert "GB besides the weights" in str(found)
