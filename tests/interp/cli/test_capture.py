"""``interp capture`` and ``interp doctor``: what is stored is what was computed; a crash costs one shard."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp import runs
from interp.scaling.jobs import CaptureJob, Handed
from interp.store import ActivationStore, Part
from tests.interp.cli.conftest import Call

ARGUMENTS = ("capture", "--model", "TINY", "--data", "DATA", "--out", "x")


def test_what_is_stored_is_what_the_library_captures(call: Call, place: Path) -> None:
    answer = call(
        *ARGUMENTS, "--sites", "resid_post.*,head.1.2", "--positions", "-2", "--limit", "20", "--json"
    )
    assert answer.code == 0
    envelope = answer.envelope
    assert [site["site"] for site in envelope["data"]["tables"]["sites"]["rows"]] == [
        "resid_post.0",
        "head.1.2",
        "resid_post.1",
        "resid_post.2",
    ]
    runs.verify("x")
    store = ActivationStore("x")
    model = interp.load(place / "tiny")
    expected = model.capture([list(ids) for ids in store.load().token_ids], "resid_post.1", -2)
    torch.testing.assert_close(store.read("resid_post.1"), expected["resid_post.1"])
    assert store.load().texts[0].startswith("w")
    assert call("show", "x").code == 0 and call("report", "x").code == 0
    runs.verify("x")


def test_all_positions_and_no_text(call: Call) -> None:
    assert (
        call(*ARGUMENTS, "--sites", "mlp_out.0", "--positions", "all", "--no-text", "--limit", "8").code == 0
    )
    acts = ActivationStore("x").load()
    assert tuple(acts["mlp_out.0"].shape) == (8, 3, 32) and set(acts.texts) == {""}
    assert {token for ids in acts.token_ids for token in ids} == {-1}, "ids decode to the text"


@pytest.fixture
def interrupted(call: Call, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Capture in shards of 40, and interrupt after so many of them."""

    def run(after: int) -> Any:
        append, count = ActivationStore.append, iter(range(100))

        def interrupting(self: ActivationStore, acts: interp.Activations) -> int:
            if next(count) == after:
                raise KeyboardInterrupt
            return append(self, acts)

        with monkeypatch.context() as patch:
            patch.setattr(ActivationStore, "append", interrupting)
            return call(*ARGUMENTS, "--sites", "resid_post.1")

    to_do = ActivationStore.to_do
    monkeypatch.setattr(ActivationStore, "to_do", lambda self, total, size: to_do(self, total, size=40))
    return run


def test_an_interrupted_capture_goes_on_where_it_stopped(call: Call, interrupted: Any) -> None:
    answer = interrupted(2)
    assert answer.code == 130
    line = answer.err.strip().splitlines()[-1].split("continue with: ")[1]
    assert line.endswith("--out x --resume")
    assert len(ActivationStore("x")) == 80
    assert call("capture", "--model", "TINY", "--data", "DATA", "--out", "x").code == 2
    changed = call(*ARGUMENTS, "--sites", "resid_post.2", "--resume")
    assert changed.code == 2 and "sites = 'resid_post.1', asked is 'resid_post.2'" in changed.err
    before = Path("x/activations/resid_post.1/00001.safetensors").stat().st_mtime_ns
    assert call(*ARGUMENTS, "--sites", "resid_post.1", "--resume").code == 0
    assert Path("x/activations/resid_post.1/00001.safetensors").stat().st_mtime_ns == before, "not made again"
    runs.verify("x")
    assert call(*ARGUMENTS[:-1], "y", "--sites", "resid_post.1").code == 0
    for file in Path("y/activations").rglob("*.safetensors"):
        assert file.read_bytes() == Path("x", *file.parts[1:]).read_bytes()


def test_a_capture_interrupted_before_its_first_shard_leaves_nothing(interrupted: Any) -> None:
    answer = interrupted(0)
    assert answer.code == 130 and "run again: interp capture" in answer.err
    assert list(Path().iterdir()) == []


