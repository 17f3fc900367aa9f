"""The doctor: sound models pass, and each broken one fails the check that is meant for it, and no other."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from tokenizers import processors
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from interp import results
from interp.errors import DataError
from interp.models import Model, load
from interp.models.certificate import Certificate, Check, NoiseFloor
from interp.models.checks import CHECKS, batches, hooks, residual_stream, runs
from interp.models.checks.context import judged, worst
from interp.models.doctor import examine
from interp.models.equations import relative
from interp.report.document import shown_table
from interp.results.codec import to_json
from tests.interp.models.conftest import PROMPTS
from tests.tiny import FAMILIES, OTHERS, build, tokenizer

NAMES = [row.name for row in CHECKS]


def names(certificate: Certificate, status: str) -> set[str]:
    """Give the names of the checks with some status."""
    return {check.name for check in certificate.checks if check.status == status}


def explained(certificate: Certificate) -> str:
    """Say what failed, for a failing assertion."""
    return "\n".join(f"{check.name}: {check.value} {check.detail}" for check in certificate.failures)


PARALLEL = {"phi", "gpt_neox", "gptj", "stablelm_parallel", "falcon", "falcon_old", "cohere"}


DISCOVERED = [
    family if family in ("gemma3", "mixtral") else pytest.param(family, marks=pytest.mark.slow)
    for family in OTHERS
]


@pytest.mark.parametrize("family", [*FAMILIES, *DISCOVERED])
def test_every_family_passes(family: str) -> None:
    """Random norm scales, biases and multipliers hide nothing; only what cannot apply is skipped."""
    found = examine(load(build(family), tokenizer=tokenizer(bos=True)))
    assert found.passed, explained(found)
    assert [check.name for check in found.checks] == NAMES
    assert names(found, "skip") == {runs.CHAT} | ({residual_stream.MIDDLE} if family in PARALLEL else set())
    assert all(check.detail for check in found.checks)
    assert found.noise_floor is not None and 0 <= found.noise_floor.logits < 1e-4
    assert found["padding left = no padding"].value < 1e-5


@pytest.mark.parametrize("weights", ["trained", "random"])
def test_without_a_tokenizer_random_ids_do(weights: str) -> None:
    found = examine(load(build("llama"), weights=weights))
    assert found.passed and len(set(found.prompts)) > 1
    assert names(found, "skip") == {runs.PLAIN, runs.CHAT}
    assert examine(load(build("llama"), weights=weights), seed=1).prompts == found.prompts


# --- broken models: how each is made, and exactly which checks must fail


def patched(family: str, forward: Callable[..., Any], *, seed: int = 0) -> PreTrainedModel:
    """Build a model whose forward is ``forward(self, original, **arguments)`` with the usual arguments."""
    original = type(build(family)).forward

    def whole(
        self: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: Any = None,
        logits_to_keep: Any = 0,
    ) -> Any:
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
        }
        return forward(self, partial(original, self), arguments)

    hf = build(family, seed=seed)
    hf.__class__ = type(type(hf).__name__, (type(hf),), {"forward": whole})
    return hf


def positions_ignored(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Count positions from the left edge, padding included."""
    return original(**given | {"position_ids": None})


