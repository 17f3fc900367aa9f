"""interp.runs: a run folder is whole or not there, checked, locked, and never leads outside itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import runs
from interp.errors import ArtifactError, ConfigError
from interp.runs import RunFolder
from interp.runs.integrity import remove_run, state

ROOT = Path(__file__).resolve().parents[2]


def make(path: Path, **arguments: Any) -> RunFolder:
    return RunFolder.create(path, "probe", {"seed": 0}, **arguments)


def finished(path: Path, **arguments: Any) -> Path:
    with make(path, **arguments) as run:
        run.write_json("metrics.json", {"accuracy": 0.5})
        run.write_table("data.parquet", pd.DataFrame({"text": ["a", "b"]}))
        run.write_text("figures/curve.svg", "<svg/>")
        run.log("hello")
        return run.finish(model={"name": "demo"})


def everything(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def test_a_finished_run_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    path = finished(tmp_path / "x")
    listed = json.loads((path / "manifest.json").read_text())["files"]
    assert set(listed) == {"run.json", "metrics.json", "data.parquet", "figures/curve.svg", "log.jsonl"}
    for name, entry in listed.items():
        content = (path / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert everything(path) == {*listed, "manifest.json", "figures"}, "the lock and temporary files are gone"
    facts = runs.verify(path)
    assert (facts["status"], facts["model"], facts["configuration"]) == (
        "finished",
        {"name": "demo"},
        {"seed": 0},
    )


def test_a_damaged_table_of_the_same_size_is_seen_when_a_run_is_opened(tmp_path: Path) -> None:
    path = finished(tmp_path / "x")
    assert runs.open_run(path)["status"] == "finished"
    content = bytearray((path / "data.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "data.parquet").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"data\.parquet is corrupt"):
        runs.open_run(path)


def test_a_file_that_is_no_part_of_a_run_is_named(tmp_path: Path) -> None:
    """In a folder that is read back; what a user puts beside, or among the figures, is no concern of ours."""
    path = finished(tmp_path / "x")
    (path / "notes.txt").write_text("mine")
    (path / "figures" / "own.svg").write_text("<svg/>")
    (path / "activations" / "index").mkdir(parents=True)
    (path / "activations" / ".DS_Store").write_text("")
    runs.verify(path)
    (path / "activations" / "index" / "00007.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"00007\.json is not in the manifest"):
        runs.verify(path)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found_and_its_file_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = finished(tmp_path_factory.mktemp("run") / "x")
    name = data.draw(st.sampled_from(runs.files(path)))
    content = bytearray((path / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (path / name).write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        runs.verify(path)
    assert name in str(caught.value)
    assert caught.value.exit_code == 6


def test_truncated_and_missing_files_are_found_on_opening(tmp_path: Path) -> None:
    path = finished(tmp_path / "x")
    (path / "metrics.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"metrics\.json has 2 bytes"):
        runs.open_run(path)
    (path / "metrics.json").unlink()
    with pytest.raises(ArtifactError, match=r"metrics\.json is missing"):
        runs.open_run(path)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../secret",
        "a/../../secret",
        "C:\\x",
        "link/secret",
        "",
        "figures/../run.json",
        "HERE/run.json",
    ],
)
def test_no_path_out_of_the_folder_is_followed(tmp_path: Path, name: str) -> None:
    path = finished(tmp_path / "x")
    (tmp_path / "secret").write_text("s")
    (path / "link").symlink_to(tmp_path)
    content = json.loads((path / "manifest.json").read_text())
    name = name.replace("HERE", str(path))
    content["files"][name] = {"sha256": hashlib.sha256(b"s").hexdigest(), "bytes": 1}
    (path / "manifest.json").write_text(json.dumps(content))
    for read in (runs.verify, runs.open_run, runs.files):
        with pytest.raises(ArtifactError, match="outside the run folder"):
            read(path)
    finished(path, overwrite=True)
    assert (tmp_path / "secret").read_text() == "s"


@pytest.mark.parametrize("content", ["", "[]", '{"files": {"run.json": 3}}', '{"files": {}}'])
def test_a_damaged_manifest_is_an_artifact_error(tmp_path: Path, content: str) -> None:
    path = finished(tmp_path / "x")
    (path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        runs.verify(path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [0, 1])
def test_a_run_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException], written: int) -> None:
    with pytest.raises(error), make(tmp_path / "a" / "b") as run:
        if written:
            run.write_text("figures/f.svg", "x")
            run.write_text("metrics.json", "{}")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_user_stays_when_a_run_in_it_fails(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError), make(tmp_path / "mine") as run:
        run.write_text("metrics.json", "{}")
        raise ValueError
    assert everything(tmp_path) == {"mine"}


def test_an_existing_run_needs_permission_to_go(tmp_path: Path) -> None:
    path = finished(tmp_path / "x")
    with pytest.raises(ConfigError, match="--overwrite"):
        make(path)
    (path / "notes.txt").write_text("mine")
    (path / "figures" / "own.svg").write_text("mine")
    with make(path, overwrite=True) as run:
        assert (path / "metrics.json").is_file(), "the old run is there until a new file is ready"
        run.write_text("metrics.json", "{}")
        run.finish()
    assert everything(path) == {
        "metrics.json",
        "run.json",
        "log.jsonl",
        "manifest.json",
        "notes.txt",
        "figures",
        "figures/own.svg",
    }
    runs.verify(path)


def test_an_overwriting_run_that_fails_early_leaves_the_old_one_whole(tmp_path: Path) -> None:
    path = finished(tmp_path / "x")
    with pytest.raises(ValueError), make(path, overwrite=True):
        raise ValueError
    runs.verify(path)


def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("all my work")
    for arguments in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ConfigError, match="left alone"):
            make(tmp_path / "thesis", **arguments)
    assert everything(tmp_path) == {"thesis", "thesis/chapter.tex"}


def test_a_file_an_unwritable_place_and_another_command_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        make(tmp_path / "f")
    with pytest.raises(ConfigError, match="cannot be written"):
        make(tmp_path / "f" / "x")
    with pytest.raises(ConfigError, match="cannot be written"):
        make(Path("/proc/x"))
    path = finished(tmp_path / "x")
    with pytest.raises(ConfigError, match="run of `interp probe`, not of `interp capture`"):
        RunFolder.create(path, "capture", {}, overwrite=True)
    assert everything(tmp_path) >= {"f", "x"} and not (path / ".lock").exists()


def interrupted(path: Path, configuration: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt), RunFolder.create(path, "capture", configuration) as run:
        run.begin()
        (path / "activations").mkdir()
        (path / "activations" / "0.safetensors").write_bytes(b"shard")
        run.keep_partial()
        assert run.resumable
        raise KeyboardInterrupt


def test_a_partial_run_is_kept_and_resumed_with_the_same_settings_only(tmp_path: Path) -> None:
    path = tmp_path / "x"
    interrupted(path, {"seed": 0, "batch_size": "auto"})
    with pytest.raises(ArtifactError, match="never finished"):
        runs.open_run(path)
    with pytest.raises(ConfigError, match="--resume"):
        RunFolder.create(path, "capture", {"seed": 0})
    with pytest.raises(ConfigError, match="seed = 0, asked is 1"):
        RunFolder.create(path, "capture", {"seed": 1, "batch_size": "auto"}, resume=True)
    with RunFolder.create(
        path, "capture", {"seed": 0, "batch_size": 4}, identity={"seed"}, resume=True
    ) as run:
        assert run.resumed
        run.add("activations")
        run.finish()
    assert "activations/0.safetensors" in runs.files(path)
    with pytest.raises(ConfigError, match="nothing to resume"):
        RunFolder.create(path, "capture", {"seed": 0}, resume=True)


def test_what_a_crash_left_half_written_in_any_folder_goes_when_it_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with make(path) as run:
        run.write_text("tables/a.csv", "1")
        run.keep_partial()
    left = [path / ".run.json.x.tmp", path / "tables" / ".a.csv.x.tmp", path / "result/objects/0/.x.tmp"]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
    with make(path, resume=True) as run:
        run.write_text("tables/a.csv", "2")
        assert not any(file.exists() for file in left)
        run.finish()


def test_resume_of_nothing_starts_anew_and_excludes_overwrite(tmp_path: Path) -> None:
    with make(tmp_path / "x", resume=True) as run:
        assert not run.resumed
        run.finish()
    with pytest.raises(ConfigError, match="exclude each other"):
        make(tmp_path / "x", resume=True, overwrite=True)


def test_default_names_say_what_and_do_not_collide(tmp_path: Path) -> None:
    paths = []
    for _ in range(3):
        with RunFolder.create(None, "probe", {}, task="../a b/[red]", root=tmp_path / "runs") as run:
            paths.append(run.finish())
    assert len(set(paths)) == 3
    assert all(p.parent == tmp_path / "runs" and p.name.startswith("probe-a-b") for p in paths)
    assert [row["status"] for row in runs.listing(tmp_path / "runs")] == ["finished"] * 3


def test_replacing_a_report_keeps_the_run_sound(tmp_path: Path) -> None:
    path = finished(tmp_path / "x")
    runs.replace(path, "report.html", b"one")
    runs.replace(path, "report.html", b"another")
    runs.verify(path)
    assert "report.html" in runs.files(path)


HOLD = """
    import sys, time
    from pathlib import Path
    from interp.runs import RunFolder
    with RunFolder.create(Path(sys.argv[1]), "probe", {"seed": 0}) as run:
        run.begin()
        print("held", flush=True)
        time.sleep(60)
