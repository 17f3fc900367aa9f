"""Each replacement against arithmetic on the captured values, and the laws they share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from interp import mediation
from interp.errors import ConfigError
from interp.mediation.mediators import Mediator
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.parsing import experiment_of
from interp.mediation.replacements import REPLACEMENTS, Material, replacement_of
from interp.mediation.subspaces import Subspace
from interp.models.interventions import Intervention
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.sites import Site
from tests.tiny import WORDS, build, tokenizer

SITE = Site("mlp_out", 1)


def made(family: str = "llama") -> Model:
    return load(build(family), tokenizer=tokenizer())


def pairs_of(model: Model, n: int = 6, *, ragged: bool = False) -> PairSet:
    rng = np.random.default_rng(0)
    found: list[Pair] = []
    for at in range(n):
        words = [WORDS[i] for i in rng.integers(0, 50, 6 + (at % 3 if ragged else 0))]
        other = [*words[:3], WORDS[50 + at % 5], *words[4:]]
        group = f"g{at // 2}"
        found.append(Pair(" ".join(words), " ".join(other), (WORDS[55],), (WORDS[56],), "word", group))
    return PairSet.build(model, found)


def asked_of(
    model: Model, pairs: PairSet, names: str | list[str], replacement: str, *, seed: int = 0
) -> mediation.Experiment:
    given = {"replacement": replacement, "directions": "noising", "positions": "all", "seed": seed}
    return experiment_of(model, pairs, names, **given)  # type: ignore[arg-type]


def noised(model: Model, pairs: PairSet, value: Tensor) -> np.ndarray:
    """The effect of writing values into the clean prompts, by whole passes."""
    runs = [model.run(pairs.clean, interventions=edits).logits for edits in ([], [Intervention(SITE, value)])]
    targets = Targets.of(pairs, model.device)
    plain, changed = (METRICS["logit-diff"].values(run.float(), targets) for run in runs if run is not None)
    return (plain - changed).double().numpy()


def by_noising(
    model: Model, pairs: PairSet, replacement: str, subspace: Subspace | None = None
) -> np.ndarray:
    mediator = Mediator(SITE, subspace=subspace)
    found = mediation.exhaustive(
        model, pairs, mediator, replacement=replacement, directions="noising", seed=5
    )
    return found.values["noising"][0]


def test_interpolation_goes_a_part_of_the_way() -> None:
    model = made()
    pairs = pairs_of(model)
    clean, corrupt = (model.capture(t, str(SITE), "all")[str(SITE)] for t in (pairs.clean, pairs.corrupt))
    for share in (0.25, 0.5):
        wanted = noised(model, pairs, clean + share * (corrupt - clean))
        assert np.allclose(by_noising(model, pairs, f"interpolate:{share}"), wanted, atol=1e-5)
    assert np.allclose(by_noising(model, pairs, "interpolate"), wanted)
    whole = by_noising(model, pairs, "interchange")
    assert np.allclose(by_noising(model, pairs, "interpolate:1"), whole, atol=1e-6)
    assert not by_noising(model, pairs, "interpolate:0").any()
    assert np.abs(whole - wanted).max() > 1e-2


def test_noise_has_the_stated_size_and_is_the_same_for_every_mediator() -> None:
    model = made()
    pairs = pairs_of(model, ragged=True)
    names = ["mlp_out.0", "mlp_out.1"]
    asked = asked_of(model, pairs, names, "noise:2", seed=3)
    drawn = asked.sources("noising")
    again = asked_of(model, pairs, names[1], "noise:2", seed=3)
    assert torch.equal(again.sources("noising")[SITE], drawn[SITE])
    sizes = []
    for name in names:
        read = model.capture(pairs.clean, name, "all")[name]
        real = torch.cat([read[at, :length] for at, length in enumerate(pairs.lengths)])
        sizes.append(2 * float(real.std(correction=0)))
    assert sizes[0] != pytest.approx(sizes[1], rel=0.05)
    common = [drawn[Site.parse(name)] / size for name, size in zip(names, sizes, strict=True)]
    assert torch.allclose(common[0], common[1], atol=1e-5)
    assert float(common[0].std()) == pytest.approx(1, abs=0.1)
    other = asked_of(model, pairs, names, "noise:2", seed=4)
    assert not torch.allclose(other.sources("noising")[SITE], drawn[SITE])
    values = model.capture(pairs.clean, str(SITE), "all")[str(SITE)] + drawn[SITE]
    found = mediation.exhaustive(
        model, pairs, "mlp_out.1", replacement="noise:2", directions="noising", seed=3
    )
    assert np.allclose(found.values["noising"][0], noised(model, pairs, values), atol=1e-5)
    assert any("2 times the standard deviation" in w or "standard deviation" in w for w in found.warnings)


def test_steering_adds_a_direction_in_units_of_the_mean_norm() -> None:
    model = made()
    pairs = pairs_of(model)
    clean, corrupt = (model.capture(t, str(SITE), "all")[str(SITE)] for t in (pairs.clean, pairs.corrupt))
    size = clean.norm(dim=-1).mean()
    shift = (corrupt - clean).mean(dim=0)
    unit = torch.nn.functional.normalize(shift, dim=-1)
    unit[shift.norm(dim=-1) < 1e-6 * size] = 0
    assert not unit[:3].any()  # equal tokens so far
    assert np.allclose(
        by_noising(model, pairs, "steering:2"), noised(model, pairs, clean + 2 * size * unit), atol=1e-4
    )
    axis = torch.randn(32, generator=torch.Generator().manual_seed(1))
    subspace = Subspace.of(torch.stack([axis, torch.ones(32)]), "two")
    along = noised(model, pairs, clean - 1.5 * size * axis / axis.norm())
    assert np.allclose(by_noising(model, pairs, "steering:1.5", subspace), along, atol=1e-4)
    found = mediation.exhaustive(
        model, pairs, Mediator(SITE, subspace=subspace), replacement="steering:1.5", directions="denoising"
    )
    assert found.replacement == "steering:1.5"
    against = mediation.exhaustive(
        model, pairs, Mediator(SITE, subspace=subspace), replacement="steering:-1.5", directions="denoising"
    )
    assert not np.allclose(found.values["denoising"], against.values["denoising"], atol=1e-3)
    several = [Mediator(SITE), Mediator(SITE, subspace=subspace)]
    with pytest.raises(ConfigError, match="steering adds one direction at a site"):
        mediation.exhaustive(model, pairs, several, replacement="steering")


def test_projection_removes_the_coordinates_and_is_zero_for_whole_sites() -> None:
    model = made()
    pairs = pairs_of(model)
    clean = model.capture(pairs.clean, str(SITE), "all")[str(SITE)]
    basis = Subspace.of(torch.randn(3, 32, generator=torch.Generator().manual_seed(2)), "three")
    wanted = noised(model, pairs, clean - clean @ basis.basis.T @ basis.basis)
    found = by_noising(model, pairs, "projection", basis)
    assert np.allclose(found, wanted, atol=1e-5)
    assert np.abs(found).max() > 1e-3
    assert np.array_equal(by_noising(model, pairs, "projection"), by_noising(model, pairs, "zero"))


@pytest.mark.parametrize("name", ["mean", "pooled-mean"])
def test_a_mean_never_sees_its_own_group(name: str) -> None:
    model = made()
    pairs = pairs_of(model)
    clean, corrupt = (model.capture(t, str(SITE), "all")[str(SITE)] for t in (pairs.clean, pairs.corrupt))
    wanted = torch.empty_like(clean)
    for at, group in enumerate(pairs.groups):
        others = corrupt[[row for row, other in enumerate(pairs.groups) if other != group]]
        wanted[at] = others.mean(dim=0) if name == "mean" else others.mean(dim=(0, 1))
    assert np.allclose(by_noising(model, pairs, name), noised(model, pairs, wanted), atol=1e-5)
    own = corrupt.mean(dim=0, keepdim=True) if name == "mean" else corrupt.mean(dim=(0, 1), keepdim=True)
    assert not np.allclose(by_noising(model, pairs, name), noised(model, pairs, own), atol=1e-3)
    with pytest.raises(ConfigError, match="all pairs are of the group 'g0'"):
        by_noising(model, pairs[:2], name)


def test_padding_is_no_part_of_a_mean() -> None:
    """Prompts of 6 to 8 tokens: the means are over real tokens, and token 7 of one group alone has none."""
    model = made()
    pairs = pairs_of(model, 12, ragged=True)
    corrupt = model.capture(pairs.corrupt, str(SITE), "all")[str(SITE)]
    asked = asked_of(model, pairs, "mlp_out.1", "pooled-mean", seed=0)
    found = asked.sources("noising")[SITE]
    rows = [at for at, group in enumerate(pairs.groups) if group != pairs.groups[0]]
    real = torch.cat([corrupt[at, : pairs.lengths[at]] for at in rows])
    assert torch.allclose(found[0, 0], real.mean(dim=0), atol=1e-6)
    lonely = pairs_of(model, 4, ragged=True)
    with pytest.raises(ConfigError, match="token 7 stands in the prompts of one group alone"):
        by_noising(model, lonely, "mean")


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_only_paired_replacements_change_nothing_where_the_prompts_are_equal(name: str) -> None:
    """The engine skips those cells without running them; whole passes must agree that they are zero."""
    model = made()
    pairs = pairs_of(model)
    row = replacement_of(name)
    asked = asked_of(model, pairs, "mlp_out.1", name, seed=0)
    put = asked.sources("noising")[SITE]
    clean = model.capture(pairs.clean, str(SITE), "all")[str(SITE)]
    before = row.rule(clean, put)[:, : pairs.first_difference[0]]
    same = torch.allclose(before, clean[:, : pairs.first_difference[0]], atol=1e-6)
    assert same is (row.paired or name == "steering")  # steering has no direction where nothing differs


def test_gradients_follow_the_rule_of_every_replacement() -> None:
    """Where all that follows is linear in the change, estimate and effect agree: tiny steps."""
    model = made("gpt2")
    pairs = pairs_of(model)
    for name in ("interpolate:0.01", "steering:0.01", "noise:0.01"):
        kept = {"replacement": name, "directions": "noising", "positions": "all"}
        guess = mediation.attribution(model, pairs, "mlp_out.1", verify=0, **kept)  # type: ignore[arg-type]
        exact = mediation.exhaustive(model, pairs, "mlp_out.1", **kept)  # type: ignore[arg-type]
        most = float(np.abs(exact.values["noising"]).max())
        assert np.allclose(guess.values["noising"], exact.values["noising"], atol=0.05 * most), name
        assert most > 3e-4


def test_names_with_amounts() -> None:
    assert replacement_of("noise").name == "noise:3"
    assert replacement_of("steering:-0.5").amount == -0.5
    assert replacement_of("interpolate:0.123456789").name == "interpolate:0.123456789"
    for name, message in (
        ("nose:3", "replacement 'nose:3' asked; there are: interchange, zero, mean"),
        ("zero:3", r"zero takes no number \(these do: noise, steering, interpolate, "),
        ("noise:much", "write a number behind the colon, such as noise:3"),
        ("noise:", "write a number behind the colon, such as noise:3"),
        ("noise:0", "noise needs a number above 0"),
        ("steering:inf", "write a number behind the colon, such as steering:1"),
    ):
        with pytest.raises(ConfigError, match=message):
            replacement_of(name)


def test_resampling_takes_keys_and_values_from_the_same_example() -> None:
    values = torch.arange(5.0)[:, None, None].expand(5, 2, 3)
    inside = torch.ones(5, 2, dtype=torch.bool)
    one, two = (
        REPLACEMENTS["resample"].source(Material(v, v, inside, "abcde", 7)) for v in (values, 10 * values)
    )
    assert torch.equal(10 * one, two)
    assert not (one == values).any()


def hooked(model: Model, ids: list[int], value: Tensor) -> Tensor:
    """Logits after the last token with the MLP of block 1 giving a value, by a plain PyTorch hook."""
    handle = model.hf.model.layers[1].mlp.register_forward_hook(lambda *_: value[None])
    try:
        with torch.no_grad():
            return model.hf(torch.tensor([ids])).logits[0, -1]
    finally:
        handle.remove()


def test_resampling_ragged_prompts_takes_whole_values_of_prompts_at_least_as_long() -> None:
    """Every effect is that of one other prompt's value, of the same length if possible; never of zero."""
    model = made()
    pairs = pairs_of(model, 12, ragged=True)
    pairs = pairs[[0, 1, 2, 3, 5, 6, 8, 9, 11]]  # lengths 6, 7, 8, 6, 8, 6, 8, 6, 8: one alone has 7
    found = by_noising(model, pairs, "resample")
    read: list[Tensor] = []
    keep = model.hf.model.layers[1].mlp.register_forward_hook(lambda m, a, out: read.append(out[0]))
    with torch.no_grad():
        for ids in pairs.corrupt.token_ids:
            model.hf(torch.tensor([list(ids)]))
    keep.remove()
    right, wrong = pairs.answer_ids[0][0], pairs.foil_ids[0][0]
    taken: list[int] = []
    for at, (ids, length) in enumerate(zip(pairs.clean.token_ids, pairs.lengths, strict=True)):
        with torch.no_grad():
            plain = model.hf(torch.tensor([list(ids)])).logits[0, -1]
        values = {other: value[-length:] for other, value in enumerate(read) if len(value) >= length}
        runs = {other: plain - hooked(model, list(ids), value) for other, value in values.items()}
        effects = {other: float(run[right] - run[wrong]) for other, run in runs.items()}
        nearest = min(effects, key=lambda other: abs(effects[other] - found[at]))
        assert abs(effects[nearest] - found[at]) < 1e-5
        taken.append(nearest)
        zeroed = plain - hooked(model, list(ids), torch.zeros_like(read[at]))
        assert abs(float(zeroed[right] - zeroed[wrong]) - found[at]) > 1e-3
    assert all(at != other for at, other in enumerate(taken))
    lengths = pairs.lengths
    assert [at for at, other in enumerate(taken) if lengths[at] != lengths[other]] == [1]
    assert lengths[taken[1]] > 7
    kept = mediation.exhaustive(
        model, pairs, "mlp_out.1", replacement="resample", directions="noising", seed=5
    )
    assert any("1 of 9 prompts share their length with no other" in text for text in kept.warnings)


def test_resampling_refuses_the_longest_prompt_of_all() -> None:
    model = made()
    pairs = pairs_of(model, 12, ragged=True)[[0, 3, 2]]
    for mediators in ("mlp_out.1", "edge.mlp_out.1->logits"):
        with pytest.raises(ConfigError, match="one prompt alone has 8 tokens, the most of all"):
            mediation.exhaustive(model, pairs, mediators, replacement="resample")
