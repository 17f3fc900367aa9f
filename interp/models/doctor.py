"""The full examination of a model, before any number of it is believed."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from interp.errors import DataError, InterpError, out_of_memory
from interp.models.certificate import Certificate, Check
from interp.models.checks import CHECKS, CheckRow
from interp.models.checks.context import Context, skipped
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.tokens import Prompts
from interp.results import About
from interp.runs import versions

__all__ = ["Certificate", "Check", "examine"]

TEXTS = (
    "The capital of France is Paris, and the capital of Japan is",
    "When Mary and John went to the store, John gave a drink to",
    "One two three four five six",
    "Water boils at a temperature that depends on the pressure of the air, so cooks in the mountains",
)
UNMEASURED = "not measured, because not all values are finite."
_LONGEST = 32


@torch.inference_mode(False)  # whose tensors do not count edits, which some checks look at
def examine(model: ModelLike, *, prompts: Prompts | None = None, seed: int = 0) -> Certificate:
    """Check everything that makes numbers from a model trustworthy; the model is left as found.

    The equations of the residual stream at every layer, the logits from the final norm, hooked against
    plain Hugging Face logits, repeated runs, padding, the key-value cache, edits, hooks, and
    beginning-of-sequence tokens. Limits are relative errors: 1e-5 in float32, eight units of rounding in
    half precision; where passes of different shapes are compared, more for deep models, and at least four
    times what batch size alone changes; with padding in half precision also four times what one rounding of
    the embedding grows to at that layer.

    Args:
        model: from ``interp.load``; what its load-time validation disabled is measured again.
        prompts: texts or token ids, cut to 32 tokens; None takes some plain sentences, or random ids where
            the tokenizer does not know their words.
        seed: for random ids and edits.

    Returns:
        A certificate; ``.passed`` tells whether no check failed, ``.table()`` shows all.

    Raises:
        DataError: a prompt the model cannot read.
        OutOfMemoryError: one short prompt does not fit.
    """
    model = as_model(model)
    case = Context(model, _usable(model, prompts, seed), seed)
    checks = [_tried(CHECKS[0], case)]
    finite = checks[0].status == "pass"
    checks += [
        _tried(row, case) if finite or not row.finite else skipped(row.name, UNMEASURED) for row in CHECKS[1:]
    ]
    return Certificate(
        checks=tuple(checks),
        noise_floor=case.batched[0] if finite else None,
        about=About(_described(model), versions=versions()),
        disabled=dict(model.disabled),
        prompts=tuple(map(len, case.prompts)),
        seed=seed,
    )


def _tried(row: CheckRow, case: Context) -> Check:
    """Run a check; an error in the middle of it is a failure of the model, not of the examination."""
    try:
        return row.run(case)
    except (InterpError, RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        if out_of_memory(error):
            raise
        return Check(row.name, "fail", unit="", detail=f"{type(error).__name__}: {error}".splitlines()[0])


def _usable(model: Model, prompts: Prompts | None, seed: int) -> tuple[tuple[int, ...], ...]:
    """Give prompts of at least two lengths, none too long to be continued by a few tokens."""
    found = _texts(model) if prompts is None else model.tokenize(prompts).token_ids
    found = found or _random(model, seed)
    limit = min(_LONGEST, max(1, model.max_length - 4) if model.max_length else _LONGEST)
    cut = [tuple(ids[:limit]) for ids in found]
    longest = max(cut, key=len)
    if len({len(ids) for ids in cut}) == 1 and len(longest) > 1:
        cut.append(longest[: (len(longest) + 1) // 2])
    return tuple(cut)


def _texts(model: Model) -> tuple[tuple[int, ...], ...]:
    """Tokenize the sentences, or give nothing where the tokenizer knows less than half of their words."""
    if model.tokenizer is None:
        return ()
    try:
        found = model.tokenize(TEXTS).token_ids
    except DataError:
        return ()
    tokens = [token for ids in found for token in ids]
    unknown: Any = model.tokenizer.unk_token_id
    return found if unknown is None or tokens.count(unknown) * 2 < len(tokens) else ()


def _random(model: Model, seed: int) -> tuple[tuple[int, ...], ...]:
    """Draw ids that are not special, after what the tokenizer puts first."""
    special = set(model.tokenizer.all_special_ids) if model.tokenizer is not None else set()
    allowed = torch.tensor([token for token in range(model.vocab_size) if token not in special])
    generator = torch.Generator().manual_seed(seed)
    first = _first(model.tokenizer)
    drawn = [
        allowed[torch.randint(len(allowed), (length,), generator=generator)] for length in (12, 9, 6, 15)
    ]
    return tuple((*first, *ids.tolist()) for ids in drawn)


def _first(tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Give the beginning-of-sequence token where the tokenizer puts one."""
    if tokenizer is None or tokenizer.bos_token_id is None:
        return []
    return [token for token in tokenizer("")["input_ids"][:1] if token == tokenizer.bos_token_id]


def _described(model: Model) -> dict[str, object]:
    return {
        **model.described,
        "type": model.hf.config.model_type,
        "layers": model.n_layers,
        "d_model": model.d_model,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }
