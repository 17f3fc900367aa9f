"""A dictionary's arithmetic against plain torch; what is folded changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.features.activations import BatchTopK, Gated, JumpReLU, TopK
from interp.features.dictionary import Dictionary
from tests.dictionaries import ACTIVATIONS, random_dictionary


def one_by_one(dictionary: Dictionary, x: Tensor) -> Tensor:
    """The features of one vector, by loops over numbers in double precision."""
    shift = dictionary.shift if dictionary.shift is not None else torch.zeros_like(x)
    pre = [
        math.fsum(float(w) * (float(v) - float(s)) for w, v, s in zip(row, x, shift, strict=True)) + float(b)
        for row, b in zip(dictionary.encoder, dictionary.encoder_bias, strict=True)
    ]
    rule = dictionary.activation
    found = []
    for at, value in enumerate(pre):
        match rule:
            case JumpReLU():
                kept = value > float(rule.threshold[at]) and (rule.signed or value > 0)
                found.append(value if kept else 0.0)
            case BatchTopK():
                found.append(value if value > max(0.0, float(rule.threshold[at])) else 0.0)
            case TopK():
                sizes = [abs(one) if rule.by_size else one for one in pre]
                chosen = at in sorted(range(len(pre)), key=lambda i: -sizes[i])[: rule.k]
                found.append(value if chosen and (rule.signed or value > 0) else 0.0)
            case Gated():
                size = value * float(rule.scale[at]) + float(rule.magnitude_bias[at])
                found.append(max(0.0, size) if value + float(rule.gate_bias[at]) > 0 else 0.0)
            case _:
                found.append(max(0.0, value))
    return torch.tensor(found)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_features_are_those_of_a_loop_over_numbers(activation: str) -> None:
    dictionary = random_dictionary(16, 24, activation=activation)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1)) * 2
    wanted = torch.stack([one_by_one(dictionary, row) for row in x])
    found = dictionary.encode(x)
    assert torch.equal(found != 0, wanted != 0)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert 0 < int((found != 0).sum()) < found.numel()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["none", "layer-norm", "constant-norm"])
def test_folding_lengths_leaves_what_is_decoded(activation: str, norm: str) -> None:
    dictionary = random_dictionary(16, 24, activation=activation, norm=norm)
    x = torch.randn(7, 16, generator=torch.Generator().manual_seed(2)) * 3
    folded = dictionary.folded()
    wanted, found = (one.decode(one.encode(x), x) for one in (dictionary, folded))
    assert torch.allclose(folded.decoder.norm(dim=1), torch.ones(24), atol=1e-6)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(folded.encode(x), dictionary.encode(x), atol=1e-3)  # features have other units


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk", "gated"])
def test_a_factor_on_inputs_is_folded_exactly(activation: str) -> None:
    dictionary = random_dictionary(16, 24, activation=activation)
    x = torch.randn(7, 16, generator=torch.Generator().manual_seed(2)) * 3
    scaled = dictionary.scaled(0.4)
    wanted = dictionary.decode(dictionary.encode(0.4 * x)) / 0.4
    assert torch.allclose(scaled.decode(scaled.encode(x)), wanted, atol=1e-5)
    assert not torch.allclose(dictionary.decode(dictionary.encode(x)), wanted, atol=1e-2)


def test_norms_are_undone_and_their_formulas_are_those_published() -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(3)) * 5 + 2
    for norm in ("layer-norm", "constant-norm"):
        dictionary = random_dictionary(16, 24, norm=norm)
        plain = random_dictionary(16, 24)
        if norm == "layer-norm":
            mean, size = x.mean(-1, keepdim=True), (x - x.mean(-1, keepdim=True)).std(-1, keepdim=True)
            inside, back = (x - mean) / (size + 1e-5), lambda y, s=size, m=mean: y * s + m
        else:
            size = x.norm(dim=-1, keepdim=True) / 4
            inside, back = x / size, lambda y, s=size: y * s
        assert torch.allclose(dictionary.encode(x), plain.encode(inside), atol=1e-5)
        wanted = back(plain.decode(plain.encode(inside)))
        assert torch.allclose(dictionary.decode(dictionary.encode(x), x), wanted, atol=1e-4)
        with pytest.raises(ConfigError, match="needs the input to decode"):
            dictionary.decode(dictionary.encode(x))


def test_what_a_change_writes_is_the_difference_of_what_is_decoded() -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
    for norm in ("none", "layer-norm"):
        dictionary = random_dictionary(16, 24, norm=norm)
        features = dictionary.encode(x)
        change = torch.randn(features.shape, generator=torch.Generator().manual_seed(4))
        wanted = dictionary.decode(features + change, x) - dictionary.decode(features, x)
        assert torch.allclose(dictionary.written(change, x), wanted, atol=1e-5)
        assert not dictionary.written(torch.zeros_like(change), x).any()


def test_fingerprints_tell_weights_and_rules_apart() -> None:
    own = random_dictionary(16, 24)
    others = [
        random_dictionary(16, 24, seed=1),
        random_dictionary(16, 24, activation="topk"),
        own.scaled(0.5),
    ]
    assert own.fingerprint == random_dictionary(16, 24).fingerprint
    assert own.fingerprint not in {other.fingerprint for other in others}


def test_the_largest_features_of_a_state_come_first() -> None:
    dictionary = random_dictionary(16, 24)
    x = torch.randn(16, generator=torch.Generator().manual_seed(5))
    found = dictionary.features_of(x, 4)
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)
    assert all(float(dictionary.encode(x)[at]) == value for at, value in found)
