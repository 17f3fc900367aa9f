"""``interp probe`` from the first word to the last file, on a tiny model; and what reads a run afterwards."""

from __future__ import annotations

import html
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import interp
import probes
from interp import runs
from interp.analyses import ProbeResult
from interp.errors import ArtifactError, ConfigError
from interp.results import load
from interp.results.codec import CHECKSUM
from tests.interp.cli.conftest import Answer, Call

ARGUMENTS = ("probe", "--model", "TINY", "--data", "DATA")
LAYOUT = {"run.json", "data.parquet", "metrics.json", "result/result.json", "report.html", "log.jsonl"}


@pytest.fixture(scope="module")
def made(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Give the folder of one run over all layers, and its envelope."""
    import contextlib
    import io

    from interp.cli import main

    folder = tmp_path_factory.mktemp("made") / "run"
    out = io.StringIO()
    names = {"TINY": str(place / "tiny"), "DATA": str(place / "words.csv")}
    words = [names.get(word, word) for word in (*ARGUMENTS, "--out", str(folder), "--json", "-q")]
    with contextlib.redirect_stdout(out):
        assert main(words) == 0
    return folder, json.loads(out.getvalue())


def test_the_run_folder_holds_what_the_layout_says(made: tuple[Path, dict]) -> None:
    folder, envelope = made
    files = set(runs.files(folder))
    assert files >= LAYOUT
    assert {f"probes/resid_post.{layer}/probe.safetensors" for layer in range(3)} <= files
    assert {f"tables/{name}.parquet" for name in ("scores", "layers")} <= files
    assert {
        "figures/scores.svg",
        "figures/scores.html",
        "figures/layers.svg",
        "figures/confusion.svg",
    } <= files
    assert files == set(envelope["artifacts"]), "nothing is written that is not named"
    assert files | {"manifest.json"} == {
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
    }
    runs.verify(folder)
    assert len([name for name in files if name.endswith("probe.safetensors")]) == 3  # each is there once


def test_the_probes_of_a_run_load_by_every_way(made: tuple[Path, dict], tmp_path: Path) -> None:
    folder, test = made[0], torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    whole = load(folder / "result")
    assert isinstance(whole, ProbeResult)
    alone = load(whole.save(tmp_path / "alone"))
    shutil.copytree(folder, tmp_path / "moved")
    moved = load(tmp_path / "moved" / "result")
    assert isinstance(alone, ProbeResult) and isinstance(moved, ProbeResult)
    for layer in range(3):
        read = probes.load(folder / "probes" / f"resid_post.{layer}").decision_function(test)
        assert float(abs(read).max()) > 0
        for found in (whole, alone, moved):
            np.testing.assert_array_equal(found.probes[layer].decision_function(test), read)
    shutil.rmtree(tmp_path / "moved" / "probes")
    with pytest.raises(ArtifactError, match=r"kept in ../probes/resid_post.0, which is not there. Keep the"):
        load(tmp_path / "moved" / "result")
    facts = (tmp_path / "moved" / "result" / "result.json").read_text()
    (tmp_path / "moved" / "result" / "result.json").write_text(
        facts.replace("../probes", "../../alone/objects")
    )
    with pytest.raises(ArtifactError, match="its checksum does not match its content"):
        load(tmp_path / "moved" / "result")
    content = json.loads(facts.replace("../probes", "../../alone/objects"))
    del content[CHECKSUM]  # as an older version, or somebody who forges, would have it
    (tmp_path / "moved" / "result" / "result.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="outside of the run's folder"):
        load(tmp_path / "moved" / "result")


def test_the_envelope_holds_scores_controls_and_intervals(made: tuple[Path, dict]) -> None:
    folder, envelope = made
    data = envelope["data"]
    assert (envelope["status"], envelope["run"]) == ("ok", folder.as_posix())
    rows = data["tables"]["scores"]["rows"]
    names = {row["name"] for row in rows}
    assert names == {"probe", "shuffled", "random-weights", "bag-of-tokens", "majority", "chance"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows if row["name"] != "chance")
    assert data["numbers"]["accuracy"]["value"] > 0.7, "the label is a function of the last word"
    assert json.loads((folder / "metrics.json").read_text()) == {
        key: value for key, value in data.items() if key != "certificate"
    }
    assert load(folder / "result").summary()["tables"] == data["tables"]


def test_run_json_says_what_was_asked_of_what_with_which_checks(made: tuple[Path, dict]) -> None:
    facts = json.loads((made[0] / "run.json").read_text())
    assert facts["configuration"]["layers"] == "all" and facts["origins"]["model"] == "flag"
    assert len(facts["model"]["fingerprint"]) == 64 and len(facts["data"]["fingerprint"]) == 64
    assert facts["certificate"]["result"]["checks"] and facts["versions"]["torch"]
    assert facts["command_line"].startswith("interp probe --model ")


def test_the_rows_hold_text_ids_splits_and_what_was_read(made: tuple[Path, dict]) -> None:
    rows = pd.read_parquet(made[0] / "data.parquet")
    assert list(rows["n_tokens"]) == [3] * 160 and list(rows["row"]) == list(range(160))
    assert all(4 <= token < 64 for ids in rows["token_ids"] for token in ids)
    assert set(rows["split"]) == {"train", "validation", "test"}
    test = rows[rows["split"] == "test"]
    accuracy = made[1]["data"]["numbers"]["accuracy"]["value"]
    assert (test["label"] == test["predicted"]).mean() == pytest.approx(accuracy)
    assert rows.groupby("group")["split"].nunique().max() == 1


def test_the_same_command_gives_the_same_numbers(call: Call, made: tuple[Path, dict]) -> None:
    assert call(*ARGUMENTS, "--out", "again", "-q").code == 0
    for name in ("metrics.json", "probes/resid_post.1/probe.safetensors", "figures/scores.svg"):
        assert Path("again", name).read_bytes() == (made[0] / name).read_bytes(), name


def test_show_prints_the_run_and_finds_a_flipped_bit(
    call: Call, made: tuple[Path, dict], tmp_path: Path
) -> None:
    folder = shutil.copytree(made[0], tmp_path / "copy")
    plain = call("show", str(folder), "--verify")
    assert plain.code == 0
    for part in ("be read from layer", "random-weights", "Layer by layer", "each as it was written"):
        assert part in plain.out
    content = bytearray((folder / "tables/scores.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "tables/scores.parquet").write_bytes(content)
    for flags in ((), ("--verify",)):  # its size is the same; a small file is read in any case
        broken = call("show", str(folder), *flags)
        assert broken.code == 6 and "scores.parquet" in broken.err


class Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script" and not dict(attrs).get("type")

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def test_the_report_answers_and_says_how_to_make_it_again(made: tuple[Path, dict]) -> None:
    page = Text()
    page.feed((made[0] / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.found)
    verdict = made[1]["data"]["verdict"]
    for part in (
        verdict,
        "interp probe --model",
        "random-weights",
        "The model's certificate",
        "layer by layer",
    ):
        assert part in text
    assert page.scripts == 1


def test_report_writes_the_page_again_and_elsewhere(
    call: Call, made: tuple[Path, dict], tmp_path: Path
) -> None:
    folder = shutil.copytree(made[0], tmp_path / "copy")
    (folder / "report.html").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["report.html"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert call("report", str(folder)).code == 0
    runs.verify(folder)
    assert "report.html" in runs.files(folder)
    answer = call("report", str(folder), "--out", "page.html", "--json")
    assert answer.envelope["data"] == {"page": "page.html"} and Path("page.html").is_file()


def test_the_front_door_plots_a_run_and_its_result_and_refuses_the_rest(made: tuple[Path, dict]) -> None:
    figure = interp.plot(made[0])
    assert list(figure.data.columns) == ["x", "series", "value", "low", "high"]
    assert len(figure.data) == 6 and "test prompts" in figure.caption
    assert interp.plot(load(made[0] / "result")).data.equals(figure.data)
    for wrong in (3, {"schema": "other"}):
        with pytest.raises(ConfigError, match="no figure is known"):
            interp.plot(wrong)


def test_a_run_of_an_older_version_is_refused_with_what_can_be_done(
    call: Call, made: tuple[Path, dict], tmp_path: Path
) -> None:
    old = shutil.copytree(made[0], tmp_path / "old")
    shutil.rmtree(old / "result")  # versions before results had a folder of their own
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["files"] = {k: v for k, v in manifest["files"].items() if not k.startswith("result/")}
    (old / "manifest.json").write_text(json.dumps(manifest))
    line = json.loads((old / "run.json").read_text())["command_line"]
    for asked in (("show", str(old)), ("report", str(old))):
        answer = call(*asked)
        assert answer.code == 2 and "made by an older version" in answer.err
        assert f"make it again: {line} --out NEW" in answer.err
    with pytest.raises(ConfigError, match="made by an older version"):
        interp.plot(old)
    assert (old / "report.html").is_file() and (old / "metrics.json").is_file()  # as the message says
    with pytest.raises(ArtifactError, match=r"result.json is missing.*what result.save"):
        load(old)
    with pytest.raises(ArtifactError, match=r"result.json is missing.*Give '.*run/result'"):
        load(made[0])


def test_without_text_the_run_holds_hashes_and_no_word_of_the_prompts(call: Call) -> None:
    assert call(*ARGUMENTS, "--layer", "1", "--no-text", "--controls", "majority", "--out", "x").code == 0
    rows = pd.read_parquet("x/data.parquet")
    assert "text" not in rows and set(rows["text_sha256"].str.len()) == {64}
    assert not any(len(ids) for ids in rows["token_ids"]), "ids are the text in other words"
    for file in Path("x").rglob("*"):
        assert file.is_dir() or b"w59 " not in file.read_bytes(), file


def test_labels_that_look_like_markup_stay_text(call: Call, place: Path) -> None:
    names = {"low": "[/red]\\u001b[31m", "high": "<script>alert(1)</script>"}
    lines = (place / "words.csv").read_text().splitlines()[1:]
    with Path("evil.jsonl").open("w") as file:
        for line in lines:
            text, label, group = line.split(",")
            file.write(f'{{"text": "{text}", "label": "{names[label]}", "group": "{group}"}}\n')
    answer = call(
        "probe", "--model", "TINY", "--data", "evil.jsonl", "--layer", "0", "--position", "0", "--out", "x"
    )
    assert answer.code == 0
    assert "\x1b" not in answer.out + answer.err and "[/red]\\x1b[31m" in answer.out
    page = Text()
    page.feed(Path("x/report.html").read_text(encoding="utf-8"))
    assert page.scripts == 1 and any("<script>alert(1)</script>" in part for part in page.found)


def gate(call: Call, *gates: str) -> Answer:
    flags = [word for text in gates for word in ("--fail-under", text)]
    return call(
        *ARGUMENTS, "--layer", "1", "--controls", "majority", "--out", "x", "--overwrite", "--json", *flags
    )


def test_gates_end_with_7_and_leave_a_whole_run(call: Call) -> None:
    assert gate(call, "accuracy=0.5", "over-majority=0.1").code == 0
    answer = gate(call, "accuracy=0.5", "accuracy=1.01")
    assert (answer.code, answer.envelope["status"]) == (7, "gate-failed")
    assert answer.envelope["data"]["numbers"]["accuracy"]["value"] <= 1.0
    assert "GateError: --fail-under accuracy=1.01: accuracy is" in answer.err
    runs.verify("x")


def test_a_model_of_random_weights_is_probed_without_its_own_control(call: Call) -> None:
    answer = call(*ARGUMENTS, "--layer", "1", "--weights", "random", "--out", "x", "--json")
    assert answer.code == 0
    assert "random-weights" not in {
        row["name"] for row in answer.envelope["data"]["tables"]["scores"]["rows"]
    }
    again = call(
        *ARGUMENTS, "--layer", "1", "--weights", "random", "--out", "y", "--controls", "random-weights"
    )
    assert again.code == 2 and not Path("y").exists()


def test_a_dry_run_prints_the_plan_and_writes_nothing(call: Call) -> None:
    plain = call(*ARGUMENTS, "--layers", "0-1", "--dry-run")
    assert plain.code == 0 and list(Path().iterdir()) == []
    for part in ("prompts", "160", "tokens", "480", "peak memory", "disk"):
        assert part in plain.out
    envelope = call(*ARGUMENTS, "--layers", "0-1", "--dry-run", "--json").envelope
    assert envelope["status"] == "planned"
    assert envelope["data"]["forward_equivalents"] == pytest.approx(2 * 160 * 2 / 3, abs=0.1)


def test_quiet_is_quiet(call: Call) -> None:
    answer = call(*ARGUMENTS, "--layer", "1", "--controls", "majority", "--out", "x", "-q")
    assert answer.code == 0 and "Accuracy" in answer.out
    assert all(line.startswith("warning: ") for line in answer.err.splitlines())


def test_an_interrupted_probe_leaves_nothing_and_says_how_to_run_it_again(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.models.model import Model

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.analyses.probing.probe", interrupt)
    answer = call(*ARGUMENTS, "--layer", "1", "--out", "a/x")
    assert answer.code == 130 and list(Path().iterdir()) == []
    assert "run again: interp probe --model" in answer.err and Model


def test_strict_fails_on_a_leak_and_passes_without_one(call: Call) -> None:
    parts = ("train", "validation", "test")
    rows = [f"w{at:02d} w01 w{at % 7:02d},{'ab'[at % 2]},g{at},{parts[at // 2 % 3]}" for at in range(48)]
    head = "text,label,group,split"
    Path("clean.csv").write_text("\n".join([head, *rows]) + "\n")
    Path("twice.csv").write_text("\n".join([head, *rows, f"{rows[0].split(',')[0]},a,again,test"]) + "\n")
    fast = ("--kind", "nearest-centroid", "--controls", "majority", "--layer", "1", "-q", "--strict")
    assert call("probe", "--model", "TINY", "--data", "clean.csv", *fast).code == 0
    answer = call("probe", "--model", "TINY", "--data", "twice.csv", *fast, "--out", "run")
    assert answer.code == 7
    assert "--strict: 1 of 17 test prompts also stand in training or validation (rows 48)" in answer.err
    result = load("run/result")
    assert isinstance(result, ProbeResult) and result.leakage.counts["duplicate"] == 1
    assert "leaks: 1 of 17" in Path("run/report.html").read_text()


def test_causal_says_in_every_form_whether_the_model_uses_what_is_read(call: Call) -> None:
    fast = ("--kind", "nearest-centroid", "--controls", "majority", "--layer", "1", "--out", "run", "-q")
    answer = call(*ARGUMENTS, *fast, "--causal", "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    assert {f"{edit}-over-random" for edit in ("ablate", "patch", "steer")} <= set(data["numbers"])
    assert [row["dose"] for row in data["tables"]["doses"]["rows"]] == [-2, -1, 0, 1, 2]
    assert json.loads(Path("run/metrics.json").read_text())["tables"] == data["tables"]
    result = load("run/result")
    assert isinstance(result, ProbeResult) and result.causal is not None
    assert result.causal.draws >= 20 and result.causal.rank == 1
    verdict = result.causal.verdict()
    assert data["verdict"].endswith(verdict)
    page, shown = Path("run/report.html").read_text(), call("show", "run").out
    assert "Does the model use it?" in page and html.escape(verdict, quote=False) in html.unescape(page)
    assert "Does the model use it?" in shown and "does not show that the model uses it" not in shown
    assert Path("run/figures/steering.svg").is_file()


def test_without_causal_nothing_is_said_about_use(made: tuple[Path, dict]) -> None:
    assert "effects" not in made[1]["data"]["tables"] and not (made[0] / "figures/steering.svg").exists()
    assert "does not show that the model uses it" in (made[0] / "report.html").read_text()


def test_causal_refuses_a_probe_without_directions_before_any_work(call: Call) -> None:
    answer = call(*ARGUMENTS, "--kind", "mlp", "--causal", "--out", "run")
    assert answer.code == 2 and "has no directions to change" in answer.err
    assert not Path("run").exists()


def test_causal_is_counted_in_the_plan(call: Call) -> None:
    plans = [
        call(*ARGUMENTS, "--layer", "1", "--dry-run", "--json", *extra).envelope["data"]
        for extra in ((), ("--causal",))
    ]
    assert plans[1]["forward_equivalents"] - plans[0]["forward_equivalents"] == 60 * 22 * 6
