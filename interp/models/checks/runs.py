"""Runs that must not differ (plain, twice, padded, with a cache), and beginning-of-sequence tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.errors import counted
from interp.models.certificate import Check
from interp.models.checks.context import Context, judged, skipped, worst
from interp.models.equations import relative
from interp.models.forward import cache_name, cache_of, forward, make_batch
from interp.models.hooks import evaluating

__all__ = [
    "beginning",
    "cached",
    "chat",
    "deterministic",
    "finite",
    "native",
    "padding_left",
    "padding_right",
]

FINITE = "all values are finite"
NATIVE = "logits with hooks = plain Hugging Face logits"
TWICE = "the same run twice"
RIGHT = "padding right = no padding"
LEFT = "padding left = no padding"
CACHE = "with a key-value cache = without"
PLAIN = "beginning-of-sequence tokens per prompt"
CHAT = "beginning-of-sequence tokens per chat prompt"
_TEXT = "The capital of France is"
_STEPS = 3


def finite(case: Context) -> Check:
    """Look for NaN and infinities in the logits and in every layer."""
    logits, streams = case.alone
    layers = range(streams.shape[-2])
    bad = [f"resid_post.{layer}" for layer in layers if not streams[..., layer, :].isfinite().all()]
    bad += [] if logits.isfinite().all() else ["logits"]
    detail = f"first at {bad[0]}" if bad else f"logits and {counted(len(layers), 'layer')}"
    return judged(FINITE, len(bad), 0, detail, unit="sites")


def native(case: Context) -> Check:
    """Check that reading every layer leaves the logits exactly as the model gives them."""
    run = case.model.run(case.short, capture="resid_post.*", logits="all", batch_size=len(case.short))
    ids = torch.tensor(case.short, device=case.model.device)
    with torch.no_grad(), evaluating(case.model.architecture.modules):
        plain = case.model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    assert run.logits is not None
    difference = (run.logits.double() - plain.double()).abs().max().item()
    return judged(NATIVE, difference, 0.0, "largest difference, all positions", unit="logits")


def deterministic(case: Context) -> Check:
    """Check that a run repeated gives the same bits; a difference within rounding is a warning."""
    first, again = (case.ran(case.prompts, batch_size=len(case.prompts))[0] for _ in range(2))
    difference = (first.double() - again.double()).abs().max().item()
    within = relative(first, again) <= case.limit
    return judged(
        TWICE, difference, 0.0, "largest difference", unit="logits", otherwise="warn" if within else "fail"
    )


def padding_right(case: Context) -> Check:
    """Check that padding after the prompts changes neither the logits nor any layer at any token."""
    return _padding(case, "right", RIGHT)


def padding_left(case: Context) -> Check:
    """Check that padding before the prompts changes neither the logits nor any layer at any token."""
    return _padding(case, "left", LEFT)


def _padding(case: Context, side: str, name: str) -> Check:
    if case.model.family.padding not in ("either", side):
        why = f"{case.model.hf.config.model_type} gives other numbers after padding, measured at load"
        return skipped(name, f"{why}: prompts of different lengths share no batch padded on the {side}.")
    logits, streams = case.ran(case.prompts, batch_size=len(case.prompts), padding_side=side)
    places = ["logits", *(f"resid_post.{layer}" for layer in range(streams.shape[-2]))]
    pairs = zip(streams.unbind(-2), case.alone[1].unbind(-2), strict=True)
    errors = [relative(logits, case.alone[0]), *(relative(one, other) for one, other in pairs)]
    rounding, by_layer = case.growth
    limits = [max(case.chunk_limit, 4 * grown) for grown in (rounding, *by_layer)]
    _, number = worst([error / limit for error, limit in zip(errors, limits, strict=True)])
    return judged(name, errors[number], limits[number], f"worst at {places[number]}")


def cached(case: Context) -> Check:
    """Check every step's logits with a cache against a full pass, on the prompts and on a continuation."""
    prompts = [prompt for prompt in case.prompts if len(prompt) > 1]
    if not cache_name(case.model.architecture):
        return skipped(CACHE, f"{case.model.hf.config.model_type} takes no key-value cache.")
    if not case.model.family.cache:
        why = f"{case.model.hf.config.model_type} gives other logits with its cache"
        return skipped(CACHE, f"{why}: text is continued without one.")
    if case.model.family.padding not in ("either", "left"):
        prompts = [prompt for prompt in case.short if len(prompt) > 1]
    if not prompts:
        return skipped(CACHE, "every prompt has one token only; give longer ones.")
    forced, steps = _forced(case, prompts)
    continued, more = _continued(case, prompts)
    value, _ = worst([*forced, *continued])
    return judged(CACHE, value, case.chunk_limit, f"{steps} forced and {more} generated steps")


