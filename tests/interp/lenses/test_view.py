"""One prompt under a lens: a cell is what the model gives by hand, and the verdict follows from the cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp import lenses
from interp.errors import SiteError
from interp.lenses import LensView, LogitLens
from interp.lenses.words import words_of
from interp.report.document import document
from interp.report.terminal import write
from tests.noisy import demo
from tests.tiny import tiny

PROMPT = "the capital of France is"


@pytest.fixture(scope="module")
def found() -> LensView:
    return lenses.view(demo(), PROMPT)


def test_each_cell_is_what_the_model_gives_by_hand(found: LensView) -> None:
    model = demo()
    ids = model.tokenize([PROMPT]).token_ids[0]
    hidden = {}
    blocks = model.hf.model.layers
    hooks = [
        block.register_forward_hook(lambda _, __, out, at=at: hidden.__setitem__(at, out))
        for at, block in enumerate(blocks)
    ]
    with torch.no_grad():
        final = model.hf(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        [hook.remove() for hook in hooks]
        for at, state in hidden.items():
            state = state[0] if isinstance(state, tuple) else state
            said = model.hf.lm_head(model.hf.model.norm(state))[-len(ids) :].reshape(len(ids), -1).double()
            said = said.log_softmax(-1)
            own = final.argmax(-1)
            np.testing.assert_allclose(found.probability[at], said.max(-1).values.exp(), atol=1e-5)
            np.testing.assert_allclose(found.kl[at], (final.exp() * (final - said)).sum(-1), atol=1e-4)
            rank = [(row > row[answer]).sum() + 1 for row, answer in zip(said, own, strict=True)]
            assert found.rank[at].tolist() == [int(one) for one in rank]
            assert found.words[at] == words_of(model, said.argmax(-1).tolist())


def test_the_verdict_names_the_layer_from_which_on_the_answer_is_first(found: LensView) -> None:
    first = found.settled()
    assert first is not None and 0 < first < 23
    at = found.layers.index(first)
    assert (found.rank[at:, -1] == 1).all() and found.rank[at - 1, -1] > 1
    assert found.verdict().startswith("The model's next word is 'Paris'")
    assert f"first from layer {first} of 0 to 23 on" in found.verdict()
    assert found.number("first-layer").value == first
    late = replace(found, rank=found.rank + (np.arange(24) == 23)[:, None])
    assert late.settled() is None and "at no layer" in late.verdict()
    assert replace(found, rank=np.ones_like(found.rank)).verdict().endswith("from layer 0 on.")


def test_the_table_has_ten_layers_and_the_one_that_matters(found: LensView) -> None:
    rows = found.table("lens")
    assert len(rows) == 10 and {0, 23, found.settled()} <= set(rows["layer"])
    main = found.tables()[0].main
    assert rows["layer"][main] == found.settled()
    for place in range(24):  # wherever it settles
        rank = np.where(np.arange(24) >= place, 1, 2)[:, None].repeat(len(found.tokens), axis=1)
        shown = replace(found, rank=rank).tables()[0]
        assert len(shown.rows) == 10 and shown.rows[shown.main][0] == place
        assert {0, 23} <= {row[0] for row in shown.rows}
    assert len(found.table("cells")) == 24 * len(found.tokens)


def test_a_terminal_of_80_columns_shows_it(found: LensView, capsys: pytest.CaptureFixture[str]) -> None:
    write(document(found))
    table = [line for line in capsys.readouterr().out.splitlines() if line[:6].strip().isdigit()]
    assert len(table) == 10 and max(map(len, table)) <= 80


def test_the_picture_has_every_cell_and_the_last_tokens_of_a_long_prompt(found: LensView) -> None:
    figure = found.figure("lens")
    assert len(figure.data["x"]) == 24 * len(found.tokens)
    long = lenses.view(demo(), " ".join([PROMPT, "Paris ;"] * 6), layers="0,23")
    assert set(long.figure().data["x"]) == set(range(len(long.tokens) - 32, len(long.tokens)))
    assert "tokens are left out" in long.figure().caption


def test_without_text_nothing_of_the_prompt_is_kept(found: LensView, tmp_path: object) -> None:
    from interp.results import load

    kept = load(found.save(str(tmp_path), text=False))
    text = str(kept.summary())
    assert "France" not in text and "Paris" not in text
    assert kept.number("first-layer").value == found.number("first-layer").value


def test_layers_can_be_chosen_and_a_lens_given(found: LensView) -> None:
    some = lenses.view(demo(), PROMPT, lens=LogitLens.of(demo()), layers="8-20:4,-1")
    assert some.layers == (8, 12, 16, 20, 23)
    np.testing.assert_array_equal(some.rank, found.rank[list(some.layers)])
    with pytest.raises(SiteError, match="reads no layer 3"):
        lenses.view(demo(), PROMPT, lens=LogitLens.of(demo(), [20]), layers=3)
    assert lenses.view(demo(), PROMPT, lens=LogitLens.of(demo(), [20])).layers == (20,)


def test_a_model_without_a_tokenizer_has_numbers_for_words() -> None:
    model = interp.load(tiny("gpt2")[0])
    assert lenses.view(model, [3, 4, 5]).tokens == ("[3]", "[4]", "[5]")
