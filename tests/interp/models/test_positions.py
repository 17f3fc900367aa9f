"""Ints are positions, truth values a mask: in whatever form, the same tokens are read and written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import ConfigError, DataError
from interp.models import Intervention, Model
from interp.models.positions import choose

IDS, WANTED = [[5, 6, 7, 8, 9], [15, 16, 17, 18]], [[0, 2], [1, 3]]
FORMS = [WANTED, tuple(map(tuple, WANTED)), torch.tensor(WANTED), np.array(WANTED), [[0, -3], [-3, -1]]]


@pytest.fixture(scope="module")
def streams(llama: Model) -> list[torch.Tensor]:
    """The stream after block 0 of each prompt, by transformers alone."""
    return [
        llama.hf(torch.tensor([row]), output_hidden_states=True).hidden_states[1][0].detach() for row in IDS
    ]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_ints_per_prompt_are_positions(llama: Model, streams: list[torch.Tensor], form: Any) -> None:
    found = llama.capture(IDS, "resid_post.0", form)
    expected = torch.stack([stream[row] for stream, row in zip(streams, WANTED, strict=True)])
    torch.testing.assert_close(found["resid_post.0"], expected, atol=1e-6, rtol=0)
    assert [list(row) for row in found.positions] == WANTED  # type: ignore[arg-type]


def test_recorded_positions_read_the_same_again(llama: Model) -> None:
    for asked in (slice(0, 3), "all", "last", [[0], [1, 2]], 1):
        first = llama.capture(IDS, "resid_post.0", asked)
        again = llama.capture(IDS, "resid_post.0", first.positions)
        assert again.positions == first.positions
        torch.testing.assert_close(again["resid_post.0"], first["resid_post.0"], atol=0, rtol=0)


def test_a_mask_and_its_positions_write_the_same(llama: Model) -> None:
    mask = torch.zeros(2, 5, dtype=torch.bool)
    for number, row in enumerate(WANTED):
        mask[number, row] = True
    written = [
        llama.run(IDS, interventions=[Intervention("resid_post.0", 0.0, form)]).logits
        for form in (WANTED, mask, mask.numpy(), mask.tolist())
    ]
    plain = llama.run(IDS).logits
    assert plain is not None
    for one in written:
        assert one is not None and not torch.allclose(one, plain, atol=1e-3)
        torch.testing.assert_close(one, written[0], atol=0, rtol=0)


@pytest.mark.parametrize(
    "form",
    [
        [True, False],
        [1.7, 0.2],
        [[0, True], [1, 3]],
        [[0.0, 1.0], [1.0, 2.0]],
        [],
        None,
        {0},
        [[[0]]],
    ],
    ids=str,
)
def test_anything_else_is_refused(llama: Model, form: Any) -> None:
    with pytest.raises(ConfigError, match="one int or several ints per prompt, or a boolean mask"):
        llama.capture(IDS, "resid_post.0", form)


def test_wrong_counts_and_places_are_named(llama: Model) -> None:
    with pytest.raises(DataError, match="3 positions for 2 prompts"):
        llama.capture(IDS, "resid_post.0", [[0], [1], [2]])
    with pytest.raises(DataError, match=r"position 4 asked, but prompt 1 has positions 0\.\.3"):
        llama.capture(IDS, "resid_post.0", [[0, 4], [0, 4]])


def test_numpy_ints_are_ints(llama: Model) -> None:
    assert llama.capture(IDS, "resid_post.0", np.int64(-2)).positions == (3, 2)
    assert llama.capture(IDS, "resid_post.0", torch.tensor(1)).positions == (1, 1)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_rows_of_ints_are_kept_in_their_order(lengths: list[int], data: st.DataObject) -> None:
    rows = [data.draw(st.lists(st.integers(-n, n - 1), max_size=4)) for n in lengths]
    if not any(rows):
        return
    expected = tuple(tuple(p % n for p in row) for row, n in zip(rows, lengths, strict=True))
    assert choose(rows, lengths).rows == expected