def _forced(case: Context, prompts: list[tuple[int, ...]]) -> tuple[list[float], int]:
    """Feed the last tokens of each prompt one by one."""
    model = case.model
    steps = min(_STEPS, min(map(len, prompts)) - 1)
    batch = make_batch(model.tokenize(prompts, padding_side="left"), range(len(prompts)), model.device)
    with torch.no_grad(), evaluating(model.architecture.modules):
        whole = forward(model.architecture, batch, "all").logits
        cache, errors, start = None, [], 0
        for stop in range(batch.width - steps, batch.width + 1):
            mask = None if batch.mask is None else batch.mask[:, :stop]
            part = replace(batch, input_ids=batch.input_ids[:, start:stop], mask=mask)
            result = forward(model.architecture, part, "last", use_cache=True, cache=cache)
            cache, start = cache_of(result), stop
            errors.append(relative(result.logits[:, -1], whole[:, stop - 1]))
    return errors, steps


def _continued(case: Context, prompts: list[tuple[int, ...]]) -> tuple[list[float], int]:
    """Continue greedily both ways; compare as long as the tokens before are the same."""
    room = [case.model.max_length - len(prompt) for prompt in prompts] if case.model.max_length else [_STEPS]
    if (count := min(_STEPS, *room)) < 1:
        return [], 0
    ways = [
        case.model.generate(prompts, max_new_tokens=count, capture="logits", use_cache=use)
        for use in (True, False)
    ]
    errors = []
    for number in range(len(prompts)):
        a, b = (way.token_ids[number] for way in ways)
        same = next(
            (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)) - 1
        )
        one, two = (_steps(way.activations, number) for way in ways)
        errors += [relative(one[step], two[step]) for step in range(same + 1)]
    return errors, count


def _steps(acts: object, number: int) -> Tensor:
    return acts["logits"][number]  # type: ignore[index]


def beginning(case: Context) -> Check:
    """Count them in a text; two or more are a warning."""
    tokenizer = case.model.tokenizer
    if tokenizer is None or tokenizer.bos_token_id is None:
        return skipped(PLAIN, f"the model has {'no tokenizer' if tokenizer is None else 'no such token'}.")
    return _counted(case, PLAIN, _TEXT, "what the tokenizer itself adds")


def chat(case: Context) -> Check:
    """Count them in a chat prompt, whose template may write one that the tokenizer adds again."""
    tokenizer = case.model.tokenizer
    if tokenizer is None or tokenizer.bos_token_id is None or not tokenizer.chat_template:
        return skipped(CHAT, "there is no chat template, or no such token.")
    message = [{"role": "user", "content": _TEXT}]
    text = str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    doubled = _leading(_ids(tokenizer(text)), tokenizer.bos_token_id) > 1
    plain = "from the template"
    return _counted(case, CHAT, text, "prevented: the tokenizer alone would double it" if doubled else plain)


def _counted(case: Context, name: str, text: str, detail: str) -> Check:
    tokenizer = case.model.tokenizer
    assert tokenizer is not None
    count = _leading(case.model.tokenize([text]).token_ids[0], tokenizer.bos_token_id)
    if count > 1:
        detail = f"the tokenizer doubles {tokenizer.bos_token!r}; use add_bos=False and write it once"
    return Check(name, "pass" if count <= 1 else "warn", float(count), 1.0, "tokens", detail)


def _ids(encoded: Any) -> Sequence[int]:
    return list(encoded["input_ids"])


def _leading(ids: Sequence[int], bos: Any) -> int:
    """Count how often an id stands at the very start."""
    return next((count for count, token in enumerate(ids) if token != bos), len(ids))
