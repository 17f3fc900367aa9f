"""Translators against scikit-learn and NumPy; moments against the whole; the way back against its law."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as bytes_from_tensors
from sklearn.linear_model import Ridge
from torch import Tensor

from probes.cards import ProbeFileError
from probes.translation import PENALTIES, Moments, Translator, fit_translator

DIM, OUT = 7, 5


def examples(
    n: int, seed: int, *, dim: int = DIM, out: int = OUT, noise: float = 0.5
) -> tuple[Tensor, Tensor]:
    """States of unlike scales far from zero, targets linear in them by the same map for every seed."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    mixing = shared.normal(size=(dim, dim)) * np.geomspace(1, 30, dim)
    states = rng.normal(size=(n, dim)) @ mixing + 1000
    targets = states @ shared.normal(size=(dim, out)) / 10 + noise * rng.normal(size=(n, out)) - 4
    return torch.from_numpy(states), torch.from_numpy(targets)


def gathered(states: Tensor, targets: Tensor, parts: Sequence[int] = ()) -> Moments:
    found = Moments(states.shape[1], targets.shape[1])
    for rows in torch.tensor_split(torch.arange(len(states)), list(parts)):
        found.add(states[rows], targets[rows])
    return found


def same(one: Moments, other: Moments) -> bool:
    pairs = [
        (getattr(one, name), getattr(other, name))
        for name in ("state_mean", "target_mean", "states", "cross", "targets")
    ]
    return one.count == other.count and all(torch.allclose(a, b, rtol=1e-9) for a, b in pairs)


def fitted(
    *, n: int = 60, ranks: Sequence[int | None] = (None,), penalties: Sequence[float] = PENALTIES
) -> Translator:
    train, held_out = gathered(*examples(n, 0)), gathered(*examples(80, 1))
    return fit_translator(train, held_out, penalties, ranks=ranks)


def oracle(states: Tensor, targets: Tensor, penalty: float) -> Ridge:
    alpha = penalty * len(states) * float(states.var(dim=0, correction=0).mean())
    return Ridge(alpha=alpha).fit(states.numpy(), targets.numpy())


# moments


def test_moments_are_what_numpy_gives() -> None:
    states, targets = examples(50, 0)
    found = gathered(states, targets, [3, 20])
    both = np.cov(states.numpy().T, targets.numpy().T, bias=True) * 50
    assert np.allclose(found.states, both[:DIM, :DIM]) and np.allclose(found.cross, both[:DIM, DIM:])
    assert np.allclose(found.targets, np.diag(both)[DIM:])
    assert np.allclose(found.state_mean, states.mean(0)) and found.count == 50


@pytest.mark.parametrize("parts", [[1], [10, 11, 40], list(range(1, 50))])
def test_streamed_is_whole(parts: list[int]) -> None:
    states, targets = examples(50, 0)
    assert same(gathered(states, targets, parts), gathered(states, targets))
    assert not same(gathered(states[1:], targets[1:], parts), gathered(states, targets))


def test_more_rows_than_are_held_at_once_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    states, targets = examples(50, 0)
    whole = gathered(states, targets)
    monkeypatch.setattr("probes.translation.ROWS", 7)
    assert same(gathered(states, targets), whole)


def test_merged_is_whole_and_changes_neither() -> None:
    states, targets = examples(50, 0)
    first, second = gathered(states[:13], targets[:13]), gathered(states[13:], targets[13:])
    assert same(first.merged(second), gathered(states, targets))
    assert same(first, gathered(states[:13], targets[:13])) and same(
        second, gathered(states[13:], targets[13:])
    )
    assert same(first.merged(Moments(DIM, OUT)), first) and same(Moments(DIM, OUT).merged(first), first)


def test_a_large_constant_costs_no_digits() -> None:
    states, targets = examples(50, 0)
    moved = gathered(states + 1e7, targets, [10, 30])
    assert torch.allclose(moved.states, gathered(states, targets).states, rtol=1e-6)


def test_adding_nothing_changes_nothing_and_a_batch_is_left_alone() -> None:
    states, targets = examples(50, 0)
    kept = states.clone()
    assert same(gathered(states, targets).add(states[:0], targets[:0]), gathered(states, targets))
    assert torch.equal(states, kept)


