"""Proposed subspaces against plain linear algebra and real probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, DataError, SiteError
from interp.mediation.subspaces import Subspace
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from probes import LogisticProbe, MeanDifferenceProbe, MLPProbe
from tests.tiny import WORDS, build, tokenizer


def made() -> Model:
    return load(build("llama"), tokenizer=tokenizer())


def pairs_of(model: Model, n: int = 8) -> PairSet:
    rng = np.random.default_rng(0)
    found: list[Pair] = []
    for at in range(n):
        words = [WORDS[i] for i in rng.integers(0, 50, 5 + at % 2)]
        other = [*words[:2], WORDS[50 + at % 5], *words[3:]]
        found.append(Pair(" ".join(words), " ".join(other), (WORDS[55],), (WORDS[56],), "word", f"g{at}"))
    return PairSet.build(model, found)


@pytest.mark.parametrize("site", ["resid_post.1", "head.1.2"])
def test_mean_difference_and_pca_against_plain_arithmetic(site: str) -> None:
    model = made()
    pairs = pairs_of(model)
    clean, corrupt = (
        model.capture(t, "z.1" if site[0] == "h" else site, -2).__getitem__("z.1" if site[0] == "h" else site)
        for t in (pairs.clean, pairs.corrupt)
    )
    if site[0] == "h":
        clean, corrupt = clean[:, 2], corrupt[:, 2]
    shift = (clean - corrupt).mean(dim=0)
    found = mediation.mean_difference(model, pairs, site, position=-2)
    assert torch.allclose(found.basis[0], shift / shift.norm(), atol=1e-5)
    both = torch.cat([clean, corrupt]).double()
    for of, values in (("differences", (clean - corrupt).double()), ("activations", both - both.mean(dim=0))):
        space = mediation.pca(model, pairs, site, position=-2, dim=3, of=of)
        kept = float((values @ space.basis.double().T).square().sum())
        most = float(torch.linalg.eigvalsh(values.T @ values)[-3:].sum())
        assert kept == pytest.approx(most, rel=1e-4)
        rest = Subspace.of(torch.randn(3, space.width, generator=torch.Generator().manual_seed(0)), "random")
        assert float((values @ rest.basis.double().T).square().sum()) < 0.9 * most


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes apart along one axis, features of very different scales."""
    rng = np.random.default_rng(seed)
    labels = np.array(["no", "yes"] * 100)
    scales = np.geomspace(0.1, 10, 8)
    values = rng.normal(size=(200, 8)) * scales
    values[labels == "yes"] += np.eye(8)[3] * 4 * scales[3]
    return values, labels, scales


def test_a_saved_probes_direction_is_that_of_its_scores(tmp_path: Path) -> None:
    values, labels, _ = data()
    probe = LogisticProbe(seed=0).fit(values, labels)
    folder = probe.save(tmp_path / "sentiment")
    scores = np.asarray(probe.decision_function(values))
    for path in (folder, folder / "probe.safetensors"):
        found = Subspace.load(path)
        assert (found.name, found.dim) == ("sentiment", 1)
        along = values @ found.basis[0].double().numpy()
        assert (
            np.corrcoef(along, scores[:, 1] - scores[:, 0])[0, 1] > 1 - 1e-6
        )  # and points to the second class
    three = np.where(values[:, 5] > 5, "maybe", labels)
    assert Subspace.load(LogisticProbe(seed=0).fit(values, three).save(tmp_path / "three")).dim == 2
    with pytest.raises(DataError, match="no tensor 'basis', and none 'coef' of a linear probe"):
        Subspace.load(MLPProbe(seed=0, max_epochs=1).fit(values, labels).save(tmp_path / "mlp"))


def test_coefficients_for_scaled_values_are_turned_into_raw_directions() -> None:
    """A probe on (x - mean) / scale has the direction coef / scale, not coef."""
    values, labels, _ = data()
    mean, scale = values.mean(axis=0), values.std(axis=0)
    raw = MeanDifferenceProbe().fit(values, labels)
    scaled = MeanDifferenceProbe().fit((values - mean) / scale, labels)
    along = (values - mean) / scale @ (scaled.coef_[1] - scaled.coef_[0])
    found = Subspace.from_coefficients(torch.tensor(scaled.coef_), "scaled", scale=torch.tensor(scale))
    assert np.corrcoef(values @ found.basis[0].double().numpy(), along)[0, 1] > 1 - 1e-6
    wrong = Subspace.from_coefficients(torch.tensor(scaled.coef_), "wrong")
    assert abs(np.corrcoef(values @ wrong.basis[0].double().numpy(), along)[0, 1]) < 0.99
    plain = Subspace.from_coefficients(torch.tensor(raw.coef_), "raw").basis[0].double().numpy()
    shift = values[labels == "yes"].mean(axis=0) - values[labels == "no"].mean(axis=0)
    assert np.allclose(plain, shift / np.linalg.norm(shift), atol=1e-6)


def test_a_probes_file_is_a_mediator(tmp_path: Path) -> None:
    model = made()
    pairs = pairs_of(model)
    acts = model.capture(pairs.clean, "resid_post.1")["resid_post.1"]
    folder = MeanDifferenceProbe().fit(acts, ["a", "b"] * 4).save(tmp_path / "probe")
    found = mediation.exhaustive(model, pairs, f"subspace:{folder}@resid_post.1", positions=-1)
    assert str(found.mediators[0]) == "subspace:probe@resid_post.1@-1"
    assert np.abs(found.mean()).max() > 0


def test_what_cannot_be_proposed_is_refused() -> None:
    model = made()
    pairs = pairs_of(model)
    with pytest.raises(ConfigError, match="of='both' asked"):
        mediation.pca(model, pairs, "resid_post.1", of="both")
    with pytest.raises(ConfigError, match="dim=9 asked, but the values span 8 dimensions"):
        mediation.pca(model, pairs, "resid_post.1", dim=9)
    with pytest.raises(SiteError, match="a subspace needs one site with a width"):
        mediation.mean_difference(model, pairs, "head.*")
    with pytest.raises(DataError, match="do not span as many dimensions"):
        mediation.mean_difference(model, pairs, "resid_post.1", position=0)
    with pytest.raises(DataError, match="the coefficients of all classes are equal"):
        Subspace.from_coefficients(torch.ones(3, 4), "flat")
