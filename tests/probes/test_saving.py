"""Saved probes: what is refused, and that text from data stays text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from probes import ProbeFileError, load
from probes.cards import ProbeCard
from probes.linear import LogisticProbe, RidgeProbe

CARD = ProbeCard(
    model="demo",
    fingerprint="ab" * 32,
    site="resid_post.20",
    data="analogy-relation",
    metrics={"accuracy": {"value": 0.93, "low": 0.91, "high": 0.95}},
    controls={"majority": {"value": 0.1, "low": None, "high": None}},
    known_failures=("rare relations",),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 4))
    return (
        LogisticProbe(regularisation=0.1)
        .fit(X, np.where(X[:, 0] > 0, "yes", "no"))
        .save(tmp_path / "p", card=CARD)
    )


def test_the_card_comes_back(folder: Path) -> None:
    assert load(folder).card_ == CARD
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "probe.json", "probe.safetensors"]


def test_saving_again_keeps_the_card(folder: Path, tmp_path: Path) -> None:
    again = load(folder).save(tmp_path / "again")
    assert (again / "probe.json").read_bytes() == (folder / "probe.json").read_bytes()


def test_what_fits_is_loaded(folder: Path) -> None:
    load(folder, fingerprint="ab" * 32, site="resid_post.20", scheme="none", width=4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fingerprint": "cd" * 32}, "fingerprint abab.*, asked for cdcd"),
        ({"site": "resid_post.19"}, "site resid_post.20, asked for resid_post.19"),
        ({"scheme": "int8"}, "scheme none, asked for int8"),
        ({"width": 64}, "width 4, asked for 64"),
        ({"site": "embed", "width": 64}, "site .*; width 4"),
    ],
)
def test_what_does_not_fit_is_refused_unless_allowed(folder: Path, asked: dict, message: str) -> None:
    with pytest.raises(ProbeFileError, match=message):
        load(folder, **asked)
    assert load(folder, **asked, allow_mismatch=True).width == 4
    with pytest.raises(ProbeFileError, match=message):
        LogisticProbe.load(folder, **asked)


def test_an_unrecorded_model_does_not_match_one_asked_for(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(10, 2))
    folder = RidgeProbe(regularisation=1.0).fit(X, X[:, 0] > 0).save(tmp_path)
    with pytest.raises(ProbeFileError, match="fingerprint not recorded, asked for ab"):
        load(folder, fingerprint="ab")


def test_another_class_is_refused(folder: Path) -> None:
    with pytest.raises(
        ProbeFileError, match=r"holds a LogisticProbe, asked for a RidgeProbe; use LogisticProbe\.load"
    ):
        RidgeProbe.load(folder)


def test_one_flipped_bit_is_found(folder: Path) -> None:
    path = folder / "probe.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ProbeFileError, match="sha256 differs"):
        load(folder)


def test_one_changed_number_of_the_record_is_found(folder: Path) -> None:
    record = json.loads((folder / "probe.json").read_text())
    record["card"] = {**record["card"], "site": "resid_post.7"}
    (folder / "probe.json").write_text(json.dumps(record))
    with pytest.raises(ProbeFileError, match="was changed: its checksum"):
        load(folder)
    del record["checksum"]
    (folder / "probe.json").write_text(json.dumps(record))
    assert load(folder).kind == record["kind"], "older ones have none"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no record of schema"),
        ('{"schema": "other"}', "is no record of schema"),
    ],
)
def test_a_broken_record_is_named(folder: Path, text: str, message: str) -> None:
    (folder / "probe.json").write_text(text)
    with pytest.raises(ProbeFileError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "quantum", "holds a 'quantum' probe; this version knows: logistic"),
        ("parameters", {"colour": 1}, "does not fit a logistic probe"),
        ("learned", {"classes": ["a"]}, "does not fit a logistic probe"),
        ("learned", {}, "does not fit a logistic probe"),
    ],
)
def test_a_record_of_something_else_is_named(folder: Path, key: str, value: object, message: str) -> None:
    record = json.loads((folder / "probe.json").read_text())
    del record["checksum"]
    (folder / "probe.json").write_text(json.dumps({**record, key: value}))
    with pytest.raises(ProbeFileError, match=message):
        load(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ProbeFileError, match=r"no probe in .*nowhere"):
        load(tmp_path / "nowhere")
    (folder / "probe.safetensors").unlink()
    with pytest.raises(ProbeFileError, match=r"cannot read .*probe\.safetensors"):
        load(folder)


def test_the_readme_shows_scores_and_keeps_text_inert(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(10, 2))
    labels = np.where(X[:, 0] > 0, "<script>alert(1)</script>", "a|b\n# title")
    card = ProbeCard(site="resid_post.20", metrics={"accuracy": {"value": 0.9312, "low": 0.9, "high": 0.95}})
    text = (RidgeProbe(regularisation=1.0).fit(X, labels).save(tmp_path, card=card) / "README.md").read_text()
    assert "| accuracy | 0.931 \\[0.900, 0.950\\] |" in text
    assert "<script>" not in text
    assert "a\\|b" in text
    assert "\n# title" not in text


def test_a_failed_write_leaves_no_temporary_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        load(folder).save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
