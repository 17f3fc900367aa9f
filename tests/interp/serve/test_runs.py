"""Saved runs: found by words, read by id alone, compared; damage and hostile files do no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from interp.errors import ArtifactError, ConfigError
from interp.results import encode, write_atomically
from interp.runs import verify
from interp.runs.integrity import digest, write_manifest
from interp.serve.runs import Index, compared
from tests.architecture.syntax import ROOT
from tests.interp.serve.test_security import client

SCRIPT = "<script>alert(1)</script>"


def made(
    folder: Path, value: float, *, verdict: str = "It is so.", seed: int = 0, started: str = "2026-01-01"
) -> Path:
    """A finished run, as small as can be."""
    number = {"value": value, "low": value - 1, "high": value + 1, "unit": "nats", "meaning": SCRIPT}
    files = {
        "run.json": {
            "schema": "interp.run/1",
            "command": "probe",
            "status": "finished",
            "started": started,
            "configuration": {"task": "capitals", "seed": seed, "model": "demo"},
            "command_line": f"interp probe --seed {seed}",
            "model": {"name": "demo"},
        },
        "metrics.json": {
            "schema": "interp.probe/2",
            "question": "Is it so?",
            "verdict": verdict,
            "numbers": {"accuracy": number},
            "tables": {"t": {"title": SCRIPT, "note": "", "n_rows": 1, "rows": [{"a": SCRIPT}]}},
            "cautions": [],
        },
    }
    for name, content in files.items():
        write_atomically(folder / name, encode(content))
    write_atomically(folder / "report.html", f"<h1>{SCRIPT}</h1>".encode())
    write_atomically(folder / "figures/one.svg", f"<svg>{SCRIPT}</svg>".encode())
    names = (*files, "report.html", "figures/one.svg")
    write_manifest(folder, {name: digest(folder / name) for name in names})
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    made(folder / "first", 1.0)
    made(
        folder / f"named {SCRIPT.replace('/', ' ')}",
        2.5,
        verdict="Quite another.",
        seed=3,
        started="2026-01-02",
    )
    return folder


def only(index: Index, words: str) -> str:
    (row,) = index.rows(words)
    return row["id"]


def test_runs_are_listed_newest_first_and_found_by_words(place: Path) -> None:
    index = Index([place])
    assert [row["started"] for row in index.rows()] == ["2026-01-02", "2026-01-01"]
    assert (
        index.rows("first PROBE")[0]["name"] == "first"
        and index.rows("another demo")[0]["started"] == "2026-01-02"
    )
    assert index.rows("nowhere") == [] and Index([place / "first"]).rows()[0]["name"] == "first"
    with pytest.raises(ConfigError, match="is no folder"):
        Index([place / "none"])


def test_two_runs_side_by_side(place: Path) -> None:
    index = Index([place])
    both = compared(index.run(only(index, "first")), index.run(only(index, "another")))
    (row,) = both["numbers"]
    assert row["difference"] == 1.5 and row["intervals"] == "overlap" and both["alike"]
    assert both["settings"] == [{"name": "seed", "first": "0", "second": "3"}]


def test_what_is_served_of_a_run_cannot_run(place: Path) -> None:
    page = client(None, [place])
    rows = page.get("/api/runs").json()["runs"]
    found = page.get(f"/api/runs/{rows[0]['id']}")
    assert found.headers["content-type"] == "application/json" and found.json()["figures"] == ["one.svg"]
    figure = page.get(f"/api/runs/{rows[0]['id']}/figures/0")
    assert (
        figure.headers["content-type"].startswith("image/svg+xml")
        and "sandbox" in figure.headers["content-security-policy"]
    )
    address = page.get(f"/api/runs/{rows[0]['id']}/page").json()["address"]
    opened = TestClient(page.app, base_url=str(page.base_url)).get(address)  # a new tab has no secret
    policy = opened.headers["content-security-policy"]
    assert opened.status_code == 200 and policy.endswith("sandbox") and "script-src" not in policy
    assert page.get(f"/api/runs/{rows[0]['id']}/figures/1").status_code == 404
    assert page.get(f"/api/compare/{rows[0]['id']}/{'0' * 16}").status_code == 404


def test_links_and_manifests_lead_nowhere(place: Path, tmp_path: Path) -> None:
    outside = made(tmp_path / "outside", 9.0)
    (place / "link").symlink_to(outside, target_is_directory=True)
    assert len(Index([place]).rows()) == 2
    secret = tmp_path / "secret.svg"
    secret.write_text("a secret")
    for name in ("../../secret.svg", str(secret), "figures/../../../secret.svg"):
        bad = made(place / "bad", 1.0)
        listed = json.loads((bad / "manifest.json").read_text())["files"]
        write_manifest(bad, {**listed, name: digest(secret)})
        index = Index([place])
        with pytest.raises(ArtifactError, match="outside the run folder"):
            index.run(only(index, "bad"))
    bad = made(place / "bad", 1.0)
    (bad / "figures/one.svg").unlink()
    (bad / "figures/one.svg").symlink_to(secret)
    write_manifest(bad, {"run.json": digest(bad / "run.json"), "figures/one.svg": digest(secret)})
    index = Index([place])
    with pytest.raises(ArtifactError, match="outside"):
        index.figure(only(index, "bad"), 0)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[" * 100_000, b'{"configuration": 3, "started": [1]}', b"\xff"]
)
def test_a_damaged_run_is_listed_and_spoils_no_other(place: Path, content: bytes) -> None:
    (place / "first" / "run.json").write_bytes(content)
    page = client(None, [place])
    rows = {row["name"]: row for row in page.get("/api/runs").json()["runs"]}
    assert len(rows) == 2 and "first" in rows
    assert page.get(f"/api/runs/{rows['first']['id']}").status_code in (400, 404)
    (place / "first" / "metrics.json").write_bytes(content)
    assert page.get("/api/runs").status_code == 200


def test_a_server_killed_while_a_run_is_read_loses_nothing(place: Path) -> None:
    program = f"""
from pathlib import Path
from interp.serve.runs import Index
index = Index([Path({str(place)!r})])
print("ready", flush=True)
while True:
    for row in index.rows():
        index.run(row["id"]), index.page(row["id"]), index.figure(row["id"], 0)
"""
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    server.stdout.close()
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    for folder in place.iterdir():
        verify(folder)
