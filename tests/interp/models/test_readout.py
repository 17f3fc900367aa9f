"""The last step of a model: sums of exponentials without subnormal numbers."""

from __future__ import annotations

import time

import pytest
import torch

from interp.models.readout import log_sum_exp

INF = float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spread", [1.0, 20.0, 60.0])
def test_it_is_what_torch_gives_bit_for_bit_with_its_slope(dtype: torch.dtype, spread: float) -> None:
    drawn = torch.randn(40, 3475, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits, same = ((drawn * spread).to(dtype).requires_grad_(True) for _ in range(2))
    known, found = logits.logsumexp(dim=1), log_sum_exp(same)
    assert torch.equal(known, found) and not torch.equal(known, found + 1)
    slopes = [torch.autograd.grad((2 * one).sum(), x)[0] for one, x in ((known, logits), (found, same))]
    assert torch.allclose(slopes[0], slopes[1], rtol=0, atol=1e-37)


def test_what_is_not_finite_stays_so() -> None:
    rows = torch.tensor([[-INF, 0.0, 1.0], [INF, 0.0, 1.0], [-INF, -INF, -INF], [float("nan"), 0.0, 1.0]])
    assert torch.equal(
        log_sum_exp(rows).nan_to_num(7.0, 8.0, 9.0), rows.logsumexp(1).nan_to_num(7.0, 8.0, 9.0)
    )


@pytest.mark.slow
def test_far_words_do_not_slow_it_down() -> None:
    """Torch's own takes about ten times as long for the second; the bound leaves room for a busy machine."""
    drawn = torch.randn(64, 49152, generator=torch.Generator().manual_seed(0))
    took = [min(_seconds(drawn * spread) for _ in range(5)) for spread in (1.0, 30.0)]
    assert took[1] < 3 * took[0]


def _seconds(logits: torch.Tensor) -> float:
    started = time.thread_time()
    log_sum_exp(logits)
    return time.thread_time() - started
