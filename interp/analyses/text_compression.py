"""Bits per byte: how short a model makes a text, beside its weights and its arithmetic."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.costs import weight_bytes
from interp.analyses.provenance import about, earlier
from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Table
from interp.tasks import TASKS, load_world
from probes.statistics import bootstrap

__all__ = ["CONTEXT", "Coded", "coded", "compression", "decode_flops", "frequency_bits"]

CONTEXT = 1024
"""Tokens that are read while one more is decoded, where its arithmetic is counted."""
WORDS = 32
"""Of a bundled text at most."""
MATTERS = 0.05
"""The share of a text's bits that matters to a comparison."""
SPLIT = ("greater-than",)
"""Tasks whose years the bundled tokenizer cuts in two, and does not put together again."""


@dataclass(frozen=True)
class Coded:
    """What a text costs under a model.

    Attributes:
        bits: of all its tokens.
        tokens: how many.
        size: bytes of the text in UTF-8.
    """

    bits: float
    tokens: int
    size: int


def coded(model: Model, texts: Sequence[str]) -> list[Coded]:
    """Sum the bits of every token of every text, the first one included.

    Tokens after a start token are predicted from it, and the start token itself costs nothing: whoever
    decodes puts it there. Where the tokenizer adds none, nothing stands before the first token, and it costs
    ``log2`` of the vocabulary. The length of the text is not coded.

    Args:
        model: what predicts.
        texts: each must be what its tokens decode to, or bytes would be saved by losing them.

    Raises:
        DataError: a text that its tokens do not give back, or that is too long.
    """
    words: Any = model.tokenizer
    ids = model.tokenize(list(texts)).token_ids
    plain = model.tokenize(list(texts), add_bos=False).token_ids
    found: list[Coded] = []
    for text, row, own in zip(texts, ids, plain, strict=True):
        back = words.decode(list(own), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if back != text or getattr(words, "unk_token_id", None) in own:
            at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), len(back))
            part = slice(max(0, at - 20), at + 20)
            raise DataError(
                f"the tokenizer of {model.name!r} does not give a text back: of {text[part]!r} "
                f"it makes {back[part]!r}, and what it loses would count as compressed. "
                "Give texts that it reads without loss."
            )
        run = model.run([list(row)], logits="all")
        assert run.logits is not None
        log_p = torch.log_softmax(run.logits[0, : len(row)].cpu().double(), dim=-1)
        said = log_p[:-1].gather(1, torch.tensor(row[1:])[:, None]).sum()
        first = math.log2(model.vocab_size) if len(row) == len(own) else 0.0
        found.append(Coded(first - float(said) / math.log(2), len(own), len(text.encode())))
    return found


def frequency_bits(texts: Sequence[str]) -> Float[np.ndarray, " text"]:
    """Bits per byte of each text by the frequencies of bytes in the other texts, each counted once more."""
    counts = np.array([np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=256) for text in texts])
    others = counts.sum(axis=0) - counts + 1.0
    share = np.log2(others / others.sum(axis=1, keepdims=True))
    return np.asarray(-(counts * share).sum(axis=1) / counts.sum(axis=1))


def decode_flops(model: Model, context: int = CONTEXT) -> int:
    """The floating-point operations of decoding one token, from the shapes of the weights.

    Two for each weight of every matrix that a state is multiplied by, the head's too and the tables of
    embeddings not, and four for each earlier token, head and number of its key. The experts of a mixture all
    count, and what quantization changes is nothing here.

    Args:
        model: whose.
        context: earlier tokens.
    """
    hf: Any = model.hf
    head, weights = hf.get_output_embeddings(), dict[int, int]()
    for module in hf.modules():
        looked_up = isinstance(module, torch.nn.Embedding) and module is not head
        wide, high = (int(getattr(module, name, 0)) for name in ("in_features", "out_features"))
        for one in module.parameters(recurse=False):
            if one.ndim >= 2 and not looked_up:  # a packed weight holds fewer numbers than its shape
                weights[id(one)] = wide * high or one.numel()
    attention = 4 * context * model.n_layers * model.n_heads * model.d_head
    return 2 * sum(weights.values()) + attention