def test_moments_refuse_other_widths_and_what_is_not_finite() -> None:
    states, targets = examples(5, 0)
    found = gathered(states, targets)
    with pytest.raises(ValueError, match="6 columns and 5 targets given to moments of 7 and 5"):
        found.add(states[:, 1:], targets)
    states[3, 2], targets[4, 0] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="2 of 5 examples hold numbers that are not finite, first in row 3"):
        found.add(states, targets)
    with pytest.raises(ValueError, match="cannot be merged"):
        found.merged(Moments(DIM, OUT + 1))
    assert same(found, gathered(*examples(5, 0)))


# the fit


@pytest.mark.parametrize("penalty", [1e-6, 1e-2, 1.0])
def test_a_translator_is_ridge_with_a_penalty_in_units_of_the_mean_variance(penalty: float) -> None:
    states, targets = examples(60, 0)
    found, right = fitted(penalties=[penalty]), oracle(states, targets, penalty)
    assert np.allclose(found.weight.T, right.coef_, rtol=1e-6) and np.allclose(
        found.offset, right.intercept_, rtol=1e-6
    )
    fresh = examples(10, 5)[0]
    assert np.allclose(found(fresh), right.predict(fresh.numpy()))
    assert not np.allclose(found.weight.T, oracle(states, targets, 3 * penalty + 0.01).coef_, rtol=1e-3)


def test_the_score_of_every_penalty_is_that_of_its_predictions_on_the_held_out_examples() -> None:
    train, held_out = examples(12, 0, noise=3), examples(80, 1, noise=3)
    found = fit_translator(gathered(*train), gathered(*held_out))
    constant = float((held_out[1] - train[1].mean(0)).square().sum())
    errors = [
        float(np.square(oracle(*train, p).predict(held_out[0].numpy()) - held_out[1].numpy()).sum())
        for p, _ in found.path
    ]
    assert np.allclose([score for _, score in found.path], 1 - np.array(errors) / constant, rtol=1e-5)
    best = int(np.argmin(errors))
    assert (found.penalty, found.score) == found.path[best] and 0 < best < len(errors) - 1


def test_a_penalty_means_the_same_at_any_scale_of_the_states() -> None:
    train, held_out = examples(12, 0, noise=3), examples(80, 1, noise=3)
    plain = fit_translator(gathered(*train), gathered(*held_out))
    large = fit_translator(gathered(1e4 * train[0], train[1]), gathered(1e4 * held_out[0], held_out[1]))
    assert np.allclose(plain.path, large.path) and torch.allclose(plain.weight, 1e4 * large.weight)