def test_workers_get_a_job_that_can_be_sent_and_a_run_that_is_joined_stays_the_same(
    call: Call, monkeypatch: pytest.MonkeyPatch, interrupted: Any
) -> None:
    def here(job: CaptureJob, handed: Sequence[Handed], workers: int) -> Iterator[Part]:
        sent = pickle.loads(pickle.dumps(job))
        model = sent.model()
        yield from (sent.write(model, one) for one in reversed(handed))

    monkeypatch.setattr("interp.scaling.engines.ENGINES", {"processes": here})
    given = ("--sites", "resid_post.1", "--scheme", "rtn4")
    assert call(*ARGUMENTS, *given, "--workers", "2").code == 0
    assert call(*ARGUMENTS[:-1], "y", *given).code == 0
    assert runs.verify("x") and states_of("x") == states_of("y")
    assert interrupted(1).code == 2, "x is taken"
    shutil.rmtree("x")
    assert interrupted(1).code == 130 and len(ActivationStore("x")) == 40
    helped = call("join", "x")
    assert helped.code == 0 and "80 prompts of x were read here" in helped.out
    assert len(ActivationStore("x")) == 40, "they count when the capture goes on"
    assert call(*ARGUMENTS, "--sites", "resid_post.1", "--resume").code == 0
    runs.verify("x")
    assert call("join", "x").out.startswith("0 prompts of x were read here")
    assert call(*ARGUMENTS[:-1], "z", "--sites", "resid_post.1").code == 0
    assert states_of("x") == states_of("z")


def states_of(run: str) -> dict[str, bytes]:
    """Read every file of a run's states."""
    root = Path(run, "activations")
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_only_a_capture_is_joined(call: Call) -> None:
    absent = call("join", "nowhere", "--wait", "0")
    assert absent.code == 2 and "interp capture ... --out nowhere" in absent.err
    assert call("generate", "--model", "TINY", "w01 w02", "--max-new-tokens", "1", "--out", "g").code == 0
    other = call("join", "g")
    assert other.code == 6 and "'g' is a run of `interp generate`" in other.err


def test_a_dry_run_foretells_the_bytes(call: Call) -> None:
    plan = call(*ARGUMENTS, "--sites", "resid_post.*", "--positions", "all", "--dry-run", "--json").envelope[
        "data"
    ]
    assert not Path("x").exists()
    assert call(*ARGUMENTS, "--sites", "resid_post.*", "--positions", "all").code == 0
    written = sum(file.stat().st_size for file in Path("x/activations").rglob("*.safetensors"))
    assert 0.5 < plan["disk_bytes"] / written < 2


def test_doctor_prints_environment_certificate_and_verdict(call: Call) -> None:
    plain = call("doctor", "--model", "TINY")
    assert plain.code == 0
    for part in ("environment: python", "resid_post", "padding", "Noise floor", "No check failed"):
        assert part in plain.out
    data = call("doctor", "--model", "TINY", "--json").envelope["data"]
    assert data["passed"] is True and data["certificate"]["tables"]["checks"]["n_rows"] >= 10
    assert {row["item"] for row in data["environment"]} >= {
        "python",
        "torch",
        "accelerators",
        "bundled model",
    }


def test_doctor_exits_4_on_a_model_that_fails_and_runs_carry_the_warning(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from interp.models import doctor

    examine = doctor.examine

    def failing(model: interp.Model, **given: Any) -> doctor.Certificate:
        found = examine(model, **given)
        checks = [dataclasses.replace(found.checks[0], status="fail"), *found.checks[1:]]
        return dataclasses.replace(found, checks=tuple(checks))

    monkeypatch.setattr(doctor, "examine", failing)
    answer = call("doctor", "--model", "TINY", "--json")
    assert answer.code == 4 and answer.envelope["data"]["passed"] is False
    assert "checks failed: all values are finite" in answer.err
    assert call(*ARGUMENTS, "--sites", "resid_post.1").code == 0
    assert "fails the check" in json.loads(Path("x/run.json").read_text())["warnings"][0]


def test_a_missing_package_is_found(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.cli import doctor

    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no-such-package"))
    answer = call("doctor", "--model", "TINY")
    assert answer.code == 4 and "no-such-package" in answer.err and "pip install" in answer.out


OWN_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({marker!r}).write_text("ran")
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_models_own_code_runs_only_with_the_flag(
    call: Call, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, marker = shutil.copytree(place / "tiny", tmp_path / "own"), tmp_path / "marker"
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own_llama",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(OWN_CODE.format(marker=str(marker)))
    answer = call("capture", "--model", str(folder), "--data", "DATA", "--dry-run")
    assert answer.code == 4 and "--trust-remote-code" in answer.err and not marker.exists()
    monkeypatch.setenv("INTERP_TRUST_REMOTE_CODE", "1")
    assert call("capture", "--model", str(folder), "--data", "DATA", "--dry-run").code == 2
    assert not marker.exists()
    monkeypatch.delenv("INTERP_TRUST_REMOTE_CODE")
    assert (
        call("capture", "--model", str(folder), "--data", "DATA", "--dry-run", "--trust-remote-code").code
        == 0
    )
    assert marker.exists()