"""


def test_one_writer_at_a_time_and_a_killed_one_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "x"
    code = [sys.executable, "-c", textwrap.dedent(HOLD), str(path)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        with pytest.raises(ConfigError, match=rf"being written by process {holder.pid} on "):
            make(path)
        holder.kill()
    assert (path / ".lock").is_file(), "the killed process could not clean up"
    finished(path, overwrite=True)
    runs.verify(path)


RACE = """
    import sys
    from pathlib import Path
    from interp.errors import ConfigError
    from interp.runs import RunFolder
    try:
        with RunFolder.create(Path(sys.argv[1]), "probe", {"seed": 0}) as run:
            run.write_text("metrics.json", sys.argv[2])
            run.finish()
    except ConfigError:
        sys.exit(2)
"""


def test_of_many_racing_writers_exactly_one_wins(tmp_path: Path) -> None:
    code = [sys.executable, "-c", textwrap.dedent(RACE), str(tmp_path / "x")]
    racers = [subprocess.Popen([*code, str(i)], cwd=ROOT) for i in range(6)]
    codes = [racer.wait() for racer in racers]
    assert sorted(codes) == [0, 2, 2, 2, 2, 2]
    runs.verify(tmp_path / "x")


def test_cut_off_at_any_removal_a_run_is_still_known_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, seen = Path.unlink, []
    for allowed in range(9):
        path = tmp_path / str(allowed)
        with make(path) as run:
            run.write_text("metrics.json", "{}")
            run.write_text("figures/a.svg", "x")
            run.finish()
        left = [allowed]

        def counted(file: Path, missing_ok: bool = False, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            unlink(file, missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", counted)
            with contextlib.suppress(KeyboardInterrupt):
                remove_run(path)
        seen.append(state(path))
        finished(path, overwrite=True)
        runs.verify(path)
    assert seen[0] == "finished" and seen[1] == "unfinished" and seen[-1] == "absent"
    assert set(seen) == {"finished", "unfinished", "absent"}


KILLED = """
    import sys
    from pathlib import Path
    from interp.runs import RunFolder
    print("go", flush=True)
    while True:
        with RunFolder.create(Path(sys.argv[1]), "probe", {"seed": 0}, overwrite=True) as run:
            run.write_text("metrics.json", "{}")
            run.write_text("figures/a.svg", "x" * 4000)
            run.finish()
