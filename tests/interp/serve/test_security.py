"""The guard and the routes under attack: nothing is read, run or lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from interp.serve.app import Explorer, application
from interp.serve.jobs import Queue
from interp.serve.runs import Index
from interp.serve.security import BODY, POLICY
from tests.architecture.syntax import ROOT
from tests.interp.serve.fake import worker

PORT, TOKEN = 4567, "secret-of-this-test"
HERE = f"http://127.0.0.1:{PORT}"
OWN = {"x-interp-token": TOKEN}


def client(queue: Queue | None, places: list[Path]) -> TestClient:
    guarded = application(Explorer(Index(places), queue), TOKEN, PORT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await guarded(scope, receive, send)

    return TestClient(app, base_url=HERE, headers=OWN, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def queue() -> Iterator[Queue]:
    found = Queue(worker())
    found.start()
    yield found
    found.close()


@pytest.fixture
def page(queue: Queue, tmp_path: Path) -> TestClient:
    (tmp_path / "runs").mkdir()
    return client(queue, [tmp_path / "runs"])


def job(page: TestClient, **request: Any) -> Any:
    return page.post("/api/jobs", json={"view": "tokens", "request": request})


def answered(page: TestClient, made: Any) -> dict[str, Any]:
    assert made.status_code == 202, made.text
    for _ in range(400):
        found = page.get(f"/api/jobs/{made.json()['id']}").json()
        if found["state"] not in ("waiting", "running"):
            return found
        time.sleep(0.02)
    raise AssertionError("never answered")


def test_the_page_itself_and_a_job(page: TestClient) -> None:
    start = page.get("/", headers={"x-interp-token": ""})  # no secret is in it
    assert start.status_code == 200 and start.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY and "<script>" not in start.text and "style=" not in start.text
    assert start.headers["x-frame-options"] == "DENY" and start.headers["referrer-policy"] == "no-referrer"
    names = [one["name"] for one in page.get("/api/about").json()["views"]]
    assert names[:3] == ["tokens", "lens", "attention"]
    assert answered(page, job(page, prompt="hello"))["answer"]["html"] == "<p>hello</p>"


def test_what_the_worker_says_before_its_answer_is_passed_on(page: TestClient) -> None:
    made = job(page, prompt="note 0.5")
    found: dict[str, Any] = {"note": "", "state": ""}
    while not found["note"] and found["state"] != "done":
        found = page.get(f"/api/jobs/{made.json()['id']}").json()
    assert (found["state"], found["note"]) == ("running", "about an hour")
    assert answered(page, made)["answer"]["html"] == "<p>note 0.5</p>"


WRONG_HEADS: list[tuple[Mapping[str, str], int]] = [
    ({"host": "evil.example"}, 421),
    ({"host": f"127.0.0.1.evil.example:{PORT}"}, 421),
    ({"host": "127.0.0.1:80"}, 421),
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": f"https://127.0.0.1:{PORT}"}, 403),
    ({"origin": "http://127.0.0.1:8888"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),  # another port of this machine
    ({"x-interp-token": ""}, 401),
    ({"x-interp-token": TOKEN[:-1]}, 401),
    ({"x-interp-token": TOKEN + "x"}, 401),
    ({"x-interp-token": TOKEN.upper()}, 401),
]


@pytest.mark.parametrize(("heads", "status"), WRONG_HEADS)
def test_who_is_not_us_is_refused_everywhere(page: TestClient, heads: Mapping[str, str], status: int) -> None:
    for path in ("/api/about", "/api/runs", "/api/jobs/x", "/api/runs/x"):
        assert page.get(path, headers=heads).status_code == status
    content = {"view": "tokens", "request": {"prompt": "x"}}
    refused = page.post("/api/jobs", json=content, headers=heads)
    assert refused.status_code == status and set(refused.json()) == {"error"}
    assert refused.headers["content-security-policy"] == POLICY


def test_two_hosts_or_two_secrets_are_refused(page: TestClient) -> None:
    twice = [("x-interp-token", TOKEN), ("x-interp-token", TOKEN)]
    plain = TestClient(page.app, base_url=HERE)
    assert plain.get("/api/about", headers=twice).status_code == 401
    assert plain.get("/api/about", headers=[("x-interp-token", TOKEN), ("host", "a:1")]).status_code == 421


def test_a_websocket_is_closed(page: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), page.websocket_connect("/api/jobs"):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"view": "tokens"}',
        b'{"view": 3, "request": {}}',
        b"9" * 5000,
    ],
)
def test_what_is_no_job_is_refused(page: TestClient, content: bytes) -> None:
    heads = {"content-type": "application/json"}
    found = page.post("/api/jobs", content=content, headers=heads)
    assert found.status_code == 400 and len(found.json()["error"]) < 300


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({"prompt": ""}, "nothing given"),
        ({"prompt": 3}, "a int given"),
        ({"prompt": "a", "draws": 1}, "2 to 200"),
        ({"prompt": "a", "draws": 1e9}, "a whole number"),
        ({"prompt": "a", "draws": True}, "a whole number"),
        ({"prompt": "a", "__class__": "x"}, "is not asked for"),
        ({"prompt": "a" * 20_001}, "at most 20,000"),
        ({"prompt": "a\ud800"}, "lone surrogate"),
        ({"prompt": "a", "chat": "yes"}, "true or false"),
    ],
)
def test_a_wrong_request_is_refused_before_the_model_sees_it(
    page: TestClient, request_: dict[str, Any], word: str
) -> None:
    content = json.dumps({"view": "tokens", "request": request_})
    found = page.post("/api/jobs", content=content, headers={"content-type": "application/json"})
    assert found.status_code == 400 and word in found.json()["error"]


def test_only_json_and_only_so_much(page: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert page.post("/api/jobs", content=b"{}", headers={"content-type": kind}).status_code == 415
    huge = {"view": "tokens", "request": {"prompt": "x" * 10_000_000}}
    assert page.post("/api/jobs", json=huge).status_code == 413

    def parts() -> Iterator[bytes]:  # without a length that could be looked at first
        for _ in range(40):
            yield b"x" * (BODY // 20)

    heads = {"content-type": "application/json"}
    assert page.post("/api/jobs", content=parts(), headers=heads).status_code == 413
    for size in ("-1", "x", "9" * 30):
        assert (
            page.post("/api/jobs", content=b"{}", headers={**heads, "content-length": size}).status_code
            == 413
        )


def test_two_hundred_jobs_at_once(page: TestClient, queue: Queue) -> None:
    slow = job(page, prompt="sleep 30")
    while page.get(f"/api/jobs/{slow.json()['id']}").json()["state"] != "running":
        time.sleep(0.01)
    answers = [job(page, prompt=str(n)).status_code for n in range(200)]
    assert answers.count(202) == queue.waiting and answers.count(429) == 200 - queue.waiting
    stopped = page.delete(f"/api/jobs/{slow.json()['id']}")
    assert stopped.status_code == 200
    assert answered(page, slow)["state"] == "stopped"
    while queue.place(submitted := queue.submit("tokens", {"prompt": "last"})) > queue.waiting:
        raise AssertionError
    assert submitted.state in ("waiting", "running", "done")


PATHS = (
    "/../pyproject.toml",
    "/..%2fpyproject.toml",
    "/static/../app.py",
    "/explorer.js/../../app.py",
    "//etc/passwd",
    "/page.css%00.html",
    "/api/runs/../../etc/passwd",
    "/api/runs/..%2f..%2fetc%2fpasswd",
    "/api/runs/%2e%2e/figures/0",
    "/api/runs/x/figures/-1",
    "/api/runs/x/figures/run.json",
    "/pages/x",
    "/api/jobs/../../x",
)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_anywhere(page: TestClient, path: str) -> None:
    for asked in (page, TestClient(page.app, base_url=HERE)):
        assert asked.get(path).status_code in (401, 404)


def test_read_only_serves_runs_without_torch_and_takes_no_job(tmp_path: Path) -> None:
    program = f"""
import sys
from tests.interp.serve.test_security import client, OWN
from pathlib import Path
page = client(None, [Path({str(tmp_path)!r})])
assert page.get("/api/about").json() == {{"model": None, "views": []}}
assert page.get("/api/runs").json() == {{"runs": []}}
refused = page.post("/api/jobs", json={{"view": "tokens", "request": {{"prompt": "x"}}}})
assert refused.status_code == 403, refused.text
assert page.get("/").status_code == 200 and page.get("/api/jobs/x").status_code == 404
heavy = [name for name in ("torch", "transformers", "numpy", "pandas", "matplotlib") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