def mask_ignored(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Let padding be attended to; with the positions alone, Hugging Face would find the prompts again."""
    return original(**given | {"attention_mask": None, "position_ids": None})


def last_column(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Add something of the last column, which is padding for shorter prompts, to the logits."""
    out = original(**given)
    out.logits = out.logits + 0.1 * self.get_input_embeddings()(given["input_ids"][:, -1:]).mean(
        -1, keepdim=True
    )
    return out


def cache_off_by_one(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Count the positions of cached steps one too high."""
    past, positions = given["past_key_values"], given["position_ids"]
    if past is not None and positions is not None:
        given = given | {"position_ids": positions + 1}
    return original(**given)


def rows_mixed(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Let the rows of a batch see each other."""
    out = original(**given)
    out.logits = out.logits + 0.01 * (out.logits - out.logits.mean(0, keepdim=True))
    return out


def noisy(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Add a little that changes from call to call."""
    out = original(**given)
    self.calls = getattr(self, "calls", 0) + 1
    out.logits = out.logits + 1e-3 * self.calls
    return out


def logits_scaled(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Scale the logits in a way no configuration mentions."""
    out = original(**given)
    out.logits = 2 * out.logits
    return out


def hooks_noticed(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Change the logits when somebody is looking."""
    out = original(**given)
    if self.model.layers[0]._forward_hooks:
        out.logits = out.logits + 1e-6
    return out


def hooks_left(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Leave a hook behind at every call."""
    self.model.layers[1].register_forward_hook(lambda module, args, output: None)
    return original(**given)


def deaf(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Compute the logits from the token embeddings alone."""
    out = original(**given)
    out.logits = self.lm_head(self.model.embed_tokens(given["input_ids"]))
    return out


def _loaded(hf: PreTrainedModel, **arguments: Any) -> Model:
    return load(hf, tokenizer=tokenizer(bos=True), **arguments)


def _forward(family: str, forward: Callable[..., Any]) -> Callable[[], Model]:
    return lambda: _loaded(patched(family, forward), check=False)


def _override(family: str, **changes: str) -> Callable[[], Model]:
    return lambda: _loaded(build(family), family=changes)


def _in_place() -> Model:
    hf = build("llama")
    block = hf.model.layers[1]
    original = block.forward

    def forward(self: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        hidden_states.mul_(1.0)
        return original(hidden_states, *args, **kwargs)

    block.forward = MethodType(forward, block)
    return _loaded(hf)


def _shared_block() -> Model:
    hf = build("llama", use_cache=False)
    hf.model.layers[1] = hf.model.layers[0]
    return _loaded(hf, check=False)


def _between_blocks() -> Model:
    hf = build("llama")
    hf.model.layers[1].register_forward_pre_hook(lambda module, args: (args[0] * 1.01, *args[1:]))
    return _loaded(hf, check=False)


def _stream_restarted() -> Model:
    """Give the last block the first one's input, so that edits of the others are lost, but not its own."""
    hf = build("llama")
    kept: list[Tensor] = []
    hf.model.layers[0].register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    hf.model.layers[2].register_forward_pre_hook(lambda module, args: (kept.pop(), *args[1:]))
    return _loaded(hf, check=False)


SUMS = {residual_stream.SUM, residual_stream.MIDDLE}
BROKEN: dict[str, tuple[Callable[[], Model], set[str]]] = {
    "position ids ignored": (_forward("gpt2", positions_ignored), {runs.LEFT}),
    "attention mask ignored": (_forward("llama", mask_ignored), {runs.LEFT}),
    "last column read": (_forward("llama", last_column), {runs.RIGHT, runs.CACHE, residual_stream.FINAL}),
    "cached positions off by one": (_forward("gpt2", cache_off_by_one), {runs.CACHE}),
    "rows of a batch mixed": (_forward("llama", rows_mixed), {batches.BATCH, residual_stream.FINAL}),
    "logits scaled in secret": (_forward("llama", logits_scaled), {residual_stream.FINAL}),
    "hooks noticed": (_forward("llama", hooks_noticed), {runs.NATIVE}),
    "hooks left behind": (_forward("llama", hooks_left), {hooks.LEFT}),
    "edits without effect": (_forward("llama", deaf), {hooks.EDITS, residual_stream.FINAL}),
    "edits of early blocks lost": (_stream_restarted, {hooks.EDITS, residual_stream.STREAM}),
    "post-norms not read": (_override("gemma2", attn_out="self_attn", mlp_out="mlp"), SUMS),
    "attention post-norm not read": (_override("olmo2", attn_out="self_attn"), SUMS),
    "MLP post-norm not read": (_override("gemma2", mlp_out="mlp"), {residual_stream.SUM}),
    "middle read at the wrong norm": (
        _override("gemma2", resid_mid="post_attention_layernorm"),
        {residual_stream.MIDDLE},
    ),
    "residual multiplier forgotten": (_override("granite", multiplier=""), SUMS),
    "wrong final norm": (
        _override("llama", final_norm="model.layers.0.input_layernorm"),
        {residual_stream.FINAL},
    ),
    "input edited in place": (_in_place, {hooks.IN_PLACE}),
    "one block used twice": (_shared_block, {hooks.ONCE, residual_stream.STREAM, runs.CACHE}),
    "stream changed between blocks": (_between_blocks, {residual_stream.STREAM}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_fails_its_check_and_no_other(name: str) -> None:
    make, expected = BROKEN[name]
    found = examine(make())
    assert not found.passed
    assert names(found, "fail") == expected, explained(found)
    assert all(name in found.verdict() for name in expected)


def test_a_model_that_changes_from_call_to_call_fails() -> None:
    found = examine(_forward("llama", noisy)())
    assert {runs.TWICE, runs.NATIVE} <= names(found, "fail")
    untouched = {residual_stream.STREAM, hooks.ONCE, hooks.LEFT, hooks.IN_PLACE}
    assert names(found, "fail") <= set(NAMES) - SUMS - untouched


def test_a_writer_that_distorts_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the toolkit's own writing, and the check that writes back what was there turns red."""
    from interp.models.tensor_views import Heads

    monkeypatch.setattr(Heads, "write", lambda self, tensor, given, new: new.flatten(-2) * 1.001)
    assert names(examine(_loaded(build("llama"))), "fail") == {hooks.OWN}


@pytest.mark.parametrize("where", ["model.layers.1.mlp.down_proj.weight", "lm_head.weight"])
def test_nan_is_named_and_nothing_else_is_guessed(where: str) -> None:
    """A NaN weight fails one check; those that compare numbers are not measured; the hooks are still fine."""
    hf = build("llama")
    hf.get_parameter(where).data[0, 0] = float("nan")
    found = examine(_loaded(hf, check=False))
    assert names(found, "fail") == {runs.FINITE}
    assert ("resid_post.1" if "layers" in where else "logits") in found[runs.FINITE].detail
    unmeasured = {row.name for row in CHECKS if row.finite}
    assert names(found, "skip") == unmeasured | {runs.CHAT}
    assert names(found, "pass") == {hooks.ONCE, hooks.IN_PLACE, hooks.LEFT, runs.PLAIN}
    assert found.noise_floor is None


def test_a_value_that_is_not_a_number_never_passes() -> None:
    nan = float("nan")
    assert judged("x", nan, 1.0).status == "fail" and judged("x", 1.0, 1.0).status == "pass"
    assert worst([0.5, nan, 0.7])[1] == 1 and worst([0.5, 0.7])[1] == 1
    assert relative(torch.tensor([nan]), torch.ones(1)) != relative(torch.ones(1), torch.ones(1)) == 0.0


def test_a_check_that_cannot_run_is_a_failure_with_its_error() -> None:
    def refuses(self: Any, original: Callable[..., Any], given: dict[str, Any]) -> Any:
        if given["past_key_values"] is not None:
            raise ValueError("no cache today\nsecond line")
        return original(**given)

    found = examine(_forward("llama", refuses)())
    assert names(found, "fail") == {runs.CACHE}
    assert found[runs.CACHE].detail == "ValueError: no cache today"


# --- beginning-of-sequence tokens


def doubling() -> PreTrainedTokenizerFast:
    """Build a tokenizer that puts two of them."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=copy.deepcopy(tokenizer().backend_tokenizer),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
    )  # fmt: skip
    rule = processors.TemplateProcessing(single="<s> <s> $A", special_tokens=[("<s>", 1)])
    made.backend_tokenizer.post_processor = rule
    return made


def test_a_doubled_bos_is_a_warning() -> None:
    found = examine(load(build("llama"), tokenizer=doubling()))
    assert names(found, "warn") == {runs.PLAIN} and found.passed
    assert found[runs.PLAIN].value == 2 and "doubles '<s>'" in found[runs.PLAIN].detail
    assert "1 warned" in found.verdict()


@pytest.mark.parametrize(("bos", "count"), [(True, 1), (False, 0)])
def test_one_or_none_is_what_the_tokenizer_does(bos: bool, count: int) -> None:
    found = examine(load(build("llama"), tokenizer=tokenizer(bos=bos)))
    assert (found[runs.PLAIN].status, found[runs.PLAIN].value) == ("pass", count)


@pytest.mark.parametrize("start", ["{{ bos_token + ' ' }}", ""])
def test_a_chat_template_does_not_double_it(start: str) -> None:
    chat = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(bos=True).backend_tokenizer,
        bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        chat_template=start + "{% for m in messages %}w01 {{ m['content'] }} {% endfor %}",
    )  # fmt: skip
    found = examine(load(build("llama"), tokenizer=chat))
    assert (found[runs.CHAT].status, found[runs.CHAT].value) == ("pass", 1)
    assert ("would double it" in found[runs.CHAT].detail) == bool(start)


# --- what examine does and gives


def test_the_model_is_left_as_found() -> None:
    """Weights, modes, a user's own hook and the global generator are untouched; dropout is off meanwhile."""
    hf = build("gpt2", resid_pdrop=0.5)
    hf.train()
    calls: list[int] = []
    handle = hf.transformer.h[1].register_forward_hook(lambda module, args, output: calls.append(1))
    model = _loaded(hf)
    before = (model.fingerprint, torch.get_rng_state().clone(), [module.training for module in hf.modules()])
    counts = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in hf.modules()]
    assert examine(model).passed
    after = (model.fingerprint, torch.get_rng_state(), [module.training for module in hf.modules()])
    assert before[0] == after[0] and torch.equal(before[1], after[1]) and before[2] == after[2]
    assert counts == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in hf.modules()]
    assert calls
    handle.remove()


def test_the_same_examination_gives_the_same_certificate() -> None:
    first, again = (examine(_loaded(build("llama")), seed=3) for _ in range(2))
    assert first.summary() == again.summary()
    assert first.checks != examine(_loaded(build("llama", seed=1)), seed=3).checks


@pytest.mark.parametrize(
    ("prompts", "lengths"),
    [
        (PROMPTS, (7, 2, 4, 1)),
        (["w01 w02 w03 w04 w05"], (5, 3)),
        ([[5, 6, 7], [8, 9, 10]], (3, 3, 2)),
        ([list(range(4, 60))[:48]], (32, 16)),
        (["w01"], (1,)),
    ],
)
def test_prompts_are_cut_and_get_a_second_length(prompts: Any, lengths: tuple[int, ...]) -> None:
    found = examine(load(build("llama"), tokenizer=tokenizer()), prompts=prompts)
    assert found.prompts == lengths and found.passed, explained(found)
    assert (found[runs.CACHE].status == "skip") == (lengths == (1,))


def test_a_prompt_the_model_cannot_read_is_refused() -> None:
    with pytest.raises(DataError, match="token id 64"):
        examine(_loaded(build("llama")), prompts=[[64]])


def test_a_deep_model_is_quick() -> None:
    hf = build("llama", hidden_size=64, num_hidden_layers=24, intermediate_size=192, vocab_size=1000)
    model = _loaded(hf)
    began = time.process_time()
    assert examine(model).passed
    assert time.process_time() - began < 5


# --- the certificate


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    """Give the certificate of a sound model."""
    return examine(load(build("phi"), tokenizer=tokenizer(bos=True)))


def test_a_certificate_survives_the_disk(certificate: Certificate, tmp_path: Path) -> None:
    again = results.load(certificate.save(tmp_path / "certificate"))
    assert isinstance(again, Certificate)
    assert again.checks == certificate.checks and again.noise_floor == certificate.noise_floor
    assert to_json(again) == to_json(certificate)


def test_a_certificate_is_frozen_and_can_be_tabulated(certificate: Certificate) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        certificate.seed = 1  # type: ignore[misc]
    table = certificate.table()
    assert list(table["check"]) == NAMES and table["value"].dtype == float
    assert certificate.passed and certificate.about.model["type"] == "phi"
    with pytest.raises(KeyError):
        certificate["no such check"]


def test_a_certificate_says_every_check_and_the_noise_floor(certificate: Certificate) -> None:
    assert certificate.noise_floor is not None
    (table,) = certificate.tables()
    assert len(table.rows) == len(NAMES)
    assert table.note.startswith("Noise floor:") and "nats KL" in table.note
    assert certificate.number("noise-floor").value == certificate.noise_floor.logits
    assert certificate.verdict() == "No check failed: 16 passed, 0 warned, 2 do not apply."
    assert "runs attention and MLP in parallel" in "".join(map(str, certificate.table()["detail"]))


def test_a_failed_check_stands_out_and_a_skipped_one_has_no_numbers() -> None:
    bad, none = Check("n", "fail", 0.5, 1e-5, detail="d"), Check("s", "skip", detail="why")
    weak = Check("w", "fail", 0.1, 0.9, "", bound="at least")
    found = Certificate(checks=(bad, none, weak), noise_floor=None)
    shown = shown_table(found.tables()[0])
    assert shown.rows[0] == ("n", "FAILED", "0.5", "at most", "1e-05", "relative", "d")
    assert shown.rows[1] == ("s", "does not apply", "\u2013", "", "\u2013", "", "why")
    assert found.verdict().startswith("2 failed (n, w)") and found.number("failed-checks").value == 2
    margins = found.figure().frame().set_index("name")["value"]
    assert margins["n"] == pytest.approx(4.69897) and margins["w"] == pytest.approx(0.954, abs=1e-3)


def test_html_is_escaped() -> None:
    bad = Check("<b>", "fail", float("nan"), 1.0, detail="<script>")
    found = Certificate(
        checks=(bad,), noise_floor=NoiseFloor(0.0, 0.0, 0.0, 8), about=results.About({"name": "<i>"})
    )
    assert not {"<script>", "<b>", "<i>"} & set(re.findall("<[a-z]+>", found._repr_html_()))


def test_a_number_that_is_none_is_written_and_read(tmp_path: Path) -> None:
    bad = Check("x", "fail", float("nan"), 1.0)
    found = Certificate(checks=(bad,), noise_floor=None)
    again = results.load(found.save(tmp_path / "c"))
    assert isinstance(again, Certificate) and math.isnan(again["x"].value or 0.0)
    assert again.summary()["tables"]["checks"]["rows"][0]["value"] is None
