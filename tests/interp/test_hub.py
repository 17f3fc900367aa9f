"""Sharing on the Hub: a round trip over HTTP with a stand-in, and everything that must be refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import interp
from interp import features, lenses
from interp.analyses.monitoring import Monitor, MonitorResult
from interp.cli import main
from interp.errors import ArtifactError, ConfigError, ModelError
from interp.features import FeatureCertificate
from interp.lenses import JacobianLens
from interp.lenses.texts import prepared
from interp.lenses.translator import fitted
from interp.models.readout import Readout
from interp.results import Result
from interp.steering import Vector
from interp.steering.vector import Origin
from probes import LogisticProbe, Probe, ProbeFileError
from probes import load as load_probe
from probes.cards import ProbeCard
from probes.hub import address
from tests.dictionaries import random_dictionary
from tests.hub_server import Hub, Repo, running
from tests.interp.every_result import result_of
from tests.tiny import build, tiny, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # how the client uploads
REPO = "user/thing"
SCORE = {"value": 0.91, "low": 0.88, "high": 0.94}
CARD = ProbeCard(
    model="owner/model",
    site="resid_post.2",
    data="fruit|s",
    metrics={"auroc": SCORE},
    controls={"shuffled": 0.512},
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub on loopback, an empty cache, and no token."""
    with running() as served:
        for name, value in {
            "ENDPOINT": served.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield served


@pytest.fixture
def vector() -> Vector:
    drawn = torch.randn(2, 8, generator=torch.Generator().manual_seed(4))
    origin = Origin(
        "mean-difference", {"name": "owner/model", "type": "llama"}, positive=3, examples=("a cat",)
    )
    return Vector.of("sea", {"resid_post.1": drawn[0], "resid_post.2": drawn[1]}, origin)


def fitted_probe(seed: int = 0) -> LogisticProbe:
    X = np.random.default_rng(seed).normal(size=(40, 4))
    probe = LogisticProbe(regularisation=0.1).fit(X, np.where(X[:, 0] > 0, "yes", "no"))
    probe.card_ = CARD
    return probe


def test_a_probe_comes_back_with_its_commit(hub: Hub) -> None:
    probe, X = fitted_probe(), np.random.default_rng(1).normal(size=(9, 4))
    source = probe.push_to_hub(REPO, license="mit")
    found = LogisticProbe.from_pretrained(REPO)
    commit = hub.repos[REPO].branches["main"]
    assert source == found.card_.hub == f"{REPO}@{commit}" and len(commit) == 40
    assert np.array_equal(found.decision_function(X), probe.decision_function(X))
    assert replace(found.card_, hub="") == CARD
    assert isinstance(load_probe(f"hf://{REPO}@{commit[:40]}", width=4), LogisticProbe)
    files = hub.files(REPO)
    assert set(files) == {".gitattributes", "README.md", "interp.json", "probe.json", "probe.safetensors"}
    sent = [call for call in hub.calls if call.startswith("PUT /lfs/")]
    assert sent == [f"PUT /lfs/{hashlib.sha256(files['probe.safetensors']).hexdigest()}"]


def test_the_card_is_one_the_hub_takes_and_says_what_must_be_beaten(hub: Hub) -> None:
    fitted_probe().push_to_hub(REPO, license="mit", visibility="private")
    _, front, text = card(hub).split("---", 2)
    assert hub.repos[REPO].private and "POST /api/validate-yaml" in hub.calls
    assert yaml.safe_load(front) == {
        "base_model": "owner/model",
        "library_name": "interp-toolkit",
        "license": "mit",
        "tags": ["interpretability", "probe"],
    }
    assert "| auroc | 0.910 \\[0.880, 0.940\\] |" in text and "| shuffled | 0.512 |" in text
    assert "fruit\\|s" in text and f'Probe.from_pretrained("{REPO}")' in text and "none recorded" in text


def test_a_vector_and_its_card(hub: Hub, vector: Vector) -> None:
    source = vector.push_to_hub(REPO)
    found = Vector.load(f"hf://{REPO}")
    assert found.sites == vector.sites and found.units == vector.units and found.origin.hub == source
    assert all(torch.equal(found.directions[site], vector.directions[site]) for site in vector.sites)
    assert replace(found.origin, hub="") == vector.origin
    text = card(hub)
    assert "## Controls\n\nNone are recorded." in text and "was not evaluated" in text


def test_a_circuit_and_what_it_does(hub: Hub) -> None:
    made = result_of("interp.evaluation/2")
    source = made.push_to_hub(REPO)
    found = type(made).from_pretrained(REPO)
    assert found.about.hub == source and replace(found.about, hub="") == made.about
    assert {**found.summary(), "about": 0} == {**made.summary(), "about": 0}
    text = card(hub)
    assert all(one.title in text for one in made.numbers() if not one.hidden)
    other = next(one for one in (Result, *Result.__subclasses__()) if not isinstance(made, one))
    with pytest.raises(ArtifactError, match=f"holds a {type(made).__name__}, asked for a {other.__name__}"):
        other.from_pretrained(REPO)


def test_a_monitor(hub: Hub) -> None:
    made = result_of("interp.monitor/1")
    assert isinstance(made, MonitorResult)
    source = made.monitor.push_to_hub(REPO)
    found = Monitor.from_pretrained(REPO)
    assert found.hub == source and found.threshold == made.monitor.threshold
    assert all(
        np.array_equal(one, found.probe.arrays()[name]) for name, one in made.monitor.probe.arrays().items()
    )
    assert "probe/probe.safetensors" in hub.files(REPO) and "other sources" in card(hub)


def card(hub: Hub) -> str:
    return hub.files(REPO)["README.md"].decode()


def test_a_branch_that_moves_leaves_the_recorded_commit_as_it_was(hub: Hub) -> None:
    first = fitted_probe(0)
    old = first.push_to_hub(REPO)
    new = fitted_probe(7).push_to_hub(REPO)
    assert old != new and Probe.from_pretrained(REPO).card_.hub == new
    repo, _, commit = old.partition("@")
    again = Probe.from_pretrained(repo, revision=commit)
    assert again.card_.hub == old and np.array_equal(again.arrays()["coef"], first.arrays()["coef"])
    assert not np.array_equal(Probe.from_pretrained(REPO).arrays()["coef"], first.arrays()["coef"])
    draft = fitted_probe(9).push_to_hub(REPO, revision="draft")
    assert Probe.from_pretrained(REPO, revision="draft").card_.hub == draft
    assert Probe.from_pretrained(REPO).card_.hub == new


def test_what_is_cached_needs_no_network_nor_a_second_download(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fitted_probe().push_to_hub(REPO)
    Probe.from_pretrained(REPO)
    before = len([call for call in hub.calls if "/resolve/" in call])
    Probe.from_pretrained(REPO)
    assert len([call for call in hub.calls if "/resolve/" in call]) == before
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert Probe.from_pretrained(REPO).card_.hub == source


@pytest.mark.parametrize("name", ["vector.safetensors", "vector.json"])
def test_a_file_that_is_not_what_was_pushed_is_refused(hub: Hub, vector: Vector, name: str) -> None:
    vector.push_to_hub(REPO)
    changed = bytearray(hub.files(REPO)[name])
    at = changed.index(b"sea") if name.endswith("json") else len(changed) - 1
    changed[at] ^= 1
    hub.repos[REPO].commit("main", {name: bytes(changed)})
    with pytest.raises(
        ArtifactError, match=f"{name} of user/thing at .* is not the file that interp.json names"
    ):
        Vector.from_pretrained(REPO)


def test_a_pickle_is_refused_and_one_beside_is_not_fetched(hub: Hub, vector: Vector, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    evil = b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR."
    hub.repos["user/old"] = Repo()
    hub.repos["user/old"].commit("main", {"vector.pt": evil, "config.json": b"{}"})
    with pytest.raises(ArtifactError, match=r"holds vector\.pt, which could run anything"):
        Vector.from_pretrained("user/old")
    vector.push_to_hub(REPO)
    hub.repos[REPO].commit("main", {"vector.pkl": evil})
    assert Vector.from_pretrained(REPO).name == "sea"
    assert not list(tmp_path.rglob("*.pkl")) and not list(tmp_path.rglob("*.pt")) and not ran.exists()
    manifest = json.loads(hub.files(REPO)["interp.json"])
    manifest["files"]["vector.pkl"] = hashlib.sha256(evil).hexdigest()
    hub.repos[REPO].commit("main", {"interp.json": json.dumps(manifest).encode()})
    with pytest.raises(ArtifactError, match=r"names 'vector\.pkl' among its files; only \.safetensors"):
        Vector.from_pretrained(REPO)


@pytest.mark.parametrize("name", ["../vector.json", "/etc/x.json", "*.json", "a\\b.json"])
def test_a_path_out_of_the_repository_is_refused(hub: Hub, vector: Vector, name: str) -> None:
    vector.push_to_hub(REPO)
    manifest = json.loads(hub.files(REPO)["interp.json"])
    manifest["files"][name] = "0" * 64
    hub.repos[REPO].commit("main", {"interp.json": json.dumps(manifest).encode()})
    with pytest.raises(ArtifactError, match="among its files"):
        Vector.from_pretrained(REPO)


def test_another_kind_is_refused_before_it_is_fetched(hub: Hub, vector: Vector) -> None:
    fitted_probe().push_to_hub(REPO)
    with pytest.raises(ArtifactError, match="holds a probe, asked for a result"):
        Result.from_pretrained(REPO)
    with pytest.raises(ArtifactError, match="holds a probe, asked for a steering vector"):
        Vector.from_pretrained(REPO)
    assert not [call for call in hub.calls if call.endswith("probe.safetensors")]
    vector.push_to_hub("user/vector")
    with pytest.raises(ProbeFileError, match="holds a steering vector, asked for a probe"):
        load_probe("hf://user/vector")


def test_what_the_hub_does_not_have_or_refuses(hub: Hub, vector: Vector) -> None:
    with pytest.raises(ModelError, match="the Hub has no user/nothing that is seen from here"):
        Vector.from_pretrained("user/nothing")
    vector.push_to_hub(REPO)
    with pytest.raises(ModelError, match="has no revision 'v9'; give a branch, a tag or a commit"):
        Vector.from_pretrained(REPO, revision="v9")
    hub.repos["user/gpt"] = Repo()
    hub.repos["user/gpt"].commit("main", {"model.safetensors": b"x"})
    with pytest.raises(ArtifactError, match=r"has no interp\.json \(it holds model\.safetensors\)"):
        Vector.from_pretrained("user/gpt")
    hub.status = 403
    with pytest.raises(ModelError, match="the Hub answers 403 for user/other: log in"):
        vector.push_to_hub("user/other")


@pytest.mark.parametrize("name", ["thing", "a/b/c", "user/..", "us er/x", "/x", "user/x--y", ""])
def test_names_that_are_none(vector: Vector, name: str) -> None:
    with pytest.raises(ConfigError, match="is no repository of the Hub; give user/name"):
        vector.push_to_hub(name)
    with pytest.raises(ConfigError, match="is no repository of the Hub"):
        Vector.from_pretrained(name)


def test_addresses() -> None:
    assert address("hf://user/name") == ("user/name", "main")
    assert address("hf://user/name@v1.0") == ("user/name", "v1.0")
    assert address(Path("hf://user/name@refs/pr/1")) == ("user/name", "refs/pr/1")
    assert address("user/name") is None and address("./hf/user") is None


def test_no_network_is_one_line_with_a_remedy_in_seconds(
    hub: Hub, vector: Vector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed}")
    began = time.monotonic()
    for call in (lambda: Vector.from_pretrained(REPO), lambda: vector.push_to_hub(REPO)):
        with pytest.raises(ModelError, match=r"the Hub was not reached.*Check the network") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("place", ["/home/ann/data.csv", "C:\\Users\\ann\\x", str(Path.home() / "x.csv")])
def test_folders_of_this_machine_do_not_leave_it(hub: Hub, vector: Vector, place: str) -> None:
    private = replace(vector, origin=replace(vector.origin, positions=place))
    with pytest.raises(ArtifactError, match="a folder of this machine, which would be public"):
        private.push_to_hub(REPO)
    assert hub.repos == {}


def test_a_dictionary_with_its_certificate_and_its_controls(hub: Hub) -> None:
    made, judged = random_dictionary(activation="topk"), result_of("interp.feature-certificate/1")
    assert isinstance(judged, FeatureCertificate)
    source = features.push_to_hub(made, REPO, certificate=judged)
    found = features.load(f"hf://{REPO}")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    assert found.card["hub"] == source and torch.equal(found.encode(x), made.encode(x))
    assert {"cfg.json", "sae_weights.safetensors"} < set(hub.files(REPO))
    assert judged.number("variance-explained").title in card(hub) and judged.cautions()[0][:20] in card(hub)
    features.push_to_hub(made, REPO)
    assert "No certificate was given" in card(hub) and "None are recorded" in card(hub)
    with pytest.raises(ArtifactError, match="holds a dictionary, asked for a steering vector"):
        Vector.from_pretrained(REPO)
    with pytest.raises(ConfigError, match="does not fit the layout of SAELens"):
        features.push_to_hub(random_dictionary(activation="gated"), REPO)


def test_lenses(hub: Hub) -> None:
    model = interp.load(tiny("llama")[0], tokenizer=tokenizer())
    other = interp.load(build("llama", seed=7), tokenizer=tokenizer())
    own = prepared(model, ["w01 w02 w03 w04", "w02 w05 w07", "w03 w09 w01"], n_tokens=0)
    states = torch.randn(4, model.d_model, generator=torch.Generator().manual_seed(0))
    matrices = {0: torch.randn(model.d_model, model.d_model, generator=torch.Generator().manual_seed(1))}
    jacobian = JacobianLens(Readout.precise(model.architecture), (0, 2), matrices, {"texts": "own"}, {0: 0.1})
    for lens in (fitted(model, [0, 1], own), jacobian):
        source = lenses.push_to_hub(lens, REPO, model)
        found = lenses.opened(f"hf://{REPO}", model)
        assert found.layers == lens.layers and found.card()["fitted_on"]["hub"] == source
        assert torch.equal(found.logits(states, 0), lens.logits(states, 0))
        with pytest.raises(ArtifactError, match=r"other weights|fingerprint"):
            lenses.opened(f"hf://{REPO}", other)
        hub.repos.clear()
        shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    lenses.push_to_hub(fitted(model, [0], own), REPO, model)
    assert "at layer 0: logit lens" in card(hub).partition("## Controls")[2]


def test_from_the_shell(hub: Hub, vector: Vector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vector.save(tmp_path / "v")
    assert main(["push", str(tmp_path / "v"), REPO, "--visibility", "private", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert Vector.load(f"hf://{REPO}@{told['commit']}").origin.hub == told["source"]
    assert hub.repos[REPO].private
    fitted_probe().save(tmp_path / "p")
    assert main(["push", str(tmp_path / "p"), "user/p"]) == 0
    assert "load it: hf://user/p@" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for line, code, words in (
        (["push", str(tmp_path / "v")], 2, "Missing argument 'REPO'"),
        (["push", str(tmp_path / "v"), "name"], 2, "'name' is no repository of the Hub"),
        (["push", str(tmp_path / "empty"), REPO], 3, "holds nothing to push"),
        (["push", str(tmp_path / "none"), REPO], 3, "there is no folder"),
    ):
        assert main(line) == code
        assert words in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_of_a_run_for_other_programs(tmp_path: Path, kind: str) -> None:
    made = result_of("interp.evaluation/2")
    made.save(tmp_path / "run" / "result")
    assert main(["export", str(tmp_path / "run"), "--to", kind, "--out", str(tmp_path / "t")]) == 0
    names = sorted(path.stem for path in (tmp_path / "t").iterdir())
    assert names == sorted(one.name for one in made.tables())
    for table in made.tables():
        read = pd.read_csv if kind == "csv" else pd.read_parquet
        frame = read(tmp_path / "t" / f"{table.name}.{kind}")
        assert list(frame.columns) == list(table.columns) and len(frame) == len(table.rows)
        for name in frame.select_dtypes("number"):
            wanted = pd.to_numeric(table.frame()[name], errors="coerce")
            assert np.allclose(frame[name].astype(float), wanted.astype(float), equal_nan=True)
    assert main(["export", str(tmp_path / "run"), "--to", "xls"]) == 2
    with pytest.raises(ConfigError, match="to='xls' asked; tables are written to csv or parquet"):
        made.export(tmp_path, to="xls")