def test_with_next_to_no_penalty_it_is_least_squares_and_with_fewer_examples_than_columns_the_least_one() -> (
    None
):
    states, targets = examples(60, 0)
    centred = (states - states.mean(0)).numpy(), (targets - targets.mean(0)).numpy()
    assert np.allclose(fitted(penalties=[1e-13]).weight, np.linalg.lstsq(*centred)[0], atol=1e-6)
    few = fit_translator(gathered(states[:5], targets[:5]), gathered(*examples(80, 1)), [1e-9])
    centred = (states[:5] - states[:5].mean(0)).numpy(), (targets[:5] - targets[:5].mean(0)).numpy()
    assert np.allclose(few.weight, np.linalg.lstsq(*centred, rcond=1e-8)[0], atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_is_reduced_rank_regression_of_the_rows_that_stand_for_the_penalty(rank: int) -> None:
    states, targets = examples(60, 0)
    found, penalty = fitted(ranks=[rank], penalties=[0.01]), 0.01
    x, y = states - states.mean(0), targets - targets.mean(0)
    rows = (penalty * 60 * x.square().mean()).sqrt() * torch.eye(DIM)
    x, y = torch.cat([x, rows]).numpy(), torch.cat([y, torch.zeros(DIM, OUT)]).numpy()
    full = np.linalg.lstsq(x, y)[0]
    top = np.linalg.svd(x @ full)[2][:rank]
    assert np.allclose(found.weight, full @ top.T @ top) and not np.allclose(found.weight, full, rtol=1e-3)
    assert np.linalg.matrix_rank(found.weight) == rank == len(found.spreads) == found.rank


def test_the_rank_is_chosen_by_the_held_out_error() -> None:
    rng = np.random.default_rng(4)
    narrow = rng.normal(size=(20, 2)) @ rng.normal(size=(2, 10))

    def planted(n: int) -> tuple[Tensor, Tensor]:
        states = rng.normal(size=(n, 20))
        return torch.from_numpy(states), torch.from_numpy(states @ narrow + 3 * rng.normal(size=(n, 10)))

    train, held_out = planted(60), planted(2000)
    found = fit_translator(gathered(*train), gathered(*held_out), [0.01], ranks=[1, 2, 5, None])
    each = {
        rank: fit_translator(gathered(*train), gathered(*held_out), [0.01], ranks=[rank])
        for rank in (1, 2, 5, None)
    }
    assert found.rank == 2 == max(each, key=lambda rank: each[rank].score) and found.score == each[2].score
    error = float((each[2](held_out[0]) - held_out[1]).square().sum())
    assert found.score == pytest.approx(1 - error / float((held_out[1] - train[1].mean(0)).square().sum()))


def test_shuffled_targets_explain_nothing() -> None:
    states, targets = examples(60, 0)
    shuffled = targets[torch.randperm(60, generator=torch.Generator().manual_seed(3))]
    held_out = gathered(*examples(80, 1))
    assert fit_translator(gathered(states, shuffled), held_out).score < 0.05
    assert fit_translator(gathered(states, targets), held_out).score > 0.9


def test_a_fit_says_what_it_lacks() -> None:
    train, held_out = gathered(*examples(60, 0)), gathered(*examples(80, 1))
    with pytest.raises(ValueError, match="training moments hold 0 examples; at least 2"):
        fit_translator(Moments(DIM, OUT), held_out)
    with pytest.raises(ValueError, match="held-out moments hold 0 examples"):
        fit_translator(train, Moments(DIM, OUT))
    with pytest.raises(ValueError, match="widths differ"):
        fit_translator(train, Moments(DIM, OUT + 1).add(torch.ones(1, DIM), torch.ones(1, OUT + 1)))
    with pytest.raises(ValueError, match="all positive"):
        fit_translator(train, held_out, [0.0])
    with pytest.raises(ValueError, match="each positive or None"):
        fit_translator(train, held_out, ranks=[0])
    with pytest.raises(ValueError, match="all alike"):
        fit_translator(gathered(torch.ones(9, DIM), torch.ones(9, OUT)), held_out)
    alike = gathered(torch.ones(9, DIM), train.target_mean.repeat(9, 1))
    with pytest.raises(ValueError, match="never differ from the training mean"):
        fit_translator(train, alike)


# its use, and the way back


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_translation_has_the_states_precision_and_at_least_float32(dtype: torch.dtype) -> None:
    found, states = fitted(), examples(6, 2)[0].reshape(2, 3, DIM)
    translated = found(states.to(dtype))
    assert translated.dtype == torch.promote_types(dtype, torch.float32) and translated.shape == (2, 3, OUT)
    assert torch.allclose(translated[1, 2].double(), found(states.to(dtype).double())[1, 2], rtol=1e-3)


def metric(states: Tensor) -> Tensor:
    return torch.linalg.inv(torch.cov(states.T, correction=0))


def test_what_is_pulled_back_translates_to_the_change_and_is_the_least_that_does() -> None:
    states = examples(60, 0)[0]
    found, change = fitted(), examples(4, 3)[1]
    back = found.pull_back(change)
    assert torch.allclose(found(states[:4] + back) - found(states[:4]), change, rtol=1e-6)
    lengths = torch.einsum("nd,de,ne->n", back, metric(states), back)
    without = torch.linalg.svd(found.weight.T).Vh[OUT:]  # changes of the state that no translation shows
    assert without.shape == (DIM - OUT, DIM) and float((without @ found.weight).abs().max()) < 1e-10
    for seed in range(20):
        other = (
            back
            + torch.randn(4, len(without), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            @ without
        )
        assert torch.allclose(other @ found.weight, change, rtol=1e-6)
        assert (torch.einsum("nd,de,ne->n", other, metric(states), other) > lengths).all()
    plain = change @ torch.linalg.pinv(found.weight)  # the least in the plain metric is another one
    assert (torch.einsum("nd,de,ne->n", plain, metric(states), plain) > 1.01 * lengths).all()
    assert (plain.norm(dim=1) < back.norm(dim=1)).all()


@pytest.mark.parametrize("rank", [1, 3])
def test_of_a_change_out_of_reach_the_part_in_reach_is_made(rank: int) -> None:
    found, change = fitted(ranks=[rank]), examples(4, 3)[1]
    made = found.pull_back(change) @ found.weight
    reach = torch.linalg.svd(found.weight).Vh[:rank]
    assert torch.allclose(made, change @ reach.T @ reach) and not torch.allclose(made, change, rtol=0.1)


def test_a_share_uses_the_widest_axes_alone_and_asks_for_less() -> None:
    found, change = fitted(), examples(4, 3)[1]
    variances = torch.linalg.eigvalsh(torch.cov(found(examples(60, 0)[0]).T, correction=0)).flip(0)
    assert torch.allclose(found.spreads, variances)
    share = float(variances[:2].sum() / variances.sum()) - 1e-9
    assert (found.kept(share), found.kept(share + 2e-9), found.kept(1.0)) == (2, 3, OUT)
    kept = found.axes[:, :2]
    assert torch.allclose(found.pull_back(change, share) @ found.weight, change @ kept @ kept.T)
    inverse = metric(examples(60, 0)[0])
    less, all_of_it = (
        torch.einsum("nd,de,ne->n", d, inverse, d)
        for d in (found.pull_back(change, share), found.pull_back(change))
    )
    assert (less < all_of_it).all()
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            found.pull_back(change, wrong)


@pytest.mark.parametrize("penalty", [1e-9, 1e-4, 1.0])
def test_one_penalty_alone_gives_what_it_gives_among_others(penalty: float) -> None:
    alone, beside = fitted(penalties=[penalty]), fitted(penalties=[penalty, 1e9])
    assert beside.penalty == penalty and torch.allclose(alone.weight, beside.weight, rtol=1e-6)
    assert alone.path[0] == pytest.approx(beside.path[0]) and alone.path == ((penalty, alone.score),)
    assert torch.allclose(alone.reached, beside.reached, rtol=1e-6)
    other = fitted(penalties=[3 * penalty + 0.01])
    assert not torch.allclose(alone.weight, other.weight, rtol=1e-3)


def test_the_way_back_is_decomposed_when_it_is_first_asked_for_and_not_before() -> None:
    found = fitted()
    assert torch.isfinite(found(examples(6, 2)[0])).all() and "_decomposed" not in vars(found)
    found.pull_back(examples(4, 3)[1])
    assert "_decomposed" in vars(found)


# files


@pytest.mark.parametrize("rank", [None, 3])
def test_a_file_of_the_first_schema_is_still_read(tmp_path: Path, rank: int | None) -> None:
    found, change = fitted(ranks=[rank]), examples(4, 3)[1]
    place, card = found.save(tmp_path / "old"), tmp_path / "old" / "translator.json"
    first = ("weight", "offset", "axes", "spreads", "back")
    content = bytes_from_tensors({name: getattr(found, name).contiguous() for name in first})
    (place / "translator.safetensors").write_bytes(content)
    record = json.loads(card.read_text()) | {"schema": 1, "sha256": hashlib.sha256(content).hexdigest()}
    card.write_text(json.dumps(record))
    read = Translator.load(place)
    assert torch.allclose(read.spreads, found.spreads) and torch.equal(read.weight, found.weight)
    assert torch.allclose(read.pull_back(change), found.pull_back(change), rtol=1e-6)
    card.write_text(json.dumps(record | {"schema": 3}))
    with pytest.raises(ProbeFileError, match="schema 1 or 2"):
        Translator.load(place)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    found = fitted(ranks=[3]).described({"model": "demo", "layer": 4})
    read = Translator.load(found.save(tmp_path / "one"))
    states, change = examples(6, 2)
    assert torch.equal(read(states), found(states)) and torch.equal(
        read.pull_back(change), found.pull_back(change)
    )
    assert (read.card, read.path, read.score) == (found.card, found.path, found.score)
    assert (read.penalty, read.rank) == (found.penalty, 3)


def test_files_that_are_missing_changed_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeFileError, match="no translator in"):
        Translator.load(tmp_path)
    folder = fitted().save(tmp_path)
    content, record = (
        (folder / "translator.safetensors").read_bytes(),
        json.loads((folder / "translator.json").read_text()),
    )
    (folder / "translator.safetensors").write_bytes(content[:-1] + b"x")
    with pytest.raises(ProbeFileError, match=r"is not the file that translator\.json names"):
        Translator.load(folder)
    (folder / "translator.safetensors").write_bytes(content)
    for text, reason in (
        ("{", "not valid JSON"),
        ("[]", "no record of schema"),
        (json.dumps({**record, "path": 3}), "does not hold"),
    ):
        (folder / "translator.json").write_text(text)
        with pytest.raises(ProbeFileError, match=reason):
            Translator.load(folder)


def test_a_translator_prints_as_one_line() -> None:
    told = repr(fit_translator(gathered(*examples(40, 0)), gathered(*examples(20, 1)), [0.01]))
    assert told.startswith("Translator(7 -> 5, penalty 0.01, held-out score 0.9") and "\n" not in told
