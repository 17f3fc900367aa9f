"""Bits per byte: a real arithmetic coder, a uniform model, decode operations, two tokenizers."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import quantization
from interp.analyses import compression
from interp.analyses.text_compression import coded, decode_flops, frequency_bits
from interp.errors import ConfigError, DataError
from interp.quantization.comparison.verdicts import Excess
from interp.results import Finding, FindingsResult
from tests.noisy import demo
from tests.tiny import build, tokenizer

TEXTS = tuple(f"w{i:02d} w{(3 * i) % 60:02d} w{(i * i) % 60:02d} w01 w{i:02d}" for i in range(12))


@cache
def tiny(*, bos: bool = False) -> interp.Model:
    return interp.load(build("llama"), tokenizer=tokenizer(bos=bos))


def shares(model: Any, ids: list[int], first: bool) -> list[list[Fraction]]:
    """The model's own probabilities as fractions that add up to one, before each token."""
    with torch.no_grad():
        p = torch.softmax(model.hf(torch.tensor([ids])).logits[0].double(), -1)
    rows = [[Fraction(float(x)) for x in row] for row in p[:-1]]
    even = [[Fraction(1, p.shape[1])] * p.shape[1]]
    return [[x / sum(row) for x in row] for row in (even + rows if first else rows)]