"""


def test_killed_at_any_moment_a_run_is_whole_or_known_to_be_unfinished(tmp_path: Path) -> None:
    path, states = tmp_path / "x", []
    code = [sys.executable, "-c", textwrap.dedent(KILLED), str(path)]
    for wait in (0.001, 0.004, 0.009, 0.013, 0.02):
        with subprocess.Popen(code, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
            assert writer.stdout is not None and writer.stdout.readline()
            time.sleep(wait)
            writer.kill()
        try:
            runs.verify(path)
            states.append("whole")
        except ArtifactError as error:
            assert "is not a finished run" in str(error)
            states.append("unfinished")
    finished(path, overwrite=True)
    runs.verify(path)
    assert not list(path.glob(".*")), "what the crashes left is cleared away"
    assert len(states) == 5


def test_nothing_is_added_to_a_finished_run(tmp_path: Path) -> None:
    with make(tmp_path / "x") as run:
        run.finish()
        with pytest.raises(ArtifactError, match="finished already"):
            run.write_text("metrics.json", "{}")


REQUEST = {"site": "resid_post.5", "positions": "last", "dtype": "float32", "scheme": "none", "library": "1"}


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=4),
    st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=4),
)
def test_cache_keys_are_equal_exactly_when_the_token_ids_are(
    one: list[list[int]], other: list[list[int]]
) -> None:
    first, second = (runs.cache_key("w", "t", ids, **REQUEST) for ids in (one, other))
    assert (first == second) == (one == other)


def test_every_part_of_a_request_changes_its_key() -> None:
    keys = {
        runs.cache_key("w", "t", [[1, 2]], **REQUEST),
        runs.cache_key("w2", "t", [[1, 2]], **REQUEST),
        runs.cache_key("w", "t2", [[1, 2]], **REQUEST),
    }
    keys |= {runs.cache_key("w", "t", [[1, 2]], **{**REQUEST, name: "other"}) for name in REQUEST}
    assert len(keys) == 3 + len(REQUEST)
    assert runs.cache_key("wt", "", [[1, 2]], **REQUEST) != runs.cache_key("w", "t", [[1, 2]], **REQUEST)


def test_versions_name_python_and_this_toolkit() -> None:
    found = runs.versions()
    assert found["python"].startswith("3.")
    assert {"interp", "torch", "platform"} <= set(found)
    assert not any(os.sep + "home" in value for value in found.values())