def compression(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 48,
    seed: int = 0,
    texts: Sequence[str] | None = None,
) -> FindingsResult:
    """Measure in how many bits a model codes each byte of a text, and what that takes.

    ``-log2 p`` of every token, summed and divided by the bytes of the text (UTF-8), so that models with
    different tokenizers can be compared; an arithmetic coder that is given these probabilities needs at most
    two bits more for a text. The control is the frequency of bytes in the other texts. In a comparison a
    change of a twentieth of the reference's own bits matters, text by text: a tenth of what it saves over
    frequencies, which is delta elsewhere, would be a quarter and more of the bits of a good model.

    The table ``efficiency`` sets what is saved of eight bits a byte beside the bytes of the weights and the
    operations of decoding. The score called information capacity (arXiv 2511.08066) divides by the logarithm
    of the operations after adding a constant of -24 bits a token. That constant was fitted to one mixture of
    texts, so it is left out here: on other texts it would stand for nothing. Its first token counts as text
    and not as bits; here it counts as both.

    Args:
        model: what is measured.
        reference: what this function returned for the reference model: it must have read the same texts; its
            tokenizer may be another.
        n: how many texts, at most.
        seed: of the bundled texts.
        texts: your own texts, instead of sentences of the bundled tasks.

    Raises:
        ConfigError: fewer than two texts, or a reference of another analysis.
        DataError: a text that the tokenizer does not give back, or a reference that read other texts.
    """
    model = as_model(model)
    given = tuple(_texts(n, seed) if texts is None else texts[:n])
    if len(given) < 2 or not all(given):
        raise ConfigError(
            f"{counted(len(given), 'text')} given or asked; give at least 2, none of them empty."
        )
    if reference is not None and earlier(reference, "compression", "texts") != given:
        raise DataError("compression: the reference read other texts. Use the same texts, n and seed.")
    rows = coded(model, given)
    groups = tuple(f"text {i}" for i in range(len(given)))
    values = np.array([one.bits / one.size for one in rows])
    control = frequency_bits(given)
    size, tokens = sum(one.size for one in rows), sum(one.tokens for one in rows)
    mean = bootstrap(values, groups=groups)
    rate = mean.value
    table = _efficiency(model, rate, tokens / size, given)
    return FindingsResult(
        analysis="compression",
        about=about(model, {"n": len(given), "bytes": size, "tokens": tokens}),
        asked=f"In how many bits does {model.name} code a byte of text?",
        how=(
            f"{counted(len(given), 'text')} of {size:,} bytes in {tokens:,} tokens; "
            + (
                "the first token of each is predicted from the start token."
                if _starts(model)
                else f"no start token: the first token of each costs log2({model.vocab_size}) bits."
            ),
        ),
        conclusion=(
            f"{mean} bits per byte (mean over texts), where the frequencies of bytes give "
            f"{control.mean():.2f}; it saves {8 - rate:.2f} of 8 bits with {table['weights_mb']:,.4g} MB of "
            f"weights and {table['mflop_per_byte']:,.4g} MFLOP a byte."
        ),
        found=(
            Finding(
                "bits per byte",
                values,
                groups,
                control,
                "bits",
                about="-log2 p of all tokens over bytes; control: frequencies of bytes in the other texts",
                direction=-1,
                matters=MATTERS * values,
            ),
        ),
        more=(Table.of("efficiency", "What is saved, and what it takes", [table]),),
        state={"texts": given},
        seed=seed,
        warnings=model.warnings,
    )


def _starts(model: Model) -> bool:
    words: Any = model.tokenizer
    start = getattr(words, "bos_token_id", None)
    return start is not None and model.tokenize(["a"]).token_ids[0][0] == start


def _texts(n: int, seed: int) -> list[str]:
    """Draw sentences of every bundled task, the tasks mixed, as many as stay within a number of words."""
    world, names = load_world(), [name for name in TASKS if name not in SPLIT]
    rng = random.Random(f"compression:{seed}")
    found: list[str] = []
    while len(found) < n:
        words: list[str] = []
        while len(more := TASKS[rng.choice(names)].generate(world, rng, "held-out").text.split()):
            if len(words) + len(more) > WORDS:
                break
            words += more
        found += [" ".join(words)] if words else []
    return found


def _efficiency(model: Model, rate: float, density: float, texts: Sequence[str]) -> dict[str, float]:
    """What is saved of eight bits a byte, by megabyte of weights and by decode operations a byte."""
    weights, flops = weight_bytes(model) / 1e6, decode_flops(model) / 1e6
    whole = "\n".join(texts).encode()
    saved = 8 - rate
    return {
        "bits_per_byte": rate,
        "saved": saved,
        "tokens_per_byte": density,
        "weights_mb": weights,
        "saved_per_mb": saved / weights,
        "mflop_per_token": flops,
        "mflop_per_byte": flops * density,
        "saved_per_mflop_byte": saved / (flops * density),
        "zlib_bits_per_byte": 8 * len(zlib.compress(whole, 9)) / len(whole),
    }