def encoded(rows: list[list[Fraction]], ids: list[int]) -> str:
    """The bits that an arithmetic coder writes: the shortest binary number in the interval of the text."""
    low, width = Fraction(0), Fraction(1)
    for row, token in zip(rows, ids, strict=True):
        low, width = low + width * sum(row[:token]), width * row[token]
    length = 0
    while True:
        length += 1
        number = -(-low.numerator * 2**length // low.denominator)
        if Fraction(number + 1, 2**length) <= low + width:
            return format(number, f"0{length}b")


def decoded(rows: list[list[Fraction]], bits: str) -> list[int]:
    value, low, width, found = Fraction(int(bits, 2), 2 ** len(bits)), Fraction(0), Fraction(1), []
    for row in rows:
        at = low
        for token, share in enumerate(row):
            if at <= value < at + width * share:
                found.append(token)
                low, width = at, width * share
                break
            at += width * share
    return found


@pytest.mark.parametrize("bos", [False, True])
def test_an_arithmetic_coder_needs_at_most_two_bits_more(bos: bool) -> None:
    model = tiny(bos=bos)
    for text, one in zip(TEXTS[:4], coded(model, TEXTS[:4]), strict=True):
        ids = list(model.tokenize([text]).token_ids[0])
        own = ids[1:] if bos else ids
        rows = shares(model, ids, first=not bos)
        bits = encoded(rows, own)
        assert decoded(rows, bits) == own
        assert one.tokens == len(own) == 5 and one.size == len(text)
        assert one.bits - 1e-3 <= len(bits) <= one.bits + 2


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary() -> None:
    hf: Any = copy.deepcopy(tiny().hf)
    model = interp.load(hf, tokenizer=tokenizer())
    with torch.no_grad():
        hf.lm_head.weight.zero_()
    found = compression(model, texts=TEXTS)
    np.testing.assert_allclose(found.findings()[0].values, [5 * math.log2(64) / len(t) for t in TEXTS])


def test_frequencies_are_those_of_the_other_texts() -> None:
    found = frequency_bits(["aab", "ab", "é"])
    counts = {b: 1 for b in range(256)} | {97: 2, 98: 2, 0xC3: 2, 0xA9: 2}
    total = sum(counts.values())
    assert found[0] == pytest.approx(-(2 * math.log2(2 / total) + math.log2(2 / total)) / 3)
    assert found[2] == pytest.approx(-math.log2(1 / (256 + 5)))


def test_operations_are_those_of_the_shapes() -> None:
    d, mlp, layers, heads, kv, head = 32, 48, 3, 4, 2, 8
    block = 2 * d * d + 2 * d * kv * head + 3 * d * mlp
    want = 2 * (layers * block + 64 * d) + 4 * 100 * layers * heads * head
    assert decode_flops(tiny(), 100) == want
    tied: Any = build("llama", tie_word_embeddings=True)
    assert decode_flops(interp.load(tied, tokenizer=tokenizer()), 100) == want


def test_the_bundled_model_codes_its_sentences_shorter_than_frequencies_and_than_zlib() -> None:
    found = compression(demo(), n=12)
    one = found.findings()[0]
    assert (np.asarray(one.values) < np.asarray(one.control)).all()
    row = found.table("efficiency").iloc[0]
    assert row["bits_per_byte"] < row["zlib_bits_per_byte"]
    assert row["saved_per_mb"] == pytest.approx((8 - row["bits_per_byte"]) / row["weights_mb"])


def test_models_with_different_tokenizers_are_compared_on_texts() -> None:
    def run(model: Any, *, reference: Any = None) -> FindingsResult:
        return compression(model, reference=reference, texts=TEXTS)

    with pytest.raises(DataError, match="tokenizers='any'"):
        quantization.compare({"c": run}, tiny(), [], other=tiny(bos=True), noise=("layout",))
    found = quantization.compare(
        {"c": run}, tiny(), [], other=tiny(bos=True), tokenizers="any", noise=("layout",)
    )
    assert found.judgement(found.schemes[0], "bits per byte").n == 12
    small = quantization.compare({"c": run}, tiny(), ["rtn4"], noise=("layout",))
    first, second = (small.results["c", at].table("efficiency").iloc[0] for at in ("", "rtn4"))
    assert second["weights_mb"] < first["weights_mb"]
    assert second["mflop_per_token"] == first["mflop_per_token"]


def worse(share: float) -> interp.Model:
    """The tiny model with its head scaled until its bits are so much more."""
    hf: Any = copy.deepcopy(tiny().hf)
    model, plain = interp.load(hf, tokenizer=tokenizer()), tiny().hf.lm_head.weight
    aim = (1 + share) * sum(one.bits for one in coded(tiny(), TEXTS))
    low, high = 1.0, 20.0
    for _ in range(12):
        middle = (low + high) / 2
        with torch.no_grad():
            hf.lm_head.weight.copy_(middle * plain)
        more = sum(one.bits for one in coded(model, TEXTS)) > aim
        low, high = (low, middle) if more else (middle, high)
    return interp.load(hf, tokenizer=tokenizer())


@pytest.mark.parametrize(("share", "verdict"), [(0.1, "weakened"), (0.01, "survives")])
def test_a_tenth_more_bits_is_weaker_and_a_hundredth_is_not(share: float, verdict: str) -> None:
    def run(model: Any, *, reference: Any = None) -> FindingsResult:
        return compression(model, reference=reference, texts=TEXTS)

    found = quantization.compare({"c": run}, tiny(), [], other=worse(share), noise=("layout",))
    one = found.judgement(found.schemes[0], "bits per byte")
    assert one.value / one.reference == pytest.approx(1 + share, abs=0.01) and one.shown
    assert one.verdict == verdict
    assert one.delta == pytest.approx(0.05 * one.reference)
    assert one.delta < 0.1 * abs(one.reference_excess)  # what it would be without its own measure


def test_luck_is_rarely_shown() -> None:
    rng, shown, groups = np.random.default_rng(0), 0, tuple(f"g{i}" for i in range(24))
    for _ in range(200):
        control = rng.normal(4, 0.5, 24)
        found = Finding("bits", control + rng.normal(0, 0.3, 24), groups, control, direction=-1)
        shown += Excess.of(found).interval.high < 0
    assert shown <= 10


def test_what_loses_text_is_refused() -> None:
    with pytest.raises(DataError, match="does not give a text back"):
        compression(tiny(), texts=["w01 never w02", "w01 w02"])
    with pytest.raises(DataError, match="read other texts"):
        compression(tiny(), texts=TEXTS[1:], reference=compression(tiny(), texts=TEXTS))
    with pytest.raises(ConfigError, match="give at least 2"):
        compression(tiny(), texts=TEXTS[:1])
